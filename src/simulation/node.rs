//! A server: the way in, the way out, and chores beside them.

use std::sync::Arc;

use futures::TryStreamExt;
use serde_json::Value;

use super::chores::Chores;
use super::process::Process;
use super::time::Time;
use crate::base::TenantId;
use crate::catalog::Catalog;
use crate::catalog::erasures::ErasureKind;
use crate::ingest::{Ingest, IngestError, IngestSettings, RowSettings};
use crate::model::EventBatch;
use crate::query::{Engine, QueryLimits, SqlLimits};
use crate::store::{Location, Store};
use crate::wire::{MetricsRequest, MetricsResponse};

pub(super) struct Node {
    pub(super) process: Process,
    pub(super) ingest: Ingest,
    pub(super) chores: Chores,
    catalog: Catalog,
    engine: Engine,
    /// Reads nothing but rows.
    plain: Engine,
}

impl Node {
    pub(super) fn start(location: &Location, time: &Time, writer: &str, seed: u64) -> Result<Self, IngestError> {
        let (process, catalog) = Process::start(location, time, seed)?;
        let settings =
            IngestSettings { adopt_after_s: 60, log_kept_s: 600, follow: seed.is_multiple_of(2), ..Default::default() };
        let writer = writer.parse().unwrap();
        let started = process.run_well(async {
            let ingest = Ingest::start(catalog.clone(), time.clock(), writer, settings, RowSettings::default()).await?;
            let limits = QueryLimits { partitions: 2, ..Default::default() };
            let engine = Engine::new(catalog.clone(), Arc::new(ingest.clone()), limits).unwrap();
            let limits = QueryLimits { partitions: 2, rollups: false, ..Default::default() };
            let plain = Engine::new(catalog.clone(), Arc::new(ingest.clone()), limits).unwrap();
            Ok::<_, IngestError>((ingest, engine, plain))
        });
        let (ingest, engine, plain) = started?;
        Ok(Self { process, ingest, chores: Chores::new(&catalog, time), catalog, engine, plain })
    }

    pub(super) fn store(&self) -> &Store {
        self.catalog.store()
    }

    pub(super) async fn append(&self, tenant: &TenantId, mut batch: EventBatch) -> Result<(), IngestError> {
        let held = self.ingest.admit(1000).await?;
        self.ingest.refuse_erased(tenant, &mut batch).await;
        self.ingest.append(tenant, batch, held).await
    }

    pub(super) async fn forget(&self, tenant: &TenantId, kind: ErasureKind, id: &str) -> Result<(), IngestError> {
        self.ingest.erase(tenant, kind, vec![id.to_owned()], "pk-lf-simulated").await.map(drop)
    }

    /// The rows that one statement answers, each a JSON object.
    pub(super) async fn sql(&self, tenant: &TenantId, statement: &str) -> Result<Vec<Value>, String> {
        let answer = self.engine.sql(tenant, statement, SqlLimits::default()).await;
        let answer = answer.map_err(|error| error.to_string())?;
        let batches: Vec<_> = answer.try_collect().await.map_err(|error| error.to_string())?;
        let builder = arrow::json::WriterBuilder::new().with_explicit_nulls(true);
        let mut writer = builder.build::<_, arrow::json::writer::JsonArray>(Vec::new());
        writer.write_batches(&batches.iter().collect::<Vec<_>>()).map_err(|error| error.to_string())?;
        writer.finish().map_err(|error| error.to_string())?;
        let written = writer.into_inner();
        if written.is_empty() {
            return Ok(Vec::new());
        }
        serde_json::from_slice(&written).map_err(|error| error.to_string())
    }

    /// What is answered by roll-ups where there are any, and what by the rows alone, in good weather.
    pub(super) fn summed(&self, tenant: &TenantId, asked: &MetricsRequest) -> [MetricsResponse; 2] {
        let ask = async |engine: &Engine| engine.metrics(tenant, vec![asked.clone()]).await.unwrap().remove(0);
        self.process.run_well(async { [ask(&self.engine).await, ask(&self.plain).await] })
    }

    /// As [`Node::sql`], in good weather; it must answer.
    pub(super) fn answer(&self, tenant: &TenantId, statement: &str) -> Vec<Value> {
        let answer = self.process.run_well(self.sql(tenant, statement));
        answer.unwrap_or_else(|error| panic!("{statement}: {error}"))
    }
}

/// A process that does nothing but chores.
pub(super) struct Worker {
    pub(super) process: Process,
    pub(super) chores: Chores,
}

impl Worker {
    pub(super) fn start(location: &Location, time: &Time, seed: u64) -> Self {
        let (process, catalog) = Process::start(location, time, seed).unwrap();
        let chores = Chores::new(&catalog, time);
        Self { process, chores }
    }
}
