//! One OTLP span as one event.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::{Span, Status as SpanStatus, span};
use prost::Message;

use super::bag::{Bag, Found};
use super::dialect::{self, INDEXED_MESSAGES, INDEXED_PROMPT, Slot, TYPE_RULES};
use super::digest::digest;
use super::otlp::Origin;
use super::trace::AboutTrace;
use super::usage::{self, Custom, Usage};
use super::value::{
    self, environment, float, instant_ns, integer, json, pairs, plain, text, unquoted, without_nul, words,
};
use super::{DecodeLimits, inside, pieces, reject, span_events};
use crate::model::{Event, EventKind, Level, Observation, ObservationType, Order, RejectReason, Rejection, Status};

const TRACE_ID_BYTES: usize = 16;
const SPAN_ID_BYTES: usize = 8;
const STATUS_OK: i32 = 1;
const STATUS_ERROR: i32 = 2;
/// What Logfire's scrubber leaves of a session id is the same for everybody: no session.
const SCRUBBED: &str = "[Scrubbed due to";

/// Decodes a span, or says why it is refused. `encoded` is scratch space.
pub(super) fn decode(
    span: Span,
    origin: &Origin,
    limits: &DecodeLimits,
    encoded: &mut Vec<u8>,
) -> Result<(Event, AboutTrace), Rejection> {
    encoded.clear();
    span.encode(encoded).expect("a Vec grows as needed");
    let id = id(&span.span_id, SPAN_ID_BYTES, "span id", &span.span_id)?;
    let trace_id = self::id(&span.trace_id, TRACE_ID_BYTES, "trace id", &span.span_id)?;
    let time = |name: &str, ns: u64| match i64::try_from(ns) {
        Ok(0) => Ok(None),
        Ok(ns) => Ok(Some(ns)),
        Err(_) => {
            Err(reject(&id, RejectReason::InvalidTime, format!("the {name} time lies beyond the year 2262: {ns} ns")))
        }
    };
    let (start_ns, end_ns) = (time("start", span.start_time_unix_nano)?, time("end", span.end_time_unix_nano)?);
    let order = Order {
        event_time_us: end_ns.or(start_ns).map_or(0, |ns| ns / 1000),
        is_update: false,
        event_id: digest(encoded),
    };

    let mut observation = Observation {
        trace_id,
        id,
        parent_id: Some(span.parent_span_id).filter(|id| id.iter().any(|byte| *byte != 0)).map(|id| hex_text(&id)),
        name: Some(without_nul(span.name)).filter(|name| !name.is_empty()),
        start_ns,
        end_ns,
        source: Some("otlp".to_owned()),
        service_name: origin.service_name.clone(),
        scope_name: origin.scope_name.clone(),
        scope_version: origin.scope_version.clone(),
        sdk_name: origin.sdk_name.clone(),
        sdk_version: origin.sdk_version.clone(),
        ..Observation::default()
    };
    let mut bag = Bag::new(span.attributes, origin.scope_name.as_deref(), limits.attributes_max);
    span_events::read(span.events, &mut observation, &mut bag);
    span_events::read_list(&mut bag);
    let about_trace = who_and_where(&mut bag, origin, &mut observation);
    call(&mut bag, origin, &mut observation);
    status(&mut bag, origin, span.status, &mut observation);
    usage_and_cost(&mut bag, origin, &mut observation)?;
    first_token(&mut bag, &mut observation);
    payload(&mut bag, origin, &mut observation);
    links(span.links, &mut bag);
    observation.attributes = bag.into_rest();
    observation.attributes.extend(origin.attributes.iter().cloned());
    Ok((Event { order, kind: Some(EventKind::Observation(observation)) }, about_trace))
}

fn id(bytes: &[u8], length: usize, name: &str, span_id: &[u8]) -> Result<String, Rejection> {
    let shown = || hex::encode(&span_id[..span_id.len().min(32)]);
    if bytes.iter().all(|byte| *byte == 0) {
        return Err(reject(shown(), RejectReason::MissingId, format!("the {name} is missing or zero")));
    }
    if bytes.len() != length {
        let message = format!("the {name} has {} bytes instead of {length}", bytes.len());
        return Err(reject(shown(), RejectReason::InvalidId, message));
    }
    Ok(hex_text(bytes))
}

/// Three of them stand in every span: the library's own text is made digit by digit.
fn hex_text(bytes: &[u8]) -> String {
    let mut digits = vec![0; bytes.len() * 2];
    hex::encode_to_slice(bytes, &mut digits).expect("two digits a byte");
    String::from_utf8(digits).expect("digits are ASCII")
}

/// User, session, tags, environment, release: on the observation, and whether the trace should hear of it.
fn who_and_where(bag: &mut Bag, origin: &Origin, observation: &mut Observation) -> AboutTrace {
    observation.trace_name = bag.take_text(Slot::TraceName);
    observation.user_id = bag.take_text(Slot::UserId);
    observation.session_id = bag.take_text(Slot::SessionId).filter(|session| !session.starts_with(SCRUBBED));
    observation.tags = bag.take(Slot::Tags).map(|found| words(found.value)).unwrap_or_default();
    observation.tags.sort_unstable();
    observation.tags.dedup();
    observation.root_mark = bag.take_boolean(Slot::RootMark);
    let said_environment = bag.take_text(Slot::Environment).map(|name| environment(&name));
    let said_release = bag.take_text(Slot::Release);
    let version = bag.take_text(Slot::Version);
    let mut about = AboutTrace {
        is_said: said_environment.is_some() || said_release.is_some(),
        is_part: false,
        public: bag.take_boolean(Slot::Public),
        metadata: metadata(bag, Slot::TraceMetadata, origin),
        input: bag.take_text(Slot::TraceInput),
        output: bag.take_text(Slot::TraceOutput),
        version,
    };
    for (key, value) in std::mem::take(&mut bag.context_metadata) {
        let value = text(value);
        about.metadata.push((key.clone(), value.clone()));
        observation.metadata.insert(key, value);
    }
    if let Some(context) = bag.take(Slot::ContextMetadata) {
        match pairs(context.value) {
            Ok(pairs) => {
                about.metadata.extend(pairs.iter().cloned());
                observation.metadata.extend(pairs);
            }
            Err(value) => bag.keep(context.key, value),
        }
    }
    about.is_said |= about.public.is_some()
        || about.version.is_some()
        || about.input.is_some()
        || about.output.is_some()
        || !about.metadata.is_empty()
        || observation.trace_name.is_some()
        || observation.user_id.is_some()
        || observation.session_id.is_some()
        || !observation.tags.is_empty();
    observation.environment = said_environment.or_else(|| origin.environment.clone());
    observation.release = said_release.or_else(|| origin.release.clone());
    observation.version = about.version.clone().or_else(|| origin.service_version.clone());
    about
}

/// What kind of step it is and, for a call of a model, which one and how.
fn call(bag: &mut Bag, origin: &Origin, observation: &mut Observation) {
    let named = dialect::named_type(origin.scope_name.as_deref(), observation.name.as_deref());
    observation.set_observation_type(observation_type(bag, origin, named));
    let (genkit_model, genkit_parameters) = inside::genkit_call(bag);
    // The type has a column; a word that decided nothing is still worth keeping.
    for (slot, words) in TYPE_RULES {
        let known = bag.peek_text(*slot).is_some_and(|word| dialect::observation_type(words, word).is_some());
        if matches!(slot, Slot::ObservationType | Slot::SpanKind | Slot::MlflowKind) && known {
            bag.take(*slot);
        }
    }
    observation.operation = bag.take_text(Slot::Operation);
    if let Some(name) = bag.take_text(Slot::Name).or_else(|| ai_name(bag)) {
        observation.name = Some(name);
    }
    observation.error_type = bag.take_text(Slot::ErrorType).or(observation.error_type.take());
    observation.provider = bag.take_text(Slot::Provider);
    observation.response_id = bag.take_text(Slot::ResponseId);
    observation.finish_reasons = bag.take(Slot::FinishReasons).map(|found| words(found.value)).unwrap_or_default();
    observation.agent_id = bag.take_text(Slot::AgentId);
    observation.agent_name = bag.take_text(Slot::AgentName);
    observation.tool_name = bag.take_text(Slot::ToolName);
    observation.prompt_name = bag.take_text(Slot::PromptName);
    observation.prompt_version = bag.take_as(Slot::PromptVersion, integer);
    prompt_link(bag, observation);
    observation.model_parameters = model_parameters(bag);
    for (key, value) in genkit_parameters {
        observation.model_parameters.entry(key).or_insert(value);
    }
    let asked_for = |observation: &Observation| observation.model_parameters.get("service_tier").cloned();
    observation.service_tier = bag.take_text(Slot::ServiceTier).or_else(|| asked_for(observation));
    if is_aggregate(bag, observation) {
        bag.return_slot(Slot::Model);
    } else {
        observation.model = bag.take_text(Slot::Model).or(genkit_model);
    }
}

/// The AI SDK calls all spans of a kind alike; the tool, or the function its user names, tells them apart.
fn ai_name(bag: &Bag) -> Option<String> {
    let operation = bag.peek(Slot::AiOperation).filter(|found| found.key == "ai.operationId")?.text()?;
    let tool = bag.peek(Slot::ToolName).filter(|found| found.key == "ai.toolCall.name").and_then(|found| found.text());
    let function = bag.peek_text(Slot::AiFunction);
    tool.map(str::to_owned).or_else(|| Some(format!("{}:{operation}", function?)))
}

fn observation_type(bag: &Bag, origin: &Origin, named: Option<ObservationType>) -> ObservationType {
    let said = TYPE_RULES.iter().find_map(|(slot, words)| dialect::observation_type(words, bag.peek_text(*slot)?));
    let has_model = bag.peek(Slot::Model).is_some();
    match said {
        Some(ObservationType::Span) if origin.spans_may_be_generations && has_model => ObservationType::Generation,
        Some(said) => said,
        None if named.is_some() => named.unwrap_or(ObservationType::Span),
        None if bag.peek(Slot::ToolName).is_some() || bag.peek(Slot::ToolCallId).is_some() => ObservationType::Tool,
        None if has_model => ObservationType::Generation,
        None => ObservationType::Span,
    }
}

/// Its usage is that of the spans below it, by the name of its operation. What an agent or a chain says of itself in
/// Langfuse's own words is its own, unless rows below it say the same (`model::repeated`).
fn is_aggregate(bag: &Bag, observation: &Observation) -> bool {
    let in_its_own_words = bag.peek(Slot::UsageDetails).is_some() || bag.peek(Slot::CostDetails).is_some();
    if in_its_own_words && matches!(observation.observation_type(), ObservationType::Agent | ObservationType::Chain) {
        return false;
    }
    observation.operation.as_deref().is_some_and(dialect::aggregates)
        || bag.peek_text(Slot::AiOperation).is_some_and(dialect::aggregates)
}

/// Vercel's link to a managed prompt: JSON with name and version.
fn prompt_link(bag: &mut Bag, observation: &mut Observation) {
    let Some(link) = bag.take(Slot::PromptLink) else { return };
    match pairs(link.value) {
        Ok(pairs) => {
            for (key, text) in pairs {
                match key.as_str() {
                    "name" if observation.prompt_name.is_none() => observation.prompt_name = Some(text),
                    "version" if observation.prompt_version.is_none() => {
                        observation.prompt_version = value::integer_in(&text);
                    }
                    _ => {}
                }
            }
        }
        Err(value) => bag.keep(link.key, value),
    }
}

const PARAMETER_PREFIXES: [&str; 4] = ["gen_ai.request.", "llm.invocation_parameters.", "ai.settings.", "ai.prompt."];

/// One JSON object, or else one key each.
fn model_parameters(bag: &mut Bag) -> BTreeMap<String, String> {
    let singles = std::mem::take(&mut bag.model_parameters);
    if let Some(whole) = bag.take(Slot::ModelParameters) {
        match pairs(whole.value) {
            Ok(pairs) => {
                bag.keep_all(singles);
                return pairs.into_iter().collect();
            }
            Err(value) => bag.keep(whole.key, value),
        }
    }
    let name = |key: &str| {
        let name = PARAMETER_PREFIXES.iter().find_map(|prefix| key.strip_prefix(prefix));
        name.unwrap_or(key).to_owned()
    };
    singles.into_iter().map(|(key, value)| (name(&key), text(value))).collect()
}

fn status(bag: &mut Bag, origin: &Origin, status: Option<SpanStatus>, observation: &mut Observation) {
    let status = status.unwrap_or_default();
    match status.code {
        STATUS_OK => observation.set_status(Status::Ok),
        STATUS_ERROR => observation.set_status(Status::Error),
        _ => {}
    }
    let said = bag.take_as(Slot::Level, |value| match value {
        Value::StringValue(word) => dialect::level(word),
        _ => None,
    });
    let numbered = bag.take_as(Slot::LevelNumber, |value| dialect::numbered_level(integer(value)?));
    let failed = (status.code == STATUS_ERROR).then_some(Level::Error);
    let noisy = dialect::is_noisy(origin.scope_name.as_deref(), observation.name.as_deref());
    // Not that something is as usual: that is what stands where nothing is said.
    let numbered = numbered.filter(|level| *level != Level::Default);
    if let Some(level) = said.or(failed).or(numbered).or(noisy.then_some(Level::Debug)) {
        observation.set_level(level);
    }
    let message = Some(without_nul(status.message)).filter(|message| !message.is_empty());
    // An exception's message is what is left where neither says anything.
    observation.status_message = bag.take_text(Slot::StatusMessage).or(message).or(observation.status_message.take());
}

fn usage_and_cost(bag: &mut Bag, origin: &Origin, observation: &mut Observation) -> Result<(), Rejection> {
    let repeated = is_aggregate(bag, observation);
    inside::read(bag);
    let is_claude_code = origin.scope_name.as_deref().is_some_and(|scope| scope.starts_with(dialect::CLAUDE_CODE));
    let custom = if is_claude_code { Custom::Beside } else { Custom::Inside };
    usage(bag, custom).put(observation, repeated);
    if !repeated {
        costs(bag, observation)?;
    }
    Ok(())
}

/// Langfuse's details win outright; what else counts tokens is then an attribute.
fn usage(bag: &mut Bag, custom: Custom) -> Usage {
    if let Some(details) = bag.take(Slot::UsageDetails) {
        let parsed = match &details.value {
            Value::StringValue(json) => usage::from_json(json),
            Value::KvlistValue(_) => usage::from_json(&json(details.value.clone()).to_string()),
            _ => None,
        };
        if let Some(usage) = parsed {
            let others = bag.take_counts().into_iter().flatten().chain(std::mem::take(&mut bag.other_counts));
            for Found { key, value, .. } in others.collect::<Vec<_>>() {
                bag.keep(key, value);
            }
            return usage;
        }
        bag.keep(details.key, details.value);
    }
    let counts = bag.take_counts().map(|found| integer(&found?.value));
    let others = std::mem::take(&mut bag.other_counts).into_iter().filter_map(|found| {
        let prefixes = ["gen_ai.usage.", "llm.token_count.", usage::COUNTED_INSIDE];
        let name = prefixes.iter().find_map(|prefix| found.key.strip_prefix(prefix))?;
        let name = name.strip_prefix("details.").unwrap_or(name);
        Some((name.to_owned(), integer(&found.value)?))
    });
    let others = others.collect();
    usage::from_counts(counts, others, custom)
}

/// What the client says it cost. An amount that cannot be money refuses the span; what is no amount is an attribute.
fn costs(bag: &mut Bag, observation: &mut Observation) -> Result<(), Rejection> {
    let refuse = |id: &str, kind: &str, why: String| {
        reject(id, RejectReason::InvalidCost, format!("the cost {kind:?} is not accepted: {why}"))
    };
    if let Some(details) = bag.take(Slot::CostDetails) {
        let kept = details.value.clone();
        let entries = pairs(details.value).unwrap_or_default();
        let mut unread = entries.is_empty();
        for (kind, text) in entries {
            match value::money_in(&text).map_err(|why| refuse(&observation.id, &kind, why))? {
                Some(amount) => {
                    observation.provided_cost.insert(kind, amount.pico());
                }
                None => unread |= text != "null",
            }
        }
        if unread {
            bag.keep(details.key, kept);
        }
        if !observation.provided_cost.is_empty() {
            return Ok(());
        }
    }
    for (kind, found) in std::mem::take(&mut bag.costs) {
        match value::money(&found.value).map_err(|why| refuse(&observation.id, kind, why))? {
            Some(amount) => {
                observation.provided_cost.insert(kind.to_owned(), amount.pico());
            }
            None => bag.keep(found.key, found.value),
        }
    }
    Ok(())
}

/// A time, else a duration from the start, else an event's time (which stands there already).
fn first_token(bag: &mut Bag, observation: &mut Observation) {
    let said = bag.take_as(Slot::FirstTokenTime, |value| match value {
        Value::StringValue(text) => instant_ns(text),
        _ => None,
    });
    let start_ns = observation.start_ns;
    let after = |value: &Value, unit_ns: f64| {
        let ns = float(value)? * unit_ns;
        // A year bounds what can be a wait, and keeps the sum in range.
        (ns.is_finite() && (0.0..3.2e16).contains(&ns)).then(|| start_ns?.checked_add(ns.round() as i64)).flatten()
    };
    let seconds = bag.take_as(Slot::FirstTokenSeconds, |value| after(value, 1e9));
    let millis = bag.take_as(Slot::FirstTokenMillis, |value| after(value, 1e6));
    observation.completion_start_ns = said.or(seconds).or(millis).or(observation.completion_start_ns);
}

/// Input, output and metadata.
fn payload(bag: &mut Bag, origin: &Origin, observation: &mut Observation) {
    let lists = [
        (Slot::Input, INDEXED_PROMPT[0], std::mem::take(&mut bag.prompts)),
        (Slot::Output, INDEXED_PROMPT[1], std::mem::take(&mut bag.completions)),
        (Slot::Input, INDEXED_MESSAGES[0], std::mem::take(&mut bag.inputs)),
        (Slot::Output, INDEXED_MESSAGES[1], std::mem::take(&mut bag.outputs)),
    ];
    for (slot, via, pieces) in lists.into_iter().filter(|(_, _, pieces)| !pieces.is_empty()) {
        if bag.beats(slot, via) {
            // The prefix is two words: gen_ai.prompt, llm.input_messages.
            bag.offer_text(slot, via, pieces::joined(pieces, 2).to_string());
        } else {
            bag.keep_all(pieces);
        }
    }
    observation.input = with_instructions(bag, Slot::Input);
    observation.output = bag.take(Slot::Output).and_then(payload_text);
    let own = metadata(bag, Slot::Metadata, origin);
    observation.metadata.extend(own);
}

fn payload_text(found: Found) -> Option<String> {
    let is_quoted = dialect::QUOTED.contains(&found.key.as_str());
    let text = value::filled_text(found.value)?;
    if is_quoted { Some(unquoted(&text).unwrap_or(text)) } else { Some(text) }
}

/// Messages, with the system's instructions before them where the convention lists those apart.
fn with_instructions(bag: &mut Bag, slot: Slot) -> Option<String> {
    let found = bag.take(slot)?;
    let lists_apart = matches!(found.key.as_str(), "gen_ai.input.messages" | "pydantic_ai.all_messages");
    let messages = payload_text(found)?;
    let instructions = bag.peek_text(Slot::SystemInstructions).filter(|_| lists_apart);
    let is_json = |text: &&str| serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok();
    let (Some(parts), Some(list)) = (instructions.filter(is_json), messages.trim_start().strip_prefix('[')) else {
        return Some(messages);
    };
    let first = format!(r#"[{{"role":"system","parts":{parts}}}"#);
    let comma = if list.trim_start().starts_with(']') { "" } else { "," };
    let joined = format!("{first}{comma}{list}");
    bag.take(Slot::SystemInstructions);
    Some(joined)
}

/// The JSON object of `slot` and the single keys of its family; what is no object is one value under `metadata`.
fn metadata(bag: &mut Bag, slot: Slot, origin: &Origin) -> Vec<(String, String)> {
    let family = if slot == Slot::Metadata { &mut bag.metadata } else { &mut bag.trace_metadata };
    let singles = std::mem::take(family);
    let decoded = |text: String| if origin.metadata_is_json { unquoted(&text).unwrap_or(text) } else { text };
    let mut all = match bag.take(slot).map(|found| pairs(found.value)) {
        None => Vec::new(),
        Some(Ok(pairs)) => pairs,
        Some(Err(value)) => vec![("metadata".to_owned(), decoded(text(value)))],
    };
    all.extend(singles.into_iter().map(|(key, value)| (key, decoded(text(value)))));
    all
}

fn links(links: Vec<span::Link>, bag: &mut Bag) {
    if links.is_empty() {
        return;
    }
    let links = links.into_iter().map(|link| {
        serde_json::json!({
            "trace_id": hex::encode(link.trace_id),
            "span_id": hex::encode(link.span_id),
            "attributes": value::object_json(link.attributes),
        })
    });
    bag.keep_text("links".to_owned(), plain(links.collect::<Vec<_>>().into()));
}
