//! The rules over all that a request says.

use std::collections::{BTreeMap, HashSet};

use super::mask::{Become, Kinds, Mask};
use super::path::Field;
use crate::model::{EventBatch, EventKind, Observation, Score, TraceFacts};

impl Mask {
    /// Takes out of the events of `batch` what the rules take out, and says in each what was found in it.
    pub fn apply(&self, batch: &mut EventBatch) {
        for event in &mut batch.events {
            match &mut event.kind {
                Some(EventKind::Observation(said)) => self.observation(said),
                Some(EventKind::Trace(said)) => self.trace(said),
                Some(EventKind::Score(said)) => self.score(said),
                None => {}
            }
        }
    }

    fn observation(&self, said: &mut Observation) {
        let mut kinds = Kinds::new();
        for (field, text) in [
            (Field::Name, &mut said.name),
            (Field::Name, &mut said.trace_name),
            (Field::UserId, &mut said.user_id),
            (Field::SessionId, &mut said.session_id),
            (Field::ErrorType, &mut said.error_type),
            (Field::StatusMessage, &mut said.status_message),
            (Field::Input, &mut said.input),
            (Field::Output, &mut said.output),
            (Field::Stacktrace, &mut said.exception_stacktrace),
        ] {
            self.field(field, text, &mut kinds);
        }
        self.tags(&mut said.tags, &mut kinds);
        let tools = said.tools_offered.iter_mut().chain(&mut said.tools_called);
        for name in tools.chain(&mut said.tool_name).chain(&mut said.agent_name) {
            if let Some(new) = self.plain(name, &mut kinds) {
                *name = new;
            }
        }
        let mut offered = HashSet::new();
        said.tools_offered.retain(|name| !name.is_empty() && offered.insert(name.clone()));
        said.tools_called.retain(|name| !name.is_empty());
        said.tool_name.take_if(|name| name.is_empty());
        said.agent_name.take_if(|name| name.is_empty());
        self.map(Field::Metadata, &mut said.metadata, &mut kinds);
        self.map(Field::Attributes, &mut said.attributes, &mut kinds);
        self.map(Field::ModelParameters, &mut said.model_parameters, &mut kinds);
        said.sensitive_kinds = self.names(&kinds);
    }

    fn trace(&self, said: &mut TraceFacts) {
        let mut kinds = Kinds::new();
        for (field, text) in [
            (Field::Name, &mut said.name),
            (Field::Name, &mut said.root_name),
            (Field::UserId, &mut said.user_id),
            (Field::SessionId, &mut said.session_id),
            (Field::Input, &mut said.input),
            (Field::Output, &mut said.output),
        ] {
            self.field(field, text, &mut kinds);
        }
        self.tags(&mut said.tags, &mut kinds);
        self.map(Field::Metadata, &mut said.metadata, &mut kinds);
        self.map(Field::Attributes, &mut said.attributes, &mut kinds);
        said.sensitive_kinds = self.names(&kinds);
    }

    fn score(&self, said: &mut Score) {
        let mut kinds = Kinds::new();
        for (field, text) in [
            (Field::SessionId, &mut said.session_id),
            (Field::StringValue, &mut said.string_value),
            (Field::Comment, &mut said.comment),
        ] {
            self.field(field, text, &mut kinds);
        }
        self.map(Field::Metadata, &mut said.metadata, &mut kinds);
        said.sensitive_kinds = self.names(&kinds);
    }

    fn field(&self, field: Field, value: &mut Option<String>, kinds: &mut Kinds) {
        let Some(text) = value.as_deref() else { return };
        let ways = self.ways(field);
        match self.arrived(text, &ways, kinds) {
            Some(Become::Nothing) => *value = None,
            Some(Become::Text(new)) => *value = Some(new),
            None => {
                if let Some(new) = self.text(text, &ways, kinds) {
                    *value = Some(new);
                }
            }
        }
    }

    fn tags(&self, tags: &mut Vec<String>, kinds: &mut Kinds) {
        for tag in std::mem::take(tags) {
            let mut tag = Some(tag);
            self.field(Field::Tags, &mut tag, kinds);
            tags.extend(tag.filter(|tag| !tag.is_empty()));
        }
    }

    fn map(&self, field: Field, map: &mut BTreeMap<String, String>, kinds: &mut Kinds) {
        if map.is_empty() {
            return;
        }
        let ways = self.ways(field);
        for (key, value) in std::mem::take(map) {
            let below: Vec<_> = match ways.iter().any(|way| way.left.is_empty()) {
                // The whole field is meant, and so is each value.
                true => ways.iter().copied().filter(|way| way.left.is_empty()).collect(),
                false => ways.iter().filter_map(|way| way.below_flat(&key)).collect(),
            };
            let value = match self.arrived(&value, &below, kinds) {
                Some(Become::Nothing) => continue,
                Some(Become::Text(new)) => new,
                None => self.text(&value, &below, kinds).unwrap_or(value),
            };
            let key = self.plain(&key, kinds).unwrap_or(key);
            // Two keys that mask to the same: the first one stays, neither text does.
            map.entry(key).or_insert(value);
        }
    }
}
