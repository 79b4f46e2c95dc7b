//! The events of a span: exceptions, first tokens, messages; the rest is kept as it came.

use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::span::Event;
use serde_json::json;

use super::bag::Bag;
use super::dialect::{
    CONTENT_EVENTS, DETAILS_EVENT, EXCEPTION_EVENT, FIRST_TOKEN_EVENTS, MESSAGE_EVENTS, Slot, VIA_CONTENT, VIA_DETAILS,
    VIA_LIST, VIA_MESSAGES,
};
use super::value::{filled_text, object_json, text, without_nul};
use crate::model::Observation;

/// Reads `events` into the observation and the bag.
pub(super) fn read(events: Vec<Event>, observation: &mut Observation, bag: &mut Bag) {
    if events.is_empty() {
        return;
    }
    let (mut rest, mut asked, mut answered) = (Vec::new(), Vec::new(), Vec::new());
    let mut has_exception = false;
    for mut event in events {
        let name = event.name.as_str();
        if name == EXCEPTION_EVENT && !has_exception {
            has_exception = true;
            exception(&mut event, observation);
        } else if FIRST_TOKEN_EVENTS.contains(&name) {
            let first = i64::try_from(event.time_unix_nano).ok().filter(|time| *time > 0);
            observation.completion_start_ns = observation.completion_start_ns.or(first);
        } else if name == DETAILS_EVENT {
            for attribute in std::mem::take(&mut event.attributes) {
                match attribute.key.as_str() {
                    "gen_ai.input.messages" => offer(bag, Slot::Input, VIA_DETAILS[0], attribute),
                    "gen_ai.output.messages" => offer(bag, Slot::Output, VIA_DETAILS[1], attribute),
                    _ => event.attributes.push(attribute),
                }
            }
        } else if let Some((_, is_output, role)) = MESSAGE_EVENTS.iter().find(|(known, ..)| *known == name) {
            let mut message = object_json(std::mem::take(&mut event.attributes));
            if let Some(message) = message.as_object_mut() {
                message.entry("role").or_insert_with(|| (*role).into());
            }
            if *is_output {
                answered.push(message)
            } else {
                asked.push(message)
            }
            continue;
        } else if let Some((_, is_output, key)) = CONTENT_EVENTS.iter().find(|(known, ..)| *known == name) {
            let (slot, via) = if *is_output { (Slot::Output, VIA_CONTENT[1]) } else { (Slot::Input, VIA_CONTENT[0]) };
            if let Some(at) = event.attributes.iter().position(|attribute| attribute.key == *key) {
                offer(bag, slot, via, event.attributes.swap_remove(at));
            }
        } else {
            rest.push(whole(event));
            continue;
        }
        // What was read is kept only if it says more.
        if !event.attributes.is_empty() {
            rest.push(whole(event));
        }
    }
    if !asked.is_empty() {
        bag.offer_text(Slot::Input, VIA_MESSAGES[0], json!(asked).to_string());
    }
    if !answered.is_empty() {
        bag.offer_text(Slot::Output, VIA_MESSAGES[1], json!(answered).to_string());
    }
    if !rest.is_empty() {
        bag.keep_text("events".to_owned(), json!(rest).to_string());
    }
}

/// A list of message events that came as one attribute: what was answered is output, all else is input.
pub(super) fn read_list(bag: &mut Bag) {
    let is_list = |text: &str| serde_json::from_str::<Vec<serde_json::Map<String, serde_json::Value>>>(text).ok();
    let Some(events) = bag.peek_text(Slot::MessageEvents).and_then(is_list) else {
        return bag.return_slot(Slot::MessageEvents);
    };
    let is_answer = |event: &serde_json::Map<String, serde_json::Value>| {
        event.get("event.name").is_some_and(|name| name == "gen_ai.choice")
    };
    let (answered, asked): (Vec<_>, Vec<_>) = events.into_iter().partition(is_answer);
    if !bag.beats(Slot::Input, VIA_LIST[0]) || !bag.beats(Slot::Output, VIA_LIST[1]) {
        return bag.return_slot(Slot::MessageEvents);
    }
    bag.take(Slot::MessageEvents);
    for (slot, via, events) in [(Slot::Input, VIA_LIST[0], asked), (Slot::Output, VIA_LIST[1], answered)] {
        if !events.is_empty() {
            bag.offer_text(slot, via, json!(events).to_string());
        }
    }
}

/// Takes what has a column out of the event.
fn exception(event: &mut Event, observation: &mut Observation) {
    for attribute in std::mem::take(&mut event.attributes) {
        let column = match attribute.key.as_str() {
            "exception.type" => &mut observation.error_type,
            "exception.message" => &mut observation.status_message,
            "exception.stacktrace" => &mut observation.exception_stacktrace,
            "exception.escaped" => continue,
            _ => {
                event.attributes.push(attribute);
                continue;
            }
        };
        *column = value_of(attribute).and_then(filled_text).or(column.take());
    }
}

fn offer(bag: &mut Bag, slot: Slot, via: &'static str, attribute: KeyValue) {
    if let Some(value) = value_of(attribute) {
        bag.offer_text(slot, via, text(value));
    }
}

fn value_of(attribute: KeyValue) -> Option<Value> {
    attribute.value?.value
}

fn whole(event: Event) -> serde_json::Value {
    json!({
        "name": without_nul(event.name),
        "time_unix_nano": event.time_unix_nano,
        "attributes": object_json(event.attributes),
    })
}
