//! One process on a store that fails: its own threads, so that dropping it is `kill -9`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use futures::TryStreamExt;
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;
use tokio::runtime::Runtime;
use tokio::sync::Notify;

use crate::base::{ManualClock, TenantId};
use crate::catalog::Catalog;
use crate::ingest::{Ingest, IngestError, IngestSettings, RowSettings};
use crate::model::EventBatch;
use crate::query::{Engine, QueryLimits, SqlLimits};
use crate::store::{Call, Fault, Faults, Location, Operation, Store};

pub(super) struct Node {
    runtime: Option<Runtime>,
    pub(super) ingest: Ingest,
    engine: Engine,
    weather: Arc<Weather>,
}

pub(super) fn tenant() -> TenantId {
    "acme".parse().unwrap()
}

/// Faults of one process's store calls.
#[derive(Debug)]
pub(super) struct Weather {
    random: Mutex<SmallRng>,
    bad: AtomicBool,
    /// Calls until the process ends; below zero: never.
    calls_left: AtomicI64,
    ended: Notify,
}

impl Weather {
    fn new(seed: u64) -> Self {
        let random = Mutex::new(SmallRng::seed_from_u64(seed));
        Self { random, bad: false.into(), calls_left: (-1).into(), ended: Notify::new() }
    }
}

impl Faults for Weather {
    fn on(&self, call: Call<'_>) -> Fault {
        let mut random = self.random.lock();
        match self.calls_left.load(Ordering::SeqCst) {
            left if left < 0 => {}
            0 => {
                self.ended.notify_one();
                return Fault::Never;
            }
            1 => {
                self.calls_left.store(0, Ordering::SeqCst);
                self.ended.notify_one();
                return if random.random_bool(0.5) { Fault::DoneNever } else { Fault::Never };
            }
            left => self.calls_left.store(left - 1, Ordering::SeqCst),
        }
        if !self.bad.load(Ordering::SeqCst) {
            return Fault::None;
        }
        let late = Duration::from_millis(random.random_range(0..6));
        match (random.random_range(0..100), call.operation) {
            (0..4, _) => Fault::Fail,
            (4..8, Operation::Put) => Fault::LoseReply,
            (8..11, Operation::Put) => Fault::Twice,
            (11..14, Operation::Put) => Fault::ComesLate(late * 8),
            (14..30, _) => Fault::Delay(late),
            _ => Fault::None,
        }
    }
}

impl Node {
    pub(super) fn start(
        location: &Location,
        clock: &ManualClock,
        writer: &str,
        seed: u64,
    ) -> Result<Self, IngestError> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let clock: Arc<dyn crate::base::Clock> = Arc::new(clock.clone());
        let weather = Arc::new(Weather::new(seed));
        let started = runtime.block_on(async {
            let store = Store::with_faults(location.clone(), Arc::clone(&weather) as _).await?;
            let catalog = Catalog::new(store, Arc::clone(&clock));
            let settings = IngestSettings {
                adopt_after_s: 60,
                log_kept_s: 600,
                follow: seed.is_multiple_of(2),
                ..Default::default()
            };
            let writer = writer.parse().unwrap();
            let ingest = Ingest::start(catalog.clone(), clock, writer, settings, RowSettings::default()).await?;
            let limits = QueryLimits { partitions: 2, ..Default::default() };
            let engine = Engine::new(catalog, Arc::new(ingest.clone()), limits).unwrap();
            Ok::<_, IngestError>((ingest, engine))
        });
        let (ingest, engine) = started?;
        Ok(Self { runtime: Some(runtime), ingest, engine, weather })
    }

    /// Whether its store fails from now on.
    pub(super) fn set_bad_weather(&self, bad: bool) {
        self.weather.bad.store(bad, Ordering::SeqCst);
    }

    /// The process ends at its store call number `calls` from now on.
    pub(super) fn end_after(&self, calls: i64) {
        self.weather.calls_left.store(calls, Ordering::SeqCst);
    }

    /// Takes [`Node::end_after`] back; false if it ended already.
    pub(super) fn is_spared(&self) -> bool {
        self.weather.calls_left.swap(-1, Ordering::SeqCst) != 0
    }

    /// Runs something; `None` if the process ended meanwhile.
    pub(super) fn run<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        self.runtime.as_ref().unwrap().block_on(async {
            tokio::select! {
                biased;
                () = self.weather.ended.notified() => None,
                done = work => Some(done),
            }
        })
    }

    pub(super) async fn append(&self, batch: EventBatch) -> Result<(), IngestError> {
        let held = self.ingest.admit(1000).await?;
        self.ingest.append(&tenant(), batch, held).await
    }

    /// The rows that one statement answers, each a JSON object.
    pub(super) async fn sql(&self, statement: &str) -> Result<Vec<Value>, String> {
        let answer = self.engine.sql(&tenant(), statement, SqlLimits::default()).await;
        let answer = answer.map_err(|error| error.to_string())?;
        let batches: Vec<_> = answer.try_collect().await.map_err(|error| error.to_string())?;
        let builder = arrow::json::WriterBuilder::new().with_explicit_nulls(true);
        let mut writer = builder.build::<_, arrow::json::writer::JsonArray>(Vec::new());
        writer.write_batches(&batches.iter().collect::<Vec<_>>()).map_err(|error| error.to_string())?;
        writer.finish().map_err(|error| error.to_string())?;
        let written = writer.into_inner();
        if written.is_empty() {
            return Ok(Vec::new());
        }
        serde_json::from_slice(&written).map_err(|error| error.to_string())
    }

    /// As [`Node::sql`], in good weather; it must answer.
    pub(super) fn answer(&self, statement: &str) -> Vec<Value> {
        let bad = self.weather.bad.swap(false, Ordering::SeqCst);
        let answer = self.run(self.sql(statement)).expect("it was not told to end");
        self.set_bad_weather(bad);
        answer.unwrap_or_else(|error| panic!("{statement}: {error}"))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }
}
