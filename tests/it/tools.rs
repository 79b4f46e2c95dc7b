//! Which tools a model was offered and which it asked for: in by two doors, out by SQL, by metrics and by Langfuse's own
//! metrics, fresh and from files.

use serde_json::{Value, json};

use crate::json_spans::{export, send_all, send_batch, span};
use crate::process::{ServerProcess, path, rows};
use crate::repeated::langfuse_metrics;

fn tool(name: &str) -> Value {
    json!({"type": "function", "name": name, "inputSchema": {"type": "object"}})
}

/// The AI SDK tells of one call in two spans: the outer one sums up the inner one.
async fn send_ai_sdk(server: &ServerProcess) {
    let tools = json!([tool("get_weather").to_string(), tool("get_time").to_string()]);
    let calls = json!([{"toolCallId": "1", "toolName": "get_weather", "input": "{}"}]).to_string();
    let outer = span(
        1,
        1,
        None,
        "ai.generateText",
        &json!({
            "operation.name": "ai.generateText", "ai.operationId": "ai.generateText", "ai.response.toolCalls": calls,
        }),
    );
    let inner = span(
        1,
        2,
        Some(1),
        "ai.generateText.doGenerate",
        &json!({
            "operation.name": "ai.generateText.doGenerate", "ai.operationId": "ai.generateText.doGenerate",
            "ai.prompt.messages": "[]", "ai.prompt.tools": tools, "ai.response.toolCalls": calls,
            "ai.model.id": "gpt-4o-mini",
        }),
    );
    send_all(server, &export(("ai", "6.0.0"), &json!({}), &[outer, inner]), &[]).await;
}

async fn send_langfuse(server: &ServerProcess) {
    let call =
        |id: &str, name: &str| json!({"id": id, "type": "function", "function": {"name": name, "arguments": "{}"}});
    let at = "2026-09-21T13:46:40.000Z";
    let event = |id: &str, kind: &str, body: Value| json!({"id": id, "type": kind, "timestamp": at, "body": body});
    let created = json!({"id": "g", "traceId": "batch", "startTime": at, "model": "gpt-4o-mini",
        "input": {"messages": [], "tools": [{"type": "function", "function": {"name": "get_weather"}}]}});
    // The answer comes with a later event.
    let updated = json!({"id": "g", "traceId": "batch",
        "output": {"role": "assistant", "tool_calls": [call("c1", "get_weather"), call("c2", "get_weather")]}});
    send_batch(server, &[event("e1", "generation-create", created), event("e2", "generation-update", updated)]).await;
}

async fn check(server: &ServerProcess, when: &str) {
    let connection = server.connect().await;
    let found = rows(
        &connection,
        "SELECT name, tools_offered, tools_called FROM observations \
        WHERE array_length(tools_offered) > 0 OR array_length(tools_called) > 0 ORDER BY trace_id, id",
    )
    .await;
    let wanted = json!([
        {"name": "ai.generateText.doGenerate", "tools_offered": ["get_weather", "get_time"], "tools_called": ["get_weather"]},
        {"tools_offered": ["get_weather"], "tools_called": ["get_weather", "get_weather"]},
    ]);
    let without_null: Vec<Value> = found
        .into_iter()
        .map(|mut row| {
            row.as_object_mut().unwrap().retain(|_, value| !value.is_null());
            row
        })
        .collect();
    assert_eq!(json!(without_null), wanted, "{when}");

    let query = json!({
        "view": "observations", "metrics": [{"measure": "toolCalls", "aggregation": "sum"}],
        "dimensions": [{"field": "toolNames"}], "filters": [],
        "fromTimestamp": "2026-09-01T00:00:00Z", "toTimestamp": "2026-10-01T00:00:00Z",
    });
    let answer = langfuse_metrics(server, &query).await;
    let data = answer["data"].as_array().unwrap_or_else(|| panic!("{answer}"));
    let calls = |name: &str| {
        let row = data.iter().find(|row| row["toolNames"] == name);
        row.and_then(|row| row["sum_toolCalls"].as_f64())
    };
    assert_eq!((calls("get_weather"), calls("get_time")), (Some(3.0), Some(1.0)), "{when}: {answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tools_offered_and_asked_for_are_columns_of_the_call() {
    let folder = tempfile::tempdir().unwrap();
    let server = ServerProcess::start(path(folder.path()));
    send_ai_sdk(&server).await;
    send_langfuse(&server).await;
    check(&server, "fresh").await;
    assert!(server.stop().success());
    let server = ServerProcess::start(path(folder.path()));
    check(&server, "from files").await;
}
