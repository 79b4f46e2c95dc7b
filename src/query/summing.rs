//! Sums up files while they are written, as [`Sums`] says. One plan a roll-up, over the file's
//! rows as they come. They come by time: no more than an hour's groups are held, and what is done is encoded at once.

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use bytes::Bytes;
use datafusion::catalog::MemorySchemaProvider;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::execution::session_state::SessionState;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use datafusion::physical_plan::{ExecutionPlan, SendableRecordBatchStream, execute_stream};
use datafusion::prelude::ident;
use futures::channel::mpsc;
use futures::{SinkExt, StreamExt, TryStreamExt};
use parking_lot::Mutex;
use tokio::task::JoinHandle;

use super::error::QueryError;
use super::limits::QueryLimits;
use super::metrics::Sums;
use super::session::Template;
use super::stream::Task;
use crate::base::ByteSize;
use crate::catalog::{RollupWriter, Rollups};
use crate::format::rollup::{RollupEncoder, RollupFacts, RollupKind};
use crate::model::tables::Table;

/// What the groups of an hour, with their sketches, may take, and what is encoded of the hours before.
const HOURS_MAX: Limits = Limits { groups: ByteSize::mib(32), encoded: ByteSize::mib(24), rows_share: 4 };
const TRACES_MAX: Limits = Limits { groups: ByteSize::mib(40), encoded: ByteSize::mib(32), rows_share: 2 };
/// Files of fewer rows are read as fast as their sums.
const ROWS_MIN: u64 = 10_000;

#[derive(Clone, Copy)]
struct Limits {
    groups: ByteSize,
    encoded: ByteSize,
    /// A roll-up has at most this share of its file's rows: else reading them costs little more.
    rows_share: u64,
}

fn limits(kind: RollupKind) -> Limits {
    match kind {
        RollupKind::Hours => HOURS_MAX,
        RollupKind::Traces => TRACES_MAX,
    }
}

pub struct FileRollups {
    hours: Arc<Template>,
    traces: Arc<Template>,
    rows_min: u64,
    of_all: bool,
}

impl FileRollups {
    pub fn new() -> Result<Self, QueryError> {
        let template = |kind| {
            let limits = QueryLimits {
                memory_max: limits(kind).groups,
                // Of each file alone: who merges has as much set aside for each.
                memory_all: ByteSize(u64::MAX >> 1),
                spill_max: ByteSize(0),
                partitions: 1,
                ..QueryLimits::default()
            };
            Template::new(&limits).map(Arc::new).map_err(|e| QueryError::Internal(e.to_string()))
        };
        let (hours, traces) = (template(RollupKind::Hours)?, template(RollupKind::Traces)?);
        Ok(Self { hours, traces, rows_min: ROWS_MIN, of_all: false })
    }

    /// Of all files, whether or not it is worth while.
    pub fn of_all(self) -> Self {
        Self { rows_min: 0, of_all: true, ..self }
    }
}

impl Rollups for FileRollups {
    fn memory_max(&self, kind: RollupKind, table: Table, rows: u64) -> Option<ByteSize> {
        let Limits { groups, encoded, .. } = limits(kind);
        let memory = ByteSize(groups.bytes() + encoded.bytes());
        (table == Table::Observations && rows >= self.rows_min).then_some(memory)
    }

    fn begin(&self, kind: RollupKind, _: Table) -> Box<dyn RollupWriter> {
        let (sender, rows) = mpsc::channel(0);
        let template = Arc::clone(match kind {
            RollupKind::Hours => &self.hours,
            RollupKind::Traces => &self.traces,
        });
        let encoded = tokio::spawn(async move { encoded(kind, &template, rows).await });
        let task = Task(encoded.abort_handle());
        let (columns, rows_share) = (Sums::of(kind).sources(), if self.of_all { 1 } else { limits(kind).rows_share });
        Box::new(Summing { columns, rows: 0, rows_share, sender: Some(sender), encoded, _task: task })
    }
}

impl fmt::Debug for FileRollups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FileRollups")
    }
}

/// A file that is being summed up. Dropped, it stops its task.
struct Summing {
    columns: Vec<String>,
    rows: u64,
    rows_share: u64,
    /// `None`: it was given up.
    sender: Option<mpsc::Sender<RecordBatch>>,
    encoded: JoinHandle<Result<RollupEncoder>>,
    _task: Task,
}

#[async_trait]
impl RollupWriter for Summing {
    async fn push(&mut self, rows: &RecordBatch) {
        self.rows += rows.num_rows() as u64;
        let places: Option<Vec<usize>> = self.columns.iter().map(|name| rows.schema().index_of(name).ok()).collect();
        let rows = places.and_then(|places| rows.project(&places).ok());
        let (Some(rows), Some(sender)) = (rows, &mut self.sender) else { return self.sender = None };
        // Who does not listen any more says why in the end.
        _ = sender.send(rows).await;
    }

    async fn finish(mut self: Box<Self>) -> Option<(Bytes, RollupFacts)> {
        // Its end is the end of the rows. Who was given up has not seen them all.
        self.sender.take()?;
        let encoded = (&mut self.encoded).await.map_err(|e| DataFusionError::ExecutionJoin(Box::new(e))).flatten();
        let finished = match encoded {
            Ok(encoded) if encoded.rows().saturating_mul(self.rows_share) > self.rows => return None,
            Ok(encoded) => encoded.finish().map_err(DataFusionError::from),
            Err(error) if matches!(error.find_root(), DataFusionError::ResourcesExhausted(_)) => {
                tracing::debug!(%error, "a file is not summed up: its rows differ too much");
                return None;
            }
            Err(error) => Err(error),
        };
        finished.inspect_err(|error| tracing::warn!(%error, "a file is not summed up")).ok()
    }
}

async fn encoded(kind: RollupKind, template: &Template, rows: mpsc::Receiver<RecordBatch>) -> Result<RollupEncoder> {
    let (schema, encoded_max) = (Sums::of(kind).schema(), limits(kind).encoded);
    let session = template.session(Arc::new(MemorySchemaProvider::new()), None, &template.memory())?;
    let physical = summing(kind, &session, rows).await?;
    let mut sums = execute_stream(physical, session.task_ctx())?;
    let mut encoder = RollupEncoder::new(kind, Arc::clone(&schema))?;
    while let Some(batch) = sums.try_next().await? {
        encoder.write(&RecordBatch::try_new(Arc::clone(&schema), batch.columns().to_vec())?)?;
        if encoder.held_bytes() > encoded_max.bytes() {
            return Err(DataFusionError::ResourcesExhausted(format!("sums of more than {encoded_max}")));
        }
    }
    Ok(encoder)
}

async fn summing(
    kind: RollupKind,
    session: &SessionState,
    rows: mpsc::Receiver<RecordBatch>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let columns = Sums::of(kind).sources();
    let schema = Table::Observations.table_schema();
    let places = columns.iter().map(|name| schema.index_of(name)).collect::<Result<Vec<_>, _>>()?;
    let schema = Arc::new(schema.project(&places)?);
    let in_order = columns.first().map(|time| ident(time).sort(true, false));
    let partition = Arc::new(Coming { schema: Arc::clone(&schema), rows: Mutex::new(Some(rows)) });
    let coming = StreamingTable::try_new(schema, vec![partition])?.with_sort_order(in_order.into_iter().collect());
    session.create_physical_plan(&Sums::of(kind).made_of(Arc::new(coming))?).await
}

/// Rows that another makes.
#[derive(Debug)]
struct Coming {
    schema: SchemaRef,
    rows: Mutex<Option<mpsc::Receiver<RecordBatch>>>,
}

impl PartitionStream for Coming {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let rows = self.rows.lock().take();
        let once = || DataFusionError::Internal("rows that come once were asked for twice".to_owned());
        let rows = match rows {
            Some(rows) => rows.map(Ok).boxed(),
            None => futures::stream::iter([Err(once())]).boxed(),
        };
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), rows))
    }
}

#[cfg(test)]
mod tests {
    use datafusion::physical_plan::displayable;

    use super::*;

    #[tokio::test]
    async fn an_hour_is_done_when_the_next_begins() {
        let FileRollups { hours, traces, .. } = FileRollups::new().unwrap();
        for (kind, template) in [(RollupKind::Hours, hours), (RollupKind::Traces, traces)] {
            let session = template.session(Arc::new(MemorySchemaProvider::new()), None, &template.memory()).unwrap();
            let plan = summing(kind, &session, mpsc::channel(0).1).await.unwrap();
            let plan = displayable(plan.as_ref()).indent(false).to_string();
            assert!(plan.contains("ordering_mode=PartiallySorted([0])"), "{plan}");
            assert!(!plan.contains("SortExec") && !plan.contains("RepartitionExec"), "{plan}");
        }
    }
}
