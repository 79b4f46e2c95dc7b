//! From proto3 JSON to a message's bytes. Every error names the field by its path.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use prost::encoding::{WireType, encode_key, encode_varint};
use prost_types::field_descriptor_proto::Type;
use serde_json::Value;

use super::schema::{FieldOf, Schema};

pub(super) fn message(schema: &Schema, of: &str, json: &Value) -> Result<Vec<u8>, String> {
    put(schema, of, json, "the message")
}

fn put(schema: &Schema, of: &str, json: &Value, path: &str) -> Result<Vec<u8>, String> {
    let known = schema.message(of).ok_or_else(|| format!("{path} is of no known type"))?;
    let object = json.as_object().ok_or_else(|| format!("{path} is not an object"))?;
    let mut bytes = Vec::new();
    for (name, value) in object {
        let field = known.fields.iter().find(|field| field.json_name == *name || field.name == *name);
        let field = field.ok_or_else(|| {
            let names: Vec<&str> = known.fields.iter().map(|field| field.json_name.as_str()).collect();
            let name: String = name.chars().take(80).collect();
            format!("{path} has no {name:?}: it has {}", names.join(", "))
        })?;
        let path = match path {
            "the message" => field.json_name.clone(),
            path => format!("{path}.{}", field.json_name),
        };
        match value {
            Value::Null => {}
            value if field.is_list && schema.message(&field.of).is_some_and(|inner| inner.is_map) => {
                let entries = value.as_object().ok_or_else(|| format!("{path} is not an object"))?;
                for (key, value) in entries {
                    let entry = serde_json::json!({ "key": key, "value": value });
                    one(schema, field, &entry, &path, &mut bytes)?;
                }
            }
            Value::Array(items) if field.is_list => {
                for (at, item) in items.iter().enumerate() {
                    one(schema, field, item, &format!("{path}[{at}]"), &mut bytes)?;
                }
            }
            _ if field.is_list => return Err(format!("{path} is not a list")),
            value => one(schema, field, value, &path, &mut bytes)?,
        }
    }
    Ok(bytes)
}

fn one(schema: &Schema, field: &FieldOf, value: &Value, path: &str, bytes: &mut Vec<u8>) -> Result<(), String> {
    let bad = |what: &str| format!("{path} is not {what}");
    let text = || value.as_str().ok_or_else(|| bad("a text"));
    let whole = || {
        let said = value.as_i64().or_else(|| value.as_str()?.parse().ok());
        said.or_else(|| value.as_f64().filter(|number| number.fract() == 0.0 && number.abs() < 9e15).map(|n| n as i64))
            .ok_or_else(|| bad("a whole number"))
    };
    let natural = || {
        let said = value.as_u64().or_else(|| value.as_str()?.parse().ok());
        said.or_else(|| u64::try_from(whole().ok()?).ok()).ok_or_else(|| bad("a whole number of 0 or more"))
    };
    let mut varint = |number: u64| {
        encode_key(field.number, WireType::Varint, bytes);
        encode_varint(number, bytes);
    };
    let held = match field.kind {
        Type::Bool => return value.as_bool().map(|truth| varint(truth.into())).ok_or_else(|| bad("true or false")),
        Type::Int64 => return whole().map(|number| varint(number as u64)),
        Type::Int32 => {
            let number = i32::try_from(whole()?).map_err(|_| bad("a whole number of 32 bits"))?;
            varint(i64::from(number) as u64);
            return Ok(());
        }
        Type::Uint64 => return natural().map(varint),
        Type::Uint32 => {
            let number = u32::try_from(natural()?).map_err(|_| bad("a whole number of 32 bits"))?;
            varint(number.into());
            return Ok(());
        }
        Type::Enum => {
            let values = schema.values(&field.of);
            let said = match value {
                Value::String(name) => schema.number(&field.of, name),
                value => value.as_i64().and_then(|number| i32::try_from(number).ok()),
            };
            let number = said.ok_or_else(|| {
                let names: Vec<&str> = values.iter().map(|(name, _)| name.as_str()).collect();
                bad(&format!("one of {}", names.join(", ")))
            })?;
            varint(i64::from(number) as u64);
            return Ok(());
        }
        Type::Double => {
            let number = match value.as_str() {
                Some("NaN") => Some(f64::NAN),
                Some("Infinity") => Some(f64::INFINITY),
                Some("-Infinity") => Some(f64::NEG_INFINITY),
                Some(text) => text.parse().ok(),
                None => value.as_f64(),
            };
            let number = number.ok_or_else(|| bad("a number"))?;
            encode_key(field.number, WireType::SixtyFourBit, bytes);
            bytes.extend_from_slice(&number.to_le_bytes());
            return Ok(());
        }
        Type::String => text()?.as_bytes().to_vec(),
        Type::Bytes => BASE64_STANDARD.decode(text()?).map_err(|_| bad("base64"))?,
        Type::Message => put(schema, &field.of, value, path)?,
        // None of ours is of another type; a test goes through them.
        _ => return Err(bad("of a type that JSON has here")),
    };
    encode_key(field.number, WireType::LengthDelimited, bytes);
    encode_varint(held.len() as u64, bytes);
    bytes.extend_from_slice(&held);
    Ok(())
}
