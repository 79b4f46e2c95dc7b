//! What was said, to whom, and what is known of its fate; and the rows that must come of it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::said::START_US;
use crate::base::{Day, Money, TimestampUs};
use crate::catalog::erasures::{ErasureKind, REFUSED_FOR_US};
use crate::model::{
    Event, EventKind, Observation, Order, Score, TraceFacts, merge_observation, merge_score, merge_trace,
};
use crate::price::{Ask, PriceBook, Quantities};

/// One request.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) events: Vec<Event>,
    /// The writers that acked it.
    pub(super) acked: BTreeSet<usize>,
    /// It was sent, and its outcome is not known.
    pub(super) open: bool,
    pub(super) first_sent_us: TimestampUs,
    pub(super) last_sent_us: TimestampUs,
}

/// Something that was to be forgotten.
#[derive(Debug, Clone)]
pub(super) struct Forgotten {
    pub(super) kind: ErasureKind,
    pub(super) id: String,
    pub(super) asked_us: TimestampUs,
}

#[derive(Debug, Default)]
pub(super) struct History {
    pub(super) requests: Vec<Request>,
    pub(super) forgotten: Vec<Forgotten>,
    /// Retention may have taken the days before.
    pub(super) kept_from: Option<Day>,
}

/// What is not known exactly any more: rows that retention or an erasure may have taken.
#[derive(Debug, Default)]
pub(super) struct Doubts<'a> {
    traces: BTreeSet<&'a str>,
    /// Observations, by trace and id, and scores, by id.
    rows: BTreeSet<String>,
    /// Traces whose facts may be gone.
    facts: BTreeSet<&'a str>,
    /// No table may hold these traces.
    pub(super) gone_traces: BTreeSet<&'a str>,
    /// No row may name these users and sessions.
    pub(super) gone_owners: BTreeSet<&'a str>,
}

impl Doubts<'_> {
    /// Whether the row may have been taken; `key` as SQL answers it.
    pub(super) fn has(&self, key: &str) -> bool {
        let (trace, id) = key.split_once('/').unwrap_or((key, ""));
        self.traces.contains(trace) || self.rows.contains(key) || (id.is_empty() && self.facts.contains(trace))
    }

    /// Whether what is known of its trace may have been taken.
    pub(super) fn has_facts(&self, trace: &str) -> bool {
        self.facts.contains(trace)
    }
}

type Said<'a, T> = BTreeMap<Order, &'a T>;

/// All that is said about each id by some requests.
#[derive(Debug, Default)]
pub(super) struct Told<'a> {
    pub(super) observations: BTreeMap<(&'a str, &'a str), Said<'a, Observation>>,
    pub(super) traces: BTreeMap<&'a str, Said<'a, TraceFacts>>,
    pub(super) scores: BTreeMap<&'a str, Said<'a, Score>>,
}

impl History {
    /// Whether anything was ever taken.
    pub(super) fn is_trimmed(&self) -> bool {
        self.kept_from.is_some() || !self.forgotten.is_empty()
    }

    pub(super) fn doubts(&self) -> Doubts<'_> {
        let mut doubts = Doubts::default();
        let events = || self.requests.iter().flat_map(|request| request.events.iter().map(move |said| (request, said)));
        for (request, event) in events() {
            let Some(kept_from) = self.kept_from else { break };
            let said = |said_us: Option<i64>| said_us.filter(|said_us| *said_us > 0).unwrap_or(i64::MAX);
            // Wherever it may have been placed.
            let (earliest_us, key) = match event.kind.as_ref().unwrap() {
                EventKind::Observation(it) => {
                    let us = |ns: Option<i64>| said(ns.map(|ns| ns / 1000));
                    (us(it.start_ns).min(us(it.end_ns)), Some(format!("{}/{}", it.trace_id, it.id)))
                }
                EventKind::Trace(it) => (said(it.timestamp_us), None),
                EventKind::Score(it) => (said(it.timestamp_us), Some(it.id.clone())),
            };
            if Day::of_us(earliest_us.min(request.first_sent_us)) < kept_from {
                match key {
                    Some(key) => _ = doubts.rows.insert(key),
                    None => _ = doubts.facts.insert(trace_of(event).unwrap()),
                }
            }
        }
        for Forgotten { kind, id, asked_us } in &self.forgotten {
            let about = |event: &Event| match (kind, event.kind.as_ref().unwrap()) {
                (ErasureKind::Trace, _) => trace_of(event) == Some(id),
                (ErasureKind::User, EventKind::Observation(it)) => it.user_id.as_ref() == Some(id),
                (ErasureKind::User, EventKind::Trace(it)) => it.user_id.as_ref() == Some(id),
                (ErasureKind::Session, EventKind::Trace(it)) => it.session_id.as_ref() == Some(id),
                _ => false,
            };
            let mut came_back = false;
            for (request, event) in events().filter(|(_, event)| about(event)) {
                came_back |= request.last_sent_us >= asked_us + REFUSED_FOR_US;
                match event.kind.as_ref().unwrap() {
                    EventKind::Observation(it) if *kind != ErasureKind::Trace => {
                        doubts.rows.insert(format!("{}/{}", it.trace_id, it.id));
                    }
                    _ => doubts.traces.extend(trace_of(event)),
                }
            }
            // Said again when it is not refused any more, it is there again.
            match kind {
                _ if came_back => {}
                ErasureKind::Trace => _ = doubts.gone_traces.insert(id),
                _ => _ = doubts.gone_owners.insert(id),
            }
        }
        doubts
    }

    pub(super) fn told(&self, by: impl Fn(&Request) -> bool) -> Told<'_> {
        let mut told = Told::default();
        for event in self.requests.iter().filter(|request| by(request)).flat_map(|request| &request.events) {
            let order = event.order.clone();
            match event.kind.as_ref().unwrap() {
                EventKind::Observation(said) => {
                    let key = (said.trace_id.as_str(), said.id.as_str());
                    told.observations.entry(key).or_default().insert(order, said);
                }
                EventKind::Trace(said) => {
                    told.traces.entry(&said.trace_id).or_default().insert(order, said);
                }
                EventKind::Score(said) => {
                    told.scores.entry(&said.id).or_default().insert(order, said);
                }
            }
        }
        told
    }

    /// Traces of which only `writer` was told, and everything with success: its rows are known exactly there.
    pub(super) fn exact_traces(&self, writer: usize) -> BTreeSet<&str> {
        let mut exact = BTreeSet::new();
        let mut other = BTreeSet::new();
        for request in &self.requests {
            let private = !request.open && request.acked.iter().eq([&writer]);
            for trace in request.events.iter().filter_map(trace_of) {
                if private {
                    exact.insert(trace)
                } else {
                    other.insert(trace)
                };
            }
        }
        exact.retain(|trace| !other.contains(trace));
        exact
    }
}

pub(super) fn trace_of(event: &Event) -> Option<&str> {
    match event.kind.as_ref().unwrap() {
        EventKind::Observation(said) => Some(&said.trace_id),
        EventKind::Trace(said) => Some(&said.trace_id),
        EventKind::Score(_) => None,
    }
}

fn sorted<'a, T>(said: &'a Said<'_, T>) -> Vec<(&'a Order, &'a T)> {
    said.iter().map(|(order, event)| (order, *event)).collect()
}

/// As `checks::OBSERVATIONS` asks for it.
pub(super) fn observation_row(
    said: &Said<'_, Observation>,
    facts: Option<&Said<'_, TraceFacts>>,
    book: &PriceBook,
) -> Value {
    let row = merge_observation(&sorted(said)).row;
    let facts = facts.map(|said| merge_trace(&sorted(said)).row).unwrap_or_default();
    let mut tags: Vec<&String> = row.tags.iter().chain(&facts.tags).collect();
    tags.sort_unstable();
    tags.dedup();
    let latency_ms = row.end_ns.zip(row.start_ns).map(|(end, start)| (end - start) / 1_000_000);
    json!({
        "trace_id": row.trace_id, "id": row.id, "name": row.name, "model": row.model,
        "user_id": row.user_id.clone().or(facts.user_id), "session_id": facts.session_id,
        "input_tokens": row.input_tokens, "output_tokens": row.output_tokens, "latency_ms": latency_ms,
        "tags": tags, "trace_name": facts.name, "start_ns": row.start_ns,
        "cost": cost(&row, book), "metadata": row.metadata,
    })
}

/// As the column prints.
fn cost(row: &Observation, book: &PriceBook) -> Option<String> {
    if !row.provided_cost.is_empty() {
        let parts = row.provided_cost.iter().filter(|(kind, _)| *kind != "total").map(|(_, pico)| pico).sum();
        return Some(
            Money::from_pico(row.provided_cost.get("total").copied().unwrap_or(parts)).to_decimal().to_string(),
        );
    }
    let usage = Quantities::from_inclusive(row.input_tokens, None, None, row.output_tokens, None, &row.usage);
    // Its price never changed.
    let ask = Ask {
        model: row.model.as_deref()?,
        provider: None,
        at_us: START_US,
        service_tier: None,
        speed: None,
        duration_us: None,
        usage: &usage,
    };
    Some(book.price(&ask)?.total.to_decimal().to_string())
}

pub(super) fn io_row(said: &Said<'_, Observation>) -> Option<Value> {
    let row = merge_observation(&sorted(said)).row;
    let has_text = row.input.is_some() || row.output.is_some();
    has_text.then(|| json!({"trace_id": row.trace_id, "id": row.id, "input": row.input, "output": row.output}))
}

pub(super) fn io_row_of_trace(said: &Said<'_, TraceFacts>) -> Option<Value> {
    let row = merge_trace(&sorted(said)).row;
    let has_text = row.input.is_some() || row.output.is_some();
    has_text.then(|| json!({"trace_id": row.trace_id, "id": "", "input": row.input, "output": row.output}))
}

pub(super) fn trace_row(said: &Said<'_, TraceFacts>) -> Value {
    let row = merge_trace(&sorted(said)).row;
    json!({
        "trace_id": row.trace_id, "name": row.name, "user_id": row.user_id, "session_id": row.session_id,
        "tags": row.tags, "metadata": row.metadata,
    })
}

pub(super) fn score_row(said: &Said<'_, Score>) -> Value {
    let row = merge_score(&sorted(said)).row;
    json!({"id": row.id, "value": row.value, "comment": row.comment})
}
