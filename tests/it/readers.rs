//! Others read our tables while we write them, with re-sends and late changes, and read the same as our own SQL: each id
//! at most once at every version; also when only checkpoints are left of their early logs.
//!
//! By hand: `TRACELAKE_TEST_READERS=1 cargo test --test it readers` (Python's readers are installed into a cache).

use std::path::Path;
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use tracelake::base::{Clock, Day, ManualClock, SystemClock};
use tracelake::catalog::Catalog;
use tracelake::catalog::system::SystemObjects;
use tracelake::catalog::tenants::Tenants;
use tracelake::cli::Connection;
use tracelake::compact::{CompactSettings, Compactor, Upkeep, UpkeepSettings, Vacuum};
use tracelake::corpus::{CorpusConfig, TextSize, requests};
use tracelake::model::tables::Table;
use tracelake::query::FileRollups;
use tracelake::store::{Location, Store};

use crate::process::{ServerProcess, is_asked_for, path, sql, texts};

const LOAD: Duration = Duration::from_secs(15);
/// Spans sent before the clock is asked again; each such part holds whole traces.
const PART: u64 = 400;
const TABLES: [&str; 3] = ["observations", "observation_io", "trace_facts"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_from_elsewhere_agree_with_sql_while_rows_come_in() {
    if !is_asked_for("READERS", "readers") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let server = ServerProcess::try_start(path(folder.path()), &[("TRACELAKE_FLUSH_AFTER_S", "1")]).unwrap();
    let tables: Vec<String> =
        TABLES.iter().map(|table| format!("{}/tenants/acme/{table}", path(folder.path()))).collect();
    let connection = server.connect().await;

    let mut part = 0;
    let mut sent: Vec<ExportTraceServiceRequest> = Vec::new();
    let mut send = async |connection: &Connection| {
        part += 1;
        let now_us = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as i64;
        let config = CorpusConfig {
            seed: part,
            observations: PART,
            start_us: now_us - 3 * Day::US,
            end_us: now_us,
            text: TextSize::Small,
            ..CorpusConfig::default()
        };
        for (at, request) in requests(config, 50).enumerate() {
            // One in twenty is kept and sent again: as it was while it is fresh, and with a late end after its flush.
            if at == 0 {
                sent.push(request.clone());
            }
            connection.export(request).await.unwrap();
        }
        for again in sent.iter().rev().take(2) {
            connection.export(again.clone()).await.unwrap();
        }
        if sent.len() > 20 {
            connection.export(ended_later(sent.remove(0))).await.unwrap();
        }
    };
    while !tables.iter().all(|table| Path::new(table).join("_delta_log").is_dir()) {
        send(&connection).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let mut reading = Reading::start(&tables, &["--watch", &LOAD.as_secs().to_string()]);
    let began = Instant::now();
    // For as long as they read, however long they took to load.
    while reading.is_running() {
        send(&connection).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let took = began.elapsed();
    assert!(reading.succeeded(), "the readers disagree, or cannot read us: see above");

    let mut expected = Vec::new();
    for table in TABLES {
        let cost = if table == "observations" { "sum(total_cost)" } else { "0" };
        let count = texts(&sql(&connection, &format!("SELECT count(*) FROM {table}")).await.unwrap()).remove(0);
        let cost = texts(&sql(&connection, &format!("SELECT {cost} FROM {table}")).await.unwrap()).remove(0);
        expected.push((count, cost));
    }
    assert_eq!(expected[0].0, (part * PART).to_string(), "every span sent counts once");
    let told_again = "SELECT count(*) FROM observations WHERE name LIKE '% told again'";
    let told_again = texts(&sql(&connection, told_again).await.unwrap()).remove(0);
    assert_ne!(told_again, "0", "nothing came late");
    println!("{} spans in {:.1} s, cost {} USD", expected[0].0, took.as_secs_f64(), expected[0].1);
    assert!(server.stop().success());
    // What came late is in no file before it is folded in; then they read what SQL said, and each id once all along.
    fold(folder.path()).await;
    let read = |more: &[&str]| {
        for (table, (count, cost)) in tables.iter().zip(&expected) {
            let said = [&["--rows", count, "--cost-sum", cost], more].concat();
            let mut reading = Reading::start(std::slice::from_ref(table), &said);
            assert!(reading.succeeded(), "{table} is not what SQL said: see above");
        }
    };
    read(&["--every-version"]);
    let mut reading = Reading::start(&tables[..1], &["--told-again", &told_again]);
    assert!(reading.succeeded(), "late changes are not what SQL said: see above");
    clean_logs(folder.path()).await;
    read(&["--cleaned"]);
}

/// Folds as they are done two hours from now.
async fn fold(folder: &Path) {
    let clock = Arc::new(ManualClock::at(SystemClock.now_us() + 2 * 3_600_000_000));
    let store = Store::open(Location::Folder(folder.into())).await.unwrap();
    let tenants = Tenants::new(SystemObjects::new(store.clone(), clock.clone()));
    let catalog = Catalog::new(store, clock.clone());
    let compactor =
        Compactor::new(catalog, tenants, clock, Arc::new(FileRollups::new().unwrap()), CompactSettings::default())
            .unwrap();
    let done = compactor.run_once().await.unwrap();
    assert!(done.folded > 0 && compactor.parked().is_empty(), "{done:?}, {:?}", compactor.parked());
    println!("{done}; {} late objects folded in", done.folded);
}

/// Upkeep as it is done three days from now: checkpoints stand for most of the tables' logs.
async fn clean_logs(folder: &Path) {
    let clock = Arc::new(ManualClock::at(SystemClock.now_us() + 3 * Day::US));
    let store = Store::open(Location::Folder(folder.into())).await.unwrap();
    let catalog = Catalog::new(store, clock.clone());
    let tenant = "acme".parse().unwrap();
    for table in TABLES {
        catalog.checkpoint(&tenant, Table::from_name(table).unwrap()).await.unwrap().unwrap();
    }
    let settings = UpkeepSettings { clock_ahead_max_s: 0, deletes_per_s: 10_000, ..Default::default() };
    let how = Vacuum { listing: true, ..Default::default() };
    for (table, report) in Upkeep::new(catalog, clock, settings).vacuum(&tenant, how).await.unwrap() {
        println!("{}: {} old files of the log deleted", table.name(), report.log.objects);
        assert_eq!(report.error, None);
    }
}

/// The same spans, told again with another name and an end a moment later.
fn ended_later(mut request: ExportTraceServiceRequest) -> ExportTraceServiceRequest {
    let scopes = request.resource_spans.iter_mut().flat_map(|resource| &mut resource.scope_spans);
    for span in scopes.flat_map(|scope| &mut scope.spans) {
        span.end_time_unix_nano += 1_000_000;
        span.name.push_str(" told again");
    }
    request
}

/// `tests/readers/run.sh` as a process; ended with us.
struct Reading(Child);

impl Reading {
    fn start(tables: &[String], more: &[&str]) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/readers/run.sh");
        Self(Command::new("bash").arg(script).args(tables).args(more).spawn().unwrap())
    }

    fn is_running(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }

    fn succeeded(&mut self) -> bool {
        self.0.wait().unwrap().success()
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        // run.sh becomes Python by exec: this is the reader itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
