//! Many workers on one bucket: each file is rewritten once, no row is lost or doubled, whoever dies when.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use object_store::memory::InMemory;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::tables::*;
use crate::base::ByteSize;
use crate::catalog::system::SystemObjects;
use crate::catalog::tenants::Tenants;
use crate::catalog::{Catalog, NoRollups};
use crate::compact::{CompactSettings, Compactor};
use crate::format::delta::{self, Action};
use crate::model::tables::Table;
use crate::store::{self, Location, SeededFaults, Store};

fn memory() -> Location {
    Location::Memory(Arc::new(InMemory::new()))
}

fn settings() -> CompactSettings {
    CompactSettings { files_max: 6, memory_max: ByteSize::mib(128), ..Default::default() }
}

/// A worker of its own process.
async fn worker(store: Store, settings: CompactSettings) -> (Compactor, Catalog) {
    let (catalog, clock) = over(store.clone());
    let tenants = Tenants::new(SystemObjects::new(store, as_clock(&clock)));
    (Compactor::new(catalog.clone(), tenants, as_clock(&clock), Arc::new(NoRollups), settings).unwrap(), catalog)
}

async fn bad_store(location: &Location, seed: u64) -> Store {
    Store::with_faults(location.clone(), Arc::new(SeededFaults::new(seed, 5, 5, 20))).await.unwrap()
}

/// Every file was removed at most once, and none was added twice: no work was committed twice.
async fn assert_log_is_sound(location: &Location, table: Table) {
    let store = Store::open(location.clone()).await.unwrap();
    let commits = store.list(&store::delta_log(&tenant(), table.name(), None), None).await.unwrap();
    let (mut added, mut removed) = (BTreeSet::new(), BTreeSet::new());
    for commit in commits {
        let body = store.get(&commit.location).await.unwrap().unwrap();
        for action in delta::decode_commit(&body).unwrap() {
            match action {
                Action::Add(add) => assert!(added.insert(add.path.clone()), "{} was added twice", add.path),
                Action::Remove(remove) => {
                    assert!(removed.insert(remove.path.clone()), "{} was removed twice", remove.path);
                    assert!(!remove.data_change);
                }
                _ => {}
            }
        }
    }
    assert!(removed.is_subset(&added));
}

#[tokio::test]
async fn a_day_that_is_over_becomes_one_file_a_table() {
    let location = memory();
    let (compactor, catalog) = worker(Store::open(location.clone()).await.unwrap(), CompactSettings::default()).await;
    let mut random = SmallRng::seed_from_u64(1);
    let mut flushed = vec![Vec::new(); Table::ALL.len()];
    for _ in 0..40 {
        for table in Table::ALL {
            let batch = rows(table, 20, 50, &mut random);
            flush(&catalog, table, &batch).await;
            flushed[table as usize].push(batch);
        }
    }
    // The files were made just now: nothing is quiet yet, but 40 are too many.
    let at_once = compactor.run_once().await.unwrap();
    let (later, catalog) = later(&location).await;
    let done = later.run_once().await.unwrap();
    assert!(at_once.rewrites >= 5, "{at_once}; {done}");
    for table in Table::ALL {
        assert_eq!(file_count(&catalog, table).await, 1, "{}", table.name());
        assert_same(table, &read(&catalog, table).await, &flushed[table as usize]);
        assert_log_is_sound(&location, table).await;
    }
    assert_eq!(later.run_once().await.unwrap().rewrites, 0, "a sealed day is left alone");
    assert!(later.parked().is_empty());
}

/// A worker a day later.
async fn later(location: &Location) -> (Compactor, Catalog) {
    let store = Store::open(location.clone()).await.unwrap();
    let (catalog, clock) = over(store.clone());
    clock.advance_us(crate::base::Day::US);
    let tenants = Tenants::new(SystemObjects::new(store, as_clock(&clock)));
    (Compactor::new(catalog.clone(), tenants, as_clock(&clock), Arc::new(NoRollups), settings()).unwrap(), catalog)
}

/// So many workers on one store with faults, some killed at random points, while rows keep coming.
async fn many_workers(location: Location, count: u64, seed: u64) {
    let tables = [Table::Observations, Table::ObservationIo, Table::Ledger];
    let appending = {
        let location = location.clone();
        tokio::spawn(async move {
            let mut random = SmallRng::seed_from_u64(seed);
            let (catalog, _) = catalog(&location).await;
            let mut flushed: Vec<(Table, RecordBatch)> = Vec::new();
            for _ in 0..25 {
                for table in tables {
                    let batch = rows(table, random.random_range(1..40), 100, &mut random);
                    flush(&catalog, table, &batch).await;
                    flushed.push((table, batch));
                }
                tokio::time::sleep(Duration::from_millis(random.random_range(0..20))).await;
            }
            flushed
        })
    };
    let workers: Vec<_> = (0..count)
        .map(|at| {
            let location = location.clone();
            tokio::spawn(async move {
                let mut random = SmallRng::seed_from_u64(seed ^ (at << 32));
                let mut rewrites = 0;
                for life in 0..12 {
                    let store = bad_store(&location, seed.wrapping_mul(97) + at * 31 + life).await;
                    let (compactor, _) = worker(store, settings()).await;
                    // Dropped there: killed.
                    let lifetime = Duration::from_millis(random.random_range(5..300));
                    let _ = tokio::time::timeout(lifetime, compactor.run_once()).await;
                    rewrites += compactor.done().rewrites;
                }
                rewrites
            })
        })
        .collect();
    let mut rewrites = 0;
    for worker in workers {
        rewrites += worker.await.unwrap();
    }
    let flushed = appending.await.unwrap();
    println!("{count} workers, seed {seed}: {rewrites} rewrites");
    let (catalog, _) = catalog(&location).await;
    for table in tables {
        let of_table: Vec<RecordBatch> =
            flushed.iter().filter(|(whose, _)| *whose == table).map(|(_, batch)| batch.clone()).collect();
        assert_same(table, &read(&catalog, table).await, &of_table);
        assert_log_is_sound(&location, table).await;
    }
    // Whoever comes after the dead finishes what they left.
    let (last, catalog) = later(&location).await;
    last.run_once().await.unwrap();
    for table in tables {
        let of_table: Vec<RecordBatch> =
            flushed.iter().filter(|(whose, _)| *whose == table).map(|(_, batch)| batch.clone()).collect();
        assert_same(table, &read(&catalog, table).await, &of_table);
        assert_eq!(file_count(&catalog, table).await, 1, "{} is sealed", table.name());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_workers_on_a_bad_store_lose_and_double_nothing() {
    many_workers(memory(), 2, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_workers_on_a_bad_folder_lose_and_double_nothing() {
    let folder = tempfile::tempdir().unwrap();
    many_workers(Location::Folder(folder.path().into()), 4, 4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_workers_on_a_bad_store_lose_and_double_nothing() {
    many_workers(memory(), 8, 8).await;
}

#[tokio::test]
async fn what_cannot_be_merged_is_parked_and_the_rest_is_done() {
    let location = memory();
    let (_, catalog) = worker(Store::open(location.clone()).await.unwrap(), settings()).await;
    let mut random = SmallRng::seed_from_u64(1);
    for _ in 0..3 {
        flush(&catalog, Table::Scores, &rows(Table::Scores, 9, 0, &mut random)).await;
        flush(&catalog, Table::TraceFacts, &rows(Table::TraceFacts, 9, 0, &mut random)).await;
    }
    let snapshot = catalog.snapshot(&tenant(), Table::Scores).await.unwrap();
    let path = store::data_object(&tenant(), "scores", snapshot.files.keys().next().unwrap());
    let body = catalog.store().get(&path).await.unwrap().unwrap();
    let mut damaged = body.to_vec();
    let half = damaged.len() / 2;
    damaged[4..half].fill(0x5a);
    catalog.store().put(&path, damaged.into()).await.unwrap();

    let (later, catalog) = later(&location).await;
    later.run_once().await.unwrap();
    assert_eq!(file_count(&catalog, Table::TraceFacts).await, 1);
    assert_eq!(file_count(&catalog, Table::Scores).await, 3, "the files stay");
    let parked = later.parked();
    assert_eq!((parked.len(), parked[0].table, parked[0].day), (1, Table::Scores, day()));
    assert!(!parked[0].reason.is_empty());
    // It is not tried again at once.
    later.run_once().await.unwrap();
    assert_eq!(later.parked()[0].tries, 1);
}

#[tokio::test]
async fn files_of_a_deleted_tenant_are_left_alone() {
    let location = memory();
    let (later, catalog) = later(&location).await;
    let tenants = Tenants::new(SystemObjects::new(catalog.store().clone(), as_clock(&crate::base::ManualClock::at(1))));
    tenants.create(&tenant()).await.unwrap();
    let mut random = SmallRng::seed_from_u64(1);
    for _ in 0..3 {
        flush(&catalog, Table::Scores, &rows(Table::Scores, 9, 0, &mut random)).await;
    }
    tenants.delete(&tenant()).await.unwrap();
    assert_eq!(later.run_once().await.unwrap().rewrites, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_works_by_itself_and_stops_when_asked() {
    let location = memory();
    let (compactor, catalog) =
        worker(Store::open(location.clone()).await.unwrap(), CompactSettings { interval_s: 1, ..settings() }).await;
    let mut random = SmallRng::seed_from_u64(1);
    let mut flushed = Vec::new();
    for _ in 0..8 {
        let batch = rows(Table::Scores, 9, 0, &mut random);
        flush(&catalog, Table::Scores, &batch).await;
        flushed.push(batch);
    }
    let role = compactor.start().unwrap();
    for _ in 0..200 {
        if file_count(&catalog, Table::Scores).await < 6 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(file_count(&catalog, Table::Scores).await < 6);
    let stopping = tokio::time::timeout(Duration::from_secs(5), role.stop()).await;
    assert!(stopping.is_ok());
    assert_same(Table::Scores, &read(&catalog, Table::Scores).await, &flushed);
}
