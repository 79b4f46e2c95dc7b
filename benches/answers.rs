//! The questions that dashboards ask, beside DuckDB and chdb on the same files in the same run: the way out as its users
//! see it, first and again. `rivals.py` asks the two others.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::TryStreamExt;
use serde_json::{Value as Json, json};
use tracelake::base::SystemClock;
use tracelake::catalog::system::SystemObjects;
use tracelake::catalog::tenants::Tenants;
use tracelake::catalog::{Catalog, NoFreshRows};
use tracelake::compact::{CompactSettings, Compactor};
use tracelake::corpus::TextSize;
use tracelake::model::tables::Table;
use tracelake::model::{Event, EventKind, Observation, Order, Score};
use tracelake::query::{Engine, FileRollups, QueryLimits};
use tracelake::store::{Location, data_object};
use tracelake::wire::{GetTraceRequest, ListTracesRequest, Reading, SearchTracesRequest};

use crate::Settings;
use crate::questions::{Ask, LONG_TRACE, QUESTIONS, Question, TRACE_OBSERVATIONS, day};
use crate::report::{Baseline, Report};
use crate::timing;
use crate::way_in::{Server, tenant};
use crate::way_out::{limits, rows};

/// Each question again, until so many times or so long.
const AGAIN: usize = 30;
const PATIENCE: Duration = Duration::from_secs(6);
/// What the geometric mean of our times by the better rival's may be.
const AIM: f64 = 2.0;

pub(crate) fn run(settings: &Settings, report: &mut Report) {
    let server = Server::start(settings);
    server.fill(settings.observations, TextSize::Small);
    long_trace(&server);
    scores(&server, settings.observations / 20);
    server.run(server.ingest.flush(true)).expect("the flush is committed");
    merge(&server, report);
    let Location::Folder(folder) = server.catalog.store().location().clone() else {
        println!("answers: the rivals read files of a folder, so --data must be one");
        return server.kill().1.map_or((), drop);
    };
    let files = files(&server, &folder);
    for (table, files) in files.as_object().into_iter().flatten() {
        report.value(&format!("files of {table}"), files.as_array().map_or(0, Vec::len) as f64, "files");
    }
    let again = if timing::is_once() { 1 } else { AGAIN };
    let rivals = rivals(&files, again);
    let (mut product, mut compared) = (1.0_f64, 0);
    for question in QUESTIONS {
        let ours = Ours::of(&server, question, again);
        let rival = rivals.as_ref().and_then(|times| best(&times[question.name]));
        if let Some(rival) = &rival {
            product *= ours.quantile(0.5) / rival.again.value;
            compared += 1;
        }
        let note = format!(
            "p95 {:.1}, p99 {:.1}; first {:.0}{}; {} KiB, {} requests{}",
            ours.quantile(0.95),
            ours.quantile(0.99),
            ours.first,
            rival.as_ref().map(|rival| format!(" (best {:.0})", rival.first)).unwrap_or_default(),
            ours.bytes >> 10,
            ours.requests,
            ours.of_rows.map(|of_rows| format!("; by rows {of_rows:.1}")).unwrap_or_default(),
        );
        report.noted(question.name, ours.quantile(0.5), "ms", rival.map(|rival| rival.again), note);
    }
    if compared > 0 {
        let mean = product.powf(1.0 / f64::from(compared));
        report.against("geometric mean of the ratios", mean, "", Baseline { name: "at most", value: AIM });
    }
    server.kill();
}

/// The day as workers leave it: few sorted files, summed up.
fn merge(server: &Server, report: &mut Report) {
    let (store, clock) = (server.catalog.store().clone(), Arc::new(SystemClock));
    let tenants = Tenants::new(SystemObjects::new(store, clock.clone()));
    let rollups = Arc::new(FileRollups::new().expect("a session"));
    let settings = CompactSettings { quiet_s: 0, ..CompactSettings::default() };
    let compactor = Compactor::new(server.catalog.clone(), tenants, clock, rollups, settings);
    let compactor = compactor.expect("the settings are right");
    let (milliseconds, done) = timed(|| server.run(compactor.run_once()).expect("the day is sealed"));
    report.value("merged before", done.rows_in as f64 / milliseconds * 1e3, "rows/s");
    for table in [Table::Observations, Table::ObservationIo] {
        let snapshot = server.run(server.catalog.snapshot(&tenant(), table)).expect("the table loads");
        let rolled_up: u64 =
            snapshot.files.values().flat_map(|file| file.rollups.all()).map(|(_, facts)| facts.size_bytes).sum();
        report.value(&format!("roll-ups of {}", table.name()), rolled_up as f64, "bytes");
    }
}

/// What a question took: milliseconds.
struct Ours {
    first: f64,
    /// Sorted.
    again: Vec<f64>,
    /// Read and requested the first time.
    bytes: u64,
    requests: u64,
    /// Again without roll-ups, where there were some.
    of_rows: Option<f64>,
}

impl Ours {
    /// First by an engine that was just started: it knows no table and no footer. The files are in the system's cache.
    fn of(server: &Server, question: &Question, again: usize) -> Self {
        let store = server.catalog.store();
        let catalog = Catalog::new(store.clone(), Arc::new(SystemClock));
        let engine = |limits| Engine::new(catalog.clone(), Arc::new(NoFreshRows), limits).expect("an engine");
        let (engine, plain) = (engine(limits()), engine(QueryLimits { rollups: false, ..limits() }));
        let counted = || {
            let counts = store.counts();
            counts.get + counts.list + counts.put
        };
        let before = counted();
        let (first, Read { bytes, rolled_up }) = timed(|| server.run(answer(&engine, &question.ask)));
        let requests = counted() - before;
        let of_rows = (rolled_up > 0).then(|| {
            server.run(answer(&plain, &question.ask));
            timed(|| server.run(answer(&plain, &question.ask))).0
        });
        let began = Instant::now();
        let mut times = Vec::with_capacity(again);
        while times.len() < again && (began.elapsed() < PATIENCE || times.len() < 3.min(again)) {
            times.push(timed(|| server.run(answer(&engine, &question.ask))).0);
        }
        times.sort_by(f64::total_cmp);
        Self { first, again: times, bytes, requests, of_rows }
    }

    fn quantile(&self, quantile: f64) -> f64 {
        self.again[((self.again.len() - 1) as f64 * quantile).round() as usize]
    }
}

fn timed<T>(work: impl FnOnce() -> T) -> (f64, T) {
    let began = Instant::now();
    let done = work();
    (began.elapsed().as_secs_f64() * 1e3, done)
}

/// What an answer was made from.
#[derive(Default)]
struct Read {
    bytes: u64,
    /// Files whose roll-ups stood for their rows.
    rolled_up: u64,
}

impl Read {
    fn of(reading: Option<Reading>) -> Self {
        let reading = reading.unwrap_or_default();
        Self { bytes: reading.bytes, rolled_up: reading.files_rolled_up }
    }
}

/// Asks, and takes all of the answer.
async fn answer(engine: &Engine, ask: &Ask) -> Read {
    let range = Some(day());
    match ask {
        Ask::Metrics(asks) => {
            let answers = engine.metrics(&tenant(), asks()).await.expect("the questions are answered");
            // Each says what was read until it was made.
            Read::of(answers.into_iter().next_back().and_then(|answer| answer.reading))
        }
        Ask::Sql(statement) => {
            rows(engine, &tenant(), statement).await;
            Read::default()
        }
        Ask::List => {
            let request = ListTracesRequest { range, ..Default::default() };
            Read::of(engine.list_traces(&tenant(), request).await.expect("traces are listed").reading)
        }
        Ask::Search(text) => {
            let request = SearchTracesRequest { range, text: (*text).to_owned(), ..Default::default() };
            Read::of(engine.search_traces(&tenant(), request).await.expect("traces are searched").reading)
        }
        Ask::Trace => {
            let request = GetTraceRequest { trace_id: LONG_TRACE.to_owned(), with_io: true, range };
            let parts = engine.trace(&tenant(), request).await.expect("the trace is there");
            let parts: Vec<_> = parts.try_collect().await.expect("it comes whole");
            let sent: usize = parts.iter().map(|part| part.observations.len()).sum();
            assert_eq!(sent, TRACE_OBSERVATIONS);
            Read::of(parts.into_iter().find_map(|part| part.reading))
        }
    }
}

struct Rival {
    first: f64,
    again: Baseline,
}

/// The one of the two that answers sooner.
fn best(times: &Json) -> Option<Rival> {
    let rival = |name: &'static str| {
        let again = times[name]["others"].as_array()?;
        let value = again.get((again.len().max(1) - 1) / 2)?.as_f64()?;
        Some(Rival { first: times[name]["first"].as_f64()?, again: Baseline { name, value } })
    };
    let both = [rival("duckdb"), rival("chdb")].into_iter().flatten();
    both.min_by(|one, other| one.again.value.total_cmp(&other.again.value))
}

fn rivals(files: &Json, again: usize) -> Option<Json> {
    let questions: Vec<Json> =
        QUESTIONS.iter().map(|it| json!({"name": it.name, "duckdb": it.duckdb, "chdb": it.chdb})).collect();
    let given = json!({"tables": files, "runs": again, "questions": questions}).to_string();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/readers/run.sh");
    let mut command = Command::new("bash");
    command.args([script, "../../benches/rivals.py"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let answered = command.spawn().and_then(|mut child| {
        child.stdin.take().expect("it was asked for").write_all(given.as_bytes())?;
        child.wait_with_output()
    });
    match answered {
        Ok(output) if output.status.success() => Some(serde_json::from_slice(&output.stdout).expect("JSON")),
        failed => {
            println!("answers: no rival could be asked: {:?}", failed.map(|output| output.status));
            None
        }
    }
}

/// The live files of each table.
fn files(server: &Server, folder: &Path) -> Json {
    let of = |table: Table| {
        let snapshot = server.run(server.catalog.snapshot(&tenant(), table)).expect("the table loads");
        let paths = snapshot.files.values().map(|file| data_object(&tenant(), table.name(), &file.path));
        let paths: Vec<Json> = paths.map(|path| folder.join(path.as_ref()).display().to_string().into()).collect();
        (table.name().to_owned(), Json::from(paths))
    };
    [Table::Observations, Table::ObservationIo, Table::Scores]
        .map(of)
        .into_iter()
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// One trace of many observations with texts.
fn long_trace(server: &Server) {
    let start_us = day().from_unix_micros;
    let observation = |at: usize| {
        let observation = Observation {
            trace_id: LONG_TRACE.into(),
            id: format!("step-{at}"),
            parent_id: (at > 0).then(|| "step-0".to_owned()),
            name: Some("step".into()),
            start_ns: Some((start_us + at as i64 * 1000) * 1000),
            end_ns: Some((start_us + at as i64 * 1000 + 900) * 1000),
            input: Some(format!("what step {at} was given, and what it was told to do with it")),
            output: Some(format!("what step {at} made of it")),
            ..Default::default()
        };
        let order = Order { event_time_us: start_us, is_update: false, event_id: at.to_string() };
        Event { order, kind: Some(EventKind::Observation(observation)) }
    };
    server.append((0..TRACE_OBSERVATIONS).map(observation).collect());
}

/// Scores of five names over the day.
fn scores(server: &Server, count: u64) {
    let range = day();
    let step_us = (range.to_unix_micros - range.from_unix_micros) / count.max(1) as i64;
    let score = |at: u64| {
        let timestamp_us = range.from_unix_micros + at as i64 * step_us;
        let score = Score {
            id: format!("score-{at}"),
            trace_id: Some(format!("judged-{at}")),
            name: ["helpfulness", "accuracy", "tone", "resolved", "user_rating"][at as usize % 5].into(),
            value: Some((at * 7 % 101) as f64 / 100.0),
            source: Some(["API", "EVAL", "ANNOTATION"][at as usize % 3].into()),
            timestamp_us: Some(timestamp_us),
            ..Default::default()
        };
        let order = Order { event_time_us: timestamp_us, is_update: false, event_id: at.to_string() };
        Event { order, kind: Some(EventKind::Score(score)) }
    };
    for from in (0..count).step_by(10_000) {
        server.append((from..count.min(from + 10_000)).map(score).collect());
    }
}
