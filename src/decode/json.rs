//! OTLP/JSON as senders write it, into OTLP's types: tolerant of every spelling seen, one span at a time.
//!
//! camelCase and snake_case; ids in hex or base64; numbers as numbers or text; enums as numbers or names; `{}` and null
//! for values; anything absent. A span that is still malformed is refused alone.

use super::loose::{Loose, Object};
use super::value::without_nul;
use super::{DecodeError, reject};
use crate::model::{RejectReason, Rejection};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span};

/// What is wrong with a span.
type Malformed = (RejectReason, String);

/// Reads a body: the request, and the spans that could not be read.
///
/// A text cut in the middle of a character (JavaScript writes half of a pair, others half of a sequence) spoils the
/// whole document for a strict reader, so such halves are replaced and the document is read again.
pub(super) fn request(body: &[u8]) -> Result<(ExportTraceServiceRequest, Vec<Rejection>), DecodeError> {
    let error = match serde_json::from_slice(body) {
        Ok(document) => return resources(document),
        Err(error) => error,
    };
    let repaired = without_lone_surrogates(String::from_utf8_lossy(body).into_owned());
    resources(serde_json::from_str(&repaired).map_err(|_| DecodeError::Json(error))?)
}

fn resources(document: Loose<'_>) -> Result<(ExportTraceServiceRequest, Vec<Rejection>), DecodeError> {
    let Loose::Object(mut document) = document else {
        return Err(DecodeError::Shape("the document is not an object"));
    };
    let Ok(resources) = list(document.take("resourceSpans", "resource_spans")) else {
        return Err(DecodeError::Shape("resourceSpans is not a list"));
    };
    let mut rejections = Vec::new();
    let resource_spans = resources.into_iter().map(|entry| resource_spans(entry, &mut rejections)).collect();
    Ok((ExportTraceServiceRequest { resource_spans }, rejections))
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

fn resource_spans(entry: Loose<'_>, rejections: &mut Vec<Rejection>) -> ResourceSpans {
    let Some(mut entry) = object(entry, "an entry of resourceSpans", rejections) else {
        return ResourceSpans::default();
    };
    let resource = match entry.take("resource", "resource") {
        Loose::Object(mut resource) => {
            let attributes = attributes(resource.take("attributes", "attributes")).unwrap_or_default();
            Some(Resource { attributes, ..Resource::default() })
        }
        _ => None,
    };
    let scopes = list(entry.take("scopeSpans", "scope_spans"));
    let scope_spans =
        or_reject(scopes, "scopeSpans", rejections).into_iter().map(|scope| scope_spans(scope, rejections)).collect();
    ResourceSpans { resource, scope_spans, ..ResourceSpans::default() }
}

fn scope_spans(entry: Loose<'_>, rejections: &mut Vec<Rejection>) -> ScopeSpans {
    let Some(mut entry) = object(entry, "an entry of scopeSpans", rejections) else {
        return ScopeSpans::default();
    };
    let scope = match entry.take("scope", "scope") {
        Loose::Object(mut scope) => Some(InstrumentationScope {
            name: text(scope.take("name", "name")),
            version: text(scope.take("version", "version")),
            attributes: attributes(scope.take("attributes", "attributes")).unwrap_or_default(),
            ..InstrumentationScope::default()
        }),
        _ => None,
    };
    let mut spans = Vec::new();
    for entry in or_reject(list(entry.take("spans", "spans")), "spans", rejections) {
        let Some(entry) = object(entry, "a span", rejections) else { continue };
        let id: String = entry.text("spanId", "span_id").unwrap_or_default().chars().take(32).collect();
        match span(entry) {
            Ok(span) => spans.push(span),
            Err((reason, message)) => rejections.push(reject(id, reason, message)),
        }
    }
    ScopeSpans { scope, spans, ..ScopeSpans::default() }
}

fn span(mut entry: Object<'_>) -> Result<Span, Malformed> {
    let mut field = |camel, snake| entry.take(camel, snake);
    Ok(Span {
        trace_id: id(field("traceId", "trace_id"), 16, "traceId")?,
        span_id: id(field("spanId", "span_id"), 8, "spanId")?,
        // A parent that cannot be read would never arrive: the span is kept, as a root.
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

fn events(entries: Loose<'_>) -> Result<Vec<span::Event>, Malformed> {
    let entries = list(entries).map_err(|()| malformed("events is not a list"))?;
    let events = entries.into_iter().filter_map(|entry| match entry {
        Loose::Object(mut entry) => Some(span::Event {
            time_unix_nano: time(entry.take("timeUnixNano", "time_unix_nano"), "timeUnixNano").unwrap_or_default(),
            name: text(entry.take("name", "name")),
            attributes: attributes(entry.take("attributes", "attributes")).unwrap_or_default(),
            ..span::Event::default()
        }),
        _ => None,
    });
    Ok(events.collect())
}

fn links(entries: Loose<'_>) -> Result<Vec<span::Link>, Malformed> {
    let entries = list(entries).map_err(|()| malformed("links is not a list"))?;
    let links = entries.into_iter().filter_map(|entry| match entry {
        Loose::Object(mut entry) => Some(span::Link {
            trace_id: id(entry.take("traceId", "trace_id"), 16, "traceId").unwrap_or_default(),
            span_id: id(entry.take("spanId", "span_id"), 8, "spanId").unwrap_or_default(),
            attributes: attributes(entry.take("attributes", "attributes")).unwrap_or_default(),
            ..span::Link::default()
        }),
        _ => None,
    });
    Ok(links.collect())
}

fn status(entry: Loose<'_>) -> Option<Status> {
    let Loose::Object(mut entry) = entry else { return None };
    let message = text(entry.take("message", "message"));
    let code = match entry.take("code", "code") {
        Loose::Integer(code) => i32::try_from(code).unwrap_or_default(),
        Loose::Text(name) => match name.trim_start_matches("STATUS_CODE_").to_ascii_uppercase().as_str() {
            "OK" | "1" => 1,
            "ERROR" | "2" => 2,
            _ => 0,
        },
        _ => 0,
    };
    Some(Status { message, code })
}

/// Hex in any case, or base64 (what protobuf's own JSON mapping writes). Absent is empty.
fn id(value: Loose<'_>, bytes: usize, name: &str) -> Result<Vec<u8>, Malformed> {
    let invalid = |shown: String| {
        let shown: String = shown.chars().take(80).collect();
        (RejectReason::InvalidId, format!("{name} is neither hex nor base64 of {bytes} bytes: {shown}"))
    };
    match value {
        Loose::Null => Ok(Vec::new()),
        Loose::Text(text) if text.is_empty() => Ok(Vec::new()),
        Loose::Text(text) => {
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
fn time(value: Loose<'_>, name: &str) -> Result<u64, Malformed> {
    let text = match value {
        Loose::Null => return Ok(0),
        Loose::Text(text) if text.trim().is_empty() => return Ok(0),
        Loose::Text(text) => text,
        Loose::Integer(ns) => {
            return u64::try_from(ns)
                .map_err(|_| (RejectReason::InvalidTime, format!("{name} lies before 1970: {ns}")));
        }
        Loose::Unsigned(ns) => return Ok(ns),
        Loose::Float(ns) => ns.to_string(),
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
fn attributes(value: Loose<'_>) -> Result<Vec<KeyValue>, ()> {
    let entries = list(value)?.into_iter().filter_map(|entry| {
        let Loose::Object(mut entry) = entry else { return None };
        let Loose::Text(key) = entry.take("key", "key") else { return None };
        Some(KeyValue { key, value: Some(any_value(entry.take("value", "value"))), ..KeyValue::default() })
    });
    Ok(entries.collect())
}

/// `{"stringValue": …}` and its like; `{}` and null are no value; bare JSON is taken for what it is.
fn any_value(value: Loose<'_>) -> AnyValue {
    let value = match value {
        Loose::Null => None,
        Loose::Object(wrapped) => wrapped.into_first().and_then(|(kind, value)| wrapped_value(&kind, value)),
        Loose::List(items) => Some(array(items)),
        other => scalar(other),
    };
    AnyValue { value }
}

fn wrapped_value(kind: &str, value: Loose<'_>) -> Option<Value> {
    match (kind, value) {
        (_, Loose::Null) => None,
        ("arrayValue" | "array_value", Loose::Object(mut inner)) => {
            Some(array(list(inner.take("values", "values")).unwrap_or_default()))
        }
        ("kvlistValue" | "kvlist_value", Loose::Object(mut inner)) => {
            let values = attributes(inner.take("values", "values")).unwrap_or_default();
            Some(Value::KvlistValue(KeyValueList { values }))
        }
        ("intValue" | "int_value", Loose::Text(text)) => {
            Some(text.trim().parse().map_or(Value::StringValue(text), Value::IntValue))
        }
        // "NaN" and "Infinity" are how JSON spells what it has no numbers for.
        ("doubleValue" | "double_value", Loose::Text(text)) => {
            Some(text.trim().parse().map_or(Value::StringValue(text), Value::DoubleValue))
        }
        ("doubleValue" | "double_value", Loose::Integer(number)) => Some(Value::DoubleValue(number as f64)),
        ("boolValue" | "bool_value", Loose::Text(text)) => {
            Some(text.trim().parse().map_or(Value::StringValue(text), Value::BoolValue))
        }
        ("bytesValue" | "bytes_value", Loose::Text(text)) => {
            Some(BASE64_STANDARD.decode(&text).map_or(Value::StringValue(text), Value::BytesValue))
        }
        (_, Loose::List(items)) => Some(array(items)),
        (_, other) => scalar(other),
    }
}

fn array(items: Vec<Loose<'_>>) -> Value {
    Value::ArrayValue(ArrayValue { values: items.into_iter().map(any_value).collect() })
}

fn scalar(value: Loose<'_>) -> Option<Value> {
    match value {
        Loose::Text(text) => Some(Value::StringValue(text)),
        Loose::Bool(flag) => Some(Value::BoolValue(flag)),
        Loose::Integer(number) => Some(Value::IntValue(number)),
        Loose::Unsigned(number) => Some(Value::DoubleValue(number as f64)),
        Loose::Float(number) => Some(Value::DoubleValue(number)),
        other => Some(Value::StringValue(other.to_string())),
    }
}

/// Absent is an empty list.
fn list(value: Loose<'_>) -> Result<Vec<Loose<'_>>, ()> {
    match value {
        Loose::Null => Ok(Vec::new()),
        Loose::List(items) => Ok(items),
        _ => Err(()),
    }
}

fn or_reject<'a>(list: Result<Vec<Loose<'a>>, ()>, name: &str, rejections: &mut Vec<Rejection>) -> Vec<Loose<'a>> {
    list.unwrap_or_else(|()| {
        rejections.push(reject("", RejectReason::Malformed, format!("{name} is not a list")));
        Vec::new()
    })
}

fn object<'a>(value: Loose<'a>, name: &str, rejections: &mut Vec<Rejection>) -> Option<Object<'a>> {
    match value {
        Loose::Object(object) => Some(object),
        Loose::Null => None,
        _ => {
            rejections.push(reject("", RejectReason::Malformed, format!("{name} is not an object")));
            None
        }
    }
}

/// Names and the like: text, or the text of a number.
fn text(value: Loose<'_>) -> String {
    match value {
        Loose::Null => String::new(),
        Loose::Text(text) => without_nul(text),
        other => other.to_string(),
    }
}

fn malformed(message: &str) -> Malformed {
    (RejectReason::Malformed, message.to_owned())
}
