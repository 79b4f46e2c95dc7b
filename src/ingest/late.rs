//! Late changes of a segment: rows that stand already with what is said about them now, as a late object or for a query.

use std::sync::Arc;

use ::parquet::errors::ParquetError;
use arrow::array::{Array, RecordBatch, UInt32Array};
use arrow::compute;

use super::rows::{self, Making, Part};
use crate::base::Day;
use crate::catalog::{BatchKeys, RowKeys, StandingRow};
use crate::format::late::{LateDay, LateObject};
use crate::format::parquet;
use crate::model::tables::Table;

/// The column that says who decided what.
const MERGE: &str = "_merge";

/// The changed rows of one home day, in the table's schema and sort order.
pub(super) struct ChangedDay {
    pub(super) day: Day,
    pub(super) rows: RecordBatch,
}

/// The rows that stand and that this segment changes. What only repeats a row changes nothing.
pub(super) fn changed(table: Table, making: Making<'_>) -> Vec<ChangedDay> {
    let mut changed = Vec::new();
    if !making.standing.has_rows() {
        return changed;
    }
    let making = Making { part: Part::Late, ..making };
    for rows in rows::days(table, making) {
        let mut kept = Vec::new();
        for batch in rows.batches {
            let batch = rows::with_day(table, rows.day, &batch);
            let keys = BatchKeys::of(table, &batch);
            let news = (0..batch.num_rows()).filter(|row| changes(table, making, &keys.parts(*row), &batch, *row));
            let news: UInt32Array = news.map(|row| row as u32).collect();
            if !news.is_empty() {
                kept.push(compute::take_record_batch(&batch, &news).expect("rows of the batch"));
            }
        }
        if !kept.is_empty() {
            let all = compute::concat_batches(&table.table_schema(), &kept).expect("batches of one schema");
            let sorted = parquet::sort(table, &all).expect("columns that can be sorted");
            changed.push(ChangedDay { day: rows.day, rows: sorted });
        }
    }
    changed
}

/// The keys of changed rows: the rows they stand for do not count any more.
pub(super) fn keys(table: Table, changed: &[ChangedDay]) -> RowKeys {
    let mut all = RowKeys::default();
    for day in changed {
        let keys = BatchKeys::of(table, &day.rows);
        (0..day.rows.num_rows()).for_each(|row| _ = all.insert(keys.hash(row), keys.key(row)));
    }
    all
}

/// What a flush writes about rows that stand; `None` if nothing changes.
pub(super) fn object(table: Table, making: Making<'_>) -> Result<Option<LateObject>, ParquetError> {
    let mut object = LateObject { table: table.name().to_owned(), ..Default::default() };
    for ChangedDay { day, rows } in changed(table, making) {
        let count = rows.num_rows() as u64;
        let file_rows = rows.project(&(0..rows.num_columns() - 1).collect::<Vec<_>>())?;
        let written = parquet::write(table, [file_rows])?;
        object.days.push(LateDay::new(day, written.bytes, count));
    }
    object.facts = making.standing.overlay.values().map(|facts| facts.as_ref().clone()).collect();
    object.facts.sort_by(|one, other| one.trace_id.cmp(&other.trace_id));
    Ok((!object.is_empty()).then_some(object))
}

/// Whether a merged row says more than the one that stands.
fn changes(table: Table, making: Making<'_>, key: &[&str], batch: &RecordBatch, row: usize) -> bool {
    let Making { segment, standing, .. } = making;
    let observation = || {
        let key = (Arc::from(key[0]), Arc::from(*key.last()?));
        Some((segment.observations.get(&key)?, standing.observations.get(&key)?))
    };
    let trace = || Some((segment.traces.get(key[0])?, standing.traces.get(key[0])?));
    let differs = |base: &StandingRow| !same_columns(table, base, batch, row);
    match table {
        Table::ObservationIo if key[1].is_empty() => trace().is_some_and(|(_, base)| differs(&base.row)),
        Table::Observations | Table::ObservationIo => {
            // One that the segment does not speak of is here because it counts no more.
            observation().is_none_or(|(entry, base)| entry.says_more(table, &base.events) || differs(&base.row))
        }
        // Each request says the facts anew, in an order of its own: only what they change counts.
        Table::TraceFacts => trace().is_some_and(|(_, base)| differs(&base.row)),
        Table::Scores => {
            let found = segment.scores.get(key[0]).zip(standing.scores.get(key[0]));
            found.is_some_and(|(entry, base)| entry.says_more(table, &base.events) || differs(&base.row))
        }
        Table::Ledger => false,
    }
}

/// Whether two rows are equal but for the record of who decided what.
fn same_columns(table: Table, base: &StandingRow, batch: &RecordBatch, row: usize) -> bool {
    let equal = |name: &str| match (base.rows.column_by_name(name), batch.column_by_name(name)) {
        (Some(one), Some(other)) => one.slice(base.row, 1) == other.slice(row, 1),
        _ => false,
    };
    table.columns().into_iter().all(|(name, ..)| name == MERGE || equal(name))
}
