//! The committer: one change becomes one `_delta_log/{n}.json`, created if absent.
//!
//! ```text
//! n = known version + 1
//! loop: may the change still be made on this snapshot?  no -> say what became of it
//!       create n                                        ours -> done (also after a lost reply)
//!       theirs -> apply it, n + 1
//! ```
//! A commit costs one request when nobody else wrote.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;
use uuid::Uuid;

use super::snapshot::{DataFile, Snapshot};
use super::table::{
    APP_DROPPED, TAG_FOOTER, TAG_INDEX, TAG_REWRITES, TAG_TIME_MAX, TAG_TIME_MIN, TAG_UNDATED, TableState, app_id,
    next_version, rollup_tag,
};
use super::{CatalogError, Result};
use crate::base::{Day, TimestampUs, WriterId};
use crate::format::delta::{self, Action, Add, CommitInfo, MetaData, Remove, Txn};
use crate::format::late::{self, LateSlots};
use crate::format::rollup::RollupSet;
use crate::store::{self, Created};

/// A tip not looked at for this long may hide a log that was cleaned behind it: it is read again before a commit.
const TIP_VERIFIED_WITHIN: Duration = Duration::from_secs(600);
/// What nobody names is swept when it is a day old. What was put so long before its commit may be gone: the process
/// slept, and must put it again.
const PREPARED_WITHIN_US: i64 = 12 * 3_600_000_000;
/// Races lost in a row before waiting between them, and before giving up.
const RACES_BEFORE_WAITING: u32 = 3;
const RACES_MAX: u32 = 200;

/// A Parquet file already in the store, about to become live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewFile {
    pub path: String,
    pub day: Day,
    pub size_bytes: u64,
    pub footer_bytes: u64,
    pub time_us: Option<(TimestampUs, TimestampUs)>,
    /// Delta's own statistics, with `numRecords`.
    pub stats: String,
    /// The id of the `_index` object that describes it.
    pub index: Option<String>,
    /// What its roll-ups are like, which are in the store already.
    pub rollups: RollupSet,
    /// How many times its rows were rewritten: 0 as flushed.
    pub rewrites: u8,
    /// It holds rows that did not say when they began: their day follows from something else.
    pub undated: bool,
}

/// Rows of a writer's log, from after `from` up to `to`.
#[derive(Debug, Clone)]
pub struct Append {
    pub writer: WriterId,
    /// The position the table must be at.
    pub from: u64,
    /// The position it is at afterwards.
    pub to: u64,
    pub files: Vec<NewFile>,
    /// The number of the late object with what these rows change about rows that stand already.
    pub late: Option<u64>,
    /// The snapshot on which none of the files' keys stood: the append is valid on no other. `None` for tables whose
    /// rows have no keys.
    pub checked: Option<Checked>,
    /// Kept in the commit, for whoever replays its writer's log: how many of the ids were in the table already, by what
    /// the ledger counts them by.
    pub merged: BTreeMap<String, u64>,
}

/// The version of a snapshot that was looked at; `None` inside: the table had never been written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checked(pub Option<u64>);

/// Replaces files by others with the same rows. Void if any input is gone, for whatever reason.
#[derive(Debug, Clone, Default)]
pub struct Rewrite {
    pub inputs: Vec<String>,
    pub outputs: Vec<NewFile>,
    /// Rows of the inputs that are in no output: declared duplicates and deletions (I8).
    pub dropped: u64,
    /// Late objects folded in: each must be live still.
    pub folded: Vec<u64>,
    /// What of them could not be folded in yet.
    pub late: Option<u64>,
    /// The snapshot on which alone the rewrite is valid; `None`: on any that still has its inputs.
    pub checked: Option<Checked>,
}

#[derive(Debug, Clone)]
pub enum Change {
    Append(Append),
    Rewrite(Rewrite),
    /// Makes a late object live that only takes rows away: those that stood in the snapshot looked at.
    Mask {
        late: u64,
        checked: Checked,
    },
    /// Drops every live file of these days, also those that appear while it tries.
    DropDays {
        through: Day,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Committed {
    /// In the table as this version.
    Done { version: u64 },
    /// There was nothing to do: the table is at or past the append's `to`, or nothing matched. The files of the change
    /// are orphans.
    Nothing,
    /// Another owner of the writer's log committed up to `position`, inside `(from, to]`: keep only what lies above it
    /// and append that.
    Moved { position: u64 },
    /// Something was committed since the change was checked: check again and commit what stands then.
    Stale,
    /// The table is at `position`, before `from`: what lies between is in no table. The log's owner must replay.
    Behind { position: u64 },
}

impl TableState {
    pub(super) async fn commit(&self, change: Change) -> Result<Committed> {
        let _moving = self.moving.lock().await;
        let mut snapshot = match self.verified_within(TIP_VERIFIED_WITHIN) {
            Some(snapshot) => snapshot,
            None => self.catch_up().await?,
        };
        for race in 0..RACES_MAX {
            let (operation, actions) = match self.actions(&change, &snapshot)? {
                Ok(actions) => actions,
                Err(done) => return Ok(done),
            };
            self.is_young(&change)?;
            let version = next_version(&snapshot);
            let added = paths_added(&actions);
            let more = change.told();
            let body = delta::encode_commit(&self.with_head(&snapshot, version, operation, more, actions));
            let path = store::delta_log(&self.tenant, self.table.name(), Some(version));
            let asked = Instant::now();
            match self.store.create(&path, body.clone()).await? {
                // Asleep for half a day, we may have created a number that was cleaned: then it is in nobody's log …
                Created::Ours if self.may_be_cleaned() => {
                    if self.stands(version, &added).await? {
                        return Ok(Committed::Done { version });
                    }
                    snapshot = self.loaded().await?;
                }
                // … and who was there before us may have slept as well.
                Created::Theirs(_) if self.may_be_cleaned() => snapshot = self.load().await?,
                Created::Ours => {
                    let next = Arc::new(self.applied(&snapshot, version, &body)?);
                    self.remember(next, asked);
                    return Ok(Committed::Done { version });
                }
                Created::Theirs(body) => {
                    snapshot = self.remember(Arc::new(self.applied(&snapshot, version, &body)?), asked);
                    self.see_foreign();
                }
            }
            if race >= RACES_BEFORE_WAITING {
                let spread = u64::from(Uuid::new_v4().as_bytes()[0]);
                tokio::time::sleep(Duration::from_millis(5 + spread % 45)).await;
            }
        }
        Err(self.corrupt(format!("{RACES_MAX} commits of others came before ours")))
    }

    /// An error if what the change names was put so long ago that it may have been swept since.
    fn is_young(&self, change: &Change) -> Result<()> {
        let (files, late) = match change {
            Change::Append(append) => (append.files.as_slice(), append.late),
            Change::Rewrite(rewrite) => (rewrite.outputs.as_slice(), rewrite.late),
            Change::Mask { late, .. } => ([].as_slice(), Some(*late)),
            Change::DropDays { .. } => return Ok(()),
        };
        let of_late = late.and_then(|number| self.late_put_us.lock().get(&number).copied());
        let put_us = files.iter().filter_map(|file| store::data_file_made_us(&file.path)).chain(of_late).min();
        match put_us.is_some_and(|put_us| self.clock.now_us() - put_us > PREPARED_WITHIN_US) {
            true => Err(CatalogError::Slept { table: self.table.name() }),
            false => Ok(()),
        }
    }

    /// The actions of `change` on `snapshot`, or what became of it already.
    fn actions(&self, change: &Change, snapshot: &Snapshot) -> Result<Result<(&'static str, Vec<Action>), Committed>> {
        let now_ms = self.clock.now_us() / 1000;
        match change {
            Change::Append(append) => {
                let position = snapshot.position(&append.writer);
                if position >= append.to {
                    return Ok(Err(Committed::Nothing));
                } else if position > append.from {
                    return Ok(Err(Committed::Moved { position }));
                } else if position < append.from {
                    return Ok(Err(Committed::Behind { position }));
                }
                if append.checked.is_some_and(|Checked(version)| version != snapshot.version) {
                    return Ok(Err(Committed::Stale));
                }
                let mut actions: Vec<Action> = append.files.iter().map(|file| add(file, true, now_ms)).collect();
                if let Some(number) = append.late {
                    actions.push(slot(free_slot(&snapshot.late), number, now_ms));
                }
                actions.push(Action::Txn(Txn {
                    app_id: app_id(&append.writer),
                    version: append.to as i64,
                    last_updated: Some(now_ms),
                }));
                Ok(Ok(("WRITE", actions)))
            }
            Change::Rewrite(Rewrite { inputs, outputs, dropped, folded, late, checked }) => {
                if checked.is_some_and(|Checked(version)| version != snapshot.version) {
                    return Ok(Err(Committed::Stale));
                }
                let mut actions = Vec::with_capacity(inputs.len() + outputs.len());
                for path in inputs {
                    if !snapshot.files.contains_key(path) {
                        return Err(CatalogError::InputGone { table: self.table.name(), path: path.clone() });
                    }
                    actions.push(remove(path, false, now_ms));
                }
                let rows_in: u64 = inputs.iter().map(|path| snapshot.files[path].rows).sum();
                let rows_out: u64 = outputs.iter().map(rows).sum();
                if rows_in != rows_out + dropped {
                    let reason =
                        format!("I8: a rewrite of {rows_in} rows would leave {rows_out} and declares {dropped} gone");
                    return Err(self.corrupt(reason));
                }
                // Readers must look again where rows went or changed.
                let changed = *dropped > 0 || !folded.is_empty();
                actions.extend(outputs.iter().map(|file| add(file, changed, now_ms)));
                let mut left = snapshot.late.clone();
                for number in folded {
                    let Some(place) = left.iter().find(|(_, live)| *live == number).map(|(place, _)| *place) else {
                        let path = store::late_object(&self.tenant, self.table.name(), Some(*number)).to_string();
                        return Err(CatalogError::InputGone { table: self.table.name(), path });
                    };
                    left.remove(&place);
                    actions.push(slot(place, 0, now_ms));
                }
                if *dropped > 0 {
                    actions.push(dropped_rows(snapshot, *dropped, now_ms));
                }
                if let Some(number) = late {
                    let place = free_slot(&left);
                    // A slot folded by this commit may be taken again in it: one action per application.
                    actions
                        .retain(|action| !matches!(action, Action::Txn(txn) if txn.app_id == late::slot_app_id(place)));
                    actions.push(slot(place, *number, now_ms));
                }
                Ok(Ok(("OPTIMIZE", actions)))
            }
            Change::Mask { late, checked: Checked(version) } => match *version == snapshot.version {
                true => Ok(Ok(("DELETE", vec![slot(free_slot(&snapshot.late), *late, now_ms)]))),
                false => Ok(Err(Committed::Stale)),
            },
            Change::DropDays { through } => {
                let matching = |file: &&Arc<DataFile>| file.day <= *through;
                let mut actions: Vec<Action> =
                    snapshot.files.values().filter(matching).map(|file| remove(&file.path, true, now_ms)).collect();
                if actions.is_empty() {
                    return Ok(Err(Committed::Nothing));
                }
                let dropped = snapshot.files.values().filter(matching).map(|file| file.rows).sum();
                actions.push(dropped_rows(snapshot, dropped, now_ms));
                Ok(Ok(("DELETE", actions)))
            }
        }
    }

    /// Commit info first; version 0 also makes the table, and the first commit of a newer program gives it the columns
    /// it lacks: whoever reads the table finds them described no later than a file has them.
    fn with_head(
        &self,
        snapshot: &Snapshot,
        version: u64,
        operation: &str,
        more: BTreeMap<String, Value>,
        actions: Vec<Action>,
    ) -> Vec<Action> {
        let now_ms = self.clock.now_us() / 1000;
        let info = CommitInfo {
            timestamp: now_ms,
            operation: operation.to_owned(),
            engine_info: concat!("tracelake/", env!("CARGO_PKG_VERSION")).to_owned(),
            // Makes the body unique: by it a lost reply is told from a lost race.
            txn_id: Uuid::new_v4().to_string(),
            more,
        };
        let mut all = vec![Action::CommitInfo(info)];
        if version == 0 {
            all.extend(delta::creation(self.table, Uuid::new_v4().to_string(), now_ms));
        } else if let Some(grown) = &snapshot.grown {
            all.push(Action::MetaData(MetaData::clone(grown)));
        }
        all.extend(actions);
        all
    }
}

/// The entry of the commit info in which an append says whose it is and what of it was in the table already.
pub(super) const APPENDED: &str = "tracelake";

impl Change {
    fn told(&self) -> BTreeMap<String, Value> {
        let Self::Append(append) = self else { return BTreeMap::new() };
        let Append { writer, from, to, merged, .. } = append;
        let told = json!({"writer": writer.as_str(), "from": from, "to": to, "merged": merged});
        BTreeMap::from([(APPENDED.to_owned(), told)])
    }
}

/// What is gone is counted, so that the books can be checked after it.
fn dropped_rows(snapshot: &Snapshot, more: u64, now_ms: i64) -> Action {
    let version = (snapshot.dropped_rows + more) as i64;
    Action::Txn(Txn { app_id: APP_DROPPED.to_owned(), version, last_updated: Some(now_ms) })
}

fn slot(place: u32, number: u64, now_ms: i64) -> Action {
    Action::Txn(Txn { app_id: late::slot_app_id(place), version: number as i64, last_updated: Some(now_ms) })
}

fn free_slot(taken: &LateSlots) -> u32 {
    (0..).find(|place| !taken.contains_key(place)).expect("there are more slots than late objects")
}

fn paths_added(actions: &[Action]) -> Vec<String> {
    let path = |action: &Action| match action {
        Action::Add(add) => Some(add.path.clone()),
        _ => None,
    };
    actions.iter().filter_map(path).collect()
}

fn rows(file: &NewFile) -> u64 {
    let stats: Option<serde_json::Value> = serde_json::from_str(&file.stats).ok();
    stats.and_then(|stats| stats.get("numRecords")?.as_u64()).unwrap_or(0)
}

fn add(file: &NewFile, data_change: bool, now_ms: i64) -> Action {
    let mut tags = BTreeMap::from([(TAG_FOOTER.to_owned(), Some(file.footer_bytes.to_string()))]);
    if let Some((min, max)) = file.time_us {
        tags.insert(TAG_TIME_MIN.to_owned(), Some(min.to_string()));
        tags.insert(TAG_TIME_MAX.to_owned(), Some(max.to_string()));
    }
    if file.rewrites > 0 {
        tags.insert(TAG_REWRITES.to_owned(), Some(file.rewrites.to_string()));
    }
    if file.undated {
        tags.insert(TAG_UNDATED.to_owned(), Some("true".to_owned()));
    }
    if let Some(index) = &file.index {
        tags.insert(TAG_INDEX.to_owned(), Some(index.clone()));
    }
    for (kind, rollup) in file.rollups.all() {
        tags.insert(rollup_tag(kind).to_owned(), Some(rollup.to_string()));
    }
    Action::Add(Add {
        path: file.path.clone(),
        partition_values: BTreeMap::from([("day".to_owned(), Some(file.day.to_string()))]),
        size: file.size_bytes as i64,
        modification_time: now_ms,
        data_change,
        stats: Some(file.stats.clone()),
        tags: Some(tags),
    })
}

fn remove(path: &str, data_change: bool, now_ms: i64) -> Action {
    let deletion_timestamp = Some(now_ms);
    Action::Remove(Remove { path: path.to_owned(), deletion_timestamp, data_change, ..Default::default() })
}
