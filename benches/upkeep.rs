//! The upkeep: files as flushed become one, beside a bare loop that reads all, sorts and writes on the same files.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use tracelake::base::{Budget, ByteSize, SystemClock, TenantId};
use tracelake::catalog::NoRollups;
use tracelake::catalog::system::SystemObjects;
use tracelake::catalog::tenants::Tenants;
use tracelake::compact::plan::{Job, JobKind};
use tracelake::compact::{CompactSettings, Compactor, NoFold, Rewritten, Workplace, rewrite};
use tracelake::corpus::TextSize;
use tracelake::format::parquet::sort;
use tracelake::model::tables::Table;
use tracelake::query::FileRollups;
use tracelake::store::data_object;

use crate::Settings;
use crate::report::{Baseline, Report, forget_peak, memory_mib, peak_memory_mib};
use crate::timing::median;
use crate::way_in::Server;

/// As many as a day has when they are merged.
const FILES: u64 = 18;
/// Spans with prompts are some ten times larger.
const TEXT_SHARE: u64 = 10;
const MEMORY: ByteSize = ByteSize::mib(256);

pub(crate) fn compact(settings: &Settings, report: &mut Report) {
    let tenant: TenantId = "bench".parse().expect("a legal tenant id");
    for (name, text, observations, table) in [
        ("observations", TextSize::None, settings.observations, Table::Observations),
        ("prompts", TextSize::Prompts, (settings.observations / TEXT_SHARE).max(FILES), Table::ObservationIo),
    ] {
        let server = Server::start(settings);
        server.fill_in(observations, text, FILES);
        let job = job(&server, &tenant, table);
        let (rows, bytes) = (job.rows(), job.bytes());
        report.value(&format!("{name}: files in"), job.inputs.len() as f64, "files");
        report.value(&format!("{name}: size in"), bytes as f64 / rows as f64, "B/row");

        let bare_time = median(|| (), |()| bare(&server, &tenant, table, &job));
        let before = memory_mib();
        forget_peak();
        let bare_size = bare(&server, &tenant, table, &job);
        let bare_memory = peak_memory_mib().zip(before).map(|(peak, before)| peak.saturating_sub(before));
        let baseline = Baseline { name: "bare loop", value: bare_time.per_second(rows) };

        for (kind, label) in [(JobKind::Tier, "merge"), (JobKind::Seal, "seal")] {
            let job = Job { kind, ..job.clone() };
            let work = |()| server.run(rewritten(&server, &tenant, table, &job));
            let time = median(|| (), work);
            report.rate(&format!("{name}: {label}"), rows, "rows/s", &time, Some(baseline.clone()));
            report.rate(&format!("{name}: {label}, read"), bytes, "B/s", &time, None);
            let before = memory_mib();
            forget_peak();
            let done = work(());
            let memory = peak_memory_mib().zip(before).map(|(peak, before)| peak.saturating_sub(before));
            report.rate(&format!("{name}: {label}, written"), done.bytes_out, "B/s", &time, None);
            report.value(&format!("{name}: {label}, size out"), done.bytes_out as f64 / rows as f64, "B/row");
            report.value(&format!("{name}: {label}, memory"), memory.unwrap_or(0) as f64, "MiB");
            report.value(&format!("{name}: {label}, memory counted"), (done.memory_most >> 20) as f64, "MiB");
        }
        report.value(&format!("{name}: bare loop, size out"), bare_size as f64 / rows as f64, "B/row");
        report.value(&format!("{name}: bare loop, memory"), bare_memory.unwrap_or(0) as f64, "MiB");
        server.kill();
    }
    nothing_to_do(settings, report);
}

/// The empty case: a look at every table of a tenant where nothing is due.
fn nothing_to_do(settings: &Settings, report: &mut Report) {
    let server = Server::start(settings);
    server.fill_in(1_000, TextSize::None, 1);
    let (store, clock) = (server.catalog.store().clone(), Arc::new(SystemClock));
    let tenants = Tenants::new(SystemObjects::new(store, clock.clone()));
    let compactor =
        Compactor::new(server.catalog.clone(), tenants, clock, Arc::new(NoRollups), CompactSettings::default());
    let compactor = compactor.expect("the defaults are right");
    let time = median(|| (), |()| server.run(compactor.run_once()).expect("there is nothing to fail"));
    report.rate("nothing is due", Table::ALL.len() as u64, "tables/s", &time, None);
    server.kill();
}

/// The size of the one file that a day's files become.
pub(crate) fn sealed(server: &Server, tenant: &TenantId, table: Table) -> u64 {
    let job = Job { kind: JobKind::Seal, ..job(server, tenant, table) };
    server.run(rewritten(server, tenant, table, &job)).bytes_out
}

fn job(server: &Server, tenant: &TenantId, table: Table) -> Job {
    let snapshot = server.run(server.catalog.snapshot(tenant, table)).expect("the table loads");
    // The day most files are of.
    let mut files: Vec<_> = snapshot.files.values().cloned().collect();
    let count = |day| files.iter().filter(|file| file.day == day).count();
    let day = files.iter().map(|file| file.day).max_by_key(|day| count(*day)).expect("rows were flushed");
    files.retain(|file| file.day == day);
    Job { day, kind: JobKind::Tier, inputs: files }
}

async fn rewritten(server: &Server, tenant: &TenantId, table: Table, job: &Job) -> Rewritten {
    let budget = Budget::new("bench", MEMORY);
    let rollups = FileRollups::new().expect("a session");
    let place = Workplace {
        store: server.catalog.store(),
        clock: &SystemClock,
        budget: &budget,
        memory_max: MEMORY,
        target_bytes: CompactSettings::default().target_bytes,
        rollups: &rollups,
    };
    rewrite(place, tenant, table, job, &NoFold).await.expect("the files are whole")
}

/// All rows in memory, sorted, written as one file: what any program must do, and no more. Returns its size.
fn bare(server: &Server, tenant: &TenantId, table: Table, job: &Job) -> usize {
    let schema = table.file_schema();
    let mut batches: Vec<RecordBatch> = Vec::new();
    for file in &job.inputs {
        let path = data_object(tenant, table.name(), &file.path);
        let body = server.run(server.catalog.store().get(&path)).expect("the store answers").expect("it is live");
        let options = ArrowReaderOptions::new().with_schema(Arc::clone(&schema));
        let reader = ParquetRecordBatchReaderBuilder::try_new_with_options(body, options).expect("a Parquet file");
        let reader = reader.with_batch_size(8_192).build().expect("a Parquet file");
        batches.extend(reader.map(|batch| batch.expect("a whole file")));
    }
    let rows = sort(table, &concat_batches(&schema, &batches).expect("one schema")).expect("columns to sort by");
    drop(batches);
    let zstd = Compression::ZSTD(ZstdLevel::try_new(3).expect("3 is a level of zstd"));
    let properties = WriterProperties::builder().set_compression(zstd).build();
    let mut writer = ArrowWriter::try_new(Vec::new(), schema, Some(properties)).expect("plain types");
    writer.write(&rows).expect("memory takes every write");
    let bytes = writer.into_inner().expect("memory takes every write");
    let path = data_object(tenant, table.name(), "bare.parquet");
    let size = bytes.len();
    server.run(server.catalog.store().put(&path, bytes.into())).expect("the store answers");
    size
}
