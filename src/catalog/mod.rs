//! Which files are live: snapshots and commits of every tenant's tables; tenants and keys.
//!
//! Promises: a commit is all or nothing and happens once, whatever the store's replies; a snapshot never changes.
//! Must never know: how rows come in or what is asked of them.

mod fresh;
mod snapshot;

pub use fresh::{FreshRows, NoFreshRows, PinnedRows};
pub use snapshot::{DataFile, Positions, Snapshot};

use std::sync::Arc;

use crate::base::{Kind, TenantId};
use crate::model::tables::Table;
use crate::store::{Store, StoreError};

#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{table} of tenant {tenant}: {reason}")]
    Corrupt { tenant: TenantId, table: &'static str, reason: String },
}

impl CatalogError {
    pub fn kind(&self) -> Kind {
        match self {
            Self::Store(e) => e.kind(),
            Self::Corrupt { .. } => Kind::Corrupt,
        }
    }
}

#[derive(Debug, Clone)]
pub struct Catalog {
    store: Store,
}

impl Catalog {
    pub fn new(store: Store) -> Self {
        Self { store }
    }
    pub fn store(&self) -> &Store {
        &self.store
    }
    /// The table as it stands, at most one second stale as to other nodes' commits, never stale as to ours.
    pub async fn snapshot(&self, _tenant: &TenantId, _table: Table) -> Result<Arc<Snapshot>, CatalogError> {
        Ok(Arc::new(Snapshot::default()))
    }
}
