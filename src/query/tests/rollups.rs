//! Roll-ups: what is answered by them is what the rows say, and rows are read wherever they say more.

use super::metrics::lines;
use super::requests::{bucket, filter, measure, percentile, request};
use super::*;
use crate::base::ByteSize;
use crate::catalog::keys::Bound;
use crate::format::rollup::{RollupFacts, VERSION};
use crate::query::functions::{FLOAT_UNIT, SKETCH_ERROR};
use crate::query::metrics::{Sums, rollup};
use crate::wire::{Aggregation as A, FilterOperator, Measure, MetricsRow, Reading, TimeRange, TimeUnit, View};

/// The rows of a test lie on so many days, a file each.
const FILES: u64 = 3;

/// Rows in files, and an engine over them that reads nothing but rows.
async fn twice(rows: &[ObservationRow]) -> (Setting, Engine) {
    let setting = Setting::new(QueryLimits { partitions: 2, ..Default::default() }).await;
    setting.add_files("acme", rows).await;
    let plain = plain(&setting);
    (setting, plain)
}

fn plain(setting: &Setting) -> Engine {
    let limits = QueryLimits { rollups: false, ..Default::default() };
    let world = Arc::new(setting.world.clone());
    Engine::over(world.clone(), setting.store.clone(), world, limits, None).unwrap()
}

fn by_hour(measures: Vec<Measure>, dimensions: &[&str]) -> MetricsRequest {
    MetricsRequest { bucket: bucket(TimeUnit::Hour, 1, ""), ..request(measures, dimensions) }
}

async fn read(engine: &Engine, asked: &MetricsRequest) -> (Vec<MetricsRow>, Option<MetricsRow>, Reading) {
    let answer = engine.metrics(all_of("acme"), vec![asked.clone()]).await.unwrap().remove(0);
    (answer.rows, answer.total, answer.reading.unwrap())
}

#[tokio::test]
async fn dashboards_read_no_row() {
    let rows = observations(5, 900, 72);
    let (setting, _) = twice(&rows).await;
    let errors = vec![filter("is_error", FilterOperator::Equals, &["true"])];
    let cost = Measure { name: "cost of errors".into(), filters: errors, ..measure(A::Sum, "total_cost") };
    for asked in [
        request(vec![measure(A::Count, "")], &[]),
        request(vec![measure(A::Sum, "total_cost"), measure(A::Avg, "output_tokens")], &["model"]),
        by_hour(vec![percentile("latency_ms", 95.0), measure(A::ErrorRate, ""), cost], &["model", "level"]),
        MetricsRequest {
            filters: vec![filter("type", FilterOperator::In, &["GENERATION"])],
            ..by_hour(vec![measure(A::Max, "latency_ms"), measure(A::Histogram, "latency_ms")], &["trace_name"])
        },
    ] {
        let (_, _, reading) = read(&setting.engine, &asked).await;
        assert_eq!((reading.files, reading.files_rolled_up), (FILES, FILES), "{asked:?}");
    }
}

#[tokio::test]
async fn what_they_do_not_know_is_asked_of_the_rows() {
    let rows = observations(5, 900, 72);
    let (setting, plain) = twice(&rows).await;
    for asked in [
        request(vec![measure(A::Count, "")], &["user_id"]),
        request(vec![measure(A::CountDistinct, "model")], &[]),
        request(vec![measure(A::Stddev, "latency_ms")], &["model"]),
        request(vec![measure(A::Max, "total_tokens")], &["model"]),
        MetricsRequest { exact_percentiles: true, ..request(vec![percentile("latency_ms", 50.0)], &[]) },
        MetricsRequest { view: View::Sessions.into(), ..request(vec![measure(A::Count, "")], &["trace_name"]) },
        MetricsRequest { view: View::Traces.into(), ..request(vec![measure(A::Count, "")], &["models"]) },
        MetricsRequest {
            view: View::Traces.into(),
            filters: vec![filter("trace_id", FilterOperator::Equals, &["trace 3"])],
            ..request(vec![measure(A::Count, "")], &[])
        },
        MetricsRequest {
            filters: vec![filter("user_id", FilterOperator::Equals, &["user 3"])],
            ..request(vec![measure(A::Count, "")], &[])
        },
        MetricsRequest { bucket: bucket(TimeUnit::Minute, 30, ""), ..request(vec![measure(A::Count, "")], &[]) },
        MetricsRequest {
            bucket: bucket(TimeUnit::Day, 1, "Asia/Kolkata"),
            ..request(vec![measure(A::Count, "")], &[])
        },
    ] {
        let (found, _, reading) = read(&setting.engine, &asked).await;
        assert_eq!((reading.files_rolled_up, found), (0, read(&plain, &asked).await.0), "{asked:?}");
    }
}

#[tokio::test]
async fn answers_are_those_of_the_rows() {
    let mut random = SmallRng::seed_from_u64(11);
    let rows = observations(5, 1_500, 96);
    let (files, fresh) = rows.split_at(1_200);
    let (setting, _) = twice(files).await;
    setting.add_fresh("acme", fresh);
    let plain = plain(&setting);
    let dimensions: [&[&str]; 6] =
        [&[], &["model"], &["level", "model"], &["trace_name"], &["is_call"], &["name", "status"]];
    let zones = ["", "Europe/Berlin", "America/New_York", "Asia/Kolkata"];
    let mut rolled_up = 0;
    for round in 0..120 {
        let from_us = START_US + random.random_range(-5..60) * HOUR_US + random.random_range(0..3) * 1_234_567;
        let to_us = from_us + random.random_range(1..80) * HOUR_US / random.random_range(1..4);
        let kind = [None, Some(TimeUnit::Hour), Some(TimeUnit::Day)][random.random_range(0..3)];
        let users = Measure {
            name: "generations".into(),
            filters: vec![filter("model", FilterOperator::In, &["gpt-5", "llama"])],
            ..measure(A::Sum, "total_cost")
        };
        let measures = super::metrics::measures(false).into_iter().chain([
            users,
            measure(A::Count, "model"),
            measure(A::Sum, "tokens_per_second"),
            measure(A::Histogram, "latency_ms"),
        ]);
        let asked = MetricsRequest {
            range: Some(TimeRange { from_unix_micros: from_us, to_unix_micros: to_us }),
            bucket: kind.and_then(|unit| bucket(unit, 1, zones[round % zones.len()])),
            top_k: random.random_range(0..4),
            with_total: random.random_bool(0.5),
            filters: match random.random_range(0..3) {
                0 => vec![filter("model", FilterOperator::NotEquals, &["mistral"])],
                1 => vec![filter("is_error", FilterOperator::Equals, &["true"])],
                _ => Vec::new(),
            },
            ..request(measures.collect(), dimensions[round % dimensions.len()])
        };
        let (found, expected) = (read(&setting.engine, &asked).await, read(&plain, &asked).await);
        assert_eq!((found.0, found.1), (expected.0, expected.1), "{asked:?}");
        rolled_up += usize::from(found.2.files_rolled_up > 0);
        assert_eq!(expected.2.files_rolled_up, 0);
    }
    assert!(rolled_up > 60, "{rolled_up} of 120 questions");
}

#[tokio::test]
async fn answers_of_traces_are_those_of_their_observations() {
    let mut random = SmallRng::seed_from_u64(12);
    let rows = observations(6, 1_500, 96);
    let (files, fresh) = rows.split_at(1_200);
    let (setting, _) = twice(files).await;
    setting.add_fresh("acme", fresh);
    let plain = plain(&setting);
    let dimensions: [&[&str]; 6] =
        [&[], &["name"], &["user_id", "environment"], &["tags"], &["is_error"], &["flow_name", "release"]];
    let mut rolled_up = 0;
    for round in 0..48 {
        let from_us = START_US + random.random_range(-5..60) * HOUR_US + random.random_range(0..3) * 1_234_567;
        let to_us = from_us + random.random_range(1..80) * HOUR_US / random.random_range(1..4);
        let kind = [None, None, Some(TimeUnit::Hour), Some(TimeUnit::Day)];
        let measures = [
            measure(A::Count, ""),
            measure(A::Sum, "total_cost"),
            percentile("total_cost", 95.0),
            percentile("latency_ms", 50.0),
            measure(A::Max, "ttft_ms"),
            measure(A::Avg, "observations"),
            measure(A::Sum, "calls"),
            measure(A::ErrorRate, ""),
            measure(A::CountDistinct, "session_id"),
        ];
        let asked = MetricsRequest {
            view: View::Traces.into(),
            range: Some(TimeRange { from_unix_micros: from_us, to_unix_micros: to_us }),
            bucket: kind[random.random_range(0..4)].and_then(|unit| bucket(unit, 1, "Asia/Kolkata")),
            top_k: random.random_range(0..4),
            with_total: random.random_bool(0.5),
            filters: match random.random_range(0..3) {
                0 => vec![filter("tags", FilterOperator::HasAny, &["tag 1", "tag 2"])],
                1 => vec![filter("errors", FilterOperator::Greater, &["0"])],
                _ => Vec::new(),
            },
            ..request(measures.into(), dimensions[round % dimensions.len()])
        };
        let (found, expected) = (read(&setting.engine, &asked).await, read(&plain, &asked).await);
        assert_eq!((found.0, found.1), (expected.0, expected.1), "{asked:?}");
        rolled_up += usize::from(found.2.files_rolled_up > 0);
        assert_eq!(expected.2.files_rolled_up, 0);
    }
    assert!(rolled_up > 24, "{rolled_up} of 48 questions");
}

#[tokio::test]
async fn a_file_with_open_changes_is_read_row_by_row() {
    let rows = observations(5, 900, 72);
    let (setting, _) = twice(&rows).await;
    let path = {
        let tables = setting.world.0.lock();
        tables.snapshots[&("acme".to_owned(), Table::Observations)].files.keys().next().unwrap().clone()
    };
    setting.change("acme", Table::Observations, Changes { touched: Arc::new([path].into()), ..Default::default() });
    for (view, dimension) in [(View::Observations, "model"), (View::Traces, "name")] {
        let asked = MetricsRequest { view: view.into(), ..request(vec![measure(A::Count, "")], &[dimension]) };
        let (_, _, reading) = read(&setting.engine, &asked).await;
        assert_eq!((reading.files, reading.files_rolled_up), (FILES, FILES - 1));
    }
}

#[tokio::test]
async fn one_that_is_lost_or_of_another_version_is_missed_by_nobody() {
    let rows = observations(5, 900, 72);
    let (setting, plain) = twice(&rows).await;
    let of_hours = by_hour(vec![measure(A::Sum, "total_cost")], &["model"]);
    let of_traces =
        MetricsRequest { view: View::Traces.into(), ..by_hour(vec![measure(A::Sum, "total_cost")], &["name"]) };
    let key = ("acme".to_owned(), Table::Observations);
    let paths: Vec<String> = setting.world.0.lock().snapshots[&key].files.keys().cloned().collect();
    for (kind, asked) in [(RollupKind::Hours, of_hours), (RollupKind::Traces, of_traces)] {
        let expected = read(&plain, &asked).await.0;
        let lost = rollup_object(&"acme".parse().unwrap(), kind, Table::Observations.name(), &paths[0]);
        setting.store.delete(&lost).await.unwrap();
        let (found, _, reading) = read(&setting.engine, &asked).await;
        assert_eq!((found, reading.files_rolled_up), (expected.clone(), 0));
        setting.store.put(&lost, vec![7; 2_000].into()).await.unwrap();
        let (found, _, reading) = read(&setting.engine, &asked).await;
        assert_eq!((found, reading.files_rolled_up), (expected.clone(), 0), "nor one that is damaged");

        for path in &paths {
            let mut tables = setting.world.0.lock();
            let file = tables.snapshots.get_mut(&key).unwrap().files.get_mut(path).unwrap();
            let file = Arc::make_mut(file);
            let facts = file.rollups.of(kind).unwrap();
            file.rollups.put(kind, RollupFacts { version: VERSION + 1, ..facts });
        }
        let (found, _, reading) = read(&setting.engine, &asked).await;
        assert_eq!((found, reading.files_rolled_up), (expected, 0));
    }
}

#[tokio::test]
async fn who_sees_a_part_of_the_rows_sees_no_sums_of_all() {
    let rows = observations(5, 900, 72);
    let (setting, _) = twice(&rows).await;
    let asked = request(vec![measure(A::Count, "")], &[]);
    let bound = Scope { bound: Some(Bound::User("user 3".into())), ..all_of("acme") };
    let answer = setting.engine.metrics(bound, vec![asked]).await.unwrap().remove(0);
    let theirs = rows.iter().filter(|row| row.observation.user_id.as_deref() == Some("user 3")).count();
    assert_eq!(lines(&answer.rows), [theirs.to_string()]);
}

#[tokio::test]
async fn rows_that_differ_too_much_are_not_summed_up() {
    // One of each trace.
    let rows: Vec<ObservationRow> = observations(5, 900, 72).into_iter().step_by(3).collect();
    let rows = batch(Table::Observations, OBSERVATIONS, &rows);
    let rows = parquet::sort(Table::Observations, &rows).unwrap();
    let rollups = FileRollups::new().unwrap();
    for kind in RollupKind::ALL {
        assert_eq!(rollups.memory_max(kind, Table::Observations, 900), None, "there are too few");
        assert_eq!(rollups.memory_max(kind, Table::Scores, 1_000_000), None);
        assert!(rollups.memory_max(kind, Table::Observations, 1_000_000) > Some(ByteSize::mib(1)));
        let mut rollup = rollups.begin(kind, Table::Observations);
        rollup.push(&rows).await;
        assert!(rollup.finish().await.is_none());
    }
}

/// Who changes one of these changes what roll-ups say, and makes a new version of them.
#[test]
fn a_version_says_what_is_summed_up_and_how() {
    let columns = |kind| -> String {
        let schema = Sums::of(kind).schema();
        schema.fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>().join(", ")
    };
    let known = "hour, type, name, trace_name, model, provider, environment, level, status, rows, \
        latency_ms count, latency_ms sum, latency_ms min, latency_ms max, latency_ms sketch, \
        ttft_ms count, ttft_ms sum, ttft_ms min, ttft_ms max, ttft_ms sketch, \
        total_cost count, total_cost sum, total_cost min, total_cost max, total_cost sketch, \
        input_cost count, input_cost sum, output_cost count, output_cost sum, \
        tokens_per_second count, tokens_per_second sum, input_tokens count, input_tokens sum, \
        uncached_input_tokens count, uncached_input_tokens sum, cached_input_tokens count, cached_input_tokens sum, \
        cache_write_tokens count, cache_write_tokens sum, output_tokens count, output_tokens sum, \
        reasoning_tokens count, reasoning_tokens sum, total_tokens count, total_tokens sum";
    assert_eq!(columns(RollupKind::Hours), known);
    let known = "hour, trace_id, rows, start_time, name, flow_name, account, project, flow, user_id, session_id, \
        environment, release, version, tags, input_tokens, cached_input_tokens, output_tokens, total_tokens, \
        input_cost, output_cost, total_cost, observations, calls, tool_calls, errors, end_time, completion_start_time";
    assert_eq!(columns(RollupKind::Traces), known);
    assert_eq!((FLOAT_UNIT, SKETCH_ERROR, VERSION), (1_099_511_627_776.0, 0.005, 1));
    let speed =
        "CASE WHEN latency_ms > Float64(0) THEN CAST(output_tokens AS Float64) / latency_ms / Float64(1000) END";
    assert!(rollup::formulas().contains(&speed.to_owned()), "{:?}", rollup::formulas());
}

#[tokio::test]
async fn traces_of_a_busy_hour_are_summed_up() {
    let rows = batch(Table::Observations, OBSERVATIONS, &observations(5, 60_000, 2));
    let rows = parquet::sort(Table::Observations, &rows).unwrap();
    let mut rollup = FileRollups::new().unwrap().begin(RollupKind::Traces, Table::Observations);
    for at in (0..rows.num_rows()).step_by(8_192) {
        rollup.push(&rows.slice(at, 8_192.min(rows.num_rows() - at))).await;
    }
    let (_, facts) = rollup.finish().await.unwrap();
    assert!(facts.rows >= 60_000 / 8, "{facts}");
}
