//! Keys that count tokens and name costs.

use super::{Count, Row, Slot, Target, row};

const fn count(count: Count, keys: &'static [&'static str]) -> Row {
    Row { target: Target::Count(count), keys }
}

const fn cost(kind: &'static str, keys: &'static [&'static str]) -> Row {
    Row { target: Target::Cost(kind), keys }
}

#[rustfmt::skip]
pub(super) const TABLE: &[Row] = &[
    row(Slot::UsageDetails, &["langfuse.observation.usage_details"]),
    row(Slot::AiProviderMetadata, &["ai.response.providerMetadata"]),
    row(Slot::MlflowUsage, &["mlflow.chat.tokenUsage"]),
    row(Slot::CostDetails, &["langfuse.observation.cost_details"]),
    count(Count::Input, &[
        "gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens", "gen_ai.usage.prompt", "llm.token_count.prompt",
        "llm.token_count.prompt_tokens", "llm.token_count.input_tokens", "llm.usage.prompt_tokens",
        "ai.usage.inputTokens", "ai.usage.promptTokens", "ai.usage.tokens",
    ]),
    count(Count::Output, &[
        "gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens", "gen_ai.usage.completion",
        "llm.token_count.completion", "llm.token_count.completion_tokens", "llm.token_count.output_tokens",
        "llm.usage.completion_tokens", "ai.usage.outputTokens", "ai.usage.completionTokens",
    ]),
    count(Count::Total, &[
        "gen_ai.usage.total_tokens", "gen_ai.usage.total", "llm.token_count.total", "llm.token_count.total_tokens",
        "llm.usage.total_tokens", "ai.usage.totalTokens",
    ]),
    count(Count::CachedInput, &[
        "gen_ai.usage.cache_read.input_tokens", "gen_ai.usage.cache_read_input_tokens",
        "gen_ai.usage.cache_read_tokens",
        "gen_ai.usage.details.cache_read_tokens", "gen_ai.usage.details.cache_read_input_tokens",
        "gen_ai.usage.prompt_details.cache_read", "gen_ai.usage.input_cached_tokens",
        "llm.token_count.prompt_details.cache_read", "llm.token_count.cache_read_input_tokens",
        "llm.token_count.prompt_details.cache_input", "ai.usage.cachedInputTokens",
        "ai.usage.inputTokenDetails.cacheReadTokens",
    ]),
    count(Count::CacheWrite, &[
        "gen_ai.usage.cache_write.input_tokens", "gen_ai.usage.cache_creation.input_tokens",
        "gen_ai.usage.cache_creation_input_tokens", "gen_ai.usage.cache_write_tokens",
        "gen_ai.usage.cache_write_input_tokens", "gen_ai.usage.details.cache_write_tokens",
        "gen_ai.usage.details.cache_creation_input_tokens", "gen_ai.usage.prompt_details.cache_write",
        "gen_ai.usage.input_cache_creation", "llm.token_count.prompt_details.cache_write",
        "llm.token_count.cache_creation_input_tokens", "ai.usage.inputTokenDetails.cacheWriteTokens",
    ]),
    count(Count::Reasoning, &[
        "gen_ai.usage.reasoning.output_tokens", "gen_ai.usage.reasoning_tokens", "gen_ai.usage.output_reasoning_tokens",
        "gen_ai.usage.details.reasoning_tokens", "gen_ai.usage.completion_details.reasoning",
        "gen_ai.usage.thoughts_token_count", "llm.token_count.completion_details.reasoning",
        "ai.usage.reasoningTokens", "ai.usage.outputTokenDetails.reasoningTokens",
    ]),
    count(Count::OutputAudio, &["llm.token_count.completion_details.audio", "gen_ai.usage.completion_details.audio"]),
    cost("total", &[
        "gen_ai.usage.cost", "llm.cost.total", "operation.cost", "gen_ai.cost.total_cost", "llm.response.cost",
    ]),
    cost("input", &["gen_ai.usage.input_cost", "llm.cost.prompt", "gen_ai.cost.input_cost"]),
    cost("output", &["gen_ai.usage.output_cost", "llm.cost.completion", "gen_ai.cost.output_cost"]),
];
