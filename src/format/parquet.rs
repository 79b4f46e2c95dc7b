//! Parquet files: how each table's rows are written, and what the commit must know about the file.

use std::sync::{Arc, mpsc};

use arrow::array::{ArrayRef, AsArray, Date32Array, RecordBatch, StringViewArray, new_null_array};
use arrow::compute::{self, SortColumn};
use arrow::datatypes::{Field, TimestampMicrosecondType};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::metadata::SortingColumn;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};
use parquet::schema::types::ColumnPath;
use serde_json::json;

use super::index::key_hash;
use crate::base::{ByteSize, Day, TimestampUs};
use crate::model::tables::{ColumnType, Table};

/// Row groups are bounded by bytes before encoding, so that wide rows cannot fill memory, and by rows.
const ROW_GROUP_BYTES_MAX: ByteSize = ByteSize::mib(128);
const ROW_GROUP_ROWS_MAX: usize = 1 << 20;
/// Pages of the narrow tables; the page index prunes by them.
const PAGE_ROWS_MAX: usize = 20_000;
/// Pages of text: an agent's history repeats within one page, and zstd finds it (20.9× at 1 MiB, 23.2× at 8 MiB).
const TEXT_PAGE_BYTES: ByteSize = ByteSize::mib(8);
/// Minimum and maximum of long texts are cut, or they bloat footers.
const STATISTICS_BYTES_MAX: usize = 64;
/// Of merged files too: level 6 made them 2 % smaller and took twice as long.
pub(super) const ZSTD_LEVEL: i32 = 3;

/// Columns whose values hardly repeat: a dictionary only costs.
const UNIQUE_TEXT: [&str; 5] = ["id", "parent_id", "root_id", "response_id", "observation_id"];
/// Columns of free text: no statistics, no dictionary.
const FREE_TEXT: [&str; 5] = ["input", "output", "exception_stacktrace", "status_message", "comment"];

/// What an add action says of a written file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileFacts {
    pub size_bytes: u64,
    pub rows: u64,
    pub footer_bytes: u64,
    /// True minimum and maximum of the time column.
    pub time_us: Option<(TimestampUs, TimestampUs)>,
}

impl FileFacts {
    /// `add.stats`: row count and the time column's range. Ids never stand here: the log outlives an erasure.
    pub fn delta_stats(&self, table: Table) -> String {
        let mut stats = json!({"numRecords": self.rows});
        if let Some((min, max)) = self.time_us {
            let column = table.time_column();
            stats["minValues"] = json!({column: iso(min, false)});
            stats["maxValues"] = json!({column: iso(max, true)});
            stats["nullCount"] = json!({column: 0});
        }
        stats.to_string()
    }
}

/// A written file, in memory, with what its add action says.
#[derive(Debug, Clone)]
pub struct DataFileBytes {
    pub bytes: Bytes,
    pub facts: FileFacts,
}

impl std::ops::Deref for DataFileBytes {
    type Target = FileFacts;

    fn deref(&self) -> &FileFacts {
        &self.facts
    }
}

/// Delta statistics hold milliseconds: a minimum is rounded down, a maximum up, and the range stays true.
fn iso(us: TimestampUs, up: bool) -> String {
    let ms = if up { us.div_euclid(1000) + i64::from(us.rem_euclid(1000) != 0) } else { us.div_euclid(1000) };
    let at = chrono::DateTime::from_timestamp_millis(ms).unwrap_or_default();
    at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
}

/// Writes batches, already in the table's sort order, as one file. They are encoded as they come: what is held is the
/// encoded file, and two batches of the rows.
///
/// Rows that come in more than one batch are encoded by a thread of its own while the caller's makes the next: either
/// takes about as long.
pub fn write(
    table: Table,
    batches: impl IntoIterator<Item = RecordBatch>,
) -> Result<DataFileBytes, parquet::errors::ParquetError> {
    let mut writer = FileWriter::new(table, ROW_GROUP_BYTES_MAX)?;
    let mut batches = batches.into_iter();
    let (first, second) = (batches.next(), batches.next());
    let Some(second) = second else {
        first.iter().try_for_each(|batch| writer.write(batch))?;
        return writer.into_bytes();
    };
    let batches = first.into_iter().chain([second]).chain(batches);
    std::thread::scope(|threads| {
        let (give, take) = mpsc::sync_channel::<RecordBatch>(0);
        let encoder = threads.spawn(move || {
            take.iter().try_for_each(|batch| writer.write(&batch))?;
            writer.into_bytes()
        });
        for batch in batches {
            if give.send(batch).is_err() {
                // It gave up, and says why.
                break;
            }
        }
        drop(give);
        encoder.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// A file being written whose bytes are taken away as they become ready: what is held is one row group.
pub struct FileWriter {
    table: Table,
    arrow: ArrowWriter<Vec<u8>>,
    rows: u64,
    time_us: Option<(TimestampUs, TimestampUs)>,
    taken_bytes: u64,
    held_bytes_max: u64,
}

impl FileWriter {
    /// Begins a file whose row groups have about `row_group_bytes_max` at most, which is what is held of it.
    pub fn new(table: Table, row_group_bytes_max: ByteSize) -> Result<Self, parquet::errors::ParquetError> {
        let options = ArrowWriterOptions::new()
            .with_properties(properties(table, row_group_bytes_max))
            .with_skip_arrow_metadata(true);
        let arrow = ArrowWriter::try_new_with_options(Vec::new(), table.file_schema(), options)?;
        let held_bytes_max = row_group_bytes_max.bytes().saturating_mul(2);
        Ok(Self { table, arrow, rows: 0, time_us: None, taken_bytes: 0, held_bytes_max })
    }

    /// Encodes rows that come, in the table's sort order, after those written before.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<(), parquet::errors::ParquetError> {
        self.rows += batch.num_rows() as u64;
        if let Some((min, max)) = time_range(self.table, batch) {
            self.time_us = Some(self.time_us.map_or((min, max), |(low, high)| (low.min(min), high.max(max))));
        }
        self.arrow.write(batch)?;
        // Open pages and dictionaries count too, which the writer's own limit leaves out.
        if self.arrow.memory_size() as u64 > self.held_bytes_max {
            self.arrow.flush()?;
        }
        Ok(())
    }

    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// The size of the file if it ended here, nearly.
    pub fn size_bytes(&self) -> u64 {
        (self.arrow.bytes_written() + self.arrow.in_progress_size()) as u64
    }

    /// Memory held: the open row group, and bytes not taken yet.
    pub fn held_bytes(&self) -> u64 {
        (self.arrow.memory_size() + self.arrow.inner().capacity()) as u64
    }

    /// The bytes of the file that are ready and were not taken before.
    pub fn take_ready(&mut self) -> Bytes {
        let ready = std::mem::take(self.arrow.inner_mut());
        self.taken_bytes += ready.len() as u64;
        Bytes::from(ready)
    }

    fn into_bytes(self) -> Result<DataFileBytes, parquet::errors::ParquetError> {
        let (facts, bytes) = self.finish()?;
        Ok(DataFileBytes { bytes, facts })
    }

    /// Ends the file: its facts, and the bytes not taken before.
    pub fn finish(mut self) -> Result<(FileFacts, Bytes), parquet::errors::ParquetError> {
        self.arrow.finish()?;
        let end = self.take_ready();
        let footer_bytes = footer_bytes(&end);
        let facts = FileFacts { size_bytes: self.taken_bytes, rows: self.rows, footer_bytes, time_us: self.time_us };
        Ok((facts, end))
    }
}

/// All rows of a small file, in the table's schema.
pub fn read(table: Table, file: Bytes, day: Day) -> Result<Vec<RecordBatch>, parquet::errors::ParquetError> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(file)?.build()?;
    reader.map(|batch| Ok(conform(table, &batch?, day))).collect()
}

/// Rows as a file gives them, in the table's schema: columns by name, cast where the file's types are a reader's own
/// choice, null where an older file lacks them.
pub fn conform(table: Table, rows: &RecordBatch, day: Day) -> RecordBatch {
    let schema = table.table_schema();
    let column = |field: &Arc<Field>| -> ArrayRef {
        if field.name() == "day" {
            return Arc::new(Date32Array::from_value(day.days(), rows.num_rows()));
        }
        match rows.column_by_name(field.name()) {
            Some(column) if column.data_type() == field.data_type() => Arc::clone(column),
            Some(column) => compute::cast(column, field.data_type()).expect("our own files have castable types"),
            None => new_null_array(field.data_type(), rows.num_rows()),
        }
    };
    let columns = schema.fields().iter().map(column).collect();
    RecordBatch::try_new(schema, columns).expect("each column was made for its field")
}

/// Footer, its length and the magic: what one exact request for the end of the file must fetch. The page index, which
/// stands right before the footer, is not counted.
pub(super) fn footer_bytes(file: &[u8]) -> u64 {
    let tail = file.len() - 8;
    let length = u32::from_le_bytes(file[tail..tail + 4].try_into().expect("four bytes"));
    u64::from(length) + 8
}

/// Rows in the table's sort order.
pub fn sort(table: Table, rows: &RecordBatch) -> Result<RecordBatch, arrow::error::ArrowError> {
    let columns: Vec<SortColumn> = table
        .sort_columns()
        .iter()
        .map(|name| SortColumn { values: Arc::clone(column(rows, name)), options: None })
        .collect();
    if columns.is_empty() {
        return Ok(rows.clone());
    }
    let order = compute::lexsort_to_indices(&columns, None)?;
    compute::take_record_batch(rows, &order)
}

fn time_range(table: Table, rows: &RecordBatch) -> Option<(TimestampUs, TimestampUs)> {
    let times = column(rows, table.time_column()).as_primitive::<TimestampMicrosecondType>();
    Some((compute::min(times)?, compute::max(times)?))
}

/// The key hashes of `rows`, for a file's key filter.
pub fn key_hashes(keys: &[&str], rows: &RecordBatch) -> Vec<u64> {
    let columns: Vec<&StringViewArray> = keys.iter().map(|name| column(rows, name).as_string_view()).collect();
    let hash = |row: usize| {
        let parts: Vec<&str> = columns.iter().map(|column| column.value(row)).collect();
        key_hash(&parts)
    };
    (0..rows.num_rows()).map(hash).collect()
}

/// The hashes of the traces in `rows`, each once per run of equal ones.
pub fn trace_hashes(rows: &RecordBatch) -> Vec<u64> {
    let traces = column(rows, "trace_id").as_string_view();
    let mut last = None;
    let news = traces.iter().flatten().filter(|trace| last.replace(*trace) != Some(*trace));
    news.map(|trace| key_hash(&[trace])).collect()
}

fn column<'a>(rows: &'a RecordBatch, name: &str) -> &'a ArrayRef {
    rows.column_by_name(name).expect("the table declares the column")
}

fn properties(table: Table, row_group_bytes_max: ByteSize) -> WriterProperties {
    let columns = table.columns();
    let place = |name: &str| columns.iter().position(|(column, ..)| *column == name).expect("declared") as i32;
    let sorting = table.sort_columns().iter().map(|name| SortingColumn {
        column_idx: place(name),
        descending: false,
        nulls_first: true,
    });
    let level = ZstdLevel::try_new(ZSTD_LEVEL).expect("a level zstd has");
    let mut properties = WriterProperties::builder()
        .set_writer_version(WriterVersion::PARQUET_1_0)
        .set_created_by(format!("tracelake {}", env!("CARGO_PKG_VERSION")))
        .set_compression(Compression::ZSTD(level))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS_MAX))
        .set_max_row_group_bytes(Some(row_group_bytes_max.as_usize().max(1)))
        .set_data_page_row_count_limit(PAGE_ROWS_MAX)
        .set_statistics_truncate_length(Some(STATISTICS_BYTES_MAX))
        .set_column_index_truncate_length(Some(STATISTICS_BYTES_MAX))
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_sorting_columns(Some(sorting.collect()));
    let leaf = |parts: &[&str]| ColumnPath::new(parts.iter().map(|part| (*part).to_owned()).collect());
    for (name, kind, _) in &columns {
        match kind {
            ColumnType::Timestamp => {
                properties = properties
                    .set_column_dictionary_enabled(leaf(&[name]), false)
                    .set_column_encoding(leaf(&[name]), Encoding::DELTA_BINARY_PACKED);
            }
            ColumnType::Long if name.ends_with("_ns") => {
                properties = properties
                    .set_column_dictionary_enabled(leaf(&[name]), false)
                    .set_column_encoding(leaf(&[name]), Encoding::DELTA_BINARY_PACKED);
            }
            ColumnType::Text if FREE_TEXT.contains(name) => {
                properties = properties
                    .set_column_dictionary_enabled(leaf(&[name]), false)
                    .set_column_statistics_enabled(leaf(&[name]), EnabledStatistics::None);
                if table == Table::ObservationIo {
                    properties = properties.set_column_data_page_size_limit(leaf(&[name]), TEXT_PAGE_BYTES.as_usize());
                }
            }
            ColumnType::Text if UNIQUE_TEXT.contains(name) => {
                properties = properties.set_column_dictionary_enabled(leaf(&[name]), false);
            }
            ColumnType::TextMap | ColumnType::LongMap | ColumnType::MoneyMap => {
                for part in ["key", "value"] {
                    let path = leaf(&[name, "key_value", part]);
                    properties = properties.set_column_statistics_enabled(path, EnabledStatistics::None);
                }
            }
            _ => {}
        }
    }
    properties.build()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Score;
    use crate::model::tables::{SCORES, ScoreRow, batch};

    #[test]
    fn a_file_says_its_rows_its_true_times_and_its_footer() {
        let score = |at| ScoreRow {
            score: Score { id: format!("s{at}"), name: "n".into(), timestamp_us: Some(at), ..Default::default() }
                .into(),
            ingested_at_us: 0,
            provenance: None,
        };
        let rows = batch(Table::Scores, SCORES, &[score(2_000_001), score(1_000_999), score(5)]);
        let file = write(Table::Scores, [sort(Table::Scores, &rows).unwrap()]).unwrap();
        assert_eq!((file.rows, file.time_us), (3, Some((5, 2_000_001))));
        let stats: serde_json::Value = serde_json::from_str(&file.delta_stats(Table::Scores)).unwrap();
        assert_eq!(stats["minValues"]["timestamp"], "1970-01-01T00:00:00.000Z");
        assert_eq!(stats["maxValues"]["timestamp"], "1970-01-01T00:00:02.001Z");
        assert!(file.footer_bytes > 100 && file.footer_bytes < file.bytes.len() as u64);
        let read = parquet::arrow::arrow_reader::ParquetRecordBatchReader::try_new(file.bytes, 10).unwrap();
        let batches: Vec<RecordBatch> = read.map(Result::unwrap).collect();
        assert_eq!(batches[0].num_rows(), 3);
        let times = batches[0].column_by_name("timestamp").unwrap().as_primitive::<TimestampMicrosecondType>();
        assert_eq!(times.values(), &[5, 1_000_999, 2_000_001], "sorted by time");
    }
}
