//! The presets: common questions as data. Each is one `MetricsRequest` or a few with fields filled in, and a way to read
//! their answers; all of a preset's are answered from one snapshot. Nothing here knows a plan or a row.

mod compare;
mod conversations;
mod figures;
mod report;
mod statistics;
mod tops;
mod usage;

pub use compare::Comparison;
pub use conversations::{Conversing, FunnelSteps};
pub use report::Reporting;
pub use tops::{errors, tool_usage, top_flows, top_users};
pub use usage::{Now, Spending, Usages, UserUsage, platform};

use crate::query::error::QueryError;
use crate::wire::{
    Aggregation, CostBreakdownRequest, Filter, FilterOperator, LatencyPercentilesRequest, Measure, MetricsRequest,
    MetricsResponse, OrderBy, Reading, TimeSeriesRequest, View,
};

/// A preset of several questions.
pub trait Preset {
    type Response;

    /// `now_us`: what the clock says.
    fn asks(&self, now_us: i64) -> Result<Vec<MetricsRequest>, QueryError>;

    /// `answers`: one for each question, in their order.
    fn answer(&self, answers: Vec<MetricsResponse>) -> Result<Self::Response, QueryError>;
}

const GROUPS_DEFAULT: u32 = 20;
const SERIES_DEFAULT: u32 = 10;
const PERCENTILES: [f64; 5] = [50.0, 75.0, 90.0, 95.0, 99.0];

/// Most expensive first, the rest as "other", and the exact total.
pub fn cost_breakdown(request: CostBreakdownRequest) -> MetricsRequest {
    let sums = ["total_cost", "input_cost", "output_cost", "total_tokens", "input_tokens", "output_tokens"];
    let mut measures: Vec<Measure> = sums.into_iter().map(|field| measure(field, Aggregation::Sum)).collect();
    measures.push(measure("", Aggregation::Count));
    MetricsRequest {
        view: View::Observations.into(),
        measures,
        dimensions: or_default(request.dimensions, "model"),
        filters: request.filters,
        range: request.range,
        bucket: request.bucket,
        top_k: or_count(request.top_k, GROUPS_DEFAULT),
        with_total: true,
        ..Default::default()
    }
}

/// Five percentiles of one duration; the groups with most values first.
pub fn latency_percentiles(request: LatencyPercentilesRequest) -> MetricsRequest {
    let is_traces = request.view == i32::from(View::Traces);
    let field = if request.field.is_empty() { "latency_ms" } else { &request.field };
    let mut measures: Vec<Measure> = PERCENTILES
        .into_iter()
        .map(|percentile| Measure { percentile, ..measure(field, Aggregation::Percentile) })
        .collect();
    measures.push(Measure { name: COUNT.to_owned(), ..measure(field, Aggregation::Count) });
    let by_bucket = request.bucket.as_ref().map(|_| OrderBy { field: "bucket".to_owned(), ascending: true });
    let by_count = OrderBy { field: COUNT.to_owned(), ascending: false };
    MetricsRequest {
        view: request.view,
        measures,
        dimensions: or_default(request.dimensions, if is_traces { "trace_name" } else { "model" }),
        filters: request.filters,
        range: request.range,
        order_by: by_bucket.into_iter().chain([by_count]).collect(),
        bucket: request.bucket,
        top_k: or_count(request.top_k, GROUPS_DEFAULT),
        with_total: true,
        exact_percentiles: request.exact,
        ..Default::default()
    }
}

/// Measures per time bucket, gaps filled.
pub fn time_series(request: TimeSeriesRequest) -> MetricsRequest {
    let measures = match (request.measures.is_empty(), request.view == i32::from(View::Scores)) {
        (false, _) => request.measures,
        (true, true) => vec![measure("", Aggregation::Count), measure("value", Aggregation::Avg)],
        (true, false) => vec![
            measure("", Aggregation::Count),
            measure("total_tokens", Aggregation::Sum),
            measure("total_cost", Aggregation::Sum),
            measure("", Aggregation::ErrorRate),
        ],
    };
    MetricsRequest {
        view: request.view,
        measures,
        dimensions: request.dimensions,
        filters: request.filters,
        range: request.range,
        bucket: request.bucket,
        top_k: or_count(request.top_k, SERIES_DEFAULT),
        ..Default::default()
    }
}

const COUNT: &str = "count";

fn measure(field: &str, aggregation: Aggregation) -> Measure {
    Measure { field: field.to_owned(), aggregation: aggregation.into(), ..Default::default() }
}

/// A measure by a name of our own.
fn named(name: &str, field: &str, aggregation: Aggregation) -> Measure {
    Measure { name: name.to_owned(), ..measure(field, aggregation) }
}

fn percentile(name: &str, field: &str, percentile: f64) -> Measure {
    Measure { percentile, ..named(name, field, Aggregation::Percentile) }
}

/// The measure, of rows that pass.
fn only(filter: Filter, measure: Measure) -> Measure {
    Measure { filters: vec![filter], ..measure }
}

fn filter(field: &str, operator: FilterOperator, values: &[&str]) -> Filter {
    let values = values.iter().map(|value| (*value).to_owned()).collect();
    Filter { field: field.to_owned(), operator: operator.into(), values, ..Default::default() }
}

fn is(field: &str, value: &str) -> Filter {
    filter(field, FilterOperator::Equals, &[value])
}

fn is_there(field: &str) -> Filter {
    filter(field, FilterOperator::IsNotNull, &[])
}

fn and(filters: &[Filter], more: impl IntoIterator<Item = Filter>) -> Vec<Filter> {
    filters.iter().cloned().chain(more).collect()
}

fn by(field: &str, ascending: bool) -> Vec<OrderBy> {
    vec![OrderBy { field: field.to_owned(), ascending }]
}

fn missing() -> QueryError {
    QueryError::Internal("a question without an answer".to_owned())
}

/// What several answers of one snapshot were made from.
fn readings(answers: &[MetricsResponse]) -> Reading {
    let all = || answers.iter().filter_map(|answer| answer.reading.as_ref());
    // Each says what was read until it was made.
    let last = all().next_back().copied().unwrap_or_default();
    Reading { exact: all().all(|reading| reading.exact), ..last }
}

fn or_default(dimensions: Vec<String>, default: &str) -> Vec<String> {
    if dimensions.is_empty() { vec![default.to_owned()] } else { dimensions }
}

fn or_count(top_k: u32, default: u32) -> u32 {
    if top_k == 0 { default } else { top_k }
}
