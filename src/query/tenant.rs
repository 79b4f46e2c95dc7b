//! All that one query can name: the tables of its tenant, each pinned at one moment when it is first used (I5).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::information_schema::{INFORMATION_SCHEMA, InformationSchemaProvider};
use datafusion::catalog::{CatalogProvider, CatalogProviderList, SchemaProvider};
use datafusion::datasource::TableProvider;
use datafusion::error::DataFusionError;
use parking_lot::Mutex;

use super::error::QueryError;
use super::footers::Footers;
use super::provider::{TableAt, Touched};
use super::sensitive;
use super::system_tables::{SENSITIVE_USE, SystemTables};
use crate::base::{Clock, SystemClock, TenantId, TimestampUs};
use crate::catalog::audit::AuditRow;
use crate::catalog::erasures::ErasureStatus;
use crate::catalog::media::Medium;
use crate::catalog::system::SystemError;
use crate::catalog::{Catalog, CatalogError, PinnedRows, Snapshot};
use crate::model::tables::Table;
use crate::price::Prices;
use crate::store::Store;

pub(super) const CATALOG: &str = "tracelake";
pub(super) const SCHEMA: &str = "public";

/// Where snapshots come from.
#[async_trait]
pub(super) trait Snapshots: Send + Sync {
    async fn snapshot(&self, tenant: &TenantId, table: Table) -> Result<Arc<Snapshot>, CatalogError>;

    /// The tenant's erasures, oldest first.
    async fn erasures(&self, _: &TenantId) -> Result<Vec<ErasureStatus>, SystemError> {
        Ok(Vec::new())
    }

    /// What the tenant's rows are priced by now.
    async fn prices(&self, _: &TenantId) -> Result<Arc<Prices>, SystemError> {
        Ok(Prices::built_in())
    }

    /// Who called for what of the tenant's, oldest first.
    async fn audit(&self, _: &TenantId) -> Result<Vec<AuditRow>, SystemError> {
        Ok(Vec::new())
    }

    /// The tenant's media, by id.
    async fn media(&self, _: &TenantId) -> Result<Vec<Medium>, SystemError> {
        Ok(Vec::new())
    }

    fn now_us(&self) -> TimestampUs {
        SystemClock.now_us()
    }
}

#[async_trait]
impl Snapshots for Catalog {
    async fn snapshot(&self, tenant: &TenantId, table: Table) -> Result<Arc<Snapshot>, CatalogError> {
        Catalog::snapshot(self, tenant, table).await
    }

    async fn erasures(&self, tenant: &TenantId) -> Result<Vec<ErasureStatus>, SystemError> {
        let erasures = Catalog::erasures(self);
        // Who takes nothing in does not follow them.
        erasures.catch_up().await?;
        let mut all = Vec::new();
        for erasure in erasures.of_tenant(tenant) {
            all.push(erasures.status(erasure).await?);
        }
        Ok(all)
    }

    async fn audit(&self, tenant: &TenantId) -> Result<Vec<AuditRow>, SystemError> {
        Catalog::audit(self).of(tenant).await
    }

    async fn media(&self, tenant: &TenantId) -> Result<Vec<Medium>, SystemError> {
        Catalog::media(self).of(tenant).await
    }

    async fn prices(&self, tenant: &TenantId) -> Result<Arc<Prices>, SystemError> {
        // Who takes nothing in does not follow them.
        Catalog::prices(self).catch_up().await?;
        Ok(Catalog::prices(self).current(tenant))
    }

    fn now_us(&self) -> TimestampUs {
        Catalog::now_us(self)
    }
}

/// One tenant's tables for the length of one query.
pub(super) struct TenantTables {
    tenant: TenantId,
    snapshots: Arc<dyn Snapshots>,
    /// Pinned before any snapshot is taken, so that a flush in between loses no row and shows none twice.
    pinned: Arc<dyn PinnedRows>,
    store: Store,
    footers: Footers,
    used: tokio::sync::Mutex<()>,
    tables: Mutex<BTreeMap<Table, Arc<TableAt>>>,
    system: SystemTables,
}

impl TenantTables {
    pub(super) fn new(
        tenant: TenantId,
        snapshots: Arc<dyn Snapshots>,
        pinned: Arc<dyn PinnedRows>,
        store: Store,
        footers: Footers,
    ) -> Arc<Self> {
        let system = SystemTables::new(tenant.clone(), Arc::clone(&snapshots));
        Arc::new(Self {
            tenant,
            snapshots,
            pinned,
            store,
            footers,
            used: Default::default(),
            tables: Default::default(),
            system,
        })
    }

    pub(super) fn objects(&self) -> Arc<dyn object_store::ObjectStore> {
        self.store.tenant_objects(&self.tenant)
    }

    /// `table=version` of every table this query has touched.
    pub(super) fn versions(&self) -> Vec<String> {
        let version = |table: &TableAt| table.version().map_or("none".to_owned(), |version| version.to_string());
        self.tables.lock().iter().map(|(table, at)| format!("{}={}", table.name(), version(at))).collect()
    }

    pub(super) fn touched(&self) -> Touched {
        self.tables.lock().values().map(|table| table.touched()).fold(Touched::default(), Touched::and)
    }

    /// The same table at every call.
    pub(super) async fn at(&self, table: Table) -> Result<Arc<TableAt>, QueryError> {
        let _first = self.used.lock().await;
        if let Some(at) = self.tables.lock().get(&table) {
            return Ok(Arc::clone(at));
        }
        let snapshot = self.snapshots.snapshot(&self.tenant, table).await?;
        let fresh = self.pinned.rows(table, &snapshot).await?;
        let reader = self.footers.reader(&self.tenant, self.objects());
        let at = Arc::new(TableAt::new(table, snapshot, fresh, reader));
        self.tables.lock().insert(table, Arc::clone(&at));
        Ok(at)
    }
}

/// The names of tables, in the order people look for them.
const SHOWN: [Table; 5] = [Table::Observations, Table::TraceFacts, Table::ObservationIo, Table::Scores, Table::Ledger];

#[async_trait]
impl SchemaProvider for TenantTables {
    fn table_names(&self) -> Vec<String> {
        SHOWN.iter().map(|table| table.name()).chain(SystemTables::names()).map(str::to_owned).collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        match Table::from_name(name) {
            Some(table) => Ok(Some(self.at(table).await? as Arc<dyn TableProvider>)),
            None if name == SENSITIVE_USE.name => {
                let [observations, traces, scores] = sensitive::SOURCES;
                let tables = [self.at(observations).await?, self.at(traces).await?, self.at(scores).await?];
                sensitive::view(tables).map(Some)
            }
            None => self.system.table(name).await,
        }
    }

    fn table_exist(&self, name: &str) -> bool {
        Table::from_name(name).is_some() || SystemTables::names().any(|system| system == name)
    }
}

impl fmt::Debug for TenantTables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TenantTables")
    }
}

/// The catalog list of one query: one catalog, one schema, and what describes them.
#[derive(Debug, Clone)]
pub(super) struct OwnCatalog(pub(super) Arc<dyn SchemaProvider>);

impl CatalogProviderList for OwnCatalog {
    fn register_catalog(&self, _: String, _: Arc<dyn CatalogProvider>) -> Option<Arc<dyn CatalogProvider>> {
        None
    }
    fn catalog_names(&self) -> Vec<String> {
        vec![CATALOG.to_owned()]
    }
    fn catalog(&self, name: &str) -> Option<Arc<dyn CatalogProvider>> {
        (name == CATALOG).then(|| Arc::new(self.clone()) as Arc<dyn CatalogProvider>)
    }
}

impl CatalogProvider for OwnCatalog {
    fn schema_names(&self) -> Vec<String> {
        vec![SCHEMA.to_owned(), INFORMATION_SCHEMA.to_owned()]
    }
    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        match name {
            SCHEMA => Some(Arc::clone(&self.0)),
            INFORMATION_SCHEMA => {
                Some(Arc::new(Described(InformationSchemaProvider::new(Arc::new(self.clone())))) as _)
            }
            _ => None,
        }
    }
}

/// The information schema without the engine's settings, which are nobody's business.
#[derive(Debug)]
struct Described(InformationSchemaProvider);

const SETTINGS: &str = "df_settings";

#[async_trait]
impl SchemaProvider for Described {
    fn table_names(&self) -> Vec<String> {
        self.0.table_names().into_iter().filter(|name| name != SETTINGS).collect()
    }
    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        match name {
            SETTINGS => Ok(None),
            name => self.0.table(name).await,
        }
    }
    fn table_exist(&self, name: &str) -> bool {
        name != SETTINGS && self.0.table_exist(name)
    }
}
