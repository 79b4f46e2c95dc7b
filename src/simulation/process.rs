//! One process on a store that fails: its own threads, so that dropping it is `kill -9`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use chrono::{DateTime, Utc};
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::runtime::Runtime;
use tokio::sync::Notify;

use super::time::Time;
use crate::catalog::Catalog;
use crate::store::{Call, Fault, Faults, Location, Operation, Store, StoreError};

pub(super) struct Process {
    runtime: Option<Runtime>,
    weather: Arc<Weather>,
}

/// Faults of one process's store calls.
#[derive(Debug)]
struct Weather {
    random: Mutex<SmallRng>,
    time: Time,
    bad: AtomicBool,
    /// Calls until the process ends; below zero: never.
    calls_left: AtomicI64,
    ended: Notify,
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

    fn made_at(&self, real: DateTime<Utc>) -> DateTime<Utc> {
        self.time.at(real)
    }
}

impl Process {
    /// A process with a catalog over the store, in good weather.
    pub(super) fn start(location: &Location, time: &Time, seed: u64) -> Result<(Self, Catalog), StoreError> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let weather = Arc::new(Weather {
            random: Mutex::new(SmallRng::seed_from_u64(seed)),
            time: time.clone(),
            bad: false.into(),
            calls_left: (-1).into(),
            ended: Notify::new(),
        });
        let store = runtime.block_on(Store::with_faults(location.clone(), Arc::clone(&weather) as _))?;
        let catalog = Catalog::new(store, time.clock());
        Ok((Self { runtime: Some(runtime), weather }, catalog))
    }

    /// Whether its store fails from now on. Returns how it was.
    pub(super) fn set_bad_weather(&self, bad: bool) -> bool {
        self.weather.bad.swap(bad, Ordering::SeqCst)
    }

    /// The process ends at its store call number `calls` from now on.
    pub(super) fn end_after(&self, calls: i64) {
        self.weather.calls_left.store(calls, Ordering::SeqCst);
    }

    /// Takes [`Process::end_after`] back; false if it ended already.
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

    /// Runs something in good weather, in a process that was not told to end.
    pub(super) fn run_well<T>(&self, work: impl Future<Output = T>) -> T {
        let bad = self.set_bad_weather(false);
        let done = self.run(work).expect("it was not told to end");
        self.set_bad_weather(bad);
        done
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }
}
