//! What Langfuse's metrics can be asked about, in our words: adding a measure or a dimension is adding a line.

use super::super::filters::{Column, ColumnKind as K, column};
use super::super::{comparison, is};
use crate::wire::{Filter, FilterOperator, View};

/// A view of Langfuse's.
pub(super) struct ViewOf {
    pub(super) name: &'static str,
    pub(super) view: View,
    /// Which rows of our view it has.
    pub(super) filters: fn() -> Vec<Filter>,
    /// For filters, and but for times and what stands under keys also for dimensions.
    pub(super) columns: &'static [Column],
    pub(super) measures: &'static [MeasureOf],
}

/// A measure of Langfuse's: a field of ours, and what can be made of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct MeasureOf {
    pub(super) name: &'static str,
    pub(super) field: &'static str,
    pub(super) makes: Makes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Makes {
    /// How many rows there are.
    Rows,
    /// How many have it, and how many different ones there are.
    Texts,
    /// How many different ones there are, whatever is asked.
    Different,
    Numbers,
    /// The sum over one kind, with the dimension of kinds.
    ByKind,
}

const fn measure(name: &'static str, field: &'static str, makes: Makes) -> MeasureOf {
    MeasureOf { name, field, makes }
}

/// The dimensions of kinds, and the prefix of the field that has a kind's numbers.
pub(super) const KINDS: [(&str, &str, &str); 2] =
    [("costType", "cost_kinds", "cost:"), ("usageType", "usage_kinds", "usage:")];

pub(super) const VIEWS: [ViewOf; 5] = [
    ViewOf {
        name: "observations",
        view: View::Observations,
        filters: Vec::new,
        columns: &OBSERVATIONS,
        measures: &OF_OBSERVATIONS,
    },
    ViewOf { name: "traces", view: View::Traces, filters: Vec::new, columns: &TRACES, measures: &OF_TRACES },
    ViewOf { name: "scores-numeric", view: View::Scores, filters: numeric, columns: &SCORES, measures: &OF_NUMBERS },
    ViewOf { name: "scores-boolean", view: View::Scores, filters: boolean, columns: &SCORES, measures: &OF_NUMBERS },
    ViewOf {
        name: "scores-categorical",
        view: View::Scores,
        filters: categorical,
        columns: &SCORES,
        measures: &OF_WORDS,
    },
];

fn numeric() -> Vec<Filter> {
    let kinds = ["NUMERIC", "BOOLEAN"].map(str::to_owned).to_vec();
    vec![comparison("data_type", FilterOperator::In, kinds)]
}
fn boolean() -> Vec<Filter> {
    vec![is("data_type", "BOOLEAN")]
}
fn categorical() -> Vec<Filter> {
    vec![is("data_type", "CATEGORICAL")]
}

#[rustfmt::skip]
const OF_OBSERVATIONS: [MeasureOf; 20] = [
    measure("count", "", Makes::Rows),
    measure("latency", "latency_ms", Makes::Numbers),
    measure("streamingLatency", "streaming_ms", Makes::Numbers),
    measure("timeToFirstToken", "ttft_ms", Makes::Numbers),
    measure("inputTokens", "input_tokens", Makes::Numbers),
    measure("outputTokens", "output_tokens", Makes::Numbers),
    measure("totalTokens", "total_tokens", Makes::Numbers),
    measure("outputTokensPerSecond", "tokens_per_second", Makes::Numbers),
    measure("tokensPerSecond", "total_tokens_per_second", Makes::Numbers),
    measure("inputCost", "input_cost", Makes::Numbers),
    measure("outputCost", "output_cost", Makes::Numbers),
    measure("totalCost", "total_cost", Makes::Numbers),
    measure("countScores", "scores", Makes::Numbers),
    measure("toolDefinitions", "tool_definitions", Makes::Numbers),
    measure("toolCalls", "tool_calls", Makes::Numbers),
    measure("traceId", "trace_id", Makes::Texts),
    measure("uniqueUserIds", "user_id", Makes::Different),
    measure("uniqueSessionIds", "session_id", Makes::Different),
    measure("costByType", "cost:", Makes::ByKind),
    measure("usageByType", "usage:", Makes::ByKind),
];

#[rustfmt::skip]
const OF_TRACES: [MeasureOf; 14] = [
    measure("count", "", Makes::Rows),
    measure("observationsCount", "observations", Makes::Numbers),
    measure("scoresCount", "scores", Makes::Numbers),
    measure("uniqueUserIds", "user_id", Makes::Different),
    measure("uniqueSessionIds", "session_id", Makes::Different),
    measure("latency", "latency_ms", Makes::Numbers),
    measure("inputTokens", "input_tokens", Makes::Numbers),
    measure("outputTokens", "output_tokens", Makes::Numbers),
    measure("totalTokens", "total_tokens", Makes::Numbers),
    measure("inputCost", "input_cost", Makes::Numbers),
    measure("outputCost", "output_cost", Makes::Numbers),
    measure("totalCost", "total_cost", Makes::Numbers),
    measure("errorCount", "errors", Makes::Numbers),
    measure("warningCount", "warnings", Makes::Numbers),
];

const OF_NUMBERS: [MeasureOf; 2] = [measure("count", "", Makes::Rows), measure("value", "value", Makes::Numbers)];
const OF_WORDS: [MeasureOf; 2] = [measure("count", "", Makes::Rows), measure("value", "string_value", Makes::Texts)];

#[rustfmt::skip]
const OBSERVATIONS: [Column; 32] = [
    column("id", "id", K::Text),
    column("traceId", "trace_id", K::Text),
    column("traceName", "trace_name", K::Text),
    column("environment", "environment", K::Text),
    column("parentObservationId", "parent_id", K::Text),
    column("isRootObservation", "is_root", K::Boolean),
    column("type", "type", K::Text),
    column("name", "name", K::Text),
    column("level", "level", K::Text),
    column("statusMessage", "status_message", K::Text),
    column("version", "version", K::Text),
    column("release", "release", K::Text),
    column("tags", "tags", K::List),
    column("traceTags", "tags", K::List),
    column("providedModelName", "model", K::Text),
    column("internalModelId", "model_id", K::Text),
    column("modelId", "model_id", K::Text),
    column("promptName", "prompt_name", K::Text),
    column("promptVersion", "prompt_version", K::Number),
    column("userId", "user_id", K::Text),
    column("sessionId", "session_id", K::Text),
    column("traceRelease", "release", K::Text),
    column("traceVersion", "version", K::Text),
    column("startTimeMonth", "month", K::Text),
    column("toolNames", "tools_offered", K::List),
    column("calledToolNames", "tools_called", K::List),
    column("agentName", "agent_name", K::Text),
    column("provider", "provider", K::Text),
    column("startTime", "start_time", K::Time),
    column("endTime", "end_time", K::Time),
    column("timestamp", "start_time", K::Time),
    column("metadata", "metadata:", K::TextUnder),
];

#[rustfmt::skip]
const TRACES: [Column; 13] = [
    column("id", "trace_id", K::Text),
    column("name", "name", K::Text),
    column("traceName", "name", K::Text),
    column("tags", "tags", K::List),
    column("userId", "user_id", K::Text),
    column("sessionId", "session_id", K::Text),
    column("release", "release", K::Text),
    column("version", "version", K::Text),
    column("environment", "environment", K::Text),
    column("timestampMonth", "month", K::Text),
    column("timestampDay", "date", K::Text),
    column("timestamp", "start_time", K::Time),
    column("metadata", "metadata:", K::TextUnder),
];

#[rustfmt::skip]
const SCORES: [Column; 27] = [
    column("id", "id", K::Text),
    column("environment", "environment", K::Text),
    column("name", "name", K::Text),
    column("source", "source", K::Text),
    column("dataType", "data_type", K::Text),
    column("traceId", "trace_id", K::Text),
    column("configId", "config_id", K::Text),
    column("timestampMonth", "month", K::Text),
    column("timestampDay", "date", K::Text),
    column("observationId", "observation_id", K::Text),
    column("datasetRunId", "dataset_run_id", K::Text),
    column("value", "value", K::Number),
    column("stringValue", "string_value", K::Text),
    column("booleanValue", "string_value", K::Text),
    column("traceName", "trace_name", K::Text),
    column("tags", "tags", K::List),
    column("userId", "user_id", K::Text),
    column("sessionId", "session_id", K::Text),
    column("traceSessionId", "trace_session_id", K::Text),
    column("traceRelease", "release", K::Text),
    column("traceVersion", "version", K::Text),
    column("observationName", "observation_name", K::Text),
    column("observationModelName", "observation_model", K::Text),
    column("observationPromptName", "observation_prompt_name", K::Text),
    column("observationPromptVersion", "observation_prompt_version", K::Number),
    column("timestamp", "timestamp", K::Time),
    column("metadata", "metadata:", K::TextUnder),
];

impl ViewOf {
    pub(super) fn named(name: &str) -> Option<&'static ViewOf> {
        VIEWS.iter().find(|view| view.name == name)
    }

    /// The field by which rows are grouped for a dimension. Tags are grouped by together.
    pub(super) fn dimension(&self, name: &str) -> Option<&'static str> {
        let column = self.columns.iter().find(|column| column.name == name)?;
        match column.kind {
            K::List if column.field == "tags" => Some("tag_set"),
            K::List | K::Text | K::Number | K::Boolean => Some(column.field),
            K::Time | K::Seconds | K::TextUnder | K::NumberUnder | K::ListUnder => None,
        }
    }

    pub(super) fn dimensions(&self) -> Vec<&'static str> {
        self.columns.iter().map(|column| column.name).filter(|name| self.dimension(name).is_some()).collect()
    }
}
