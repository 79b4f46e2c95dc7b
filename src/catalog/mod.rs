//! Which files are live: snapshots and commits of every tenant's tables; tenants, keys and prices.
//!
//! Promises: a commit is all or nothing and happens once, whatever the store replies; an append is in the table exactly
//! when the writer's position says so; a snapshot never changes.
//! Must never know: how rows come in or what is asked of them.

pub mod administration;
pub mod audit;
mod changes;
mod checkpoint;
mod clean;
mod commit;
pub mod dimensions;
mod erase;
pub mod erasures;
mod filters;
mod fresh;
pub mod keys;
mod late;
mod load;
mod lookup;
pub mod maskings;
pub mod media;
mod numbered;
pub mod prices;
mod reader;
mod recent;
mod reports;
pub mod retention;
mod rollups;
pub mod score_configs;
mod snapshot;
pub mod system;
mod table;
pub mod tenants;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::base::{Clock, Kind, TenantId, TimestampUs, WriterId};
use crate::format::FormatError;
use crate::format::index::IndexObject;
use crate::model::tables::Table;
use crate::store::{Store, StoreError};

use audit::Audit;
pub use changes::{BatchKeys, Changes, RowKey, RowKeys, row_key, stamped};
pub use checkpoint::CHECKPOINT_EVERY;
pub use clean::LOG_KEPT_MIN;
pub use commit::{Append, Change, Checked, Committed, NewFile, Rewrite};
use dimensions::Dimensions;
pub use erase::ERASED_FROM;
use erasures::Erasures;
use filters::Filters;
pub use filters::KEY_FILTERS_MAX;
pub use fresh::{FilesOnly, Fresh, FreshRows, FreshTable, NoFreshRows, PinnedRows};
pub use late::Late;
pub use lookup::{Asked, StandingRow};
use maskings::Maskings;
use media::Media;
use prices::PriceBooks;
pub use reader::FileReader;
pub use rollups::{NoRollups, RollupWriter, Rollups};
pub use snapshot::{DataFile, Positions, RemovedFile, Snapshot};
use system::{SystemError, SystemObjects};
pub use table::Appended;
use table::TableState;

#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{path}: {source}")]
    Format { path: String, source: FormatError },
    #[error("{path}: {source}")]
    Parquet { path: String, source: ::parquet::errors::ParquetError },
    #[error("a rewrite of {table} is void: {path} is no longer live")]
    InputGone { table: &'static str, path: String },
    #[error(
        "this process slept for hours before it committed to {table}: what it had put may be gone, and is put again"
    )]
    Slept { table: &'static str },
    #[error(transparent)]
    System(Box<SystemError>),
    #[error("{table} of tenant {tenant}: {reason}")]
    Corrupt { tenant: TenantId, table: &'static str, reason: String },
}

impl CatalogError {
    pub fn kind(&self) -> Kind {
        match self {
            Self::Store(e) => e.kind(),
            Self::System(e) => e.kind(),
            Self::InputGone { .. } | Self::Slept { .. } => Kind::Unavailable,
            // A file that cannot be reached and one that cannot be read look alike from here; the first is far likelier.
            Self::Parquet { .. } => Kind::Unavailable,
            Self::Format { .. } | Self::Corrupt { .. } => Kind::Corrupt,
        }
    }
}

impl From<SystemError> for CatalogError {
    fn from(error: SystemError) -> Self {
        Self::System(Box::new(error))
    }
}

pub type Result<T, E = CatalogError> = std::result::Result<T, E>;

/// All tables of all tenants in one store, loaded when first asked for. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Catalog {
    store: Store,
    clock: Arc<dyn Clock>,
    tables: Arc<Mutex<Tables>>,
    filters: Arc<Filters>,
    erasures: Erasures,
    prices: PriceBooks,
    audit: Audit,
    dimensions: Dimensions,
    maskings: Maskings,
    media: Media,
}

type Tables = HashMap<(TenantId, Table), Arc<TableState>>;

impl Catalog {
    pub fn new(store: Store, clock: Arc<dyn Clock>) -> Self {
        let filters = Arc::new(Filters::new(store.clone()));
        let objects = SystemObjects::new(store.clone(), Arc::clone(&clock));
        let (erasures, prices) = (Erasures::new(objects.clone()), PriceBooks::new(objects.clone()));
        let (dimensions, maskings) = (Dimensions::new(objects.clone()), Maskings::new(objects.clone()));
        let (audit, media) = (Audit::new(objects.clone()), Media::new(store.clone(), objects));
        Self { store, clock, tables: Arc::default(), filters, erasures, prices, audit, dimensions, maskings, media }
    }

    /// By the clock that stamps commits.
    pub fn now_us(&self) -> TimestampUs {
        self.clock.now_us()
    }

    pub fn store(&self) -> &Store {
        &self.store
    }

    /// What was asked to be forgotten, in all tenants.
    pub fn erasures(&self) -> &Erasures {
        &self.erasures
    }

    /// What models cost, for every tenant.
    pub fn prices(&self) -> &PriceBooks {
        &self.prices
    }

    /// Who called for what, in all tenants.
    pub fn audit(&self) -> &Audit {
        &self.audit
    }

    /// What in metadata names the tenants' own customers, projects and flows.
    pub fn dimensions(&self) -> &Dimensions {
        &self.dimensions
    }

    /// What clients take out of what they trace.
    pub fn media(&self) -> &Media {
        &self.media
    }

    /// What the tenants want taken out of what they send.
    pub fn maskings(&self) -> &Maskings {
        &self.maskings
    }

    /// The table as it stands: never stale as to this process's commits, at most a second as to other nodes'.
    ///
    /// A table not seen before is loaded once (its checkpoint and the commits after it), however many ask at the same
    /// time.
    pub async fn snapshot(&self, tenant: &TenantId, table: Table) -> Result<Arc<Snapshot>> {
        self.table(tenant, table).fresh_snapshot().await
    }

    /// The table as it stood at some moment after the last commit of another process to table `other` was seen here.
    /// Whoever commits to two tables in one order, and reads them in the other, then misses nothing between the two.
    pub async fn snapshot_after(&self, tenant: &TenantId, table: Table, other: Table) -> Result<Arc<Snapshot>> {
        match self.table(tenant, other).foreign_seen() {
            Some(seen) => self.snapshot_since(tenant, table, seen).await,
            None => self.snapshot(tenant, table).await,
        }
    }

    /// The table as it stood at some moment after `since`: with all that any process had committed by then.
    pub async fn snapshot_since(&self, tenant: &TenantId, table: Table, since: Instant) -> Result<Arc<Snapshot>> {
        self.table(tenant, table).snapshot_since(since).await
    }

    /// The table as it stands now, for all processes: one request at least.
    pub async fn snapshot_now(&self, tenant: &TenantId, table: Table) -> Result<Arc<Snapshot>> {
        self.snapshot_since(tenant, table, Instant::now()).await
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
        let state = self.table(tenant, table);
        let committed = state.commit(change).await?;
        if let Committed::Done { version } = committed
            && checkpoint::is_due(version)
        {
            self.checkpoint_behind(state);
        }
        Ok(committed)
    }

    /// Whether this process has read the table already: then it costs nothing to look at it.
    pub fn knows(&self, tenant: &TenantId, table: Table) -> bool {
        let state = self.tables.lock().get(&(tenant.clone(), table)).cloned();
        state.is_some_and(|state| state.verified_within(std::time::Duration::MAX).is_some())
    }

    /// The snapshots that somebody in this process still uses, the newest among them: their files must stay.
    pub fn held(&self, tenant: &TenantId, table: Table) -> Vec<Arc<Snapshot>> {
        self.table(tenant, table).held()
    }

    /// Says that removed files and late objects are no longer in the store.
    pub fn forget_removed(&self, tenant: &TenantId, table: Table, paths: &[String], late: &[u64]) {
        self.table(tenant, table).forget_removed(paths, late);
    }

    /// What appends of `writer` above its position `above` found in the table already.
    pub async fn merged_above(
        &self,
        tenant: &TenantId,
        table: Table,
        writer: &WriterId,
        above: u64,
    ) -> Result<Vec<Appended>> {
        self.table(tenant, table).merged_above(writer, above).await
    }

    /// Keeps the key filters of a commit of ours, so that they need not be read back.
    pub fn remember_index(&self, tenant: &TenantId, table: Table, id: &str, index: &IndexObject) {
        self.filters.remember(tenant, table, id, index);
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
