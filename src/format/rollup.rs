//! Roll-ups at rest: what queries sum up of a data file, summed up once, when the file was written. A Parquet file beside
//! the data file, of which only the data file's add action tells. Its columns are the query path's.

use std::fmt;
use std::str::FromStr;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};

use super::parquet::{ZSTD_LEVEL, footer_bytes};

/// Of what is summed up, and how: what was written by another version is not read, and the rows themselves are.
pub const VERSION: u32 = 1;

/// The column that says how many rows of the file a row stands for.
pub const ROWS: &str = "rows";

/// What an add action says of its file's roll-up, as `version/rows/size_bytes/footer_bytes`.
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

/// Rows of a roll-up as one file.
pub fn encode(schema: SchemaRef, rows: &[RecordBatch]) -> Result<(Bytes, RollupFacts), parquet::errors::ParquetError> {
    let level = ZstdLevel::try_new(ZSTD_LEVEL).expect("a level zstd has");
    let properties = WriterProperties::builder()
        .set_created_by(format!("tracelake {}", env!("CARGO_PKG_VERSION")))
        .set_compression(Compression::ZSTD(level))
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .build();
    let mut writer = ArrowWriter::try_new(Vec::new(), schema, Some(properties))?;
    rows.iter().try_for_each(|batch| writer.write(batch))?;
    let file = writer.into_inner()?;
    let facts = RollupFacts {
        version: VERSION,
        rows: rows.iter().map(|batch| batch.num_rows() as u64).sum(),
        size_bytes: file.len() as u64,
        footer_bytes: footer_bytes(&file),
    };
    Ok((file.into(), facts))
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
