//! Our own proto, `tracelake.v1`: no dialects, so what is wrong is refused rather than guessed.

use std::collections::BTreeMap;

use prost::Message;

use super::dialect::Count;
use super::digest::digest;
use super::fit::fit;
use super::trace::{self, AboutTrace};
use super::value::{COUNT_MAX, environment, money_in, without_nul};
use super::{DecodeLimits, Decoded, reject, tools, usage};
use crate::model::{
    Event, EventBatch, EventKind, Level, Observation, ObservationType, Order, RejectReason, Rejection, Score,
    ScoreDataType, Status, TraceFacts,
};
use crate::wire;

const SOURCE: &str = "tracelake";
pub(super) const SCORE_SOURCES: [&str; 3] = ["API", "EVAL", "ANNOTATION"];

/// Decodes a request item by item: each is an event or a rejection. What observations say about their traces follows
/// as one event per trace.
pub fn ingest_request(request: wire::IngestRequest, limits: &DecodeLimits) -> Decoded {
    let items = (request.observations.len() + request.traces.len() + request.scores.len()) as u64;
    let mut batch = EventBatch::default();
    let mut rejections = Vec::new();
    let (mut said, mut media) = (Vec::new(), Vec::new());
    for item in request.observations {
        let decoded = observation(item, limits).and_then(|(mut event, about)| {
            fit(&mut event, true, limits, &mut media)?;
            Ok((event, about))
        });
        match decoded {
            Ok((event, about)) => {
                batch.events.push(event);
                said.push(about);
            }
            Err(rejection) => rejections.push(rejection),
        }
    }
    let facts = trace::facts(&batch.events, said);
    batch.events.extend(facts);
    // Facts about a trace are no row of their own in the books: only those refused are counted.
    let mut facts_kept = 0;
    for item in request.traces {
        let decoded = trace_facts(item, limits).and_then(|mut event| {
            fit(&mut event, true, limits, &mut media)?;
            Ok(event)
        });
        match decoded {
            Ok(event) => {
                batch.events.push(event);
                facts_kept += 1;
            }
            Err(rejection) => rejections.push(rejection),
        }
    }
    for item in request.scores {
        match score(item, limits) {
            Ok(event) => batch.events.push(event),
            Err(rejection) => rejections.push(rejection),
        }
    }
    batch.received = items - facts_kept;
    batch.count_rejections(&rejections);
    Decoded { batch, items, rejections, media }
}

fn observation(item: wire::Observation, limits: &DecodeLimits) -> Result<(Event, AboutTrace), Rejection> {
    let id = checked_id(&item.id, "id", &item.id, limits)?;
    let encoded = item.encode_to_vec();
    let trace_id = checked_id(&item.trace_id, "trace_id", &id, limits)?;
    let parent_id = optional_id(item.parent_id, "parent_id", &id, limits)?;
    let start_ns = time(item.start_unix_nano, "start_unix_nano", &id)?;
    let end_ns = time(item.end_unix_nano, "end_unix_nano", &id)?;
    let completion_start_ns = time(item.completion_start_unix_nano, "completion_start_unix_nano", &id)?;
    let event_ns = time(item.event_unix_nano, "event_unix_nano", &id)?.or(end_ns).or(start_ns);
    let level = word(item.level.as_deref(), "level", Level::from_word, &id)?;
    // A part without type and model says nothing about the type: it must not overwrite an earlier part's.
    let kind = word(item.r#type.as_deref(), "type", ObservationType::from_word, &id)?
        .or(item.model.is_some().then_some(ObservationType::Generation));
    let mut observation = Observation {
        trace_id,
        parent_id,
        observation_type: kind.map(Into::into),
        operation: item.operation.and_then(filled),
        name: item.name.and_then(filled),
        user_id: item.user_id.and_then(filled),
        session_id: item.session_id.and_then(filled),
        agent_id: item.agent_id.and_then(filled),
        agent_name: item.agent_name.and_then(filled),
        tool_name: item.tool_name.and_then(filled),
        environment: item.environment.map(|name| environment(&name)),
        release: item.release.and_then(filled),
        version: item.version.and_then(filled),
        tags: tags(item.tags),
        level: level.map(Into::into),
        status: (level == Some(Level::Error)).then_some(Status::Error.into()),
        error_type: item.error_type.and_then(filled),
        status_message: item.status_message.and_then(filled),
        finish_reasons: item.finish_reasons.into_iter().filter_map(filled).collect(),
        tools_offered: tools::each_once(item.tools_offered.into_iter().filter_map(filled)),
        tools_called: item.tools_called.into_iter().filter_map(filled).collect(),
        response_id: item.response_id.and_then(filled),
        start_ns,
        end_ns,
        completion_start_ns,
        model: item.model.and_then(filled),
        provider: item.provider.and_then(filled),
        model_parameters: clean(item.model_parameters),
        prompt_name: item.prompt_name.and_then(filled),
        prompt_version: item.prompt_version,
        provided_cost: costs(item.cost, &id)?,
        service_tier: item.service_tier.and_then(filled),
        metadata: clean(item.metadata),
        source: Some(SOURCE.to_owned()),
        input: item.input.map(without_nul),
        output: item.output.map(without_nul),
        ..Observation::default()
    };
    let mut counts = [None; Count::COUNT];
    for (count, name, said) in [
        (Count::Input, "input_tokens", item.input_tokens),
        (Count::CachedInput, "cached_input_tokens", item.cached_input_tokens),
        (Count::CacheWrite, "cache_write_tokens", item.cache_write_tokens),
        (Count::Output, "output_tokens", item.output_tokens),
        (Count::Reasoning, "reasoning_tokens", item.reasoning_tokens),
        (Count::Total, "total_tokens", item.total_tokens),
    ] {
        counts[count as usize] = checked_count(said, name, &id)?;
    }
    for (kind, count) in &item.usage {
        checked_count(Some(*count), kind, &id)?;
    }
    let others = item.usage.into_iter().map(|(kind, count)| (without_nul(kind), count)).collect();
    usage::from_counts(counts, others, usage::Custom::Inside).put(&mut observation, false);

    // A later part of an observation has no parent either; only the part that begins it tells a root.
    let begins = observation.start_ns.is_some() && observation.name.is_some();
    let about = AboutTrace {
        is_said: observation.user_id.is_some() || observation.session_id.is_some() || !observation.tags.is_empty(),
        is_part: !begins,
        ..AboutTrace::default()
    };
    observation.id = id;
    let order = order(event_ns, &encoded);
    Ok((Event { order, kind: Some(EventKind::Observation(observation)) }, about))
}

fn trace_facts(item: wire::Trace, limits: &DecodeLimits) -> Result<Event, Rejection> {
    let id = checked_id(&item.id, "id", &item.id, limits)?;
    let encoded = item.encode_to_vec();
    let start_ns = time(item.start_unix_nano, "start_unix_nano", &id)?;
    let event_ns = time(item.event_unix_nano, "event_unix_nano", &id)?.or(start_ns);
    let facts = TraceFacts {
        timestamp_us: start_ns.map(|ns| ns / 1000),
        name: item.name.and_then(filled),
        user_id: item.user_id.and_then(filled),
        session_id: item.session_id.and_then(filled),
        tags: tags(item.tags),
        release: item.release.and_then(filled),
        version: item.version.and_then(filled),
        environment: item.environment.map(|name| environment(&name)),
        public: item.public,
        metadata: clean(item.metadata),
        input: item.input.map(without_nul),
        output: item.output.map(without_nul),
        trace_id: id,
        ..TraceFacts::default()
    };
    Ok(Event { order: order(event_ns, &encoded), kind: Some(EventKind::Trace(facts)) })
}

fn score(item: wire::Score, limits: &DecodeLimits) -> Result<Event, Rejection> {
    let id = checked_id(&item.id, "id", &item.id, limits)?;
    let encoded = item.encode_to_vec();
    if encoded.len() > limits.span_bytes_max {
        let message = format!("it has {} bytes; the limit is {}", encoded.len(), limits.span_bytes_max);
        return Err(reject(id, RejectReason::TooLarge, message));
    }
    let trace_id = optional_id(item.trace_id, "trace_id", &id, limits)?;
    let observation_id = optional_id(item.observation_id, "observation_id", &id, limits)?;
    let session_id = optional_id(item.session_id, "session_id", &id, limits)?;
    let timestamp_ns = time(item.timestamp_unix_nano, "timestamp_unix_nano", &id)?;
    let invalid = |message: &str| reject(id.clone(), RejectReason::InvalidValue, message);
    if trace_id.is_none() && session_id.is_none() {
        return Err(reject(id, RejectReason::MissingId, "a score needs a trace_id or a session_id"));
    }
    if observation_id.is_some() && trace_id.is_none() {
        return Err(reject(id, RejectReason::MissingId, "a score of an observation needs the trace_id too"));
    }
    let name = filled(item.name).ok_or_else(|| invalid("a score needs a name"))?;
    let (data_type, value, string_value) = match item.value.ok_or_else(|| invalid("a score needs a value"))? {
        wire::score::Value::Numeric(value) if !value.is_finite() => {
            return Err(invalid("a score is a finite number"));
        }
        wire::score::Value::Numeric(value) => (ScoreDataType::Numeric, Some(value), None),
        wire::score::Value::Boolean(true) => (ScoreDataType::Boolean, Some(1.0), Some("True".to_owned())),
        wire::score::Value::Boolean(false) => (ScoreDataType::Boolean, Some(0.0), Some("False".to_owned())),
        wire::score::Value::Categorical(value) => (ScoreDataType::Categorical, None, Some(without_nul(value))),
        wire::score::Value::Text(value) => (ScoreDataType::Text, None, Some(without_nul(value))),
    };
    let source = item.source.and_then(filled).map_or("API".to_owned(), |source| source.to_ascii_uppercase());
    if !SCORE_SOURCES.contains(&source.as_str()) {
        return Err(invalid("a score's source is API, EVAL or ANNOTATION"));
    }
    let score = Score {
        trace_id,
        observation_id,
        session_id,
        name,
        data_type: data_type.into(),
        value,
        string_value,
        source: Some(source),
        comment: item.comment.and_then(filled),
        config_id: item.config_id.and_then(filled),
        environment: item.environment.map(|name| environment(&name)),
        timestamp_us: timestamp_ns.map(|ns| ns / 1000),
        metadata: clean(item.metadata),
        id,
        ..Score::default()
    };
    Ok(Event { order: order(timestamp_ns, &encoded), kind: Some(EventKind::Score(score)) })
}

pub(super) fn checked_id(id: &str, field: &str, shown: &str, limits: &DecodeLimits) -> Result<String, Rejection> {
    let shown = || shown.chars().take(80).collect::<String>();
    if id.is_empty() {
        return Err(reject(shown(), RejectReason::MissingId, format!("{field} is missing")));
    }
    if id.len() > limits.id_bytes_max {
        let message = format!("{field} has {} bytes; the limit is {}", id.len(), limits.id_bytes_max);
        return Err(reject(shown(), RejectReason::InvalidId, message));
    }
    if id.contains(['\0', '\r', '\n']) {
        return Err(reject(shown(), RejectReason::InvalidId, format!("{field} holds a NUL or a line break")));
    }
    Ok(id.to_owned())
}

/// An empty id is no id.
pub(super) fn optional_id(
    id: Option<String>,
    field: &str,
    shown: &str,
    limits: &DecodeLimits,
) -> Result<Option<String>, Rejection> {
    id.filter(|id| !id.is_empty()).map(|id| checked_id(&id, field, shown, limits)).transpose()
}

/// Zero is "not said", as in OTLP.
fn time(ns: Option<i64>, field: &str, id: &str) -> Result<Option<i64>, Rejection> {
    match ns {
        Some(ns) if ns < 0 => Err(reject(id, RejectReason::InvalidTime, format!("{field} lies before 1970: {ns}"))),
        Some(0) | None => Ok(None),
        said => Ok(said),
    }
}

fn word<T>(said: Option<&str>, field: &str, read: fn(&str) -> Option<T>, id: &str) -> Result<Option<T>, Rejection> {
    let Some(said) = said.filter(|said| !said.is_empty()) else { return Ok(None) };
    let unknown = || {
        let shown: String = said.chars().take(80).collect();
        reject(id, RejectReason::InvalidValue, format!("{field} is not one of its words: {shown:?}"))
    };
    read(said).map(Some).ok_or_else(unknown)
}

fn checked_count(count: Option<i64>, field: &str, id: &str) -> Result<Option<i64>, Rejection> {
    match count {
        Some(count) if !(0..=COUNT_MAX).contains(&count) => {
            Err(reject(id, RejectReason::InvalidValue, format!("{field} is not from 0 to {COUNT_MAX}: {count}")))
        }
        count => Ok(count),
    }
}

fn costs(said: BTreeMap<String, String>, id: &str) -> Result<BTreeMap<String, i64>, Rejection> {
    let invalid = |kind: &str, why: &str| {
        reject(id, RejectReason::InvalidCost, format!("the cost {kind:?} is not accepted: {why}"))
    };
    said.into_iter()
        .map(|(kind, text)| match money_in(&text) {
            Ok(Some(amount)) => Ok((without_nul(kind), amount.pico())),
            Ok(None) => Err(invalid(&kind, "it is not a decimal amount")),
            Err(why) => Err(invalid(&kind, &why)),
        })
        .collect()
}

fn tags(tags: Vec<String>) -> Vec<String> {
    let mut tags: Vec<String> = tags.into_iter().filter_map(filled).collect();
    tags.sort_unstable();
    tags.dedup();
    tags
}

fn filled(text: String) -> Option<String> {
    Some(without_nul(text)).filter(|text| !text.is_empty())
}

fn clean(pairs: BTreeMap<String, String>) -> BTreeMap<String, String> {
    pairs.into_iter().map(|(key, text)| (without_nul(key), without_nul(text))).collect()
}

fn order(event_ns: Option<i64>, encoded: &[u8]) -> Order {
    Order { event_time_us: event_ns.map_or(0, |ns| ns / 1000), is_update: false, event_id: digest(encoded) }
}
