//! What of the log may go: low marks, deletion below them, heartbeats, and the adoption of logs left behind.

use std::sync::Arc;
use std::time::Duration;

use super::replay;
use super::writer::Writer;
use super::{Result, Shared};
use crate::base::{TenantId, TimestampUs, WriterId};
use crate::format::log::{self, CountsBatch, EncodedFrame, FrameKind};
use crate::store::{self, Store};
use bytes::Bytes;

const LOOK_EVERY: Duration = Duration::from_secs(30);
/// A sweep lists the log, a page of a thousand objects a request: not at every look.
const SWEEP_EVERY_US: TimestampUs = 600 * 1_000_000;
/// Low marks kept behind the newest: one is enough, a few tell a story.
const MARKS_KEPT: usize = 3;

pub(super) async fn run(shared: Arc<Shared>) {
    while shared.goes_on_after(LOOK_EVERY).await {
        if let Err(error) = look(&shared).await {
            tracing::warn!(%error, "log upkeep failed; it is tried again");
        }
    }
}

/// One round: heartbeat, mark, delete, adopt.
pub(super) async fn look(shared: &Arc<Shared>) -> Result<()> {
    let writers = shared.writers.read().clone();
    for writer in writers {
        let own = Arc::ptr_eq(&writer, &shared.own);
        // An adopted log whose owner came back, or that is drained, is let go: whoever needs it claims it.
        let let_go = !own && (writer.is_fenced() || writer.buffers.needs_from().is_none());
        if let Err(error) = keep_up(shared, &writer).await {
            tracing::warn!(writer = %writer.id(), %error, "log upkeep failed; it is tried again");
        }
        if let_go {
            shared.writers.write().retain(|kept| !Arc::ptr_eq(kept, &writer));
        }
    }
    adopt(shared).await
}

async fn keep_up(shared: &Shared, writer: &Writer) -> Result<()> {
    if writer.is_fenced() {
        return Ok(());
    }
    if writer.buffers.needs_from().is_some() {
        heartbeat(writer).await?;
    }
    mark(shared, writer).await
}

/// While rows of it are in no table, a log shows that its owner lives: others adopt silent ones.
async fn heartbeat(writer: &Writer) -> Result<()> {
    let nothing = EncodedFrame::new(None::<&TenantId>, FrameKind::Counts, &CountsBatch::default());
    writer.log().append(Some(nothing), |_, _| {}).await.map(drop)
}

/// Writes a low mark if it moved, and deletes log objects below it that are old enough; claims stay, as the fence
/// against a process that slept through all of this.
pub(super) async fn mark(shared: &Shared, writer: &Writer) -> Result<()> {
    if writer.is_fenced() {
        return Ok(());
    }
    let at = Arc::new(parking_lot::Mutex::new(0));
    let applied = {
        let at = Arc::clone(&at);
        move |position, _| *at.lock() = position
    };
    writer.log().append(None, applied).await?;
    let end = *at.lock();
    // needs_from is exclusive: everything up to and including it is in the tables.
    let mark = writer.buffers.needs_from().unwrap_or(end).min(end) + 1;
    let before = *writer.marked.lock();
    let now_us = shared.clock.now_us();
    let kept_us = shared.settings.log_kept_s as i64 * 1_000_000;
    let sweep_every_us = SWEEP_EVERY_US.min(kept_us);
    if mark > before {
        let objects = shared.catalog.store();
        let body = Bytes::from(format!("{{\"version\":1,\"id\":\"{}\"}}", uuid::Uuid::new_v4()));
        objects.create(&store::low_mark(writer.id(), Some(mark)), body).await?;
        *writer.marked.lock() = mark;
        writer.sweep_at_us.lock().get_or_insert(now_us + sweep_every_us);
    }
    // What was too young at the last sweep grows old also while nothing is written.
    let due = writer.sweep_at_us.lock().is_some_and(|at_us| at_us <= now_us);
    if due { sweep(shared, writer, mark.max(before)).await } else { Ok(()) }
}

async fn sweep(shared: &Shared, writer: &Writer, mark: u64) -> Result<()> {
    let (objects, claimed, due) = (shared.catalog.store(), writer.claimed, &writer.sweep_at_us);
    let writer = writer.id();
    let kept_us = shared.settings.log_kept_s as i64 * 1_000_000;
    let now_us = shared.clock.now_us();
    let mut next_us: Option<TimestampUs> = None;
    for meta in objects.list(&store::log_object(writer, None), None).await? {
        let Some(sequence) = store::log_sequence(&meta.location).filter(|sequence| *sequence < mark) else { continue };
        let over_us = meta.last_modified.timestamp_micros() + kept_us;
        if over_us >= now_us {
            next_us = Some(next_us.map_or(over_us, |next_us| next_us.min(over_us)));
            continue;
        }
        // What stands above our claim we wrote ourselves, and claims are not among it.
        if sequence > claimed || !is_claim(objects, &meta.location).await? {
            objects.delete(&meta.location).await?;
        }
    }
    *due.lock() = next_us.map(|next_us| (next_us + 1).max(now_us + SWEEP_EVERY_US.min(kept_us)));
    let marks = objects.list(&store::low_mark(writer, None), None).await?;
    for meta in marks.iter().rev().skip(MARKS_KEPT) {
        objects.delete(&meta.location).await?;
    }
    Ok(())
}

async fn is_claim(objects: &Store, path: &store::Path) -> Result<bool> {
    let Some(body) = objects.get(path).await? else { return Ok(false) };
    // Torn and unreadable objects are kept with the claims: they are evidence.
    Ok(log::decode_object(&body).map_or(true, |(_, frames)| frames.iter().any(|f| f.kind == FrameKind::Claim)))
}

/// Takes over logs that hold rows in no table and have been silent for too long.
async fn adopt(shared: &Arc<Shared>) -> Result<()> {
    let objects = shared.catalog.store();
    let silent_since_us = shared.clock.now_us() - shared.settings.adopt_after_s as i64 * 1_000_000;
    for name in objects.list_folders(&store::logs()).await? {
        let Ok(id) = name.parse::<WriterId>() else { continue };
        if shared.writers.read().iter().any(|writer| *writer.id() == id) {
            continue;
        }
        let (_, open) = replay::open_objects(objects, &id).await?;
        let news_us = open.iter().map(|meta| meta.last_modified.timestamp_micros()).max();
        if news_us.is_none_or(|news_us| news_us >= silent_since_us) {
            continue;
        }
        tracing::warn!(writer = %id, "this log has been silent with rows in no table: adopting it");
        // What is erased while it is replayed takes effect after it, on this log too.
        let _erasing = shared.erasing.lock().await;
        // If its owner lives after all, it is fenced by our claim and stops: nothing is lost either way.
        match Writer::open(&shared.catalog, &shared.clock, id.clone(), &shared.rows).await {
            Ok(adopted) => shared.writers.write().push(Arc::new(adopted)),
            Err(error) => tracing::warn!(writer = %id, %error, "this log cannot be adopted; it is tried again"),
        }
    }
    Ok(())
}
