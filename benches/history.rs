//! Agents send their whole history again with every step: how small `observation_io` makes it, which level and page size
//! of zstd do, and what they cost.

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use parquet::schema::types::ColumnPath;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tracelake::format::parquet::{read, sort};
use tracelake::model::tables::Table;
use tracelake::model::{Event, EventKind, Observation, Order};
use tracelake::store::data_object;

use crate::Settings;
use crate::corpus::config;
use crate::report::{Baseline, Report};
use crate::timing::median;
use crate::upkeep::sealed;
use crate::way_in::{Server, tenant};

const TRACES: u64 = 1_000;
/// Steps of a trace: 2 to this.
const STEPS_MAX: usize = 18;
/// What raw bytes by stored bytes should be at least.
const AIM: Baseline = Baseline { name: "aim", value: 20.0 };
/// Level and page of zstd; the third is what files are written with.
const WAYS: [(i32, usize); 6] = [(1, 8 << 20), (3, 1 << 20), (3, 8 << 20), (6, 8 << 20), (9, 8 << 20), (12, 8 << 20)];

pub(crate) fn run(settings: &Settings, report: &mut Report) {
    let traces = (settings.observations / 100).clamp(10, TRACES);
    for (name, repeats) in [("agents", true), ("nothing repeats", false)] {
        let steps = steps(traces, repeats);
        let raw: u64 = steps.iter().map(|step| text_bytes(step) as u64).sum();
        report.value(&format!("{name}: JSON"), raw as f64, "B");
        let server = Server::start(settings);
        let sent = median(
            || Server::start(settings),
            |server| {
                send(&server, &steps);
                server
            },
        );
        report.rate(&format!("{name}: acked and flushed"), raw, "B/s", &sent, None);
        send(&server, &steps);
        let rows = rows(&server);
        let of = |bytes: u64| raw as f64 / bytes.max(1) as f64;
        report.against(&format!("{name}: as flushed"), of(stored(&server)), "raw/stored", AIM);
        report.against(
            &format!("{name}: merged"),
            of(sealed(&server, &tenant(), Table::ObservationIo)),
            "raw/stored",
            AIM,
        );
        for (level, page) in WAYS {
            let way = format!("{name}: zstd {level}, pages of {} MiB", page >> 20);
            let bytes = write(&rows, level, page).len() as u64;
            report.against(&way, of(bytes), "raw/stored", AIM);
            let timed = median(|| (), |()| write(&rows, level, page).len());
            report.rate(&format!("{way}, written"), raw, "B/s", &timed, None);
        }
        server.kill();
    }
}

/// One model call of an agent.
struct Step {
    trace: u64,
    number: usize,
    start_us: i64,
    input: String,
    output: String,
}

fn text_bytes(step: &Step) -> usize {
    step.input.len() + step.output.len()
}

/// The calls of all traces in the order of their times, so that traces lie between each other.
fn steps(traces: u64, repeats: bool) -> Vec<Step> {
    let mut random = SmallRng::seed_from_u64(42);
    let words = words(&mut random);
    let system = message("system", &text(&mut random, &words, 400));
    let day_us = config(1, tracelake::corpus::TextSize::None).start_us;
    let mut steps = Vec::new();
    for trace in 0..traces {
        let mut history = vec![system.clone()];
        let mut now_us = day_us + random.random_range(0..3_600_000_000);
        for number in 0..random.random_range(2..=STEPS_MAX) {
            let asked = length(&mut random);
            history.push(message(if number == 0 { "user" } else { "tool" }, &text(&mut random, &words, asked)));
            let answered = length(&mut random) / 2;
            let output = message("assistant", &text(&mut random, &words, answered));
            let input = match repeats {
                true => format!("[{}]", history.join(",")),
                false => format!("[{}]", history[history.len() - 1]),
            };
            steps.push(Step { trace, number, start_us: now_us, input, output: output.clone() });
            history.push(output);
            now_us += random.random_range(1_000_000..40_000_000);
        }
    }
    steps.sort_by_key(|step| step.start_us);
    steps
}

fn message(role: &str, text: &str) -> String {
    serde_json::json!({"role": role, "content": text}).to_string()
}

/// Words of a message: mostly few, sometimes a page.
fn length(random: &mut SmallRng) -> usize {
    let spread: f64 = (0..4).map(|_| random.random::<f64>()).sum::<f64>() - 2.0;
    (160.0 * (1.4 * spread).exp()) as usize + 5
}

fn words(random: &mut SmallRng) -> Vec<String> {
    let word = |random: &mut SmallRng| {
        (0..random.random_range(2..9)).map(|_| char::from(b'a' + random.random_range(0..26))).collect()
    };
    (0..6_000).map(|_| word(random)).collect()
}

/// A few words make most of a text, as in any language.
fn text(random: &mut SmallRng, words: &[String], count: usize) -> String {
    let word = |random: &mut SmallRng| {
        let rank = (words.len() as f64).powf(random.random::<f64>()) as usize - 1;
        words[rank].as_str()
    };
    (0..count).map(|_| word(random)).collect::<Vec<_>>().join(" ")
}

fn send(server: &Server, steps: &[Step]) {
    for steps in steps.chunks(20) {
        server.append(steps.iter().map(event).collect());
    }
    server.run(server.ingest.flush(true)).expect("the flush is committed");
}

fn event(step: &Step) -> Event {
    let observation = Observation {
        trace_id: format!("{:032x}", step.trace),
        id: format!("{:08x}{:08x}", step.trace, step.number),
        name: Some("llm".into()),
        start_ns: Some(step.start_us * 1000),
        end_ns: Some(step.start_us * 1000 + 900_000_000),
        input: Some(step.input.clone()),
        output: Some(step.output.clone()),
        ..Default::default()
    };
    let order = Order { event_time_us: step.start_us, is_update: false, event_id: step.number.to_string() };
    Event { order, kind: Some(EventKind::Observation(observation)) }
}

fn stored(server: &Server) -> u64 {
    let snapshot = server.run(server.catalog.snapshot(&tenant(), Table::ObservationIo)).expect("a snapshot");
    snapshot.files.values().map(|file| file.size_bytes).sum()
}

/// All rows, as a merged file has them.
fn rows(server: &Server) -> RecordBatch {
    let table = Table::ObservationIo;
    let snapshot = server.run(server.catalog.snapshot(&tenant(), table)).expect("a snapshot");
    let mut batches = Vec::new();
    for file in snapshot.files.values() {
        let path = data_object(&tenant(), table.name(), &file.path);
        let body = server.run(server.catalog.store().get(&path)).expect("the store answers").expect("it is live");
        batches.extend(read(table, body, file.day).expect("a whole file"));
    }
    sort(table, &concat_batches(&table.table_schema(), &batches).expect("one schema")).expect("columns to sort by")
}

fn write(rows: &RecordBatch, level: i32, page: usize) -> Vec<u8> {
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(level).expect("a level of zstd")));
    for text in ["input", "output"] {
        let column = ColumnPath::new(vec![text.to_owned()]);
        properties = properties
            .set_column_dictionary_enabled(column.clone(), false)
            .set_column_data_page_size_limit(column, page);
    }
    let mut writer = ArrowWriter::try_new(Vec::new(), rows.schema(), Some(properties.build())).expect("plain types");
    // In small steps: a page ends between two of them at the earliest.
    for from in (0..rows.num_rows()).step_by(64) {
        writer.write(&rows.slice(from, 64.min(rows.num_rows() - from))).expect("memory takes every write");
    }
    writer.into_inner().expect("memory takes every write")
}
