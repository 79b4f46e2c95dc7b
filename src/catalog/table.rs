//! One table's log as this process knows it: loading, catching up, and applying commits to snapshots.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::RwLock;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::commit::APPENDED;
use super::late::LateMemory;
use super::lookup::FoundRows;
use super::reports::FoundReports;
use super::snapshot::{DataFile, RemovedFile, Snapshot};
use super::{CatalogError, Result};
use crate::base::{Clock, TenantId, TimestampUs, WriterId};
use crate::format::checkpoint::TAG_VERSION;
use crate::format::delta::{self, Action, Add, Remove};
use crate::format::late;
use crate::format::rollup::{RollupKind, RollupSet};
use crate::model::tables::Table;
use crate::store::{self, Store};

/// Other nodes' commits are seen within this time (I4 asks for 2 s).
const STALE_AFTER: Duration = Duration::from_secs(1);
/// Logs are kept for a day at least: a tip seen less than half a day ago has all that came after it still behind it.
pub(super) const SURELY_KEPT: Duration = Duration::from_secs(12 * 3600);
/// Removed files are forgotten after this long, when commits are counted off; checkpoints do the same.
const REMOVALS_KEPT_US: i64 = 2 * 86_400_000_000;
const FORGET_EVERY: u64 = 50;

/// What the `txn.appId` of a writer looks like.
const APP_PREFIX: &str = "tracelake/";
pub(super) const TAG_FOOTER: &str = "tracelake.footer_bytes";
pub(super) const TAG_TIME_MIN: &str = "tracelake.time_min_us";
pub(super) const TAG_TIME_MAX: &str = "tracelake.time_max_us";
pub(super) const TAG_INDEX: &str = "tracelake.index";
/// The `txn.appId` that counts the rows retention has dropped.
pub(super) const APP_DROPPED: &str = "tracelake-dropped-rows";
pub(super) const TAG_REWRITES: &str = "tracelake.rewrites";
/// The file holds rows that did not say when they began.
pub(super) const TAG_UNDATED: &str = "tracelake.undated";

#[derive(Debug)]
pub(super) struct TableState {
    pub(super) store: Store,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) tenant: TenantId,
    pub(super) table: Table,
    known: RwLock<Option<Known>>,
    /// Every snapshot handed out that may still be in use.
    handed: parking_lot::Mutex<Vec<Weak<Snapshot>>>,
    /// The newest checkpoint this process knows of.
    pub(super) checkpointed: parking_lot::Mutex<Option<u64>>,
    /// One checkpoint at a time.
    pub(super) checkpointing: Mutex<()>,
    /// When a commit of another process was last seen.
    foreign: parking_lot::Mutex<Option<Instant>>,
    pub(super) late_memory: parking_lot::Mutex<LateMemory>,
    pub(super) found: parking_lot::Mutex<FoundRows>,
    pub(super) reports: parking_lot::Mutex<FoundReports>,
    /// When late objects were put that are not committed yet, by number.
    pub(super) late_put_us: parking_lot::Mutex<BTreeMap<u64, TimestampUs>>,
    /// Held while the log is read or written: one load, one catch-up or one commit at a time.
    pub(super) moving: Mutex<()>,
}

/// What an append says of itself in its commit.
#[derive(Debug, Clone, serde::Deserialize)]
pub struct Appended {
    writer: String,
    from: u64,
    pub to: u64,
    /// Ids that were in the table already, by what the ledger counts them by.
    pub merged: BTreeMap<String, u64>,
}

#[derive(Debug, Clone)]
struct Known {
    snapshot: Arc<Snapshot>,
    /// It was the newest at this moment.
    verified: Instant,
    /// The same by the wall clock, which goes on while a machine sleeps.
    verified_us: TimestampUs,
}

impl TableState {
    pub(super) fn new(store: Store, clock: Arc<dyn Clock>, tenant: TenantId, table: Table) -> Self {
        Self {
            store,
            clock,
            tenant,
            table,
            known: RwLock::new(None),
            handed: Default::default(),
            foreign: Default::default(),
            checkpointed: Default::default(),
            checkpointing: Mutex::new(()),
            late_memory: Default::default(),
            found: Default::default(),
            reports: Default::default(),
            late_put_us: Default::default(),
            moving: Mutex::new(()),
        }
    }

    pub(super) async fn fresh_snapshot(&self) -> Result<Arc<Snapshot>> {
        if let Some(snapshot) = self.verified_within(STALE_AFTER) {
            return Ok(snapshot);
        }
        let _moving = self.moving.lock().await;
        match self.verified_within(STALE_AFTER) {
            Some(snapshot) => Ok(snapshot),
            None => self.catch_up().await,
        }
    }

    /// A snapshot that was the newest at some moment after `since`.
    pub(super) async fn snapshot_since(&self, since: Instant) -> Result<Arc<Snapshot>> {
        let newer =
            || self.known.read().as_ref().filter(|known| known.verified > since).map(|k| Arc::clone(&k.snapshot));
        if let Some(snapshot) = newer() {
            return Ok(snapshot);
        }
        let _moving = self.moving.lock().await;
        match newer() {
            Some(snapshot) => Ok(snapshot),
            None => self.catch_up().await,
        }
    }

    /// When a commit of another process was last seen here.
    pub(super) fn foreign_seen(&self) -> Option<Instant> {
        *self.foreign.lock()
    }

    pub(super) fn see_foreign(&self) {
        *self.foreign.lock() = Some(Instant::now());
    }

    pub(super) async fn known_snapshot(&self) -> Result<Arc<Snapshot>> {
        if let Some(snapshot) = self.verified_within(Duration::MAX) {
            return Ok(snapshot);
        }
        let _moving = self.moving.lock().await;
        self.loaded().await
    }

    /// The snapshot known, if it was the newest less than `age` ago, by both clocks: one stops while a machine sleeps,
    /// the other may be set.
    pub(super) fn verified_within(&self, age: Duration) -> Option<Arc<Snapshot>> {
        let known = self.known.read();
        let passed_us = |known: &&Known| self.clock.now_us().saturating_sub(known.verified_us).max(0) as u128;
        let is_young = |known: &&Known| known.verified.elapsed() <= age && passed_us(known) <= age.as_micros();
        known.as_ref().filter(is_young).map(|known| Arc::clone(&known.snapshot))
    }

    /// The snapshot known, loaded if there is none. Call with `moving` held.
    pub(super) async fn loaded(&self) -> Result<Arc<Snapshot>> {
        match self.verified_within(Duration::MAX) {
            Some(snapshot) => Ok(snapshot),
            None => self.load().await,
        }
    }

    /// Whether the tip known was looked at so long ago that the log behind it may have been cleaned since.
    pub(super) fn may_be_cleaned(&self) -> bool {
        let known = self.known.read();
        let Some(known) = known.as_ref() else { return true };
        let passed_us = self.clock.now_us() - known.verified_us;
        known.verified.elapsed() >= SURELY_KEPT || passed_us >= SURELY_KEPT.as_micros() as i64
    }

    /// Reads the commits made since. Call with `moving` held.
    pub(super) async fn catch_up(&self) -> Result<Arc<Snapshot>> {
        let Some(mut snapshot) = self.verified_within(Duration::MAX) else { return self.load().await };
        loop {
            let next = next_version(&snapshot);
            let path = store::delta_log(&self.tenant, self.table.name(), Some(next));
            let asked = Instant::now();
            let body = self.store.get(&path).await?;
            // The next commit may be gone, and what is not there, or was left there by a sleeper, would be the tip.
            if self.may_be_cleaned() {
                return self.load().await;
            }
            match body {
                None => return Ok(self.remember(snapshot, asked)),
                Some(body) => {
                    snapshot = Arc::new(self.applied(&snapshot, next, &body)?);
                    self.see_foreign();
                }
            }
        }
    }

    /// Reads the table from the store. Call with `moving` held.
    pub(super) async fn load(&self) -> Result<Arc<Snapshot>> {
        let asked = Instant::now();
        let log = self.read_log().await?;
        self.see_foreign();
        Ok(self.remember(Arc::new(self.snapshot_of(log)?), asked))
    }

    /// What `writer`'s appends above its position `above` found in the table already, by their `to`: for a replay after
    /// a crash between two tables' commits. Reads the log backwards; only as far as such appends reach.
    pub(super) async fn merged_above(&self, writer: &WriterId, above: u64) -> Result<Vec<Appended>> {
        let snapshot = self.known_snapshot().await?;
        let mut found = Vec::new();
        let mut from = snapshot.position(writer);
        let mut version = snapshot.version;
        while let Some(at) = version
            && from > above
        {
            let path = store::delta_log(&self.tenant, self.table.name(), Some(at));
            let body = self.store.get(&path).await?;
            let Some(body) = body else {
                // Cleaned away a week after a crash that nobody came back from. What it told only parts the books.
                tracing::warn!(
                    tenant = %self.tenant, table = self.table.name(), version = at,
                    "this commit was cleaned away before the books took it in: merged ids may count as stored"
                );
                break;
            };
            let actions = delta::decode_commit(&body)
                .map_err(|source| CatalogError::Format { path: path.to_string(), source })?;
            let told = actions.into_iter().find_map(|action| match action {
                Action::CommitInfo(mut info) => serde_json::from_value::<Appended>(info.more.remove(APPENDED)?).ok(),
                _ => None,
            });
            if let Some(appended) = told.filter(|told| told.writer == writer.as_str()) {
                from = appended.from;
                found.push(appended);
            }
            version = at.checked_sub(1);
        }
        Ok(found)
    }

    /// Keeps `snapshot` as the newest known.
    pub(super) fn remember(&self, snapshot: Arc<Snapshot>, verified: Instant) -> Arc<Snapshot> {
        let verified_us = self.clock.now_us();
        let known = Known { snapshot: Arc::clone(&snapshot), verified, verified_us };
        *self.known.write() = Some(known);
        let mut handed = self.handed.lock();
        if !handed.last().is_some_and(|last| std::ptr::eq(last.as_ptr(), Arc::as_ptr(&snapshot))) {
            handed.retain(|snapshot| snapshot.strong_count() > 0);
            handed.push(Arc::downgrade(&snapshot));
        }
        snapshot
    }

    /// The snapshots of this process that somebody still uses, the newest among them.
    pub(super) fn held(&self) -> Vec<Arc<Snapshot>> {
        self.handed.lock().iter().filter_map(Weak::upgrade).collect()
    }

    /// Forgets files and late objects that are no longer in the store.
    pub(super) fn forget_removed(&self, paths: &[String], late: &[u64]) {
        let mut known = self.known.write();
        let Some(known) = known.as_mut() else { return };
        let mut snapshot = Snapshot::clone(&known.snapshot);
        paths.iter().for_each(|path| _ = snapshot.removed.remove(path));
        late.iter().for_each(|number| _ = snapshot.late_freed.remove(number));
        known.snapshot = Arc::new(snapshot);
        self.handed.lock().push(Arc::downgrade(&known.snapshot));
    }

    /// `snapshot` with the commit `version` applied.
    pub(super) fn applied(&self, snapshot: &Snapshot, version: u64, body: &[u8]) -> Result<Snapshot> {
        let mut next = snapshot.clone();
        self.apply(&mut next, version, body)?;
        Ok(next)
    }

    fn apply(&self, next: &mut Snapshot, version: u64, body: &[u8]) -> Result<()> {
        self.apply_actions(next, version, self.decoded(version, body)?)
    }

    /// The actions of a commit.
    pub(super) fn decoded(&self, version: u64, body: &[u8]) -> Result<Vec<Action>> {
        let path = store::delta_log(&self.tenant, self.table.name(), Some(version));
        delta::decode_commit(body).map_err(|source| CatalogError::Format { path: path.to_string(), source })
    }

    pub(super) fn apply_actions(
        &self,
        next: &mut Snapshot,
        version: u64,
        actions: impl IntoIterator<Item = Action>,
    ) -> Result<()> {
        next.version = Some(version);
        for action in actions {
            match action {
                Action::Add(add) => {
                    let file = data_file(&add, version)
                        .ok_or_else(|| self.corrupt(format!("commit {version} adds {} without a day", add.path)))?;
                    next.removed.remove(&add.path);
                    next.files.insert(add.path, Arc::new(file));
                }
                Action::Remove(remove) => {
                    let file = next.files.remove(&remove.path);
                    let removed = removed_file(&remove, file.as_deref(), version);
                    next.removed.insert(remove.path, Arc::new(removed));
                }
                Action::Txn(txn) => {
                    if txn.app_id == APP_DROPPED {
                        next.dropped_rows = txn.version.max(0) as u64;
                        continue;
                    }
                    if let Some(slot) = late::slot_of_app_id(&txn.app_id) {
                        let freed = match txn.version {
                            0 => next.late.remove(&slot),
                            number => next.late.insert(slot, number.max(0) as u64),
                        };
                        let at_us = txn.last_updated.unwrap_or(0) * 1000;
                        if let Some(number) = freed {
                            next.late_since_us.remove(&number);
                            next.late_freed.insert(number, at_us);
                        }
                        next.late_since_us.extend((txn.version > 0).then_some((txn.version as u64, at_us)));
                        continue;
                    }
                    let writer = txn.app_id.strip_prefix(APP_PREFIX).and_then(|id| id.parse::<WriterId>().ok());
                    if let Some(writer) = writer {
                        next.positions.insert(writer, txn.version.max(0) as u64);
                    }
                }
                Action::CommitInfo(info) if version.is_multiple_of(FORGET_EVERY) => {
                    let oldest_us = info.timestamp * 1000 - REMOVALS_KEPT_US;
                    next.removed.retain(|_, file| file.removed_us >= oldest_us);
                    let forgotten = next.late_freed.values().filter(|at_us| **at_us < oldest_us).max().copied();
                    next.late_freed.retain(|_, at_us| *at_us >= oldest_us);
                    next.late_freed_before_us = next.late_freed_before_us.max(forgotten.unwrap_or(0));
                }
                Action::MetaData(metadata) => {
                    let path = || store::delta_log(&self.tenant, self.table.name(), Some(version)).to_string();
                    let grown = delta::grown(self.table, &metadata)
                        .map_err(|source| CatalogError::Format { path: path(), source })?;
                    next.grown = grown.map(Arc::new);
                }
                Action::CommitInfo(_) | Action::Protocol(_) => {}
            }
        }
        Ok(())
    }

    pub(super) fn corrupt(&self, reason: String) -> CatalogError {
        CatalogError::Corrupt { tenant: self.tenant.clone(), table: self.table.name(), reason }
    }
}

pub(super) fn next_version(snapshot: &Snapshot) -> u64 {
    snapshot.version.map_or(0, |version| version + 1)
}

pub(super) fn app_id(writer: &WriterId) -> String {
    format!("{APP_PREFIX}{writer}")
}

/// The tag of an add action that tells of a roll-up.
pub(super) fn rollup_tag(kind: RollupKind) -> &'static str {
    match kind {
        RollupKind::Hours => "tracelake.rollup",
        RollupKind::Traces => "tracelake.rollup_traces",
    }
}

fn rollups(tag: impl Fn(&str) -> Option<String>) -> RollupSet {
    let mut rollups = RollupSet::default();
    for kind in RollupKind::ALL {
        if let Some(facts) = tag(rollup_tag(kind)).and_then(|said| said.parse().ok()) {
            rollups.put(kind, facts);
        }
    }
    rollups
}

/// An add action as planning needs it. Files of other engines lack our tags: nothing is pruned by what is not known.
fn data_file(add: &Add, version: u64) -> Option<DataFile> {
    let tag = |name: &str| add.tags.as_ref()?.get(name)?.clone();
    let number = |name: &str| tag(name)?.parse::<i64>().ok();
    let stats: serde_json::Value = add.stats.as_deref().and_then(|stats| serde_json::from_str(stats).ok())?;
    Some(DataFile {
        path: add.path.clone(),
        size_bytes: add.size.max(0) as u64,
        day: store::day_of_data_file(&add.path)?,
        rows: stats.get("numRecords")?.as_u64()?,
        time_us: number(TAG_TIME_MIN).zip(number(TAG_TIME_MAX)),
        footer_bytes: number(TAG_FOOTER).map(|bytes| bytes.max(0) as u64),
        index: tag(TAG_INDEX),
        rollups: rollups(tag),
        rewrites: number(TAG_REWRITES).map_or(0, |rewrites| rewrites.clamp(0, 255) as u8),
        undated: tag(TAG_UNDATED).is_some(),
        added_version: number(TAG_VERSION).map_or(Some(version), |version| Some(version.max(0) as u64)),
        added_us: add.modification_time.saturating_mul(1000),
    })
}

/// `file`: what was live under the path. Checkpoints say it in the action, commits do not.
fn removed_file(remove: &Remove, file: Option<&DataFile>, version: u64) -> RemovedFile {
    let tagged = |name: &str| remove.tags.as_ref()?.get(name)?.clone();
    RemovedFile {
        path: remove.path.clone(),
        size_bytes: file.map_or(remove.size.unwrap_or(0).max(0) as u64, |file| file.size_bytes),
        index: file.map_or_else(|| tagged(TAG_INDEX), |file| file.index.clone()),
        rollups: file.map_or_else(|| rollups(tagged), |file| file.rollups),
        removed_version: version,
        removed_us: remove.deletion_timestamp.unwrap_or(0) * 1000,
    }
}
