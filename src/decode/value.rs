//! OTLP values as text, numbers, lists and JSON. Nothing here fails on bad input: it answers `None` or keeps the text.

use std::collections::BTreeMap;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use serde_json::value::RawValue;

use crate::base::{Money, MoneyError};

/// The value as it stands in a column: text as it is, anything else as JSON.
pub(super) fn text(value: Value) -> String {
    match value {
        Value::StringValue(text) => without_nul(text),
        other => json(other).to_string(),
    }
}

/// As [`text`], if there is anything to say.
pub(super) fn filled_text(value: Value) -> Option<String> {
    Some(text(value)).filter(|text| !text.is_empty())
}

pub(super) fn is_empty(value: &Value) -> bool {
    match value {
        Value::StringValue(text) => text.is_empty(),
        Value::ArrayValue(list) => list.values.is_empty(),
        Value::KvlistValue(list) => list.values.is_empty(),
        Value::BytesValue(bytes) => bytes.is_empty(),
        Value::StringValueStrindex(_) => true,
        Value::BoolValue(_) | Value::IntValue(_) | Value::DoubleValue(_) => false,
    }
}

/// NUL can stand in no text column of the engines that read these tables.
pub(super) fn without_nul(mut text: String) -> String {
    if text.as_bytes().contains(&0) {
        text.retain(|character| character != '\0');
    }
    text
}

pub(super) fn json(value: Value) -> serde_json::Value {
    match value {
        Value::StringValue(text) => without_nul(text).into(),
        Value::BoolValue(flag) => flag.into(),
        Value::IntValue(number) => number.into(),
        // JSON has no word for these, so they stand as text.
        Value::DoubleValue(number) if !number.is_finite() => number.to_string().into(),
        Value::DoubleValue(number) => number.into(),
        Value::ArrayValue(list) => list.values.into_iter().map(any_json).collect::<Vec<_>>().into(),
        Value::KvlistValue(list) => object_json(list.values),
        Value::BytesValue(bytes) => BASE64_STANDARD.encode(bytes).into(),
        Value::StringValueStrindex(_) => serde_json::Value::Null,
    }
}

pub(super) fn any_json(value: AnyValue) -> serde_json::Value {
    value.value.map_or(serde_json::Value::Null, json)
}

pub(super) fn object_json(pairs: Vec<KeyValue>) -> serde_json::Value {
    let pairs =
        pairs.into_iter().map(|pair| (without_nul(pair.key), pair.value.map_or_else(Default::default, any_json)));
    serde_json::Value::Object(pairs.collect())
}

/// No call has more tokens; sums of counts up to here fit 64 bits whatever is sent.
pub(super) const COUNT_MAX: i64 = 1_000_000_000_000_000;

/// A number of tokens or the like.
pub(super) fn count(value: &Value) -> Option<i64> {
    integer(value).filter(|count| (0..=COUNT_MAX).contains(count))
}

pub(super) fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::IntValue(number) => Some(*number),
        Value::DoubleValue(number) => whole(*number),
        Value::StringValue(text) => integer_in(text),
        _ => None,
    }
}

pub(super) fn integer_in(text: &str) -> Option<i64> {
    let text = text.trim();
    text.parse().ok().or_else(|| whole(text.parse().ok()?))
}

fn whole(number: f64) -> Option<i64> {
    (number.fract() == 0.0 && number.abs() < 9e18).then_some(number as i64)
}

pub(super) fn float(value: &Value) -> Option<f64> {
    match value {
        Value::IntValue(number) => Some(*number as f64),
        Value::DoubleValue(number) => Some(*number),
        Value::StringValue(text) => text.trim().parse().ok(),
        _ => None,
    }
}

pub(super) fn boolean(value: &Value) -> Option<bool> {
    match value {
        Value::BoolValue(flag) => Some(*flag),
        Value::StringValue(text) if text.eq_ignore_ascii_case("true") => Some(true),
        Value::StringValue(text) if text.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}

/// An amount of money. `Ok(None)` where it is not a number at all; an error where it is one that cannot be money.
pub(super) fn money(value: &Value) -> Result<Option<Money>, String> {
    let amount = match value {
        Value::DoubleValue(number) => Money::from_f64(*number),
        Value::IntValue(number) => number.to_string().parse(),
        Value::StringValue(text) => return money_in(text),
        _ => return Ok(None),
    };
    amount.map_err(|error| error.to_string()).and_then(not_negative).map(Some)
}

pub(super) fn money_in(text: &str) -> Result<Option<Money>, String> {
    match text.parse::<Money>() {
        Ok(amount) => not_negative(amount).map(Some),
        Err(error @ MoneyError::TooLarge(_)) => Err(error.to_string()),
        Err(error @ MoneyError::NotANumber(_)) if text.trim().parse::<f64>().is_ok() => Err(error.to_string()),
        Err(MoneyError::NotANumber(_)) => Ok(None),
    }
}

fn not_negative(amount: Money) -> Result<Money, String> {
    if amount < Money::ZERO { Err(format!("a cost below zero is not accepted: {amount}")) } else { Ok(amount) }
}

/// A list of words: an array, a JSON array as text, a comma list, or one word.
pub(super) fn words(value: Value) -> Vec<String> {
    let words: Vec<String> = match value {
        Value::ArrayValue(list) => list.values.into_iter().filter_map(|item| item.value).map(text).collect(),
        Value::StringValue(list) => return words_in(&list),
        other => vec![text(other)],
    };
    words.into_iter().map(without_nul).filter(|word| !word.is_empty()).collect()
}

/// As [`words`], of a text: a JSON array, a comma list, or one word, quoted or not.
pub(super) fn words_in(list: &str) -> Vec<String> {
    let words: Vec<String> = match serde_json::from_str::<Vec<serde_json::Value>>(list) {
        Ok(items) => items.into_iter().map(plain).collect(),
        Err(_) => {
            let unquoted = unquoted(list);
            unquoted.as_deref().unwrap_or(list).split(',').map(|word| word.trim().to_owned()).collect()
        }
    };
    words.into_iter().map(without_nul).filter(|word| !word.is_empty()).collect()
}

/// JSON as it stands in a column: text without its quotes, anything else as JSON.
pub(super) fn plain(value: serde_json::Value) -> String {
    match value {
        serde_json::Value::String(text) => without_nul(text),
        other => other.to_string(),
    }
}

/// The top-level pairs of an object, whether it came as a list of pairs or as JSON text; else the value back.
///
/// Numbers in JSON text keep their digits: `0.10` stays `0.10`.
pub(super) fn pairs(value: Value) -> Result<Vec<(String, String)>, Value> {
    match value {
        Value::KvlistValue(list) => Ok(list
            .values
            .into_iter()
            .filter_map(|pair| Some((without_nul(pair.key), text(pair.value?.value?))))
            .collect()),
        Value::StringValue(json) => pairs_in(&json).ok_or(Value::StringValue(json)),
        other => Err(other),
    }
}

pub(super) fn pairs_in(json: &str) -> Option<Vec<(String, String)>> {
    let object: BTreeMap<String, Box<RawValue>> = serde_json::from_str(json).ok()?;
    Some(object.into_iter().map(|(key, raw)| (without_nul(key), raw_text(&raw))).collect())
}

fn raw_text(raw: &RawValue) -> String {
    unquoted(raw.get()).unwrap_or_else(|| raw.get().to_owned())
}

/// The text of a JSON string, if that is what `text` is.
pub(super) fn unquoted(text: &str) -> Option<String> {
    if !text.trim_start().starts_with('"') {
        return None;
    }
    serde_json::from_str::<String>(text).ok().map(without_nul)
}

/// Nanoseconds since 1970 of an RFC 3339 time, which some senders quote once more as JSON. Without an offset it is UTC.
pub(super) fn instant_ns(text: &str) -> Option<i64> {
    let unquoted = unquoted(text);
    let text = unquoted.as_deref().unwrap_or(text).trim().trim_matches('"');
    let instant = match chrono::DateTime::parse_from_rfc3339(text) {
        Ok(instant) => instant.to_utc(),
        Err(_) => text.parse::<chrono::NaiveDateTime>().ok()?.and_utc(),
    };
    instant.timestamp_nanos_opt()
}

/// Langfuse's rule: lower case, no reserved prefix, at most 40 of `a-z 0-9 - _`; what breaks it is `default`.
pub(super) fn environment(name: &str) -> String {
    let name = name.trim().to_lowercase();
    let name = name.strip_prefix("langfuse-").or_else(|| name.strip_prefix("langfuse_")).unwrap_or(&name);
    let name: String = name.chars().take(40).collect();
    let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_';
    if !name.is_empty() && name.bytes().all(legal) { name } else { "default".to_owned() }
}
