//! What of a table's log may go: commits and checkpoints below a checkpoint that is sound and old enough.
//!
//! Nothing younger than a day goes, however it is asked: those who follow a log rely on it (see `load`). What stays can
//! tell every version that the time kept reaches back to.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Catalog, Result};
use crate::base::TenantId;
use crate::model::tables::Table;
use crate::store::{self, ObjectMeta, Path};

/// However short the time asked for, commits are kept this long.
pub const LOG_KEPT_MIN: Duration = Duration::from_secs(86_400);

/// The files of one table's log.
struct Listed<'a> {
    commits: Vec<(u64, &'a ObjectMeta)>,
    checkpoints: Vec<(u64, &'a ObjectMeta)>,
}

impl Catalog {
    /// The objects of a table's log that may be deleted, in the order to delete them. `listed`: its `_delta_log` now.
    ///
    /// A log with a gap, or whose checkpoint cannot be read, is left alone: what is old may be all that is left.
    pub async fn log_to_clean(
        &self,
        tenant: &TenantId,
        table: Table,
        listed: &[ObjectMeta],
        kept: Duration,
    ) -> Result<Vec<ObjectMeta>> {
        let state = self.table(tenant, table);
        let oldest_us = self.clock.now_us() - kept.max(LOG_KEPT_MIN).as_micros() as i64;
        let is_old = |meta: &ObjectMeta| meta.last_modified.timestamp_micros() < oldest_us;
        let log = Listed::of(listed);
        let committed = |version: u64| log.commits.iter().find(|(commit, _)| *commit == version).map(|(_, meta)| *meta);
        let old = log.checkpoints.iter().rev().filter(|(version, meta)| is_old(committed(*version).unwrap_or(meta)));
        for (version, _) in old {
            let below: Vec<ObjectMeta> = log.below(*version).filter(|meta| is_old(meta)).cloned().collect();
            if below.is_empty() {
                return Ok(Vec::new());
            }
            if let Some(gap) = log.gap_after(*version) {
                return Err(state.corrupt(format!("commit {gap} is missing from the log: nothing of it is cleaned")));
            }
            if state.read_checkpoint(*version).await?.is_some() {
                return Ok(below);
            }
        }
        Ok(Vec::new())
    }

    /// Deletes an object of a log.
    pub async fn delete_from_log(&self, path: &Path) -> Result<()> {
        Ok(self.store.delete(path).await?)
    }
}

impl<'a> Listed<'a> {
    fn of(listed: &'a [ObjectMeta]) -> Self {
        let of = |version: fn(&Path) -> Option<u64>| {
            let mut found: Vec<_> = listed.iter().filter_map(|meta| Some((version(&meta.location)?, meta))).collect();
            found.sort_unstable_by_key(|(version, _)| *version);
            found
        };
        Self { commits: of(store::delta_version), checkpoints: of(store::delta_checkpoint_version) }
    }

    /// In order of their versions, so that what is left after a crash has no hole.
    fn below(&self, version: u64) -> impl Iterator<Item = &'a ObjectMeta> {
        let mut below: Vec<_> =
            self.commits.iter().chain(&self.checkpoints).filter(|(below, _)| *below < version).copied().collect();
        below.sort_by_key(|(version, _)| *version);
        below.into_iter().map(|(_, meta)| meta)
    }

    fn gap_after(&self, version: u64) -> Option<u64> {
        let after: BTreeSet<u64> = self.commits.iter().map(|(commit, _)| *commit).filter(|c| *c > version).collect();
        (version + 1..=*after.last()?).find(|commit| !after.contains(commit))
    }
}
