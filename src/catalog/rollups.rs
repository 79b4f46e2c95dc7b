//! Roll-ups: data files summed up while they are written. What is summed up is what queries ask for, so `query` does it;
//! who writes files gives it their rows. Joined at start-up.

use std::fmt::Debug;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use bytes::Bytes;

use crate::base::ByteSize;
use crate::format::rollup::{RollupFacts, RollupKind};
use crate::model::tables::Table;

pub trait Rollups: Send + Sync + Debug {
    /// Memory that a file of so many rows takes at most while it is summed up so. `None`: such files are not.
    fn memory_max(&self, kind: RollupKind, table: Table, rows: u64) -> Option<ByteSize>;

    /// Begins to sum up a file of `table`.
    fn begin(&self, kind: RollupKind, table: Table) -> Box<dyn RollupWriter>;
}

#[async_trait]
pub trait RollupWriter: Send {
    /// Takes the file's next rows, in the table's sort order.
    async fn push(&mut self, rows: &RecordBatch);

    /// What the rows add up to, as an object. `None`: they are too different for the memory there is, or to make sums
    /// worth while.
    async fn finish(self: Box<Self>) -> Option<(Bytes, RollupFacts)>;
}

/// Nothing is summed up.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoRollups;

impl Rollups for NoRollups {
    fn memory_max(&self, _: RollupKind, _: Table, _: u64) -> Option<ByteSize> {
        None
    }

    fn begin(&self, _: RollupKind, _: Table) -> Box<dyn RollupWriter> {
        Box::new(NoRollups)
    }
}

#[async_trait]
impl RollupWriter for NoRollups {
    async fn push(&mut self, _: &RecordBatch) {}

    async fn finish(self: Box<Self>) -> Option<(Bytes, RollupFacts)> {
        None
    }
}
