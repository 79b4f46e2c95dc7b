//! Sums up files while they are written: the roll-ups that [`super::metrics::rollup`] asks for. One plan a file, over its
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
use super::metrics::rollup;
use super::session::Template;
use super::stream::Task;
use crate::base::ByteSize;
use crate::catalog::{RollupWriter, Rollups};
use crate::format::rollup::{RollupEncoder, RollupFacts};
use crate::model::tables::Table;

/// What the groups of an hour, with their sketches, may take.
const GROUPS_MAX: ByteSize = ByteSize::mib(32);
/// And what is encoded of the hours before.
const ENCODED_MAX: ByteSize = ByteSize::mib(24);
/// Files of fewer rows are read as fast as their sums.
const ROWS_MIN: u64 = 10_000;
/// A roll-up has at most this share of its file's rows: else reading them costs little more.
const ROWS_SHARE: u64 = 4;

pub struct FileRollups {
    template: Arc<Template>,
    rows_min: u64,
    rows_share: u64,
}

impl FileRollups {
    pub fn new() -> Result<Self, QueryError> {
        let limits = QueryLimits {
            memory_max: GROUPS_MAX,
            // Of each file alone: who merges has as much set aside for each.
            memory_all: ByteSize(u64::MAX >> 1),
            spill_max: ByteSize(0),
            partitions: 1,
            ..QueryLimits::default()
        };
        let template = Template::new(&limits).map_err(|e| QueryError::Internal(e.to_string()))?;
        Ok(Self { template: Arc::new(template), rows_min: ROWS_MIN, rows_share: ROWS_SHARE })
    }

    /// Of all files, whether or not it is worth while.
    pub fn of_all(self) -> Self {
        Self { rows_min: 0, rows_share: 1, ..self }
    }
}

impl Rollups for FileRollups {
    fn memory_max(&self, table: Table, rows: u64) -> Option<ByteSize> {
        let memory = ByteSize(GROUPS_MAX.bytes() + ENCODED_MAX.bytes());
        (table == Table::Observations && rows >= self.rows_min).then_some(memory)
    }

    fn begin(&self, _: Table) -> Box<dyn RollupWriter> {
        let (sender, rows) = mpsc::channel(0);
        let template = Arc::clone(&self.template);
        let encoded = tokio::spawn(async move { encoded(&template, rows).await });
        let task = Task(encoded.abort_handle());
        let (columns, rows_share) = (rollup::sources(), self.rows_share);
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

async fn encoded(template: &Template, rows: mpsc::Receiver<RecordBatch>) -> Result<RollupEncoder> {
    let session = template.session(Arc::new(MemorySchemaProvider::new()), None, &template.memory())?;
    let physical = summing(&session, rows).await?;
    let mut sums = execute_stream(physical, session.task_ctx())?;
    let mut encoder = RollupEncoder::new(rollup::schema())?;
    while let Some(batch) = sums.try_next().await? {
        encoder.write(&RecordBatch::try_new(rollup::schema(), batch.columns().to_vec())?)?;
        if encoder.held_bytes() > ENCODED_MAX.bytes() {
            return Err(DataFusionError::ResourcesExhausted(format!("sums of more than {ENCODED_MAX}")));
        }
    }
    Ok(encoder)
}

async fn summing(session: &SessionState, rows: mpsc::Receiver<RecordBatch>) -> Result<Arc<dyn ExecutionPlan>> {
    let columns = rollup::sources();
    let schema = Table::Observations.table_schema();
    let places = columns.iter().map(|name| schema.index_of(name)).collect::<Result<Vec<_>, _>>()?;
    let schema = Arc::new(schema.project(&places)?);
    let in_order = columns.first().map(|time| ident(time).sort(true, false));
    let partition = Arc::new(Coming { schema: Arc::clone(&schema), rows: Mutex::new(Some(rows)) });
    let coming = StreamingTable::try_new(schema, vec![partition])?.with_sort_order(in_order.into_iter().collect());
    session.create_physical_plan(&rollup::made_of(Arc::new(coming))?).await
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
        let template = FileRollups::new().unwrap().template;
        let session = template.session(Arc::new(MemorySchemaProvider::new()), None, &template.memory()).unwrap();
        let plan = summing(&session, mpsc::channel(0).1).await.unwrap();
        let plan = displayable(plan.as_ref()).indent(false).to_string();
        assert!(plan.contains("ordering_mode=PartiallySorted([0])"), "{plan}");
        assert!(!plan.contains("SortExec") && !plan.contains("RepartitionExec"), "{plan}");
    }
}
