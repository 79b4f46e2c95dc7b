//! The fields of a JSON object, taken out one by one; what is left had no meaning to anyone.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::super::loose::Key;
use super::super::value::{instant_ns, without_nul};
use crate::model::RejectReason;

/// Why an event is refused.
#[derive(Debug)]
pub(super) struct Invalid(pub(super) RejectReason, pub(super) String);

/// What an event says about a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Said<T> {
    Absent,
    Null,
    Value(T),
}

impl<T> Said<T> {
    /// Null is as good as absent.
    pub(super) fn value(self) -> Option<T> {
        match self {
            Self::Value(value) => Some(value),
            Self::Absent | Self::Null => None,
        }
    }

    /// Null says that the field is nothing: `bit` is set in `cleared`.
    pub(super) fn or_clear(self, cleared: &mut u64, bit: u64) -> Option<T> {
        if matches!(self, Self::Null) {
            *cleared |= bit;
        }
        self.value()
    }
}

/// Keys and values as they stand in the body.
#[derive(Debug, Default)]
pub(super) struct Fields<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Fields<'a> {
    pub(super) fn read(raw: &'a RawValue) -> Result<Self, Invalid> {
        serde_json::from_str(raw.get()).map_err(|e| Invalid(RejectReason::Malformed, format!("it is no object: {e}")))
    }

    /// Takes a value out. Of a key that stands there twice, the last counts.
    pub(super) fn raw(&mut self, key: &str) -> Option<&'a RawValue> {
        let at = self.0.iter().rposition(|(known, _)| known == key)?;
        Some(self.0.remove(at).1)
    }

    pub(super) fn said(&mut self, key: &str) -> Said<&'a RawValue> {
        match self.raw(key) {
            None => Said::Absent,
            Some(raw) if raw.get() == "null" => Said::Null,
            Some(raw) => Said::Value(raw),
        }
    }

    /// Text; numbers and flags as they are written. Empty text says as much as null.
    pub(super) fn text(&mut self, key: &str) -> Result<Said<String>, Invalid> {
        match self.said(key) {
            Said::Value(raw) if raw.get().starts_with(['{', '[']) => {
                Err(Invalid(RejectReason::InvalidValue, format!("{key} is not text")))
            }
            Said::Value(raw) => {
                let text = plain(raw);
                Ok(if text.is_empty() { Said::Null } else { Said::Value(text) })
            }
            Said::Absent => Ok(Said::Absent),
            Said::Null => Ok(Said::Null),
        }
    }

    /// An RFC 3339 time as nanoseconds since 1970; without an offset it is UTC.
    pub(super) fn time_ns(&mut self, key: &str) -> Result<Said<i64>, Invalid> {
        let invalid = |text: &str, why: &str| {
            let shown: String = text.chars().take(80).collect();
            Invalid(RejectReason::InvalidTime, format!("{key} {why}: {shown:?}"))
        };
        match self.text(key)? {
            Said::Value(text) => match instant_ns(&text) {
                None => Err(invalid(&text, "is no time in ISO 8601")),
                Some(ns) if ns < 0 => Err(invalid(&text, "lies before 1970")),
                Some(ns) => Ok(Said::Value(ns)),
            },
            Said::Null => Ok(Said::Null),
            Said::Absent => Ok(Said::Absent),
        }
    }

    /// A payload: text as it is, structures as JSON. What is empty, zero or false says nothing.
    pub(super) fn payload(&mut self, key: &str) -> Option<String> {
        let raw = self.said(key).value()?;
        let is_nothing = matches!(raw.get(), "\"\"" | "0" | "false");
        (!is_nothing).then(|| plain(raw)).filter(|text| !text.is_empty())
    }

    /// A text that is only looked at.
    pub(super) fn peek_text(&self, key: &str) -> Option<String> {
        let (_, raw) = self.0.iter().rfind(|(known, _)| known == key)?;
        (raw.get().starts_with('"')).then(|| plain(raw)).filter(|text| !text.is_empty())
    }

    /// Everything nobody asked for, at most `most` of it, nulls left out.
    pub(super) fn rest(self, most: usize) -> BTreeMap<String, String> {
        let said = self.0.into_iter().filter(|(_, raw)| raw.get() != "null");
        said.take(most).map(|(key, raw)| (without_nul(key.into_owned()), plain(raw))).collect()
    }
}

/// The pairs of an object, values as [`plain`]; `None` for anything else.
pub(super) fn pairs(raw: &RawValue) -> Option<Vec<(String, String)>> {
    if !raw.get().starts_with('{') {
        return None;
    }
    let fields: Fields<'_> = serde_json::from_str(raw.get()).ok()?;
    Some(fields.0.into_iter().map(|(key, raw)| (without_nul(key.into_owned()), plain(raw))).collect())
}

/// A value as it stands in a column: text without its quotes, anything else as the JSON it came as.
pub(super) fn plain(raw: &RawValue) -> String {
    let json = mended(raw.get());
    match json.starts_with('"') {
        true => serde_json::from_str(&json).map(without_nul).unwrap_or_else(|_| json.into_owned()),
        false => json.into_owned(),
    }
}

/// JSON whose escapes are whole characters: half of a surrogate pair, left where a client cut a text, becomes U+FFFD.
fn mended(json: &str) -> Cow<'_, str> {
    if !json.contains("\\u") {
        return Cow::Borrowed(json);
    }
    let bytes = json.as_bytes();
    let unit = |at: usize| match bytes.get(at..at + 2) {
        Some(b"\\u") => u16::from_str_radix(json.get(at + 2..at + 6)?, 16).ok(),
        _ => None,
    };
    let (mut mended, mut copied, mut at) = (String::new(), 0, 0);
    while at < bytes.len() {
        if bytes[at] != b'\\' {
            at += 1;
            continue;
        }
        at += match unit(at) {
            Some(0xD800..=0xDBFF) if matches!(unit(at + 6), Some(0xDC00..=0xDFFF)) => 12,
            Some(0xD800..=0xDFFF) => {
                mended.push_str(&json[copied..at]);
                mended.push_str("\\ufffd");
                copied = at + 6;
                6
            }
            Some(_) => 6,
            // Another escape, of two characters.
            None => 2,
        };
    }
    if copied == 0 {
        return Cow::Borrowed(json);
    }
    mended.push_str(&json[copied..]);
    Cow::Owned(mended)
}

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FieldsVisitor;

        impl<'de> Visitor<'de> for FieldsVisitor {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut pairs: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::new();
                while let Some((Key(key), raw)) = pairs.next_entry()? {
                    fields.push((key, raw));
                }
                Ok(Fields(fields))
            }
        }

        deserializer.deserialize_map(FieldsVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_of_surrogate_pairs_are_mended_and_all_else_is_left() {
        let check = |json: &str, expected: &str| {
            let raw: &RawValue = serde_json::from_str(json).unwrap();
            assert_eq!(plain(raw), expected, "{json}");
        };
        check(r#""a\ud83d""#, "a\u{fffd}");
        check(r#""\udf0da""#, "\u{fffd}a");
        check(r#""\ud83c\udf0d""#, "🌍");
        check(r#""\\ud83d""#, "\\ud83d");
        check(r#""\ud83d\ud83c\udf0d""#, "\u{fffd}🌍");
        check(r#""a\u0000b""#, "ab");
        check(r#"{"a": "\ud83d"}"#, r#"{"a": "\ufffd"}"#);
        check("0.10", "0.10");
    }
}
