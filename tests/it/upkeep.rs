//! The command line's upkeep on a folder that a real server wrote.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::trace::v1::Span;
use tracelake::base::Day;
use tracelake::corpus::{CorpusConfig, TextSize, requests};

use crate::http::HttpRequest;
use crate::process::{ServerProcess, path, sql, texts};
use crate::spans::export_of;

const OBSERVATIONS: u64 = 400;

fn tracelake(arguments: &[&str]) -> (Output, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_tracelake")).args(arguments).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output, said)
}

/// The doctor finds nothing wrong.
pub(crate) fn assert_healthy(data: &str) {
    let (output, said) = tracelake(&["doctor", "--data", data]);
    assert!(output.status.success(), "{said}");
}

/// The files below `folder` whose names end in `ending`.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path, ending)),
            false if path.to_str().is_some_and(|path| path.ends_with(ending)) => found.push(path),
            false => {}
        }
    }
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_is_vacuumed_examined_and_mended_by_hand() {
    let folder = tempfile::tempdir().unwrap();
    let data = path(folder.path());
    let server = ServerProcess::try_start(data, &[("TRACELAKE_FLUSH_AFTER_S", "1")]).unwrap();
    let connection = server.connect().await;
    let now_us = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as i64;
    let config = CorpusConfig {
        seed: 5,
        observations: OBSERVATIONS,
        start_us: now_us - 40 * Day::US,
        end_us: now_us,
        text: TextSize::Small,
        ..CorpusConfig::default()
    };
    for request in requests(config, 50) {
        connection.export(request).await.unwrap();
    }
    let mut counted = Vec::new();
    for _ in 0..100 {
        let files = "SELECT sum(rows) FROM files WHERE table_name = 'observations'";
        counted = texts(&sql(&connection, files).await.unwrap());
        if counted == [OBSERVATIONS.to_string()] {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(counted, [OBSERVATIONS.to_string()], "in files within 20 seconds");
    assert!(server.stop().success());

    let (output, said) = tracelake(&["doctor", "--data", data]);
    assert!(output.status.success() && said.contains("nothing is wrong"), "{said}");

    let (_, said) = tracelake(&["tenant", "retention", "acme", "--data", data]);
    assert_eq!(said, "rows are kept for ever\n");
    let rule = ["tenant", "retention", "acme", "--days", "30", "--table", "scores=7", "--data", data];
    assert_eq!(tracelake(&rule).1, "rows are kept for 30 days, those of scores for 7 days\n");
    let data_files = |table: &str| {
        let mut found = files(&folder.path().join("tenants/acme").join(table), ".parquet");
        found.retain(|path| path.to_string_lossy().contains("day="));
        found
    };
    let before = data_files("observations").len();
    let (output, said) = tracelake(&["vacuum", "--dry-run", "--data", data]);
    assert!(output.status.success() && said.contains("observations") && said.contains("nothing was deleted"), "{said}");
    // The first drops the days, the second deletes their files.
    for went in ["over", "removed"] {
        let (output, said) = tracelake(&["vacuum", "--data", data, "--removed-files-kept-s", "0"]);
        assert!(output.status.success() && said.contains("acme") && said.contains(went), "{said}");
    }
    assert!(data_files("observations").len() < before, "{before} before");
    let (output, said) = tracelake(&["doctor", "--data", data, "--tenant", "acme"]);
    assert!(output.status.success() && said.contains("nothing is wrong"), "the books know what was dropped: {said}");

    let index = files(&folder.path().join("tenants/acme/_index/observations"), "").remove(0);
    std::fs::remove_file(index).unwrap();
    let (output, said) = tracelake(&["doctor", "--data", data]);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("is missing") && said.contains("make it anew"), "{said}");
    let (output, said) = tracelake(&["doctor", "--fix", "--data", data]);
    assert!(output.status.success() && said.contains("done: make it anew"), "{said}");
    assert!(tracelake(&["doctor", "--data", data]).0.status.success());
    std::fs::remove_file(data_files("observation_io").remove(0)).unwrap();
    let (output, said) = tracelake(&["doctor", "--fix", "--data", data]);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("rows are lost"), "{said}");

    for refused in [["vacuum", "--tenant", "nobody"], ["doctor", "--tenant", "nobody"]] {
        let (output, said) = tracelake(&[&refused[..], &["--data", data]].concat());
        assert!(!output.status.success() && said.contains("tenant nobody does not exist"), "{said}");
    }
    let (output, said) = tracelake(&["tenant", "retention", "acme", "--table", "spans=3", "--data", data]);
    assert!(!output.status.success() && said.contains("there is no table \"spans\""), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prometheus_and_the_ledger_say_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let data = path(folder.path());
    let server = ServerProcess::try_start(data, &[("TRACELAKE_FLUSH_AFTER_S", "1")]).unwrap();
    let connection = server.connect().await;
    let mut request = export_of("call", 0..40);
    // One span twice in a request, and one without an id.
    let spans = &mut request.resource_spans[0].scope_spans[0].spans;
    spans.push(spans[0].clone());
    spans.push(Span { span_id: Vec::new(), ..spans[0].clone() });
    for _ in 0..2 {
        connection.export(request.clone()).await.unwrap();
    }
    let booked =
        "SELECT concat('door=\"', door, '\",outcome=\"', outcome, '\",reason=\"', coalesce(reason, ''), '\"} ',
                                CAST(sum(count) AS VARCHAR)) FROM ledger GROUP BY door, outcome, reason";
    let mut seen = (Vec::new(), Vec::new());
    for _ in 0..200 {
        let said = HttpRequest::get("/metrics").send(&server.http_addr).await;
        let text = String::from_utf8(said.body).unwrap();
        let mut counted: Vec<String> =
            text.lines().filter_map(|line| line.strip_prefix("tracelake_ledger_total{")).map(str::to_owned).collect();
        counted.sort();
        let mut kept = texts(&sql(&connection, booked).await.unwrap());
        kept.sort();
        seen = (counted, kept);
        if seen.0 == seen.1 && seen.0.len() == 4 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let expected =
        ["merged", "received", "rejected", "stored"].into_iter().zip(["", "", "missing_id", ""]).zip([42, 84, 2, 40]);
    let expected: Vec<String> = expected
        .map(|((outcome, reason), count)| {
            format!("door=\"otlp-grpc\",outcome=\"{outcome}\",reason=\"{reason}\"}} {count}")
        })
        .collect();
    assert_eq!(seen, (expected.clone(), expected));
}
