//! What a table holds at one version: its live files, and how far each writer's log is in it.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::base::{Day, TimestampUs, WriterId};

/// Up to which sequence of each writer's log a table holds everything.
pub type Positions = BTreeMap<WriterId, u64>;

/// One version of one table. Immutable: a query that holds it reads the same files for as long as it likes.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// `None`: the table has never been written.
    pub version: Option<u64>,
    /// In order of their paths.
    pub files: BTreeMap<String, Arc<DataFile>>,
    pub positions: Positions,
}

/// A live Parquet file: everything planning needs to know, without a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataFile {
    /// Relative to the table's root: `day=YYYY-MM-DD/{uuid}.parquet`.
    pub path: String,
    pub size_bytes: u64,
    pub day: Day,
    pub rows: u64,
    /// True minimum and maximum of the table's time column; `None` if not known: such a file is never pruned by time.
    pub time_us: Option<(TimestampUs, TimestampUs)>,
    /// Length of the Parquet footer, so that it is fetched by one exact request.
    pub footer_bytes: Option<u64>,
    /// The `_index` object that belongs to it, by id.
    pub index: Option<String>,
    /// How many times its rows were rewritten: 0 as flushed. The upkeep plans by it.
    pub rewrites: u8,
    /// When it became live, by the clock of whoever committed it.
    pub added_us: TimestampUs,
}

impl Snapshot {
    pub fn rows(&self) -> u64 {
        self.files.values().map(|file| file.rows).sum()
    }

    pub fn position(&self, writer: &WriterId) -> u64 {
        self.positions.get(writer).copied().unwrap_or(0)
    }
}
