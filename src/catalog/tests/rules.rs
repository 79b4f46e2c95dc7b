//! The committer's rules, held against a model of them: several processes append, rewrite, fold, mask, erase and drop
//! days on a store that fails, delays, does twice, does late and loses replies. Whatever came of it, the log tells one
//! order, in which each commit was allowed; who was told of a win is in it once, who was told why not is not in it, and
//! the reason was true at some moment of the attempt.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::*;
use crate::format::delta::{self, Action};
use crate::format::late;
use crate::store::{Call, Fault, Faults, Operation, delta_log};

const TABLE: Table = Table::Observations;
const DAYS: std::ops::Range<i32> = 1..5;
const ATTEMPTS: usize = 14;

/// What must become of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Wins,
    Nothing,
    Moved(u64),
    Behind(u64),
    Stale,
    InputGone,
    RowsDiffer,
}

/// A table as the rules see it.
#[derive(Debug, Clone, Default)]
struct Model {
    version: Option<u64>,
    /// Day and rows of each live file.
    files: BTreeMap<String, (i32, u64)>,
    positions: BTreeMap<String, u64>,
    late: BTreeSet<u64>,
    dropped: u64,
}

impl Model {
    fn verdict(&self, change: &Change) -> Verdict {
        let is_stale = |checked: &Option<Checked>| checked.is_some_and(|Checked(version)| version != self.version);
        match change {
            Change::Append(append) => match self.positions.get(append.writer.as_str()).copied().unwrap_or(0) {
                at if at >= append.to => Verdict::Nothing,
                at if at > append.from => Verdict::Moved(at),
                at if at < append.from => Verdict::Behind(at),
                _ if is_stale(&append.checked) => Verdict::Stale,
                _ => Verdict::Wins,
            },
            Change::Rewrite(rewrite) if is_stale(&rewrite.checked) => Verdict::Stale,
            Change::Rewrite(Rewrite { inputs, outputs, dropped, folded, .. }) => {
                let Some(rows_in) = inputs.iter().map(|path| Some(self.files.get(path)?.1)).sum::<Option<u64>>() else {
                    return Verdict::InputGone;
                };
                match rows_in == outputs.iter().map(rows).sum::<u64>() + dropped {
                    false => Verdict::RowsDiffer,
                    true if folded.iter().any(|number| !self.late.contains(number)) => Verdict::InputGone,
                    true => Verdict::Wins,
                }
            }
            Change::Mask { checked, .. } if is_stale(&Some(*checked)) => Verdict::Stale,
            Change::Mask { .. } => Verdict::Wins,
            Change::DropDays { through } => match self.on_days(*through).is_empty() {
                true => Verdict::Nothing,
                false => Verdict::Wins,
            },
        }
    }

    fn on_days(&self, through: Day) -> BTreeSet<String> {
        let matching = self.files.iter().filter(|(_, (day, _))| *day <= through.days());
        matching.map(|(path, _)| path.clone()).collect()
    }

    fn apply(&mut self, change: &Change) {
        self.version = Some(self.version.map_or(0, |version| version + 1));
        let add = |files: &mut BTreeMap<String, (i32, u64)>, new: &[NewFile]| {
            files.extend(new.iter().map(|file| (file.path.clone(), (file.day.days(), rows(file)))));
        };
        match change {
            Change::Append(append) => {
                add(&mut self.files, &append.files);
                self.late.extend(append.late);
                self.positions.insert(append.writer.to_string(), append.to);
            }
            Change::Rewrite(Rewrite { inputs, outputs, dropped, folded, late, .. }) => {
                inputs.iter().for_each(|path| _ = self.files.remove(path));
                add(&mut self.files, outputs);
                self.dropped += dropped;
                folded.iter().for_each(|number| _ = self.late.remove(number));
                self.late.extend(*late);
            }
            Change::Mask { late, .. } => _ = self.late.insert(*late),
            Change::DropDays { through } => {
                for path in self.on_days(*through) {
                    self.dropped += self.files.remove(&path).map_or(0, |(_, rows)| rows);
                }
            }
        }
    }
}

fn rows(file: &NewFile) -> u64 {
    serde_json::from_str::<serde_json::Value>(&file.stats).unwrap()["numRecords"].as_u64().unwrap()
}

/// What one process tried, and what it was told. `None`: that it is not known.
#[derive(Debug)]
struct Attempt {
    change: Change,
    /// The table was at least at this version.
    since: Option<u64>,
    told: Option<Verdict>,
    version: Option<u64>,
}

/// A commit is recognised by this: every change makes something of its own, but for dropped days.
fn mark(actions: &[Action]) -> BTreeSet<String> {
    let made = |action: &Action| match action {
        Action::Add(add) => Some(add.path.clone()),
        Action::Txn(txn) if late::slot_of_app_id(&txn.app_id).is_some() && txn.version > 0 => {
            Some(txn.version.to_string())
        }
        _ => None,
    };
    actions.iter().filter_map(made).collect()
}

fn mark_of(change: &Change) -> BTreeSet<String> {
    let paths = |files: &[NewFile]| files.iter().map(|file| file.path.clone()).collect::<Vec<_>>();
    let (files, late) = match change {
        Change::Append(append) => (paths(&append.files), append.late),
        Change::Rewrite(rewrite) => (paths(&rewrite.outputs), rewrite.late),
        Change::Mask { late, .. } => (Vec::new(), Some(*late)),
        Change::DropDays { .. } => (Vec::new(), None),
    };
    files.into_iter().chain(late.map(|number| number.to_string())).collect()
}

#[derive(Debug)]
struct Rough(parking_lot::Mutex<SmallRng>);

impl Faults for Rough {
    fn on(&self, call: Call<'_>) -> Fault {
        if call.path.as_ref().starts_with("system/probe") {
            return Fault::None;
        }
        let mut random = self.0.lock();
        let while_ms = Duration::from_millis(random.random_range(0..10));
        match (random.random_range(0..100), call.operation) {
            (0..8, _) => Fault::Fail,
            (8..18, Operation::Put) => Fault::LoseReply,
            (18..25, Operation::Put) => Fault::Twice,
            (25..32, Operation::Put) => Fault::ComesLate(while_ms * 4),
            (32..60, _) => Fault::Delay(while_ms),
            _ => Fault::None,
        }
    }
}

/// Something one may want to commit to what it knows of the table.
fn wanted(random: &mut SmallRng, name: &str, known: &Snapshot, numbers: &AtomicU64) -> Change {
    let number = || numbers.fetch_add(1, Ordering::SeqCst);
    let checked = |random: &mut SmallRng| random.random_bool(0.4).then_some(Checked(known.version));
    let inputs = |random: &mut SmallRng| {
        let count = random.random_range(1..4);
        let mut paths: Vec<String> = known.files.keys().cloned().collect();
        (0..paths.len().saturating_sub(count)).for_each(|_| _ = paths.swap_remove(random.random_range(0..paths.len())));
        paths
    };
    match random.random_range(0..10) {
        0..4 => {
            // Mostly from where it stands; or by an owner who is behind, or ahead.
            let at = known.position(&writer(name));
            let from = [at, at, at, at.saturating_sub(1), at + 1][random.random_range(0..5)];
            let to = from + random.random_range(1..4);
            let files = vec![file(random.random_range(DAYS), to - from)];
            let late = random.random_bool(0.3).then(number);
            Change::Append(Append { late, checked: checked(random), ..appended(name, from, to, files) })
        }
        4..8 => {
            let inputs = inputs(random);
            let rows_in: u64 = inputs.iter().map(|path| known.files[path].rows).sum();
            let dropped = random.random_range(0..3).min(rows_in);
            // Some cannot count.
            let wrong = u64::from(random.random_range(0..8) == 0);
            let folded = known.late.values().copied().filter(|_| random.random_bool(0.5)).collect();
            let outputs = vec![file(random.random_range(DAYS), rows_in - dropped + wrong)];
            let late = random.random_bool(0.2).then(number);
            Change::Rewrite(Rewrite { inputs, outputs, dropped, folded, late, checked: checked(random) })
        }
        8 => Change::Mask { late: number(), checked: Checked(known.version) },
        _ => Change::DropDays { through: Day::from_days(random.random_range(0..DAYS.end - 1)) },
    }
}

async fn actor(catalog: Catalog, name: &'static str, seed: u64, numbers: Arc<AtomicU64>) -> Vec<Attempt> {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut attempts = Vec::new();
    for _ in 0..ATTEMPTS {
        let Ok(known) = catalog.known_snapshot(&tenant(), TABLE).await else { continue };
        let change = wanted(&mut random, name, &known, &numbers);
        // What it wants may be old when it asks.
        tokio::time::sleep(Duration::from_millis(random.random_range(0..6))).await;
        let committed = catalog.commit(&tenant(), TABLE, change.clone()).await;
        let (told, version) = match committed {
            Ok(Committed::Done { version }) => (Some(Verdict::Wins), Some(version)),
            Ok(Committed::Nothing) => (Some(Verdict::Nothing), None),
            Ok(Committed::Moved { position }) => (Some(Verdict::Moved(position)), None),
            Ok(Committed::Behind { position }) => (Some(Verdict::Behind(position)), None),
            Ok(Committed::Stale) => (Some(Verdict::Stale), None),
            Err(CatalogError::InputGone { .. }) => (Some(Verdict::InputGone), None),
            Err(CatalogError::Corrupt { reason, .. }) if reason.starts_with("I8") => (Some(Verdict::RowsDiffer), None),
            Err(error) if error.kind() == Kind::Unavailable => (None, None),
            Err(error) => panic!("seed {seed}: {error}"),
        };
        attempts.push(Attempt { change, since: known.version, told, version });
    }
    attempts
}

async fn schedule(seed: u64) {
    let location = memory();
    let numbers = Arc::new(AtomicU64::new(1));
    let mut actors = Vec::new();
    // Two share writer `a`: an old owner that does not know it was replaced.
    for (at, name) in ["a", "a", "b", "c"].into_iter().enumerate() {
        let seed = seed.wrapping_mul(31).wrapping_add(at as u64);
        let rough = Arc::new(Rough(SmallRng::seed_from_u64(seed).into()));
        let store = Store::with_faults(location.clone(), rough).await.unwrap();
        let catalog = Catalog::new(store, Arc::new(ManualClock::at(1_000_000)));
        actors.push(tokio::spawn(actor(catalog, name, seed, Arc::clone(&numbers))));
    }
    let mut attempts = Vec::new();
    for actor in actors {
        attempts.extend(actor.await.unwrap());
    }
    // What comes late comes before this.
    tokio::time::sleep(Duration::from_millis(60)).await;

    let store = Store::open_read_only(location.clone()).unwrap();
    let mut states = vec![Model::default()];
    let mut used = BTreeSet::new();
    while let Some(body) =
        store.get(&delta_log(&tenant(), "observations", Some(states.len() as u64 - 1))).await.unwrap()
    {
        let (version, before) = (states.len() as u64 - 1, states.last().unwrap());
        let actions = delta::decode_commit(&body).unwrap();
        let made = mark(&actions);
        let removed: BTreeSet<String> = actions
            .iter()
            .filter_map(|action| match action {
                Action::Remove(remove) => Some(remove.path.clone()),
                _ => None,
            })
            .collect();
        let is_it = |attempt: &Attempt| match &attempt.change {
            Change::DropDays { through } => made.is_empty() && before.on_days(*through) == removed,
            change => !made.is_empty() && mark_of(change) == made,
        };
        let of = |wins: fn(&Attempt, u64) -> bool| {
            let open = attempts.iter().enumerate().filter(|(at, _)| !used.contains(at));
            open.filter(|(_, attempt)| wins(attempt, version) && is_it(attempt)).map(|(at, _)| at).next()
        };
        let found = of(|attempt, version| attempt.version == Some(version)).or_else(|| of(|it, _| it.told.is_none()));
        let at = found.unwrap_or_else(|| panic!("seed {seed}: nobody who did not lose wanted version {version}"));
        used.insert(at);
        let change = &attempts[at].change;
        assert_eq!(before.verdict(change), Verdict::Wins, "seed {seed}: version {version} may not stand: {change:?}");
        let mut after = before.clone();
        after.apply(change);
        states.push(after);
    }
    for (at, attempt) in attempts.iter().enumerate() {
        match attempt.told {
            Some(Verdict::Wins) => assert!(used.contains(&at), "seed {seed}: in no version: {attempt:?}"),
            Some(told) => {
                let since = attempt.since.map_or(0, |version| version as usize + 1);
                let was_true = states[since..].iter().any(|state| state.verdict(&attempt.change) == told);
                assert!(was_true, "seed {seed}: {told:?} was never true of {attempt:?}");
            }
            None => {}
        }
    }
    let last = states.last().unwrap();
    let snapshot = self::catalog(&location, None).await.snapshot(&tenant(), TABLE).await.unwrap();
    let files: BTreeMap<String, (i32, u64)> =
        snapshot.files.values().map(|file| (file.path.clone(), (file.day.days(), file.rows))).collect();
    assert_eq!(files, last.files, "seed {seed}");
    assert_eq!(snapshot.late.values().copied().collect::<BTreeSet<_>>(), last.late, "seed {seed}");
    assert_eq!(snapshot.dropped_rows, last.dropped, "seed {seed}");
    let positions: u64 = last.positions.values().sum();
    assert_eq!(snapshot.rows() + snapshot.dropped_rows, positions, "seed {seed}: each position is one row, or dropped");
    assert!(states.len() > ATTEMPTS, "seed {seed}: hardly anything was committed");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn what_wins_drops_and_aborts_is_what_the_rules_say(seed in any::<u64>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(schedule(seed));
    }
}
