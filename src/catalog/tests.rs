use object_store::memory::InMemory;
use proptest::prelude::*;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::base::{Day, ManualClock, WriterId};
use crate::store::{Location, SeededFaults, data_file};

mod checkpoints;
mod cleaned;
mod grown;
mod rules;
mod sleepers;

fn tenant() -> TenantId {
    "acme".parse().unwrap()
}

fn writer(name: &str) -> WriterId {
    name.parse().unwrap()
}

async fn catalog(location: &Location, seed: Option<u64>) -> Catalog {
    let store = match seed {
        None => Store::open(location.clone()).await.unwrap(),
        Some(seed) => {
            let faults = Arc::new(SeededFaults::new(seed, 10, 15, 30));
            Store::with_faults(location.clone(), faults).await.unwrap()
        }
    };
    Catalog::new(store, Arc::new(ManualClock::at(1_000_000)))
}

fn memory() -> Location {
    Location::Memory(Arc::new(InMemory::new()))
}

fn file(day: i32, rows: u64) -> NewFile {
    let day = Day::from_days(day);
    NewFile {
        path: data_file(day, uuid::Uuid::new_v4()),
        day,
        size_bytes: 10,
        footer_bytes: 5,
        time_us: Some((1, 2)),
        stats: format!("{{\"numRecords\":{rows}}}"),
        index: None,
        rollups: Default::default(),
        rewrites: 0,
        undated: false,
    }
}

fn appended(name: &str, from: u64, to: u64, files: Vec<NewFile>) -> Append {
    Append { writer: writer(name), from, to, files, late: None, checked: None, merged: Default::default() }
}

fn append(name: &str, from: u64, to: u64, rows: u64) -> Change {
    Change::Append(appended(name, from, to, vec![file(1, rows)]))
}

#[tokio::test]
async fn an_append_is_done_once_and_costs_one_request() {
    let location = memory();
    let catalog = catalog(&location, None).await;
    let table = Table::Observations;
    assert_eq!(catalog.commit(&tenant(), table, append("w", 0, 3, 7)).await.unwrap(), Committed::Done { version: 0 });
    let before = catalog.store().counts();
    assert_eq!(catalog.commit(&tenant(), table, append("w", 3, 4, 1)).await.unwrap(), Committed::Done { version: 1 });
    let after = catalog.store().counts();
    assert_eq!((after.put - before.put, after.get - before.get, after.list - before.list), (1, 0, 0));
    assert_eq!(catalog.commit(&tenant(), table, append("w", 0, 3, 7)).await.unwrap(), Committed::Nothing);
    assert_eq!(catalog.commit(&tenant(), table, append("w", 3, 9, 7)).await.unwrap(), Committed::Moved { position: 4 });
    assert_eq!(
        catalog.commit(&tenant(), table, append("w", 5, 9, 7)).await.unwrap(),
        Committed::Behind { position: 4 }
    );
    assert_eq!(catalog.snapshot(&tenant(), table).await.unwrap().rows(), 8);
}

#[tokio::test]
async fn two_processes_see_each_others_commits_and_neither_overwrites() {
    let location = memory();
    let (one, two) = (catalog(&location, None).await, catalog(&location, None).await);
    let table = Table::Scores;
    one.commit(&tenant(), table, append("a", 0, 1, 1)).await.unwrap();
    two.commit(&tenant(), table, append("b", 0, 1, 1)).await.unwrap();
    one.commit(&tenant(), table, append("a", 1, 2, 1)).await.unwrap();
    assert_eq!(two.known_snapshot(&tenant(), table).await.unwrap().rows(), 2);
    let loaded = catalog(&location, None).await;
    assert_eq!(loaded.snapshot(&tenant(), table).await.unwrap().rows(), 3);
}

#[tokio::test]
async fn a_rewrite_is_void_when_an_input_is_gone_and_keeps_every_row() {
    let location = memory();
    let catalog = catalog(&location, None).await;
    let table = Table::Observations;
    let first = file(1, 5);
    let input = first.path.clone();
    let append = appended("w", 0, 1, vec![first]);
    catalog.commit(&tenant(), table, Change::Append(append)).await.unwrap();
    let rewrite = |rows| {
        let (inputs, outputs) = (vec![input.clone()], vec![file(1, rows)]);
        Change::Rewrite(Rewrite { inputs, outputs, ..Default::default() })
    };
    assert_eq!(catalog.commit(&tenant(), table, rewrite(4)).await.unwrap_err().kind(), Kind::Corrupt, "I8");
    catalog.commit(&tenant(), table, rewrite(5)).await.unwrap();
    let again = catalog.commit(&tenant(), table, rewrite(5)).await.unwrap_err();
    assert!(matches!(again, CatalogError::InputGone { .. }), "{again}");
    let dropped = Change::DropDays { through: Day::from_days(1) };
    catalog.commit(&tenant(), table, dropped.clone()).await.unwrap();
    assert_eq!(catalog.commit(&tenant(), table, dropped).await.unwrap(), Committed::Nothing);
    assert_eq!(catalog.snapshot(&tenant(), table).await.unwrap().rows(), 0);
}

#[tokio::test]
async fn a_gap_in_the_log_stops_loudly() {
    let location = memory();
    let catalog = catalog(&location, None).await;
    for position in 0..3 {
        catalog.commit(&tenant(), Table::Scores, append("w", position, position + 1, 1)).await.unwrap();
    }
    catalog.store().delete(&crate::store::delta_log(&tenant(), "scores", Some(1))).await.unwrap();
    let fresh = self::catalog(&location, None).await;
    assert_eq!(fresh.snapshot(&tenant(), Table::Scores).await.unwrap_err().kind(), Kind::Corrupt);
}

/// Writers and a rewriter on a store that fails, delays and loses replies; the model is the arithmetic of positions:
/// a writer's rows are in the table exactly once for every position that any process believes committed.
async fn random_schedule(seed: u64) {
    let location = memory();
    let table = Table::Observations;
    let mut tasks = Vec::new();
    // Two processes share writer `a` (an old owner that does not know it was replaced), one owns `b`.
    for (at, name) in ["a", "a", "b"].into_iter().enumerate() {
        let catalog = catalog(&location, Some(seed.wrapping_mul(31).wrapping_add(at as u64))).await;
        tasks.push(tokio::spawn(async move {
            let mut random = SmallRng::seed_from_u64(seed ^ at as u64);
            for _ in 0..12 {
                let Ok(snapshot) = catalog.known_snapshot(&tenant(), table).await else { continue };
                let from = snapshot.position(&writer(name));
                let to = from + random.random_range(1..4);
                // One row per position: a lost or doubled range shows in the sum.
                let change = append(name, from, to, to - from);
                let _ = catalog.commit(&tenant(), table, change).await;
                if random.random_range(0..3) == 0
                    && let Ok(snapshot) = catalog.known_snapshot(&tenant(), table).await
                {
                    let inputs: Vec<String> = snapshot.files.keys().take(3).cloned().collect();
                    let rows = inputs.iter().map(|path| snapshot.files[path].rows).sum();
                    let rewrite = Rewrite { inputs, outputs: vec![file(1, rows)], ..Default::default() };
                    let _ = catalog.commit(&tenant(), table, Change::Rewrite(rewrite)).await;
                }
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let snapshot = catalog(&location, None).await.snapshot(&tenant(), table).await.unwrap();
    let positions: u64 = snapshot.positions.values().sum();
    assert_eq!(snapshot.rows(), positions, "seed {seed}: rows and positions differ");
    assert!(positions > 0, "seed {seed}: nothing was committed");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10, ..ProptestConfig::default() })]

    #[test]
    fn under_any_schedule_and_fault_rows_equal_positions(seed in any::<u64>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(random_schedule(seed));
    }
}
