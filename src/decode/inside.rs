//! Counts and settings that some senders put inside a JSON payload rather than into attributes of their own.
//!
//! Attributes go first: what stands here fills only what they leave open. The payloads stay as they are.

use serde_json::Value as Json;

use super::bag::Bag;
use super::dialect::{Count, Slot};
use super::usage::{COUNTED_INSIDE, count_of};

/// Where in the JSON of a slot, if the key that brought it is this one, which count stands. Of several places of one
/// count the first that is filled holds.
struct Inside {
    slot: Slot,
    key: &'static str,
    counts: &'static [(Count, &'static str)],
    /// Further kinds without a column, by the name they are kept under.
    others: &'static [(&'static str, &'static str)],
}

#[rustfmt::skip]
const TABLE: &[Inside] = &[
    Inside {
        slot: Slot::Output,
        key: "genkit:output",
        counts: &[
            (Count::Input, "/usage/inputTokens"), (Count::Output, "/usage/outputTokens"),
            (Count::Total, "/usage/totalTokens"), (Count::Reasoning, "/usage/thoughtsTokens"),
            (Count::CachedInput, "/usage/cachedContentTokens"),
        ],
        others: &[],
    },
    Inside {
        slot: Slot::Output,
        key: "gcp.vertex.agent.llm_response",
        counts: &[
            (Count::Input, "/usage_metadata/prompt_token_count"),
            (Count::Output, "/usage_metadata/candidates_token_count"),
            (Count::Total, "/usage_metadata/total_token_count"),
            (Count::CachedInput, "/usage_metadata/cached_content_token_count"),
            (Count::Reasoning, "/usage_metadata/thoughts_token_count"),
        ],
        others: &[],
    },
    Inside {
        slot: Slot::AiProviderMetadata,
        key: "ai.response.providerMetadata",
        counts: &[
            (Count::CachedInput, "/openai/cachedPromptTokens"),
            (Count::CachedInput, "/anthropic/usage/cache_read_input_tokens"),
            (Count::CachedInput, "/bedrock/usage/cacheReadInputTokens"),
            (Count::CacheWrite, "/anthropic/usage/cache_creation_input_tokens"),
            (Count::CacheWrite, "/anthropic/cacheCreationInputTokens"),
            (Count::CacheWrite, "/bedrock/usage/cacheWriteInputTokens"),
            (Count::Reasoning, "/openai/reasoningTokens"),
        ],
        others: &[
            ("accepted_prediction_tokens", "/openai/acceptedPredictionTokens"),
            ("rejected_prediction_tokens", "/openai/rejectedPredictionTokens"),
            ("input_cache_creation_5m", "/anthropic/usage/cache_creation/ephemeral_5m_input_tokens"),
            ("input_cache_creation_1h", "/anthropic/usage/cache_creation/ephemeral_1h_input_tokens"),
        ],
    },
    Inside {
        slot: Slot::MlflowUsage,
        key: "mlflow.chat.tokenUsage",
        counts: &[
            (Count::Input, "/input_tokens"), (Count::Output, "/output_tokens"), (Count::Total, "/total_tokens"),
            (Count::CachedInput, "/cache_read_input_tokens"), (Count::CacheWrite, "/cache_creation_input_tokens"),
        ],
        others: &[],
    },
];

/// Reads the counts inside payloads into the bag.
pub(super) fn read(bag: &mut Bag) {
    if bag.peek(Slot::UsageDetails).is_some() {
        return; // They win outright.
    }
    for inside in TABLE {
        let Some(text) = bag.peek(inside.slot).filter(|found| found.key == inside.key).and_then(|found| found.text())
        else {
            continue;
        };
        let Ok(json) = serde_json::from_str::<Json>(text) else { continue };
        for (count, place) in inside.counts {
            if let Some(number) = json.pointer(place).and_then(count_of) {
                bag.fill_count(*count, place, number);
            }
        }
        for (name, place) in inside.others {
            if let Some(number) = json.pointer(place).and_then(count_of).filter(|number| *number > 0) {
                bag.add_count(format!("{COUNTED_INSIDE}{name}"), number);
            }
        }
    }
}

/// The model that a Genkit step of this kind calls, and how: its own keys name neither.
pub(super) fn genkit_call(bag: &Bag) -> (Option<String>, Vec<(String, String)>) {
    let is_model = bag.peek_text(Slot::GenkitSubtype).is_some_and(|subtype| subtype.contains("model"));
    if !is_model {
        return (None, Vec::new());
    }
    let name = bag.peek(Slot::Name).filter(|found| found.key == "genkit:name").and_then(|found| found.text());
    let input = bag.peek(Slot::Input).filter(|found| found.key == "genkit:input").and_then(|found| found.text());
    let input: Option<Json> = input.and_then(|text| serde_json::from_str(text).ok());
    let config = input.as_ref().and_then(|input| input.pointer("/config")?.as_object());
    let plain = |value: &Json| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let config = config.into_iter().flatten().filter(|(_, value)| !value.is_null());
    (name.map(str::to_owned), config.map(|(key, value)| (key.clone(), plain(value))).collect())
}
