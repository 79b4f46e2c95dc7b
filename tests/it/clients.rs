//! Real clients against the real binary: each sends the scenario of `tests/clients/`, and SQL says what it sent; then
//! Langfuse's own read it back.
//!
//! By hand: `TRACELAKE_TEST_CLIENTS=1 cargo test --test it clients` (the clients are installed into a cache).

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tracelake::cli::Connection;

use crate::isolation::{create_key, create_tenant};
use crate::process::{PUBLIC_KEY, SECRET_KEY, ServerProcess, is_asked_for, path, rows};

/// How a client's facts differ from the others'.
struct Client {
    name: &'static str,
    variant: &'static str,
    /// It speaks the classic batch: spans are updated after they ended, and traces told again.
    is_classic: bool,
    has_scores: bool,
}

const fn client(name: &'static str, variant: &'static str) -> Client {
    Client { name, variant, is_classic: false, has_scores: true }
}

const CLIENTS: [Client; 10] = [
    Client { is_classic: true, ..client("langfuse-py2", "") },
    client("langfuse-py", "3"),
    client("langfuse-py", "4"),
    client("langfuse-py", "5"),
    Client { is_classic: true, ..client("langfuse-js3", "") },
    client("langfuse-js", ""),
    Client { has_scores: false, ..client("otel-py", "grpc") },
    Client { has_scores: false, ..client("otel-py", "http") },
    Client { has_scores: false, ..client("otel-py", "json") },
    Client { has_scores: false, ..client("openinference-py", "") },
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_each_client_sends_is_there_once_and_right() {
    if !is_asked_for("CLIENTS", "clients") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let server = ServerProcess::start(path(folder.path()));
    let traces: Vec<(String, &Client)> = CLIENTS.iter().map(|client| (run(&server, client), client)).collect();
    all_are_right(&server.connect().await, &traces).await;
    all_is_read(&server, &traces);
    // The same picture of each, stored once. (As an ES module, langfuse-js 3 cannot hash, and sends none.)
    let media = rows(&server.connect().await, "SELECT content_type, bytes, traces FROM media").await;
    assert_eq!(media, [json!({"content_type": "image/png", "bytes": 9, "traces": 5})]);
    assert!(server.stop().success());
    let server = ServerProcess::start(path(folder.path()));
    all_are_right(&server.connect().await, &traces).await;
    all_is_read(&server, &traces);
}

/// Python's own gRPC learns every method from the server, and each answers it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_method_answers_a_client_that_has_no_protos() {
    if !is_asked_for("CLIENTS", "clients") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    create_tenant(path(folder.path()), "acme");
    let (public_key, secret_key) = create_key(path(folder.path()), "acme", "ingest,read,admin,platform");
    let server = ServerProcess::start(path(folder.path()));
    let said = ran_by(&server, &client("grpc-py", ""), None, (&public_key, &secret_key));
    let answers: BTreeMap<String, Vec<String>> = serde_json::from_str(&said).unwrap();
    // Of these an empty answer says that it is done.
    const DONE: [&str; 4] = ["CreateTenant", "RevokeKey", "SetRetention", "SetMasking"];
    let says_nothing = |(name, fields): (&String, &Vec<String>)| {
        let is_done = DONE.iter().any(|done| name.ends_with(done));
        (fields.is_empty() != is_done).then(|| name.clone())
    };
    assert_eq!(answers.iter().filter_map(says_nothing).collect::<Vec<_>>(), [""; 0], "{said}");
    for (name, field) in [
        ("MetricsService/Query", "rows"),
        ("MetricsService/Subscribe", "changed"),
        ("MetricsService/Report", "totalCost"),
        ("TraceService/GetTrace", "trace"),
        ("TraceService/SearchTraces", "traces"),
        ("SqlService/Query", "arrowIpc"),
        ("PriceService/CheckPrice", "match"),
    ] {
        assert!(answers[name].iter().any(|said| said == field), "{name}: {:?}", answers[name]);
    }
}

/// Langfuse's clients parse every answer and read what they sent, in each generation that they know.
fn all_is_read(server: &ServerProcess, traces: &[(String, &Client)]) {
    let mut wrong = Vec::new();
    for (trace_id, client) in traces.iter().filter(|(_, client)| client.name.starts_with("langfuse")) {
        let label = format!("{} {}", client.name, client.variant);
        let read: Value = serde_json::from_str(&ran(server, client, Some(trace_id))).unwrap();
        let read = read.as_object().unwrap();
        assert!(read.len() >= 7, "{label} read little: {read:?}");
        for (fact, found) in read {
            let expected = expected_read(client, fact);
            if as_numbers(found) != as_numbers(&expected) {
                wrong.push(format!("{label}: {fact}: read {found}, want {expected}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// JavaScript writes 1.0 as 1.
fn as_numbers(json: &Value) -> Value {
    match json {
        Value::Number(number) => number.as_f64().into(),
        Value::Array(items) => items.iter().map(as_numbers).collect(),
        other => other.clone(),
    }
}

/// By the first word of the fact; the second says by which generation it was read.
fn expected_read(client: &Client, fact: &str) -> Value {
    let (name, generation) = fact.split_once(' ').unwrap_or((fact, ""));
    // What the third generation says of a score is its value; of the others these clients read the number.
    let verdict = match (client.name, generation) {
        (_, "v3") | ("langfuse-py2" | "langfuse-js3" | "langfuse-js", _) => json!("good"),
        _ => json!(0.0),
    };
    let helpful = if generation == "v3" { json!(true) } else { json!(1.0) };
    // This client's scenario ends its root without an output.
    let output = if client.name == "langfuse-js" { Value::Null } else { json!({"a": "done"}) };
    match name {
        "trace" => json!([
            "agent-run", "user-42", true, ["a", "b", "late"], "e2e", "rel-1", 7, 0.003142, {"q": "hi"}, output, "acme",
        ]),
        "names" => json!(["agent-run", "broken-llm", "late", "plan", "plan-llm", "priced-llm", "stream-llm"]),
        "listed" => json!([1, true, 7, 3]),
        "session" => json!(["e2e", [true]]),
        "llm" => json!(["GENERATION", 120, 45, 0.0000375, "there"]),
        "errors" => json!(["broken-llm"]),
        "streamed" => json!("stream-llm"),
        "judged" => json!([
            ["helpful", "BOOLEAN", helpful, true],
            ["quality", "NUMERIC", 0.9, true],
            ["verdict", "CATEGORICAL", verdict, true],
        ]),
        "good" => json!(["quality"]),
        "picture" => json!(["@@@langfuseMedia:type=image/png", "data:image/png;base64,YSBwaWN0dXJl"]),
        "models" => json!([["", 3, 0], ["gpt-4o-mini", 3, 0.000042], ["mine", 1, 0.0031]]),
        other => panic!("nothing is known of {other:?}"),
    }
}

async fn all_are_right(connection: &Connection, traces: &[(String, &Client)]) {
    let mut wrong = Vec::new();
    for (trace_id, client) in traces {
        let (found, expected) = (facts(connection, trace_id).await, expected(client));
        for (fact, expected) in expected.as_object().unwrap() {
            if &found[fact] != expected {
                let label = format!("{} {}", client.name, client.variant);
                wrong.push(format!("{label}: {fact}: got {}, want {expected}", found[fact]));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Runs one client; the id of its trace.
fn run(server: &ServerProcess, client: &Client) -> String {
    ran(server, client, None)
}

/// Lets a client send, or read a trace; the last line that it says.
fn ran(server: &ServerProcess, client: &Client, trace_id: Option<&str>) -> String {
    ran_by(server, client, trace_id, (PUBLIC_KEY, SECRET_KEY))
}

fn ran_by(
    server: &ServerProcess,
    client: &Client,
    trace_id: Option<&str>,
    (public_key, secret_key): (&str, &str),
) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/run.sh");
    let host = format!("http://{}", server.http_addr);
    let output = Command::new(script)
        .args([client.name, client.variant].into_iter().chain(trace_id))
        .env("LANGFUSE_HOST", &host)
        .env("LANGFUSE_BASE_URL", &host)
        .env("LANGFUSE_PUBLIC_KEY", public_key)
        .env("LANGFUSE_SECRET_KEY", secret_key)
        .env("TRACELAKE_GRPC", &server.grpc_addr)
        .output()
        .unwrap();
    let (said, complaints) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{} {}: {said}{complaints}", client.name, client.variant);
    // Clients keep going when a server refuses them; they only say so.
    assert!(complaints.is_empty(), "{} {}: {complaints}", client.name, client.variant);
    said.lines().last().unwrap().to_owned()
}

async fn facts(connection: &Connection, trace_id: &str) -> Value {
    let observations = format!(
        "SELECT count(*) AS observations, string_agg(DISTINCT concat(name, ' ', user_id, ' ', trace_name, ' ',
                array_to_string(tags, ','), ' ', environment), '; ' ORDER BY concat(name, ' ', user_id, ' ',
                trace_name, ' ', array_to_string(tags, ','), ' ', environment)) AS rows,
            count(DISTINCT session_id) AS sessions,
            string_agg(name, ' ') FILTER (WHERE level = 'ERROR' OR status = 'error') AS errors,
            string_agg(name, ' ') FILTER (WHERE completion_start_time IS NOT NULL) AS streamed,
            string_agg(name, ' ') FILTER (WHERE level = 'WARNING') AS updated,
            sum(input_tokens) AS input, sum(cached_input_tokens) AS cached, sum(output_tokens) AS output,
            CAST(sum(total_cost) FILTER (WHERE cost_source = 'provided') AS VARCHAR) AS explicit_cost,
            CAST(sum(total_cost) AS VARCHAR) AS cost
        FROM observations WHERE trace_id = '{trace_id}'"
    );
    let mut facts = rows(connection, &observations).await.remove(0);
    let scores =
        format!("SELECT name, data_type, value, string_value FROM scores WHERE trace_id = '{trace_id}' ORDER BY name");
    facts["scores"] = rows(connection, &scores).await.into();
    let traces = format!("SELECT name, metadata FROM trace_facts WHERE trace_id = '{trace_id}'");
    facts["trace"] = rows(connection, &traces).await.into();
    facts
}

fn expected(client: &Client) -> Value {
    let names = ["agent-run", "broken-llm", "late", "plan", "plan-llm", "priced-llm", "stream-llm"];
    let each = names.map(|name| format!("{name} user-42 agent-run a,b,late e2e"));
    let scores = json!([
        {"name": "helpful", "data_type": "BOOLEAN", "value": 1.0, "string_value": "True"},
        {"name": "quality", "data_type": "NUMERIC", "value": 0.9, "string_value": null},
        {"name": "verdict", "data_type": "CATEGORICAL", "value": null, "string_value": "good"},
    ]);
    let metadata = match client.is_classic {
        true => json!({"tenant": "acme", "finished": "true", "nested": "{\"a\":1,\"b\":2}"}),
        false => json!({"tenant": "acme"}),
    };
    json!({
        "observations": names.len(),
        "rows": each.join("; "),
        "sessions": 1,
        "errors": "broken-llm",
        "streamed": "stream-llm",
        "updated": if client.is_classic { json!("plan") } else { Value::Null },
        "input": 130,
        "cached": 100,
        "output": 50,
        "explicit_cost": "0.003100000000",
        // 20 + 10 input at 0.15, 100 cached at 0.075 and 50 output at 0.60 USD a million.
        "cost": "0.003142000000",
        "scores": if client.has_scores { scores } else { json!([]) },
        "trace": [{"name": "agent-run", "metadata": metadata}],
    })
}
