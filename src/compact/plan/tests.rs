use std::sync::Arc;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;

const MIB: u64 = 1 << 20;
const MINUTE: i64 = 60_000_000;
/// A worker looks at a table at least this often while it changes.
const LOOK_US: i64 = 23_000_000;
const MERGED_BYTES_A_SECOND: u64 = 20 * MIB;
const SETTINGS: PlanSettings = PlanSettings {
    target_bytes: ByteSize::mib(256),
    rows_max: u64::MAX,
    rows_max_alone: u64::MAX,
    files_max: 19,
    quiet_us: 30 * MINUTE,
};
/// Jobs that any day of these tests needs, by far.
const JOBS_MOST: usize = 1_000;

fn day() -> Day {
    "2026-02-16".parse().unwrap()
}

/// A day's files without a store: what is flushed, and what jobs make of it.
#[derive(Default)]
struct Days {
    snapshot: Snapshot,
    next: u64,
    flushed: u64,
    rewritten: u64,
    files_most: usize,
    jobs: usize,
    /// None: rows of 100 bytes, of which a file can have any number.
    small_rows: Option<SmallRows>,
    /// What came of jobs that were not taken for the last of their rows.
    young: Vec<String>,
}

#[derive(Debug, Clone, Copy)]
struct SmallRows {
    bytes: u64,
    in_a_file: u64,
    alone: u64,
}

impl Days {
    fn add(&mut self, size_bytes: u64, rewrites: u8, added_us: TimestampUs) {
        self.next += 1;
        let path = format!("day={}/{:08}.parquet", day(), self.next);
        let file = DataFile {
            path: path.clone(),
            size_bytes,
            day: day(),
            rows: size_bytes / self.small_rows.map_or(100, |rows| rows.bytes),
            time_us: None,
            footer_bytes: None,
            index: None,
            rollups: Default::default(),
            rewrites,
            added_version: None,
            undated: false,
            added_us,
        };
        self.snapshot.files.insert(path, Arc::new(file));
        self.files_most = self.files_most.max(self.snapshot.files.len());
    }

    fn flush(&mut self, size_bytes: u64, at_us: TimestampUs) {
        self.flushed += size_bytes;
        self.add(size_bytes, 0, at_us);
    }

    fn done(&mut self, job: &Job, at_us: TimestampUs) {
        for file in &job.inputs {
            assert!(self.snapshot.files.remove(&file.path).is_some(), "a job's inputs are live");
        }
        self.rewritten += job.bytes();
        self.jobs += 1;
        assert!(self.jobs < JOBS_MOST, "the same is done again and again: {job:?}");
        let pieces = job.bytes().div_ceil(2 * SETTINGS.target_bytes.bytes());
        let settings = self.settings();
        let by_rows = match job.rows() <= settings.rows_max_alone {
            true => 1,
            false => job.rows().div_ceil(settings.rows_max),
        };
        let pieces = pieces.max(by_rows).max(1);
        for _ in 0..pieces {
            self.add(job.bytes() / pieces, job.rewrites(), at_us);
            if !job.is_last(SETTINGS.target_bytes) {
                self.young.extend(self.snapshot.files.last_key_value().map(|(path, _)| path.clone()));
            }
        }
    }

    fn settings(&self) -> PlanSettings {
        let Some(rows) = self.small_rows else { return SETTINGS };
        PlanSettings { rows_max: rows.in_a_file, rows_max_alone: rows.alone, ..SETTINGS }
    }

    fn plan(&self, at_us: TimestampUs) -> Option<Job> {
        let mut jobs = plan(&self.snapshot, at_us, &self.settings());
        assert!(jobs.len() <= 1, "one job a day");
        jobs.pop()
    }

    /// One flush every `every` minutes for a day, and then its seal.
    fn run(every: i64, size: impl Fn(i64) -> u64) -> Self {
        Self::of((0..1440).step_by(every as usize).map(|minute| (minute * MINUTE, size(minute))))
    }

    /// Flushes by time of day. A job begins when the worker has looked, and goes on as fast as a slow merge does. Then the
    /// day is sealed.
    fn of(flushes: impl Iterator<Item = (i64, u64)>) -> Self {
        let mut days = Self::default();
        let mut under_way: Option<(i64, Job)> = None;
        for (at_us, size) in flushes {
            let at_us = day().start_us() + at_us;
            under_way = days.work(under_way, at_us);
            days.flush(size, at_us);
            under_way = under_way.or_else(|| days.begin(at_us));
        }
        while let Some((end_us, _)) = &under_way {
            let end_us = *end_us;
            under_way = days.work(under_way, end_us);
        }
        let at_us = day().start_us() + Day::US + SETTINGS.quiet_us + MINUTE;
        while let Some(job) = days.plan(at_us) {
            days.done(&job, at_us);
        }
        days
    }

    fn begin(&self, at_us: TimestampUs) -> Option<(TimestampUs, Job)> {
        let job = self.plan(at_us)?;
        Some((at_us + LOOK_US + (job.bytes() * 1_000_000 / MERGED_BYTES_A_SECOND) as i64, job))
    }

    /// Jobs that are done by `until_us`; the one that is not.
    fn work(&mut self, under_way: Option<(TimestampUs, Job)>, until_us: TimestampUs) -> Option<(TimestampUs, Job)> {
        let mut under_way = under_way;
        while let Some((end_us, job)) = under_way.take_if(|(end_us, _)| *end_us <= until_us) {
            self.done(&job, end_us);
            under_way = self.begin(end_us);
        }
        under_way
    }

    fn amplification(&self) -> f64 {
        self.rewritten as f64 / self.flushed as f64
    }

    fn sizes(&self) -> Vec<u64> {
        self.snapshot.files.values().map(|file| file.size_bytes / MIB).collect()
    }
}

/// Files at most and bytes rewritten for each byte flushed, seal included; sealed files are of the right size.
#[track_caller]
fn check(name: &str, days: &Days, files_most: usize, amplification: f64) {
    println!(
        "{name}: {} files at most, written {:.2} times, sealed {:?}",
        days.files_most,
        days.amplification(),
        days.sizes()
    );
    assert!(days.files_most <= files_most, "{name}: {} files", days.files_most);
    assert!(days.amplification() <= amplification, "{name}: {:.2}", days.amplification());
    if days.snapshot.files.len() > 1 {
        assert!(days.sizes().iter().all(|size| (127..=512).contains(size)), "{name}: {:?}", days.sizes());
    }
}

#[test]
fn a_day_of_one_flush_a_minute_stays_below_20_files_and_is_written_few_times() {
    // Days of 14 and 140 MB end in one file: with fewer than 20 files all day, 3.07 is the least there is.
    for size in [10_000, 100_000] {
        check(&format!("{size} bytes"), &Days::run(1, |_| size), 19, 3.1);
    }
    check("500,000 bytes", &Days::run(1, |_| 500_000), 19, 3.0);
    // 200 observations a second: some 1.2 MB of observations and 2 MB of text a minute.
    check("observations", &Days::run(1, |_| 12 * MIB / 10), 19, 2.8);
    check("text", &Days::run(1, |_| 2 * MIB), 19, 2.5);
    check("much text", &Days::run(1, |_| 4 * MIB), 19, 2.5);
    // Above some 6 GB a day the files of the right size alone are many.
    check("very much text", &Days::run(1, |_| 6 * MIB), 25, 2.8);
}

#[test]
fn one_large_file_among_small_ones_is_not_written_again_and_again() {
    for at in [1, 600, 1400] {
        let days = Days::run(1, |minute| if minute == at { 100 * MIB } else { 100_000 });
        check(&format!("a large one in minute {at}"), &days, 19, 3.1);
    }
    let growing = Days::run(1, |minute| 1_000 + minute as u64 * 1_200);
    check("more every minute", &growing, 19, 2.8);
}

#[test]
fn two_writers_side_by_side_stay_below_20_files_too() {
    let both = |size: u64, apart_us: i64| Days::of((0..2880).map(|at| (at / 2 * MINUTE + at % 2 * apart_us, size)));
    check("seven seconds apart", &both(600_000, 7_000_000), 19, 3.0);
    check("half a minute apart", &both(600_000, 30_000_000), 19, 3.0);
    // One file in the end: 3.57 is the least for 2,880 flushes.
    check("small ones", &both(6_000, 7_000_000), 19, 4.3);
    check("text", &both(MIB, 7_000_000), 19, 3.1);
}

#[test]
fn bursts_change_neither_the_number_of_files_nor_the_bytes_written() {
    for seed in 0..8 {
        let size = |minute: i64| {
            let mut random = SmallRng::seed_from_u64(seed * 10_000 + minute as u64);
            match minute % 97 {
                0 => 20 * MIB,
                _ => random.random_range(MIB / 8..MIB),
            }
        };
        check(&format!("bursts {seed}"), &Days::run(1, size), 19, 3.0);
    }
}

#[test]
fn a_quiet_tenant_is_written_twice() {
    check("every 15 minutes", &Days::run(15, |_| 3_000), 19, 2.0);
}

#[test]
fn three_million_observations_a_day_seal_into_files_of_the_right_size() {
    // 2,083 rows a flush.
    let observations = Days::run(1, |_| 2_083 * 100);
    check("observations", &observations, 19, 3.1);
    assert_eq!(observations.snapshot.files.len(), 1);
    let text = Days::run(1, |_| 2_083 * 250);
    check("text", &text, 19, 3.1);
    assert!(text.snapshot.files.len() <= 3);
}

#[test]
fn a_day_of_many_small_rows_is_sealed_once() {
    let (in_a_file, alone) = (2_000_000, 3_200_000);
    for (bytes, rows) in [(10, 2_100_000), (64, 3_000_000), (30, 4_000_000), (60, 4_100_000), (60, 20_000_000)] {
        let mut days = Days { small_rows: Some(SmallRows { bytes, in_a_file, alone }), ..Days::default() };
        for minute in 0..1440 {
            days.flush(rows / 1440 * bytes, day().start_us() + minute * MINUTE);
        }
        let at_us = day().start_us() + 2 * Day::US;
        while let Some(job) = days.plan(at_us) {
            days.done(&job, at_us);
        }
        let sealed = days.snapshot.files.len() as u64;
        match rows <= alone {
            true => assert_eq!(sealed, 1, "{rows} rows"),
            false => assert!((rows / in_a_file..=rows / in_a_file * 2).contains(&sealed), "{rows} in {sealed} files"),
        }
        assert!(days.amplification() <= 3.1, "{}", days.amplification());
        let young = days.young.iter().filter(|path| days.snapshot.files.contains_key(*path));
        assert_eq!(young.count(), 0, "of {rows} rows some were not summed up as those of a sealed day are");
        // What comes late is sealed beside them, or with the smallest that was not sealed.
        let before = days.rewritten;
        (0..LATE_FILES_MIN).for_each(|_| days.flush(1_000, at_us));
        while let Some(job) = days.plan(at_us + Day::US) {
            days.done(&job, at_us);
        }
        assert!(days.rewritten - before <= alone * bytes, "{} bytes written again", days.rewritten - before);
        assert!(days.snapshot.files.len() as u64 <= sealed + 1);
    }
}

#[test]
fn a_sealed_day_is_left_alone_until_late_rows_are_worth_it() {
    let mut days = Days::run(1, |_| 50_000);
    let mut at_us = day().start_us() + 3 * Day::US;
    assert_eq!(days.plan(at_us), None);
    let sealed = days.sizes();
    for _ in 0..LATE_FILES_MIN {
        assert_eq!(days.plan(at_us + SETTINGS.quiet_us), None);
        days.flush(10_000, at_us);
        at_us += MINUTE;
    }
    at_us += SETTINGS.quiet_us;
    let job = days.plan(at_us).unwrap();
    assert_eq!(job.inputs.len(), LATE_FILES_MIN, "the late ones only");
    days.done(&job, at_us);
    assert_eq!(days.sizes()[0], sealed[0]);
    // Many late rows are worth another seal.
    days.flush(20 * MIB, at_us);
    let job = days.plan(at_us + SETTINGS.quiet_us).unwrap();
    days.done(&job, at_us + SETTINGS.quiet_us);
    assert_eq!(days.snapshot.files.len(), 1);
}

#[test]
fn a_day_is_sealed_when_it_is_over_and_quiet() {
    let mut days = Days::default();
    let end_us = day().start_us() + Day::US;
    days.flush(MIB, end_us - MINUTE);
    days.flush(MIB, end_us + 10 * MINUTE);
    assert_eq!(days.plan(end_us + 39 * MINUTE), None);
    let job = days.plan(end_us + 40 * MINUTE).unwrap();
    assert_eq!((job.kind, job.inputs.len()), (JobKind::Seal, 2));
    // A file that says it is from next year holds nothing up.
    days.flush(MIB, end_us + 400 * Day::US);
    assert!(days.plan(end_us + 40 * MINUTE).is_some());
}

#[test]
fn what_was_left_for_long_is_merged_in_steps_of_few_files() {
    let mut days = Days::default();
    for minute in 0..1440 {
        days.flush(100_000, day().start_us() + minute * MINUTE);
    }
    let at_us = day().start_us() + 2 * Day::US;
    while let Some(job) = days.plan(at_us) {
        assert!(job.inputs.len() <= INPUTS_MAX);
        days.done(&job, at_us);
    }
    assert_eq!(days.snapshot.files.len(), 1);
    assert!(days.amplification() <= 3.0, "{}", days.amplification());
}

#[test]
fn a_job_that_is_too_large_is_halved_down_to_two_files() {
    let mut days = Days::default();
    for minute in 0..5 {
        days.flush(MIB, day().start_us() + minute);
    }
    let job = days.plan(day().start_us() + 2 * Day::US).unwrap();
    let half = job.half().unwrap();
    assert_eq!((half.inputs.len(), half.kind), (2, JobKind::Tier));
    assert_eq!(half.half(), None);
}
