//! How long something takes: warm-up first, then the median of several runs, within a limit of time.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const WARM_UPS: usize = 1;
const RUNS: usize = 5;
/// After this long no further run begins; the median is of those there are.
const PATIENCE: Duration = Duration::from_secs(60);

/// Whether everything is timed once, without warm-up: to see that it works.
static ONCE: AtomicBool = AtomicBool::new(false);

pub(crate) fn time_once() {
    ONCE.store(true, Ordering::Relaxed);
}

pub(crate) fn is_once() -> bool {
    ONCE.load(Ordering::Relaxed)
}

pub(crate) struct Timing {
    pub(crate) median: Duration,
    /// Of the runs, fastest to slowest: how far the machine can be trusted.
    pub(crate) spread: (Duration, Duration),
}

/// Times `work` on what `prepare` makes for it, which is not timed; neither is dropping the result.
pub(crate) fn median<S, T>(mut prepare: impl FnMut() -> S, mut work: impl FnMut(S) -> T) -> Timing {
    let began = Instant::now();
    let (warm_ups, runs) = if is_once() { (0, 1) } else { (WARM_UPS, RUNS) };
    let mut times = Vec::with_capacity(runs);
    for run in 0..warm_ups + runs {
        let input = prepare();
        let started = Instant::now();
        let result = black_box(work(black_box(input)));
        let took = started.elapsed();
        drop(result);
        if run >= warm_ups {
            times.push(took);
        }
        if began.elapsed() > PATIENCE && !times.is_empty() {
            break;
        }
    }
    times.sort_unstable();
    Timing { median: times[times.len() / 2], spread: (times[0], times[times.len() - 1]) }
}

impl Timing {
    pub(crate) fn per_second(&self, count: u64) -> f64 {
        count as f64 / self.median.as_secs_f64()
    }
}
