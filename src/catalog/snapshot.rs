//! What a table holds at one version: its live files, and how far each writer's log is in it.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::base::{Day, TimestampUs, WriterId};
use crate::format::delta::MetaData;
use crate::format::late::LateSlots;
use crate::format::rollup::RollupSet;

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
    /// The late objects that are live: what came about rows of these files since.
    pub late: LateSlots,
    /// When each of them became live.
    pub late_since_us: BTreeMap<u64, TimestampUs>,
    /// Files that were live until lately, by path: they may be in the store still.
    pub removed: BTreeMap<String, Arc<RemovedFile>>,
    /// Late objects that were live until lately, and when they ceased to be.
    pub late_freed: BTreeMap<u64, TimestampUs>,
    /// Before this, more of them may have: what was loaded from a checkpoint tells no more.
    pub late_freed_before_us: TimestampUs,
    /// Rows that retention and declared deletions have taken since the table began.
    pub dropped_rows: u64,
    /// The table's description with the columns that an older version did not know: the next commit, whatever else it
    /// does, brings it. `None`: the table has them all.
    pub grown: Option<Arc<MetaData>>,
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
    /// Its rows are summed up in files beside it.
    pub rollups: RollupSet,
    /// The version that made it live; `None` if only another engine's checkpoint tells of it.
    pub added_version: Option<u64>,
    /// How many times its rows were rewritten: 0 as flushed. The upkeep plans by it.
    pub rewrites: u8,
    /// It holds rows whose day does not follow from their start, because they came without one.
    pub undated: bool,
    /// When it was made live, by the clock of who did it.
    pub added_us: TimestampUs,
}

/// A file that is no longer live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemovedFile {
    pub path: String,
    pub size_bytes: u64,
    pub index: Option<String>,
    pub rollups: RollupSet,
    /// The version that removed it, or a later one.
    pub removed_version: u64,
    pub removed_us: TimestampUs,
}

impl Snapshot {
    pub fn rows(&self) -> u64 {
        self.files.values().map(|file| file.rows).sum()
    }

    /// The same files with only these late objects.
    pub fn with_late(&self, numbers: &[u64]) -> Self {
        let mut only = self.clone();
        only.late.retain(|_, number| numbers.contains(number));
        only.late_since_us.retain(|number, _| numbers.contains(number));
        only
    }

    pub fn position(&self, writer: &WriterId) -> u64 {
        self.positions.get(writer).copied().unwrap_or(0)
    }
}
