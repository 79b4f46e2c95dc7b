//! One file read in order, a window of rows at a time, pages by range: never a whole large file, and never much more
//! than the window, whatever its rows weigh.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, new_null_array};
use arrow::compute::concat_batches;
use arrow::datatypes::{BinaryViewType, ByteViewType, DataType, Schema, SchemaRef, StringViewType};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, TryStreamExt};
use parking_lot::Mutex;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, RowSelection, RowSelector};
use parquet::arrow::async_reader::{AsyncFileReader, ParquetRecordBatchStreamBuilder};
use parquet::basic::Type as PhysicalType;
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader};

use super::memory::Shares;
use super::{CompactError, Result};
use crate::base::TenantId;
use crate::catalog::DataFile;
use crate::model::tables::Table;
use crate::store::{self, Path, Store};

/// Rows decoded at once, however narrow they are.
const WINDOW_ROWS_MAX: usize = 65_536;
/// Footer, page index and what stands between, of files whose footer's length is not known.
const FOOTER_BYTES_GUESSED: u64 = 256 << 10;

/// A file of a table, being read from its first row to its last.
pub(super) struct FileInput {
    file: Arc<DataFile>,
    reader: PageReader,
    metadata: ArrowReaderMetadata,
    schema: SchemaRef,
    window_bytes: u64,
    row_group: usize,
    /// In the row group.
    row: usize,
    weights: Weights,
    rows_read: u64,
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
            reader.fetch_whole().await?;
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
            row_group: 0,
            row: 0,
            weights,
            rows_read: 0,
        };
        input.enter_row_group();
        Ok(input)
    }

    pub(super) fn path(&self) -> &str {
        &self.file.path
    }

    /// Bytes held between windows: fetched pages, footer and page places.
    pub(super) fn held_bytes(&self) -> u64 {
        self.reader.kept_bytes() + self.metadata.metadata().memory_size() as u64
    }

    /// Lets go of fetched pages: the next window fetches them again.
    pub(super) fn forget_pages(&self) {
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
                let count = self.weights.rows_within(self.row, self.window_bytes, rows).min(WINDOW_ROWS_MAX);
                let window = self.read(self.row, count).await?;
                self.row += count;
                self.rows_read += count as u64;
                return Ok(Some(window));
            }
            self.row_group += 1;
            self.row = 0;
            self.enter_row_group();
        }
    }

    fn enter_row_group(&mut self) {
        let parquet = self.metadata.metadata();
        self.weights = match self.row_group < parquet.num_row_groups() {
            true => Weights::of(parquet, self.row_group),
            false => Weights::default(),
        };
    }

    async fn read(&mut self, from: usize, count: usize) -> Result<RecordBatch> {
        let failed = |e| CompactError::reading(&self.file.path, e);
        self.reader.begin_window();
        let selection = RowSelection::from(vec![RowSelector::skip(from), RowSelector::select(count)]);
        let stream = ParquetRecordBatchStreamBuilder::new_with_metadata(self.reader.clone(), self.metadata.clone())
            .with_row_groups(vec![self.row_group])
            .with_row_selection(selection)
            .with_batch_size(count)
            .build()
            .map_err(failed)?;
        let schema = Arc::clone(stream.schema());
        let batches: Vec<RecordBatch> = stream.try_collect().await.map_err(failed)?;
        self.reader.end_window();
        let arrow = |source| CompactError::Arrow { table: "a file", source };
        let batch = match batches.as_slice() {
            [batch] => batch.clone(),
            batches => concat_batches(&schema, batches).map_err(arrow)?,
        };
        if batch.num_rows() != count {
            let reason = format!("row group {} gave {} of {count} rows", self.row_group, batch.num_rows());
            return Err(CompactError::Corrupt { path: self.file.path.clone(), reason });
        }
        let columns = self.schema.fields().iter().map(|field| match batch.column_by_name(field.name()) {
            Some(column) => without_page(column),
            // Older than the column.
            None => new_null_array(field.data_type(), count),
        });
        RecordBatch::try_new(Arc::clone(&self.schema), columns.collect()).map_err(arrow)
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

/// How many bytes the rows of a row group take when decoded, from the sizes of its pages: one weight for each stretch of
/// rows that lie on the same pages.
#[derive(Debug, Default)]
struct Weights(Vec<(usize, f64)>);

impl Weights {
    fn of(parquet: &ParquetMetaData, row_group: usize) -> Self {
        let group = parquet.row_group(row_group);
        let rows = group.num_rows().max(1) as usize;
        let places = parquet.offset_index().and_then(|index| index.get(row_group));
        let mut changes: BTreeMap<usize, f64> = BTreeMap::new();
        let mut page = |range: Range<usize>, bytes: f64| {
            let weight = bytes / (range.len().max(1)) as f64;
            *changes.entry(range.start).or_default() += weight;
            *changes.entry(range.end).or_default() -= weight;
        };
        for (at, column) in group.columns().iter().enumerate() {
            // A value's own slot, and its share of the bytes of the column.
            let slot = match column.column_type() {
                PhysicalType::BOOLEAN => 1.0,
                PhysicalType::INT32 | PhysicalType::FLOAT => 4.0,
                _ => 16.0,
            };
            let index = places.and_then(|places| places.get(at)).filter(|index| !index.page_locations().is_empty());
            let Some(index) = index else {
                page(0..rows, column.uncompressed_size().max(0) as f64 + slot * rows as f64);
                continue;
            };
            let starts: Vec<usize> = index.page_locations().iter().map(|page| page.first_row_index as usize).collect();
            let text = index.unencoded_byte_array_data_bytes();
            for (number, start) in starts.iter().enumerate() {
                let end = starts.get(number + 1).copied().unwrap_or(rows);
                let bytes = text.and_then(|text| text.get(number)).map_or(0, |bytes| (*bytes).max(0));
                page(*start..end.max(*start), bytes as f64 + slot * (end.saturating_sub(*start)) as f64);
            }
        }
        let mut weight = 0.0;
        Self(
            changes
                .into_iter()
                .map(|(row, change)| {
                    (row, {
                        weight += change;
                        weight
                    })
                })
                .collect(),
        )
    }

    /// How many rows from `from` on take at most `bytes`; at least one.
    fn rows_within(&self, from: usize, bytes: u64, rows: usize) -> usize {
        let mut left = bytes as f64;
        let mut row = from;
        let mut at = self.0.partition_point(|(start, _)| *start <= from).saturating_sub(1);
        while row < rows {
            let end = self.0.get(at + 1).map_or(rows, |(start, _)| (*start).min(rows));
            let weight = self.0.get(at).map_or(1.0, |(_, weight)| weight.max(1.0));
            let whole = (end - row) as f64 * weight;
            if whole > left {
                row += (left / weight) as usize;
                break;
            }
            left -= whole;
            row = end;
            at += 1;
        }
        (row - from).clamp(1, rows - from)
    }
}

/// Reads ranges of a file and keeps what the last window used: windows share pages.
#[derive(Clone)]
struct PageReader {
    store: Store,
    path: Path,
    size_bytes: u64,
    pages: Arc<Mutex<Pages>>,
}

#[derive(Default)]
struct Pages {
    kept: Vec<(Range<u64>, Bytes)>,
    /// Which of them this window asked for.
    used: Vec<bool>,
    whole: bool,
}

impl Pages {
    fn find(&mut self, range: &Range<u64>) -> Option<Bytes> {
        let holds = |kept: &Range<u64>| kept.start <= range.start && range.end <= kept.end;
        let at = self.kept.iter().position(|(kept, _)| holds(kept))?;
        self.used[at] = true;
        let (kept, bytes) = &self.kept[at];
        Some(bytes.slice((range.start - kept.start) as usize..(range.end - kept.start) as usize))
    }

    fn keep(&mut self, range: Range<u64>, bytes: Bytes) {
        self.kept.push((range, bytes));
        self.used.push(true);
    }
}

impl PageReader {
    fn new(store: Store, path: Path, size_bytes: u64) -> Self {
        Self { store, path, size_bytes, pages: Arc::default() }
    }

    async fn fetch_whole(&mut self) -> Result<()> {
        let range = 0..self.size_bytes;
        let mut parts = self.store.get_ranges(&self.path, std::slice::from_ref(&range)).await?;
        let bytes = parts.pop().unwrap_or_default();
        if bytes.len() as u64 != self.size_bytes {
            let reason = format!("it has {} bytes, its commit says {}", bytes.len(), self.size_bytes);
            return Err(CompactError::Corrupt { path: self.path.to_string(), reason });
        }
        let mut pages = self.pages.lock();
        pages.whole = true;
        pages.keep(range, bytes);
        Ok(())
    }

    fn begin_window(&self) {
        self.pages.lock().used.fill(false);
    }

    fn end_window(&self) {
        let mut pages = self.pages.lock();
        if !pages.whole {
            let used = std::mem::take(&mut pages.used);
            let mut used = used.into_iter();
            pages.kept.retain(|_| used.next().unwrap_or(false));
            pages.used = vec![true; pages.kept.len()];
        }
    }

    fn forget(&self) {
        *self.pages.lock() = Pages::default();
    }

    fn kept_bytes(&self) -> u64 {
        self.pages.lock().kept.iter().map(|(_, bytes)| bytes.len() as u64).sum()
    }

    async fn ranges(&self, ranges: Vec<Range<u64>>) -> ParquetResult<Vec<Bytes>> {
        let mut found: Vec<Option<Bytes>> = {
            let mut pages = self.pages.lock();
            ranges.iter().map(|range| pages.find(range)).collect()
        };
        let missing: Vec<Range<u64>> =
            ranges.iter().zip(&found).filter(|(_, found)| found.is_none()).map(|(range, _)| range.clone()).collect();
        if !missing.is_empty() {
            if let Some(range) = missing.iter().find(|range| range.end > self.size_bytes || range.start > range.end) {
                return Err(ParquetError::General(format!("{range:?} lies outside of the file")));
            }
            let fetched = self.store.get_ranges(&self.path, &missing).await;
            let mut fetched = fetched.map_err(|e| ParquetError::External(Box::new(e)))?.into_iter();
            let mut pages = self.pages.lock();
            for (range, slot) in ranges.iter().zip(&mut found) {
                if slot.is_none()
                    && let Some(bytes) = fetched.next()
                {
                    if bytes.len() as u64 != range.end - range.start {
                        return Err(ParquetError::General(format!("{range:?} gave {} bytes", bytes.len())));
                    }
                    pages.keep(range.clone(), bytes.clone());
                    *slot = Some(bytes);
                }
            }
        }
        Ok(found.into_iter().flatten().collect())
    }
}

impl AsyncFileReader for PageReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, ParquetResult<Bytes>> {
        async move {
            let found = self.ranges(vec![range]).await?;
            found.into_iter().next().ok_or_else(|| ParquetError::General("a range without bytes".to_owned()))
        }
        .boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, ParquetResult<Vec<Bytes>>> {
        self.ranges(ranges).boxed()
    }

    /// Never asked for: the footer was read when the file was opened.
    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, ParquetResult<Arc<ParquetMetaData>>> {
        async move {
            let size_bytes = self.size_bytes;
            let reader = ParquetMetaDataReader::new().with_arrow_reader_options(options);
            Ok(Arc::new(reader.load_and_finish(self, size_bytes).await?))
        }
        .boxed()
    }
}
