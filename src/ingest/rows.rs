//! From merged events to rows: trace facts stamped on, prices computed, days assigned. A pure function of a segment,
//! so that the same rows come out for a fresh read, at the flush, and after a replay.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{Date32Array, RecordBatch};

use super::entry::Entry;
use super::packed::Packed;
use super::segment::{BookKey, ObservationKey, Segment, minute};
use crate::base::{Day, Money, TimestampUs};
use crate::model::tables::{
    self, IoRow, LEDGER, LedgerRow, OBSERVATION_IO, OBSERVATIONS, ObservationRow, Orphan, RowCost, SCORES, ScoreRow,
    TRACE_FACTS, Table, TraceRow,
};
use crate::model::{
    CostSource, DimensionKeys, Observation, Order, TraceFacts, UsageSource, merge_observation, merge_score, merge_trace,
};
use crate::price::{Ask, PriceBook, Quantities};

/// What rows are made with.
#[derive(Debug)]
pub struct RowSettings {
    pub book: Arc<PriceBook>,
    pub keys: Arc<DimensionKeys>,
    /// Rows older than this at arrival are placed on the oldest day allowed.
    pub retention_days: u32,
}

impl Default for RowSettings {
    fn default() -> Self {
        Self { book: PriceBook::built_in(), keys: Arc::default(), retention_days: 3650 }
    }
}

impl RowSettings {
    /// The home day of a row: its own time, kept between the retention limit and an hour past its arrival. Never the
    /// clock at replay.
    fn home_day(&self, said_us: Option<TimestampUs>, stamp_us: TimestampUs) -> Day {
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
    pub(super) batches: Box<dyn Iterator<Item = RecordBatch> + 'a>,
}

/// The rows of `table` in `segment`, by home day.
pub(super) fn days<'a>(
    table: Table,
    segment: &'a Segment,
    settings: &'a RowSettings,
) -> Box<dyn Iterator<Item = DayRows<'a>> + 'a> {
    match table {
        Table::Observations => observations(segment, settings),
        Table::ObservationIo => io(segment, settings),
        Table::TraceFacts => traces(segment, settings),
        Table::Scores => scores(segment, settings),
        Table::Ledger => ledger(segment),
    }
}

/// All rows of `table` in `segment`, in the schema that SQL sees.
pub(super) fn batches(table: Table, segment: &Segment, settings: &RowSettings) -> Vec<RecordBatch> {
    let with_day = |day: Day, batch: RecordBatch| {
        let days = Date32Array::from_value(day.days(), batch.num_rows());
        let arrays = batch.columns().iter().cloned().chain([Arc::new(days) as _]).collect();
        RecordBatch::try_new(table.table_schema(), arrays).expect("the file's columns, then day")
    };
    let of_day = |rows: DayRows<'_>| rows.batches.map(|batch| with_day(rows.day, batch)).collect::<Vec<_>>();
    days(table, segment, settings).flat_map(of_day).collect()
}

/// Things that become rows, by day, each day sorted by what the table's rows are sorted by.
fn by_day<'a, K: Ord + 'a, T: 'a, R: 'a>(
    table: Table,
    columns: &'static [tables::Column<R>],
    placed: impl IntoIterator<Item = (Day, K, T)>,
    row: impl Fn(T) -> R + 'a,
) -> Box<dyn Iterator<Item = DayRows<'a>> + 'a> {
    let mut days: BTreeMap<Day, Vec<(K, T)>> = BTreeMap::new();
    for (day, key, thing) in placed {
        days.entry(day).or_default().push((key, thing));
    }
    let row = Arc::new(row);
    Box::new(days.into_iter().map(move |(day, mut things)| {
        things.sort_by(|a, b| a.0.cmp(&b.0));
        let mut things = things.into_iter();
        let row = Arc::clone(&row);
        let batches = std::iter::from_fn(move || {
            let rows: Vec<R> = things.by_ref().take(ROWS_AT_ONCE).map(|(_, thing)| row(thing)).collect();
            (!rows.is_empty()).then(|| tables::batch(table, columns, &rows))
        });
        DayRows { day, batches: Box::new(batches) }
    }))
}

/// The facts of a trace: those flushed before, then those said since.
pub(super) fn facts(entry: Option<&Entry<TraceFacts>>, inherited: Option<&Arc<TraceFacts>>) -> Option<Arc<TraceFacts>> {
    let said = entry.and_then(|entry| {
        let all: Vec<_> = entry.said.iter().map(|said| (&said.order, said.packed.whole())).collect();
        let borrowed: Vec<_> = all.iter().map(|(order, facts)| (*order, facts)).collect();
        (!borrowed.is_empty()).then(|| merge_trace(&borrowed).row)
    });
    match (inherited, said) {
        (None, said) => said.map(Arc::new),
        (Some(inherited), None) => Some(Arc::clone(inherited)),
        (Some(inherited), Some(said)) => {
            let (before, after) = (Order::default(), Order { is_update: true, ..Default::default() });
            Some(Arc::new(merge_trace(&[(&before, inherited), (&after, &said)]).row))
        }
    }
}

fn observations<'a>(segment: &'a Segment, settings: &'a RowSettings) -> Box<dyn Iterator<Item = DayRows<'a>> + 'a> {
    let table = Table::Observations;
    let observed = || segment.observations.iter().filter_map(|(key, entry)| Some((key, entry, entry.glance(table)?)));
    let mut facts_of: HashMap<&str, Option<Arc<TraceFacts>>> = HashMap::new();
    for ((trace, _), _, _) in observed() {
        facts_of.entry(trace).or_insert_with(|| segment.facts(trace));
    }
    let orphans = orphan_roots(segment, &facts_of);
    let placed: Vec<_> = observed()
        .map(|((trace, _), entry, glance)| {
            let stamp_us = entry.origin().stamp_us;
            let day = settings.home_day(glance.start_us.or(glance.end_us), stamp_us);
            (day, glance.start_us.unwrap_or(stamp_us), (trace.as_ref(), entry))
        })
        .collect();
    by_day(table, OBSERVATIONS, placed, move |(trace, entry)| {
        let merged = entry.merged(table, Packed::hot, merge_observation).expect("a glance was had of it");
        let observation = Arc::new(merged.row);
        let stamp_us = entry.origin().stamp_us;
        let orphan = orphans
            .get(trace)
            .map(|orphans| Orphan { name: orphans.name.clone(), is_root: orphans.ids.contains(&observation.id) });
        ObservationRow {
            facts: facts_of.get(trace).and_then(Clone::clone),
            orphan,
            keys: Arc::clone(&settings.keys),
            cost: cost(&observation, &settings.book, stamp_us),
            ingested_at_us: stamp_us,
            provenance: merged.provenance,
            observation,
        }
    })
}

/// What stands for the root of a trace that has none.
#[derive(Default)]
struct Orphans {
    ids: HashSet<String>,
    name: Option<Arc<str>>,
}

/// Where no root of a trace is known, those whose parent is not known either stand for it: their parent never arrived,
/// or the sender filtered it out.
fn orphan_roots<'a>(
    segment: &'a Segment,
    facts_of: &HashMap<&'a str, Option<Arc<TraceFacts>>>,
) -> HashMap<&'a str, Orphans> {
    let rooted_rows = segment.observations.iter().filter(|(_, entry)| entry.said.iter().all(|s| s.glance.is_root));
    let mut rooted: HashSet<&str> = rooted_rows.map(|((trace, _), _)| trace.as_ref()).collect();
    let has_root = |facts: &Option<Arc<TraceFacts>>| facts.as_ref().is_some_and(|facts| facts.root_id.is_some());
    rooted.extend(facts_of.iter().filter(|(_, facts)| has_root(facts)).map(|(trace, _)| *trace));
    let mut orphans: HashMap<&str, Orphans> = HashMap::new();
    for (key, entry) in segment.observations.iter().filter(|((trace, _), _)| !rooted.contains(trace.as_ref())) {
        let Some(merged) = entry.merged(Table::Observations, Packed::hot, merge_observation) else { continue };
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

/// What the client says it cost, else what the price book says.
fn cost(observation: &Observation, book: &PriceBook, stamp_us: TimestampUs) -> RowCost {
    if !observation.provided_cost.is_empty() {
        let amount = |kind: &str| observation.provided_cost.get(kind).copied().map(Money::from_pico);
        let by_kind: BTreeMap<String, Money> =
            observation.provided_cost.iter().map(|(kind, pico)| (kind.clone(), Money::from_pico(*pico))).collect();
        let parts = by_kind.iter().filter(|(kind, _)| *kind != "total").map(|(_, amount)| *amount).sum();
        let total = amount("total").unwrap_or(parts);
        let model_id = None;
        let (input, output) = (amount("input"), amount("output"));
        let source = Some(CostSource::Provided);
        return RowCost { by_kind, input, output, total: Some(total), source, model_id, price_id: None };
    }
    if observation.usage_source == Some(UsageSource::Repeated as i32) {
        return RowCost::default();
    }
    let Some(model) = observation.model.as_deref() else { return RowCost::default() };
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
        usage: &usage,
    };
    match book.price(&ask) {
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

/// Text is what memory is short of: it is unpacked a few rows at a time.
fn io<'a>(segment: &'a Segment, settings: &'a RowSettings) -> Box<dyn Iterator<Item = DayRows<'a>> + 'a> {
    enum Whose<'a> {
        Observation(&'a ObservationKey, &'a Entry<Observation>, TimestampUs),
        Trace(&'a Entry<TraceFacts>, TimestampUs),
    }
    let table = Table::ObservationIo;
    let of_observations = segment.observations.iter().filter_map(|(key, entry)| {
        let glance = entry.glance(table)?;
        if !entry.wanted_by(table).any(|said| said.packed.has_cold()) {
            return None;
        }
        let stamp_us = entry.origin().stamp_us;
        let day = settings.home_day(glance.start_us.or(glance.end_us), stamp_us);
        let start_us = glance.start_us.unwrap_or(stamp_us);
        Some((day, (key.0.as_ref(), start_us), Whose::Observation(key, entry, start_us)))
    });
    let of_traces = segment.traces.iter().filter_map(|(trace, entry)| {
        let facts = entry.merged(table, Packed::whole, merge_trace)?.row;
        if facts.input.is_none() && facts.output.is_none() {
            return None;
        }
        let stamp_us = entry.origin().stamp_us;
        let day = settings.home_day(facts.timestamp_us, stamp_us);
        let start_us = facts.timestamp_us.unwrap_or(stamp_us);
        Some((day, (trace.as_ref(), start_us), Whose::Trace(entry, start_us)))
    });
    by_day(table, OBSERVATION_IO, of_observations.chain(of_traces), move |whose| match whose {
        Whose::Observation((trace_id, id), entry, start_us) => {
            let merged = entry.merged(table, Packed::cold, merge_observation).expect("a glance was had of it");
            let ids = (trace_id.to_string(), id.to_string());
            let mut observation = merged.row;
            (observation.trace_id, observation.id) = ids;
            IoRow::Observation { observation: Arc::new(observation), start_us, provenance: merged.provenance }
        }
        Whose::Trace(entry, start_us) => {
            let merged = entry.merged(table, text_of_trace, merge_trace).expect("it was merged before");
            IoRow::Trace { facts: Arc::new(merged.row), start_us, provenance: merged.provenance }
        }
    })
}

/// What of a trace's facts stands in `observation_io`: its provenance must tell of nothing else.
fn text_of_trace(packed: &Packed<TraceFacts>) -> TraceFacts {
    let TraceFacts { trace_id, input, output, .. } = packed.whole();
    TraceFacts { trace_id, input, output, ..Default::default() }
}

/// And what does not.
fn facts_of_trace(packed: &Packed<TraceFacts>) -> TraceFacts {
    TraceFacts { input: None, output: None, ..packed.whole() }
}

fn traces<'a>(segment: &'a Segment, settings: &'a RowSettings) -> Box<dyn Iterator<Item = DayRows<'a>> + 'a> {
    let table = Table::TraceFacts;
    let placed = segment.traces.values().filter_map(|entry| {
        let starts = entry.wanted_by(table).map(|said| said.glance.start_us);
        // The earliest one said wins, as in the merged row.
        let earliest_us = starts.reduce(|before, after| before.into_iter().chain(after).min())?;
        let stamp_us = entry.origin().stamp_us;
        Some((settings.home_day(earliest_us, stamp_us), earliest_us.unwrap_or(stamp_us), entry))
    });
    by_day(table, TRACE_FACTS, placed, move |entry| {
        let merged = entry.merged(table, facts_of_trace, merge_trace).expect("the table wants it");
        let facts = Arc::new(merged.row);
        TraceRow { facts, ingested_at_us: entry.origin().stamp_us, provenance: merged.provenance }
    })
}

fn scores<'a>(segment: &'a Segment, settings: &'a RowSettings) -> Box<dyn Iterator<Item = DayRows<'a>> + 'a> {
    let table = Table::Scores;
    let placed = segment.scores.values().filter_map(|entry| {
        let (said_us, stamp_us) = (entry.glance(table)?.start_us, entry.origin().stamp_us);
        Some((settings.home_day(said_us, stamp_us), said_us.unwrap_or(stamp_us), entry))
    });
    by_day(table, SCORES, placed, move |entry| {
        let merged = entry.merged(table, Packed::whole, merge_score).expect("a glance was had of it");
        let score = Arc::new(merged.row);
        ScoreRow { score, ingested_at_us: entry.origin().stamp_us, provenance: merged.provenance }
    })
}

/// The books of the segment, and each id it stores counted once, where its first event came in.
fn ledger<'a>(segment: &Segment) -> Box<dyn Iterator<Item = DayRows<'a>> + 'a> {
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
    for origin in origins {
        *books.entry((minute(origin.stamp_us), Arc::clone(&origin.door), "stored", None)).or_default() += 1;
    }
    let counted = books.into_iter().filter(|(_, count)| *count != 0);
    let placed = counted.map(|(key, count)| (Day::of_us(key.0), key.0, (key, count)));
    by_day(Table::Ledger, LEDGER, placed, |((minute_us, door, outcome, reason), count)| LedgerRow {
        ingested_at_us: minute_us,
        door: door.to_string(),
        outcome,
        reason,
        count,
    })
}
