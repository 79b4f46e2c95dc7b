//! The statuses each door promises, from the real binary.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use tempfile::TempDir;
use tonic::Code;
use tonic::client::Grpc;
use tonic_prost::ProstCodec;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

use crate::grpc::{Caller, EXPORT, basic};
use crate::http::{HttpAnswer, HttpRequest};
use crate::process::{PUBLIC_KEY, SECRET_KEY, ServerProcess, path, texts};
use crate::spans::{export, export_of, span};

const PROTOBUF: &str = "application/x-protobuf";
const JSON: &str = "application/json";
/// What a request may have, plain.
const REQUEST_BYTES_MAX: usize = 64 << 20;
const LIMIT: &str = "64MiB";

struct World {
    server: ServerProcess,
    caller: Caller,
    _folder: TempDir,
}

impl World {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let server = ServerProcess::start(path(folder.path()));
        let caller = Caller::connect(&server.grpc_addr, PUBLIC_KEY, SECRET_KEY).await;
        Self { server, caller, _folder: folder }
    }

    async fn send(&self, request: HttpRequest) -> HttpAnswer {
        request.send(&self.server.http_addr).await
    }

    /// The ids of all that was kept.
    async fn kept(&self) -> Vec<String> {
        texts(&self.caller.sql("SELECT id FROM observations ORDER BY id").await.unwrap())
    }
}

fn traces(content_type: &str, body: impl Into<Vec<u8>>) -> HttpRequest {
    HttpRequest::post("/v1/traces", content_type, body).header("authorization", &basic(PUBLIC_KEY, SECRET_KEY))
}

fn one_span(number: u64) -> Vec<u8> {
    export_of("call", number..number + 1).encode_to_vec()
}

fn id(number: u64) -> String {
    format!("{:016x}", number + 1)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_refuses_with_the_status_and_the_words_that_tell_its_sender_what_to_change() {
    let world = World::start().await;
    let good = traces(PROTOBUF, one_span(0));
    let bomb = gzip(&vec![0; REQUEST_BYTES_MAX + 1]);
    let cases = [
        ("no key", HttpRequest::post("/v1/traces", PROTOBUF, one_span(0)), 401, "no key"),
        ("a wrong secret", good.clone().header("authorization", &basic(PUBLIC_KEY, "sk-lf-x")), 401, "secret key"),
        ("another scheme", good.clone().header("authorization", "Bearer x"), 401, "Basic"),
        ("a length over the limit", traces(PROTOBUF, "").header("content-length", "67108865"), 413, LIMIT),
        ("a bomb", traces(PROTOBUF, bomb.clone()).header("content-encoding", "gzip"), 413, LIMIT),
        ("a bomb in chunks", traces(PROTOBUF, bomb).header("content-encoding", "gzip").chunked(), 413, LIMIT),
        ("plain text", traces("text/plain", one_span(0)), 415, "text/plain"),
        ("an unknown encoding", good.header("content-encoding", "br"), 415, "br"),
        ("no protobuf", traces(PROTOBUF, "\u{7f}garbage"), 400, "protobuf"),
        ("protobuf cut short", traces(PROTOBUF, &one_span(0)[..30]), 400, "protobuf"),
        ("no JSON", traces(JSON, "{\"resourceSpans\":["), 400, "JSON"),
        ("no gzip", traces(PROTOBUF, one_span(0)).header("content-encoding", "gzip"), 400, "gzip"),
        ("another method", HttpRequest::get("/v1/traces"), 405, "method"),
        ("no such path", HttpRequest::get("/v2/traces"), 404, "nothing"),
    ];
    for (what, request, status, says) in cases {
        let answer = world.send(request).await;
        assert_eq!(answer.status, status, "{what}: {}", answer.text());
        assert!(answer.text().contains(says), "{what}: {} does not say {says:?}", answer.text());
    }
    assert_eq!(world.kept().await, [""; 0], "nothing that was refused is kept");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpc_refuses_with_the_same_reasons() {
    let world = World::start().await;
    let wrong_key = Caller { authorization: basic(PUBLIC_KEY, "sk-lf-x"), ..world.caller.clone() };
    let refused = wrong_key.call(EXPORT, one_span(0)).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated, "{refused}");
    let refused = world.caller.call(EXPORT, b"\x7fgarbage".to_vec()).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    let refused = world.caller.call_gzipped(EXPORT, vec![0; REQUEST_BYTES_MAX + 1]).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert!(refused.message().contains(LIMIT), "{refused}");
    assert_eq!(world.kept().await, [""; 0], "nothing that was refused is kept");
}

/// Three spans, the second without an id.
fn one_bad_of_three() -> Vec<u8> {
    export(vec![span("call", 0), Span { span_id: Vec::new(), ..span("bad", 1) }, span("call", 2)]).encode_to_vec()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_http_a_bad_span_is_counted_and_its_neighbours_are_kept() {
    let world = World::start().await;
    let answer = world.send(traces(PROTOBUF, one_bad_of_three())).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let partial = ExportTraceServiceResponse::decode(answer.body.as_slice()).unwrap().partial_success.unwrap();
    assert_eq!(partial.rejected_spans, 1);
    assert!(partial.error_message.contains("id"), "{}", partial.error_message);
    assert_eq!(world.kept().await, [id(0), id(2)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_json_a_bad_span_is_counted_and_its_neighbours_are_kept() {
    let world = World::start().await;
    let span = |id: &str| {
        format!(
            r#"{{"traceId":"5b8efff798038103d269b633813fc60c","spanId":"{id}","name":"call",
                "startTimeUnixNano":"1790000000000000000","endTimeUnixNano":"1790000001000000000"}}"#
        )
    };
    let spans = [span("0000000000000001"), span("nonsense"), span("0000000000000003")].join(",");
    let body = format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{spans}]}}]}}]}}"#);
    let answer = world.send(traces(JSON, body)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let said: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(said["partialSuccess"]["rejectedSpans"], "1", "{said}");
    assert!(said["partialSuccess"]["errorMessage"].as_str().unwrap().contains("id"), "{said}");
    assert_eq!(world.kept().await, [id(0), id(2)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_grpc_a_bad_span_is_counted_and_its_neighbours_are_kept() {
    let world = World::start().await;
    let answer = world.caller.call(EXPORT, one_bad_of_three()).await.unwrap();
    let partial = ExportTraceServiceResponse::decode(answer.as_slice()).unwrap().partial_success.unwrap();
    assert_eq!(partial.rejected_spans, 1);
    assert!(partial.error_message.contains("id"), "{}", partial.error_message);
    assert_eq!(world.kept().await, [id(0), id(2)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_span_is_kept_whatever_it_is_wrapped_in() {
    let world = World::start().await;
    let zstd = |bytes: Vec<u8>| zstd::encode_all(bytes.as_slice(), 1).unwrap();
    let wrapped = [
        traces(PROTOBUF, one_span(0)),
        traces(PROTOBUF, one_span(1)).chunked(),
        traces(PROTOBUF, gzip(&one_span(2))).header("content-encoding", "gzip"),
        traces(PROTOBUF, gzip(&one_span(3))).header("content-encoding", "gzip").chunked(),
        traces(PROTOBUF, zstd(one_span(4))).header("content-encoding", "zstd"),
    ];
    for request in wrapped {
        let answer = world.send(request).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    world.caller.call_gzipped(EXPORT, one_span(5)).await.unwrap();
    assert_eq!(world.kept().await, (0..6).map(id).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slash_at_the_end_is_served_and_never_redirected() {
    let world = World::start().await;
    let mut requests: Vec<_> = ["/health/", "/ready/", "/metrics/"].map(HttpRequest::get).into();
    for at in ["/v1/traces/", "/api/public/otel/v1/traces", "/api/public/otel/v1/traces/"] {
        let request = HttpRequest::post(at, PROTOBUF, one_span(requests.len() as u64 - 3));
        requests.push(request.header("authorization", &basic(PUBLIC_KEY, SECRET_KEY)));
    }
    for request in requests {
        let answer = world.send(request.clone()).await;
        assert_eq!(answer.status, 200, "{request:?}: {}", answer.head);
        assert!(!answer.head.contains("\r\nlocation:"), "{request:?}: {}", answer.head);
    }
    assert_eq!(world.kept().await, (0..3).map(id).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_and_logs_of_clients_are_answered_with_yes() {
    let world = World::start().await;
    for at in ["/v1/metrics", "/v1/logs", "/api/public/otel/v1/metrics", "/api/public/otel/v1/logs"] {
        let key = basic(PUBLIC_KEY, SECRET_KEY);
        for (content_type, body) in [(PROTOBUF, ""), (JSON, "{}")] {
            let answer = world.send(HttpRequest::post(at, content_type, body).header("authorization", &key)).await;
            assert_eq!((answer.status, answer.text().as_str()), (200, body), "{at} {content_type}");
        }
        assert_eq!(world.send(HttpRequest::post(at, JSON, "{}")).await.status, 401, "{at} without a key");
    }
    const METRICS: &str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";
    const LOGS: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";
    for method in [METRICS, LOGS] {
        assert!(world.caller.call(method, Vec::new()).await.unwrap().is_empty(), "{method}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_and_readiness_are_told_to_anyone() {
    let world = World::start().await;
    for at in ["/health", "/ready", "/api/public/health"] {
        let answer = world.send(HttpRequest::get(at)).await;
        let said: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!((answer.status, said["status"].as_str()), (200, Some("OK")), "{at}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_counters_count_what_came_in_and_name_no_tenant() {
    let world = World::start().await;
    world.send(traces(PROTOBUF, one_bad_of_three())).await;
    world.caller.call(EXPORT, one_span(7)).await.unwrap();
    let answer = world.send(HttpRequest::get("/metrics")).await;
    assert_eq!(answer.status, 200);
    assert!(answer.head.contains("content-type: text/plain; version=0.0.4"), "{}", answer.head);
    let text = answer.text();
    for line in [
        "tracelake_received_total{door=\"otlp-http\"} 3",
        "tracelake_received_total{door=\"otlp-grpc\"} 1",
        "tracelake_requests_total{door=\"otlp-http\",outcome=\"ok\"} 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
    }
    assert!(text.contains("tracelake_rejected_total{door=\"otlp-http\","), "{text}");
    assert!(!text.contains("acme") && !text.contains(PUBLIC_KEY), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reflection_lists_the_services_to_anyone() {
    let world = World::start().await;
    let message_request = Some(MessageRequest::ListServices(String::new()));
    let request = ServerReflectionRequest { message_request, ..Default::default() };
    let mut grpc = Grpc::new(world.caller.channel.clone());
    grpc.ready().await.unwrap();
    let method = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo".parse().unwrap();
    let codec = ProstCodec::<ServerReflectionRequest, ServerReflectionResponse>::default();
    let asked = tonic::Request::new(tokio_stream::once(request));
    let answer = grpc.streaming(asked, method, codec).await.unwrap().into_inner().message().await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else { panic!("{answer:?}") };
    let names: Vec<&str> = list.service.iter().map(|service| service.name.as_str()).collect();
    for name in ["IngestService", "MetricsService", "SqlService"] {
        assert!(names.contains(&format!("tracelake.v1.{name}").as_str()), "{name} is not in {names:?}");
    }
    assert!(names.contains(&"grpc.health.v1.Health"), "{names:?}");
}
