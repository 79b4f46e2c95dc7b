//! What this process has put into the ledgers of all tenants since it started, for its metrics (I9).

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::segment::BookKey;

/// How many observations and scores, or media. Doors, outcomes and reasons come from fixed sets.
pub type Booking = (Booked, i64);
/// Door, outcome and reason.
type Booked = (Arc<str>, &'static str, Option<String>);

#[derive(Debug, Default)]
pub(super) struct Bookings(Mutex<BTreeMap<Booked, i64>>);

impl Bookings {
    /// Called when the commit of these rows of a ledger is known to stand.
    pub(super) fn add(&self, books: &BTreeMap<BookKey, i64>) {
        let mut booked = self.0.lock();
        for ((_, door, outcome, reason), count) in books {
            *booked.entry((Arc::clone(door), outcome, reason.clone())).or_default() += count;
        }
    }

    pub(super) fn all(&self) -> Vec<Booking> {
        self.0.lock().iter().map(|(key, count)| (key.clone(), *count)).collect()
    }
}
