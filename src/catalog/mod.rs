//! Which files are live: snapshots and commits of every tenant's tables; tenants and keys.
//!
//! Promises: a commit is all or nothing and happens once, whatever the store replies; an append is in the table exactly
//! when the writer's position says so; a snapshot never changes.
//! Must never know: how rows come in or what is asked of them.

mod commit;
mod fresh;
pub mod keys;
mod recent;
mod snapshot;
pub mod system;
mod table;
pub mod tenants;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::base::{Clock, Kind, TenantId};
use crate::format::FormatError;
use crate::model::tables::Table;
use crate::store::{Store, StoreError};

pub use commit::{Append, Change, Committed, NewFile};
pub use fresh::{FreshRows, NoFreshRows, PinnedRows};
pub use snapshot::{DataFile, Positions, Snapshot};
use table::TableState;

#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{path}: {source}")]
    Format { path: String, source: FormatError },
    #[error("a rewrite of {table} is void: {path} is no longer live")]
    InputGone { table: &'static str, path: String },
    #[error("{table} of tenant {tenant}: {reason}")]
    Corrupt { tenant: TenantId, table: &'static str, reason: String },
}

impl CatalogError {
    pub fn kind(&self) -> Kind {
        match self {
            Self::Store(e) => e.kind(),
            Self::InputGone { .. } => Kind::Unavailable,
            Self::Format { .. } | Self::Corrupt { .. } => Kind::Corrupt,
        }
    }
}

pub type Result<T, E = CatalogError> = std::result::Result<T, E>;

/// All tables of all tenants in one store, loaded when first asked for. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Catalog {
    store: Store,
    clock: Arc<dyn Clock>,
    tables: Arc<Mutex<Tables>>,
}

type Tables = HashMap<(TenantId, Table), Arc<TableState>>;

impl Catalog {
    pub fn new(store: Store, clock: Arc<dyn Clock>) -> Self {
        Self { store, clock, tables: Arc::default() }
    }

    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The table as it stands: never stale as to this process's commits, at most a second as to other nodes'.
    ///
    /// A table not seen before is loaded once (one LIST, then its commits), however many ask at the same time.
    pub async fn snapshot(&self, tenant: &TenantId, table: Table) -> Result<Arc<Snapshot>> {
        self.table(tenant, table).fresh_snapshot().await
    }

    /// The table as this process last saw it; loads it if it never did. For those who will commit anyway.
    pub async fn known_snapshot(&self, tenant: &TenantId, table: Table) -> Result<Arc<Snapshot>> {
        self.table(tenant, table).known_snapshot().await
    }

    /// The table as this process last saw it, if it ever did: no request. What it flushed itself is in it.
    pub fn loaded_snapshot(&self, tenant: &TenantId, table: Table) -> Option<Arc<Snapshot>> {
        let state = self.tables.lock().get(&(tenant.clone(), table)).cloned();
        state?.verified_within(Duration::MAX)
    }

    /// Commits one change. On `Ok(Committed::Done)` the commit object is durable and in this process's snapshot.
    pub async fn commit(&self, tenant: &TenantId, table: Table, change: Change) -> Result<Committed> {
        self.table(tenant, table).commit(change).await
    }

    fn table(&self, tenant: &TenantId, table: Table) -> Arc<TableState> {
        let mut tables = self.tables.lock();
        let state = tables.entry((tenant.clone(), table)).or_insert_with(|| {
            Arc::new(TableState::new(self.store.clone(), Arc::clone(&self.clock), tenant.clone(), table))
        });
        Arc::clone(state)
    }
}

#[cfg(test)]
mod tests;
