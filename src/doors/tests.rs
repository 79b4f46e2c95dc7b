//! The doors over real sockets, with fakes below them.

mod analytics;
mod audit;
mod grpc;
mod http;
mod langfuse;
mod langfuse_reads;
mod models;
mod rpc;
mod web;

use std::collections::BTreeSet;
use std::net::SocketAddr;

use arrow::array::{Array, Int64Array, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use futures::StreamExt;
use object_store::memory::InMemory;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::*;
use crate::base::{Kind, SystemClock};
use crate::catalog::Catalog;
use crate::catalog::administration::Administration;
use crate::catalog::erasures::{Erasure, ErasureState};
use crate::catalog::keys::{Bound, NewKey, Role, WritesFor};
use crate::catalog::retention::Retentions;
use crate::catalog::system::{SystemError, SystemObjects};
use crate::catalog::tenants::Tenants;
use crate::store::Location;

/// Two open doors, what came in by them, and what they were told to answer.
struct World {
    http: SocketAddr,
    grpc: SocketAddr,
    keys: Keys,
    intake: Arc<FakeIntake>,
    answers: Arc<FakeAnswers>,
    erasing: Arc<FakeErasing>,
    ready: Arc<FakeReady>,
    prices: PriceBooks,
    counters: Arc<Counters>,
    audit: Audit,
    close: Option<oneshot::Sender<()>>,
    served: tokio::task::JoinHandle<()>,
}

#[derive(Debug)]
struct FakeIntake {
    budget: Budget,
    appended: Mutex<Vec<(TenantId, EventBatch)>>,
    refusal: Mutex<Option<Refusal>>,
    append_takes: Mutex<Duration>,
}

#[derive(Default)]
struct FakeAnswers {
    refusal: Mutex<Option<Refusal>>,
    asked: Mutex<Vec<String>>,
    asked_records: Mutex<Vec<(Identity, RecordsAsked)>>,
    /// What pages are made of.
    records: langfuse_reads::Held,
}

/// What was asked to be erased.
#[derive(Default)]
struct FakeErasing(Mutex<Vec<String>>);

/// Holds nothing.
struct FakeNode;

#[derive(Default)]
struct FakeReady(Mutex<Option<String>>);

#[async_trait]
impl Intake for FakeIntake {
    async fn admit(&self, bytes: u64) -> Result<Reservation, Refusal> {
        let full = || Refusal::unavailable("the ingest buffer is full", Duration::from_millis(1_500));
        self.budget.try_reserve(bytes).ok_or_else(full)
    }

    async fn append(&self, tenant: &TenantId, batch: EventBatch, _: Reservation) -> Result<(), Refusal> {
        let takes = *self.append_takes.lock();
        tokio::time::sleep(takes).await;
        if let Some(refusal) = self.refusal.lock().clone() {
            return Err(refusal);
        }
        self.appended.lock().push((tenant.clone(), batch));
        Ok(())
    }
}

#[async_trait]
impl Answers for FakeAnswers {
    async fn sql(&self, who: &Identity, sql: &str, limits: AskedLimits) -> Result<SqlAnswer, Refusal> {
        asked(|| format!("shape of {} bytes", sql.len()));
        self.asked.lock().push(format!("{} {sql} {limits:?}", who.tenant));
        if let Some(refusal) = self.refusal.lock().clone() {
            return Err(refusal);
        }
        let schema = Arc::new(Schema::new(vec![
            Field::new("n", DataType::Int64, false),
            Field::new("text", DataType::Utf8, false),
        ]));
        let texts: Vec<String> = (0..20_000).map(|n| format!("{n:0300}")).collect();
        let columns: Vec<Arc<dyn Array>> =
            vec![Arc::new(Int64Array::from_iter_values(0..20_000)), Arc::new(StringArray::from(texts))];
        let batch = RecordBatch::try_new(schema.clone(), columns).unwrap();
        let mut batches = vec![Ok(batch)];
        if sql.contains("fails later") {
            batches.push(Err(Refusal::limit("time", "the query ran longer than its limit of time: 10 ms")));
        }
        Ok(SqlAnswer { schema, batches: futures::stream::iter(batches).boxed() })
    }

    async fn metrics(
        &self,
        who: &Identity,
        asked: Vec<wire::MetricsRequest>,
    ) -> Result<Vec<wire::MetricsResponse>, Refusal> {
        if let Some(refusal) = self.refusal.lock().clone() {
            return Err(refusal);
        }
        let answer = |asked: wire::MetricsRequest| {
            let bound = who.bound.as_ref().map(|bound| format!("{bound:?} ")).unwrap_or_default();
            self.asked.lock().push(format!("{} {bound}{:?}", who.tenant, asked.dimensions));
            wire::MetricsResponse { dimensions: asked.dimensions, ..Default::default() }
        };
        Ok(asked.into_iter().map(answer).collect())
    }

    async fn metrics_series(
        &self,
        who: &Identity,
        asked: wire::MetricsRequest,
    ) -> Result<wire::MetricsResponse, Refusal> {
        Ok(self.metrics(who, vec![asked]).await?.remove(0))
    }

    async fn list_traces(
        &self,
        who: &Identity,
        asked: wire::ListTracesRequest,
    ) -> Result<wire::ListTracesResponse, Refusal> {
        self.asked.lock().push(format!("{} list {}", who.tenant, asked.limit));
        Ok(wire::ListTracesResponse { next_cursor: asked.cursor, ..Default::default() })
    }

    async fn search_traces(
        &self,
        who: &Identity,
        asked: wire::SearchTracesRequest,
    ) -> Result<wire::SearchTracesResponse, Refusal> {
        self.asked.lock().push(format!("{} search {}", who.tenant, asked.text));
        Ok(wire::SearchTracesResponse { next_cursor: asked.cursor, ..Default::default() })
    }

    async fn records(&self, who: &Identity, asked: Vec<RecordsAsked>) -> Result<Vec<RecordsAnswer>, Refusal> {
        if let Some(refusal) = self.refusal.lock().clone() {
            return Err(refusal);
        }
        let answers = asked.iter().map(|asked| langfuse_reads::answer(asked, &self.records)).collect();
        self.asked_records.lock().extend(asked.into_iter().map(|asked| (who.clone(), asked)));
        Ok(answers)
    }

    async fn trace(&self, who: &Identity, asked: wire::GetTraceRequest) -> Result<TraceParts, Refusal> {
        self.asked.lock().push(format!("{} trace {}", who.tenant, asked.trace_id));
        if asked.trace_id.is_empty() {
            return Err(Refusal::new(Kind::NotFound, "no such trace"));
        }
        Ok(futures::stream::iter([Ok(wire::GetTraceResponse::default())]).boxed())
    }
}

#[async_trait]
impl Erasing for FakeErasing {
    async fn erase(&self, who: &Identity, kind: ErasureKind, values: Vec<String>) -> Result<ErasureStatus, Refusal> {
        self.0.lock().push(format!("{} {kind} {values:?}", who.tenant));
        let erasure = Erasure {
            number: 1,
            id: "e1".to_owned(),
            tenant: who.tenant.to_string(),
            kind,
            subjects: values,
            asked_by: who.public_key.clone(),
            asked_us: 5,
            until_us: 6,
            traces: BTreeSet::new(),
        };
        let rows = [("observations".to_owned(), 3)].into();
        let (state, erasure) = (ErasureState::Masked, Arc::new(erasure));
        Ok(ErasureStatus { erasure, state, rewritten_us: None, done_us: None, rows, files: 0, copies: 0 })
    }

    async fn erasure(&self, _: &Identity, id: &str) -> Result<ErasureStatus, Refusal> {
        Err(SystemError::ErasureMissing(id.to_owned()).into())
    }

    async fn erasures(&self, who: &Identity) -> Result<Vec<ErasureStatus>, Refusal> {
        Ok(vec![self.erase(who, ErasureKind::User, vec!["u".to_owned()]).await?])
    }
}

#[async_trait]
impl Ready for FakeReady {
    async fn ready(&self) -> Result<(), String> {
        self.0.lock().clone().map_or(Ok(()), Err)
    }
}

#[async_trait]
impl Operating for FakeNode {
    fn node(&self, _: Option<&TenantId>) -> Node {
        Node::default()
    }

    async fn flush(&self, _: Option<&TenantId>) -> Result<Vec<wire::FlushedTable>, Refusal> {
        Ok(Vec::new())
    }
}

impl World {
    async fn open() -> Self {
        Self::with_buffer(ByteSize::mib(256)).await
    }

    async fn with_buffer(buffer: ByteSize) -> Self {
        let store = Store::open(Location::Memory(Arc::new(InMemory::new()))).await.unwrap();
        let objects = SystemObjects::new(store.clone(), Arc::new(SystemClock));
        let keys = Keys::open(objects.clone(), Tenants::new(objects.clone())).await.unwrap();
        let (score_configs, audit) = (ScoreConfigs::new(objects.clone()), Audit::new(objects.clone()));
        for tenant in ["acme", "other"] {
            keys.tenants().create(&tenant.parse().unwrap()).await.unwrap();
        }
        let budget = Budget::new("ingest", buffer);
        let intake = Arc::new(FakeIntake {
            budget: budget.clone(),
            appended: Mutex::default(),
            refusal: Mutex::default(),
            append_takes: Mutex::default(),
        });
        let (answers, ready) = (Arc::new(FakeAnswers::default()), Arc::new(FakeReady::default()));
        let erasing = Arc::new(FakeErasing::default());
        let prices = PriceBooks::new(SystemObjects::new(store.clone(), Arc::new(SystemClock)));
        let counters = Arc::new(Counters::default());
        let catalog = Catalog::new(store.clone(), Arc::new(SystemClock));
        let administration = Administration::new(&catalog, keys.clone(), Retentions::new(objects.clone()));
        let doors = Doors {
            administration,
            intake: intake.clone(),
            answers: answers.clone(),
            erasing: erasing.clone(),
            ready: ready.clone(),
            operating: Arc::new(FakeNode),
            keys: keys.clone(),
            prices: prices.clone(),
            score_configs,
            media: Media::new(store.clone(), objects.clone()),
            maskings: Maskings::new(objects.clone()),
            clock: Arc::new(SystemClock),
            decode_limits: DecodeLimits::default(),
            counters: counters.clone(),
            audit: audit.clone(),
            store,
            budgets: vec![budget],
            cors_origins: vec!["https://app.example".to_owned()],
        };
        let on_grpc = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let on_http = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (grpc, http) = (on_grpc.local_addr().unwrap(), on_http.local_addr().unwrap());
        let (close, closing) = oneshot::channel();
        let shutdown = async move { _ = closing.await };
        let served =
            tokio::spawn(async move { serve(doors, on_grpc, on_http, shutdown).await.expect("the doors open") });
        Self { http, grpc, keys, intake, answers, erasing, ready, prices, counters, audit, close: Some(close), served }
    }

    /// The authorization of a new key of tenant `acme`.
    async fn key(&self, roles: &[Role]) -> String {
        self.key_with(roles, WritesFor::Own, None).await
    }

    async fn key_with(&self, roles: &[Role], writes_for: WritesFor, bound: Option<Bound>) -> String {
        let roles: BTreeSet<Role> = roles.iter().copied().collect();
        let new = NewKey { writes_for, bound, ..NewKey::with_roles("acme".parse().unwrap(), roles) };
        let key = self.keys.create(new).await.unwrap();
        format!("Basic {}", BASE64_STANDARD.encode(format!("{}:{}", key.public_key, key.secret_key)))
    }

    fn appended(&self) -> Vec<(TenantId, EventBatch)> {
        self.intake.appended.lock().clone()
    }
}

/// A request of `spans` spans, the first `nameless` of which have no id and are refused.
fn trace_request(spans: u64, nameless: u64) -> ExportTraceServiceRequest {
    let span = |n: u64| Span {
        trace_id: vec![7; 16],
        span_id: if n < nameless { Vec::new() } else { (n + 1).to_be_bytes().to_vec() },
        name: "call".to_owned(),
        start_time_unix_nano: 1_700_000_000_000_000_000,
        end_time_unix_nano: 1_700_000_001_000_000_000,
        ..Default::default()
    };
    let scope_spans = ScopeSpans { spans: (0..spans).map(span).collect(), ..Default::default() };
    let resource_spans = ResourceSpans { scope_spans: vec![scope_spans], ..Default::default() };
    ExportTraceServiceRequest { resource_spans: vec![resource_spans] }
}

#[tokio::test]
async fn closing_answers_what_is_under_way_and_takes_nothing_new() {
    let mut world = World::open().await;
    let key = world.key(&[Role::Ingest]).await;
    *world.intake.append_takes.lock() = Duration::from_millis(300);
    let under_way = tokio::spawn(http::Sent::traces(&key, &trace_request(1, 0)).to(world.http));
    tokio::time::sleep(Duration::from_millis(100)).await;
    world.close.take().unwrap().send(()).unwrap();
    assert_eq!(under_way.await.unwrap().status, 200);
    world.served.await.unwrap();
    assert!(tokio::net::TcpStream::connect(world.http).await.is_err());
    assert!(tokio::net::TcpStream::connect(world.grpc).await.is_err());
    assert_eq!(world.intake.appended.lock().len(), 1);
    assert_eq!(world.intake.budget.used(), 0, "all room was given back");
}

#[test]
fn every_kind_has_its_codes_and_the_way_in_never_says_internal() {
    use Kind::*;
    let expected = [
        (Invalid, "invalid_argument", 400, "invalid_argument"),
        (Unauthenticated, "unauthenticated", 401, "unauthenticated"),
        (Forbidden, "permission_denied", 403, "permission_denied"),
        (NotFound, "not_found", 404, "not_found"),
        (Exists, "already_exists", 409, "already_exists"),
        (TooLarge, "resource_exhausted", 413, "resource_exhausted"),
        (LimitReached, "resource_exhausted", 422, "resource_exhausted"),
        (Unavailable, "unavailable", 503, "unavailable"),
        (Fenced, "unavailable", 503, "unavailable"),
        (Corrupt, "data_loss", 500, "unavailable"),
        (Internal, "internal", 500, "unavailable"),
    ];
    for (kind, outcome, status, on_the_way_in) in expected {
        let refusal = Refusal::new(kind, "why");
        assert_eq!((refusal.outcome(), refusal.http_status().as_u16()), (outcome, status));
        let refusal = refusal.on_the_way_in();
        assert_eq!(refusal.outcome(), on_the_way_in);
        assert_ne!(refusal.http_status().as_u16(), 500);
        assert_eq!(refusal.delay().is_some(), refusal.outcome() == "unavailable");
    }
    assert_eq!(Refusal::limit("time", "slow").outcome(), "deadline_exceeded");
}
