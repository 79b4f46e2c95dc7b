//! What can be asked about, in one table: adding a field is adding an entry, with its meaning and its unit.
//!
//! Every column of `observations` and `scores` is a field of its view, with the column's own comment as its meaning; the
//! entries below are what is made of columns.

use datafusion::functions::core::expr_fn::{coalesce, nullif};
use datafusion::functions::datetime::expr_fn::{date_part, to_char};
use datafusion::functions_nested::expr_fn::{array_length, array_to_string, map_keys};
use datafusion::logical_expr::{Expr, cast, lit, when};
use datafusion::prelude::ident;

use arrow::datatypes::DataType;

use crate::query::functions;
use crate::wire::View;

/// How a field's values compare and print.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FieldKind {
    Text,
    Whole,
    Number,
    Money,
    Boolean,
    Time,
    Texts,
}

/// Views, as a set.
#[derive(Debug, Clone, Copy)]
pub(super) struct Views(u8);

const OBSERVATIONS: Views = Views(1);
const TRACES: Views = Views(2);
const SESSIONS: Views = Views(4);
const USERS: Views = Views(8);
const SCORES: Views = Views(16);
const GROUPS: Views = Views(2 | 4 | 8);
const CONVERSED: Views = Views(2 | 4);
const LASTING: Views = Views(4 | 8);

impl Views {
    pub(super) fn has(self, view: View) -> bool {
        let bit = match view {
            View::Unspecified | View::Observations => OBSERVATIONS,
            View::Traces => TRACES,
            View::Sessions => SESSIONS,
            View::Users => USERS,
            View::Scores => SCORES,
        };
        self.0 & bit.0 != 0
    }
}

pub(super) struct Entry {
    /// With a colon at its end: whatever follows is the key.
    pub(super) name: &'static str,
    pub(super) views: Views,
    pub(super) unit: &'static str,
    pub(super) meaning: &'static str,
    pub(super) how: How,
}

/// Where a field's values come from.
#[derive(Clone, Copy)]
pub(super) enum How {
    /// The row itself.
    Row(FieldKind, fn() -> Expr),
    /// What stands in a map of the row under the key.
    Key(&'static str, FieldKind),
    /// What the group is grouped by.
    Group,
    /// Rows of one trace, session or user: what they say, the greatest where they differ.
    Said(fn() -> Expr),
    SaidUnder(&'static str),
    SaidList(&'static str),
    /// Their values added up.
    Sum(&'static str),
    /// How many of them there are, or pass.
    Count(Option<fn() -> Expr>),
    /// Whether one of them passes.
    Any(fn() -> Expr),
    /// How many different values they have.
    Distinct(&'static str),
    /// Their values in order, each once.
    List(&'static str),
    /// Names of those that pass in the order of their starts, the first twenty.
    Path(fn() -> Expr, fn() -> Expr),
    /// Their earliest start, their latest end, and the milliseconds from one to the other.
    Start,
    End,
    Span,
    /// The latest of their times.
    Latest(&'static str),
    /// Milliseconds from the earliest start to the first token.
    FirstToken,
    /// A trace among those of its session: its number, and the milliseconds since the one before.
    Turn,
    Gap,
    /// The last score with the name that was given to it.
    Score,
    ScoreLabel,
    /// What is said about the trace that was scored.
    OfTrace(&'static str, FieldKind),
    /// Its tags together.
    TagsOfTrace,
    /// What is said about the observation that was scored.
    OfObservation(&'static str, FieldKind),
    /// How many scores were given.
    Scores,
    /// How many of the asked steps were reached in order, and the milliseconds from the first to the last.
    StepsReached,
    StepsTime,
}

use FieldKind as K;
use How::*;

// One field a line.
#[rustfmt::skip]
pub(super) const FIELDS: &[Entry] = &[
    Entry { name: "tokens_per_second", views: OBSERVATIONS, unit: "tokens/s", meaning: "Output tokens by seconds of latency.", how: Row(K::Number, || per_second("output_tokens")) },
    Entry { name: "flow_name", views: OBSERVATIONS, unit: "", meaning: "The flow, else the trace's name.", how: Row(K::Text, flow_name) },
    Entry { name: "total_tokens_per_second", views: OBSERVATIONS, unit: "tokens/s", meaning: "All tokens by seconds of latency.", how: Row(K::Number, || per_second("total_tokens")) },
    Entry { name: "streaming_ms", views: OBSERVATIONS, unit: "ms", meaning: "From the first token to the end.", how: Row(K::Number, || ident("latency_ms") - ident("ttft_ms")) },
    Entry { name: "tag_set", views: OBSERVATIONS, unit: "", meaning: "The trace's tags together, with commas between.", how: Row(K::Text, tag_set) },
    Entry { name: "tool_definitions", views: OBSERVATIONS, unit: "count", meaning: "Tools that a call of a model could ask for.", how: Row(K::Whole, || count_of("tools_offered")) },
    Entry { name: "tool_calls", views: OBSERVATIONS, unit: "count", meaning: "Tools that the answer of a call asks for.", how: Row(K::Whole, || count_of("tools_called")) },
    Entry { name: "usage_kinds", views: OBSERVATIONS, unit: "", meaning: "The kinds of usage reported.", how: Row(K::Texts, || map_keys(ident("usage"))) },
    Entry { name: "cost_kinds", views: OBSERVATIONS, unit: "", meaning: "The kinds of cost known.", how: Row(K::Texts, || map_keys(ident("cost"))) },
    Entry { name: "month", views: Views(1 | 2), unit: "", meaning: "Where it began, UTC: 2026-11.", how: Row(K::Text, || date_text("start_time", "%Y-%m")) },
    Entry { name: "date", views: Views(1 | 2), unit: "", meaning: "Where it began, UTC: 2026-11-21.", how: Row(K::Text, || date_text("start_time", "%Y-%m-%d")) },
    Entry { name: "scores", views: Views(1 | 2), unit: "count", meaning: "Scores given to it; to a trace also those of its observations.", how: Scores },
    Entry { name: "is_call", views: OBSERVATIONS, unit: "", meaning: "A call of a model: a generation or an embedding.", how: Row(K::Boolean, is_call) },
    Entry { name: "is_error", views: OBSERVATIONS, unit: "", meaning: "Level ERROR or status error.", how: Row(K::Boolean, is_error) },
    Entry { name: "error", views: OBSERVATIONS, unit: "", meaning: "Of errors: type and message, with ids, numbers, quoted text and URLs replaced.", how: Row(K::Text, error) },
    Entry { name: "hour_of_day", views: OBSERVATIONS, unit: "", meaning: "0 to 23, UTC.", how: Row(K::Whole, hour_of_day) },
    Entry { name: "weekday", views: OBSERVATIONS, unit: "", meaning: "0 (Sunday) to 6, UTC.", how: Row(K::Whole, weekday) },
    Entry { name: "metadata:", views: Views(1 | 16), unit: "", meaning: "What the sender's metadata says under the key.", how: Key("metadata", K::Text) },
    Entry { name: "parameter:", views: OBSERVATIONS, unit: "", meaning: "A parameter of the model.", how: Key("model_parameters", K::Text) },
    Entry { name: "usage:", views: OBSERVATIONS, unit: "", meaning: "Usage of one kind, as reported.", how: Key("usage", K::Whole) },
    Entry { name: "cost:", views: OBSERVATIONS, unit: "USD", meaning: "Cost of one kind.", how: Key("cost", K::Money) },

    Entry { name: "trace_id", views: TRACES, unit: "", meaning: "The trace, as sent.", how: Group },
    Entry { name: "session_id", views: SESSIONS, unit: "", meaning: "The conversation.", how: Group },
    Entry { name: "user_id", views: USERS, unit: "", meaning: "The end user.", how: Group },
    Entry { name: "name", views: TRACES, unit: "", meaning: "The trace's name.", how: Said(trace_name) },
    Entry { name: "trace_name", views: GROUPS, unit: "", meaning: "The trace's name; of several, the last by alphabet.", how: Said(trace_name) },
    Entry { name: "flow_name", views: GROUPS, unit: "", meaning: "The flow, else the trace's name.", how: Said(flow_name) },
    Entry { name: "account", views: GROUPS, unit: "", meaning: "The tenant's own customer.", how: Said(|| ident("account")) },
    Entry { name: "project", views: GROUPS, unit: "", meaning: "The customer's project.", how: Said(|| ident("project")) },
    Entry { name: "flow", views: GROUPS, unit: "", meaning: "The flow, from metadata.", how: Said(|| ident("flow")) },
    Entry { name: "user_id", views: CONVERSED, unit: "", meaning: "The end user.", how: Said(|| ident("user_id")) },
    Entry { name: "session_id", views: TRACES, unit: "", meaning: "The conversation.", how: Said(|| ident("session_id")) },
    Entry { name: "environment", views: GROUPS, unit: "", meaning: "production, staging, …", how: Said(|| ident("environment")) },
    Entry { name: "release", views: GROUPS, unit: "", meaning: "The application's release.", how: Said(|| ident("release")) },
    Entry { name: "version", views: GROUPS, unit: "", meaning: "The version.", how: Said(|| ident("version")) },
    Entry { name: "service_name", views: GROUPS, unit: "", meaning: "Resource service.name.", how: Said(|| ident("service_name")) },
    Entry { name: "scope_name", views: GROUPS, unit: "", meaning: "The instrumentation.", how: Said(|| ident("scope_name")) },
    Entry { name: "sdk_name", views: GROUPS, unit: "", meaning: "The sender's SDK.", how: Said(|| ident("sdk_name")) },
    Entry { name: "sdk_version", views: GROUPS, unit: "", meaning: "Its version.", how: Said(|| ident("sdk_version")) },
    Entry { name: "source", views: GROUPS, unit: "", meaning: "The protocol it came by.", how: Said(|| ident("source")) },
    Entry { name: "metadata:", views: GROUPS, unit: "", meaning: "What metadata says under the key; of several values, the last by alphabet.", how: SaidUnder("metadata") },
    Entry { name: "tags", views: TRACES, unit: "", meaning: "The trace's tags.", how: SaidList("tags") },
    Entry { name: "tag_set", views: TRACES, unit: "", meaning: "The trace's tags together, with commas between.", how: Said(tag_set) },
    Entry { name: "finish_reasons", views: TRACES, unit: "", meaning: "Why the model stopped.", how: SaidList("finish_reasons") },

    Entry { name: "input_tokens", views: GROUPS, unit: "tokens", meaning: "All input tokens, cached ones included.", how: Sum("input_tokens") },
    Entry { name: "cached_input_tokens", views: GROUPS, unit: "tokens", meaning: "Read from a cache; a part of input_tokens.", how: Sum("cached_input_tokens") },
    Entry { name: "cache_write_tokens", views: GROUPS, unit: "tokens", meaning: "Written to a cache; a part of input_tokens.", how: Sum("cache_write_tokens") },
    Entry { name: "uncached_input_tokens", views: GROUPS, unit: "tokens", meaning: "Input tokens that no cache held or took.", how: Sum("uncached_input_tokens") },
    Entry { name: "output_tokens", views: GROUPS, unit: "tokens", meaning: "All output tokens, reasoning included.", how: Sum("output_tokens") },
    Entry { name: "reasoning_tokens", views: GROUPS, unit: "tokens", meaning: "Spent on reasoning; a part of output_tokens.", how: Sum("reasoning_tokens") },
    Entry { name: "answer_tokens", views: GROUPS, unit: "tokens", meaning: "Output tokens but for reasoning.", how: Sum("answer_tokens") },
    Entry { name: "total_tokens", views: GROUPS, unit: "tokens", meaning: "Input and output tokens, as sent.", how: Sum("total_tokens") },
    Entry { name: "input_cost", views: GROUPS, unit: "USD", meaning: "Cost of input, caches included.", how: Sum("input_cost") },
    Entry { name: "output_cost", views: GROUPS, unit: "USD", meaning: "Cost of output, reasoning included.", how: Sum("output_cost") },
    Entry { name: "total_cost", views: GROUPS, unit: "USD", meaning: "Cost.", how: Sum("total_cost") },

    Entry { name: "observations", views: GROUPS, unit: "count", meaning: "Spans, generations and events.", how: Count(None) },
    Entry { name: "calls", views: GROUPS, unit: "count", meaning: "Calls of a model: generations and embeddings.", how: Count(Some(is_call)) },
    Entry { name: "tool_calls", views: GROUPS, unit: "count", meaning: "Observations of type TOOL.", how: Count(Some(|| ident("type").eq(lit("TOOL")))) },
    Entry { name: "errors", views: GROUPS, unit: "count", meaning: "Observations with level ERROR or status error.", how: Count(Some(is_error)) },
    Entry { name: "warnings", views: GROUPS, unit: "count", meaning: "Observations with level WARNING.", how: Count(Some(|| ident("level").eq(lit("WARNING")))) },
    Entry { name: "truncated_calls", views: GROUPS, unit: "count", meaning: "Answers that were cut.", how: Count(Some(|| ident("truncated"))) },
    Entry { name: "is_error", views: GROUPS, unit: "", meaning: "At least one observation has level ERROR or status error.", how: Any(is_error) },
    Entry { name: "traces", views: LASTING, unit: "count", meaning: "Different traces.", how: Distinct("trace_id") },
    Entry { name: "turns", views: SESSIONS, unit: "count", meaning: "Traces of the conversation.", how: Distinct("trace_id") },
    Entry { name: "sessions", views: USERS, unit: "count", meaning: "Different sessions.", how: Distinct("session_id") },
    Entry { name: "users", views: SESSIONS, unit: "count", meaning: "Different users.", how: Distinct("user_id") },
    Entry { name: "models", views: GROUPS, unit: "", meaning: "Models called.", how: List("model") },
    Entry { name: "providers", views: GROUPS, unit: "", meaning: "Providers called.", how: List("provider") },
    Entry { name: "tools", views: GROUPS, unit: "", meaning: "Tools called.", how: List("tool_name") },
    Entry { name: "agents", views: GROUPS, unit: "", meaning: "Agents at work.", how: List("agent_name") },
    Entry { name: "types", views: GROUPS, unit: "", meaning: "Types of observations.", how: List("type") },
    Entry { name: "steps", views: TRACES, unit: "", meaning: "Names of observations.", how: List("name") },
    Entry { name: "path", views: TRACES, unit: "", meaning: "Names of the observations below the root in the order of their starts, the first twenty.", how: Path(|| ident("name"), || ident("is_root").is_not_true()) },
    Entry { name: "path", views: SESSIONS, unit: "", meaning: "Names of the traces in the order of their starts, the first twenty.", how: Path(|| ident("trace_name"), || ident("is_root").is_true()) },

    Entry { name: "start_time", views: GROUPS, unit: "", meaning: "The earliest start of an observation; of a trace without any its own time.", how: Start },
    Entry { name: "end_time", views: GROUPS, unit: "", meaning: "The latest end of an observation.", how: End },
    Entry { name: "ingested_at", views: GROUPS, unit: "", meaning: "When the last part of it came in.", how: Latest("ingested_at") },
    Entry { name: "latency_ms", views: TRACES, unit: "ms", meaning: "From the earliest start to the latest end.", how: Span },
    Entry { name: "duration_ms", views: LASTING, unit: "ms", meaning: "From the earliest start to the latest end.", how: Span },
    Entry { name: "ttft_ms", views: TRACES, unit: "ms", meaning: "From the earliest start to the first token.", how: FirstToken },
    Entry { name: "turn", views: TRACES, unit: "", meaning: "The number of the trace among those of its session, by their starts.", how: Turn },
    Entry { name: "gap_ms", views: TRACES, unit: "ms", meaning: "From the end of the session's trace before, never below 0.", how: Gap },
    Entry { name: "score:", views: Views(1 | 2 | 4), unit: "", meaning: "The value of the last score of that name.", how: Score },
    Entry { name: "score_label:", views: Views(1 | 2 | 4), unit: "", meaning: "The category or text of the last score of that name.", how: ScoreLabel },
    Entry { name: "steps_reached", views: CONVERSED, unit: "count", meaning: "How many of the asked steps were reached in their order.", how: StepsReached },
    Entry { name: "steps_ms", views: CONVERSED, unit: "ms", meaning: "From the first of the asked steps to the last, where all were reached.", how: StepsTime },

    Entry { name: "trace_name", views: SCORES, unit: "", meaning: "The name of the trace judged.", how: OfTrace("name", K::Text) },
    Entry { name: "user_id", views: SCORES, unit: "", meaning: "The user of the trace judged.", how: OfTrace("user_id", K::Text) },
    Entry { name: "trace_session_id", views: SCORES, unit: "", meaning: "The session of the trace judged.", how: OfTrace("session_id", K::Text) },
    Entry { name: "tags", views: SCORES, unit: "", meaning: "The tags of the trace judged.", how: OfTrace("tags", K::Texts) },
    Entry { name: "release", views: SCORES, unit: "", meaning: "The release of the trace judged.", how: OfTrace("release", K::Text) },
    Entry { name: "version", views: SCORES, unit: "", meaning: "The version of the trace judged.", how: OfTrace("version", K::Text) },
    Entry { name: "tag_set", views: SCORES, unit: "", meaning: "The tags of the trace judged together, with commas between.", how: TagsOfTrace },
    Entry { name: "observation_name", views: SCORES, unit: "", meaning: "The name of the observation judged.", how: OfObservation("name", K::Text) },
    Entry { name: "observation_model", views: SCORES, unit: "", meaning: "The model of the observation judged.", how: OfObservation("model", K::Text) },
    Entry { name: "observation_prompt_name", views: SCORES, unit: "", meaning: "The prompt of the observation judged.", how: OfObservation("prompt_name", K::Text) },
    Entry { name: "observation_prompt_version", views: SCORES, unit: "", meaning: "Its version.", how: OfObservation("prompt_version", K::Whole) },
    Entry { name: "month", views: SCORES, unit: "", meaning: "When it was given, UTC: 2026-11.", how: Row(K::Text, || date_text("timestamp", "%Y-%m")) },
    Entry { name: "date", views: SCORES, unit: "", meaning: "When it was given, UTC: 2026-11-21.", how: Row(K::Text, || date_text("timestamp", "%Y-%m-%d")) },
];

fn per_second(tokens: &str) -> Expr {
    let seconds = ident("latency_ms") / lit(1000.0);
    let speed = cast(ident(tokens), DataType::Float64) / seconds;
    when(ident("latency_ms").gt(lit(0.0)), speed).end().expect("a condition with one branch is complete")
}

fn count_of(list: &str) -> Expr {
    cast(array_length(ident(list)), DataType::Int64)
}

/// Null where there are none.
fn tag_set() -> Expr {
    joined(ident("tags"))
}

pub(super) fn joined(tags: Expr) -> Expr {
    nullif(array_to_string(tags, lit(",")), lit(""))
}

fn date_text(time: &str, format: &str) -> Expr {
    to_char(ident(time), lit(format))
}

fn trace_name() -> Expr {
    ident("trace_name")
}

fn flow_name() -> Expr {
    coalesce(vec![ident("flow"), ident("trace_name")])
}

fn is_call() -> Expr {
    ident("type").in_list(vec![lit("GENERATION"), lit("EMBEDDING")], false)
}

/// Never null, and known by the engine to be so: of IS TRUE its planner and its optimizer think differently.
fn is_error() -> Expr {
    let says_so = ident("level").eq(lit("ERROR")).or(ident("status").eq(lit("error")));
    when(says_so, lit(1i64)).end().expect("a condition with one branch is complete").is_not_null()
}

fn error() -> Expr {
    let fingerprint = functions::error_fingerprint().call(vec![ident("error_type"), ident("status_message")]);
    when(is_error(), fingerprint).end().expect("a condition with one branch is complete")
}

fn hour_of_day() -> Expr {
    cast(date_part(lit("hour"), ident("start_time")), DataType::Int64)
}

fn weekday() -> Expr {
    cast(date_part(lit("dow"), ident("start_time")), DataType::Int64)
}
