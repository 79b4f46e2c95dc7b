//! Decoding alone, each wire format beside its bare parse loop; what looking for media costs, and what masking does.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::AnyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Said;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use serde_json::{Map, Value, json};
use tracelake::corpus::{TextSize, requests};
use tracelake::decode::{DecodeLimits, Sdk, langfuse_batch, otlp_json, otlp_protobuf};
use tracelake::masking::{BUILT_IN, Find, Mask, MaskingAction, MaskingRule};

use crate::Settings;
use crate::corpus::config;
use crate::report::{Baseline, Report};
use crate::timing::median;

const OBSERVATIONS_MAX: u64 = 50_000;
const SPANS_PER_REQUEST: usize = 100;

pub(crate) fn run(settings: &Settings, report: &mut Report) {
    let observations = settings.observations.clamp(1, OBSERVATIONS_MAX);
    for (name, observations, text) in
        [("no text", observations, TextSize::None), ("prompts", (observations / 10).max(1), TextSize::Prompts)]
    {
        let requests: Vec<_> = requests(config(observations, text), SPANS_PER_REQUEST).collect();
        let protobuf: Vec<Vec<u8>> = requests.iter().map(|request| request.encode_to_vec()).collect();
        let json: Vec<Vec<u8>> = requests.iter().map(|request| as_json(request).to_string().into_bytes()).collect();
        let classic: Vec<Vec<u8>> = requests.iter().map(|request| as_batch(request).to_string().into_bytes()).collect();
        let limits = DecodeLimits::default();
        let case = Case { name, observations };

        let parse = |body: &[u8]| ExportTraceServiceRequest::decode(body).expect("protobuf").resource_spans.len();
        let whole = |body: &[u8]| otlp_protobuf(body, &limits).expect("OTLP").batch.events.len();
        let decoded = case.of(report, "OTLP protobuf", &protobuf, parse, whole);
        let parse = |body: &[u8]| usize::from(serde_json::from_slice::<Value>(body).expect("JSON").is_object());
        case.of(report, "OTLP JSON", &json, parse, |body| otlp_json(body, &limits).expect("OTLP").batch.events.len());
        case.of(report, "classic batch", &classic, parse, |body| {
            langfuse_batch(body, &Sdk::default(), &limits).expect("a batch").decoded.batch.events.len()
        });

        let baseline = || Some(Baseline { name: "as usual", value: decoded });
        let without = DecodeLimits { takes_media: false, ..limits };
        let decode = |body: &[u8]| otlp_protobuf(body, &without).expect("OTLP").batch.events.len();
        case.timed(report, "OTLP protobuf, media left in texts", &protobuf, baseline(), decode);
        let mask = Mask::new(&every_rule(), "secret").expect("rules that ship");
        case.timed(report, "OTLP protobuf, masked by every built-in rule", &protobuf, baseline(), |body| {
            let mut batch = otlp_protobuf(body, &without).expect("OTLP").batch;
            mask.apply(&mut batch);
            batch.events.len()
        });
    }
    let nothing = [ExportTraceServiceRequest::default().encode_to_vec()];
    let case = Case { name: "without spans", observations: 1 };
    case.timed(report, "OTLP protobuf", &nothing, None, |body| {
        otlp_protobuf(body, &DecodeLimits::default()).expect("OTLP").batch.events.len()
    });
}

fn every_rule() -> Vec<MaskingRule> {
    let rule =
        |name: &&str| MaskingRule { name: (*name).to_owned(), find: Find::BuiltIn, action: MaskingAction::Redact };
    BUILT_IN.iter().map(rule).collect()
}

struct Case {
    name: &'static str,
    observations: u64,
}

impl Case {
    /// Beside the bare loop; returns spans per second of the decoder.
    fn of(
        &self,
        report: &mut Report,
        what: &str,
        bodies: &[Vec<u8>],
        parse: impl Fn(&[u8]) -> usize,
        decode: impl Fn(&[u8]) -> usize,
    ) -> f64 {
        let bare = median(|| (), |()| bodies.iter().map(|body| parse(body)).sum::<usize>());
        let baseline = Baseline { name: "bare parse", value: bare.per_second(self.observations) };
        self.timed(report, what, bodies, Some(baseline), decode)
    }

    fn timed(
        &self,
        report: &mut Report,
        what: &str,
        bodies: &[Vec<u8>],
        baseline: Option<Baseline>,
        decode: impl Fn(&[u8]) -> usize,
    ) -> f64 {
        let timed = median(|| (), |()| bodies.iter().map(|body| decode(body)).sum::<usize>());
        report.rate(&format!("{what}, {}", self.name), self.observations, "spans/s", &timed, baseline);
        timed.per_second(self.observations)
    }
}

fn spans(request: &ExportTraceServiceRequest) -> impl Iterator<Item = &Span> {
    request.resource_spans.iter().flat_map(|resource| &resource.scope_spans).flat_map(|scope| &scope.spans)
}

/// The request as clients of OTLP's JSON send it.
fn as_json(request: &ExportTraceServiceRequest) -> Value {
    let resources = request.resource_spans.iter().map(|resource| {
        let scopes = resource.scope_spans.iter().map(|scope| {
            let named = scope.scope.as_ref().map(|scope| json!({"name": scope.name, "version": scope.version}));
            json!({"scope": named, "spans": scope.spans.iter().map(span).collect::<Vec<_>>()})
        });
        let attributes = resource.resource.as_ref().map(|resource| pairs(&resource.attributes));
        json!({"resource": {"attributes": attributes}, "scopeSpans": scopes.collect::<Vec<_>>()})
    });
    json!({"resourceSpans": resources.collect::<Vec<_>>()})
}

fn span(span: &Span) -> Value {
    let mut said = json!({
        "traceId": hex::encode(&span.trace_id), "spanId": hex::encode(&span.span_id), "name": span.name,
        "kind": span.kind, "startTimeUnixNano": span.start_time_unix_nano.to_string(),
        "endTimeUnixNano": span.end_time_unix_nano.to_string(), "attributes": pairs(&span.attributes),
        "status": span.status.as_ref().map(|status| json!({"code": status.code, "message": status.message})),
    });
    if !span.parent_span_id.is_empty() {
        said["parentSpanId"] = hex::encode(&span.parent_span_id).into();
    }
    said
}

fn pairs(attributes: &[opentelemetry_proto::tonic::common::v1::KeyValue]) -> Vec<Value> {
    let value = |value: &AnyValue| wrapped(value);
    attributes.iter().map(|pair| json!({"key": pair.key, "value": pair.value.as_ref().map(value)})).collect()
}

fn wrapped(value: &AnyValue) -> Value {
    match &value.value {
        Some(Said::StringValue(text)) => json!({"stringValue": text}),
        Some(Said::BoolValue(flag)) => json!({"boolValue": flag}),
        Some(Said::IntValue(number)) => json!({"intValue": number.to_string()}),
        Some(Said::DoubleValue(number)) => json!({"doubleValue": number}),
        Some(Said::ArrayValue(list)) => {
            json!({"arrayValue": {"values": list.values.iter().map(wrapped).collect::<Vec<_>>()}})
        }
        _ => json!({}),
    }
}

/// What the spans say, as the classic clients of Langfuse say it.
fn as_batch(request: &ExportTraceServiceRequest) -> Value {
    let events = spans(request).map(|span| {
        let said = |key: &str| {
            let pair = span.attributes.iter().find(|pair| pair.key.ends_with(key))?;
            match pair.value.as_ref()?.value.as_ref()? {
                Said::StringValue(text) => Some(Value::from(text.as_str())),
                Said::IntValue(number) => Some((*number).into()),
                _ => None,
            }
        };
        let at = |ns: u64| chrono::DateTime::from_timestamp_nanos(ns as i64).to_rfc3339();
        let metadata: Map<String, Value> = ["tenant_id", "project_id", "flow_id", "channel"]
            .into_iter()
            .filter_map(|key| Some((key.to_owned(), said(key)?)))
            .collect();
        let id = hex::encode(&span.span_id);
        let parent = (!span.parent_span_id.is_empty()).then(|| hex::encode(&span.parent_span_id));
        let model = said("model.name").or_else(|| said("request.model"));
        let body = json!({
            "id": id, "traceId": hex::encode(&span.trace_id), "parentObservationId": parent, "name": span.name,
            "startTime": at(span.start_time_unix_nano), "endTime": at(span.end_time_unix_nano), "model": model,
            "metadata": metadata, "input": said("observation.input").or_else(|| said("input.messages")),
            "output": said("observation.output").or_else(|| said("output.messages")),
            "usage": {"input": said("input_tokens").or_else(|| said("count.prompt")),
                "output": said("output_tokens").or_else(|| said("count.completion"))},
        });
        let kind = if model.is_some() { "generation-create" } else { "span-create" };
        json!({"id": format!("event-{id}"), "type": kind, "timestamp": at(span.end_time_unix_nano), "body": body})
    });
    json!({"batch": events.collect::<Vec<_>>(), "metadata": {"sdk_name": "python", "sdk_version": "2.60.0"}})
}
