//! Reading a table's log: the checkpoint that the hint names and the commits after it, without a LIST; or, where there is
//! no hint, it is wrong, or the log may have been cleaned behind it, what one LIST shows.
//!
//! Old commits are cleaned away, and a number that is not there is then not the tip. Whoever follows the log number by
//! number relies on this: nothing younger than a day is ever cleaned. So a tip is one if the commit before it is younger
//! than half a day; else the folder is listed, which is the truth whatever slept, and for how long.

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};

use super::snapshot::Snapshot;
use super::table::{SURELY_KEPT, TableState};
use super::{CatalogError, Result};
use crate::format::FormatError;
use crate::format::checkpoint::{self, LastCheckpoint, LogState};
use crate::format::delta::Action;
use crate::format::late;
use crate::store::{self, ObjectMeta};

/// Commits read at once.
const WIDTH: u64 = 16;
/// A listing may be overtaken by a clean-up, and a folder's may miss what is created meanwhile.
const LISTINGS_MAX: u32 = 4;
/// Clocks may differ by this much before a commit from the future is doubted.
const CLOCKS_DIFFER_MS: i64 = 3_600_000;

/// What was read of a log.
#[derive(Debug, Default)]
pub(super) struct ReadLog {
    pub(super) base: Option<LogState>,
    /// Those after it, without a gap.
    pub(super) commits: Vec<(u64, Vec<Action>)>,
}

impl ReadLog {
    pub(super) fn base_version(&self) -> Option<u64> {
        self.base.as_ref().and_then(|base| base.version)
    }

    pub(super) fn version(&self) -> Option<u64> {
        self.commits.last().map(|(version, _)| *version).or(self.base_version())
    }

    fn next_version(&self) -> u64 {
        self.version().map_or(0, |version| version + 1)
    }

    /// When the newest commit was made, by its writer's clock; 0 if it does not say.
    fn committed_ms(&self) -> i64 {
        let said = |actions: &Vec<Action>| {
            actions.iter().find_map(|action| match action {
                Action::CommitInfo(info) => Some(info.timestamp),
                _ => None,
            })
        };
        match self.commits.last() {
            Some((_, actions)) => said(actions).unwrap_or(0),
            None => self.base.as_ref().map_or(0, |base| base.committed_ms),
        }
    }

    /// All that the log says.
    pub(super) fn state(self) -> LogState {
        let mut state = self.base.unwrap_or_default();
        self.commits.into_iter().for_each(|(version, actions)| state.apply(version, actions));
        state
    }
}

impl TableState {
    /// Reads the log up to its tip. Without a LIST if a checkpoint is hinted at and the tip is young.
    pub(super) async fn read_log(&self) -> Result<ReadLog> {
        let Some(base) = self.hinted().await? else { return self.read_listed().await };
        let mut log = ReadLog { base: Some(base), commits: Vec::new() };
        self.follow(&mut log).await?;
        let age_ms = self.clock.now_us() / 1000 - log.committed_ms();
        if (-CLOCKS_DIFFER_MS..SURELY_KEPT.as_millis() as i64).contains(&age_ms) || !self.goes_on(&log).await? {
            return Ok(log);
        }
        self.read_listed().await
    }

    /// The snapshot that a log amounts to.
    pub(super) fn snapshot_of(&self, log: ReadLog) -> Result<Snapshot> {
        let mut snapshot = Snapshot::default();
        if let Some(base) = &log.base {
            self.note_checkpoint(base.version);
            self.apply_actions(&mut snapshot, base.version.unwrap_or(0), base.actions())?;
            let slots = base.txns.values().filter(|txn| late::slot_of_app_id(&txn.app_id).is_some());
            let freed_ms = slots.filter_map(|txn| txn.last_updated).max();
            snapshot.late_freed_before_us = freed_ms.unwrap_or(0) * 1000;
        }
        for (version, actions) in log.commits {
            self.apply_actions(&mut snapshot, version, actions)?;
        }
        Ok(snapshot)
    }

    /// Whether a commit just created is part of the log. If it is not, it stands where a commit was cleaned away, and
    /// was removed again. `added`: the files it makes live. Reads the log anew, by a LIST.
    pub(super) async fn stands(&self, version: u64, added: &[String]) -> Result<bool> {
        let asked = tokio::time::Instant::now();
        let log = self.read_listed().await?;
        // Part of the chain to the tip, or known to the checkpoint that came after it.
        let knows =
            |base: &LogState| added.iter().any(|path| base.adds.contains_key(path) || base.removes.contains_key(path));
        let stands = match &log.base {
            Some(base) if base.version >= Some(version) => knows(base),
            _ => true,
        };
        if !stands {
            tracing::warn!(
                tenant = %self.tenant, table = self.table.name(), version,
                "a commit came so late that its number had been cleaned away: it is taken back and made anew"
            );
            self.store.delete(&store::delta_log(&self.tenant, self.table.name(), Some(version))).await?;
        }
        self.see_foreign();
        self.remember(std::sync::Arc::new(self.snapshot_of(log)?), asked);
        Ok(stands)
    }

    /// The checkpoint that the hint names, if both are there and sound.
    async fn hinted(&self) -> Result<Option<LogState>> {
        let path = store::last_checkpoint(&self.tenant, self.table.name());
        let Some(body) = self.store.get(&path).await? else { return Ok(None) };
        let hint: LastCheckpoint = match serde_json::from_slice(&body) {
            Ok(hint) => hint,
            Err(error) => {
                tracing::warn!(%path, %error, "this hint cannot be read; the log is listed instead");
                return Ok(None);
            }
        };
        match hint.parts {
            None => self.read_checkpoint(hint.version).await,
            Some(_) => Ok(None),
        }
    }

    /// A checkpoint; `None` if it is not there or damaged, for then there may be an older one. One that a newer version
    /// wrote is an error.
    pub(super) async fn read_checkpoint(&self, version: u64) -> Result<Option<LogState>> {
        let path = store::delta_checkpoint(&self.tenant, self.table.name(), version);
        let Some(body) = self.store.get(&path).await? else { return Ok(None) };
        match checkpoint::decode(version, body) {
            Ok(state) => Ok(Some(state)),
            Err(source @ FormatError::Newer { .. }) => Err(CatalogError::Format { path: path.to_string(), source }),
            Err(error) => {
                tracing::warn!(%path, %error, "this checkpoint cannot be read; an older one or the whole log is used");
                Ok(None)
            }
        }
    }

    /// Reads commits until one is not there, more at a time the longer it goes on.
    async fn follow(&self, log: &mut ReadLog) -> Result<()> {
        let mut width = 1;
        loop {
            let next = log.next_version();
            let bodies = self.commits(next..next + width).await?;
            let missing = bodies.iter().position(Option::is_none);
            // Ours was asked for before it was made, or it is not there while a later one is.
            if let Some(missing) = missing
                && bodies[missing..].iter().any(Option::is_some)
                && self.commits(next + missing as u64..next + missing as u64 + 1).await?[0].is_none()
            {
                return Err(self.missing(next + missing as u64));
            }
            let is_tip = missing.is_some_and(|missing| bodies[missing..].iter().all(Option::is_none));
            for (version, body) in (next..).zip(bodies.iter().map_while(Option::as_ref)) {
                log.commits.push((version, self.decoded(version, body)?));
            }
            if is_tip {
                return Ok(());
            }
            width = (width * 2).min(WIDTH);
        }
    }

    async fn commits(&self, versions: impl IntoIterator<Item = u64>) -> Result<Vec<Option<Bytes>>> {
        let read = stream::iter(versions).map(|version| async move {
            let path = store::delta_log(&self.tenant, self.table.name(), Some(version));
            self.store.get(&path).await
        });
        Ok(read.buffered(WIDTH as usize).try_collect().await?)
    }

    /// Whether the folder shows anything after what was read.
    async fn goes_on(&self, log: &ReadLog) -> Result<bool> {
        let folder = store::delta_log(&self.tenant, self.table.name(), None);
        let Some(version) = log.version() else { return Ok(true) };
        let read = store::delta_log(&self.tenant, self.table.name(), Some(version));
        let listed = self.store.list(&folder, Some(&read)).await?;
        let versions = listed.iter().filter_map(|meta| {
            store::delta_version(&meta.location).or(store::delta_checkpoint_version(&meta.location))
        });
        Ok(versions.max().is_some_and(|newest| newest > version))
    }

    /// Reads the log that the folder shows.
    pub(super) async fn read_listed(&self) -> Result<ReadLog> {
        let folder = store::delta_log(&self.tenant, self.table.name(), None);
        let mut problem = None;
        for _ in 0..LISTINGS_MAX {
            let listed = self.store.list(&folder, None).await?;
            match self.read_of(&listed).await? {
                Ok(log) => return Ok(log),
                Err(missing) => problem = Some(missing),
            }
        }
        Err(self.missing(problem.unwrap_or(0)))
    }

    /// `Err` names a commit that is not there.
    async fn read_of(&self, listed: &[ObjectMeta]) -> Result<Result<ReadLog, u64>> {
        let mut checkpoints: Vec<u64> =
            listed.iter().filter_map(|meta| store::delta_checkpoint_version(&meta.location)).collect();
        checkpoints.sort_unstable();
        let mut base = None;
        while let (None, Some(version)) = (&base, checkpoints.pop()) {
            base = self.read_checkpoint(version).await?;
        }
        let first = base.as_ref().and_then(|base: &LogState| base.version).map_or(0, |version| version + 1);
        let listed: Vec<u64> = listed.iter().filter_map(|meta| store::delta_version(&meta.location)).collect();
        let wanted = listed.iter().copied().filter(|version| *version >= first);
        let (Some(lowest), Some(newest)) = (wanted.clone().min(), wanted.max()) else {
            return Ok(Ok(ReadLog { base, commits: Vec::new() }));
        };
        if lowest > first {
            return Ok(Err(first));
        }
        let bodies = self.commits(first..=newest).await?;
        let mut commits = Vec::with_capacity(bodies.len());
        for (version, body) in (first..).zip(bodies) {
            match body {
                Some(body) => commits.push((version, self.decoded(version, &body)?)),
                None => return Ok(Err(version)),
            }
        }
        Ok(Ok(ReadLog { base, commits }))
    }

    fn missing(&self, version: u64) -> CatalogError {
        self.corrupt(format!("commit {version} is missing from the log, and later ones are there"))
    }
}
