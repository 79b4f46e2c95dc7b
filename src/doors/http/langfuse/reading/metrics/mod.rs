//! `GET /api/public/metrics` and `/v2/metrics`: one `query` of JSON, answered by the metrics compiler; and `/metrics/daily`.
//!
//! Neither has a limit of rows or of groups other than the compiler's own, and both take a `timezone`.

mod daily;
mod kinds;
mod question;
mod views;

use axum::extract::{Request, State};
use axum::response::Response;
use chrono::{DateTime, SecondsFormat, TimeZone};
use serde_json::{Map, Value, json};

use super::super::super::super::{Doors, Refusal};
use super::super::super::instant;
use super::{Asked, answered, invalid};
use crate::base::{Day, TimestampUs};
use crate::wire::metric_value::Value as Wire;
use crate::wire::{MetricValue, MetricsRequest, MetricsResponse, MetricsRow, TimeUnit};
pub(in crate::doors::http::langfuse) use daily::daily;
use question::Question;

/// Gaps are filled where there are no more buckets than these.
const BUCKETS_MAX: i64 = 10_000;

pub(in crate::doors::http::langfuse) async fn metrics(State(doors): State<Doors>, request: Request) -> Response {
    answered(doors, request, async |asked| {
        let text =
            asked.parameters.text("query").ok_or_else(|| invalid("query is required: a metrics query as JSON"))?;
        let question = Question::parse(text)?;
        let rows = match question.kinds {
            Some(_) => kinds::rows(&asked, &question).await?,
            None => rows(&asked, &question).await?,
        };
        let rows = rows.into_iter().take(question.rows_max.unwrap_or(usize::MAX));
        Ok(json!({ "data": rows.map(Value::from).collect::<Vec<_>>() }))
    })
    .await
}

async fn rows(asked: &Asked, question: &Question) -> Result<Vec<Map<String, Value>>, Refusal> {
    let answer = asked.series(question.request.clone()).await?;
    let mut rows: Vec<MetricsRow> = answer.rows.clone();
    if rows.iter().any(|row| row.is_other) {
        if question.rows_max.is_none() {
            return Err(Refusal::limit("rows", "there are too many groups: set config.row_limit or a filter"));
        }
        rows.retain(|row| !row.is_other);
    }
    if let Some(gaps) = gaps(asked, question).await? {
        fill(&mut rows, gaps, question);
    }
    let shown = rows.iter().map(|row| shown(question, &answer, row));
    Ok(shown.collect())
}

/// What all groups together say of each bucket, also of those that have no row.
async fn gaps(asked: &Asked, question: &Question) -> Result<Option<Vec<MetricsRow>>, Refusal> {
    let Some(unit) = question.unit else { return Ok(None) };
    let range = question.request.range.unwrap_or_default();
    let span_us = range.to_unix_micros.saturating_sub(range.from_unix_micros);
    let unit_us = match unit {
        TimeUnit::Minute => Day::US / 1_440,
        TimeUnit::Hour => Day::US / 24,
        TimeUnit::Unspecified | TimeUnit::Day => Day::US,
        TimeUnit::Week => 7 * Day::US,
        TimeUnit::Month => 28 * Day::US,
    };
    if span_us / unit_us >= BUCKETS_MAX - 2 {
        return Ok(None);
    }
    let mut request =
        MetricsRequest { dimensions: Vec::new(), order_by: Vec::new(), top_k: 0, ..question.request.clone() };
    if let Some(bucket) = &mut request.bucket {
        bucket.skip_gaps = false;
    }
    Ok(Some(asked.series(request).await?.rows))
}

/// Adds the buckets that no group has, as rows of no group, where buckets are in order; else at the end.
fn fill(rows: &mut Vec<MetricsRow>, gaps: Vec<MetricsRow>, question: &Question) {
    let has: std::collections::HashSet<Option<i64>> = rows.iter().map(|row| row.bucket_start_unix_micros).collect();
    let nothing = vec![MetricValue { value: None }; question.request.dimensions.len()];
    let missing = gaps.into_iter().filter(|gap| !has.contains(&gap.bucket_start_unix_micros));
    rows.extend(missing.map(|gap| MetricsRow { dimensions: nothing.clone(), ..gap }));
    match question.order.first().map(|(name, ascending)| (name.as_str(), *ascending)) {
        None | Some(("time_dimension", true)) => rows.sort_by_key(|row| row.bucket_start_unix_micros),
        Some(("time_dimension", false)) => {
            rows.sort_by_key(|row| std::cmp::Reverse(row.bucket_start_unix_micros));
        }
        Some(_) => {}
    }
}

fn shown(question: &Question, answer: &MetricsResponse, row: &MetricsRow) -> Map<String, Value> {
    let mut shown = Map::new();
    for (name, value) in question.dimensions.iter().zip(&row.dimensions) {
        shown.insert(name.clone(), dimension(name, value));
    }
    if let (Some(unit), Some(start)) = (question.unit, row.bucket_start_unix_micros) {
        shown.insert("time_dimension".to_owned(), bucket(unit, start, question.zone).into());
    }
    for (column, value) in answer.measures.iter().zip(&row.measures) {
        shown.insert(column.name.clone(), measure(value));
    }
    shown
}

/// Days and longer by their date, others by their moment, each as the zone's clock shows it.
fn bucket(unit: TimeUnit, start_us: TimestampUs, zone: chrono_tz::Tz) -> String {
    let start = zone.from_utc_datetime(&DateTime::from_timestamp_micros(start_us).unwrap_or_default().naive_utc());
    match unit {
        TimeUnit::Minute | TimeUnit::Hour => start.to_rfc3339_opts(SecondsFormat::Secs, true),
        TimeUnit::Unspecified | TimeUnit::Day | TimeUnit::Week | TimeUnit::Month => {
            start.format("%Y-%m-%d").to_string()
        }
    }
}

fn dimension(name: &str, value: &MetricValue) -> Value {
    match (&value.value, name) {
        (None, "tags" | "traceTags") => json!([]),
        (Some(Wire::Text(tags)), "tags" | "traceTags") => tags.split(',').collect(),
        (Some(Wire::Text(word)), "booleanValue") => (word == "True").into(),
        _ => measure(value),
    }
}

fn measure(value: &MetricValue) -> Value {
    match &value.value {
        None => Value::Null,
        Some(Wire::Text(text)) => text.as_str().into(),
        Some(Wire::Integer(integer)) => (*integer).into(),
        Some(Wire::Number(number)) => (*number).into(),
        Some(Wire::Decimal(decimal)) => decimal.parse::<f64>().map_or(Value::Null, Value::from),
        Some(Wire::Boolean(boolean)) => (*boolean).into(),
        Some(Wire::UnixMicros(us)) => instant(*us).into(),
        Some(Wire::Histogram(histogram)) => {
            histogram.bins.iter().map(|bin| json!([bin.lower, bin.upper, bin.count])).collect()
        }
        Some(Wire::Texts(texts)) => texts.values.clone().into(),
        Some(Wire::Sketch(_)) => Value::Null,
    }
}

impl Asked {
    async fn series(&self, request: MetricsRequest) -> Result<MetricsResponse, Refusal> {
        self.doors.answers.metrics_series(&self.caller.who, request).await
    }
}
