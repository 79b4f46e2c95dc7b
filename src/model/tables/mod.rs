//! The columns of every table, declared once: name, type, meaning, and how a row fills it.
//!
//! `sql/schema.sql` is written from these declarations and a test holds the two equal. Columns are appended,
//! never renamed or retyped: the Delta tables of every tenant have this shape. A table that an older version made is
//! described with the columns it lacks by its next commit; its files read as null there until they are merged.

mod cells;
mod columns;
mod io;
mod ledger;
mod observations;
mod own;
mod reading;
mod scores;
mod stamp;
mod trace_facts;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

pub use columns::ColumnType;
pub use io::{IoRow, OBSERVATION_IO};
pub use ledger::{LEDGER, LedgerRow};
pub use observations::{OBSERVATIONS, ObservationRow, Orphan, RowCost};
pub use reading::{
    IoEvents, IoReader, ObservationReader, REPORT_COLUMNS, ReadIo, ReadObservation, ReadScore, ReadTraceFacts,
    ReportReader, ScoreReader, Stamped, TraceReader, read_io, read_observation, read_score, read_trace_facts,
};
pub use scores::{SCORES, ScoreRow};
pub use stamp::stamp;
pub use trace_facts::{TRACE_FACTS, TraceRow};

/// The datasets of a tenant; each is one Delta table at `tenants/{id}/{name}/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Table {
    /// Committed first at a flush: a crash between leaves an orphan, never an observation without its text.
    ObservationIo,
    Observations,
    TraceFacts,
    Scores,
    Ledger,
}

impl Table {
    /// As they are listed.
    pub const ALL: [Table; 5] =
        [Table::ObservationIo, Table::Observations, Table::TraceFacts, Table::Scores, Table::Ledger];

    pub fn name(self) -> &'static str {
        match self {
            Self::ObservationIo => "observation_io",
            Self::Observations => "observations",
            Self::TraceFacts => "trace_facts",
            Self::Scores => "scores",
            Self::Ledger => "ledger",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|table| table.name() == name)
    }

    /// What the table holds, in a sentence.
    pub fn comment(self) -> &'static str {
        match self {
            Self::ObservationIo => io::COMMENT,
            Self::Observations => observations::COMMENT,
            Self::TraceFacts => trace_facts::COMMENT,
            Self::Scores => scores::COMMENT,
            Self::Ledger => ledger::COMMENT,
        }
    }

    /// `(name, type, comment)` of each column inside the Parquet files, in order.
    pub fn columns(self) -> Vec<(&'static str, ColumnType, &'static str)> {
        match self {
            Self::ObservationIo => describe(OBSERVATION_IO),
            Self::Observations => describe(OBSERVATIONS),
            Self::TraceFacts => describe(TRACE_FACTS),
            Self::Scores => describe(SCORES),
            Self::Ledger => describe(LEDGER),
        }
    }

    /// The Arrow schema of a file's rows. The partition column `day` is not in it: it stands in the path.
    pub fn file_schema(self) -> SchemaRef {
        let fields: Vec<Field> =
            self.columns().into_iter().map(|(name, kind, _)| Field::new(name, kind.arrow(), true)).collect();
        Arc::new(Schema::new(fields))
    }

    /// The schema SQL sees: the file's columns, then the partition column `day` (UTC calendar day of placement).
    pub fn table_schema(self) -> SchemaRef {
        let file_schema = self.file_schema();
        let mut fields: Vec<Arc<Field>> = file_schema.fields().iter().cloned().collect();
        fields.push(Arc::new(Field::new("day", DataType::Date32, false)));
        Arc::new(Schema::new(fields))
    }

    /// The columns rows of one file are sorted by.
    pub fn sort_columns(self) -> &'static [&'static str] {
        match self {
            Self::ObservationIo => &["trace_id", "start_time"],
            Self::Observations => &["start_time"],
            Self::TraceFacts | Self::Scores => &["timestamp"],
            Self::Ledger => &[],
        }
    }

    /// The columns that name a row: no two live rows of a table have the same. Empty for the ledger, whose rows add up.
    pub fn key_columns(self) -> &'static [&'static str] {
        match self {
            Self::ObservationIo | Self::Observations => &["trace_id", "id"],
            Self::TraceFacts => &["trace_id"],
            Self::Scores => &["id"],
            Self::Ledger => &[],
        }
    }

    /// Whether the index of a file says which traces its rows may belong to. Of texts it must: after a crash between the
    /// two commits a text stands without its observation, and an erasure would not find it by that.
    pub fn has_trace_filters(self) -> bool {
        matches!(self, Self::Observations | Self::ObservationIo)
    }

    /// The column that says when a row happened; files are pruned by its true minimum and maximum.
    pub fn time_column(self) -> &'static str {
        match self {
            Self::ObservationIo | Self::Observations => "start_time",
            Self::TraceFacts | Self::Scores => "timestamp",
            Self::Ledger => "ingested_at",
        }
    }
}

/// One column of a table whose rows are `R`.
pub struct Column<R: 'static> {
    pub name: &'static str,
    pub kind: ColumnType,
    pub comment: &'static str,
    fill: fn(&[R]) -> ArrayRef,
}

fn describe<R>(columns: &[Column<R>]) -> Vec<(&'static str, ColumnType, &'static str)> {
    columns.iter().map(|column| (column.name, column.kind, column.comment)).collect()
}

/// Rows as one batch of the table's file schema.
pub fn batch<R>(table: Table, columns: &[Column<R>], rows: &[R]) -> RecordBatch {
    let arrays = columns.iter().map(|column| (column.fill)(rows)).collect();
    RecordBatch::try_new(table.file_schema(), arrays).expect("each column fills its declared type and length")
}
