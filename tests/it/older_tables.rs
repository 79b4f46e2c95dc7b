//! Tables that a version made which did not know a column yet: read, written, merged and read by others as before, and
//! described with the column from the next commit on.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry_proto::tonic::trace::v1::Span;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use prost::Message;
use serde_json::{Value, json};
use tracelake::base::{Clock, Day, ManualClock, SystemClock};
use tracelake::catalog::system::SystemObjects;
use tracelake::catalog::tenants::Tenants;
use tracelake::catalog::{Catalog, NoRollups};
use tracelake::compact::{CompactSettings, Compactor};
use tracelake::store::{Location, Store};

use crate::grpc::{Caller, EXPORT};
use crate::process::{PUBLIC_KEY, SECRET_KEY, ServerProcess, is_asked_for, path, rows};
use crate::spans::{export, export_of, span};

const NEW: &str = "sensitive_kinds";
const TABLES: [&str; 2] = ["observations", "trace_facts"];

/// The commits of a table, in order, each with its actions.
fn commits(table: &Path) -> Vec<(PathBuf, Vec<Value>)> {
    let entries = fs::read_dir(table.join("_delta_log")).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|it| it == "json")).collect();
    paths.sort();
    let actions = |path: PathBuf| {
        let lines = fs::read_to_string(&path).unwrap();
        (path, lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
    };
    paths.into_iter().map(actions).collect()
}

/// Makes a table what the version before the column would have made: neither its schema nor its files have it.
fn make_older(table: &Path) {
    for (commit, mut actions) in commits(table) {
        for action in &mut actions {
            if let Some(schema) = action["metaData"]["schemaString"].as_str() {
                let mut schema: Value = serde_json::from_str(schema).unwrap();
                schema["fields"].as_array_mut().unwrap().retain(|field| field["name"] != NEW);
                action["metaData"]["schemaString"] = schema.to_string().into();
            }
            if let Some(file) = action["add"]["path"].as_str().map(|file| table.join(file)) {
                let bytes = without_the_column(&file);
                action["add"]["size"] = json!(bytes.len());
                action["add"]["tags"]["tracelake.footer_bytes"] = json!(footer_bytes(&bytes).to_string());
                fs::write(file, bytes).unwrap();
            }
        }
        let lines: Vec<String> = actions.iter().map(Value::to_string).collect();
        fs::write(commit, lines.join("\n") + "\n").unwrap();
    }
}

fn without_the_column(file: &Path) -> Vec<u8> {
    let file = bytes::Bytes::from(fs::read(file).unwrap());
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
    let schema = Arc::clone(reader.schema());
    let kept: Vec<usize> = (0..schema.fields().len()).filter(|at| schema.field(*at).name() != NEW).collect();
    assert_eq!(kept.len() + 1, schema.fields().len(), "the file has it");
    let mut writer = ArrowWriter::try_new(Vec::new(), Arc::new(schema.project(&kept).unwrap()), None).unwrap();
    for batch in reader.build().unwrap() {
        writer.write(&batch.unwrap().project(&kept).unwrap()).unwrap();
    }
    writer.into_inner().unwrap()
}

fn footer_bytes(file: &[u8]) -> u32 {
    u32::from_le_bytes(file[file.len() - 8..file.len() - 4].try_into().unwrap()) + 8
}

fn describes(actions: &[Value]) -> Option<bool> {
    actions.iter().find_map(|action| action["metaData"]["schemaString"].as_str()).map(|schema| schema.contains(NEW))
}

async fn flushed(server: &ServerProcess, rows_wanted: i64) {
    let statement = "SELECT coalesce(sum(rows), 0) AS n FROM files WHERE table_name IN ('observations', 'trace_facts')";
    for _ in 0..150 {
        if rows(&server.connect().await, statement).await == [json!({ "n": rows_wanted })] {
            return;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    panic!("{rows_wanted} rows do not get into files");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_table_gets_its_columns_at_the_next_commit_and_nothing_of_it_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let settings = [("TRACELAKE_FLUSH_AFTER_S", "1"), ("TRACELAKE_UPKEEP", "false"), ("TRACELAKE_COMPACT", "false")];
    let table = |name: &str| folder.path().join("tenants/acme").join(name);
    let start = || ServerProcess::try_start(path(folder.path()), &settings).unwrap();
    let send = async |server: &ServerProcess, numbers: std::ops::Range<u64>| {
        let caller = Caller::connect(&server.grpc_addr, PUBLIC_KEY, SECRET_KEY).await;
        caller.call(EXPORT, export_of("call", numbers).encode_to_vec()).await.unwrap();
    };
    let server = start();
    send(&server, 0..3).await;
    flushed(&server, 6).await;
    assert!(server.stop().success());
    TABLES.iter().for_each(|name| make_older(&table(name)));

    let server = start();
    let all = "SELECT id, name, sensitive_kinds FROM observations ORDER BY id";
    let old = rows(&server.connect().await, all).await;
    assert_eq!(old.len(), 3);
    assert!(old.iter().all(|row| row[NEW] == Value::Null && row["name"] == "call"), "{old:?}");
    let found = rows(&server.connect().await, "SELECT * FROM sensitive_use").await;
    assert_eq!(found, Vec::<Value>::new());
    send(&server, 3..6).await;
    flushed(&server, 12).await;
    for name in TABLES {
        let described: Vec<Option<bool>> =
            commits(&table(name)).iter().map(|(_, actions)| describes(actions)).collect();
        assert_eq!(described[0], Some(false), "{name}: as the older version made it");
        assert_eq!(described.iter().filter(|it| **it == Some(true)).count(), 1, "{name}: once: {described:?}");
        let protocols = commits(&table(name)).into_iter().flat_map(|(_, actions)| actions);
        assert_eq!(protocols.filter(|action| action["protocol"].is_object()).count(), 1, "{name}: any reader reads on");
    }
    // What comes late about a row of an old file.
    let later = span("told again", 0);
    let later = Span { end_time_unix_nano: later.end_time_unix_nano + 1_000_000, ..later };
    let caller = Caller::connect(&server.grpc_addr, PUBLIC_KEY, SECRET_KEY).await;
    caller.call(EXPORT, export(vec![later]).encode_to_vec()).await.unwrap();
    assert!(server.stop().success());
    readers_agree(&table("observations"), 6);

    // Old files are written again with the column.
    merge(folder.path()).await;
    let server = start();
    let after = rows(&server.connect().await, all).await;
    let names: Vec<&str> = after.iter().map(|row| row["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["told again", "call", "call", "call", "call", "call"]);
    let live: Vec<String> = rows(&server.connect().await, "SELECT path FROM files WHERE table_name = 'observations'")
        .await
        .iter()
        .map(|row| row["path"].as_str().unwrap().to_owned())
        .collect();
    for file in &live {
        let bytes = bytes::Bytes::from(fs::read(table("observations").join(file)).unwrap());
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap();
        assert!(reader.schema().field_with_name(NEW).is_ok(), "{file} was not written again");
    }
    assert!(server.stop().success());
    readers_agree(&table("observations"), 6);
}

/// Merges as it is done two days from now.
async fn merge(folder: &Path) {
    let clock = Arc::new(ManualClock::at(SystemClock.now_us() + 2 * Day::US));
    let store = Store::open(Location::Folder(folder.into())).await.unwrap();
    let tenants = Tenants::new(SystemObjects::new(store.clone(), clock.clone()));
    let compactor = Compactor::new(
        Catalog::new(store, clock.clone()),
        tenants,
        clock,
        Arc::new(NoRollups),
        CompactSettings::default(),
    )
    .unwrap();
    let done = compactor.run_once().await.unwrap();
    assert!(compactor.parked().is_empty(), "{done:?}, {:?}", compactor.parked());
}

/// By hand, as `readers` is: delta-rs, polars and ClickHouse read the table between its old and its new files.
fn readers_agree(table: &Path, rows: u64) {
    if !is_asked_for("READERS", "older_tables") {
        return;
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/readers/run.sh");
    let read = Command::new("bash").arg(script).arg(table).args(["--rows", &rows.to_string()]).status().unwrap();
    assert!(read.success(), "the readers disagree, or cannot read it: see above");
}
