//! Files and late objects of one table, written again without the rows that are gone.

use std::collections::BTreeMap;
use std::sync::Arc;

use ::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use ::parquet::errors::ParquetError;
use arrow::array::{AsArray, BooleanArray, Date32Array, RecordBatch};
use arrow::compute;
use bytes::Bytes;
use uuid::Uuid;

use crate::base::{Day, TenantId, TimestampUs};
use crate::catalog::{
    BatchKeys, Catalog, CatalogError, Change, Checked, Committed, DataFile, Late, NewFile, Rewrite, RowKeys, Snapshot,
};
use crate::compact::{CompactError, Result};
use crate::format::index::{self, FileIndex, IndexObject, KeyFilter};
use crate::format::late::{LateDay, LateObject, RemovedKey};
use crate::format::parquet;
use crate::model::tables::Table;
use crate::store;

/// Lost races before it is given up until the next round.
const RACES_MAX: u32 = 20;
/// Rows decoded at once; few of a table with large texts.
const BATCH_ROWS: usize = 4096;
const TEXT_BATCH_ROWS: usize = 64;

/// Returns how many files were written again, or left the table whole.
pub(super) async fn fold(catalog: &Catalog, tenant: &TenantId, table: Table, now_us: TimestampUs) -> Result<u64> {
    for _ in 0..RACES_MAX {
        let snapshot = catalog.snapshot(tenant, table).await?;
        let late = catalog.late(tenant, table, &snapshot).await?;
        let mut gone = RowKeys::default();
        late.gone().for_each(|(hash, key)| _ = gone.insert(hash, key.clone()));
        let fold = Fold { catalog, tenant, table, gone, now_us };
        if fold.gone.is_empty() && !fold.holds_erased_facts(&late) {
            return Ok(0);
        }
        let written = fold.write(&snapshot).await?;
        if let Some(files) = fold.commit(&snapshot, written).await? {
            return Ok(files);
        }
    }
    Err(CompactError::Races { table: table.name() })
}

struct Fold<'a> {
    catalog: &'a Catalog,
    tenant: &'a TenantId,
    table: Table,
    /// Keys of rows that are gone.
    gone: RowKeys,
    now_us: TimestampUs,
}

#[derive(Default)]
struct Written {
    inputs: Vec<String>,
    outputs: Vec<NewFile>,
    dropped: u64,
}

impl Fold<'_> {
    /// Whether something is said late about a trace that was erased.
    fn holds_erased_facts(&self, late: &Late) -> bool {
        late.facts.values().any(|facts| self.is_erased(facts))
    }

    fn is_erased(&self, facts: &crate::model::TraceFacts) -> bool {
        let denied = self.catalog.erasures().denied(self.tenant);
        denied.is_some_and(|denied| {
            denied.trace(&facts.trace_id, self.now_us)
                || denied.owner(facts.user_id.as_deref(), facts.session_id.as_deref(), self.now_us)
        })
    }

    /// New files for those that hold rows that are gone; orphans until they are committed.
    async fn write(&self, snapshot: &Snapshot) -> Result<Written> {
        let (catalog, tenant, table) = (self.catalog, self.tenant, self.table);
        let objects = catalog.store();
        let mut written = Written::default();
        let index_id = Uuid::now_v7().to_string();
        let mut indexes = Vec::new();
        for file in catalog.files_with(tenant, table, snapshot, &self.gone).await? {
            let path = store::data_object(tenant, table.name(), &file.path);
            let gone_input = || CatalogError::InputGone { table: table.name(), path: file.path.clone() };
            let body = objects.get(&path).await?.ok_or_else(gone_input)?;
            let (keys, of) = (self.gone.clone(), Arc::clone(&file));
            let rewriting = tokio::task::spawn_blocking(move || without(table, &of, body, &keys));
            let rewriting = rewriting.await.map_err(|_| CompactError::Stopped)?;
            let Some((dropped, rest)) =
                rewriting.map_err(|source| CompactError::Parquet { path: path.to_string(), source })?
            else {
                continue;
            };
            written.inputs.push(file.path.clone());
            written.dropped += dropped;
            if let Some(Rest { bytes, keys, traces }) = rest {
                let path = store::data_file(file.day, Uuid::now_v7());
                objects.put(&store::data_object(tenant, table.name(), &path), bytes.bytes.clone()).await?;
                indexes.push(FileIndex { path: path.clone(), keys, traces });
                written.outputs.push(NewFile {
                    path,
                    day: file.day,
                    size_bytes: bytes.bytes.len() as u64,
                    footer_bytes: bytes.footer_bytes,
                    time_us: bytes.time_us,
                    stats: bytes.delta_stats(table),
                    index: Some(index_id.clone()),
                    rewrites: file.rewrites,
                });
            }
        }
        if !indexes.is_empty() {
            let object = IndexObject { table: table.name().to_owned(), files: indexes };
            objects.put(&store::index_file(tenant, table.name(), &index_id), index::encode(&object)).await?;
            catalog.remember_index(tenant, table, &index_id, &object);
        }
        Ok(written)
    }

    /// `None`: what was written does not fit any more, look again.
    async fn commit(&self, before: &Snapshot, written: Written) -> Result<Option<u64>> {
        let (catalog, tenant, table) = (self.catalog, self.tenant, self.table);
        for _ in 0..RACES_MAX {
            let snapshot = catalog.snapshot(tenant, table).await?;
            if written.inputs.iter().any(|path| !snapshot.files.contains_key(path)) {
                return Ok(None);
            }
            // A file that came since may hold a row that only the mask hides.
            let with = catalog.files_with(tenant, table, &snapshot, &self.gone).await?;
            if with.iter().any(|file| !before.files.contains_key(&file.path)) {
                return Ok(None);
            }
            let late = catalog.late(tenant, table, &snapshot).await?;
            let rest = self.rest_of(&late).map_err(|source| {
                let path = store::late_object(tenant, table.name(), None).to_string();
                CompactError::Parquet { path, source }
            })?;
            let late = match rest.is_empty() {
                true => None,
                false => Some(catalog.put_late(tenant, table, &snapshot, &rest).await?),
            };
            let rewrite = Rewrite {
                inputs: written.inputs.clone(),
                outputs: written.outputs.clone(),
                dropped: written.dropped,
                folded: snapshot.late.values().copied().collect(),
                late,
                checked: Some(Checked(snapshot.version)),
            };
            match catalog.commit(tenant, table, Change::Rewrite(rewrite)).await {
                Ok(Committed::Done { version }) => {
                    let (files, rows) = (written.inputs.len(), written.dropped);
                    tracing::info!(%tenant, table = table.name(), version, files, rows, "written again without what was erased");
                    return Ok(Some(files as u64));
                }
                Ok(_) => {}
                Err(CatalogError::InputGone { .. }) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }

    /// What the late objects say about rows that are not gone.
    fn rest_of(&self, late: &Late) -> Result<LateObject, ParquetError> {
        let mut rest = LateObject { table: self.table.name().to_owned(), ..Default::default() };
        let mut days: BTreeMap<Day, Vec<RecordBatch>> = BTreeMap::new();
        for batch in late.rows.iter().filter(|batch| batch.num_rows() > 0) {
            let day: &Date32Array = batch.column_by_name("day").expect("the table's schema").as_primitive();
            days.entry(Day::from_days(day.value(0))).or_default().push(batch.clone());
        }
        for (day, batches) in days {
            let all = compute::concat_batches(&self.table.table_schema(), &batches)?;
            let sorted = parquet::sort(self.table, &all)?;
            let rows = sorted.project(&(0..sorted.num_columns() - 1).collect::<Vec<_>>())?;
            let count = rows.num_rows() as u64;
            rest.days.push(LateDay::new(day, parquet::write(self.table, [rows])?.bytes, count));
        }
        let facts = late.facts.values().filter(|facts| !self.is_erased(facts));
        rest.facts = facts.map(|facts| facts.as_ref().clone()).collect();
        rest.facts.sort_by(|one, other| one.trace_id.cmp(&other.trace_id));
        for (hash, key) in late.gone() {
            let parts: Vec<&str> = key.iter().map(AsRef::as_ref).collect();
            if !self.gone.contains(hash, &parts) {
                rest.removed.push(RemovedKey { parts: parts.into_iter().map(str::to_owned).collect() });
            }
        }
        Ok(rest)
    }
}

/// A file without some rows.
struct Rest {
    bytes: parquet::DataFileBytes,
    keys: Option<KeyFilter>,
    traces: Option<KeyFilter>,
}

/// How many rows of a file are gone, and what is left of it; `None` if none is gone.
fn without(
    table: Table,
    file: &DataFile,
    body: Bytes,
    gone: &RowKeys,
) -> Result<Option<(u64, Option<Rest>)>, ParquetError> {
    let rows = if table == Table::ObservationIo { TEXT_BATCH_ROWS } else { BATCH_ROWS };
    let reader = ParquetRecordBatchReaderBuilder::try_new(body)?.with_batch_size(rows).build()?;
    let (mut hashes, mut traces) = (Vec::new(), Vec::new());
    let (mut dropped, mut kept, mut failed) = (0, 0, None);
    let batches = reader.map_while(|batch| match batch {
        Ok(batch) => {
            let batch = parquet::conform(table, &batch, file.day);
            let keys = BatchKeys::of(table, &batch);
            let stays = |row| !gone.contains(keys.hash(row), &keys.parts(row));
            let stays: BooleanArray = (0..batch.num_rows()).map(|row| Some(stays(row))).collect();
            let rest = compute::filter_record_batch(&batch, &stays).expect("a mask of the batch's length");
            let file_columns: Vec<usize> = (0..rest.num_columns() - 1).collect();
            let rest = rest.project(&file_columns).expect("columns it has");
            dropped += (batch.num_rows() - rest.num_rows()) as u64;
            kept += rest.num_rows();
            hashes.extend(parquet::key_hashes(table.key_columns(), &rest));
            if table == Table::Observations {
                traces.extend(parquet::trace_hashes(&rest));
            }
            Some(rest)
        }
        Err(error) => {
            failed = Some(error);
            None
        }
    });
    let bytes = parquet::write(table, batches)?;
    if let Some(error) = failed {
        return Err(error.into());
    }
    if dropped == 0 {
        return Ok(None);
    }
    let traces = (table == Table::Observations).then(|| KeyFilter::of(traces)).flatten();
    Ok(Some((dropped, (kept > 0).then(|| Rest { bytes, keys: KeyFilter::of(hashes), traces }))))
}
