//! From a message's bytes to proto3 JSON: 64-bit integers as text, enums by name, what is not there left out.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Buf;
use prost::encoding::{WireType, decode_key, decode_varint};
use prost_types::field_descriptor_proto::Type;
use serde_json::{Map, Value, json};

use super::schema::{FieldOf, Schema};

/// `None`: these are no bytes of such a message.
pub(super) fn message(schema: &Schema, of: &str, mut bytes: &[u8]) -> Option<Value> {
    let known = schema.message(of)?;
    let mut object = Map::new();
    while bytes.has_remaining() {
        let (number, wire) = decode_key(&mut bytes).ok()?;
        let raw = Raw::take(wire, &mut bytes)?;
        let Some(field) = known.fields.iter().find(|field| field.number == number) else { continue };
        let entry = object.get_mut(&field.json_name);
        if let Some(inner) = schema.message(&field.of).filter(|inner| inner.is_map) {
            let Value::Object(said) = message(schema, &field.of, raw.bytes()?)? else { return None };
            // A key or a value that is its type's default is not there.
            let key = match said.get("key") {
                Some(Value::String(key)) => key.clone(),
                Some(other) => other.to_string(),
                None => String::new(),
            };
            let value = said.get("value").cloned().unwrap_or_else(|| nothing(inner.fields.get(1)));
            match entry {
                Some(Value::Object(map)) => drop(map.insert(key, value)),
                _ => drop(object.insert(field.json_name.clone(), json!({ key: value }))),
            }
        } else if field.is_list {
            let items = match raw {
                // Numbers of a list stand together.
                Raw::Bytes(packed) if !matches!(field.kind, Type::String | Type::Bytes | Type::Message) => {
                    unpacked(schema, field, packed)?
                }
                raw => vec![one(schema, field, raw)?],
            };
            match entry {
                Some(Value::Array(list)) => list.extend(items),
                _ => drop(object.insert(field.json_name.clone(), items.into())),
            }
        } else {
            object.insert(field.json_name.clone(), one(schema, field, raw)?);
        }
    }
    Some(object.into())
}

enum Raw<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Raw<'a> {
    fn take(wire: WireType, bytes: &mut &'a [u8]) -> Option<Self> {
        match wire {
            WireType::Varint => decode_varint(bytes).ok().map(Self::Number),
            WireType::SixtyFourBit if bytes.len() >= 8 => Some(Self::Number(bytes.get_u64_le())),
            WireType::ThirtyTwoBit if bytes.len() >= 4 => Some(Self::Number(bytes.get_u32_le().into())),
            WireType::LengthDelimited => {
                let length = usize::try_from(decode_varint(bytes).ok()?).ok()?;
                let (held, rest) = bytes.split_at_checked(length)?;
                *bytes = rest;
                Some(Self::Bytes(held))
            }
            _ => None,
        }
    }

    fn bytes(&self) -> Option<&'a [u8]> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            Self::Number(_) => None,
        }
    }
}

fn unpacked(schema: &Schema, field: &FieldOf, mut packed: &[u8]) -> Option<Vec<Value>> {
    let wire = match field.kind {
        Type::Double => WireType::SixtyFourBit,
        _ => WireType::Varint,
    };
    let mut items = Vec::new();
    while packed.has_remaining() {
        items.push(one(schema, field, Raw::take(wire, &mut packed)?)?);
    }
    Some(items)
}

fn one(schema: &Schema, field: &FieldOf, raw: Raw<'_>) -> Option<Value> {
    Some(match (field.kind, raw) {
        (Type::Bool, Raw::Number(number)) => (number != 0).into(),
        (Type::Int64, Raw::Number(number)) => (number as i64).to_string().into(),
        (Type::Uint64, Raw::Number(number)) => number.to_string().into(),
        (Type::Int32, Raw::Number(number)) => (number as i32).into(),
        (Type::Uint32, Raw::Number(number)) => (number as u32).into(),
        (Type::Enum, Raw::Number(number)) => {
            let number = number as i32;
            let name = schema.values(&field.of).iter().find(|(_, known)| *known == number);
            name.map_or_else(|| number.into(), |(name, _)| name.as_str().into())
        }
        (Type::Double, Raw::Number(bits)) => match f64::from_bits(bits) {
            number if number.is_nan() => "NaN".into(),
            f64::INFINITY => "Infinity".into(),
            f64::NEG_INFINITY => "-Infinity".into(),
            number => number.into(),
        },
        (Type::String, Raw::Bytes(bytes)) => std::str::from_utf8(bytes).ok()?.into(),
        (Type::Bytes, Raw::Bytes(bytes)) => BASE64_STANDARD.encode(bytes).into(),
        (Type::Message, Raw::Bytes(bytes)) => message(schema, &field.of, bytes)?,
        _ => return None,
    })
}

fn nothing(field: Option<&FieldOf>) -> Value {
    match field.map(|field| field.kind) {
        Some(Type::String | Type::Bytes) => "".into(),
        Some(Type::Int64 | Type::Uint64) => "0".into(),
        Some(Type::Bool) => false.into(),
        Some(Type::Message) => json!({}),
        _ => 0.into(),
    }
}
