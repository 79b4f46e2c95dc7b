use std::io::Write;

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;

/// One request, written byte by byte as HTTP/1.1.
#[derive(Clone)]
pub(super) struct Sent {
    method: &'static str,
    path: String,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    is_chunked: bool,
}

#[derive(Debug)]
pub(super) struct Answered {
    pub(super) status: u16,
    head: String,
    body: Vec<u8>,
}

impl Sent {
    pub(super) fn get(path: &str) -> Self {
        Self { method: "GET", path: path.to_owned(), headers: Vec::new(), body: Vec::new(), is_chunked: false }
    }

    pub(super) fn traces(key: &str, request: &ExportTraceServiceRequest) -> Self {
        let sent = Self { method: "POST", body: request.encode_to_vec(), ..Self::get("/v1/traces") };
        sent.with("authorization", key).with("content-type", "application/x-protobuf")
    }

    pub(super) fn json(key: &str, body: &str) -> Self {
        let sent = Self { method: "POST", body: body.as_bytes().to_vec(), ..Self::get("/v1/traces") };
        sent.with("authorization", key).with("content-type", "application/json; charset=utf-8")
    }

    pub(super) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.retain(|(has, _)| *has != name);
        self.headers.push((name, value.to_owned()));
        self
    }
    pub(super) fn by(self, method: &'static str) -> Self {
        Self { method, ..self }
    }
    pub(super) fn at(self, path: &str) -> Self {
        Self { path: path.to_owned(), ..self }
    }
    pub(super) fn body(self, body: Vec<u8>) -> Self {
        Self { body, ..self }
    }
    pub(super) fn chunked(self) -> Self {
        Self { is_chunked: true, ..self }
    }
    pub(super) fn compressed(self, name: &str, body: Vec<u8>) -> Self {
        self.with("content-encoding", name).body(body)
    }

    pub(super) async fn to(self, address: SocketAddr) -> Answered {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let mut head = format!("{} {} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n", self.method, self.path);
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        let mut bytes = Vec::new();
        if self.is_chunked {
            head += "transfer-encoding: chunked\r\n";
            for chunk in self.body.chunks(10_000) {
                bytes.extend(format!("{:x}\r\n", chunk.len()).bytes());
                bytes.extend_from_slice(chunk);
                bytes.extend(b"\r\n");
            }
            bytes.extend(b"0\r\n\r\n");
        } else {
            if !self.headers.iter().any(|(name, _)| *name == "content-length") {
                head += &format!("content-length: {}\r\n", self.body.len());
            }
            bytes = self.body;
        }
        stream.write_all(format!("{head}\r\n").as_bytes()).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("an answer has a head");
        let head = String::from_utf8(answer[..end].to_vec()).unwrap().to_lowercase();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let is_chunked = head.contains("transfer-encoding: chunked");
        let body = &answer[end + 4..];
        Answered { status, head, body: if is_chunked { joined(body) } else { body.to_vec() } }
    }
}

/// A body that came in chunks.
fn joined(mut chunks: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let end = chunks.windows(2).position(|two| two == b"\r\n").expect("a chunk has a length");
        let length = usize::from_str_radix(std::str::from_utf8(&chunks[..end]).unwrap(), 16).unwrap();
        if length == 0 {
            return body;
        }
        body.extend_from_slice(&chunks[end + 2..][..length]);
        chunks = &chunks[end + 2 + length + 2..];
    }
}

impl Answered {
    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{} {}", self.head, self.text()))
    }

    /// In lower case.
    pub(super) fn head(&self) -> &str {
        &self.head
    }

    pub(super) fn body(&self) -> &[u8] {
        &self.body
    }

    pub(super) fn has_header(&self, line: &str) -> bool {
        self.head.contains(line)
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub(super) fn is(&self, status: u16, says: &str) {
        assert_eq!(self.status, status, "{} {}", self.head, self.text());
        assert!(self.text().contains(says), "{} lacks {says:?}", self.text());
        if status >= 400 {
            let body: serde_json::Value = serde_json::from_slice(&self.body).unwrap();
            assert!(body["error"].is_string() && body["message"].is_string(), "{body}");
        }
    }
}

pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

const JSON_SPAN: &str = r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{
    "traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174","name":"call",
    "startTimeUnixNano":"1544712660000000000","endTimeUnixNano":"1544712661000000000"}]}]}]}"#;

#[tokio::test]
async fn spans_are_kept_whatever_their_encoding_and_path() {
    let world = World::open().await;
    let key = world.key(&[Role::Ingest]).await;
    let request = trace_request(3, 0);
    let plain = Sent::traces(&key, &request);
    let bytes = request.encode_to_vec();
    let mut zlib = ZlibEncoder::new(Vec::new(), Compression::best());
    zlib.write_all(&bytes).unwrap();
    let big = trace_request(8_000, 0);
    assert!(big.encoded_len() > 256 << 10);
    let kept = [
        plain.clone(),
        plain.clone().at("/v1/traces/"),
        plain.clone().at("/api/public/otel/v1/traces"),
        plain.clone().at("/api/public/otel/v1/traces/"),
        plain.clone().chunked(),
        plain.clone().with("content-encoding", "identity"),
        plain.clone().compressed("gzip", gzip(&bytes)),
        plain.clone().compressed("gzip", gzip(&bytes)).chunked(),
        plain.clone().compressed("zstd", zstd::encode_all(bytes.as_slice(), 3).unwrap()),
        Sent::traces(&key, &big),
        Sent::traces(&key, &big).compressed("gzip", gzip(&big.encode_to_vec())),
        Sent::json(&key, JSON_SPAN),
        Sent::json(&key, JSON_SPAN)
            .with("content-type", "application/json")
            .compressed("gzip", gzip(JSON_SPAN.as_bytes())),
    ];
    for (at, sent) in kept.into_iter().enumerate() {
        let is_json = sent.headers.iter().any(|(_, value)| value.contains("json"));
        let answer = sent.to(world.http).await;
        assert_eq!(answer.status, 200, "request {at}: {}", answer.text());
        match is_json {
            true => assert!(answer.head.contains("content-type: application/json") && answer.text() == "{}"),
            false => {
                assert!(answer.head.contains("content-type: application/x-protobuf"));
                assert_eq!(ExportTraceServiceResponse::decode(answer.body.as_slice()).unwrap().partial_success, None);
            }
        }
        let appended = world.appended();
        assert_eq!(appended.len(), at + 1, "request {at}");
        let (tenant, batch) = &appended[at];
        assert_eq!((tenant.as_str(), batch.door.as_str()), ("acme", "otlp-http"));
        assert!(!batch.events.is_empty());
    }
    let refused = plain.compressed("deflate", zlib.finish().unwrap()).to(world.http).await;
    refused.is(415, "deflate");
    assert_eq!(world.intake.budget.used(), 0, "all room was given back");
}

#[tokio::test]
async fn what_is_refused_says_why_and_is_never_a_500() {
    let world = World::open().await;
    let key = world.key(&[Role::Ingest]).await;
    let reader = world.key(&[Role::Read]).await;
    let good = Sent::traces(&key, &trace_request(1, 0));
    let too_long = (REQUEST_MAX.bytes() + 1).to_string();
    let bomb = gzip(&vec![0; REQUEST_MAX.as_usize() + 1]);
    let zstd_bomb = zstd::encode_all(vec![0; REQUEST_MAX.as_usize() + 1].as_slice(), 3).unwrap();
    let without_key = Sent { headers: vec![("content-type", "application/json".into())], ..good.clone() };
    let cases = [
        (without_key.clone(), 401, "no key"),
        (good.clone().with("authorization", "Bearer x"), 401, "only Basic"),
        (good.clone().with("authorization", "Basic cGs6c2s="), 401, "unknown public key or wrong secret key"),
        (good.clone().with("authorization", &reader), 403, "the role `ingest`"),
        (good.clone().with("x-tracelake-tenant", "other"), 403, "may not write for tenant other"),
        (good.clone().with("content-type", "text/plain"), 415, "text/plain"),
        (good.clone().with("content-type", ""), 415, "application/x-protobuf"),
        (good.clone().with("content-encoding", "br"), 415, "br"),
        (good.clone().with("content-length", &too_long).body(Vec::new()), 413, "64MiB"),
        (good.clone().compressed("gzip", bomb), 413, "64MiB"),
        (good.clone().compressed("zstd", zstd_bomb), 413, "64MiB"),
        (good.clone().body(b"\xff\xff\xff\xffgarbage".to_vec()), 400, "protobuf"),
        (good.clone().with("content-encoding", "gzip"), 400, "not gzip"),
        (good.clone().with("content-encoding", "zstd"), 400, "not zstd"),
        (Sent::json(&key, "{\"resourceSpans\":"), 400, "JSON"),
        (Sent::get("/v1/traces").with("authorization", &key), 405, "method"),
        (good.clone().at("/v1/nothing"), 404, "nothing"),
    ];
    for (sent, status, says) in cases {
        sent.to(world.http).await.is(status, says);
    }
    let unauthorized = without_key.to(world.http).await;
    assert!(unauthorized.head.contains("www-authenticate: basic"), "{}", unauthorized.head);
    assert!(world.appended().is_empty());
    assert_eq!(world.intake.budget.used(), 0, "all room was given back");
}

#[tokio::test]
async fn a_refusal_reaches_a_sender_that_is_still_speaking() {
    let world = World::with_buffer(ByteSize::mib(1)).await;
    let key = world.key(&[Role::Ingest]).await;
    let long = Sent::traces(&key, &trace_request(1, 0)).body(vec![0; 20 << 20]);
    let cases = [
        (long.clone(), 503),
        (long.clone().chunked(), 503),
        (long.clone().with("authorization", "Basic cGs6c2s="), 401),
        (long.clone().with("content-type", "text/plain").chunked(), 415),
    ];
    for (sent, status) in cases {
        sent.to(world.http).await.is(status, "");
    }
    let long = long.body(vec![0; REQUEST_MAX.as_usize() + 1]);
    let world = World::open().await;
    let key = world.key(&[Role::Ingest]).await;
    long.with("authorization", &key).chunked().to(world.http).await.is(413, "64MiB");
}

#[tokio::test]
async fn trouble_of_ours_asks_for_another_try_with_a_delay() {
    let world = World::with_buffer(ByteSize::mib(1)).await;
    let key = world.key(&[Role::Ingest]).await;
    let good = Sent::traces(&key, &trace_request(1, 0));
    for kind in [Kind::Unavailable, Kind::Fenced, Kind::Corrupt, Kind::Internal] {
        *world.intake.refusal.lock() = Some(Refusal::new(kind, "trouble"));
        let answer = good.clone().to(world.http).await;
        answer.is(503, "trouble");
        assert!(answer.head.contains("retry-after: 1"), "{}", answer.head);
    }
    *world.intake.refusal.lock() = None;
    let large = Sent::traces(&key, &trace_request(20_000, 0));
    for sent in [large.clone().chunked(), large.clone().compressed("gzip", gzip(&large.body))] {
        let answer = sent.to(world.http).await;
        answer.is(503, "the ingest buffer is full");
        assert!(answer.head.contains("retry-after: 2"), "1.5 s are rounded up: {}", answer.head);
    }
    assert_eq!(world.intake.budget.used(), 0, "all room was given back");
    good.to(world.http).await.is(200, "");
}

#[tokio::test]
async fn refused_spans_are_counted_and_named_and_their_neighbours_kept() {
    let world = World::open().await;
    let key = world.key(&[Role::Ingest]).await;
    let answer = Sent::traces(&key, &trace_request(5, 2)).to(world.http).await;
    assert_eq!(answer.status, 200);
    let partial = ExportTraceServiceResponse::decode(answer.body.as_slice()).unwrap().partial_success.unwrap();
    assert_eq!(partial.rejected_spans, 2);
    assert!(partial.error_message.starts_with("2 "), "{}", partial.error_message);
    let (_, batch) = world.appended().remove(0);
    assert_eq!((batch.received, batch.rejected.values().sum::<u64>()), (5, 2));
    let without_id = JSON_SPAN.replace("eee19b7ec3c1b174", "");
    let answer = Sent::json(&key, &without_id).to(world.http).await;
    let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(body["partialSuccess"]["rejectedSpans"], "1", "64-bit numbers are text: {body}");
    assert!(body["partialSuccess"]["errorMessage"].as_str().unwrap().starts_with("1 "));
}

#[tokio::test]
async fn an_empty_request_is_fine_and_costs_no_append() {
    let world = World::open().await;
    let key = world.key(&[Role::Ingest]).await;
    Sent::traces(&key, &ExportTraceServiceRequest::default()).to(world.http).await.is(200, "");
    Sent::json(&key, "{}").to(world.http).await.is(200, "{}");
    assert!(world.appended().is_empty());
}

#[tokio::test]
async fn a_key_that_writes_for_others_names_the_tenant() {
    let world = World::open().await;
    let key = world.key_with(&[Role::Ingest], WritesFor::All, None).await;
    let sent = Sent::traces(&key, &trace_request(1, 0)).with("x-tracelake-tenant", "other");
    sent.clone().to(world.http).await.is(200, "");
    assert_eq!(world.appended()[0].0.as_str(), "other");
    sent.with("x-tracelake-tenant", "nobody").to(world.http).await.is(404, "nobody does not exist");
}

#[tokio::test]
async fn metrics_and_logs_are_answered_and_counted_as_dropped() {
    let world = World::open().await;
    let key = world.key(&[Role::Ingest]).await;
    for base in ["/v1", "/api/public/otel/v1"] {
        for signal in ["metrics", "logs", "metrics/", "logs/"] {
            let path = format!("{base}/{signal}");
            Sent::json(&key, "{\"any\":1}").at(&path).chunked().to(world.http).await.is(200, "{}");
            Sent::traces(&key, &trace_request(1, 0)).at(&path).to(world.http).await.is(200, "");
            Sent::json("Basic eA==", "{}").at(&path).to(world.http).await.is(401, "");
        }
    }
    assert!(world.appended().is_empty());
    let text = Sent::get("/metrics").to(world.http).await.text();
    for signal in ["metrics", "logs"] {
        let line = format!("tracelake_dropped_requests_total{{door=\"otlp-http\",signal=\"{signal}\"}} 8");
        assert!(text.contains(&line), "{text}");
    }
}

#[tokio::test]
async fn health_needs_no_key_and_ready_says_what_is_missing() {
    let world = World::open().await;
    Sent::get("/health").to(world.http).await.is(200, "\"OK\"");
    let langfuse = Sent::get("/api/public/health").to(world.http).await;
    let body: serde_json::Value = serde_json::from_slice(&langfuse.body).unwrap();
    assert!(body["status"] == "OK" && body["version"].is_string(), "{body}");
    Sent::get("/ready").to(world.http).await.is(200, "OK");
    *world.ready.0.lock() = Some("the log is being replayed".to_owned());
    let answer = Sent::get("/ready/").to(world.http).await;
    assert!(answer.status == 503 && answer.text().contains("replayed"));
    Sent::get("/health").to(world.http).await.is(200, "OK");
}

#[tokio::test]
async fn metrics_count_by_door_and_name_no_tenant() {
    let world = World::open().await;
    let key = world.key(&[Role::Ingest]).await;
    Sent::traces(&key, &trace_request(5, 2)).to(world.http).await.is(200, "");
    Sent::json(&key, "no").to(world.http).await.is(400, "");
    let text = Sent::get("/metrics").to(world.http).await.text();
    for line in [
        "tracelake_requests_total{door=\"otlp-http\",outcome=\"ok\"} 1",
        "tracelake_requests_total{door=\"otlp-http\",outcome=\"invalid_argument\"} 1",
        "tracelake_received_total{door=\"otlp-http\"} 5",
        "tracelake_store_calls_total{operation=\"list\"} 0",
        "tracelake_budget_used_bytes{budget=\"ingest\"} 0",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    assert!(!text.contains("acme"));
    assert_eq!(text.matches("tracelake_rejected_total{").count(), 1);
}

#[tokio::test]
async fn a_body_that_breaks_off_is_not_kept_and_gives_its_room_back() {
    let world = World::open().await;
    let key = world.key(&[Role::Ingest]).await;
    let mut stream = TcpStream::connect(world.http).await.unwrap();
    let head = format!(
        "POST /v1/traces HTTP/1.1\r\nhost: x\r\nauthorization: {key}\r\ncontent-type: application/x-protobuf\r\n\
         content-length: 1000000\r\n\r\nhalf"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let held = async {
        while world.intake.budget.used() == 0 {
            tokio::task::yield_now().await
        }
    };
    tokio::time::timeout(Duration::from_secs(5), held).await.expect("room is taken before the body is there");
    assert!(world.intake.budget.used() >= 1_000_000);
    drop(stream);
    let freed = async {
        while world.intake.budget.used() > 0 {
            tokio::task::yield_now().await
        }
    };
    tokio::time::timeout(Duration::from_secs(5), freed).await.expect("room is given back");
    assert!(world.appended().is_empty());
}

#[tokio::test]
async fn langfuses_calls_that_delete_erase_traces_for_an_admin() {
    let world = World::open().await;
    let (admin, ingest) = (world.key(&[Role::Admin]).await, world.key(&[Role::Ingest, Role::Read]).await);
    let call = async |key: &str, path: &str, body: &str| {
        let sent = Sent { method: "DELETE", body: body.as_bytes().to_vec(), ..Sent::get(path) };
        let answered = sent.with("authorization", key).to(world.http).await;
        (answered.status, answered.text())
    };
    let (status, body) = call(&admin, "/api/public/traces/a%2Fb", "").await;
    assert_eq!((status, body.contains("Trace deleted successfully")), (200, true), "{body}");
    let (status, body) = call(&admin, "/api/public/traces", r#"{"traceIds":["x","y","x"]}"#).await;
    assert_eq!((status, body.contains("Traces deleted successfully")), (200, true), "{body}");
    assert_eq!(*world.erasing.0.lock(), [r#"acme trace ["a/b"]"#, r#"acme trace ["x", "y"]"#]);
    let many = format!(r#"{{"traceIds":[{}]}}"#, (0..1001).map(|n| format!("\"{n}\"")).collect::<Vec<_>>().join(","));
    for bad in ["", "{}", r#"{"traceIds":[]}"#, r#"{"traceIds":"x"}"#, &many] {
        assert_eq!(call(&admin, "/api/public/traces", bad).await.0, 400, "{:.60}", bad);
    }
    let (status, body) = call(&ingest, "/api/public/traces/x", "").await;
    assert_eq!((status, body.contains("admin")), (403, true), "{body}");
    assert_eq!(call("Basic eDp5", "/api/public/traces/x", "").await.0, 401);
    assert_eq!(world.erasing.0.lock().len(), 2, "nothing else was erased");
}
