//! From merged events to rows: trace facts stamped on, prices computed, days assigned. A pure function of a segment,
//! so that the same rows come out for a fresh read, at the flush, and after a replay.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray, Date32Array, RecordBatch, StringViewArray};

use super::counting;
use super::entry::Entry;
use super::packed::Packed;
use super::repeats;
use super::segment::{BookKey, ObservationKey, Segment, minute};
use super::standing::{Base, MergedCounts, Standing};
use crate::base::{Day, Money, RowMap, RowSet, TenantId, TimestampUs};
use crate::catalog::Catalog;
use crate::catalog::dimensions::Dimensions;
use crate::catalog::erasures::{Denied, Erasures};
use crate::model::tables::{
    self, IoRow, LEDGER, LedgerRow, OBSERVATION_IO, OBSERVATIONS, ObservationRow, Orphan, RowCost, SCORES, ScoreRow,
    TRACE_FACTS, Table, TraceRow,
};
use crate::model::{
    CostSource, DimensionKeys, Observation, Order, TraceFacts, UsageSource, merge_observation, merge_score, merge_trace,
};
use crate::price::{Ask, Prices, Quantities};

/// What rows are made with.
#[derive(Debug)]
pub struct RowSettings {
    /// What in metadata names the tenant's own customer, project and flow; for tenants that say nothing else.
    pub keys: Arc<DimensionKeys>,
    /// Rows older than this at arrival are placed on the oldest day allowed.
    pub retention_days: u32,
}

impl Default for RowSettings {
    fn default() -> Self {
        Self { keys: Arc::default(), retention_days: 3650 }
    }
}

/// What the rows of one tenant are made with now: its dimension keys may change, and what it wants forgotten.
#[derive(Debug)]
pub(super) struct TenantSettings {
    /// For tenants without keys of their own.
    base: Arc<RowSettings>,
    dimensions: Dimensions,
    erasures: Erasures,
    tenant: TenantId,
}

impl TenantSettings {
    pub(super) fn new(base: &Arc<RowSettings>, catalog: &Catalog, tenant: &TenantId) -> Self {
        let (dimensions, erasures) = (catalog.dimensions().clone(), catalog.erasures().clone());
        Self { base: Arc::clone(base), dimensions, erasures, tenant: tenant.clone() }
    }

    pub(super) fn now(&self) -> Arc<RowSettings> {
        match self.dimensions.own(&self.tenant) {
            None => Arc::clone(&self.base),
            Some(keys) => Arc::new(RowSettings { keys, retention_days: self.base.retention_days }),
        }
    }

    /// What must not be said of this tenant now.
    pub(super) fn denied(&self) -> Option<Arc<Denied>> {
        self.erasures.denied(&self.tenant)
    }

    /// Whether rows made with `settings` are made so still.
    pub(super) fn are(&self, settings: &RowSettings) -> bool {
        Arc::ptr_eq(&self.now().keys, &settings.keys)
    }
}

impl RowSettings {
    /// The home day of a row: its own time, kept between the retention limit and an hour past its arrival. Never the
    /// clock at replay.
    pub(super) fn home_day(&self, said_us: Option<TimestampUs>, stamp_us: TimestampUs) -> Day {
        let oldest_us = stamp_us - i64::from(self.retention_days) * Day::US;
        let at_us = match said_us {
            Some(said_us) if said_us > 0 => said_us.clamp(oldest_us, stamp_us + 3_600_000_000),
            _ => stamp_us,
        };
        Day::of_us(at_us)
    }
}

/// Rows made at a time: enough to amortise a batch, few enough that unpacked rows never take much memory.
const ROWS_AT_ONCE: usize = 4096;

/// The rows of one home day, in the table's sort order, made as they are asked for; in the table's file schema.
pub(super) struct DayRows<'a> {
    pub(super) day: Day,
    /// Some of them did not say when they began.
    pub(super) undated: bool,
    pub(super) batches: Box<dyn Iterator<Item = RecordBatch> + 'a>,
}

/// What rows are made of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Making<'a> {
    pub(super) segment: &'a Segment,
    pub(super) settings: &'a RowSettings,
    pub(super) standing: &'a Standing,
    pub(super) part: Part,
    /// Ids that the ledger must count as merged rather than stored.
    pub(super) merged: &'a MergedCounts,
}

/// Which of a segment's rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// Those that no table holds yet.
    New,
    /// Those that stand already, with what is said about them now.
    Late,
}

impl Part {
    fn has<T>(self, base: Option<&Base<T>>) -> bool {
        base.is_some() == (self == Self::Late)
    }
}

/// The rows of `table`, by home day.
pub(super) fn days<'a>(table: Table, making: Making<'a>) -> Box<dyn Iterator<Item = DayRows<'a>> + 'a> {
    match table {
        Table::Observations => observations(making),
        Table::ObservationIo => io(making),
        Table::TraceFacts => traces(making),
        Table::Scores => scores(making),
        Table::Ledger => ledger(making),
    }
}

/// The rows of `table`, in the schema that SQL sees.
pub(super) fn batches(table: Table, making: Making<'_>) -> Vec<RecordBatch> {
    let of_day = |rows: DayRows<'_>| rows.batches.map(|batch| with_day(table, rows.day, &batch)).collect::<Vec<_>>();
    days(table, making).flat_map(of_day).collect()
}

/// A batch of a file of `day`, in the table's schema.
pub(super) fn with_day(table: Table, day: Day, batch: &RecordBatch) -> RecordBatch {
    let days = Date32Array::from_value(day.days(), batch.num_rows());
    let arrays = batch.columns().iter().cloned().chain([Arc::new(days) as _]).collect();
    RecordBatch::try_new(table.table_schema(), arrays).expect("the file's columns, then day")
}

/// Where a row goes.
#[derive(Debug, Clone, Copy)]
struct Place {
    day: Day,
    undated: bool,
}

impl Place {
    /// Of what can only be where its time says.
    fn dated(day: Day) -> Self {
        Self { day, undated: false }
    }
}

/// Things that become rows, by day, each day sorted by what the table's rows are sorted by.
fn by_day<'a, K: Ord + 'a, T: 'a, R: 'a>(
    table: Table,
    columns: &'static [tables::Column<R>],
    placed: impl IntoIterator<Item = (Place, K, T)>,
    row: impl Fn(T) -> R + 'a,
) -> Box<dyn Iterator<Item = DayRows<'a>> + 'a> {
    let mut days: BTreeMap<Day, (bool, Vec<(K, T)>)> = BTreeMap::new();
    for (place, key, thing) in placed {
        let (undated, things) = days.entry(place.day).or_default();
        *undated |= place.undated;
        things.push((key, thing));
    }
    let row = Arc::new(row);
    Box::new(days.into_iter().map(move |(day, (undated, mut things))| {
        things.sort_by(|a, b| a.0.cmp(&b.0));
        let mut things = things.into_iter();
        let row = Arc::clone(&row);
        let batches = std::iter::from_fn(move || {
            let rows: Vec<R> = things.by_ref().take(ROWS_AT_ONCE).map(|(_, thing)| row(thing)).collect();
            (!rows.is_empty()).then(|| tables::batch(table, columns, &rows))
        });
        DayRows { day, undated, batches: Box::new(batches) }
    }))
}

/// The facts of a trace: those remembered from before, those of its row, and those said since.
pub(super) fn facts(
    entry: Option<&Entry<TraceFacts>>,
    inherited: Option<&Arc<TraceFacts>>,
    base: &[(Order, TraceFacts)],
) -> Option<Arc<TraceFacts>> {
    let said: Vec<_> = entry
        .map_or(Vec::new(), |entry| entry.said.iter().map(|said| (said.order.clone(), said.packed.whole())).collect());
    if said.is_empty() && base.is_empty() {
        return inherited.cloned();
    }
    // What is remembered is older than anything said since, whatever the clocks of its senders say.
    let before = Order { event_time_us: i64::MIN, ..Default::default() };
    let mut events: Vec<(&Order, &TraceFacts)> = inherited.map(|facts| (&before, facts.as_ref())).into_iter().collect();
    events.extend(base.iter().chain(&said).map(|(order, facts)| (order, facts)));
    events.sort_by(|one, other| one.0.cmp(other.0));
    Some(Arc::new(merge_trace(&events).row))
}

fn observations<'a>(making: Making<'a>) -> Box<dyn Iterator<Item = DayRows<'a>> + 'a> {
    let Making { segment, settings, standing, part, .. } = making;
    let table = Table::Observations;
    let observed = || {
        let wanted = segment
            .observations
            .iter()
            .filter(move |(key, _)| part.has(standing.observations.get(*key)) && !standing.is_gone(&[&key.0, &key.1]));
        wanted.filter_map(|(key, entry)| Some((key, entry, entry.glance(table)?)))
    };
    let mut facts_of: RowMap<&str, Option<Arc<TraceFacts>>> = RowMap::default();
    for ((trace, _), _, _) in observed() {
        let base = || standing.facts.get(trace).map_or(&[][..], Vec::as_slice);
        facts_of.entry(trace).or_insert_with(|| segment.facts(trace, base()));
    }
    let orphans = orphan_roots(segment, &facts_of);
    let repeats = repeats::find(segment, standing).new;
    let mut placed: Vec<_> = observed()
        .map(|(key, entry, glance)| {
            let stamp_us = entry.origin().stamp_us;
            let base = standing.observations.get(key);
            let day =
                base.map_or_else(|| settings.home_day(glance.start_us.or(glance.end_us), stamp_us), |base| base.day);
            let start_us = glance.start_us.unwrap_or(base.map_or(stamp_us, |base| base.at_us));
            (Place { day, undated: glance.start_us.is_none() }, start_us, (key, Some(entry), base))
        })
        .collect();
    if part == Part::Late {
        let repeated = standing.repeated.iter();
        placed.extend(repeated.map(|(key, base)| (Place::dated(base.day), base.at_us, (key, None, Some(base)))));
    }
    by_day(table, OBSERVATIONS, placed, move |(key, entry, base)| {
        let trace = &key.0;
        let events = base.map_or(&[][..], |base| &base.events);
        let mut merged = match entry {
            Some(entry) => entry.merged(table, events, Packed::hot, merge_observation).expect("a glance was had of it"),
            None => merge_observation(&events.iter().map(|(order, event)| (order, event)).collect::<Vec<_>>()),
        };
        if entry.is_none() || repeats.contains(key) {
            merged.row.repeat();
        } else if let Some(counted) = entry.and_then(|entry| counting::counted(entry, &merged.row, base)) {
            merged.row.count(counted);
        }
        let observation = Arc::new(merged.row);
        let arrived_us = |entry: &Arc<Entry<Observation>>| entry.origin().stamp_us;
        let stamp_us = base.map_or_else(|| entry.map_or(0, arrived_us), |base| base.ingested_at_us);
        let prices = entry.map(|entry| entry.prices(table).expect("an event of it is wanted"));
        let cost = cost(&observation, prices, stamp_us);
        let mut facts = facts_of.get(trace.as_ref()).and_then(Clone::clone);
        let stands_for = orphans.get(trace.as_ref());
        let mut orphan = stands_for
            .map(|orphans| Orphan { name: orphans.name.clone(), is_root: orphans.ids.contains(&observation.id) });
        if let Some(base) = base {
            // A row that stands keeps what was stamped onto it where nothing newer is known.
            facts = over(base.stamped.facts(&settings.keys), facts);
            orphan = base.stamped.orphan.clone().or(orphan);
        }
        ObservationRow {
            orphan,
            keys: Arc::clone(&settings.keys),
            cost,
            ingested_at_us: stamp_us,
            provenance: merged.provenance,
            facts,
            observation,
        }
    })
}

/// Facts said over those stamped before.
fn over(stamped: TraceFacts, said: Option<Arc<TraceFacts>>) -> Option<Arc<TraceFacts>> {
    let (before, after) = (Order::default(), Order { is_update: true, ..Default::default() });
    match said {
        None => Some(Arc::new(stamped)),
        Some(said) => Some(Arc::new(merge_trace(&[(&before, &stamped), (&after, &said)]).row)),
    }
}

/// What stands for the root of a trace that has none.
#[derive(Default)]
struct Orphans {
    ids: RowSet<String>,
    name: Option<Arc<str>>,
}

/// Where no root of a trace is known, those whose parent is not known either stand for it: their parent never arrived,
/// or the sender filtered it out.
fn orphan_roots<'a>(
    segment: &'a Segment,
    facts_of: &RowMap<&'a str, Option<Arc<TraceFacts>>>,
) -> RowMap<&'a str, Orphans> {
    let rooted_rows = segment.observations.iter().filter(|(_, entry)| entry.said.iter().all(|s| s.glance.is_root));
    let mut rooted: RowSet<&str> = rooted_rows.map(|((trace, _), _)| trace.as_ref()).collect();
    let has_root = |facts: &Option<Arc<TraceFacts>>| facts.as_ref().is_some_and(|facts| facts.root_id.is_some());
    rooted.extend(facts_of.iter().filter(|(_, facts)| has_root(facts)).map(|(trace, _)| *trace));
    let mut orphans: RowMap<&str, Orphans> = RowMap::default();
    for (key, entry) in segment.observations.iter().filter(|((trace, _), _)| !rooted.contains(trace.as_ref())) {
        let Some(merged) = entry.merged(Table::Observations, &[], Packed::hot, merge_observation) else { continue };
        let parent = Arc::from(merged.row.parent_id.unwrap_or_default());
        if !segment.observations.contains_key(&(Arc::clone(&key.0), parent)) {
            let orphan = orphans.entry(key.0.as_ref()).or_default();
            orphan.ids.insert(merged.row.id);
            // The smallest name of several, so that the choice does not depend on the order of a map.
            let name: Option<Arc<str>> = merged.row.name.map(Arc::from);
            orphan.name = orphan.name.take().into_iter().chain(name).min();
        }
    }
    orphans
}

/// What the client says it cost, else what the price books say; without prices: of a row that stands, and only now
/// repeats another.
fn cost(observation: &Observation, prices: Option<&Prices>, stamp_us: TimestampUs) -> RowCost {
    let is_repeated = observation.usage_source == Some(UsageSource::Repeated as i32);
    if !observation.provided_cost.is_empty() {
        let amount = |kind: &str| observation.provided_cost.get(kind).copied().map(Money::from_pico);
        let by_kind: BTreeMap<String, Money> =
            observation.provided_cost.iter().map(|(kind, pico)| (kind.clone(), Money::from_pico(*pico))).collect();
        let parts = by_kind.iter().filter(|(kind, _)| *kind != "total").map(|(_, amount)| *amount).sum();
        let total = amount("total").unwrap_or(parts);
        let model_id = None;
        let (input, output) = (amount("input"), amount("output"));
        let source = Some(CostSource::Provided);
        if is_repeated {
            return RowCost { by_kind, source, ..RowCost::default() };
        }
        return RowCost { by_kind, input, output, total: Some(total), source, model_id, price_id: None };
    }
    if is_repeated {
        return RowCost::default();
    }
    let (Some(model), Some(prices)) = (observation.model.as_deref(), prices) else { return RowCost::default() };
    let usage = Quantities::from_inclusive(
        observation.input_tokens,
        observation.cached_input_tokens,
        observation.cache_write_tokens,
        observation.output_tokens,
        observation.reasoning_tokens,
        &observation.usage,
    );
    let ask = Ask {
        model,
        provider: observation.provider.as_deref(),
        at_us: observation.start_ns.map_or(stamp_us, |ns| ns / 1000),
        service_tier: observation.service_tier.as_deref(),
        speed: observation.model_parameters.get("speed").map(String::as_str),
        duration_us: observation.start_ns.zip(observation.end_ns).map(|(start, end)| end.saturating_sub(start) / 1000),
        usage: &usage,
    };
    match prices.price(&ask) {
        None => RowCost::default(),
        Some(priced) => RowCost {
            input: Some(priced.input),
            output: Some(priced.output),
            total: Some(priced.total),
            source: Some(CostSource::Computed),
            by_kind: priced.by_kind,
            model_id: Some(priced.model_id),
            price_id: Some(priced.price_id),
        },
    }
}

/// How many rows of observations name a model and have no cost, though they are no repetition of another's.
pub(super) fn unpriced(batch: &RecordBatch) -> u64 {
    let text = |name: &str| batch.column_by_name(name).map(|column| column.as_string_view());
    let (models, costs, usages) = (text("model"), text("cost_source"), text("usage_source"));
    let is = |column: Option<&StringViewArray>, row: usize, word: &str| {
        column.is_some_and(|column| !column.is_null(row) && column.value(row) == word)
    };
    let has_model = |row: usize| models.is_some_and(|models| !models.is_null(row));
    let is_unpriced = |row: &usize| {
        has_model(*row)
            && is(costs, *row, CostSource::None.as_str())
            && !is(usages, *row, UsageSource::Repeated.as_str())
    };
    (0..batch.num_rows()).filter(is_unpriced).count() as u64
}

/// Text is what memory is short of: it is unpacked a few rows at a time.
fn io<'a>(making: Making<'a>) -> Box<dyn Iterator<Item = DayRows<'a>> + 'a> {
    enum Whose<'a> {
        Observation(&'a ObservationKey, &'a Entry<Observation>, Option<&'a Base<Observation>>, TimestampUs),
        Trace(&'a Entry<TraceFacts>, Option<&'a Base<TraceFacts>>, TimestampUs),
    }
    let Making { segment, settings, standing, part, .. } = making;
    let table = Table::ObservationIo;
    let observed = segment
        .observations
        .iter()
        .filter(move |(key, _)| part.has(standing.observations.get(*key)) && !standing.is_gone(&[&key.0, &key.1]));
    let of_observations = observed.filter_map(move |(key, entry)| {
        let glance = entry.glance(table)?;
        if !entry.wanted_by(table).any(|said| said.packed.has_cold()) {
            return None;
        }
        let stamp_us = entry.origin().stamp_us;
        let base = standing.observations.get(key);
        let day = base.map_or_else(|| settings.home_day(glance.start_us.or(glance.end_us), stamp_us), |base| base.day);
        let start_us = glance.start_us.unwrap_or(base.map_or(stamp_us, |base| base.at_us));
        let place = Place { day, undated: glance.start_us.is_none() };
        Some((place, (key.0.as_ref(), start_us), Whose::Observation(key, entry, base, start_us)))
    });
    let traced = segment
        .traces
        .iter()
        .filter(move |(trace, _)| part.has(standing.traces.get(*trace)) && !standing.is_gone(&[trace, ""]));
    let of_traces = traced.filter_map(move |(trace, entry)| {
        // Of most traces nothing is said but in their spans: they are not unpacked.
        let facts = match entry.glance(table)?.has_text {
            true => entry.merged(table, &[], Packed::whole, merge_trace)?.row,
            false => return None,
        };
        if facts.input.is_none() && facts.output.is_none() && facts.attributes.is_empty() {
            return None;
        }
        let stamp_us = entry.origin().stamp_us;
        let base = standing.traces.get(trace);
        let day = base.map_or_else(|| settings.home_day(facts.timestamp_us, stamp_us), |base| base.day);
        let start_us = base.map_or(facts.timestamp_us.unwrap_or(stamp_us), |base| base.at_us);
        Some((Place::dated(day), (trace.as_ref(), start_us), Whose::Trace(entry, base, start_us)))
    });
    by_day(table, OBSERVATION_IO, of_observations.chain(of_traces), move |whose| match whose {
        Whose::Observation((trace_id, id), entry, base, start_us) => {
            let events = base.map_or(&[][..], |base| &base.events);
            let merged = entry.merged(table, events, Packed::cold, merge_observation).expect("a glance was had of it");
            let ids = (trace_id.to_string(), id.to_string());
            let mut observation = merged.row;
            (observation.trace_id, observation.id) = ids;
            IoRow::Observation { observation: Arc::new(observation), start_us, provenance: merged.provenance }
        }
        Whose::Trace(entry, base, start_us) => {
            let events = base.map_or(&[][..], |base| &base.events);
            let merged = entry.merged(table, events, text_of_trace, merge_trace).expect("it was merged before");
            IoRow::Trace { facts: Arc::new(merged.row), start_us, provenance: merged.provenance }
        }
    })
}

/// What of a trace's facts stands in `observation_io`: its provenance must tell of nothing else.
fn text_of_trace(packed: &Packed<TraceFacts>) -> TraceFacts {
    let TraceFacts { trace_id, input, output, attributes, .. } = packed.whole();
    TraceFacts { trace_id, input, output, attributes, ..Default::default() }
}

/// And what does not.
fn facts_of_trace(packed: &Packed<TraceFacts>) -> TraceFacts {
    TraceFacts { input: None, output: None, attributes: BTreeMap::new(), ..packed.whole() }
}

fn traces<'a>(making: Making<'a>) -> Box<dyn Iterator<Item = DayRows<'a>> + 'a> {
    let Making { segment, settings, standing, part, .. } = making;
    let table = Table::TraceFacts;
    let traced = segment
        .traces
        .iter()
        .filter(move |(trace, _)| part.has(standing.traces.get(*trace)) && !standing.is_gone(&[trace]));
    let placed = traced.filter_map(move |(trace, entry)| {
        let base = standing.traces.get(trace);
        let starts = entry.wanted_by(table).map(|said| said.glance.start_us);
        // The earliest one said wins, as in the merged row.
        let earliest_us = starts.reduce(|before, after| before.into_iter().chain(after).min())?;
        let stamp_us = entry.origin().stamp_us;
        let day = base.map_or_else(|| settings.home_day(earliest_us, stamp_us), |base| base.day);
        let at_us = earliest_us.into_iter().chain(base.map(|base| base.at_us)).min();
        Some((Place::dated(day), at_us.unwrap_or(stamp_us), (entry, base)))
    });
    by_day(table, TRACE_FACTS, placed, move |(entry, base)| {
        let events = base.map_or(&[][..], |base| &base.events);
        let merged = entry.merged(table, events, facts_of_trace, merge_trace).expect("the table wants it");
        let ingested_at_us = base.map_or(entry.origin().stamp_us, |base| base.ingested_at_us);
        TraceRow { facts: Arc::new(merged.row), ingested_at_us, provenance: merged.provenance }
    })
}

fn scores<'a>(making: Making<'a>) -> Box<dyn Iterator<Item = DayRows<'a>> + 'a> {
    let Making { segment, settings, standing, part, .. } = making;
    let table = Table::Scores;
    let judged =
        segment.scores.iter().filter(move |(id, _)| part.has(standing.scores.get(*id)) && !standing.is_gone(&[id]));
    let placed = judged.filter_map(move |(id, entry)| {
        let base = standing.scores.get(id);
        let (said_us, stamp_us) = (entry.glance(table)?.start_us, entry.origin().stamp_us);
        let day = base.map_or_else(|| settings.home_day(said_us, stamp_us), |base| base.day);
        Some((Place::dated(day), said_us.unwrap_or(base.map_or(stamp_us, |base| base.at_us)), (entry, base)))
    });
    by_day(table, SCORES, placed, move |(entry, base)| {
        let events = base.map_or(&[][..], |base| &base.events);
        let merged = entry.merged(table, events, Packed::whole, merge_score).expect("a glance was had of it");
        let ingested_at_us = base.map_or(entry.origin().stamp_us, |base| base.ingested_at_us);
        ScoreRow { score: Arc::new(merged.row), ingested_at_us, provenance: merged.provenance }
    })
}

/// The books of the segment, and each id it stores counted once, where its first event came in; `merged` are those that
/// stood already.
pub(super) fn books(segment: &Segment, merged: &MergedCounts) -> BTreeMap<BookKey, i64> {
    let mut books: BTreeMap<BookKey, i64> = BTreeMap::new();
    for (key, count) in segment.books.values().flatten() {
        *books.entry(key.clone()).or_default() += count;
    }
    let origins = segment
        .observations
        .values()
        .filter(|entry| entry.wanted().has(Table::Ledger))
        .map(|entry| entry.origin())
        .chain(segment.scores.values().filter(|entry| entry.wanted().has(Table::Ledger)).map(|entry| entry.origin()));
    let mut stored: BTreeMap<(TimestampUs, &Arc<str>), i64> = BTreeMap::new();
    origins.for_each(|origin| *stored.entry((minute(origin.stamp_us), &origin.door)).or_default() += 1);
    for ((minute_us, door), count) in stored {
        *books.entry((minute_us, Arc::clone(door), "stored", None)).or_default() += count;
    }
    for ((minute_us, door), count) in merged {
        *books.entry((*minute_us, Arc::clone(door), "stored", None)).or_default() -= *count as i64;
        *books.entry((*minute_us, Arc::clone(door), "merged", None)).or_default() += *count as i64;
    }
    books.retain(|_, count| *count != 0);
    books
}

fn ledger<'a>(making: Making<'a>) -> Box<dyn Iterator<Item = DayRows<'a>> + 'a> {
    let counted = books(making.segment, making.merged).into_iter();
    let placed = counted.map(|(key, count)| (Place::dated(Day::of_us(key.0)), key.0, (key, count)));
    by_day(Table::Ledger, LEDGER, placed, |((minute_us, door, outcome, reason), count)| LedgerRow {
        ingested_at_us: minute_us,
        door: door.to_string(),
        outcome,
        reason,
        count,
    })
}
