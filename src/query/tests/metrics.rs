//! The compiler against an oracle that goes through the rows one by one.

use std::collections::BTreeSet;

use super::oracle::{facts, oracle, trace_facts};
use super::requests::{bucket, filter, measure, percentile, request};
use super::*;
use crate::base::ByteSize;
use crate::query::bucket::Unit;
use crate::query::presets::latency_percentiles;
use crate::wire::metric_value::Value as Wire;
use crate::wire::{
    Aggregation as A, CostBreakdownRequest, FilterOperator, LatencyPercentilesRequest, Measure, MetricValue,
    MetricsRow, OrderBy, TimeBucket, TimeRange, TimeSeriesRequest, TimeUnit, View,
};

pub(super) async fn ask(setting: &Setting, request: MetricsRequest) -> MetricsResponse {
    setting.metrics("acme", request).await.unwrap()
}

pub(super) fn show(value: &MetricValue) -> String {
    match &value.value {
        None => "-".to_owned(),
        Some(Wire::Text(text)) => text.clone(),
        Some(Wire::Integer(integer)) => integer.to_string(),
        Some(Wire::Number(number)) => format!("{number}"),
        Some(Wire::Decimal(decimal)) => format!("${decimal}"),
        Some(Wire::Boolean(boolean)) => boolean.to_string(),
        Some(Wire::UnixMicros(us)) => format!("@{us}"),
        Some(Wire::Texts(texts)) => texts.values.join(","),
        Some(Wire::Histogram(histogram)) => {
            histogram.bins.iter().map(|bin| bin.count.to_string()).collect::<Vec<_>>().join(",")
        }
        Some(Wire::Sketch(bytes)) => format!("{} bytes", bytes.len()),
    }
}

/// A line per row: bucket, dimensions, `*` for others, measures.
pub(super) fn lines(rows: &[MetricsRow]) -> Vec<String> {
    let line = |row: &MetricsRow| {
        let bucket = row.bucket_start_unix_micros.map(|start| ((start - START_US) / 60_000_000).to_string());
        let other = row.is_other.then(|| "*".to_owned());
        let dimensions = row.dimensions.iter().map(show);
        bucket.into_iter().chain(other).chain(dimensions).chain(row.measures.iter().map(show)).collect::<Vec<_>>()
    };
    rows.iter().map(|row| line(row).join(" | ")).collect()
}

pub(super) fn measures(users: bool) -> Vec<Measure> {
    let plain = [
        measure(A::Sum, "total_cost"),
        measure(A::Count, ""),
        measure(A::Count, "total_cost"),
        measure(A::Count, "latency_ms"),
        measure(A::Sum, "output_tokens"),
        measure(A::Avg, "total_cost"),
        measure(A::Avg, "output_tokens"),
        measure(A::Min, "latency_ms"),
        measure(A::Max, "latency_ms"),
        measure(A::Sum, "latency_ms"),
        measure(A::Avg, "latency_ms"),
        measure(A::ErrorRate, ""),
    ];
    let users = users.then(|| measure(A::CountDistinct, "user_id"));
    plain.into_iter().chain(users).chain([percentile("latency_ms", 50.0), percentile("latency_ms", 99.0)]).collect()
}

/// Equal text, but for numbers that may differ by the sketches' error.
fn check(found: &[String], expected: &[String], tolerance: f64) {
    assert_eq!(found.len(), expected.len(), "\n{}\n\n{}", found.join("\n"), expected.join("\n"));
    for (found, expected) in found.iter().zip(expected) {
        let (cells, wanted): (Vec<_>, Vec<_>) = (found.split(" | ").collect(), expected.split(" | ").collect());
        assert_eq!(cells.len(), wanted.len(), "{found}\n{expected}");
        let percentiles = cells.len() - 2;
        for (at, (cell, want)) in cells.iter().zip(&wanted).enumerate() {
            let near = || {
                let (a, b): (f64, f64) = (cell.parse().unwrap_or(f64::NAN), want.parse().unwrap_or(f64::INFINITY));
                (a - b).abs() <= tolerance * b.abs()
            };
            assert!(
                cell == want || (at >= percentiles && near()),
                "column {at}: {cell} is not {want}\n{found}\n{expected}"
            );
        }
    }
}

#[tokio::test]
async fn answers_are_those_of_the_oracle() {
    let rows = observations(7, 600, 72);
    let setting = acme(&rows).await;
    let zones = ["", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe"];
    let dimensions: [&[&str]; 6] =
        [&[], &["model"], &["account", "model"], &["tags"], &["metadata:team", "tags"], &["trace_name"]];
    let units = [
        None,
        Some((TimeUnit::Hour, Unit::Hour, 6)),
        Some((TimeUnit::Day, Unit::Day, 1)),
        Some((TimeUnit::Week, Unit::Week, 1)),
        Some((TimeUnit::Minute, Unit::Minute, 90)),
    ];
    let mut at = 0;
    for view in [View::Observations, View::Traces] {
        let all = if view == View::Traces { trace_facts(&rows) } else { facts(&rows) };
        for dimensions in dimensions {
            if view == View::Traces && dimensions.contains(&"model") {
                continue;
            }
            // How many users there are does not follow from the users of each group: such questions go another way.
            for (unit, users) in units.into_iter().flat_map(|unit| [(unit, true), (unit, false)]) {
                at += 1;
                let exact = users && at % 4 == 1;
                let asked = MetricsRequest {
                    view: view.into(),
                    bucket: unit.and_then(|(unit, _, count)| bucket(unit, count, zones[at % zones.len()])),
                    top_k: (at % 3) as u32 * 2,
                    with_total: true,
                    exact_percentiles: exact,
                    range: Some(TimeRange {
                        from_unix_micros: START_US + 7 * HOUR_US + 1,
                        to_unix_micros: START_US + 55 * HOUR_US,
                    }),
                    ..request(measures(users), dimensions)
                };
                let (expected, total) = oracle(&all, &asked, unit.map(|(_, unit, count)| (unit, count)));
                let answer = ask(&setting, asked).await;
                // The engine interpolates in steps of a millionth.
                let tolerance = if exact { 1e-6 } else { 0.0051 };
                check(&lines(&answer.rows), &expected, tolerance);
                let total_row = answer.total.unwrap();
                for row in answer.rows.iter().chain([&total_row]) {
                    let [count, priced] = [1, 2].map(|at| show(&row.measures[at]).parse::<i64>().unwrap());
                    assert_eq!(row.unpriced_rows, Some(count - priced));
                }
                check(&lines(&[total_row]), &[total], tolerance);
                let read = ["observations=2", "trace_facts=none"];
                assert_eq!(answer.snapshot, read[..if view == View::Traces { 2 } else { 1 }]);
            }
        }
    }
}

#[tokio::test]
async fn filters_keep_what_they_say() {
    use FilterOperator as F;
    let rows = observations(8, 300, 72);
    let setting = acme(&rows).await;
    type Keep = fn(&ObservationRow) -> bool;
    let cases: Vec<(&str, F, &[&str], Keep)> = vec![
        ("model", F::Equals, &["gpt-5"], |r| r.observation.model.as_deref() == Some("gpt-5")),
        ("model", F::NotEquals, &["gpt-5"], |r| r.observation.model.as_deref() != Some("gpt-5")),
        ("model", F::In, &["gpt-5", "llama"], |r| matches!(r.observation.model.as_deref(), Some("gpt-5" | "llama"))),
        ("model", F::NotIn, &["gpt-5", "llama"], |r| {
            !matches!(r.observation.model.as_deref(), Some("gpt-5" | "llama"))
        }),
        ("model", F::Contains, &["a"], |r| r.observation.model.as_ref().is_some_and(|m| m.contains('a'))),
        ("model", F::NotContains, &["a"], |r| !r.observation.model.as_ref().is_some_and(|m| m.contains('a'))),
        ("model", F::StartsWith, &["cl"], |r| r.observation.model.as_ref().is_some_and(|m| m.starts_with("cl"))),
        ("model", F::EndsWith, &["-5"], |r| r.observation.model.as_ref().is_some_and(|m| m.ends_with("-5"))),
        ("model", F::Contains, &["%"], |_| false),
        ("model", F::IsNull, &[], |r| r.observation.model.is_none()),
        ("model", F::IsNotNull, &[], |r| r.observation.model.is_some()),
        ("input_tokens", F::Greater, &["2500"], |r| r.observation.input_tokens > Some(2500)),
        ("input_tokens", F::LessOrEqual, &["99.5"], |r| r.observation.input_tokens <= Some(99)),
        ("latency_ms", F::GreaterOrEqual, &["4000.5"], |r| {
            facts(std::slice::from_ref(r))[0].latency_ms >= Some(4000.5)
        }),
        ("total_cost", F::Less, &["0.01"], |r| r.cost.total.is_some_and(|cost| cost.pico() < 10_000_000_000)),
        ("is_root", F::Equals, &["true"], |r| r.is_root()),
        ("start_time", F::Less, &["2026-03-28T12:00:00+01:00"], |r| r.start_us() < START_US + 11 * HOUR_US),
        ("tags", F::HasAny, &["beta", "paid"], |r| r.observation.tags.iter().any(|t| t == "beta" || t == "paid")),
        ("tags", F::HasAll, &["beta", "paid"], |r| {
            ["beta", "paid"].iter().all(|w| r.observation.tags.iter().any(|t| t == w))
        }),
        ("tags", F::HasNone, &["beta", "paid"], |r| !r.observation.tags.iter().any(|t| t == "beta" || t == "paid")),
        ("tags", F::IsNull, &[], |r| r.observation.tags.is_empty()),
        ("tags", F::IsNotNull, &[], |r| !r.observation.tags.is_empty()),
        ("metadata:team", F::Equals, &["team-1"], |r| r.observation.metadata["team"] == "team-1"),
        ("metadata:odd \"key\" ' %", F::Equals, &["1"], |r| r.observation.metadata["odd \"key\" ' %"] == "1"),
        ("metadata:absent", F::IsNull, &[], |_| true),
    ];
    for (field, operator, values, keep) in cases {
        let expected = rows.iter().filter(|row| keep(row)).count();
        let asked = MetricsRequest {
            filters: vec![filter(field, operator, values)],
            ..request(vec![measure(A::Count, "")], &[])
        };
        let answer = ask(&setting, asked).await;
        assert_eq!(lines(&answer.rows), [expected.to_string()], "{field} {operator:?} {values:?}");
    }
}

#[tokio::test]
async fn filters_on_traces_look_at_the_whole_trace() {
    let rows = observations(9, 300, 72);
    let setting = acme(&rows).await;
    for (field, operator, values) in
        [("observations", FilterOperator::Equals, ["3"]), ("tags", FilterOperator::HasAny, ["paid"])]
    {
        let traces: BTreeSet<&str> = rows
            .iter()
            .filter(|row| field == "observations" || row.observation.tags.iter().any(|tag| tag == "paid"))
            .map(|row| row.observation.trace_id.as_str())
            .collect();
        let asked = MetricsRequest {
            view: View::Traces.into(),
            filters: vec![filter(field, operator, &values)],
            ..request(vec![measure(A::Count, ""), measure(A::Sum, "observations")], &[])
        };
        let expected = format!("{} | {}", traces.len(), traces.len() * 3);
        assert_eq!(lines(&ask(&setting, asked).await.rows), [expected]);
    }
}

#[tokio::test]
async fn scores_are_averaged_by_name_in_any_order_alike() {
    let setting = Setting::new(QueryLimits::default()).await;
    let scores: Vec<ScoreRow> = (0..100).map(|at| score(at, 0.1 * (at % 7) as f64, START_US + at as i64)).collect();
    setting.add_fresh_scores("acme", &scores);
    let reversed: Vec<ScoreRow> = scores.iter().rev().cloned().collect();
    setting.add_fresh_scores("globex", &reversed);
    let asked = MetricsRequest {
        view: View::Scores.into(),
        order_by: vec![OrderBy { field: "name".into(), ascending: true }],
        ..request(vec![measure(A::Avg, "value"), measure(A::Count, ""), measure(A::Max, "value")], &["name"])
    };
    let answer = ask(&setting, asked.clone()).await;
    assert_eq!(answer.rows.iter().map(|row| show(&row.dimensions[0])).collect::<Vec<_>>(), ["correct", "helpful"]);
    let other = setting.metrics("globex", asked).await.unwrap();
    assert_eq!(lines(&answer.rows), lines(&other.rows));
    assert_eq!(
        answer.measures.iter().map(|m| (m.name.as_str(), m.unit.as_str())).collect::<Vec<_>>(),
        [("avg_value", ""), ("count", "count"), ("max_value", ""),]
    );
}

#[tokio::test]
async fn presets_are_requests_with_fields_filled_in() {
    let rows = observations(10, 300, 72);
    let setting = acme(&rows).await;
    let range = request(vec![], &[]).range;
    let costs = crate::query::presets::cost_breakdown(CostBreakdownRequest { range, top_k: 2, ..Default::default() });
    let answer = ask(&setting, costs).await;
    assert_eq!(answer.rows.len(), 3);
    assert!(answer.rows[2].is_other && answer.total.is_some());
    assert_eq!(answer.measures[0].name, "sum_total_cost");
    assert_eq!(answer.measures[0].unit, "USD");
    let latency = LatencyPercentilesRequest { range, view: View::Traces.into(), ..Default::default() };
    let answer = ask(&setting, crate::query::presets::latency_percentiles(latency)).await;
    assert_eq!(answer.dimensions, ["trace_name"]);
    assert_eq!(
        answer.measures.iter().map(|m| m.name.as_str()).collect::<Vec<_>>(),
        ["p50_latency_ms", "p75_latency_ms", "p90_latency_ms", "p95_latency_ms", "p99_latency_ms", "count",]
    );
    let series = TimeSeriesRequest { range, bucket: bucket(TimeUnit::Day, 1, "Europe/Berlin"), ..Default::default() };
    let answer = ask(&setting, crate::query::presets::time_series(series)).await;
    assert_eq!(answer.rows.len(), 4);
}

#[tokio::test]
async fn a_tenant_without_rows_gets_zeros_and_gaps() {
    let setting = Setting::new(QueryLimits::default()).await;
    let asked = MetricsRequest {
        bucket: bucket(TimeUnit::Day, 1, ""),
        with_total: true,
        ..request(vec![measure(A::Count, ""), measure(A::Sum, "total_cost"), percentile("latency_ms", 95.0)], &[])
    };
    let answer = ask(&setting, asked.clone()).await;
    assert_eq!(lines(&answer.rows), ["0 | 0 | $0 | -", "1440 | 0 | $0 | -", "2880 | 0 | $0 | -"]);
    assert_eq!(lines(&[answer.total.unwrap()]), ["0 | $0 | -"]);
    assert_eq!(answer.snapshot, ["observations=none"]);
    let grouped = MetricsRequest { bucket: None, ..request(asked.measures, &["model"]) };
    assert!(ask(&setting, grouped).await.rows.is_empty());
}

#[tokio::test]
async fn calls_without_a_price_are_not_calls_for_nothing() {
    let mut rows = observations(11, 90, 5);
    for (at, row) in rows.iter_mut().enumerate() {
        let mut observation = Observation::clone(&row.observation);
        observation.model = Some(["priced", "free", "unpriced"][at % 3].to_owned());
        row.observation = observation.into();
        // Half of the priced ones used nothing.
        row.cost.total = [(at % 2 == 0).then_some(Money::from_pico(5)), Some(Money::ZERO), None][at % 3];
    }
    let setting = acme(&rows).await;
    for top_k in [0, 1] {
        let asked = MetricsRequest {
            with_total: true,
            top_k,
            ..request(vec![measure(A::Sum, "total_cost"), measure(A::Count, "")], &["model"])
        };
        let answer = ask(&setting, asked).await;
        let found: Vec<_> = lines(&answer.rows).into_iter().zip(answer.rows.iter().map(|r| r.unpriced_rows)).collect();
        let row = |line: &str, unpriced| (line.to_owned(), Some(unpriced));
        match top_k {
            0 => assert_eq!(
                found,
                [row("priced | $0.000000000075 | 30", 15), row("free | $0 | 30", 0), row("unpriced | - | 30", 30)]
            ),
            _ => assert_eq!(found, [row("priced | $0.000000000075 | 30", 15), row("* | - | $0 | 60", 30)]),
        }
        assert_eq!(answer.total.unwrap().unpriced_rows, Some(45));
    }
    let without_money = ask(&setting, request(vec![measure(A::Count, "")], &["model"])).await;
    assert!(without_money.rows.iter().all(|row| row.unpriced_rows.is_none()));
}

#[tokio::test]
async fn a_breakdown_with_others_and_total_reads_the_files_once() {
    let rows = observations(12, 600, 72);
    let range = request(vec![], &[]).range;
    let breakdown = |dimensions: &[&str]| {
        crate::query::presets::cost_breakdown(CostBreakdownRequest {
            range,
            top_k: 2,
            dimensions: dimensions.iter().map(|name| name.to_string()).collect(),
            ..Default::default()
        })
    };
    let gets = async |setting: &Setting, asked: &MetricsRequest| -> (u64, MetricsResponse) {
        ask(setting, asked.clone()).await;
        let before = setting.store.counts().get;
        let answer = ask(setting, asked.clone()).await;
        (setting.store.counts().get - before, answer)
    };
    let setting = acme(&rows).await;
    let plain = MetricsRequest { top_k: 0, with_total: false, ..breakdown(&["model"]) };
    let (once, _) = gets(&setting, &plain).await;
    assert!(once > 0);
    assert_eq!(gets(&setting, &breakdown(&["model"])).await.0, once);
    assert_eq!(
        gets(&setting, &latency_percentiles(LatencyPercentilesRequest { range, top_k: 2, ..Default::default() }))
            .await
            .0,
        once
    );
    // A tag stands in several groups, and what was said once would be counted twice: the total is read for itself.
    assert_eq!(gets(&setting, &breakdown(&["tags"])).await.0, 2 * once);
    let hourly = |dimension| MetricsRequest { bucket: bucket(TimeUnit::Hour, 1, ""), ..breakdown(&[dimension]) };
    assert_eq!(gets(&setting, &hourly("model")).await.0, once);
    assert_eq!(gets(&setting, &hourly("user_id")).await.0, 2 * once, "of many groups: ranked first, then those shown");
    let users = MetricsRequest { measures: measures(true), ..breakdown(&["model"]) };
    assert_eq!(gets(&setting, &users).await.0, 3 * once);
}

#[tokio::test]
async fn groups_that_do_not_fit_into_memory_are_read_again_instead() {
    let rows = observations(13, 3000, 72);
    let of = |dimension: &str| {
        crate::query::presets::cost_breakdown(CostBreakdownRequest {
            range: request(vec![], &[]).range,
            top_k: 2,
            dimensions: vec![dimension.to_owned()],
            ..Default::default()
        })
    };
    let by_minute = TimeBucket { skip_gaps: true, ..bucket(TimeUnit::Minute, 1, "").unwrap() };
    let in_buckets = MetricsRequest { bucket: Some(by_minute), ..of("model") };
    // The attempt, then ranking, others and total; or ranking and buckets.
    for (asked, times) in [(of("id"), 4), (in_buckets, 3)] {
        let mut answers = Vec::new();
        for memory_max in [ByteSize::mib(512), ByteSize::mib(2)] {
            let setting = Setting::new(QueryLimits { memory_max, ..Default::default() }).await;
            setting.add_files("acme", &rows).await;
            ask(&setting, asked.clone()).await;
            let before = setting.store.counts().get;
            let mut answer = ask(&setting, asked.clone()).await;
            answer.reading = None;
            answers.push((setting.store.counts().get - before, answer));
        }
        assert_eq!(answers[1].0, times * answers[0].0);
        assert_eq!(answers[1].1, answers[0].1);
    }
}
