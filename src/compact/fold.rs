//! The seam for late changes: what a rewrite does to rows on their way from old files into new ones.

use arrow::array::RecordBatch;
use arrow::error::ArrowError;

/// Late changes to be worked into the files a rewrite replaces.
///
/// For each row a replacement stands for, exactly one row is dropped: rows out = rows in - dropped + replacements, and
/// what is missing then was declared as merged (I8).
pub trait Fold: Send + Sync {
    /// The rows of an input that stay, in their order, facts stamped on. Neither the keys nor the sort columns of a row
    /// may change here.
    fn keep(&self, rows: RecordBatch) -> Result<RecordBatch, ArrowError>;

    /// Whole rows in the table's file schema and sort order, merged in as one more input.
    fn replacements(&self) -> Vec<RecordBatch>;
}

/// Nothing to fold: rows go as they are.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoFold;

impl Fold for NoFold {
    fn keep(&self, rows: RecordBatch) -> Result<RecordBatch, ArrowError> {
        Ok(rows)
    }

    fn replacements(&self) -> Vec<RecordBatch> {
        Vec::new()
    }
}
