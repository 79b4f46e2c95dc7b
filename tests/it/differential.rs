//! DuckDB answers random metrics questions over our files as we do: counts, tokens and money to the last digit. Half of
//! the questions are asked after the files were merged, when roll-ups stand for many rows.
//!
//! By hand: `TRACELAKE_TEST_READERS=1 cargo test --test it differential`. `TRACELAKE_SEED` picks other questions.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};
use serde_json::{Value as Json, json};
use tracelake::base::{Clock, Day, ManualClock, SystemClock};
use tracelake::catalog::Catalog;
use tracelake::catalog::system::SystemObjects;
use tracelake::catalog::tenants::Tenants;
use tracelake::cli::Connection;
use tracelake::compact::{CompactSettings, Compactor};
use tracelake::corpus::{CorpusConfig, TextSize, requests};
use tracelake::query::FileRollups;
use tracelake::store::{Location, Store};
use tracelake::wire::metric_value::Value;
use tracelake::wire::{
    Aggregation, Filter, FilterOperator, Measure, MetricValue, MetricsRequest, MetricsRow, TimeBucket, TimeRange,
    TimeUnit, View,
};

use crate::process::{ServerProcess, is_asked_for, path, sql, texts};

const QUESTIONS: usize = 500;
const OBSERVATIONS: u64 = 5_000;
/// A day past Berlin's change of clocks; the week before has New York's, and the days after Sydney's.
const END_US: i64 = 1_774_915_200_000_000 + 7 * Day::US;
const START_US: i64 = END_US - 30 * Day::US;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn duckdb_answers_random_questions_as_we_do() {
    if !is_asked_for("READERS", "differential") {
        return;
    }
    let seed = std::env::var("TRACELAKE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    println!("seed {seed}");
    let folder = tempfile::tempdir().unwrap();
    let settings = [("TRACELAKE_FLUSH_AFTER_S", "1"), ("TRACELAKE_COMPACT", "false")];
    let server = ServerProcess::try_start(path(folder.path()), &settings).unwrap();
    let connection = server.connect().await;
    let config = CorpusConfig {
        seed,
        observations: OBSERVATIONS,
        start_us: START_US,
        end_us: END_US,
        users: 40,
        text: TextSize::None,
        error_rate: 0.1,
        provided_cost_rate: 0.3,
    };
    let mut random = SmallRng::seed_from_u64(seed);
    let mut requests: Vec<_> = requests(config, 50).collect();
    requests.shuffle(&mut random);
    for (at, request) in requests.iter().enumerate() {
        // Each day gets several files, so that there is something to merge.
        if at == requests.len() / 2 {
            tokio::time::sleep(Duration::from_secs(3)).await;
        }
        connection.export(request.clone()).await.unwrap();
    }
    let table = format!("{}/tenants/acme/observations", path(folder.path()));
    files(&connection, &table).await;

    let mut cases = Vec::with_capacity(QUESTIONS);
    let (mut is_merged, mut rolled_up) = (false, 0);
    for _ in 0..2 * QUESTIONS {
        if cases.len() == 2 * QUESTIONS {
            break;
        }
        if cases.len() >= QUESTIONS && !is_merged {
            merge(folder.path()).await;
            is_merged = true;
        }
        let case = Case::random(&mut random);
        let answer =
            connection.metrics(case.request.clone()).await.unwrap_or_else(|e| panic!("{e}: {:?}", case.request));
        rolled_up += usize::from(answer.reading.as_ref().is_some_and(|reading| reading.files_rolled_up > 0));
        // Groups beyond the limit of rows stand together: DuckDB has no such row.
        if answer.rows.iter().any(|row| row.is_other) {
            continue;
        }
        let rows: Vec<Json> = answer.rows.iter().map(|row| case.cells(row)).collect();
        let keys = case.request.dimensions.len() + usize::from(case.request.bucket.is_some());
        cases.push(json!({ "sql": case.sql(), "keys": keys, "rows": rows }));
        let total = case.total_cells(answer.total.as_ref().expect("a total was asked for"));
        cases.push(json!({ "sql": case.total_sql(), "keys": 0, "rows": [total] }));
    }
    assert_eq!(cases.len(), 2 * QUESTIONS);
    println!("{rolled_up} of {} questions were answered by roll-ups", QUESTIONS / 2);
    assert!(rolled_up > QUESTIONS / 50);
    let files = files(&connection, &table).await;
    let given = folder.path().join("cases.json");
    std::fs::write(&given, json!({ "files": files, "cases": cases }).to_string()).unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/readers/run.sh");
    let read = Command::new("bash").args([script, "metrics.py", path(&given)]).status().unwrap();
    assert!(read.success(), "seed {seed}: DuckDB answers otherwise: see above");
}

/// All files of the table, once all rows are in them.
async fn files(connection: &Connection, table: &str) -> Vec<String> {
    for _ in 0..120 {
        let of_table = "FROM files WHERE table_name = 'observations'";
        let rows = texts(&sql(connection, &format!("SELECT sum(rows) {of_table}")).await.unwrap()).remove(0);
        if rows == OBSERVATIONS.to_string() {
            let paths = texts(&sql(connection, &format!("SELECT path {of_table}")).await.unwrap());
            return paths.iter().map(|path| format!("{table}/{path}")).collect();
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    panic!("the rows are not in files");
}

/// Seals all days, as it is done once they are quiet.
async fn merge(folder: &Path) {
    let clock = Arc::new(ManualClock::at(SystemClock.now_us() + 2 * 3_600_000_000));
    let store = Store::open(Location::Folder(folder.into())).await.unwrap();
    let tenants = Tenants::new(SystemObjects::new(store.clone(), clock.clone()));
    let rollups = Arc::new(FileRollups::new().unwrap().of_all());
    let catalog = Catalog::new(store, clock.clone());
    let compactor = Compactor::new(catalog, tenants, clock, rollups, CompactSettings::default()).unwrap();
    println!("{}", compactor.run_once().await.unwrap());
    // A server looks for what others commit once a second.
    tokio::time::sleep(Duration::from_secs(3)).await;
}

/// A question in both languages.
struct Case {
    request: MetricsRequest,
    /// `SELECT` and `GROUP BY` of each dimension, the bucket first.
    keys: Vec<String>,
    measures: Vec<String>,
    /// How far each measure may differ, as a share of it.
    errors: Vec<f64>,
    condition: String,
}

/// Dimensions of either view with what DuckDB calls them.
const DIMENSIONS: [(&str, &str); 7] = [
    ("trace_name", "trace_name"),
    ("user_id", "user_id"),
    ("environment", "environment"),
    ("account", "account"),
    ("session_id", "session_id"),
    ("service_name", "service_name"),
    ("release", "release"),
];
const OF_OBSERVATIONS: [(&str, &str); 6] = [
    ("model", "model"),
    ("type", "type"),
    ("level", "level"),
    ("provider", "provider"),
    ("prompt_version", "prompt_version"),
    ("tags", "unnest(CASE WHEN len(tags) > 0 THEN tags ELSE [NULL] END)"),
];
const SUMMED: [&str; 6] = ["trace_name", "environment", "model", "type", "level", "provider"];
const ZONES: [&str; 8] = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Asia/Kolkata",
    "Australia/Lord_Howe",
    "Pacific/Auckland",
    "Pacific/Chatham",
    "America/St_Johns",
];
const TOKENS: [&str; 4] = ["total_tokens", "input_tokens", "output_tokens", "cached_input_tokens"];
const COSTS: [&str; 3] = ["total_cost", "input_cost", "output_cost"];

impl Case {
    fn random(random: &mut SmallRng) -> Self {
        let of_traces = random.random_bool(0.3);
        let mut known = DIMENSIONS.to_vec();
        if !of_traces {
            known.extend(OF_OBSERVATIONS);
        }
        // What roll-ups answer, where there are any.
        let by_sums = !of_traces && random.random_bool(0.4);
        if by_sums {
            known.retain(|(name, _)| SUMMED.contains(name));
        }
        let count = random.random_range(0..=2);
        let dimensions: Vec<_> = known.choose_multiple(random, count).copied().collect();
        let bucket = random.random_bool(0.5).then(|| bucket(random));
        let from_us = START_US + random.random_range(0..20 * Day::US);
        let to_us = (from_us + random.random_range(1..20 * Day::US)).min(END_US + Day::US);
        let mut conditions = vec![format!("epoch_us(start_time) >= {from_us} AND epoch_us(start_time) < {to_us}")];
        let filters: Vec<Filter> = (0..if by_sums { 0 } else { random.random_range(0..3) })
            .map(|_| {
                let (filter, condition) = filter(random, 0, of_traces);
                conditions.push(condition);
                filter
            })
            .collect();
        let mut case = Self {
            request: MetricsRequest {
                view: if of_traces { View::Traces } else { View::Observations }.into(),
                dimensions: dimensions.iter().map(|(name, _)| (*name).to_owned()).collect(),
                filters,
                range: Some(TimeRange { from_unix_micros: from_us, to_unix_micros: to_us }),
                with_total: true,
                exact_percentiles: !by_sums && random.random_bool(0.5),
                ..Default::default()
            },
            keys: dimensions.iter().map(|(_, sql)| (*sql).to_owned()).collect(),
            measures: Vec::new(),
            errors: Vec::new(),
            condition: conditions.join(" AND "),
        };
        if let Some((bucket, sql)) = bucket {
            case.request.bucket = Some(bucket);
            case.keys.insert(0, sql);
        }
        case.measure("", Aggregation::Count, "count(*)", 0.0);
        let tokens = TOKENS.choose(random).copied().unwrap_or(TOKENS[0]);
        case.measure(tokens, Aggregation::Sum, &format!("coalesce(sum({tokens}), 0)"), 0.0);
        let cost = COSTS.choose(random).copied().unwrap_or(COSTS[0]);
        case.measure(cost, Aggregation::Sum, &format!("CASE WHEN count(*) = 0 THEN 0 ELSE sum({cost}) END"), 0.0);
        if !by_sums {
            case.measure("user_id", Aggregation::CountDistinct, "count(DISTINCT user_id)", 0.0);
            case.measure("total_tokens", Aggregation::Max, "max(total_tokens)", 0.0);
            case.measure("latency_ms", Aggregation::Stddev, "stddev_samp(latency_ms)", 1e-6);
        }
        case.measure("latency_ms", Aggregation::Avg, "avg(latency_ms)", 1e-9);
        case.measure("", Aggregation::ErrorRate, "avg(CASE WHEN is_error THEN 1.0 ELSE 0.0 END)", 1e-12);
        let q = [50.0, 90.0, 95.0, 99.0].choose(random).copied().unwrap_or(50.0);
        // The engine goes from one value to the next in steps of a millionth of what is between them.
        let error = if case.request.exact_percentiles { 1e-4 } else { 0.0051 };
        case.measure(
            "latency_ms",
            Aggregation::Percentile,
            &format!("quantile_cont(latency_ms, {})", q / 100.0),
            error,
        );
        if let Some(measure) = case.request.measures.last_mut() {
            measure.percentile = q;
        }
        case
    }

    fn measure(&mut self, field: &str, aggregation: Aggregation, sql: &str, error: f64) {
        let measure = Measure { field: field.to_owned(), aggregation: aggregation.into(), ..Default::default() };
        self.request.measures.push(measure);
        self.measures.push(sql.to_owned());
        self.errors.push(error);
    }

    /// What the rows of the view are.
    fn rows(&self) -> String {
        const IS_ERROR: &str = "(coalesce(level = 'ERROR', false) OR coalesce(status = 'error', false))";
        if self.request.view != i32::from(View::Traces) {
            return format!("(SELECT *, {IS_ERROR} AS is_error FROM obs)");
        }
        let said = DIMENSIONS.map(|(name, _)| format!("max({name}) AS {name}")).join(", ");
        let sums =
            TOKENS.iter().chain(&COSTS).map(|name| format!("sum({name}) AS {name}")).collect::<Vec<_>>().join(", ");
        format!(
            "(SELECT trace_id, min(start_time) AS start_time, {said}, {sums}, bool_or({IS_ERROR}) AS is_error, \
             count(*) AS observations, \
             (epoch_us(max(end_time)) - epoch_us(min(start_time))) / 1000.0::DOUBLE AS latency_ms FROM obs GROUP BY trace_id)"
        )
    }

    /// Keys are taken first: a row with several tags is several rows.
    fn sql(&self) -> String {
        let names: Vec<String> = (0..self.keys.len()).map(|at| format!("k{at}")).collect();
        let keys: Vec<String> = self.keys.iter().zip(&names).map(|(key, name)| format!("{key} AS {name}")).collect();
        let selected: Vec<&str> = names.iter().chain(&self.measures).map(String::as_str).collect();
        let base = format!("SELECT {}* FROM {} AS r WHERE {}", prefix(&keys), self.rows(), self.condition);
        let grouped = if names.is_empty() { String::new() } else { format!(" GROUP BY {}", names.join(", ")) };
        format!("SELECT {} FROM ({base}) AS b{grouped}", selected.join(", "))
    }

    fn total_sql(&self) -> String {
        format!("SELECT {} FROM {} AS r WHERE {}", self.measures.join(", "), self.rows(), self.condition)
    }

    fn cells(&self, row: &MetricsRow) -> Json {
        let bucket = row.bucket_start_unix_micros.map(Json::from);
        let dimensions = row.dimensions.iter().map(cell);
        bucket.into_iter().chain(dimensions).chain(self.measured(row)).collect()
    }

    fn total_cells(&self, row: &MetricsRow) -> Json {
        self.measured(row).collect()
    }

    fn measured<'a>(&'a self, row: &'a MetricsRow) -> impl Iterator<Item = Json> + 'a {
        row.measures.iter().zip(&self.errors).map(|(value, error)| match *error == 0.0 {
            true => cell(value),
            false => json!(["~", error, cell(value)]),
        })
    }
}

fn prefix(keys: &[String]) -> String {
    keys.iter().map(|key| format!("{key}, ")).collect()
}

fn cell(value: &MetricValue) -> Json {
    match &value.value {
        None => Json::Null,
        Some(Value::Text(text) | Value::Decimal(text)) => text.as_str().into(),
        Some(Value::Integer(whole)) => (*whole).into(),
        Some(Value::Number(number)) => (*number).into(),
        Some(Value::Boolean(boolean)) => (*boolean).into(),
        Some(other) => panic!("{other:?} was not asked for"),
    }
}

/// Days, weeks and months by any clock; hours by one that is never set.
fn bucket(random: &mut SmallRng) -> (TimeBucket, String) {
    let zone = ZONES.choose(random).copied().unwrap_or("UTC");
    let (unit, word) =
        [(TimeUnit::Day, "day"), (TimeUnit::Week, "week"), (TimeUnit::Month, "month"), (TimeUnit::Hour, "hour")]
            [random.random_range(0..4)];
    let zone = if unit == TimeUnit::Hour { "UTC" } else { zone };
    let bucket = TimeBucket { unit: unit.into(), count: 1, time_zone: zone.to_owned(), skip_gaps: true };
    let sql = format!("epoch_us(date_trunc('{word}', start_time AT TIME ZONE '{zone}') AT TIME ZONE '{zone}')");
    (bucket, sql)
}

fn filter(random: &mut SmallRng, level: usize, of_traces: bool) -> (Filter, String) {
    use FilterOperator as F;
    let of = |field: &str, operator: F, values: &[&str]| Filter {
        field: field.to_owned(),
        operator: operator.into(),
        values: values.iter().map(|value| (*value).to_owned()).collect(),
        ..Default::default()
    };
    if level < 3 && random.random_bool(0.4) {
        let (parts, conditions): (Vec<Filter>, Vec<String>) =
            (0..random.random_range(1..4)).map(|_| filter(random, level + 1, of_traces)).unzip();
        let joined = |word: &str| conditions.iter().map(|c| format!("({c})")).collect::<Vec<_>>().join(word);
        return match random.random_range(0..3) {
            0 => (Filter { all_of: parts, ..Default::default() }, format!("({})", joined(" AND "))),
            1 => (Filter { any_of: parts, ..Default::default() }, format!("({})", joined(" OR "))),
            _ => (Filter { none_of: parts, ..Default::default() }, format!("NOT coalesce({}, false)", joined(" OR "))),
        };
    }
    match random.random_range(0..if of_traces { 6 } else { 8 }) {
        0 => (of("environment", F::Equals, &["production"]), "environment = 'production'".to_owned()),
        1 => (of("environment", F::NotEquals, &["production"]), "environment IS DISTINCT FROM 'production'".to_owned()),
        2 => (of("user_id", F::IsNull, &[]), "user_id IS NULL".to_owned()),
        3 => (of("latency_ms", F::Greater, &["1500.5"]), "latency_ms > 1500.5".to_owned()),
        4 => (of("total_cost", F::GreaterOrEqual, &["0.001"]), "total_cost >= 0.001".to_owned()),
        5 => (of("total_tokens", F::Less, &["900"]), "total_tokens < 900".to_owned()),
        6 => (of("type", F::In, &["GENERATION", "TOOL"]), "type IN ('GENERATION', 'TOOL')".to_owned()),
        _ => (of("model", F::NotContains, &["gpt"]), "NOT coalesce(contains(model, 'gpt'), false)".to_owned()),
    }
}
