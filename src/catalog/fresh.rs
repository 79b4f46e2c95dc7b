//! Rows that are acked but not in a file yet, as queries see them. Implemented by `ingest`, joined at start-up.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::Arc;

use arrow::array::RecordBatch;
use async_trait::async_trait;

use super::changes::{Changes, RowKeys};
use super::snapshot::Snapshot;
use super::{Catalog, Result};
use crate::base::TenantId;
use crate::model::tables::Table;
use crate::model::{DimensionKeys, TraceFacts};

pub trait FreshRows: Send + Sync + Debug {
    /// Pins the rows that are fresh now. Pin first, take the snapshot second: a flush between the two then moves rows
    /// from one into the other's positions, and they are neither lost nor seen twice.
    fn pin(&self, tenant: &TenantId) -> Arc<dyn PinnedRows>;
}

#[async_trait]
pub trait PinnedRows: Send + Sync + Debug {
    /// What of `table` stands beside the files of `snapshot`: the pinned rows it does not hold, and late changes.
    async fn rows(&self, table: Table, snapshot: &Arc<Snapshot>) -> Result<FreshTable>;
}

/// The part of a table that is not in files.
#[derive(Debug, Clone, Default)]
pub struct FreshTable {
    /// In the table's schema. No id stands in them twice.
    pub batches: Vec<RecordBatch>,
    /// What they change about the files.
    pub changes: Changes,
}

/// Rows of a buffer, set against the files and late changes of a snapshot.
#[derive(Debug, Clone, Default)]
pub struct Fresh {
    pub batches: Vec<RecordBatch>,
    /// Those of them that stand for a row of a file, or for one that came late before.
    pub replaced: RowKeys,
    /// Facts that rows in files do not carry yet.
    pub facts: HashMap<String, Arc<TraceFacts>>,
    pub dimensions: Arc<DimensionKeys>,
}

/// No fresh rows, and no late ones either: for tables that only a test has written.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoFreshRows;

impl FreshRows for NoFreshRows {
    fn pin(&self, _: &TenantId) -> Arc<dyn PinnedRows> {
        Arc::new(NoFreshRows)
    }
}

#[async_trait]
impl PinnedRows for NoFreshRows {
    async fn rows(&self, _: Table, _: &Arc<Snapshot>) -> Result<FreshTable> {
        Ok(FreshTable::default())
    }
}

/// What stands in files, with what came late: a node without a buffer, or a table set opened read-only.
#[derive(Debug, Clone)]
pub struct FilesOnly(pub Catalog);

impl FreshRows for FilesOnly {
    fn pin(&self, tenant: &TenantId) -> Arc<dyn PinnedRows> {
        Arc::new(FilesOf { catalog: self.0.clone(), tenant: tenant.clone() })
    }
}

#[derive(Debug)]
struct FilesOf {
    catalog: Catalog,
    tenant: TenantId,
}

#[async_trait]
impl PinnedRows for FilesOf {
    async fn rows(&self, table: Table, snapshot: &Arc<Snapshot>) -> Result<FreshTable> {
        self.catalog.dimensions().load_once().await?;
        let fresh = Fresh { dimensions: self.catalog.dimensions().of(&self.tenant), ..Default::default() };
        self.catalog.beside_files(&self.tenant, table, snapshot, fresh).await
    }
}
