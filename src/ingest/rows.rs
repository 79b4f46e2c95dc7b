//! From merged events to rows: trace facts stamped on, prices computed, days assigned. A pure function of a segment,
//! so that the same rows come out for a fresh read, at the flush, and after a replay.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{Date32Array, RecordBatch};
use arrow::compute;
use prost::Message;

use super::entry::{Entry, Row};
use super::segment::{BookKey, Segment, minute};
use crate::base::{Day, Money, TimestampUs};
use crate::model::tables::{
    self, IoRow, LEDGER, LedgerRow, OBSERVATION_IO, OBSERVATIONS, ObservationRow, RowCost, SCORES, ScoreRow,
    TRACE_FACTS, Table, TraceRow,
};
use crate::model::{
    CostSource, Observation, Order, TraceFacts, UsageSource, merge_observation, merge_score, merge_trace,
};
use crate::price::{Ask, PriceBook, Quantities};

/// What rows are made with.
#[derive(Debug)]
pub struct RowSettings {
    pub book: Arc<PriceBook>,
    /// Metadata keys that name the tenant's own customer, project and flow; `*` at the front matches any beginning.
    pub account_key: String,
    pub project_key: String,
    pub flow_key: String,
    /// Rows older than this at arrival are placed on the oldest day allowed.
    pub retention_days: u32,
}

impl Default for RowSettings {
    fn default() -> Self {
        Self {
            book: PriceBook::built_in(),
            account_key: "tenant_id".into(),
            project_key: "*project_id".into(),
            flow_key: "*flow_id".into(),
            retention_days: 3650,
        }
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

/// Rows made at a time: enough to amortise a batch, few enough to stay in cache.
const ROWS_AT_ONCE: usize = 4096;

/// The rows of `table` in `segment`, one batch per home day, in the table's schema.
pub(super) fn batches(table: Table, segment: &Segment, settings: &RowSettings) -> Vec<RecordBatch> {
    match table {
        Table::Observations => observations(segment, settings),
        Table::ObservationIo => by_day(table, OBSERVATION_IO, io(segment, settings), |row| row),
        Table::TraceFacts => by_day(table, TRACE_FACTS, traces(segment, settings), |row| row),
        Table::Scores => by_day(table, SCORES, scores(segment, settings), |row| row),
        Table::Ledger => by_day(table, LEDGER, ledger(segment), |row| row),
    }
}

/// One batch per day from things that become rows.
fn by_day<T, R>(
    table: Table,
    columns: &[tables::Column<R>],
    things: impl IntoIterator<Item = (Day, T)>,
    row: impl Fn(T) -> R,
) -> Vec<RecordBatch> {
    let mut days: BTreeMap<Day, Vec<T>> = BTreeMap::new();
    for (day, thing) in things {
        days.entry(day).or_default().push(thing);
    }
    let batch_of_day = |(day, things): (Day, Vec<T>)| {
        let mut parts = Vec::with_capacity(things.len() / ROWS_AT_ONCE + 1);
        let mut things = things.into_iter();
        loop {
            let rows: Vec<R> = things.by_ref().take(ROWS_AT_ONCE).map(&row).collect();
            if rows.is_empty() {
                break;
            }
            parts.push(tables::batch(table, columns, &rows));
        }
        let all = compute::concat_batches(&table.file_schema(), &parts).expect("parts of one schema");
        let day = Date32Array::from_value(day.days(), all.num_rows());
        let arrays = all.columns().iter().cloned().chain([Arc::new(day) as _]).collect();
        RecordBatch::try_new(table.table_schema(), arrays).expect("the file's columns, then day")
    };
    days.into_iter().map(batch_of_day).collect()
}

/// The facts of a trace: those flushed before, then those said since.
pub(super) fn facts(entry: Option<&Entry<TraceFacts>>, inherited: Option<&Arc<TraceFacts>>) -> Option<Arc<TraceFacts>> {
    let said = entry.map(|entry| match entry.said.as_slice() {
        [only] => Arc::clone(&only.value),
        all => {
            let all: Vec<_> = all.iter().map(|said| (&said.order, said.value.as_ref())).collect();
            Arc::new(merge_trace(&all).row)
        }
    });
    match (inherited, said) {
        (None, said) => said,
        (Some(inherited), None) => Some(Arc::clone(inherited)),
        (Some(inherited), Some(said)) => {
            let (before, after) = (Order::default(), Order { is_update: true, ..Default::default() });
            Some(Arc::new(merge_trace(&[(&before, inherited), (&after, &said)]).row))
        }
    }
}

type Observed<'a> = (&'a Arc<Entry<Observation>>, Row<Observation>);

fn observations(segment: &Segment, settings: &RowSettings) -> Vec<RecordBatch> {
    let observed: Vec<Observed<'_>> = segment
        .observations
        .values()
        .filter_map(|entry| Some((entry, entry.merged(Table::Observations, merge_observation)?)))
        .collect();
    let mut facts_of: HashMap<&str, Option<Arc<TraceFacts>>> = HashMap::new();
    for (_, merged) in &observed {
        let trace = merged.row.trace_id.as_str();
        facts_of.entry(trace).or_insert_with(|| segment.facts(trace));
    }
    let orphans = orphan_roots(&observed, &facts_of);
    let placed = observed.iter().map(|(entry, merged)| {
        let said_us = merged.row.start_ns.or(merged.row.end_ns).map(|ns| ns / 1000);
        (settings.home_day(said_us, entry.origin().stamp_us), (*entry, merged))
    });
    by_day(Table::Observations, OBSERVATIONS, placed, |(entry, merged)| {
        let observation = Arc::clone(&merged.row);
        let stamp_us = entry.origin().stamp_us;
        let facts = facts_of.get(observation.trace_id.as_str()).and_then(Clone::clone);
        let orphan = orphans.get(observation.trace_id.as_str());
        let dimension = |pattern: &str| {
            let own = find_key(&observation.metadata, pattern);
            own.or_else(|| find_key(&facts.as_ref()?.metadata, pattern)).cloned()
        };
        ObservationRow {
            is_root: observation.root_mark == Some(true)
                || observation.parent_id.is_none()
                || orphan.is_some_and(|orphan| orphan.ids.contains(observation.id.as_str())),
            account: dimension(&settings.account_key),
            project: dimension(&settings.project_key),
            flow: dimension(&settings.flow_key),
            cost: cost(&observation, &settings.book, stamp_us),
            orphan_name: orphan.and_then(|orphan| orphan.name.clone()),
            ingested_at_us: stamp_us,
            provenance: merged.provenance.clone(),
            facts,
            observation,
        }
    })
}

/// What stands for the root of a trace that has none.
#[derive(Default)]
struct Orphan<'a> {
    ids: HashSet<&'a str>,
    name: Option<Arc<str>>,
}

/// Where no root of a trace is known, those whose parent is not known either stand for it: their parent never arrived,
/// or the sender filtered it out.
fn orphan_roots<'a>(
    observed: &'a [Observed<'a>],
    facts_of: &HashMap<&'a str, Option<Arc<TraceFacts>>>,
) -> HashMap<&'a str, Orphan<'a>> {
    let rows = || observed.iter().map(|(_, merged)| merged.row.as_ref());
    let is_rooted = |row: &&Observation| row.parent_id.is_none() || row.root_mark == Some(true);
    let mut rooted: HashSet<&str> = rows().filter(is_rooted).map(|row| row.trace_id.as_str()).collect();
    let has_root = |facts: &Option<Arc<TraceFacts>>| facts.as_ref().is_some_and(|facts| facts.root_id.is_some());
    rooted.extend(facts_of.iter().filter(|(_, facts)| has_root(facts)).map(|(trace, _)| *trace));
    let unrooted = || rows().filter(|row| !rooted.contains(row.trace_id.as_str()));
    let known: HashSet<(&str, &str)> = unrooted().map(|row| (row.trace_id.as_str(), row.id.as_str())).collect();
    let mut orphans: HashMap<&str, Orphan<'_>> = HashMap::new();
    for row in unrooted() {
        let parent = row.parent_id.as_deref().unwrap_or_default();
        if !known.contains(&(row.trace_id.as_str(), parent)) {
            let orphan = orphans.entry(row.trace_id.as_str()).or_default();
            orphan.ids.insert(row.id.as_str());
            // The smallest name of several, so that the choice does not depend on the order of a map.
            let name: Option<Arc<str>> = row.name.as_deref().map(Arc::from);
            orphan.name = orphan.name.take().into_iter().chain(name).min();
        }
    }
    orphans
}

fn find_key<'a>(metadata: &'a BTreeMap<String, String>, pattern: &str) -> Option<&'a String> {
    match pattern.strip_prefix('*') {
        None => metadata.get(pattern),
        Some(ending) => metadata.iter().find(|(key, _)| key.ends_with(ending)).map(|(_, value)| value),
    }
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

fn io(segment: &Segment, settings: &RowSettings) -> Vec<(Day, IoRow)> {
    let mut rows = Vec::new();
    for entry in segment.observations.values() {
        let Some(Row { row, .. }) = entry.merged(Table::ObservationIo, merge_observation) else { continue };
        let has_text = row.input.is_some() || row.output.is_some() || row.exception_stacktrace.is_some();
        if has_text || !row.attributes.is_empty() {
            let stamp_us = entry.origin().stamp_us;
            let day = settings.home_day(row.start_ns.or(row.end_ns).map(|ns| ns / 1000), stamp_us);
            let start_us = row.start_ns.map_or(stamp_us, |ns| ns.div_euclid(1000));
            rows.push((day, IoRow::Observation { observation: row, start_us }));
        }
    }
    for entry in segment.traces.values() {
        let Some(Row { row, .. }) = entry.merged(Table::ObservationIo, merge_trace) else { continue };
        if row.input.is_some() || row.output.is_some() {
            let stamp_us = entry.origin().stamp_us;
            let day = settings.home_day(row.timestamp_us, stamp_us);
            let start_us = row.timestamp_us.unwrap_or(stamp_us);
            rows.push((day, IoRow::Trace { facts: row, start_us }));
        }
    }
    rows
}

fn traces(segment: &Segment, settings: &RowSettings) -> Vec<(Day, TraceRow)> {
    let row = |entry: &Arc<Entry<TraceFacts>>| {
        let merged = entry.merged(Table::TraceFacts, merge_trace)?;
        let ingested_at_us = entry.origin().stamp_us;
        let day = settings.home_day(merged.row.timestamp_us, ingested_at_us);
        Some((day, TraceRow { facts: merged.row, ingested_at_us, provenance: merged.provenance }))
    };
    segment.traces.values().filter_map(row).collect()
}

fn scores(segment: &Segment, settings: &RowSettings) -> Vec<(Day, ScoreRow)> {
    let row = |entry: &Arc<Entry<crate::model::Score>>| {
        let merged = entry.merged(Table::Scores, merge_score)?;
        let ingested_at_us = entry.origin().stamp_us;
        let day = settings.home_day(merged.row.timestamp_us, ingested_at_us);
        Some((day, ScoreRow { score: merged.row, ingested_at_us, provenance: merged.provenance }))
    };
    segment.scores.values().filter_map(row).collect()
}

/// The books of the segment, and each id it stores counted once, where its first event came in.
fn ledger(segment: &Segment) -> Vec<(Day, LedgerRow)> {
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
    let row = |((minute_us, door, outcome, reason), count): (BookKey, i64)| {
        let row = LedgerRow { ingested_at_us: minute_us, door: door.to_string(), outcome, reason, count };
        (Day::of_us(minute_us), row)
    };
    books.into_iter().filter(|(_, count)| *count != 0).map(row).collect()
}

/// The bytes an event's texts take, near enough for a budget.
pub(super) fn event_bytes(event: &impl Message) -> u64 {
    event.encoded_len() as u64
}
