//! The settings of a process, composed once: flag, then environment, then file, then default. Nothing else reads flags
//! or the environment, but for the standard `AWS_*` variables.

mod first_tenant;
mod memory;
mod origins;

use std::fmt;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::base::{ByteSize, WriterId};
use crate::catalog::LOG_KEPT_MIN;
use crate::catalog::keys::FirstTenant;
use crate::compact::{AUDIT_KEPT_DAYS, CompactSettings, EraseSettings, UpkeepSettings};
use crate::ingest::IngestSettings;
use crate::query::QueryLimits;
use crate::server::ServerSettings;
use crate::store::{Location, StoreError};

pub use memory::machine_memory;
use origins::Origins;

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("the configuration file {path} cannot be read: {source}")]
    Unreadable { path: String, source: std::io::Error },
    #[error("the configuration file {path} is wrong: {reason}")]
    File { path: String, reason: String },
    #[error("{0}")]
    Invalid(String),
    #[error(transparent)]
    Location(#[from] StoreError),
    #[error(
        "the memory limits add up to {sum} ({parts}), more than the {machine} this machine or container has: lower them"
    )]
    Memory { sum: ByteSize, parts: String, machine: ByteSize },
}

/// Declares every setting once: as a flag, an environment variable and a key of the file.
macro_rules! settings {
    ($($(#[doc = $doc:literal])* $name:ident: $type:ty, $env:literal;)*) => {
        /// Settings as they are given in one place; what is absent is decided in the next.
        #[derive(Debug, Clone, Default, PartialEq, clap::Args, serde::Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct Given {
            $($(#[doc = $doc])* #[arg(long, env = $env)] pub $name: Option<$type>,)*
        }

        impl Given {
            /// These settings, and `lower` where they are silent.
            fn over(self, lower: Given) -> Given {
                Given { $($name: self.$name.or(lower.$name),)* }
            }
        }
    };
}

settings! {
    /// Where everything is kept: a folder, or s3://bucket/prefix
    data: String, "TRACELAKE_DATA";
    /// Where gRPC listens; port 0 picks one
    grpc_addr: SocketAddr, "TRACELAKE_GRPC_ADDR";
    /// Where HTTP listens; port 0 picks one
    http_addr: SocketAddr, "TRACELAKE_HTTP_ADDR";
    /// Web origins whose pages may ask over HTTP with a key, with commas between, such as https://app.example; default: none
    cors_origin: Text<Origins>, "TRACELAKE_CORS_ORIGIN";
    /// This node's log. Two nodes that run at once need two names; a node keeps its name over restarts
    writer: Text<WriterId>, "TRACELAKE_WRITER";
    /// Whether what other nodes acked is right here before it is in a file: one request a second and node
    follow: bool, "TRACELAKE_FOLLOW";
    /// What is logged: error, warn, info, debug, trace, or directives such as info,tracelake::store=debug
    log_level: String, "TRACELAKE_LOG_LEVEL";
    /// Seconds until rows are in a file of their table; default: 60, and 900 for tenants with little data
    flush_after_s: u64, "TRACELAKE_FLUSH_AFTER_S";
    /// Memory for requests and rows that are not in a file yet; default: 1/8 of the machine's, at most 512MiB
    ingest_memory_max: ByteSize, "TRACELAKE_INGEST_MEMORY_MAX";
    /// Memory for all queries together; default: 1/4 of the machine's
    query_memory_max: ByteSize, "TRACELAKE_QUERY_MEMORY_MAX";
    /// Memory for cached footers of files; default: 1/16 of the machine's, at most 1GiB
    cache_memory_max: ByteSize, "TRACELAKE_CACHE_MEMORY_MAX";
    /// Merge small files into large ones in this process; default: true
    compact: bool, "TRACELAKE_COMPACT";
    /// Memory for all merges of files together; default: 1/16 of the machine's, at least 64MiB and at most 256MiB
    compact_memory_max: ByteSize, "TRACELAKE_COMPACT_MEMORY_MAX";
    /// Merges of files that run at once
    compact_workers: usize, "TRACELAKE_COMPACT_WORKERS";
    /// Files a tenant's day may have in a table before some are merged; fewer cost more rewriting; default: 19
    compact_files_max: usize, "TRACELAKE_COMPACT_FILES_MAX";
    /// Seconds for which a merge whose process fell silent keeps others away; default: 120
    compact_lease_s: u64, "TRACELAKE_COMPACT_LEASE_S";
    /// Seconds a query may run
    query_time_max_s: u64, "TRACELAKE_QUERY_TIME_MAX_S";
    /// Rows a query may answer
    query_rows_max: u64, "TRACELAKE_QUERY_ROWS_MAX";
    /// Queries that run at once; further ones wait
    queries_at_once_max: usize, "TRACELAKE_QUERIES_AT_ONCE_MAX";
    /// Whether this server deletes what is no longer needed; false if another one does
    upkeep: bool, "TRACELAKE_UPKEEP";
    /// Days that rows are kept, for tenants without a rule of their own; default: for ever
    retention_days: u32, "TRACELAKE_RETENTION_DAYS";
    /// Days that the audit of who called for what is kept
    audit_kept_days: u32, "TRACELAKE_AUDIT_KEPT_DAYS";
    /// Seconds that files stay after they left their table, for queries that still read them
    removed_files_kept_s: u64, "TRACELAKE_REMOVED_FILES_KEPT_S";
    /// Seconds that commits stay in the tables' Delta logs; a day at least
    delta_log_kept_s: u64, "TRACELAKE_DELTA_LOG_KEPT_S";
    /// Seconds that objects of the ingest log stay after their rows are in files
    ingest_log_kept_s: u64, "TRACELAKE_INGEST_LOG_KEPT_S";
    /// Seconds after which every server has heard of an erasure, and files are written again without what was erased
    erase_after_s: u64, "TRACELAKE_ERASE_AFTER_S";
    /// Seconds that objects which nothing names stay: longer than the slowest flush or merge takes
    orphans_kept_s: u64, "TRACELAKE_ORPHANS_KEPT_S";
}

/// The flags of `tracelake serve`.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ServeArgs {
    /// A TOML file with the settings below, underscores for hyphens
    #[arg(long, env = "TRACELAKE_CONFIG")]
    pub config: Option<PathBuf>,
    #[command(flatten)]
    pub given: Given,
}

/// What is in effect.
#[derive(Clone)]
pub struct Settings {
    pub data: Location,
    pub grpc_addr: SocketAddr,
    pub http_addr: SocketAddr,
    pub cors_origins: Vec<String>,
    pub writer: WriterId,
    pub follow: bool,
    pub log_level: String,
    /// One time for all tenants; else busy and quiet ones have their own.
    pub flush_after: Option<Duration>,
    pub ingest_memory_max: ByteSize,
    pub query_memory_max: ByteSize,
    pub cache_memory_max: ByteSize,
    /// `None`: this process merges no files.
    pub compact: Option<CompactSettings>,
    pub query_time_max: Duration,
    pub query_rows_max: u64,
    pub queries_at_once_max: usize,
    pub upkeep: bool,
    pub retention_days: Option<u32>,
    pub audit_kept_days: u32,
    pub removed_files_kept: Duration,
    pub ingest_log_kept: Duration,
    pub erase_after: Duration,
    pub orphans_kept: Duration,
    pub delta_log_kept: Duration,
    /// Created at start when absent.
    pub first_tenant: Option<FirstTenant>,
    /// The machine's memory or the container's limit, if the system says.
    pub machine_memory: Option<ByteSize>,
}

/// Above this share of the machine's memory a start is worth a warning: code, stacks and the allocator need some too.
const MEMORY_SHARE_WARNED: f64 = 0.8;
/// Files stay longer than a query may run by this much: clocks differ, and a plan is older than its run.
const QUERY_MARGIN: Duration = Duration::from_secs(600);
/// Where the system does not say how much memory there is.
const MACHINE_MEMORY_ASSUMED: ByteSize = ByteSize::gib(4);
/// The defaults of limits that follow the machine do not grow beyond these: more helps nobody.
const INGEST_MEMORY_DEFAULT_MAX: ByteSize = ByteSize::mib(512);
const CACHE_MEMORY_DEFAULT_MAX: ByteSize = ByteSize::gib(1);
const COMPACT_MEMORY_DEFAULT_MAX: ByteSize = ByteSize::mib(384);
/// Less would merge wide rows in many small steps.
const COMPACT_MEMORY_DEFAULT_MIN: ByteSize = ByteSize::mib(64);

/// A flush of a full buffer to a slow store takes minutes.
const ORPHANS_KEPT_MIN: Duration = Duration::from_secs(900);

impl ServeArgs {
    /// The settings in effect on this machine.
    pub fn settings(self) -> Result<Settings, ConfigError> {
        let environment = |name: &str| std::env::var(name).ok();
        self.settings_on(machine_memory(), environment)
    }

    fn settings_on(
        self,
        machine: Option<ByteSize>,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Settings, ConfigError> {
        let file = self.config.as_deref().map(read_file).transpose()?.unwrap_or_default();
        let given = self.given.over(file);
        let memory = machine.unwrap_or(MACHINE_MEMORY_ASSUMED).bytes();
        let part = |share: u64, most: ByteSize| ByteSize((memory / share).min(most.bytes()));
        let compact = CompactSettings {
            memory_max: given
                .compact_memory_max
                .unwrap_or(part(16, COMPACT_MEMORY_DEFAULT_MAX).max(COMPACT_MEMORY_DEFAULT_MIN)),
            workers: given.compact_workers.unwrap_or(CompactSettings::default().workers),
            files_max: given.compact_files_max.unwrap_or(CompactSettings::default().files_max),
            lease_s: given.compact_lease_s.unwrap_or(CompactSettings::default().lease_s),
            ..Default::default()
        };
        let settings = Settings {
            data: given.data.as_deref().unwrap_or("tracelake-data").parse()?,
            grpc_addr: given.grpc_addr.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 4317))),
            http_addr: given.http_addr.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 4318))),
            cors_origins: given.cors_origin.map(|origins| origins.0.0).unwrap_or_default(),
            writer: match given.writer {
                Some(writer) => writer.0,
                None => "main".parse().map_err(|e| ConfigError::Invalid(format!("{e}")))?,
            },
            follow: given.follow.unwrap_or(true),
            log_level: given.log_level.unwrap_or_else(|| "info".to_owned()),
            flush_after: given.flush_after_s.map(Duration::from_secs),
            ingest_memory_max: given.ingest_memory_max.unwrap_or(part(8, INGEST_MEMORY_DEFAULT_MAX)),
            query_memory_max: given.query_memory_max.unwrap_or(part(4, ByteSize(u64::MAX))),
            cache_memory_max: given.cache_memory_max.unwrap_or(part(16, CACHE_MEMORY_DEFAULT_MAX)),
            compact: given.compact.unwrap_or(true).then_some(compact),
            query_time_max: Duration::from_secs(given.query_time_max_s.unwrap_or(300)),
            query_rows_max: given.query_rows_max.unwrap_or(10_000_000),
            queries_at_once_max: given.queries_at_once_max.unwrap_or(16),
            upkeep: given.upkeep.unwrap_or(true),
            retention_days: given.retention_days,
            audit_kept_days: given.audit_kept_days.unwrap_or(AUDIT_KEPT_DAYS),
            removed_files_kept: Duration::from_secs(given.removed_files_kept_s.unwrap_or(2 * 3600)),
            ingest_log_kept: Duration::from_secs(given.ingest_log_kept_s.unwrap_or(3600)),
            erase_after: Duration::from_secs(given.erase_after_s.unwrap_or(60)),
            orphans_kept: Duration::from_secs(given.orphans_kept_s.unwrap_or(86_400)),
            delta_log_kept: Duration::from_secs(given.delta_log_kept_s.unwrap_or(LOG_KEPT_MIN.as_secs())),
            first_tenant: first_tenant::read(environment)?,
            machine_memory: machine,
        };
        settings.check()?;
        Ok(settings)
    }
}

fn read_file(path: &Path) -> Result<Given, ConfigError> {
    let shown = path.display().to_string();
    let text = fs::read_to_string(path).map_err(|source| ConfigError::Unreadable { path: shown.clone(), source })?;
    toml::from_str(&text).map_err(|e| ConfigError::File { path: shown, reason: e.to_string() })
}

impl Settings {
    /// What the server is told.
    pub fn server(&self) -> ServerSettings {
        let mut ingest = IngestSettings {
            buffer_bytes_max: self.ingest_memory_max,
            log_kept_s: self.ingest_log_kept.as_secs(),
            follow: self.follow,
            ..Default::default()
        };
        if let Some(after) = self.flush_after {
            ingest.flush_after_s = after.as_secs();
            ingest.flush_quiet_after_s = after.as_secs();
        }
        let query = QueryLimits {
            memory_all: self.query_memory_max,
            memory_max: ByteSize(self.query_memory_max.bytes() / 2),
            footers_max: self.cache_memory_max,
            time_ms_max: self.query_time_max.as_millis() as u64,
            rows_max: self.query_rows_max,
            concurrent_max: self.queries_at_once_max,
            ..Default::default()
        };
        let upkeep = UpkeepSettings {
            linger_s: self.removed_files_kept.as_secs(),
            log_kept_s: self.delta_log_kept.as_secs(),
            retention_days: self.retention_days,
            audit_kept_days: self.audit_kept_days,
            orphans_kept_s: self.orphans_kept.as_secs(),
            ..Default::default()
        };
        let erase = EraseSettings {
            settle_s: self.erase_after.as_secs(),
            linger_s: self.removed_files_kept.as_secs(),
            orphans_kept_s: self.orphans_kept.as_secs(),
            log_kept_s: self.ingest_log_kept.as_secs(),
            look_every_s: self.erase_after.as_secs().clamp(1, 30),
            ..Default::default()
        };
        ServerSettings {
            data: self.data.clone(),
            grpc_addr: self.grpc_addr,
            http_addr: self.http_addr,
            cors_origins: self.cors_origins.clone(),
            writer: self.writer.clone(),
            ingest,
            query,
            upkeep: self.upkeep.then_some(upkeep),
            erase: self.upkeep.then_some(erase),
            compact: self.compact.clone(),
            first: self.first_tenant.clone(),
        }
    }

    /// The limits of memory and their names.
    fn memory_parts(&self) -> [(&'static str, ByteSize); 5] {
        // Where files are merged, erasures share that memory.
        let erasing = self.upkeep && self.compact.is_none();
        [
            ("erase_memory", if erasing { EraseSettings::default().memory_max } else { ByteSize(0) }),
            ("compact_memory_max", self.compact.as_ref().map_or(ByteSize(0), |compact| compact.memory_max)),
            ("ingest_memory_max", self.ingest_memory_max),
            ("query_memory_max", self.query_memory_max),
            ("cache_memory_max", self.cache_memory_max),
        ]
    }

    /// All memory that the limits allow together (I7).
    pub fn memory_max(&self) -> ByteSize {
        ByteSize(self.memory_parts().iter().fold(0, |sum: u64, (_, size)| sum.saturating_add(size.bytes())))
    }

    fn check(&self) -> Result<(), ConfigError> {
        let zero = [
            ("query_time_max_s", self.query_time_max.is_zero()),
            ("query_rows_max", self.query_rows_max == 0),
            ("queries_at_once_max", self.queries_at_once_max == 0),
        ];
        if let Some((name, _)) = zero.iter().find(|(_, is_zero)| *is_zero) {
            return Err(ConfigError::Invalid(format!("{name} is 0, which would refuse every query")));
        }
        if self.flush_after.is_some_and(|after| after.is_zero()) {
            return Err(ConfigError::Invalid(
                "flush_after_s is 0, which would write a file for every request".to_owned(),
            ));
        }
        let longest_query = self.query_time_max + QUERY_MARGIN;
        if self.removed_files_kept < longest_query {
            return Err(ConfigError::Invalid(format!(
                "removed_files_kept_s is {}, and a query may run {} s: it needs {} at least",
                self.removed_files_kept.as_secs(),
                self.query_time_max.as_secs(),
                longest_query.as_secs()
            )));
        }
        if self.orphans_kept < ORPHANS_KEPT_MIN {
            return Err(ConfigError::Invalid(format!(
                "orphans_kept_s is below {}: what a slow flush is about to name would be deleted",
                ORPHANS_KEPT_MIN.as_secs()
            )));
        }
        if self.delta_log_kept < LOG_KEPT_MIN {
            return Err(ConfigError::Invalid(format!(
                "delta_log_kept_s is below {}: whoever follows a log relies on a day of it",
                LOG_KEPT_MIN.as_secs()
            )));
        }
        if self.retention_days == Some(0) {
            return Err(ConfigError::Invalid(
                "retention_days is 0, which would drop every row; leave it out".to_owned(),
            ));
        }
        if let Some(compact) = &self.compact {
            compact.check().map_err(|e| ConfigError::Invalid(format!("{e}")))?;
        }
        let sum = self.memory_max();
        match self.machine_memory {
            Some(machine) if sum.bytes() > machine.bytes() => {
                let parts: Vec<String> =
                    self.memory_parts().iter().map(|(name, size)| format!("{name} {size}")).collect();
                Err(ConfigError::Memory { sum, parts: parts.join(", "), machine })
            }
            _ => Ok(()),
        }
    }

    /// Settings of a demo's server: a folder of its own, free ports.
    pub fn for_demo(data: Location) -> Result<Self, ConfigError> {
        let free = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
        let given = Given { grpc_addr: free, http_addr: free, ..Given::default() };
        let settings = ServeArgs { config: None, given }.settings_on(machine_memory(), |_| None)?;
        Ok(Self { data, ..settings })
    }

    /// Says once what is in effect, and what deserves a second look.
    pub fn log(&self) {
        tracing::info!("settings in effect: {self}");
        let Some(machine) = self.machine_memory else {
            tracing::warn!("the system does not say how much memory there is: the memory limits are not checked");
            return;
        };
        let sum = self.memory_max();
        if sum.bytes() as f64 > machine.bytes() as f64 * MEMORY_SHARE_WARNED {
            tracing::warn!("the memory limits add up to {sum} of {machine}: leave a fifth to the rest of the process");
        }
    }
}

/// One line, secrets masked.
impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "data={} grpc_addr={} http_addr={} writer={} follow={} log_level={:?}",
            self.data, self.grpc_addr, self.http_addr, self.writer, self.follow, self.log_level
        )?;
        for (name, size) in self.memory_parts() {
            write!(f, " {name}={size}")?;
        }
        if let Some(after) = self.flush_after {
            write!(f, " flush_after_s={}", after.as_secs())?;
        }
        match &self.compact {
            Some(compact) => {
                write!(f, " compact=true compact_workers={}", compact.workers)?;
                write!(f, " compact_files_max={} compact_lease_s={}", compact.files_max, compact.lease_s)?;
            }
            None => write!(f, " compact=false")?,
        }
        let time_s = self.query_time_max.as_secs();
        write!(f, " query_time_max_s={time_s} query_rows_max={}", self.query_rows_max)?;
        write!(f, " queries_at_once_max={} upkeep={}", self.queries_at_once_max, self.upkeep)?;
        if let Some(days) = self.retention_days {
            write!(f, " retention_days={days}")?;
        }
        write!(f, " audit_kept_days={}", self.audit_kept_days)?;
        write!(f, " removed_files_kept_s={}", self.removed_files_kept.as_secs())?;
        write!(f, " ingest_log_kept_s={}", self.ingest_log_kept.as_secs())?;
        write!(f, " erase_after_s={}", self.erase_after.as_secs())?;
        write!(f, " orphans_kept_s={}", self.orphans_kept.as_secs())?;
        write!(f, " delta_log_kept_s={}", self.delta_log_kept.as_secs())?;
        if !self.cors_origins.is_empty() {
            write!(f, " cors_origin={}", self.cors_origins.join(","))?;
        }
        if let Some(first) = &self.first_tenant {
            write!(f, " init_tenant={}", first.tenant)?;
            if let Some((public_key, _)) = &first.key {
                write!(f, " init_public_key={public_key} init_secret_key=***")?;
            }
        }
        Ok(())
    }
}

/// A value that is text in flags and files.
#[derive(Debug, Clone, PartialEq)]
pub struct Text<T>(pub T);

impl<T: std::str::FromStr> std::str::FromStr for Text<T> {
    type Err = T::Err;

    fn from_str(text: &str) -> Result<Self, T::Err> {
        text.parse().map(Self)
    }
}

impl<'de, T: std::str::FromStr<Err: fmt::Display>> serde::Deserialize<'de> for Text<T> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <String as serde::Deserialize>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests;
