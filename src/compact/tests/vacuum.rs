//! What goes and what stays, step by step, on one store and a clock that is moved.

use std::sync::Arc;

use bytes::Bytes;
use object_store::memory::InMemory;
use uuid::Uuid;

use super::super::*;
use crate::base::{Clock, Day, ManualClock, SystemClock, TenantId};
use crate::catalog::retention::{Retention, Retentions};
use crate::catalog::system::SystemObjects;
use crate::catalog::tenants::Tenants;
use crate::catalog::{Append, Catalog, Change, NewFile, Rewrite};
use crate::format::rollup::{RollupFacts, RollupKind, RollupSet};
use crate::model::tables::Table;
use crate::store::{self, Location, Store};

const TABLE: Table = Table::Observations;
const HOUR_US: i64 = 3_600_000_000;
const NOW: Vacuum = Vacuum { dry_run: false, listing: true, at_once: true };

struct World {
    clock: ManualClock,
    store: Store,
    catalog: Catalog,
    upkeep: Upkeep,
    position: std::cell::Cell<u64>,
}

fn acme() -> TenantId {
    "acme".parse().unwrap()
}

fn append(from: u64, files: Vec<NewFile>, late: Option<u64>) -> Change {
    let (writer, to) = ("w".parse().unwrap(), from + 1);
    Change::Append(Append { writer, from, to, files, late, checked: None, merged: Default::default() })
}

impl World {
    async fn new() -> Self {
        // The store says when an object was made by the real clock, so ours starts there.
        let clock = ManualClock::at(SystemClock.now_us());
        let store = Store::open(Location::Memory(Arc::new(InMemory::new()))).await.unwrap();
        let catalog = Catalog::new(store.clone(), Arc::new(clock.clone()));
        let settings = UpkeepSettings { clock_ahead_max_s: 0, deletes_per_s: 100_000, ..Default::default() };
        let upkeep = Upkeep::new(catalog.clone(), Arc::new(clock.clone()), settings);
        Self { clock, store, catalog, upkeep, position: Default::default() }
    }

    fn today(&self) -> Day {
        Day::of_us(self.clock.now_us())
    }

    /// Puts files of two days with one index object, and commits them; their paths.
    async fn flush(&self, days: &[Day]) -> Vec<String> {
        let (files, _) = self.write(days).await;
        let paths = files.iter().map(|file| file.path.clone()).collect();
        let from = self.position.replace(self.position.get() + 1);
        self.append(TABLE, from, files, None).await;
        self.append(Table::Ledger, from, Vec::new(), None).await;
        paths
    }

    async fn append(&self, table: Table, from: u64, files: Vec<NewFile>, late: Option<u64>) {
        let append = append(from, files, late);
        self.catalog.commit(&acme(), table, append).await.unwrap();
    }

    async fn write(&self, days: &[Day]) -> (Vec<NewFile>, String) {
        let index = Uuid::new_v4().to_string();
        self.store.put(&store::index_file(&acme(), TABLE.name(), &index), Bytes::from("index")).await.unwrap();
        let mut files = Vec::new();
        for day in days {
            let path = store::data_file(*day, Uuid::new_v4());
            self.store.put(&self.object(&path), Bytes::from("0123456789")).await.unwrap();
            let mut rollups = RollupSet::default();
            for kind in RollupKind::ALL {
                let rollup = store::rollup_object(&acme(), kind, TABLE.name(), &path);
                self.store.put(&rollup, Bytes::from("sums")).await.unwrap();
                rollups.put(kind, RollupFacts { version: 1, rows: 1, size_bytes: 4, footer_bytes: 2 });
            }
            files.push(NewFile {
                path,
                day: *day,
                size_bytes: 10,
                footer_bytes: 5,
                time_us: Some((day.start_us(), day.start_us())),
                stats: r#"{"numRecords":3}"#.to_owned(),
                index: Some(index.clone()),
                rollups,
                rewrites: 0,
                undated: false,
            });
        }
        (files, index)
    }

    fn object(&self, path: &str) -> store::Path {
        store::data_object(&acme(), TABLE.name(), path)
    }

    /// Its roll-up is where it is.
    async fn is_there(&self, path: &str) -> bool {
        let is_there = self.store.get(&self.object(path)).await.unwrap().is_some();
        for kind in RollupKind::ALL {
            let rollup = store::rollup_object(&acme(), kind, TABLE.name(), path);
            assert_eq!(self.store.get(&rollup).await.unwrap().is_some(), is_there, "the {} of {path}", kind.name());
        }
        is_there
    }

    async fn indexes(&self) -> usize {
        let folder = store::Path::from(format!("tenants/acme/_index/{}", TABLE.name()));
        self.store.list(&folder, None).await.unwrap().len()
    }

    async fn vacuum(&self, how: Vacuum) -> TableReport {
        let reports = self.upkeep.vacuum(&acme(), how).await.unwrap();
        let (_, report) = reports.into_iter().find(|(table, _)| *table == TABLE).unwrap();
        assert_eq!(report.error, None);
        report
    }

    async fn rewrite(&self, inputs: &[String]) -> Vec<String> {
        let rows = 3 * inputs.len();
        let (mut files, _) = self.write(&[self.today()]).await;
        files[0].stats = format!("{{\"numRecords\":{rows}}}");
        let outputs = vec![files[0].path.clone()];
        let change = Change::Rewrite(Rewrite { inputs: inputs.to_vec(), outputs: files, ..Default::default() });
        self.catalog.commit(&acme(), TABLE, change).await.unwrap();
        outputs
    }
}

#[tokio::test]
async fn a_removed_file_goes_after_the_linger_time_and_its_index_with_the_last_of_its_commit() {
    let world = World::new().await;
    let (today, before) = (world.today(), Day::from_days(world.today().days() - 1));
    let files = world.flush(&[before, today]).await;
    let merged = world.rewrite(&files[..1]).await;
    world.clock.advance_us(2 * HOUR_US - 1_000_000);
    let report = world.vacuum(NOW).await;
    assert_eq!((report.retired.objects, report.lingering.objects), (0, 1));
    world.clock.advance_us(1_000_000);
    let dry = world.vacuum(Vacuum { dry_run: true, ..NOW }).await;
    assert!(dry.retired == Gone { objects: 1, bytes: 10 } && world.is_there(&files[0]).await, "{dry:?}");
    let report = world.vacuum(NOW).await;
    assert_eq!(report.retired, Gone { objects: 1, bytes: 10 });
    assert!(!world.is_there(&files[0]).await && world.is_there(&files[1]).await && world.is_there(&merged[0]).await);
    assert_eq!(world.indexes().await, 2, "the index object also speaks of the other file");
    world.rewrite(&files[1..]).await;
    world.clock.advance_us(2 * HOUR_US);
    world.vacuum(NOW).await;
    assert!(!world.is_there(&files[1]).await);
    assert_eq!(world.indexes().await, 2, "that of the merged files; the first is gone with its last file");
    assert_eq!(world.vacuum(NOW).await.retired.objects, 0, "what is gone is not looked for again");
}

#[tokio::test]
async fn a_file_that_a_query_still_reads_stays_however_old_its_removal() {
    let world = World::new().await;
    let files = world.flush(&[world.today()]).await;
    let query = world.catalog.snapshot(&acme(), TABLE).await.unwrap();
    world.rewrite(&files).await;
    world.clock.advance_us(5 * HOUR_US);
    assert_eq!(world.vacuum(NOW).await.retired.objects, 0);
    assert!(query.files.contains_key(&files[0]) && world.is_there(&files[0]).await);
    drop(query);
    assert_eq!(world.vacuum(NOW).await.retired.objects, 1);
}

#[tokio::test]
async fn a_file_that_the_newest_checkpoint_names_waits_for_the_next() {
    let world = World::new().await;
    let files = world.flush(&[world.today()]).await;
    world.catalog.checkpoint(&acme(), TABLE).await.unwrap();
    world.rewrite(&files).await;
    world.clock.advance_us(3 * HOUR_US);
    let rounds = Vacuum::default();
    assert_eq!(world.vacuum(rounds).await.retired.objects, 0);
    // By hand, or when it waited for a day, a checkpoint is written for it.
    world.clock.advance_us(24 * HOUR_US);
    assert_eq!(world.vacuum(rounds).await.retired.objects, 1);
    assert_eq!(world.catalog.checkpointed(&acme(), TABLE).await.unwrap(), Some(1));
}

#[tokio::test]
async fn after_a_restart_removed_files_are_known_from_the_checkpoint() {
    let world = World::new().await;
    let files = world.flush(&[world.today()]).await;
    world.rewrite(&files).await;
    world.catalog.checkpoint(&acme(), TABLE).await.unwrap();
    world.clock.advance_us(3 * HOUR_US);
    let catalog = Catalog::new(world.store.clone(), Arc::new(world.clock.clone()));
    let upkeep = Upkeep::new(catalog, Arc::new(world.clock.clone()), UpkeepSettings::default());
    upkeep.vacuum(&acme(), Vacuum::default()).await.unwrap();
    assert!(world.is_there(&files[0]).await, "a table that nobody asked for is not loaded for this in every round");
    upkeep.vacuum(&acme(), Vacuum { listing: true, ..Vacuum::default() }).await.unwrap();
    assert!(!world.is_there(&files[0]).await);
    assert_eq!(world.indexes().await, 1, "and so is the index object that belonged to it");
}

#[tokio::test]
async fn days_go_when_their_time_is_over_and_no_sooner() {
    let world = World::new().await;
    let today = world.today().days();
    let day = |ago: i32| Day::from_days(today - ago);
    let files = world.flush(&[day(31), day(30), day(0)]).await;
    let objects = SystemObjects::new(world.store.clone(), Arc::new(world.clock.clone()));
    assert_eq!(world.vacuum(NOW).await.dropped.objects, 0, "without a rule all is kept");
    let rule = Retention { days: Some(30), ..Default::default() };
    Retentions::new(objects.clone()).set(&acme(), &rule).await.unwrap();
    let dry = world.vacuum(Vacuum { dry_run: true, ..NOW }).await;
    assert_eq!((dry.dropped.objects, dry.dropped_rows), (1, 3));
    assert_eq!(world.catalog.snapshot(&acme(), TABLE).await.unwrap().files.len(), 3);
    assert_eq!(world.vacuum(NOW).await.dropped, Gone { objects: 1, bytes: 10 });
    let left = world.catalog.snapshot(&acme(), TABLE).await.unwrap();
    assert_eq!((left.files.len(), left.dropped_rows), (2, 3));
    assert!(world.is_there(&files[0]).await, "queries may still read it");
    world.clock.advance_us(2 * HOUR_US);
    world.vacuum(NOW).await;
    assert!(!world.is_there(&files[0]).await && world.is_there(&files[1]).await);

    // In rounds, over all tenants: a deleted tenant is not ours to keep up.
    let tenants = Tenants::new(objects);
    tenants.create(&acme()).await.unwrap();
    world.clock.advance_us(24 * HOUR_US);
    world.upkeep.round().await.unwrap();
    assert_eq!(world.catalog.snapshot(&acme(), TABLE).await.unwrap().files.len(), 1);
    tenants.delete(&acme()).await.unwrap();
    assert_eq!(world.upkeep.tenants().await.unwrap(), []);
}

#[tokio::test]
async fn orphans_go_when_a_day_old_and_what_is_not_ours_never() {
    let world = World::new().await;
    let live = world.flush(&[world.today()]).await;
    let (orphans, _) = world.write(&[world.today(), world.today()]).await;
    let foreign = store::Path::from("tenants/acme/observations/notes.txt");
    world.store.put(&foreign, Bytes::from("mine")).await.unwrap();
    // Written by a flush that is still under way: younger than a day.
    assert_eq!(world.vacuum(NOW).await.orphans.objects, 0);
    world.clock.advance_us(25 * HOUR_US);
    assert_eq!(world.vacuum(Vacuum { listing: false, ..NOW }).await.orphans.objects, 0, "only by listing");
    let report = world.vacuum(NOW).await;
    assert_eq!(report.orphans, Gone { objects: 7, bytes: 41 }, "two files, their roll-ups and their index object");
    assert!(!world.is_there(&orphans[0].path).await && world.is_there(&live[0]).await);
    assert_eq!(world.indexes().await, 1);
    assert!(world.store.get(&foreign).await.unwrap().is_some());
}

#[tokio::test]
async fn a_file_committed_while_the_sweep_lists_is_live() {
    let world = World::new().await;
    let (files, _) = world.write(&[world.today()]).await;
    world.clock.advance_us(25 * HOUR_US);
    // Listed before, committed after: the sweep reads the table last.
    let path = files[0].path.clone();
    let inventory = super::super::sweep::Inventory::of(&world.store, &acme()).await.unwrap();
    let other = Catalog::new(world.store.clone(), Arc::new(world.clock.clone()));
    other.commit(&acme(), TABLE, append(0, files, None)).await.unwrap();
    let mut report = TableReport::default();
    world.upkeep.step(&acme(), TABLE, NOW).sweep(&inventory, &mut report).await.unwrap();
    assert_eq!(report.orphans.objects, 0);
    assert!(world.is_there(&path).await);
}

#[tokio::test]
async fn a_vacuum_cleans_the_log_and_readers_still_load_the_table() {
    let world = World::new().await;
    for _ in 0..8 {
        world.flush(&[world.today()]).await;
    }
    world.catalog.checkpoint(&acme(), TABLE).await.unwrap();
    assert_eq!(world.vacuum(NOW).await.log.objects, 0);
    world.clock.advance_us(25 * HOUR_US);
    assert_eq!(world.vacuum(NOW).await.log.objects, 7, "all below the checkpoint's own commit");
    let fresh = Catalog::new(world.store.clone(), Arc::new(world.clock.clone()));
    assert_eq!(fresh.snapshot(&acme(), TABLE).await.unwrap().rows(), 24);
    assert_eq!(world.vacuum(NOW).await.log, Gone::default());
}

#[tokio::test]
async fn commits_that_the_books_lack_are_kept_for_a_week() {
    let world = World::new().await;
    for from in 0..4 {
        world.append(TABLE, from, world.write(&[world.today()]).await.0, None).await;
    }
    world.catalog.checkpoint(&acme(), TABLE).await.unwrap();
    world.clock.advance_us(3 * 24 * HOUR_US);
    assert_eq!(world.vacuum(NOW).await.log, Gone::default());
    world.clock.advance_us(5 * 24 * HOUR_US);
    assert_eq!(world.vacuum(NOW).await.log.objects, 3);
}

#[tokio::test]
async fn late_objects_go_when_they_are_folded_in_and_nobody_reads_them() {
    let world = World::new().await;
    let put = async |number| {
        let path = store::late_object(&acme(), TABLE.name(), Some(number));
        world.store.put(&path, Bytes::from("late")).await.unwrap();
    };
    let are_there = async || {
        let folder = store::late_object(&acme(), TABLE.name(), None);
        let listed = world.store.list(&folder, None).await.unwrap();
        listed.iter().filter_map(|meta| store::log_sequence(&meta.location)).collect::<Vec<_>>()
    };
    for number in 1..=3 {
        put(number).await;
    }
    world.append(TABLE, 0, world.write(&[world.today()]).await.0, Some(1)).await;
    world.append(TABLE, 1, Vec::new(), Some(2)).await;
    let query = world.catalog.snapshot(&acme(), TABLE).await.unwrap();
    let fold = Rewrite { folded: vec![1, 2], ..Default::default() };
    world.catalog.commit(&acme(), TABLE, Change::Rewrite(fold)).await.unwrap();
    world.append(TABLE, 2, Vec::new(), Some(4)).await;
    put(4).await;
    world.clock.advance_us(3 * HOUR_US);
    world.vacuum(NOW).await;
    assert_eq!(are_there().await, [1, 2, 3, 4], "a query still reads them");
    drop(query);
    let report = world.vacuum(NOW).await;
    assert_eq!((report.folded, are_there().await), (2, vec![3, 4]));

    // 3 was never made live; 4 is, also for one who knows only the checkpoint.
    world.catalog.checkpoint(&acme(), TABLE).await.unwrap();
    world.clock.advance_us(25 * HOUR_US);
    let catalog = Catalog::new(world.store.clone(), Arc::new(world.clock.clone()));
    let settings = UpkeepSettings { clock_ahead_max_s: 0, ..Default::default() };
    let fresh = Upkeep::new(catalog.clone(), Arc::new(world.clock.clone()), settings);
    // A slot changed its object a moment ago, which one it was the checkpoint does not say: nothing goes.
    let fold = Rewrite { folded: vec![4], ..Default::default() };
    world.catalog.commit(&acme(), TABLE, Change::Rewrite(fold)).await.unwrap();
    world.catalog.checkpoint(&acme(), TABLE).await.unwrap();
    fresh.vacuum(&acme(), NOW).await.unwrap();
    assert_eq!(are_there().await, [3, 4]);
    world.clock.advance_us(3 * HOUR_US);
    fresh.vacuum(&acme(), NOW).await.unwrap();
    assert!(are_there().await.is_empty());
}

#[tokio::test]
async fn nothing_is_deleted_by_a_clock_that_is_ahead() {
    let world = World::new().await;
    let settings = UpkeepSettings::default();
    world.clock.advance_us(11 * 60 * 1_000_000);
    let upkeep = Upkeep::new(world.catalog.clone(), Arc::new(world.clock.clone()), settings);
    let refused = upkeep.round().await.unwrap_err();
    assert!(matches!(refused, CompactError::Clock { ahead_s: 650..=660 }), "{refused}");
}

#[tokio::test]
async fn a_table_that_cannot_be_read_does_not_keep_the_others_from_their_turn() {
    let world = World::new().await;
    let files = world.flush(&[world.today()]).await;
    world.rewrite(&files).await;
    let scores = store::delta_log(&acme(), "scores", Some(0));
    world.store.put(&scores, Bytes::from("{\"add\":")).await.unwrap();
    world.clock.advance_us(3 * HOUR_US);
    let reports = world.upkeep.vacuum(&acme(), NOW).await.unwrap();
    let errors: Vec<_> = reports.iter().filter(|(_, report)| report.error.is_some()).map(|(table, _)| *table).collect();
    assert_eq!(errors, [Table::Scores]);
    assert!(!world.is_there(&files[0]).await);
}

#[tokio::test]
async fn a_checkpoint_whose_hint_was_not_written_is_hinted_at_again() {
    let world = World::new().await;
    world.flush(&[world.today()]).await;
    let version = world.catalog.checkpoint(&acme(), TABLE).await.unwrap();
    let hint = store::last_checkpoint(&acme(), TABLE.name());
    world.catalog.store().delete(&hint).await.unwrap();
    world.vacuum(Vacuum { dry_run: true, ..NOW }).await;
    assert_eq!(world.catalog.checkpointed(&acme(), TABLE).await.unwrap(), None);
    world.vacuum(Vacuum { at_once: false, ..NOW }).await;
    assert_eq!(world.catalog.checkpointed(&acme(), TABLE).await.unwrap(), version);
}
