//! What to rewrite next, from a snapshot, the time and the settings. Pure.
//!
//! A day collects files until there are [`PlanSettings::files_max`]; then those of the lowest level that has several
//! become one of the next. With F files allowed and no row rewritten more than r times, C(F + r - 1, r) flushes fit
//! into a day: 1,330 for 19 and 3. A day that is over and quiet is sealed: what is not of the right size becomes as few
//! files as fit. A day whose files end in one, with a flush a minute, is written 3.1 times after its flushes, seal
//! included, and no scheme with fewer than 20 files needs less than 3.07 for it; one that ends in several, less than 3.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::base::{ByteSize, Day, TimestampUs};
use crate::catalog::{DataFile, Snapshot};

/// Rewrites of a sealed file's rows, as its tag says them: more than any other file has.
pub const SEALED: u8 = u8::MAX;
/// A file of so many rows is left alone at the default memory, however small they are.
const SETTLED_ROWS: u64 = 750_000;
/// Files one job opens at once. More wait for the next: each costs memory.
pub const INPUTS_MAX: usize = 32;
/// From this level on a file of the right size is left alone until the day is sealed, and then too.
const LEVELS: u8 = 3;
/// Room for files being merged, however many of the right size a day has: days of more than some 6 GB have more files.
const SLOTS_MIN: usize = 6;
/// Files that came within so long of the newest: as many may come again before a merge that begins now is done.
const ARRIVING_US: i64 = 58 * 1_000_000;
/// Late files of a sealed day wait until they are this many, or a share of what they would have rewritten.
const LATE_FILES_MIN: usize = 8;
const LATE_SHARE: u64 = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlanSettings {
    /// Sealed files have between half of this and twice this, or are all there is of a day.
    pub target_bytes: ByteSize,
    /// Rows that each of several files of a job can have, however small they are: the memory for its keys allows no more.
    pub rows_max: u64,
    /// And a file that is all of its job: its keys are dealt with when nothing else is left to do.
    pub rows_max_alone: u64,
    /// Live files a day may have before some are merged.
    pub files_max: usize,
    /// A day that is over is sealed when no file came for this long.
    pub quiet_us: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobKind {
    /// Files of one level become one of the next.
    Tier,
    /// The last rewrite of a day's rows.
    Seal,
    /// The same rows, with what came late about them.
    Fold,
}

/// Files of one day to be replaced by few.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    pub day: Day,
    pub kind: JobKind,
    pub inputs: Vec<Arc<DataFile>>,
}

impl Job {
    pub fn bytes(&self) -> u64 {
        self.inputs.iter().map(|file| file.size_bytes).sum()
    }

    pub fn rows(&self) -> u64 {
        self.inputs.iter().map(|file| file.rows).sum()
    }

    /// How often the rows of what comes out were rewritten.
    pub fn rewrites(&self) -> u8 {
        match self.kind {
            JobKind::Seal => SEALED,
            // It is no step towards fewer files: what comes out counts as what went in.
            JobKind::Fold => self.inputs.iter().map(|file| file.rewrites).max().unwrap_or(0),
            JobKind::Tier => {
                let most = self.inputs.iter().map(|file| file.rewrites).filter(|rewrites| *rewrites < SEALED).max();
                most.unwrap_or(0).saturating_add(1).min(SEALED - 1)
            }
        }
    }

    /// What comes of it is hardly ever merged again: it is sealed, or large enough to be left alone by bytes or rows.
    pub fn is_last(&self, target: ByteSize) -> bool {
        let pieces = self.bytes().div_ceil(target.bytes().saturating_mul(2).max(1)).max(1);
        let is_large = self.bytes() / pieces >= target.bytes() / 2 || self.rows() / pieces >= SETTLED_ROWS;
        self.rewrites() == SEALED || is_large
    }

    /// Half of the files, for when all of them take too much memory. `None`: it is as small as a job can be.
    pub fn half(&self) -> Option<Job> {
        let half = self.inputs.len() / 2;
        (half >= 2).then(|| Job { day: self.day, kind: JobKind::Tier, inputs: self.inputs[..half].to_vec() })
    }
}

/// At most one job for each day; once it is done there may be another. Today's come last: they are the smallest.
pub fn plan(snapshot: &Snapshot, now_us: TimestampUs, settings: &PlanSettings) -> Vec<Job> {
    let mut days: BTreeMap<Day, Vec<&Arc<DataFile>>> = BTreeMap::new();
    for file in snapshot.files.values() {
        days.entry(file.day).or_default().push(file);
    }
    days.into_iter().filter_map(|(day, files)| plan_day(day, &files, now_us, settings)).collect()
}

fn plan_day(day: Day, files: &[&Arc<DataFile>], now_us: TimestampUs, settings: &PlanSettings) -> Option<Job> {
    let (kind, mut inputs) = match is_quiet(day, files, now_us, settings) {
        true => (JobKind::Seal, to_seal(files, settings)),
        false => (JobKind::Tier, to_merge(files, settings)),
    };
    if inputs.len() < 2 {
        return None;
    }
    let mut kind = kind;
    if inputs.len() > INPUTS_MAX {
        // Neighbours in time first, the smallest level before: what is merged now must be merged again.
        inputs.sort_by_key(|file| (file.rewrites, file.added_us));
        inputs.truncate(INPUTS_MAX);
        kind = JobKind::Tier;
    }
    inputs.sort_by(|a, b| (a.added_us, &a.path).cmp(&(b.added_us, &b.path)));
    Some(Job { day, kind, inputs: inputs.into_iter().cloned().collect() })
}

/// Whether the day is over and nothing was flushed into it for a while. A file from the future says nothing.
fn is_quiet(day: Day, files: &[&Arc<DataFile>], now_us: TimestampUs, settings: &PlanSettings) -> bool {
    let flushed = files.iter().filter(|file| file.rewrites == 0).map(|file| file.added_us);
    let last_us = flushed.filter(|added_us| *added_us <= now_us.saturating_add(settings.quiet_us)).max();
    let last_us = last_us.unwrap_or(i64::MIN).max(day.start_us().saturating_add(Day::US));
    now_us.saturating_sub(last_us) >= settings.quiet_us
}

impl PlanSettings {
    /// Bytes of a file, or what they would be if rows were as large as makes a file of the most rows one of
    /// `bytes_of_most`: files that can become no larger are not too small.
    fn weight(&self, file: &DataFile, bytes_of_most: u64) -> u64 {
        let of_rows = u128::from(file.rows) * u128::from(bytes_of_most) / u128::from(self.rows_max.max(1));
        file.size_bytes.max(of_rows.try_into().unwrap_or(u64::MAX))
    }

    fn fit_into_one(&self, files: &[&Arc<DataFile>]) -> bool {
        let of = |what: fn(&DataFile) -> u64| files.iter().map(|file| what(file)).fold(0, u64::saturating_add);
        of(|file| file.size_bytes) <= self.target_bytes.bytes() * 2 && of(|file| file.rows) <= self.rows_max_alone
    }
}

/// Of a day that is over: all files that are too small, which become one or few.
fn to_seal<'a>(files: &[&'a Arc<DataFile>], settings: &PlanSettings) -> Vec<&'a Arc<DataFile>> {
    let (low, high) = (settings.target_bytes.bytes() / 2, settings.target_bytes.bytes() * 2);
    // Several files of a job have at least half of the most rows: then they are of the right size.
    let weight = |file: &&Arc<DataFile>| settings.weight(file, settings.target_bytes.bytes());
    let weights = |files: &[&Arc<DataFile>]| files.iter().map(weight).fold(0, u64::saturating_add);
    let (right, small): (Vec<_>, Vec<_>) = files.iter().copied().partition(|file| weight(file) >= low);
    let (sealed, late): (Vec<_>, Vec<_>) = small.iter().copied().partition(|file| file.rewrites == SEALED);
    let is_sealed = files.iter().any(|file| file.rewrites == SEALED);
    if is_sealed && !late.is_empty() {
        // A sealed day got late rows: what was sealed is rewritten only when it is worth it.
        return if weights(&late) * LATE_SHARE >= weights(&sealed) && !sealed.is_empty() {
            small
        } else if late.len() >= LATE_FILES_MIN {
            late
        } else {
            Vec::new()
        };
    }
    if !is_sealed && right.iter().any(|file| file.size_bytes < low) && settings.fit_into_one(files) {
        // Of few bytes and many rows: one file is better than some of the most rows.
        return files.to_vec();
    }
    let mut inputs = small;
    let rest = weights(&inputs);
    if !inputs.is_empty() && rest < low {
        // The rest would be too small by itself: it joins the smallest file that was not sealed.
        let fits = |file: &&&Arc<DataFile>| file.rewrites != SEALED && weight(file) + rest <= high;
        let joined = right.iter().filter(fits).min_by_key(|file| weight(file)).copied();
        inputs.extend(joined);
    }
    inputs
}

/// Of a day that still grows: nothing, until it has too many files.
fn to_merge<'a>(files: &[&'a Arc<DataFile>], settings: &PlanSettings) -> Vec<&'a Arc<DataFile>> {
    let target = settings.target_bytes.bytes();
    let weight = |file: &&Arc<DataFile>| settings.weight(file, 2 * target);
    let is_settled =
        |file: &&&Arc<DataFile>| weight(file) >= target || (weight(file) >= target / 2 && file.rewrites >= LEVELS);
    let (settled, mut working): (Vec<_>, Vec<_>) = files.iter().copied().partition(|file| is_settled(&file));
    let small = working.iter().filter(|file| weight(file) < target / 2).count();
    // The first leaves room for what will be left at the end of the day; the others need not.
    let spared =
        if settled.iter().any(|file| weight(file) <= 2 * target - target * 3 / 8) { target / 8 } else { target / 2 };
    if small >= 2 && working.iter().map(weight).fold(0, u64::saturating_add) >= 2 * target - spared {
        // Enough for a file of nearly the largest size: it is written once and for all.
        return working;
    }
    let arriving = arriving(files);
    let slots = settings.files_max.saturating_sub(settled.len() + arriving - 1);
    let slots = slots.max((SLOTS_MIN + 2 * (arriving - 1)).min(settings.files_max)).max(2);
    if working.len() < slots {
        return Vec::new();
    }
    for level in 0..LEVELS - 1 {
        let group: Vec<_> = working.iter().copied().filter(|file| file.rewrites <= level).collect();
        // Fewer would make no room for those that come meanwhile: they go up together with the next level.
        if group.len() > arriving {
            return group;
        }
    }
    // The levels are full: the cheapest half goes up.
    working.sort_by_key(weight);
    let half = (working.len() / 2).max(2);
    working.truncate(half);
    working
}

/// How many flushes come at about the same time; at least one.
fn arriving(files: &[&Arc<DataFile>]) -> usize {
    let flushed = || files.iter().filter(|file| file.rewrites == 0).map(|file| file.added_us);
    let newest_us = flushed().max().unwrap_or(0);
    flushed().filter(|added_us| newest_us - added_us < ARRIVING_US).count().max(1)
}

#[cfg(test)]
mod tests;
