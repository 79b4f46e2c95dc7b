//! Simulated time. It stands still but for the moments at which it is moved, by hours and days.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use parking_lot::Mutex;

use crate::base::{Clock, ManualClock, SystemClock, TimestampUs};

/// A folder dates its files by a clock that ticks this seldom.
const TICK: Duration = Duration::from_millis(12);

/// Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Time {
    clock: ManualClock,
    /// When it was moved, by the real clock, and to where: so a store's dates can be read as simulated ones.
    moved: Arc<Mutex<Vec<(TimestampUs, TimestampUs)>>>,
}

impl Time {
    pub(super) fn from(start_us: TimestampUs) -> Self {
        Self { clock: ManualClock::at(start_us), moved: Arc::new(Mutex::new(vec![(0, start_us)])) }
    }

    pub(super) fn clock(&self) -> Arc<dyn Clock> {
        Arc::new(self.clock.clone())
    }

    pub(super) fn now_us(&self) -> TimestampUs {
        self.clock.now_us()
    }

    pub(super) fn advance_us(&self, by_us: i64) {
        std::thread::sleep(TICK);
        self.moved.lock().push((SystemClock.now_us(), self.clock.now_us() + by_us));
        self.clock.advance_us(by_us);
        std::thread::sleep(TICK);
    }

    /// What simulated time was at a real moment.
    pub(super) fn at(&self, real: DateTime<Utc>) -> DateTime<Utc> {
        let moved = self.moved.lock();
        let since = moved.partition_point(|(real_us, _)| *real_us <= real.timestamp_micros());
        DateTime::from_timestamp_micros(moved[since.max(1) - 1].1).unwrap()
    }
}
