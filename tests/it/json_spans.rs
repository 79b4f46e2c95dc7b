//! OTLP in JSON, made by hand: spans with attributes as plain JSON, sent by the HTTP door.

use serde_json::{Value, json};

use crate::grpc::basic;
use crate::http::{HttpAnswer, HttpRequest};
use crate::process::{PUBLIC_KEY, SECRET_KEY, ServerProcess};

pub(crate) const START_NS: u64 = 1_790_000_000_000_000_000;

/// Trace `trace` as its hex id.
pub(crate) fn trace_id(trace: u8) -> String {
    format!("{trace:032x}")
}

pub(crate) fn span_id(id: u8) -> String {
    format!("{id:016x}")
}

/// A span of one second; `id` also says after how many microseconds it starts.
pub(crate) fn span(trace: u8, id: u8, parent: Option<u8>, name: &str, attributes: &Value) -> Value {
    json!({
        "traceId": trace_id(trace), "spanId": span_id(id), "parentSpanId": parent.map(span_id), "name": name,
        "startTimeUnixNano": (START_NS + u64::from(id) * 1000).to_string(),
        "endTimeUnixNano": (START_NS + 1_000_000_000 + u64::from(id)).to_string(),
        "attributes": wrapped(attributes),
    })
}

/// Plain JSON as OTLP's list of wrapped values.
pub(crate) fn wrapped(attributes: &Value) -> Value {
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

/// One request of spans of one scope; an empty scope is none.
pub(crate) fn export(scope: (&str, &str), resource: &Value, spans: &[Value]) -> Value {
    let scope = json!({"name": scope.0, "version": scope.1});
    let resource = json!({"attributes": wrapped(resource)});
    json!({"resourceSpans": [{"resource": resource, "scopeSpans": [{"scope": scope, "spans": spans}]}]})
}

/// Spans that all are taken.
pub(crate) async fn send(server: &ServerProcess, spans: &[Value]) {
    send_all(server, &export(("my.agent", "1"), &json!({}), spans), &[]).await;
}

/// A request that is taken whole, with these headers.
pub(crate) async fn send_all(server: &ServerProcess, body: &Value, headers: &[(&str, &str)]) {
    let answer = post(server, "/api/public/otel/v1/traces", body, headers).await;
    assert_eq!((answer.status, answer.text()), (200, "{}".to_owned()), "{body}");
}

/// Classic events that all are taken, in one batch.
pub(crate) async fn send_batch(server: &ServerProcess, events: &[Value]) {
    let answer = post(server, "/api/public/ingestion", &json!({ "batch": events }), &[]).await;
    assert!(answer.status == 207 && answer.text().contains("\"errors\":[]"), "{}", answer.text());
}

pub(crate) async fn post(server: &ServerProcess, path: &str, body: &Value, headers: &[(&str, &str)]) -> HttpAnswer {
    let mut request = HttpRequest::post(path, "application/json", body.to_string());
    for (name, value) in headers {
        request = request.header(name, value);
    }
    request.header("authorization", &basic(PUBLIC_KEY, SECRET_KEY)).send(&server.http_addr).await
}
