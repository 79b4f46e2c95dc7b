//! What was said, to whom, and what is known of its fate; and the rows that must come of it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::said::START_US;
use crate::base::Money;
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
}

#[derive(Debug, Default)]
pub(super) struct History {
    pub(super) requests: Vec<Request>,
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
