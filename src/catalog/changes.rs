//! What rows outside of files change about rows inside them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch, StringViewArray};

use crate::format::index::key_hash;
use crate::model::tables::Table;
use crate::model::{DimensionKeys, TraceFacts};

/// The values of a row's key columns.
pub type RowKey = Box<[Box<str>]>;

/// A set of row keys, asked by hash first and exactly then.
#[derive(Debug, Clone, Default)]
pub struct RowKeys {
    by_hash: HashMap<u64, Vec<RowKey>>,
}

impl RowKeys {
    /// False if the key was there already.
    pub fn insert(&mut self, hash: u64, key: RowKey) -> bool {
        let same = self.by_hash.entry(hash).or_default();
        let is_new = !same.contains(&key);
        if is_new {
            same.push(key);
        }
        is_new
    }

    pub fn contains(&self, hash: u64, parts: &[&str]) -> bool {
        let equal = |key: &RowKey| key.iter().map(AsRef::as_ref).eq(parts.iter().copied());
        self.by_hash.get(&hash).is_some_and(|same| same.iter().any(equal))
    }

    pub fn is_empty(&self) -> bool {
        self.by_hash.is_empty()
    }

    pub fn len(&self) -> usize {
        self.by_hash.values().map(Vec::len).sum()
    }

    pub fn hashes(&self) -> impl Iterator<Item = u64> + '_ {
        self.by_hash.keys().copied()
    }

    pub fn iter(&self) -> impl Iterator<Item = (u64, &RowKey)> {
        self.by_hash.iter().flat_map(|(hash, same)| same.iter().map(|key| (*hash, key)))
    }
}

/// What a scan of files must heed. Empty for nearly every query: then no file needs a second look.
#[derive(Debug, Clone, Default)]
pub struct Changes {
    /// Rows of files with these keys do not count: another row stands for them, or none.
    pub replaced: Arc<RowKeys>,
    /// Of `observations`: facts to stamp onto rows of these traces.
    pub facts: Arc<HashMap<String, Arc<TraceFacts>>>,
    /// Live files that any of this may touch.
    pub touched: Arc<HashSet<String>>,
    /// What in the facts' metadata names account, project and flow.
    pub dimensions: Arc<DimensionKeys>,
}

/// The keys of a batch's rows, by row.
pub struct BatchKeys<'a> {
    columns: Vec<&'a StringViewArray>,
}

impl<'a> BatchKeys<'a> {
    /// Of a batch in a schema of `table` that has its key columns.
    pub fn of(table: Table, batch: &'a RecordBatch) -> Self {
        let column = |name: &&str| {
            let column = batch.column_by_name(name).expect("the batch has the table's key columns");
            column.as_string_view()
        };
        Self { columns: table.key_columns().iter().map(column).collect() }
    }

    pub fn parts(&self, row: usize) -> Vec<&'a str> {
        self.columns.iter().map(|column| column.value(row)).collect()
    }

    pub fn hash(&self, row: usize) -> u64 {
        key_hash(&self.parts(row))
    }

    pub fn key(&self, row: usize) -> RowKey {
        self.columns.iter().map(|column| Box::from(column.value(row))).collect()
    }
}
