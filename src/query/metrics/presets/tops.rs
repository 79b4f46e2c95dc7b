//! Presets that are one question by one dimension: users, flows, errors, tools.

use super::{and, by, is, is_there, measure, named, only, or_count, percentile};
use crate::wire::{Aggregation as A, Filter, Measure, MetricsRequest, TimeRange, TopRequest, View};

const DEFAULT: u32 = 20;

/// Most expensive first.
pub fn top_users(request: TopRequest) -> MetricsRequest {
    top(
        "user_id",
        vec![named("traces", "trace_id", A::CountDistinct), named("sessions", "session_id", A::CountDistinct)],
        request,
    )
}

/// Most expensive first.
pub fn top_flows(request: TopRequest) -> MetricsRequest {
    top(
        "flow_name",
        vec![named("traces", "trace_id", A::CountDistinct), named("users", "user_id", A::CountDistinct)],
        request,
    )
}

fn top(dimension: &str, counts: Vec<Measure>, request: TopRequest) -> MetricsRequest {
    let measures = [
        named("total_cost", "total_cost", A::Sum),
        named("share", "total_cost", A::Share),
        named("total_tokens", "total_tokens", A::Sum),
        only(is("is_call", "true"), named("calls", "", A::Count)),
        named("error_rate", "", A::ErrorRate),
        named("last_seen", "start_time", A::Max),
    ];
    whole(dimension, measures.into_iter().chain(counts).collect(), vec![is_there(dimension)], request)
}

fn whole(dimension: &str, measures: Vec<Measure>, more: Vec<Filter>, request: TopRequest) -> MetricsRequest {
    MetricsRequest {
        view: View::Observations.into(),
        measures,
        dimensions: vec![dimension.to_owned()],
        filters: and(&request.filters, more),
        range: request.range,
        top_k: or_count(request.top_k, DEFAULT),
        with_total: true,
        ..Default::default()
    }
}

/// By what errors have in common, the commonest first.
pub fn errors(request: TopRequest) -> MetricsRequest {
    let measures = vec![
        measure("", A::Count),
        named("share", "", A::Share),
        named("users", "user_id", A::CountDistinct),
        named("traces", "trace_id", A::CountDistinct),
        named("first_seen", "start_time", A::Min),
        named("last_seen", "start_time", A::Max),
        named("sample_traces", "trace_id", A::Samples),
    ];
    whole("error", measures, vec![is("is_error", "true")], request)
}

/// By tool and agent, the most called first.
pub fn tool_usage(request: TopRequest) -> MetricsRequest {
    let is_tool = Filter { any_of: vec![is("type", "TOOL"), is_there("tool_name")], ..Default::default() };
    let measures = vec![
        named("calls", "", A::Count),
        only(is("is_error", "true"), named("errors", "", A::Count)),
        named("error_rate", "", A::ErrorRate),
        named("avg_latency_ms", "latency_ms", A::Avg),
        percentile("p95_latency_ms", "latency_ms", 95.0),
        named("total_cost", "total_cost", A::Sum),
    ];
    let asked = whole("tool_name", measures, vec![is_tool], request);
    MetricsRequest { dimensions: vec!["tool_name".to_owned(), "agent_name".to_owned()], ..asked }
}

/// The same for presets that look at errors in passing.
pub(super) fn commonest_errors(range: Option<TimeRange>, filters: &[Filter], top_k: u32) -> MetricsRequest {
    errors(TopRequest { range, filters: filters.to_vec(), top_k })
}

/// Calls of models, the most called first.
pub(super) fn models(range: Option<TimeRange>, filters: &[Filter], top_k: u32) -> MetricsRequest {
    let request = TopRequest { range, filters: filters.to_vec(), top_k };
    let measures = vec![
        named("calls", "", A::Count),
        named("total_cost", "total_cost", A::Sum),
        named("total_tokens", "total_tokens", A::Sum),
        named("avg_latency_ms", "latency_ms", A::Avg),
        named("error_rate", "", A::ErrorRate),
    ];
    let asked = whole("model", measures, vec![is("is_call", "true")], request);
    MetricsRequest { order_by: by("calls", false), ..asked }
}
