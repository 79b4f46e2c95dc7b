//! What rows that stand report of usage, trace by trace: a call that is reported again after the first report got into a
//! file must not count twice.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use ::parquet::arrow::ProjectionMask;
use ::parquet::arrow::arrow_reader::{ArrowPredicateFn, RowFilter};
use ::parquet::arrow::async_reader::ParquetRecordBatchStreamBuilder;
use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute;
use arrow::datatypes::DataType;
use futures::TryStreamExt;

use super::filters::Sought;
use super::reader::FileReader;
use super::snapshot::{DataFile, Snapshot};
use super::{Catalog, CatalogError, Result};
use crate::base::{Day, RowMap, TenantId};
use crate::format::index::key_hash;
use crate::format::parquet;
use crate::model::tables::{REPORT_COLUMNS, ReportReader, Table};
use crate::model::{Observation, ReadError};

/// Rows kept per table, as read from files.
const REMEMBERED_MAX: usize = 50_000;
/// Rows decoded at once while looking for traces.
const BATCH_ROWS: usize = 4096;

/// By file and trace: a file never changes, so what was read of it holds as long as it lives.
#[derive(Debug, Default)]
pub(super) struct FoundReports {
    traces: HashMap<(Arc<str>, u64), Arc<Vec<Observation>>>,
    rows: usize,
}

impl Catalog {
    /// The rows of these traces that stand at `snapshot` in files of the days named, or came late, as far as it matters to
    /// what they count: ids, type, response, usage, provided cost.
    pub async fn reports(
        &self,
        tenant: &TenantId,
        snapshot: &Snapshot,
        traces: &RowMap<&str, (Day, Day)>,
    ) -> Result<Vec<Observation>> {
        let mut standing: BTreeMap<(String, String), Observation> = BTreeMap::new();
        let hashes: RowMap<u64, (&str, (Day, Day))> =
            traces.iter().map(|(trace, days)| (key_hash(&[trace]), (*trace, *days))).collect();
        for file in snapshot.files.values() {
            let filters = self.filters.of(tenant, Table::Observations, file).await?;
            let near = |(first, last): (Day, Day)| first <= file.day && file.day <= last;
            let hits = hashes
                .iter()
                .filter(|(hash, (_, days))| near(*days) && filters.may_hold(&file.path, Sought::Trace(**hash)));
            let hits: RowMap<u64, &str> = hits.map(|(hash, (trace, _))| (*hash, *trace)).collect();
            if !hits.is_empty() {
                for said in self.reports_of(tenant, file, &hits).await? {
                    standing.insert((said.trace_id.clone(), said.id.clone()), said);
                }
            }
        }
        if standing.is_empty() {
            return Ok(Vec::new());
        }
        let late = self.late(tenant, Table::Observations, snapshot).await?;
        for batch in &late.rows {
            for said in read(tenant, batch, |trace| traces.contains_key(trace))? {
                standing.insert((said.trace_id.clone(), said.id.clone()), said);
            }
        }
        let is_gone = |(trace, id): &(String, String)| {
            let key = [trace.as_str(), id];
            late.is_gone(key_hash(&key), &key)
        };
        Ok(standing.into_iter().filter(|(key, _)| !is_gone(key)).map(|(_, said)| said).collect())
    }

    async fn reports_of(
        &self,
        tenant: &TenantId,
        file: &DataFile,
        traces: &RowMap<u64, &str>,
    ) -> Result<Vec<Observation>> {
        let state = self.table(tenant, Table::Observations);
        let path: Arc<str> = file.path.as_str().into();
        let key = |hash: u64| (Arc::clone(&path), hash);
        let (mut found, mut open) = (Vec::new(), HashMap::new());
        {
            let known = state.reports.lock();
            for (hash, trace) in traces {
                match known.traces.get(&key(*hash)) {
                    Some(rows) => found.extend(rows.iter().cloned()),
                    None => _ = open.insert(*trace, *hash),
                }
            }
        }
        if open.is_empty() {
            return Ok(found);
        }
        let mut by_trace: HashMap<u64, Vec<Observation>> = open.values().map(|hash| (*hash, Vec::new())).collect();
        for batch in self.read_traces(tenant, file, open.keys().copied().collect()).await? {
            for said in read(tenant, &batch, |trace| open.contains_key(trace))? {
                by_trace.entry(open[said.trace_id.as_str()]).or_default().push(said);
            }
        }
        let mut known = state.reports.lock();
        let more: usize = by_trace.values().map(|rows| rows.len() + 1).sum();
        if known.rows + more > REMEMBERED_MAX {
            *known = FoundReports::default();
        }
        known.rows += more;
        for (hash, rows) in by_trace {
            found.extend(rows.iter().cloned());
            known.traces.insert(key(hash), Arc::new(rows));
        }
        Ok(found)
    }

    /// The rows of one file that belong to these traces, with the columns of a report.
    async fn read_traces(&self, tenant: &TenantId, file: &DataFile, traces: HashSet<&str>) -> Result<Vec<RecordBatch>> {
        let traces: HashSet<Box<str>> = traces.into_iter().map(Box::from).collect();
        let reader = FileReader::new(self.store.clone(), tenant, Table::Observations, file);
        let path = reader.path().to_string();
        let failed = |source| CatalogError::Parquet { path: path.clone(), source };
        let builder = ParquetRecordBatchStreamBuilder::new(reader).await.map_err(failed)?;
        let trace_id = ProjectionMask::columns(builder.parquet_schema(), ["trace_id"]);
        let columns = ProjectionMask::columns(builder.parquet_schema(), REPORT_COLUMNS);
        let predicate = ArrowPredicateFn::new(trace_id, move |batch| {
            let values = compute::cast(batch.column(0), &DataType::Utf8View)?;
            let hits = values.as_string_view().iter().map(|value| value.map(|value| traces.contains(value)));
            Ok(hits.collect::<BooleanArray>())
        });
        let stream = builder
            .with_projection(columns)
            .with_row_filter(RowFilter::new(vec![Box::new(predicate)]))
            .with_batch_size(BATCH_ROWS)
            .build()
            .map_err(failed)?;
        let batches: Vec<RecordBatch> = stream.try_collect().await.map_err(failed)?;
        Ok(batches.iter().map(|batch| parquet::conform(Table::Observations, batch, file.day)).collect())
    }
}

/// What the rows of `batch` whose trace is wanted report.
fn read(tenant: &TenantId, batch: &RecordBatch, wanted: impl Fn(&str) -> bool) -> Result<Vec<Observation>> {
    let damaged = |source: ReadError| CatalogError::Corrupt {
        tenant: tenant.clone(),
        table: Table::Observations.name(),
        reason: format!("a row cannot be read back: {source}"),
    };
    let reader = ReportReader::new(batch).map_err(damaged)?;
    let rows = (0..batch.num_rows()).filter(|row| reader.trace(*row).is_some_and(&wanted));
    rows.map(|row| reader.read(row).map_err(damaged)).collect()
}
