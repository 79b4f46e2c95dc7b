//! Finding what an erasure takes, and taking it out of every answer at once: a late object that says these rows are gone.
//!
//! A trace goes with all that is said about it; a session or a user with the traces that belong to them, and with single
//! observations that name them. Only key columns are read, and where filters know better, only files that may hold a key.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use ::parquet::arrow::ProjectionMask;
use ::parquet::arrow::async_reader::ParquetRecordBatchStreamBuilder;
use arrow::array::{Array, AsArray, RecordBatch, StringViewArray};
use arrow::compute;
use arrow::datatypes::DataType;
use futures::TryStreamExt;
use tokio::time::Instant;

use super::changes::{BatchKeys, RowKey, RowKeys};
use super::commit::{Change, Checked, Committed};
use super::erasures::{Erasure, ErasureKind, digest};
use super::filters::Sought;
use super::fresh::{Fresh, FreshTable, PinnedRows};
use super::reader::FileReader;
use super::snapshot::{DataFile, Snapshot};
use super::{Catalog, CatalogError, Result};
use crate::base::TenantId;
use crate::format::index::key_hash;
use crate::format::late::{LateObject, RemovedKey};
use crate::model::tables::Table;

/// The tables that hold what is said about traces, in the order in which rows are masked: by what stands in the later
/// ones the rows of the earlier ones are found, also after a crash in between.
pub const ERASED_FROM: [Table; 4] = [Table::ObservationIo, Table::Scores, Table::Observations, Table::TraceFacts];
/// Lost races before it is given up; it is tried again.
const RACES_MAX: u32 = 50;

/// Whom an erasure is about.
struct Wanted<'a> {
    tenant: &'a str,
    kind: ErasureKind,
    /// As an [`Erasure`] writes them.
    subjects: HashSet<&'a str>,
    /// Hashes of traces.
    traces: HashSet<u64>,
}

impl<'a> Wanted<'a> {
    fn of(tenant: &'a TenantId, kind: ErasureKind, subjects: &'a [String], traces: &BTreeSet<u64>) -> Self {
        let mut traces: HashSet<u64> = traces.iter().copied().collect();
        if kind == ErasureKind::Trace {
            traces.extend(subjects.iter().map(|trace| key_hash(&[trace])));
        }
        Self { tenant: tenant.as_str(), kind, subjects: subjects.iter().map(String::as_str).collect(), traces }
    }

    fn trace(&self, trace: &str) -> bool {
        self.traces.contains(&key_hash(&[trace]))
    }

    fn score(&self, id: Option<&str>) -> bool {
        self.kind == ErasureKind::Score && id.is_some_and(|id| self.subjects.contains(id))
    }

    /// Whether all that is wanted of traces is known by their ids: rows of others need not be read.
    fn by_id(&self) -> bool {
        matches!(self.kind, ErasureKind::Trace | ErasureKind::Score)
    }

    /// Whether rows must be asked whom they are about.
    fn by_owner(&self) -> bool {
        matches!(self.kind, ErasureKind::Session | ErasureKind::User)
    }

    fn owner(&self, user: Option<&str>, session: Option<&str>) -> bool {
        let id = match self.kind {
            ErasureKind::User => user,
            ErasureKind::Session => session,
            ErasureKind::Trace | ErasureKind::Tenant | ErasureKind::Score => None,
        };
        id.is_some_and(|id| self.subjects.contains(digest(self.tenant, self.kind, id).as_str()))
    }
}

/// Keys of rows, by table.
type Found = BTreeMap<Table, Vec<RowKey>>;

impl Catalog {
    /// The hashes of the traces that belong to `values`, in files and among the rows pinned.
    pub async fn traces_of(
        &self,
        tenant: &TenantId,
        kind: ErasureKind,
        values: &[String],
        pinned: &dyn PinnedRows,
    ) -> Result<BTreeSet<u64>> {
        let traces: BTreeSet<u64> = match kind {
            ErasureKind::Trace => return Ok(values.iter().map(|trace| key_hash(&[trace])).collect()),
            ErasureKind::Tenant | ErasureKind::Score => return Ok(BTreeSet::new()),
            ErasureKind::Session | ErasureKind::User => BTreeSet::new(),
        };
        let subjects: Vec<String> = values.iter().map(|value| digest(tenant.as_str(), kind, value)).collect();
        let wanted = Wanted::of(tenant, kind, &subjects, &traces);
        // What others committed a moment ago counts too.
        let snapshot = self.snapshot_now(tenant, Table::TraceFacts).await?;
        let beside = pinned.rows(Table::TraceFacts, &snapshot).await?;
        let mut found = BTreeSet::new();
        self.each_row(tenant, Table::TraceFacts, &snapshot, &beside, None, |row| {
            if wanted.owner(row.get("user_id"), row.get("session_id")) {
                found.extend(row.get("trace_id").map(|trace| key_hash(&[trace])));
            }
        })
        .await?;
        Ok(found)
    }

    /// Takes the rows an erasure is about out of every answer: all that any process had committed when this was called.
    /// Returns how many by table; those masked before are not among them. Rows in no file yet are not its business.
    pub async fn mask(&self, tenant: &TenantId, erasure: &Erasure) -> Result<BTreeMap<String, u64>> {
        let wanted = Wanted::of(tenant, erasure.kind, &erasure.subjects, &erasure.traces);
        let mut masked = BTreeMap::new();
        // A snapshot that may be a second old lacks what was flushed before whoever flushed it heard of the erasure.
        let called = Instant::now();
        for _ in 0..RACES_MAX {
            let mut snapshots = HashMap::new();
            for table in ERASED_FROM {
                snapshots.insert(table, self.snapshot_since(tenant, table, called).await?);
            }
            let (found, traces) = self.find_wanted(tenant, wanted.kind, &wanted, &snapshots).await?;
            let mut is_done = true;
            for table in ERASED_FROM {
                let (keys, snapshot) = (&found[&table], &snapshots[&table]);
                if keys.is_empty() {
                    continue;
                }
                let removed =
                    keys.iter().map(|key| RemovedKey { parts: key.iter().map(|part| part.to_string()).collect() });
                let object =
                    LateObject { table: table.name().to_owned(), removed: removed.collect(), ..Default::default() };
                let late = self.put_late(tenant, table, snapshot, &object).await?;
                match self.commit(tenant, table, Change::Mask { late, checked: Checked(snapshot.version) }).await? {
                    Committed::Done { .. } => *masked.entry(table.name().to_owned()).or_default() += keys.len() as u64,
                    _ => is_done = false,
                }
            }
            if is_done {
                // Media go at once, like rows, by who mentions them.
                let observations = found[&Table::Observations].iter().map(hash_of).collect();
                let media = self.media.forget(tenant, traces, observations).await?;
                if media > 0 {
                    masked.insert("media".to_owned(), media);
                }
                return Ok(masked);
            }
        }
        Err(self.table(tenant, Table::Observations).corrupt(format!("{RACES_MAX} commits came before an erasure's")))
    }

    /// The live files that may hold one of these keys.
    pub async fn files_with(
        &self,
        tenant: &TenantId,
        table: Table,
        snapshot: &Snapshot,
        keys: &RowKeys,
    ) -> Result<Vec<Arc<DataFile>>> {
        let sought: Vec<Sought> = keys.hashes().map(Sought::Key).collect();
        let touched = self.touched(tenant, table, snapshot, &sought).await?;
        Ok(snapshot.files.values().filter(|file| touched.contains(&file.path)).cloned().collect())
    }

    /// The keys of the rows that stand and are wanted, and the hashes of the traces that go whole.
    async fn find_wanted(
        &self,
        tenant: &TenantId,
        kind: ErasureKind,
        wanted: &Wanted<'_>,
        snapshots: &HashMap<Table, Arc<Snapshot>>,
    ) -> Result<(Found, HashSet<u64>)> {
        let mut found: Found = ERASED_FROM.map(|table| (table, Vec::new())).into();
        // Facts first: they say which traces belong to whom.
        let mut wanted_traces = wanted.traces.clone();
        let mut traces: BTreeSet<Box<str>> = BTreeSet::new();
        let by_key: Vec<Sought> = wanted.traces.iter().map(|hash| Sought::Key(*hash)).collect();
        let sought = wanted.by_id().then_some(by_key.as_slice());
        let facts = self.rows_standing(tenant, Table::TraceFacts, snapshots, sought, |row, key| {
            let Some(trace) = row.get("trace_id") else { return };
            if wanted.trace(trace) || (wanted.by_owner() && wanted.owner(row.get("user_id"), row.get("session_id"))) {
                wanted_traces.insert(key_hash(&[trace]));
                traces.insert(trace.into());
                found.entry(Table::TraceFacts).or_default().push(key);
            }
        });
        facts.await?;

        let by_trace: Vec<Sought> = wanted_traces.iter().map(|hash| Sought::Trace(*hash)).collect();
        let sought = wanted.by_id().then_some(by_trace.as_slice());
        let mut observed: HashSet<RowKey> = HashSet::new();
        let observations = self.rows_standing(tenant, Table::Observations, snapshots, sought, |row, key| {
            let Some(trace) = row.get("trace_id") else { return };
            let of_trace = wanted_traces.contains(&key_hash(&[trace]));
            if of_trace || (wanted.by_owner() && wanted.owner(row.get("user_id"), row.get("session_id"))) {
                if of_trace {
                    traces.insert(trace.into());
                }
                observed.insert(key);
            }
        });
        observations.await?;

        let by_id: Vec<Sought> = wanted.subjects.iter().map(|score| Sought::Key(key_hash(&[score]))).collect();
        let sought = (kind == ErasureKind::Score).then_some(by_id.as_slice());
        let scores = self.rows_standing(tenant, Table::Scores, snapshots, sought, |row, key| {
            let trace = row.get("trace_id");
            let of_trace = trace.is_some_and(|trace| wanted_traces.contains(&key_hash(&[trace])));
            let of_observation = || {
                let key: RowKey = Box::new([trace?.into(), row.get("observation_id")?.into()]);
                Some(observed.contains(&key))
            };
            let itself = wanted.score(row.get("id"));
            if itself || of_trace || wanted.owner(None, row.get("session_id")) || of_observation() == Some(true) {
                found.entry(Table::Scores).or_default().push(key);
            }
        });
        scores.await?;

        // The traces' own texts, and those of their observations.
        if kind == ErasureKind::Trace {
            traces.extend(wanted.subjects.iter().map(|trace| Box::from(*trace)));
        }
        let of_traces = traces.iter().map(|trace| -> RowKey { Box::new([trace.clone(), "".into()]) });
        let texts: HashSet<RowKey> = observed.iter().cloned().chain(of_traces).collect();
        let by_key = texts.iter().map(|key| Sought::Key(hash_of(key)));
        // Whoever flushed may have been stopped between texts and observations: texts are sought by their traces, too.
        let sought: Vec<Sought> = by_key.chain(by_trace.iter().copied()).collect();
        let io = self.rows_standing(tenant, Table::ObservationIo, snapshots, Some(&sought), |row, key| {
            let of_trace = || row.get("trace_id").is_some_and(|trace| wanted_traces.contains(&key_hash(&[trace])));
            if texts.contains(&key) || of_trace() {
                found.entry(Table::ObservationIo).or_default().push(key);
            }
        });
        io.await?;
        found.insert(Table::Observations, observed.into_iter().collect());
        Ok((found, wanted_traces))
    }

    /// Each row that stands in files or came late, with its key.
    async fn rows_standing(
        &self,
        tenant: &TenantId,
        table: Table,
        snapshots: &HashMap<Table, Arc<Snapshot>>,
        sought: Option<&[Sought]>,
        mut each: impl FnMut(Row<'_>, RowKey),
    ) -> Result<()> {
        let snapshot = &snapshots[&table];
        let beside = self.beside_files(tenant, table, snapshot, Fresh::default()).await?;
        self.each_row(tenant, table, snapshot, &beside, sought, |row| {
            let key = row.keys.key(row.row);
            each(row, key);
        })
        .await
    }

    /// Each row of a table as a query would see it; of files only those that may hold one of `sought`.
    async fn each_row(
        &self,
        tenant: &TenantId,
        table: Table,
        snapshot: &Snapshot,
        beside: &FreshTable,
        sought: Option<&[Sought]>,
        mut each: impl FnMut(Row<'_>),
    ) -> Result<()> {
        let files: Vec<&Arc<DataFile>> = match sought {
            None => snapshot.files.values().collect(),
            Some(sought) => {
                let touched = self.touched(tenant, table, snapshot, sought).await?;
                snapshot.files.values().filter(|file| touched.contains(&file.path)).collect()
            }
        };
        let replaced = &beside.changes.replaced;
        for file in files {
            let reader = FileReader::new(self.store.clone(), tenant, table, file);
            let path = reader.path().to_string();
            let failed = |source| CatalogError::Parquet { path: path.clone(), source };
            let builder = ParquetRecordBatchStreamBuilder::new(reader).await.map_err(failed)?;
            let columns = ProjectionMask::columns(builder.parquet_schema(), columns_of(table).iter().copied());
            let mut batches = builder.with_projection(columns).build().map_err(failed)?;
            while let Some(batch) = batches.try_next().await.map_err(failed)? {
                let batch = text_columns(&batch);
                each_of(table, &batch, |row| {
                    let parts = row.keys.parts(row.row);
                    if !replaced.contains(key_hash(&parts), &parts) {
                        each(row);
                    }
                });
            }
        }
        for batch in &beside.batches {
            each_of(table, batch, &mut each);
        }
        Ok(())
    }
}

fn hash_of(key: &RowKey) -> u64 {
    key_hash(&key.iter().map(AsRef::as_ref).collect::<Vec<_>>())
}

/// A row, by the names of its text columns.
struct Row<'a> {
    batch: &'a RecordBatch,
    keys: &'a BatchKeys<'a>,
    row: usize,
}

impl<'a> Row<'a> {
    fn get(&self, name: &str) -> Option<&'a str> {
        let column: &StringViewArray = self.batch.column_by_name(name)?.as_string_view_opt()?;
        column.is_valid(self.row).then(|| column.value(self.row))
    }
}

fn each_of(table: Table, batch: &RecordBatch, mut each: impl FnMut(Row<'_>)) {
    let keys = BatchKeys::of(table, batch);
    (0..batch.num_rows()).for_each(|row| each(Row { batch, keys: &keys, row }));
}

/// The columns that say whom a row is about.
fn columns_of(table: Table) -> &'static [&'static str] {
    match table {
        Table::Observations => &["trace_id", "id", "user_id", "session_id"],
        Table::ObservationIo => &["trace_id", "id"],
        Table::TraceFacts => &["trace_id", "user_id", "session_id"],
        Table::Scores => &["id", "trace_id", "observation_id", "session_id"],
        _ => &[],
    }
}

/// A batch whose texts have one type, whatever the file says.
fn text_columns(batch: &RecordBatch) -> RecordBatch {
    let schema = batch.schema();
    let columns = schema.fields().iter().zip(batch.columns()).map(|(field, column)| {
        let column = compute::cast(column, &DataType::Utf8View).expect("ids are text in every file of ours");
        (field.name().clone(), column)
    });
    RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true)))
        .expect("columns of one batch")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_is_known_by_the_digest_alone() {
        let tenant: TenantId = "acme".parse().unwrap();
        let subjects = vec![digest("acme", ErasureKind::User, "ada")];
        let wanted = Wanted::of(&tenant, ErasureKind::User, &subjects, &BTreeSet::new());
        assert!(wanted.owner(Some("ada"), None));
        assert!(!wanted.owner(Some("bob"), Some("ada")), "a session of that name is another thing");
        let other: TenantId = "other".parse().unwrap();
        assert!(!Wanted::of(&other, ErasureKind::User, &subjects, &BTreeSet::new()).owner(Some("ada"), None));
    }
}
