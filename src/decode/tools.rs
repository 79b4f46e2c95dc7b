//! Tools that a call of a model names: those it offers to the model, and those its answer asks for. No dialect says so
//! in one word; all of them say it in the payloads that they copy from the provider.
//!
//! Offered: the `tools` of OpenAI (once `functions`), Anthropic, Google, Bedrock and the AI SDK, and what instrumentations
//! put beside the payload (`gen_ai.tool.definitions`, `ai.prompt.tools`, `llm.tools.N.…`, `llm.request.functions.N.name`).
//! Asked for, in the output only, since the input repeats the calls of earlier steps: `tool_calls`, `function_call`,
//! Anthropic's `tool_use`, Google's `functionCall`, Bedrock's `toolUse`, OpenTelemetry's parts of type `tool_call`, the AI
//! SDK's `toolCalls`.

use std::collections::HashSet;
use std::ops::Bound;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::model::{Event, EventKind, Observation, ObservationType};

/// Longer texts are not looked through: it takes time before the ack, and nobody asks for tools in a megabyte.
const TEXT_BYTES_MAX: usize = 1 << 20;
const NAME_BYTES_MAX: usize = 200;
const OFFERED_MAX: usize = 500;
const CALLED_MAX: usize = 500;

/// Attributes that list definitions.
const DEFINITIONS: [&str; 3] = ["gen_ai.tool.definitions", "ai.prompt.tools", "tools"];
/// Attributes that list calls, beside an output that is text.
const CALLS: [&str; 2] = ["ai.response.toolCalls", "ai.result.toolCalls"];
/// Attributes in pieces: before and after the number.
const PIECES: [(&str, &str); 3] =
    [("llm.tools.", ".tool.json_schema"), ("llm.tools.", ".name"), ("llm.request.functions.", ".name")];
/// What an object calls itself that asks for a tool.
const CALL_TYPES: [&str; 7] =
    ["tool_use", "server_tool_use", "mcp_tool_use", "tool_call", "tool-call", "function_call", "mcp_call"];

/// Fills in what the sender did not say itself.
pub(super) fn find(event: &mut Event) {
    let Some(EventKind::Observation(said)) = &mut event.kind else { return };
    if said.observation_type() != ObservationType::Generation {
        return;
    }
    if said.tools_offered.is_empty() {
        said.tools_offered = offered(said);
    }
    if said.tools_called.is_empty() {
        said.tools_called = called(said);
    }
}

/// Each once.
fn offered(said: &Observation) -> Vec<String> {
    let mut names = Names { left_bytes: TEXT_BYTES_MAX, ..Names::default() };
    let of_maps = [&said.attributes, &said.model_parameters, &said.metadata];
    for text in of_maps.into_iter().flat_map(|map| DEFINITIONS.iter().filter_map(|key| map.get(*key))) {
        names.define_in(text);
    }
    for (prefix, suffix) in PIECES {
        let from = (Bound::Included(prefix), Bound::Unbounded);
        let pieces = said.attributes.range::<str, _>(from).take_while(|(key, _)| key.starts_with(prefix));
        let number = |key: &str| key[prefix.len()..].split('.').next().and_then(|number| number.parse::<u32>().ok());
        let mut pieces: Vec<(&String, &String)> = pieces.filter(|(key, _)| key.ends_with(suffix)).collect();
        // By their numbers: as text the tenth comes before the second.
        pieces.sort_by_key(|(key, _)| number(key));
        for (_, text) in pieces {
            match suffix {
                ".name" => names.add(text),
                _ => names.define_in(text),
            }
        }
    }
    let input = said.input.as_deref().map(str::trim_start).filter(|input| input.starts_with('{'));
    if let Some(input) = input.filter(|input| looks(input, &["\"tools\"", "\"functions\""])) {
        let payload: Payload = serde_json::from_str(input).unwrap_or_default();
        let inner = [&payload.config, &payload.kwargs, &payload.tool_config];
        let inner = inner.into_iter().flat_map(|inner| [&inner["tools"], &inner["functions"]]);
        [&payload.tools, &payload.functions].into_iter().chain(inner).for_each(|tools| names.define(tools, true));
    }
    names.names
}

/// The names without those that came before.
pub(super) fn each_once(said: impl Iterator<Item = String>) -> Vec<String> {
    let mut names = Names::default();
    said.for_each(|name| names.add(&name));
    names.names
}

/// In the order of the answer; a tool that is called twice stands twice, and one call that is written twice once.
fn called(said: &Observation) -> Vec<String> {
    let mut found = Calls::default();
    let beside = CALLS.iter().filter_map(|key| said.attributes.get(*key));
    for text in said.output.iter().chain(beside) {
        let names_calls = looks(text, &["tool", "function_call", "functionCall", "mcp_call"]);
        if names_calls && text.trim_start().starts_with(['{', '[']) {
            found.look(&serde_json::from_str(text).unwrap_or_default());
        }
        if !found.names.is_empty() {
            break;
        }
    }
    found.names.truncate(CALLED_MAX);
    found.names
}

fn looks(text: &str, words: &[&str]) -> bool {
    text.len() <= TEXT_BYTES_MAX && words.iter().any(|word| text.contains(word))
}

/// What of an input says which tools there are; the rest is skipped as it is read.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Payload {
    tools: Value,
    functions: Value,
    /// Google's.
    config: Value,
    /// Of wrappers that log a function's arguments.
    kwargs: Value,
    /// Amazon Bedrock's.
    #[serde(rename = "toolConfig")]
    tool_config: Value,
}

#[derive(Default)]
struct Names {
    names: Vec<String>,
    known: HashSet<String>,
    /// Of texts that are still read.
    left_bytes: usize,
}

impl Names {
    fn add(&mut self, name: &str) {
        if self.names.len() < OFFERED_MAX && is_name(name) && self.known.insert(name.to_owned()) {
            self.names.push(name.to_owned());
        }
    }

    fn define_in(&mut self, text: &str) {
        if text.len() <= self.left_bytes {
            self.left_bytes -= text.len();
            self.define(&serde_json::from_str(text).unwrap_or_default(), true);
        }
    }

    /// A definition, or a list of them, or, `whole`, an object with a definition under each name.
    fn define(&mut self, said: &Value, whole: bool) {
        match said {
            Value::Array(list) => list.iter().for_each(|one| self.define(one, false)),
            // A list of texts, each one definition.
            Value::String(text) if text.starts_with('{') => self.define_in(text),
            Value::Object(one) => match (name_of(one), one.get("type").and_then(Value::as_str)) {
                (Some(name), _) => self.add(name),
                // A tool of the provider's own has no name but its type.
                (None, Some(kind)) if !matches!(kind, "function" | "custom") => self.add(kind),
                (None, _) => self.define_group(one, whole),
            },
            _ => {}
        }
    }

    fn define_group(&mut self, group: &Map<String, Value>, whole: bool) {
        let listed = ["functionDeclarations", "function_declarations"].iter().find_map(|key| group.get(*key));
        match listed {
            Some(list) => self.define(list, false),
            None if whole && !group.contains_key("type") => {
                group.iter().filter(|(_, tool)| tool.is_object()).for_each(|(name, _)| self.add(name));
            }
            None => {}
        }
    }
}

#[derive(Default)]
struct Calls {
    names: Vec<String>,
    /// Some write one call in two shapes into one message.
    ids: HashSet<String>,
}

impl Calls {
    fn look(&mut self, said: &Value) {
        match said {
            Value::Array(list) => list.iter().for_each(|one| self.look(one)),
            Value::Object(one) => {
                let kind = one.get("type").and_then(Value::as_str);
                let is_call = match kind {
                    Some(kind) => CALL_TYPES.contains(&kind),
                    None => one.contains_key("toolCallId") && one.contains_key("toolName"),
                };
                if is_call {
                    return self.add(one);
                }
                for (key, inner) in one {
                    match (key.as_str(), inner) {
                        ("tool_calls" | "toolCalls", Value::Array(list)) => {
                            list.iter().filter_map(Value::as_object).for_each(|one| self.add(one));
                        }
                        ("function_call" | "functionCall" | "toolUse", Value::Object(one)) => self.add(one),
                        _ => self.look(inner),
                    }
                }
            }
            _ => {}
        }
    }

    fn add(&mut self, said: &Map<String, Value>) {
        let Some(name) = name_of(said).filter(|name| is_name(name)) else { return };
        let id = |said: &Map<String, Value>| {
            let id = ["id", "call_id", "toolCallId", "toolUseId"].iter().find_map(|key| said.get(*key)?.as_str())?;
            Some(id.to_owned())
        };
        let id = id(said).or_else(|| id(said.get("tool_call")?.as_object()?)).filter(|id| !id.is_empty());
        if id.is_none_or(|id| self.ids.insert(id)) {
            self.names.push(name.to_owned());
        }
    }
}

/// As definitions and calls say it: themselves, or the function in them.
fn name_of(said: &Map<String, Value>) -> Option<&str> {
    let named = ["name", "toolName", "tool_name"].iter().find_map(|key| said.get(*key)?.as_str());
    let inner = || ["function", "tool_call", "toolSpec"].iter().find_map(|key| name_of(said.get(*key)?.as_object()?));
    named.or_else(inner)
}

fn is_name(name: &str) -> bool {
    // A NUL can stand in no text column.
    (1..=NAME_BYTES_MAX).contains(&name.len()) && !name.contains('\0')
}
