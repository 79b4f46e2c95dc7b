//! A log that was cleaned while somebody slept: nobody takes a cleaned number for the tip, and nobody writes there.

use std::time::Duration;

use bytes::Bytes;
use chrono::DateTime;
use parking_lot::Mutex;

use super::*;
use crate::base::{Clock, SystemClock};
use crate::store::{Call, Fault, Faults, Operation, Store, delta_checkpoint, delta_log, last_checkpoint};

const TABLE: Table = Table::Scores;
const DAY_US: i64 = 86_400_000_000;
const NOTHING: [u64; 0] = [];

/// Processes on one store and one clock, which starts at the store's own time.
struct World {
    location: Location,
    clock: ManualClock,
}

impl World {
    fn new() -> Self {
        Self { location: memory(), clock: ManualClock::at(SystemClock.now_us()) }
    }

    async fn process(&self) -> Catalog {
        let store = Store::open(self.location.clone()).await.unwrap();
        Catalog::new(store, Arc::new(self.clock.clone()))
    }
}

async fn commits(catalog: &Catalog, writer: &str, positions: std::ops::Range<u64>) {
    for position in positions {
        let done = catalog.commit(&tenant(), TABLE, append(writer, position, position + 1, 1)).await.unwrap();
        assert!(matches!(done, Committed::Done { .. }), "{done:?}");
    }
}

/// Cleans what may be cleaned; the versions of the commits that went.
async fn clean(catalog: &Catalog) -> Vec<u64> {
    let listed = catalog.store().list(&delta_log(&tenant(), TABLE.name(), None), None).await.unwrap();
    let below = catalog.log_to_clean(&tenant(), TABLE, &listed, Duration::ZERO).await.unwrap();
    for meta in &below {
        catalog.delete_from_log(&meta.location).await.unwrap();
    }
    below.iter().filter_map(|meta| crate::store::delta_version(&meta.location)).collect()
}

async fn rows(catalog: &Catalog) -> u64 {
    catalog.snapshot(&tenant(), TABLE).await.unwrap().rows()
}

#[tokio::test]
async fn only_what_is_older_than_a_day_and_below_a_checkpoint_goes() {
    let world = World::new();
    let process = world.process().await;
    commits(&process, "w", 0..10).await;
    assert_eq!(clean(&process).await, NOTHING, "there is no checkpoint");
    process.checkpoint(&tenant(), TABLE).await.unwrap();
    commits(&process, "w", 10..12).await;
    assert_eq!(clean(&process).await, NOTHING, "a day has not passed, whatever time was asked for");
    world.clock.advance_us(DAY_US + 60_000_000);
    assert_eq!(clean(&process).await, (0..9).collect::<Vec<u64>>());
    assert_eq!(clean(&process).await, NOTHING);
    assert_eq!(rows(&world.process().await).await, 12);
    // Nothing goes from a log with a hole: what is old may be all that is left.
    process.checkpoint(&tenant(), TABLE).await.unwrap();
    commits(&process, "w", 12..15).await;
    world.clock.advance_us(DAY_US + 60_000_000);
    process.store().delete(&delta_log(&tenant(), TABLE.name(), Some(13))).await.unwrap();
    let listed = process.store().list(&delta_log(&tenant(), TABLE.name(), None), None).await.unwrap();
    let refused = process.log_to_clean(&tenant(), TABLE, &listed, Duration::ZERO).await.unwrap_err();
    assert!(refused.to_string().contains("commit 13 is missing"), "{refused}");
}

#[tokio::test]
async fn nothing_is_cleaned_below_a_checkpoint_that_cannot_be_read() {
    let world = World::new();
    let process = world.process().await;
    commits(&process, "w", 0..10).await;
    let version = process.checkpoint(&tenant(), TABLE).await.unwrap().unwrap();
    process.store().put(&delta_checkpoint(&tenant(), TABLE.name(), version), Bytes::from("PAR1")).await.unwrap();
    world.clock.advance_us(3 * DAY_US);
    assert_eq!(clean(&process).await, NOTHING);
}

/// Commits 0 to 4 by a process that then falls asleep; another goes on to 120 and cleans most of it away.
async fn asleep(world: &World) -> (Catalog, Catalog) {
    let sleeper = world.process().await;
    commits(&sleeper, "sleeper", 0..5).await;
    let other = world.process().await;
    commits(&other, "other", 0..116).await;
    other.checkpoint(&tenant(), TABLE).await.unwrap();
    world.clock.advance_us(2 * DAY_US);
    let cleaned = clean(&other).await;
    assert!(cleaned.starts_with(&[0, 1, 2, 3, 4, 5, 6]), "{cleaned:?}");
    (sleeper, other)
}

#[tokio::test]
async fn a_sleeper_creates_no_cleaned_number() {
    let world = World::new();
    let (sleeper, other) = asleep(&world).await;
    // It believes that 4 is the tip, as it saw a moment ago by its own clock, which stood still meanwhile; 5 is free.
    let done = sleeper.commit(&tenant(), TABLE, append("sleeper", 5, 6, 7)).await.unwrap();
    assert_eq!(done, Committed::Done { version: 121 }, "made anew after the tip");
    let stray = sleeper.store().get(&delta_log(&tenant(), TABLE.name(), Some(5))).await.unwrap();
    assert_eq!(stray, None, "and what it had put at 5 is taken back");
    assert_eq!((rows(&sleeper).await, rows(&world.process().await).await), (128, 128));
    commits(&other, "other", 116..117).await;
    assert_eq!(rows(&other).await, 129);
}

#[tokio::test]
async fn a_sleeper_whose_commit_was_in_time_is_told_so() {
    let world = World::new();
    let process = world.process().await;
    commits(&process, "w", 0..5).await;
    world.clock.advance_us(2 * DAY_US);
    // The tip it knows is old, but nobody wrote since.
    let done = process.commit(&tenant(), TABLE, append("w", 5, 6, 1)).await.unwrap();
    assert_eq!(done, Committed::Done { version: 5 });
    // And one whose number is below a checkpoint that holds it.
    let change = append("w", 6, 7, 1);
    let Change::Append(Append { files, .. }) = &change else { unreachable!() };
    let added = vec![files[0].path.clone()];
    process.commit(&tenant(), TABLE, change.clone()).await.unwrap();
    process.checkpoint(&tenant(), TABLE).await.unwrap();
    assert!(process.table(&tenant(), TABLE).stands(6, &added).await.unwrap());
}

#[tokio::test]
async fn a_sleeper_follows_no_other_sleeper() {
    let world = World::new();
    let (sleeper, other) = asleep(&world).await;
    let body = r#"{"commitInfo":{"timestamp":1,"operation":"WRITE"}}"#;
    other.store().create(&delta_log(&tenant(), TABLE.name(), Some(5)), Bytes::from(body)).await.unwrap();
    let done = sleeper.commit(&tenant(), TABLE, append("sleeper", 5, 6, 7)).await.unwrap();
    assert_eq!(done, Committed::Done { version: 121 }, "5 is taken by one who slept as well, and 6 is nobody's next");
    assert_eq!(rows(&world.process().await).await, 128);
}

#[tokio::test]
async fn a_commit_left_at_a_cleaned_number_is_nobodys_tip() {
    let world = World::new();
    let (stale, other) = asleep(&world).await;
    // The sleeper created 5 and ended before it could take it back.
    let body = r#"{"commitInfo":{"timestamp":1,"operation":"WRITE"}}"#;
    let stray = delta_log(&tenant(), TABLE.name(), Some(5));
    other.store().create(&stray, Bytes::from(body)).await.unwrap();
    // What it saw less than a second ago it may show again, by a clock that stood still.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(rows(&stale).await, 121, "one who knew version 4");
    assert_eq!(rows(&world.process().await).await, 121, "one who knew nothing");
    // Its checkpoint of version 4 came as late, and with it the hint.
    let before = World::new();
    let early = before.process().await;
    commits(&early, "sleeper", 0..5).await;
    early.checkpoint(&tenant(), TABLE).await.unwrap();
    for path in [delta_checkpoint(&tenant(), TABLE.name(), 4), last_checkpoint(&tenant(), TABLE.name())] {
        other.store().put(&path, early.store().get(&path).await.unwrap().unwrap()).await.unwrap();
    }
    let fresh = world.process().await;
    assert_eq!(rows(&fresh).await, 121, "one who was sent to version 4 by the hint");
    commits(&fresh, "third", 0..1).await;
    fresh.checkpoint(&tenant(), TABLE).await.unwrap();
    let before = fresh.store().counts().list;
    assert_eq!(rows(&world.process().await).await, 122, "the hint is put right by the next checkpoint");
    assert_eq!(fresh.store().counts().list, before);
    // The next clean-up takes it, once it is old.
    world.clock.advance_us(2 * DAY_US);
    assert!(clean(&other).await.contains(&5));
}

/// A store whose objects are as old as the clock of the test says.
#[derive(Debug)]
struct Stamped {
    random: SeededFaults,
    clock: ManualClock,
    made: Arc<Mutex<HashMap<String, i64>>>,
}

impl Faults for Stamped {
    fn on(&self, call: Call<'_>) -> Fault {
        if call.operation == Operation::Put {
            self.made.lock().entry(call.path.to_string()).or_insert(self.clock.now_us());
        }
        self.random.on(call)
    }
}

/// Writers, rewriters, checkpoints and clean-ups on a store that fails, on a clock that jumps by hours, so that tips go
/// stale and logs are cleaned under everybody's feet. As without them, rows are what the positions say.
async fn random_schedule(seed: u64) {
    let world = World::new();
    let made: Arc<Mutex<HashMap<String, i64>>> = Arc::default();
    let mut tasks = Vec::new();
    for at in 0..3u64 {
        let random = SeededFaults::new(seed.wrapping_mul(31).wrapping_add(at), 5, 10, 20);
        let faults = Arc::new(Stamped { random, clock: world.clock.clone(), made: Arc::clone(&made) });
        let made = Arc::clone(&made);
        let store = Store::with_faults(world.location.clone(), faults).await.unwrap();
        let (clock, name) = (world.clock.clone(), ["a", "a", "b"][at as usize]);
        tasks.push(tokio::spawn(async move {
            let catalog = Catalog::new(store, Arc::new(clock.clone()));
            let mut random = SmallRng::seed_from_u64(seed ^ at);
            for _ in 0..25 {
                let Ok(snapshot) = catalog.known_snapshot(&tenant(), TABLE).await else { continue };
                match random.random_range(0..8) {
                    0 => {
                        let inputs: Vec<String> = snapshot.files.keys().take(3).cloned().collect();
                        let outputs = vec![file(1, inputs.iter().map(|path| snapshot.files[path].rows).sum())];
                        let rewrite = Rewrite { inputs, outputs, ..Default::default() };
                        let _ = catalog.commit(&tenant(), TABLE, Change::Rewrite(rewrite)).await;
                    }
                    1 => _ = catalog.checkpoint(&tenant(), TABLE).await,
                    2 => {
                        let folder = delta_log(&tenant(), TABLE.name(), None);
                        let Ok(mut listed) = catalog.store().list(&folder, None).await else { continue };
                        for meta in &mut listed {
                            let made_us = made.lock().get(meta.location.as_ref()).copied();
                            meta.last_modified = made_us.and_then(DateTime::from_timestamp_micros).unwrap_or_default();
                        }
                        let cleaned = catalog.log_to_clean(&tenant(), TABLE, &listed, Duration::ZERO).await;
                        for meta in cleaned.into_iter().flatten() {
                            // Ended in the middle: what is left has no hole.
                            if catalog.delete_from_log(&meta.location).await.is_err() {
                                break;
                            }
                            made.lock().remove(meta.location.as_ref());
                        }
                    }
                    3 => clock.advance_us(random.random_range(1..30) * 3_600_000_000),
                    _ => {
                        let from = snapshot.position(&writer(name));
                        let to = from + random.random_range(1..4);
                        let _ = catalog.commit(&tenant(), TABLE, append(name, from, to, to - from)).await;
                    }
                }
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let snapshot = world.process().await.snapshot(&tenant(), TABLE).await.unwrap();
    let positions: u64 = snapshot.positions.values().sum();
    assert_eq!(snapshot.rows(), positions, "seed {seed}: rows and positions differ");
    assert!(positions > 0, "seed {seed}: nothing was committed");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn under_any_schedule_of_checkpoints_and_clean_ups_rows_equal_positions(seed in any::<u64>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(random_schedule(seed));
    }
}
