//! The whole of it under a seed: writers, re-sends, late changes, readers, merging workers, retention, vacuum, erasures,
//! kills at any store call, adoption and a store that fails, over weeks of simulated time and for two tenants with the
//! same ids; held against a model in memory after every step (I1 to I5, I8, I9), and looked through by the doctor. In the
//! end one of the tenants is deleted, and nothing of it may be left.
//!
//! Promises: a failure names its seed, and the seed draws the same steps again. What threads do at the same moment is
//! theirs; a store call that a step is killed at is not.
//!
//! By hand: `TRACELAKE_SIMULATION=200 cargo test --lib simulation` runs that many fresh seeds;
//! `TRACELAKE_SIMULATION_SEED=7` runs one, with `TRACELAKE_SIMULATION_FORGETS=0` without erasures.
//!
//! Others have been hurt before us. Beside this, a test of its own would have caught each:
//!
//! | what happened, and to whom | the test |
//! |---|---|
//! | a few thousand rows became thousands of files (influxdb #26785, #27301, quickwit #1902) | `compact::plan`: `a_day_of_one_flush_a_minute_stays_below_20_files_…`, `what_was_left_for_long_is_merged_in_steps_of_few_files` |
//! | merges ate the memory (openobserve PR #11851, greptimedb #9172, delta-rs #2628) | `compact`: `rows_of_ten_megabytes_are_merged_in_little_memory`, `a_job_that_is_too_large_is_halved_…` |
//! | acked, not fsynced, gone (object_store PR #643, parseable) | `it::kills`: `whatever_was_acked_before_a_kill_is_there_once` |
//! | lost between buffer and file (influxdb #25277) | `ingest`: `a_crash_between_text_and_observations_doubles_neither`, `a_query_that_pinned_before_a_flush_…` |
//! | a log that was never replayed, or was full of zeros (otel-arrow #1951, s2 PR #670) | `ingest`: `what_is_acked_is_visible_…_after_a_kill`; `format::log`: `a_missing_end_is_torn_and_a_changed_middle_is_corrupt` |
//! | a merge retired files it had not read (openobserve #14275), two merged the same (#8380) | `catalog`: `what_wins_drops_and_aborts_is_what_the_rules_say`; `it::compaction` |
//! | files went, and the catalog still named them (openobserve #8494) | `compact`: `days_go_when_their_time_is_over_and_no_sooner`; the doctor, here |
//! | a writer overwrote the manifest of another (parseable #1739, delta-rs #268, #2279) | `catalog`: `two_processes_see_each_others_commits_and_neither_overwrites` |
//! | a sleeper created a number that was cleaned, or named files that were swept (slatedb RFC-0026) | `catalog`: `a_sleeper_creates_no_cleaned_number`, `what_was_put_half_a_day_before_is_not_committed` |
//! | retention by a wrong clock ate live rows (quickwit #5848), time 0 blocked all commits (openobserve #13925) | `compact`: `nothing_is_deleted_by_a_clock_that_is_ahead`; `ingest`: `times_that_make_no_sense_keep_no_row_from_its_file` |
//! | a query met files that were deleted under it (greptimedb #1215, openobserve #1631) | `compact`: `a_file_that_a_query_still_reads_stays_…`; `query`: `sql_plans_once_more_and_then_says_so` |
//! | the sweep took what was just written (ducklake #916) | `compact`: `a_file_committed_while_the_sweep_lists_is_live` |
//! | retries were counted as money (ai-tally PR #304, otel-collector #11056) | `ingest`: `what_is_sent_again_after_its_flush_counts_once_…`; `it::kills`: `two_writers_that_both_get_every_batch_…` |
//! | ids made at random at every try (ai-tally #410) | `decode`: `a_request_decodes_to_the_same_events_each_time` |
//! | roll-ups that counted deliveries (future-agi #2839) | `query`: `every_answer_is_that_of_a_table_written_clean` |

mod checks;
mod chores;
mod client;
mod history;
mod life;
mod node;
mod process;
mod said;
mod time;
mod versions;

use life::Life;

/// Seeds that CI always runs: the first few, and each that once found a fault.
const SEEDS: [u64; 9] = [
    227_355_233_580_554_322,
    497_637_351_502_606_249,
    810_232_098_163_566_002,
    2_767_032_015_999_573_458,
    2_949_424_561_472_890_485,
    6_679_299_366_656_482_520,
    7_364_186_524_444_238_825,
    8_523_925_832_733_748_395,
    15_790_569_175_606_373_730,
];
/// One of them found its fault where nobody is forgotten.
const FORGETS_NOBODY: u64 = 2_767_032_015_999_573_458;
/// And as many that nobody has run before.
const FRESH_SEEDS: u64 = 3;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn every_invariant_holds_after_every_step() {
    let fresh = |count: u64| (0..count).map(|_| (rand::random(), true));
    let known = SEEDS.into_iter().map(|seed| (seed, seed != FORGETS_NOBODY));
    let seeds: Vec<(u64, bool)> = match (number("TRACELAKE_SIMULATION_SEED"), number("TRACELAKE_SIMULATION")) {
        (Some(seed), _) => vec![(seed, number("TRACELAKE_SIMULATION_FORGETS") != Some(0))],
        (None, Some(count)) => fresh(count).collect(),
        (None, None) => known.chain(fresh(FRESH_SEEDS)).collect(),
    };
    // One that fails does not hide the others.
    let mut rolled_up = 0;
    let fails = |(seed, forgets): &(u64, bool)| {
        println!("seed {seed}{}", if *forgets { "" } else { ", where nobody is forgotten" });
        let life = std::panic::catch_unwind(|| Life::new(*seed, *forgets).run());
        rolled_up += life.as_ref().unwrap_or(&0);
        life.is_err()
    };
    let are_many = seeds.len() > 1;
    let failed: Vec<(u64, bool)> = seeds.into_iter().filter(fails).collect();
    assert!(failed.is_empty(), "these seeds fail, each for the reason above: {failed:?}");
    assert!(rolled_up > 0 || !are_many, "no roll-up was ever held against its rows");
}
