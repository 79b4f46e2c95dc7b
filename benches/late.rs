//! What late changes cost: spans sent again, facts that come an hour after their trace, and looking keys up.

use std::sync::Arc;

use prost::Message;
use tracelake::base::Day;
use tracelake::catalog::{Append, Asked, Change, Checked, FreshRows, NewFile};
use tracelake::corpus::{TextSize, requests};
use tracelake::format::index::{self, FileIndex, IndexObject, KeyFilter};
use tracelake::format::parquet;
use tracelake::model::tables::{SCORES, ScoreRow, Table, batch};
use tracelake::model::{Event, EventKind, Observation, Order, Score, TraceFacts};
use tracelake::query::Engine;
use tracelake::store;

use crate::Settings;
use crate::corpus::config;
use crate::report::{Baseline, Report};
use crate::timing::median;
use crate::way_in::{Server, tenant};
use crate::way_out::{limits, rows};

const SPANS_PER_REQUEST: usize = 100;
const TRACE_SPANS: usize = 10_000;
/// Rows a day in the check of keys; the filters of a real tenant are larger in proportion.
const ROWS_PER_DAY: usize = 10_000;
const KEYS_PER_COMMIT: usize = 10_000;

pub(crate) fn run(settings: &Settings, report: &mut Report) {
    repeats(settings, report);
    facts_an_hour_later(settings, report);
    keys_by_days(settings, report);
}

/// As many spans as stand in files already are sent, a share of them for the second time, and flushed.
fn repeats(settings: &Settings, report: &mut Report) {
    let observations = settings.observations.clamp(10_000, 200_000);
    let all: Vec<Vec<u8>> = requests(config(2 * observations, TextSize::None), SPANS_PER_REQUEST)
        .map(|request| request.encode_to_vec())
        .collect();
    let (stored, fresh) = all.split_at(all.len() / 2);
    let stored = Arc::new(stored.to_vec());
    let mut none = None;
    for percent in [0, 1, 10, 100] {
        let repeated = fresh.len() * percent / 100;
        // Spread over what stands, as senders that try again are.
        let step = (stored.len() / repeated.max(1)).max(1);
        let again = stored.iter().step_by(step).take(repeated).cloned();
        let bodies: Arc<Vec<Vec<u8>>> = Arc::new(again.chain(fresh.iter().skip(repeated).cloned()).collect());
        let timed = median(
            || {
                let server = Server::start(settings);
                server.send(&stored);
                server.run(server.ingest.flush(true)).expect("the flush is committed");
                server
            },
            |server| {
                server.send(&bodies);
                server.run(server.ingest.flush(true)).expect("the flush is committed");
                server
            },
        );
        let baseline = none.map(|value| Baseline { name: "none again", value });
        report.rate(&format!("acked and flushed, {percent} % again"), observations, "spans/s", &timed, baseline);
        none.get_or_insert(timed.per_second(observations));
    }
}

/// One trace of many spans among others; its user is said when all of them stand in files.
fn facts_an_hour_later(settings: &Settings, report: &mut Report) {
    let server = Server::start(settings);
    server.fill(settings.observations.max(TRACE_SPANS as u64), TextSize::None);
    let start_us = config(1, TextSize::None).start_us;
    let span = |at: usize| {
        let observation = Observation {
            trace_id: "long".into(),
            id: format!("long-{at}"),
            start_ns: Some((start_us + at as i64 * 1000) * 1000),
            end_ns: Some((start_us + at as i64 * 1000 + 900) * 1000),
            ..Default::default()
        };
        let order = Order { event_time_us: start_us, is_update: false, event_id: at.to_string() };
        Event { order, kind: Some(EventKind::Observation(observation)) }
    };
    server.append((0..TRACE_SPANS).map(span).collect());
    server.run(server.ingest.flush(true)).expect("the flush is committed");
    let fresh: Arc<dyn FreshRows> = Arc::new(server.ingest.clone());
    let engine = Engine::new(server.catalog.clone(), fresh, limits()).expect("an engine");
    let sql = "SELECT user_id, count(*) AS spans, sum(total_cost) AS cost FROM observations GROUP BY user_id";
    let ask = |()| server.run(rows(&engine, &tenant(), sql));
    let clean = median(|| (), ask);
    report.rate("cost by user, nothing open", 1, "queries/s", &clean, None);
    let facts = TraceFacts { trace_id: "long".into(), user_id: Some("an hour later".into()), ..Default::default() };
    let order = Order { event_time_us: start_us + 3_600_000_000, is_update: false, event_id: "facts".into() };
    server.append(vec![Event { order, kind: Some(EventKind::Trace(facts)) }]);
    server.run(server.ingest.flush(true)).expect("the flush is committed");
    let snapshot = server.run(server.catalog.snapshot(&tenant(), Table::Observations)).expect("a snapshot");
    let late = server.run(server.catalog.late(&tenant(), Table::Observations, &snapshot)).expect("late changes");
    report.value("open changes for 10,000 spans", (late.facts.len() + late.replaced.len()) as f64, "changes");
    let baseline = || Some(Baseline { name: "nothing open", value: clean.per_second(1) });
    report.rate("cost by user, a trace's user open", 1, "queries/s", &median(|| (), ask), baseline());
    server.kill();
}

/// Keys that are new, looked up before a commit, where files of many days stand.
fn keys_by_days(settings: &Settings, report: &mut Report) {
    let server = Server::start(settings);
    let today = 20_000;
    let mut written = 0;
    let mut filter_bytes = 0;
    for days in [10, 90, 365] {
        while written < days {
            filter_bytes += write_day(&server, today - written);
            written += 1;
        }
        let ids: Vec<String> = (0..KEYS_PER_COMMIT).map(|at| format!("new-{at}")).collect();
        let ask = |day: Option<Day>| {
            let asked = ids.iter().map(|id| Asked::about(&[id], day, Day::from_days(today - 10)));
            asked.collect::<Vec<Asked<'_>>>()
        };
        let snapshot = server.run(server.catalog.snapshot(&tenant(), Table::Scores)).expect("a snapshot");
        for (what, day) in [("of today", Some(Day::from_days(today))), ("of any day", None)] {
            let asked = ask(day);
            let find = |()| {
                let found = server.run(server.catalog.find(&tenant(), Table::Scores, &snapshot, &asked));
                assert!(found.expect("files can be read").is_empty());
            };
            let timed = median(|| (), find);
            report.rate(&format!("new keys {what} looked up, {days} days"), asked.len() as u64, "keys/s", &timed, None);
        }
    }
    report.value("filter", filter_bytes as f64 / (written as usize * ROWS_PER_DAY) as f64, "B/row");
    server.kill();
}

/// One file of scores; returns the size of its index object.
fn write_day(server: &Server, day: i32) -> u64 {
    let day = Day::from_days(day);
    let row = |at: usize| {
        let id = format!("{}-{at}", day.days());
        let score =
            Score { id, name: "n".into(), timestamp_us: Some(day.start_us() + at as i64), ..Default::default() };
        ScoreRow { score: Arc::new(score), ingested_at_us: day.start_us(), provenance: None }
    };
    let rows = batch(Table::Scores, SCORES, &(0..ROWS_PER_DAY).map(row).collect::<Vec<_>>());
    let hashes = parquet::key_hashes(Table::Scores.key_columns(), &rows);
    let file = parquet::write(Table::Scores, [rows]).expect("rows of the table");
    let path = store::data_file(day, uuid::Uuid::new_v4());
    let index_id = uuid::Uuid::new_v4().to_string();
    let files = vec![FileIndex { path: path.clone(), keys: KeyFilter::of(hashes), traces: None }];
    let index = index::encode(&IndexObject { table: Table::Scores.name().to_owned(), files });
    let index_bytes = index.len() as u64;
    let new = NewFile {
        path: path.clone(),
        day,
        size_bytes: file.bytes.len() as u64,
        footer_bytes: file.footer_bytes,
        time_us: file.time_us,
        stats: file.delta_stats(Table::Scores),
        index: Some(index_id.clone()),
        rollups: Default::default(),
        rewrites: 0,
        undated: false,
    };
    server.run(async {
        let objects = server.catalog.store();
        let root = store::table_root(&tenant(), Table::Scores.name());
        let place = path.split('/').fold(root, |place, part| place.join(part));
        objects.put(&place, file.bytes).await.expect("the file is stored");
        let place = store::index_file(&tenant(), Table::Scores.name(), &index_id);
        objects.put(&place, index).await.expect("the index is stored");
        let snapshot = server.catalog.known_snapshot(&tenant(), Table::Scores).await.expect("a snapshot");
        let writer = "bench-days".parse().expect("a legal writer id");
        let from = snapshot.position(&writer);
        let append = Append {
            writer,
            from,
            to: from + 1,
            files: vec![new],
            late: None,
            checked: Some(Checked(snapshot.version)),
            merged: Default::default(),
        };
        server.catalog.commit(&tenant(), Table::Scores, Change::Append(append)).await.expect("committed");
    });
    index_bytes
}
