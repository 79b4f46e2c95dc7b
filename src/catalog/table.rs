//! One table's log as this process knows it: loading, catching up, and applying commits to snapshots.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use parking_lot::RwLock;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::commit::APPENDED;
use super::late::LateMemory;
use super::lookup::FoundRows;
use super::snapshot::{DataFile, Snapshot};
use super::{CatalogError, Result};
use crate::base::{Clock, TenantId, WriterId};
use crate::format::delta::{self, Action, Add};
use crate::format::late;
use crate::model::tables::Table;
use crate::store::{self, Store, StoreError};

/// Other nodes' commits are seen within this time (I4 asks for 2 s).
const STALE_AFTER: Duration = Duration::from_secs(1);
/// Commits read at once while loading a table.
const LOAD_WIDTH: usize = 16;

/// What the `txn.appId` of a writer looks like.
const APP_PREFIX: &str = "tracelake/";
pub(super) const TAG_FOOTER: &str = "tracelake.footer_bytes";
pub(super) const TAG_TIME_MIN: &str = "tracelake.time_min_us";
pub(super) const TAG_TIME_MAX: &str = "tracelake.time_max_us";
pub(super) const TAG_INDEX: &str = "tracelake.index";

#[derive(Debug)]
pub(super) struct TableState {
    pub(super) store: Store,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) tenant: TenantId,
    pub(super) table: Table,
    known: RwLock<Option<Known>>,
    /// When a commit of another process was last seen.
    foreign: parking_lot::Mutex<Option<Instant>>,
    pub(super) late_memory: parking_lot::Mutex<LateMemory>,
    pub(super) found: parking_lot::Mutex<FoundRows>,
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
}

impl TableState {
    pub(super) fn new(store: Store, clock: Arc<dyn Clock>, tenant: TenantId, table: Table) -> Self {
        let known = RwLock::new(None);
        let moving = Mutex::new(());
        Self {
            store,
            clock,
            tenant,
            table,
            known,
            foreign: Default::default(),
            late_memory: Default::default(),
            found: Default::default(),
            moving,
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
        let newer = || self.known.read().as_ref().filter(|known| known.verified > since).map(|k| Arc::clone(&k.snapshot));
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

    pub(super) fn verified_within(&self, age: Duration) -> Option<Arc<Snapshot>> {
        let known = self.known.read();
        known.as_ref().filter(|known| known.verified.elapsed() <= age).map(|known| Arc::clone(&known.snapshot))
    }

    /// The snapshot known, loaded if there is none. Call with `moving` held.
    pub(super) async fn loaded(&self) -> Result<Arc<Snapshot>> {
        match self.verified_within(Duration::MAX) {
            Some(snapshot) => Ok(snapshot),
            None => self.load().await,
        }
    }

    /// Reads the commits made since. Call with `moving` held.
    pub(super) async fn catch_up(&self) -> Result<Arc<Snapshot>> {
        let Some(mut snapshot) = self.verified_within(Duration::MAX) else { return self.load().await };
        loop {
            let next = next_version(&snapshot);
            let path = store::delta_log(&self.tenant, self.table.name(), Some(next));
            let asked = Instant::now();
            match self.store.get(&path).await? {
                None => return Ok(self.remember(snapshot, asked)),
                Some(body) => {
                    snapshot = Arc::new(self.applied(&snapshot, next, &body)?);
                    self.see_foreign();
                }
            }
        }
    }

    async fn load(&self) -> Result<Arc<Snapshot>> {
        let folder = store::delta_log(&self.tenant, self.table.name(), None);
        let asked = Instant::now();
        let listed = self.store.list(&folder, None).await?;
        let mut versions: Vec<u64> = listed.iter().filter_map(|meta| store::delta_version(&meta.location)).collect();
        versions.sort_unstable();
        if let Some((at, gap)) = versions.iter().enumerate().find(|(at, version)| *at as u64 != **version) {
            return Err(self.corrupt(format!("commit {at} is missing from the log; the next there is {gap}")));
        }
        let bodies = stream::iter(versions).map(|version| async move {
            let path = store::delta_log(&self.tenant, self.table.name(), Some(version));
            let body = self.store.get(&path).await?;
            body.map(|body| (version, body)).ok_or_else(|| StoreError::Missing { path: path.to_string() }.into())
        });
        let bodies: Vec<(u64, bytes::Bytes)> =
            bodies.buffered(LOAD_WIDTH).try_collect::<Vec<_>>().await.map_err(|e: CatalogError| e)?;
        let mut snapshot = Snapshot::default();
        for (version, body) in bodies {
            self.apply(&mut snapshot, version, &body)?;
        }
        self.see_foreign();
        Ok(self.remember(Arc::new(snapshot), asked))
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
            let body = body.ok_or_else(|| self.corrupt(format!("commit {at} is not there any more")))?;
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
        *self.known.write() = Some(Known { snapshot: Arc::clone(&snapshot), verified });
        snapshot
    }

    /// `snapshot` with the commit `version` applied.
    pub(super) fn applied(&self, snapshot: &Snapshot, version: u64, body: &[u8]) -> Result<Snapshot> {
        let mut next = snapshot.clone();
        self.apply(&mut next, version, body)?;
        Ok(next)
    }

    fn apply(&self, next: &mut Snapshot, version: u64, body: &[u8]) -> Result<()> {
        let path = store::delta_log(&self.tenant, self.table.name(), Some(version));
        let actions =
            delta::decode_commit(body).map_err(|source| CatalogError::Format { path: path.to_string(), source })?;
        next.version = Some(version);
        for action in actions {
            match action {
                Action::Add(add) => {
                    let file = data_file(&add)
                        .ok_or_else(|| self.corrupt(format!("commit {version} adds {} without a day", add.path)))?;
                    next.files.insert(add.path, Arc::new(file));
                }
                Action::Remove(remove) => {
                    next.files.remove(&remove.path);
                }
                Action::Txn(txn) => {
                    if let Some(slot) = late::slot_of_app_id(&txn.app_id) {
                        match txn.version {
                            0 => _ = next.late.remove(&slot),
                            number => _ = next.late.insert(slot, number.max(0) as u64),
                        }
                        continue;
                    }
                    let writer = txn.app_id.strip_prefix(APP_PREFIX).and_then(|id| id.parse::<WriterId>().ok());
                    if let Some(writer) = writer {
                        next.positions.insert(writer, txn.version.max(0) as u64);
                    }
                }
                Action::CommitInfo(_) | Action::Protocol(_) | Action::MetaData(_) => {}
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

/// An add action as planning needs it. Files of other engines lack our tags: nothing is pruned by what is not known.
fn data_file(add: &Add) -> Option<DataFile> {
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
    })
}
