//! Langfuse's metrics over the real server: both generations by one compiler, and days of use.

use serde_json::{Value, json};

use crate::langfuse_reads::{Reader, escaped, send};
use crate::process::{ServerProcess, path};

/// A query over the day of what is sent, with `more` in it.
fn query(view: &str, metrics: &[(&str, &str)], dimensions: &[&str], more: Value) -> Value {
    let metrics: Vec<Value> =
        metrics.iter().map(|(measure, aggregation)| json!({"measure": measure, "aggregation": aggregation})).collect();
    let dimensions: Vec<Value> = dimensions.iter().map(|field| json!({ "field": field })).collect();
    let mut query = json!({
        "view": view, "metrics": metrics, "dimensions": dimensions, "filters": [],
        "fromTimestamp": "2026-11-20T09:00:00Z", "toTimestamp": "2026-11-20T12:00:00.000+00:00",
    });
    query.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    query
}

impl Reader<'_> {
    /// The same by both generations.
    async fn metrics(&self, query: Value) -> Value {
        let first = self.get(&format!("metrics?query={}", escaped(&query))).await;
        let second = self.get(&format!("v2/metrics?query={}", escaped(&query))).await;
        assert_eq!(first, second, "{query}");
        rounded(&first["data"])
    }
}

/// Sums of fractions are kept in fixed steps: the last digits of their means are not those of the sender.
fn rounded(json: &Value) -> Value {
    match json {
        Value::Number(number) if number.is_f64() => ((number.as_f64().unwrap() * 1e9).round() / 1e9).into(),
        Value::Array(items) => items.iter().map(rounded).collect(),
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), rounded(value))).collect(),
        other => other.clone(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_are_answered_in_both_generations() {
    let folder = tempfile::tempdir().unwrap();
    let server = ServerProcess::start(path(folder.path()));
    send(&server).await;
    let reader = Reader(&server);
    groups(&reader).await;
    time(&reader).await;
    scores(&reader).await;
    kinds(&reader).await;
    days(&reader).await;
    the_wrong_is_named(&reader).await;
}

async fn groups(reader: &Reader<'_>) {
    let metrics = [("count", "count"), ("totalCost", "sum"), ("totalTokens", "sum"), ("latency", "p95")];
    let by_model = reader.metrics(query("observations", &metrics, &["providedModelName"], json!({}))).await;
    let [mine, none] = by_model.as_array().unwrap().as_slice() else { panic!("{by_model}") };
    assert_eq!((&mine["providedModelName"], &mine["count_count"]), (&json!("mine"), &json!(2)));
    assert_eq!((&mine["sum_totalCost"], &mine["sum_totalTokens"]), (&json!(0.0031), &json!(165)));
    let p95 = mine["p95_latency"].as_f64().unwrap();
    assert!((1_900.0..=2_010.0).contains(&p95), "milliseconds: {p95}");
    assert_eq!((&none["providedModelName"], &none["count_count"]), (&Value::Null, &json!(1)));

    let metrics = [("timeToFirstToken", "avg"), ("streamingLatency", "max"), ("outputTokensPerSecond", "avg")];
    let more = json!({"filters": [{"type": "string", "column": "type", "operator": "=", "value": "GENERATION"}]});
    let speed = reader.metrics(query("observations", &metrics, &[], more)).await;
    let expected = json!([
        {"avg_timeToFirstToken": 500.0, "max_streamingLatency": 1500.0, "avg_outputTokensPerSecond": 22.5},
    ]);
    assert_eq!(speed, expected);
    let unique = [("traceId", "uniq"), ("uniqueUserIds", "uniq"), ("uniqueSessionIds", "uniq"), ("countScores", "sum")];
    let found = reader.metrics(query("observations", &unique, &["tags", "isRootObservation"], json!({}))).await;
    let row = |root: bool, scores: i64| {
        json!({"tags": ["a", "b"], "isRootObservation": root, "uniq_traceId": 1, "uniq_uniqueUserIds": 1,
               "uniq_uniqueSessionIds": 1, "sum_countScores": scores})
    };
    assert_eq!(found, json!([row(false, 1), row(true, 0)]));

    let metrics = [("count", "count"), ("observationsCount", "sum"), ("scoresCount", "sum"), ("latency", "max")];
    let traces = reader.metrics(query("traces", &metrics, &["name", "timestampMonth"], json!({}))).await;
    let row = |name: &str, observations: i64, scores: i64, latency: Value| {
        json!({
            "name": name, "timestampMonth": "2026-11", "count_count": 1, "sum_observationsCount": observations,
            "sum_scoresCount": scores, "max_latency": latency,
        })
    };
    assert_eq!(traces, json!([row("bare", 0, 1, Value::Null), row("chat", 3, 2, json!(4_000.0))]));
    for (filter, count) in [
        (json!({"type": "stringOptions", "column": "environment", "operator": "any of", "value": ["e2e"]}), 3),
        (json!({"type": "arrayOptions", "column": "tags", "operator": "all of", "value": ["a", "b"]}), 3),
        (json!({"type": "stringObject", "column": "metadata", "key": "team", "operator": "=", "value": "red"}), 1),
        (json!({"type": "string", "column": "observationName", "operator": "=", "value": "llm"}), 2),
        (json!({"type": "string", "column": "promptName", "operator": "=", "value": ""}), 2),
        (json!({"type": "null", "column": "statusMessage", "operator": "is not null", "value": ""}), 1),
        (json!({"type": "datetime", "column": "startTime", "operator": ">=", "value": "2026-11-20T10:00:03Z"}), 1),
    ] {
        let counted = query("observations", &[("count", "count")], &[], json!({"filters": [filter]}));
        assert_eq!(reader.metrics(counted).await, json!([{"count_count": count}]), "{filter}");
    }
    let more = json!({"orderBy": [{"field": "name", "direction": "asc"}], "config": {"row_limit": 1}});
    let first = reader.metrics(query("observations", &[("count", "count")], &["name"], more)).await;
    assert_eq!(first, json!([{"name": "agent", "count_count": 1}]), "the rest is no row");
    let histogram = query("observations", &[("latency", "histogram")], &[], json!({"config": {"bins": 2}}));
    let bins = reader.metrics(histogram).await[0]["histogram_latency"].clone();
    let counts: Vec<i64> = bins.as_array().unwrap().iter().map(|bin| bin[2].as_i64().unwrap()).collect();
    assert_eq!(counts.iter().sum::<i64>(), 3, "{bins}");
}

async fn time(reader: &Reader<'_>) {
    let hour = |zone: Value| json!({"timeDimension": {"granularity": "hour"}, "timezone": zone});
    let metrics = [("count", "count"), ("totalCost", "sum")];
    let found = reader.metrics(query("observations", &metrics, &["name"], hour(Value::Null))).await;
    let row = |name: Value, hour: u32, count: i64, cost: Value| {
        let hour = format!("2026-11-20T{hour:02}:00:00Z");
        json!({"name": name, "time_dimension": hour, "count_count": count, "sum_totalCost": cost})
    };
    let gap = |hour| row(Value::Null, hour, 0, json!(0.0));
    let expected =
        [gap(9), row(json!("llm"), 10, 2, json!(0.0031)), row(json!("agent"), 10, 1, Value::Null), gap(11), gap(12)];
    assert_eq!(found, Value::from(expected.to_vec()));
    let indian = reader.metrics(query("observations", &[("count", "count")], &[], hour(json!("Asia/Kolkata")))).await;
    let filled = indian.as_array().unwrap().iter().find(|row| row["count_count"] == 3).unwrap();
    assert_eq!(filled["time_dimension"], "2026-11-20T15:00:00+05:30");
    let day = |granularity: &str, zone: &str| {
        let more = json!({"timeDimension": {"granularity": granularity}, "timezone": zone});
        query("observations", &[("count", "count")], &[], more)
    };
    let days = reader.metrics(day("day", "Pacific/Kiritimati")).await;
    assert_eq!(days[0], json!({"time_dimension": "2026-11-20", "count_count": 0}));
    assert_eq!(days[1], json!({"time_dimension": "2026-11-21", "count_count": 3}));
    assert_eq!(reader.metrics(day("week", "UTC")).await[0]["time_dimension"], "2026-11-16", "weeks begin on Monday");
    assert_eq!(reader.metrics(day("auto", "UTC")).await.as_array().unwrap().len(), 4, "hours of three hours");
}

async fn scores(reader: &Reader<'_>) {
    let day = |view: &str, metrics: &[(&str, &str)], dimensions: &[&str]| query(view, metrics, dimensions, json!({}));
    let numeric = day("scores-numeric", &[("value", "avg"), ("count", "count")], &["name", "traceName"]);
    let found = reader.metrics(numeric).await;
    let row = |name: &str, trace: Value, value: f64| json!({"name": name, "traceName": trace, "avg_value": value, "count_count": 1});
    let chat = || json!("chat");
    let expected = [row("mood", Value::Null, 3.0), row("helpful", chat(), 1.0), row("quality", chat(), 0.9)];
    assert_eq!(found, Value::from(expected.to_vec()));
    let words = day("scores-categorical", &[("count", "count")], &["stringValue", "userId"]);
    assert_eq!(reader.metrics(words).await, json!([{"stringValue": "fine", "userId": "bob", "count_count": 1}]));
    let dimensions = ["observationName", "observationModelName", "observationPromptVersion", "booleanValue"];
    let found = reader.metrics(day("scores-boolean", &[("value", "avg")], &dimensions)).await;
    let expected = json!([{
        "observationName": "llm", "observationModelName": "mine", "observationPromptVersion": 3,
        "booleanValue": true, "avg_value": 1.0,
    }]);
    assert_eq!(found, expected);
}

async fn kinds(reader: &Reader<'_>) {
    let usage = query("observations", &[("usageByType", "sum"), ("count", "count")], &["usageType", "name"], json!({}));
    let row =
        |kind: &str, sum: i64| json!({"usageType": kind, "name": "llm", "sum_usageByType": sum, "count_count": 1});
    let expected = [("total", 165), ("input_cached_tokens", 100), ("output", 45), ("input", 20)];
    let expected: Vec<Value> = expected.into_iter().map(|(kind, sum)| row(kind, sum)).collect();
    assert_eq!(reader.metrics(usage).await, Value::from(expected));
    let more = json!({"timeDimension": {"granularity": "day"}});
    let cost = query("observations", &[("costByType", "sum")], &["costType"], more);
    let expected = json!([{"costType": "total", "time_dimension": "2026-11-20", "sum_costByType": 0.0031}]);
    assert_eq!(reader.metrics(cost).await, expected);
}

async fn days(reader: &Reader<'_>) {
    let daily = reader.get("metrics/daily?traceName=chat&userId=ann&tags=a&tags=b&environment=e2e").await;
    assert_eq!(daily["meta"], json!({"page": 1, "limit": 50, "totalItems": 1, "totalPages": 1}));
    let day = &daily["data"][0];
    assert_eq!(
        (&day["date"], &day["countTraces"], &day["countObservations"]),
        (&json!("2026-11-20"), &json!(1), &json!(3))
    );
    assert_eq!(day["totalCost"], 0.0031);
    let mine = day["usage"].as_array().unwrap().iter().find(|used| used["model"] == "mine").unwrap();
    let expected = json!({
        "model": "mine", "inputUsage": 120, "outputUsage": 45, "totalUsage": 165, "totalCost": 0.0031,
        "countObservations": 2, "countTraces": 1,
    });
    assert_eq!(mine, &expected);
    let all = reader.get("metrics/daily").await;
    assert_eq!(all["data"][0]["countTraces"], 2, "one of them without observations: {all}");
    assert_eq!(reader.get("metrics/daily?userId=nobody").await["data"], json!([]));
}

async fn the_wrong_is_named(reader: &Reader<'_>) {
    let count = [("count", "count")];
    let good = |more: Value| query("observations", &count, &[], more);
    for (query, says) in [
        (json!({}), "missing field `view`"),
        (query("spans", &count, &[], json!({})), "view is one of"),
        (query("observations", &count, &["modle"], json!({})), "\"modle\" is no dimension"),
        (query("observations", &[("cost", "sum")], &[], json!({})), "\"cost\" is no measure"),
        (query("observations", &[("latency", "median")], &[], json!({})), "p50, p75"),
        (query("observations", &[("traceId", "sum")], &[], json!({})), "count, uniq"),
        (query("observations", &[("costByType", "sum")], &[], json!({})), "needs the dimension costType"),
        (query("observations", &count, &["name", "name"], json!({})), "twice"),
        (query("observations", &[], &[], json!({})), "metrics is empty"),
        (good(json!({"timezone": "Mars/Base"})), "timezone \"Mars/Base\""),
        (good(json!({"timeDimension": {"granularity": "decade"}})), "timeDimension.granularity"),
        (good(json!({"fromTimestamp": "2027-01-01T00:00:00Z"})), "fromTimestamp is not before"),
        (good(json!({"fromTimestamp": "now"})), "fromTimestamp is a time"),
        (good(json!({"orderBy": [{"field": "sum_x", "direction": "asc"}]})), "orderBy.field"),
        (good(json!({"orderBy": [{"field": "count_count", "direction": "up"}]})), "orderBy.direction"),
        (good(json!({"config": {"row_limit": 0}})), "row_limit"),
        (good(json!({"config": {"row_limit": -1}})), "invalid value"),
        (good(json!({"config": {"bins": 1000}})), "config.bins"),
        (good(json!({"filters": [{"column": "level", "operator": "=", "type": "number", "value": {}}]})), "level"),
    ] {
        let (status, body) = reader.answer(&format!("v2/metrics?query={}", escaped(&query))).await;
        assert_eq!(status, 400, "{query}: {body}");
        assert!(body["message"].as_str().unwrap().contains(says), "{query}: {body}");
    }
    assert_eq!(reader.answer("metrics").await.0, 400);
    let deep = format!("metrics?query={}{}", "%5B".repeat(2_000), "%5D".repeat(2_000));
    assert_eq!(reader.answer(&deep).await.0, 400);
    let (status, body) = reader.answer("metrics/daily?limit=0").await;
    assert!(status == 400 && body["message"].as_str().unwrap().contains("limit"), "{body}");
}
