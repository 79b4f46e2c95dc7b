//! A small world: tenants with rows in files and rows still fresh, and an engine over them.

mod bound;
mod catalog;
mod changes;
mod isolation;
mod limits;
mod metrics;
mod oracle;
mod plans;
mod presets;
mod requests;
mod retired;
mod rollups;
mod sql;
mod system;
mod traces;
mod views;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Date32Array, RecordBatch, RecordBatchOptions};
use arrow::util::pretty::pretty_format_batches;
use async_trait::async_trait;
use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use uuid::Uuid;

use super::engine::Engine;
use super::tenant::Snapshots;
use super::{FileRollups, QueryError, QueryLimits, Scope, SqlLimits};
use crate::base::{Clock, Day, Money, SystemClock, TenantId, TimestampUs};
use crate::catalog::{CatalogError, Changes, DataFile, FreshRows, FreshTable, PinnedRows, Rollups, Snapshot};
use crate::format::parquet;
use crate::format::rollup::{RollupKind, RollupSet};
use crate::model::tables::{OBSERVATIONS, ObservationRow, RowCost, SCORES, ScoreRow, Table, batch};
use crate::model::{CostSource, Level, Observation, ObservationType, Score, ScoreDataType, Status};
use crate::store::{Location, Store, data_file, rollup_object, table_root};
use crate::wire::{MetricsRequest, MetricsResponse};

/// 2026-03-28 00:00 UTC: the clocks of Berlin change within two days.
pub(super) const START_US: TimestampUs = 1_774_656_000_000_000;
pub(super) const HOUR_US: i64 = 3_600_000_000;

#[derive(Debug, Default)]
struct Tables {
    snapshots: BTreeMap<(String, Table), Snapshot>,
    fresh: BTreeMap<(String, Table), FreshTable>,
}

/// What the catalog and the buffer would know.
#[derive(Debug, Clone, Default)]
pub(super) struct World(Arc<Mutex<Tables>>);

#[async_trait]
impl Snapshots for World {
    async fn snapshot(&self, tenant: &TenantId, table: Table) -> Result<Arc<Snapshot>, CatalogError> {
        let tables = self.0.lock();
        Ok(Arc::new(tables.snapshots.get(&(tenant.to_string(), table)).cloned().unwrap_or_default()))
    }
}

impl FreshRows for World {
    fn pin(&self, tenant: &TenantId) -> Arc<dyn PinnedRows> {
        Arc::new(Pinned { world: self.clone(), tenant: tenant.clone() })
    }
}

#[derive(Debug)]
struct Pinned {
    world: World,
    tenant: TenantId,
}

#[async_trait]
impl PinnedRows for Pinned {
    async fn rows(&self, table: Table, _: &Arc<Snapshot>) -> Result<FreshTable, CatalogError> {
        Ok(self.world.0.lock().fresh.get(&(self.tenant.to_string(), table)).cloned().unwrap_or_default())
    }
}

pub(super) fn all_of(tenant: &str) -> Scope {
    Scope { tenant: tenant.parse().unwrap(), bound: None }
}

pub(super) struct Setting {
    pub(super) world: World,
    pub(super) store: Store,
    pub(super) engine: Engine,
    rollups: FileRollups,
}

impl Setting {
    pub(super) async fn new(limits: QueryLimits) -> Self {
        let store = Store::open(Location::Memory(Arc::new(InMemory::new()))).await.unwrap();
        let world = World::default();
        let engine =
            Engine::over(Arc::new(world.clone()), store.clone(), Arc::new(world.clone()), limits, None).unwrap();
        let rollups = FileRollups::new().unwrap().of_all();
        Self { world, store, engine, rollups }
    }

    /// One file per day the rows lie on.
    pub(super) async fn add_files(&self, tenant: &str, rows: &[ObservationRow]) {
        let mut days: BTreeMap<Day, Vec<ObservationRow>> = BTreeMap::new();
        for row in rows {
            days.entry(Day::of_us(row.start_us())).or_default().push(row.clone());
        }
        for (day, rows) in days {
            let rows = batch(Table::Observations, OBSERVATIONS, &rows);
            self.add_file(tenant, Table::Observations, day, rows).await;
        }
    }

    /// Says where the file is.
    pub(super) async fn add_file(&self, tenant: &str, table: Table, day: Day, rows: RecordBatch) -> String {
        let path = data_file(day, Uuid::new_v4());
        let sorted = parquet::sort(table, &rows).unwrap();
        let rollups = self.roll_up(tenant, table, &path, &sorted).await;
        let written = parquet::write(table, [sorted]).unwrap();
        let file = DataFile {
            path: path.clone(),
            size_bytes: written.bytes.len() as u64,
            day,
            rows: rows.num_rows() as u64,
            time_us: written.time_us,
            footer_bytes: Some(written.footer_bytes),
            index: None,
            rollups,
            added_version: Some(0),
            rewrites: 0,
            undated: false,
            added_us: 0,
        };
        let root = table_root(&tenant.parse().unwrap(), table.name());
        self.store.put(&Path::from(format!("{root}/{path}")), written.bytes).await.unwrap();
        let mut tables = self.world.0.lock();
        let snapshot = tables.snapshots.entry((tenant.to_owned(), table)).or_default();
        snapshot.version = Some(snapshot.version.map_or(0, |version| version + 1));
        snapshot.files.insert(path.clone(), Arc::new(file));
        path
    }

    /// As who merges files does it.
    async fn roll_up(&self, tenant: &str, table: Table, path: &str, rows: &RecordBatch) -> RollupSet {
        let mut rollups = RollupSet::default();
        for kind in RollupKind::ALL {
            if self.rollups.memory_max(kind, table, rows.num_rows() as u64).is_none() {
                continue;
            }
            let mut rollup = self.rollups.begin(kind, table);
            for at in (0..rows.num_rows()).step_by(100) {
                rollup.push(&rows.slice(at, 100.min(rows.num_rows() - at))).await;
            }
            let (bytes, facts) = rollup.finish().await.unwrap();
            let path = rollup_object(&tenant.parse().unwrap(), kind, table.name(), path);
            self.store.put(&path, bytes).await.unwrap();
            rollups.put(kind, facts);
        }
        rollups
    }

    pub(super) fn change(&self, tenant: &str, table: Table, changes: Changes) {
        self.world.0.lock().fresh.entry((tenant.to_owned(), table)).or_default().changes = changes;
    }

    pub(super) fn add_fresh(&self, tenant: &str, rows: &[ObservationRow]) {
        let days = rows.iter().map(|row| Day::of_us(row.start_us()).days());
        self.add_fresh_batch(tenant, Table::Observations, batch(Table::Observations, OBSERVATIONS, rows), days);
    }

    pub(super) fn add_fresh_scores(&self, tenant: &str, rows: &[ScoreRow]) {
        let days = rows.iter().map(|row| Day::of_us(row.timestamp_us()).days());
        self.add_fresh_batch(tenant, Table::Scores, batch(Table::Scores, SCORES, rows), days);
    }

    pub(super) fn add_fresh_batch(
        &self,
        tenant: &str,
        table: Table,
        rows: RecordBatch,
        days: impl Iterator<Item = i32>,
    ) {
        let mut columns = rows.columns().to_vec();
        columns.push(Arc::new(Date32Array::from_iter_values(days)) as ArrayRef);
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        let rows = RecordBatch::try_new_with_options(table.table_schema(), columns, &options).unwrap();
        self.world.0.lock().fresh.entry((tenant.to_owned(), table)).or_default().batches.push(rows);
    }

    pub(super) async fn metrics(&self, tenant: &str, asked: MetricsRequest) -> Result<MetricsResponse, QueryError> {
        Ok(self.engine.metrics(all_of(tenant), vec![asked]).await?.remove(0))
    }

    pub(super) async fn sql(&self, tenant: &str, sql: &str) -> Result<Vec<RecordBatch>, QueryError> {
        self.engine.sql(all_of(tenant), sql, SqlLimits::default()).await?.try_collect().await
    }

    pub(super) async fn text(&self, tenant: &str, sql: &str) -> String {
        match self.sql(tenant, sql).await {
            Ok(batches) => pretty_format_batches(&batches).unwrap().to_string(),
            Err(e) => format!("{:?}: {e}", e.kind()),
        }
    }

    pub(super) async fn error(&self, tenant: &str, sql: &str) -> QueryError {
        match self.sql(tenant, sql).await {
            Ok(batches) => panic!("{sql} answered:\n{}", pretty_format_batches(&batches).unwrap()),
            Err(e) => e,
        }
    }
}

/// `count` observations over `hours` hours from `START_US`, three to a trace.
pub(super) fn observations(seed: u64, count: usize, hours: i64) -> Vec<ObservationRow> {
    let mut random = SmallRng::seed_from_u64(seed);
    let models = ["gpt-5", "claude-opus", "gemini-pro", "llama", "mistral"];
    let tags = ["beta", "canary", "paid"];
    (0..count)
        .map(|at| {
            let trace = at / 3;
            // A trace stays within minutes of its first observation.
            let trace_start = START_US + (trace as i64 * 7_919_000_017) % (hours * HOUR_US - HOUR_US);
            let start_us = trace_start + random.random_range(0..600_000_000);
            let latency_us = random.random_range(1_000..9_000_000);
            let model = (random.random_range(0..10) > 0).then(|| models[(random.random_range(0..25u32) / 5) as usize]);
            let input = random.random_range(1..5_000);
            let output = random.random_range(0..900);
            let is_error = random.random_range(0..8) == 0;
            let cost = |tokens: i64, price: i64| Some(Money::from_pico(tokens * price));
            let (input_cost, output_cost) = (cost(input, 3_141_593), cost(output, 15_000_001));
            let observation = Observation {
                trace_id: format!("trace-{seed}-{trace}"),
                id: format!("obs-{seed}-{at}"),
                parent_id: (at % 3 > 0).then(|| format!("obs-{seed}-{}", trace * 3)),
                observation_type: Some(ObservationType::Generation.into()),
                name: Some(format!("step {}", at % 3)),
                trace_name: (trace % 5 > 0).then(|| format!("flow {}", trace % 5)),
                user_id: (trace % 7 > 0).then(|| format!("user {}", trace % 7)),
                session_id: Some(format!("session {}", trace % 11)),
                tags: tags
                    .iter()
                    .enumerate()
                    .filter(|(tag, _)| (trace >> tag) & 1 == 1)
                    .map(|(_, t)| t.to_string())
                    .collect(),
                level: is_error.then(|| Level::Error.into()),
                status: (random.random_range(0..20) == 0).then(|| Status::Error.into()),
                start_ns: Some(start_us * 1000),
                end_ns: (random.random_range(0..12) > 0).then_some((start_us + latency_us) * 1000),
                model: model.map(str::to_owned),
                input_tokens: Some(input),
                output_tokens: (random.random_range(0..15) > 0).then_some(output),
                total_tokens: Some(input + output),
                metadata: BTreeMap::from([
                    ("tenant_id".to_owned(), format!("account {}", trace % 6)),
                    ("team".to_owned(), format!("team-{}", trace % 4)),
                    ("odd \"key\" ' %".to_owned(), (trace % 2).to_string()),
                ]),
                ..Default::default()
            };
            ObservationRow {
                observation: observation.into(),
                facts: None,
                orphan: None,
                keys: Arc::default(),
                cost: RowCost {
                    input: input_cost,
                    output: output_cost,
                    total: model.map(|_| input_cost.unwrap() + output_cost.unwrap()),
                    source: Some(CostSource::Computed),
                    ..Default::default()
                },
                ingested_at_us: start_us,
                provenance: None,
            }
        })
        .collect()
}

/// A row of which little is known.
pub(in crate::query) fn one_observation(trace_id: &str, id: &str) -> RecordBatch {
    let mut row = observations(1, 1, 5).remove(0);
    let (trace_id, id) = (trace_id.to_owned(), id.to_owned());
    row.observation = Arc::new(Observation { trace_id, id, ..Default::default() });
    batch(Table::Observations, OBSERVATIONS, &[row])
}

pub(super) fn score(id: usize, value: f64, at_us: TimestampUs) -> ScoreRow {
    let score = Score {
        id: format!("score-{id}"),
        name: if id.is_multiple_of(2) { "helpful" } else { "correct" }.to_owned(),
        data_type: ScoreDataType::Numeric.into(),
        value: Some(value),
        timestamp_us: Some(at_us),
        ..Default::default()
    };
    ScoreRow { score: score.into(), ingested_at_us: at_us, provenance: None }
}

/// A setting with one tenant, `acme`: two thirds of the rows in files, the rest fresh.
pub(super) async fn acme(rows: &[ObservationRow]) -> Setting {
    let setting = Setting::new(QueryLimits::default()).await;
    let (files, fresh) = rows.split_at(rows.len() * 2 / 3);
    setting.add_files("acme", files).await;
    setting.add_fresh("acme", fresh);
    setting
}
