//! One query's share of the memory all queries have (I7).

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use datafusion::error::{DataFusionError, Result};
use datafusion::execution::memory_pool::{MemoryLimit, MemoryPool, MemoryReservation};

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
