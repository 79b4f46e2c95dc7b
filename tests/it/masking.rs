//! Masking, from the outside: what a tenant's rules take out stands in no object of the store, whichever door it came by.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::{Span, Status};
use prost::Message;
use serde_json::json;
use tracelake::wire::{IngestRequest, Observation, Score, Trace, score};

use crate::erasure::objects_with;
use crate::grpc::{Caller, EXPORT, basic};
use crate::http::HttpRequest;
use crate::json_spans;
use crate::process::{PUBLIC_KEY, SECRET_KEY, ServerProcess, path, rows};
use crate::spans::{export, span};

const MAIL: &str = "ana.souza@example.com";
const CPF: &str = "529.982.247-25";
const BADGE: &str = "B-104729";
const DOCUMENT: &str = "RG 12.345-X";
/// Stands beside them, and stays.
const PLAIN: &str = "the weather in Recife";
const INGEST: &str = "/tracelake.v1.IngestService/Ingest";

fn words() -> String {
    format!("{PLAIN}: {MAIL}, {CPF}, {BADGE}")
}

/// One string in JSON in one string in JSON, and a CPF as a number.
fn nested() -> String {
    let inner = json!({ "to": MAIL, "said": words() }).to_string();
    format!(r#"{{"messages":[{{"content":{}}}],"cpf":52998224725}}"#, json!(inner))
}

fn tracelake(arguments: &[&str], data: &Path) -> String {
    let ran =
        Command::new(env!("CARGO_BIN_EXE_tracelake")).args(arguments).args(["--data", path(data)]).output().unwrap();
    assert!(ran.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8(ran.stdout).unwrap()
}

fn text(key: &str, value: &str) -> KeyValue {
    let value = Some(AnyValue { value: Some(Value::StringValue(value.to_owned())) });
    KeyValue { key: key.to_owned(), value, ..Default::default() }
}

fn telling(number: u64) -> Span {
    Span {
        attributes: vec![
            text("langfuse.observation.input", &nested()),
            text("langfuse.observation.output", &words()),
            text("langfuse.observation.metadata.note", &words()),
            text("langfuse.observation.metadata.document", DOCUMENT),
            text("langfuse.trace.metadata.note", &words()),
            text("langfuse.trace.metadata.document", DOCUMENT),
            text("langfuse.trace.input", &words()),
            text("user.id", MAIL),
            text("of.no.column", &words()),
            text("gen_ai.request.model", "gpt-4o-mini"),
        ],
        status: Some(Status { code: 2, message: words() }),
        ..span("call", number)
    }
}

/// The same in OTLP's JSON.
fn as_json(told: &Span) -> serde_json::Value {
    let pairs = told.attributes.iter().map(|pair| match pair.value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(value)) => (pair.key.clone(), json!(value)),
        other => panic!("{other:?}"),
    });
    let mut span = json_spans::span(4, 4, None, "call", &pairs.collect::<serde_json::Map<_, _>>().into());
    span["status"] = json!({ "code": 2, "message": told.status.as_ref().unwrap().message });
    json_spans::export(("masking", "1"), &json!({}), &[span])
}

async fn post(server: &ServerProcess, at: &str, content_type: &str, body: Vec<u8>) {
    let request = HttpRequest::post(at, content_type, body).header("authorization", &basic(PUBLIC_KEY, SECRET_KEY));
    let answer = request.send(&server.http_addr).await;
    assert!([200, 201, 207].contains(&answer.status), "{at}: {} {}", answer.status, answer.text());
    assert!(!answer.text().contains("\"status\":4"), "{at}: {}", answer.text());
}

/// The same words by every door there is, each to traces of its own.
async fn send_by_every_door(server: &ServerProcess) {
    let caller = Caller::connect(&server.grpc_addr, PUBLIC_KEY, SECRET_KEY).await;
    caller.call(EXPORT, export(vec![telling(1)]).encode_to_vec()).await.unwrap();
    post(server, "/v1/traces", "application/x-protobuf", export(vec![telling(2)]).encode_to_vec()).await;
    post(server, "/v1/traces", "application/json", as_json(&telling(3)).to_string().into_bytes()).await;

    let at = "2026-11-20T10:00:00.000Z";
    let told = |extra: serde_json::Value| {
        let mut body = json!({ "input": { "said": nested() }, "output": words(),
            "metadata": { "note": words(), "document": DOCUMENT, "deep": { "cpf": 52998224725u64 } } });
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        body
    };
    let event = |id: &str, kind: &str, body: serde_json::Value| json!({ "id": id, "type": kind, "timestamp": at, "body": body });
    let batch = json!({ "batch": [
        event("e1", "trace-create", told(json!({ "id": "batch", "userId": MAIL, "timestamp": at, "tags": [words()] }))),
        event("e2", "generation-create", told(json!({ "id": "g", "traceId": "batch", "model": "gpt-4o-mini", "startTime": at,
            "statusMessage": words(), "modelParameters": { "user": MAIL } }))),
        event("e3", "score-create", json!({ "id": "s1", "traceId": "batch", "name": "rating", "value": 1, "comment": words(),
            "metadata": { "note": words(), "document": DOCUMENT } })),
    ] });
    post(server, "/api/public/ingestion", "application/json", batch.to_string().into_bytes()).await;
    let score = json!({ "id": "s2", "traceId": "batch", "name": "said", "value": words(), "dataType": "CATEGORICAL",
        "comment": words() });
    post(server, "/api/public/scores", "application/json", score.to_string().into_bytes()).await;
    let single = told(json!({ "id": "single", "userId": MAIL }));
    post(server, "/api/public/traces", "application/json", single.to_string().into_bytes()).await;

    let map = || [("note".to_owned(), words()), ("document".to_owned(), DOCUMENT.to_owned())].into();
    let own = IngestRequest {
        observations: vec![Observation {
            trace_id: "own".into(),
            id: "o".into(),
            start_unix_nano: Some(1_790_000_000_000_000_000),
            input: Some(nested()),
            status_message: Some(words()),
            metadata: map(),
            model: Some("gpt-4o-mini".into()),
            ..Default::default()
        }],
        traces: vec![Trace { id: "own".into(), user_id: Some(MAIL.into()), metadata: map(), ..Default::default() }],
        scores: vec![Score {
            id: "s3".into(),
            trace_id: Some("own".into()),
            name: "n".into(),
            comment: Some(words()),
            value: Some(score::Value::Numeric(1.0)),
            ..Default::default()
        }],
    };
    caller.call(INGEST, own.encode_to_vec()).await.unwrap();
}

async fn until(server: &ServerProcess, statement: &str, is_so: impl Fn(&serde_json::Value) -> bool) {
    let mut last = serde_json::Value::Null;
    for _ in 0..150 {
        last = serde_json::Value::Array(rows(&server.connect().await, statement).await);
        if is_so(&last) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    panic!("{statement} stays {last}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_taken_out_reaches_neither_the_log_nor_a_file_by_any_door() {
    let folder = tempfile::tempdir().unwrap();
    tracelake(&["tenant", "create", "acme"], folder.path());
    let rules = ["tenant", "masking", "acme", "--rule", "email=redact", "--rule", "cpf=hash"];
    let own = ["--pattern", "badge=redact:B-[0-9]{6}", "--path", "document=drop:metadata.document"];
    let listed = tracelake(&[&rules[..], &own[..]].concat(), folder.path());
    assert_eq!(
        listed,
        "email=redact\ncpf=hash\nbadge=redact:pattern B-[0-9]{6}\ndocument=drop:path metadata.document\n"
    );
    let settings = [("TRACELAKE_FLUSH_AFTER_S", "1"), ("TRACELAKE_UPKEEP", "false")];
    let server = ServerProcess::try_start(path(folder.path()), &settings).unwrap();
    send_by_every_door(&server).await;
    let count = "SELECT (SELECT count(*) FROM observations) AS o, (SELECT count(*) FROM trace_facts) AS t,
                 (SELECT count(*) FROM scores) AS s";
    until(&server, count, |answer| *answer == json!([{ "o": 5, "t": 6, "s": 3 }])).await;
    let secrets = [MAIL, CPF, "52998224725", BADGE, DOCUMENT];
    let nowhere = |when: &str| {
        for secret in secrets {
            assert_eq!(objects_with(folder.path(), secret), Vec::<std::path::PathBuf>::new(), "{secret} {when}");
        }
        assert!(!objects_with(folder.path(), PLAIN).is_empty(), "the search finds what is there");
    };
    nowhere("in the log");
    let flushed = "SELECT sum(rows) AS n FROM files WHERE table_name IN ('observations', 'trace_facts', 'scores')";
    // But for those that wait: for an end, or for the root of their trace.
    until(&server, flushed, |answer| answer[0]["n"].as_i64() >= Some(11)).await;
    nowhere("in files");
    assert!(objects_with(folder.path(), PLAIN).iter().any(|path| path.extension().is_some_and(|it| it == "parquet")));

    // What stands there instead, and where it was found.
    let connection = server.connect().await;
    let users = rows(&connection, "SELECT DISTINCT user_id FROM trace_facts").await;
    assert_eq!(users, [json!({ "user_id": "[email]" })]);
    let own = rows(&connection, "SELECT input FROM observation_io WHERE trace_id = 'own' AND id = 'o'").await;
    let input: serde_json::Value = serde_json::from_str(own[0]["input"].as_str().unwrap()).unwrap();
    let hash = input["cpf"].as_str().unwrap();
    let inner: serde_json::Value = serde_json::from_str(input["messages"][0]["content"].as_str().unwrap()).unwrap();
    assert_eq!(inner, json!({ "to": "[email]", "said": format!("{PLAIN}: [email], {hash}, [badge]") }), "{hash} joins");
    let kinds = "SELECT DISTINCT array_to_string(sensitive_kinds, ',') AS kinds FROM";
    for (table, wanted) in [
        ("observations", vec!["badge,cpf,document,email"]),
        ("trace_facts WHERE trace_id <> 'own'", vec!["badge,cpf,document,email"]),
        ("scores WHERE id <> 's1'", vec!["badge,cpf,email"]),
    ] {
        let found = rows(&connection, &format!("{kinds} {table}")).await;
        let wanted: Vec<_> = wanted.into_iter().map(|kinds| json!({ "kinds": kinds })).collect();
        assert_eq!(found, wanted, "{table}");
    }
    assert!(server.stop().success());
    nowhere("after the end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn detecting_leaves_the_text_and_shows_who_used_what_and_rules_change_while_it_runs() {
    let folder = tempfile::tempdir().unwrap();
    let server = ServerProcess::start(path(folder.path()));
    let caller = Caller::connect(&server.grpc_addr, PUBLIC_KEY, SECRET_KEY).await;
    assert_eq!(tracelake(&["tenant", "masking", "acme"], folder.path()), "nothing is masked\n");
    caller.call(EXPORT, export(vec![telling(0)]).encode_to_vec()).await.unwrap();
    tracelake(&["tenant", "masking", "acme", "--rule", "email=detect", "--rule", "cpf=detect"], folder.path());
    // In force on a running node within ten seconds.
    let mut number = 1;
    let found = "SELECT count(*) AS n FROM observations WHERE array_has(sensitive_kinds, 'cpf')";
    let connection = server.connect().await;
    while rows(&connection, found).await == [json!({ "n": 0 })] {
        assert!(number < 100, "the rules do not come into force");
        caller.call(EXPORT, export(vec![telling(number)]).encode_to_vec()).await.unwrap();
        number += 1;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let texts = format!("SELECT count(*) AS n FROM observation_io WHERE output = '{}'", words());
    assert_eq!(rows(&connection, &texts).await, [json!({ "n": number })], "the text is left");
    let used = "SELECT CAST(day AS VARCHAR) AS day, kind, model, user_id, found_in, rows FROM sensitive_use ORDER BY kind, found_in";
    let day = "2026-09-21";
    let row = |kind: &str, model: Option<&str>, found_in: &str| json!({ "day": day, "kind": kind, "model": model, "user_id": MAIL, "found_in": found_in, "rows": 1 });
    let model = Some("gpt-4o-mini");
    let wanted = [
        row("cpf", model, "observations"),
        row("cpf", None, "trace_facts"),
        row("email", model, "observations"),
        row("email", None, "trace_facts"),
    ];
    assert_eq!(rows(&connection, used).await, wanted);
    assert_eq!(tracelake(&["tenant", "masking", "acme", "--clear"], folder.path()), "nothing is masked\n");
}
