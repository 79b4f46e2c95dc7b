//! What is said about traces: by their own events, and by observations that begin one.

use std::collections::BTreeMap;

use super::super::trace::AboutTrace;
use super::super::value::{environment, words_in};
use super::fields::{Fields, Invalid};
use super::observation::id;
use super::{Context, metadata};
use crate::model::{Event, EventKind, Observation, Order, TraceFacts, trace_bits as bits};

pub(super) fn read(mut body: Fields<'_>, context: &Context<'_>, about: &mut String) -> Result<Event, Invalid> {
    let trace_id = id("id", body.text("id")?.value().unwrap_or_else(|| context.new_id.to_owned()), context.limits)?;
    about.clone_from(&trace_id);
    let mut cleared = 0;
    let facts = TraceFacts {
        trace_id,
        timestamp_us: Some(body.time_ns("timestamp")?.value().map_or(context.event_us, |ns| ns.div_euclid(1000))),
        name: body.text("name")?.or_clear(&mut cleared, bits::name),
        user_id: body.text("userId")?.or_clear(&mut cleared, bits::user_id),
        session_id: body.text("sessionId")?.or_clear(&mut cleared, bits::session_id),
        tags: body.said("tags").value().map(|raw| words_in(raw.get())).unwrap_or_default(),
        release: body.text("release")?.or_clear(&mut cleared, bits::release),
        version: body.text("version")?.value(),
        environment: body.text("environment")?.value().map(|name| environment(&name)),
        // A trace told again without it is not public any more.
        public: Some(body.text("public")?.value().as_deref() == Some("true")),
        metadata: metadata(body.said("metadata")).into_iter().collect(),
        input: body.payload("input"),
        output: body.payload("output"),
        attributes: body.rest(context.limits.attributes_max),
        cleared,
        ..TraceFacts::default()
    };
    Ok(Event { order: context.order(false), kind: Some(EventKind::Trace(facts)) })
}

/// One event for each trace that an observation without a parent begins.
///
/// Such traces mostly have several; the one that started first names a trace without a name. Requests come in any
/// order, and what is ordered last wins: so these are ordered by their starts, backwards.
pub(super) fn roots(observations: &[Event], about: &[AboutTrace]) -> Vec<Event> {
    let mut first: BTreeMap<&str, (Order, &Observation)> = BTreeMap::new();
    for (event, about) in observations.iter().zip(about) {
        let Some(EventKind::Observation(observation)) = &event.kind else { continue };
        if about.is_part || observation.parent_id.is_some() {
            continue;
        }
        let started_us = observation.start_ns.map_or(0, |ns| ns.div_euclid(1000));
        let order = Order { event_time_us: -started_us, is_update: false, event_id: observation.id.clone() };
        match first.get_mut(observation.trace_id.as_str()) {
            Some(known) if known.0 >= order => {}
            Some(known) => *known = (order, observation),
            None => _ = first.insert(&observation.trace_id, (order, observation)),
        }
    }
    let event = |(order, root): (Order, &Observation)| {
        let facts = TraceFacts {
            trace_id: root.trace_id.clone(),
            timestamp_us: root.start_ns.map(|ns| ns.div_euclid(1000)),
            root_id: Some(root.id.clone()),
            root_name: root.name.clone(),
            cleared: if root.name.is_none() { bits::root_name } else { 0 },
            ..TraceFacts::default()
        };
        Event { order, kind: Some(EventKind::Trace(facts)) }
    };
    first.into_values().map(event).collect()
}
