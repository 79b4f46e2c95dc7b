//! One SQL statement: ask, read the Arrow stream as it comes, print.

use std::io::Write;

use arrow::array::RecordBatch;
use arrow::buffer::Buffer;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamDecoder;
use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, TryStreamExt};
use tonic::Status;

use super::records::{RecordWriter, is_closed_pipe};
use super::{CliError, Connection};
use crate::wire::{SqlRequest, SqlResponse};

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum OutputFormat {
    /// For people.
    Table,
    /// With a header line.
    Csv,
    /// One array of objects.
    Json,
}

/// An answer on its way.
pub struct Answer {
    pub schema: SchemaRef,
    pub batches: BoxStream<'static, Result<RecordBatch, CliError>>,
}

/// Whoever answers SQL: a server, or a tenant's tables opened right here.
#[async_trait]
pub trait Asked: Send + Sync {
    async fn ask(&self, sql: &str) -> Result<Answer, CliError>;
}

/// Returns the number of rows printed.
pub async fn run(
    asked: &dyn Asked,
    sql: &str,
    format: OutputFormat,
    out: &mut (dyn Write + Send),
) -> Result<u64, CliError> {
    match print(asked.ask(sql).await?, format, out).await {
        Err(error) if is_closed_pipe(&error) => Ok(0),
        result => result,
    }
}

async fn print(mut answer: Answer, format: OutputFormat, out: &mut (dyn Write + Send)) -> Result<u64, CliError> {
    let mut writer = RecordWriter::new(format, answer.schema, out)?;
    let mut rows = 0;
    while let Some(batch) = answer.batches.try_next().await? {
        rows += batch.num_rows() as u64;
        writer.write(&batch)?;
    }
    writer.finish(rows)?;
    Ok(rows)
}

#[async_trait]
impl Asked for Connection {
    async fn ask(&self, sql: &str) -> Result<Answer, CliError> {
        let answer = self.sql(SqlRequest { sql: sql.to_owned(), ..Default::default() }).await?;
        decode(answer).await
    }
}

/// Reads one Arrow IPC stream from messages that are cut anywhere.
async fn decode(
    messages: impl Stream<Item = Result<SqlResponse, Status>> + Send + Unpin + 'static,
) -> Result<Answer, CliError> {
    let mut stream = Decoding { messages, decoder: StreamDecoder::new(), bytes: Buffer::default() };
    let first = stream.next().await?;
    let no_schema = || ArrowError::IpcError("the answer ended before its schema".into());
    let schema = stream.decoder.schema().ok_or_else(no_schema)?;
    let rest = futures::stream::try_unfold(stream, |mut stream| async move {
        Ok::<_, CliError>(stream.next().await?.map(|batch| (batch, stream)))
    });
    let batches = futures::stream::iter(first.map(Ok)).chain(rest).boxed();
    Ok(Answer { schema, batches })
}

struct Decoding<S> {
    messages: S,
    decoder: StreamDecoder,
    bytes: Buffer,
}

impl<S: Stream<Item = Result<SqlResponse, Status>> + Unpin> Decoding<S> {
    async fn next(&mut self) -> Result<Option<RecordBatch>, CliError> {
        loop {
            while !self.bytes.is_empty() {
                if let Some(batch) = self.decoder.decode(&mut self.bytes)? {
                    return Ok(Some(batch));
                }
            }
            match self.messages.next().await {
                Some(message) => self.bytes = Buffer::from(message?.arrow_ipc),
                None => {
                    self.decoder.finish()?;
                    return Ok(None);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        Decimal128Array, Float64Array, Int64Array, ListBuilder, StringArray, StringBuilder, TimestampMicrosecondArray,
    };
    use arrow::ipc::writer::StreamWriter;

    use super::*;

    fn answer() -> RecordBatch {
        let mut tags = ListBuilder::new(StringBuilder::new());
        tags.append_value([Some("pro"), Some("a,b")]);
        tags.append_null();
        let cost = Decimal128Array::from(vec![Some(1_500_000_000_000), None]).with_precision_and_scale(18, 12).unwrap();
        let time = TimestampMicrosecondArray::from(vec![1_771_200_031_039_101, 0]).with_timezone("UTC");
        RecordBatch::try_from_iter([
            ("model", Arc::new(StringArray::from(vec!["gpt-4o", "größe"])) as _),
            ("calls", Arc::new(Int64Array::from(vec![5543, 7])) as _),
            ("cost", Arc::new(cost) as _),
            ("share", Arc::new(Float64Array::from(vec![0.25, 1.0])) as _),
            ("start_time", Arc::new(time) as _),
            ("tags", Arc::new(tags.finish()) as _),
        ])
        .unwrap()
    }

    /// Prints `batches` as they would arrive in messages of `message_bytes`.
    async fn printed(batches: &[RecordBatch], message_bytes: usize, format: OutputFormat) -> Result<String, CliError> {
        let mut writer = StreamWriter::try_new(Vec::new(), &answer().schema()).unwrap();
        batches.iter().for_each(|batch| writer.write(batch).unwrap());
        let stream = writer.into_inner().unwrap();
        let messages: Vec<_> =
            stream.chunks(message_bytes).map(|part| Ok(SqlResponse { arrow_ipc: part.to_vec() })).collect();
        let mut out: Vec<u8> = Vec::new();
        print(decode(futures::stream::iter(messages)).await?, format, &mut out).await?;
        Ok(String::from_utf8(out).unwrap())
    }

    async fn print_messages(messages: Vec<Result<SqlResponse, Status>>, out: &mut Vec<u8>) -> Result<u64, CliError> {
        print(decode(futures::stream::iter(messages)).await?, OutputFormat::Csv, out).await
    }

    #[tokio::test]
    async fn an_answer_reads_the_same_however_it_was_cut_into_messages() {
        let whole = printed(&[answer(), answer()], 1 << 20, OutputFormat::Csv).await.unwrap();
        assert_eq!(whole.lines().count(), 5);
        for message_bytes in [1, 7, 64, 1000] {
            assert_eq!(printed(&[answer(), answer()], message_bytes, OutputFormat::Csv).await.unwrap(), whole);
        }
    }

    #[tokio::test]
    async fn tables_align_numbers_to_the_right() {
        let table = printed(&[answer()], 64, OutputFormat::Table).await.unwrap();
        println!("{table}");
        assert!(
            table.contains("│ gpt-4o ┆  5543 ┆ 1.500000000000 ┆  0.25 ┆ 2026-02-16 00:00:31.039101 ┆ [pro, a,b] │"),
            "{table}"
        );
        assert!(table.ends_with("(2 rows)\n"), "{table}");
    }

    #[tokio::test]
    async fn csv_and_json_carry_lists_and_nulls() {
        let csv = printed(&[answer()], 64, OutputFormat::Csv).await.unwrap();
        let json = printed(&[answer()], 64, OutputFormat::Json).await.unwrap();
        println!("{csv}{json}");
        assert!(csv.starts_with("model,calls,cost,share,start_time,tags\n"), "{csv}");
        assert!(csv.contains("gpt-4o,5543,1.500000000000,0.25,2026-02-16T00:00:31.039101Z,\"[pro, a,b]\"\n"), "{csv}");
        let rows: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(rows[0]["tags"][1], "a,b");
        assert!(rows[1]["cost"].is_null() && rows[1]["tags"].is_null());
    }

    #[tokio::test]
    async fn an_empty_answer_still_has_its_columns() {
        assert!(printed(&[], 64, OutputFormat::Csv).await.unwrap().starts_with("model,calls,"));
        assert!(printed(&[], 64, OutputFormat::Table).await.unwrap().contains("(0 rows)"));
        assert_eq!(printed(&[], 64, OutputFormat::Json).await.unwrap(), "[]\n");
    }

    #[tokio::test]
    async fn an_answer_that_breaks_off_is_an_error() {
        let out: &mut Vec<u8> = &mut Vec::new();
        let nothing: Vec<Result<SqlResponse, Status>> = vec![];
        assert!(print_messages(nothing, out).await.is_err());
        let cut = vec![Ok(SqlResponse { arrow_ipc: vec![255, 255, 255, 255, 16, 0] })];
        assert!(print_messages(cut, out).await.is_err());
        let refused = vec![Err(Status::resource_exhausted("rows: 10,000 at most"))];
        let error = print_messages(refused, out).await.unwrap_err();
        assert!(error.to_string().contains("rows: 10,000 at most"));
    }
}
