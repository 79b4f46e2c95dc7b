//! What of a segment stands in the tables already: rows in files, or ones that came late before. What is said about
//! them now is merged onto them, and becomes a late change rather than a second row (I2).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::counting::{self, CountedBy, CountedTexts};
use super::entry::{Entry, is_same};
use super::repeats;
use super::rows::{self, RowSettings};
use super::segment::{ObservationKey, Segment, minute};
use crate::base::{Day, RowMap, TenantId, TimestampUs};
use crate::catalog::{Asked, Catalog, CatalogError, RowKey, Snapshot, StandingRow, row_key};
use crate::model::tables::{self, IoEvents, ReadObservation, Stamped, Table};
use crate::model::{Counted, Observation, Order, ReadError, Score, TraceFacts};

/// Days before a row's arrival that are always looked through, whatever the row says of its time.
const RECENT_DAYS: i32 = 10;
/// Rows whose texts are held at once, at most 10 MiB each.
const TEXTS_AT_ONCE: usize = 16;

/// The rows of one table that a segment speaks about and that stand already.
#[derive(Debug, Default)]
pub(super) struct Standing {
    pub(super) observations: RowMap<ObservationKey, Base<Observation>>,
    pub(super) traces: RowMap<Arc<str>, Base<TraceFacts>>,
    pub(super) scores: RowMap<Arc<str>, Base<Score>>,
    /// Keys whose row was erased while what is said here was on its way: nothing is written about them.
    gone: HashSet<RowKey>,
    /// Of `observations`: what rows that stand report, of traces that the segment reports of too.
    pub(super) reports: Vec<Observation>,
    /// Of `observations`: rows that stand and repeat what the segment says, which says nothing of them.
    pub(super) repeated: HashMap<ObservationKey, Base<Observation>>,
    /// Of `observations`: what is known of traces whose facts were flushed before.
    pub(super) facts: RowMap<Arc<str>, Vec<(Order, TraceFacts)>>,
    /// Of `observations`: facts that rows in files do not carry yet.
    pub(super) overlay: HashMap<String, Arc<TraceFacts>>,
    /// The position must move on, even if nothing is written: there are such facts, whether or not a row in a file is
    /// known that lacks them; or what is said only repeats rows. Those may go, by retention, and must not come back when
    /// the log is read again.
    pub(super) has_news: bool,
}

/// A row that stands, as the events it can be taken apart into.
#[derive(Debug)]
pub(super) struct Base<T> {
    pub(super) events: Vec<(Order, T)>,
    pub(super) day: Day,
    /// Its value of the table's time column.
    pub(super) at_us: TimestampUs,
    pub(super) ingested_at_us: TimestampUs,
    /// Of `observations`: what it has from its trace.
    pub(super) stamped: Stamped,
    /// Of `observations`: what of its usage nobody said; by what that is to be counted again, and its texts then.
    pub(super) counted: Option<Counted>,
    pub(super) recount: Option<CountedBy>,
    pub(super) texts: Vec<(Order, CountedTexts)>,
    pub(super) row: StandingRow,
}

/// How many ids stood already, by the minute and door of their first event: what the ledger must not count as stored.
pub(super) type MergedCounts = BTreeMap<(TimestampUs, Arc<str>), u64>;

/// As a commit tells it: `minute/door`.
pub(super) fn told(merged: &MergedCounts) -> BTreeMap<String, u64> {
    merged.iter().map(|((minute_us, door), count)| (format!("{minute_us}/{door}"), *count)).collect()
}

pub(super) fn add_counts(all: &mut MergedCounts, more: &MergedCounts) {
    for (key, count) in more {
        *all.entry(key.clone()).or_default() += count;
    }
}

/// The inverse of [`told`].
pub(super) fn merged_counts_of(told: &BTreeMap<String, u64>) -> MergedCounts {
    let read = |(key, count): (&String, &u64)| {
        let (minute_us, door) = key.split_once('/')?;
        Some(((minute_us.parse().ok()?, Arc::from(door)), *count))
    };
    told.iter().filter_map(read).collect()
}

impl Standing {
    pub(super) fn is_empty(&self) -> bool {
        self.observations.is_empty()
            && self.traces.is_empty()
            && self.scores.is_empty()
            && self.gone.is_empty()
            && self.reports.is_empty()
            && self.facts.is_empty()
            && self.overlay.is_empty()
    }

    /// Something that is said is about a row that stands, or counts one out.
    pub(super) fn has_rows(&self) -> bool {
        let has_said = !(self.observations.is_empty() && self.traces.is_empty() && self.scores.is_empty());
        has_said || !self.repeated.is_empty()
    }

    pub(super) fn is_gone(&self, parts: &[&str]) -> bool {
        !self.gone.is_empty() && self.gone.contains(&row_key(parts))
    }

    /// The ids of `segment` that are in `table` already, counted as the ledger would count them stored.
    pub(super) fn merged_counts(&self, table: Table, segment: &Segment) -> MergedCounts {
        if !matches!(table, Table::Observations | Table::Scores) {
            return MergedCounts::new();
        }
        let observation_gone = |key: &RowKey| segment.observations.get(&(Arc::from(&*key[0]), Arc::from(&*key[1])));
        let score_gone = |key: &RowKey| segment.scores.get(&*key[0]);
        let of_observations = self.observations.keys().filter_map(|key| segment.observations.get(key));
        let gone = self.gone.iter().filter(|_| table == Table::Observations);
        let of_observations = of_observations.chain(gone.filter_map(observation_gone));
        // An id that this log itself brought there, just before a crash, is stored all the same.
        let of_observations = of_observations.filter(|entry| is_news(entry));
        let gone = self.gone.iter().filter(|_| table == Table::Scores);
        let of_scores = self.scores.keys().filter_map(|key| segment.scores.get(key)).chain(gone.filter_map(score_gone));
        let of_scores = of_scores.filter(|entry| is_news(entry));
        let origins = of_observations.map(|entry| entry.origin()).chain(of_scores.map(|entry| entry.origin()));
        let mut counts = MergedCounts::new();
        for origin in origins {
            *counts.entry((minute(origin.stamp_us), Arc::clone(&origin.door))).or_default() += 1;
        }
        counts
    }
}

/// Who asks what stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asker {
    Flush,
    /// It may hold a snapshot of `observations` from before a flush of the very segment that it asks about, and meet that
    /// flush's facts.
    Query,
}

/// What of `segment` stands in `table` at `snapshot`.
pub(super) async fn find(
    catalog: &Catalog,
    tenant: &TenantId,
    table: Table,
    segment: &Segment,
    settings: &RowSettings,
    snapshot: &Snapshot,
    asker: Asker,
) -> Result<Standing, CatalogError> {
    let mut standing = Standing::default();
    if table == Table::Ledger {
        return Ok(standing);
    }
    if table == Table::Observations {
        counting::count_texts(segment).await;
    }
    let asked = asked(table, segment, settings);
    standing.has_news = !asked.is_empty();
    standing.gone = catalog.gone(tenant, table, snapshot, &asked).await?;
    let found = catalog.find(tenant, table, snapshot, &asked).await?;
    for (key, row) in found {
        standing.keep(table, &key, row).map_err(|source| damaged(tenant, table, &key, source))?;
    }
    if table == Table::Observations {
        find_texts(catalog, tenant, segment, &mut standing).await?;
        find_facts(catalog, tenant, segment, snapshot, asker, &mut standing).await?;
        find_repeated(catalog, tenant, segment, settings, snapshot, &mut standing).await?;
    }
    Ok(standing)
}

fn damaged(tenant: &TenantId, table: Table, key: &RowKey, source: ReadError) -> CatalogError {
    let reason = format!("the row of {key:?} cannot be read back: {source}");
    CatalogError::Corrupt { tenant: tenant.clone(), table: table.name(), reason }
}

/// The texts of rows that stand, of calls whose tokens are to be counted with what is said of them now: a few at a time,
/// of which only the counts are kept.
async fn find_texts(
    catalog: &Catalog,
    tenant: &TenantId,
    segment: &Segment,
    standing: &mut Standing,
) -> Result<(), CatalogError> {
    let mut open: Vec<(ObservationKey, Arc<Entry<Observation>>, CountedBy)> = Vec::new();
    for (key, base) in &mut standing.observations {
        let Some(entry) = segment.observations.get(key) else { continue };
        base.recount = counting::recount(entry, base);
        open.extend(base.recount.map(|by| (key.clone(), Arc::clone(entry), by)));
    }
    if open.is_empty() {
        return Ok(());
    }
    let (table, everywhere) = (Table::ObservationIo, Day::from_days(i32::MIN));
    let snapshot = catalog.snapshot_after(tenant, table, Table::Observations).await?;
    for some in open.chunks(TEXTS_AT_ONCE) {
        let asked = some.iter().map(|((trace, id), ..)| Asked::about(&[trace, id], None, everywhere));
        let found = catalog.find(tenant, table, &snapshot, &asked.collect::<Vec<_>>()).await?;
        let mut texts = Vec::new();
        for (key, row) in found {
            let read = tables::read_io(&row.rows, row.row).map_err(|source| damaged(tenant, table, &key, source))?;
            if let IoEvents::Observation(events) = read.said {
                texts.push(((Arc::from(&*key[0]), Arc::from(&*key[1])), events));
            }
        }
        let said = some.iter().map(|(key, entry, by)| (key.clone(), (Arc::clone(entry), *by)));
        for (key, counted) in counting::count_standing(said.collect(), texts).await {
            if let Some(base) = standing.observations.get_mut(&key) {
                base.texts = counted;
            }
        }
    }
    Ok(())
}

/// What rows in files report of the segment's traces, and which of them count no more by what the segment says.
async fn find_repeated(
    catalog: &Catalog,
    tenant: &TenantId,
    segment: &Segment,
    settings: &RowSettings,
    snapshot: &Snapshot,
    standing: &mut Standing,
) -> Result<(), CatalogError> {
    let table = Table::Observations;
    standing.reports = catalog.reports(tenant, snapshot, &repeats::traces(segment, standing, settings)).await?;
    if standing.reports.is_empty() {
        return Ok(());
    }
    let keys = repeats::find(segment, standing).standing;
    let everywhere = Day::from_days(i32::MIN);
    let asked: Vec<Asked<'_>> = keys.iter().map(|(trace, id)| Asked::about(&[trace, id], None, everywhere)).collect();
    for (key, row) in catalog.find(tenant, table, snapshot, &asked).await? {
        let read = tables::read_observation(&row.rows, row.row);
        let read = read.map_err(|source| damaged(tenant, table, &key, source))?;
        let key = (Arc::from(&*key[0]), Arc::from(&*key[1]));
        standing.repeated.insert(key, Base::of_observation(read, row));
    }
    Ok(())
}

impl Standing {
    fn keep(&mut self, table: Table, key: &RowKey, row: StandingRow) -> Result<(), ReadError> {
        let part = |at: usize| -> Arc<str> { Arc::from(&*key[at]) };
        let (rows, at) = (&row.rows, row.row);
        match table {
            Table::Observations => {
                let read = tables::read_observation(rows, at)?;
                self.observations.insert((part(0), part(1)), Base::of_observation(read, row));
            }
            Table::ObservationIo => match tables::read_io(rows, at)?.said {
                IoEvents::Observation(events) => {
                    self.observations.insert((part(0), part(1)), Base::new(table, events, 0, row));
                }
                IoEvents::Trace(events) => _ = self.traces.insert(part(0), Base::new(table, events, 0, row)),
            },
            Table::TraceFacts => {
                let read = tables::read_trace_facts(rows, at)?;
                self.traces.insert(part(0), Base::new(table, read.events, read.ingested_at_us, row));
            }
            Table::Scores => {
                let read = tables::read_score(rows, at)?;
                self.scores.insert(part(0), Base::new(table, read.events, read.ingested_at_us, row));
            }
            Table::Ledger => {}
        }
        Ok(())
    }
}

impl<T> Base<T> {
    fn new(table: Table, events: Vec<(Order, T)>, ingested_at_us: TimestampUs, row: StandingRow) -> Self {
        let (day, at_us) = (row.day(), row.time_us(table));
        let (stamped, texts) = (Stamped::default(), Vec::new());
        Self { events, day, at_us, ingested_at_us, stamped, counted: None, recount: None, texts, row }
    }
}

impl Base<Observation> {
    fn of_observation(read: ReadObservation, row: StandingRow) -> Self {
        let base = Self::new(Table::Observations, read.events, read.ingested_at_us, row);
        Self { stamped: read.stamped, counted: read.counted, ..base }
    }
}

/// The ledger is still to count it, and its table does not hold it by this very log: that is stored all the same.
fn is_news<T>(entry: &Entry<T>) -> bool {
    entry.wanted().has(Table::Ledger) && !entry.by_half
}

/// The keys of the rows that `table` wants of `segment`, and where each can stand.
fn asked<'a>(table: Table, segment: &'a Segment, settings: &RowSettings) -> Vec<Asked<'a>> {
    let ask = |parts: &[&'a str], said_us: Option<TimestampUs>, stamp_us: TimestampUs| {
        let day = said_us.map(|_| settings.home_day(said_us, stamp_us));
        Asked::about(parts, day, recent(stamp_us))
    };
    let observations = || {
        segment.observations.iter().filter_map(|((trace, id), entry)| {
            let glance = entry.glance(table)?;
            // What only updates an observation may say its start for the first time: its row was placed without.
            let created = entry.wanted_by(table).any(|said| !said.order.is_update && said.glance.start_us.is_some());
            Some(ask(&[trace, id], glance.start_us.filter(|_| created), entry.origin().stamp_us))
        })
    };
    // Each request dates a trace anew, as far as it saw it; so do those that correct a score. Their rows lie anywhere.
    let traces = || {
        segment.traces.iter().filter_map(|(trace, entry)| {
            entry.glance(table)?;
            Some((trace, entry.origin().stamp_us))
        })
    };
    match table {
        Table::Observations => observations().collect(),
        Table::ObservationIo => {
            let of_traces = traces().map(|(trace, stamp_us)| ask(&[trace, ""], None, stamp_us));
            observations().chain(of_traces).collect()
        }
        Table::TraceFacts => traces().map(|(trace, stamp_us)| ask(&[trace], None, stamp_us)).collect(),
        Table::Scores => {
            let wanted = segment.scores.iter().filter_map(|(id, entry)| {
                entry.glance(table)?;
                Some(ask(&[id], None, entry.origin().stamp_us))
            });
            wanted.collect()
        }
        Table::Ledger => Vec::new(),
    }
}

/// Days from here on are looked through, whatever a row that arrived then says of its time.
fn recent(stamp_us: TimestampUs) -> Day {
    Day::from_days(Day::of_us(stamp_us).days() - RECENT_DAYS)
}

/// Facts of the segment's traces that were flushed before, and those of the segment that rows in files lack.
async fn find_facts<'a>(
    catalog: &Catalog,
    tenant: &TenantId,
    segment: &'a Segment,
    observations: &Snapshot,
    asker: Asker,
    standing: &mut Standing,
) -> Result<(), CatalogError> {
    let mut traces: RowMap<&str, Asked<'_>> = RowMap::default();
    let ask = |trace: &'a str, stamp_us| Asked::about(&[trace], None, recent(stamp_us));
    for (trace, entry) in &segment.traces {
        traces.insert(trace, ask(trace, entry.origin().stamp_us));
    }
    for ((trace, _), entry) in &segment.observations {
        if entry.glance(Table::Observations).is_some() {
            traces.entry(trace).or_insert_with(|| ask(trace, entry.origin().stamp_us));
        }
    }
    let asked: Vec<Asked<'_>> = traces.values().copied().collect();
    let facts = catalog.snapshot_after(tenant, Table::TraceFacts, Table::Observations).await?;
    for (key, row) in catalog.find(tenant, Table::TraceFacts, &facts, &asked).await? {
        let read = tables::read_trace_facts(&row.rows, row.row);
        let read = read.map_err(|source| damaged(tenant, Table::TraceFacts, &key, source))?;
        standing.facts.insert(Arc::from(&*key[0]), read.events);
    }
    // Facts said in this segment that say more than what was flushed: rows in files must take them. Those whose own row
    // stands already were committed by half: nobody else tells the rows. A query takes the row's word for it.
    let mut news: Vec<(u64, Arc<TraceFacts>)> = Vec::new();
    for (trace, entry) in &segment.traces {
        let base = standing.facts.get(trace).map_or(&[][..], Vec::as_slice);
        let Some(now) = rows::facts(Some(entry.as_ref()), segment.inherited.get(trace), base) else { continue };
        let before = rows::facts(None, None, base);
        let by_half = || {
            let mut wanted = entry.wanted_by(Table::Observations);
            let stands = |order: &Order| base.iter().any(|(known, _)| is_same(known, order));
            wanted.any(|said| !said.wanted.has(Table::TraceFacts) || (asker == Asker::Query && stands(&said.order)))
        };
        if by_half() || before.is_none_or(|before| !before.stamps_like(&now)) {
            news.push((traces[&**trace].hash, now));
        }
    }
    standing.has_news |= !news.is_empty();
    let hashes: Vec<u64> = news.iter().map(|(hash, _)| *hash).collect();
    let held = catalog.traces_with_rows(tenant, Table::Observations, observations, &hashes).await?;
    // Older facts that came late and are in no file yet would be stamped over newer ones, also onto rows of this flush.
    let late = catalog.late(tenant, Table::Observations, observations).await?;
    let is_due = |facts: &TraceFacts, held: bool| held || late.facts.contains_key(&facts.trace_id);
    let held = news.into_iter().zip(held).filter(|((_, facts), held)| is_due(facts, *held));
    standing.overlay = held.map(|((_, facts), _)| (facts.trace_id.clone(), facts)).collect();
    Ok(())
}
