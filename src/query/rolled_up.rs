//! The roll-ups of a table's files at one moment, as a table of their own, and what of the files they stand for.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::datasource::TableProvider;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::object_store::ObjectStoreUrl;
use datafusion::datasource::physical_plan::parquet::ParquetFileReaderFactory;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;

use super::functions::HOUR_US;
use super::metrics::Sums;
use super::provider::{OBJECTS_URL, Part, TableAt, parquet_source};
use crate::base::TimestampUs;
use crate::catalog::DataFile;
use crate::format::rollup::RollupKind;
use crate::model::tables::Table;
use crate::store;

/// Roll-ups that stand for rows.
#[derive(Debug, Clone, Default)]
pub(super) struct RolledUp {
    /// Of files that lie in the range.
    pub(super) whole: Option<Arc<dyn TableProvider>>,
    /// Of files that reach beyond it.
    pub(super) cut: Option<Cut>,
}

#[derive(Debug, Clone)]
pub(super) struct Cut {
    pub(super) sums: Arc<dyn TableProvider>,
    /// The hours of which all lies in the range.
    pub(super) from_us: TimestampUs,
    pub(super) to_us: TimestampUs,
    /// The same files, row by row.
    pub(super) rows: Arc<dyn TableProvider>,
}

impl RolledUp {
    pub(super) fn is_empty(&self) -> bool {
        self.whole.is_none() && self.cut.is_none()
    }
}

impl TableAt {
    /// What of a range roll-ups stand for, and the rest of the table. `None`: for nothing.
    pub(super) fn rolled_up(
        &self,
        kind: RollupKind,
        from_us: TimestampUs,
        to_us: TimestampUs,
    ) -> Option<(Self, RolledUp)> {
        // A file without times is of another engine, and has no roll-up.
        let times = |file: &Arc<DataFile>| file.time_us.unwrap_or((TimestampUs::MIN, TimestampUs::MAX));
        let has_some = |file: &&Arc<DataFile>| times(file).0 < to_us && from_us <= times(file).1;
        let is_whole = |file: &Arc<DataFile>| from_us <= times(file).0 && times(file).1 < to_us;
        let (whole, cut): (Vec<_>, Vec<_>) = self.with_rollups(kind).filter(has_some).partition(|file| is_whole(file));
        let hours = (hour_after(from_us), to_us.saturating_sub(to_us.rem_euclid(HOUR_US)));
        let has_hours = |file: &&Arc<DataFile>| times(file).0 < hours.1 && hours.0 <= times(file).1;
        let cut: Vec<_> = cut.into_iter().filter(|_| hours.0 < hours.1).filter(has_hours).collect();
        if whole.is_empty() && cut.is_empty() {
            return None;
        }
        let sums = |files: &[&Arc<DataFile>]| -> Arc<dyn TableProvider> {
            let files = files.iter().map(|file| Arc::clone(file)).collect();
            Arc::new(RollupsAt { kind, table: self.table(), files, reader: self.reader() })
        };
        let paths = |files: &[&Arc<DataFile>]| Arc::new(files.iter().map(|file| file.path.clone()).collect());
        let rolled_up = RolledUp {
            whole: (!whole.is_empty()).then(|| sums(&whole)),
            cut: (!cut.is_empty()).then(|| Cut {
                sums: sums(&cut),
                from_us: hours.0,
                to_us: hours.1,
                rows: Arc::new(self.part(Part::Only(paths(&cut)))),
            }),
        };
        let all: Vec<_> = whole.into_iter().chain(cut).collect();
        self.roll_up(all.iter().copied());
        Some((self.part(Part::But(paths(&all))), rolled_up))
    }
}

fn hour_after(at_us: TimestampUs) -> TimestampUs {
    at_us.saturating_add((-at_us.rem_euclid(HOUR_US)).rem_euclid(HOUR_US))
}

/// The roll-ups of these files.
#[derive(Debug)]
struct RollupsAt {
    kind: RollupKind,
    table: Table,
    files: Vec<Arc<DataFile>>,
    reader: Arc<dyn ParquetFileReaderFactory>,
}

#[async_trait]
impl TableProvider for RollupsAt {
    fn schema(&self) -> SchemaRef {
        Sums::of(self.kind).schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        _: &[Expr],
        _: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let source = parquet_source(session, TableSchema::builder(self.schema()).build(), &self.reader);
        let mut groups = vec![FileGroup::default(); session.config().target_partitions().min(self.files.len()).max(1)];
        let count = groups.len();
        for (at, file) in self.files.iter().enumerate() {
            let Some(rollup) = file.rollups.of(self.kind) else { continue };
            let path = store::rollup(self.kind, self.table.name(), &file.path);
            let part = PartitionedFile::new(path, rollup.size_bytes);
            groups[at % count].push(part.with_metadata_size_hint(rollup.footer_bytes as usize));
        }
        let config = FileScanConfigBuilder::new(ObjectStoreUrl::parse(OBJECTS_URL)?, source)
            .with_file_groups(groups)
            .with_projection_indices(projection.cloned())?
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_that_began_is_left_to_the_next() {
        for (at_us, after_us) in [(0, 0), (1, HOUR_US), (-1, 0), (HOUR_US, HOUR_US)] {
            assert_eq!(hour_after(at_us), after_us);
        }
        assert_eq!(hour_after(TimestampUs::MAX), TimestampUs::MAX);
    }
}
