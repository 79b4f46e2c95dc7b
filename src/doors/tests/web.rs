//! Browsers: streams as server-sent events, gRPC-Web, and pages of other origins.

use std::time::Duration;

use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::http::{Answered, Sent};
use super::*;

const ORIGIN: &str = "https://app.example";

/// An answer that goes on: what of it came until `until` did, its chunks left as they are.
async fn heard(address: SocketAddr, path: &str, headers: &[(&str, &str)], until: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n{headers}\r\n").as_bytes()).await.unwrap();
    let mut heard = Vec::new();
    let hearing = async {
        while !String::from_utf8_lossy(&heard).contains(until) {
            assert_ne!(stream.read_buf(&mut heard).await.unwrap(), 0, "{}", String::from_utf8_lossy(&heard));
        }
    };
    tokio::time::timeout(Duration::from_secs(30), hearing).await.expect("it comes");
    String::from_utf8(heard).unwrap()
}

fn link(call: &str, question: &str) -> String {
    let hex = |byte: u8| format!("%{byte:02X}");
    format!("/api/v1/{call}?query={}", question.bytes().map(hex).collect::<String>())
}

#[tokio::test]
async fn a_stream_is_answered_as_events_and_says_how_it_ended() {
    let world = World::open().await;
    let key = world.key(&[Role::Read]).await;
    let asked = r#"{"traceId": "t1"}"#;
    let by_body = Sent::json(&key, asked).at("/api/v1/TraceService/GetTrace").to(world.http).await;
    by_body.is(200, "data: {}\n\nevent: end\ndata: {}\n\n");
    assert!(by_body.has_header("content-type: text/event-stream"), "{}", by_body.head());
    assert!(by_body.has_header("x-accel-buffering: no"));
    let by_link = Sent::get(&link("TraceService/GetTrace", asked)).with("authorization", &key).to(world.http).await;
    by_link.is(200, "event: end");
    assert_eq!(*world.answers.asked.lock(), ["acme trace t1", "acme trace t1"]);

    // What is refused at once is a refusal as any other, not a stream.
    let get = |path: &str| Sent::get(path).with("authorization", &key).to(world.http);
    get("/api/v1/TraceService/GetTrace").await.is(404, "no such trace");
    get("/api/v1/TraceService/GetTrace?qery={}").await.is(400, "only the parameter query");
    get("/api/v1/TraceService/GetTrace?query=x").await.is(400, "query is not JSON");
    get(&link("MetricsService/Query", "{}")).await.is(405, "by POST");
    get(&link("MetricsService/Subscribe", r#"{"query": {}, "intervalMs": 5}"#)).await.is(400, "1000 to 3600000");
    Sent::get(&link("TraceService/GetTrace", asked)).to(world.http).await.is(401, "no key");
    let writer = world.key(&[Role::Ingest]).await;
    let refused = Sent::get(&link("TraceService/GetTrace", asked)).with("authorization", &writer).to(world.http).await;
    refused.is(403, "`read`");

    // One that goes wrong later says so in its last event.
    let sql = r#"{"sql": "SELECT fails later"}"#;
    let broken = Sent::json(&key, sql).at("/api/v1/SqlService/Query").to(world.http).await;
    broken.is(200, "event: refused\ndata: {\"error\":\"DeadlineExceeded\",\"message\":\"the query ran longer");
}

#[tokio::test]
async fn subscribe_and_tail_go_on_and_a_tail_is_resumed() {
    let world = World::open().await;
    let key = world.key(&[Role::Read]).await;
    let subscribe = link("MetricsService/Subscribe", r#"{"query": {"dimensions": ["model"]}}"#);
    let said = heard(world.http, &subscribe, &[("authorization", &key)], "\n\n").await;
    assert!(said.contains(r#"data: {"changed":{"dimensions":["model"]"#), "{said}");
    // The id of the last event is the cursor: one that is none of ours is refused where a new tail would begin.
    let tail =
        |id: &'static str| Sent::get("/api/v1/TraceService/Tail").with("authorization", &key).with("last-event-id", id);
    tail("soon").to(world.http).await.is(400, "the cursor is not one of ours");
    let resumed =
        heard(world.http, "/api/v1/TraceService/Tail", &[("authorization", &key), ("last-event-id", "5")], "\r\n\r\n")
            .await;
    assert!(resumed.starts_with("HTTP/1.1 200"), "{resumed}");
}

fn framed(message: &[u8]) -> Vec<u8> {
    [&[0][..], &(message.len() as u32).to_be_bytes(), message].concat()
}

impl World {
    async fn web(&self, key: &str, call: &str, media_type: &str, body: Vec<u8>) -> Answered {
        let sent = Sent::json(key, "")
            .with("content-type", media_type)
            .with("accept", media_type)
            .at(&format!("/tracelake.v1.{call}"));
        sent.body(body).to(self.http).await
    }
}

#[tokio::test]
async fn grpc_web_goes_through_the_guard_in_both_its_forms() {
    let world = World::open().await;
    let key = world.key(&[Role::Read]).await;
    let asked = wire::MetricsRequest { dimensions: vec!["model".to_owned()], ..Default::default() };
    let asked = framed(&asked.encode_to_vec());
    let answer = wire::MetricsResponse { dimensions: vec!["model".to_owned()], ..Default::default() };
    let begins = framed(&answer.encode_to_vec());
    let plain = world.web(&key, "MetricsService/Query", "application/grpc-web+proto", asked.clone()).await;
    assert!(plain.body().starts_with(&begins), "{:?}", plain.body());
    assert_eq!(plain.body()[begins.len()], 0x80, "then the trailers");
    assert!(plain.body().ends_with(b"grpc-status:0\r\n"));
    let text = BASE64_STANDARD.encode(&asked).into_bytes();
    let text = world.web(&key, "MetricsService/Query", "application/grpc-web-text", text).await;
    assert!(
        String::from_utf8_lossy(text.body()).starts_with(&BASE64_STANDARD.encode(&begins)[..8]),
        "{:?}",
        text.body()
    );

    let refused = |answered: &Answered, code: u8, says: &str| {
        assert_eq!(answered.status, 200);
        assert!(answered.has_header(&format!("grpc-status: {code}\r\n")), "{}", answered.head());
        assert!(answered.has_header(says), "{}", answered.head());
    };
    let ask = |key: &str, call: &'static str, body: Vec<u8>| {
        let key = key.to_owned();
        let world = &world;
        async move { world.web(&key, call, "application/grpc-web", body).await }
    };
    refused(&ask("Basic cGs6c2s=", "MetricsService/Query", asked.clone()).await, 16, "key");
    refused(&ask(&key, "MetricsService/PlatformStats", framed(&[])).await, 7, "platform");
    refused(&ask(&key, "MetricsService/Query", vec![0, 0, 0x20, 0, 0]).await, 8, "1mib");
    refused(&ask(&key, "MetricsService/Qery", framed(&[])).await, 12, "");
    // Whoever sends too much is heard out, and so hears why.
    refused(&ask(&key, "MetricsService/Query", framed(&vec![0; 9 << 20])).await, 8, "1mib");
    world.web(&key, "MetricsService/Query", "application/grpc", asked.clone()).await.is(415, "gRPC-Web only");
    assert_eq!(world.answers.asked.lock().len(), 2, "what was refused was not asked");
}

#[tokio::test]
async fn only_pages_of_listed_origins_may_read() {
    let world = World::open().await;
    let key = world.key(&[Role::Read]).await;
    let first = |origin: &str| {
        let asks = Sent::get("/api/v1/MetricsService/Query").by("OPTIONS").with("origin", origin);
        asks.with("access-control-request-method", "POST").with("access-control-request-headers", "authorization")
    };
    let answered = first(ORIGIN).to(world.http).await;
    assert_eq!(answered.status, 204);
    for line in [
        "access-control-allow-origin: https://app.example\r\n",
        "access-control-allow-credentials: true\r\n",
        "access-control-allow-methods: get, post",
        "access-control-allow-headers: authorization, content-type",
        "last-event-id",
        "vary: origin",
    ] {
        assert!(answered.has_header(line), "{line} {}", answered.head());
    }
    let ask = |origin: &str| Sent::json(&key, "{}").at("/api/v1/MetricsService/Query").with("origin", origin);
    let answered = ask(ORIGIN).to(world.http).await;
    assert_eq!(answered.status, 200);
    assert!(answered.has_header("access-control-allow-origin: https://app.example\r\n"));
    assert!(answered.has_header("access-control-expose-headers: grpc-status, grpc-message"));
    // A refusal is for the page to read as well.
    let refused = Sent::json("Basic cGs6c2s=", "{}").at("/api/v1/MetricsService/Query").with("origin", ORIGIN);
    assert!(refused.to(world.http).await.has_header("access-control-allow-origin: "));
    for stranger in ["https://app.example.evil", "http://app.example", "https://app.example:444", "null", "*"] {
        for answered in [first(stranger).to(world.http).await, ask(stranger).to(world.http).await] {
            assert!(!answered.has_header("access-control-allow"), "{stranger} {}", answered.head());
        }
    }
}
