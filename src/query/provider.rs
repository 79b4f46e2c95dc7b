//! One table at one moment: the live files of a snapshot and the fresh rows beside them.
//!
//! No row stands in both, and no id in two places (I2): a scan is a plain union, without any deduplication. Only files
//! that open late changes may touch are read through a patch. Of the others some have a roll-up, which `rolled_up` finds.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Field, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::stats::Precision;
use datafusion::common::{ColumnStatistics, Statistics};
use datafusion::datasource::TableProvider;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::object_store::ObjectStoreUrl;
use datafusion::datasource::physical_plan::parquet::ParquetFileReaderFactory;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{LexOrdering, PhysicalSortExpr};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::union::UnionExec;
use datafusion::scalar::ScalarValue;
use parking_lot::Mutex;

use super::patch::{Patch, PatchExec};
use super::prune::Window;
use crate::base::RowSet;
use crate::catalog::{Changes, DataFile, FreshTable, Snapshot};
use crate::format::rollup::RollupKind;
use crate::model::tables::Table;

/// The only place a query's files can be: below the prefix of its tenant.
pub(super) const OBJECTS_URL: &str = "tenant://own/";

#[derive(Debug)]
pub(super) struct TableAt {
    table: Table,
    schema: SchemaRef,
    snapshot: Arc<Snapshot>,
    fresh: Vec<RecordBatch>,
    changes: Changes,
    reader: Arc<dyn ParquetFileReaderFactory>,
    part: Part,
    /// The files that scans chose; none: there was no scan yet.
    chosen: Arc<Mutex<Option<RowSet<String>>>>,
    /// Of these: files whose roll-ups stand for their rows.
    rolled_up: Arc<Mutex<RowSet<String>>>,
}

/// What of a table a scan reads.
#[derive(Debug, Clone)]
pub(super) enum Part {
    Whole,
    /// All but these files.
    But(Arc<RowSet<String>>),
    /// Rows of these files alone.
    Only(Arc<RowSet<String>>),
}

/// What all scans of a table together look at: each file counts once, however many of them choose it. One that turns out
/// not to be needed, as where a join has nothing to look for, chooses the files of another.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Touched {
    pub(super) files: u64,
    /// Left alone because of their times.
    pub(super) files_pruned: u64,
    pub(super) files_rolled_up: u64,
    pub(super) fresh_rows: u64,
}

impl Touched {
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            files: self.files + other.files,
            files_pruned: self.files_pruned + other.files_pruned,
            files_rolled_up: self.files_rolled_up + other.files_rolled_up,
            fresh_rows: self.fresh_rows + other.fresh_rows,
        }
    }
}

impl TableAt {
    pub(super) fn new(
        table: Table,
        snapshot: Arc<Snapshot>,
        fresh: FreshTable,
        reader: Arc<dyn ParquetFileReaderFactory>,
    ) -> Self {
        let FreshTable { batches: fresh, changes } = fresh;
        let (schema, part) = (table.table_schema(), Part::Whole);
        let (chosen, rolled_up) = (Arc::default(), Arc::default());
        Self { table, schema, snapshot, fresh, changes, reader, part, chosen, rolled_up }
    }

    /// A part of the same table at the same moment.
    pub(super) fn part(&self, part: Part) -> Self {
        let fresh = match &part {
            Part::Only(_) => Vec::new(),
            Part::Whole | Part::But(_) => self.fresh.clone(),
        };
        Self {
            table: self.table,
            schema: Arc::clone(&self.schema),
            snapshot: Arc::clone(&self.snapshot),
            fresh,
            changes: self.changes.clone(),
            reader: Arc::clone(&self.reader),
            part,
            chosen: Arc::clone(&self.chosen),
            rolled_up: Arc::clone(&self.rolled_up),
        }
    }

    /// Files whose roll-up says all there is about their rows: no open change may touch them.
    pub(super) fn with_rollups(&self, kind: RollupKind) -> impl Iterator<Item = &Arc<DataFile>> {
        let has_known = move |file: &&Arc<DataFile>| file.rollups.of(kind).is_some_and(|rollup| rollup.is_known());
        let is_touched = |file: &Arc<DataFile>| self.changes.touched.contains(&file.path);
        self.snapshot.files.values().filter(has_known).filter(move |file| !is_touched(file))
    }

    /// Their roll-ups stand for rows of these files.
    pub(super) fn roll_up<'a>(&self, files: impl Iterator<Item = &'a Arc<DataFile>>) {
        let (mut chosen, mut rolled_up) = (self.chosen.lock(), self.rolled_up.lock());
        for file in files {
            chosen.get_or_insert_default().insert(file.path.clone());
            rolled_up.insert(file.path.clone());
        }
    }

    pub(super) fn table(&self) -> Table {
        self.table
    }

    pub(super) fn reader(&self) -> Arc<dyn ParquetFileReaderFactory> {
        Arc::clone(&self.reader)
    }

    pub(super) fn version(&self) -> Option<u64> {
        self.snapshot.version
    }

    pub(super) fn touched(&self) -> Touched {
        let chosen = self.chosen.lock();
        let Some(files) = chosen.as_ref().map(RowSet::len) else { return Touched::default() };
        Touched {
            files: files as u64,
            files_pruned: (self.snapshot.files.len() - files) as u64,
            files_rolled_up: self.rolled_up.lock().len() as u64,
            fresh_rows: self.fresh.iter().map(|batch| batch.num_rows() as u64).sum(),
        }
    }
}

#[async_trait]
impl TableProvider for TableAt {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    /// Filters choose files and row groups here; which rows pass is decided above the scan.
    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let window = Window::of(filters, self.table.time_column());
        let is_part = |file: &&DataFile| match &self.part {
            Part::Whole => true,
            Part::But(files) => !files.contains(&file.path),
            Part::Only(files) => files.contains(&file.path),
        };
        let files = self.snapshot.files.values().map(Arc::as_ref);
        let files: Vec<&DataFile> = files.filter(is_part).filter(|file| window.may_hold(file)).collect();
        self.chosen.lock().get_or_insert_default().extend(files.iter().map(|file| file.path.clone()));
        // A limit below a filter would count rows that do not pass it.
        let limit = limit.filter(|_| filters.is_empty());
        let patch = Patch::of(self.table, &self.changes, projection)?;
        let is_touched = |file: &&DataFile| patch.is_some() && self.changes.touched.contains(&file.path);
        let (touched, files): (Vec<_>, Vec<_>) = files.into_iter().partition(is_touched);
        let mut parts = Vec::new();
        if !files.is_empty() {
            parts.push(self.scan_files(session, files, projection, limit)?);
        }
        if let (Some((patch, read)), false) = (patch, touched.is_empty()) {
            // A limit below would count rows that the patch leaves out.
            let rows = self.scan_files(session, touched, Some(&read), None)?;
            parts.push(Arc::new(PatchExec::new(rows, patch)));
        }
        if !self.fresh.is_empty() || parts.is_empty() {
            let partition = [self.fresh.clone()];
            let rows = MemorySourceConfig::try_new(&partition, self.schema(), projection.cloned())?;
            parts.push(DataSourceExec::from_data_source(rows.with_limit(limit)));
        }
        match parts.len() {
            1 => Ok(parts.remove(0)),
            _ => UnionExec::try_new(parts),
        }
    }
}

/// Reads a tenant's Parquet as the session says, through the caches.
pub(super) fn parquet_source(
    session: &dyn Session,
    schema: TableSchema,
    reader: &Arc<dyn ParquetFileReaderFactory>,
) -> Arc<ParquetSource> {
    let mut options = session.default_table_options().parquet;
    options.global = session.config_options().execution.parquet.clone();
    let source = ParquetSource::new(schema).with_table_parquet_options(options);
    Arc::new(source.with_parquet_file_reader_factory(Arc::clone(reader)))
}

impl TableAt {
    fn scan_files(
        &self,
        session: &dyn Session,
        files: Vec<&DataFile>,
        projection: Option<&Vec<usize>>,
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let partitions = session.config().target_partitions();
        let day = Arc::new(Field::new("day", DataType::Date32, false));
        let schema = TableSchema::builder(self.table.file_schema()).with_table_partition_cols(vec![day]).build();
        let source = parquet_source(session, schema, &self.reader);
        let (chains, in_order) = lay_out(files, partitions, self.table.sort_columns().len() == 1);
        let ordering = self.ordering();
        let groups: Vec<FileGroup> = chains
            .iter()
            .map(|chain| {
                let files: Vec<_> = chain.iter().map(|file| self.partitioned(file, ordering.clone())).collect();
                let statistics = sum(files.iter().filter_map(|file| file.statistics.as_deref()), &self.schema)?;
                Ok(FileGroup::new(files).with_statistics(Arc::new(statistics)))
            })
            .collect::<Result<_>>()?;
        let statistics = sum(groups.iter().filter_map(|group| group.file_statistics(None)), &self.schema)?;
        let config = FileScanConfigBuilder::new(ObjectStoreUrl::parse(OBJECTS_URL)?, source)
            .with_file_groups(groups)
            .with_statistics(statistics)
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .with_batch_size((self.table == Table::ObservationIo).then_some(TEXT_BATCH_ROWS))
            .with_output_ordering(ordering.filter(|_| in_order).into_iter().collect())
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }

    fn partitioned(&self, file: &DataFile, ordering: Option<LexOrdering>) -> PartitionedFile {
        let path = format!("{}/{}", self.table.name(), file.path);
        let mut partitioned = PartitionedFile::new(path, file.size_bytes)
            .with_partition_values(vec![ScalarValue::Date32(Some(file.day.days()))])
            .with_ordering(ordering);
        if let Some(footer_bytes) = file.footer_bytes {
            partitioned = partitioned.with_metadata_size_hint(footer_bytes as usize);
        }
        partitioned.with_statistics(Arc::new(self.statistics(file)))
    }

    /// Of the columns in the file; those of the partition column follow from its value.
    fn statistics(&self, file: &DataFile) -> Statistics {
        let column = |name: &str| match (name == self.table.time_column(), file.time_us) {
            (true, Some((first, last))) => {
                let at = |us| ScalarValue::TimestampMicrosecond(Some(us), Some("UTC".into()));
                ColumnStatistics::new_unknown()
                    .with_min_value(Precision::Exact(at(first)))
                    .with_max_value(Precision::Exact(at(last)))
            }
            _ => ColumnStatistics::new_unknown(),
        };
        Statistics {
            num_rows: Precision::Exact(file.rows as usize),
            total_byte_size: Precision::Inexact(file.size_bytes as usize),
            column_statistics: self.table.file_schema().fields().iter().map(|field| column(field.name())).collect(),
        }
    }

    fn ordering(&self) -> Option<LexOrdering> {
        let ascending = SortOptions { descending: false, nulls_first: false };
        let columns = self.table.sort_columns().iter().filter_map(|name| {
            let at = self.schema.index_of(name).ok()?;
            Some(PhysicalSortExpr::new(Arc::new(Column::new(name, at)), ascending))
        });
        LexOrdering::new(columns)
    }
}

/// Rows of text may be large: fewer of them are decoded at once than of narrow ones.
const TEXT_BATCH_ROWS: usize = 256;

fn sum<'a>(parts: impl Iterator<Item = &'a Statistics>, schema: &SchemaRef) -> Result<Statistics> {
    Statistics::try_merge_iter(parts, schema)
}

/// Puts files into one chain per partition. With `by_time`, the files of a chain follow each other in time wherever
/// there are not more files at the same time than `CHAINS_PER_PARTITION` lets side by side; says whether that is so.
fn lay_out(mut files: Vec<&DataFile>, partitions: usize, by_time: bool) -> (Vec<Vec<&DataFile>>, bool) {
    const CHAINS_PER_PARTITION: usize = 4;
    files.sort_by(|a, b| (a.time_us, &a.path).cmp(&(b.time_us, &b.path)));
    if by_time && files.iter().all(|file| file.time_us.is_some()) {
        let mut chains: Vec<Vec<&DataFile>> = Vec::new();
        for file in &files {
            let ends_before = |chain: &&mut Vec<&DataFile>| {
                chain.last().and_then(|last| last.time_us).map(|(_, last)| last) <= file.time_us.map(|(first, _)| first)
            };
            match chains.iter_mut().find(ends_before) {
                Some(chain) => chain.push(file),
                None => chains.push(vec![file]),
            }
            if chains.len() > partitions * CHAINS_PER_PARTITION {
                break;
            }
        }
        if chains.len() <= partitions * CHAINS_PER_PARTITION {
            split_longest(&mut chains, partitions);
            return (chains, true);
        }
    }
    let alone = files.len() <= partitions;
    let mut chains = vec![Vec::new(); partitions.clamp(1, files.len().max(1))];
    let count = chains.len();
    for (at, file) in files.into_iter().enumerate() {
        chains[at % count].push(file);
    }
    (chains, alone)
}

fn split_longest(chains: &mut Vec<Vec<&DataFile>>, partitions: usize) {
    while chains.len() < partitions {
        let Some(longest) = chains.iter_mut().max_by_key(|chain| chain.len()).filter(|chain| chain.len() > 1) else {
            return;
        };
        // Every second file, so that the newest ones are read side by side.
        let (mut even, mut odd) = (Vec::new(), Vec::new());
        for (at, file) in longest.drain(..).enumerate() {
            if at % 2 == 0 { even.push(file) } else { odd.push(file) }
        }
        *longest = even;
        chains.push(odd);
    }
}
