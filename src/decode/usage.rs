//! Token counts: the conventions in which senders report them, made one (`clients` §4).
//!
//! Two questions differ by sender: are cached tokens *inside* the input count or listed *beside* it, and the same for
//! reasoning and output. Where the total or the counts themselves prove one, that holds whatever the custom.

use std::collections::BTreeMap;

use serde_json::Value;

use super::dialect::Count;
use super::value::{COUNT_MAX, integer_in};
use crate::model::{Observation, UsageSource};

/// Before the name of a count that came inside a payload, where other counts have the prefix of their convention.
pub(super) const COUNTED_INSIDE: &str = "inside.";

/// What a sender's custom is where nothing proves it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Custom {
    /// GenAI conventions, OpenInference, OpenAI: input includes cached tokens, output includes reasoning.
    Inside,
    /// Langfuse: every kind is a bucket of its own.
    Beside,
}

/// Counts as reported.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) input: Option<i64>,
    pub(super) output: Option<i64>,
    pub(super) total: Option<i64>,
    pub(super) cached_input: Option<i64>,
    pub(super) cache_write: Option<i64>,
    pub(super) reasoning: Option<i64>,
    /// Further parts of the input and the output: audio, predictions, …
    pub(super) other_input: i64,
    pub(super) other_output: i64,
}

/// Counts as they are kept: whole input and output, and their parts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// By kind, as Langfuse names and stores them: with agreed names, each kind a bucket of its own.
    pub(super) by_kind: BTreeMap<String, i64>,
    pub(super) counts: Counts,
}

impl Usage {
    /// Writes the counts into `observation`; those of an aggregating span only into the map.
    pub(super) fn put(self, observation: &mut Observation, repeated: bool) {
        if self.by_kind.is_empty() {
            return;
        }
        observation.usage = self.by_kind;
        let source = if repeated { UsageSource::Repeated } else { UsageSource::Provided };
        observation.set_usage_source(source);
        if !repeated {
            observation.input_tokens = self.counts.input;
            observation.output_tokens = self.counts.output;
            observation.total_tokens = self.counts.total;
            observation.cached_input_tokens = self.counts.cached_input;
            observation.cache_write_tokens = self.counts.cache_write;
            observation.reasoning_tokens = self.counts.reasoning;
        }
    }
}

/// Usage of counts under agreed names (`by_count`, by [`Count`]) and under names of the sender's own.
pub(super) fn from_counts(
    by_count: [Option<i64>; Count::COUNT],
    mut others: BTreeMap<String, i64>,
    custom: Custom,
) -> Usage {
    let count = |kind: Count| by_count[kind as usize];
    let counts = Counts {
        input: count(Count::Input),
        output: count(Count::Output),
        total: count(Count::Total),
        cached_input: count(Count::CachedInput),
        cache_write: count(Count::CacheWrite),
        reasoning: count(Count::Reasoning),
        ..Counts::default()
    };
    let whole = made_whole(&counts, custom);
    let audio = count(Count::OutputAudio);
    let bucket = |whole: Option<i64>, parts: [Option<i64>; 2]| {
        whole.map(|whole| (whole - parts.iter().flatten().fold(0, |sum: i64, part| sum.saturating_add(*part))).max(0))
    };
    let buckets = [
        ("input", bucket(whole.input, [whole.cached_input, whole.cache_write])),
        ("output", bucket(whole.output, [whole.reasoning, audio])),
        ("total", whole.total),
        ("input_cached_tokens", whole.cached_input),
        ("input_cache_creation", whole.cache_write),
        ("output_reasoning_tokens", whole.reasoning),
        ("output_audio_tokens", audio),
    ];
    others.extend(buckets.into_iter().filter_map(|(kind, count)| Some((kind.to_owned(), count?))));
    Usage { by_kind: others, counts: whole }
}

/// Usage of an object that has only input, output and total, in this order.
pub(super) fn from_three([input, output, total]: [Option<i64>; 3]) -> Usage {
    let mut by_count = [None; Count::COUNT];
    by_count[Count::Input as usize] = input;
    by_count[Count::Output as usize] = output;
    by_count[Count::Total as usize] = total;
    from_counts(by_count, BTreeMap::new(), Custom::Inside)
}

/// A count written as text or number.
pub(super) fn count_in(text: &str) -> Option<i64> {
    integer_in(text).filter(|count| (0..=COUNT_MAX).contains(count))
}

/// Usage as a JSON object: Langfuse's free record, or an OpenAI usage object as the API answered it.
pub(super) fn from_json(json: &str) -> Option<Usage> {
    let record: BTreeMap<String, Value> = serde_json::from_str(json).ok()?;
    Some(if is_openai(&record) { from_openai(record) } else { from_record(record) })
}

fn is_openai(record: &BTreeMap<String, Value>) -> bool {
    let has = |key: &str| record.contains_key(key);
    let details = |key: &str| record.get(key).is_some_and(Value::is_object);
    let chat = (has("prompt_tokens") || has("completion_tokens")) && (has("total_tokens") || has("completion_tokens"));
    let responses = (has("input_tokens") || has("output_tokens"))
        && (has("total_tokens") || details("input_tokens_details") || details("output_tokens_details"));
    chat || responses
}

/// Details are objects beside the counts, and inside them in number. Each detail becomes a bucket of its own.
fn from_openai(record: BTreeMap<String, Value>) -> Usage {
    let mut counts = Counts::default();
    let mut by_kind = BTreeMap::new();
    let (mut input_details, mut output_details) = (0i64, 0i64);
    for (key, value) in &record {
        match (key.as_str(), value) {
            ("prompt_tokens" | "input_tokens", value) => counts.input = number(value).or(counts.input),
            ("completion_tokens" | "output_tokens", value) => counts.output = number(value).or(counts.output),
            ("total_tokens", value) => counts.total = number(value),
            ("prompt_tokens_details" | "input_tokens_details", Value::Object(details)) => {
                for (name, count) in numbers(details) {
                    match name {
                        "cached_tokens" => counts.cached_input = Some(count),
                        "cache_write_tokens" | "cache_creation_tokens" => counts.cache_write = Some(count),
                        _ => {}
                    }
                    input_details = input_details.saturating_add(count);
                    by_kind.insert(format!("input_{name}"), count);
                }
            }
            ("completion_tokens_details" | "output_tokens_details", Value::Object(details)) => {
                for (name, count) in numbers(details) {
                    if name == "reasoning_tokens" {
                        counts.reasoning = Some(count);
                    }
                    output_details = output_details.saturating_add(count);
                    by_kind.insert(format!("output_{name}"), count);
                }
            }
            (name, value) => {
                if let Some(count) = number(value) {
                    by_kind.insert(name.to_owned(), count);
                }
            }
        }
    }
    let counts = made_whole(&counts, Custom::Inside);
    let buckets = [
        ("input", counts.input.map(|input| input.saturating_sub(input_details).max(0))),
        ("output", counts.output.map(|output| output.saturating_sub(output_details).max(0))),
        ("total", counts.total),
    ];
    by_kind.extend(buckets.into_iter().filter_map(|(kind, count)| Some((kind.to_owned(), count?))));
    Usage { by_kind, counts }
}

/// A free record is kept as it is; only numbers not below zero count.
fn from_record(record: BTreeMap<String, Value>) -> Usage {
    let mut by_kind: BTreeMap<String, i64> =
        record.into_iter().filter_map(|(key, value)| Some((key, number(&value)?))).collect();
    let mut counts = Counts::default();
    // Writes by time to live (`_5m`, `_1h`) are parts of the plain count where there is one.
    let mut write_parts: Option<i64> = None;
    for (key, count) in &by_kind {
        let add = |sum: &mut Option<i64>| *sum = Some(sum.unwrap_or(0).saturating_add(*count));
        match kind_of(key) {
            Kind::Input => add(&mut counts.input),
            Kind::Output => add(&mut counts.output),
            Kind::Total => counts.total = Some(*count),
            Kind::CachedInput => add(&mut counts.cached_input),
            Kind::CacheWrite if key.ends_with("_5m") || key.ends_with("_1h") => add(&mut write_parts),
            Kind::CacheWrite => add(&mut counts.cache_write),
            Kind::Reasoning => add(&mut counts.reasoning),
            Kind::OtherInput => counts.other_input = counts.other_input.saturating_add(*count),
            Kind::OtherOutput => counts.other_output = counts.other_output.saturating_add(*count),
            Kind::Other => {}
        }
    }
    counts.cache_write = counts.cache_write.filter(|written| *written > 0).or(write_parts).or(counts.cache_write);
    let counts = made_whole(&counts, Custom::Beside);
    if let Some(total) = counts.total {
        by_kind.entry("total".to_owned()).or_insert(total);
    }
    Usage { by_kind, counts }
}

enum Kind {
    Input,
    Output,
    Total,
    CachedInput,
    CacheWrite,
    Reasoning,
    OtherInput,
    OtherOutput,
    Other,
}

/// The kinds that senders put into free records go by many names, all with these words in them.
fn kind_of(key: &str) -> Kind {
    let key = key.to_ascii_lowercase();
    match key.as_str() {
        "input" | "input_tokens" | "inputtokens" | "prompt" | "prompt_tokens" | "prompttokens" => Kind::Input,
        "output" | "output_tokens" | "outputtokens" | "completion" | "completion_tokens" | "completiontokens" => {
            Kind::Output
        }
        "total" | "total_tokens" | "totaltokens" => Kind::Total,
        key if key.contains("cache") && (key.contains("write") || key.contains("creat")) => Kind::CacheWrite,
        key if key.contains("cache") => Kind::CachedInput,
        key if key.contains("reasoning") || key.contains("thought") => Kind::Reasoning,
        key if key.starts_with("input") || key.starts_with("prompt") => Kind::OtherInput,
        key if key.starts_with("output") || key.starts_with("completion") => Kind::OtherOutput,
        _ => Kind::Other,
    }
}

fn numbers(record: &serde_json::Map<String, Value>) -> impl Iterator<Item = (&str, i64)> {
    record.iter().filter_map(|(name, value)| Some((name.as_str(), number(value)?)))
}

/// A count in JSON, a number or a text.
pub(super) fn count_of(value: &Value) -> Option<i64> {
    number(value)
}

fn number(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => count_in(&number.to_string()),
        Value::String(text) => count_in(text),
        _ => None,
    }
}

/// Counts with the whole input, the whole output and a total.
fn made_whole(counts: &Counts, custom: Custom) -> Counts {
    let caches = counts.cached_input.unwrap_or(0).saturating_add(counts.cache_write.unwrap_or(0));
    let beside_input = caches.saturating_add(counts.other_input);
    let reasoning = counts.reasoning.unwrap_or(0);
    let beside_output = reasoning.saturating_add(counts.other_output);
    let (input, output) = (counts.input.unwrap_or(0), counts.output.unwrap_or(0));
    // A part larger than the whole is no part of it.
    let (input_may_hold, output_may_hold) = (caches <= input, reasoning <= output);

    let sum = |add_input: bool, add_output: bool| {
        let input = input.saturating_add(if add_input { beside_input } else { 0 });
        let output = output.saturating_add(if add_output { beside_output } else { 0 });
        input.saturating_add(output)
    };
    let proven = counts.total.and_then(|total| {
        [(false, false), (true, true), (true, false), (false, true)].into_iter().find(|(add_input, add_output)| {
            (*add_input || input_may_hold) && (*add_output || output_may_hold) && sum(*add_input, *add_output) == total
        })
    });
    let (add_input, add_output) = proven.unwrap_or(match custom {
        Custom::Beside => (true, true),
        Custom::Inside => (!input_may_hold, !output_may_hold),
    });

    let whole = |said: Option<i64>, add: bool, beside: i64| match said {
        Some(said) => Some(said.saturating_add(if add { beside } else { 0 })),
        None => (beside > 0).then_some(beside),
    };
    let input = whole(counts.input, add_input, beside_input);
    let output = whole(counts.output, add_output, beside_output);
    let both = input.is_some() || output.is_some();
    let total = counts.total.or(both.then(|| input.unwrap_or(0).saturating_add(output.unwrap_or(0))));
    Counts { input, output, total, ..counts.clone() }
}
