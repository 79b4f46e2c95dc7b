//! What the spans of a request say about their traces, folded into one event per trace.

use std::collections::BTreeSet;

use prost::Message;

use super::digest::digest;
use crate::model::{Event, EventKind, Observation, Order, TraceFacts};

/// What one span says about its trace beside what stands on its observation.
#[derive(Debug, Default)]
pub(super) struct AboutTrace {
    /// The span carries a key that is about traces, so it has a say even if it is no root.
    pub(super) is_said: bool,
    /// A later part of an observation: that it names no parent does not make it a root.
    pub(super) is_part: bool,
    pub(super) version: Option<String>,
    pub(super) public: Option<bool>,
    pub(super) metadata: Vec<(String, String)>,
    pub(super) input: Option<String>,
    pub(super) output: Option<String>,
}

/// One event per trace about which `events` say something; `said` stands beside `events`.
///
/// The spans of a trace fold in the order of their ends, as events of the trace would: last said wins, the first
/// environment stays, tags are united.
pub(super) fn facts(events: &[Event], mut said: Vec<AboutTrace>) -> Vec<Event> {
    let mut speakers: Vec<(&Observation, &Order, usize)> = events
        .iter()
        .enumerate()
        .filter_map(|(at, event)| match &event.kind {
            Some(EventKind::Observation(observation)) => Some((observation, &event.order, at)),
            _ => None,
        })
        .filter(|(observation, _, at)| said[*at].is_said || is_root(observation, &said[*at]))
        .collect();
    speakers.sort_by(|a, b| (&a.0.trace_id, a.1).cmp(&(&b.0.trace_id, b.1)));
    speakers
        .chunk_by(|a, b| a.0.trace_id == b.0.trace_id)
        .map(|speakers| {
            let mut fold = Fold::new(&speakers[0].0.trace_id);
            for (observation, order, at) in speakers {
                fold.add(observation, order, std::mem::take(&mut said[*at]));
            }
            fold.finish()
        })
        .collect()
}

fn is_root(observation: &Observation, said: &AboutTrace) -> bool {
    !said.is_part && (observation.parent_id.is_none() || observation.root_mark == Some(true))
}

struct Fold<'a> {
    facts: TraceFacts,
    tags: BTreeSet<&'a String>,
    event_time_us: i64,
    /// A span without a parent is a better root than one with a mark, an earlier one better than a later one.
    root: Option<(bool, i64)>,
}

impl<'a> Fold<'a> {
    fn new(trace_id: &str) -> Self {
        let facts = TraceFacts { trace_id: trace_id.to_owned(), ..TraceFacts::default() };
        Self { facts, tags: BTreeSet::new(), event_time_us: i64::MIN, root: None }
    }

    fn add(&mut self, observation: &'a Observation, order: &Order, said: AboutTrace) {
        let is_root = is_root(observation, &said);
        let facts = &mut self.facts;
        self.event_time_us = self.event_time_us.max(order.event_time_us);
        let start_us = observation.start_ns.map(|start| start.div_euclid(1000));
        facts.timestamp_us = facts.timestamp_us.into_iter().chain(start_us).min();
        last_said(&mut facts.name, &observation.trace_name);
        last_said(&mut facts.user_id, &observation.user_id);
        last_said(&mut facts.session_id, &observation.session_id);
        last_said(&mut facts.release, &observation.release);
        last_said(&mut facts.version, &said.version);
        facts.public = said.public.or(facts.public);
        if facts.environment.is_none() {
            facts.environment.clone_from(&observation.environment);
        }
        self.tags.extend(&observation.tags);
        facts.metadata.extend(said.metadata);
        facts.input = said.input.or(facts.input.take());
        facts.output = said.output.or(facts.output.take());
        if is_root {
            let root = (observation.parent_id.is_some(), observation.start_ns.unwrap_or(i64::MAX));
            if self.root.is_none_or(|held| root < held) {
                self.root = Some(root);
                facts.root_id = Some(observation.id.clone());
                facts.root_name.clone_from(&observation.name);
            }
        }
    }

    fn finish(mut self) -> Event {
        self.facts.tags = self.tags.into_iter().cloned().collect();
        let event_id = digest(&self.facts.encode_to_vec());
        let order = Order { event_time_us: self.event_time_us, is_update: false, event_id };
        Event { order, kind: Some(EventKind::Trace(self.facts)) }
    }
}

/// Spans of one trace mostly repeat each other, so nothing is copied that stands there already.
fn last_said(held: &mut Option<String>, said: &Option<String>) {
    if said.is_some() && held != said {
        held.clone_from(said);
    }
}
