//! `tracelake.v1.SqlService`: one SELECT, answered as one Arrow IPC stream in small pieces.

use std::collections::VecDeque;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use arrow::ipc::writer::StreamWriter;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use tonic::{Request, Response, Status};

use super::super::{AskedLimits, Doors, Refusal, SqlAnswer};
use super::passed;
use crate::base::Kind;
use crate::wire::sql_service_server::SqlService;
use crate::wire::{SqlRequest, SqlResponse};

/// The contract says that messages stay under 2 MiB.
const MESSAGE_BYTES: usize = 1 << 20;

pub(super) struct Sql(pub(super) Doors);

#[tonic::async_trait]
impl SqlService for Sql {
    type QueryStream = BoxStream<'static, Result<SqlResponse, Status>>;

    async fn query(&self, request: Request<SqlRequest>) -> Result<Response<Self::QueryStream>, Status> {
        let (caller, _) = passed(&request)?;
        let request = request.into_inner();
        let limits = AskedLimits {
            rows_max: (request.rows_max > 0).then_some(request.rows_max),
            time_max: (request.time_ms_max > 0).then(|| Duration::from_millis(request.time_ms_max)),
        };
        let answer = self.0.answers.sql(&caller.who, &request.sql, limits).await?;
        let messages = Encoding::new(answer)?.messages().map(|bytes| match bytes {
            Ok(arrow_ipc) => Ok(SqlResponse { arrow_ipc: arrow_ipc.into() }),
            Err(refusal) => Err(Status::from(refusal)),
        });
        Ok(Response::new(messages.boxed()))
    }
}

/// An answer on its way into bytes.
struct Encoding {
    batches: BoxStream<'static, Result<RecordBatch, Refusal>>,
    /// Rows of the batch in hand that are still to be written.
    rows: Option<RecordBatch>,
    /// `None`: the end is written.
    writer: Option<StreamWriter<Vec<u8>>>,
    ready: VecDeque<Bytes>,
}

impl Encoding {
    fn new(answer: SqlAnswer) -> Result<Self, Refusal> {
        let writer = StreamWriter::try_new(Vec::new(), &answer.schema).map_err(unwritable)?;
        Ok(Self { batches: answer.batches, rows: None, writer: Some(writer), ready: VecDeque::new() })
    }

    fn messages(self) -> impl Stream<Item = Result<Bytes, Refusal>> {
        futures::stream::try_unfold(self, |mut this| async move { Ok(this.next().await?.map(|bytes| (bytes, this))) })
    }

    async fn next(&mut self) -> Result<Option<Bytes>, Refusal> {
        loop {
            if let Some(message) = self.ready.pop_front() {
                return Ok(Some(message));
            }
            let Some(mut writer) = self.writer.take() else { return Ok(None) };
            let batch = match self.rows.take() {
                Some(rows) => Some(rows),
                None => self.batches.next().await.transpose()?,
            };
            match batch {
                Some(batch) => {
                    let (head, tail) = split(batch);
                    self.rows = tail;
                    writer.write(&head).map_err(unwritable)?;
                    self.cut(std::mem::take(writer.get_mut()));
                    self.writer = Some(writer);
                }
                None => self.cut(writer.into_inner().map_err(unwritable)?),
            }
        }
    }

    /// IPC bytes may be cut anywhere: clients join them again.
    fn cut(&mut self, written: Vec<u8>) {
        let mut written = Bytes::from(written);
        while !written.is_empty() {
            self.ready.push_back(written.split_to(written.len().min(MESSAGE_BYTES)));
        }
    }
}

/// Rows for about one message, and the rest: a large batch is never held a second time as a whole.
fn split(batch: RecordBatch) -> (RecordBatch, Option<RecordBatch>) {
    let bytes: usize = batch.columns().iter().map(|column| column.to_data().get_slice_memory_size().unwrap_or(0)).sum();
    let rows = batch.num_rows();
    let fitting = (rows * MESSAGE_BYTES / bytes.max(1)).max(1);
    match fitting < rows {
        true => (batch.slice(0, fitting), Some(batch.slice(fitting, rows - fitting))),
        false => (batch, None),
    }
}

fn unwritable(error: ArrowError) -> Refusal {
    Refusal::from_below(Kind::Internal, &error)
}
