//! I7: every limit stops what goes over it, and says its name.

use std::time::{Duration, Instant};

use super::*;
use crate::base::{ByteSize, Kind};

async fn limited(limits: QueryLimits) -> Setting {
    let setting = Setting::new(limits).await;
    let rows = observations(1, 3000, 20);
    setting.add_files("acme", &rows[..2000]).await;
    setting.add_fresh("acme", &rows[2000..]);
    setting
}

fn check(error: QueryError, name: &str, value: &str) {
    assert_eq!(error.limit(), Some(name), "{error}");
    assert!(error.to_string().contains(name) && error.to_string().contains(value), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cross_join_stops_by_time() {
    let setting = limited(QueryLimits { time_ms_max: 700, concurrent_max: 1, ..Default::default() }).await;
    for sql in [
        "SELECT max(a.latency_ms + b.latency_ms + c.latency_ms) FROM observations a, observations b, observations c",
        "SELECT max(a.latency_ms + b.latency_ms) FROM observations a JOIN observations b ON a.latency_ms < b.latency_ms
         JOIN observations c ON b.latency_ms < c.latency_ms",
    ] {
        let begun = Instant::now();
        let error = setting.error("acme", sql).await;
        assert_eq!(error.kind(), Kind::LimitReached);
        check(error, "time", "700 ms");
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    }
    // The only turn is free again: what was stopped does not go on computing.
    let answer = setting.text("acme", "SELECT count(*) FROM observations").await;
    assert!(answer.contains("| 3000 "), "{answer}");
}

#[tokio::test]
async fn memory_rows_and_bytes_are_named() {
    let setting =
        limited(QueryLimits { memory_max: ByteSize::kib(64), spill_max: ByteSize(0), ..Default::default() }).await;
    let error = setting.error("acme", "SELECT id, trace_id, count(*) FROM observations GROUP BY id, trace_id").await;
    assert_eq!(error.kind(), Kind::LimitReached, "{error}");
    check(error, "memory", "64KiB");

    let setting =
        limited(QueryLimits { memory_all: ByteSize::kib(64), spill_max: ByteSize(0), ..Default::default() }).await;
    let error = setting.error("acme", "SELECT id, trace_id, count(*) FROM observations GROUP BY id, trace_id").await;
    assert_eq!(error.kind(), Kind::Unavailable, "{error}");
    check(error, "memory of all queries", "64KiB");

    let setting = limited(QueryLimits { rows_max: 100, ..Default::default() }).await;
    let error = setting.error("acme", "SELECT id FROM observations").await;
    check(error, "rows", "100");
    assert_eq!(
        setting
            .sql("acme", "SELECT id FROM observations LIMIT 100")
            .await
            .unwrap()
            .iter()
            .map(RecordBatch::num_rows)
            .sum::<usize>(),
        100
    );

    let setting = limited(QueryLimits { result_bytes_max: ByteSize::kib(10), ..Default::default() }).await;
    let error = setting.error("acme", "SELECT id FROM observations").await;
    check(error, "result bytes", "10KiB");
}

#[tokio::test]
async fn the_caller_may_ask_for_less_but_not_for_more() {
    let setting = limited(QueryLimits { rows_max: 50, ..Default::default() }).await;
    for (asked, given) in [(7, 7), (1000, 50)] {
        let ask = SqlLimits { rows_max: Some(asked), time_max: Some(Duration::from_secs(9)) };
        let mut answer =
            setting.engine.sql(&"acme".parse().unwrap(), "SELECT id FROM observations", ask).await.unwrap();
        let mut rows = 0;
        let error = loop {
            match answer.try_next().await {
                Ok(Some(batch)) => rows += batch.num_rows() as u64,
                Ok(None) => panic!("no error"),
                Err(e) => break e,
            }
        };
        assert_eq!(rows, given);
        check(error, "rows", &given.to_string());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queries_beyond_the_limit_wait_and_are_then_refused() {
    let limits = QueryLimits { concurrent_max: 2, concurrent_per_tenant_max: 1, wait_ms_max: 50, ..Default::default() };
    let setting = limited(limits).await;
    let sql = "SELECT * FROM observations";
    let ask = SqlLimits::default();
    let acme: TenantId = "acme".parse().unwrap();
    let endless =
        "SELECT max(a.latency_ms + b.latency_ms + c.latency_ms) FROM observations a, observations b, observations c";
    let held = setting.engine.sql(&acme, endless, ask).await.unwrap();
    let error = setting.engine.sql(&acme, sql, ask).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    check(error, "concurrent queries of one tenant", "1");
    assert!(setting.sql("globex", sql).await.is_ok(), "another tenant does not wait for this one");
    drop(held);
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(setting.engine.sql(&acme, sql, ask).await.is_ok());
}
