//! Whose turn it is: numbered, create-only objects, of which the highest counts. A lease spares workers the same work
//! twice; it is not what keeps rows safe. That is the commit rule: a rewrite is void if one of its inputs is gone.
//!
//! `leases/{tenant}/{table}/{slot}/{number}`: held until a time, or given back. Who claims, renews or gives back creates
//! the next number; one succeeds. Clocks are not trusted: a lease that was seen unchanged for its whole length on our
//! own monotonic clock has run out, whatever it says.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use uuid::Uuid;

use super::{CompactError, Result};
use crate::base::{Clock, Day, TenantId, TimestampUs};
use crate::model::tables::Table;
use crate::store::{self, Created, Path, Store};

const FORMAT: u32 = 1;
/// Days of a table are spread over so many leases: so many workers may rewrite one table at once.
const SLOTS: i32 = 4;
/// Leases of which is remembered since when they were seen; all are forgotten when there are more: a takeover is later.
const SEEN_MAX: usize = 100_000;
/// Numbers a claim walks through while others move on.
const STEPS_MAX: u32 = 16;
/// A claim that took longer than this may have been overtaken and swept: it looks for a higher number.
const SLOW: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Body {
    format: u32,
    owner: String,
    /// Makes the bytes unique to one call, so that a lost reply is told from a lost race.
    id: String,
    /// `None`: given back.
    held_until_us: Option<TimestampUs>,
}

/// What is known of a slot's highest number.
#[derive(Debug, Clone)]
struct Seen {
    number: u64,
    body: Body,
    since: Instant,
}

/// The leases of one process. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Leases {
    store: Store,
    clock: Arc<dyn Clock>,
    owner: String,
    length: Duration,
    seen: Arc<Mutex<HashMap<Path, Seen>>>,
}

/// The right to rewrite files of some days of a table, until it runs out.
#[derive(Debug)]
pub(super) struct Lease {
    leases: Leases,
    tenant: TenantId,
    table: Table,
    slot: u32,
    number: u64,
    valid_until: Instant,
}

impl Leases {
    pub(super) fn new(store: Store, clock: Arc<dyn Clock>, length: Duration) -> Self {
        Self { store, clock, owner: Uuid::new_v4().to_string(), length, seen: Arc::default() }
    }

    /// Claims the days' lease; `None`: another has it.
    pub(super) async fn claim(&self, tenant: &TenantId, table: Table, day: Day) -> Result<Option<Lease>> {
        let slot = day.days().rem_euclid(SLOTS) as u32;
        let path = |number| store::lease(tenant, table.name(), slot, number);
        let began = Instant::now();
        // Never from memory: numbers that were swept can be created again, and would be worth nothing.
        let mut top = self.find(&path(None)).await?;
        for _ in 0..STEPS_MAX {
            if top.as_ref().is_some_and(|seen| !self.is_over(seen)) {
                return Ok(None);
            }
            let number = top.as_ref().map_or(0, |seen| seen.number + 1);
            let asked = Instant::now();
            let body = self.body(true);
            match self.create(&path(Some(number)), &body).await? {
                None => {
                    let next = path(Some(number + 1));
                    if began.elapsed() > SLOW && self.store.get(&next).await?.is_some() {
                        top = self.find(&path(None)).await?;
                        continue;
                    }
                    self.remember(&path(None), number, body);
                    self.forget_below(tenant, table, slot, number).await;
                    let valid_until = asked + self.length;
                    let (leases, tenant) = (self.clone(), tenant.clone());
                    return Ok(Some(Lease { leases, tenant, table, slot, number, valid_until }));
                }
                Some(theirs) => top = Some(self.remember(&path(None), number, theirs)),
            }
        }
        Ok(None)
    }

    fn body(&self, held: bool) -> Body {
        let held_until_us = held.then(|| self.clock.now_us().saturating_add(self.length.as_micros() as i64));
        Body { format: FORMAT, owner: self.owner.clone(), id: Uuid::new_v4().to_string(), held_until_us }
    }

    /// Creates a number; `Some` is what stood there.
    async fn create(&self, path: &Path, body: &Body) -> Result<Option<Body>> {
        let bytes = serde_json::to_vec(body).expect("ids and numbers are always JSON");
        match self.store.create(path, Bytes::from(bytes)).await? {
            Created::Ours => Ok(None),
            Created::Theirs(found) => decode(path, &found).map(Some),
        }
    }

    /// The slot's highest number, and since when it was seen.
    async fn find(&self, folder: &Path) -> Result<Option<Seen>> {
        for _ in 0..STEPS_MAX {
            let listed = self.store.list(folder, None).await?;
            let top =
                listed.iter().filter_map(|meta| Some((store::log_sequence(&meta.location)?, &meta.location))).max();
            let Some((number, path)) = top else { return Ok(None) };
            // Gone meanwhile: there is a higher one.
            if let Some(found) = self.store.get(path).await? {
                return Ok(Some(self.remember(folder, number, decode(path, &found)?)));
            }
        }
        Ok(None)
    }

    fn is_over(&self, seen: &Seen) -> bool {
        let Some(held_until_us) = seen.body.held_until_us else { return true };
        if seen.body.owner == self.owner {
            // Of a worker of this process that did not give it back; it knows when it ran out.
            return seen.since.elapsed() >= self.length;
        }
        let margin = self.length / 2;
        seen.since.elapsed() >= self.length + margin
            || self.clock.now_us() >= held_until_us.saturating_add(margin.as_micros() as i64)
    }

    fn remember(&self, folder: &Path, number: u64, body: Body) -> Seen {
        let mut seen = self.seen.lock();
        if seen.len() >= SEEN_MAX && !seen.contains_key(folder) {
            seen.clear();
        }
        let found = Seen { number, body, since: Instant::now() };
        let known = seen.entry(folder.clone()).or_insert_with(|| found.clone());
        if known.number < number {
            *known = found;
        }
        known.clone()
    }

    /// The numbers before are of no use. One that stays costs nothing but its bytes.
    async fn forget_below(&self, tenant: &TenantId, table: Table, slot: u32, number: u64) {
        if let Some(before) = number.checked_sub(1) {
            let _ = self.store.delete(&store::lease(tenant, table.name(), slot, Some(before))).await;
        }
    }
}

impl Lease {
    /// Whether it is still ours, as far as our own clock can say.
    pub(super) fn is_valid(&self) -> bool {
        Instant::now() < self.valid_until
    }

    /// Does `work` and renews the lease meanwhile. What came of it counts only if the lease held to the end.
    pub(super) async fn during<T>(&mut self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let done = tokio::select! {
            done = work => done?,
            lost = self.keep() => return Err(lost),
        };
        match self.is_valid() {
            true => Ok(done),
            false => Err(self.lost()),
        }
    }

    /// Renews it as long as it is polled; resolves when it is lost.
    pub(super) async fn keep(&mut self) -> CompactError {
        let length = self.leases.length;
        loop {
            tokio::time::sleep(length / 3).await;
            let asked = Instant::now();
            // What ran out may have been followed and swept: then the next number is free, and worth nothing.
            if !self.is_valid() {
                return self.lost();
            }
            match self.next(true).await {
                Ok(true) if self.is_valid() => self.valid_until = asked + length,
                Ok(_) => return self.lost(),
                Err(_) if self.is_valid() => {}
                Err(error) => return error,
            }
        }
    }

    /// Gives it back, if it is ours. If the store does not answer it runs out by itself.
    pub(super) async fn release(mut self) {
        if self.is_valid() {
            let _ = self.next(false).await;
        }
    }

    /// Creates the next number; `false`: another did.
    async fn next(&mut self, held: bool) -> Result<bool> {
        let number = self.number + 1;
        let path = |number| store::lease(&self.tenant, self.table.name(), self.slot, number);
        let body = self.leases.body(held);
        let theirs = self.leases.create(&path(Some(number)), &body).await?;
        let is_ours = theirs.is_none();
        self.leases.remember(&path(None), number, theirs.unwrap_or(body));
        if is_ours {
            self.leases.forget_below(&self.tenant, self.table, self.slot, number).await;
            self.number = number;
        }
        Ok(is_ours)
    }

    pub(super) fn lost(&self) -> CompactError {
        let path = store::lease(&self.tenant, self.table.name(), self.slot, Some(self.number));
        CompactError::LeaseLost { path: path.to_string() }
    }
}

fn decode(path: &Path, bytes: &[u8]) -> Result<Body> {
    let corrupt = |reason: String| CompactError::Corrupt { path: path.to_string(), reason };
    let body: Body = serde_json::from_slice(bytes).map_err(|e| corrupt(format!("it is no lease: {e}")))?;
    match body.format > FORMAT {
        true => Err(corrupt(format!("it has format {}, this tracelake knows up to {FORMAT}", body.format))),
        false => Ok(body),
    }
}
