//! `kill -9` at random moments under load: every acked id is readable exactly once (I1, I2).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::compaction::compact;
use crate::process::{ServerProcess, path, sql, texts};
use crate::upkeep::assert_healthy;

/// By hand: `TRACELAKE_KILLS=500 cargo test kills`.
fn kills() -> u32 {
    std::env::var("TRACELAKE_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(20)
}

/// A batch of whole traces, each one root span; ids are numbers never used twice.
pub(crate) fn request(first: u64, count: u64) -> ExportTraceServiceRequest {
    let now_ns = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
    let attribute = |key: &str, value: Value| KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..Default::default()
    };
    let span = |id: u64| Span {
        trace_id: u128::from(id + 1).to_be_bytes().to_vec(),
        span_id: (id + 1).to_be_bytes().to_vec(),
        name: "chat".to_owned(),
        start_time_unix_nano: now_ns,
        end_time_unix_nano: now_ns + 1_000_000,
        attributes: vec![
            attribute("gen_ai.operation.name", Value::StringValue("chat".into())),
            attribute("gen_ai.request.model", Value::StringValue("gpt-4o-mini".into())),
            attribute("gen_ai.usage.input_tokens", Value::IntValue(100)),
            attribute("gen_ai.usage.output_tokens", Value::IntValue(10)),
            attribute("langfuse.observation.input", Value::StringValue("why? ".repeat(50))),
        ],
        ..Default::default()
    };
    let spans = (first..first + count).map(span).collect();
    let scope_spans = vec![ScopeSpans { spans, ..Default::default() }];
    ExportTraceServiceRequest { resource_spans: vec![ResourceSpans { scope_spans, ..Default::default() }] }
}

pub(crate) fn id_text(id: u64) -> String {
    format!("{:016x}", id + 1)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_was_acked_before_a_kill_is_there_once() {
    let folder = tempfile::tempdir().unwrap();
    let data = path(folder.path()).to_owned();
    let again = data.clone();
    kill_and_count(move || ServerProcess::start(&again), kills(), 20..400).await;
    assert_healthy(&data);
}

/// Ends servers under load, `kills` times after a random life, then holds what was acked against what can be read.
pub(crate) async fn kill_and_count(
    start: impl Fn() -> ServerProcess + Clone + Send + 'static,
    kills: u32,
    life_ms: std::ops::Range<u64>,
) {
    let seed: u64 = rand::rng().random();
    println!("seed {seed}");
    let mut random = SmallRng::seed_from_u64(seed);
    let acked = Acked::default();
    let next = Arc::new(AtomicU64::new(0));
    for kill in 0..kills {
        let server = start();
        let stop = Arc::new(AtomicBool::new(false));
        let senders: Vec<_> = (0..4)
            .map(|_| {
                let (acked, next, stop) = (acked.clone(), Arc::clone(&next), Arc::clone(&stop));
                let address = server.grpc_addr.clone();
                tokio::spawn(load(address, acked, next, stop))
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(random.random_range(life_ms.clone()))).await;
        stop.store(true, Ordering::SeqCst);
        server.kill();
        for sender in senders {
            sender.await.unwrap();
        }
        // Some lives end in the middle of a start.
        if kill % 5 == 4 {
            tokio::task::spawn_blocking(start.clone()).await.unwrap().kill();
        }
    }
    let server = start();
    let connection = server.connect().await;
    let found = texts(&sql(&connection, "SELECT id FROM observations").await.unwrap());
    let mut times: HashMap<&str, usize> = HashMap::new();
    for id in &found {
        *times.entry(id).or_default() += 1;
    }
    let acked = acked.ids();
    assert!(acked.len() > 100, "the load was too light to prove anything: {} acked", acked.len());
    let lost: Vec<_> = acked.iter().filter(|id| !times.contains_key(id.as_str())).collect();
    let doubled: Vec<_> = times.iter().filter(|(_, count)| **count > 1).collect();
    assert!(lost.is_empty(), "seed {seed}: {} of {} acked ids are lost: {lost:?}", lost.len(), acked.len());
    assert!(doubled.is_empty(), "seed {seed}: {} ids stand twice: {doubled:?}", doubled.len());
    books_balance(&connection, times.len()).await;
    println!("{kills} kills, {} ids acked, each there once", acked.len());
    assert!(server.stop().success(), "a server asked to stop flushes and exits 0");
}

/// Ids in one batch.
const BATCH: u64 = 5;

/// The first ids of the batches that were acked, by whichever process.
#[derive(Debug, Clone, Default)]
pub(crate) struct Acked(Arc<Mutex<Vec<u64>>>);

impl Acked {
    fn add(&self, first: u64) {
        self.0.lock().push(first);
    }

    /// One of them, for a tenth of the batches.
    fn again(&self) -> Option<u64> {
        let (acked, mut random) = (self.0.lock(), rand::rng());
        (!acked.is_empty() && random.random_range(0..10) == 0).then(|| acked[random.random_range(0..acked.len())])
    }

    pub(crate) fn ids(&self) -> Vec<String> {
        self.0.lock().iter().flat_map(|first| *first..first + BATCH).map(id_text).collect()
    }
}

/// Sends until told to stop or the server is gone; a tenth of it was acked before, often by a process that was killed
/// since.
pub(crate) async fn load(address: String, acked: Acked, next: Arc<AtomicU64>, stop: Arc<AtomicBool>) {
    use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
    let Ok(mut client) = TraceServiceClient::connect(format!("http://{address}")).await else { return };
    while !stop.load(Ordering::SeqCst) {
        let again = acked.again();
        let first = again.unwrap_or_else(|| next.fetch_add(BATCH, Ordering::SeqCst));
        match client.export(authorized(request(first, BATCH))).await {
            Ok(_) if again.is_none() => acked.add(first),
            Ok(_) => {}
            Err(_) => return,
        }
    }
}

fn authorized(request: ExportTraceServiceRequest) -> tonic::Request<ExportTraceServiceRequest> {
    let mut request = tonic::Request::new(request);
    request.metadata_mut().insert("authorization", basic().parse().unwrap());
    request
}

/// What was received is stored, merged or rejected, and what is stored are the ids (I9).
async fn books_balance(connection: &tracelake::cli::Connection, ids: usize) {
    let sum = async |outcome: &str| -> i64 {
        let statement = format!("SELECT coalesce(sum(count), 0) FROM ledger WHERE outcome = '{outcome}'");
        texts(&sql(connection, &statement).await.unwrap())[0].parse().unwrap()
    };
    let (received, stored) = (sum("received").await, sum("stored").await);
    let (merged, rejected) = (sum("merged").await, sum("rejected").await);
    assert_eq!(received, stored + merged + rejected, "stored {stored}, merged {merged}, rejected {rejected}");
    assert_eq!(stored as usize, ids);
}

/// Two processes with logs of their own, told the same by every sender, are killed in turns: each id once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_writers_that_both_get_every_batch_and_are_killed_keep_each_id_once() {
    let folder = tempfile::tempdir().unwrap();
    let data = path(folder.path()).to_owned();
    let again = data.clone();
    let start = move |writer: &'static str| {
        let data = again.clone();
        let environment = [("TRACELAKE_WRITER", writer), ("TRACELAKE_FLUSH_AFTER_S", "1")];
        tokio::task::spawn_blocking(move || ServerProcess::try_start(&data, &environment).unwrap())
    };
    let seed: u64 = rand::rng().random();
    println!("seed {seed}");
    let mut random = SmallRng::seed_from_u64(seed);
    let mut nodes = [start("one").await.unwrap(), start("two").await.unwrap()].map(Some);
    let mut acked: Vec<u64> = Vec::new();
    let mut next: u64 = 0;
    for _ in 0..kills() {
        // Files are merged meanwhile, and whoever does it is killed, too.
        let mut merging = compact(&data).spawn().unwrap();
        let addresses = nodes.each_ref().map(|node| node.as_ref().unwrap().grpc_addr.clone());
        let until = std::time::Instant::now() + Duration::from_millis(random.random_range(50..1200));
        let mut clients = Vec::new();
        for address in addresses {
            use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
            clients.push(TraceServiceClient::connect(format!("http://{address}")).await.unwrap());
        }
        while std::time::Instant::now() < until {
            let first = match acked.is_empty() || random.random_range(0..10) > 0 {
                true => {
                    next += 5;
                    next - 5
                }
                false => acked[random.random_range(0..acked.len())],
            };
            let [one, two] = &mut clients[..] else { unreachable!("there are two") };
            let both =
                tokio::join!(one.export(authorized(request(first, 5))), two.export(authorized(request(first, 5))));
            assert!(both.0.is_ok() && both.1.is_ok(), "{both:?}");
            acked.push(first);
        }
        // One dies in the middle of a batch that the other gets, too.
        let dies = random.random_range(0..2);
        let first = next;
        next += 5;
        let [one, two] = &mut clients[..] else { unreachable!("there are two") };
        let killed = nodes[dies].take().unwrap();
        let kill = tokio::task::spawn_blocking(move || killed.kill());
        let (one, two, _) =
            tokio::join!(one.export(authorized(request(first, 5))), two.export(authorized(request(first, 5))), kill);
        assert!(one.is_ok() || two.is_ok(), "the other lives");
        acked.push(first);
        let _ = merging.kill();
        merging.wait().unwrap();
        nodes[dies] = Some(start(["one", "two"][dies]).await.unwrap());
    }
    acked.sort_unstable();
    acked.dedup();
    let expected: Vec<String> = acked.iter().flat_map(|first| *first..first + 5).map(id_text).collect();
    let [one, two] = nodes.map(Option::unwrap);
    // Each sees what the other acked within two seconds; then it is all in files.
    tokio::time::sleep(Duration::from_secs(2)).await;
    for node in [&one, &two] {
        let found = texts(&sql(&node.connect().await, "SELECT id FROM observations ORDER BY id").await.unwrap());
        assert_same(seed, &found, &expected);
    }
    assert!(one.stop().success() && two.stop().success());
    let last = start("one").await.unwrap();
    let connection = last.connect().await;
    let found = texts(&sql(&connection, "SELECT id FROM observations ORDER BY id").await.unwrap());
    assert_same(seed, &found, &expected);
    books_balance(&connection, expected.len()).await;
    println!("{} kills, {} ids, each there once", kills(), expected.len());
    assert!(last.stop().success());
    assert_healthy(&data);
}

fn assert_same(seed: u64, found: &[String], expected: &[String]) {
    let doubled: Vec<_> = found.windows(2).filter(|pair| pair[0] == pair[1]).collect();
    assert!(doubled.is_empty(), "seed {seed}: {} ids stand twice: {doubled:?}", doubled.len());
    let lost: Vec<_> = expected.iter().filter(|id| found.binary_search(id).is_err()).collect();
    assert!(lost.is_empty(), "seed {seed}: {} of {} ids are lost: {lost:?}", lost.len(), expected.len());
    assert_eq!(found.len(), expected.len(), "seed {seed}: ids that nobody sent");
}

pub(crate) fn basic() -> String {
    use base64::Engine;
    let pair = format!("{}:{}", crate::process::PUBLIC_KEY, crate::process::SECRET_KEY);
    format!("Basic {}", base64::prelude::BASE64_STANDARD.encode(pair))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_processes_on_one_log_the_first_stops_and_nothing_is_doubled() {
    let folder = tempfile::tempdir().unwrap();
    take_the_log_over(|| ServerProcess::start(path(folder.path()))).await;
}

/// Two processes under one writer id: the second takes the log, the first must notice, and both's acks are kept.
pub(crate) async fn take_the_log_over(start: impl Fn() -> ServerProcess) {
    let first = start();
    let early = first.connect().await;
    early.export(request(0, 5)).await.unwrap();
    let second = start();
    let late = second.connect().await;
    late.export(request(100, 5)).await.unwrap();
    let refused = tokio::time::timeout(Duration::from_secs(20), early.export(request(200, 5))).await;
    assert!(!matches!(refused, Ok(Ok(_))), "the first process no longer acks");
    let code = tokio::task::spawn_blocking(move || first.wait()).await.unwrap();
    assert_ne!(code, Some(0), "a fenced process says so with its exit code");
    let mut ids = texts(&sql(&late, "SELECT id FROM observations ORDER BY id").await.unwrap());
    ids.dedup();
    let expected: Vec<String> = (0..5).chain(100..105).map(id_text).collect();
    assert_eq!(ids, expected);
}
