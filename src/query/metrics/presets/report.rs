//! `Report`: what a period comes to, each figure beside that of the equal period before.

use super::figures::{Figures, number};
use super::{Preset, and, by, is, is_there, missing, named, only, percentile, readings, tops};
use crate::query::error::QueryError;
use crate::wire::{
    Aggregation as A, Change, MetricsRequest, MetricsResponse, MetricsRow, ReportRequest, ReportResponse, TimeBucket,
    TimeRange, TimeUnit, TopRequest, View,
};

pub struct Reporting(pub ReportRequest);

const TOP: u32 = 5;
const SATISFACTION: &str = "user_satisfaction";
const SCORES_MAX: usize = 10;
/// Of the questions: those about both periods come first.
const COMPARED: usize = 4;

impl Reporting {
    fn scores(&self) -> Vec<String> {
        match self.0.score_names.is_empty() {
            true => vec![SATISFACTION.to_owned()],
            false => self.0.score_names.clone(),
        }
    }

    fn period(&self) -> Result<(TimeRange, TimeRange), QueryError> {
        let range = self.0.range.ok_or_else(|| QueryError::invalid("a time range is required"))?;
        let length = range.to_unix_micros.saturating_sub(range.from_unix_micros);
        if length <= 0 {
            return Err(QueryError::invalid("the time range is empty"));
        }
        let before = TimeRange {
            from_unix_micros: range.from_unix_micros.saturating_sub(length),
            to_unix_micros: range.from_unix_micros,
        };
        Ok((range, before))
    }
}

impl Preset for Reporting {
    type Response = ReportResponse;

    fn asks(&self, _: i64) -> Result<Vec<MetricsRequest>, QueryError> {
        let request = &self.0;
        let (period, before) = self.period()?;
        let scores = self.scores();
        if scores.len() > SCORES_MAX {
            return Err(QueryError::invalid(format!("{} score names: {SCORES_MAX} are possible", scores.len())));
        }
        let top_k = if request.top_k == 0 { TOP } else { request.top_k };
        let traces = |range: TimeRange| {
            let mut measures = vec![
                named("requests", "", A::Count),
                named("latency", "latency_ms", A::Avg),
                percentile("latency_p95", "latency_ms", 95.0),
                only(is("is_error", "false"), named("success", "", A::Rate)),
                named("cost", "total_cost", A::Sum),
                named("avg_cost", "total_cost", A::Avg),
                named("tokens", "total_tokens", A::Sum),
            ];
            for (at, name) in scores.iter().enumerate() {
                measures.push(named(&format!("score {at}"), &format!("score:{name}"), A::Avg));
                measures.push(named(&format!("judged {at}"), &format!("score:{name}"), A::Count));
            }
            MetricsRequest {
                view: View::Traces.into(),
                measures,
                range: Some(range),
                filters: request.filters.clone(),
                ..Default::default()
            }
        };
        let observations = |range: TimeRange| MetricsRequest {
            measures: vec![
                only(is("is_call", "true"), named("calls", "", A::Count)),
                named("errors", "", A::ErrorRate),
                named("users", "user_id", A::CountDistinct),
                named("sessions", "session_id", A::CountDistinct),
            ],
            range: Some(range),
            filters: request.filters.clone(),
            ..Default::default()
        };
        let top = |dimension: &str| MetricsRequest {
            measures: vec![
                named("total_cost", "total_cost", A::Sum),
                named("share", "total_cost", A::Share),
                named("total_tokens", "total_tokens", A::Sum),
                only(is("is_call", "true"), named("calls", "", A::Count)),
            ],
            dimensions: vec![dimension.to_owned()],
            range: Some(period),
            filters: and(&request.filters, [is_there(dimension)]),
            top_k,
            with_total: true,
            ..Default::default()
        };
        let trends = MetricsRequest {
            measures: vec![
                named("requests", "", A::Count),
                percentile("latency_p95", "latency_ms", 95.0),
                named("total_cost", "total_cost", A::Sum),
                only(is("is_error", "true"), named("error_rate", "", A::Rate)),
            ],
            bucket: Some(TimeBucket {
                unit: TimeUnit::Day.into(),
                time_zone: request.time_zone.clone(),
                ..Default::default()
            }),
            ..traces(period)
        };
        let tools = tops::tool_usage(TopRequest { range: Some(period), filters: request.filters.clone(), top_k });
        let mut asks = vec![
            traces(period),
            traces(before),
            observations(period),
            observations(before),
            tops::models(Some(period), &request.filters, top_k),
            top("model"),
            top("user_id"),
            top("name"),
            tools,
            tops::commonest_errors(Some(period), &request.filters, top_k),
            trends,
        ];
        // What is said of scores alone can be asked where nothing else is filtered by.
        if request.filters.is_empty() {
            asks.push(MetricsRequest {
                view: View::Scores.into(),
                measures: vec![named("count", "", A::Count), named("avg", "value", A::Avg)],
                dimensions: vec!["name".to_owned()],
                range: Some(period),
                order_by: by("name", true),
                ..Default::default()
            });
        }
        Ok(asks)
    }

    fn answer(&self, answers: Vec<MetricsResponse>) -> Result<ReportResponse, QueryError> {
        let reading = Some(readings(&answers));
        let (period, before) = self.period()?;
        let Some([traces, traces_before, observations, observations_before]) = answers.get(..COMPARED) else {
            return Err(missing());
        };
        let of_traces = |name: &str| change(traces, traces_before, name);
        let of_observations = |name: &str| change(observations, observations_before, name);
        let mut tables = answers[COMPARED..].iter().cloned();
        let mut table = || tables.next();
        let quality = |at: usize| Some((self.scores()[at].clone(), of_traces(&format!("score {at}"))?));
        let judged = (0..self.scores().len()).filter_map(quality).collect();
        Ok(ReportResponse {
            period: Some(period),
            previous_period: Some(before),
            total_requests: of_traces("requests"),
            total_calls: of_observations("calls"),
            total_tokens: of_traces("tokens"),
            total_cost: of_traces("cost"),
            avg_cost: of_traces("avg_cost"),
            cost_per_request: of_traces("avg_cost"),
            average_latency: of_traces("latency"),
            latency_p95: of_traces("latency_p95"),
            success_rate: of_traces("success"),
            error_rate: of_observations("errors"),
            active_users: of_observations("users"),
            active_sessions: of_observations("sessions"),
            user_feedback: of_traces("score 0"),
            user_feedback_count: of_traces("judged 0"),
            scores: judged,
            top_models: table(),
            cost_breakdown: table(),
            cost_per_user: table(),
            cost_per_name: table(),
            most_used_tools: table(),
            top_errors: table(),
            performance_trends: table(),
            quality_scores: table(),
            reading,
        })
    }
}

/// A figure now and before. The change is a share of what it was: none where that was nothing.
fn change(now: &MetricsResponse, before: &MetricsResponse, name: &str) -> Option<Change> {
    let (now, before) = (Figures(now), Figures(before));
    let read = |figures: Figures<'_>, row: &MetricsRow| figures.metric(row, name);
    let (value, previous) = (read(now, now.one()), read(before, before.one()));
    let relative = match (value.value.as_ref().and_then(number), previous.value.as_ref().and_then(number)) {
        (Some(now), Some(before)) if before != 0.0 => Some((now - before) / before.abs()),
        _ => None,
    };
    let column = now.0.measures.iter().find(|measure| measure.name == name);
    let (unit, meaning) = column.map(|column| (column.unit.clone(), column.meaning.clone())).unwrap_or_default();
    Some(Change { value: Some(value), previous: Some(previous), relative_change: relative, unit, meaning })
}
