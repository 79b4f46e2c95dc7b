//! What a service costs at S3's list prices, by simulation: ten thousand small tenants, one busy one; and a steady day's
//! files.

use std::collections::BTreeMap;
use std::time::Instant;

use prost::Message;
use tracelake::base::{ByteSize, Day, TenantId};
use tracelake::compact::CompactSettings;
use tracelake::corpus::{Corpus, CorpusConfig, TextSize, request};
use tracelake::decode::{self, DecodeLimits};
use tracelake::ingest::IngestSettings;
use tracelake::model::EventBatch;
use tracelake::model::tables::Table;

use crate::Settings;
use crate::report::{Baseline, Report, forget_peak, memory_mib, peak_memory_mib};
use crate::simulated::{MINUTE_US, Simulated};

/// Many small tenants, each with one observation a minute.
const TENANTS: u64 = 10_000;
/// Whose day is simulated for them; their requests are counted and multiplied.
const SAMPLE: u64 = 50;
/// A busy tenant's observations a day.
const BUSY_PER_DAY: u64 = 3_000_000;
/// Observations a second of a steady day.
const STEADY_PER_S: u64 = 200;

/// S3 standard, us-east-1: USD for a thousand PUT or LIST requests, and for a thousand GETs. DELETE is free.
const PUT_USD: f64 = 0.005;
const GET_USD: f64 = 0.0004;
const DAYS_PER_MONTH: f64 = 30.0;
const MONTH_S: f64 = DAYS_PER_MONTH * 86_400.0;

/// Hours before the day that is counted: buffers and files are then as on any day.
const WARM_UP_HOURS: u64 = 4;
const DAY_HOURS: u64 = 24;
/// The day is counted from here, so that its midnight, and the sealing of the day before, lie within it.
const START_HOUR: i64 = 14;

/// What a process asks however many tenants it has, by rule, in requests a month. Simulated time is too fast to count it.
fn by_rule(puts_to_log_per_s: f64, log_kept_s: f64) -> [(&'static str, f64, f64); 4] {
    let every = |seconds: f64| MONTH_S / seconds;
    let pages = (log_kept_s * puts_to_log_per_s / 1_000.0).max(1.0);
    [
        ("log objects", every(1.0) * puts_to_log_per_s, PUT_USD),
        ("heartbeats and low marks", 2.0 * every(30.0), PUT_USD),
        ("looks for other logs", 2.0 * every(30.0), PUT_USD),
        ("sweeps of the log, by pages", (1.0 + pages) * every(600.0), PUT_USD),
    ]
}

pub(crate) fn tenants(settings: &Settings, report: &mut Report) {
    let ingest = IngestSettings::default();
    let waits_s = ingest.quiet_after_s(TENANTS);
    let sample = (settings.observations / 100).clamp(1, SAMPLE);
    report.value("small tenants: each is flushed every", waits_s as f64 / 60.0, "min");
    let small = Load { tenants: sample, per_minute: 1, compact_every_minutes: 60 };
    let tuned = IngestSettings { flush_quiet_after_s: waits_s, ..ingest };
    let counted = day_of(&small, tuned, CompactSettings::default()).1;
    // One object a second: less than a quarter of a megabyte waits by then.
    let fixed = by_rule(1.0, 3_600.0 + waits_s as f64);
    price(report, "10,000 small tenants", &counted, TENANTS as f64 / sample as f64, &fixed, 150.0);
    many_at_once(settings, report, waits_s);

    let share = (settings.observations as f64 / 100_000.0).min(1.0);
    let busy = (BUSY_PER_DAY as f64 * share / 1_440.0).ceil() as u64;
    let scaled = |size: ByteSize| ByteSize((size.bytes() as f64 * share) as u64);
    let ingest = IngestSettings { quiet_bytes: scaled(ingest.quiet_bytes), ..ingest };
    let compact =
        CompactSettings { target_bytes: scaled(CompactSettings::default().target_bytes), ..Default::default() };
    let load = Load { tenants: 1, per_minute: busy, compact_every_minutes: 1 };
    let counted = day_of(&load, ingest, compact).1;
    price(report, "one tenant, 3 M a day", &counted, 1.0, &by_rule(1.0, 3_600.0), 20.0);
    nobody(report);
}

/// What comes in, and how often files are merged.
struct Load {
    tenants: u64,
    per_minute: u64,
    compact_every_minutes: u64,
}

type Counted = BTreeMap<(&'static str, &'static str), u64>;

/// A day of the load after some hours of it. Returns the server, what the store was asked in that day, and what the
/// planner left of it.
fn day_of(load: &Load, ingest: IngestSettings, compact: CompactSettings) -> (Simulated, Counted) {
    let start_us = Day::from_days(20_500).start_us() + START_HOUR * 60 * MINUTE_US;
    let minutes = (WARM_UP_HOURS + DAY_HOURS) * 60;
    let server = Simulated::start(start_us, ingest, compact);
    let mut traces = Traces::new(start_us, minutes, load.per_minute);
    let mut lists = 0;
    for minute in 0..minutes {
        if minute == WARM_UP_HOURS * 60 {
            server.requests.take();
            lists = server.catalog.store().counts().list;
        }
        let batches = traces.until(server.now_us() + MINUTE_US);
        let of_tenant = |at: u64| batches.iter().map(move |batch| (tenant(at), batch.clone()));
        // Each begins at a time of its own, so that their flushes are spread.
        let here = (0..load.tenants).filter(|at| minute >= at * WARM_UP_HOURS * 60 / load.tenants / 2);
        server.minute(here.flat_map(of_tenant));
        if minute % load.compact_every_minutes == 0 {
            server.compact();
        }
        if minute % 60 == 0 {
            server.vacuum();
        }
    }
    let mut counted = server.requests.take();
    // Of the lists, those of whole folders are counted by place; the others are of tenants' prefixes and leases.
    let by_place: u64 = counted.iter().filter(|((what, _), _)| *what == "LIST").map(|(_, count)| count).sum();
    let listed = server.catalog.store().counts().list - lists;
    counted.insert(("LIST", "tenants and leases"), listed.saturating_sub(by_place));
    // What a process asks about its log and its system objects does not grow with its tenants: it is counted by rule.
    counted.retain(|(_, place), _| !matches!(*place, "log" | "system"));
    // A tip that was not looked at for ten minutes is, before a commit, and once more when keys are looked up.
    let commits = counted.get(&("PUT", "commits")).copied().unwrap_or(0);
    *counted.entry(("GET", "commits")).or_default() += 2 * commits;
    (server, counted)
}

fn price(
    report: &mut Report,
    name: &str,
    counted: &Counted,
    times: f64,
    fixed: &[(&'static str, f64, f64)],
    aim_usd: f64,
) {
    let mut total = 0.0;
    for ((what, place), count) in counted.iter().filter(|((what, _), _)| *what != "DELETE") {
        let a_month = *count as f64 * times * DAYS_PER_MONTH;
        let usd = a_month / 1_000.0 * if *what == "GET" { GET_USD } else { PUT_USD };
        total += usd;
        if usd >= 0.005 * aim_usd {
            report.value(&format!("{name}: {what} {place}"), a_month, "requests/month");
        }
    }
    for (what, a_month, usd_per_thousand) in fixed {
        total += a_month / 1_000.0 * usd_per_thousand;
        report.value(&format!("{name}: {what} (by rule)"), *a_month, "requests/month");
    }
    let aim = Baseline { name: "at most", value: aim_usd };
    report.against(&format!("{name}: list price"), total, "USD/month", aim);
}

/// All of them in one process: memory once each was flushed, and how long a flush that is due takes to be done.
fn many_at_once(settings: &Settings, report: &mut Report, waits_s: u64) {
    let tenants = (settings.observations / 10).clamp(1, TENANTS);
    let start_us = Day::from_days(20_500).start_us() + START_HOUR * 60 * MINUTE_US;
    let settings = IngestSettings { flush_quiet_after_s: waits_s, ..Default::default() };
    let turn = waits_s / 60;
    // Every tenant is there after one turn, and is flushed in the second.
    let minutes = turn * 2;
    let before = memory_mib();
    forget_peak();
    let server = Simulated::start(start_us, settings, CompactSettings::default());
    let mut traces = Traces::new(start_us, minutes, 1);
    let mut lags = Vec::new();
    for minute in 0..minutes {
        let batches = traces.until(server.now_us() + MINUTE_US);
        let here = (0..tenants).take_while(|at| at * turn / tenants <= minute);
        server.send(here.flat_map(|at| batches.iter().map(move |batch| (tenant(at), batch.clone()))));
        // In the last minutes the store is as slow as a bucket.
        server.requests.set_slow(minute + 10 >= minutes);
        let began = Instant::now();
        server.pass_minute();
        server.requests.set_slow(false);
        lags.extend(server.requests.take_flushed().into_iter().map(|at| at - began));
    }
    lags.sort_unstable();
    let lag =
        |percent: usize| lags.get(lags.len().saturating_sub(1) * percent / 100).map_or(0.0, |lag| lag.as_secs_f64());
    report.value("10,000 small tenants: flushes seen on a slow store", lags.len() as f64, "flushes");
    report.value("10,000 small tenants: flush lag, p50", lag(50), "s");
    report.value("10,000 small tenants: flush lag, p99", lag(99), "s");
    report.value("10,000 small tenants: buffered", (server.ingest.budget().used() >> 20) as f64, "MiB");
    report.value("10,000 small tenants: resident before", before.unwrap_or(0) as f64, "MiB");
    let aim = Baseline { name: "at most", value: 2_048.0 };
    report.against("10,000 small tenants: peak resident", peak_memory_mib().unwrap_or(0) as f64, "MiB", aim);
}

/// The empty case: a day of upkeep of tenants that send nothing, after one observation each.
fn nobody(report: &mut Report) {
    let start_us = Day::from_days(20_500).start_us();
    let server = Simulated::start(start_us, IngestSettings::default(), CompactSettings::default());
    let batches = Traces::new(start_us, 1, 1).until(i64::MAX);
    server.minute(batches.iter().map(|batch| (tenant(0), batch.clone())));
    server.run(server.ingest.flush(true)).expect("the flush is committed");
    server.requests.take();
    for _ in 0..24 {
        (0..60).for_each(|_| server.minute(std::iter::empty()));
        server.compact();
        server.vacuum();
    }
    let counted = server.requests.take();
    let puts: u64 = counted.iter().filter(|((what, place), _)| *what == "PUT" && *place != "log").map(|(_, n)| n).sum();
    report.value("a day without rows: PUT", puts as f64, "requests");
}

/// 200 observations a second with default settings, and how many files a day of it has at any moment. Where fewer are
/// asked for, rate and sizes are smaller by the same factor.
pub(crate) fn day(settings: &Settings, report: &mut Report) {
    let share = (settings.observations as f64 / (STEADY_PER_S * 86_400) as f64).min(1.0);
    let scaled = |size: ByteSize| ByteSize((size.bytes() as f64 * share) as u64);
    let ingest = IngestSettings::default();
    let ingest =
        IngestSettings { quiet_bytes: scaled(ingest.quiet_bytes), flush_bytes: scaled(ingest.flush_bytes), ..ingest };
    let compact = CompactSettings::default();
    let compact = CompactSettings { target_bytes: scaled(compact.target_bytes), ..compact };
    let start_us = Day::from_days(20_500).start_us();
    // Until the day is sealed.
    let minutes = DAY_HOURS * 60 + compact.quiet_s / 60 + 60;
    let server = Simulated::start(start_us, ingest, compact);
    let per_minute = ((STEADY_PER_S * 60) as f64 * share).ceil() as u64;
    let mut traces = Traces::new(start_us, DAY_HOURS * 60, per_minute);
    let mut most = BTreeMap::new();
    for _ in 0..minutes {
        let batches = traces.until(server.now_us() + MINUTE_US);
        server.minute(batches.into_iter().map(|batch| (tenant(0), batch)));
        server.compact();
        for table in Table::ALL {
            let live = live_files(&server, table);
            let most = most.entry(table).or_insert(live);
            *most = live.max(*most);
        }
    }
    report.value("share of the full rate", share, "");
    let done = server.compactor.done();
    let mut stored = 0;
    for table in Table::ALL {
        let snapshot = server.run(server.catalog.snapshot(&tenant(0), table)).expect("a snapshot");
        let bytes: u64 = snapshot.files.values().map(|file| file.size_bytes).sum();
        stored += bytes;
        let aim = Baseline { name: "under", value: 20.0 };
        report.against(&format!("{}: most live files of a day", table.name()), most[&table] as f64, "files", aim);
        report.value(&format!("{}: files once sealed", table.name()), snapshot.files.len() as f64, "files");
        report.value(&format!("{}: size once sealed", table.name()), bytes as f64 / (1 << 20) as f64, "MiB");
    }
    // Flushed once, then written by each merge.
    let flushed = (done.bytes_in as f64 - done.bytes_out as f64 + stored as f64).max(1.0);
    let aim = Baseline { name: "at most", value: 3.0 };
    report.against("bytes written for each byte flushed", (flushed + done.bytes_out as f64) / flushed, "", aim);
    let rows = |rows: u64| rows as f64 / (per_minute * DAY_HOURS * 60) as f64;
    report.value("rows rewritten for each observation, all tables", rows(done.rows_in), "rows");
    report.value("merges", done.rewrites as f64, "merges");
}

fn live_files(server: &Simulated, table: Table) -> usize {
    let snapshot = server.run(server.catalog.snapshot(&tenant(0), table)).expect("a snapshot");
    let mut days: BTreeMap<Day, usize> = BTreeMap::new();
    snapshot.files.values().for_each(|file| *days.entry(file.day).or_default() += 1);
    days.into_values().max().unwrap_or(0)
}

fn tenant(at: u64) -> TenantId {
    format!("bench-{at}").parse().expect("a legal tenant id")
}

/// Traces in the order of their time, decoded.
struct Traces {
    traces: std::iter::Peekable<Corpus>,
}

impl Traces {
    fn new(start_us: i64, minutes: u64, per_minute: u64) -> Self {
        let end_us = start_us + minutes as i64 * MINUTE_US;
        let config = CorpusConfig {
            observations: per_minute * minutes,
            start_us,
            end_us,
            text: TextSize::None,
            ..CorpusConfig::default()
        };
        Self { traces: Corpus::new(config).peekable() }
    }

    /// Those that began before then, in requests as an exporter sends them.
    fn until(&mut self, end_us: i64) -> Vec<EventBatch> {
        const SPANS_PER_REQUEST: usize = 500;
        let mut spans = Vec::new();
        let mut batches = Vec::new();
        let mut close = |spans: &mut Vec<_>| {
            if !spans.is_empty() {
                let body = request("corpus", std::mem::take(spans)).encode_to_vec();
                let decoded = decode::otlp_protobuf(&body, &DecodeLimits::default()).expect("the corpus is OTLP");
                batches.push(EventBatch { door: "bench".to_owned(), ..decoded.batch });
            }
        };
        let began = |trace: &tracelake::corpus::Trace| {
            trace.spans.first().map_or(i64::MIN, |root| (root.start_time_unix_nano / 1_000) as i64)
        };
        while let Some(trace) = self.traces.next_if(|trace| began(trace) < end_us) {
            spans.extend(trace.spans);
            if spans.len() >= SPANS_PER_REQUEST {
                close(&mut spans);
            }
        }
        close(&mut spans);
        batches
    }
}
