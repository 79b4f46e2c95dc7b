//! Traces are told as they come in, by the real binary.

use std::time::Duration;

use tonic::Streaming;
use tracelake::base::{Clock, SystemClock};
use tracelake::wire::{Filter, FilterOperator, IngestRequest, Observation, TailRequest, TailResponse};

use crate::process::{ServerProcess, path};

/// Longer than any look takes; a test that fails ends.
const PATIENCE: Duration = Duration::from_secs(60);

async fn next(messages: &mut Streaming<TailResponse>) -> TailResponse {
    let message = tokio::time::timeout(PATIENCE, messages.message()).await.expect("something comes in");
    message.unwrap().expect("the stream goes on")
}

fn part(trace: &str, id: &str, user: &str) -> IngestRequest {
    let observation = Observation {
        trace_id: trace.into(),
        id: id.into(),
        user_id: Some(user.into()),
        start_unix_nano: Some(SystemClock.now_us() * 1_000),
        ..Default::default()
    };
    IngestRequest { observations: vec![observation], ..Default::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trace_is_told_when_it_comes_in_and_again_when_more_of_it_does() {
    let folder = tempfile::tempdir().unwrap();
    let server = ServerProcess::start(path(folder.path()));
    let connection = server.connect().await;
    let of_ada = Filter {
        field: "user_id".into(),
        operator: FilterOperator::Equals.into(),
        values: vec!["ada".into()],
        ..Default::default()
    };
    let asked = TailRequest { filters: vec![of_ada], interval_ms: 1_000, ..Default::default() };
    let mut messages = connection.tail(asked.clone()).await.unwrap();
    connection.ingest(part("other", "1", "bob")).await.unwrap();
    connection.ingest(part("one", "1", "ada")).await.unwrap();
    let first = next(&mut messages).await;
    let told = |message: &TailResponse| -> Vec<(String, i64)> {
        message.traces.iter().map(|trace| (trace.id.clone(), trace.observations)).collect()
    };
    assert_eq!((told(&first), first.dropped), (vec![("one".to_owned(), 1)], 0));
    connection.ingest(part("one", "2", "ada")).await.unwrap();
    assert_eq!(told(&next(&mut messages).await), [("one".to_owned(), 2)]);
    drop(messages);

    // Who goes on from the first message misses nothing that came after it.
    let mut messages = connection.tail(TailRequest { cursor: first.cursor, ..asked }).await.unwrap();
    assert_eq!(told(&next(&mut messages).await), [("one".to_owned(), 2)]);
}
