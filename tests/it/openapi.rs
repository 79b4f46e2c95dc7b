//! `proto/openapi.json`: what `/api/v1/` answers, written from the protos with their comments, and committed, so that the
//! server carries no comments besides. `TRACELAKE_BLESS=1` writes it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet};
use serde_json::{Map, Value, json};

use crate::wire::{blessing, descriptors, root};

/// What is sent in here has doors of its own.
const NOT_HERE: &str = "IngestService";
/// Numbers of fields within descriptors, as paths of comments name them.
const MESSAGES: i32 = 4;
const ENUMS: i32 = 5;
const SERVICES: i32 = 6;
const WITHIN: i32 = 2;
const NESTED: i32 = 3;
const NESTED_ENUMS: i32 = 4;

/// The comments of a file by what they are about.
struct Comments(BTreeMap<Vec<i32>, String>);

impl Comments {
    fn of(file: &FileDescriptorProto) -> Self {
        let locations = file.source_code_info.iter().flat_map(|info| &info.location);
        let said = locations.filter_map(|at| {
            let said: Vec<&str> = at.leading_comments().lines().map(str::trim).collect();
            Some((at.path.clone(), said.join(" ").trim().to_owned())).filter(|(_, said)| !said.is_empty())
        });
        Self(said.collect())
    }

    fn put(&self, path: &[i32], on: &mut Value) {
        if let Some(said) = self.0.get(path) {
            on["description"] = said.as_str().into();
        }
    }
}

fn document(files: &FileDescriptorSet) -> Value {
    let mut schemas = Map::new();
    let mut paths = Map::new();
    for file in &files.file {
        let comments = Comments::of(file);
        for (at, message) in (0..).zip(&file.message_type) {
            add_message("", message, &[MESSAGES, at], &comments, &mut schemas);
        }
        for (at, one) in (0..).zip(&file.enum_type) {
            schemas.insert(one.name().to_owned(), enum_of(one, &[ENUMS, at], &comments));
        }
        for (at, service) in (0..).zip(&file.service).filter(|(_, service)| service.name() != NOT_HERE) {
            for (nth, method) in (0..).zip(&service.method) {
                let media_type = if method.server_streaming() { "text/event-stream" } else { "application/json" };
                let mut post = json!({
                    "operationId": format!("{}_{}", service.name(), method.name()),
                    "tags": [service.name()],
                    "requestBody": {
                        "required": true,
                        "content": { "application/json": { "schema": reference(method.input_type()) } },
                    },
                    "responses": {
                        "200": {
                            "description": if method.server_streaming() { "Events whose data is this" } else { "The answer" },
                            "content": { media_type: { "schema": reference(method.output_type()) } },
                        },
                        "default": { "$ref": "#/components/responses/Problem" },
                    },
                });
                comments.put(&[SERVICES, at, WITHIN, nth], &mut post);
                let path = format!("/api/v1/{}/{}", service.name(), method.name());
                paths.insert(path, json!({ "post": post }));
            }
        }
    }
    let problem = json!({
        "type": "object",
        "required": ["error", "message"],
        "properties": { "error": { "type": "string" }, "message": { "type": "string" } },
    });
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "tracelake",
            "version": "v1",
            "description": "The calls of tracelake.v1 in proto3 JSON: 64-bit integers are text, fields without a value are left out.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "security": [{ "basic": [] }],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "basic": { "type": "http", "scheme": "basic", "description": "Public key and secret key of a tenant" },
            },
            "responses": {
                "Problem": {
                    "description": "A refusal that says what and why",
                    "content": { "application/json": { "schema": problem } },
                },
            },
            "schemas": schemas,
        },
    })
}

fn add_message(
    within: &str,
    message: &DescriptorProto,
    path: &[i32],
    comments: &Comments,
    into: &mut Map<String, Value>,
) {
    let name = format!("{within}{}", message.name());
    for (at, inner) in (0..).zip(&message.nested_type).filter(|(_, inner)| !is_map(inner)) {
        add_message(&format!("{name}."), inner, &[path, &[NESTED, at]].concat(), comments, into);
    }
    for (at, inner) in (0..).zip(&message.enum_type) {
        let schema = enum_of(inner, &[path, &[NESTED_ENUMS, at]].concat(), comments);
        into.insert(format!("{name}.{}", inner.name()), schema);
    }
    let mut properties = Map::new();
    for (at, field) in (0..).zip(&message.field) {
        let entry = message.nested_type.iter().find(|inner| is_map(inner) && field.type_name().ends_with(inner.name()));
        let mut schema = match entry {
            Some(entry) => json!({ "type": "object", "additionalProperties": one_of(&entry.field[1]) }),
            None if field.label() == Label::Repeated => json!({ "type": "array", "items": one_of(field) }),
            None => one_of(field),
        };
        comments.put(&[path, &[WITHIN, at]].concat(), &mut schema);
        properties.insert(field.json_name().to_owned(), schema);
    }
    let mut schema = json!({ "type": "object", "properties": properties });
    comments.put(path, &mut schema);
    into.insert(name, schema);
}

fn is_map(message: &DescriptorProto) -> bool {
    message.options.as_ref().is_some_and(|options| options.map_entry())
}

fn one_of(field: &FieldDescriptorProto) -> Value {
    match field.r#type() {
        Type::Bool => json!({ "type": "boolean" }),
        Type::Int64 => json!({ "type": "string", "format": "int64" }),
        Type::Uint64 => json!({ "type": "string", "format": "uint64" }),
        Type::Int32 => json!({ "type": "integer", "format": "int32" }),
        Type::Uint32 => json!({ "type": "integer", "format": "uint32", "minimum": 0 }),
        Type::Double => json!({ "type": "number", "format": "double" }),
        Type::String => json!({ "type": "string" }),
        Type::Bytes => json!({ "type": "string", "contentEncoding": "base64" }),
        Type::Enum | Type::Message => reference(field.type_name()),
        other => panic!("{} is a {other:?}, which JSON does not have here", field.name()),
    }
}

fn enum_of(one: &EnumDescriptorProto, path: &[i32], comments: &Comments) -> Value {
    let names: Vec<&str> = one.value.iter().map(|value| value.name()).collect();
    let mut schema = json!({ "type": "string", "enum": names });
    comments.put(path, &mut schema);
    let about = (0..).zip(&one.value).filter_map(|(at, value)| {
        let said = comments.0.get(&[path, &[WITHIN, at]].concat())?;
        Some(format!("{}: {said}", value.name()))
    });
    let about: Vec<String> = schema["description"].as_str().map(str::to_owned).into_iter().chain(about).collect();
    if !about.is_empty() {
        schema["description"] = about.join("\n").into();
    }
    schema
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{}", name.trim_start_matches(".tracelake.v1.")) })
}

#[test]
fn the_committed_document_is_what_the_protos_say() {
    let path = root().join("proto/openapi.json");
    let fresh = serde_json::to_string_pretty(&document(&descriptors())).unwrap() + "\n";
    if blessing() {
        fs::write(&path, &fresh).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == fresh, "proto/openapi.json is stale: run with TRACELAKE_BLESS=1");
}

#[test]
fn the_document_is_whole_by_the_rules_of_its_version() {
    let document = document(&descriptors());
    assert_eq!(document["openapi"], "3.1.0");
    assert!(document["info"]["title"].is_string() && document["info"]["version"].is_string());
    let mut ids = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        assert!(path.starts_with("/api/v1/") && !path.contains('{'), "{path}");
        let post = &item["post"];
        assert!(ids.insert(post["operationId"].as_str().unwrap()), "{path}");
        assert!(post["description"].is_string(), "{path} says nothing of itself");
        assert!(post["responses"]["200"]["description"].is_string());
    }
    let mut references = Vec::new();
    gather(&document, &mut references);
    for reference in references {
        let pointer = reference.trim_start_matches('#');
        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        let legal = |letter: char| letter.is_ascii_alphanumeric() || "._-".contains(letter);
        assert!(name.chars().all(legal), "{name}");
        assert!(["object", "string"].contains(&schema["type"].as_str().unwrap()), "{name}");
    }
}

fn gather<'a>(value: &'a Value, into: &mut Vec<&'a str>) {
    match value {
        Value::Object(object) => {
            into.extend(object.get("$ref").and_then(Value::as_str));
            object.values().for_each(|inner| gather(inner, into));
        }
        Value::Array(items) => items.iter().for_each(|inner| gather(inner, into)),
        _ => {}
    }
}
