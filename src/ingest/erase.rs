//! Forgetting: what is asked here, and what others were asked, takes effect on the rows this process holds.
//!
//! In this order: written down in the store, so that every process and every replay knows; a frame in our log; dropped
//! from the buffer at that place of the log, and refused from then on; flushed, so that no frozen row comes after; masked
//! in the tables. A call that fails half-way is finished by the next look.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::packed::{PackedEvent, PackedKind};
use super::writer::Writer;
use super::{Ingest, Result, Shared, flush, marks};
use crate::base::{TenantId, TimestampUs};
use crate::catalog::FreshRows;
use crate::catalog::erasures::{Denied, Erasure, ErasureKind, Erasures, Masked, NewErasure, SUBJECTS_MAX};
use crate::format::index::key_hash;
use crate::format::log::{EncodedFrame, EraseFrame, FrameKind};
use crate::model::tables::Table;
use crate::model::{EventBatch, EventKind, RejectReason, Rejection};

/// How soon what others were asked takes effect here.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long this process alone refuses a trace that was named as a forgotten one's, before it is written down for all.
/// One of which rows stand is written down at once.
const NAMED_KEPT_US: i64 = 600 * 1_000_000;
/// Who asks that such traces are erased.
const ASKED_BY: &str = "tracelake: named after the erasure";

/// Every live process has heard of an erasure after this long, many times over.
const HEARD_WITHIN_US: i64 = 60 * 1_000_000;

/// Why an erasure takes effect here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    /// It was asked here, and this process answers for it.
    Asked,
    /// It was asked elsewhere: only who holds rows of its tenant has something to do.
    Heard,
    /// It was asked elsewhere shortly before this process started: whoever owned our log until then may have flushed
    /// without having heard of it, after everybody else had masked what stood.
    Inherited,
}

/// Erasures that did not take effect here yet.
#[derive(Debug)]
pub(super) struct Pending {
    seen: u64,
    open: Vec<(Arc<Erasure>, Why)>,
}

impl Pending {
    /// At a start: what is known now is in force when the log is replayed.
    pub(super) fn at_start(erasures: &Erasures) -> Self {
        let lately_us = erasures.now_us().saturating_sub(HEARD_WITHIN_US);
        let lately = erasures.after(0).into_iter().filter(|erasure| erasure.asked_us >= lately_us);
        Self { seen: erasures.last(), open: lately.map(|erasure| (erasure, Why::Inherited)).collect() }
    }

    fn take_in(&mut self, shared: &Shared) {
        for erasure in shared.catalog.erasures().after(self.seen) {
            self.seen = erasure.number;
            self.open.push((erasure, Why::Heard));
        }
    }
}

/// Looks for erasures asked elsewhere until the process stops or is fenced.
pub(super) async fn run(shared: Arc<Shared>) {
    while shared.goes_on_after(LOOK_EVERY).await {
        if let Err(error) = look(&shared).await {
            tracing::warn!(%error, "erasures asked elsewhere cannot be read; it is tried again");
        }
        if let Err(error) = erase_named(&shared, false).await {
            tracing::warn!(%error, "traces of forgotten users wait to be erased; it is tried again");
        }
    }
}

pub(super) async fn look(shared: &Shared) -> Result<()> {
    shared.catalog.erasures().catch_up().await?;
    let mut pending = shared.erasing.lock().await;
    pending.take_in(shared);
    let mut failed = Vec::new();
    for (erasure, why) in std::mem::take(&mut pending.open) {
        if let Err(error) = apply(shared, &erasure, why).await {
            tracing::warn!(erasure = erasure.id, tenant = erasure.tenant, %error, "an erasure failed; it is tried again");
            failed.push((erasure, why));
        }
    }
    pending.open = failed;
    Ok(())
}

/// Erases traces that were named as a forgotten user's or session's after the erasure was asked: their rows may have come
/// before, naming nobody, and may still come, here or elsewhere. Those of which rows stand at once, others in few steps;
/// with `all`, all of them.
pub(super) async fn erase_named(shared: &Shared, all: bool) -> Result<()> {
    let (erasures, now_us) = (shared.catalog.erasures(), shared.clock.now_us());
    let mut pending = shared.erasing.lock().await;
    for tenant in erasures.tenants() {
        let Some(denied) = erasures.denied(&tenant) else { continue };
        let mut named = denied.learned();
        if named.is_empty() {
            continue;
        }
        named.truncate(SUBJECTS_MAX);
        let hashes: Vec<u64> = named.iter().map(|(trace, _)| key_hash(&[trace])).collect();
        let is_due = all
            || named.len() == SUBJECTS_MAX
            || named.iter().any(|(_, at_us)| now_us.saturating_sub(*at_us) >= NAMED_KEPT_US)
            || stand_rows(shared, &tenant, &hashes).await?;
        if is_due {
            let values = named.into_iter().map(|(trace, _)| trace).collect();
            let (tenant, asked_by) = (tenant.clone(), ASKED_BY.to_owned());
            let traces = hashes.into_iter().collect();
            ask(shared, &mut pending, NewErasure { tenant, kind: ErasureKind::Trace, values, asked_by, traces })
                .await?;
        }
    }
    Ok(())
}

/// Whether files may hold rows of these traces.
async fn stand_rows(shared: &Shared, tenant: &TenantId, traces: &[u64]) -> Result<bool> {
    let table = Table::Observations;
    let snapshot = shared.catalog.snapshot(tenant, table).await?;
    let may = shared.catalog.traces_with_rows(tenant, table, &snapshot, traces).await?;
    Ok(may.contains(&true))
}

/// Writes an erasure down and brings it into effect.
async fn ask(shared: &Shared, pending: &mut Pending, asked: NewErasure) -> Result<Arc<Erasure>> {
    let erasure = shared.catalog.erasures().ask(asked).await?;
    pending.take_in(shared);
    apply(shared, &erasure, Why::Asked).await?;
    pending.open.retain(|(open, _)| open.number != erasure.number);
    Ok(erasure)
}

impl Ingest {
    /// Forgets `values`: on return no answer of this process shows them, within two seconds no other's, and what is said
    /// about them is refused for seven days. The files follow by themselves.
    pub async fn erase(
        &self,
        tenant: &TenantId,
        kind: ErasureKind,
        values: Vec<String>,
        asked_by: &str,
    ) -> Result<Arc<Erasure>> {
        let shared = &self.shared;
        let pinned = self.pin(tenant);
        let traces = shared.catalog.traces_of(tenant, kind, &values, pinned.as_ref()).await?;
        let (tenant, asked_by) = (tenant.clone(), asked_by.to_owned());
        let mut pending = shared.erasing.lock().await;
        ask(shared, &mut pending, NewErasure { tenant, kind, values, asked_by, traces }).await
    }

    /// Takes events out of `batch` that are about what was erased, and counts them as rejected.
    pub async fn refuse_erased(&self, tenant: &TenantId, batch: &mut EventBatch) -> Vec<Rejection> {
        let Some(denied) = self.shared.catalog.erasures().denied(tenant) else { return Vec::new() };
        let now_us = self.shared.clock.now_us();
        if denied.is_over(now_us) {
            return Vec::new();
        }
        let (rejections, facts_refused) = refuse(&denied, batch, now_us);
        if facts_refused {
            // Rows of these traces may be here already, from before anybody said whose they are.
            let all = self.shared.writers.read().clone();
            for writer in all {
                if writer.buffers.get(tenant).is_some() {
                    drop_from(&writer, tenant, None, Arc::default()).await.ok();
                }
            }
        }
        rejections
    }
}

/// Takes what is denied out of a batch that just came in; the rejections, and whether facts were among it.
fn refuse(denied: &Denied, batch: &mut EventBatch, now_us: TimestampUs) -> (Vec<Rejection>, bool) {
    let owners = denied.has_owners();
    for event in batch.events.iter().filter(|_| owners) {
        if let Some(EventKind::Trace(facts)) = &event.kind {
            denied.learn(&facts.trace_id, facts.user_id.as_deref(), facts.session_id.as_deref(), now_us);
        }
    }
    let mut rejections = Vec::new();
    let mut facts_refused = false;
    let reject = |id: &str| Rejection {
        id: id.to_owned(),
        reason: RejectReason::Erased,
        message: "it is about something that was erased lately".to_owned(),
    };
    batch.events.retain(|event| match &event.kind {
        Some(EventKind::Observation(it)) => {
            let owner = || owners && denied.owner(it.user_id.as_deref(), it.session_id.as_deref(), now_us);
            let refused = denied.trace(&it.trace_id, now_us) || owner();
            refused.then(|| rejections.push(reject(&it.id)));
            !refused
        }
        Some(EventKind::Score(it)) => {
            let of_trace = it.trace_id.as_deref().is_some_and(|trace| denied.trace(trace, now_us));
            let refused = of_trace
                || denied.score(&it.id, now_us)
                || (owners && denied.owner(None, it.session_id.as_deref(), now_us));
            refused.then(|| rejections.push(reject(&it.id)));
            !refused
        }
        Some(EventKind::Trace(it)) => {
            let owner = || owners && denied.owner(it.user_id.as_deref(), it.session_id.as_deref(), now_us);
            let refused = denied.trace(&it.trace_id, now_us) || owner();
            facts_refused |= refused;
            !refused
        }
        None => true,
    });
    batch.count_rejections(&rejections);
    (rejections, facts_refused)
}

/// Takes what is denied out of events on their way into a buffer.
pub(super) fn strip(denied: &Denied, events: &mut Vec<PackedEvent>, stamp_us: TimestampUs) -> Vec<PackedEvent> {
    if denied.is_over(stamp_us) {
        return Vec::new();
    }
    let owners = denied.has_owners();
    for event in events.iter().filter(|_| owners) {
        if let PackedKind::Trace { trace_id, packed } = &event.kind {
            let facts = packed.whole();
            denied.learn(trace_id, facts.user_id.as_deref(), facts.session_id.as_deref(), stamp_us);
        }
    }
    let is_denied = |event: &mut PackedEvent| match &event.kind {
        PackedKind::Observation { trace_id, packed, .. } => {
            let owner = || {
                let said = packed.hot();
                denied.owner(said.user_id.as_deref(), said.session_id.as_deref(), stamp_us)
            };
            denied.trace(trace_id, stamp_us) || (owners && owner())
        }
        PackedKind::Trace { trace_id, packed } => {
            let owner = || {
                let said = packed.whole();
                denied.owner(said.user_id.as_deref(), said.session_id.as_deref(), stamp_us)
            };
            denied.trace(trace_id, stamp_us) || (owners && owner())
        }
        PackedKind::Score { id, packed } => {
            let said = packed.whole();
            let of_trace = said.trace_id.as_deref().is_some_and(|trace| denied.trace(trace, stamp_us));
            of_trace
                || denied.score(id, stamp_us)
                || (owners && denied.owner(None, said.session_id.as_deref(), stamp_us))
        }
    };
    events.extract_if(.., is_denied).collect()
}

/// Brings an erasure into effect.
async fn apply(shared: &Shared, erasure: &Erasure, why: Why) -> Result<()> {
    let asked_here = why == Why::Asked;
    let Ok(tenant) = erasure.tenant.parse::<TenantId>() else { return Ok(()) };
    let dropped: Dropped = Arc::default();
    for followed in shared.followed.read().iter() {
        followed.erase(&tenant);
    }
    let writers = shared.writers.read().clone();
    let is_held = |writer: &Arc<Writer>| writer.buffers.get(&tenant).is_some();
    if erasure.kind == ErasureKind::Tenant {
        for writer in writers.iter().filter(|writer| is_held(writer)) {
            forget_tenant(writer, &tenant, erasure).await?;
        }
        if asked_here {
            let masked = Masked { at_us: shared.clock.now_us(), ..Default::default() };
            shared.catalog.erasures().add_masked(erasure, masked).await?;
        }
        return Ok(());
    }
    let mut held = why != Why::Heard;
    for writer in &writers {
        let own = asked_here && Arc::ptr_eq(writer, &shared.own);
        if own || is_held(writer) {
            let frame = own.then(|| EncodedFrame::new(Some(&tenant), FrameKind::Erase, &frame_of(erasure)));
            drop_from(writer, &tenant, frame, Arc::clone(&dropped)).await?;
            flush::flush_tenant(shared, writer, &tenant, true).await?;
            held = true;
        }
    }
    if !held {
        return Ok(());
    }
    let mut rows = shared.catalog.mask(&tenant, erasure).await?;
    for (table, count) in dropped.lock().iter() {
        *rows.entry(table.name().to_owned()).or_default() += count;
    }
    if asked_here || !rows.is_empty() {
        let masked = Masked { at_us: shared.clock.now_us(), rows };
        shared.catalog.erasures().add_masked(erasure, masked).await?;
    }
    // The log may go now, as far as others let it.
    for writer in &writers {
        marks::mark(shared, writer).await?;
    }
    Ok(())
}

/// Rows dropped from buffers, by table.
type Dropped = Arc<Mutex<BTreeMap<Table, u64>>>;

/// Drops what is denied from a log's buffer, at a place of the log: that of `frame`, or between two objects.
async fn drop_from(writer: &Writer, tenant: &TenantId, frame: Option<EncodedFrame>, dropped: Dropped) -> Result<()> {
    let (buffers, tenant) = (Arc::clone(&writer.buffers), tenant.clone());
    let apply = move |position: u64, _| {
        let (Some(state), Some(denied)) = (buffers.get(&tenant), buffers.erasures().denied(&tenant)) else { return };
        for (table, count) in state.buffer.erase(position, &denied) {
            *dropped.lock().entry(table).or_default() += count;
        }
    };
    writer.log().append(frame, apply).await.map(drop)
}

/// Lets go of all a log's buffers hold of a tenant.
async fn forget_tenant(writer: &Writer, tenant: &TenantId, erasure: &Erasure) -> Result<()> {
    let frame = EncodedFrame::new(Some(tenant), FrameKind::TenantDelete, &frame_of(erasure));
    let (buffers, gone) = (Arc::clone(&writer.buffers), tenant.clone());
    writer.log().append(Some(frame), move |_, _| buffers.remove(&gone)).await.map(drop)
}

fn frame_of(erasure: &Erasure) -> EraseFrame {
    EraseFrame {
        number: erasure.number,
        id: erasure.id.clone(),
        kind: erasure.kind.to_string(),
        subjects: erasure.subjects.clone(),
        asked_by: erasure.asked_by.clone(),
        asked_us: erasure.asked_us,
        until_us: erasure.until_us,
        traces: erasure.traces.iter().copied().collect(),
    }
}

/// What a frame of the log says, at replay.
pub(super) fn erasure_of(tenant: &TenantId, frame: EraseFrame) -> Result<Erasure, crate::catalog::system::SystemError> {
    Ok(Erasure {
        number: frame.number,
        id: frame.id,
        tenant: tenant.to_string(),
        kind: frame.kind.parse()?,
        subjects: frame.subjects,
        asked_by: frame.asked_by,
        asked_us: frame.asked_us,
        until_us: frame.until_us,
        traces: frame.traces.into_iter().collect(),
    })
}
