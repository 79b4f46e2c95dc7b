//! Fresh rows for queries: all segments of all logs this process holds.

use std::sync::Arc;

use arrow::array::RecordBatch;

use super::Ingest;
use super::buffer::rows_above;
use super::rows::RowSettings;
use super::segment::View;
use crate::base::{TenantId, WriterId};
use crate::catalog::{FreshRows, PinnedRows, Positions};
use crate::model::tables::Table;

#[derive(Debug)]
struct Pinned {
    by_writer: Vec<(WriterId, Vec<Arc<View>>)>,
    settings: Arc<RowSettings>,
}

impl FreshRows for Ingest {
    fn pin(&self, tenant: &TenantId) -> Arc<dyn PinnedRows> {
        let writers = self.shared.writers.read();
        let pin = |writer: &Arc<super::Writer>| {
            let state = writer.buffers.get(tenant)?;
            Some((writer.id().clone(), state.buffer.pin()))
        };
        let by_writer = writers.iter().filter_map(pin).collect();
        Arc::new(Pinned { by_writer, settings: Arc::clone(&self.shared.rows) })
    }
}

impl PinnedRows for Pinned {
    fn rows(&self, table: Table, positions: &Positions) -> Vec<RecordBatch> {
        let rows = |(writer, views): &(WriterId, Vec<Arc<View>>)| {
            rows_above(views, table, positions.get(writer).copied().unwrap_or(0), &self.settings)
        };
        self.by_writer.iter().flat_map(rows).collect()
    }
}
