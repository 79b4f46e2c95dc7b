//! Files are written again without what was erased: streaming, under a lease, and every other row stays.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use object_store::memory::InMemory;
use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::folds::{commit_late, parts};
use super::tables::*;
use crate::base::ByteSize;
use crate::catalog::erasures::{ErasureKind, NewErasure};
use crate::catalog::{Catalog, NoRollups};
use crate::compact::lease::Leases;
use crate::compact::{EraseSettings, Eraser};
use crate::format::late::{LateObject, RemovedKey};
use crate::model::tables::Table;
use crate::store::{Location, Store};

const TABLE: Table = Table::ObservationIo;

/// An erasure is asked, so that there is something to do; what it takes was masked before.
async fn ask(catalog: &Catalog) {
    let (tenant, asked_by) = (tenant(), "pk-lf-admin".to_owned());
    let values = vec!["a trace of nobody".to_owned()];
    let asked = NewErasure { tenant, kind: ErasureKind::Trace, values, asked_by, traces: Default::default() };
    catalog.erasures().ask(asked).await.unwrap();
}

async fn mask(catalog: &Catalog, rows: &RecordBatch, gone: &[usize]) {
    let removed = gone.iter().map(|row| RemovedKey { parts: parts(TABLE, rows, *row) }).collect();
    commit_late(catalog, TABLE, LateObject { table: TABLE.name().into(), removed, ..Default::default() }).await;
}

fn others(rows: &RecordBatch, gone: &[usize]) -> RecordBatch {
    let kept: UInt32Array = (0..rows.num_rows()).filter(|row| !gone.contains(row)).map(|row| row as u32).collect();
    take_record_batch(rows, &kept).unwrap()
}

#[tokio::test]
async fn a_file_far_larger_than_the_memory_is_written_again_without_the_rows_that_are_gone() {
    let store = Store::open(Location::Memory(Arc::new(InMemory::new()))).await.unwrap();
    let (catalog, clock) = over(store);
    let mut random = SmallRng::seed_from_u64(3);
    // Some 160 MB of text, decoded; two files more, of which one goes whole.
    let large = rows(TABLE, 320, 256 << 10, &mut random);
    let (small, whole) = (rows(TABLE, 40, 10, &mut random), rows(TABLE, 3, 10, &mut random));
    for batch in [&large, &small, &whole] {
        flush(&catalog, TABLE, batch).await;
    }
    mask(&catalog, &large, &[7, 300]).await;
    mask(&catalog, &whole, &[0, 1, 2]).await;
    ask(&catalog).await;
    let before = catalog.snapshot(&tenant(), TABLE).await.unwrap();
    let settings = EraseSettings { settle_s: 0, memory_max: ByteSize::mib(64), ..Default::default() };
    let eraser = Eraser::new(catalog.clone(), as_clock(&clock), Arc::new(NoRollups), settings);
    eraser.round().await.unwrap();
    assert_eq!(eraser.budget().used(), 0, "all memory is given back");
    let after = catalog.snapshot(&tenant(), TABLE).await.unwrap();
    assert!(after.late.is_empty());
    assert_eq!(after.files.len(), 2, "of a file that goes whole nothing is left");
    let kept = before.files.keys().filter(|path| after.files.contains_key(*path)).count();
    assert_eq!(kept, 1, "a file without such rows stays as it is");
    assert_eq!(after.dropped_rows, before.dropped_rows + 5, "declared (I8)");
    assert_same(TABLE, &read(&catalog, TABLE).await, &[others(&large, &[7, 300]), small]);
}

#[tokio::test]
async fn a_day_that_another_is_at_is_left_alone_until_its_lease_is_given_back() {
    let store = Store::open(Location::Memory(Arc::new(InMemory::new()))).await.unwrap();
    let (catalog, clock) = over(store.clone());
    let mut random = SmallRng::seed_from_u64(4);
    let batch = rows(TABLE, 20, 10, &mut random);
    flush(&catalog, TABLE, &batch).await;
    mask(&catalog, &batch, &[3]).await;
    ask(&catalog).await;
    let held = Leases::new(store, as_clock(&clock), Duration::from_secs(120));
    let held = held.claim(&tenant(), TABLE, day()).await.unwrap().unwrap();
    let eraser = Eraser::new(
        catalog.clone(),
        as_clock(&clock),
        Arc::new(NoRollups),
        EraseSettings { settle_s: 0, ..Default::default() },
    );
    assert_eq!(eraser.round().await.unwrap(), 1, "it is open");
    let rows_in = |count: u64| async move {
        let snapshot = catalog.snapshot(&tenant(), TABLE).await.unwrap();
        assert_eq!(snapshot.files.values().map(|file| file.rows).sum::<u64>(), count);
    };
    rows_in.clone()(20).await;
    held.release().await;
    eraser.round().await.unwrap();
    rows_in(19).await;
}
