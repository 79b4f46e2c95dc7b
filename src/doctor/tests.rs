//! A bucket as servers leave it is healthy; broken in each way on purpose, it is named, and mended where that is safe.

mod logs;
mod tables;

use bytes::Bytes;
use object_store::memory::InMemory;

use super::*;
use crate::base::{ManualClock, SystemClock};
use crate::catalog::erasures::ErasureKind;
use crate::catalog::{Append, Change, DataFile, NewFile, Snapshot};
use crate::ingest::{Ingest, IngestSettings, RowSettings};
use crate::model::{Event, EventBatch, EventKind, Observation, Order as EventOrder, Score, ScoreDataType};
use crate::store::{Location, Path};

const OBSERVATIONS: Table = Table::Observations;

struct World {
    store: Store,
    clock: ManualClock,
    catalog: Catalog,
}

fn acme() -> TenantId {
    "acme".parse().unwrap()
}

impl World {
    /// Two tenants, written by a server that stopped in order.
    async fn healthy() -> Self {
        let clock = ManualClock::at(SystemClock.now_us());
        let store = Store::open(Location::Memory(Arc::new(InMemory::new()))).await.unwrap();
        let catalog = Catalog::new(store.clone(), Arc::new(clock.clone()));
        let world = Self { store, clock, catalog };
        let tenants = Tenants::new(SystemObjects::new(world.store.clone(), Arc::new(world.clock.clone())));
        tenants.create(&acme()).await.unwrap();
        tenants.create(&"globex".parse().unwrap()).await.unwrap();
        let ingest = world.ingest().await;
        for round in 0..4 {
            for tenant in ["acme", "globex"] {
                world.send(&ingest, tenant, &format!("{tenant}-{round}"), 20).await;
            }
            ingest.flush(true).await.unwrap();
        }
        ingest.stop().await.unwrap();
        world.catalog.checkpoint(&acme(), OBSERVATIONS).await.unwrap();
        world
    }

    async fn ingest(&self) -> Ingest {
        let (catalog, clock) = (self.catalog.clone(), Arc::new(self.clock.clone()));
        let settings = IngestSettings::default();
        Ingest::start(catalog, clock, "main".parse().unwrap(), settings, RowSettings::default()).await.unwrap()
    }

    /// One trace of `count` spans and a score, in one request.
    async fn send(&self, ingest: &Ingest, tenant: &str, trace: &str, count: usize) {
        let start_ns = Some(self.clock.now_us() * 1000);
        let order = |id: &str| EventOrder { event_time_us: self.clock.now_us(), is_update: false, event_id: id.into() };
        let mut events: Vec<Event> = (0..count)
            .map(|at| {
                let (id, parent) = (format!("span-{at}"), (at > 0).then(|| "span-0".to_owned()));
                let observation = Observation {
                    trace_id: trace.into(),
                    id: id.clone(),
                    parent_id: parent,
                    start_ns,
                    input: Some("question".into()),
                    ..Default::default()
                };
                Event { order: order(&id), kind: Some(EventKind::Observation(observation)) }
            })
            .collect();
        let score = Score {
            id: format!("score of {trace}"),
            trace_id: Some(trace.into()),
            name: "good".into(),
            data_type: ScoreDataType::Numeric.into(),
            value: Some(1.0),
            ..Default::default()
        };
        events.push(Event { order: order("score"), kind: Some(EventKind::Score(score)) });
        let batch = EventBatch { door: "test".into(), received: count as u64 + 1, events, ..Default::default() };
        let held = ingest.admit(1000).await.unwrap();
        ingest.append(&tenant.parse().unwrap(), batch, held).await.unwrap();
    }

    async fn examine(&self, fix: bool) -> Examination {
        let order = Order { tenant: None, fix };
        examine(self.store.clone(), Arc::new(self.clock.clone()), order).await.unwrap()
    }

    /// That exactly `expected` is found, each as `severity place: what` begins or contains; whether a fix mends it all.
    #[track_caller]
    fn check(&self, expected: &[&str], mends: bool) {
        let caller = std::panic::Location::caller();
        let found = self.wait(self.examine(false));
        let lines: Vec<String> =
            found.findings.iter().map(|f| format!("{} {}: {}", f.severity, f.place, f.what)).collect();
        let is_found = |wanted: &&str| lines.iter().any(|line| wanted.split(" … ").all(|part| line.contains(part)));
        let all = expected.iter().all(is_found);
        assert!(all && lines.len() == expected.len(), "{caller}: found\n{found}");
        let fixed = self.wait(self.examine(true));
        assert_eq!(fixed.findings.iter().all(|finding| finding.is_mended), mends, "{caller}: {fixed}");
        let after = self.wait(self.examine(false));
        assert_eq!(after.findings.is_empty(), mends, "{caller}: after the fix\n{after}");
    }

    fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(future))
    }

    async fn snapshot(&self, table: Table) -> Arc<Snapshot> {
        Catalog::new(self.store.clone(), Arc::new(self.clock.clone())).snapshot(&acme(), table).await.unwrap()
    }

    async fn first_file(&self, table: Table) -> Arc<DataFile> {
        Arc::clone(self.snapshot(table).await.files.values().next().unwrap())
    }

    fn object(&self, table: Table, file: &DataFile) -> Path {
        crate::store::data_object(&acme(), table.name(), &file.path)
    }

    async fn put(&self, path: &Path, body: impl Into<Bytes>) {
        self.store.put(path, body.into()).await.unwrap();
    }

    async fn get(&self, path: &Path) -> Bytes {
        self.store.get(path).await.unwrap().unwrap()
    }

    /// A copy of a live file, put beside it but not committed.
    async fn copied(&self, table: Table) -> NewFile {
        let file = self.first_file(table).await;
        let path = crate::store::data_file(file.day, uuid::Uuid::new_v4());
        let body = self.get(&self.object(table, &file)).await;
        self.put(&crate::store::data_object(&acme(), table.name(), &path), body).await;
        NewFile {
            path,
            day: file.day,
            size_bytes: file.size_bytes,
            footer_bytes: file.footer_bytes.unwrap(),
            time_us: file.time_us,
            stats: format!("{{\"numRecords\":{}}}", file.rows),
            index: None,
            rollups: Default::default(),
            rewrites: 0,
            undated: false,
        }
    }

    /// Makes files live without anybody's rows.
    async fn commit(&self, table: Table, files: Vec<NewFile>, late: Option<u64>) {
        let catalog = Catalog::new(self.store.clone(), Arc::new(self.clock.clone()));
        let (writer, from) = ("main".parse().unwrap(), self.snapshot(table).await.positions.values().sum());
        let append = Append { writer, from, to: from + 1, files, late, checked: None, merged: Default::default() };
        catalog.commit(&acme(), table, Change::Append(append)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_as_servers_leave_it_is_healthy() {
    let world = World::healthy().await;
    let found = world.examine(false).await;
    assert!(found.is_healthy() && found.findings.is_empty(), "{found}");
    assert_eq!((found.seen.tenants, found.seen.tables), (2, 8), "trace_facts has no rows");
    assert!(found.seen.rows > 160 && found.seen.log_objects >= 9, "{found}");
    assert!(found.to_string().ends_with("nothing is wrong"), "{found}");
    // Also while rows are on their way, and after a log was cleaned.
    let ingest = world.ingest().await;
    world.send(&ingest, "acme", "later", 5).await;
    let found = world.examine(false).await;
    let notes: Vec<&str> = found.findings.iter().map(|finding| finding.what.as_str()).collect();
    assert_eq!(notes, ["the books were not compared: rows in the log are not in all tables yet"]);
    assert!(found.is_healthy());
    ingest.flush(true).await.unwrap();
    world.clock.advance_us(30 * 3_600_000_000);
    let settings = UpkeepSettings { clock_ahead_max_s: 0, ..Default::default() };
    let upkeep = Upkeep::new(world.catalog.clone(), Arc::new(world.clock.clone()), settings);
    upkeep.vacuum(&acme(), Vacuum { listing: true, ..Default::default() }).await.unwrap();
    let first = crate::store::delta_log(&acme(), OBSERVATIONS.name(), Some(0));
    assert!(world.store.get(&first).await.unwrap().is_none(), "cleaned");
    let found = world.examine(false).await;
    assert!(found.findings.is_empty(), "{found}");
}

#[test]
fn findings_are_told_worst_first_with_what_mends_them() {
    let mut found =
        Examination { seen: Seen { tenants: 1, tables: 5, files: 7, rows: 90, log_objects: 3 }, ..Default::default() };
    let place = Place::table(&acme(), OBSERVATIONS);
    found.note(&place, "3 objects (1KiB) older than a day that nothing names".to_owned()).mend("delete them", false);
    assert!(found.is_healthy());
    found.warning(&place, "the hint is wrong".to_owned()).mend("write it anew", true);
    assert!(found.is_healthy());
    found.error(&place, "a row stands twice".to_owned());
    assert!(!found.is_healthy());
    let expected = "\
╭─────────┬───────────────────┬──────────────────────────────────────────────────────┬─────────────────────╮
│         ┆ where             ┆ what                                                 ┆ to mend it          │
╞═════════╪═══════════════════╪══════════════════════════════════════════════════════╪═════════════════════╡
│ ERROR   ┆ acme/observations ┆ a row stands twice                                   ┆                     │
│ warning ┆ acme/observations ┆ the hint is wrong                                    ┆ done: write it anew │
│ note    ┆ acme/observations ┆ 3 objects (1KiB) older than a day that nothing names ┆ delete them         │
╰─────────┴───────────────────┴──────────────────────────────────────────────────────┴─────────────────────╯
1 tenants, 5 tables, 7 files, 90 rows, 3 log objects read: 1 errors, 0 warnings";
    assert_eq!(found.to_string(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_erased_before_they_were_stored_are_in_the_books() {
    let world = World::healthy().await;
    let ingest = world.ingest().await;
    world.send(&ingest, "acme", "forgotten", 3).await;
    ingest.erase(&acme(), ErasureKind::Trace, vec!["forgotten".to_owned()], "pk-lf-test").await.unwrap();
    ingest.stop().await.unwrap();
    let found = world.examine(false).await;
    assert!(found.is_healthy(), "{found}");
}
