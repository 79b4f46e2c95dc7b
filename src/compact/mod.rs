//! The upkeep: what is no longer needed goes, in two steps and by reachability.
//!
//! Promises: a file that is live, in use by a query of this process, or removed less than the linger time ago is never
//! deleted; what nothing names goes only when it is a day old. Everything can be done twice, by many at once.
//! Must never know: how rows come in, and what is asked of them.

mod erase;
mod retire;
mod sweep;
mod vacuum;

use crate::base::Kind;
use crate::catalog::CatalogError;
use crate::catalog::system::SystemError;
use crate::store::StoreError;

pub use erase::{EraseSettings, Eraser};
pub use vacuum::{Gone, TableReport, Upkeep, UpkeepSettings, Vacuum};

#[derive(Debug, thiserror::Error)]
pub enum CompactError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    #[error(transparent)]
    System(#[from] SystemError),
    #[error("{path}: {source}")]
    Parquet { path: String, source: parquet::errors::ParquetError },
    #[error("others commit to {table} all the time: writing it again waits")]
    Races { table: &'static str },
    #[error("the upkeep stops")]
    Stopped,
    #[error(
        "this machine's clock is {ahead_s} s ahead of the store's: nothing is deleted by it; set one of them right"
    )]
    Clock { ahead_s: i64 },
}

impl CompactError {
    pub fn kind(&self) -> Kind {
        match self {
            Self::Store(e) => e.kind(),
            Self::Catalog(e) => e.kind(),
            Self::System(e) => e.kind(),
            Self::Parquet { .. } => Kind::Corrupt,
            Self::Clock { .. } | Self::Races { .. } | Self::Stopped => Kind::Unavailable,
        }
    }
}

pub type Result<T, E = CompactError> = std::result::Result<T, E>;

#[cfg(test)]
mod tests;
