//! Keys that say what kind of step a span is and, for calls of a model, which model and how.

use super::{Row, Slot, row};
use crate::model::{Level, ObservationType};

#[rustfmt::skip]
pub(super) const TABLE: &[Row] = &[
    row(Slot::ObservationType, &["langfuse.observation.type"]),
    row(Slot::SpanKind, &["openinference.span.kind"]),
    row(Slot::Operation, &["gen_ai.operation.name"]),
    row(Slot::GenkitSubtype, &["genkit:metadata:subtype"]),
    row(Slot::AiOperation, &["ai.operationId", "operation.name"]),
    row(Slot::ToolCallId, &["gen_ai.tool.call.id", "ai.toolCall.id"]),
    row(Slot::Name, &["genkit:name", "logfire.msg"]),
    row(Slot::Level, &["langfuse.observation.level"]),
    row(Slot::StatusMessage, &["langfuse.observation.status_message"]),
    row(Slot::ErrorType, &["error.type"]),
    row(Slot::Model, &[
        "langfuse.observation.model.name", "gen_ai.response.model", "ai.model.id", "gen_ai.request.model",
        "llm.response.model", "llm.model_name", "embedding.model_name", "model",
    ]),
    row(Slot::Provider, &["gen_ai.provider.name", "gen_ai.system", "llm.provider", "llm.system", "ai.model.provider"]),
    row(Slot::ModelParameters, &["langfuse.observation.model.parameters", "llm.invocation_parameters", "model_config"]),
    // What the provider answered before what was asked for: `auto` is not a tier.
    row(Slot::ServiceTier, &[
        "openai.response.service_tier", "gen_ai.openai.response.service_tier", "gen_ai.response.service_tier",
        "gen_ai.request.service_tier", "gen_ai.openai.request.service_tier",
    ]),
    row(Slot::FinishReasons, &[
        "gen_ai.response.finish_reasons", "gen_ai.finishReason", "llm.finish_reason", "ai.response.finishReason",
    ]),
    row(Slot::ResponseId, &["gen_ai.response.id", "llm.response.id", "ai.response.id"]),
    row(Slot::PromptName, &["langfuse.observation.prompt.name", "langfuse.prompt.name", "gen_ai.prompt.name"]),
    row(Slot::PromptVersion, &["langfuse.observation.prompt.version", "langfuse.prompt.version"]),
    row(Slot::PromptLink, &["ai.telemetry.metadata.langfusePrompt"]),
    row(Slot::AgentId, &["gen_ai.agent.id"]),
    row(Slot::AgentName, &["gen_ai.agent.name", "agent.name"]),
    row(Slot::ToolName, &["gen_ai.tool.name", "ai.toolCall.name", "tool.name"]),
    row(Slot::FirstTokenTime, &["langfuse.observation.completion_start_time"]),
    row(Slot::FirstTokenSeconds, &[
        "gen_ai.response.time_to_first_chunk", "gen_ai.client.operation.time_to_first_chunk",
    ]),
    row(Slot::FirstTokenMillis, &["ai.response.msToFirstChunk", "ai.stream.msToFirstChunk", "ttft_ms"]),
];

/// The type by one value: the words that decide, in any case.
type Words = &'static [(&'static str, ObservationType)];

/// Where the type is looked for, best first; a word that is not listed decides nothing.
#[rustfmt::skip]
pub(in crate::decode) const TYPE_RULES: &[(Slot, Words)] = {
    use ObservationType::*;
    &[
        (Slot::ObservationType, &[
            ("span", Span), ("generation", Generation), ("event", Event), ("embedding", Embedding), ("agent", Agent),
            ("tool", Tool), ("chain", Chain), ("retriever", Retriever), ("guardrail", Guardrail),
            ("evaluator", Evaluator),
        ]),
        (Slot::SpanKind, &[
            ("LLM", Generation), ("CHAIN", Chain), ("RETRIEVER", Retriever), ("EMBEDDING", Embedding), ("AGENT", Agent),
            ("TOOL", Tool), ("GUARDRAIL", Guardrail), ("EVALUATOR", Evaluator),
        ]),
        (Slot::Operation, &[
            ("chat", Generation), ("completion", Generation), ("text_completion", Generation),
            ("generate_content", Generation), ("generate", Generation), ("embeddings", Embedding),
            ("embedding", Embedding), ("invoke_agent", Agent), ("create_agent", Agent), ("execute_tool", Tool),
        ]),
        (Slot::GenkitSubtype, &[
            ("model", Generation), ("background-model", Generation), ("embedder", Embedding), ("tool", Tool),
            ("tool.v2", Tool), ("retriever", Retriever), ("evaluator", Evaluator),
        ]),
        (Slot::AiOperation, &[
            ("ai.generateText.doGenerate", Generation), ("ai.streamText.doStream", Generation),
            ("ai.generateObject.doGenerate", Generation), ("ai.streamObject.doStream", Generation),
            ("ai.embed.doEmbed", Embedding), ("ai.embedMany.doEmbed", Embedding), ("ai.toolCall", Tool),
        ]),
    ]
};

/// What `word` decides. `operation.name` of the AI SDK is an operation and a function: the first word counts.
pub(in crate::decode) fn observation_type(words: Words, word: &str) -> Option<ObservationType> {
    let word = word.split_whitespace().next()?;
    words.iter().find(|(known, _)| known.eq_ignore_ascii_case(word)).map(|(_, kind)| *kind)
}

/// Operations whose span repeats the usage of the spans below it: counting it would count twice.
const AGGREGATES: &[&str] = &[
    "invoke_agent",
    "agent_step",
    "invoke_workflow",
    "create_agent",
    "ai.generateText",
    "ai.streamText",
    "ai.generateObject",
    "ai.streamObject",
    "ai.embed",
    "ai.embedMany",
];

pub(in crate::decode) fn aggregates(operation: &str) -> bool {
    operation.split_whitespace().next().is_some_and(|operation| AGGREGATES.contains(&operation))
}

/// Langfuse's levels and the words other loggers use for them.
pub(in crate::decode) fn level(word: &str) -> Option<Level> {
    const WORDS: &[(&str, Level)] = &[
        ("DEBUG", Level::Debug),
        ("TRACE", Level::Debug),
        ("VERBOSE", Level::Debug),
        ("DEFAULT", Level::Default),
        ("INFO", Level::Default),
        ("LOG", Level::Default),
        ("NOTICE", Level::Default),
        ("OK", Level::Default),
        ("SUCCESS", Level::Default),
        ("WARNING", Level::Warning),
        ("WARN", Level::Warning),
        ("ERROR", Level::Error),
        ("FATAL", Level::Error),
        ("CRITICAL", Level::Error),
    ];
    let word = word.trim();
    WORDS.iter().find(|(known, _)| known.eq_ignore_ascii_case(word)).map(|(_, level)| *level)
}
