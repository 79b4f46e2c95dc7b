//! A stretch of one tenant's log in memory: the events of a range of positions, merged by id.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, OnceLock};

use arrow::array::RecordBatch;
use parking_lot::Mutex;
use prost::Message;

use super::entry::{Entry, Heard, Origin, Said};
use super::late;
use super::rows::{self, Making, Part, RowSettings};
use super::standing::{self, Asker, MergedCounts, Standing};
use crate::base::{RowMap, TenantId, TimestampUs};
use crate::catalog::erasures::Denied;
use crate::catalog::{Catalog, CatalogError, Fresh, Snapshot};
use crate::model::tables::Table;
use crate::model::{Observation, Order, Score, TraceFacts};

/// (trace id, observation id)
pub(super) type ObservationKey = (Arc<str>, Arc<str>);

/// What is said, by id: each row is looked up a dozen times on its way to a file.
pub(super) type Entries<K, T> = RowMap<K, Arc<Entry<T>>>;

/// Minute of receipt, door, outcome, reason: what the `ledger` table counts by.
pub(super) type BookKey = (TimestampUs, Arc<str>, &'static str, Option<String>);

/// The books of a segment, by log position.
pub(super) type Books = BTreeMap<u64, BTreeMap<BookKey, i64>>;

/// Memory an event takes beside its encoded bytes: keys, order, map slots.
pub(super) const EVENT_OVERHEAD_BYTES: u64 = 512;

/// The ids whose events were written to the log again.
#[derive(Debug, Clone, Default)]
pub(super) struct Carried {
    pub(super) observations: Vec<ObservationKey>,
    pub(super) traces: Vec<Arc<str>>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Segment {
    /// Positions in `(from, to]` are here, as far as each table wants them.
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) observations: Entries<ObservationKey, Observation>,
    pub(super) traces: Entries<Arc<str>, TraceFacts>,
    pub(super) scores: Entries<Arc<str>, Score>,
    /// Facts of traces flushed a while ago, for rows that came after them.
    pub(super) inherited: HashMap<Arc<str>, Arc<TraceFacts>>,
    pub(super) books: Books,
    pub(super) bytes: u64,
    /// The oldest stamp of what is here.
    pub(super) oldest_us: Option<TimestampUs>,
}

impl Segment {
    pub(super) fn is_empty(&self) -> bool {
        self.observations.is_empty() && self.traces.is_empty() && self.scores.is_empty() && self.books.is_empty()
    }

    pub(super) fn rows(&self) -> usize {
        self.observations.len() + self.traces.len() + self.scores.len()
    }

    pub(super) fn add_observation(&mut self, key: ObservationKey, said: Said<Observation>, bytes: u64) -> Heard {
        self.note(said.origin.stamp_us, bytes + EVENT_OVERHEAD_BYTES);
        add(&mut self.observations, key, said)
    }

    pub(super) fn add_trace(&mut self, key: Arc<str>, said: Said<TraceFacts>, bytes: u64) -> Heard {
        self.note(said.origin.stamp_us, bytes + EVENT_OVERHEAD_BYTES);
        add(&mut self.traces, key, said)
    }

    pub(super) fn add_score(&mut self, key: Arc<str>, said: Said<Score>, bytes: u64) -> Heard {
        self.note(said.origin.stamp_us, bytes + EVENT_OVERHEAD_BYTES);
        add(&mut self.scores, key, said)
    }

    pub(super) fn count(
        &mut self,
        position: u64,
        origin: &Origin,
        outcome: &'static str,
        reason: Option<&str>,
        count: u64,
    ) {
        if count != 0 {
            let key = (minute(origin.stamp_us), Arc::clone(&origin.door), outcome, reason.map(str::to_owned));
            *self.books.entry(position).or_default().entry(key).or_default() += count as i64;
            self.note(origin.stamp_us, 0);
        }
    }

    /// `count` ids stood already: they are merged, not stored.
    pub(super) fn count_again(&mut self, position: u64, minute_us: TimestampUs, door: &Arc<str>, count: i64) {
        let books = self.books.entry(position).or_default();
        *books.entry((minute_us, Arc::clone(door), "stored", None)).or_default() -= count;
        *books.entry((minute_us, Arc::clone(door), "merged", None)).or_default() += count;
    }

    fn note(&mut self, stamp_us: TimestampUs, bytes: u64) {
        self.bytes += bytes;
        self.oldest_us = Some(self.oldest_us.map_or(stamp_us, |oldest| oldest.min(stamp_us)));
    }

    /// Splits off what may wait for more: open observations, and rows of traces whose root has not come, unless they
    /// arrived before `since_us`.
    pub(super) fn split_waiting(&mut self, since_us: TimestampUs) -> Segment {
        let rooted: HashSet<Arc<str>> = {
            let by_rows =
                self.observations.iter().filter(|(_, entry)| entry.said.iter().all(|said| said.glance.is_root));
            let by_facts = self.traces.iter().filter(|(_, entry)| entry.said.iter().any(|said| said.glance.is_root));
            let inherited = self.inherited.iter().filter(|(_, facts)| facts.root_id.is_some());
            by_rows
                .map(|((trace, _), _)| Arc::clone(trace))
                .chain(by_facts.map(|(trace, _)| Arc::clone(trace)))
                .chain(inherited.map(|(trace, _)| Arc::clone(trace)))
                .collect()
        };
        let young = |stamp_us: TimestampUs| stamp_us >= since_us;
        let mut waiting = Segment::default();
        let observations = self.observations.extract_if(|(trace, _), entry| {
            let open = entry.said.iter().all(|said| said.glance.end_us.is_none());
            is_whole(entry) && young(entry.origin().stamp_us) && (open || !rooted.contains(trace))
        });
        waiting.observations = observations.collect();
        let unrooted = |trace: &Arc<str>, entry: &mut Arc<Entry<TraceFacts>>| {
            let whole = entry.said.iter().all(|said| said.wanted.has(Table::TraceFacts));
            whole && young(entry.origin().stamp_us) && !rooted.contains(trace)
        };
        waiting.traces = self.traces.extract_if(unrooted).collect();
        // They outlive the requests they came in.
        waiting.observations.values_mut().for_each(detach);
        waiting.traces.values_mut().for_each(detach);
        let share = waiting.rows() as u64 * self.bytes / (self.rows() + waiting.rows()).max(1) as u64;
        self.bytes -= share;
        waiting.bytes = share;
        let stamps = waiting.observations.values().map(|entry| entry.origin().stamp_us);
        waiting.oldest_us = stamps.chain(waiting.traces.values().map(|entry| entry.origin().stamp_us)).min();
        waiting
    }

    /// Drops what is denied; the books count it as erased. Returns how many rows, by table.
    pub(super) fn erase(&mut self, position: u64, denied: &Denied) -> BTreeMap<Table, u64> {
        let owners = denied.has_owners();
        let before_any_end = TimestampUs::MIN;
        if owners {
            for (trace, entry) in &self.traces {
                let stamp_us = entry.origin().stamp_us;
                for facts in entry.said.iter().map(|said| said.packed.whole()) {
                    denied.learn(trace, facts.user_id.as_deref(), facts.session_id.as_deref(), stamp_us);
                }
            }
            for (trace, facts) in &self.inherited {
                denied.learn(trace, facts.user_id.as_deref(), facts.session_id.as_deref(), before_any_end);
            }
        }
        let observations: Vec<_> = self
            .observations
            .extract_if(|(trace, _), entry| {
                let stamp_us = entry.origin().stamp_us;
                let owner = |said: &Said<Observation>| {
                    let said = said.packed.hot();
                    denied.owner(said.user_id.as_deref(), said.session_id.as_deref(), stamp_us)
                };
                denied.trace(trace, stamp_us) || (owners && entry.said.iter().any(owner))
            })
            .collect();
        let scores: Vec<_> = self
            .scores
            .extract_if(|id, entry| {
                let stamp_us = entry.origin().stamp_us;
                denied.score(id, stamp_us)
                    || entry.said.iter().map(|said| said.packed.whole()).any(|said| {
                        let of_trace = said.trace_id.as_deref().is_some_and(|trace| denied.trace(trace, stamp_us));
                        of_trace || (owners && denied.owner(None, said.session_id.as_deref(), stamp_us))
                    })
            })
            .collect();
        let traces = self.traces.extract_if(|trace, entry| denied.trace(trace, entry.origin().stamp_us)).count();
        self.inherited.retain(|trace, _| !denied.trace(trace, before_any_end));
        let texts =
            observations.iter().filter(|(_, entry)| entry.said.iter().any(|said| said.packed.has_cold())).count();
        let rows = [
            (Table::Observations, observations.len()),
            (Table::ObservationIo, texts),
            (Table::Scores, scores.len()),
            (Table::TraceFacts, traces),
        ];
        let of_observations = observations.into_iter().map(|(_, entry)| (entry.wanted(), entry.origin().clone()));
        let of_scores = scores.into_iter().map(|(_, entry)| (entry.wanted(), entry.origin().clone()));
        for (wanted, origin) in of_observations.chain(of_scores).collect::<Vec<_>>() {
            if wanted.has(Table::Ledger) {
                self.count(position, &origin, "erased", None, 1);
            }
        }
        rows.into_iter().filter(|(_, count)| *count > 0).map(|(table, count)| (table, count as u64)).collect()
    }

    /// Takes back what was split off: it is older than what came since, and merges like anything else.
    pub(super) fn absorb(&mut self, other: Segment) {
        merge_all(&mut self.observations, other.observations);
        merge_all(&mut self.traces, other.traces);
        merge_all(&mut self.scores, other.scores);
        self.bytes += other.bytes;
        self.oldest_us = self.oldest_us.into_iter().chain(other.oldest_us).min();
    }

    /// `table` holds everything up to `position` already: another owner of the log committed it.
    pub(super) fn unwant(&mut self, table: Table, position: u64) {
        unwant_all(&mut self.traces, table, position);
        if table != Table::TraceFacts {
            unwant_all(&mut self.observations, table, position);
            unwant_all(&mut self.scores, table, position);
        }
        if table == Table::Ledger {
            self.books = self.books.split_off(&(position + 1));
        }
    }

    /// Lets go of what was said at or before `floor`.
    pub(super) fn forget_up_to(&mut self, floor: u64) {
        forget_all(&mut self.observations, floor);
        forget_all(&mut self.traces, floor);
        forget_all(&mut self.scores, floor);
        self.books = self.books.split_off(&(floor + 1));
        self.from = self.from.max(floor);
    }

    /// Says where these events stand in the log now: they were carried.
    pub(super) fn moved_to(&mut self, carried: &Carried, position: u64) {
        for key in &carried.observations {
            move_to(&mut self.observations, key, position);
        }
        for key in &carried.traces {
            move_to(&mut self.traces, key, position);
        }
    }

    /// Everything about one trace that is known here, and in its row.
    pub(super) fn facts(&self, trace: &str, base: &[(Order, TraceFacts)]) -> Option<Arc<TraceFacts>> {
        rows::facts(self.traces.get(trace).map(Arc::as_ref), self.inherited.get(trace), base)
    }

    /// What `other` speaks of as if for the first time, and this one counts already, is merged by the books.
    pub(super) fn count_known(&mut self, other: &Segment) {
        for (key, entry) in &other.observations {
            if let Some(both) = self.observations.get(key).filter(|known| known.wanted().has(Table::Ledger)) {
                let origin = later(both.origin(), entry.origin()).clone();
                self.count(other.to, &origin, "merged", None, u64::from(entry.wanted().has(Table::Ledger)));
            }
        }
        for (key, entry) in &other.scores {
            if let Some(both) = self.scores.get(key).filter(|known| known.wanted().has(Table::Ledger)) {
                let origin = later(both.origin(), entry.origin()).clone();
                self.count(other.to, &origin, "merged", None, u64::from(entry.wanted().has(Table::Ledger)));
            }
        }
    }

    /// Takes in a segment of the same tenant, of this log or another one: what both speak of is merged, and counted so.
    pub(super) fn join(&mut self, other: &Segment) {
        self.count_known(other);
        for (position, books) in &other.books {
            let own = self.books.entry(*position).or_default();
            books.iter().for_each(|(key, count)| *own.entry(key.clone()).or_default() += count);
        }
        for (trace, facts) in &other.inherited {
            self.inherited.entry(Arc::clone(trace)).or_insert_with(|| Arc::clone(facts));
        }
        merge_all(&mut self.observations, other.observations.clone());
        merge_all(&mut self.traces, other.traces.clone());
        merge_all(&mut self.scores, other.scores.clone());
    }
}

fn later<'a>(one: &'a Origin, other: &'a Origin) -> &'a Origin {
    if one.stamp_us >= other.stamp_us { one } else { other }
}

fn add<K: Eq + std::hash::Hash, T: Clone>(entries: &mut Entries<K, T>, key: K, said: Said<T>) -> Heard {
    match entries.entry(key) {
        std::collections::hash_map::Entry::Occupied(mut known) => Arc::make_mut(known.get_mut()).add(said),
        std::collections::hash_map::Entry::Vacant(free) => {
            free.insert(Arc::new(Entry::new(said)));
            Heard::New
        }
    }
}

fn unwant_all<K: Eq + std::hash::Hash, T: Clone>(entries: &mut Entries<K, T>, table: Table, position: u64) {
    for entry in entries.values_mut() {
        Arc::make_mut(entry).unwant(table, position);
    }
}

fn forget_all<K: Eq + std::hash::Hash, T: Clone>(entries: &mut Entries<K, T>, floor: u64) {
    entries.retain(|_, entry| {
        if entry.said.iter().any(|said| said.position <= floor) {
            Arc::make_mut(entry).forget_up_to(floor);
        }
        !entry.said.is_empty()
    });
}

fn move_to<K: Eq + std::hash::Hash, T: Clone>(entries: &mut Entries<K, T>, key: &K, position: u64) {
    if let Some(entry) = entries.get_mut(key) {
        Arc::make_mut(entry).move_to(position);
    }
}

pub(super) fn minute(at_us: TimestampUs) -> TimestampUs {
    at_us - at_us.rem_euclid(60_000_000)
}

/// Nothing of it stands in a table yet. What a crash left half committed must not wait.
fn is_whole(entry: &Entry<Observation>) -> bool {
    let whole = |said: &Said<Observation>| {
        said.wanted.has(Table::Observations) && (said.wanted.has(Table::ObservationIo) || !said.packed.has_cold())
    };
    // What came again is wanted again by the table that has it: carried, it would be counted as if another brought it.
    !entry.by_half && entry.said.iter().all(whole)
}

fn detach<T: Message + Default + Clone>(entry: &mut Arc<Entry<T>>) {
    for said in &mut Arc::make_mut(entry).said {
        said.packed.detach();
    }
}

fn merge_all<K: Eq + std::hash::Hash, T: Clone>(into: &mut Entries<K, T>, from: Entries<K, T>) {
    for (key, entry) in from {
        match into.entry(key) {
            std::collections::hash_map::Entry::Occupied(mut known) => {
                Arc::make_mut(known.get_mut()).absorb(Arc::unwrap_or_clone(entry));
            }
            std::collections::hash_map::Entry::Vacant(free) => {
                free.insert(entry);
            }
        }
    }
}

/// Shared by all views of one active segment, and filled when it is frozen.
pub(super) type Waited = Arc<OnceLock<Arc<View>>>;

/// A segment that no longer changes, as queries and flushes see it. Batches are made once, when first asked for.
#[derive(Debug)]
pub(super) struct View {
    pub(super) segment: Segment,
    settings: Arc<RowSettings>,
    /// Once the segment it shows is frozen: what of it waited and is not in the frozen one.
    waited: Waited,
    /// The rows of each table as long as none of them stands in a file.
    batches: [OnceLock<Vec<RecordBatch>>; Table::ALL.len()],
    /// The rows of each table as last set against files, at which versions.
    seen: [Mutex<Option<Seen>>; Table::ALL.len()],
}

/// The versions of a table, and of `trace_facts`, that rows were set against.
type Versions = (Option<u64>, Option<u64>);

/// Rows as they were set against files of these versions.
type Seen = (Versions, Arc<Fresh>);

impl View {
    pub(super) fn new(segment: Segment, settings: Arc<RowSettings>, waited: Waited) -> Self {
        Self { segment, settings, waited, batches: Default::default(), seen: Default::default() }
    }

    pub(super) fn waited(&self) -> Option<&Arc<View>> {
        self.waited.get()
    }

    pub(super) fn settings(&self) -> &RowSettings {
        &self.settings
    }

    /// The rows of `table` for queries, set against what stands in files at `snapshot`.
    pub(super) async fn fresh(
        &self,
        catalog: &Catalog,
        tenant: &TenantId,
        table: Table,
        snapshot: &Snapshot,
    ) -> Result<Arc<Fresh>, CatalogError> {
        let facts = catalog.snapshot(tenant, Table::TraceFacts).await?;
        let versions = (snapshot.version, facts.version);
        if let Some((_, fresh)) = self.seen[table as usize].lock().as_ref().filter(|(seen, _)| *seen == versions) {
            return Ok(Arc::clone(fresh));
        }
        let mut merged = MergedCounts::new();
        if table == Table::Ledger {
            for counted in [Table::Observations, Table::Scores] {
                let snapshot = catalog.snapshot(tenant, counted).await?;
                let standing =
                    standing::find(catalog, tenant, counted, &self.segment, &self.settings, &snapshot, Asker::Query)
                        .await?;
                standing::add_counts(&mut merged, &standing.merged_counts(counted, &self.segment));
            }
        }
        let standing =
            standing::find(catalog, tenant, table, &self.segment, &self.settings, snapshot, Asker::Query).await?;
        let fresh = Arc::new(self.set_against(table, &standing, &merged));
        *self.seen[table as usize].lock() = Some((versions, Arc::clone(&fresh)));
        Ok(fresh)
    }

    fn set_against(&self, table: Table, standing: &Standing, merged: &MergedCounts) -> Fresh {
        let (segment, settings) = (&self.segment, self.settings.as_ref());
        let making = Making { segment, settings, standing, part: Part::New, merged };
        let dimensions = Arc::clone(&settings.keys);
        if standing.is_empty() && merged.is_empty() {
            let batches = self.batches[table as usize].get_or_init(|| rows::batches(table, making));
            return Fresh { batches: batches.clone(), dimensions, ..Default::default() };
        }
        let changed = late::changed(table, making);
        let replaced = late::keys(table, &changed);
        let mut batches = rows::batches(table, making);
        batches.extend(changed.into_iter().map(|day| day.rows));
        Fresh { batches, replaced, facts: standing.overlay.clone(), dimensions }
    }
}
