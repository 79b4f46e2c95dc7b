//! A subscriber's rows, put together from what it is told, are the answer: while observations come in, a tenth of them
//! for the second time, and are flushed and merged.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use prost::Message;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tracelake::base::{Clock, SystemClock};
use tracelake::wire::metric_value::Value;
use tracelake::wire::metrics_service_client::MetricsServiceClient;
use tracelake::wire::{
    Aggregation, IngestRequest, Measure, MetricsRequest, MetricsRow, Observation, SubscribeRequest, SubscribeResponse,
    TimeBucket, TimeRange, TimeUnit,
};

use crate::compaction::compact;
use crate::grpc::Caller;
use crate::process::{PUBLIC_KEY, SECRET_KEY, ServerProcess, path};

const REQUESTS: usize = 60;
const PER_REQUEST: usize = 40;
const HOUR_US: i64 = 3_600_000_000;
/// A test that fails ends.
const PATIENCE: Duration = Duration::from_secs(90);

fn question(now_us: i64) -> MetricsRequest {
    let measure = |field: &str, aggregation: Aggregation| Measure {
        field: field.into(),
        aggregation: aggregation.into(),
        ..Default::default()
    };
    MetricsRequest {
        range: Some(TimeRange { from_unix_micros: now_us - 8 * HOUR_US, to_unix_micros: now_us + HOUR_US }),
        bucket: Some(TimeBucket { unit: TimeUnit::Hour.into(), count: 1, skip_gaps: true, ..Default::default() }),
        dimensions: vec!["model".into()],
        measures: vec![
            measure("", Aggregation::Count),
            measure("total_tokens", Aggregation::Sum),
            measure("total_cost", Aggregation::Sum),
        ],
        ..Default::default()
    }
}

fn observation(at: usize, now_us: i64, random: &mut SmallRng) -> Observation {
    let start_us = now_us - random.random_range(0..6 * HOUR_US);
    Observation {
        trace_id: format!("trace-{}", at / 7),
        id: format!("call-{at}"),
        r#type: Some("GENERATION".into()),
        model: Some(["gpt-4o-mini", "gpt-4o", "claude-sonnet-4-5"][at % 3].into()),
        start_unix_nano: Some(start_us * 1_000),
        end_unix_nano: Some(start_us * 1_000 + 5_000_000),
        input_tokens: Some(random.random_range(1..5_000)),
        output_tokens: Some(random.random_range(1..500)),
        ..Default::default()
    }
}

/// What the subscriber has.
#[derive(Default)]
struct Held {
    rows: BTreeMap<Vec<u8>, MetricsRow>,
    watermark_us: i64,
}

fn key(row: &MetricsRow) -> Vec<u8> {
    MetricsRow { measures: Vec::new(), unpriced_rows: None, ..row.clone() }.encode_to_vec()
}

fn count(row: &MetricsRow) -> i64 {
    match row.measures[0].value {
        Some(Value::Integer(count)) => count,
        ref other => panic!("no count: {other:?}"),
    }
}

impl Held {
    /// Nothing is said twice, nothing that was counted is ever taken back, and time does not go backwards.
    fn take(&mut self, told: SubscribeResponse) {
        assert!(told.watermark_unix_micros >= self.watermark_us);
        self.watermark_us = told.watermark_unix_micros;
        assert!(told.gone.is_empty(), "{:?}", told.gone);
        let mut said = BTreeSet::new();
        for row in told.changed.expect("an answer").rows {
            assert!(said.insert(key(&row)), "twice in one message: {row:?}");
            let before = self.rows.insert(key(&row), row.clone());
            assert_ne!(before.as_ref(), Some(&row), "it says again what it said before");
            assert!(before.is_none_or(|before| count(&before) <= count(&row)), "{row:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_subscriber_is_told_adds_up_to_the_answer_while_rows_move_to_files() {
    let folder = tempfile::tempdir().unwrap();
    let data = path(folder.path()).to_owned();
    let environment = [("TRACELAKE_FLUSH_AFTER_S", "1"), ("TRACELAKE_COMPACT", "false")];
    let server = ServerProcess::try_start(&data, &environment).unwrap();
    let caller = Caller::connect(&server.grpc_addr, PUBLIC_KEY, SECRET_KEY).await;
    let mut client = MetricsServiceClient::new(caller.channel.clone());
    let now_us = SystemClock.now_us();
    let asked = SubscribeRequest { query: Some(question(now_us)), interval_ms: 1_000 };
    let mut messages = client.subscribe(caller.signed(asked)).await.unwrap().into_inner();

    let connection = server.connect().await;
    let sender = tokio::spawn(async move {
        let mut random = SmallRng::seed_from_u64(7);
        let mut sent: Vec<Observation> = Vec::new();
        for _ in 0..REQUESTS {
            let new: Vec<Observation> =
                (sent.len()..sent.len() + PER_REQUEST).map(|at| observation(at, now_us, &mut random)).collect();
            let again = (0..PER_REQUEST / 10).filter_map(|_| sent.get(random.random_range(0..=sent.len()))).cloned();
            let request =
                IngestRequest { observations: new.iter().cloned().chain(again).collect(), ..Default::default() };
            connection.ingest(request).await.unwrap();
            sent.extend(new);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    let is_over = Arc::new(AtomicBool::new(false));
    let merger = std::thread::spawn({
        let (data, is_over) = (data.clone(), Arc::clone(&is_over));
        move || {
            let mut merges = 0;
            while !is_over.load(Ordering::Relaxed) {
                let output = compact(&data).output().unwrap();
                assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
                merges += 1;
                std::thread::sleep(Duration::from_millis(300));
            }
            merges
        }
    });

    let (mut held, began, mut heard) = (Held::default(), Instant::now(), 0);
    let answer = loop {
        assert!(began.elapsed() < PATIENCE, "it does not come to the answer: {:?}", held.rows);
        if let Ok(told) = tokio::time::timeout(Duration::from_millis(1_500), messages.message()).await {
            held.take(told.unwrap().expect("the stream goes on"));
            heard += 1;
        }
        if sender.is_finished() {
            let answer = client.query(caller.signed(question(now_us))).await.unwrap().into_inner();
            let rows: BTreeMap<_, _> = answer.rows.iter().map(|row| (key(row), row.clone())).collect();
            if rows == held.rows {
                break answer;
            }
        }
    };
    sender.await.unwrap();
    assert_eq!(answer.rows.iter().map(count).sum::<i64>(), (REQUESTS * PER_REQUEST) as i64, "each counts once");
    assert!(heard >= 4, "it was told {heard} times");
    // Merges go on, and change nothing that could be told.
    let more = tokio::time::timeout(Duration::from_millis(3_500), messages.message()).await;
    assert!(more.is_err(), "nothing has changed: {more:?}");
    is_over.store(true, Ordering::Relaxed);
    assert!(merger.join().unwrap() >= 2);
    assert!(server.stop().success());
}
