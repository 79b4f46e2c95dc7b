//! Rows that are acked but not in a file yet, as queries see them. Implemented by `ingest`, joined at start-up.

use std::collections::{HashMap, HashSet};
use std::fmt::Debug;
use std::sync::Arc;

use arrow::array::RecordBatch;
use async_trait::async_trait;

use super::CatalogError;
use super::snapshot::Snapshot;
use crate::base::TenantId;
use crate::model::TraceFacts;
use crate::model::tables::Table;

pub trait FreshRows: Send + Sync + Debug {
    /// Pins the rows that are fresh now. Pin first, take the snapshot second: a flush between the two then moves rows
    /// from one into the other's positions, and they are neither lost nor seen twice.
    fn pin(&self, tenant: &TenantId) -> Arc<dyn PinnedRows>;
}

#[async_trait]
pub trait PinnedRows: Send + Sync + Debug {
    /// The pinned rows of `table` that the files of `snapshot` do not hold, and what they change about those files.
    async fn rows(&self, table: Table, snapshot: &Arc<Snapshot>) -> Result<FreshTable, CatalogError>;
}

/// What stands beside the files of one table at one version.
#[derive(Debug, Clone, Default)]
pub struct FreshTable {
    /// In batches of [`Table::table_schema`]. No key stands in them twice, and none that stands in a file either,
    /// unless `changes` say that the file's row is replaced (I2).
    pub batches: Vec<RecordBatch>,
    pub changes: Changes,
}

/// What rows that are not in files change about rows that are.
#[derive(Debug, Clone, Default)]
pub struct Changes {
    /// Rows of files with these keys do not count: another row stands for them.
    pub replaced: Arc<Replaced>,
    /// Of `observations`: facts to stamp onto rows of these traces.
    pub facts: Arc<HashMap<String, Arc<TraceFacts>>>,
    /// Paths of live files that any of this may touch; no other file needs a look.
    pub touched: Arc<HashSet<String>>,
}

/// Keys of rows, found by their [`key_hash`](crate::format::index::key_hash) and compared exactly.
#[derive(Debug, Clone, Default)]
pub struct Replaced {
    by_hash: HashMap<u64, Vec<Key>>,
    count: usize,
}

/// The values of a table's key columns, in their order.
pub type Key = Box<[Box<str>]>;

impl Replaced {
    /// False if the key was there already.
    pub fn insert(&mut self, hash: u64, parts: &[&str]) -> bool {
        if self.contains(hash, parts) {
            return false;
        }
        self.by_hash.entry(hash).or_default().push(parts.iter().copied().map(Box::from).collect());
        self.count += 1;
        true
    }

    pub fn contains(&self, hash: u64, parts: &[&str]) -> bool {
        let same = |key: &Key| key.iter().map(AsRef::as_ref).eq(parts.iter().copied());
        self.by_hash.get(&hash).is_some_and(|keys| keys.iter().any(same))
    }

    pub fn len(&self) -> usize {
        self.count
    }
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
    pub fn hashes(&self) -> impl Iterator<Item = u64> {
        self.by_hash.keys().copied()
    }
    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        self.by_hash.values().flatten()
    }
}

/// No fresh rows: a node without a buffer, or a table set opened read-only.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoFreshRows;

impl FreshRows for NoFreshRows {
    fn pin(&self, _: &TenantId) -> Arc<dyn PinnedRows> {
        Arc::new(NoFreshRows)
    }
}

#[async_trait]
impl PinnedRows for NoFreshRows {
    async fn rows(&self, _: Table, _: &Arc<Snapshot>) -> Result<FreshTable, CatalogError> {
        Ok(FreshTable::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_with_one_hash_are_told_apart() {
        let mut replaced = Replaced::default();
        assert!(replaced.is_empty());
        assert!(replaced.insert(7, &["a", "b"]) && replaced.insert(7, &["ab", ""]) && replaced.insert(8, &["a", "b"]));
        assert!(!replaced.insert(7, &["a", "b"]), "it is there already");
        assert!(replaced.contains(7, &["a", "b"]) && replaced.contains(7, &["ab", ""]));
        for absent in [&["a"][..], &["a", "c"], &["a", "b", ""], &[]] {
            assert!(!replaced.contains(7, absent), "{absent:?}");
        }
        assert!(!replaced.contains(9, &["a", "b"]));
        assert_eq!((replaced.len(), replaced.keys().count(), replaced.hashes().count()), (3, 3, 2));
    }
}
