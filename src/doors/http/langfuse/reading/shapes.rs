//! Traces, observations, sessions and scores in the shapes that Langfuse's clients read.

use std::collections::BTreeMap;

use chrono::{DateTime, SecondsFormat};
use serde_json::{Map, Value, json};

use super::super::super::{decimal_number, instant};
use super::unit_prices::UnitPrices;
use crate::base::TimestampUs;
use crate::query::records::{ObservationRecord, ScoreRecord, ScoredTrace, SessionRecord, TraceRecord};
use crate::wire::{Observation, ObservationText};

pub(super) fn instant_us(us: TimestampUs) -> String {
    DateTime::from_timestamp_micros(us).unwrap_or_default().to_rfc3339_opts(SecondsFormat::Micros, true)
}

fn instant_of_ns(ns: Option<i64>) -> Option<String> {
    ns.map(|ns| instant(ns.div_euclid(1_000)))
}

/// Exact decimal text as the number nearest to it.
fn number(decimal: Option<&String>) -> Value {
    decimal.and_then(|text| text.parse::<f64>().ok()).map_or(Value::Null, Value::from)
}

fn seconds(ms: Option<f64>) -> Option<f64> {
    ms.map(|ms| ms / 1e3)
}

/// A text that is JSON as what it says, any other as itself.
fn loose(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| text.into())
}

fn loose_map(map: &BTreeMap<String, String>) -> Value {
    map.iter().map(|(key, text)| (key.clone(), loose(text))).collect::<Map<_, _>>().into()
}

/// Numbers with a fraction stay texts: the clients' types know whole ones only.
fn parameters(map: &BTreeMap<String, String>) -> Value {
    let value = |text: &String| match loose(text) {
        Value::Number(number) if !number.is_i64() => text.as_str().into(),
        Value::Null => text.as_str().into(),
        other => other,
    };
    map.iter().map(|(key, text)| (key.clone(), value(text))).collect::<Map<_, _>>().into()
}

/// What of a trace is told; the rest is told as nothing.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parts {
    pub(super) io: bool,
    pub(super) scores: bool,
    pub(super) observations: bool,
    pub(super) metrics: bool,
}

pub(super) fn trace(trace: &TraceRecord, project: &str, parts: Parts) -> Map<String, Value> {
    let io = |text: &Option<String>| text.as_deref().filter(|_| parts.io).map_or(Value::Null, loose);
    let metrics = |value: Value| if parts.metrics { value } else { (-1).into() };
    let shown = json!({
        "id": trace.id,
        "externalId": null,
        "timestamp": instant(trace.timestamp_us),
        "name": trace.name,
        "userId": trace.user_id,
        "sessionId": trace.session_id,
        "metadata": if parts.io { loose_map(&trace.metadata) } else { Value::Null },
        "release": trace.release,
        "version": trace.version,
        "projectId": project,
        "environment": trace.environment.as_deref().unwrap_or("default"),
        "public": trace.is_public,
        "bookmarked": false,
        "tags": trace.tags,
        "input": io(&trace.input),
        "output": io(&trace.output),
        "createdAt": instant(trace.created_us),
        "updatedAt": instant(trace.updated_us),
        "observations": if parts.observations { &trace.observation_ids[..] } else { &[] },
        "scores": if parts.scores { &trace.score_ids[..] } else { &[] },
        "totalCost": metrics(trace.total_cost.as_ref().map_or(json!(0), |cost| number(Some(cost)))),
        "latency": metrics(json!(seconds(trace.latency_ms).unwrap_or_default())),
        "htmlPath": format!("/project/{project}/traces/{}", trace.id),
    });
    object(shown)
}

pub(super) fn session(session: &SessionRecord, project: &str) -> Map<String, Value> {
    object(json!({
        "id": session.id,
        "createdAt": instant(session.created_us),
        "projectId": project,
        "environment": session.environment.as_deref().unwrap_or("default"),
    }))
}

/// Of the first generation.
pub(super) fn observation(record: &ObservationRecord, project: &str, prices: &UnitPrices) -> Value {
    let (seen, said, price) = (&record.seen, said(record), prices.of(record));
    let text = record.text.clone().unwrap_or_default();
    let io = |text: &Option<String>| text.as_deref().map_or(Value::Null, loose);
    let count = |count: Option<i64>| count.unwrap_or_default();
    let (input, output, total) = (count(said.input_tokens), count(said.output_tokens), count(said.total_tokens));
    let usage = json!({
        "unit": "TOKENS", "input": input, "output": output, "total": total,
        "inputCost": number(seen.input_cost.as_ref()), "outputCost": number(seen.output_cost.as_ref()),
        "totalCost": number(seen.total_cost.as_ref()),
    });
    let mut shown = object(json!({
        "id": said.id,
        "traceId": said.trace_id,
        "projectId": project,
        "parentObservationId": said.parent_id,
        "name": said.name,
        "type": said.r#type.as_deref().unwrap_or("SPAN"),
        "environment": said.environment.as_deref().unwrap_or("default"),
        "startTime": instant(seen.start_unix_micros),
        "endTime": instant_of_ns(said.end_unix_nano),
        "completionStartTime": instant_of_ns(said.completion_start_unix_nano),
        "version": said.version,
        "createdAt": instant(seen.ingested_unix_micros),
        "updatedAt": instant(seen.ingested_unix_micros),
        "input": io(&text.input),
        "output": io(&text.output),
        "metadata": loose_map(&said.metadata),
        "level": said.level.as_deref().unwrap_or("DEFAULT"),
        "statusMessage": said.status_message,
        "model": said.model,
        "modelParameters": parameters(&said.model_parameters),
        "promptId": null,
        "promptName": said.prompt_name,
        "promptVersion": said.prompt_version,
        "usageDetails": said.usage,
        "costDetails": costs(record),
        "usage": usage,
        "unit": "TOKENS",
        "promptTokens": input,
        "completionTokens": output,
        "totalTokens": total,
    }));
    shown.extend(object(json!({
        "usagePricingTierId": seen.price_id,
        "usagePricingTierName": tier(record),
        "modelId": seen.model_id,
        "inputPrice": price.input.map(decimal_number),
        "outputPrice": price.output.map(decimal_number),
        "totalPrice": null,
        "calculatedInputCost": number(seen.input_cost.as_ref()),
        "calculatedOutputCost": number(seen.output_cost.as_ref()),
        "calculatedTotalCost": number(seen.total_cost.as_ref()),
        "latency": seconds(seen.latency_ms),
        "timeToFirstToken": seconds(seen.ttft_ms),
    })));
    shown.into()
}

/// Groups of fields of the second generation.
#[derive(Debug, Clone)]
pub(super) struct Groups {
    pub(super) names: Vec<String>,
    /// Keys of metadata that are told whole.
    pub(super) whole: Vec<String>,
    /// Inputs and outputs as what they say rather than as texts.
    pub(super) parse_io: bool,
}

/// Of one value of metadata, unless it is told whole.
const METADATA_CHARS_MAX: usize = 200;

impl Groups {
    pub(super) fn has(&self, name: &str) -> bool {
        self.names.iter().any(|known| known == name)
    }

    fn metadata(&self, map: &BTreeMap<String, String>) -> Value {
        let value = |key: &String, text: &String| match text.char_indices().nth(METADATA_CHARS_MAX) {
            Some((end, _)) if !self.whole.contains(key) => text[..end].into(),
            _ => loose(text),
        };
        map.iter().map(|(key, text)| (key.clone(), value(key, text))).collect::<Map<_, _>>().into()
    }
}

/// Of the second generation: only the groups that were asked for.
pub(super) fn observation_in_groups(
    record: &ObservationRecord,
    project: &str,
    groups: &Groups,
    prices: &UnitPrices,
) -> Value {
    let (seen, said, price) = (&record.seen, said(record), prices.of(record));
    let ObservationText { input, output, .. } = record.text.clone().unwrap_or_default();
    let io = |text: Option<String>| match text {
        Some(text) if groups.parse_io => loose(&text),
        text => text.into(),
    };
    let group = |name: &str| match name {
        "core" => json!({
            "id": said.id,
            "traceId": said.trace_id,
            "startTime": instant(seen.start_unix_micros),
            "endTime": instant_of_ns(said.end_unix_nano),
            "projectId": project,
            "parentObservationId": said.parent_id,
            "type": said.r#type.as_deref().unwrap_or("SPAN"),
            "modelId": null,
            "inputPrice": null,
            "outputPrice": null,
            "totalPrice": null,
        }),
        "basic" => json!({
            "name": said.name,
            "level": said.level.as_deref().unwrap_or("DEFAULT"),
            "statusMessage": said.status_message,
            "version": said.version,
            "environment": said.environment.as_deref().unwrap_or("default"),
            "bookmarked": false,
            "public": false,
            "userId": said.user_id,
            "sessionId": said.session_id,
            "isRootObservation": seen.is_root,
        }),
        "time" => json!({
            "completionStartTime": instant_of_ns(said.completion_start_unix_nano),
            "createdAt": instant(seen.ingested_unix_micros),
            "updatedAt": instant(seen.ingested_unix_micros),
        }),
        "io" => json!({ "input": io(input.clone()), "output": io(output.clone()) }),
        "metadata" => json!({ "metadata": groups.metadata(&said.metadata) }),
        "model" => json!({
            "model": said.model,
            "providedModelName": said.model,
            "internalModelId": seen.model_id,
            "modelId": seen.model_id,
            "inputPrice": price.input.map(|usd| usd.to_string()),
            "outputPrice": price.output.map(|usd| usd.to_string()),
            "modelParameters": parameters(&said.model_parameters),
        }),
        "usage" => json!({
            "usageDetails": said.usage,
            "costDetails": costs(record),
            "totalCost": number(seen.total_cost.as_ref()),
            "usagePricingTierName": tier(record),
        }),
        "prompt" => json!({
            "promptId": null, "promptName": said.prompt_name, "promptVersion": said.prompt_version,
        }),
        "metrics" => json!({ "latency": seconds(seen.latency_ms), "timeToFirstToken": seconds(seen.ttft_ms) }),
        "trace_context" => json!({ "tags": said.tags, "release": said.release, "traceName": seen.trace_name }),
        _ => json!({}),
    };
    let mut shown = object(group("core"));
    groups.names.iter().filter(|name| *name != "core").for_each(|name| shown.extend(object(group(name))));
    shown.into()
}

fn said(record: &ObservationRecord) -> Observation {
    record.seen.observation.clone().unwrap_or_default()
}

/// By kind, and in whole.
fn costs(record: &ObservationRecord) -> Value {
    let mut costs: Map<String, Value> =
        said(record).cost.iter().map(|(kind, cost)| (kind.clone(), number(Some(cost)))).collect();
    let whole =
        [("input", &record.seen.input_cost), ("output", &record.seen.output_cost), ("total", &record.seen.total_cost)];
    for (kind, cost) in whole {
        if let Some(cost) = cost {
            costs.entry(kind).or_insert_with(|| number(Some(cost)));
        }
    }
    costs.into()
}

/// The last part of a price's id.
fn tier(record: &ObservationRecord) -> Option<&str> {
    record.seen.price_id.as_deref().and_then(|id| id.rsplit('/').next())
}

/// Of the first and second generation.
pub(super) fn score(score: &ScoreRecord, project: &str) -> Map<String, Value> {
    let mut shown = object(json!({
        "id": score.id,
        "projectId": project,
        "traceId": score.trace_id,
        "observationId": score.observation_id,
        "sessionId": score.session_id,
        "datasetRunId": score.dataset_run_id,
        "name": score.name,
        "dataType": score.data_type,
        "source": score.source.as_deref().unwrap_or("API"),
        "comment": score.comment,
        "configId": score.config_id,
        "queueId": score.queue_id,
        "authorUserId": null,
        "environment": score.environment.as_deref().unwrap_or("default"),
        "metadata": loose_map(&score.metadata),
        "timestamp": instant(score.timestamp_us),
        "createdAt": instant(score.created_us),
        "updatedAt": instant(score.created_us),
    }));
    if score.data_type != "TEXT" {
        shown.insert("value".to_owned(), score.value.unwrap_or_default().into());
    }
    if score.data_type != "NUMERIC" {
        shown.insert("stringValue".to_owned(), score.string_value.as_deref().unwrap_or_default().into());
    }
    shown
}

pub(super) fn scored_trace(trace: &ScoredTrace) -> Value {
    json!({
        "userId": trace.user_id,
        "sessionId": trace.session_id,
        "environment": trace.environment.as_deref().unwrap_or("default"),
        "tags": trace.tags,
    })
}

/// Of the third generation; `groups`: details, subject, annotation.
pub(super) fn score_in_groups(score: &ScoreRecord, project: &str, groups: &[String]) -> Value {
    let value: Value = match score.data_type.as_str() {
        "NUMERIC" => score.value.unwrap_or_default().into(),
        "BOOLEAN" => (score.value.unwrap_or_default() != 0.0).into(),
        _ => score.string_value.as_deref().unwrap_or_default().into(),
    };
    let mut shown = object(json!({
        "id": score.id,
        "projectId": project,
        "name": score.name,
        "value": value,
        "dataType": score.data_type,
        "source": score.source.as_deref().unwrap_or("API"),
        "timestamp": instant(score.timestamp_us),
        "environment": score.environment.as_deref().unwrap_or("default"),
        "createdAt": instant(score.created_us),
        "updatedAt": instant(score.created_us),
    }));
    let has = |name: &str| groups.iter().any(|group| group == name);
    if has("details") {
        let metadata = loose_map(&score.metadata);
        shown.extend(object(json!({ "comment": score.comment, "configId": score.config_id, "metadata": metadata })));
    }
    if has("subject") {
        shown.insert("subject".to_owned(), subject(score));
    }
    if has("annotation") {
        shown.extend(object(json!({ "authorUserId": null, "queueId": score.queue_id })));
    }
    shown.into()
}

fn subject(score: &ScoreRecord) -> Value {
    let of = |kind: &str, id: &String| json!({ "kind": kind, "id": id });
    match (&score.observation_id, &score.trace_id, &score.session_id, &score.dataset_run_id) {
        (Some(id), trace, ..) => json!({ "kind": "observation", "id": id, "traceId": trace }),
        (None, Some(id), ..) => of("trace", id),
        (None, None, Some(id), _) => of("session", id),
        (None, None, None, Some(id)) => of("experiment", id),
        (None, None, None, None) => Value::Null,
    }
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        _ => Map::new(),
    }
}
