//! Hours of a server's life in minutes: the clock is moved minute by minute, and what a server does by itself is done
//! when it is due. Every request to the store is counted by kind and place.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use parking_lot::Mutex;
use tokio::runtime::Runtime;
use tracelake::base::{Clock, ManualClock, TenantId, TimestampUs};
use tracelake::catalog::Catalog;
use tracelake::catalog::system::SystemObjects;
use tracelake::catalog::tenants::Tenants;
use tracelake::compact::{CompactSettings, Compactor, Upkeep, UpkeepSettings};
use tracelake::ingest::{Ingest, IngestSettings, RowSettings};
use tracelake::model::EventBatch;
use tracelake::query::FileRollups;
use tracelake::store::{Call, Fault, Faults, Location, Operation, Store};

pub(crate) const MINUTE_US: TimestampUs = 60_000_000;
const SENDERS: usize = 64;
/// What a put or a get takes on a bucket.
const REQUEST: Duration = Duration::from_millis(30);
/// A folder in memory, where the machine has one: an fsync costs nothing there, as it costs nothing on a bucket.
const MEMORY_FOLDER: &str = "/dev/shm";

/// One process whose clock is moved by hand.
pub(crate) struct Simulated {
    runtime: Option<Runtime>,
    pub(crate) ingest: Ingest,
    pub(crate) catalog: Catalog,
    pub(crate) compactor: Compactor,
    upkeep: Upkeep,
    clock: ManualClock,
    pub(crate) requests: Arc<Requests>,
    _folder: tempfile::TempDir,
}

impl Simulated {
    pub(crate) fn start(start_us: TimestampUs, ingest: IngestSettings, compact: CompactSettings) -> Self {
        let place = PathBuf::from(MEMORY_FOLDER);
        let place = if place.is_dir() { place } else { std::env::temp_dir() };
        let folder = tempfile::tempdir_in(place).expect("a temporary folder");
        let runtime = Runtime::new().expect("a runtime");
        let (clock, requests) = (ManualClock::at(start_us), Arc::new(Requests::default()));
        let (ingest, catalog, compactor, upkeep) = runtime.block_on(async {
            let handed: Arc<dyn Clock> = Arc::new(clock.clone());
            let location = Location::Folder(folder.path().into());
            let store = Store::with_faults(location, Arc::clone(&requests) as _).await.expect("the store opens");
            let catalog = Catalog::new(store.clone(), Arc::clone(&handed));
            let writer = "bench".parse().expect("a legal writer id");
            let rows = RowSettings::default();
            let ingest = Ingest::start(catalog.clone(), Arc::clone(&handed), writer, ingest, rows).await;
            let rollups = FileRollups::new().expect("a session");
            let tenants = Tenants::new(SystemObjects::new(store, Arc::clone(&handed)));
            let compactor = Compactor::new(catalog.clone(), tenants, Arc::clone(&handed), Arc::new(rollups), compact);
            // The files' own times are those of the machine; nothing is to be deleted fast or slow.
            let settings = UpkeepSettings { clock_ahead_max_s: 0, deletes_per_s: 1_000_000, ..Default::default() };
            let upkeep = Upkeep::new(catalog.clone(), handed, settings);
            (ingest.expect("the log is free"), catalog, compactor.expect("the settings are right"), upkeep)
        });
        Self { runtime: Some(runtime), ingest, catalog, compactor, upkeep, clock, requests, _folder: folder }
    }

    pub(crate) fn run<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.as_ref().expect("running").block_on(future)
    }

    pub(crate) fn now_us(&self) -> TimestampUs {
        self.clock.now_us()
    }

    /// A minute passes; these batches come in it, and what is due after it is flushed.
    pub(crate) fn minute(&self, batches: impl Iterator<Item = (TenantId, EventBatch)>) {
        self.send(batches);
        self.pass_minute();
    }

    /// Returns when all are acked.
    pub(crate) fn send(&self, batches: impl Iterator<Item = (TenantId, EventBatch)>) {
        self.run(stream::iter(batches).for_each_concurrent(SENDERS, |(tenant, batch)| async move {
            let held = self.ingest.admit(1).await.expect("there is room for one more");
            self.ingest.append(&tenant, batch, held).await.expect("acked");
        }));
    }

    pub(crate) fn pass_minute(&self) {
        self.clock.advance_us(MINUTE_US);
        self.run(self.ingest.flush_due());
    }

    /// Merges what is due.
    pub(crate) fn compact(&self) {
        self.run(self.compactor.run_once()).expect("merged");
    }

    /// A round of retention, clean-up and sweep.
    pub(crate) fn vacuum(&self) {
        self.run(self.upkeep.round()).expect("cleaned up");
    }
}

impl Drop for Simulated {
    fn drop(&mut self) {
        self.runtime.take().expect("running").shutdown_background();
    }
}

/// The store's requests by kind and place; it can be made as slow as a bucket.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    counted: Mutex<BTreeMap<(&'static str, &'static str), u64>>,
    slow: AtomicBool,
    /// When the last table of a flush was committed, while it is slow.
    flushed: Mutex<Vec<Instant>>,
}

impl Requests {
    /// By operation and place. What was counted is forgotten.
    pub(crate) fn take(&self) -> BTreeMap<(&'static str, &'static str), u64> {
        std::mem::take(&mut self.counted.lock())
    }

    /// From now on each request takes what it takes on a bucket.
    pub(crate) fn set_slow(&self, slow: bool) {
        self.slow.store(slow, Ordering::Relaxed);
    }

    /// When flushes ended since this was last asked, for a slow store.
    pub(crate) fn take_flushed(&self) -> Vec<Instant> {
        std::mem::take(&mut self.flushed.lock())
    }
}

impl Faults for Requests {
    fn on(&self, call: Call<'_>) -> Fault {
        let operation = match call.operation {
            Operation::Put => "PUT",
            Operation::Get => "GET",
            Operation::List => "LIST",
            Operation::Delete => "DELETE",
        };
        let path = call.path.as_ref();
        *self.counted.lock().entry((operation, place(path))).or_default() += 1;
        if !self.slow.load(Ordering::Relaxed) {
            return Fault::None;
        }
        if operation == "PUT" && path.contains("/ledger/_delta_log/") {
            self.flushed.lock().push(Instant::now() + REQUEST);
        }
        Fault::Delay(REQUEST)
    }
}

fn place(path: &str) -> &'static str {
    match path {
        _ if path.starts_with("wal") => "log",
        _ if path.starts_with("leases") => "leases",
        _ if path.contains("/_index/") => "indexes",
        _ if path.contains("/_late/") => "late changes",
        _ if path.contains("/_delta_log/") && path.ends_with(".json") => "commits",
        _ if path.contains("/_delta_log/") => "checkpoints",
        _ if path.ends_with(".parquet") => "files",
        _ => "system",
    }
}
