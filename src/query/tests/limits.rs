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
        let mut answer = setting.engine.sql(all_of("acme"), "SELECT id FROM observations", ask).await.unwrap();
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

/// `levels` times the same step, each over the result of the one before.
fn chained(step: &str, begin: &str, levels: usize) -> String {
    let begin = format!("WITH t0 AS (SELECT {begin} AS x FROM observations)");
    let all = (1..=levels).fold(begin, |all, at| format!("{all}, t{at} AS (SELECT {step} AS x FROM t{})", at - 1));
    format!("{all} SELECT count(*) FROM t{levels} WHERE CAST(x AS VARCHAR) <> 'no'")
}

#[tokio::test]
async fn functions_cannot_make_more_than_a_query_may_hold() {
    let limits = QueryLimits { memory_max: ByteSize::mib(32), time_ms_max: 20_000, ..Default::default() };
    let setting = limited(limits).await;
    let begun = Instant::now();
    for sql in [
        chained("x || x", "id", 12),
        chained("concat(x, x)", "id", 12),
        chained("concat_ws(x, x, x)", "id", 8),
        chained("replace(x, '-', x)", "id", 6),
        chained("replace(x, 'o', 'oooooooooo')", "id", 12),
        chained("regexp_replace(x, 'o', 'oooooooooo', 'g')", "id", 12),
        chained("regexp_replace(x, '(.*)', '\\1\\1\\1')", "id", 20),
        chained("overlay(x placing x from 1 for 0)", "id", 12),
        chained("repeat(x, 1000)", "id", 4),
        chained("lpad(x, 100000000, 'y')", "id", 1),
        chained("array_concat(x, x)", "make_array(id)", 12),
        chained("make_array(x, x)", "make_array(id)", 12),
        chained("array_to_string(string_to_array(x, NULL), x)", "id", 6),
        "SELECT count(*) FROM observations WHERE repeat(id, 1000000) LIKE '%no%'".to_owned(),
        "SELECT length(repeat('x', 2000000000))".to_owned(),
        "SELECT length(rpad('x', 2000000000))".to_owned(),
    ] {
        let error = setting.error("acme", &sql).await;
        assert_eq!(error.kind(), Kind::LimitReached, "{sql}: {error}");
        check(error, "memory", "32MiB");
    }
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn expressions_that_double_at_every_level_are_refused_before_they_are_planned() {
    let setting = limited(QueryLimits::default()).await;
    let begun = Instant::now();
    for (step, begin) in
        [("x || x", "id"), ("x + x", "input_tokens"), ("CASE WHEN x > 1 THEN x ELSE x END", "input_tokens")]
    {
        let sql = chained(step, begin, 40);
        let hidden = [
            sql.clone(),
            format!("SELECT * FROM ({sql}) UNION ALL SELECT 1"),
            format!("SELECT count(*) FROM observations WHERE input_tokens IN ({sql})"),
            format!("SELECT ({sql}) AS found"),
            format!("EXPLAIN {sql}"),
        ];
        for sql in hidden {
            let error = setting.error("acme", &sql).await;
            assert_eq!(error.kind(), Kind::Invalid, "{error}");
            assert!(error.to_string().contains("50000 operators and columns"), "{error}");
        }
    }
    let text = chained("x || x", "id", 6);
    assert!(setting.text("acme", &text).await.contains("| 3000 "));
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn functions_that_are_weighed_say_what_they_always_said() {
    let setting = limited(QueryLimits::default()).await;
    let cases = [
        ("'a' || 'b' || 'c'", "abc"),
        ("coalesce('a' || NULL, 'null')", "null"),
        ("concat('a', NULL, 'b')", "ab"),
        ("concat_ws('-', 'a', 'b')", "a-b"),
        ("replace('aXbX', 'X', '--')", "a--b--"),
        ("regexp_replace('foobar', 'o(.)', '<\\1>', 'g')", "f<o>bar"),
        ("overlay('abcdef' placing 'XX' from 2 for 3)", "aXXef"),
        ("repeat('ab', 3)", "ababab"),
        ("lpad('7', 3, '0') || rpad('7', 3, '.')", "0077.."),
        ("array_to_string(make_array(1, 2) || make_array(3), '+')", "1+2+3"),
        ("array_to_string(array_append(string_to_array('a,b', ','), 'c'), ';')", "a;b;c"),
        ("named_struct('k', 'v')['k']", "v"),
        ("translate('abc', 'b', 'x')", "axc"),
        ("to_char(timestamp '2026-03-28T01:02:03', '%Y!')", "2026!"),
    ];
    for (expression, expected) in cases {
        for sql in [
            format!("SELECT {expression} AS found"),
            format!("SELECT {expression} AS found FROM observations LIMIT 1"),
            format!("SELECT max({expression}) AS found FROM observations"),
            format!("SELECT (SELECT {expression}) AS found"),
        ] {
            let answer = setting.text("acme", &sql).await;
            assert!(answer.contains(&format!("| {expected} ")), "{sql}\n{answer}");
        }
    }
    let answer = setting.text("acme", "SELECT id || '/' || trace_id FROM observations ORDER BY 1 LIMIT 1").await;
    assert!(answer.contains("observations.id || Utf8(\"/\") || observations.trace_id"), "the column's name: {answer}");
    assert!(answer.contains("| obs-1-0/trace-1-0 "), "{answer}");
    let grouped =
        "SELECT model || '!' AS m, count(*) FROM observations GROUP BY model || '!' HAVING model || '!' = 'llama!'";
    assert!(setting.text("acme", grouped).await.contains("| llama! "));
}
