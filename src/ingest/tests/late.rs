//! What comes about rows that stand in files: sent again, late, out of order, about their trace.

use super::*;
use crate::base::Day;
use crate::catalog::Change;
use crate::model::UsageSource;

pub(super) fn order(time: i64, is_update: bool, id: &str) -> Order {
    Order { event_time_us: START_US + time, is_update, event_id: id.into() }
}

fn observation(trace: &str, id: &str, order: Order, said: impl FnOnce(&mut Observation)) -> Event {
    let mut observation = Observation { trace_id: trace.into(), id: id.into(), ..Default::default() };
    said(&mut observation);
    Event { order, kind: Some(EventKind::Observation(observation)) }
}

pub(super) fn facts(trace: &str, order: Order, said: impl FnOnce(&mut TraceFacts)) -> Event {
    let mut facts = TraceFacts { trace_id: trace.into(), ..Default::default() };
    said(&mut facts);
    Event { order, kind: Some(EventKind::Trace(facts)) }
}

fn live_rows(process: &Process, table: Table) -> (u64, usize) {
    let snapshot = process.run(process.catalog.known_snapshot(&"acme".parse().unwrap(), table)).unwrap();
    (snapshot.rows(), snapshot.late.len())
}

fn books(pairs: &[(&str, i64)]) -> BTreeMap<String, i64> {
    pairs.iter().map(|(outcome, count)| (outcome.to_string(), *count)).collect()
}

#[test]
fn what_is_sent_again_after_its_flush_counts_once_fresh_flushed_and_after_a_restart() {
    let world = World::new();
    let process = Process::start(&world, "main");
    process.append("acme", vec![span("t", "a", None), span("t", "b", Some("a"))]).unwrap();
    process.flush().unwrap();
    process.append("acme", vec![span("t", "a", None), span("u", "c", None)]).unwrap();
    let balanced = books(&[("received", 4), ("stored", 3), ("merged", 1)]);
    for table in [Table::Observations, Table::ObservationIo] {
        assert_eq!(process.ids("acme", table), once(&["a", "b", "c"]), "{table:?} fresh");
    }
    assert_eq!(process.all_books(), balanced);
    assert!(process.fresh(Table::Observations).changes.replaced.is_empty(), "a repeat changes nothing");
    process.flush().unwrap();
    assert_eq!(process.ids("acme", Table::Observations), once(&["a", "b", "c"]), "flushed");
    assert_eq!(process.all_books(), balanced);
    assert_eq!(live_rows(&process, Table::Observations), (3, 0), "and nothing came late of it");
    drop(process);
    let process = Process::start(&world, "main");
    process.append("acme", vec![span("t", "b", Some("a"))]).unwrap();
    assert_eq!(process.ids("acme", Table::Observations), once(&["a", "b", "c"]), "after a restart");
    process.flush().unwrap();
    assert_eq!(process.all_books(), books(&[("received", 5), ("stored", 3), ("merged", 2)]));
}

#[test]
fn an_update_after_the_flush_changes_the_row_in_any_order_of_arrival() {
    let create = || {
        observation("t", "a", order(1, false, "one"), |said| {
            said.start_ns = Some(START_US * 1000);
            said.name = Some("first".into());
            said.model = Some("gpt-4o-mini".into());
            said.input = Some("why?".into());
        })
    };
    let update = || {
        observation("t", "a", order(2, true, "two"), |said| {
            said.end_ns = Some(START_US * 1000 + 7_000_000);
            said.name = Some("second".into());
            said.output = Some("because".into());
            said.input_tokens = Some(1_000_000);
            said.usage = [("input".to_owned(), 1_000_000)].into();
            said.usage_source = Some(UsageSource::Provided as i32);
        })
    };
    for flush_again in [false, true] {
        for events in [[create(), update()], [update(), create()]] {
            let world = World::new();
            let process = Process::start(&world, "main");
            let [one, other] = events;
            process.append("acme", vec![one]).unwrap();
            process.flush().unwrap();
            process.append("acme", vec![other]).unwrap();
            if flush_again {
                process.flush().unwrap();
                assert_eq!(live_rows(&process, Table::Observations), (1, 1), "one row, one late object");
            }
            let rows = process.rows("acme", Table::Observations);
            let rows: Vec<&RecordBatch> = rows.iter().filter(|batch| batch.num_rows() > 0).collect();
            assert_eq!(rows.iter().map(|batch| batch.num_rows()).sum::<usize>(), 1);
            let text = |name: &str| rows[0].column_by_name(name).unwrap().as_string_view().value(0).to_owned();
            assert_eq!(text("name"), "second");
            assert_eq!(text("model"), "gpt-4o-mini");
            assert_eq!(text("cost_source"), "computed", "priced from what both said");
            let latency: &arrow::array::Float64Array = rows[0].column_by_name("latency_ms").unwrap().as_primitive();
            assert_eq!(latency.value(0), 7.0);
            let io = |name| process.column("acme", Table::ObservationIo, name);
            assert_eq!((io("input"), io("output")), (vec![Some("why?".into())], vec![Some("because".into())]));
            assert_eq!(process.all_books(), books(&[("received", 2), ("stored", 1), ("merged", 1)]));
        }
    }
}

#[test]
fn facts_said_after_a_traces_rows_were_flushed_are_one_change_and_reach_all_of_them() {
    let world = World::new();
    let process = Process::start(&world, "main");
    let spans: Vec<Event> = (0..50).map(|at| span("t", &at.to_string(), None)).collect();
    process.append("acme", spans).unwrap();
    process.append("acme", vec![span("other", "x", None)]).unwrap();
    process.flush().unwrap();
    process.append("acme", vec![facts("t", order(5, false, "f"), |said| said.user_id = Some("ada".into()))]).unwrap();
    let users = |process: &Process| {
        let users = process.column("acme", Table::Observations, "user_id");
        (users.len(), users.into_iter().flatten().filter(|user| user == "ada").count())
    };
    assert_eq!(users(&process), (51, 50), "fresh");
    process.flush().unwrap();
    assert_eq!(users(&process), (51, 50), "flushed");
    assert_eq!(live_rows(&process, Table::Observations), (51, 1));
    // What comes after takes them from the table.
    drop(process);
    let process = Process::start(&world, "main");
    process.append("acme", vec![span("t", "later", Some("0"))]).unwrap();
    assert_eq!(users(&process), (52, 51), "a row after a restart");
    process.flush().unwrap();
    assert_eq!(users(&process), (52, 51));
    // Said again, and again: nothing more comes of it.
    let late = live_rows(&process, Table::Observations).1;
    process.append("acme", vec![facts("t", order(5, false, "f"), |said| said.user_id = Some("ada".into()))]).unwrap();
    process.flush().unwrap();
    assert_eq!(live_rows(&process, Table::Observations).1, late);
}

#[test]
fn two_writers_that_both_get_everything_keep_each_id_once() {
    let world = World::new();
    let (one, two) = (Process::start(&world, "one"), Process::start(&world, "two"));
    for round in 0..4 {
        let spans = || vec![span("t", &format!("{round}-a"), None), span("t", &format!("{round}-b"), None)];
        one.append("acme", spans()).unwrap();
        two.append("acme", spans()).unwrap();
        if round % 2 == 0 {
            one.flush().unwrap();
            two.flush().unwrap();
        } else {
            two.flush().unwrap();
            one.flush().unwrap();
        }
    }
    let third = Process::start(&world, "three");
    for process in [&one, &two, &third] {
        for table in [Table::Observations, Table::ObservationIo] {
            let ids = process.ids("acme", table);
            assert_eq!(ids.len(), 8);
            assert!(ids.values().all(|count| *count == 1), "{table:?}: {ids:?}");
        }
    }
    assert_eq!(third.all_books(), books(&[("received", 16), ("stored", 8), ("merged", 8)]));
}

#[test]
fn months_late_data_lies_in_its_own_day_and_a_repeat_of_it_is_found_there() {
    let world = World::new();
    let process = Process::start(&world, "main");
    let old = || {
        let start_us = START_US - 100 * 24 * HOUR_US;
        observation("t", "old", order(0, false, ""), |said| {
            said.start_ns = Some(start_us * 1000);
            said.end_ns = Some(start_us * 1000 + 1);
        })
    };
    process.append("acme", vec![old()]).unwrap();
    process.flush().unwrap();
    process.append("acme", vec![old(), span("t", "new", None)]).unwrap();
    process.flush().unwrap();
    assert_eq!(process.ids("acme", Table::Observations), once(&["old", "new"]));
    // An end alone does not say when it began: its row is found wherever it lies.
    let end = observation("t", "old", order(9, true, "end"), |said| said.name = Some("found".into()));
    process.append("acme", vec![end]).unwrap();
    process.flush().unwrap();
    assert_eq!(process.ids("acme", Table::Observations), once(&["old", "new"]));
    let names = process.column("acme", Table::Observations, "name");
    assert_eq!(names, [Some("found".into()), Some("llm".into())]);
}

#[test]
fn a_crash_between_the_tables_commits_counts_repeats_once_in_the_books() {
    let world = World::new();
    let process = Process::start(&world, "main");
    process.append("acme", vec![span("t", "a", None)]).unwrap();
    process.flush().unwrap();
    process.append("acme", vec![span("t", "a", None), span("t", "b", None)]).unwrap();
    world.break_puts("/ledger/");
    process.flush().unwrap_err();
    drop(process);
    world.mend();
    let process = Process::start(&world, "main");
    let balanced = books(&[("received", 3), ("stored", 2), ("merged", 1)]);
    assert_eq!(process.all_books(), balanced);
    process.flush().unwrap();
    assert_eq!(process.all_books(), balanced);
    assert_eq!(process.ids("acme", Table::Observations), once(&["a", "b"]));
}

#[test]
fn a_second_try_after_a_failed_commit_of_the_books_counts_repeats_once() {
    let world = World::new();
    let process = Process::start(&world, "main");
    process.append("acme", vec![span("t", "a", None)]).unwrap();
    process.flush().unwrap();
    process.append("acme", vec![span("t", "a", None), span("t", "b", None)]).unwrap();
    world.break_puts("/ledger/");
    process.flush().unwrap_err();
    world.mend();
    process.flush().unwrap();
    assert_eq!(process.all_books(), books(&[("received", 3), ("stored", 2), ("merged", 1)]));
}

/// Rounds of appends with repeats, by several writers, flushes and kills on a store that fails: every id once, in
/// answers and in the public table at every version.
fn random_repeats(seed: u64) {
    let world = World::new();
    let mut random = SmallRng::seed_from_u64(seed);
    let mut acked: Vec<String> = Vec::new();
    let mut sent = 0;
    for _ in 0..3 {
        *world.faults.random.lock() = None;
        let processes = ["one", "two"].map(|writer| Process::start(&world, writer));
        *world.faults.random.lock() = Some(SeededFaults::new(random.random(), 6, 6, 10));
        for _ in 0..random.random_range(2..8) {
            let process = &processes[random.random_range(0..2)];
            match random.random_range(0..4) {
                0 => _ = process.run(process.ingest.flush(random.random_range(0..2) == 0)),
                1 if !acked.is_empty() => {
                    let again = acked[random.random_range(0..acked.len())].clone();
                    let _ = process.append("acme", vec![span("t", &again, None)]);
                }
                _ => {
                    let id = sent.to_string();
                    sent += 1;
                    if process.append("acme", vec![span("t", &id, None)]).is_ok() {
                        acked.push(id);
                    }
                }
            }
        }
        *world.faults.random.lock() = None;
        // What one process holds in memory another does not see; files it does.
        for process in &processes {
            let ids = process.ids("acme", Table::Observations);
            assert!(ids.values().all(|count| *count == 1), "seed {seed}: doubled in {ids:?}");
        }
        let flushed: Vec<bool> = processes.iter().map(|process| process.flush().is_ok()).collect();
        if flushed == [true, true] {
            // Ids first: they are asked of the newest snapshot, which is the known one then.
            let ids = processes[1].ids("acme", Table::Observations);
            let (rows, _) = live_rows(&processes[1], Table::Observations);
            assert_eq!(rows as usize, ids.len(), "seed {seed}: a public table holds each id once");
        }
    }
    let processes = ["one", "two"].map(|writer| Process::start(&world, writer));
    processes.iter().for_each(|process| process.flush().unwrap());
    let ids = processes[1].ids("acme", Table::Observations);
    let lost: Vec<_> = acked.iter().filter(|id| !ids.contains_key(*id)).collect();
    assert!(lost.is_empty(), "seed {seed}: acked and lost: {lost:?}");
    let books = processes[1].all_books();
    let of = |outcome: &str| books.get(outcome).copied().unwrap_or(0);
    assert_eq!(of("received"), of("stored") + of("merged"), "seed {seed}: {books:?}");
    assert_eq!(of("stored") as usize, ids.len(), "seed {seed}: {books:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_repeated_and_fails_each_id_stands_once_and_the_books_balance(seed in any::<u64>()) {
        random_repeats(seed);
    }
}

#[test]
fn an_update_without_a_start_is_found_weeks_later_wherever_its_create_says_it_began() {
    const DAY_US: i64 = 24 * HOUR_US;
    // Nothing of when it was; an end in the future; an end days after a start that nobody told yet.
    for end_us in [None, Some(START_US + 20 * DAY_US), Some(START_US)] {
        for start_us in [START_US - 100 * DAY_US, START_US - 5 * DAY_US, START_US + 12 * DAY_US] {
            let world = World::new();
            let process = Process::start(&world, "main");
            let update = observation("t", "a", order(2, true, "two"), |said| {
                said.end_ns = end_us.map(|us| us * 1000);
                said.output = Some("because".into());
            });
            process.append("acme", vec![update]).unwrap();
            process.flush().unwrap();
            world.clock.advance_us(12 * DAY_US);
            let create = observation("t", "a", order(1, false, "one"), |said| {
                said.start_ns = Some(start_us * 1000);
                said.input = Some("why?".into());
            });
            process.append("acme", vec![create]).unwrap();
            process.flush().unwrap();
            for table in [Table::Observations, Table::ObservationIo] {
                assert_eq!(process.ids("acme", table), once(&["a"]), "{table:?}: {end_us:?}, {start_us}");
            }
            assert_eq!(live_rows(&process, Table::Observations), (1, 1), "one row, and what changed about it");
        }
    }
}

#[test]
fn times_that_make_no_sense_keep_no_row_from_its_file() {
    let world = World::new();
    let process = Process::start(&world, "main");
    let starts = [None, Some(0), Some(1), Some(-1), Some(i64::MIN), Some(i64::MAX), Some(START_US * 1000 * 5)];
    let events = starts.iter().enumerate().map(|(at, start_ns)| {
        observation("t", &at.to_string(), order(1, false, &format!("e{at}")), |said| {
            said.start_ns = *start_ns;
            said.end_ns = *start_ns;
        })
    });
    process.append("acme", events.collect()).unwrap();
    process.flush().unwrap();
    let ids: Vec<String> = (0..starts.len()).map(|at| at.to_string()).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    assert_eq!(process.ids("acme", Table::Observations), once(&ids));
    let files = process.run(process.catalog.known_snapshot(&"acme".parse().unwrap(), Table::Observations)).unwrap();
    let (oldest, newest) = (START_US - 3650 * 24 * HOUR_US, START_US + HOUR_US);
    for file in files.files.values() {
        assert!(
            (Day::of_us(oldest)..=Day::of_us(newest)).contains(&file.day),
            "{}: retention would go by it",
            file.day
        );
    }
}

#[test]
fn what_retention_took_does_not_come_back_by_a_repeat_in_the_log() {
    let world = World::new();
    let process = Process::start(&world, "main");
    process.append("acme", vec![span("t", "a", None)]).unwrap();
    process.flush().unwrap();
    // It only repeats what stands: the books are all that is committed of it.
    process.append("acme", vec![span("t", "a", None)]).unwrap();
    process.flush().unwrap();
    let through = Change::DropDays { through: Day::of_us(START_US) };
    for table in [Table::Observations, Table::ObservationIo] {
        process.run(process.catalog.commit(&"acme".parse().unwrap(), table, through.clone())).unwrap();
    }
    drop(process);
    let process = Process::start(&world, "main");
    assert_eq!(process.ids("acme", Table::Observations), once(&[]));
    assert_eq!(process.ids("acme", Table::ObservationIo), once(&[]));
    process.flush().unwrap();
    assert_eq!(live_rows(&process, Table::Observations), (0, 0));
    assert_eq!(process.all_books(), books(&[("received", 2), ("stored", 1), ("merged", 1)]));
}

#[test]
fn facts_that_wait_for_rows_retention_took_are_not_stamped_over_newer_ones() {
    let world = World::new();
    let process = Process::start(&world, "main");
    let named = |time: i64, name: &str| facts("t", order(time, false, name), |said| said.name = Some(name.to_owned()));
    process.append("acme", vec![span("t", "a", None)]).unwrap();
    process.flush().unwrap();
    process.append("acme", vec![named(1, "before")]).unwrap();
    process.flush().unwrap();
    let through = Change::DropDays { through: Day::of_us(START_US) };
    process.run(process.catalog.commit(&"acme".parse().unwrap(), Table::Observations, through)).unwrap();
    world.clock.advance_us(3 * Day::US);
    let later = observation("t", "b", order(3 * Day::US, false, "b"), |said| said.name = Some("llm".to_owned()));
    process.append("acme", vec![named(2, "after"), later]).unwrap();
    for flushed in [false, true] {
        let names = process.column("acme", Table::Observations, "trace_name");
        assert_eq!(names, [Some("after".to_owned())], "flushed: {flushed}");
        process.flush().unwrap();
    }
}
