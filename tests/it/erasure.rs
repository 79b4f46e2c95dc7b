//! Forgetting, from the outside: gone at once, refused, gone after a kill, and in the end in no object of the store.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use prost::Message;
use sha2::{Digest, Sha256};
use tracelake::base::SystemClock;
use tracelake::catalog::{Catalog, NoRollups};
use tracelake::compact::{EraseSettings, Eraser};
use tracelake::format::{late::LateObject, log};
use tracelake::store::Store;

use crate::grpc::{Caller, EXPORT, basic};
use crate::http::HttpRequest;
use crate::process::{PUBLIC_KEY, SECRET_KEY, ServerProcess, path, rows};
use crate::spans::{export, span};

const ADA: &str = "ada@example.org";
const ADAS_SECRET: &str = "the child of Ada is ill";
const BOB: &str = "bob@example.org";
const BOBS_WORDS: &str = "Bob asks for the weather";
const TABLES: [&str; 4] = ["observations", "observation_io", "trace_facts", "scores"];
/// The upkeep is done by the test, with short times.
const SHORT: [(&str, &str); 3] =
    [("TRACELAKE_FLUSH_AFTER_S", "1"), ("TRACELAKE_INGEST_LOG_KEPT_S", "0"), ("TRACELAKE_UPKEEP", "false")];

fn said(number: u64, user: &str, words: &str, more: &str) -> Span {
    let text = |key: &str, value: &str| KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(Value::StringValue(value.to_owned())) }),
        ..Default::default()
    };
    let session = format!("session of {user}");
    let attributes = [
        ("user.id", user),
        ("session.id", session.as_str()),
        ("langfuse.observation.input", words),
        ("langfuse.observation.output", more),
        ("langfuse.trace.input", words),
    ];
    Span { attributes: attributes.map(|(key, value)| text(key, value)).into(), ..span("call", number) }
}

fn adas(numbers: std::ops::Range<u64>, more: &str) -> Vec<Span> {
    numbers.map(|number| said(number, ADA, ADAS_SECRET, more)).collect()
}

fn bobs(numbers: std::ops::Range<u64>) -> Vec<Span> {
    numbers.map(|number| said(number, BOB, BOBS_WORDS, "sun")).collect()
}

fn trace_id(number: u64) -> String {
    format!("{:032x}", number + 1)
}

struct World {
    folder: tempfile::TempDir,
    server: ServerProcess,
}

impl World {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let server = ServerProcess::try_start(path(folder.path()), &SHORT).unwrap();
        Self { folder, server }
    }

    fn kill_and_restart(self) -> Self {
        let Self { folder, server } = self;
        server.kill();
        let server = ServerProcess::try_start(path(folder.path()), &SHORT).unwrap();
        Self { folder, server }
    }

    /// Returns how many spans were rejected, and why.
    async fn send(&self, spans: Vec<Span>) -> (i64, String) {
        let caller = Caller::connect(&self.server.grpc_addr, PUBLIC_KEY, SECRET_KEY).await;
        let answer = caller.call(EXPORT, export(spans).encode_to_vec()).await.unwrap();
        let partial = ExportTraceServiceResponse::decode(answer.as_slice()).unwrap().partial_success;
        partial.map_or((0, String::new()), |partial| (partial.rejected_spans, partial.error_message))
    }

    async fn number(&self, statement: &str) -> i64 {
        let answer = rows(&self.server.connect().await, statement).await;
        answer[0].as_object().unwrap().values().next().unwrap().as_i64().unwrap_or(0)
    }

    async fn until(&self, statement: &str, at_least: i64) {
        for _ in 0..100 {
            if self.number(statement).await >= at_least {
                return;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        panic!("{statement} stays below {at_least}");
    }

    fn command(&self, arguments: &[&str]) -> String {
        let ran = Command::new(env!("CARGO_BIN_EXE_tracelake"))
            .args(arguments)
            .env("TRACELAKE_SERVER", &self.server.grpc_addr)
            .env("TRACELAKE_PUBLIC_KEY", PUBLIC_KEY)
            .env("TRACELAKE_SECRET_KEY", SECRET_KEY)
            .output()
            .unwrap();
        assert!(ran.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&ran.stderr));
        String::from_utf8(ran.stdout).unwrap()
    }

    /// Nothing of Ada's is in any answer, and `bobs` traces of Bob's are.
    async fn shows_only_bob(&self, bobs: i64) {
        for table in TABLES {
            let adas: Vec<String> = (0..9).map(|number| format!("'{}'", trace_id(number))).collect();
            let adas = format!("SELECT count(*) FROM {table} WHERE trace_id IN ({})", adas.join(","));
            assert_eq!(self.number(&adas).await, 0, "{table}");
        }
        assert_eq!(self.number("SELECT count(*) FROM observations").await, bobs);
        assert_eq!(self.number("SELECT count(*) FROM trace_facts").await, bobs);
        let texts = format!("SELECT count(*) FROM observation_io WHERE input = '{BOBS_WORDS}'");
        assert_eq!(self.number(&texts).await, bobs * 2, "of each trace, and of its observation");
    }

    async fn books_balance(&self) {
        let of = async |outcome: &str| {
            self.number(&format!("SELECT sum(count) FROM ledger WHERE outcome = '{outcome}'")).await
        };
        let kept = of("stored").await + of("merged").await + of("rejected").await + of("erased").await;
        assert_eq!(of("received").await, kept);
    }

    /// Brings the erasures to their end, with times that are over at once.
    async fn finish(&self) {
        let store = Store::open(path(self.folder.path()).parse().unwrap()).await.unwrap();
        let clock = Arc::new(SystemClock);
        let at_once = EraseSettings {
            settle_s: 0,
            linger_s: 0,
            orphans_kept_s: 0,
            log_kept_s: 0,
            look_every_s: 1,
            ..Default::default()
        };
        let eraser = Eraser::new(Catalog::new(store, clock.clone()), clock, Arc::new(NoRollups), at_once);
        for _ in 0..120 {
            if eraser.round().await.unwrap() == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        panic!("the erasures do not come to an end");
    }

    fn objects_with(&self, words: &str) -> Vec<PathBuf> {
        objects_with(self.folder.path(), words)
    }
}

/// Objects in which these bytes stand, also inside what is compressed.
pub(crate) fn objects_with(folder: &Path, words: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    each_file(folder, &mut |path, body| {
        if contains(body, words) || plain(path, body).iter().any(|text| contains(text, words)) {
            found.push(path.to_owned());
        }
    });
    found
}

fn contains(body: &[u8], words: &str) -> bool {
    body.windows(words.len()).any(|part| part == words.as_bytes())
}

fn each_file(folder: &Path, each: &mut dyn FnMut(&Path, &[u8])) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        match entry.file_type().unwrap().is_dir() {
            true => each_file(&entry.path(), each),
            false => each(&entry.path(), &fs::read(entry.path()).unwrap_or_default()),
        }
    }
}

/// What an object says once it is decompressed.
fn plain(path: &Path, body: &[u8]) -> Vec<Vec<u8>> {
    let parquet_rows = |body: Bytes| {
        let reader = ParquetRecordBatchReaderBuilder::try_new(body).unwrap().build().unwrap();
        reader.map(|batch| format!("{:?}", batch.unwrap()).into_bytes()).collect::<Vec<_>>()
    };
    let name = path.to_str().unwrap();
    if name.ends_with(".parquet") {
        return parquet_rows(Bytes::copy_from_slice(body));
    }
    if name.contains("/wal/") {
        let frames = log::decode_object(body).map_or(Vec::new(), |(_, frames)| frames);
        return frames.into_iter().map(|frame| frame.payload).collect();
    }
    if name.contains("/_late/") {
        let late = LateObject::decode_object(Bytes::copy_from_slice(body)).unwrap();
        return late.days.into_iter().flat_map(|day| parquet_rows(day.rows)).collect();
    }
    Vec::new()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_is_gone_from_answers_at_once_and_in_the_end_from_every_object() {
    let world = World::start();
    // In files, changed late, and fresh.
    world.send([adas(0..3, "one"), bobs(10..13)].concat()).await;
    world.until("SELECT count(*) FROM files WHERE table_name = 'observations'", 1).await;
    world
        .until("SELECT coalesce(sum(rows), 0) FROM files WHERE table_name = 'scores' OR table_name = 'observations'", 6)
        .await;
    world.send(adas(0..1, "another answer")).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    world.send([adas(3..5, "two"), bobs(13..15)].concat()).await;

    let exported = world.folder.path().join("export");
    let exported_to = exported.to_str().unwrap();
    world.command(&["subject", "export", "--user", ADA, "--out", exported_to]);
    check_export(&exported, 5);
    fs::remove_dir_all(&exported).unwrap();

    assert!(!world.objects_with(ADAS_SECRET).is_empty(), "the search finds what is there");
    let told = world.command(&["erase", "--user", ADA]);
    assert!(told.contains("no answer shows it"), "{told}");
    world.shows_only_bob(5).await;
    let (rejected, why) = world.send([adas(0..4, "again"), bobs(15..16)].concat()).await;
    assert_eq!((rejected, why.contains("erased")), (4, true), "{why}");
    world.shows_only_bob(6).await;
    world.books_balance().await;

    let world = world.kill_and_restart();
    world.shows_only_bob(6).await;
    assert_eq!(world.send(adas(0..9, "again")).await.0, 9, "refused after a restart too");
    world.shows_only_bob(6).await;

    // A trace, as Langfuse's clients delete it.
    let delete = HttpRequest::delete(&format!("/api/public/traces/{}", trace_id(15)), "");
    let answer = delete.header("authorization", &basic(PUBLIC_KEY, SECRET_KEY)).send(&world.server.http_addr).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    world.shows_only_bob(5).await;

    world.finish().await;
    for words in [ADA, ADAS_SECRET, "another answer"] {
        assert_eq!(world.objects_with(words), Vec::<PathBuf>::new(), "{words:?}");
    }
    assert!(!world.objects_with(BOBS_WORDS).is_empty(), "neighbours are untouched");
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    world.shows_only_bob(5).await;
    world.books_balance().await;
    let receipts = rows(&world.server.connect().await, "SELECT * FROM erasures ORDER BY asked_at").await;
    assert_eq!(receipts.len(), 2, "{receipts:?}");
    assert_eq!((&receipts[0]["kind"], &receipts[0]["state"]), (&"user".into(), &"done".into()), "{receipts:?}");
    assert_eq!((&receipts[0]["observations"], &receipts[0]["asked_by"]), (&5.into(), &PUBLIC_KEY.into()));
    assert!(receipts[0]["files_rewritten"].as_i64() > Some(0), "{receipts:?}");
    assert!(!receipts[0]["subjects"].as_str().unwrap().contains(ADA));
    assert!(receipts[0]["done_at"].as_str() >= receipts[0]["rewritten_at"].as_str(), "{receipts:?}");
    assert!(world.command(&["erasures"]).contains("done"));
}

/// The files hold what the receipt says.
fn check_export(folder: &Path, observations: u64) {
    let receipt: serde_json::Value = serde_json::from_slice(&fs::read(folder.join("receipt.json")).unwrap()).unwrap();
    let files = receipt["files"].as_array().unwrap();
    assert_eq!(files.len(), 8, "{receipt}");
    for file in files {
        let name = file["name"].as_str().unwrap();
        let body = fs::read(folder.join(name)).unwrap();
        let sha256: String = Sha256::digest(&body).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(file["sha256"], sha256, "{name}");
        let rows = file["rows"].as_u64().unwrap();
        if name.ends_with(".jsonl") {
            assert_eq!(body.iter().filter(|byte| **byte == b'\n').count() as u64, rows, "{name}");
        }
        if name.starts_with("observations.") || name.starts_with("trace_facts.") {
            assert_eq!(rows, observations, "{name}: fresh rows are in it");
        }
        if name == "observation_io.jsonl" {
            assert!(contains(&body, ADAS_SECRET) && !contains(&body, BOBS_WORDS));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_that_is_deleted_leaves_nothing_behind() {
    let world = World::start();
    world.send(adas(0..3, "one")).await;
    world.until("SELECT count(*) FROM files WHERE table_name = 'observations'", 1).await;
    world.send(adas(3..5, "two")).await;
    world.command(&["tenant", "delete", "acme", "--data", path(world.folder.path())]);
    // Until the server has heard of it; then another look of its log's upkeep lets the log go.
    world.finish().await;
    for words in [ADA, ADAS_SECRET] {
        assert_eq!(world.objects_with(words), Vec::<PathBuf>::new(), "{words:?}");
    }
    let left = world.folder.path().join("tenants/acme");
    let mut objects = 0;
    if left.exists() {
        each_file(&left, &mut |_, _| objects += 1);
    }
    assert_eq!(objects, 0);
    let receipts = world.folder.path().join("system/receipts/acme");
    assert_eq!(fs::read_dir(receipts).unwrap().count(), 1);
}
