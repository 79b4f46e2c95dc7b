//! What came late: the rows and facts of a table's live late objects, in memory, and what they change about its files.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray, Date32Array, RecordBatch};
use arrow::compute;

use super::changes::{BatchKeys, Changes, RowKey, RowKeys, row_key, stamped};
use super::filters::Sought;
use super::fresh::{Fresh, FreshTable};
use super::snapshot::Snapshot;
use super::table::TableState;
use super::{Catalog, CatalogError, Result};
use crate::base::TenantId;
use crate::format::index::key_hash;
use crate::format::late::{LateObject, LateSlots};
use crate::format::parquet;
use crate::model::TraceFacts;
use crate::model::tables::Table;
use crate::store::{self, StoreError};

/// Longer than any process may sleep before it commits what it put.
const LATE_PUT_KEPT_US: i64 = 30 * 86_400_000_000;

/// The open late changes of one table at one snapshot. Of several about one key the newest stands.
#[derive(Debug, Default)]
pub struct Late {
    /// Each key once, in the table's schema.
    pub rows: Vec<RecordBatch>,
    places: HashMap<RowKey, (usize, usize)>,
    /// The keys of `rows`, and those of rows that are gone.
    pub replaced: Arc<RowKeys>,
    pub facts: Arc<HashMap<String, Arc<TraceFacts>>>,
}

impl Late {
    pub fn is_empty(&self) -> bool {
        self.replaced.is_empty() && self.facts.is_empty()
    }

    /// The row that stands for `key`, if one came late.
    pub fn row(&self, hash: u64, key: &[&str]) -> Option<(&RecordBatch, usize)> {
        let (batch, row) = self.replaced.contains(hash, key).then(|| self.places.get(&row_key(key)))??;
        Some((&self.rows[*batch], *row))
    }

    /// Whether the row of `key` is gone, and nothing stands for it.
    pub fn is_gone(&self, hash: u64, key: &[&str]) -> bool {
        self.replaced.contains(hash, key) && !self.places.contains_key(&row_key(key))
    }

    /// The keys of rows that are gone.
    pub fn gone(&self) -> impl Iterator<Item = (u64, &RowKey)> {
        self.replaced.iter().filter(|(_, key)| !self.places.contains_key(*key))
    }

    /// Puts objects together, oldest first.
    fn of<'a>(table: Table, objects: impl Iterator<Item = &'a Arc<DecodedLate>>) -> Self {
        let mut standing: HashMap<RowKey, Option<(usize, usize)>> = HashMap::new();
        let mut batches: Vec<&RecordBatch> = Vec::new();
        let mut facts = HashMap::new();
        for object in objects {
            for batch in &object.rows {
                let keys = BatchKeys::of(table, batch);
                for row in 0..batch.num_rows() {
                    standing.insert(keys.key(row), Some((batches.len(), row)));
                }
                batches.push(batch);
            }
            for removed in &object.removed {
                standing.insert(removed.clone(), None);
            }
            facts.extend(object.facts.iter().map(|facts| (facts.trace_id.clone(), Arc::clone(facts))));
        }
        let mut rows = Vec::new();
        let mut places = HashMap::new();
        for (at, batch) in batches.into_iter().enumerate() {
            let keys = BatchKeys::of(table, batch);
            let stands = |row| standing.get(&keys.key(row)) == Some(&Some((at, row)));
            let kept: BooleanArray = (0..batch.num_rows()).map(|row| Some(stands(row))).collect();
            let kept = compute::filter_record_batch(batch, &kept).expect("a mask of the batch's length");
            let kept_keys = BatchKeys::of(table, &kept);
            places.extend((0..kept.num_rows()).map(|row| (kept_keys.key(row), (rows.len(), row))));
            rows.push(kept);
        }
        let mut replaced = RowKeys::default();
        for key in standing.into_keys() {
            let parts: Vec<&str> = key.iter().map(AsRef::as_ref).collect();
            replaced.insert(key_hash(&parts), key);
        }
        Self { rows, places, replaced: Arc::new(replaced), facts: Arc::new(facts) }
    }
}

/// A late object, read.
#[derive(Debug)]
struct DecodedLate {
    rows: Vec<RecordBatch>,
    facts: Vec<Arc<TraceFacts>>,
    removed: Vec<RowKey>,
}

/// What a table keeps of its late objects between snapshots.
#[derive(Debug, Default)]
pub(super) struct LateMemory {
    objects: BTreeMap<u64, Arc<DecodedLate>>,
    newest: Option<(LateSlots, Arc<Late>)>,
}

impl TableState {
    /// The late changes open at `snapshot`; objects not seen before are read.
    pub(super) async fn late(&self, snapshot: &Snapshot) -> Result<Arc<Late>> {
        if snapshot.late.is_empty() {
            return Ok(Arc::default());
        }
        if let Some((slots, late)) = &self.late_memory.lock().newest
            && *slots == snapshot.late
        {
            return Ok(Arc::clone(late));
        }
        let objects = self.late_objects(snapshot).await?;
        let late = Arc::new(Late::of(self.table, objects.values()));
        let mut memory = self.late_memory.lock();
        memory.objects = objects;
        memory.newest = Some((snapshot.late.clone(), Arc::clone(&late)));
        Ok(late)
    }

    /// In order of their numbers, which rise with the versions that made them live.
    async fn late_objects(&self, snapshot: &Snapshot) -> Result<BTreeMap<u64, Arc<DecodedLate>>> {
        let mut objects = BTreeMap::new();
        for number in snapshot.late.values() {
            let known = self.late_memory.lock().objects.get(number).cloned();
            let object = match known {
                Some(object) => object,
                None => Arc::new(self.read_late(*number).await?),
            };
            objects.insert(*number, object);
        }
        Ok(objects)
    }

    /// Remembers when a late object was put, until it is committed or too old for that.
    fn about_to_put(&self, number: u64) {
        let now_us = self.clock.now_us();
        let mut put_us = self.late_put_us.lock();
        put_us.retain(|_, put_us| now_us - *put_us < LATE_PUT_KEPT_US);
        put_us.insert(number, now_us);
    }

    async fn read_late(&self, number: u64) -> Result<DecodedLate> {
        let path = store::late_object(&self.tenant, self.table.name(), Some(number));
        let body = self.store.get(&path).await?;
        let body = body.ok_or_else(|| StoreError::Missing { path: path.to_string() })?;
        let object = LateObject::decode_object(body)
            .map_err(|source| CatalogError::Format { path: path.to_string(), source })?;
        let mut rows = Vec::new();
        for day in object.days {
            let date = day.day();
            let read = parquet::read(self.table, day.rows, date)
                .map_err(|source| CatalogError::Parquet { path: path.to_string(), source })?;
            rows.extend(read);
        }
        let removed = object.removed.into_iter();
        Ok(DecodedLate {
            rows,
            facts: object.facts.into_iter().map(Arc::new).collect(),
            removed: removed.map(|key| key.parts.into_iter().map(String::into_boxed_str).collect()).collect(),
        })
    }
}

impl Catalog {
    /// The late changes of a table at a snapshot of it.
    pub async fn late(&self, tenant: &TenantId, table: Table, snapshot: &Snapshot) -> Result<Arc<Late>> {
        self.table(tenant, table).late(snapshot).await
    }

    /// The same for a part of a table's late objects: they are not kept in place of all of them.
    pub async fn late_apart(&self, tenant: &TenantId, table: Table, part: &Snapshot) -> Result<Late> {
        let objects = self.table(tenant, table).late_objects(part).await?;
        Ok(Late::of(table, objects.values()))
    }

    /// Puts a late object that a commit on `snapshot` will make live; its number. Numbers rise with versions.
    pub async fn put_late(
        &self,
        tenant: &TenantId,
        table: Table,
        snapshot: &Snapshot,
        object: &LateObject,
    ) -> Result<u64> {
        // A commit that loses its race puts another object: what the random part tells apart.
        let [one, two, three, ..] = *uuid::Uuid::new_v4().as_bytes();
        let random = u64::from_be_bytes([0, 0, 0, 0, 0, one, two, three]) & 0xF_FFFF;
        let number = (snapshot.version.map_or(0, |version| version + 1) + 1) << 20 | random;
        self.table(tenant, table).about_to_put(number);
        let path = store::late_object(tenant, table.name(), Some(number));
        self.store.put(&path, object.encode_object()).await?;
        Ok(number)
    }

    /// All rows of a table that are not in files, and what they change about the files: late ones under fresh ones.
    pub async fn beside_files(
        &self,
        tenant: &TenantId,
        table: Table,
        snapshot: &Snapshot,
        fresh: Fresh,
    ) -> Result<FreshTable> {
        let late = self.late(tenant, table, snapshot).await?;
        if late.is_empty() && fresh.replaced.is_empty() && fresh.facts.is_empty() {
            return Ok(FreshTable { batches: fresh.batches, changes: Changes::default() });
        }
        let mut batches = Vec::with_capacity(late.rows.len() + fresh.batches.len());
        let facts = match (late.facts.is_empty(), fresh.facts.is_empty()) {
            (_, true) => Arc::clone(&late.facts),
            (true, false) => Arc::new(fresh.facts),
            (false, false) => {
                let mut facts = HashMap::clone(&late.facts);
                facts.extend(fresh.facts);
                Arc::new(facts)
            }
        };
        // Days that retention took since: what came late about their rows has lost its base.
        let days: HashSet<i32> = snapshot.files.values().map(|file| file.day.days()).collect();
        for batch in &late.rows {
            let batch = standing(table, batch, &days, &fresh.replaced);
            let batch = stamped(table, &batch, &facts, &fresh.dimensions);
            batches.push(batch.map_err(|e| self.table(tenant, table).corrupt(e.to_string()))?);
        }
        batches.extend(fresh.batches);
        let mut replaced = RowKeys::clone(&late.replaced);
        for (hash, key) in fresh.replaced.iter() {
            replaced.insert(hash, key.clone());
        }
        let touched = self.touched_by(tenant, table, snapshot, &replaced, &facts).await?;
        let changes =
            Changes { replaced: Arc::new(replaced), facts, touched: Arc::new(touched), dimensions: fresh.dimensions };
        Ok(FreshTable { batches, changes })
    }

    /// The live files that may hold a row with one of these keys, or of one of these traces.
    pub async fn touched_by(
        &self,
        tenant: &TenantId,
        table: Table,
        snapshot: &Snapshot,
        replaced: &RowKeys,
        facts: &HashMap<String, Arc<TraceFacts>>,
    ) -> Result<HashSet<String>> {
        let traces = facts.keys().map(|trace| Sought::Trace(key_hash(&[trace])));
        let sought: Vec<Sought> = replaced.hashes().map(Sought::Key).chain(traces).collect();
        self.touched(tenant, table, snapshot, &sought).await
    }

    /// The live files that may hold any of `sought`.
    pub(super) async fn touched(
        &self,
        tenant: &TenantId,
        table: Table,
        snapshot: &Snapshot,
        sought: &[Sought],
    ) -> Result<HashSet<String>> {
        let mut touched = HashSet::new();
        for file in snapshot.files.values() {
            let filters = self.filters.of(tenant, table, file).await?;
            if sought.iter().any(|sought| filters.may_hold(&file.path, *sought)) {
                touched.insert(file.path.clone());
            }
        }
        Ok(touched)
    }
}

/// The rows of `batch` whose home day is one of `days` and whose key is not in `replaced`.
fn standing(table: Table, batch: &RecordBatch, days: &HashSet<i32>, replaced: &RowKeys) -> RecordBatch {
    let home: &Date32Array = batch.column_by_name("day").expect("the table's schema").as_primitive();
    let kept: BooleanArray = home.values().iter().map(|day| Some(days.contains(day))).collect();
    let kept = compute::filter_record_batch(batch, &kept).expect("a mask of the batch's length");
    replaced.without(table, &kept).expect("a mask of the batch's length")
}
