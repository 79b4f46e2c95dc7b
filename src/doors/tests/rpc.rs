//! `POST /api/v1/{Service}/{Method}`: the gRPC calls with one answer, in proto3 JSON.

use serde_json::{Value, json};

use super::http::{Answered, Sent};
use super::*;

impl World {
    async fn post(&self, key: &str, call: &str, body: &str) -> Answered {
        Sent::json(key, body).at(&format!("/api/v1/{call}")).to(self.http).await
    }
}

#[tokio::test]
async fn a_call_is_asked_and_answered_as_over_grpc() {
    let world = World::open().await;
    let key = world.key(&[Role::Read]).await;
    let question = json!({
        "view": "VIEW_TRACES", "dimensions": ["name"], "topK": 5, "with_total": true, "exactPercentiles": null,
        "range": {"fromUnixMicros": "1795168800000000", "to_unix_micros": 1_795_168_900_000_000_i64},
        "measures": [{"aggregation": "AGGREGATION_PERCENTILE", "field": "latency_ms", "percentile": 95.5}],
        "filters": [{"anyOf": [{"field": "user_id", "operator": 1, "values": ["ann", "größe"]}]}],
    });
    let answered = world.post(&key, "MetricsService/Query", &question.to_string()).await;
    assert_eq!((answered.status, answered.json()), (200, json!({"dimensions": ["name"]})));
    let page = json!({"cursor": "abc", "limit": 7});
    let answered = world.post(&key, "TraceService/ListTraces/", &page.to_string()).await;
    assert_eq!(answered.json(), json!({"nextCursor": "abc"}));
    assert_eq!(*world.answers.asked.lock(), ["acme [\"name\"]", "acme list 7"]);
    // A role is looked at as over gRPC, and whose key it is before the body.
    world.post(&key, "MetricsService/PlatformStats", "{}").await.is(403, "`platform`");
    world.post("Basic cGs6c2s=", "MetricsService/Query", "{}").await.is(401, "key");
    *world.answers.refusal.lock() = Some(Refusal::unavailable("the server is full", Duration::from_secs(3)));
    let refused = world.post(&key, "MetricsService/Query", "{}").await;
    refused.is(503, "the server is full");
    assert!(refused.has_header("retry-after: "));
}

#[tokio::test]
async fn what_is_wrong_is_named_by_its_path() {
    let world = World::open().await;
    let key = world.key(&[Role::Read]).await;
    let deep = format!("{}1{}", "[".repeat(500), "]".repeat(500));
    let nested = format!("{{\"filters\":[{}{}]}}", "{\"allOf\":[".repeat(60), "]}".repeat(60));
    for (body, says) in [
        ("{", "not JSON"),
        ("[]", "the message is not an object"),
        (deep.as_str(), "not JSON"),
        (nested.as_str(), ""),
        ("{\"mesures\": []}", "has no \\\"mesures\\\": it has view, measures"),
        ("{\"topK\": -1}", "topK is not a whole number of 0 or more"),
        ("{\"topK\": 4294967296}", "topK is not a whole number of 32 bits"),
        ("{\"topK\": 1.5}", "topK"),
        ("{\"view\": \"VIEW_SPANS\"}", "view is not one of VIEW_UNSPECIFIED, VIEW_OBSERVATIONS"),
        ("{\"measures\": [{\"field\": 1}]}", "measures[0].field is not a text"),
        ("{\"measures\": {}}", "measures is not a list"),
        ("{\"range\": {\"fromUnixMicros\": \"soon\"}}", "range.fromUnixMicros is not a whole number"),
        ("{\"withTotal\": \"yes\"}", "withTotal is not true or false"),
        ("{\"filters\": [{\"anyOf\": [{\"values\": [{}]}]}]}", "filters[0].anyOf[0].values[0] is not a text"),
    ] {
        let answered = world.post(&key, "MetricsService/Query", body).await;
        match says {
            "" => assert!([200, 400].contains(&answered.status), "{answered:?}"),
            says => answered.is(400, says),
        }
    }
    // What a page of another origin may send without being asked first.
    for media_type in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""] {
        let sent = Sent::json(&key, "{}").at("/api/v1/MetricsService/Query").with("content-type", media_type);
        sent.to(world.http).await.is(415, "application/json");
    }
    world.post(&key, "MetricsService/Qery", "{}").await.is(404, "MetricsService/Qery");
    world.post(&key, "IngestService/Ingest", "{}").await.is(404, "IngestService/Ingest");
    let large = format!("{{\"dimensions\": [\"{}\"]}}", "x".repeat(1 << 20));
    world.post(&key, "MetricsService/Query", &large).await.is(413, "1MiB");
}

#[test]
fn json_of_a_message_is_what_its_bytes_say() {
    use crate::doors::http::{from_json, to_json};
    let message = json!({
        "dimensions": ["model"],
        "measures": [{"name": "sum", "relativeError": 0.5}],
        "rows": [{
            "bucketStartUnixMicros": "-5", "isOther": true,
            "dimensions": [{"text": "a"}, {"boolean": false}, {}],
            "measures": [
                {"integer": "9007199254740993"}, {"number": 1.5}, {"decimal": "0.1"}, {"sketch": "AAEC"},
                {"histogram": {"bins": [{"lower": -1.0, "upper": 2.0, "count": "3"}]}},
                {"texts": {"values": ["x", ""]}}, {"number": "Infinity"},
            ],
        }],
        "reading": {"exact": true, "files": "18446744073709551615"},
    });
    let bytes = from_json("tracelake.v1.MetricsResponse", &message).unwrap();
    assert_eq!(to_json("tracelake.v1.MetricsResponse", &bytes), Some(message));
    // Maps, enums, and what older or newer readers leave out.
    let trace = json!({
        "observations": [{"observation": {"traceId": "t", "usage": {"input": "5", "none": "0"}, "metadata": {"k": ""}}}],
    });
    let bytes = from_json("tracelake.v1.GetTraceResponse", &trace).unwrap();
    assert_eq!(to_json("tracelake.v1.GetTraceResponse", &bytes), Some(trace));
    // Names of enums without what all of them begin with.
    let short = json!({"view": "SCORES", "filters": [{"operator": "NOT_EQUALS"}, {"operator": "IN"}]});
    let long = from_json("tracelake.v1.MetricsRequest", &short)
        .and_then(|bytes| to_json("tracelake.v1.MetricsRequest", &bytes).ok_or_else(String::new));
    let operators = json!([{"operator": "FILTER_OPERATOR_NOT_EQUALS"}, {"operator": "FILTER_OPERATOR_IN"}]);
    assert_eq!(long, Ok(json!({"view": "VIEW_SCORES", "filters": operators})));
    let asked = json!({"view": "VIEW_SCORES", "filters": [{"operator": "FILTER_OPERATOR_IN"}]});
    let bytes = from_json("tracelake.v1.MetricsRequest", &asked).unwrap();
    assert_eq!(to_json("tracelake.v1.MetricsRequest", &bytes), Some(asked));
    for cut in 0..bytes.len() {
        // Any end is an error or a message, never a panic.
        let _: Option<Value> = to_json("tracelake.v1.MetricsRequest", &bytes[..cut]);
    }
}
