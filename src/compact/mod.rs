//! The upkeep: many small files of a day become few large ones, sorted, while rows keep coming and queries keep running.
//!
//! Promises: a rewrite keeps every row or says which became one (I8), and is committed whole or not at all; the same
//! files are never rewritten twice, however many workers there are; memory stays within the room's own budget, whatever
//! the rows weigh (I7); a worker killed anywhere leaves nothing but objects nobody names. What cannot be done is parked
//! where it is seen, and tried again later.
//! What is no longer needed goes in two steps and by reachability: a file that is live, in use by a query of this process,
//! or removed less than the linger time ago is never deleted; what nothing names goes only when it is a day old.
//! Must never know: how rows come in, what is asked of them, who asks.
//!
//! Files are summed up while they are written, by whoever queries them ([`crate::catalog::Rollups`]): where that takes more
//! memory than there is, a file has no roll-up, and queries read its rows.
//!
//! `plan` (pure) says what to do, `lease` whose turn it is, `rewrite` does it, one `worker` after the other.

mod erase;
mod fold;
mod folding;
mod input;
mod lease;
mod ledger;
mod memory;
mod merge;
mod output;
mod pages;
pub mod plan;
mod retire;
mod rewrite;
mod role;
mod sweep;
mod vacuum;
mod weights;
mod worker;
mod workshop;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::{ByteSize, Kind};
use crate::catalog::system::SystemError;
use crate::catalog::{CatalogError, Rollups};
use crate::format::rollup::RollupKind;
use crate::model::tables::Table;
use crate::store::StoreError;

pub use erase::{EraseSettings, Eraser};
pub use fold::{Fold, NoFold};
pub use rewrite::{Rewritten, Workplace, rewrite};
pub use role::Role;
pub use vacuum::{AUDIT_KEPT_DAYS, Gone, TableReport, Upkeep, UpkeepSettings, Vacuum};
pub use worker::{Compactor, Done, Parked};

#[derive(Debug, thiserror::Error)]
pub enum CompactError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    #[error(transparent)]
    System(#[from] SystemError),
    #[error("others commit to {table} all the time: writing it again waits")]
    Races { table: &'static str },
    #[error(
        "this machine's clock is {ahead_s} s ahead of the store's: nothing is deleted by it; set one of them right"
    )]
    Clock { ahead_s: i64 },
    #[error("{path}: {source}")]
    Parquet { path: String, source: parquet::errors::ParquetError },
    #[error("rows of {table} cannot be put together: {source}")]
    Arrow { table: &'static str, source: arrow::error::ArrowError },
    #[error("{path} has a column {column:?} this tracelake does not know: rewriting would lose it; use a newer one")]
    UnknownColumn { path: String, column: String },
    #[error("{path} is corrupt: {reason}")]
    Corrupt { path: String, reason: String },
    #[error("merging files of {table} panicked: a file holds what nobody wrote, or we are wrong")]
    Panicked { table: &'static str },
    #[error("I8: {table}: {reason}")]
    RowsDiffer { table: &'static str, reason: String },
    #[error("merging {files} files takes more than the {limit} of memory one merge may have")]
    OverBudget { files: usize, limit: ByteSize },
    #[error("nothing can be summed up: {0}")]
    Rollups(String),
    #[error("the upkeep's memory is all in use")]
    Busy,
    #[error("the lease {path} was taken over by another worker")]
    LeaseLost { path: String },
    #[error("the upkeep stops")]
    Stopped,
    #[error("the upkeep's settings are wrong: {0}")]
    Settings(String),
    #[error("no threads for the upkeep: {0}")]
    Threads(std::io::Error),
}

impl CompactError {
    pub fn kind(&self) -> Kind {
        match self {
            Self::Store(e) => e.kind(),
            Self::Catalog(e) => e.kind(),
            Self::System(e) => e.kind(),
            Self::Clock { .. } | Self::Races { .. } => Kind::Unavailable,
            Self::Parquet { .. } | Self::UnknownColumn { .. } | Self::Corrupt { .. } => Kind::Corrupt,
            Self::RowsDiffer { .. }
            | Self::Panicked { .. }
            | Self::Arrow { .. }
            | Self::Threads(_)
            | Self::Rollups(_) => Kind::Internal,
            Self::OverBudget { .. } => Kind::LimitReached,
            Self::Busy | Self::LeaseLost { .. } | Self::Stopped => Kind::Unavailable,
            Self::Settings(_) => Kind::Invalid,
        }
    }

    /// What went wrong while `path` was read: the store's own error, if it was that.
    fn reading(path: &str, source: parquet::errors::ParquetError) -> Self {
        match source {
            parquet::errors::ParquetError::External(inner) => match inner.downcast::<StoreError>() {
                Ok(error) => Self::Store(*error),
                Err(inner) => {
                    Self::Parquet { path: path.to_owned(), source: parquet::errors::ParquetError::External(inner) }
                }
            },
            source => Self::Parquet { path: path.to_owned(), source },
        }
    }
}

pub type Result<T, E = CompactError> = std::result::Result<T, E>;

/// What the upkeep may use and when it acts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CompactSettings {
    /// Sealed files have between half of this and twice this. 128MiB to 512MiB make sense.
    pub target_bytes: ByteSize,
    /// Memory for all merges of this process together.
    pub memory_max: ByteSize,
    /// Live files a tenant's day may have in a table before some are merged. Fewer cost more rewriting.
    pub files_max: usize,
    /// A day that is over is sealed when no file came for so long. Rows may wait 25 minutes before they are in one.
    pub quiet_s: u64,
    /// Late changes that touch today's files are folded into them after this long; sooner when they are many.
    pub fold_today_s: u64,
    /// … and those that touch only older ones.
    pub fold_older_s: u64,
    /// How often tables are looked at, those that change; idle ones are looked at less and less, down to once an hour.
    pub interval_s: u64,
    /// Merges that run at once in this process.
    pub workers: usize,
    /// How long a worker that fell silent keeps others away.
    pub lease_s: u64,
}

impl Default for CompactSettings {
    fn default() -> Self {
        Self {
            target_bytes: ByteSize::mib(256),
            memory_max: ByteSize::mib(384),
            files_max: 19,
            quiet_s: 1800,
            fold_today_s: 600,
            fold_older_s: 3600,
            interval_s: 15,
            workers: 1,
            lease_s: 120,
        }
    }
}

impl CompactSettings {
    /// What is planned must be possible also where rows are summed up on the way: else it is planned again and again.
    fn plan(&self, rollups: &dyn Rollups) -> plan::PlanSettings {
        let memory = RollupKind::ALL.into_iter().fold(self.memory_of_one(), |whole, kind| {
            let sums = rollups.memory_max(kind, Table::Observations, u64::MAX);
            sums.and_then(|sums| memory::beside_sums(whole, sums)).unwrap_or(whole)
        });
        plan::PlanSettings {
            target_bytes: self.target_bytes,
            rows_max: memory::Shares::of(memory, 1, None).map_or(u64::MAX, |shares| shares.output_rows_max),
            rows_max_alone: memory::rows_max_alone(memory),
            files_max: self.files_max,
            quiet_us: self.quiet_s.saturating_mul(1_000_000).min(i64::MAX as u64 / 4) as i64,
        }
    }

    fn fold(&self) -> folding::FoldTimes {
        let us = |seconds: u64| seconds.saturating_mul(1_000_000).min(i64::MAX as u64 / 4) as i64;
        folding::FoldTimes { today_us: us(self.fold_today_s), older_us: us(self.fold_older_s) }
    }

    /// Memory that one merge may use.
    fn memory_of_one(&self) -> ByteSize {
        ByteSize(self.memory_max.bytes() / self.workers.max(1) as u64)
    }

    /// Refuses what cannot work, by name.
    pub fn check(&self) -> Result<()> {
        let wrong = |why: String| Err(CompactError::Settings(why));
        if self.workers == 0 {
            return wrong("workers is 0: nothing would ever be merged".to_owned());
        }
        if self.files_max < 4 {
            return wrong(format!("files_max is {}: a day needs at least 4 files between merges", self.files_max));
        }
        if self.target_bytes.bytes() == 0 {
            return wrong("target_bytes is 0".to_owned());
        }
        if self.interval_s == 0 || self.lease_s == 0 {
            return wrong("interval_s and lease_s must be at least 1".to_owned());
        }
        let least = memory::LEAST;
        if self.memory_of_one() < least {
            return wrong(format!(
                "memory_max {} for {} workers leaves less than {least} for one merge",
                self.memory_max, self.workers
            ));
        }
        Ok(())
    }

    fn lease(&self) -> Duration {
        Duration::from_secs(self.lease_s)
    }
}

#[cfg(test)]
mod tests;
