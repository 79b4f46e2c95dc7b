//! Real clients, end to end: what they sent goes in by the doors as it was on the wire, and SQL says what
//! `expected.json` says, right after the ack and again after a stop and a start.
//!
//! Left out: `computed_reference`, which is `total_reference` less `explicit_total`; `session`, whose numbers are sums
//! of those compared here; and `orphan_root_parent` and `root_marked`, which tell how a client marks its root, where
//! `root_count` tells what came of it. Trace metadata beyond the expected keys is let pass where the expectation calls it `soft`: OpenInference
//! knows metadata of spans only, and the trace gets what they say together.

#[path = "../captures/fixtures.rs"]
pub(crate) mod fixtures;

use std::collections::BTreeMap;
use std::path::Path;

use opentelemetry_proto::tonic::trace::v1::Span;
use rust_decimal::Decimal;
use serde_json::{Map, Value, json};
use tracelake::cli::Connection;

use crate::grpc::{Caller, basic};
use crate::http::HttpRequest;
use crate::process::{PUBLIC_KEY, SECRET_KEY, ServerProcess, path, rows, sql, texts};
use crate::spans::{export, span};
use fixtures::{Recording, Request, recordings};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_each_client_sent_is_answered_right_after_the_ack() {
    let folder = tempfile::tempdir().unwrap();
    let server = ServerProcess::start(path(folder.path()));
    for recording in recordings() {
        for request in &recording.run.requests {
            send(&server, &recording, request).await;
        }
    }
    all_is_as_expected(&server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_each_client_sent_is_answered_the_same_after_a_stop_and_a_start() {
    let folder = tempfile::tempdir().unwrap();
    let server = ServerProcess::start(path(folder.path()));
    for recording in recordings() {
        for request in &recording.run.requests {
            send(&server, &recording, request).await;
        }
    }
    assert!(server.stop().success());
    assert!(has_parquet(&folder.path().join("tenants/acme/observations")), "the stop put the rows into files");
    all_is_as_expected(&ServerProcess::start(path(folder.path()))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_sent_twice_and_backwards_change_no_number() {
    let folder = tempfile::tempdir().unwrap();
    let server = ServerProcess::start(path(folder.path()));
    for recording in recordings().iter().rev() {
        for request in recording.run.requests.iter().rev().chain(&recording.run.requests) {
            send(&server, recording, request).await;
        }
    }
    all_is_as_expected(&server).await;
}

/// The clients recorded mark such a root themselves; not all do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_span_whose_parent_never_comes_is_the_root_of_its_trace_and_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let server = ServerProcess::start(path(folder.path()));
    let connection = server.connect().await;
    let orphan = Span { parent_span_id: vec![9; 8], ..span("request", 0) };
    let below =
        Span { trace_id: orphan.trace_id.clone(), parent_span_id: orphan.span_id.clone(), ..span("completion", 1) };
    connection.export(export(vec![below, orphan])).await.unwrap();
    let statement = "SELECT concat_ws(' ', name, is_root, trace_name) FROM observations ORDER BY name";
    let found = texts(&sql(&connection, statement).await.unwrap());
    assert_eq!(found, ["completion false request", "request true request"]);
}

/// By the door, with the headers and the bytes the client used; the key is ours.
async fn send(server: &ServerProcess, recording: &Recording, request: &Request) {
    let (said, body) = (format!("{} {}", recording.client, request.file), recording.body(request));
    if request.content_type == "application/grpc" {
        assert_eq!(request.path, crate::grpc::EXPORT);
        let caller = Caller::connect(&server.grpc_addr, PUBLIC_KEY, SECRET_KEY).await;
        let answer = caller.call(crate::grpc::EXPORT, body).await.unwrap_or_else(|status| panic!("{said}: {status}"));
        assert!(answer.is_empty(), "{said}: something was refused");
        return;
    }
    let mut sent = HttpRequest::post(&request.path, &request.content_type, body);
    for (name, value) in &request.headers {
        sent = sent.header(name, value);
    }
    if request.content_encoding != "identity" {
        sent = sent.header("content-encoding", &request.content_encoding);
    }
    let answer = sent.header("authorization", &basic(PUBLIC_KEY, SECRET_KEY)).send(&server.http_addr).await;
    let (status, none_refused) = match request.path.as_str() {
        "/api/public/ingestion" => (207, "\"errors\":[]"),
        "/api/public/scores" => (202, "Accepted"),
        _ => (200, ""),
    };
    assert_eq!(answer.status, status, "{said}: {}", answer.text());
    let is_plain = status != 200 || answer.body.is_empty() || answer.text() == "{}";
    assert!(is_plain && answer.text().contains(none_refused), "{said}: something was refused: {}", answer.text());
}

fn has_parquet(table: &Path) -> bool {
    let is_parquet = |path: &Path| path.extension().is_some_and(|extension| extension == "parquet");
    let entries = |folder: &Path| std::fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path());
    entries(table).any(|day| entries(&day).any(|file| is_parquet(&file)))
}

async fn all_is_as_expected(server: &ServerProcess) {
    let mut reported = reported(&server.connect().await).await;
    let mut wrong = Vec::new();
    let recordings = recordings();
    for recording in &recordings {
        for (label, expected) in recording.expected["traces"].as_object().unwrap() {
            let trace = reported.remove(&recording.run.trace_ids[label]);
            let label = format!("{}.{label}", recording.client);
            let trace = trace.unwrap_or_else(|| panic!("{label} is not there"));
            wrong.extend(differences(&label, &trace, expected));
        }
        let session = reported.remove(recording.expected["session_id"].as_str().unwrap_or_default());
        let scores = session.map_or(json!([]), |session| session["scores"].clone());
        let expected = recording.expected.get("session_scores").unwrap_or(&json!([])).clone();
        if plain_scores(&scores) != plain_scores(&expected) {
            wrong.push(format!("{}: session scores: got {scores}, want {expected}", recording.client));
        }
    }
    for recording in &recordings {
        for expected in recording.expected["traces_without_label"].as_array().unwrap() {
            let label = format!("{}.(a trace without label)", recording.client);
            let found = reported.iter().find(|(_, trace)| trace["name"] == expected["name"]);
            let id = found.unwrap_or_else(|| panic!("{label} is not there")).0.clone();
            wrong.extend(differences(&label, &reported.remove(&id).unwrap(), expected));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(reported.is_empty(), "traces nobody sent: {:?}", reported.keys());
}

/// What SQL says, by trace, in the shape of `expected.json`; scores of sessions by session.
async fn reported(connection: &Connection) -> BTreeMap<String, Value> {
    let mut traces = sums(connection).await;
    let mut set = |trace: &Value, field: &str, value: Value| traces.get_mut(text(trace)).unwrap()[field] = value;
    for row in rows(connection, "SELECT * FROM trace_facts").await {
        for field in ["name", "user_id", "session_id", "tags", "release", "version", "metadata"] {
            set(&row["trace_id"], field, row[field].clone());
        }
    }
    for (field, column) in [("observations_by_type", "type"), ("names", "name"), ("levels", "level")] {
        let counts = format!("SELECT trace_id, {column} AS word, count(*) AS n FROM observations GROUP BY 1, 2");
        for (trace, counts) in by_trace(rows(connection, &counts).await, |row| row["n"].clone()) {
            set(&trace.into(), field, counts);
        }
    }
    let costs = "SELECT trace_id, name AS word, CAST(sum(total_cost) AS VARCHAR) AS cost FROM observations
                 WHERE cost_source = 'provided' AND total_cost > 0 GROUP BY 1, 2";
    for (trace, costs) in by_trace(rows(connection, costs).await, |row| row["cost"].clone()) {
        set(&trace.into(), "explicit_on", costs);
    }
    let metadata = "SELECT trace_id, name AS word, metadata FROM observations";
    for (trace, metadata) in by_trace(rows(connection, metadata).await, |row| row["metadata"].clone()) {
        set(&trace.into(), "observation_metadata", metadata);
    }
    let mut scores: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for row in rows(connection, "SELECT * FROM scores ORDER BY name").await {
        let on = if row["observation_id"].is_string() { "observation" } else { "trace" };
        let (about, on) = match row["session_id"].as_str() {
            Some(session) => (session, "session"),
            None => (text(&row["trace_id"]), on),
        };
        let has_number = matches!(text(&row["data_type"]), "NUMERIC" | "BOOLEAN");
        let value = if has_number { &row["value"] } else { &row["string_value"] };
        let (name, data_type, comment) = (&row["name"], &row["data_type"], &row["comment"]);
        let score = json!({"name": name, "data_type": data_type, "value": value, "on": on, "comment": comment});
        scores.entry(about.to_owned()).or_default().push(score);
    }
    let models = "SELECT trace_id, model AS word, sum(input_tokens) AS input, sum(output_tokens) AS output,
                  coalesce(sum(cached_input_tokens), 0) AS cached, sum(total_tokens) AS total
                  FROM observations WHERE total_tokens > 0 GROUP BY 1, 2";
    let tokens = |row: &Value| {
        let count = |field: &str| row[field].as_i64().unwrap_or(0);
        json!({"input": count("input"), "output": count("output"), "cached": count("cached"), "total": count("total")})
    };
    for (trace, models) in by_trace(rows(connection, models).await, tokens) {
        set(&trace.into(), "tokens_by_model", models);
    }
    for (about, scores) in scores {
        traces.entry(about).or_insert_with(|| json!({}))["scores"] = scores.into();
    }
    traces
}

/// One row per trace: its numbers, and its lists of words.
async fn sums(connection: &Connection) -> BTreeMap<String, Value> {
    const SUMS: &str = "
        SELECT trace_id, count(*) AS observation_count,
            count(*) FILTER (WHERE is_root) AS root_count,
            count(*) FILTER (WHERE level = 'ERROR' OR status = 'error') AS error_count,
            coalesce(sum(input_tokens), 0) AS input, coalesce(sum(output_tokens), 0) AS output,
            coalesce(sum(cached_input_tokens), 0) AS cached_input, coalesce(sum(reasoning_tokens), 0) AS reasoning,
            coalesce(sum(total_tokens), 0) AS total,
            CAST(coalesce(sum(total_cost), 0) AS VARCHAR) AS total_cost,
            CAST(coalesce(sum(total_cost) FILTER (WHERE cost_source = 'provided'), 0) AS VARCHAR) AS explicit_total,
            array_agg(name ORDER BY name) FILTER (WHERE level = 'ERROR' OR status = 'error') AS error_names,
            array_agg(DISTINCT environment) AS environments,
            array_agg(DISTINCT name) FILTER (WHERE completion_start_time IS NOT NULL) AS with_first_token_time,
            array_agg(DISTINCT trace_name) AS trace_names, array_agg(DISTINCT user_id) AS user_ids,
            array_agg(DISTINCT session_id) AS session_ids, array_agg(DISTINCT array_to_string(tags, ' ')) AS all_tags,
            array_agg(DISTINCT version) AS versions
        FROM observations GROUP BY trace_id";
    let shaped = |row: Value| {
        let tokens: Map<_, _> = ["input", "output", "cached_input", "reasoning", "total"]
            .into_iter()
            .map(|kind| (kind.to_owned(), row[kind].clone()))
            .collect();
        let mut trace = row.clone();
        trace["tokens"] = tokens.into();
        trace["explicit_on"] = json!({});
        trace["tokens_by_model"] = json!({});
        (text(&row["trace_id"]).to_owned(), trace)
    };
    rows(connection, SUMS).await.into_iter().map(shaped).collect()
}

/// `of` each row by its `word`, for each trace.
fn by_trace(rows: Vec<Value>, of: impl Fn(&Value) -> Value) -> BTreeMap<String, Value> {
    let mut traces: BTreeMap<String, Value> = BTreeMap::new();
    for row in rows {
        let words = traces.entry(text(&row["trace_id"]).to_owned()).or_insert_with(|| json!({}));
        words[text(&row["word"])] = of(&row);
    }
    traces
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// What a trace is reported to be and should not be, one line each.
fn differences(label: &str, trace: &Value, expected: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut compare = |what: &str, got: Value, want: Value| {
        if got != want {
            wrong.push(format!("{label}.{what}: got {got}, want {want}"));
        }
    };
    for field in [
        "name",
        "user_id",
        "session_id",
        "tags",
        "release",
        "version",
        "observation_count",
        "observations_by_type",
        "names",
        "root_count",
        "error_count",
        "error_names",
        "levels",
        "tokens",
        "tokens_by_model",
    ] {
        let (got, want) = (&trace[field], &expected[field]);
        let empty_for_null = if got.is_null() && want.is_array() { json!([]) } else { got.clone() };
        compare(field, empty_for_null, want.clone());
    }
    for field in ["environments", "with_first_token_time"] {
        compare(field, sorted(&trace[field]), sorted(&expected[field]));
    }
    for (field, of) in [("trace_names", "name"), ("user_ids", "user_id"), ("session_ids", "session_id")] {
        compare(&format!("{of} on every row"), trace[field].clone(), json!([expected[of]]));
    }
    let tags: Vec<&str> = expected["tags"].as_array().unwrap().iter().map(text).collect();
    compare("tags on every row", trace["all_tags"].clone(), json!([tags.join(" ")]));
    if let Some(version) = expected["service_version"].as_str() {
        compare("version on every row", trace["versions"].clone(), json!([version]));
    }
    let none = json!([]);
    let scores = |of: &Value| plain_scores(of.get("scores").unwrap_or(&none));
    compare("scores", scores(trace), scores(expected));
    costs(trace, &expected["cost"], &mut compare);
    let is_soft = sorted(&expected["soft"]).as_array().unwrap().contains(&"trace metadata".into());
    compare_metadata("metadata", &trace["metadata"], &expected["metadata"], is_soft, &mut compare);
    for (name, wanted) in expected["observation_metadata"].as_object().into_iter().flatten() {
        compare_metadata(name, &trace["observation_metadata"][name], wanted, true, &mut compare);
    }
    wrong
}

/// `1` and `1.0` are one number.
fn plain_scores(scores: &Value) -> Value {
    let plain = |score: &Value| {
        let mut score = score.clone();
        if let Some(number) = score["value"].as_f64() {
            score["value"] = json!(number);
        }
        score
    };
    scores.as_array().into_iter().flatten().map(plain).collect()
}

/// Exact decimals, rounded to the digits the expectation has.
fn costs(trace: &Value, expected: &Value, compare: &mut impl FnMut(&str, Value, Value)) {
    let decimal = |value: &Value| {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        text.parse().or_else(|_| Decimal::from_scientific(&text)).unwrap_or_else(|_| panic!("{text:?} is no amount"))
    };
    let mut compare_cost = |what: &str, got: &Value, want: &Value| {
        let want = decimal(want);
        let got = decimal(got).round_dp(want.scale());
        compare(what, got.normalize().to_string().into(), want.normalize().to_string().into());
    };
    compare_cost("total cost", &trace["total_cost"], &expected["total_reference"]);
    compare_cost("explicit cost", &trace["explicit_total"], &expected["explicit_total"]);
    let none = json!("0");
    let explicit = expected["explicit_on"].as_object().unwrap();
    for (name, cost) in explicit {
        compare_cost(name, trace["explicit_on"].get(name).unwrap_or(&none), cost);
    }
    compare("explicit costs", trace["explicit_on"].as_object().unwrap().len().into(), explicit.len().into());
}

/// Values are text in the table, and JSON where they are no text; JSON may be spaced as its sender liked.
fn compare_metadata(
    what: &str,
    got: &Value,
    want: &Value,
    is_open: bool,
    compare: &mut impl FnMut(&str, Value, Value),
) {
    let plain = |value: &Value| match serde_json::from_str(text(value)) {
        Ok(parsed @ (Value::Object(_) | Value::Array(_))) => parsed.to_string(),
        _ => value.as_str().map_or_else(|| value.to_string(), str::to_owned),
    };
    let plain = |metadata: &Value| -> BTreeMap<String, String> {
        metadata.as_object().into_iter().flatten().map(|(key, value)| (key.clone(), plain(value))).collect()
    };
    let (mut got, want) = (plain(got), plain(want));
    if is_open {
        got.retain(|key, _| want.contains_key(key));
    }
    compare(what, json!(got), json!(want));
}

fn sorted(words: &Value) -> Value {
    let mut words = words.as_array().cloned().unwrap_or_default();
    words.sort_by(|a, b| text(a).cmp(text(b)));
    words.into()
}
