//! One query's share of the memory all queries have (I7).

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use arrow::array::Array;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::memory_pool::{MemoryLimit, MemoryPool, MemoryReservation};
use parking_lot::Mutex;

use super::error::QueryError;
use super::limits::QueryLimits;
use crate::base::ByteSize;

/// Takes from the pool of all queries, up to a limit of its own. Gives back what is left when the query ends.
#[derive(Debug)]
pub(super) struct QueryPool {
    all: Arc<dyn MemoryPool>,
    all_limit: ByteSize,
    used: AtomicUsize,
    limit: ByteSize,
    /// The last refusal was of all queries' pool, not of this one's share.
    all_is_full: AtomicBool,
}

impl QueryPool {
    pub(super) fn new(all: Arc<dyn MemoryPool>, limits: &QueryLimits) -> Self {
        Self {
            all,
            all_limit: limits.memory_all,
            used: AtomicUsize::new(0),
            limit: limits.memory_max,
            all_is_full: AtomicBool::new(false),
        }
    }

    /// What to say about the last refusal.
    pub(super) fn refusal(&self) -> QueryError {
        match self.all_is_full.load(Ordering::Acquire) {
            true => QueryError::memory_all(self.all_limit),
            false => QueryError::memory(self.limit),
        }
    }

    fn refuse(&self, all_is_full: bool) -> DataFusionError {
        self.all_is_full.store(all_is_full, Ordering::Release);
        // This kind is what makes sorts and groupings spill before they give up.
        DataFusionError::ResourcesExhausted(self.refusal().to_string())
    }
}

impl MemoryPool for QueryPool {
    fn name(&self) -> &str {
        "query"
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.all.grow(reservation, additional);
        self.used.fetch_add(additional, Ordering::AcqRel);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.all.shrink(reservation, shrink);
        self.used.fetch_sub(shrink, Ordering::AcqRel);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        let fits = |used: usize| used.checked_add(additional).filter(|sum| *sum <= self.limit.as_usize());
        if self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits).is_err() {
            return Err(self.refuse(false));
        }
        self.all.try_grow(reservation, additional).map_err(|_| {
            self.used.fetch_sub(additional, Ordering::AcqRel);
            self.refuse(true)
        })
    }

    fn reserved(&self) -> usize {
        self.used.load(Ordering::Acquire)
    }

    fn memory_limit(&self) -> MemoryLimit {
        MemoryLimit::Finite(self.limit.as_usize())
    }
}

impl fmt::Display for QueryPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "query: {} of {} bytes", self.reserved(), self.limit)
    }
}

/// What functions make of a query's rows, from the call until the last user of the result lets go of it. The engine
/// asks a pool for what its operators keep, not for what passes through them: that is counted here, against the same
/// limits.
#[derive(Debug)]
pub(super) struct Outputs {
    limit: ByteSize,
    all_limit: ByteSize,
    /// Of all queries.
    all: Arc<AtomicU64>,
    own: Mutex<Made>,
}

#[derive(Debug, Default)]
struct Made {
    results: Vec<(Weak<dyn Array>, u64)>,
    /// Of `results`, and of calls that have not ended.
    bytes: u64,
}

/// Room for the result of one call.
#[derive(Debug)]
pub(super) struct Room<'a> {
    outputs: &'a Outputs,
    bytes: u64,
}

impl Outputs {
    /// Results smaller than this are not counted.
    const SMALL: u64 = 4 << 10;

    pub(super) fn new(all: Arc<AtomicU64>, limits: &QueryLimits) -> Self {
        Self { limit: limits.memory_max, all_limit: limits.memory_all, all, own: Mutex::default() }
    }

    /// Before a call whose result weighs `bytes` at most.
    pub(super) fn admit(&self, bytes: u64) -> Result<Room<'_>> {
        if bytes < Self::SMALL {
            return Ok(Room { outputs: self, bytes: 0 });
        }
        let mut own = self.own.lock();
        let gone = own.results.extract_if(.., |(result, _)| result.strong_count() == 0).map(|(_, bytes)| bytes).sum();
        self.less(&mut own, gone);
        if own.bytes.saturating_add(bytes) > self.limit.bytes() {
            return Err(QueryError::memory(self.limit).into());
        }
        let fits = |all: u64| all.checked_add(bytes).filter(|all| *all <= self.all_limit.bytes());
        if self.all.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits).is_err() {
            return Err(QueryError::memory_all(self.all_limit).into());
        }
        own.bytes += bytes;
        Ok(Room { outputs: self, bytes })
    }

    fn less(&self, own: &mut Made, bytes: u64) {
        own.bytes -= bytes;
        self.all.fetch_sub(bytes, Ordering::AcqRel);
    }
}

impl Drop for Outputs {
    fn drop(&mut self) {
        self.all.fetch_sub(self.own.get_mut().bytes, Ordering::AcqRel);
    }
}

impl Room<'_> {
    /// The call has ended: the room it took too much is free, the rest is when `result` is.
    pub(super) fn fill(mut self, result: &Arc<dyn Array>, bytes: u64) {
        // What was admitted was the most it could be; a result that only points at its arguments may seem more.
        let kept = bytes.min(self.bytes);
        if kept > 0 {
            self.outputs.own.lock().results.push((Arc::downgrade(result), kept));
            self.bytes -= kept;
        }
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.outputs.less(&mut self.outputs.own.lock(), self.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::Int64Array;

    use super::*;

    #[test]
    fn room_is_free_again_when_the_result_is() {
        let limits =
            QueryLimits { memory_max: ByteSize::kib(100), memory_all: ByteSize::kib(150), ..Default::default() };
        let all = Arc::new(AtomicU64::new(0));
        let outputs = Outputs::new(Arc::clone(&all), &limits);
        let kib = |kib: u64| kib << 10;
        let result: Arc<dyn Array> = Arc::new(Int64Array::from(vec![1]));
        outputs.admit(kib(80)).unwrap().fill(&result, kib(60));
        assert_eq!(all.load(Ordering::Acquire), kib(60), "what was too much is free at once");
        assert!(outputs.admit(kib(50)).is_err());
        let other = Outputs::new(Arc::clone(&all), &limits);
        let held = other.admit(kib(90)).unwrap();
        assert!(outputs.admit(kib(30)).unwrap_err().to_string().contains("carried"), "all queries' memory is full");
        drop(held);
        drop(outputs.admit(kib(40)).unwrap());
        drop(result);
        outputs.admit(kib(100)).unwrap();
        drop((outputs, other));
        assert_eq!(all.load(Ordering::Acquire), 0);
    }
}
