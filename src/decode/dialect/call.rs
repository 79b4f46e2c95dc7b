//! Keys that say what kind of step a span is and, for calls of a model, which model and how.

use super::{Count, Family, Meaning, Row, Slot, Target, row};
use crate::model::{Level, ObservationType};

#[rustfmt::skip]
pub(super) const TABLE: &[Row] = &[
    row(Slot::ObservationType, &["langfuse.observation.type"]),
    row(Slot::SpanKind, &["openinference.span.kind"]),
    row(Slot::MlflowKind, &["mlflow.spanType"]),
    row(Slot::TraceloopKind, &["traceloop.span.kind"]),
    row(Slot::LogfireKind, &["logfire.span_type"]),
    row(Slot::Operation, &["gen_ai.operation.name", "llm.request.type"]),
    row(Slot::GenkitSubtype, &["genkit:metadata:subtype"]),
    row(Slot::AiOperation, &["ai.operationId", "operation.name"]),
    row(Slot::AiFunction, &["ai.telemetry.functionId"]),
    row(Slot::ToolCallId, &["gen_ai.tool.call.id", "ai.toolCall.id", "lk.function_tool.id"]),
    row(Slot::Name, &["genkit:name", "logfire.msg"]),
    row(Slot::Level, &["langfuse.observation.level"]),
    row(Slot::LevelNumber, &["logfire.level_num"]),
    row(Slot::StatusMessage, &["langfuse.observation.status_message"]),
    row(Slot::ErrorType, &["error.type"]),
    row(Slot::Model, &[
        "langfuse.observation.model.name", "gen_ai.response.model", "ai.model.id", "gen_ai.request.model",
        "llm.response.model", "llm.model_name", "embedding.model_name", "model", "mlflow.llm.model",
    ]),
    row(Slot::Provider, &["gen_ai.provider.name", "gen_ai.system", "llm.provider", "llm.system", "ai.model.provider", "mlflow.llm.provider"]),
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
    row(Slot::PromptName, &[
        "langfuse.observation.prompt.name", "langfuse.prompt.name", "gen_ai.prompt.name", "traceloop.prompt.key",
    ]),
    row(Slot::PromptVersion, &[
        "langfuse.observation.prompt.version", "langfuse.prompt.version", "gen_ai.prompt.version",
        "traceloop.prompt.version",
    ]),
    row(Slot::PromptLink, &["ai.telemetry.metadata.langfusePrompt"]),
    row(Slot::AgentId, &["gen_ai.agent.id"]),
    row(Slot::AgentName, &["gen_ai.agent.name", "agent.name", "agent_name", "lk.agent_name"]),
    row(Slot::ToolName, &["gen_ai.tool.name", "ai.toolCall.name", "tool.name", "lk.function_tool.name"]),
    row(Slot::FirstTokenTime, &["langfuse.observation.completion_start_time"]),
    row(Slot::FirstTokenSeconds, &[
        "gen_ai.response.time_to_first_chunk", "gen_ai.client.operation.time_to_first_chunk", "lk.response.ttft",
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
        (Slot::MlflowKind, &[
            ("LLM", Generation), ("CHAT_MODEL", Generation), ("EMBEDDING", Embedding), ("RETRIEVER", Retriever),
            ("TOOL", Tool), ("AGENT", Agent), ("CHAIN", Chain), ("WORKFLOW", Chain), ("GUARDRAIL", Guardrail),
            ("EVALUATOR", Evaluator),
        ]),
        // A workflow or a task is whatever the application's function is: a span.
        (Slot::TraceloopKind, &[("agent", Agent), ("tool", Tool)]),
        (Slot::LogfireKind, &[("log", Event)]),
    ]
};

/// What `word` decides. `operation.name` of the AI SDK is an operation and a function: the first word counts. MLflow
/// writes all values as JSON, words in quotes.
pub(in crate::decode) fn observation_type(words: Words, word: &str) -> Option<ObservationType> {
    let word = word.split_whitespace().next()?.trim_matches('"');
    words.iter().find(|(known, _)| known.eq_ignore_ascii_case(word)).map(|(_, kind)| *kind)
}

/// Steps that only their instrumentation's scope and the span's name tell.
#[rustfmt::skip]
const NAMED: &[(&str, &[(&str, ObservationType)])] = {
    use ObservationType::*;
    &[
        ("livekit-agents", &[("agent_turn", Agent), ("start_agent_activity", Agent), ("function_tool", Tool)]),
        (CLAUDE_CODE, &[
            ("claude_code.llm_request", Generation), ("claude_code.tool", Tool), ("claude_code.interaction", Agent),
        ]),
    ]
};

/// The type of the span called `name` by this scope.
pub(in crate::decode) fn named_type(scope: Option<&str>, name: Option<&str>) -> Option<ObservationType> {
    let (scope, name) = (scope?, name?);
    let names = NAMED.iter().find(|(known, _)| scope.starts_with(known))?.1;
    names.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind)
}

/// Spans that a scope writes for its own makers: as many as all others, of little use to anybody else.
const NOISY: &[(&str, &[&str])] = &[(
    "livekit-agents",
    &[
        "agent_speaking",
        "drain_agent_activity",
        "eou_detection",
        "llm_request_run",
        "on_enter",
        "on_exit",
        "tts_request_run",
        "user_speaking",
    ],
)];

pub(in crate::decode) fn is_noisy(scope: Option<&str>, name: Option<&str>) -> bool {
    let (Some(scope), Some(name)) = (scope, name) else { return false };
    NOISY.iter().any(|(known, names)| scope.starts_with(known) && names.contains(&name))
}

/// The number by which OpenTelemetry's loggers say how grave something is: 1 to 24, four of each.
pub(in crate::decode) fn numbered_level(number: i64) -> Option<Level> {
    match number {
        1..=8 => Some(Level::Debug),
        9..=12 => Some(Level::Default),
        13..=16 => Some(Level::Warning),
        17..=24 => Some(Level::Error),
        _ => None,
    }
}

/// The scope of Claude Code's own spans. Its keys are bare words, so they mean something here only.
pub(in crate::decode) const CLAUDE_CODE: &str = "com.anthropic.claude_code";

/// Keys that mean something only in the spans of one scope.
#[rustfmt::skip]
const SCOPED: &[(&str, &[(&str, Meaning)])] = &[
    (CLAUDE_CODE, &[
        ("input_tokens", Meaning::Ranked(Target::Count(Count::Input), 0)),
        ("output_tokens", Meaning::Ranked(Target::Count(Count::Output), 0)),
        ("cache_read_tokens", Meaning::Ranked(Target::Count(Count::CachedInput), 0)),
        ("cache_creation_tokens", Meaning::Ranked(Target::Count(Count::CacheWrite), 0)),
        ("speed", Meaning::Family(Family::ModelParameter, 0)),
        ("tool_name", Meaning::Ranked(Target::One(Slot::ToolName), 0)),
        ("stop_reason", Meaning::Ranked(Target::One(Slot::FinishReasons), u8::MAX)),
        ("error", Meaning::Ranked(Target::One(Slot::StatusMessage), u8::MAX)),
        ("user_prompt", Meaning::Ranked(Target::One(Slot::Input), u8::MAX)),
    ]),
];

/// The keys of this scope alone; of most there are none.
pub(in crate::decode) fn scoped_keys(scope: Option<&str>) -> &'static [(&'static str, Meaning)] {
    let keys = |scope: &str| SCOPED.iter().find(|(known, _)| scope.starts_with(known)).map(|(_, keys)| *keys);
    scope.and_then(keys).unwrap_or_default()
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
