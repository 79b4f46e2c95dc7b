//! One table's Delta log, read from its first object to its last, by other code than servers load it with: every commit,
//! every checkpoint against what the commits before it amount to, and the hint.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::finding::Place;
use super::{Result, Round};
use crate::base::TenantId;
use crate::format::FormatError;
use crate::format::checkpoint::{self, LastCheckpoint, LogState, TAG_VERSION};
use crate::format::delta::{self, Add};
use crate::model::tables::Table;
use crate::store;

/// Removals younger than this must stand in a checkpoint; older ones may be forgotten, sooner or later.
const REMOVALS_SURELY_KEPT_MS: i64 = 86_400_000;

impl Round {
    /// What the log says at its tip; `None` if there is no log, or not enough of it.
    pub(super) async fn delta_log(&mut self, tenant: &TenantId, table: Table) -> Result<Option<LogState>> {
        let place = Place::table(tenant, table);
        let listed = self.store.list(&store::delta_log(tenant, table.name(), None), None).await?;
        let commits: BTreeSet<u64> = listed.iter().filter_map(|meta| store::delta_version(&meta.location)).collect();
        let versions: Vec<u64> =
            listed.iter().filter_map(|meta| store::delta_checkpoint_version(&meta.location)).collect();
        if commits.is_empty() && versions.is_empty() {
            return Ok(None);
        }
        let mut checkpoints = BTreeMap::new();
        for version in versions {
            let path = store::delta_checkpoint(tenant, table.name(), version);
            // One that went since the listing went for good reason.
            if let Some(body) = self.store.get(&path).await? {
                checkpoints.insert(version, checkpoint::decode(version, body));
            }
        }
        let Some(tip) = self.replay(tenant, table, &commits, &checkpoints).await? else { return Ok(None) };
        self.hint(&place, tenant, table, &checkpoints, &tip).await?;
        Ok(Some(tip))
    }

    /// Goes through the commits in order, and compares the checkpoints on the way.
    async fn replay(
        &mut self,
        tenant: &TenantId,
        table: Table,
        commits: &BTreeSet<u64>,
        checkpoints: &BTreeMap<u64, Result<LogState, FormatError>>,
    ) -> Result<Option<LogState>> {
        let place = Place::table(tenant, table);
        let sound = |version: u64| checkpoints.get(&version).and_then(|read| read.as_ref().ok());
        let all = || commits.iter().chain(checkpoints.keys()).copied();
        let (oldest, newest) = (all().min().unwrap_or(0), all().max().unwrap_or(0));
        // Begins at the first commit, or at a checkpoint that stands for what was cleaned.
        let mut state: Option<LogState> = (oldest == 0).then(LogState::default);
        for version in oldest..=newest {
            let path = store::delta_log(tenant, table.name(), Some(version));
            let body = match commits.contains(&version) {
                true => self.store.get(&path).await?,
                false => None,
            };
            match (&mut state, body) {
                (Some(state), Some(body)) => match delta::decode_commit(&body) {
                    Ok(actions) => state.apply(version, actions),
                    Err(error) => {
                        self.found.error(&place, format!("commit {version} cannot be read: {error}"));
                        return Ok(None);
                    }
                },
                // Below the checkpoint that this log begins with, or after a hole: a checkpoint may stand for it.
                (_, None) => {
                    let gap = checkpoints.range(version..).find_map(|(at, read)| read.is_ok().then_some(*at));
                    if state.is_some() && gap != Some(version) {
                        match gap {
                            Some(at) => {
                                let what = format!("commit {version} is missing; checkpoint {at} stands for it");
                                self.found.note(&place, what);
                            }
                            None => {
                                let what = format!("commit {version} is missing, and no checkpoint stands for it");
                                self.found.error(&place, what);
                                return Ok(None);
                            }
                        }
                    }
                    state = None;
                }
                (None, Some(_)) => {}
            }
            if let Some(read) = checkpoints.get(&version) {
                self.checkpoint(tenant, table, version, state.as_ref(), read).await?;
            }
            if state.is_none() {
                state = sound(version).cloned();
            }
        }
        if state.is_none() {
            self.found
                .error(&place, "its log begins in the middle, and no checkpoint stands for what is gone".to_owned());
        }
        Ok(state)
    }

    /// One checkpoint against what the commits amount to, if enough of them are left.
    async fn checkpoint(
        &mut self,
        tenant: &TenantId,
        table: Table,
        version: u64,
        replayed: Option<&LogState>,
        read: &Result<LogState, FormatError>,
    ) -> Result<()> {
        let problem = match (read, replayed) {
            (Err(error), _) => format!("checkpoint {version} cannot be read: {error}"),
            (Ok(read), Some(replayed)) => match difference(read, replayed) {
                Some(difference) => format!("checkpoint {version} differs from its log: {difference}"),
                None => return Ok(()),
            },
            (Ok(_), None) => return Ok(()),
        };
        let place = Place::table(tenant, table);
        let Some((body, _)) = replayed.and_then(|state| checkpoint::encode(state).ok()) else {
            self.found.error(&place, problem);
            return Ok(());
        };
        if self.fix {
            self.store.put(&store::delta_checkpoint(tenant, table.name(), version), body).await?;
        }
        self.found.error(&place, problem).mend("write it anew from the log", self.fix);
        Ok(())
    }

    async fn hint(
        &mut self,
        place: &Place,
        tenant: &TenantId,
        table: Table,
        checkpoints: &BTreeMap<u64, Result<LogState, FormatError>>,
        tip: &LogState,
    ) -> Result<()> {
        let path = store::last_checkpoint(tenant, table.name());
        let body = self.store.get(&path).await?;
        let newest = checkpoints.iter().rev().find_map(|(_, read)| read.as_ref().ok());
        let problem = match body.as_deref().map(serde_json::from_slice::<LastCheckpoint>) {
            None if checkpoints.is_empty() => return Ok(()),
            None => "the hint at its newest checkpoint is missing: loading it lists its log".to_owned(),
            Some(Err(error)) => format!("the hint at its newest checkpoint cannot be read: {error}"),
            Some(Ok(hint)) if !checkpoints.contains_key(&hint.version) => {
                format!("the hint names checkpoint {}, which is not there", hint.version)
            }
            Some(Ok(_)) => return Ok(()),
        };
        // Without a checkpoint to name, one is made of what the log says now.
        let Ok((checkpoint, hint)) = checkpoint::encode(newest.unwrap_or(tip)) else {
            self.found.warning(place, problem);
            return Ok(());
        };
        if self.fix {
            if newest.is_none() {
                self.store.put(&store::delta_checkpoint(tenant, table.name(), hint.version), checkpoint).await?;
            }
            let body = serde_json::to_vec(&hint).expect("numbers become JSON");
            self.store.put(&path, Bytes::from(body)).await?;
        }
        self.found.warning(place, problem).mend("write it anew", self.fix);
        Ok(())
    }
}

/// The first thing in which a checkpoint and its log differ.
fn difference(read: &LogState, replayed: &LogState) -> Option<String> {
    if read.protocol != replayed.protocol || read.metadata != replayed.metadata {
        return Some("another protocol or schema".to_owned());
    }
    let missing = replayed.adds.keys().find(|path| !read.adds.contains_key(*path));
    if let Some(path) = missing {
        return Some(format!("{path} is live and not in it"));
    }
    let extra = read.adds.keys().find(|path| !replayed.adds.contains_key(*path));
    if let Some(path) = extra {
        return Some(format!("{path} is in it and not live"));
    }
    let changed = read.adds.iter().find(|(path, add)| untagged(add) != untagged(&replayed.adds[*path]));
    if let Some((path, _)) = changed {
        return Some(format!("it says other things of {path}"));
    }
    if let Some(app) = read
        .txns
        .iter()
        .chain(&replayed.txns)
        .find_map(|(app, _)| (read.txns.get(app) != replayed.txns.get(app)).then_some(app))
    {
        return Some(format!("it has another position of {app}"));
    }
    let young_ms = replayed.committed_ms - REMOVALS_SURELY_KEPT_MS;
    let mut young = replayed.removes.values().filter(|remove| remove.deletion_timestamp.unwrap_or(0) > young_ms);
    let lost = young.find(|remove| !read.removes.contains_key(&remove.path));
    lost.map(|remove| format!("it does not know that {} was removed", remove.path))
}

/// Other engines' checkpoints lack the version that our own add.
fn untagged(add: &Add) -> Add {
    let mut add = add.clone();
    add.tags.iter_mut().for_each(|tags| _ = tags.remove(TAG_VERSION));
    add
}
