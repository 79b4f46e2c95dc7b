//! The way in, from OTLP bytes to acked rows, to files, and back from the log after a kill.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use prost::Message;
use tokio::runtime::Runtime;
use tracelake::base::{Clock, SystemClock, TenantId};
use tracelake::catalog::Catalog;
use tracelake::corpus::{TextSize, requests};
use tracelake::decode::{self, DecodeLimits};
use tracelake::ingest::{Ingest, IngestSettings, RowSettings};
use tracelake::model::tables::Table;
use tracelake::model::{Event, EventBatch, EventKind};
use tracelake::store::{Location, Store};

use crate::Settings;
use crate::bare;
use crate::corpus::config;
use crate::report::{Baseline, Report};
use crate::timing::median;

/// The requests are held in memory; a rate needs no more of them.
const OBSERVATIONS_MAX: u64 = 200_000;
const SPANS_PER_REQUEST: usize = 500;
const SENDERS: usize = 8;

/// One server's way in, over a store of its own.
pub(crate) struct Server {
    runtime: Option<Runtime>,
    pub(crate) ingest: Ingest,
    pub(crate) catalog: Catalog,
    folder: Option<tempfile::TempDir>,
}

impl Server {
    pub(crate) fn start(settings: &Settings) -> Self {
        let folder = settings.data.is_none().then(|| tempfile::tempdir().expect("a temporary folder"));
        let location = match (&folder, &settings.data) {
            (Some(folder), _) => Location::Folder(folder.path().into()),
            // Each start has a place of its own below the one named.
            (None, data) => {
                let place = format!("{}/{}", data.as_deref().unwrap_or_default(), uuid::Uuid::new_v4());
                place.parse().expect("--data is a folder or s3://bucket/prefix")
            }
        };
        Self::open(location, folder)
    }

    fn open(location: Location, folder: Option<tempfile::TempDir>) -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let (ingest, catalog) = runtime.block_on(async {
            let clock: Arc<dyn Clock> = Arc::new(SystemClock);
            let store = Store::open(location).await.expect("the store opens");
            let catalog = Catalog::new(store, Arc::clone(&clock));
            let writer = "bench".parse().expect("a legal writer id");
            let (settings, rows) = (IngestSettings::default(), RowSettings::default());
            let ingest = Ingest::start(catalog.clone(), clock, writer, settings, rows).await.expect("the log is free");
            (ingest, catalog)
        });
        Self { runtime: Some(runtime), ingest, catalog, folder }
    }

    pub(crate) fn run<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.as_ref().expect("running").block_on(future)
    }

    /// Sends all bodies by several senders; returns when the last is acked.
    pub(crate) fn send(&self, bodies: &Arc<Vec<Vec<u8>>>) {
        let next = Arc::new(AtomicUsize::new(0));
        let sender = || {
            let (ingest, bodies, next) = (self.ingest.clone(), Arc::clone(bodies), Arc::clone(&next));
            async move {
                while let Some(body) = bodies.get(next.fetch_add(1, Ordering::Relaxed)) {
                    send_one(&ingest, body).await;
                }
            }
        };
        self.join((0..SENDERS).map(|_| self.runtime.as_ref().expect("running").spawn(sender())).collect());
    }

    /// Sends spans as they are generated, by several senders; returns when the last is acked.
    pub(crate) fn fill(&self, observations: u64, text: TextSize) {
        let spans = requests(config(observations, text), SPANS_PER_REQUEST);
        let waiting = Arc::new(parking_lot::Mutex::new(spans));
        let sender = || {
            let (ingest, waiting) = (self.ingest.clone(), Arc::clone(&waiting));
            async move {
                loop {
                    let Some(request) = waiting.lock().next() else { return };
                    send_one(&ingest, &request.encode_to_vec()).await;
                }
            }
        };
        self.join((0..SENDERS).map(|_| self.runtime.as_ref().expect("running").spawn(sender())).collect());
    }

    /// Sends spans of one day in so many portions, each flushed to files of its own.
    pub(crate) fn fill_in(&self, observations: u64, text: TextSize, portions: u64) {
        let mut spans = requests(config(observations, text), SPANS_PER_REQUEST);
        let each = observations.div_ceil(SPANS_PER_REQUEST as u64).div_ceil(portions).max(1);
        loop {
            let mut sent = 0;
            for request in spans.by_ref().take(each as usize) {
                self.run(send_one(&self.ingest, &request.encode_to_vec()));
                sent += 1;
            }
            if sent == 0 {
                return;
            }
            self.run(self.ingest.flush(true)).expect("the flush is committed");
        }
    }

    /// Events as they are, acked.
    pub(crate) fn append(&self, events: Vec<Event>) {
        let bytes = events.iter().map(|event| event.kind.as_ref().map_or(0, EventKind::encoded_len) as u64).sum();
        let batch = EventBatch { door: "bench".into(), received: events.len() as u64, events, ..Default::default() };
        self.run(async {
            loop {
                let Ok(held) = self.ingest.admit(bytes).await else { continue };
                match self.ingest.append(&tenant(), batch.clone(), held).await {
                    Ok(()) => return,
                    Err(error) if error.kind() == tracelake::base::Kind::Unavailable => {}
                    Err(error) => panic!("not acked: {error}"),
                }
            }
        });
    }

    fn join(&self, senders: Vec<tokio::task::JoinHandle<()>>) {
        self.run(async {
            for sender in senders {
                sender.await.expect("a sender does not panic");
            }
        });
    }

    /// `kill -9`: nothing is flushed, no task goes on.
    pub(crate) fn kill(mut self) -> (Location, Option<tempfile::TempDir>) {
        let location = self.catalog.store().location().clone();
        self.runtime.take().expect("running").shutdown_background();
        (location, self.folder.take())
    }
}

/// Whose everything is that a [`Server`] is sent.
pub(crate) fn tenant() -> TenantId {
    "bench".parse().expect("a legal tenant id")
}

async fn send_one(ingest: &Ingest, body: &[u8]) {
    let tenant = tenant();
    loop {
        let Ok(held) = ingest.admit(body.len() as u64).await else { continue };
        let decoded = decode::otlp_protobuf(body, &DecodeLimits::default()).expect("the corpus is OTLP");
        let mut batch = decoded.batch;
        batch.door = "bench".to_owned();
        match ingest.append(&tenant, batch, held).await {
            Ok(()) => return,
            Err(error) if error.kind() == tracelake::base::Kind::Unavailable => {}
            Err(error) => panic!("not acked: {error}"),
        }
    }
}

fn bodies(observations: u64, spans_per_request: usize, text: TextSize) -> Arc<Vec<Vec<u8>>> {
    Arc::new(requests(config(observations, text), spans_per_request).map(|request| request.encode_to_vec()).collect())
}

pub(crate) fn ingest(settings: &Settings, report: &mut Report) {
    let observations = settings.observations.clamp(1, OBSERVATIONS_MAX);
    for (name, observations, spans, text) in [
        ("no text", observations, SPANS_PER_REQUEST, TextSize::None),
        ("prompts", (observations / 10).max(1), SPANS_PER_REQUEST, TextSize::Prompts),
        ("one span a request", (observations / 50).max(1), 1, TextSize::None),
    ] {
        let bodies = bodies(observations, spans, text);
        let bytes: u64 = bodies.iter().map(|body| body.len() as u64).sum();
        let limit = median(|| (), |()| bare::on_all_cores(&bodies));
        let limit = Baseline { name: "bare loop, all cores", value: limit.per_second(observations) };
        let acked = median(
            || Server::start(settings),
            |server| {
                server.send(&bodies);
                server
            },
        );
        report.rate(&format!("acked, {name}"), observations, "spans/s", &acked, Some(limit));
        report.rate(&format!("acked, {name}"), bytes, "B/s", &acked, None);
    }
    let empty = bodies(0, SPANS_PER_REQUEST, TextSize::None);
    let nothing = Arc::new(vec![empty.first().cloned().unwrap_or_default(); 100]);
    let server = Server::start(settings);
    let acked = median(|| (), |()| server.send(&nothing));
    report.rate("acked, requests without spans", 100, "requests/s", &acked, None);
    server.kill();
}

pub(crate) fn flush(settings: &Settings, report: &mut Report) {
    let observations = settings.observations.clamp(1, OBSERVATIONS_MAX);
    for (name, observations, text) in
        [("no text", observations, TextSize::None), ("prompts", (observations / 10).max(1), TextSize::Prompts)]
    {
        let bodies = bodies(observations, SPANS_PER_REQUEST, text);
        let limit = median(|| (), |()| bare::parquet(&bodies).len());
        let limit = Baseline { name: "bare loop, one core", value: limit.per_second(observations) };
        let mut stored = 0;
        let flushed = median(
            || {
                let server = Server::start(settings);
                server.send(&bodies);
                server
            },
            |server| {
                server.run(server.ingest.flush(true)).expect("the flush is committed");
                stored = stored_bytes(&server);
                server
            },
        );
        report.rate(&format!("flushed, {name}"), observations, "spans/s", &flushed, Some(limit));
        report.value(&format!("stored, {name}"), stored as f64 / observations as f64, "B/observation");
    }
    uncounted(settings, report);
    let server = Server::start(settings);
    let nothing = median(|| (), |()| server.run(server.ingest.flush(true)).expect("nothing to flush"));
    report.rate("flushes of nothing", 1, "flushes/s", &nothing, None);
    server.kill();
}

/// Calls to models whose vocabulary is at hand, with usage as sent, and without: their tokens are counted.
fn uncounted(settings: &Settings, report: &mut Report) {
    let observations = (settings.observations / 10).clamp(1, OBSERVATIONS_MAX);
    let bodies = bodies(observations, SPANS_PER_REQUEST, TextSize::Prompts);
    let flushed = |says_usage: bool| {
        let prepared = || {
            let server = Server::start(settings);
            for body in bodies.iter() {
                let decoded = decode::otlp_protobuf(body, &DecodeLimits::default()).expect("the corpus is OTLP");
                server.append(decoded.batch.events.into_iter().map(|event| of_gpt_4o(event, says_usage)).collect());
            }
            server
        };
        let flush = |server: Server| {
            server.run(server.ingest.flush(true)).expect("the flush is committed");
            server
        };
        median(prepared, flush)
    };
    let with_usage = flushed(true).per_second(observations);
    let limit = Baseline { name: "the same, with usage", value: with_usage };
    report.rate("flushed, prompts, tokens counted", observations, "spans/s", &flushed(false), Some(limit));
}

/// Every call is one to gpt-4o that has no tools.
fn of_gpt_4o(mut event: Event, says_usage: bool) -> Event {
    if let Some(EventKind::Observation(said)) = &mut event.kind {
        said.model = said.model.take().map(|_| "gpt-4o".to_owned());
        said.tools_offered.clear();
        said.tools_called.clear();
        if !says_usage {
            said.usage.clear();
            said.provided_cost.clear();
            said.usage_source = None;
            for tokens in [
                &mut said.input_tokens,
                &mut said.cached_input_tokens,
                &mut said.cache_write_tokens,
                &mut said.output_tokens,
                &mut said.reasoning_tokens,
                &mut said.total_tokens,
            ] {
                *tokens = None;
            }
        }
    }
    event
}

/// Bytes of all live files of the bench's tenant.
fn stored_bytes(server: &Server) -> u64 {
    let tenant: TenantId = "bench".parse().expect("a legal tenant id");
    let snapshots = Table::ALL.map(|table| server.run(server.catalog.snapshot(&tenant, table)).expect("a snapshot"));
    snapshots.iter().flat_map(|snapshot| snapshot.files.values()).map(|file| file.size_bytes).sum()
}

pub(crate) fn replay(settings: &Settings, report: &mut Report) {
    let observations = settings.observations.clamp(1, OBSERVATIONS_MAX);
    for (name, flushed) in [("all to replay", false), ("all flushed", true)] {
        let bodies = bodies(observations, SPANS_PER_REQUEST, TextSize::None);
        let replayed = median(
            || {
                let server = Server::start(settings);
                server.send(&bodies);
                if flushed {
                    server.run(server.ingest.flush(true)).expect("the flush is committed");
                }
                server.kill()
            },
            |(location, folder)| Server::open(location, folder),
        );
        report.rate(&format!("replayed, {name}"), observations, "spans/s", &replayed, None);
    }
}

/// A long stretch: spans are generated as they are sent, so that only the server's memory grows.
pub(crate) fn soak(settings: &Settings, report: &mut Report) {
    let server = Server::start(settings);
    let idle = resident_mib();
    let began = std::time::Instant::now();
    server.fill(settings.observations, TextSize::None);
    let rate = settings.observations as f64 / began.elapsed().as_secs_f64();
    report.value("acked, generated as they are sent", rate, "spans/s");
    report.value("resident before", idle as f64, "MiB");
    report.value("resident after", resident_mib() as f64, "MiB");
    report.value("stored", stored_bytes(&server) as f64 / settings.observations.max(1) as f64, "B/observation");
    server.kill();
}

fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().split(' ').next()?.parse::<u64>().ok()).unwrap_or(0) / 1024
}
