//! What our protos say of messages and methods, read once from their own description.

use std::collections::HashMap;
use std::sync::OnceLock;

use prost::Message;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, EnumDescriptorProto, FileDescriptorSet};

use crate::wire::FILE_DESCRIPTOR_SET;

#[derive(Debug, Default)]
pub(super) struct Schema {
    messages: HashMap<String, MessageOf>,
    enums: HashMap<String, Vec<(String, i32)>>,
    methods: HashMap<String, MethodOf>,
    /// Full names.
    services: Vec<String>,
}

#[derive(Debug, Default)]
pub(super) struct MessageOf {
    pub(super) fields: Vec<FieldOf>,
    pub(super) is_map: bool,
}

#[derive(Debug)]
pub(super) struct FieldOf {
    pub(super) name: String,
    pub(super) json_name: String,
    pub(super) number: u32,
    pub(super) kind: Type,
    /// Of messages and enums.
    pub(super) of: String,
    pub(super) is_list: bool,
}

#[derive(Debug)]
pub(super) struct MethodOf {
    pub(super) input: String,
    pub(super) output: String,
    pub(super) is_stream: bool,
}

pub(super) fn schema() -> &'static Schema {
    static SCHEMA: OnceLock<Schema> = OnceLock::new();
    SCHEMA.get_or_init(|| Schema::of(&FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap_or_default()))
}

impl Schema {
    fn of(files: &FileDescriptorSet) -> Self {
        let mut schema = Self::default();
        for file in &files.file {
            let package = file.package();
            file.message_type.iter().for_each(|message| schema.add(package, message));
            file.enum_type.iter().for_each(|one| schema.add_enum(package, one));
            for service in &file.service {
                schema.services.push(format!("{package}.{}", service.name()));
                for method in &service.method {
                    let known = MethodOf {
                        input: bare(method.input_type()),
                        output: bare(method.output_type()),
                        is_stream: method.client_streaming() || method.server_streaming(),
                    };
                    schema.methods.insert(format!("{}/{}", service.name(), method.name()), known);
                }
            }
        }
        schema
    }

    fn add(&mut self, within: &str, message: &DescriptorProto) {
        let name = format!("{within}.{}", message.name());
        message.nested_type.iter().for_each(|inner| self.add(&name, inner));
        message.enum_type.iter().for_each(|inner| self.add_enum(&name, inner));
        let field = |field: &prost_types::FieldDescriptorProto| FieldOf {
            name: field.name().to_owned(),
            json_name: field.json_name().to_owned(),
            number: field.number() as u32,
            kind: field.r#type(),
            of: bare(field.type_name()),
            is_list: field.label() == Label::Repeated,
        };
        let is_map = message.options.as_ref().is_some_and(|options| options.map_entry());
        self.messages.insert(name, MessageOf { fields: message.field.iter().map(field).collect(), is_map });
    }

    fn add_enum(&mut self, within: &str, one: &EnumDescriptorProto) {
        let values = one.value.iter().map(|value| (value.name().to_owned(), value.number()));
        self.enums.insert(format!("{within}.{}", one.name()), values.collect());
    }

    pub(super) fn method(&self, path: &str) -> Option<&MethodOf> {
        self.methods.get(path)
    }

    pub(super) fn services(&self) -> &[String] {
        &self.services
    }

    pub(super) fn message(&self, name: &str) -> Option<&MessageOf> {
        self.messages.get(name)
    }

    /// The number of one of an enum's values: by its name, or by what is left of it without the enum's own in front,
    /// which every value of ours has (`VIEW_TRACES`, `TRACES`).
    pub(super) fn number(&self, of: &str, said: &str) -> Option<i32> {
        let values = self.values(of);
        let named = |name: &str| values.iter().find(|(known, _)| known == name).map(|(_, number)| *number);
        named(said).or_else(|| named(&format!("{}_{said}", screaming(of))))
    }

    /// Names and numbers.
    pub(super) fn values(&self, name: &str) -> &[(String, i32)] {
        self.enums.get(name).map_or(&[], Vec::as_slice)
    }
}

fn bare(name: &str) -> String {
    name.trim_start_matches('.').to_owned()
}

/// `tracelake.v1.FilterOperator` as its values begin: `FILTER_OPERATOR`.
fn screaming(of: &str) -> String {
    let mut name = String::new();
    for letter in of.rsplit('.').next().unwrap_or_default().chars() {
        if letter.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}
