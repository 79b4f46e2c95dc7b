//! Fresh rows for queries: all segments of all logs this process holds.

use std::sync::Arc;

use async_trait::async_trait;

use super::Ingest;
use super::buffer::rows_above;
use super::rows::RowSettings;
use super::segment::View;
use crate::base::{TenantId, WriterId};
use crate::catalog::{CatalogError, Changes, FreshRows, FreshTable, PinnedRows, Snapshot};
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

#[async_trait]
impl PinnedRows for Pinned {
    async fn rows(&self, table: Table, snapshot: &Arc<Snapshot>) -> Result<FreshTable, CatalogError> {
        let rows = |(writer, views): &(WriterId, Vec<Arc<View>>)| {
            rows_above(views, table, snapshot.position(writer), &self.settings)
        };
        Ok(FreshTable { batches: self.by_writer.iter().flat_map(rows).collect(), changes: Changes::default() })
    }
}
