//! Bringing late changes into the files: rows that came late take the place of those they stand for, facts are stamped
//! on, removed rows go. The files and the late objects change in one commit.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray, Date32Array, RecordBatch};
use arrow::compute;
use arrow::error::ArrowError;

use super::fold::Fold;
use super::plan::{Job, JobKind};
use super::{CompactError, Result};
use crate::base::{Day, TenantId, TimestampUs};
use crate::catalog::{Asked, BatchKeys, Catalog, Late, RowKey, RowKeys, Snapshot, stamped};
use crate::format::parquet;
use crate::model::tables::Table;
use crate::model::{DimensionKeys, ReadError, TraceFacts};

/// Files one fold opens at most, unless a single late object touches more.
const FILES_MAX: usize = 32;
/// More late rows than these are folded at once, however young.
const LATE_ROWS_MAX: usize = 20_000;
/// … or more objects.
const LATE_OBJECTS_MAX: usize = 64;

/// When late changes are folded in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FoldTimes {
    /// After this long, where they touch today's files.
    pub(super) today_us: i64,
    /// … and where they touch older ones.
    pub(super) older_us: i64,
}

/// Late objects of one table, oldest first, and the files they touch.
#[derive(Debug)]
pub(super) struct FoldPlan {
    pub(super) numbers: Vec<u64>,
    pub(super) jobs: Vec<Job>,
    late: Late,
    /// Keys of late rows whose row still stands in a file: others lost their base to retention or erasure.
    based: HashSet<RowKey>,
    dimensions: Arc<DimensionKeys>,
}

/// What is due to be folded in a table; `None`: nothing.
pub(super) async fn plan(
    catalog: &Catalog,
    tenant: &TenantId,
    table: Table,
    snapshot: &Snapshot,
    now_us: TimestampUs,
    times: FoldTimes,
    dimensions: Arc<DimensionKeys>,
) -> Result<Option<FoldPlan>> {
    let Some(oldest_us) = snapshot.late_since_us.values().min().copied() else { return Ok(None) };
    let all = catalog.late(tenant, table, snapshot).await?;
    let age_us = now_us.saturating_sub(oldest_us);
    let many = all.replaced.len() > LATE_ROWS_MAX || snapshot.late.len() > LATE_OBJECTS_MAX;
    if !many && age_us < times.today_us.min(times.older_us) {
        return Ok(None);
    }
    // Newer objects stand above older ones: the oldest go first, as many as touch few enough files.
    let mut numbers: Vec<u64> = snapshot.late.values().copied().collect();
    numbers.sort_unstable();
    let (late, touched) = loop {
        let part = snapshot.with_late(&numbers);
        let late = catalog.late_apart(tenant, table, &part).await?;
        let touched = catalog.touched_by(tenant, table, &part, &late.replaced, &late.facts).await?;
        if touched.len() <= FILES_MAX || numbers.len() == 1 {
            break (late, touched);
        }
        numbers.truncate(numbers.len() / 2);
    };
    let mut days: BTreeMap<Day, Vec<_>> = BTreeMap::new();
    for file in snapshot.files.values().filter(|file| touched.contains(&file.path)) {
        days.entry(file.day).or_default().push(Arc::clone(file));
    }
    let today = Day::of_us(now_us);
    let wait_us = if days.contains_key(&today) { times.today_us } else { times.older_us };
    if !many && age_us < wait_us {
        return Ok(None);
    }
    let based = based(catalog, tenant, table, snapshot, &late).await?;
    let jobs = days.into_iter().map(|(day, inputs)| Job { day, kind: JobKind::Fold, inputs }).collect();
    Ok(Some(FoldPlan { numbers, jobs, late, based, dimensions }))
}

/// The keys of late rows that stand in files.
async fn based(
    catalog: &Catalog,
    tenant: &TenantId,
    table: Table,
    snapshot: &Snapshot,
    late: &Late,
) -> Result<HashSet<RowKey>> {
    let mut asked = Vec::new();
    for batch in &late.rows {
        let keys = BatchKeys::of(table, batch);
        let days: &Date32Array = batch.column_by_name("day").expect("the table's schema").as_primitive();
        asked.extend((0..batch.num_rows()).map(|row| {
            let day = Day::from_days(days.value(row));
            Asked::about(&keys.parts(row), Some(day), Day::from_days(i32::MAX))
        }));
    }
    let files_only = snapshot.with_late(&[]);
    Ok(catalog.find(tenant, table, &files_only, &asked).await?.into_keys().collect())
}

impl FoldPlan {
    /// What the fold does to the files of one day.
    pub(super) fn of_day(&self, table: Table, day: Day) -> Result<DayFold> {
        let mut rows = Vec::new();
        for batch in &self.late.rows {
            let keys = BatchKeys::of(table, batch);
            let days: &Date32Array = batch.column_by_name("day").expect("the table's schema").as_primitive();
            let here = |row: usize| days.value(row) == day.days() && self.based.contains(&keys.key(row));
            let here: BooleanArray = (0..batch.num_rows()).map(|row| Some(here(row))).collect();
            if here.true_count() == 0 {
                continue;
            }
            let failed = |source| CompactError::Arrow { table: table.name(), source };
            let batch = compute::filter_record_batch(batch, &here).map_err(failed)?;
            let batch = stamped(table, &batch, &self.late.facts, &self.dimensions);
            let batch = batch.map_err(unreadable).map_err(failed)?;
            let columns: Vec<usize> = (0..batch.num_columns() - 1).collect();
            rows.push(batch.project(&columns).map_err(failed)?);
        }
        let rows = match rows.is_empty() {
            true => Vec::new(),
            false => {
                let failed = |source| CompactError::Arrow { table: table.name(), source };
                let all = compute::concat_batches(&table.file_schema(), &rows).map_err(failed)?;
                vec![parquet::sort(table, &all).map_err(failed)?]
            }
        };
        Ok(DayFold {
            table,
            replaced: Arc::clone(&self.late.replaced),
            facts: Arc::clone(&self.late.facts),
            dimensions: Arc::clone(&self.dimensions),
            rows,
        })
    }
}

/// The fold of one day's files.
pub(super) struct DayFold {
    table: Table,
    replaced: Arc<RowKeys>,
    facts: Arc<HashMap<String, Arc<TraceFacts>>>,
    dimensions: Arc<DimensionKeys>,
    rows: Vec<RecordBatch>,
}

impl Fold for DayFold {
    fn keep(&self, rows: RecordBatch) -> Result<RecordBatch, ArrowError> {
        let kept = self.replaced.without(self.table, &rows)?;
        stamped(self.table, &kept, &self.facts, &self.dimensions).map_err(unreadable)
    }

    fn replacements(&self) -> Vec<RecordBatch> {
        self.rows.clone()
    }
}

fn unreadable(error: ReadError) -> ArrowError {
    ArrowError::ExternalError(Box::new(error))
}
