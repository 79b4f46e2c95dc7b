//! OTLP/JSON as senders write it, into OTLP's types: tolerant of every spelling seen, one span at a time.
//!
//! camelCase and snake_case; ids in hex or base64; numbers as numbers or text; enums as numbers or names; `{}` and null
//! for values; anything absent. A span that is still malformed is refused alone.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span};
use serde_json::Value as Json;

use super::{DecodeError, reject};
use crate::model::{RejectReason, Rejection};

type Object = serde_json::Map<String, Json>;
/// What is wrong with a span.
type Malformed = (RejectReason, String);

/// Reads a body: the request, and the spans that could not be read.
pub(super) fn request(body: &[u8]) -> Result<(ExportTraceServiceRequest, Vec<Rejection>), DecodeError> {
    let Json::Object(mut document) = document(body)? else {
        return Err(DecodeError::Shape("the document is not an object"));
    };
    let Ok(resources) = list(take(&mut document, "resourceSpans", "resource_spans")) else {
        return Err(DecodeError::Shape("resourceSpans is not a list"));
    };
    let mut rejections = Vec::new();
    let resource_spans = resources.into_iter().map(|entry| resource_spans(entry, &mut rejections)).collect();
    Ok((ExportTraceServiceRequest { resource_spans }, rejections))
}

/// A text cut in the middle of a character (JavaScript writes half of a pair, others half of a sequence) spoils the
/// whole document for a strict reader, so such halves are replaced and the document is read again.
fn document(body: &[u8]) -> Result<Json, DecodeError> {
    let error = match serde_json::from_slice(body) {
        Ok(document) => return Ok(document),
        Err(error) => error,
    };
    let repaired = without_lone_surrogates(String::from_utf8_lossy(body).into_owned());
    serde_json::from_str(&repaired).map_err(|_| DecodeError::Json(error))
}

/// Replaces `\uD800` to `\uDFFF` that have no partner by the replacement character.
fn without_lone_surrogates(text: String) -> String {
    let bytes = text.as_bytes();
    let unit = |at: usize| -> Option<u16> {
        let escape = bytes.get(at..at + 6)?;
        let digits = escape.strip_prefix(b"\\u")?;
        u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    let mut repaired = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let take = match unit(at) {
            Some(0xd800..=0xdbff) if matches!(unit(at + 6), Some(0xdc00..=0xdfff)) => 12,
            Some(0xd800..=0xdfff) => {
                repaired.extend_from_slice(b"\\ufffd");
                at += 6;
                continue;
            }
            Some(_) => 6,
            None if bytes[at] == b'\\' => 2,
            None => 1,
        };
        repaired.extend_from_slice(&bytes[at..bytes.len().min(at + take)]);
        at += take;
    }
    String::from_utf8(repaired).unwrap_or(text)
}

fn resource_spans(entry: Json, rejections: &mut Vec<Rejection>) -> ResourceSpans {
    let Some(mut entry) = object(entry, "an entry of resourceSpans", rejections) else {
        return ResourceSpans::default();
    };
    let resource = match take(&mut entry, "resource", "resource") {
        Json::Object(mut resource) => {
            let attributes = attributes(take(&mut resource, "attributes", "attributes")).unwrap_or_default();
            Some(Resource { attributes, ..Resource::default() })
        }
        _ => None,
    };
    let scopes = list(take(&mut entry, "scopeSpans", "scope_spans"));
    let scope_spans =
        or_reject(scopes, "scopeSpans", rejections).into_iter().map(|scope| scope_spans(scope, rejections)).collect();
    ResourceSpans { resource, scope_spans, ..ResourceSpans::default() }
}

fn scope_spans(entry: Json, rejections: &mut Vec<Rejection>) -> ScopeSpans {
    let Some(mut entry) = object(entry, "an entry of scopeSpans", rejections) else {
        return ScopeSpans::default();
    };
    let scope = match take(&mut entry, "scope", "scope") {
        Json::Object(mut scope) => Some(InstrumentationScope {
            name: text(take(&mut scope, "name", "name")),
            version: text(take(&mut scope, "version", "version")),
            attributes: attributes(take(&mut scope, "attributes", "attributes")).unwrap_or_default(),
            ..InstrumentationScope::default()
        }),
        _ => None,
    };
    let mut spans = Vec::new();
    for entry in or_reject(list(take(&mut entry, "spans", "spans")), "spans", rejections) {
        let Some(entry) = object(entry, "a span", rejections) else { continue };
        let id = entry.get("spanId").or_else(|| entry.get("span_id")).and_then(Json::as_str).unwrap_or_default();
        let id: String = id.chars().take(32).collect();
        match span(entry) {
            Ok(span) => spans.push(span),
            Err((reason, message)) => rejections.push(reject(id, reason, message)),
        }
    }
    ScopeSpans { scope, spans, ..ScopeSpans::default() }
}

fn span(mut entry: Object) -> Result<Span, Malformed> {
    let mut field = |camel: &str, snake: &str| take(&mut entry, camel, snake);
    Ok(Span {
        trace_id: id(field("traceId", "trace_id"), 16, "traceId")?,
        span_id: id(field("spanId", "span_id"), 8, "spanId")?,
        // A parent that cannot be read is a parent that never arrives.
        parent_span_id: id(field("parentSpanId", "parent_span_id"), 8, "parentSpanId").unwrap_or_default(),
        name: text(field("name", "name")),
        start_time_unix_nano: time(field("startTimeUnixNano", "start_time_unix_nano"), "startTimeUnixNano")?,
        end_time_unix_nano: time(field("endTimeUnixNano", "end_time_unix_nano"), "endTimeUnixNano")?,
        attributes: attributes(field("attributes", "attributes"))
            .map_err(|()| malformed("attributes is not a list"))?,
        events: events(field("events", "events"))?,
        links: links(field("links", "links"))?,
        status: status(field("status", "status")),
        ..Span::default()
    })
}

fn events(entries: Json) -> Result<Vec<span::Event>, Malformed> {
    let entries = list(entries).map_err(|()| malformed("events is not a list"))?;
    let events = entries.into_iter().filter_map(|entry| match entry {
        Json::Object(mut entry) => Some(span::Event {
            time_unix_nano: time(take(&mut entry, "timeUnixNano", "time_unix_nano"), "timeUnixNano")
                .unwrap_or_default(),
            name: text(take(&mut entry, "name", "name")),
            attributes: attributes(take(&mut entry, "attributes", "attributes")).unwrap_or_default(),
            ..span::Event::default()
        }),
        _ => None,
    });
    Ok(events.collect())
}

fn links(entries: Json) -> Result<Vec<span::Link>, Malformed> {
    let entries = list(entries).map_err(|()| malformed("links is not a list"))?;
    let links = entries.into_iter().filter_map(|entry| match entry {
        Json::Object(mut entry) => Some(span::Link {
            trace_id: id(take(&mut entry, "traceId", "trace_id"), 16, "traceId").unwrap_or_default(),
            span_id: id(take(&mut entry, "spanId", "span_id"), 8, "spanId").unwrap_or_default(),
            attributes: attributes(take(&mut entry, "attributes", "attributes")).unwrap_or_default(),
            ..span::Link::default()
        }),
        _ => None,
    });
    Ok(links.collect())
}

fn status(entry: Json) -> Option<Status> {
    let Json::Object(mut entry) = entry else { return None };
    let message = text(take(&mut entry, "message", "message"));
    let code = match take(&mut entry, "code", "code") {
        Json::Number(code) => code.as_i64().and_then(|code| i32::try_from(code).ok()).unwrap_or_default(),
        Json::String(name) => match name.trim_start_matches("STATUS_CODE_").to_ascii_uppercase().as_str() {
            "OK" | "1" => 1,
            "ERROR" | "2" => 2,
            _ => 0,
        },
        _ => 0,
    };
    Some(Status { message, code })
}

/// Hex in any case, or base64 (what protobuf's own JSON mapping writes). Absent is empty.
fn id(value: Json, bytes: usize, name: &str) -> Result<Vec<u8>, Malformed> {
    let invalid = |shown: String| {
        let shown: String = shown.chars().take(80).collect();
        (RejectReason::InvalidId, format!("{name} is neither hex nor base64 of {bytes} bytes: {shown}"))
    };
    match value {
        Json::Null => Ok(Vec::new()),
        Json::String(text) if text.is_empty() => Ok(Vec::new()),
        Json::String(text) => {
            let decoded = match text.len() == 2 * bytes {
                true => hex::decode(&text).ok(),
                false => BASE64_STANDARD.decode(&text).ok().filter(|decoded| decoded.len() == bytes),
            };
            decoded.ok_or_else(|| invalid(text))
        }
        other => Err(invalid(other.to_string())),
    }
}

/// Nanoseconds; absent is zero.
fn time(value: Json, name: &str) -> Result<u64, Malformed> {
    let text = match value {
        Json::Null => return Ok(0),
        Json::String(text) if text.trim().is_empty() => return Ok(0),
        Json::String(text) => text,
        Json::Number(number) => number.to_string(),
        other => return Err((RejectReason::InvalidTime, format!("{name} is not a time: {other}"))),
    };
    let text = text.trim();
    let rounded = || text.parse::<f64>().ok().filter(|ns| (0.0..1.8e19).contains(ns)).map(|ns| ns as u64);
    text.parse().ok().or_else(rounded).ok_or_else(|| {
        let shown: String = text.chars().take(80).collect();
        (RejectReason::InvalidTime, format!("{name} is not a number of nanoseconds since 1970: {shown}"))
    })
}

/// A list of keys and values; absent is empty. Entries without a key are left out.
fn attributes(value: Json) -> Result<Vec<KeyValue>, ()> {
    let entries = list(value)?.into_iter().filter_map(|entry| {
        let Json::Object(mut entry) = entry else { return None };
        let Json::String(key) = entry.remove("key")? else { return None };
        Some(KeyValue { key, value: Some(any_value(entry.remove("value").unwrap_or_default())), ..KeyValue::default() })
    });
    Ok(entries.collect())
}

/// `{"stringValue": …}` and its like; `{}` and null are no value; bare JSON is taken for what it is.
fn any_value(value: Json) -> AnyValue {
    let value = match value {
        Json::Null => None,
        Json::Object(wrapped) => wrapped.into_iter().next().and_then(|(kind, value)| wrapped_value(&kind, value)),
        Json::Array(items) => Some(array(items)),
        other => scalar(other),
    };
    AnyValue { value }
}

fn wrapped_value(kind: &str, value: Json) -> Option<Value> {
    match (kind, value) {
        (_, Json::Null) => None,
        ("arrayValue" | "array_value", Json::Object(mut inner)) => {
            Some(array(list(take(&mut inner, "values", "values")).unwrap_or_default()))
        }
        ("kvlistValue" | "kvlist_value", Json::Object(mut inner)) => {
            let values = attributes(take(&mut inner, "values", "values")).unwrap_or_default();
            Some(Value::KvlistValue(KeyValueList { values }))
        }
        ("intValue" | "int_value", Json::String(text)) => {
            Some(text.trim().parse().map_or(Value::StringValue(text), Value::IntValue))
        }
        // "NaN" and "Infinity" are how JSON spells what it has no numbers for.
        ("doubleValue" | "double_value", Json::String(text)) => {
            Some(text.trim().parse().map_or(Value::StringValue(text), Value::DoubleValue))
        }
        ("doubleValue" | "double_value", Json::Number(number)) => number.as_f64().map(Value::DoubleValue),
        ("boolValue" | "bool_value", Json::String(text)) => {
            Some(text.trim().parse().map_or(Value::StringValue(text), Value::BoolValue))
        }
        ("bytesValue" | "bytes_value", Json::String(text)) => {
            Some(BASE64_STANDARD.decode(&text).map_or(Value::StringValue(text), Value::BytesValue))
        }
        (_, Json::Array(items)) => Some(array(items)),
        (_, other) => scalar(other),
    }
}

fn array(items: Vec<Json>) -> Value {
    Value::ArrayValue(ArrayValue { values: items.into_iter().map(any_value).collect() })
}

fn scalar(value: Json) -> Option<Value> {
    match value {
        Json::String(text) => Some(Value::StringValue(text)),
        Json::Bool(flag) => Some(Value::BoolValue(flag)),
        Json::Number(number) => match number.as_i64() {
            Some(integer) => Some(Value::IntValue(integer)),
            None => number.as_f64().map(Value::DoubleValue),
        },
        other => Some(Value::StringValue(other.to_string())),
    }
}

fn take(object: &mut Object, camel: &str, snake: &str) -> Json {
    object.remove(camel).or_else(|| object.remove(snake)).unwrap_or_default()
}

/// Absent is an empty list.
fn list(value: Json) -> Result<Vec<Json>, ()> {
    match value {
        Json::Null => Ok(Vec::new()),
        Json::Array(items) => Ok(items),
        _ => Err(()),
    }
}

fn or_reject(list: Result<Vec<Json>, ()>, name: &str, rejections: &mut Vec<Rejection>) -> Vec<Json> {
    list.unwrap_or_else(|()| {
        rejections.push(reject("", RejectReason::Malformed, format!("{name} is not a list")));
        Vec::new()
    })
}

fn object(value: Json, name: &str, rejections: &mut Vec<Rejection>) -> Option<Object> {
    match value {
        Json::Object(object) => Some(object),
        Json::Null => None,
        _ => {
            rejections.push(reject("", RejectReason::Malformed, format!("{name} is not an object")));
            None
        }
    }
}

/// Names and the like: text, or the text of a number.
fn text(value: Json) -> String {
    match value {
        Json::Null => String::new(),
        other => super::value::plain(other),
    }
}

fn malformed(message: &str) -> Malformed {
    (RejectReason::Malformed, message.to_owned())
}
