//! One tenant's fresh rows from one writer's log: an active segment that grows, and frozen ones on their way to files.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;

use super::entry::{Entry, Heard, Origin, Said, TableSet};
use super::erase::strip;
use super::packed::{PackedBatch, PackedEvent, PackedKind, pack};
use super::rows::{RowSettings, TenantSettings};
use super::segment::{Carried, ObservationKey, Segment, View, Waited};
use super::standing::MergedCounts;
use crate::base::{Reservation, TimestampUs};
use crate::catalog::erasures::Denied;
use crate::format::log::{CarryBatch, CarryGroup, CountsBatch};
use crate::model::tables::Table;
use crate::model::{Event, EventBatch, EventKind, MediaCounts, TraceFacts};
use crate::price::Prices;

/// Traces whose facts are kept after their flush, for rows that come later …
const REMEMBERED_TRACES_MAX: usize = 10_000;
/// … and only those of which something was heard so shortly before: rows that come later still read the facts where they
/// stand, and ten thousand quiet tenants must not hold all they ever said.
const REMEMBERED_FOR_US: TimestampUs = 600 * 1_000_000;

/// The tables that an event of each kind can have a part in. An event that none of them wants is not kept.
const OBSERVATION_TABLES: TableSet = TableSet::of(&[Table::ObservationIo, Table::Observations, Table::Ledger]);
const TRACE_TABLES: TableSet = TableSet::of(&[Table::ObservationIo, Table::TraceFacts, Table::Observations]);
const SCORE_TABLES: TableSet = TableSet::of(&[Table::Scores, Table::Ledger]);
/// What the ledger calls events that were acked, and erased before they were in a file.
const ERASED: &str = "erased";
/// A carry frame is closed at this size.
const CARRY_BYTES: u64 = 8 << 20;

#[derive(Debug)]
pub(super) struct TenantBuffer {
    state: Mutex<State>,
    settings: TenantSettings,
}

#[derive(Debug, Default)]
struct State {
    active: Segment,
    /// Oldest first.
    frozen: VecDeque<Arc<View>>,
    /// The active segment as the last query saw it, until it changes.
    seen: Option<Arc<View>>,
    /// Given to all views of the active segment.
    waited: Waited,
    /// Of the active segment, what was there before and waits for more.
    waiting: Weight,
    /// Memory held by the active segment, and by the frozen ones in their order.
    held: Option<Reservation>,
    held_frozen: VecDeque<Option<Reservation>>,
    remembered: HashMap<Arc<str>, Arc<TraceFacts>>,
    /// With when something was heard of them.
    remembered_order: VecDeque<(Arc<str>, TimestampUs)>,
    /// Ids of denied events that were counted, at replay: what carries them counts them no more.
    gone: HashSet<(Arc<str>, Arc<str>)>,
}

/// What a flush decision needs to know.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Weight {
    /// Of what came since the last freeze.
    pub(super) bytes: u64,
    pub(super) oldest_us: Option<TimestampUs>,
    /// Of that and of what waits since before.
    pub(super) held_bytes: u64,
    /// The oldest of what waits since before.
    pub(super) waiting_since_us: Option<TimestampUs>,
    pub(super) frozen: usize,
}

impl TenantBuffer {
    /// A buffer whose tables stand at `position` or above.
    pub(super) fn new(settings: TenantSettings, position: u64) -> Self {
        let active = Segment { from: position, to: position, ..Default::default() };
        Self { state: Mutex::new(State { active, ..Default::default() }), settings }
    }

    /// Takes the events of one frame at `position`; `wanted` by the tables that do not hold it yet. What is denied is not
    /// taken.
    pub(super) fn apply(
        &self,
        position: u64,
        origin: Origin,
        batch: PackedBatch,
        wanted: TableSet,
        held: Option<Reservation>,
    ) {
        let PackedBatch { head, mut events, .. } = batch;
        let mut state = self.state.lock();
        // Asked under the lock: an erasure learnt after this finds the rows here when it takes effect.
        let denied = self.settings.denied();
        if denied.as_ref().is_some_and(|denied| denied.all()) {
            return;
        }
        state.grow(position, held);
        if wanted.has(Table::Ledger) {
            state.count_request(position, &origin, head.received, &head.rejected);
            if let Some(media) = &head.media {
                state.count_media(position, &origin, media);
            }
        }
        for gone in denied.map_or(Vec::new(), |denied| strip(&denied, &mut events, origin.stamp_us)) {
            let (counted, _) = state.is_gone(gone.kind);
            if counted && wanted.has(Table::Ledger) {
                state.active.count(position, &origin, ERASED, None, 1);
            }
        }
        for event in events {
            let heard = state.hear(event, &origin, position, wanted);
            // Never facts: they have no part in the ledger.
            if heard == (Heard::Again { counted: true }) && wanted.has(Table::Ledger) {
                state.active.count(position, &origin, "merged", None, 1);
            }
        }
    }

    /// Takes carried events, at replay; `prices` by the versions that their groups name. The ledger holds everything up to `counted`.
    pub(super) fn apply_carry(
        &self,
        position: u64,
        (batch, prices): (CarryBatch, BTreeMap<String, Arc<Prices>>),
        wanted: TableSet,
        counted: u64,
    ) {
        let mut state = self.state.lock();
        let denied = self.settings.denied();
        if denied.as_ref().is_some_and(|denied| denied.all()) {
            return;
        }
        state.grow(position, None);
        // What came about a carried id between the freeze and the carry was counted as merged, since its first event was
        // known. A replay that begins after the freeze hears of it first.
        if wanted.has(Table::Ledger) && batch.up_to > 0 && counted >= batch.up_to {
            for origin in state.heard_before_carry(&batch) {
                state.active.count(position, &origin, "merged", None, 1);
            }
        }
        for group in batch.groups {
            let prices = Arc::clone(prices.get(&group.price_book).expect("the prices of every group"));
            let origin = Origin { stamp_us: group.stamp_us, door: group.door.as_str().into(), prices };
            let mut events = pack(EventBatch { events: group.events, ..Default::default() }).events;
            for gone in denied.as_deref().map_or(Vec::new(), |denied| strip(denied, &mut events, group.stamp_us)) {
                // Its other events were counted where they first stood.
                let (is_counted, is_first) = state.is_gone(gone.kind);
                if is_counted && is_first && wanted.has(Table::Ledger) {
                    state.active.count(position, &origin, ERASED, None, 1);
                }
            }
            for event in events {
                let key = event.observation_key();
                state.hear(event, &origin, position, wanted);
                if let Some(entry) = key.and_then(|key| state.active.observations.get_mut(&key)) {
                    Arc::make_mut(entry).count_at(position, wanted.both(OBSERVATION_TABLES));
                }
            }
        }
    }

    /// Drops what is denied of the rows that are not on their way to files yet. Returns how many rows, by table.
    pub(super) fn erase(&self, position: u64, denied: &Denied) -> BTreeMap<Table, u64> {
        let mut state = self.state.lock();
        state.grow(position, None);
        state.erase(position, denied)
    }

    /// Takes books without events.
    pub(super) fn apply_counts(&self, position: u64, stamp_us: TimestampUs, counts: CountsBatch) {
        let origin = Origin { stamp_us, door: counts.door.as_str().into(), prices: Prices::built_in() };
        let mut state = self.state.lock();
        state.grow(position, None);
        state.count_request(position, &origin, counts.received, &counts.rejected);
    }

    /// Ids counted as stored at or before `position` turned out to stand in a table already.
    pub(super) fn count_merged(&self, position: u64, merged: &MergedCounts) {
        let mut state = self.state.lock();
        state.grow(position, None);
        for ((minute_us, door), count) in merged {
            state.active.count_again(position, *minute_us, door, *count as i64);
        }
    }

    /// Our own carry frame is durable at `position`.
    pub(super) fn carried(&self, carried: &Carried, position: u64) {
        let mut state = self.state.lock();
        state.grow(position, None);
        state.active.moved_to(carried, position);
    }

    pub(super) fn weight(&self) -> Weight {
        let state = self.state.lock();
        Weight {
            bytes: state.active.bytes.saturating_sub(state.waiting.bytes),
            held_bytes: state.active.bytes,
            oldest_us: state.active.oldest_us,
            waiting_since_us: state.waiting.oldest_us,
            frozen: state.frozen.len(),
        }
    }

    /// Freezes everything up to `position` but what may wait (arrived since `waiting_since_us`), which stays active.
    /// Returns the carry frames to write before the frozen segment may be committed.
    pub(super) fn freeze(&self, position: u64, waiting_since_us: TimestampUs) -> Option<(Vec<CarryBatch>, Carried)> {
        let mut state = self.state.lock();
        if state.active.is_empty() {
            return None;
        }
        let mut segment = std::mem::take(&mut state.active);
        segment.to = position;
        let waiting = segment.split_waiting(waiting_since_us);
        let carried = Carried {
            observations: waiting.observations.keys().cloned().collect(),
            traces: waiting.traces.keys().cloned().collect(),
        };
        let carry = carry_batches(&waiting, position);
        state.active = Segment { from: position, to: position, ..Default::default() };
        state.waiting = Weight { bytes: waiting.bytes, oldest_us: waiting.oldest_us, ..Default::default() };
        let mut held = state.held.take();
        state.held = held.as_mut().map(|held| held.split_off(waiting.bytes));
        state.active.absorb(waiting);
        // What comes from now on is judged by its own age.
        state.active.oldest_us = None;
        state.remember_all(&segment);
        // What waits may need the facts of traces just frozen.
        let traces: Vec<Arc<str>> = state.active.observations.keys().map(|(trace, _)| Arc::clone(trace)).collect();
        for trace in traces {
            state.inherit(&trace);
        }
        state.seen = None;
        // Queries that pinned the segment whole find there what the frozen one lacks.
        let waited = std::mem::take(&mut state.waited);
        let settings = self.settings.now();
        let view = View::new(state.active.clone(), Arc::clone(&settings), Arc::clone(&state.waited));
        waited.set(Arc::new(view)).expect("a segment is frozen once");
        state.held_frozen.push_back(held);
        let frozen = View::new(segment, settings, Waited::default());
        state.frozen.push_back(Arc::new(frozen));
        Some((carry, carried))
    }

    /// Forgets what was said at or before `floor`: tables hold it. For a log that another process flushes.
    pub(super) fn forget_up_to(&self, floor: u64) {
        let mut state = self.state.lock();
        if floor <= state.active.from {
            return;
        }
        let rows = state.active.rows().max(1) as u64;
        state.active.forget_up_to(floor);
        state.active.bytes = state.active.bytes / rows * state.active.rows() as u64;
        let bytes = state.active.bytes;
        if let Some(held) = &mut state.held {
            held.shrink_to(bytes);
        }
        state.seen = None;
    }

    /// Undoes the newest freeze: its carry frame could not be written.
    pub(super) fn thaw(&self) {
        let mut state = self.state.lock();
        let Some(view) = state.frozen.pop_back() else { return };
        let held = state.held_frozen.pop_back().flatten();
        let mut segment = view.segment.clone();
        let newer = std::mem::take(&mut state.active);
        let (to, books, inherited) = (newer.to, newer.books.clone(), newer.inherited.clone());
        segment.books.extend(books);
        segment.count_known(&newer);
        segment.absorb(newer);
        segment.to = segment.to.max(to);
        segment.inherited.extend(inherited);
        state.active = segment;
        state.waiting = Weight::default();
        let to = state.active.to;
        state.grow(to, held);
    }

    /// The oldest frozen segment, if any.
    pub(super) fn oldest_frozen(&self) -> Option<Arc<View>> {
        self.state.lock().frozen.front().cloned()
    }

    /// The oldest frozen segment is in every table: fresh reads no longer need it.
    pub(super) fn release_oldest(&self) {
        let mut state = self.state.lock();
        state.frozen.pop_front();
        state.held_frozen.pop_front();
    }

    /// The oldest frozen segment is in `table` up to `position`, and not in all others yet.
    pub(super) fn unwant_oldest(&self, table: Table, position: u64) {
        let mut state = self.state.lock();
        if let Some(view) = state.frozen.front_mut() {
            let mut segment = view.segment.clone();
            segment.unwant(table, position);
            *view = Arc::new(View::new(segment, self.settings.now(), Waited::default()));
        }
    }

    /// The lowest position still needed from the log: everything below stands in every table.
    pub(super) fn needs_from(&self) -> Option<u64> {
        let state = self.state.lock();
        let oldest = state.frozen.front().map(|view| view.segment.from);
        oldest.or_else(|| (!state.active.is_empty()).then_some(state.active.from))
    }

    /// All segments as they are now, oldest first.
    pub(super) fn pin(&self) -> Vec<Arc<View>> {
        let mut state = self.state.lock();
        state.seen.take_if(|seen| !self.settings.are(seen.settings()));
        if state.seen.is_none() && !state.active.is_empty() {
            let view = View::new(state.active.clone(), self.settings.now(), Arc::clone(&state.waited));
            state.seen = Some(Arc::new(view));
        }
        state.frozen.iter().cloned().chain(state.seen.clone()).collect()
    }
}

/// What of pinned segments a table at `position` does not hold.
pub(super) fn views_above(
    views: &[Arc<View>],
    table: Table,
    position: u64,
    settings: &Arc<RowSettings>,
    above: &mut Vec<Arc<View>>,
) {
    for view in views {
        if position <= view.segment.from {
            above.push(Arc::clone(view));
        } else if position < view.segment.to {
            // Only after another owner of the log committed half of it.
            let mut segment = view.segment.clone();
            segment.unwant(table, position);
            above.push(Arc::new(View::new(segment, Arc::clone(settings), Waited::default())));
        } else if let Some(waited) = view.waited() {
            // It was frozen and committed since it was pinned; what waited is in no file.
            views_above(std::slice::from_ref(waited), table, position, settings, above);
        }
    }
}

impl State {
    fn grow(&mut self, position: u64, held: Option<Reservation>) {
        self.seen = None;
        self.active.to = self.active.to.max(position);
        match (&mut self.held, held) {
            (Some(all), Some(more)) => all.absorb(more),
            (none @ None, more) => *none = more,
            (Some(_), None) => {}
        }
    }

    fn count_request(&mut self, position: u64, origin: &Origin, received: u64, rejected: &BTreeMap<String, u64>) {
        self.active.count(position, origin, "received", None, received);
        for (reason, count) in rejected {
            self.active.count(position, origin, "rejected", Some(reason), *count);
        }
    }

    fn count_media(&mut self, position: u64, origin: &Origin, media: &MediaCounts) {
        let origin = Origin { door: MediaCounts::DOOR.into(), ..origin.clone() };
        self.count_request(position, &origin, media.received, &media.rejected);
        self.active.count(position, &origin, "stored", None, media.stored);
        self.active.count(position, &origin, "merged", None, media.merged);
    }

    fn hear(&mut self, event: PackedEvent, origin: &Origin, position: u64, wanted: TableSet) -> Heard {
        let PackedEvent { order, glance, bytes, kind } = event;
        let origin = origin.clone();
        let wanted = wanted.both(match &kind {
            PackedKind::Observation { packed, .. } if packed.has_cold() => OBSERVATION_TABLES,
            PackedKind::Observation { .. } => OBSERVATION_TABLES.without(Table::ObservationIo),
            PackedKind::Trace { .. } => TRACE_TABLES,
            PackedKind::Score { .. } => SCORE_TABLES,
        });
        if wanted.is_empty() {
            return Heard::Unwanted;
        }
        match kind {
            PackedKind::Observation { trace_id, id, packed } => {
                self.inherit(&trace_id);
                let said = Said { order, glance, packed, origin, position, wanted };
                self.active.add_observation((trace_id, id), said, bytes)
            }
            PackedKind::Trace { trace_id, packed } => {
                self.inherit(&trace_id);
                let known = self.active.inherited.get(&trace_id);
                if known.is_some_and(|known| says_nothing_new(known, &packed.whole())) {
                    return Heard::Unwanted;
                }
                self.active.add_trace(trace_id, Said { order, glance, packed, origin, position, wanted }, bytes)
            }
            PackedKind::Score { id, packed } => {
                self.active.add_score(id, Said { order, glance, packed, origin, position, wanted }, bytes)
            }
        }
    }

    /// Where the ids of a carry frame, as far as they are known and count, came in first.
    fn heard_before_carry(&self, batch: &CarryBatch) -> Vec<Origin> {
        let mut keys: Vec<ObservationKey> = Vec::new();
        for event in batch.groups.iter().flat_map(|group| &group.events) {
            if let Some(EventKind::Observation(said)) = &event.kind {
                keys.push((said.trace_id.as_str().into(), said.id.as_str().into()));
            }
        }
        keys.sort_unstable();
        keys.dedup();
        let known = keys.iter().filter_map(|key| self.active.observations.get(key));
        known.filter(|entry| entry.wanted().has(Table::Ledger)).map(|entry| entry.origin().clone()).collect()
    }

    /// Of a denied event: whether the books know of such, and whether it is the first about its id.
    fn is_gone(&mut self, kind: PackedKind) -> (bool, bool) {
        match kind {
            PackedKind::Observation { trace_id, id, .. } => (true, self.gone.insert((trace_id, id))),
            PackedKind::Score { id, .. } => (true, self.gone.insert(("".into(), id))),
            PackedKind::Trace { .. } => (false, false),
        }
    }

    fn erase(&mut self, position: u64, denied: &Denied) -> BTreeMap<Table, u64> {
        let erased = self.active.erase(position, denied);
        self.remembered.retain(|trace, facts| !is_of_denied(denied, trace, facts));
        let kept = &self.remembered;
        self.remembered_order.retain(|(trace, _)| kept.contains_key(trace));
        erased
    }

    fn inherit(&mut self, trace: &Arc<str>) {
        if let Some(facts) = self.remembered.get(trace)
            && !self.active.inherited.contains_key(trace)
        {
            self.active.inherited.insert(Arc::clone(trace), Arc::clone(facts));
        }
    }

    /// Of a segment on its way to files: the facts that rows to come may need.
    fn remember_all(&mut self, segment: &Segment) {
        let heard_us = |entry: &Entry<TraceFacts>| entry.said.iter().map(|said| said.origin.stamp_us).max();
        let Some(newest_us) = segment.traces.values().filter_map(|entry| heard_us(entry)).max() else { return };
        let oldest_us = newest_us - REMEMBERED_FOR_US;
        while let Some((trace, _)) = self.remembered_order.pop_front_if(|(_, heard_us)| *heard_us < oldest_us) {
            self.remembered.remove(&trace);
        }
        for (trace, entry) in &segment.traces {
            let heard_us = heard_us(entry).filter(|heard_us| *heard_us >= oldest_us);
            if let (Some(heard_us), Some(facts)) = (heard_us, segment.facts(trace, &[])) {
                self.remember(Arc::clone(trace), facts, heard_us);
            }
        }
    }

    fn remember(&mut self, trace: Arc<str>, mut facts: Arc<TraceFacts>, heard_us: TimestampUs) {
        if facts.input.is_some() || facts.output.is_some() || !facts.attributes.is_empty() {
            // Texts are not stamped onto rows, and are the largest part.
            let facts = Arc::make_mut(&mut facts);
            (facts.input, facts.output, facts.attributes) = (None, None, BTreeMap::new());
        }
        if self.remembered.insert(Arc::clone(&trace), facts).is_none() {
            self.remembered_order.push_back((trace, heard_us));
            if self.remembered_order.len() > REMEMBERED_TRACES_MAX
                && let Some((oldest, _)) = self.remembered_order.pop_front()
            {
                self.remembered.remove(&oldest);
            }
        }
    }
}

/// Facts are kept long after their rows were flushed: no clock says when they came.
fn is_of_denied(denied: &Denied, trace: &str, facts: &TraceFacts) -> bool {
    let before_any_end = i64::MIN;
    denied.trace(trace, before_any_end)
        || denied.owner(facts.user_id.as_deref(), facts.session_id.as_deref(), before_any_end)
}

/// Whether `said` only repeats facts that stand in the trace's row already.
fn says_nothing_new(known: &TraceFacts, said: &TraceFacts) -> bool {
    fn same<T: PartialEq>(known: &Option<T>, said: &Option<T>) -> bool {
        said.is_none() || known == said
    }
    same(&known.name, &said.name)
        && same(&known.user_id, &said.user_id)
        && same(&known.session_id, &said.session_id)
        && same(&known.release, &said.release)
        && same(&known.version, &said.version)
        && same(&known.environment, &said.environment)
        && same(&known.public, &said.public)
        && same(&known.root_id, &said.root_id)
        && said.cleared & !known.cleared == 0
        && said.input.is_none()
        && said.output.is_none()
        && said.attributes.is_empty()
        && said.tags.iter().all(|tag| known.tags.contains(tag))
        && said.metadata.iter().all(|(key, value)| known.metadata.get(key) == Some(value))
}

/// What waits, as frames that replay reads back to the same entries.
fn carry_batches(waiting: &Segment, up_to: u64) -> Vec<CarryBatch> {
    let mut carrier = Carrier { up_to, ..Default::default() };
    // All that was said about one id goes into one batch.
    for entry in waiting.observations.values() {
        carrier.make_room();
        for said in &entry.said {
            let kind = Some(EventKind::Observation(said.packed.whole()));
            carrier.put(&said.origin, Event { order: said.order.clone(), kind }, said.packed.len());
        }
    }
    for said in waiting.traces.values().flat_map(|entry| &entry.said) {
        carrier.make_room();
        let kind = Some(EventKind::Trace(said.packed.whole()));
        carrier.put(&said.origin, Event { order: said.order.clone(), kind }, said.packed.len());
    }
    carrier.close();
    carrier.closed
}

#[derive(Default)]
struct Carrier {
    open: HashMap<(TimestampUs, Arc<str>, Arc<str>), Vec<Event>>,
    bytes: u64,
    up_to: u64,
    closed: Vec<CarryBatch>,
}

impl Carrier {
    fn put(&mut self, origin: &Origin, event: Event, bytes: u64) {
        let key = (origin.stamp_us, Arc::clone(&origin.door), Arc::clone(origin.prices.version()));
        self.open.entry(key).or_default().push(event);
        self.bytes += bytes;
    }

    fn make_room(&mut self) {
        if self.bytes >= CARRY_BYTES {
            self.close();
        }
    }

    fn close(&mut self) {
        let group = |((stamp_us, door, price_book), events): ((TimestampUs, Arc<str>, Arc<str>), Vec<Event>)| {
            CarryGroup { stamp_us, door: door.to_string(), price_book: price_book.to_string(), events }
        };
        if !self.open.is_empty() {
            self.closed.push(CarryBatch { groups: self.open.drain().map(group).collect(), up_to: self.up_to });
        }
        self.bytes = 0;
    }
}
