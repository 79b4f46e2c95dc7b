//! Retention and lingering deletes: days whose time is over leave the table, and files that left it leave the store.
//!
//! A removed file goes when its removal is older than the longest query, no query of this process holds a snapshot with
//! it, and the newest checkpoint does not name it as live: a log of which only the checkpoint is left is still whole.
//! Late objects go likewise, once they are folded in.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::vacuum::{Gone, Step, TableReport};
use super::{CompactError, Result};
use crate::base::{Day, TimestampUs};
use crate::catalog::{CHECKPOINT_EVERY, Change, Committed, RemovedFile, Snapshot};
use crate::store;

/// Removals are not held back for a checkpoint longer than this: then one is written for them.
const CHECKPOINT_WAIT_US: i64 = 86_400_000_000;

impl Step<'_> {
    /// Drops the days up to `through` from the table.
    pub(super) async fn drop_days(&self, through: Option<Day>, report: &mut TableReport) -> Result<()> {
        let Some(through) = through else { return Ok(()) };
        let snapshot = self.catalog().known_snapshot(self.tenant, self.table).await?;
        let over = || snapshot.files.values().filter(|file| file.day <= through);
        if over().next().is_none() {
            return Ok(());
        }
        over().for_each(|file| report.dropped.add(file.size_bytes));
        report.dropped_rows += over().map(|file| file.rows).sum::<u64>();
        if !self.dry_run {
            let dropped = self.catalog().commit(self.tenant, self.table, Change::DropDays { through }).await?;
            if let Committed::Done { version } = dropped {
                let (tenant, table) = (self.tenant, self.table.name());
                tracing::info!(%tenant, table, %through, version, "days whose time is over were dropped");
            }
        }
        Ok(())
    }

    /// Deletes removed files whose time is over, their roll-ups, and the index objects that belonged to nothing else.
    pub(super) async fn retire(&self, report: &mut TableReport) -> Result<()> {
        let known = self.catalog().known_snapshot(self.tenant, self.table).await?;
        let late_over = known.late_freed.values().any(|freed_us| self.is_over(*freed_us));
        if !late_over && !known.removed.values().any(|file| self.is_over(file.removed_us)) {
            report.lingering = lingering(&known);
            return Ok(());
        }
        let snapshot = self.catalog().snapshot(self.tenant, self.table).await?;
        let held = self.catalog().held(self.tenant, self.table);
        let is_live = |path: &str| held.iter().any(|held| held.files.contains_key(path));
        let mut due: Vec<Arc<RemovedFile>> = snapshot
            .removed
            .values()
            .filter(|file| self.is_over(file.removed_us) && !is_live(&file.path))
            .cloned()
            .collect();
        let checkpointed = self.checkpoint_for(&snapshot, &due).await?;
        due.retain(|file| checkpointed >= Some(file.removed_version));

        let mut gone = Vec::with_capacity(due.len());
        for file in &due {
            for (kind, _) in file.rollups.all() {
                self.delete(&store::rollup_object(self.tenant, kind, self.table.name(), &file.path)).await?;
            }
            self.delete(&store::data_object(self.tenant, self.table.name(), &file.path)).await?;
            report.retired.add(file.size_bytes);
            gone.push(file.path.clone());
        }
        // An index object covers all files of a commit.
        let due_paths: BTreeSet<&str> = due.iter().map(|file| file.path.as_str()).collect();
        let still_named: BTreeSet<&str> = held
            .iter()
            .flat_map(|held| held.files.values().filter_map(|file| file.index.as_deref()))
            .chain(
                snapshot.removed.values().filter(|file| !due_paths.contains(file.path.as_str())).filter_map(index_of),
            )
            .collect();
        let indexes: BTreeSet<&str> = due.iter().filter_map(index_of).filter(|id| !still_named.contains(id)).collect();
        for id in indexes {
            self.delete(&store::index_file(self.tenant, self.table.name(), id)).await?;
        }
        // Late objects are of no use to a checkpoint: folded in, they are part of files.
        let is_late = |number: &u64| held.iter().any(|held| held.late.values().any(|live| live == number));
        let over = snapshot.late_freed.iter().filter(|(number, us)| self.is_over(**us) && !is_late(number));
        let late: Vec<u64> = over.map(|(number, _)| *number).collect();
        for number in &late {
            self.delete(&store::late_object(self.tenant, self.table.name(), Some(*number))).await?;
            report.folded += 1;
        }
        if !self.dry_run {
            self.catalog().forget_removed(self.tenant, self.table, &gone, &late);
        }
        report.lingering = lingering(&snapshot).less(report.retired);
        Ok(())
    }

    /// The newest checkpoint's version. One is written if removals wait for it, and have waited long or come with many
    /// commits, or if we were asked to clean up now.
    async fn checkpoint_for(&self, snapshot: &Snapshot, due: &[Arc<RemovedFile>]) -> Result<Option<u64>, CompactError> {
        let newest = self.catalog().checkpointed(self.tenant, self.table).await?;
        let waiting = || due.iter().filter(|file| newest < Some(file.removed_version));
        let Some(oldest_us) = waiting().map(|file| file.removed_us).min() else { return Ok(newest) };
        let commits = snapshot.version.unwrap_or(0) - newest.unwrap_or(0).min(snapshot.version.unwrap_or(0));
        let waited = self.now_us - oldest_us > CHECKPOINT_WAIT_US;
        match waited || self.at_once || commits >= CHECKPOINT_EVERY {
            true if self.dry_run => Ok(snapshot.version),
            true => Ok(self.catalog().checkpoint(self.tenant, self.table).await?),
            false => Ok(newest),
        }
    }

    /// Whether what ended then may be missed by nobody any more.
    pub(super) fn is_over(&self, ended_us: TimestampUs) -> bool {
        ended_us <= self.now_us - self.settings.linger_s as i64 * 1_000_000
    }
}

fn index_of(file: &Arc<RemovedFile>) -> Option<&str> {
    file.index.as_deref()
}

fn lingering(snapshot: &Snapshot) -> Gone {
    let mut lingering = Gone::default();
    snapshot.removed.values().for_each(|file| lingering.add(file.size_bytes));
    lingering
}
