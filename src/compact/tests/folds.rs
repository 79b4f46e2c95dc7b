//! Late changes go into the files: once, whole, and with the late objects gone in the same commit.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch, StringViewArray, UInt32Array};
use arrow::compute::take_record_batch;
use object_store::memory::InMemory;
use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::tables::*;
use crate::catalog::system::SystemObjects;
use crate::catalog::tenants::Tenants;
use crate::catalog::{Append, BatchKeys, Catalog, Change, NoRollups};
use crate::compact::{CompactSettings, Compactor};
use crate::format::late::{LateDay, LateObject, RemovedKey};
use crate::format::parquet;
use crate::model::tables::{Table, stamp};
use crate::model::{DimensionKeys, TraceFacts};
use crate::store::{Location, Store};

/// A commit that only makes a late object live.
pub(super) async fn commit_late(catalog: &Catalog, table: Table, object: LateObject) {
    let snapshot = catalog.known_snapshot(&tenant(), table).await.unwrap();
    let late = Some(catalog.put_late(&tenant(), table, &snapshot, &object).await.unwrap());
    let writer = "late".parse().unwrap();
    let from = snapshot.position(&writer);
    let append = Append { writer, from, to: from + 1, files: vec![], late, checked: None, merged: Default::default() };
    catalog.commit(&tenant(), table, Change::Append(append)).await.unwrap();
}

fn take(rows: &RecordBatch, wanted: &[usize]) -> RecordBatch {
    let wanted: UInt32Array = wanted.iter().map(|row| *row as u32).collect();
    take_record_batch(rows, &wanted).unwrap()
}

/// The rows with another text in one column.
fn renamed(rows: &RecordBatch, column: &str, to: &str) -> RecordBatch {
    let at = rows.schema().index_of(column).unwrap();
    let mut columns = rows.columns().to_vec();
    columns[at] = Arc::new(StringViewArray::from(vec![to; rows.num_rows()]));
    RecordBatch::try_new(rows.schema(), columns).unwrap()
}

fn late_rows(table: Table, rows: &RecordBatch) -> LateDay {
    let written = parquet::write(table, [parquet::sort(table, rows).unwrap()]).unwrap();
    LateDay::new(day(), written.bytes, rows.num_rows() as u64)
}

pub(super) fn parts(table: Table, rows: &RecordBatch, row: usize) -> Vec<String> {
    BatchKeys::of(table, rows).parts(row).into_iter().map(str::to_owned).collect()
}

async fn fold_all(store: Store) -> Compactor {
    let (catalog, clock) = over(store.clone());
    let tenants = Tenants::new(SystemObjects::new(store, as_clock(&clock)));
    let settings = CompactSettings { fold_today_s: 0, fold_older_s: 0, ..Default::default() };
    let compactor = Compactor::new(catalog, tenants, as_clock(&clock), Arc::new(NoRollups), settings).unwrap();
    compactor.run_once().await.unwrap();
    compactor
}

#[tokio::test]
async fn late_rows_facts_and_removals_end_in_the_files_in_one_commit() {
    for table in [Table::Observations, Table::ObservationIo, Table::Scores] {
        let location = Location::Memory(Arc::new(InMemory::new()));
        let store = Store::open(location.clone()).await.unwrap();
        let (catalog, _) = over(store.clone());
        let mut random = SmallRng::seed_from_u64(7);
        let batches: Vec<RecordBatch> = (0..3).map(|_| rows(table, 200, 50, &mut random)).collect();
        for batch in &batches {
            flush(&catalog, table, batch).await;
        }
        let column = if table == Table::ObservationIo { "input" } else { "name" };
        // Said twice about one row: the later one stands. The row of the third file goes.
        let first = renamed(&take(&batches[0], &[3, 4]), column, "too early");
        let second = renamed(&take(&batches[0], &[4]), column, "late");
        let facts = TraceFacts { trace_id: "trace-03".into(), user_id: Some("ada".into()), ..Default::default() };
        let facts_said = if table == Table::Observations { vec![facts.clone()] } else { vec![] };
        let removed = vec![RemovedKey { parts: parts(table, &batches[2], 9) }];
        // A row whose base is nowhere: it was taken by retention.
        let lost = renamed(&take(&rows(table, 1, 10, &mut random), &[0]), column, "lost");
        let of = |days, facts, removed| LateObject { table: table.name().into(), days, facts, removed };
        commit_late(&catalog, table, of(vec![late_rows(table, &first)], vec![], vec![])).await;
        commit_late(&catalog, table, of(vec![late_rows(table, &second)], facts_said.clone(), removed)).await;
        commit_late(&catalog, table, of(vec![late_rows(table, &lost)], vec![], vec![])).await;

        let done = fold_all(store.clone()).await.done();
        assert_eq!(done.folded, 3, "{table:?}");
        let (catalog, _) = over(store);
        let snapshot = catalog.snapshot(&tenant(), table).await.unwrap();
        assert!(snapshot.late.is_empty());
        let others = |batch: &RecordBatch, gone: &[usize]| {
            take(batch, &(0..batch.num_rows()).filter(|row| !gone.contains(row)).collect::<Vec<_>>())
        };
        let mut expected = vec![
            others(&batches[0], &[3, 4]),
            take(&first, &[0]),
            second.clone(),
            batches[1].clone(),
            others(&batches[2], &[9]),
        ];
        if table == Table::Observations {
            let facts = HashMap::from([("trace-03".to_owned(), Arc::new(facts))]);
            let stamped = |batch: &RecordBatch| stamp(batch, &facts, &DimensionKeys::default()).unwrap();
            expected = expected.iter().map(stamped).collect();
            let users = |batch: &RecordBatch| {
                let users = batch.column_by_name("user_id").unwrap().as_string_view().clone();
                users.iter().flatten().filter(|user| *user == "ada").count()
            };
            let users: usize = expected.iter().map(users).sum();
            assert!(users > 0, "the facts reach some rows");
        }
        assert_same(table, &read(&catalog, table).await, &expected);
    }
}

#[tokio::test]
async fn young_changes_wait_and_a_day_without_any_is_left_alone() {
    let location = Location::Memory(Arc::new(InMemory::new()));
    let store = Store::open(location.clone()).await.unwrap();
    let (catalog, clock) = over(store.clone());
    let mut random = SmallRng::seed_from_u64(8);
    let batch = rows(Table::Scores, 10, 10, &mut random);
    flush(&catalog, Table::Scores, &batch).await;
    let late = renamed(&take(&batch, &[0]), "name", "late");
    let object =
        LateObject { table: "scores".into(), days: vec![late_rows(Table::Scores, &late)], ..Default::default() };
    commit_late(&catalog, Table::Scores, object).await;
    let tenants = Tenants::new(SystemObjects::new(store.clone(), as_clock(&clock)));
    let compactor =
        Compactor::new(catalog.clone(), tenants, as_clock(&clock), Arc::new(NoRollups), CompactSettings::default())
            .unwrap();
    assert_eq!(compactor.run_once().await.unwrap().folded, 0, "an hour has not passed");
    clock.advance_us(3_601 * 1_000_000);
    assert_eq!(compactor.run_once().await.unwrap().folded, 1);
    assert_eq!(compactor.run_once().await.unwrap().rewrites, 0, "there is nothing more to do");
}
