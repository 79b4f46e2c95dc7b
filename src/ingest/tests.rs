//! Each sequence of events that the design names, on a store that can fail.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use object_store::memory::InMemory;
use proptest::prelude::*;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::runtime::Runtime;

use super::*;
use crate::base::ManualClock;
use crate::catalog::{BatchKeys, FreshRows, FreshTable};
use crate::format::parquet;
use crate::model::tables::Table;
use crate::model::{DimensionKeys, Event, EventKind, Observation, Order, TraceFacts};
use crate::store::{self, Call, Fault, Faults, Location, Operation, SeededFaults, Store};

mod counting;
mod dimensions;
mod erase;
mod late;
mod prices;
mod races;

const HOUR_US: i64 = 3_600_000_000;
const START_US: i64 = 1_700_000_000_000_000;

/// One process: its own runtime, so that dropping it is `kill -9`.
struct Process {
    runtime: Option<Runtime>,
    ingest: Ingest,
    catalog: Catalog,
}

impl Process {
    fn start(world: &World, writer: &str) -> Self {
        Self::try_start(world, writer).unwrap()
    }

    fn try_start(world: &World, writer: &str) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let clock: Arc<dyn crate::base::Clock> = Arc::new(world.clock.clone());
        let started: Result<_> = runtime.block_on(async {
            let store = Store::with_faults(world.location.clone(), Arc::clone(&world.faults) as _).await?;
            let catalog = Catalog::new(store, Arc::clone(&clock));
            // What another process acked shows when a test says so.
            let settings = IngestSettings { adopt_after_s: 60, log_kept_s: 0, follow: false, ..Default::default() };
            let writer = writer.parse().unwrap();
            let ingest = Ingest::start(catalog.clone(), clock, writer, settings, RowSettings::default()).await?;
            Ok((ingest, catalog))
        });
        let (ingest, catalog) = started?;
        Ok(Self { runtime: Some(runtime), ingest, catalog })
    }

    fn run<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.as_ref().unwrap().block_on(future)
    }

    fn append(&self, tenant: &str, events: Vec<Event>) -> Result<()> {
        let observations = events.iter().filter(|event| !matches!(event.kind, Some(EventKind::Trace(_)))).count();
        let batch = EventBatch { door: "test".into(), events, received: observations as u64, ..Default::default() };
        self.run(async {
            let held = self.ingest.admit(1000).await?;
            self.ingest.append(&tenant.parse().unwrap(), batch, held).await
        })
    }

    fn flush(&self) -> Result<()> {
        self.run(self.ingest.flush(true))
    }

    /// What of `table` stands beside its files.
    fn fresh(&self, table: Table) -> FreshTable {
        let tenant = "acme".parse().unwrap();
        self.run(async {
            let pinned = self.ingest.pin(&tenant);
            let snapshot = self.catalog.snapshot(&tenant, table).await.unwrap();
            pinned.rows(table, &snapshot).await.unwrap()
        })
    }

    /// The books of tenant `acme` that are in no file, by outcome.
    fn books(&self) -> BTreeMap<String, i64> {
        sums(&self.fresh(Table::Ledger).batches)
    }

    /// All books of tenant `acme`, by outcome.
    fn all_books(&self) -> BTreeMap<String, i64> {
        sums(&self.rows("acme", Table::Ledger))
    }

    /// All rows of `table` as a query would see them: those of files that nothing replaces, and those beside the files.
    fn rows(&self, tenant: &str, table: Table) -> Vec<RecordBatch> {
        let tenant = tenant.parse().unwrap();
        self.run(async {
            let pinned = self.ingest.pin(&tenant);
            let snapshot = self.catalog.snapshot(&tenant, table).await.unwrap();
            let FreshTable { mut batches, changes } = pinned.rows(table, &snapshot).await.unwrap();
            for file in snapshot.files.values() {
                let root = store::table_root(&tenant, table.name());
                let path = file.path.split('/').fold(root, |path, part| path.join(part));
                let body = loop {
                    if let Ok(body) = self.catalog.store().get(&path).await {
                        break body.expect("a live file is in the store");
                    }
                };
                for batch in parquet::read(table, body, file.day).unwrap() {
                    let batch = match table {
                        Table::Observations => {
                            crate::model::tables::stamp(&batch, &changes.facts, &changes.dimensions).unwrap()
                        }
                        _ => batch,
                    };
                    let kept: BooleanArray = match table {
                        Table::Ledger => vec![true; batch.num_rows()].into(),
                        _ => {
                            let keys = BatchKeys::of(table, &batch);
                            let rows = 0..batch.num_rows();
                            let gone = |row| changes.replaced.contains(keys.hash(row), &keys.parts(row));
                            rows.map(|row| Some(!gone(row))).collect()
                        }
                    };
                    if kept.true_count() < batch.num_rows() {
                        assert!(changes.touched.contains(&file.path), "a file that is changed is named");
                    }
                    batches.push(arrow::compute::filter_record_batch(&batch, &kept).unwrap());
                }
            }
            batches
        })
    }

    /// How often each id stands in `table`, files and fresh rows together, as a query would see it.
    fn ids(&self, tenant: &str, table: Table) -> BTreeMap<String, usize> {
        let mut ids = BTreeMap::new();
        for id in self.column(tenant, table, table.key_columns().last().unwrap()).into_iter().flatten() {
            *ids.entry(id).or_default() += 1;
        }
        ids
    }

    /// The values of a column of text.
    fn column(&self, tenant: &str, table: Table, name: &str) -> Vec<Option<String>> {
        let mut values = Vec::new();
        for batch in self.rows(tenant, table) {
            let column = batch.column_by_name(name).unwrap().as_string_view().clone();
            values.extend(column.iter().map(|value| value.map(str::to_owned)));
        }
        values.sort();
        values
    }
}

fn sums(books: &[RecordBatch]) -> BTreeMap<String, i64> {
    let mut sums = BTreeMap::new();
    for batch in books {
        let outcomes = batch.column_by_name("outcome").unwrap().as_string_view().clone();
        let counts: &arrow::array::Int64Array = batch.column_by_name("count").unwrap().as_primitive();
        for (outcome, count) in outcomes.iter().zip(counts.values()) {
            *sums.entry(outcome.unwrap().to_owned()).or_default() += count;
        }
    }
    sums.retain(|_, count| *count != 0);
    sums
}

impl Drop for Process {
    fn drop(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }
}

/// A store, a clock, and a switch that makes chosen puts fail.
struct World {
    location: Location,
    clock: ManualClock,
    faults: Arc<Switch>,
}

#[derive(Debug, Default)]
struct Switch {
    /// Puts whose path contains this fail while the switch is on.
    broken: parking_lot::Mutex<String>,
    on: AtomicBool,
    random: parking_lot::Mutex<Option<SeededFaults>>,
    puts: AtomicU64,
}

impl Faults for Switch {
    fn on(&self, call: Call<'_>) -> Fault {
        if call.operation == Operation::Put {
            self.puts.fetch_add(1, Ordering::SeqCst);
        }
        if let Some(random) = self.random.lock().as_ref() {
            return random.on(call);
        }
        let hit = self.on.load(Ordering::SeqCst) && call.path.as_ref().contains(self.broken.lock().as_str());
        if hit && call.operation == Operation::Put { Fault::Fail } else { Fault::None }
    }
}

impl World {
    fn new() -> Self {
        let location = Location::Memory(Arc::new(InMemory::new()));
        Self { location, clock: ManualClock::at(START_US), faults: Arc::default() }
    }

    fn break_puts(&self, path: &str) {
        *self.faults.broken.lock() = path.to_owned();
        self.faults.on.store(true, Ordering::SeqCst);
    }

    fn mend(&self) {
        self.faults.on.store(false, Ordering::SeqCst);
    }
}

fn span(trace: &str, id: &str, parent: Option<&str>) -> Event {
    let observation = Observation {
        trace_id: trace.into(),
        id: id.into(),
        parent_id: parent.map(str::to_owned),
        name: Some("llm".into()),
        start_ns: Some(START_US * 1000),
        end_ns: Some(START_US * 1000 + 5_000_000),
        input: Some("hello".into()),
        ..Default::default()
    };
    let order = Order { event_time_us: START_US, is_update: false, event_id: id.into() };
    Event { order, kind: Some(EventKind::Observation(observation)) }
}

fn once(ids: &[&str]) -> BTreeMap<String, usize> {
    ids.iter().map(|id| (id.to_string(), 1)).collect()
}

#[test]
fn what_is_acked_is_visible_before_and_after_the_flush_and_after_a_kill() {
    let world = World::new();
    let process = Process::start(&world, "main");
    process.append("acme", vec![span("t", "a", None), span("t", "b", Some("a"))]).unwrap();
    assert_eq!(process.ids("acme", Table::Observations), once(&["a", "b"]));
    assert_eq!(process.ids("other", Table::Observations), once(&[]));
    drop(process);
    let process = Process::start(&world, "main");
    assert_eq!(process.ids("acme", Table::Observations), once(&["a", "b"]), "replayed");
    process.flush().unwrap();
    process.append("acme", vec![span("t2", "c", None)]).unwrap();
    assert_eq!(process.ids("acme", Table::Observations), once(&["a", "b", "c"]));
    assert_eq!(process.ids("acme", Table::ObservationIo), once(&["a", "b", "c"]));
    drop(process);
    let process = Process::start(&world, "main");
    assert_eq!(process.ids("acme", Table::Observations), once(&["a", "b", "c"]), "flushed and replayed, each once");
}

#[test]
fn a_crash_between_text_and_observations_doubles_neither() {
    let world = World::new();
    let process = Process::start(&world, "main");
    process.append("acme", vec![span("t", "a", None)]).unwrap();
    world.break_puts("observations/_delta_log");
    process.flush().unwrap_err();
    assert_eq!(process.ids("acme", Table::ObservationIo), once(&["a"]), "committed, and no longer fresh");
    assert_eq!(process.ids("acme", Table::Observations), once(&["a"]), "still fresh");
    drop(process);
    world.mend();
    let process = Process::start(&world, "main");
    process.append("acme", vec![span("t", "b", Some("a"))]).unwrap();
    assert_eq!(process.ids("acme", Table::ObservationIo), once(&["a", "b"]));
    assert_eq!(process.ids("acme", Table::Observations), once(&["a", "b"]));
    process.flush().unwrap();
    assert_eq!(process.ids("acme", Table::ObservationIo), once(&["a", "b"]));
    assert_eq!(process.ids("acme", Table::Observations), once(&["a", "b"]));
}

#[test]
fn a_request_that_says_nothing_is_acked_and_writes_nothing() {
    let world = World::new();
    let process = Process::start(&world, "main");
    let before = world.faults.puts.load(Ordering::SeqCst);
    process.append("acme", Vec::new()).unwrap();
    assert_eq!(world.faults.puts.load(Ordering::SeqCst), before);
    process.append("acme", vec![span("t", "a", None)]).unwrap();
    assert!(world.faults.puts.load(Ordering::SeqCst) > before);
}

#[test]
fn a_store_that_is_away_refuses_and_the_same_process_goes_on_when_it_is_back() {
    let world = World::new();
    let process = Process::start(&world, "main");
    world.break_puts("wal/");
    let refused = process.append("acme", vec![span("t", "a", None)]).unwrap_err();
    assert_eq!(refused.kind(), Kind::Unavailable);
    world.mend();
    process.append("acme", vec![span("t", "b", None)]).unwrap();
    assert_eq!(process.ids("acme", Table::Observations), once(&["b"]), "what was refused is not there");
}

#[test]
fn a_second_process_on_one_log_fences_the_first() {
    let world = World::new();
    let first = Process::start(&world, "main");
    first.append("acme", vec![span("t", "a", None)]).unwrap();
    let second = Process::start(&world, "main");
    assert_eq!(second.ids("acme", Table::Observations), once(&["a"]));
    let refused = first.append("acme", vec![span("t", "b", None)]).unwrap_err();
    assert_eq!(refused.kind(), Kind::Fenced);
    first.run(first.ingest.fenced());
    second.append("acme", vec![span("t", "c", None)]).unwrap();
    assert_eq!(second.ids("acme", Table::Observations), once(&["a", "c"]));
}

#[test]
fn a_stalled_old_process_that_flushes_after_its_log_was_taken_doubles_nothing() {
    let world = World::new();
    let old = Process::start(&world, "main");
    old.append("acme", vec![span("t", "a", None)]).unwrap();
    let new = Process::start(&world, "main");
    new.append("acme", vec![span("t", "b", None)]).unwrap();
    old.flush().unwrap();
    assert_eq!(new.run(async { tokio::time::sleep(Duration::from_millis(1100)).await }), ());
    assert_eq!(new.ids("acme", Table::Observations), once(&["a", "b"]), "before the new owner's flush");
    new.flush().unwrap();
    assert_eq!(new.ids("acme", Table::Observations), once(&["a", "b"]), "after it");
    assert_eq!(new.ids("acme", Table::ObservationIo), once(&["a", "b"]));
    let old_again = Process::start(&world, "main");
    assert_eq!(old_again.ids("acme", Table::Observations), once(&["a", "b"]));
}

#[test]
fn a_foreign_object_at_the_next_number_stops_the_writer() {
    let world = World::new();
    let process = Process::start(&world, "main");
    process.append("acme", vec![span("t", "a", None)]).unwrap();
    let path = store::log_object(process.ingest.writer(), Some(3));
    process.run(process.catalog.store().put(&path, "TLW".into())).unwrap();
    assert_eq!(process.append("acme", vec![span("t", "b", None)]).unwrap_err().kind(), Kind::Fenced);
    drop(process);
    let stopped = Process::try_start(&world, "main").err().map(|error| error.kind());
    assert_eq!(stopped, None, "a torn tail was never acked");
    let process = Process::start(&world, "main");
    assert_eq!(process.ids("acme", Table::Observations), once(&["a"]));
}

#[test]
fn a_damaged_object_in_the_middle_stops_the_replay_loudly() {
    let world = World::new();
    let process = Process::start(&world, "main");
    process.append("acme", vec![span("t", "a", None)]).unwrap();
    process.append("acme", vec![span("t", "b", None)]).unwrap();
    let path = store::log_object(process.ingest.writer(), Some(2));
    let mut body = process.run(process.catalog.store().get(&path)).unwrap().unwrap().to_vec();
    let middle = body.len() / 2;
    body[middle] ^= 1;
    process.run(process.catalog.store().put(&path, body.into())).unwrap();
    drop(process);
    let error = Process::try_start(&world, "main").err().unwrap();
    assert_eq!(error.kind(), Kind::Corrupt);
    assert!(error.to_string().contains("wal/main/00000000000000000002"), "{error}");
}

#[test]
fn a_quiet_tenant_keeps_its_log_objects_until_it_is_flushed() {
    let world = World::new();
    let process = Process::start(&world, "main");
    process.append("quiet", vec![span("t", "q", None)]).unwrap();
    for at in 0..3 {
        process.append("busy", vec![span("t", &at.to_string(), None)]).unwrap();
    }
    let flush_busy = async {
        let shared = &process.ingest.shared;
        flush::flush_tenant(shared, &shared.own, &"busy".parse().unwrap(), true).await
    };
    process.run(flush_busy).unwrap();
    world.clock.advance_us(3 * HOUR_US);
    process.run(marks::look(&process.ingest.shared)).unwrap();
    drop(process);
    let process = Process::start(&world, "main");
    assert_eq!(process.ids("quiet", Table::Observations), once(&["q"]));
    assert_eq!(process.ids("busy", Table::Observations), once(&["0", "1", "2"]));
    process.flush().unwrap();
    // Everything is committed: the log may go, but for the claims.
    world.clock.advance_us(100 * 365 * 24 * HOUR_US);
    process.run(marks::look(&process.ingest.shared)).unwrap();
    let left = process.run(process.catalog.store().list(&store::logs(), None)).unwrap();
    assert_eq!(left.len(), 2, "the two claims stay as a fence: {left:?}");
    drop(process);
    let process = Process::start(&world, "main");
    assert_eq!(process.ids("quiet", Table::Observations), once(&["q"]));
    process.append("quiet", vec![span("t", "r", None)]).unwrap();
    assert_eq!(process.ids("quiet", Table::Observations), once(&["q", "r"]));
}

#[test]
fn rows_without_a_root_are_carried_and_take_its_facts_when_it_comes() {
    let world = World::new();
    let process = Process::start(&world, "main");
    process.append("acme", vec![span("t", "child", Some("root")), span("u", "whole", None)]).unwrap();
    process.run(process.ingest.flush(false)).unwrap();
    let tenant = "acme".parse().unwrap();
    let files = process.run(process.catalog.snapshot(&tenant, Table::Observations)).unwrap();
    assert_eq!(files.rows(), 1, "only the whole trace was flushed");
    assert_eq!(process.ids("acme", Table::Observations), once(&["child", "whole"]));
    drop(process);
    let process = Process::start(&world, "main");
    assert_eq!(process.ids("acme", Table::Observations), once(&["child", "whole"]), "the carry frame was replayed");
    let facts = TraceFacts {
        trace_id: "t".into(),
        user_id: Some("ada".into()),
        root_id: Some("root".into()),
        ..Default::default()
    };
    let order = Order { event_time_us: START_US, is_update: false, event_id: "facts".into() };
    let facts = Event { order, kind: Some(EventKind::Trace(facts)) };
    process.append("acme", vec![span("t", "root", None), facts]).unwrap();
    process.flush().unwrap();
    let users = process.column("acme", Table::Observations, "user_id");
    assert_eq!(users, [None, Some("ada".to_owned()), Some("ada".to_owned())]);
}

#[test]
fn a_silent_log_with_rows_in_no_table_is_adopted() {
    let world = World::new();
    let lost = Process::start(&world, "node-1");
    lost.append("acme", vec![span("t", "a", None)]).unwrap();
    drop(lost);
    let process = Process::start(&world, "node-2");
    // The store's own clock dates objects; ours runs ahead of it.
    world.clock.advance_us(100 * 365 * 24 * HOUR_US);
    process.run(marks::look(&process.ingest.shared)).unwrap();
    assert_eq!(process.ids("acme", Table::Observations), once(&["a"]));
    process.flush().unwrap();
    assert_eq!(process.ids("acme", Table::Observations), once(&["a"]));
    process.run(marks::look(&process.ingest.shared)).unwrap();
    assert_eq!(process.ingest.shared.writers.read().len(), 1, "drained and let go");
    drop(process);
    let back = Process::start(&world, "node-1");
    assert_eq!(back.ids("acme", Table::Observations), once(&["a"]));
}

#[test]
fn duplicates_in_the_buffer_merge_and_the_books_balance() {
    let world = World::new();
    let process = Process::start(&world, "main");
    process.append("acme", vec![span("t", "a", None)]).unwrap();
    process.append("acme", vec![span("t", "a", None), span("t", "b", None)]).unwrap();
    assert_eq!(process.ids("acme", Table::Observations), once(&["a", "b"]));
    let expected: BTreeMap<String, i64> =
        [("received", 3), ("stored", 2), ("merged", 1)].map(|(outcome, count)| (outcome.to_owned(), count)).into();
    assert_eq!(process.books(), expected);
    drop(process);
    let again = Process::start(&world, "main");
    assert_eq!(again.books(), expected, "also after a replay");
}

#[test]
fn a_full_buffer_refuses_with_a_name_and_takes_more_when_it_was_flushed() {
    let world = World::new();
    let process = Process::start(&world, "main");
    let limit = process.ingest.budget().limit();
    let all = process.run(process.ingest.admit(limit.bytes())).unwrap();
    let refused = process.append("acme", vec![span("t", "a", None)]).unwrap_err();
    assert_eq!(refused.kind(), Kind::Unavailable);
    assert!(refused.to_string().contains("buffer_bytes_max"), "{refused}");
    drop(all);
    process.append("acme", vec![span("t", "a", None)]).unwrap();
    assert!(process.ingest.budget().used() > 0);
    process.flush().unwrap();
    assert_eq!(process.ingest.budget().used(), 0, "flushed rows give their memory back");
    assert_eq!(process.run(process.ingest.admit(limit.bytes() + 1)).unwrap_err().kind(), Kind::TooLarge);
}

#[test]
fn under_pressure_those_who_hold_most_are_flushed_and_no_more_than_relieve_it() {
    let world = World::new();
    let process = Process::start(&world, "main");
    process.append("heavy", (0..20).map(|at| span("t", &at.to_string(), None)).collect()).unwrap();
    process.append("light", vec![span("t", "a", None)]).unwrap();
    let budget = process.ingest.budget();
    let _others = process.run(process.ingest.admit(budget.limit().bytes() / 100 * 60 + 1 - budget.used())).unwrap();
    process.run(process.ingest.flush_due());
    let buffers = &process.ingest.shared.own.buffers;
    let holds = |tenant: &str| buffers.get(&tenant.parse().unwrap()).unwrap().buffer.needs_from().is_some();
    assert_eq!((holds("heavy"), holds("light")), (false, true));
}

#[test]
fn many_quiet_tenants_wait_longer_but_never_for_ever() {
    let waits = |tenants| IngestSettings::default().quiet_after_s(tenants);
    assert_eq!([0, 900, 5_000, 1_000_000].map(waits), [900, 900, 5_000, 3 * 3600]);
}

/// Appends, flushes and kills at random on a store that fails, delays and loses replies: what was acked is there, and
/// nothing is there twice.
fn random_life(seed: u64) {
    let world = World::new();
    let mut random = SmallRng::seed_from_u64(seed);
    let mut acked = Vec::new();
    let mut sent = 0;
    for _ in 0..4 {
        *world.faults.random.lock() = None;
        let process = Process::start(&world, "main");
        *world.faults.random.lock() = Some(SeededFaults::new(random.random(), 8, 8, 10));
        for _ in 0..random.random_range(1..6) {
            if random.random_range(0..3) == 0 {
                let _ = process.run(process.ingest.flush(random.random_range(0..2) == 0));
                continue;
            }
            let id = sent.to_string();
            sent += 1;
            let parent = (random.random_range(0..2) == 0).then_some("root");
            if process.append("acme", vec![span(&format!("t{}", sent / 3), &id, parent)]).is_ok() {
                acked.push(id);
            }
        }
        *world.faults.random.lock() = None;
        let ids = process.ids("acme", Table::Observations);
        assert!(ids.values().all(|count| *count == 1), "seed {seed}: doubled in {ids:?}");
    }
    let process = Process::start(&world, "main");
    for table in [Table::Observations, Table::ObservationIo] {
        let ids = process.ids("acme", table);
        assert!(ids.values().all(|count| *count == 1), "seed {seed}: doubled in {table:?}: {ids:?}");
        let lost: Vec<_> = acked.iter().filter(|id| !ids.contains_key(*id)).collect();
        assert!(lost.is_empty(), "seed {seed}: acked and lost in {table:?}: {lost:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, ..ProptestConfig::default() })]

    #[test]
    fn whatever_fails_acked_rows_are_there_once(seed in any::<u64>()) {
        random_life(seed);
    }
}
