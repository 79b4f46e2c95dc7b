//! From merged events to rows: trace facts stamped on, prices computed, days assigned. A pure function of a segment,
//! so that the same rows come out for a fresh read, at the flush, and after a replay.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{Date32Array, RecordBatch};
use prost::Message;

use super::entry::Entry;
use super::segment::{BookKey, Segment, minute};
use crate::base::{Day, Money, TimestampUs};
use crate::model::tables::{
    self, IoRow, LEDGER, LedgerRow, OBSERVATION_IO, OBSERVATIONS, ObservationRow, RowCost, SCORES, ScoreRow,
    TRACE_FACTS, Table, TraceRow,
};
use crate::model::{CostSource, Observation, TraceFacts, UsageSource, merge_observation, merge_score, merge_trace};
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

/// The rows of `table` in `segment`, one batch per home day, in the table's schema.
pub(super) fn batches(table: Table, segment: &Segment, settings: &RowSettings) -> Vec<RecordBatch> {
    match table {
        Table::Observations => by_day(table, OBSERVATIONS, observations(segment, settings)),
        Table::ObservationIo => by_day(table, OBSERVATION_IO, io(segment, settings)),
        Table::TraceFacts => by_day(table, TRACE_FACTS, traces(segment, settings)),
        Table::Scores => by_day(table, SCORES, scores(segment, settings)),
        Table::Ledger => by_day(table, LEDGER, ledger(segment)),
    }
}

fn by_day<R>(table: Table, columns: &[tables::Column<R>], rows: Vec<(Day, R)>) -> Vec<RecordBatch> {
    let mut days: BTreeMap<Day, Vec<R>> = BTreeMap::new();
    for (day, row) in rows {
        days.entry(day).or_default().push(row);
    }
    let with_day = |(day, rows): (Day, Vec<R>)| {
        let batch = tables::batch(table, columns, &rows);
        let day = Date32Array::from_value(day.days(), rows.len());
        let arrays = batch.columns().iter().cloned().chain([Arc::new(day) as _]).collect();
        RecordBatch::try_new(table.table_schema(), arrays).expect("the file's columns, then day")
    };
    days.into_iter().map(with_day).collect()
}

/// The facts of a trace: those flushed before, then those said since.
pub(super) fn facts(entry: Option<&Entry<TraceFacts>>, inherited: Option<&TraceFacts>) -> Option<TraceFacts> {
    let said = entry.map(|entry| {
        let all: Vec<_> = entry.said.iter().map(|said| (&said.order, &said.value)).collect();
        merge_trace(&all).row
    });
    match (inherited, said) {
        (None, said) => said,
        (Some(inherited), None) => Some(inherited.clone()),
        (Some(inherited), Some(said)) => {
            let (before, after) = (Default::default(), crate::model::Order { is_update: true, ..Default::default() });
            Some(merge_trace(&[(&before, inherited), (&after, &said)]).row)
        }
    }
}

fn observations(segment: &Segment, settings: &RowSettings) -> Vec<(Day, ObservationRow)> {
    let rows: Vec<_> = segment
        .observations
        .values()
        .filter_map(|entry| Some((entry, entry.merged(Table::Observations, merge_observation)?)))
        .collect();
    let mut facts_of: HashMap<&str, Option<TraceFacts>> = HashMap::new();
    for (_, merged) in &rows {
        let trace = merged.row.trace_id.as_str();
        facts_of.entry(trace).or_insert_with(|| segment.facts(trace));
    }
    let orphans = orphan_roots(rows.iter().map(|(_, merged)| &merged.row), &facts_of);
    let orphan_names: HashMap<String, Option<String>> = rows
        .iter()
        .filter(|(_, m)| orphans.contains(&key(&m.row)))
        .map(|(_, m)| (m.row.trace_id.clone(), m.row.name.clone()))
        .collect();
    let facts_of: HashMap<String, Option<TraceFacts>> =
        facts_of.into_iter().map(|(trace, facts)| (trace.to_owned(), facts)).collect();
    rows.into_iter()
        .map(|(entry, merged)| {
            let origin = entry.origin();
            let mut observation = merged.row;
            let facts = facts_of.get(&observation.trace_id).and_then(Option::as_ref);
            let is_root = observation.root_mark == Some(true)
                || observation.parent_id.is_none()
                || orphans.contains(&key(&observation));
            let dimension = |pattern: &str| {
                let own = find_key(&observation.metadata, pattern);
                own.or_else(|| find_key(&facts?.metadata, pattern)).cloned()
            };
            let (account, project, flow) =
                (dimension(&settings.account_key), dimension(&settings.project_key), dimension(&settings.flow_key));
            if let Some(facts) = facts {
                stamp(&mut observation, facts);
            }
            if observation.trace_name.is_none() {
                observation.trace_name = orphan_names.get(&observation.trace_id).cloned().flatten();
            }
            let day =
                settings.home_day(observation.start_ns.or(observation.end_ns).map(|ns| ns / 1000), origin.stamp_us);
            let cost = cost(&observation, &settings.book, origin.stamp_us);
            let row = ObservationRow {
                is_root,
                account,
                project,
                flow,
                cost,
                ingested_at_us: origin.stamp_us,
                provenance: merged.provenance,
                observation,
            };
            (day, row)
        })
        .collect()
}

fn key(observation: &Observation) -> (String, String) {
    (observation.trace_id.clone(), observation.id.clone())
}

/// Where no root of a trace is known, those whose parent is not known either stand for it: their parent never arrived,
/// or the sender filtered it out.
fn orphan_roots<'a>(
    rows: impl Iterator<Item = &'a Observation> + Clone,
    facts_of: &HashMap<&str, Option<TraceFacts>>,
) -> HashSet<(String, String)> {
    let known: HashSet<(&str, &str)> = rows.clone().map(|row| (row.trace_id.as_str(), row.id.as_str())).collect();
    let rooted: HashSet<&str> = rows
        .clone()
        .filter(|row| row.parent_id.is_none() || row.root_mark == Some(true))
        .map(|row| row.trace_id.as_str())
        .chain(
            facts_of.iter().filter(|(_, facts)| facts.as_ref().is_some_and(|f| f.root_id.is_some())).map(|(t, _)| *t),
        )
        .collect();
    rows.filter(|row| {
        let parent = row.parent_id.as_deref().unwrap_or_default();
        !rooted.contains(row.trace_id.as_str()) && !known.contains(&(row.trace_id.as_str(), parent))
    })
    .map(key)
    .collect()
}

/// Stamps what is said about the trace onto one of its rows; what the row says itself stays.
fn stamp(observation: &mut Observation, facts: &TraceFacts) {
    let fill = |own: &mut Option<String>, fact: &Option<String>| {
        if own.is_none() {
            own.clone_from(fact);
        }
    };
    if facts.name.is_some() {
        observation.trace_name.clone_from(&facts.name);
    }
    fill(&mut observation.trace_name, &facts.root_name);
    fill(&mut observation.user_id, &facts.user_id);
    fill(&mut observation.session_id, &facts.session_id);
    fill(&mut observation.release, &facts.release);
    fill(&mut observation.version, &facts.version);
    fill(&mut observation.environment, &facts.environment);
    observation.tags.extend(facts.tags.iter().cloned());
    observation.tags.sort_unstable();
    observation.tags.dedup();
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
        let Some(merged) = entry.merged(Table::ObservationIo, merge_observation) else { continue };
        let (row, stamp_us) = (merged.row, entry.origin().stamp_us);
        let empty = row.input.is_none() && row.output.is_none() && row.exception_stacktrace.is_none();
        if empty && row.attributes.is_empty() {
            continue;
        }
        let said_us = row.start_ns.or(row.end_ns).map(|ns| ns / 1000);
        let day = settings.home_day(said_us, stamp_us);
        let io = IoRow {
            start_us: row.start_ns.map_or(stamp_us, |ns| ns.div_euclid(1000)),
            trace_id: row.trace_id,
            id: row.id,
            input: row.input,
            output: row.output,
            exception_stacktrace: row.exception_stacktrace,
            attributes: row.attributes,
        };
        rows.push((day, io));
    }
    for entry in segment.traces.values() {
        let Some(merged) = entry.merged(Table::ObservationIo, merge_trace) else { continue };
        let (row, stamp_us) = (merged.row, entry.origin().stamp_us);
        if row.input.is_some() || row.output.is_some() {
            let day = settings.home_day(row.timestamp_us, stamp_us);
            let io = IoRow {
                start_us: row.timestamp_us.unwrap_or(stamp_us),
                trace_id: row.trace_id,
                id: String::new(),
                input: row.input,
                output: row.output,
                exception_stacktrace: None,
                attributes: BTreeMap::new(),
            };
            rows.push((day, io));
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
