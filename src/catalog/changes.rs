//! What rows outside of files change about rows inside them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch, StringViewArray};
use arrow::compute::filter_record_batch;
use arrow::error::ArrowError;

use crate::format::index::key_hash;
use crate::model::tables::{Table, stamp};
use crate::model::{DimensionKeys, ReadError, TraceFacts};

/// The values of a row's key columns.
pub type RowKey = Box<[Box<str>]>;

/// The same, borrowed. No table has more than two key columns.
#[derive(Debug, Clone, Copy)]
pub struct KeyParts<'a> {
    parts: [&'a str; 2],
    count: usize,
}

impl<'a> KeyParts<'a> {
    pub fn of(said: &[&'a str]) -> Self {
        let mut parts = [""; 2];
        parts[..said.len()].copy_from_slice(said);
        Self { parts, count: said.len() }
    }

    pub fn parts(&self) -> &[&'a str] {
        &self.parts[..self.count]
    }

    pub fn owned(&self) -> RowKey {
        row_key(self.parts())
    }

    pub fn is(&self, key: &RowKey) -> bool {
        is_key(key, self.parts())
    }
}

pub fn row_key(parts: &[&str]) -> RowKey {
    parts.iter().map(|part| Box::from(*part)).collect()
}

fn is_key(key: &RowKey, parts: &[&str]) -> bool {
    key.iter().map(AsRef::as_ref).eq(parts.iter().copied())
}

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
        self.by_hash.get(&hash).is_some_and(|same| same.iter().any(|key| is_key(key, parts)))
    }

    /// Which rows have none of these keys, when only `candidates` can have one. `None`: all of them.
    pub fn staying(&self, keys: &BatchKeys<'_>, candidates: impl Iterator<Item = usize>) -> Option<BooleanArray> {
        let is_named = |row: &usize| keys.is_whole(*row) && self.contains(keys.hash(*row), &keys.parts(*row));
        let mut gone = candidates.filter(is_named).peekable();
        gone.peek()?;
        let mut stays = vec![true; keys.rows()];
        gone.for_each(|row| stays[row] = false);
        Some(BooleanArray::from(stays))
    }

    /// The rows of a batch of `table` that have none of these keys.
    pub fn without(&self, table: Table, batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
        if self.is_empty() {
            return Ok(batch.clone());
        }
        match self.staying(&BatchKeys::of(table, batch), 0..batch.num_rows()) {
            Some(stays) => filter_record_batch(batch, &stays),
            None => Ok(batch.clone()),
        }
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

/// Rows of `table` as if they had been written with all of `facts`.
pub fn stamped(
    table: Table,
    rows: &RecordBatch,
    facts: &HashMap<String, Arc<TraceFacts>>,
    dimensions: &DimensionKeys,
) -> Result<RecordBatch, ReadError> {
    match table {
        Table::Observations if !facts.is_empty() => stamp(rows, facts, dimensions),
        _ => Ok(rows.clone()),
    }
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

    /// Of a table's key columns, wherever they stand.
    pub fn over(columns: Vec<&'a StringViewArray>) -> Self {
        Self { columns }
    }

    fn rows(&self) -> usize {
        self.columns.first().map_or(0, |column| column.len())
    }

    fn is_whole(&self, row: usize) -> bool {
        self.columns.iter().all(|column| column.is_valid(row))
    }

    pub fn parts(&self, row: usize) -> Vec<&'a str> {
        self.columns.iter().map(|column| column.value(row)).collect()
    }

    pub fn hash(&self, row: usize) -> u64 {
        key_hash(&self.parts(row))
    }

    pub fn key(&self, row: usize) -> RowKey {
        row_key(&self.parts(row))
    }
}
