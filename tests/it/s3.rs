//! The whole thread against a real S3 server: Ceph's gateway, run by `tests/s3/gateway.sh` on 127.0.0.1.
//!
//! By hand, on Debian 12: `TRACELAKE_TEST_S3=1 cargo test --test it s3`.

mod gateway;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::kills::{Acked, id_text, kill_and_count, load, request, take_the_log_over};
use crate::process::{ServerProcess, sql, texts};
use gateway::{BUCKET, Gateway, SECRET};

/// A server on a prefix of its own.
fn start(gateway: &Gateway, prefix: &str, more: &[(&str, &str)]) -> Result<ServerProcess, String> {
    let environment = gateway.environment();
    let mut environment: Vec<(&str, &str)> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    environment.extend(more);
    ServerProcess::try_start(&format!("s3://{BUCKET}/{prefix}"), &environment)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_span_goes_the_whole_way_in_a_bucket() {
    let Some(gateway) = Gateway::shared() else { return };
    let server = start(&gateway, "whole/way", &[]).unwrap();
    let connection = server.connect().await;
    for first in [0, 50, 100] {
        connection.export(request(first, 50)).await.unwrap();
    }
    let asked = "SELECT id FROM observations ORDER BY id";
    let expected: Vec<String> = (0..150).map(id_text).collect();
    assert_eq!(texts(&sql(&connection, asked).await.unwrap()), expected, "from the log, before any file");
    let cost = "SELECT CAST(sum(total_cost) AS VARCHAR) FROM observations";
    let cost_before = texts(&sql(&connection, cost).await.unwrap());
    assert!(server.stop().success());

    let names = gateway.names("whole/way").await;
    for below in
        ["tenants/acme/observations/day=", "tenants/acme/observations/_delta_log/", "wal/main/", "system/keys/"]
    {
        assert!(names.iter().any(|name| name.starts_with(below)), "nothing below {below} in {names:?}");
    }

    let server = start(&gateway, "whole/way", &[]).unwrap();
    let connection = server.connect().await;
    assert_eq!(texts(&sql(&connection, asked).await.unwrap()), expected, "from files, after a restart");
    assert_eq!(texts(&sql(&connection, cost).await.unwrap()), cost_before);
    connection.export(request(150, 5)).await.unwrap();
    server.kill();

    let server = start(&gateway, "whole/way", &[]).unwrap();
    let connection = server.connect().await;
    let expected: Vec<String> = (0..155).map(id_text).collect();
    assert_eq!(texts(&sql(&connection, asked).await.unwrap()), expected, "from files and the replayed log");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ingest_flush_and_query_never_list_the_bucket() {
    let Some(gateway) = Gateway::shared() else { return };
    // Upkeep of the log lists, 30 s after the start for the first time: the test is over by then.
    let server = start(&gateway, "hot", &[("TRACELAKE_FLUSH_AFTER_S", "1")]).unwrap();
    let connection = server.connect().await;
    let acked = Acked::default();
    let stop = Arc::new(AtomicBool::new(false));
    let next = Arc::new(AtomicU64::new(0));
    let senders: Vec<_> = (0..8)
        .map(|_| {
            let (acked, next, stop) = (acked.clone(), Arc::clone(&next), Arc::clone(&stop));
            tokio::spawn(load(server.grpc_addr.clone(), acked, next, stop))
        })
        .collect();
    let commits = |names: &BTreeSet<String>| {
        names.iter().filter(|name| name.starts_with("tenants/acme/observations/_delta_log/")).count()
    };
    let log_objects = |names: &BTreeSet<String>| names.iter().filter(|name| name.starts_with("wal/main/")).count();
    // A process lists each table once, when it first meets it.
    while commits(&gateway.names("hot").await) == 0 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    sql(&connection, "SELECT count(*) FROM observations").await.unwrap();

    let began = Instant::now();
    let names = gateway.names("hot").await;
    let (commits_before, log_before, acked_before) = (commits(&names), log_objects(&names), acked.ids().len());
    let mut calls_before = Vec::new();
    for operation in ["list", "put", "get"] {
        calls_before.push(server.store_calls(operation).await);
    }
    let mut queries = 0;
    while began.elapsed() < Duration::from_secs(5) {
        sql(&connection, "SELECT count(*), sum(total_cost) FROM observations").await.unwrap();
        queries += 1;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let mut calls = Vec::new();
    for (operation, before) in ["list", "put", "get"].into_iter().zip(calls_before) {
        calls.push(server.store_calls(operation).await - before);
    }
    let names = gateway.names("hot").await;
    let took = began.elapsed();
    let (commits, log) = (commits(&names) - commits_before, log_objects(&names) - log_before);
    let spans = acked.ids().len() - acked_before;
    stop.store(true, Ordering::SeqCst);
    for sender in senders {
        sender.await.unwrap();
    }
    println!(
        "{:.1} s: {spans} spans acked, {queries} queries, {commits} commits, {log} log objects; store calls: {} list, {} put, {} get",
        took.as_secs_f64(),
        calls[0],
        calls[1],
        calls[2]
    );
    assert_eq!(calls[0], 0, "I10: something on a hot path lists the bucket");
    assert!(commits >= 2 && spans > 100 && queries > 5, "the load was too light to prove anything");
    // Group commit: one log object per 250 ms, however many senders.
    let most = took.as_millis() as usize / 250 + 2;
    assert!(log <= most, "{log} log objects in {took:?}: at most {most} were due");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_was_acked_before_a_kill_is_there_once() {
    let Some(gateway) = Gateway::shared() else { return };
    // Lives long enough for several log objects, one of them in flight at the end.
    kill_and_count(move || start(&gateway, "kills", &[]).unwrap(), 3, 1_500..3_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_processes_on_one_log_the_first_stops_and_nothing_is_doubled() {
    let Some(gateway) = Gateway::shared() else { return };
    take_the_log_over(|| start(&gateway, "fence", &[]).unwrap()).await;
}

#[test]
fn a_start_with_wrong_credentials_is_refused_in_a_sentence_without_secrets() {
    let Some(gateway) = Gateway::shared() else { return };
    let wrong_secret = "wrong-secret-0123456789";
    for (name, value) in [("AWS_SECRET_ACCESS_KEY", wrong_secret), ("AWS_ACCESS_KEY_ID", "AKNOBODY")] {
        let began = Instant::now();
        let said = refused(start(&gateway, "refused", &[(name, value), ("TRACELAKE_LOG_LEVEL", "debug")]));
        println!("{name}: {} ({:.1} s)", last_line(&said), began.elapsed().as_secs_f64());
        assert!(last_line(&said).contains("the store refuses our credentials"), "{said}");
        assert!(last_line(&said).contains("check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY"), "{said}");
        assert!(!said.contains(wrong_secret) && !said.contains(SECRET), "a secret is printed: {said}");
        assert!(!said.contains(crate::process::SECRET_KEY), "a secret is printed: {said}");
    }
}

#[test]
fn a_bucket_that_is_not_there_is_named() {
    let Some(gateway) = Gateway::shared() else { return };
    let environment = gateway.environment();
    let environment: Vec<(&str, &str)> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let said = refused(ServerProcess::try_start("s3://no-such-bucket/x", &environment));
    println!("{}", last_line(&said));
    assert!(
        last_line(&said).contains("s3://no-such-bucket/x cannot be a tracelake store: there is no such bucket"),
        "{said}"
    );
}

/// What the server said before it ended.
fn refused(started: Result<ServerProcess, String>) -> String {
    match started {
        Ok(_) => panic!("the server started"),
        Err(said) => said,
    }
}

/// What the program says to whoever started it; the log of other threads may go on after it.
fn last_line(said: &str) -> &str {
    said.lines().rfind(|line| line.starts_with("tracelake: ")).unwrap_or_default()
}
