//! Following the logs of other live processes, so that what they acked is right here within two seconds (I4).
//!
//! One LIST of `wal/` every 30 s finds the logs; of each, the next number is asked for once a second: 86,400 requests a
//! day and log, 1 USD a month at S3's prices. What they hold goes into buffers like our own, which queries see and nobody
//! flushes: their owner does. Once it has, tables hold the rows by its position, and they are forgotten here.
//!
//! Memory is the ingest budget's. Where that is full, a log is left for a while: its rows then appear with their flush.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::entry::{Origin, TableSet};
use super::packed::pack;
use super::replay;
use super::segment::{EVENT_OVERHEAD_BYTES, View};
use super::writer::Buffers;
use super::{IngestError, Result, Shared};
use crate::base::{Budget, Kind, TenantId, TimestampUs, WriterId};
use crate::catalog::Catalog;
use crate::format::log::{self, CarryBatch, Frame, FrameKind};
use crate::model::EventBatch;
use crate::model::tables::Table;
use crate::store;

const POLL_EVERY: Duration = Duration::from_millis(1000);
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// A log without news for this long is asked for news at each look only.
const SILENT_AFTER_US: TimestampUs = 24 * 3600 * 1_000_000;
/// A log that found no room in memory is left alone this long.
const LEFT_FOR: Duration = Duration::from_secs(60);
/// Tenants with less than this in a followed log wait for its low mark; the others' tables are looked at.
const LOOKED_AT_BYTES: u64 = 1 << 20;

/// All but the books: those come with the flush of the log's owner.
const ROWS: TableSet = TableSet::of(&[Table::ObservationIo, Table::Observations, Table::TraceFacts, Table::Scores]);

/// A log that another process writes.
#[derive(Debug)]
pub(super) struct Followed {
    id: WriterId,
    buffers: Buffers,
    cursor: tokio::sync::Mutex<Cursor>,
    /// By tenant: the log was read to its end after a table was seen at this position.
    settled: Mutex<HashMap<TenantId, u64>>,
    /// By tenant: up to where its tables were seen to hold everything, a look ago. Queries may hold older snapshots.
    held: Mutex<HashMap<TenantId, u64>>,
}

#[derive(Debug)]
struct Cursor {
    next: u64,
    /// The stamp of the last object seen.
    news_us: TimestampUs,
    marked: u64,
}

/// Follows until the process stops.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut looked: Option<Instant> = None;
    let mut left: HashMap<WriterId, Instant> = HashMap::new();
    loop {
        let look = looked.is_none_or(|looked| looked.elapsed() >= LOOK_EVERY);
        if look {
            looked = Some(Instant::now());
            left.retain(|_, since| since.elapsed() < LEFT_FOR);
            if let Err(error) = find(&shared, &left).await {
                tracing::warn!(%error, "the logs of other processes cannot be listed; it is tried again");
            }
        }
        let followed = shared.followed.read().clone();
        for log in followed {
            let kept = follow(&shared, &log, look).await;
            if let Err(error) = kept
                && error.kind() != Kind::Unavailable
            {
                tracing::warn!(writer = %log.id, %error, "this log is not followed for a while: its rows appear with their flush");
                left.insert(log.id.clone(), Instant::now());
                shared.followed.write().retain(|kept| !Arc::ptr_eq(kept, &log));
            }
        }
        if !shared.goes_on_after(POLL_EVERY).await {
            return;
        }
    }
}

/// One round for one log.
async fn follow(shared: &Shared, log: &Arc<Followed>, look: bool) -> Result<()> {
    let silent = {
        let cursor = log.cursor.lock().await;
        shared.clock.now_us() - cursor.news_us > SILENT_AFTER_US
    };
    if look || !silent {
        log.poll(&shared.catalog, &shared.budget).await?;
    }
    if look {
        log.forget(&shared.catalog).await?;
    }
    Ok(())
}

/// Begins to follow logs not known yet, and lets those go that are ours now.
async fn find(shared: &Shared, left: &HashMap<WriterId, Instant>) -> Result<()> {
    let store = shared.catalog.store();
    for name in store.list_folders(&store::logs()).await? {
        let Ok(id) = name.parse::<WriterId>() else { continue };
        let ours = shared.writers.read().iter().any(|writer| *writer.id() == id);
        shared.followed.write().retain(|log| !(ours && log.id == id));
        if ours || left.contains_key(&id) || shared.followed.read().iter().any(|log| log.id == id) {
            continue;
        }
        let (marked, open) = replay::open_objects(store, &id).await?;
        let first = open.iter().filter_map(|meta| store::log_sequence(&meta.location)).find(|at| *at >= marked);
        let cursor = Cursor { next: first.unwrap_or(marked).max(1), news_us: shared.clock.now_us(), marked };
        tracing::info!(writer = %id, from = cursor.next, "following this log");
        let log = Followed {
            buffers: Buffers::new(Arc::clone(&shared.rows), shared.catalog.clone()),
            id,
            cursor: tokio::sync::Mutex::new(cursor),
            settled: Mutex::default(),
            held: Mutex::default(),
        };
        shared.followed.write().push(Arc::new(log));
    }
    Ok(())
}

impl Followed {
    pub(super) fn id(&self) -> &WriterId {
        &self.id
    }

    pub(super) fn pin(&self, tenant: &TenantId) -> Vec<Arc<View>> {
        self.buffers.get(tenant).map_or_else(Vec::new, |state| state.buffer.pin())
    }

    /// Up to which position of a table what is here is known to be all that the table lacks.
    pub(super) fn settled(&self, tenant: &TenantId) -> u64 {
        self.settled.lock().get(tenant).copied().unwrap_or(0)
    }

    /// A table was seen at `position`: rows that waited at that flush stand in the log again since, and must be here
    /// before those that the position covers count no more.
    pub(super) async fn settle(&self, tenant: &TenantId, position: u64, catalog: &Catalog, budget: &Budget) {
        if position <= self.settled(tenant) {
            return;
        }
        match self.poll(catalog, budget).await {
            Ok(()) => _ = self.settled.lock().insert(tenant.clone(), position),
            Err(error) => tracing::debug!(writer = %self.id, %error, "this log could not be read"),
        }
    }

    /// Reads what was appended since.
    async fn poll(&self, catalog: &Catalog, budget: &Budget) -> Result<()> {
        let mut cursor = self.cursor.lock().await;
        loop {
            let path = store::log_object(&self.id, Some(cursor.next));
            let Some(body) = catalog.store().get(&path).await? else { return Ok(()) };
            // What is torn was never acked; the next owner's claim stands after it.
            if let Ok((header, frames)) = log::decode_object(&body) {
                for frame in frames {
                    let applied = self.apply(cursor.next, header.stamp_us, frame, catalog, budget).await;
                    applied.map_err(|error| match error {
                        IngestError::Format { source, .. } => IngestError::Format { path: path.to_string(), source },
                        other => other,
                    })?;
                }
                cursor.news_us = header.stamp_us;
            }
            cursor.next += 1;
        }
    }

    /// Lets go of what is denied of a tenant. Its owner drops it by itself, and counts it.
    pub(super) fn erase(&self, tenant: &TenantId) {
        let Some(denied) = self.buffers.erasures().denied(tenant) else { return };
        if denied.all() {
            self.buffers.remove(tenant);
        } else if let Some(state) = self.buffers.get(tenant) {
            state.buffer.erase(0, &denied);
        }
    }

    async fn apply(
        &self,
        position: u64,
        stamp_us: TimestampUs,
        frame: Frame,
        catalog: &Catalog,
        budget: &Budget,
    ) -> Result<()> {
        let format = |source| IngestError::Format { path: String::new(), source };
        let Some(tenant) = frame.tenant.clone() else { return Ok(()) };
        if self.buffers.is_gone(&tenant) {
            return Ok(());
        }
        let state = self.buffers.of(&tenant, position - 1);
        let room = |bytes: u64| {
            let full = IngestError::NoRoom { name: budget.name(), limit: budget.limit() };
            budget.try_reserve(bytes).ok_or(full)
        };
        match frame.kind {
            FrameKind::Events => {
                let bytes = frame.payload.len() as u64;
                let batch: EventBatch = frame.decode().map_err(format)?;
                let held = room(bytes + batch.events.len() as u64 * EVENT_OVERHEAD_BYTES)?;
                let prices = catalog.prices().at(&tenant, &batch.price_book).await?;
                let origin = Origin { stamp_us, door: batch.door.as_str().into(), prices };
                state.buffer.apply(position, origin, pack(batch), ROWS, Some(held));
            }
            FrameKind::Carry => {
                let batch: CarryBatch = frame.decode().map_err(format)?;
                let versions = batch.groups.iter().map(|group| group.price_book.as_str());
                let prices = catalog.prices().at_each(&tenant, versions).await?;
                state.buffer.apply_carry(position, (batch, prices), ROWS, 0);
            }
            FrameKind::Counts | FrameKind::Claim | FrameKind::Erase | FrameKind::TenantDelete => {}
        }
        Ok(())
    }

    /// Forgets what tables hold since the look before.
    async fn forget(&self, catalog: &Catalog) -> Result<()> {
        let marked = {
            let mut cursor = self.cursor.lock().await;
            let (marked, _) = replay::marked(catalog.store(), &self.id).await?;
            std::mem::replace(&mut cursor.marked, marked)
        };
        for (tenant, state) in self.buffers.all() {
            let before = self.held.lock().get(&tenant).copied().unwrap_or(0);
            state.buffer.forget_up_to(before.max(marked.saturating_sub(1)));
            if state.buffer.weight().bytes > LOOKED_AT_BYTES {
                // The ledger is committed last: the others hold no less.
                let held = catalog.snapshot(&tenant, Table::Ledger).await?.position(&self.id);
                self.held.lock().insert(tenant, held);
            }
        }
        Ok(())
    }
}
