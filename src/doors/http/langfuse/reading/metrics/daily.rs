//! `GET /api/public/metrics/daily`: what was used on each day, and by which models; newest first, days of UTC.

use std::collections::BTreeMap;

use axum::extract::{Request, State};
use axum::response::Response;
use serde_json::{Value, json};

use super::super::super::super::super::Doors;
use super::super::{answered, page_of};
use super::{bucket, measure};
use crate::wire::{Aggregation as A, Filter, Measure, MetricsRequest, MetricsResponse, TimeBucket, TimeUnit, View};

#[derive(Default)]
struct DayUsed {
    traces: Value,
    observations: Value,
    cost: Value,
    models: Vec<Value>,
}

pub(in crate::doors::http::langfuse) async fn daily(State(doors): State<Doors>, request: Request) -> Response {
    answered(doors, request, async |asked| {
        let parameters = &asked.parameters;
        let page = parameters.page()?;
        let range = Some(parameters.range("fromTimestamp", "toTimestamp")?);
        let filters = |trace_name: &str| -> Vec<Filter> {
            let said = [
                parameters.equal("traceName", trace_name),
                parameters.equal("userId", "user_id"),
                parameters.has_all("tags", "tags"),
                parameters.among("environment", "environment"),
            ];
            said.into_iter().flatten().collect()
        };
        let bucket = Some(TimeBucket { unit: TimeUnit::Day.into(), count: 1, skip_gaps: true, ..Default::default() });
        let of_day = |view: View, trace_name: &str, dimensions: &[&str], measures: Vec<Measure>| MetricsRequest {
            view: view.into(),
            range,
            filters: filters(trace_name),
            bucket: bucket.clone(),
            dimensions: dimensions.iter().map(|name| (*name).to_owned()).collect(),
            measures,
            ..Default::default()
        };
        let used = || vec![sum("total_cost"), count("", A::Count)];
        let by_model = || {
            let tokens = ["input_tokens", "output_tokens", "total_tokens"].map(sum);
            used().into_iter().chain([count("trace_id", A::CountDistinct)]).chain(tokens).collect()
        };
        let questions = vec![
            of_day(View::Traces, "name", &[], vec![count("", A::Count)]),
            of_day(View::Observations, "trace_name", &[], used()),
            of_day(View::Observations, "trace_name", &["model"], by_model()),
        ];
        let answers = asked.doors.answers.metrics(&asked.caller.who, questions).await?;
        let days = by_day(&answers);
        let (items, some) = (days.len() as u64, days.into_iter().rev().skip(page.skip()).take(page.limit));
        let data = some.map(|(start, day)| {
            json!({
                "date": self::bucket(TimeUnit::Day, start, chrono_tz::Tz::UTC),
                "countTraces": day.traces,
                "countObservations": day.observations,
                "totalCost": day.cost,
                "usage": day.models,
            })
        });
        Ok(page_of(data.collect(), page, items))
    })
    .await
}

fn by_day(answers: &[MetricsResponse]) -> BTreeMap<i64, DayUsed> {
    let nothing = || DayUsed { traces: 0.into(), observations: 0.into(), cost: 0.into(), models: Vec::new() };
    let mut days: BTreeMap<i64, DayUsed> = BTreeMap::new();
    for (at, answer) in answers.iter().enumerate() {
        for row in &answer.rows {
            let Some(start) = row.bucket_start_unix_micros else { continue };
            let day = days.entry(start).or_insert_with(nothing);
            let value = |at: usize| row.measures.get(at).map_or(Value::Null, measure);
            let number = |at: usize| match value(at) {
                Value::Null => 0.into(),
                value => value,
            };
            match at {
                0 => day.traces = number(0),
                1 => (day.cost, day.observations) = (number(0), number(1)),
                _ => day.models.push(json!({
                    "model": row.dimensions.first().map_or(Value::Null, measure),
                    "totalCost": number(0),
                    "countObservations": number(1),
                    "countTraces": number(2),
                    "inputUsage": number(3),
                    "outputUsage": number(4),
                    "totalUsage": number(5),
                })),
            }
        }
    }
    days
}

fn sum(field: &str) -> Measure {
    Measure { field: field.to_owned(), aggregation: A::Sum.into(), ..Default::default() }
}

fn count(field: &str, aggregation: A) -> Measure {
    Measure { field: field.to_owned(), aggregation: aggregation.into(), ..Default::default() }
}
