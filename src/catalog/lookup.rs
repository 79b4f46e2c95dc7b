//! Finding rows by key: have we this id already, and what does its row say?
//!
//! Filters answer first, without reading a payload; only files that may hold a key are opened, their key column first.
//! Found rows are remembered while their file lives, because what is sent again once is often sent again twice.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use ::parquet::arrow::ProjectionMask;
use ::parquet::arrow::arrow_reader::{ArrowPredicateFn, RowFilter};
use ::parquet::arrow::async_reader::ParquetRecordBatchStreamBuilder;
use arrow::array::{AsArray, BooleanArray, Date32Array, RecordBatch};
use arrow::compute;
use arrow::datatypes::{DataType, TimestampMicrosecondType};
use futures::TryStreamExt;

use super::changes::{BatchKeys, KeyParts, RowKey};
use super::filters::Sought;
use super::reader::FileReader;
use super::snapshot::{DataFile, Snapshot};
use super::{Catalog, CatalogError, Result};
use crate::base::{Day, RowMap, RowSet, TenantId, TimestampUs};
use crate::format::index::key_hash;
use crate::format::parquet;
use crate::model::tables::Table;

/// A key, and where its row can be. Of most keys no row is there: they are not copied before one may be.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    pub hash: u64,
    pub key: KeyParts<'a>,
    /// The day its row would have by what is known of it; `None`: it can be on any day.
    pub day: Option<Day>,
    /// Days from here on are always looked at.
    pub since: Day,
}

/// A row that stands in a file or came late: `rows` are in the table's schema, with its home day.
#[derive(Debug, Clone)]
pub struct StandingRow {
    pub rows: RecordBatch,
    pub row: usize,
}

/// Found rows kept per table.
const REMEMBERED_ROWS_MAX: usize = 50_000;
/// Rows decoded at once while looking for keys.
const BATCH_ROWS: usize = 4096;
/// A batch of few rows of a table with large texts.
const TEXT_BATCH_ROWS: usize = 256;

#[derive(Debug, Default)]
pub(super) struct FoundRows {
    /// By the hash of their key: the key, and the file.
    rows: RowMap<u64, (RowKey, Arc<str>, StandingRow)>,
}

impl FoundRows {
    fn get(&self, asked: &Asked<'_>) -> Option<(&Arc<str>, &StandingRow)> {
        let (key, path, row) = self.rows.get(&asked.hash)?;
        asked.key.is(key).then_some((path, row))
    }
}

impl Catalog {
    /// The rows that stand for these keys at `snapshot`. What is not in the answer is surely not in the table.
    pub async fn find(
        &self,
        tenant: &TenantId,
        table: Table,
        snapshot: &Snapshot,
        asked: &[Asked<'_>],
    ) -> Result<HashMap<RowKey, StandingRow>> {
        let mut found = HashMap::new();
        if snapshot.files.is_empty() || asked.is_empty() {
            return Ok(found);
        }
        let late = self.late(tenant, table, snapshot).await?;
        let state = self.table(tenant, table);
        let mut open: Vec<&Asked<'_>> = Vec::with_capacity(asked.len());
        {
            let known = state.found.lock();
            for asked in asked {
                // What was erased does not come back by what is said about it later.
                if late.is_gone(asked.hash, asked.key.parts()) {
                    continue;
                }
                if let Some((rows, row)) = late.row(asked.hash, asked.key.parts()) {
                    found.insert(asked.key.owned(), StandingRow { rows: rows.clone(), row });
                } else if let Some((path, row)) = known.get(asked)
                    && snapshot.files.contains_key(path.as_ref())
                {
                    found.insert(asked.key.owned(), row.clone());
                } else {
                    open.push(asked);
                }
            }
        }
        let mut by_file: BTreeMap<&str, (&DataFile, Vec<&Asked<'_>>)> = BTreeMap::new();
        for file in snapshot.files.values() {
            let filters = self.filters.of(tenant, table, file).await?;
            let here =
                |asked: &&Asked<'_>| asked.looks_at(file) && filters.may_hold(&file.path, Sought::Key(asked.hash));
            let hits: Vec<&Asked<'_>> = open.iter().copied().filter(here).collect();
            if !hits.is_empty() {
                by_file.insert(&file.path, (file, hits));
            }
        }
        for (path, (file, hits)) in by_file {
            let keys: RowSet<RowKey> = hits.iter().map(|asked| asked.key.owned()).collect();
            let path: Arc<str> = path.into();
            for rows in self.read_rows(tenant, table, file, &keys).await? {
                let batch_keys = BatchKeys::of(table, &rows);
                let mut known = state.found.lock();
                if known.rows.len() + rows.num_rows() > REMEMBERED_ROWS_MAX {
                    known.rows.clear();
                }
                for row in 0..rows.num_rows() {
                    let key = batch_keys.key(row);
                    let standing = StandingRow { rows: rows.clone(), row };
                    if table != Table::ObservationIo {
                        known.rows.insert(batch_keys.hash(row), (key.clone(), Arc::clone(&path), standing.clone()));
                    }
                    found.insert(key, standing);
                }
            }
        }
        Ok(found)
    }

    /// Which of these keys were erased, and are hidden in files that are not written again yet: a row of such a key would
    /// stand a second time, and be hidden with the first.
    pub async fn gone(
        &self,
        tenant: &TenantId,
        table: Table,
        snapshot: &Snapshot,
        asked: &[Asked<'_>],
    ) -> Result<HashSet<RowKey>> {
        let late = self.late(tenant, table, snapshot).await?;
        let is_gone = |asked: &&Asked<'_>| late.is_gone(asked.hash, asked.key.parts());
        Ok(asked.iter().filter(is_gone).map(|asked| asked.key.owned()).collect())
    }

    /// Whether files may hold rows of these traces; one answer per hash.
    pub async fn traces_with_rows(
        &self,
        tenant: &TenantId,
        table: Table,
        snapshot: &Snapshot,
        traces: &[u64],
    ) -> Result<Vec<bool>> {
        let mut may = vec![false; traces.len()];
        for file in snapshot.files.values() {
            let filters = self.filters.of(tenant, table, file).await?;
            for (may, hash) in may.iter_mut().zip(traces) {
                *may = *may || filters.may_hold(&file.path, Sought::Trace(*hash));
            }
        }
        Ok(may)
    }

    /// The rows of one file with these keys.
    async fn read_rows(
        &self,
        tenant: &TenantId,
        table: Table,
        file: &DataFile,
        keys: &RowSet<RowKey>,
    ) -> Result<Vec<RecordBatch>> {
        let reader = FileReader::new(self.store.clone(), tenant, table, file);
        let path = reader.path().to_string();
        let failed = |source| CatalogError::Parquet { path: path.clone(), source };
        let builder = ParquetRecordBatchStreamBuilder::new(reader).await.map_err(failed)?;
        let names = table.key_columns();
        let columns = ProjectionMask::columns(builder.parquet_schema(), names.iter().copied());
        // Column by column first: nearly every row fails one of them. Whole keys are compared after.
        let wanted: Vec<RowSet<Box<str>>> =
            (0..names.len()).map(|at| keys.iter().map(|key| key[at].clone()).collect()).collect();
        let predicate = ArrowPredicateFn::new(columns, move |batch| {
            let may = wanted.iter().zip(batch.columns()).map(|(wanted, values)| {
                let values = compute::cast(values, &DataType::Utf8View)?;
                let hits = values.as_string_view().iter().map(|value| value.map(|value| wanted.contains(value)));
                Ok(hits.collect::<BooleanArray>())
            });
            may.reduce(|one, other| compute::and(&one?, &other?)).expect("a table with keys")
        });
        let text = table == Table::ObservationIo;
        let stream = builder
            .with_row_filter(RowFilter::new(vec![Box::new(predicate)]))
            .with_batch_size(if text { TEXT_BATCH_ROWS } else { BATCH_ROWS })
            .build()
            .map_err(failed)?;
        let batches: Vec<RecordBatch> = stream.try_collect().await.map_err(failed)?;
        let exact = |batch: RecordBatch| {
            let batch = parquet::conform(table, &batch, file.day);
            let batch_keys = BatchKeys::of(table, &batch);
            let hits: BooleanArray =
                (0..batch.num_rows()).map(|row| Some(keys.contains(&batch_keys.key(row)))).collect();
            compute::filter_record_batch(&batch, &hits).expect("a mask of the batch's length")
        };
        Ok(batches.into_iter().map(exact).filter(|batch| batch.num_rows() > 0).collect())
    }
}

impl StandingRow {
    /// Its home day.
    pub fn day(&self) -> Day {
        let days: &Date32Array = self.rows.column_by_name("day").expect("the table's schema").as_primitive();
        Day::from_days(days.value(self.row))
    }

    /// Its value of the table's time column.
    pub fn time_us(&self, table: Table) -> TimestampUs {
        let column = self.rows.column_by_name(table.time_column()).expect("the table's schema");
        column.as_primitive::<TimestampMicrosecondType>().value(self.row)
    }
}

impl<'a> Asked<'a> {
    pub fn about(key: &[&'a str], day: Option<Day>, since: Day) -> Self {
        Self { hash: key_hash(key), key: KeyParts::of(key), day, since }
    }

    /// A row whose day is known can lie a day off, if its start was corrected; recent days are always looked at, and
    /// all days where nothing is known. So is a file with rows of another time than its day's: they were placed by when
    /// they came, and the same row that comes again would be placed elsewhere; and one with rows that came without a
    /// start, which another event may say at last.
    fn looks_at(&self, file: &DataFile) -> bool {
        let near = |asked: Day| (asked.days() - file.day.days()).abs() <= 1;
        let astray = || file.time_us.is_none_or(|(min, max)| Day::of_us(min) < file.day || Day::of_us(max) > file.day);
        file.day >= self.since || self.day.is_none_or(near) || file.undated || astray()
    }
}
