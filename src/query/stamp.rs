//! How facts of traces get onto rows: which columns that changes, and what must be read for it.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::error::Result;

use crate::model::TraceFacts;

pub(super) type Facts = HashMap<String, Arc<TraceFacts>>;
type Apply = dyn Fn(&RecordBatch, &Facts) -> Result<RecordBatch> + Send + Sync;

/// Writes facts onto rows of `observations`. Cheap to clone.
#[derive(Clone)]
pub(super) struct Stamp {
    writes: &'static [&'static str],
    reads: &'static [&'static str],
    apply: Arc<Apply>,
}

impl Stamp {
    /// `apply` gets a batch of some of the table's columns, `reads` among them, and gives it back with other values in
    /// some of those that are in `writes`.
    pub(super) fn new(
        writes: &'static [&'static str],
        reads: &'static [&'static str],
        apply: impl Fn(&RecordBatch, &Facts) -> Result<RecordBatch> + Send + Sync + 'static,
    ) -> Self {
        Self { writes, reads, apply: Arc::new(apply) }
    }

    pub(super) fn writes(&self, column: &str) -> bool {
        self.writes.contains(&column)
    }

    pub(super) fn reads(&self) -> &'static [&'static str] {
        self.reads
    }

    pub(super) fn apply(&self, rows: &RecordBatch, facts: &Facts) -> Result<RecordBatch> {
        (self.apply)(rows, facts)
    }
}

impl fmt::Debug for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stamp of {:?}", self.writes)
    }
}
