//! Faults a store can have, scripted or by seed, so that tests meet them before users do.

use std::time::Duration;

use chrono::{DateTime, Utc};
use object_store::path::Path;
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::Operation;

/// One call about to be made.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    pub operation: Operation,
    pub path: &'a Path,
}

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    None,
    /// It fails and nothing was done.
    Fail,
    /// It is done, and reported as failed.
    LoseReply,
    /// It is late.
    Delay(Duration),
    /// A put ignores `If-None-Match` and overwrites, as some stores do.
    IgnoreCondition,
    /// A put checks, then writes: right one after the other, wrong in a race.
    CheckThenWrite,
    /// It is done twice, as by a retry below us; what is reported is what the second said.
    Twice,
    /// A put is reported as failed now and done later, if the process still lives.
    ComesLate(Duration),
    /// A put leaves the first half of its bytes and is reported as failed.
    Torn,
    /// Nothing is done and no reply ever comes: the process ends here.
    Never,
    /// It is done, and no reply ever comes.
    DoneNever,
}

pub trait Faults: Send + Sync + std::fmt::Debug {
    fn on(&self, call: Call<'_>) -> Fault;

    /// When an object was made that the store says was made at `real`: simulated time goes its own way.
    fn made_at(&self, real: DateTime<Utc>) -> DateTime<Utc> {
        real
    }
}

/// Random faults from a seed. Shares are in parts of one hundred.
#[derive(Debug)]
pub struct SeededFaults {
    random: Mutex<SmallRng>,
    fail_percent: u32,
    lose_percent: u32,
    delay_percent: u32,
}

impl SeededFaults {
    pub fn new(seed: u64, fail_percent: u32, lose_percent: u32, delay_percent: u32) -> Self {
        Self { random: Mutex::new(SmallRng::seed_from_u64(seed)), fail_percent, lose_percent, delay_percent }
    }
}

impl Faults for SeededFaults {
    fn on(&self, call: Call<'_>) -> Fault {
        let passes = matches!(call.operation, Operation::List | Operation::Delete);
        if passes || call.path.as_ref().starts_with("system/probe") {
            return Fault::None;
        }
        let mut random = self.random.lock();
        let roll = random.random_range(0..100);
        let (fail, lose) = (self.fail_percent, self.fail_percent + self.lose_percent);
        if roll < fail {
            Fault::Fail
        } else if roll < lose && call.operation == Operation::Put {
            Fault::LoseReply
        } else if roll < lose + self.delay_percent {
            Fault::Delay(Duration::from_millis(random.random_range(0..8)))
        } else {
            Fault::None
        }
    }
}

pub(super) fn broken(path: &Path) -> object_store::Error {
    object_store::Error::Generic { store: "faulty", source: format!("injected fault at {path}").into() }
}
