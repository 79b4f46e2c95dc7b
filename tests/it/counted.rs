//! Calls whose sender says no usage: counted from their texts and priced, by the doors in and SQL out, and no longer once
//! the usage is said.

use serde_json::{Value, json};

use crate::json_spans::{send, send_batch, span};
use crate::process::{ServerProcess, path, rows};

const CALLS: &str = "
    SELECT trace_id, usage_source, input_tokens, output_tokens, total_tokens, cost_source,
        CAST(total_cost AS VARCHAR) AS cost
    FROM observations ORDER BY name";

/// As OpenTelemetry's instrumentations report a streamed call whose usage nobody asked for.
fn streamed(trace: u8, name: &str, model: &str) -> Value {
    let message =
        |role: &str| json!([{"role": role, "parts": [{"type": "text", "content": "hello world"}]}]).to_string();
    let attributes = json!({
        "gen_ai.operation.name": "chat", "gen_ai.request.model": model,
        "gen_ai.input.messages": message("user"), "gen_ai.output.messages": message("assistant"),
    });
    span(trace, 1, None, name, &attributes)
}

fn event(id: &str, kind: &str, body: Value) -> Value {
    json!({"id": id, "type": kind, "timestamp": "2026-09-20T10:00:00.000Z", "body": body})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_without_usage_is_counted_and_priced_until_its_usage_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let server = ServerProcess::start(path(folder.path()));
    send(&server, &[streamed(1, "a streamed", "gpt-4o"), streamed(2, "b streamed", "claude-sonnet-4-5")]).await;
    let messages = json!([{"role": "user", "content": "hello world"}]);
    let begins = json!({
        "id": "g", "traceId": "classic", "name": "c classic", "model": "gpt-4o", "input": messages,
        "startTime": "2026-09-20T10:00:00.000Z",
    });
    let ends = json!({
        "id": "g", "traceId": "classic", "endTime": "2026-09-20T10:00:01.000Z",
        "output": {"role": "assistant", "content": "hello world"},
    });
    send_batch(&server, &[event("e1", "generation-create", begins), event("e2", "generation-update", ends)]).await;
    // Nine tokens at 2.50 and two at 10 USD a million.
    let counted = |trace: &Value| {
        json!({
            "trace_id": trace, "usage_source": "counted", "input_tokens": 9, "output_tokens": 2, "total_tokens": 11,
            "cost_source": "computed", "cost": "0.000042500000",
        })
    };
    let found = rows(&server.connect().await, CALLS).await;
    let [streamed, unknown, classic] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!(*streamed, counted(&streamed["trace_id"]));
    assert_eq!((&unknown["usage_source"], &unknown["cost_source"]), (&json!("none"), &json!("none")));
    assert_eq!(*classic, counted(&json!("classic")));
    assert!(server.stop().success());
    let server = ServerProcess::start(path(folder.path()));
    assert_eq!(rows(&server.connect().await, CALLS).await, found, "from files");

    let usage = json!({"id": "g", "traceId": "classic", "usageDetails": {"input": 100, "output": 20}});
    send_batch(&server, &[event("e3", "generation-update", usage)]).await;
    let found = rows(&server.connect().await, CALLS).await;
    assert_eq!(
        (&found[2]["usage_source"], &found[2]["total_tokens"], &found[2]["cost"]),
        (&json!("provided"), &json!(120), &json!("0.000450000000"))
    );
    let ledger = "SELECT sum(count) FILTER (WHERE outcome = 'received') = sum(count) FILTER (WHERE outcome <> 'received') \
        AS balanced FROM ledger";
    assert_eq!(rows(&server.connect().await, ledger).await, [json!({"balanced": true})]);
}
