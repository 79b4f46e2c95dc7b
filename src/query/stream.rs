//! A running query: its rows as they come, counted against its limits, stopped when it is dropped.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use arrow::array::{Array, ArrayRef, BinaryViewArray, RecordBatch, StringViewArray};
use arrow::datatypes::SchemaRef;
use futures::Stream;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::{Instant, Sleep};

use super::error::QueryError;
use crate::base::ByteSize;

/// Schema and rows of an answer. After an error nothing follows.
#[derive(Debug)]
pub struct SqlAnswer {
    schema: SchemaRef,
    batches: Batches,
    task: Task,
    deadline: Pin<Box<Sleep>>,
    limits: AnswerLimits,
    rows: u64,
    bytes: u64,
    /// Rows were left out: the error that says so comes next.
    over: Option<QueryError>,
    done: bool,
}

/// `None` is the end. A channel that closes without one belonged to a task that died: its rows are not an answer.
pub(super) type Batches = mpsc::Receiver<Result<Option<RecordBatch>, QueryError>>;

#[derive(Debug, Clone, Copy)]
pub(super) struct AnswerLimits {
    pub(super) time_max: Duration,
    pub(super) rows_max: u64,
    pub(super) bytes_max: ByteSize,
}

/// Stops its task when dropped.
#[derive(Debug)]
pub(super) struct Task(pub(super) AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl SqlAnswer {
    pub(super) fn new(
        schema: SchemaRef,
        batches: Batches,
        task: Task,
        deadline: Instant,
        limits: AnswerLimits,
    ) -> Self {
        let deadline = Box::pin(tokio::time::sleep_until(deadline));
        Self { schema, batches, task, deadline, limits, rows: 0, bytes: 0, over: None, done: false }
    }

    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn stop(&mut self, error: QueryError) -> Poll<Option<Result<RecordBatch, QueryError>>> {
        self.done = true;
        self.task.0.abort();
        Poll::Ready(Some(Err(error)))
    }
}

impl Stream for SqlAnswer {
    type Item = Result<RecordBatch, QueryError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.done {
            return Poll::Ready(None);
        }
        if let Some(error) = self.over.take() {
            return self.stop(error);
        }
        // Time is looked at first: a query that always has a row ready must stop too.
        if self.deadline.as_mut().poll(context).is_ready() {
            let error = QueryError::time(self.limits.time_max);
            return self.stop(error);
        }
        match self.batches.poll_recv(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(None) => self.stop(QueryError::Internal("the query's task died".to_owned())),
            Poll::Ready(Some(Err(error))) => self.stop(error),
            Poll::Ready(Some(Ok(None))) => {
                self.done = true;
                Poll::Ready(None)
            }
            Poll::Ready(Some(Ok(Some(batch)))) => {
                let left = self.limits.rows_max - self.rows;
                let batch = match batch.num_rows() as u64 > left {
                    true => {
                        self.over = Some(QueryError::rows(self.limits.rows_max));
                        batch.slice(0, left as usize)
                    }
                    false => batch,
                };
                self.rows += batch.num_rows() as u64;
                self.bytes += bytes_of(&batch);
                if self.bytes > self.limits.bytes_max.bytes() {
                    let error = QueryError::result_bytes(self.limits.bytes_max);
                    return self.stop(error);
                }
                Poll::Ready(Some(Ok(batch)))
            }
        }
    }
}

/// What the rows of a batch weigh, not the buffers they share with rows that are not in it.
pub(super) fn bytes_of(batch: &RecordBatch) -> u64 {
    batch.columns().iter().map(bytes_of_column).sum()
}

pub(super) fn bytes_of_column(column: &ArrayRef) -> u64 {
    let any = column.as_any();
    let bytes = if let Some(texts) = any.downcast_ref::<StringViewArray>() {
        16 * texts.len() + texts.iter().flatten().map(str::len).sum::<usize>()
    } else if let Some(blobs) = any.downcast_ref::<BinaryViewArray>() {
        16 * blobs.len() + blobs.iter().flatten().map(<[u8]>::len).sum::<usize>()
    } else {
        column.to_data().get_slice_memory_size().unwrap_or_else(|_| column.get_array_memory_size())
    };
    bytes as u64
}
