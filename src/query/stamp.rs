//! How facts of traces get onto rows: which columns that changes, and what must be read for it.

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::error::{DataFusionError, Result};

use crate::catalog::Changes;
use crate::model::tables::stamp;

type Apply = dyn Fn(&RecordBatch, &Changes) -> Result<RecordBatch> + Send + Sync;

/// The columns that a trace's facts can change.
const STAMPED: &[&str] = &[
    "is_root",
    "trace_name",
    "account",
    "project",
    "flow",
    "user_id",
    "session_id",
    "environment",
    "release",
    "version",
    "tags",
    "_own",
];

/// Writes facts onto rows of `observations`. Cheap to clone.
#[derive(Clone)]
pub(super) struct Stamp {
    writes: &'static [&'static str],
    reads: &'static [&'static str],
    apply: Arc<Apply>,
}

impl Stamp {
    /// What facts do to rows of `observations`.
    pub(super) fn of_facts() -> Self {
        Self::new(STAMPED, &["trace_id", "id", "_own"], |rows, changes| {
            let stamped = stamp(rows, &changes.facts, &changes.dimensions);
            stamped.map_err(|e| DataFusionError::External(Box::new(e)))
        })
    }

    /// `apply` gets a batch of some of the table's columns, `reads` among them, and gives it back with other values in
    /// some of those that are in `writes`.
    pub(super) fn new(
        writes: &'static [&'static str],
        reads: &'static [&'static str],
        apply: impl Fn(&RecordBatch, &Changes) -> Result<RecordBatch> + Send + Sync + 'static,
    ) -> Self {
        Self { writes, reads, apply: Arc::new(apply) }
    }

    pub(super) fn writes(&self, column: &str) -> bool {
        self.writes.contains(&column)
    }

    pub(super) fn reads(&self) -> &'static [&'static str] {
        self.reads
    }

    pub(super) fn apply(&self, rows: &RecordBatch, changes: &Changes) -> Result<RecordBatch> {
        (self.apply)(rows, changes)
    }
}

impl fmt::Debug for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stamp of {:?}", self.writes)
    }
}
