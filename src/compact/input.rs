//! One file read in order, a window of rows at a time, pages by range: never a whole large file, and never much more
//! than the window, whatever its rows weigh.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, new_null_array};
use arrow::compute::concat_batches;
use arrow::datatypes::{BinaryViewType, ByteViewType, DataType, Schema, SchemaRef, StringViewType};
use futures::TryStreamExt;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, RowSelection, RowSelector};
use parquet::arrow::async_reader::{ParquetRecordBatchStream, ParquetRecordBatchStreamBuilder};
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaDataReader};

use super::memory::Shares;
use super::pages::PageReader;
use super::weights::Weights;
use super::{CompactError, Result};
use crate::base::TenantId;
use crate::catalog::DataFile;
use crate::model::tables::Table;
use crate::store::{self, Store};

/// Rows decoded at once, however narrow they are.
const WINDOW_ROWS_MAX: usize = 65_536;
/// Where windows have fewer, each is decoded by itself: rows are large then, and few of them share a page.
const STEPS_ROWS_MIN: usize = 512;
/// Footer, page index and what stands between, of files whose footer's length is not known.
const FOOTER_BYTES_GUESSED: u64 = 256 << 10;

/// A file of a table, being read from its first row to its last.
pub(super) struct FileInput {
    file: Arc<DataFile>,
    reader: PageReader,
    metadata: ArrowReaderMetadata,
    schema: SchemaRef,
    window_bytes: u64,
    /// A row group up to this size is fetched whole.
    row_group_bytes: u64,
    row_group: usize,
    /// In the row group.
    row: usize,
    weights: Weights,
    /// Of the row group that is being read.
    decoder: Option<Decoder>,
    /// Memory is short: no decoder outlives its window.
    is_thrifty: bool,
    rows_read: u64,
}

/// What is left of a row group. Where its pages are small enough to be held, it goes on from window to window, and each
/// page is decompressed once; else it ends with its window.
struct Decoder {
    rows: ParquetRecordBatchStream<PageReader>,
    /// Rows of a window.
    step: usize,
    /// Rows that it was begun for and has not given.
    left: usize,
    /// Its pages, decompressed, between windows.
    pages_bytes: u64,
}

impl FileInput {
    pub(super) async fn open(
        store: &Store,
        tenant: &TenantId,
        table: Table,
        file: Arc<DataFile>,
        shares: &Shares,
    ) -> Result<Self> {
        let path = store::data_object(tenant, table.name(), &file.path);
        let mut reader = PageReader::new(store.clone(), path, file.size_bytes);
        if file.size_bytes <= shares.whole_file_max() {
            reader.fetch(0..file.size_bytes).await?;
        }
        let failed = |e| CompactError::reading(&file.path, e);
        // Page places are needed, page statistics are not.
        let options = ArrowReaderOptions::new()
            .with_skip_arrow_metadata(true)
            .with_offset_index_policy(PageIndexPolicy::Optional)
            .with_column_index_policy(PageIndexPolicy::Skip);
        let hint = file.footer_bytes.map_or(FOOTER_BYTES_GUESSED, |bytes| bytes * 2).min(file.size_bytes);
        let fetched = ParquetMetaDataReader::new()
            .with_arrow_reader_options(Some(&options))
            .with_prefetch_hint(Some(hint as usize))
            .load_and_finish(&mut reader, file.size_bytes)
            .await;
        let parquet = Arc::new(fetched.map_err(failed)?);
        let found = ArrowReaderMetadata::try_new(Arc::clone(&parquet), options.clone()).map_err(failed)?;
        let asked = asked_schema(table, &file, found.schema())?;
        let metadata = ArrowReaderMetadata::try_new(parquet, options.with_schema(asked)).map_err(failed)?;
        let schema = table.file_schema();
        let weights = Weights::default();
        let mut input = Self {
            file,
            reader,
            metadata,
            schema,
            window_bytes: shares.window(),
            row_group_bytes: shares.row_group_whole_max(),
            row_group: 0,
            row: 0,
            weights,
            decoder: None,
            is_thrifty: false,
            rows_read: 0,
        };
        input.enter_row_group();
        Ok(input)
    }

    pub(super) fn path(&self) -> &str {
        &self.file.path
    }

    /// Whether the next window goes on with pages that were decompressed for the last.
    #[cfg(test)]
    pub(super) fn goes_on(&self) -> bool {
        self.decoder.is_some()
    }

    /// Bytes held between windows: pages, footer and page places.
    pub(super) fn held_bytes(&self) -> u64 {
        let pages_bytes = self.decoder.as_ref().map_or(0, |decoder| decoder.pages_bytes);
        self.reader.kept_bytes() + pages_bytes + self.metadata.metadata().memory_size() as u64
    }

    /// Lets go of pages: the next window fetches and decompresses them again.
    pub(super) fn forget_pages(&mut self) {
        self.is_thrifty = true;
        self.decoder = None;
        self.reader.forget();
    }

    /// The next rows, in the table's file schema, or `None` after the last.
    pub(super) async fn next(&mut self) -> Result<Option<RecordBatch>> {
        let parquet = Arc::clone(self.metadata.metadata());
        loop {
            if self.row_group >= parquet.num_row_groups() {
                if self.rows_read != self.file.rows {
                    let reason = format!("it has {} rows, its commit says {}", self.rows_read, self.file.rows);
                    return Err(CompactError::Corrupt { path: self.file.path.clone(), reason });
                }
                self.reader.forget();
                return Ok(None);
            }
            let rows = parquet.row_group(self.row_group).num_rows() as usize;
            if self.row < rows {
                let window = self.read(rows).await?;
                self.row += window.num_rows();
                self.rows_read += window.num_rows() as u64;
                return Ok(Some(window));
            }
            self.row_group += 1;
            self.row = 0;
            self.enter_row_group();
        }
    }

    fn enter_row_group(&mut self) {
        self.decoder = None;
        let parquet = self.metadata.metadata();
        self.weights = match self.row_group < parquet.num_row_groups() {
            true => Weights::of(parquet, self.row_group),
            false => Weights::default(),
        };
    }

    /// Fetches the row group by one request where it is small, and not page by page.
    async fn fetch_row_group(&mut self) -> Result<()> {
        let group = self.metadata.metadata().row_group(self.row_group);
        let columns = group.columns().iter().map(|column| column.byte_range());
        let (start, end) =
            columns.fold((u64::MAX, 0), |(start, end), (at, length)| (start.min(at), end.max(at + length)));
        if end <= self.file.size_bytes && start < end && end - start <= self.row_group_bytes {
            self.reader.fetch(start..end).await?;
        }
        Ok(())
    }

    /// The next window of a row group of so many rows.
    async fn read(&mut self, rows: usize) -> Result<RecordBatch> {
        if self.row == 0 {
            self.fetch_row_group().await?;
        }
        // A decoder asks for all its pages when it begins.
        let begins = self.decoder.is_none();
        let mut decoder = match self.decoder.take() {
            Some(decoder) => decoder,
            None => self.begin(rows)?,
        };
        if begins {
            self.reader.begin_window();
        }
        let count = decoder.step.min(decoder.left);
        let (mut batches, mut found) = (Vec::new(), 0);
        while found < count {
            let next = decoder.rows.try_next().await.map_err(|e| CompactError::reading(&self.file.path, e))?;
            let Some(batch) = next else { break };
            found += batch.num_rows();
            batches.push(batch);
        }
        if begins {
            self.reader.end_window();
        }
        if found != count {
            let reason = format!("row group {} gave {found} of {count} rows", self.row_group);
            return Err(CompactError::Corrupt { path: self.file.path.clone(), reason });
        }
        decoder.left -= count;
        let schema = Arc::clone(decoder.rows.schema());
        self.decoder = Some(decoder).filter(|decoder| decoder.left > 0);
        let arrow = |source| CompactError::Arrow { table: "a file", source };
        let batch = match batches.as_slice() {
            [batch] => batch.clone(),
            batches => concat_batches(&schema, batches).map_err(arrow)?,
        };
        let columns = self.schema.fields().iter().map(|field| match batch.column_by_name(field.name()) {
            Some(column) => without_page(column),
            // Older than the column.
            None => new_null_array(field.data_type(), count),
        });
        RecordBatch::try_new(Arc::clone(&self.schema), columns.collect()).map_err(arrow)
    }

    fn begin(&self, rows: usize) -> Result<Decoder> {
        let pages_bytes = self.pages_bytes();
        let fetched_bytes = self.metadata.metadata().row_group(self.row_group).compressed_size().max(0) as u64;
        let steps = self.weights.rows_anywhere(self.window_bytes).min(WINDOW_ROWS_MAX);
        let (step, left, pages_bytes) =
            match !self.is_thrifty && steps >= STEPS_ROWS_MIN && pages_bytes + fetched_bytes <= self.row_group_bytes {
                true => (steps, rows - self.row, pages_bytes),
                false => {
                    let count = self.weights.rows_within(self.row, self.window_bytes, rows).min(WINDOW_ROWS_MAX);
                    (count, count, 0)
                }
            };
        let selection = RowSelection::from(vec![RowSelector::skip(self.row), RowSelector::select(left)]);
        let rows = ParquetRecordBatchStreamBuilder::new_with_metadata(self.reader.clone(), self.metadata.clone())
            .with_row_groups(vec![self.row_group])
            .with_row_selection(selection)
            .with_batch_size(step)
            .build()
            .map_err(|e| CompactError::reading(&self.file.path, e))?;
        Ok(Decoder { rows, step, left, pages_bytes })
    }

    /// What a decoder of the row group holds beside what was fetched: a page of each column, and its dictionary.
    fn pages_bytes(&self) -> u64 {
        let parquet = self.metadata.metadata();
        let places = parquet.offset_index().and_then(|index| index.get(self.row_group));
        let group = parquet.row_group(self.row_group);
        let columns = group.columns().iter().enumerate().map(|(at, column)| {
            let pages = places.and_then(|places| places.get(at)).map_or(1, |index| index.page_locations().len().max(1));
            let whole = column.uncompressed_size().max(0) as u64;
            // The dictionary stays, decoded: its values, and a view of each.
            let dictionary = match column.dictionary_page_offset() {
                Some(at) => {
                    let share = (column.data_page_offset() - at) as f64 / column.compressed_size().max(1) as f64;
                    (whole as f64 * share.clamp(0.0, 1.0)) as u64
                }
                None => 0,
            };
            (whole - dictionary).div_ceil(pages as u64) + 2 * dictionary
        });
        columns.sum()
    }
}

/// The types to read a file's columns as: the table's. A column the table does not have is from a newer program.
fn asked_schema(table: Table, file: &DataFile, found: &Schema) -> Result<SchemaRef> {
    let declared = table.file_schema();
    let fields = found.fields().iter().map(|field| match declared.field_with_name(field.name()) {
        Ok(field) => Ok(field.clone()),
        Err(_) => Err(CompactError::UnknownColumn { path: file.path.clone(), column: field.name().clone() }),
    });
    Ok(Arc::new(Schema::new(fields.collect::<Result<Vec<_>>>()?)))
}

/// Views of text point into the page they were read from; where they need little of it, they get a copy, and the page
/// goes.
fn without_page(column: &ArrayRef) -> ArrayRef {
    fn compacted<T: ByteViewType>(column: &ArrayRef) -> ArrayRef {
        let views = column.as_byte_view::<T>();
        let held: usize = views.data_buffers().iter().map(|buffer| buffer.len()).sum();
        match held > 2 * views.total_buffer_bytes_used() {
            true => Arc::new(views.gc()),
            false => Arc::clone(column),
        }
    }
    match column.data_type() {
        DataType::Utf8View => compacted::<StringViewType>(column),
        DataType::BinaryView => compacted::<BinaryViewType>(column),
        _ => Arc::clone(column),
    }
}
