//! What is reported more than once is counted once: by the doors in, by SQL out, fresh and from files, in any order.

use std::path::Path;

use serde_json::{Value, json};

use crate::json_spans::{send, span};
use crate::langfuse_reads::{Reader, escaped};
use crate::process::{ServerProcess, path, rows};

/// A call of a model by the GenAI conventions.
fn call(trace: u8, id: u8, parent: u8, name: &str, response: &str, more: &Value) -> Value {
    let mut attributes = json!({
        "gen_ai.operation.name": "chat", "gen_ai.response.model": "gpt-4o-mini", "gen_ai.response.id": response,
        "gen_ai.usage.input_tokens": 120, "gen_ai.usage.output_tokens": 45,
    });
    add(&mut attributes, more);
    span(trace, id, Some(parent), name, &attributes)
}

fn add(attributes: &mut Value, more: &Value) {
    attributes.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
}

const SUMS: &str = "
    SELECT count(*) AS spans, sum(input_tokens) AS input, sum(output_tokens) AS output, sum(total_tokens) AS total,
        CAST(sum(total_cost) AS VARCHAR) AS cost,
        array_agg(name ORDER BY name) FILTER (WHERE usage_source = 'repeated') AS repeated,
        count(*) FILTER (WHERE cardinality(usage) > 0) AS readable
    FROM observations GROUP BY trace_id ORDER BY trace_id";

/// What the sums are after each request of `requests` was answered, and again after a stop and a start.
async fn check(requests: &[Vec<Value>], wanted: &Value) {
    let folder = tempfile::tempdir().unwrap();
    let server = ServerProcess::start(path(folder.path()));
    for request in requests {
        send(&server, request).await;
    }
    assert_eq!(json!(rows(&server.connect().await, SUMS).await), *wanted, "fresh");
    assert!(server.stop().success());
    assert!(has_files(folder.path()));
    let server = ServerProcess::start(path(folder.path()));
    assert_eq!(json!(rows(&server.connect().await, SUMS).await), *wanted, "from files");
    // And in sums by kind.
    let total: i64 = wanted.as_array().unwrap().iter().filter_map(|trace| trace["total"].as_i64()).sum();
    assert_eq!(total_by_kind(&server).await, total);
}

/// What Langfuse's metrics say of the usage of kind `total`.
async fn total_by_kind(server: &ServerProcess) -> i64 {
    let query = json!({
        "view": "observations", "metrics": [{"measure": "usageByType", "aggregation": "sum"}],
        "dimensions": [{"field": "usageType"}], "filters": [],
        "fromTimestamp": "2026-09-01T00:00:00Z", "toTimestamp": "2026-10-01T00:00:00Z",
    });
    let answer = langfuse_metrics(server, &query).await;
    let rows = answer["data"].as_array().unwrap_or_else(|| panic!("{answer}"));
    let total = rows.iter().find(|row| row["usageType"] == "total");
    total.map_or(0, |row| row["sum_usageByType"].as_i64().unwrap())
}

pub(crate) async fn langfuse_metrics(server: &ServerProcess, query: &Value) -> Value {
    Reader(server).get(&format!("metrics?query={}", escaped(query))).await
}

fn has_files(data: &Path) -> bool {
    std::fs::read_dir(data.join("tenants/acme/observations")).is_ok_and(|days| days.count() > 1)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_call_that_two_instrumentations_report_counts_once_in_any_order() {
    let root = span(1, 1, None, "run", &json!({}));
    let native = call(1, 2, 1, "anthropic.messages.create", "msg_1", &json!({}));
    let wrapper = call(1, 3, 1, "anthropic.chat", "msg_1", &json!({"gen_ai.usage.cache_read.input_tokens": 100}));
    let another = call(1, 4, 1, "another", "msg_2", &json!({}));
    // The same response in another trace is another trace's.
    let elsewhere = [span(2, 1, None, "run", &json!({})), call(2, 5, 1, "elsewhere", "msg_1", &json!({}))];
    let wanted = json!([
        {"spans": 4, "input": 240, "output": 90, "total": 330, "cost": "0.000082500000",
         "repeated": ["anthropic.messages.create"], "readable": 3},
        {"spans": 2, "input": 120, "output": 45, "total": 165, "cost": "0.000045000000",
         "repeated": null, "readable": 1},
    ]);
    let spans = [native, wrapper, another, root];
    check(&[[spans.to_vec(), elsewhere.to_vec()].concat()], &wanted).await;
    let apart: Vec<Vec<Value>> = spans.iter().chain(&elsewhere).map(|span| vec![span.clone()]).collect();
    check(&apart, &wanted).await;
    check(&apart.iter().rev().chain(&apart).cloned().collect::<Vec<_>>(), &wanted).await;
}

/// What the sums are when each of `requests` came to a server that had brought what came before it into files; fresh, and
/// then from files.
async fn check_in_files(requests: &[Vec<Value>], wanted: &Value) {
    let folder = tempfile::tempdir().unwrap();
    for request in requests {
        let server = ServerProcess::start(path(folder.path()));
        send(&server, request).await;
        // Sent again, it changes nothing.
        send(&server, request).await;
        if request == requests.last().unwrap() {
            assert_eq!(json!(rows(&server.connect().await, SUMS).await), *wanted, "fresh");
        }
        assert!(server.stop().success());
        assert!(has_files(folder.path()));
    }
    let server = ServerProcess::start(path(folder.path()));
    assert_eq!(json!(rows(&server.connect().await, SUMS).await), *wanted, "from files");
    for request in requests {
        send(&server, request).await;
    }
    assert_eq!(json!(rows(&server.connect().await, SUMS).await), *wanted, "all of it again");
    let total: i64 = wanted.as_array().unwrap().iter().filter_map(|trace| trace["total"].as_i64()).sum();
    assert_eq!(total_by_kind(&server).await, total);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_reported_again_after_the_first_report_is_in_a_file_counts_once() {
    let root = |trace: u8| span(trace, 1, None, "run", &json!({}));
    let agent = |trace: u8, parent: Option<u8>| {
        let attributes = json!({
            "openinference.span.kind": "AGENT", "langfuse.observation.model.name": "gpt-4o-mini",
            "langfuse.observation.usage_details": r#"{"input":120,"output":45,"total":165}"#,
        });
        span(trace, 4, parent, "agent", &attributes)
    };
    // One call, its second report later: what stands counts on.
    let second = call(1, 3, 1, "second", "msg_1", &json!({"gen_ai.usage.cache_read.input_tokens": 100}));
    let calls = [vec![root(1), call(1, 2, 1, "first", "msg_1", &json!({}))], vec![second]];
    // An agent after what it sums up, and before it.
    let after = [vec![root(2), call(2, 2, 4, "chat", "msg_2", &json!({}))], vec![agent(2, Some(1))]];
    let before = [vec![agent(3, None)], vec![call(3, 2, 4, "chat", "msg_3", &json!({}))]];
    let at = |step: usize| [&calls, &after, &before].map(|requests| requests[step].clone()).concat();
    let row = |spans: u8, repeated: &str| {
        json!({"spans": spans, "input": 120, "output": 45, "total": 165, "cost": "0.000045000000",
               "repeated": [repeated], "readable": 2})
    };
    check_in_files(&[at(0), at(1)], &json!([row(3, "second"), row(3, "agent"), row(2, "agent")])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_counts_what_nobody_below_it_reports() {
    let agent = |trace: u8, more: &Value| {
        let mut attributes = json!({
            "openinference.span.kind": "AGENT", "langfuse.observation.model.name": "gpt-4o-mini",
            "langfuse.observation.usage_details": r#"{"input":120,"output":45,"total":165}"#,
        });
        add(&mut attributes, more);
        span(trace, 1, None, "agent", &attributes)
    };
    let tool = |trace: u8| span(trace, 2, Some(1), "tool", &json!({"gen_ai.operation.name": "execute_tool"}));
    let requests = [
        // Alone: it is its own, whatever its operation is called.
        vec![tool(1)],
        vec![agent(1, &json!({}))],
        vec![tool(2), agent(2, &json!({"gen_ai.operation.name": "invoke_agent"}))],
        // Below it a call says the same.
        vec![call(3, 3, 2, "chat", "r3", &json!({})), tool(3)],
        vec![agent(3, &json!({}))],
        // By the name of its operation alone it never counts.
        vec![span(
            4,
            1,
            None,
            "agent",
            &json!({
                "gen_ai.operation.name": "invoke_agent", "gen_ai.usage.input_tokens": 120,
                "gen_ai.usage.output_tokens": 45,
            }),
        )],
    ];
    let own = json!({"spans": 2, "input": 120, "output": 45, "total": 165, "cost": "0.000045000000",
                     "repeated": null, "readable": 1});
    let of_call = json!({"spans": 3, "input": 120, "output": 45, "total": 165, "cost": "0.000045000000",
                         "repeated": ["agent"], "readable": 2});
    let none = json!({"spans": 1, "input": null, "output": null, "total": null, "cost": null,
                      "repeated": ["agent"], "readable": 1});
    let wanted = json!([own, own, of_call, none]);
    check(&requests, &wanted).await;
    check(&requests.iter().rev().cloned().collect::<Vec<_>>(), &wanted).await;
}

/// What a chain says it cost is what its calls say: it counts once, and stays readable.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cost_that_is_repeated_stays_readable_by_kind_and_counts_nowhere() {
    const COSTS: &str = "
        SELECT name, CAST(total_cost AS VARCHAR) AS total, CAST(cost['total'] AS VARCHAR) AS said, cost_source
        FROM observations ORDER BY name";
    let said = |kind: &str, cost: &str| {
        json!({
            "langfuse.observation.type": kind, "langfuse.observation.cost_details": cost,
            "langfuse.observation.usage_details": r#"{"input":120,"output":45,"total":165}"#,
        })
    };
    let chain = span(1, 1, None, "chain", &said("chain", r#"{"total":0.5}"#));
    let call = span(1, 2, Some(1), "call", &said("generation", r#"{"total":0.5}"#));
    let wanted = json!([
        {"name": "call", "total": "0.500000000000", "said": "0.500000000000", "cost_source": "provided"},
        {"name": "chain", "total": null, "said": "0.500000000000", "cost_source": "provided"},
    ]);
    let folder = tempfile::tempdir().unwrap();
    let server = ServerProcess::start(path(folder.path()));
    send(&server, &[chain]).await;
    // It stands in a file before anybody says that it repeats another.
    assert!(server.stop().success());
    let server = ServerProcess::start(path(folder.path()));
    send(&server, &[call]).await;
    assert_eq!(json!(rows(&server.connect().await, COSTS).await), wanted, "fresh");
    assert!(server.stop().success());
    let server = ServerProcess::start(path(folder.path()));
    assert_eq!(json!(rows(&server.connect().await, COSTS).await), wanted, "from files");
    let query = json!({
        "view": "observations", "metrics": [{"measure": "costByType", "aggregation": "sum"}],
        "dimensions": [{"field": "costType"}], "filters": [],
        "fromTimestamp": "2026-09-01T00:00:00Z", "toTimestamp": "2026-10-01T00:00:00Z",
    });
    let answer = langfuse_metrics(&server, &query).await;
    let total = answer["data"].as_array().unwrap().iter().find(|row| row["costType"] == "total").unwrap().clone();
    assert_eq!(total["sum_costByType"].as_f64(), Some(0.5), "{answer}");
}
