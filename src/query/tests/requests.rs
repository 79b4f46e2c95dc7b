//! What a metrics request may say, and what it is told when it says something else.

use super::*;
use crate::base::Kind;
use crate::wire::{Aggregation, Filter, FilterOperator, Measure, OrderBy, TimeBucket, TimeRange, TimeUnit, View};

pub(super) fn measure(aggregation: Aggregation, field: &str) -> Measure {
    Measure { field: field.to_owned(), aggregation: aggregation.into(), ..Default::default() }
}

pub(super) fn percentile(field: &str, percentile: f64) -> Measure {
    Measure { percentile, ..measure(Aggregation::Percentile, field) }
}

pub(super) fn filter(field: &str, operator: FilterOperator, values: &[&str]) -> Filter {
    let values = values.iter().map(|value| value.to_string()).collect();
    Filter { field: field.to_owned(), operator: operator.into(), values, ..Default::default() }
}

pub(super) fn bucket(unit: TimeUnit, count: u32, zone: &str) -> Option<TimeBucket> {
    Some(TimeBucket { unit: unit.into(), count, time_zone: zone.to_owned(), skip_gaps: false })
}

pub(super) fn request(measures: Vec<Measure>, dimensions: &[&str]) -> MetricsRequest {
    MetricsRequest {
        measures,
        dimensions: dimensions.iter().map(|name| name.to_string()).collect(),
        range: Some(TimeRange { from_unix_micros: START_US, to_unix_micros: START_US + 72 * HOUR_US }),
        ..Default::default()
    }
}

#[tokio::test]
async fn what_cannot_be_asked_is_named_with_what_could_be_meant() {
    let setting = acme(&observations(1, 30, 5)).await;
    let count = || vec![measure(Aggregation::Count, "")];
    let filtered = |field: &str, operator, values: &[&str]| MetricsRequest {
        filters: vec![filter(field, operator, values)],
        ..request(count(), &[])
    };
    let filtered_by = |filter| MetricsRequest { filters: vec![filter], ..request(count(), &[]) };
    let nested = |levels: usize| {
        let innermost = filter("model", FilterOperator::IsNotNull, &[]);
        (1..levels).fold(innermost, |inner, _| Filter { none_of: vec![inner], ..Default::default() })
    };
    let cases = [
        (request(count(), &["modle"]), "\"modle\" is not a field of observations: did you mean model"),
        (request(count(), &["qqqqqqqq"]), "is not a field of observations: it has"),
        (MetricsRequest { view: View::Traces.into(), ..request(count(), &["model"]) }, "is not a field of traces"),
        (request(vec![measure(Aggregation::Sum, "total_costs")], &[]), "did you mean total_cost"),
        (request(vec![measure(Aggregation::Sum, "model")], &[]), "sum needs a number"),
        (request(vec![measure(Aggregation::Avg, "")], &[]), "avg needs a field"),
        (request(vec![measure(Aggregation::Unspecified, "model")], &[]), "without an aggregation"),
        (request(vec![percentile("latency_ms", 101.0)], &[]), "101 is not a percentile"),
        (request(vec![], &[]), "at least one measure"),
        (request(vec![measure(Aggregation::Count, ""), measure(Aggregation::Count, "")], &[]), "named \"count\""),
        (request(count(), &["model", "model"]), "asked for twice"),
        (request(count(), &["start_time"]), "ask for a time bucket"),
        (MetricsRequest { range: None, ..request(count(), &[]) }, "time range is required"),
        (filtered("model", FilterOperator::HasAny, &["x"]), "HAS_ANY on \"model\" does not fit"),
        (filtered("tags", FilterOperator::Equals, &["x"]), "use HAS_ANY"),
        (
            filtered("input_tokens", FilterOperator::Greater, &["many"]),
            "\"many\" in the filter on \"input_tokens\" is not a number",
        ),
        (filtered("start_time", FilterOperator::Less, &["today"]), "is not a time such as"),
        (filtered("total_cost", FilterOperator::Less, &["1e9"]), "below 1,000,000"),
        (filtered("model", FilterOperator::Equals, &[]), "takes one values, not 0"),
        (filtered("model", FilterOperator::Unspecified, &["x"]), "no operator"),
        (MetricsRequest { bucket: bucket(TimeUnit::Hour, 30, ""), ..request(count(), &[]) }, "use 1 to 24"),
        (
            MetricsRequest { bucket: bucket(TimeUnit::Day, 1, "Berlin"), ..request(count(), &[]) },
            "\"Berlin\" is not known",
        ),
        (
            MetricsRequest {
                order_by: vec![OrderBy { field: "cost".into(), ascending: false }],
                ..request(count(), &[])
            },
            "cannot order by \"cost\"",
        ),
        (filtered_by(nested(17)), "at most 16 levels deep"),
        (filtered_by(Filter::default()), "a filter is a comparison"),
        (
            filtered_by(Filter { any_of: vec![filter("model", FilterOperator::IsNull, &[])], ..nested(1) }),
            "one of all_of",
        ),
        (request(vec![measure(Aggregation::Rate, "")], &[]), "rate needs filters"),
        (request(vec![measure(Aggregation::Samples, "latency_ms")], &[]), "samples needs a text"),
        (request(vec![measure(Aggregation::Min, "model")], &[]), "min needs a number or a time"),
        (
            request(vec![Measure { bins: 101, ..measure(Aggregation::Histogram, "latency_ms") }], &[]),
            "101 bins are not possible: use 1 to 100",
        ),
        (request(count(), &["steps_reached"]), "is not a field of observations"),
        (MetricsRequest { view: View::Traces.into(), ..request(count(), &["steps_reached"]) }, "needs `steps`"),
        (
            MetricsRequest { view: View::Scores.into(), ..request(vec![measure(Aggregation::ErrorRate, "")], &[]) },
            "scores have no error rate",
        ),
    ];
    for (request, expected) in cases {
        let error = setting.metrics("acme", request).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid, "{error}");
        assert!(error.to_string().contains(expected), "{error}\nnot: {expected}");
    }
}

#[tokio::test]
async fn too_many_buckets_are_refused_by_the_name_of_the_limit() {
    let setting = acme(&observations(1, 300, 72)).await;
    let minutes = MetricsRequest {
        bucket: bucket(TimeUnit::Minute, 1, ""),
        top_k: 20,
        ..request(vec![measure(Aggregation::Count, "")], &["model"])
    };
    let error = setting.metrics("acme", minutes.clone()).await.unwrap_err();
    assert_eq!((error.kind(), error.limit()), (Kind::LimitReached, Some("rows")));
    assert!(error.to_string().contains("10000"), "{error}");
    let mut without_gaps = minutes;
    if let Some(bucket) = &mut without_gaps.bucket {
        bucket.skip_gaps = true;
    }
    let answer = setting.metrics("acme", without_gaps).await.unwrap();
    assert!(answer.rows.len() <= 300 && answer.rows.len() > 100);
}

#[tokio::test]
async fn a_request_cannot_carry_sql() {
    let setting = acme(&observations(1, 300, 72)).await;
    let hostile = ["x' OR '1'='1", "\"; DROP TABLE observations; --", "a'b\"c\\d%_", "metadata:x'] --"];
    for text in hostile {
        let asked = MetricsRequest {
            filters: vec![filter("user_id", FilterOperator::Equals, &[text])],
            ..request(vec![measure(Aggregation::Count, "")], &[&format!("metadata:{text}")])
        };
        let answer = setting.metrics("acme", asked).await.unwrap();
        assert_eq!(answer.rows.len(), 0, "{text}");
        let sum = request(vec![measure(Aggregation::Sum, text)], &[]);
        let error = setting.metrics("acme", sum).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid);
    }
}
