//! OTLP as it is spelled: what is read, what is refused alone, what is an error of the whole.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;
use serde_json::{Value, json};

use super::rules::{decoded, only};
use crate::base::Kind;
use crate::decode::{DecodeLimits, otlp_json, otlp_protobuf, otlp_request};
use crate::model::{EventKind, RejectReason};

const TRACE_ID: &str = "0af7651916cd43dd8448eb211c80319c";

pub(super) fn ids(number: u64) -> Value {
    json!({"traceId": TRACE_ID, "spanId": format!("b7ad6b71692033{number:02x}")})
}

pub(super) fn request(spans: Vec<Value>) -> Value {
    json!({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]})
}

/// Plain JSON as OTLP's list of wrapped values.
pub(super) fn wrapped(attributes: &Value) -> Value {
    let pairs = attributes.as_object().unwrap().iter();
    pairs.map(|(key, value)| json!({"key": key, "value": any_value(value)})).collect()
}

fn any_value(value: &Value) -> Value {
    match value {
        Value::Null => json!({}),
        Value::Bool(flag) => json!({"boolValue": flag}),
        Value::Number(number) if number.is_i64() => json!({"intValue": number.to_string()}),
        Value::Number(number) => json!({"doubleValue": number}),
        Value::String(text) => json!({"stringValue": text}),
        Value::Array(items) => json!({"arrayValue": {"values": items.iter().map(any_value).collect::<Vec<_>>()}}),
        Value::Object(_) => json!({"kvlistValue": {"values": wrapped(value)}}),
    }
}

fn with(mut span: Value, key: &str, value: Value) -> Value {
    span[key] = value;
    span
}

#[test]
fn every_spelling_of_json_reads_the_same() {
    let canonical = json!({
        "traceId": TRACE_ID, "spanId": "b7ad6b7169203331", "parentSpanId": "00f067aa0ba902b7", "name": "n",
        "startTimeUnixNano": "1795242103000000001", "endTimeUnixNano": "1795242104000000002",
        "attributes": [
            {"key": "int", "value": {"intValue": "9007199254740993"}}, {"key": "d", "value": {"doubleValue": 0.5}},
        ],
        "status": {"code": 2, "message": "m"},
    });
    let spellings = [
        with(canonical.clone(), "traceId", TRACE_ID.to_uppercase().into()),
        with(canonical.clone(), "traceId", "CvdlGRbNQ92ESOshHIAxnA==".into()),
        with(canonical.clone(), "spanId", "t61rcWkgMzE=".into()),
        with(canonical.clone(), "startTimeUnixNano", 1_795_242_103_000_000_001u64.into()),
        with(canonical.clone(), "status", json!({"code": "STATUS_CODE_ERROR", "message": "m"})),
        with(
            canonical.clone(),
            "attributes",
            json!([
                {"key": "int", "value": {"intValue": 9_007_199_254_740_993i64}},
                {"key": "d", "value": {"double_value": "0.5"}},
                {"value": {"stringValue": "no key"}}, 7,
            ]),
        ),
        json!({
            "trace_id": TRACE_ID, "span_id": "b7ad6b7169203331", "parent_span_id": "00f067aa0ba902b7", "name": "n",
            "start_time_unix_nano": "1795242103000000001", "end_time_unix_nano": 1_795_242_104_000_000_002u64,
            "attributes": [{"key": "int", "value": {"int_value": "9007199254740993"}}, {"key": "d", "value": 0.5}],
            "status": {"code": "ERROR", "message": "m"}, "events": null, "links": null, "unknown": [1],
        }),
    ];
    let wanted = decoded(canonical).batch;
    let (observation, _) = only(decoded(spellings[0].clone()));
    assert_eq!(
        (observation.start_ns, observation.attributes["int"].as_str()),
        (Some(1_795_242_103_000_000_001), "9007199254740993")
    );
    for spelling in spellings {
        assert_eq!(decoded(spelling.clone()).batch, wanted, "{spelling}");
    }
}

#[test]
fn one_bad_span_is_refused_and_its_neighbours_are_kept() {
    let cases = [
        (with(ids(1), "traceId", json!(null)), RejectReason::MissingId),
        (with(ids(1), "spanId", "0000000000000000".into()), RejectReason::MissingId),
        (with(ids(1), "traceId", "abc".into()), RejectReason::InvalidId),
        (with(ids(1), "spanId", 7.into()), RejectReason::InvalidId),
        (with(ids(1), "startTimeUnixNano", "9223372036854775808".into()), RejectReason::InvalidTime),
        (with(ids(1), "endTimeUnixNano", (-5).into()), RejectReason::InvalidTime),
        (with(ids(1), "startTimeUnixNano", "yesterday".into()), RejectReason::InvalidTime),
        (with(ids(1), "attributes", "none".into()), RejectReason::Malformed),
        (with(ids(1), "events", json!({"a": 1})), RejectReason::Malformed),
        (json!("span"), RejectReason::Malformed),
        (with(ids(1), "name", "x".repeat(300).into()), RejectReason::TooLarge),
    ];
    let limits = DecodeLimits { span_bytes_max: 200, ..DecodeLimits::default() };
    for (bad, reason) in cases {
        let body = request(vec![ids(2), bad.clone(), ids(3)]).to_string();
        let decoded = otlp_json(body.as_bytes(), &limits).unwrap();
        assert_eq!(decoded.rejections.len(), 1, "{bad}");
        assert_eq!(decoded.rejections[0].reason, reason, "{bad}");
        assert!(!decoded.rejections[0].message.is_empty());
        assert_eq!((decoded.batch.received, decoded.batch.rejected[reason.as_str()]), (3, 1));
        let kept = decoded.batch.events.iter().filter(|event| matches!(event.kind, Some(EventKind::Observation(_))));
        assert_eq!(kept.count(), 2, "{bad}");
    }
}

#[test]
fn a_span_with_texts_too_long_is_kept_with_them_cut() {
    let limits = DecodeLimits { span_bytes_max: 8_000, ..DecodeLimits::default() };
    let attributes =
        json!({"input.value": "x".repeat(9_000), "langfuse.trace.input": "y".repeat(9_000), "user.id": "u"});
    let body = request(vec![with(ids(1), "attributes", wrapped(&attributes))]).to_string();
    let (observation, facts) = only(otlp_json(body.as_bytes(), &limits).unwrap());
    assert_eq!(observation.user_id.as_deref(), Some("u"));
    let cut = |text: Option<String>, from: &str| {
        let text = text.unwrap();
        assert!(text.starts_with(from) && text.len() < 8_000 && text.ends_with(" bytes cut]"), "{}", text.len());
    };
    cut(observation.input, "xxx");
    cut(facts.input, "yyy");
    let gone: usize = observation.attributes["truncated_bytes"].parse().unwrap();
    assert!((1_000..2_000).contains(&gone) && facts.attributes.contains_key("truncated_bytes"), "{gone}");
}

#[test]
fn ids_of_the_wrong_length_are_refused_in_protobuf() {
    let reason = |trace_id: Vec<u8>, span_id: Vec<u8>| {
        let spans = vec![Span { trace_id, span_id, ..Span::default() }];
        let scope_spans = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
        let resource_spans = vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }];
        let decoded = otlp_request(ExportTraceServiceRequest { resource_spans }, &DecodeLimits::default());
        decoded.rejections.first().map(|rejection| rejection.reason)
    };
    assert_eq!(reason(vec![1; 16], vec![1; 8]), None);
    assert_eq!(reason(vec![1; 15], vec![1; 8]), Some(RejectReason::InvalidId));
    assert_eq!(reason(vec![1; 16], vec![1; 9]), Some(RejectReason::InvalidId));
    assert_eq!(reason(vec![], vec![1; 8]), Some(RejectReason::MissingId));
    assert_eq!(reason(vec![0; 16], vec![1; 8]), Some(RejectReason::MissingId));
}

#[test]
fn what_is_no_request_at_all_is_an_error() {
    let limits = DecodeLimits::default();
    for body in ["", "{", "[]", "7", "null", r#"{"resourceSpans": {}}"#, "\u{0}"] {
        assert_eq!(otlp_json(body.as_bytes(), &limits).unwrap_err().kind(), Kind::Invalid, "{body:?}");
    }
    assert_eq!(otlp_protobuf(b"not protobuf", &limits).unwrap_err().kind(), Kind::Invalid);
    for empty in ["{}", r#"{"resourceSpans": []}"#, r#"{"resourceSpans": [{}, null, {"scopeSpans": [{}]}]}"#] {
        let decoded = otlp_json(empty.as_bytes(), &limits).unwrap();
        assert_eq!((decoded.batch.received, decoded.batch.events.len()), (0, 0), "{empty}");
    }
    assert_eq!(otlp_protobuf(b"", &limits).unwrap().batch.received, 0);
}

#[test]
fn text_cut_within_a_character_does_not_spoil_the_request() {
    let whole = request(vec![with(ids(1), "name", "a CUT b".into())]).to_string();
    let name = |body: Vec<u8>| only(otlp_json(&body, &DecodeLimits::default()).unwrap()).0.name.unwrap();
    assert_eq!(name(whole.replace("CUT", r"\ud83d").into_bytes()), "a \u{fffd} b");
    assert_eq!(name(whole.replace("CUT", r"\\\udc00 \ud83d\ude00").into_bytes()), "a \\\u{fffd} \u{1f600} b");
    let (before, after) = whole.split_once("CUT").unwrap();
    assert_eq!(name([before.as_bytes(), b"\xf0\x9f", after.as_bytes()].concat()), "a \u{fffd} b");
}

#[test]
fn nul_leaves_every_text() {
    let span =
        with(with(ids(1), "name", "a\0b".into()), "attributes", wrapped(&json!({"k\0": "v\0", "user.id": "u\0"})));
    let (observation, _) = only(decoded(span));
    assert_eq!((observation.name.as_deref(), observation.user_id.as_deref()), (Some("ab"), Some("u")));
    assert_eq!(observation.attributes["k"], "v");
}

#[test]
fn absent_times_stay_absent() {
    let (observation, facts) = only(decoded(with(ids(1), "startTimeUnixNano", "0".into())));
    assert_eq!((observation.start_ns, observation.end_ns, facts.timestamp_us), (None, None, None));
    let event = &decoded(with(ids(1), "startTimeUnixNano", 5_000.into())).batch.events[0];
    assert_eq!((event.order.event_time_us, event.order.is_update), (5, false));
    assert_eq!(event.order.event_id.len(), 16);
}

#[test]
fn protobuf_and_json_of_one_request_agree() {
    let span = with(ids(1), "attributes", wrapped(&json!({"a": [1, "x"], "o": {"k": true}, "n": null})));
    let (request, malformed) =
        crate::decode::json::request(request(vec![span.clone()]).to_string().as_bytes()).unwrap();
    assert!(malformed.is_empty());
    let from_protobuf = otlp_protobuf(&request.encode_to_vec(), &DecodeLimits::default()).unwrap();
    assert_eq!(from_protobuf.batch, decoded(span).batch);
}
