//! Rows that are acked but not in a file yet, as queries see them. Implemented by `ingest`, joined at start-up.

use std::fmt::Debug;
use std::sync::Arc;

use arrow::array::RecordBatch;

use super::snapshot::Positions;
use crate::base::TenantId;
use crate::model::tables::Table;

pub trait FreshRows: Send + Sync + Debug {
    /// Pins the rows that are fresh now. Pin first, take the snapshot second: a flush between the two then moves rows
    /// from one into the other's positions, and they are neither lost nor seen twice.
    fn pin(&self, tenant: &TenantId) -> Arc<dyn PinnedRows>;
}

pub trait PinnedRows: Send + Sync + Debug {
    /// The pinned rows of `table` that a snapshot at `positions` does not hold, in batches of
    /// [`Table::table_schema`]. No id stands in them twice.
    fn rows(&self, table: Table, positions: &Positions) -> Vec<RecordBatch>;
}

/// No fresh rows: a node without a buffer, or a table set opened read-only.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoFreshRows;

impl FreshRows for NoFreshRows {
    fn pin(&self, _: &TenantId) -> Arc<dyn PinnedRows> {
        Arc::new(NoFreshRows)
    }
}

impl PinnedRows for NoFreshRows {
    fn rows(&self, _: Table, _: &Positions) -> Vec<RecordBatch> {
        Vec::new()
    }
}
