//! Files and late objects of one table, written again without the rows that are gone.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use ::parquet::errors::ParquetError;
use arrow::array::{AsArray, Date32Array, RecordBatch};
use arrow::compute;
use arrow::error::ArrowError;

use crate::base::{Day, TenantId, TimestampUs};
use crate::catalog::{CatalogError, Change, Checked, Committed, DataFile, Late, Rewrite, RowKeys, Snapshot};
use crate::compact::fold::Fold;
use crate::compact::plan::{Job, JobKind};
use crate::compact::workshop::Workshop;
use crate::compact::{CompactError, Result};
use crate::format::late::{LateDay, LateObject, LateSlots};
use crate::format::parquet;
use crate::model::TraceFacts;
use crate::model::tables::Table;
use crate::store;

/// Lost races before it is given up until the next round.
const RACES_MAX: u32 = 20;

/// Writes every file again that holds rows that are gone, each by a commit of its own; then the late objects that said
/// so. Returns how many files were written again, or left the table whole.
pub(super) async fn fold(workshop: &Workshop, tenant: &TenantId, table: Table) -> Result<u64> {
    let catalog = &workshop.catalog;
    let mut rewritten = 0;
    let mut clean = Clean::default();
    for _ in 0..RACES_MAX {
        let snapshot = catalog.snapshot(tenant, table).await?;
        let late = catalog.late(tenant, table, &snapshot).await?;
        let mut keys = RowKeys::default();
        late.gone().for_each(|(hash, key)| _ = keys.insert(hash, key.clone()));
        let work = Work { workshop, tenant, table, gone: Gone { table, keys }, now_us: workshop.clock.now_us() };
        if work.gone.keys.is_empty() && !work.holds_erased_facts(&late) {
            return Ok(rewritten);
        }
        let mut files = catalog.files_with(tenant, table, &snapshot, &work.gone.keys).await?;
        clean.look_at(&snapshot.late);
        files.retain(|file| !clean.paths.contains(&file.path));
        if files.is_empty() && work.let_late_objects_go(&snapshot, &late).await? {
            return Ok(rewritten);
        }
        for file in files {
            match work.write_again(&file).await {
                Ok(true) => rewritten += 1,
                Ok(false) => _ = clean.paths.insert(file.path.clone()),
                // Merged meanwhile: what became of it is found by the next look.
                Err(CompactError::Catalog(CatalogError::InputGone { .. })) => break,
                Err(error) => return Err(error),
            }
        }
    }
    Err(CompactError::Races { table: table.name() })
}

/// Files that were looked through and hold none of the keys that their filters may hold.
#[derive(Debug, Default)]
struct Clean {
    /// The late objects whose keys they were looked through for.
    late: LateSlots,
    paths: HashSet<String>,
}

impl Clean {
    /// Other late objects take other rows away, and a file may hold those.
    fn look_at(&mut self, late: &LateSlots) {
        if self.late != *late {
            self.late.clone_from(late);
            self.paths.clear();
        }
    }
}

/// Rows with these keys go, and nothing takes their place.
struct Gone {
    table: Table,
    keys: RowKeys,
}

impl Fold for Gone {
    fn keep(&self, rows: RecordBatch) -> Result<RecordBatch, ArrowError> {
        self.keys.without(self.table, &rows)
    }

    fn replacements(&self) -> Vec<RecordBatch> {
        Vec::new()
    }
}

struct Work<'a> {
    workshop: &'a Workshop,
    tenant: &'a TenantId,
    table: Table,
    gone: Gone,
    now_us: TimestampUs,
}

impl Work<'_> {
    /// One file without the rows that are gone; false if it has none of them. Answers do not change: the late objects
    /// hide the same rows.
    async fn write_again(&self, file: &Arc<DataFile>) -> Result<bool> {
        let Self { workshop, tenant, table, .. } = self;
        let lease = workshop.leases.claim(tenant, *table, file.day).await?;
        let mut lease = lease.ok_or(CompactError::Busy)?;
        let job = Job { day: file.day, kind: JobKind::Fold, inputs: vec![Arc::clone(file)] };
        let written = lease.during(workshop.rewrite(tenant, *table, &job, &self.gone)).await;
        let committed = match written {
            Ok(written) if written.merged == 0 => {
                // Nobody knows of what was written.
                for output in &written.outputs {
                    let path = store::data_object(tenant, table.name(), &output.path);
                    workshop.catalog.store().delete(&path).await?;
                }
                Ok(false)
            }
            Ok(written) => match workshop.catalog.commit(tenant, *table, written.change()).await {
                Ok(Committed::Done { version }) => {
                    let (rows, path) = (written.merged, &file.path);
                    tracing::info!(%tenant, table = table.name(), version, path, rows, "written again without what was erased");
                    Ok(true)
                }
                Ok(_) => Err(CompactError::Races { table: table.name() }),
                Err(error) => Err(error.into()),
            },
            Err(error) => Err(error),
        };
        lease.release().await;
        committed
    }

    /// Replaces the late objects by one that says what they say about rows that are not gone. False: something was
    /// committed since `snapshot`, which may be a file with a row that only the late objects hide.
    async fn let_late_objects_go(&self, snapshot: &Snapshot, late: &Late) -> Result<bool> {
        let Self { workshop, tenant, table, .. } = self;
        let catalog = &workshop.catalog;
        let rest = self.rest_of(late).map_err(|source| {
            let path = store::late_object(tenant, table.name(), None).to_string();
            CompactError::Parquet { path, source }
        })?;
        let late = match rest.is_empty() {
            true => None,
            false => Some(catalog.put_late(tenant, *table, snapshot, &rest).await?),
        };
        let folded = snapshot.late.values().copied().collect();
        let checked = Some(Checked(snapshot.version));
        let rewrite = Rewrite { folded, late, checked, ..Default::default() };
        match catalog.commit(tenant, *table, Change::Rewrite(rewrite)).await {
            Ok(committed) => Ok(matches!(committed, Committed::Done { .. })),
            Err(CatalogError::InputGone { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether something is said late about a trace that was erased.
    fn holds_erased_facts(&self, late: &Late) -> bool {
        late.facts.values().any(|facts| self.is_erased(facts))
    }

    fn is_erased(&self, facts: &TraceFacts) -> bool {
        let denied = self.workshop.catalog.erasures().denied(self.tenant);
        denied.is_some_and(|denied| {
            denied.trace(&facts.trace_id, self.now_us)
                || denied.owner(facts.user_id.as_deref(), facts.session_id.as_deref(), self.now_us)
        })
    }

    /// What the late objects say about rows that are not gone. That others are gone is in no file any more.
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
        Ok(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_clean_of_some_keys_and_not_of_those_that_are_masked_later() {
        let mut clean = Clean::default();
        let (one, two): (LateSlots, LateSlots) = ([(0, 7)].into(), [(0, 7), (1, 9)].into());
        clean.look_at(&one);
        clean.paths.insert("day=2026-01-01/a.parquet".to_owned());
        clean.look_at(&one);
        assert_eq!(clean.paths.len(), 1, "the same keys: it need not be read again");
        clean.look_at(&two);
        assert!(clean.paths.is_empty());
    }
}
