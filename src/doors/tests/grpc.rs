use arrow::ipc::reader::StreamReader;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_client::LogsServiceClient;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client as otlp_metrics;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use prost::Message;
use tonic::codec::CompressionEncoding;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use super::super::status::{RETRY_INFO_URL, RetryInfo, StatusDetails};
use super::*;
use crate::wire::ingest_service_client::IngestServiceClient;
use crate::wire::metrics_service_client::MetricsServiceClient;
use crate::wire::sql_service_client::SqlServiceClient;

pub(super) async fn channel(world: &World) -> Channel {
    Channel::from_shared(format!("http://{}", world.grpc)).unwrap().connect().await.unwrap()
}

pub(super) fn with_key<T>(key: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    if !key.is_empty() {
        request.metadata_mut().insert("authorization", key.parse().unwrap());
    }
    request
}

#[track_caller]
fn is(status: &Status, code: Code, says: &str) {
    assert_eq!(status.code(), code, "{status:?}");
    assert!(status.message().contains(says), "{status:?} lacks {says:?}");
}

fn retry_delay(status: &Status) -> Option<Duration> {
    let details = StatusDetails::decode(status.details()).unwrap();
    let info = details.details.iter().find(|any| any.type_url == RETRY_INFO_URL)?;
    let delay = RetryInfo::decode(info.value.as_slice()).unwrap().retry_delay?;
    Some(Duration::new(delay.seconds as u64, delay.nanos as u32))
}

fn observations(trace: &str, ids: std::ops::Range<u64>) -> wire::IngestRequest {
    let one = |n| wire::Observation {
        trace_id: trace.to_owned(),
        id: format!("o{n}"),
        start_unix_nano: Some(1_700_000_000_000_000_000),
        ..Default::default()
    };
    wire::IngestRequest { observations: ids.map(one).collect(), ..Default::default() }
}

#[tokio::test]
async fn otlp_spans_are_kept_plain_gzipped_and_zstd() {
    let world = World::open().await;
    let key = world.key(&[Role::Ingest]).await;
    let client = TraceServiceClient::new(channel(&world).await);
    let clients = [
        client.clone(),
        client.clone().send_compressed(CompressionEncoding::Gzip),
        client.clone().send_compressed(CompressionEncoding::Zstd),
    ];
    for (at, mut client) in clients.into_iter().enumerate() {
        // 8,000 spans need more than one HTTP/2 frame and a thread of their own to decode.
        let answer = client.export(with_key(&key, trace_request(8_000, 0))).await.unwrap().into_inner();
        assert_eq!(answer.partial_success, None);
        let (tenant, batch) = &world.appended()[at];
        assert_eq!((tenant.as_str(), batch.door.as_str(), batch.received), ("acme", "otlp-grpc", 8_000));
    }
    let mut client = client;
    let partial = client.export(with_key(&key, trace_request(5, 2))).await.unwrap().into_inner().partial_success;
    assert_eq!(partial.unwrap().rejected_spans, 2);
    assert_eq!(world.intake.budget.used(), 0, "all room was given back");
}

#[tokio::test]
async fn otlp_metrics_and_logs_are_answered_and_counted_as_dropped() {
    let world = World::open().await;
    let key = world.key(&[Role::Ingest]).await;
    let mut metrics = otlp_metrics::MetricsServiceClient::new(channel(&world).await);
    let mut logs = LogsServiceClient::new(channel(&world).await);
    metrics.export(with_key(&key, ExportMetricsServiceRequest::default())).await.unwrap();
    logs.export(with_key(&key, ExportLogsServiceRequest::default())).await.unwrap();
    let refused = logs.export(with_key("", ExportLogsServiceRequest::default())).await.unwrap_err();
    is(&refused, Code::Unauthenticated, "no key");
    let text = world.counters.text(Default::default(), &[], &[]);
    assert!(text.contains("tracelake_dropped_requests_total{door=\"otlp-grpc\",signal=\"metrics\"} 1"), "{text}");
}

#[tokio::test]
async fn a_key_is_asked_for_and_its_role_before_the_message_is_read() {
    let world = World::open().await;
    let (ingest, read) = (world.key(&[Role::Ingest]).await, world.key(&[Role::Read]).await);
    let mut traces = TraceServiceClient::new(channel(&world).await);
    let mut sql = SqlServiceClient::new(channel(&world).await);
    let mut metrics = MetricsServiceClient::new(channel(&world).await);
    let spans = || trace_request(1, 0);
    is(&traces.export(with_key("", spans())).await.unwrap_err(), Code::Unauthenticated, "no key");
    is(&traces.export(with_key("Basic cGs6c2s=", spans())).await.unwrap_err(), Code::Unauthenticated, "unknown public");
    is(&traces.export(with_key(&read, spans())).await.unwrap_err(), Code::PermissionDenied, "the role `ingest`");
    let refused = sql.query(with_key(&ingest, wire::SqlRequest::default())).await.unwrap_err();
    is(&refused, Code::PermissionDenied, "the role `read`");
    let refused = metrics.query(with_key(&ingest, wire::MetricsRequest::default())).await.unwrap_err();
    is(&refused, Code::PermissionDenied, "the role `read`");
    let bound = world.key_with(&[Role::Read], WritesFor::Own, Some(Bound::User("u".into()))).await;
    is(&traces.export(with_key(&bound, spans())).await.unwrap_err(), Code::PermissionDenied, "the role `ingest`");
    assert!(world.appended().is_empty() && world.answers.asked.lock().is_empty());
    metrics.query(with_key(&bound, wire::MetricsRequest::default())).await.unwrap();
    assert_eq!(world.answers.asked.lock().as_slice(), ["acme User(\"u\") []"], "what it is bound to comes along");
}

#[tokio::test]
async fn metadata_names_the_tenant_for_a_key_that_writes_for_others() {
    let world = World::open().await;
    let listed = WritesFor::Listed(BTreeSet::from(["other".to_owned()]));
    let (all, own) = (world.key_with(&[Role::Ingest], listed, None).await, world.key(&[Role::Ingest]).await);
    let mut traces = TraceServiceClient::new(channel(&world).await);
    let to_other = |key: &str| {
        let mut request = with_key(key, trace_request(1, 0));
        request.metadata_mut().insert("x-tracelake-tenant", "other".parse().unwrap());
        request
    };
    traces.export(to_other(&all)).await.unwrap();
    assert_eq!(world.appended()[0].0.as_str(), "other");
    is(&traces.export(to_other(&own)).await.unwrap_err(), Code::PermissionDenied, "may not write for tenant other");
}

#[tokio::test]
async fn too_large_is_said_with_the_limit_also_when_it_is_small_on_the_wire() {
    let world = World::open().await;
    let key = world.key(&[Role::Ingest]).await;
    let mut request = trace_request(1, 0);
    request.resource_spans[0].scope_spans[0].spans[0].name = "x".repeat(REQUEST_MAX.as_usize());
    for encoding in [CompressionEncoding::Gzip, CompressionEncoding::Zstd] {
        let mut client = TraceServiceClient::new(channel(&world).await).send_compressed(encoding);
        let refused = client.export(with_key(&key, request.clone())).await.unwrap_err();
        is(&refused, Code::ResourceExhausted, "64MiB");
    }
    assert_eq!(world.intake.budget.used(), 0, "all room was given back");
}

#[tokio::test]
async fn trouble_of_ours_is_unavailable_with_a_delay_and_never_internal() {
    let world = World::with_buffer(ByteSize::mib(1)).await;
    let key = world.key(&[Role::Ingest]).await;
    let mut client = TraceServiceClient::new(channel(&world).await);
    for kind in [Kind::Unavailable, Kind::Fenced, Kind::Corrupt, Kind::Internal] {
        *world.intake.refusal.lock() = Some(Refusal::new(kind, "trouble"));
        let refused = client.export(with_key(&key, trace_request(1, 0))).await.unwrap_err();
        is(&refused, Code::Unavailable, "trouble");
        assert_eq!(retry_delay(&refused), Some(Duration::from_secs(1)));
    }
    *world.intake.refusal.lock() = None;
    let refused = client.export(with_key(&key, trace_request(20_000, 0))).await.unwrap_err();
    is(&refused, Code::Unavailable, "the ingest buffer is full");
    assert_eq!(retry_delay(&refused), Some(Duration::from_millis(1_500)));
    client.export(with_key(&key, trace_request(1, 0))).await.unwrap();
}

#[tokio::test]
async fn garbage_in_a_frame_is_invalid() {
    let world = World::open().await;
    let key = world.key(&[Role::Ingest]).await;
    let mut client = tonic::client::Grpc::new(channel(&world).await);
    client.ready().await.unwrap();
    // A well-formed frame of another message: bytes that are no trace request.
    let codec = tonic_prost::ProstCodec::<wire::SqlResponse, wire::SqlResponse>::default();
    let path = "/opentelemetry.proto.collector.trace.v1.TraceService/Export".parse().unwrap();
    let message = wire::SqlResponse { arrow_ipc: vec![0xff; 100] };
    let refused = client.unary(with_key(&key, message), path, codec).await.unwrap_err();
    is(&refused, Code::InvalidArgument, "Protobuf");
    let text = world.counters.text(Default::default(), &[], &[]);
    assert!(text.contains("tracelake_requests_total{door=\"otlp-grpc\",outcome=\"invalid_argument\"} 1"), "{text}");
    assert!(world.appended().is_empty());
}

#[tokio::test]
async fn ingest_answers_what_it_kept_and_names_what_it_refused() {
    let world = World::open().await;
    let key = world.key(&[Role::Ingest]).await;
    let mut client = IngestServiceClient::new(channel(&world).await).send_compressed(CompressionEncoding::Zstd);
    let mut request = observations("t", 0..3);
    request.observations[1].id.clear();
    let answer = client.ingest(with_key(&key, request)).await.unwrap().into_inner();
    assert_eq!((answer.accepted, answer.rejected.len()), (2, 1));
    assert_eq!(answer.rejected[0].reason, "missing_id");
    let (tenant, batch) = &world.appended()[0];
    assert_eq!((tenant.as_str(), batch.door.as_str()), ("acme", "tracelake-grpc"));
}

#[tokio::test]
async fn a_stream_of_batches_is_answered_once_when_all_is_durable() {
    let world = World::open().await;
    let key = world.key(&[Role::Ingest]).await;
    let mut client = IngestServiceClient::new(channel(&world).await).send_compressed(CompressionEncoding::Gzip);
    *world.intake.append_takes.lock() = Duration::from_millis(5);
    let batches = futures::stream::iter((0..50).map(|n| observations("t", n * 10..n * 10 + 10)));
    let answer = client.ingest_stream(with_key(&key, batches)).await.unwrap().into_inner();
    assert_eq!((answer.accepted, answer.rejected.len()), (500, 0));
    assert_eq!(world.appended().len(), 50);
    assert_eq!(world.intake.budget.used(), 0, "all room was given back");
    *world.intake.refusal.lock() = Some(Refusal::new(Kind::Unavailable, "away"));
    let batches = futures::stream::iter((0..50).map(|n| observations("t", n..n + 1)));
    is(&client.ingest_stream(with_key(&key, batches)).await.unwrap_err(), Code::Unavailable, "away");
}

#[tokio::test]
async fn metrics_and_their_presets_ask_for_the_keys_tenant() {
    let world = World::open().await;
    let key = world.key(&[Role::Read]).await;
    let mut client = MetricsServiceClient::new(channel(&world).await);
    let dimensions = |name: &str| vec![name.to_owned()];
    let request = wire::MetricsRequest { dimensions: dimensions("a"), ..Default::default() };
    assert_eq!(client.query(with_key(&key, request)).await.unwrap().into_inner().dimensions, ["a"]);
    let request = wire::CostBreakdownRequest { dimensions: dimensions("b"), ..Default::default() };
    assert_eq!(client.cost_breakdown(with_key(&key, request)).await.unwrap().into_inner().dimensions, ["b"]);
    let request = wire::LatencyPercentilesRequest { dimensions: dimensions("c"), ..Default::default() };
    assert_eq!(client.latency_percentiles(with_key(&key, request)).await.unwrap().into_inner().dimensions, ["c"]);
    let request = wire::TimeSeriesRequest { dimensions: dimensions("d"), ..Default::default() };
    assert_eq!(client.time_series(with_key(&key, request)).await.unwrap().into_inner().dimensions, ["d"]);
    assert!(world.answers.asked.lock().iter().all(|asked| asked.starts_with("acme ")));
    *world.answers.refusal.lock() = Some(Refusal::new(Kind::Invalid, "no such measure"));
    let refused = client.query(with_key(&key, wire::MetricsRequest::default())).await.unwrap_err();
    is(&refused, Code::InvalidArgument, "no such measure");
}

#[tokio::test]
async fn the_platform_is_told_what_each_tenant_adds_up_to_and_no_rows() {
    let world = World::open().await;
    world.keys.tenants().create_if_absent(&"globex".parse().unwrap()).await.unwrap();
    let mut client = MetricsServiceClient::new(channel(&world).await);
    let reader = world.key(&[Role::Read]).await;
    let refused = client.platform_stats(with_key(&reader, wire::PlatformStatsRequest::default())).await.unwrap_err();
    is(&refused, Code::PermissionDenied, "platform");
    let platform = world.key(&[Role::Platform]).await;
    let asked = wire::PlatformStatsRequest::default();
    let answer = client.platform_stats(with_key(&platform, asked)).await.unwrap().into_inner();
    let mut tenants: Vec<&str> = answer.tenants.iter().map(|tenant| tenant.tenant.as_str()).collect();
    tenants.sort();
    assert!(tenants.contains(&"acme") && tenants.contains(&"globex"), "{tenants:?}");
    let asked = world.answers.asked.lock().clone();
    assert_eq!(asked.iter().filter(|asked| asked.starts_with("globex ")).count(), 2);
    // Each is asked for itself, and by no dimension.
    assert!(asked.iter().all(|asked| asked.ends_with("[]")), "{asked:?}");
    let refused = client.query(with_key(&platform, wire::MetricsRequest::default())).await.unwrap_err();
    is(&refused, Code::PermissionDenied, "read");
}

#[tokio::test]
async fn batches_presets_and_subscriptions_ask_what_they_say() {
    let world = World::open().await;
    let key = world.key(&[Role::Read]).await;
    let mut client = MetricsServiceClient::new(channel(&world).await);
    let query = |dimension: &str| wire::MetricsRequest { dimensions: vec![dimension.into()], ..Default::default() };
    let named = |name: &str| wire::NamedQuery { name: name.into(), query: Some(query(name)) };
    let batch = wire::BatchQueryRequest { queries: vec![named("a"), named("b")] };
    let answers = client.batch_query(with_key(&key, batch)).await.unwrap().into_inner().answers;
    let names: Vec<_> = answers.iter().map(|one| (&one.name, &one.answer.as_ref().unwrap().dimensions)).collect();
    assert_eq!(names, [(&"a".to_owned(), &vec!["a".to_owned()]), (&"b".to_owned(), &vec!["b".to_owned()])]);
    let none = client.batch_query(with_key(&key, wire::BatchQueryRequest::default())).await.unwrap_err();
    is(&none, Code::InvalidArgument, "1 to 50");
    let bad = client.compare(with_key(&key, wire::CompareRequest::default())).await.unwrap_err();
    is(&bad, Code::InvalidArgument, "2 to 10");
    let subscribe = wire::SubscribeRequest { query: Some(query("c")), interval_ms: 0 };
    let mut changes = client.subscribe(with_key(&key, subscribe)).await.unwrap().into_inner();
    let first = changes.message().await.unwrap().unwrap();
    assert_eq!(first.changed.unwrap().dimensions, ["c"]);
    let hasty = wire::SubscribeRequest { query: Some(query("c")), interval_ms: 10 };
    is(&client.subscribe(with_key(&key, hasty)).await.unwrap_err(), Code::InvalidArgument, "1000 to 3600000");
}

#[tokio::test]
async fn traces_are_asked_of_the_keys_tenant_by_the_role_read() {
    let world = World::open().await;
    let key = world.key(&[Role::Read]).await;
    let mut client = wire::trace_service_client::TraceServiceClient::new(channel(&world).await);
    let list = wire::ListTracesRequest { cursor: "c".into(), ..Default::default() };
    assert_eq!(client.list_traces(with_key(&key, list)).await.unwrap().into_inner().next_cursor, "c");
    let search = wire::SearchTracesRequest { cursor: "d".into(), ..Default::default() };
    assert_eq!(client.search_traces(with_key(&key, search)).await.unwrap().into_inner().next_cursor, "d");
    let one = wire::GetTraceRequest { trace_id: "t".into(), ..Default::default() };
    let mut parts = client.get_trace(with_key(&key, one)).await.unwrap().into_inner();
    assert!(parts.message().await.unwrap().is_some() && parts.message().await.unwrap().is_none());
    let nothing = client.get_trace(with_key(&key, wire::GetTraceRequest::default())).await.unwrap_err();
    is(&nothing, Code::NotFound, "no such trace");
    assert!(world.answers.asked.lock().iter().all(|asked| asked.starts_with("acme ")));
    let far = wire::TailRequest { cursor: "soon".into(), ..Default::default() };
    is(&client.tail(with_key(&key, far)).await.unwrap_err(), Code::InvalidArgument, "cursor");
    let writer = world.key(&[Role::Ingest]).await;
    let refused = client.list_traces(with_key(&writer, wire::ListTracesRequest::default())).await.unwrap_err();
    is(&refused, Code::PermissionDenied, "read");
}

#[tokio::test]
async fn sql_streams_one_arrow_stream_in_messages_under_two_mebibytes() {
    let world = World::open().await;
    let key = world.key(&[Role::Read]).await;
    let mut client = SqlServiceClient::new(channel(&world).await);
    let request = wire::SqlRequest { sql: "SELECT 1".into(), rows_max: 7, time_ms_max: 0 };
    let mut messages = client.query(with_key(&key, request)).await.unwrap().into_inner();
    let mut bytes = Vec::new();
    let mut count = 0;
    while let Some(message) = messages.message().await.unwrap() {
        assert!(message.encoded_len() < 2 << 20);
        bytes.extend(message.arrow_ipc);
        count += 1;
    }
    assert!(count > 4, "6 MB come in several messages: {count}");
    let batches: Vec<_> = StreamReader::try_new(bytes.as_slice(), None).unwrap().map(Result::unwrap).collect();
    assert_eq!(batches.iter().map(|batch| batch.num_rows()).sum::<usize>(), 20_000);
    assert_eq!(world.answers.asked.lock()[0], "acme SELECT 1 AskedLimits { rows_max: Some(7), time_max: None }");
}

#[tokio::test]
async fn sql_refusals_come_as_statuses_also_in_the_middle() {
    let world = World::open().await;
    let key = world.key(&[Role::Read]).await;
    let mut client = SqlServiceClient::new(channel(&world).await);
    let request = |sql: &str| with_key(&key, wire::SqlRequest { sql: sql.into(), ..Default::default() });
    let mut messages = client.query(request("fails later")).await.unwrap().into_inner();
    let refused = loop {
        match messages.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("an answer that is cut short must not look whole"),
            Err(refused) => break refused,
        }
    };
    is(&refused, Code::DeadlineExceeded, "time");
    *world.answers.refusal.lock() = Some(Refusal::limit("rows", "more rows than the limit"));
    is(&client.query(request("SELECT")).await.unwrap_err(), Code::ResourceExhausted, "rows");
    *world.answers.refusal.lock() = Some(Refusal::new(Kind::Internal, "a mistake"));
    is(&client.query(request("SELECT")).await.unwrap_err(), Code::Internal, "a mistake");
    let long = "x".repeat(2 << 20);
    is(&client.query(request(&long)).await.unwrap_err(), Code::ResourceExhausted, "1MiB");
}

#[tokio::test]
async fn questions_are_heard_while_the_way_in_is_full() {
    let world = World::with_buffer(ByteSize(0)).await;
    let (ingest, read) = (world.key(&[Role::Ingest]).await, world.key(&[Role::Read]).await);
    let channel = channel(&world).await;
    let refused = TraceServiceClient::new(channel.clone()).export(with_key(&ingest, trace_request(1, 0))).await;
    is(&refused.unwrap_err(), Code::Unavailable, "full");
    MetricsServiceClient::new(channel).query(with_key(&read, wire::MetricsRequest::default())).await.unwrap();
}

#[tokio::test]
async fn health_and_reflection_need_no_key_and_other_paths_do_not_exist() {
    use tonic_health::pb::health_check_response::ServingStatus;
    use tonic_health::pb::health_client::HealthClient;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

    let world = World::open().await;
    let channel = channel(&world).await;
    let mut health = HealthClient::new(channel.clone());
    let mut status = async || health.check(tonic_health::pb::HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(status().await.status(), ServingStatus::Serving);
    *world.ready.0.lock() = Some("replaying".to_owned());
    tokio::time::sleep(Duration::from_millis(1_300)).await;
    assert_eq!(status().await.status(), ServingStatus::NotServing);

    let message_request = Some(MessageRequest::ListServices(String::new()));
    let request = ServerReflectionRequest { host: String::new(), message_request };
    let mut reflection = ServerReflectionClient::new(channel.clone());
    let mut answers = reflection.server_reflection_info(futures::stream::iter([request])).await.unwrap().into_inner();
    let ServerReflectionResponse { message_response, .. } = answers.message().await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(listed)) = message_response else { panic!("{message_response:?}") };
    let names: Vec<String> = listed.service.into_iter().map(|service| service.name).collect();
    for name in ["tracelake.v1.IngestService", "tracelake.v1.MetricsService", "tracelake.v1.SqlService"] {
        assert!(names.iter().any(|has| has == name), "{names:?}");
    }

    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<wire::SqlRequest, wire::SqlResponse>::default();
    let path = "/tracelake.v1.Nothing/At".parse().unwrap();
    let refused = client.unary(Request::new(wire::SqlRequest::default()), path, codec).await.unwrap_err();
    is(&refused, Code::Unimplemented, "/tracelake.v1.Nothing/At");
}
