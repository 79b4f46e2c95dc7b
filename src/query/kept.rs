//! Rows that a query has in memory, to be asked again.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::datasource::{MemTable, TableProvider};
use datafusion::error::DataFusionError;
use datafusion::execution::memory_pool::MemoryReservation;

/// Rows, and the query's memory that they are in.
pub(super) struct Kept {
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
    _held: MemoryReservation,
}

impl Kept {
    pub(super) fn new(schema: SchemaRef, batches: Vec<RecordBatch>, held: MemoryReservation) -> Self {
        Self { schema, batches, _held: held }
    }

    pub(super) fn batches(&self) -> &[RecordBatch] {
        &self.batches
    }

    /// Whoever asks it keeps `self` until the answer is there.
    pub(super) fn table(&self) -> Result<Arc<dyn TableProvider>, DataFusionError> {
        in_memory(Arc::clone(&self.schema), self.batches.clone())
    }
}

/// Rows as a table.
pub(super) fn in_memory(
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
) -> Result<Arc<dyn TableProvider>, DataFusionError> {
    Ok(Arc::new(MemTable::try_new(schema, vec![batches])?))
}
