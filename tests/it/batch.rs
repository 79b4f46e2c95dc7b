//! The classic batch, end to end: whatever the order, the number and the requests in which events arrive, and whatever
//! restarts come in between, every answer is the same.

use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use tracelake::cli::Connection;
use tracelake::wire::{Aggregation, Measure, MetricsRequest, MetricsRow, TimeRange, View};

use crate::captures::fixtures::recordings;
use crate::grpc::basic;
use crate::http::{HttpAnswer, HttpRequest};
use crate::process::{PUBLIC_KEY, SECRET_KEY, ServerProcess, path, rows};

const QUERIES: usize = 100;

/// Every event of every classic batch that was recorded.
fn events() -> Vec<Value> {
    let mut events = Vec::new();
    for recording in recordings() {
        for request in recording.run.requests.iter().filter(|request| request.path == "/api/public/ingestion") {
            let body: Value = serde_json::from_slice(&recording.body(request)).unwrap();
            events.extend(body["batch"].as_array().unwrap().iter().cloned());
        }
    }
    events
}

async fn post(server: &ServerProcess, path: &str, body: &Value) -> HttpAnswer {
    let request = HttpRequest::post(path, "application/json", body.to_string());
    request.header("authorization", &basic(PUBLIC_KEY, SECRET_KEY)).send(&server.http_addr).await
}

/// Sends events in batches of random size.
async fn send(server: &ServerProcess, events: &[Value], random: &mut SmallRng) {
    let mut left = events;
    while !left.is_empty() {
        let (batch, rest) = left.split_at(random.random_range(1..=left.len().min(20)));
        let metadata = json!({"sdk_name": "python", "sdk_version": "2.60.10"});
        let answer = post(server, "/api/public/ingestion", &json!({ "batch": batch, "metadata": metadata })).await;
        assert!(answer.status == 207 && answer.text().contains("\"errors\":[]"), "{}", answer.text());
        left = rest;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_sent_thrice_shuffled_and_over_two_restarts_answers_as_sent_once() {
    let mut events = events();
    assert!(events.len() > 70, "{}", events.len());
    let once = tempfile::tempdir().unwrap();
    let server = ServerProcess::start(path(once.path()));
    send(&server, &events, &mut SmallRng::seed_from_u64(0)).await;
    let expected = (tables(&server).await, answers(&server).await);
    for seed in 1..=2 {
        let mut random = SmallRng::seed_from_u64(seed);
        let folder = tempfile::tempdir().unwrap();
        let data = path(folder.path());
        events.shuffle(&mut random);
        let (first, second) = events.split_at(events.len() / 2);
        let server = ServerProcess::start(data);
        send(&server, first, &mut random).await;
        // Flushed to files.
        assert!(server.stop().success());
        let server = ServerProcess::start(data);
        send(&server, second, &mut random).await;
        // Replayed from the log.
        server.kill();
        let server = ServerProcess::start(data);
        for _ in 0..2 {
            events.shuffle(&mut random);
            send(&server, &events, &mut random).await;
        }
        let found = (tables(&server).await, answers(&server).await);
        assert_same(&found, &expected, &format!("seed {seed}"));
        assert!(server.stop().success());
        let server = ServerProcess::start(data);
        assert_same(&(tables(&server).await, answers(&server).await), &expected, &format!("seed {seed}, from files"));
        books_balance(&server).await;
    }
}

fn assert_same(found: &(Vec<Value>, Vec<Vec<MetricsRow>>), expected: &(Vec<Value>, Vec<Vec<MetricsRow>>), when: &str) {
    for (found, expected) in found.0.iter().zip(&expected.0) {
        for (field, expected) in expected.as_object().unwrap() {
            assert_eq!(&found[field], expected, "{when}: {field} of {found}");
        }
    }
    assert_eq!(found.0.len(), expected.0.len(), "{when}: rows");
    assert_eq!(found.1.len(), QUERIES);
    for (at, (found, expected)) in found.1.iter().zip(&expected.1).enumerate() {
        assert_eq!(found, expected, "{when}: metric query {at}");
    }
}

/// All rows of all tables, but for when they came and what remembers in which order.
async fn tables(server: &ServerProcess) -> Vec<Value> {
    let connection = server.connect().await;
    let mut all = Vec::new();
    for (table, order) in [
        ("observations", "trace_id, id"),
        ("observation_io", "trace_id, id"),
        ("trace_facts", "trace_id"),
        ("scores", "id"),
    ] {
        for mut row in rows(&connection, &format!("SELECT * FROM {table} ORDER BY {order}")).await {
            for column in ["ingested_at", "_merge", "_own"] {
                row.as_object_mut().unwrap().remove(column);
            }
            // A trace's own text stays where it was first put: the time it is sorted by is what was known then.
            if table == "observation_io" && row["id"] == "" {
                row.as_object_mut().unwrap().remove("start_time");
            }
            all.push(row);
        }
    }
    all
}

async fn answers(server: &ServerProcess) -> Vec<Vec<MetricsRow>> {
    let connection = server.connect().await;
    let mut answers = Vec::new();
    for request in requests() {
        let answer = connection.metrics(request).await.unwrap();
        answers.push(answer.rows.into_iter().chain(answer.total).collect());
    }
    answers
}

/// Ten breakdowns of ten sets of measures.
fn requests() -> Vec<MetricsRequest> {
    use Aggregation::{Avg, Count, CountDistinct, ErrorRate, Max, Min, Percentile, Sum};
    let measure = |(aggregation, field): (Aggregation, &str)| Measure {
        field: field.into(),
        aggregation: aggregation.into(),
        percentile: if aggregation == Percentile { 95.0 } else { 0.0 },
        ..Default::default()
    };
    let sets: [&[(Aggregation, &str)]; 10] = [
        &[(Count, "")],
        &[(Sum, "total_cost"), (Count, "total_cost")],
        &[(Sum, "input_tokens"), (Sum, "cached_input_tokens")],
        &[(Sum, "output_tokens"), (Sum, "total_tokens")],
        &[(Min, "latency_ms"), (Max, "latency_ms")],
        &[(Percentile, "latency_ms")],
        &[(Percentile, "ttft_ms"), (Max, "ttft_ms")],
        &[(ErrorRate, "")],
        &[(CountDistinct, "user_id"), (CountDistinct, "session_id")],
        &[(Avg, "total_cost"), (Max, "total_cost")],
    ];
    let breakdowns: [&[&str]; 10] = [
        &[],
        &["model"],
        &["name"],
        &["trace_name"],
        &["user_id"],
        &["session_id", "type"],
        &["level", "environment"],
        &["release", "version"],
        &["metadata:via"],
        &["tags"],
    ];
    let request = |measures: &[(Aggregation, &str)], dimensions: &[&str]| MetricsRequest {
        view: View::Observations.into(),
        measures: measures.iter().copied().map(measure).collect(),
        dimensions: dimensions.iter().map(|it| (*it).to_owned()).collect(),
        range: Some(TimeRange { from_unix_micros: 1_795_200_000_000_000, to_unix_micros: 1_795_300_000_000_000 }),
        with_total: true,
        ..Default::default()
    };
    sets.iter().flat_map(|measures| breakdowns.iter().map(|dimensions| request(measures, dimensions))).collect()
}

/// I9.
async fn books_balance(server: &ServerProcess) {
    let connection = server.connect().await;
    let books = "SELECT sum(count) FILTER (WHERE outcome = 'received') AS received,
        sum(count) FILTER (WHERE outcome <> 'received') AS accounted FROM ledger WHERE door = 'langfuse-http'";
    let books = rows(&connection, books).await.remove(0);
    assert!(books["received"] == books["accounted"] && books["received"].as_i64() > Some(0), "{books}");
}

fn event(id: &str, kind: &str, timestamp: &str, body: Value) -> Value {
    json!({ "id": id, "type": kind, "timestamp": timestamp, "body": body })
}

async fn sent(server: &ServerProcess, events: Vec<Value>) {
    send(server, &events, &mut SmallRng::seed_from_u64(0)).await;
}

async fn said(connection: &Connection) -> Vec<Value> {
    let statement = "SELECT id, name, user_id, session_id, tags, trace_name, account, release, end_time IS NULL AS open
        FROM observations ORDER BY id";
    rows(connection, statement).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_said_of_a_trace_an_hour_later_reaches_rows_in_files_and_null_takes_it_back() {
    let folder = tempfile::tempdir().unwrap();
    let data = path(folder.path());
    let server = ServerProcess::start(data);
    let span = |id: &str| {
        let times = ["2026-11-21T06:00:00Z", "2026-11-21T06:00:01Z"];
        json!({"id": id, "traceId": "t", "name": id, "startTime": times[0], "endTime": times[1], "parentObservationId": null})
    };
    sent(&server, vec![event("1", "span-create", "2026-11-21T06:00:01Z", span("a"))]).await;
    assert!(server.stop().success());
    let server = ServerProcess::start(data);
    let connection = server.connect().await;
    assert_eq!(said(&connection).await[0]["trace_name"], "a");
    let facts = json!({
        "id": "t", "name": "run", "userId": "u", "sessionId": "s", "tags": ["x"], "release": "r",
        "metadata": {"tenant_id": "customer", "deep": {"a": 1}},
    });
    let later = event("2", "trace-create", "2026-11-21T07:00:00Z", facts);
    sent(&server, vec![later, event("3", "span-create", "2026-11-21T07:00:00Z", span("b"))]).await;
    let full = |id: &str| {
        json!({
            "id": id, "name": id, "user_id": "u", "session_id": "s", "tags": ["x"], "trace_name": "run",
            "account": "customer", "release": "r", "open": false,
        })
    };
    assert_eq!(said(&connection).await, [full("a"), full("b")]);
    assert!(server.stop().success());

    // Null takes back, and metadata merges deeply, also onto what stands in files.
    let server = ServerProcess::start(data);
    let connection = server.connect().await;
    assert_eq!(said(&connection).await, [full("a"), full("b")]);
    let taken_back = json!({"id": "t", "userId": null, "tags": ["y"], "metadata": {"deep": {"b": 2}}});
    let reopened = json!({"id": "a", "traceId": "t", "endTime": null, "name": null});
    sent(&server, vec![event("4", "trace-create", "2026-11-21T08:00:00Z", taken_back)]).await;
    sent(&server, vec![event("5", "span-update", "2026-11-21T08:00:00Z", reopened)]).await;
    // What is older than that does not bring it back.
    let older = json!({"id": "t", "userId": "older", "sessionId": "older"});
    sent(&server, vec![event("6", "trace-create", "2026-11-21T06:30:00Z", older)]).await;
    let taken = |id: &str, is_first: bool| {
        let mut row = full(id);
        (row["user_id"], row["tags"]) = (Value::Null, json!(["x", "y"]));
        if is_first {
            (row["name"], row["open"]) = (Value::Null, json!(true));
        }
        row
    };
    let expected = [taken("a", true), taken("b", false)];
    assert_eq!(said(&connection).await, expected);
    assert!(server.stop().success());
    let server = ServerProcess::start(data);
    let connection = server.connect().await;
    assert_eq!(said(&connection).await, expected);
    let facts = rows(&connection, "SELECT user_id, session_id, metadata FROM trace_facts").await.remove(0);
    let metadata = json!({"tenant_id": "customer", "deep": "{\"a\":1,\"b\":2}"});
    assert_eq!(facts, json!({"user_id": null, "session_id": "s", "metadata": metadata}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scores_are_corrected_in_place_and_deleted_for_good() {
    let folder = tempfile::tempdir().unwrap();
    let data = path(folder.path());
    let server = ServerProcess::start(data);
    let score = |id: &str, value: Value, at: &str| json!({"id": id, "traceId": "t", "name": "q", "value": value, "timestamp": at, "comment": "c"});
    let first = json!([score("a", json!(1), "2026-11-21T06:00:00Z"), score("b", json!(2), "2026-11-21T06:00:00Z")]);
    assert_eq!(post(&server, "/api/public/scores", &first).await.status, 202);
    assert!(server.stop().success());
    let server = ServerProcess::start(data);
    let connection = server.connect().await;
    let stored = "SELECT id, data_type, value, string_value, comment FROM scores ORDER BY id";
    let word = json!([score("a", json!("good"), "2026-11-21T07:00:00Z"), score("c", json!(3), "2026-11-21T07:00:00Z")]);
    assert_eq!(post(&server, "/api/public/scores", &word).await.status, 202);
    let row = |id: &str, data_type: &str, value: Value, word: Value| json!({"id": id, "data_type": data_type, "value": value, "string_value": word, "comment": "c"});
    let numeric = |id: &str, value: f64| row(id, "NUMERIC", json!(value), Value::Null);
    let corrected = row("a", "CATEGORICAL", Value::Null, json!("good"));
    assert_eq!(rows(&connection, stored).await, [corrected.clone(), numeric("b", 2.0), numeric("c", 3.0)]);
    // One that stands in a file, one that came late, and one that never was.
    for id in ["b", "a", "nothing"] {
        let request = HttpRequest::delete(&format!("/api/public/scores/{id}"), "");
        let answer = request.header("authorization", &basic(PUBLIC_KEY, SECRET_KEY)).send(&server.http_addr).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    assert_eq!(rows(&connection, stored).await, [numeric("c", 3.0)]);
    let again = post(&server, "/api/public/scores", &first).await;
    assert!(again.status == 207 && again.text().contains("erased lately"), "{}", again.text());
    assert!(server.stop().success());
    let server = ServerProcess::start(data);
    assert_eq!(rows(&server.connect().await, stored).await, [numeric("c", 3.0)]);
}
