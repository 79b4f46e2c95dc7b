//! JSON in memory, read fast and taken apart once: objects are lists of pairs, and their keys borrow from the body.
//!
//! OTLP/JSON wraps every attribute in two small objects; as trees they would cost more than all else together.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};

#[derive(Debug, Clone, Default, PartialEq)]
pub(super) enum Loose<'a> {
    #[default]
    Null,
    Bool(bool),
    Integer(i64),
    /// Beyond the range of `Integer`.
    Unsigned(u64),
    Float(f64),
    Text(String),
    List(Vec<Loose<'a>>),
    Object(Object<'a>),
}

/// Pairs in the order they stand; no senders' object has many.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Object<'a>(Vec<(Cow<'a, str>, Loose<'a>)>);

impl<'a> Object<'a> {
    /// Takes the value under either spelling out; absent is null.
    pub(super) fn take(&mut self, camel: &str, snake: &str) -> Loose<'a> {
        match self.0.iter().position(|(key, _)| key == camel || key == snake) {
            Some(at) => self.0.swap_remove(at).1,
            None => Loose::Null,
        }
    }

    pub(super) fn text(&self, camel: &str, snake: &str) -> Option<&str> {
        self.0.iter().find_map(|(key, value)| match value {
            Loose::Text(text) if key == camel || key == snake => Some(text.as_str()),
            _ => None,
        })
    }

    pub(super) fn into_first(self) -> Option<(Cow<'a, str>, Loose<'a>)> {
        self.0.into_iter().next()
    }
}

/// As JSON text, to be shown or kept.
impl fmt::Display for Loose<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        serde_json::Value::from(self.clone()).fmt(f)
    }
}

impl From<Loose<'_>> for serde_json::Value {
    fn from(value: Loose<'_>) -> Self {
        match value {
            Loose::Null => Self::Null,
            Loose::Bool(flag) => flag.into(),
            Loose::Integer(number) => number.into(),
            Loose::Unsigned(number) => number.into(),
            Loose::Float(number) => number.into(),
            Loose::Text(text) => text.into(),
            Loose::List(items) => items.into_iter().map(Self::from).collect(),
            Loose::Object(object) => {
                object.0.into_iter().map(|(key, value)| (key.into_owned(), Self::from(value))).collect()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Loose<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LooseVisitor)
    }
}

struct LooseVisitor;

impl<'de> Visitor<'de> for LooseVisitor {
    type Value = Loose<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(Loose::Null)
    }

    fn visit_bool<E: Error>(self, flag: bool) -> Result<Self::Value, E> {
        Ok(Loose::Bool(flag))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
        Ok(Loose::Integer(number))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
        Ok(i64::try_from(number).map_or(Loose::Unsigned(number), Loose::Integer))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Self::Value, E> {
        Ok(Loose::Float(number))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Loose::Text(text.to_owned()))
    }

    fn visit_string<E: Error>(self, text: String) -> Result<Self::Value, E> {
        Ok(Loose::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Loose::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut pairs: A) -> Result<Self::Value, A::Error> {
        let mut object = Vec::with_capacity(2);
        while let Some((Key(key), value)) = pairs.next_entry()? {
            object.push((key, value));
        }
        Ok(Loose::Object(Object(object)))
    }
}

/// `Cow` itself deserializes as owned; this one borrows where no escape stands in the way.
pub(super) struct Key<'a>(pub(super) Cow<'a, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(KeyVisitor)
    }
}

struct KeyVisitor;

impl<'de> Visitor<'de> for KeyVisitor {
    type Value = Key<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_borrowed_str<E: Error>(self, key: &'de str) -> Result<Self::Value, E> {
        Ok(Key(Cow::Borrowed(key)))
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<Self::Value, E> {
        Ok(Key(Cow::Owned(key.to_owned())))
    }
}
