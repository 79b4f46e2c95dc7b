//! Roll-ups at rest: what queries sum up of a data file, summed up once, when the file was written. A Parquet file beside
//! the data file, of which only the data file's add action tells. Its columns are the query path's.

use std::fmt;
use std::str::FromStr;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties};

use super::parquet::{ZSTD_LEVEL, footer_bytes};
use crate::base::ByteSize;

/// Of what is summed up, and how: what was written by another version is not read, and the rows themselves are.
pub const VERSION: u32 = 1;

/// By what the rows of a file are brought together. Each has an object of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RollupKind {
    /// By hour and by columns of few values: what a question of observations asks for.
    Hours,
    /// By trace and hour: what a question of traces asks for.
    Traces,
}

impl RollupKind {
    pub const ALL: [Self; 2] = [Self::Hours, Self::Traces];

    /// As a sentence names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hours => "roll-up",
            Self::Traces => "roll-up of traces",
        }
    }

    /// Row groups are small, so that little is held of what is not encoded yet; of traces there are many.
    fn row_group(self) -> ByteSize {
        match self {
            Self::Hours => ByteSize::mib(4),
            Self::Traces => ByteSize::mib(12),
        }
    }
}

/// The column that says how many rows of the file a row stands for.
pub const ROWS: &str = "rows";

/// What an add action says of a roll-up of its file, as `version/rows/size_bytes/footer_bytes`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RollupFacts {
    pub version: u32,
    pub rows: u64,
    pub size_bytes: u64,
    pub footer_bytes: u64,
}

impl RollupFacts {
    /// It says what this tracelake asks for.
    pub fn is_known(&self) -> bool {
        self.version == VERSION
    }
}

/// The roll-ups of a file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RollupSet {
    hours: Option<RollupFacts>,
    traces: Option<RollupFacts>,
}

impl RollupSet {
    pub fn of(&self, kind: RollupKind) -> Option<RollupFacts> {
        match kind {
            RollupKind::Hours => self.hours,
            RollupKind::Traces => self.traces,
        }
    }

    pub fn put(&mut self, kind: RollupKind, facts: RollupFacts) {
        match kind {
            RollupKind::Hours => self.hours = Some(facts),
            RollupKind::Traces => self.traces = Some(facts),
        }
    }

    pub fn all(&self) -> impl Iterator<Item = (RollupKind, RollupFacts)> {
        RollupKind::ALL.into_iter().filter_map(|kind| Some((kind, self.of(kind)?)))
    }
}

impl fmt::Display for RollupFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { version, rows, size_bytes, footer_bytes } = self;
        write!(f, "{version}/{rows}/{size_bytes}/{footer_bytes}")
    }
}

/// Of a later version more may be said.
impl FromStr for RollupFacts {
    type Err = std::num::ParseIntError;

    fn from_str(said: &str) -> Result<Self, Self::Err> {
        let mut parts = said.split('/');
        let mut next = || parts.next().unwrap_or_default().parse::<u64>();
        let version = next()?.try_into().unwrap_or(u32::MAX);
        Ok(Self { version, rows: next()?, size_bytes: next()?, footer_bytes: next()? })
    }
}

/// Encodes the rows of a roll-up as they come.
pub struct RollupEncoder {
    arrow: ArrowWriter<Vec<u8>>,
    rows: u64,
}

impl RollupEncoder {
    pub fn new(kind: RollupKind, schema: SchemaRef) -> Result<Self, ParquetError> {
        let level = ZstdLevel::try_new(ZSTD_LEVEL).expect("a level zstd has");
        let properties = WriterProperties::builder()
            .set_created_by(format!("tracelake {}", env!("CARGO_PKG_VERSION")))
            .set_compression(Compression::ZSTD(level))
            .set_max_row_group_bytes(Some(kind.row_group().as_usize()))
            .set_statistics_enabled(EnabledStatistics::Chunk)
            .build();
        Ok(Self { arrow: ArrowWriter::try_new(Vec::new(), schema, Some(properties))?, rows: 0 })
    }

    pub fn write(&mut self, rows: &RecordBatch) -> Result<(), ParquetError> {
        self.rows += rows.num_rows() as u64;
        self.arrow.write(rows)
    }

    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Memory held: the file so far, and the open row group.
    pub fn held_bytes(&self) -> u64 {
        (self.arrow.memory_size() + self.arrow.inner().capacity()) as u64
    }

    /// The whole file.
    pub fn finish(self) -> Result<(Bytes, RollupFacts), ParquetError> {
        let file = self.arrow.into_inner()?;
        let (size_bytes, footer_bytes) = (file.len() as u64, footer_bytes(&file));
        Ok((file.into(), RollupFacts { version: VERSION, rows: self.rows, size_bytes, footer_bytes }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_read_as_they_are_told() {
        let facts = RollupFacts { version: 1, rows: 2, size_bytes: 300, footer_bytes: 40 };
        assert_eq!(facts.to_string(), "1/2/300/40");
        assert_eq!(facts.to_string().parse(), Ok(facts));
        let later: RollupFacts = "2/2/300/40/more".parse().unwrap();
        assert!(facts.is_known() && !later.is_known());
        assert!("".parse::<RollupFacts>().is_err() && "1/2".parse::<RollupFacts>().is_err());
    }
}
