//! Keys and span events that carry what went in, what came out and what the sender noted beside it.

use super::{Row, Slot, row};

/// Stand in the rows below for payloads that come as span events or as lists in pieces.
pub(in crate::decode) const VIA_DETAILS: [&str; 2] = ["event.gen_ai.details.input", "event.gen_ai.details.output"];
pub(in crate::decode) const VIA_MESSAGES: [&str; 2] = ["event.gen_ai.messages.input", "event.gen_ai.messages.output"];
pub(in crate::decode) const VIA_CONTENT: [&str; 2] = ["event.gen_ai.content.input", "event.gen_ai.content.output"];
pub(in crate::decode) const VIA_LIST: [&str; 2] = ["attribute.events.input", "attribute.events.output"];
pub(in crate::decode) const INDEXED_PROMPT: [&str; 2] = ["indexed.gen_ai.prompt", "indexed.gen_ai.completion"];
pub(in crate::decode) const INDEXED_MESSAGES: [&str; 2] = ["indexed.llm.input_messages", "indexed.llm.output_messages"];

#[rustfmt::skip]
pub(super) const TABLE: &[Row] = &[
    row(Slot::Input, &[
        "langfuse.observation.input", "genkit:input", "ai.prompt.messages", "ai.prompt", "ai.toolCall.args",
        VIA_DETAILS[0], VIA_MESSAGES[0], VIA_CONTENT[0], "gcp.vertex.agent.llm_request",
        "gcp.vertex.agent.tool_call_args", "prompt", VIA_LIST[0], "lk.input_text", "lk.user_transcript", "lk.chat_ctx",
        "mlflow.spanInputs", "traceloop.entity.input", "input.value", "input",
        "pydantic_ai.all_messages", "tool_arguments", INDEXED_PROMPT[0],
        INDEXED_MESSAGES[0], "gen_ai.input.messages", "gen_ai.tool.call.arguments", "ai.value", "ai.values",
        "lk.function_tool.args",
    ]),
    row(Slot::Output, &[
        "langfuse.observation.output", "genkit:output", "ai.response.text", "ai.result.text", "ai.toolCall.result",
        "ai.response.object", "ai.result.object", "ai.response.toolCalls", "ai.result.toolCalls", VIA_DETAILS[1],
        VIA_MESSAGES[1], VIA_CONTENT[1], "gcp.vertex.agent.llm_response", "gcp.vertex.agent.tool_response",
        "all_messages_events", VIA_LIST[1], "lk.function_tool.output", "lk.response.text", "mlflow.spanOutputs",
        "traceloop.entity.output", "output.value", "output", "final_result",
        "tool_response", INDEXED_PROMPT[1], INDEXED_MESSAGES[1], "gen_ai.output.messages", "gen_ai.tool.call.result",
    ]),
    row(Slot::MessageEvents, &["events"]),
    row(Slot::SystemInstructions, &["gen_ai.system_instructions"]),
    row(Slot::Metadata, &["langfuse.observation.metadata", "langfuse.metadata"]),
    // OpenInference's context: set once around a piece of work, it stands on every span in it.
    row(Slot::ContextMetadata, &["metadata"]),
];

pub(in crate::decode) const EXCEPTION_EVENT: &str = "exception";
/// One event with the whole request and reply as attributes.
pub(in crate::decode) const DETAILS_EVENT: &str = "gen_ai.client.inference.operation.details";

/// Events that mark the first token by their time.
pub(in crate::decode) const FIRST_TOKEN_EVENTS: &[&str] = &[
    "First Token Stream Event",
    "gen_ai.content.first_token",
    "gen_ai.content.completion.chunk",
    "llm.content.completion.chunk",
    "ai.stream.firstChunk",
];

/// Payloads whose senders write them as JSON whatever they are: a text comes in quotes.
pub(in crate::decode) const QUOTED: &[&str] =
    &["traceloop.entity.input", "traceloop.entity.output", "mlflow.spanInputs", "mlflow.spanOutputs"];

/// One event per message: its name, whether it is output, the role it stands for.
pub(in crate::decode) const MESSAGE_EVENTS: &[(&str, bool, &str)] = &[
    ("gen_ai.system.message", false, "system"),
    ("gen_ai.user.message", false, "user"),
    ("gen_ai.assistant.message", false, "assistant"),
    ("gen_ai.tool.message", false, "tool"),
    ("gen_ai.choice", true, "assistant"),
];

/// One event per side: its name, whether it is output, the attribute that holds the text.
pub(in crate::decode) const CONTENT_EVENTS: &[(&str, bool, &str)] =
    &[("gen_ai.content.prompt", false, "gen_ai.prompt"), ("gen_ai.content.completion", true, "gen_ai.completion")];
