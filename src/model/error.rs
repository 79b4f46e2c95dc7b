use arrow::datatypes::DataType;
use arrow::error::ArrowError;

use crate::base::Kind;

/// Why a row that stands in a table cannot be read back.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("a row's provenance has version {found}; this tracelake reads up to {known}")]
    Newer { found: u8, known: u8 },
    #[error("a row's provenance is damaged: {0}")]
    Provenance(&'static str),
    #[error("the column {0} is missing")]
    MissingColumn(&'static str),
    #[error("the column {column} holds {found}, which cannot be read as {expected}")]
    ColumnType { column: &'static str, found: DataType, expected: DataType },
    #[error("row {row} has no {column}")]
    MissingValue { column: &'static str, row: usize },
    #[error("what facts say does not fit the batch: {0}")]
    Stamp(#[from] ArrowError),
    #[error("row {row} was asked for of a batch with {rows}")]
    NoSuchRow { row: usize, rows: usize },
}

impl ReadError {
    pub fn kind(&self) -> Kind {
        match self {
            Self::NoSuchRow { .. } | Self::Stamp(_) => Kind::Internal,
            _ => Kind::Corrupt,
        }
    }
}
