//! Two servers on one folder: acked on one, right on the other within two seconds (I4), also under flushes.

use std::time::{Duration, Instant};

use tracelake::cli::Connection;

use crate::kills::{id_text, request};
use crate::process::{ServerProcess, path, sql, texts};

/// What the other node may take, and what a loaded machine may take beside it.
const WITHIN: Duration = Duration::from_millis(2000 + 1000);

async fn ids(connection: &Connection) -> Vec<String> {
    texts(&sql(connection, "SELECT id FROM observations ORDER BY id").await.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_node_acked_is_right_on_the_other_within_two_seconds() {
    let folder = tempfile::tempdir().unwrap();
    let start = |writer, flush_after_s| {
        let environment = [("TRACELAKE_WRITER", writer), ("TRACELAKE_FLUSH_AFTER_S", flush_after_s)];
        ServerProcess::try_start(path(folder.path()), &environment).unwrap()
    };
    // One flushes all the time, the other never while this runs.
    // A node finds the logs there are when it starts, and new ones at its next look.
    start("busy", "1").kill();
    let (quiet, busy) = (start("quiet", "900"), start("busy", "1"));
    let connections = [busy.connect().await, quiet.connect().await];
    let mut expected: Vec<String> = Vec::new();
    let mut slowest = Duration::ZERO;
    for round in 0..12 {
        let [connection, other] = [&connections[round % 2], &connections[1 - round % 2]];
        // A few new ones, and some that the other node acked before.
        let first = 4 * round as u64;
        connection.export(request(first, 4)).await.unwrap();
        if first >= 8 {
            connection.export(request(first - 6, 3)).await.unwrap();
        }
        expected.extend((first..first + 4).map(id_text));
        let acked = Instant::now();
        assert_eq!(ids(connection).await, expected, "on the node that acked, at once");
        loop {
            let found = ids(other).await;
            let mut once = found.clone();
            once.dedup();
            assert_eq!(once, found, "no id twice");
            if found == expected {
                break;
            }
            assert!(acked.elapsed() < WITHIN, "{} of {} ids after {WITHIN:?}", found.len(), expected.len());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        slowest = slowest.max(acked.elapsed());
    }
    let sent = expected.len();
    println!("{sent} ids, seen on the other node after at most {slowest:?}");
    assert!(busy.stop().success());
    assert_eq!(ids(&connections[1]).await.len(), expected.len());
    assert!(quiet.stop().success());
}
