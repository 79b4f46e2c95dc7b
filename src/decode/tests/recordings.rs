//! Real clients: all that a client sent, decoded and merged, must say what `expected.json` says.
//!
//! Out of scope here and skipped: prices, and the wire's own counts.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use serde_json::{Value, json};

use super::fixtures::{Recording, Request, recordings};
use crate::base::Money;
use crate::decode::{
    DecodeError, DecodeLimits, Decoded, Posted, Sdk, langfuse_batch, langfuse_scores, otlp_json, otlp_protobuf,
};
use crate::model::{
    Event, EventKind, Level, Observation, Order, Score, ScoreDataType, Status, TraceFacts, merge_observation,
    merge_score, merge_trace,
};

/// One trace as a server would show it.
#[derive(Default)]
struct Trace {
    facts: TraceFacts,
    observations: Vec<Observation>,
    scores: Vec<Score>,
}

fn plain_body(recording: &Recording, request: &Request) -> Vec<u8> {
    let body = recording.body(request);
    match request.content_encoding.as_str() {
        "gzip" => {
            let mut plain = Vec::new();
            flate2::read::GzDecoder::new(&body[..]).read_to_end(&mut plain).unwrap();
            plain
        }
        _ => body,
    }
}

/// What a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wire {
    OtlpProtobuf,
    OtlpJson,
    LangfuseBatch,
    LangfuseScores,
}

impl Wire {
    fn of(request: &Request) -> Self {
        match (request.path.as_str(), request.content_type.contains("json")) {
            ("/api/public/ingestion", _) => Self::LangfuseBatch,
            ("/api/public/scores", _) => Self::LangfuseScores,
            (_, true) => Self::OtlpJson,
            (_, false) => Self::OtlpProtobuf,
        }
    }

    pub(super) fn decode(self, body: &[u8]) -> Result<Decoded, DecodeError> {
        let (limits, sdk) = (DecodeLimits::default(), Sdk::default());
        match self {
            Self::OtlpProtobuf => otlp_protobuf(body, &limits),
            Self::OtlpJson => otlp_json(body, &limits),
            Self::LangfuseBatch => Ok(langfuse_batch(body, &sdk, &limits)?.decoded),
            Self::LangfuseScores => {
                let posted = Posted { at_us: 1_795_242_103_549_089, new_id: "new" };
                Ok(langfuse_scores(body, posted, &sdk, &limits)?.0.decoded)
            }
        }
    }
}

pub(super) fn bodies(recording: &Recording) -> Vec<(Wire, Vec<u8>)> {
    let bodies = recording.run.requests.iter();
    bodies.map(|request| (Wire::of(request), plain_body(recording, request))).collect()
}

fn decode(recording: &Recording) -> Vec<Event> {
    let decoded = bodies(recording).into_iter().map(|(wire, body)| wire.decode(&body).unwrap());
    let mut events = Vec::new();
    for Decoded { batch, rejections, .. } in decoded {
        assert!(rejections.is_empty(), "{}: {rejections:?}", recording.client);
        let counted = batch.events.iter().filter(|event| !matches!(event.kind, Some(EventKind::Trace(_)))).count();
        assert_eq!(batch.received, counted as u64);
        events.extend(batch.events);
    }
    events
}

fn traces(mut events: Vec<Event>) -> BTreeMap<String, Trace> {
    events.sort_by(|a, b| a.order.cmp(&b.order));
    let mut observations: BTreeMap<(&str, &str), Vec<(&Order, &Observation)>> = BTreeMap::new();
    let mut facts: BTreeMap<&str, Vec<(&Order, &TraceFacts)>> = BTreeMap::new();
    let mut scores: BTreeMap<&str, Vec<(&Order, &Score)>> = BTreeMap::new();
    for Event { order, kind } in &events {
        match kind.as_ref().unwrap() {
            EventKind::Observation(said) => {
                observations.entry((&said.trace_id, &said.id)).or_default().push((order, said))
            }
            EventKind::Trace(said) => facts.entry(&said.trace_id).or_default().push((order, said)),
            EventKind::Score(said) => scores.entry(&said.id).or_default().push((order, said)),
        }
    }
    let mut traces: BTreeMap<String, Trace> = BTreeMap::new();
    for ((trace_id, _), events) in observations {
        traces.entry(trace_id.to_owned()).or_default().observations.push(merge_observation(&events).row);
    }
    for (trace_id, events) in facts {
        traces.entry(trace_id.to_owned()).or_default().facts = merge_trace(&events).row;
    }
    for score in scores.into_values().map(|events| merge_score(&events).row) {
        // Those of sessions belong to no trace.
        if let Some(trace_id) = score.trace_id.clone() {
            traces.entry(trace_id).or_default().scores.push(score);
        }
    }
    traces
}

fn count<'a>(words: impl Iterator<Item = &'a str>) -> Value {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for word in words {
        *counts.entry(word).or_default() += 1;
    }
    json!(counts)
}

fn is_error(observation: &Observation) -> bool {
    observation.level == Some(Level::Error.into()) || observation.status == Some(Status::Error.into())
}

fn name(observation: &Observation) -> &str {
    observation.name.as_deref().unwrap_or_default()
}

/// The facts of a trace in the shape of `expected.json`.
fn shown(trace: &Trace) -> Value {
    let (facts, observations) = (&trace.facts, &trace.observations);
    let ids: BTreeSet<&str> = observations.iter().map(|observation| observation.id.as_str()).collect();
    let is_root = |observation: &&Observation| {
        observation.root_mark == Some(true)
            || observation.parent_id.as_deref().is_none_or(|parent| !ids.contains(parent))
    };
    let sum = |of: fn(&Observation) -> Option<i64>| observations.iter().filter_map(of).sum::<i64>();
    let mut by_model: BTreeMap<&str, [i64; 4]> = BTreeMap::new();
    for observation in observations.iter().filter(|observation| observation.total_tokens.is_some_and(|total| total > 0))
    {
        let model = by_model.entry(observation.model.as_deref().unwrap_or_default()).or_default();
        let counts = [
            observation.input_tokens,
            observation.output_tokens,
            observation.cached_input_tokens,
            observation.total_tokens,
        ];
        for (sum, count) in model.iter_mut().zip(counts) {
            *sum += count.unwrap_or(0);
        }
    }
    let by_model: BTreeMap<_, _> = by_model
        .into_iter()
        .map(|(model, [input, output, cached, total])| {
            (model, json!({"input": input, "output": output, "cached": cached, "total": total}))
        })
        .collect();
    let cost = |observation: &Observation| {
        let of = |kind: &str| observation.provided_cost.get(kind).copied();
        of("total").unwrap_or_else(|| of("input").unwrap_or(0) + of("output").unwrap_or(0))
    };
    let environments: BTreeSet<&str> =
        observations.iter().map(|observation| observation.environment.as_deref().unwrap_or("default")).collect();
    let with_first_token: BTreeSet<&str> =
        observations.iter().filter(|observation| observation.completion_start_ns.is_some()).map(name).collect();
    let explicit_on: BTreeMap<&str, String> = observations
        .iter()
        .filter(|observation| cost(observation) > 0)
        .map(|observation| (name(observation), Money::from_pico(cost(observation)).to_string()))
        .collect();
    let mut error_names: Vec<&str> =
        observations.iter().filter(|observation| is_error(observation)).map(name).collect();
    error_names.sort_unstable();
    json!({
        "name": facts.name.as_ref().or(facts.root_name.as_ref()),
        "user_id": facts.user_id,
        "session_id": facts.session_id,
        "tags": facts.tags,
        "environments": environments,
        "release": facts.release,
        "version": facts.version,
        "observation_count": observations.len(),
        "observations_by_type": count(observations.iter().map(|observation| observation.observation_type().as_str())),
        "names": count(observations.iter().map(name)),
        "root_count": observations.iter().filter(is_root).count(),
        "error_count": error_names.len(),
        "error_names": error_names,
        "levels": count(observations.iter().map(|observation| observation.level().as_str())),
        "tokens": {
            "input": sum(|o| o.input_tokens),
            "output": sum(|o| o.output_tokens),
            "cached_input": sum(|o| o.cached_input_tokens),
            "reasoning": sum(|o| o.reasoning_tokens),
            "total": sum(|o| o.total_tokens),
        },
        "tokens_by_model": by_model,
        "explicit_total": Money::from_pico(observations.iter().map(cost).sum()).to_string(),
        "explicit_on": explicit_on,
        "with_first_token_time": with_first_token,
        "metadata": facts.metadata,
        "scores": shown_scores(&trace.scores),
    })
}

fn shown_scores(scores: &[Score]) -> Vec<Value> {
    let shown = |score: &Score| {
        let word = score.string_value.clone().filter(|_| score.data_type() != ScoreDataType::Boolean);
        json!({
            "name": score.name,
            "data_type": score.data_type().as_str(),
            "value": word.map_or(json!(score.value), Value::from),
            "on": if score.observation_id.is_some() { "observation" } else { "trace" },
            "comment": score.comment,
        })
    };
    let mut shown: Vec<Value> = scores.iter().map(shown).collect();
    shown.sort_by_key(|score| score["name"].to_string());
    shown
}

/// `expected`, as far as it is about what spans say.
fn wanted(expected: &Value) -> Value {
    let mut wanted = expected.clone();
    let object = wanted.as_object_mut().unwrap();
    let cost = object.remove("cost").unwrap();
    let money = |amount: &Value| amount.to_string().parse::<Money>().unwrap().to_string();
    object.insert("explicit_total".into(), money(&cost["explicit_total"]).into());
    let on: BTreeMap<_, _> =
        cost["explicit_on"].as_object().unwrap().iter().map(|(name, amount)| (name.clone(), money(amount))).collect();
    object.insert("explicit_on".into(), json!(on));
    let text = |value: &Value| value.as_str().map_or_else(|| compact(value), str::to_owned);
    let metadata: BTreeMap<_, _> =
        object["metadata"].as_object().unwrap().iter().map(|(key, value)| (key.clone(), text(value))).collect();
    object.insert("metadata".into(), json!(metadata));
    for score in object["scores"].as_array_mut().unwrap() {
        // `1` and `1.0` are one number.
        if let Some(number) = score["value"].as_f64() {
            score["value"] = json!(number);
        }
    }
    for elsewhere in
        ["soft", "service_version", "orphan_root_parent", "root_marked", "observation_metadata", "optional"]
    {
        object.remove(elsewhere);
    }
    wanted
}

fn compact(value: &Value) -> String {
    value.to_string()
}

/// Metadata is text; JSON in it may be spaced as the sender liked.
fn normal(mut shown: Value) -> Value {
    for value in shown["metadata"].as_object_mut().unwrap().values_mut() {
        let parsed = serde_json::from_str::<Value>(value.as_str().unwrap());
        if let Ok(parsed @ (Value::Object(_) | Value::Array(_))) = parsed {
            *value = compact(&parsed).into();
        }
    }
    shown
}

/// OpenInference has no trace metadata: `metadata` is united over the spans, and the expectation names only the keys
/// that are not ids of LangGraph's steps. So keys beyond the expected ones are let pass where it says `soft`.
fn as_agreed(mut shown: Value, expected: &Value) -> Value {
    let is_soft = expected["soft"].as_array().is_some_and(|soft| soft.contains(&"trace metadata".into()));
    if is_soft {
        shown["metadata"].as_object_mut().unwrap().retain(|key, _| expected["metadata"].get(key).is_some());
    }
    shown
}

fn differences(label: &str, shown: &Value, wanted: &Value) -> Vec<String> {
    wanted
        .as_object()
        .unwrap()
        .iter()
        .filter(|(field, wanted)| shown[field.as_str()] != **wanted)
        .map(|(field, wanted)| format!("{label}.{field}: got {}, want {wanted}", shown[field.as_str()]))
        .collect()
}

#[test]
fn every_client_says_what_is_expected_of_it() {
    let mut wrong = Vec::new();
    for recording in recordings() {
        let mut traces = traces(decode(&recording));
        let expected = &recording.expected;
        for (label, expected) in expected["traces"].as_object().unwrap() {
            let trace = traces.remove(&recording.run.trace_ids[label]).unwrap();
            let label = format!("{}.{label}", recording.client);
            assert_eq!(trace.facts.version, wanted(expected)["version"].as_str().map(str::to_owned), "{label}");
            wrong.extend(differences(&label, &as_agreed(normal(shown(&trace)), expected), &normal(wanted(expected))));
            wrong.extend(observation_metadata(&label, &trace, expected));
            wrong.extend(service_version(&label, &trace, expected));
        }
        let unlabelled = expected["traces_without_label"].as_array().unwrap();
        assert_eq!(traces.len(), unlabelled.len(), "{}: traces without a label", recording.client);
        for (trace, expected) in traces.values().zip(unlabelled) {
            let label = format!("{}.(unlabelled)", recording.client);
            wrong.extend(differences(&label, &normal(shown(trace)), &normal(wanted(expected))));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn observation_metadata(label: &str, trace: &Trace, expected: &Value) -> Vec<String> {
    let Some(expected) = expected.get("observation_metadata").and_then(Value::as_object) else { return Vec::new() };
    let mut wrong = Vec::new();
    for (named, wanted) in expected {
        let observation = trace.observations.iter().find(|observation| name(observation) == named).unwrap();
        for (key, wanted) in wanted.as_object().unwrap() {
            let wanted = wanted.as_str().map_or_else(|| compact(wanted), str::to_owned);
            if observation.metadata.get(key) != Some(&wanted) {
                wrong.push(format!("{label}.{named}.{key}: got {:?}, want {wanted}", observation.metadata.get(key)));
            }
        }
    }
    wrong
}

fn service_version(label: &str, trace: &Trace, expected: &Value) -> Vec<String> {
    let Some(wanted) = expected["service_version"].as_str() else { return Vec::new() };
    let right = trace.observations.iter().all(|observation| observation.version.as_deref() == Some(wanted));
    if right { Vec::new() } else { vec![format!("{label}: observations without version {wanted}")] }
}

#[test]
fn input_and_output_reach_their_columns() {
    for recording in recordings() {
        let mut with_both = 0;
        for trace in traces(decode(&recording)).values() {
            with_both += trace.observations.iter().filter(|o| o.input.is_some() && o.output.is_some()).count();
        }
        assert!(with_both > 0, "{}: no observation has input and output", recording.client);
    }
}

#[test]
fn a_request_decodes_to_the_same_events_each_time() {
    for recording in recordings() {
        assert_eq!(decode(&recording), decode(&recording), "{}", recording.client);
    }
}
