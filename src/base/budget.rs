//! Bounded memory (I7): bytes are reserved before they are held, and given back when the holder is dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use super::ByteSize;

#[derive(Debug)]
struct Inner {
    name: &'static str,
    limit: u64,
    used: AtomicU64,
    freed: Notify,
}

/// A named number of bytes that may be held at once, shared by everyone who clones it.
#[derive(Debug, Clone)]
pub struct Budget(Arc<Inner>);

/// Bytes taken from a budget; returned on drop.
#[derive(Debug)]
pub struct Reservation {
    budget: Budget,
    bytes: u64,
}

impl Budget {
    pub fn new(name: &'static str, limit: ByteSize) -> Self {
        Self(Arc::new(Inner { name, limit: limit.bytes(), used: AtomicU64::new(0), freed: Notify::new() }))
    }

    pub fn name(&self) -> &'static str {
        self.0.name
    }
    pub fn limit(&self) -> ByteSize {
        ByteSize(self.0.limit)
    }
    pub fn used(&self) -> u64 {
        self.0.used.load(Ordering::Acquire)
    }

    /// Takes `bytes` now or not at all.
    pub fn try_reserve(&self, bytes: u64) -> Option<Reservation> {
        let fits = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= self.0.limit);
        self.0.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits).ok()?;
        Some(Reservation { budget: self.clone(), bytes })
    }

    /// Takes `bytes`, waiting at most `patience` for others to give back. `None`: refuse and say retry.
    pub async fn reserve(&self, bytes: u64, patience: Duration) -> Option<Reservation> {
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            let freed = self.0.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            if let Some(reservation) = self.try_reserve(bytes) {
                return Some(reservation);
            }
            if tokio::time::timeout_at(deadline, freed).await.is_err() {
                return self.try_reserve(bytes);
            }
        }
    }
}

impl Reservation {
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Gives back what is above `bytes`.
    pub fn shrink_to(&mut self, bytes: u64) {
        let surplus = self.bytes.saturating_sub(bytes);
        self.bytes -= surplus;
        self.budget.give_back(surplus);
    }

    /// Takes `bytes` of this reservation, or what there is, into one of their own.
    pub fn split_off(&mut self, bytes: u64) -> Reservation {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        Reservation { budget: self.budget.clone(), bytes }
    }

    /// Joins another reservation of the same budget to this one.
    pub fn absorb(&mut self, mut other: Reservation) {
        debug_assert!(Arc::ptr_eq(&self.budget.0, &other.budget.0));
        self.bytes += std::mem::take(&mut other.bytes);
    }
}

impl Budget {
    fn give_back(&self, bytes: u64) {
        if bytes > 0 {
            self.0.used.fetch_sub(bytes, Ordering::AcqRel);
            self.0.freed.notify_waiters();
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_full_budget_refuses_until_something_is_given_back() {
        let budget = Budget::new("test", ByteSize(10));
        let held = budget.try_reserve(8).unwrap();
        assert!(budget.reserve(4, Duration::from_millis(5)).await.is_none());
        let waiting = tokio::spawn({
            let budget = budget.clone();
            async move { budget.reserve(4, Duration::from_secs(5)).await.is_some() }
        });
        tokio::task::yield_now().await;
        drop(held);
        assert!(waiting.await.unwrap());
        assert_eq!(budget.used(), 0);
    }
}
