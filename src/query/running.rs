//! One query on its way: its session, the tables it has pinned, and what it reads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::catalog::{SchemaProvider, TableProvider};
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::DataFusionError;
use datafusion::execution::TaskContext;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use futures::{StreamExt, TryStreamExt};
use parking_lot::Mutex;

use super::error::{QueryError, translate};
use super::kept::Kept;
use super::memory::QueryPool;
use super::provider::Touched;
use super::rolled_up::RolledUp;
use super::stream::bytes_of;
use super::tenant::TenantTables;
use super::{guard, inlining};
use crate::base::{ByteSize, TimestampUs};
use crate::format::rollup::RollupKind;
use crate::model::tables::Table;
use crate::wire;

/// One question on its way: its session and the tables it has pinned.
pub(super) struct Query {
    pub(super) state: SessionState,
    /// All that the question can name.
    pub(super) shown: Arc<dyn SchemaProvider>,
    /// For what is told of the tables. Who sees a part of them is not told how many others there are, nor how often
    /// they change.
    pub(super) told: Option<Arc<TenantTables>>,
    /// Roll-ups may stand for rows; and some did.
    pub(super) rollups: bool,
    pub(super) rolled_up: Arc<AtomicBool>,
    pub(super) memory: Arc<QueryPool>,
    pub(super) memory_max: ByteSize,
    pub(super) result_bytes_max: ByteSize,
    pub(super) watermark_us: TimestampUs,
    pub(super) scanned: Mutex<Scanned>,
}

/// What the plans of a query have read of files.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Scanned {
    rows: u64,
    bytes: u64,
}

impl Scanned {
    fn add(&mut self, plan: &Arc<dyn ExecutionPlan>) {
        if let Some(metrics) = plan.downcast_ref::<DataSourceExec>().and_then(|scan| scan.metrics()) {
            self.rows += metrics.output_rows().unwrap_or(0) as u64;
            self.bytes += metrics.sum_by_name("bytes_scanned").map_or(0, |bytes| bytes.as_usize() as u64);
        }
        plan.children().into_iter().for_each(|input| self.add(input));
    }
}

/// Whether what does not fit into memory may go to disk on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spilling {
    Allowed,
    /// The plan is an attempt: there is another way for what is large.
    Refused,
}

pub(super) type Rows = futures::stream::BoxStream<'static, Result<RecordBatch, DataFusionError>>;

impl Query {
    pub(super) async fn start(&self, sql: &str) -> Result<(SchemaRef, Rows), QueryError> {
        let plan = self.plan_sql(sql).await?;
        let physical = self.physical(&plan).await?;
        let rows = execute_stream(physical, self.state.task_ctx()).map_err(|e| self.translate(e))?;
        Ok((rows.schema(), rows.boxed()))
    }

    /// The table of that name, at the one moment this question is about.
    pub(super) async fn table(&self, table: Table) -> Result<Arc<dyn TableProvider>, QueryError> {
        let found = self.shown.table(table.name()).await.map_err(|e| self.translate(e))?;
        found.ok_or_else(|| QueryError::Internal(format!("{} cannot be asked about", table.name())))
    }

    /// What of a range the roll-ups of a table's files stand for, and the rest of the table. `None`: for nothing, or
    /// whoever asks sees a part of the rows.
    pub(super) async fn rolled_up(
        &self,
        kind: RollupKind,
        table: Table,
        from_us: TimestampUs,
        to_us: TimestampUs,
    ) -> Result<Option<(Arc<dyn TableProvider>, RolledUp)>, QueryError> {
        let Some(tables) = self.told.as_ref().filter(|_| self.rollups) else { return Ok(None) };
        let rest = tables.at(table).await?.rolled_up(kind, from_us, to_us);
        self.rolled_up.fetch_or(rest.is_some(), Ordering::AcqRel);
        Ok(rest.map(|(rest, rolled_up)| (Arc::new(rest) as Arc<dyn TableProvider>, rolled_up)))
    }

    /// `table=version` of every table this question has touched.
    pub(super) fn versions(&self) -> Vec<String> {
        self.told.as_ref().map(|tables| tables.versions()).unwrap_or_default()
    }

    /// Rows as they come, and the plan they come by: [`Self::note`] it at their end.
    pub(super) async fn stream(&self, plan: &LogicalPlan) -> Result<(Arc<dyn ExecutionPlan>, Rows), QueryError> {
        let physical = self.physical(plan).await?;
        let rows = execute_stream(Arc::clone(&physical), self.state.task_ctx()).map_err(|e| self.translate(e))?;
        Ok((physical, rows.boxed()))
    }

    /// Nobody's rows are kept from whoever asks.
    pub(super) fn sees_all(&self) -> bool {
        self.told.is_some()
    }

    /// What the plan has read is part of what was read.
    pub(super) fn note(&self, plan: &Arc<dyn ExecutionPlan>) {
        self.scanned.lock().add(plan);
    }

    pub(super) async fn plan_sql(&self, sql: &str) -> Result<LogicalPlan, QueryError> {
        guard::is_shallow(sql)?;
        let plan = self.state.create_logical_plan(sql).await.map_err(|e| self.translate(e))?;
        guard::reads_only(&plan)?;
        inlining::is_small(&plan)?;
        Ok(plan)
    }

    /// The plan that will run, looked through once more: it stays inside the tenant (I5).
    pub(super) async fn physical(&self, plan: &LogicalPlan) -> Result<Arc<dyn ExecutionPlan>, QueryError> {
        let physical = self.state.create_physical_plan(plan).await.map_err(|e| self.translate(e))?;
        guard::stays_inside(&physical)?;
        Ok(physical)
    }

    /// All rows of a plan that answers with few: more than `rows_max` are an error.
    pub(super) async fn collect(&self, plan: &LogicalPlan, rows_max: u64) -> Result<Vec<RecordBatch>, QueryError> {
        let physical = self.physical(plan).await?;
        let mut stream = execute_stream(Arc::clone(&physical), self.state.task_ctx()).map_err(|e| self.translate(e))?;
        let mut batches = Vec::new();
        let (mut rows, mut bytes) = (0, 0);
        while let Some(batch) = stream.try_next().await.map_err(|e| self.translate(e))? {
            rows += batch.num_rows() as u64;
            if rows > rows_max {
                return Err(QueryError::rows(rows_max));
            }
            bytes += bytes_of(&batch);
            if bytes > self.result_bytes_max.bytes() {
                return Err(QueryError::result_bytes(self.result_bytes_max));
            }
            batches.push(batch);
        }
        self.note(&physical);
        Ok(batches)
    }

    /// What was read so far, by all plans.
    pub(super) fn reading(&self) -> wire::Reading {
        let Scanned { rows, bytes } = *self.scanned.lock();
        let Touched { files, files_pruned, files_rolled_up, fresh_rows } =
            self.told.as_ref().map(|tables| tables.touched()).unwrap_or_default();
        wire::Reading {
            watermark_unix_micros: self.watermark_us,
            rows: rows + fresh_rows,
            bytes,
            files,
            files_pruned,
            exact: false,
            files_rolled_up,
        }
    }

    /// All rows of a plan, within a share of the query's memory. `None`: they do not fit, or, of an attempt, what makes
    /// them does not.
    pub(super) async fn collect_within(
        &self,
        plan: &LogicalPlan,
        share: f64,
        spilling: Spilling,
    ) -> Result<Option<Kept>, QueryError> {
        let physical = self.physical(plan).await?;
        let context = match spilling {
            Spilling::Allowed => self.state.task_ctx(),
            Spilling::Refused => self.without_disk().map_err(|e| self.translate(e))?,
        };
        let kept = self.keep(&physical, context, (self.memory_max.bytes() as f64 * share) as usize).await;
        self.note(&physical);
        match kept {
            Err(error) if spilling == Spilling::Refused && is_exhausted(&error) => Ok(None),
            kept => kept.map_err(|e| self.translate(e)),
        }
    }

    async fn keep(
        &self,
        physical: &Arc<dyn ExecutionPlan>,
        context: Arc<TaskContext>,
        bytes_max: usize,
    ) -> Result<Option<Kept>, DataFusionError> {
        let held = MemoryConsumer::new("kept rows").register(context.memory_pool());
        let mut stream = execute_stream(Arc::clone(physical), context)?;
        let mut batches = Vec::new();
        while let Some(batch) = stream.try_next().await? {
            let bytes = bytes_of(&batch) as usize;
            if held.size() + bytes > bytes_max || held.try_grow(bytes).is_err() {
                return Ok(None);
            }
            batches.push(batch);
        }
        Ok(Some(Kept::new(physical.schema(), batches, held)))
    }

    fn without_disk(&self) -> Result<Arc<TaskContext>, DataFusionError> {
        let disk = DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled).build()?;
        let runtime = RuntimeEnv { disk_manager: Arc::new(disk), ..RuntimeEnv::clone(self.state.runtime_env()) };
        Ok(Arc::new(TaskContext::from(&self.state).with_runtime(Arc::new(runtime))))
    }

    pub(super) fn translate(&self, error: DataFusionError) -> QueryError {
        translate(error, self.memory.refusal())
    }
}

fn is_exhausted(error: &DataFusionError) -> bool {
    matches!(error.find_root(), DataFusionError::ResourcesExhausted(_))
}
