//! Commands that look after a store: merging, deleting what is no longer needed, the doctor.

use std::sync::Arc;

use tracelake::base::{ByteSize, SystemClock, TenantId};
use tracelake::cli::{self, VacuumOrder};
use tracelake::compact::{CompactSettings, UpkeepSettings};
use tracelake::store::Store;
use tracelake::{doctor as examiner, server};

use super::serve::asked_to_stop;
use super::{DataArg, Outcome, log_to_stderr};

#[derive(clap::Args)]
pub(super) struct CompactArgs {
    #[command(flatten)]
    data: DataArg,
    /// Keep at it until ctrl-C
    #[arg(long)]
    follow: bool,
    /// Merges that run at once
    #[arg(long, env = "TRACELAKE_COMPACT_WORKERS", default_value_t = 1)]
    compact_workers: usize,
    /// Memory for all of them together
    #[arg(long, env = "TRACELAKE_COMPACT_MEMORY_MAX", default_value = "256MiB")]
    compact_memory_max: ByteSize,
    /// Files a tenant's day may have in a table before some are merged
    #[arg(long, env = "TRACELAKE_COMPACT_FILES_MAX", default_value_t = 19)]
    compact_files_max: usize,
    /// Seconds for which a merge whose process fell silent keeps others away
    #[arg(long, env = "TRACELAKE_COMPACT_LEASE_S", default_value_t = 120)]
    compact_lease_s: u64,
    /// What is logged: error, warn, info, debug, trace
    #[arg(long, env = "TRACELAKE_LOG_LEVEL", default_value = "warn")]
    log_level: String,
}

#[derive(clap::Args)]
pub(super) struct VacuumArgs {
    #[command(flatten)]
    data: DataArg,
    /// Only this tenant
    #[arg(long)]
    tenant: Option<TenantId>,
    /// Say what would go, and delete nothing
    #[arg(long)]
    dry_run: bool,
    /// Days that rows are kept, for tenants without a rule of their own
    #[arg(long, env = "TRACELAKE_RETENTION_DAYS")]
    retention_days: Option<u32>,
    /// Seconds that files stay after they left their table; no less than any server's queries may run
    #[arg(long, env = "TRACELAKE_REMOVED_FILES_KEPT_S", default_value_t = 7200)]
    removed_files_kept_s: u64,
    /// Seconds that commits stay in the tables' Delta logs; a day at least
    #[arg(long, env = "TRACELAKE_DELTA_LOG_KEPT_S", default_value_t = 86_400)]
    delta_log_kept_s: u64,
}

#[derive(clap::Args)]
pub(super) struct DoctorArgs {
    #[command(flatten)]
    data: DataArg,
    /// Only this tenant
    #[arg(long)]
    tenant: Option<TenantId>,
    /// Mend what is safe: indexes, checkpoints and hints that are missing or wrong, old orphans
    #[arg(long)]
    fix: bool,
}

pub(super) async fn compact(arguments: CompactArgs) -> Outcome {
    log_to_stderr(&arguments.log_level);
    let settings = CompactSettings {
        memory_max: arguments.compact_memory_max,
        workers: arguments.compact_workers,
        files_max: arguments.compact_files_max,
        lease_s: arguments.compact_lease_s,
        ..Default::default()
    };
    let compactor = server::compactor(&Store::open(arguments.data.data.parse()?).await?, settings)?;
    if arguments.follow {
        let role = compactor.start()?;
        println!("merging files of {} until ctrl-C", arguments.data.data);
        asked_to_stop().await;
        role.stop().await;
        println!("{}", compactor.done());
    } else {
        println!("{}", compactor.run_once().await?);
    }
    match compactor.parked() {
        parked if parked.is_empty() => Ok(()),
        parked => {
            parked.iter().for_each(|parked| eprintln!("{parked}"));
            Err(format!("files of {} days stay as they are", parked.len()).into())
        }
    }
}

pub(super) async fn vacuum(arguments: VacuumArgs) -> Outcome {
    log_to_stderr("warn");
    let settings = UpkeepSettings {
        linger_s: arguments.removed_files_kept_s,
        log_kept_s: arguments.delta_log_kept_s,
        retention_days: arguments.retention_days.filter(|days| *days > 0),
        ..Default::default()
    };
    let VacuumArgs { tenant, dry_run, data, .. } = arguments;
    let order = VacuumOrder { data: data.data.parse()?, tenant, dry_run, settings };
    match cli::vacuum(order, &mut std::io::stdout()).await? {
        true => Ok(()),
        false => Err("some tables could not be vacuumed: see above".into()),
    }
}

pub(super) async fn doctor(arguments: DoctorArgs) -> Outcome {
    log_to_stderr("error");
    let DoctorArgs { data, tenant, fix } = arguments;
    let store = match fix {
        true => Store::open(data.data.parse()?).await?,
        false => Store::open_read_only(data.data.parse()?)?,
    };
    let examination = examiner::examine(store, Arc::new(SystemClock), examiner::Order { tenant, fix }).await?;
    println!("{examination}");
    match examination.is_healthy() {
        true => Ok(()),
        false => Err("this store needs attention: see above".into()),
    }
}
