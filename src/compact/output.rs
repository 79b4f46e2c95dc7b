//! Merged rows become files: encoded as they come, cut where the sort key changes, on their way to the store while the
//! next rows are merged.

use arrow::array::RecordBatch;
use arrow::row::{OwnedRow, RowConverter, SortField};
use uuid::Uuid;

use super::memory::HASH_BYTES;
use super::{CompactError, Result};
use crate::base::{ByteSize, Clock, Day, TenantId};
use crate::catalog::{NewFile, RollupWriter, Rollups};
use crate::format::index::{self, FileIndex, IndexObject, KeyFilter};
use crate::format::parquet::{self, FileWriter};
use crate::format::rollup::{RollupKind, RollupSet};
use crate::model::tables::Table;
use crate::store::{self, Store, Upload};

/// A cut waits at most this share of a file's rows for the sort key to change.
const CUT_LATE_SHARE: u64 = 8;

/// Whose files, and how they are to be.
pub(super) struct Wanted<'a> {
    pub(super) store: &'a Store,
    pub(super) clock: &'a dyn Clock,
    pub(super) tenant: &'a TenantId,
    pub(super) table: Table,
    pub(super) day: Day,
    pub(super) rewrites: u8,
    /// What it is made of holds rows that came without a start.
    pub(super) undated: bool,
    pub(super) row_group: ByteSize,
    /// After so many rows a file ends where the first sort column changes.
    pub(super) rows_per_file: u64,
    /// Or when it is as large as this.
    pub(super) bytes_max: u64,
    /// Who sums up the files, and how they are to be.
    pub(super) rollups: &'a dyn Rollups,
    pub(super) sums: Vec<RollupKind>,
}

pub(super) struct Output<'a> {
    wanted: Wanted<'a>,
    /// Of the first sort column, whose values stay in one file.
    converter: Option<RowConverter>,
    open: Option<OpenFile>,
    files: Vec<NewFile>,
    indexes: Vec<FileIndex>,
    index_id: Uuid,
}

struct OpenFile {
    path: String,
    writer: FileWriter,
    upload: Upload,
    key_hashes: Vec<u64>,
    trace_hashes: Vec<u64>,
    rollups: Vec<(RollupKind, Box<dyn RollupWriter>)>,
    last: Option<OwnedRow>,
}

impl<'a> Output<'a> {
    pub(super) fn begin(wanted: Wanted<'a>) -> Result<Self> {
        let schema = wanted.table.file_schema();
        let field = |name: &&str| {
            let field = schema.field_with_name(name).expect("the table declares its sort columns");
            SortField::new(field.data_type().clone())
        };
        let converter = wanted.table.sort_columns().first().map(field).map(|field| RowConverter::new(vec![field]));
        let converter = converter.transpose().map_err(|source| failed(wanted.table, source))?;
        let index_id = store::timed_id(wanted.clock.now_us());
        Ok(Self { wanted, converter, open: None, files: Vec::new(), indexes: Vec::new(), index_id })
    }

    /// Memory held: the open row group, keys, and what is on its way.
    pub(super) fn held_bytes(&self) -> u64 {
        let open = self.open.as_ref();
        open.map_or(0, |open| {
            open.writer.held_bytes() + (open.key_hashes.len() + open.trace_hashes.len()) as u64 * HASH_BYTES
        })
    }

    /// Takes the next rows, which come after those taken before.
    pub(super) async fn push(&mut self, mut rows: RecordBatch) -> Result<()> {
        while rows.num_rows() > 0 {
            let (count, ends) = self.room_for(&rows)?;
            if count > 0 {
                self.write(&rows.slice(0, count)).await?;
                rows = rows.slice(count, rows.num_rows() - count);
            }
            if ends {
                self.end_file().await?;
            }
        }
        Ok(())
    }

    /// Ends the last file and puts the index object: all files are durable on return, and nobody knows of them yet.
    pub(super) async fn finish(mut self) -> Result<Vec<NewFile>> {
        self.end_file().await?;
        let indexes = std::mem::take(&mut self.indexes);
        if !indexes.is_empty() {
            let object = IndexObject { table: self.wanted.table.name().to_owned(), files: indexes };
            let path = store::index_file(self.wanted.tenant, self.wanted.table.name(), &self.index_id.to_string());
            self.wanted.store.put(&path, index::encode(&object)).await?;
        }
        Ok(self.files)
    }

    /// Gives up: what was not finished is taken back, what was is for the sweep.
    pub(super) async fn abandon(self) {
        if let Some(open) = self.open {
            open.upload.abort().await;
        }
    }

    /// How many of `rows` belong into the open file, and whether it ends with them.
    fn room_for(&self, rows: &RecordBatch) -> Result<(usize, bool)> {
        let Some(open) = &self.open else {
            let first = (self.wanted.rows_per_file as usize).min(rows.num_rows()).max(1);
            return Ok((first, false));
        };
        let written = open.writer.rows();
        let is_full = open.writer.size_bytes() >= self.wanted.bytes_max;
        if written < self.wanted.rows_per_file && !is_full {
            let left = (self.wanted.rows_per_file - written).min(rows.num_rows() as u64);
            return Ok((left as usize, false));
        }
        let overdue = written >= self.wanted.rows_per_file + self.wanted.rows_per_file.div_ceil(CUT_LATE_SHARE);
        let (Some(converter), Some(last), false) = (&self.converter, &open.last, overdue) else {
            return Ok((0, true));
        };
        let keys = converter.convert_columns(&[self.first_column(rows)]);
        let keys = keys.map_err(|source| failed(self.wanted.table, source))?;
        let same = keys.iter().take_while(|key| *key == last.row()).count();
        Ok((same, same < rows.num_rows()))
    }

    fn first_column(&self, rows: &RecordBatch) -> arrow::array::ArrayRef {
        let name = self.wanted.table.sort_columns().first().expect("asked only of tables with an order");
        rows.column_by_name(name).expect("the table declares its sort columns").clone()
    }

    async fn write(&mut self, rows: &RecordBatch) -> Result<()> {
        let Wanted { store, clock, tenant, table, day, row_group, rollups, .. } = self.wanted;
        if self.open.is_none() {
            let path = store::data_file(day, store::timed_id(clock.now_us()));
            let writer = FileWriter::new(table, row_group).map_err(|e| CompactError::reading(&path, e))?;
            let upload = store.upload(store::data_object(tenant, table.name(), &path));
            let (key_hashes, trace_hashes) = (Vec::new(), Vec::new());
            let rollups = self.wanted.sums.iter().map(|kind| (*kind, rollups.begin(*kind, table))).collect();
            self.open = Some(OpenFile { path, writer, upload, key_hashes, trace_hashes, rollups, last: None });
        }
        let last = match &self.converter {
            Some(converter) => {
                let last = self.first_column(&rows.slice(rows.num_rows() - 1, 1));
                let keys = converter.convert_columns(&[last]).map_err(|source| failed(table, source))?;
                Some(keys.row(0).owned())
            }
            None => None,
        };
        let open = self.open.as_mut().expect("opened above");
        open.last = last;
        open.writer.write(rows).map_err(|e| CompactError::reading(&open.path, e))?;
        if !table.key_columns().is_empty() {
            open.key_hashes.extend(parquet::key_hashes(table.key_columns(), rows));
        }
        if table.has_trace_filters() {
            open.trace_hashes.extend(parquet::trace_hashes(rows));
        }
        for (_, rollup) in &mut open.rollups {
            rollup.push(rows).await;
        }
        let ready = open.writer.take_ready();
        Ok(open.upload.push(ready).await?)
    }

    async fn end_file(&mut self) -> Result<()> {
        let Some(open) = self.open.take() else { return Ok(()) };
        let OpenFile { path, writer, mut upload, key_hashes, trace_hashes, rollups, .. } = open;
        let (facts, end) = writer.finish().map_err(|e| CompactError::reading(&path, e))?;
        let put = async {
            upload.push(end).await?;
            Ok::<u64, CompactError>(upload.finish().await?)
        };
        let size_bytes = put.await?;
        if size_bytes != facts.size_bytes {
            let reason = format!("{size_bytes} bytes were put of {}", facts.size_bytes);
            return Err(CompactError::Corrupt { path, reason });
        }
        let table = self.wanted.table;
        let has_keys = !table.key_columns().is_empty();
        if has_keys {
            let traces = table.has_trace_filters().then(|| KeyFilter::of(trace_hashes)).flatten();
            self.indexes.push(FileIndex { path: path.clone(), keys: KeyFilter::of(key_hashes), traces });
        }
        let rollups = put_rollups(&self.wanted, &path, rollups).await?;
        self.files.push(NewFile {
            path,
            day: self.wanted.day,
            size_bytes,
            footer_bytes: facts.footer_bytes,
            time_us: facts.time_us,
            stats: facts.delta_stats(table),
            index: has_keys.then(|| self.index_id.to_string()),
            rollups,
            rewrites: self.wanted.rewrites,
            undated: self.wanted.undated,
        });
        Ok(())
    }
}

/// Puts what the rows of a file add up to beside it: durable on return.
async fn put_rollups(
    wanted: &Wanted<'_>,
    path: &str,
    rollups: Vec<(RollupKind, Box<dyn RollupWriter>)>,
) -> Result<RollupSet> {
    let mut put = RollupSet::default();
    for (kind, rollup) in rollups {
        if let Some((bytes, facts)) = rollup.finish().await {
            wanted.store.put(&store::rollup_object(wanted.tenant, kind, wanted.table.name(), path), bytes).await?;
            put.put(kind, facts);
        }
    }
    Ok(put)
}

fn failed(table: Table, source: arrow::error::ArrowError) -> CompactError {
    CompactError::Arrow { table: table.name(), source }
}
