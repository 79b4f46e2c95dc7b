//! The live files of a table: there, of the size and rows that their adds say, with an index that covers their keys.

use std::collections::BTreeMap;
use std::sync::Arc;

use ::parquet::arrow::ProjectionMask;
use ::parquet::arrow::async_reader::{ParquetRecordBatchStream, ParquetRecordBatchStreamBuilder};
use ::parquet::errors::ParquetError;
use ::parquet::file::metadata::ParquetMetaData;
use ::parquet::file::statistics::Statistics;
use arrow::array::{Array, RecordBatch};
use arrow::compute;
use arrow::datatypes::{DataType, Field, Schema};
use futures::TryStreamExt;

use super::finding::Place;
use super::keys::Standing;
use super::{DoctorError, Result, Round};
use crate::base::{Kind, TenantId, TimestampUs};
use crate::catalog::{DataFile, FileReader, Snapshot};
use crate::format::index::{self, FileIndex, IndexObject, KeyFilter};
use crate::format::late::LateObject;
use crate::format::parquet;
use crate::model::tables::Table;
use crate::store::{self, StoreError};

/// Rows of key columns decoded at a time.
const BATCH_ROWS: usize = 8192;

/// What the key columns of one file say.
#[derive(Debug, Default)]
pub(super) struct FileKeys {
    pub(super) keys: Vec<u64>,
    traces: Vec<u64>,
}

/// Why a file cannot be read: its own fault, or the store's.
pub(super) enum Unread {
    Damaged(String),
    Away(DoctorError),
}

impl Round {
    pub(super) async fn files(&mut self, tenant: &TenantId, table: Table, snapshot: &Snapshot) -> Result<()> {
        let place = Place::table(tenant, table);
        // After the log was read: what is committed since is in neither.
        let root = store::table_root(tenant, table.name());
        let listed = self.store.list(&root, None).await?;
        let sizes: BTreeMap<&str, u64> = listed.iter().map(|meta| (meta.location.as_ref(), meta.size)).collect();
        let mut standing = Standing::of(table, snapshot);
        for (index, files) in by_index(snapshot) {
            let mut read = Vec::with_capacity(files.len());
            for file in files {
                let path = store::data_object(tenant, table.name(), &file.path);
                match sizes.get(path.as_ref()) {
                    None => {
                        let (path, rows) = (&file.path, file.rows);
                        self.found.error(&place, format!("{path} is live and not in the store: {rows} rows are lost"));
                    }
                    Some(size) if *size != file.size_bytes => {
                        let what = format!("{} has {size} bytes where its add says {}", file.path, file.size_bytes);
                        self.found.error(&place, what);
                    }
                    Some(_) => {
                        if let Some(keys) = self.file(tenant, table, file).await? {
                            standing.take(&keys.keys);
                            read.push((file, keys));
                        }
                    }
                }
            }
            if !table.key_columns().is_empty() {
                self.index(tenant, table, index, &read).await?;
            }
        }
        self.rollups(tenant, table, snapshot).await?;
        self.unique(tenant, table, snapshot, standing).await?;
        self.late(tenant, table, snapshot).await
    }

    /// One file's footer and keys; `None` if it cannot be read.
    async fn file(&mut self, tenant: &TenantId, table: Table, file: &DataFile) -> Result<Option<FileKeys>> {
        let place = Place::table(tenant, table);
        let (metadata, mut batches) = match self.open(tenant, table, file, table.key_columns()).await {
            Ok(opened) => opened,
            Err(Unread::Away(error)) => return Err(error),
            Err(Unread::Damaged(why)) => {
                self.found.error(&place, format!("{} cannot be read: {why}", file.path));
                return Ok(None);
            }
        };
        let rows = metadata.file_metadata().num_rows() as u64;
        if rows != file.rows {
            self.found.error(&place, format!("{} has {rows} rows where its add says {}", file.path, file.rows));
        }
        if let (Some((first, last)), Some((said_first, said_last))) = (times(table, &metadata), file.time_us)
            && (first < said_first || last > said_last)
        {
            let what = format!("{} has rows outside of the times its add says: queries by time miss them", file.path);
            self.found.error(&place, what);
        }
        (self.found.seen.files, self.found.seen.rows) = (self.found.seen.files + 1, self.found.seen.rows + rows);
        let mut keys = FileKeys::default();
        if table.key_columns().is_empty() {
            return Ok(Some(keys));
        }
        loop {
            match batches.try_next().await.map_err(unread) {
                Ok(Some(batch)) => keys.take(table, &batch),
                Ok(None) => return Ok(Some(keys)),
                Err(Unread::Away(error)) => return Err(error),
                Err(Unread::Damaged(why)) => {
                    self.found.error(&place, format!("the keys of {} cannot be read: {why}", file.path));
                    return Ok(None);
                }
            }
        }
    }

    /// Some columns of a file, as views of text where they are text.
    pub(super) async fn open(
        &self,
        tenant: &TenantId,
        table: Table,
        file: &DataFile,
        columns: &[&str],
    ) -> Result<(Arc<ParquetMetaData>, ParquetRecordBatchStream<FileReader>), Unread> {
        let reader = FileReader::new(self.store.clone(), tenant, table, file);
        let builder = ParquetRecordBatchStreamBuilder::new(reader).await.map_err(unread)?;
        if let Some(missing) = columns.iter().find(|name| builder.schema().index_of(name).is_err()) {
            return Err(Unread::Damaged(format!("it has no column {missing}")));
        }
        let metadata = Arc::clone(builder.metadata());
        let mask = ProjectionMask::columns(builder.parquet_schema(), columns.iter().copied());
        let batches = builder.with_projection(mask).with_batch_size(BATCH_ROWS).build().map_err(unread)?;
        Ok((metadata, batches))
    }

    /// An index object covers every key of the files that name it.
    async fn index(
        &mut self,
        tenant: &TenantId,
        table: Table,
        id: Option<&str>,
        files: &[(&DataFile, FileKeys)],
    ) -> Result<()> {
        let place = Place::table(tenant, table);
        let Some(id) = id else {
            for (file, _) in files {
                self.found.warning(&place, format!("{} has no index: every look-up opens it", file.path));
            }
            return Ok(());
        };
        let path = store::index_file(tenant, table.name(), id);
        let (object, mut problem) = match self.store.get(&path).await?.map(index::decode) {
            None => (None, Some("is missing".to_owned())),
            Some(Err(error)) => (None, Some(format!("cannot be read: {error}"))),
            Some(Ok(object)) => (Some(object), None),
        };
        let mut made = IndexObject { table: table.name().to_owned(), files: Vec::new() };
        for (file, keys) in files {
            let entry = object.iter().flat_map(|object| &object.files).find(|entry| entry.path == file.path);
            match (entry, entry.map(|entry| keys.uncovered(table, entry))) {
                (Some(entry), Some(None)) => made.files.push(entry.clone()),
                (_, why) => {
                    let why = why.flatten().unwrap_or("is not in it");
                    problem.get_or_insert_with(|| format!("is wrong: {} {why}", file.path));
                    made.files.push(keys.entry(table, &file.path));
                }
            }
        }
        let Some(problem) = problem.filter(|_| !files.is_empty()) else { return Ok(()) };
        if self.fix {
            self.store.put(&path, index::encode(&made)).await?;
        }
        let what = format!("index {id} of {} live files {problem}", files.len());
        self.found.error(&place, what).mend("make it anew from the files' keys", self.fix);
        Ok(())
    }

    /// Late objects that are live are there and can be read.
    async fn late(&mut self, tenant: &TenantId, table: Table, snapshot: &Snapshot) -> Result<()> {
        for number in snapshot.late.values() {
            let path = store::late_object(tenant, table.name(), Some(*number));
            let problem = match self.store.get(&path).await?.map(LateObject::decode_object) {
                Some(Ok(_)) => continue,
                Some(Err(error)) => format!("cannot be read: {error}"),
                None => "is live and not in the store: what it changed is lost".to_owned(),
            };
            self.found.error(&Place::table(tenant, table), format!("late object {number} {problem}"));
        }
        Ok(())
    }
}

impl FileKeys {
    fn take(&mut self, table: Table, batch: &RecordBatch) {
        let batch = as_views(batch);
        self.keys.extend(parquet::key_hashes(table.key_columns(), &batch));
        if table == Table::Observations {
            self.traces.extend(parquet::trace_hashes(&batch));
        }
    }

    /// What is wrong with an index entry for these keys.
    fn uncovered(&self, table: Table, entry: &FileIndex) -> Option<&'static str> {
        let Some(keys) = &entry.keys else { return Some("has no key filter in it") };
        let filter = keys.load();
        if !self.keys.iter().all(|hash| filter.may_hold(*hash)) {
            return Some("holds keys that its filter denies");
        }
        if table != Table::Observations {
            return None;
        }
        let Some(traces) = &entry.traces else { return Some("has no trace filter in it") };
        let filter = traces.load();
        let covered = self.traces.iter().all(|hash| filter.may_hold(*hash));
        (!covered).then_some("holds traces that its filter denies")
    }

    fn entry(&self, table: Table, path: &str) -> FileIndex {
        let traces = (table == Table::Observations).then(|| KeyFilter::of(self.traces.clone())).flatten();
        FileIndex { path: path.to_owned(), keys: KeyFilter::of(self.keys.clone()), traces }
    }
}

/// Files grouped by the index object they name.
fn by_index(snapshot: &Snapshot) -> BTreeMap<Option<&str>, Vec<&DataFile>> {
    let mut groups: BTreeMap<Option<&str>, Vec<&DataFile>> = BTreeMap::new();
    for file in snapshot.files.values() {
        groups.entry(file.index.as_deref()).or_default().push(file);
    }
    groups
}

/// The range of the time column, as the footer says it.
fn times(table: Table, metadata: &ParquetMetaData) -> Option<(TimestampUs, TimestampUs)> {
    let schema = metadata.file_metadata().schema_descr();
    let at = (0..schema.num_columns()).find(|at| schema.column(*at).path().string() == table.time_column())?;
    let mut range: Option<(i64, i64)> = None;
    for group in metadata.row_groups() {
        let Some(Statistics::Int64(said)) = group.column(at).statistics() else { return None };
        let (first, last) = (*said.min_opt()?, *said.max_opt()?);
        range = Some(range.map_or((first, last), |(low, high)| (low.min(first), high.max(last))));
    }
    range
}

/// Text columns as views: files do not say which kind of text their readers should make.
pub(super) fn as_views(batch: &RecordBatch) -> RecordBatch {
    let columns = batch.columns().iter().map(|column| match column.data_type() {
        DataType::Utf8 | DataType::LargeUtf8 => compute::cast(column, &DataType::Utf8View).expect("text becomes views"),
        _ => Arc::clone(column),
    });
    let columns: Vec<_> = columns.collect();
    let names = batch.schema();
    let fields = names.fields().iter().zip(&columns);
    let fields: Vec<Field> = fields.map(|(field, c)| Field::new(field.name(), c.data_type().clone(), true)).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).expect("the same columns under the same names")
}

pub(super) fn unread(error: ParquetError) -> Unread {
    if let ParquetError::External(source) = &error
        && let Some(store) = source.downcast_ref::<StoreError>()
        && store.kind() == Kind::Unavailable
    {
        return Unread::Away(DoctorError::Away(store.to_string()));
    }
    Unread::Damaged(error.to_string())
}
