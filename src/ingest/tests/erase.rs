//! What was erased is gone at once and does not come back: not by a replay, not by being sent again, not elsewhere.

use super::late::{facts, order};
use super::*;
use crate::base::Clock;
use crate::catalog::erasures::{ErasureKind, ErasureState, Rewritten};
use crate::model::Score;

const TABLES: [Table; 4] = [Table::Observations, Table::ObservationIo, Table::TraceFacts, Table::Scores];

fn whose(trace: &str, user: &str, session: &str) -> Event {
    facts(trace, order(1, false, &format!("facts of {trace}")), |said| {
        (said.user_id, said.session_id) = (Some(user.into()), Some(session.into()));
        (said.root_id, said.input) = (Some("root".into()), Some(format!("{user} asks")));
    })
}

pub(super) fn score(id: &str, trace: Option<&str>, session: Option<&str>) -> Event {
    let (trace_id, session_id) = (trace.map(str::to_owned), session.map(str::to_owned));
    let score = Score { id: id.into(), trace_id, session_id, name: "n".into(), value: Some(1.0), ..Default::default() };
    Event { order: order(1, false, id), kind: Some(EventKind::Score(score)) }
}

/// Two traces of Ada's in one session, one of Bob's, and scores of all.
fn said() -> Vec<Event> {
    vec![
        whose("t1", "ada", "s1"),
        span("t1", "a", None),
        span("t1", "b", Some("a")),
        whose("t2", "ada", "s1"),
        span("t2", "c", None),
        whose("t3", "bob", "s2"),
        span("t3", "d", None),
        score("of t1", Some("t1"), None),
        score("of s1", None, Some("s1")),
        score("of t3", Some("t3"), None),
    ]
}

impl Process {
    fn erase(&self, kind: ErasureKind, value: &str) -> String {
        let tenant = "acme".parse().unwrap();
        let erased = self.run(self.ingest.erase(&tenant, kind, vec![value.to_owned()], "pk-lf-admin")).unwrap();
        erased.id.clone()
    }

    /// Sends as a door does. Returns the ids that were refused as erased.
    fn send(&self, events: Vec<Event>) -> Vec<String> {
        let tenant = "acme".parse().unwrap();
        let received = events.iter().filter(|event| !matches!(event.kind, Some(EventKind::Trace(_)))).count() as u64;
        let mut batch = EventBatch { door: "test".into(), events, received, ..Default::default() };
        self.run(async {
            let refused = self.ingest.refuse_erased(&tenant, &mut batch).await;
            let held = self.ingest.admit(1000).await.unwrap();
            self.ingest.append(&tenant, batch, held).await.unwrap();
            refused.into_iter().map(|rejection| rejection.id).collect()
        })
    }

    fn all_ids(&self) -> Vec<Vec<String>> {
        TABLES.map(|table| self.ids("acme", table).into_keys().collect()).into()
    }
}

const BOBS: [&[&str]; 4] = [&["d"], &["", "d"], &["t3"], &["of t3"]];

fn balance(process: &Process) {
    let books = process.all_books();
    let of = |outcome| books.get(outcome).copied().unwrap_or(0);
    assert_eq!(of("received"), of("stored") + of("merged") + of("rejected") + of("erased"), "{books:?}");
}

#[test]
fn a_user_is_gone_from_every_table_whether_fresh_flushed_or_late_and_stays_gone() {
    for flushed in [false, true] {
        let world = World::new();
        let process = Process::start(&world, "main");
        process.append("acme", said()).unwrap();
        if flushed {
            process.flush().unwrap();
            // Late: a row of Ada's changes after it is in a file.
            let more = Event { order: order(9, true, "more"), ..span("t1", "a", None) };
            process.append("acme", vec![more]).unwrap();
            process.flush().unwrap();
            process.append("acme", vec![whose("t4", "ada", "s3"), span("t4", "e", None)]).unwrap();
        }
        process.erase(ErasureKind::User, "ada");
        let left: Vec<Vec<String>> = vec![
            vec!["d".into()],
            vec!["".into(), "d".into()],
            vec!["t3".into()],
            // The session was not erased, its trace was.
            vec!["of s1".into(), "of t3".into()],
        ];
        assert_eq!(process.all_ids(), left, "flushed before: {flushed}");
        balance(&process);
        let again = process.send(vec![whose("t1", "ada", "s1"), span("t1", "a", None), span("t1", "new", None)]);
        assert_eq!(again, ["a", "new"], "refused");
        let again = process.send(vec![span("t2", "c", None)]);
        assert_eq!(again, ["c"], "also when nobody says whose it is");
        assert_eq!(process.all_ids(), left);
        assert_eq!(process.all_books()["rejected"], 3);
        balance(&process);
        drop(process);
        let process = Process::start(&world, "main");
        assert_eq!(process.all_ids(), left, "after a kill");
        assert_eq!(process.send(vec![span("t2", "c", None)]), ["c"], "and refused still");
        process.flush().unwrap();
        assert_eq!(process.all_ids(), left, "after a flush");
        balance(&process);
    }
}

#[test]
fn a_session_goes_with_its_traces_and_scores_and_a_trace_alone() {
    let world = World::new();
    let process = Process::start(&world, "main");
    process.append("acme", said()).unwrap();
    process.flush().unwrap();
    process.erase(ErasureKind::Trace, "t2");
    assert_eq!(process.ids("acme", Table::Observations), once(&["a", "b", "d"]));
    assert_eq!(process.ids("acme", Table::TraceFacts), once(&["t1", "t3"]));
    assert_eq!(process.ids("acme", Table::Scores), once(&["of t1", "of s1", "of t3"]));
    process.erase(ErasureKind::Session, "s1");
    let bobs: Vec<Vec<String>> = BOBS.map(|ids| ids.iter().map(|id| id.to_string()).collect()).into();
    assert_eq!(process.all_ids(), bobs);
    balance(&process);
}

#[test]
fn rows_that_were_acked_before_and_replayed_after_are_dropped_by_the_erasures_frame_and_log() {
    let world = World::new();
    let process = Process::start(&world, "main");
    process.append("acme", said()).unwrap();
    // The erasure is written down, and then the process dies: nothing else was done.
    world.break_puts("wal/");
    let tenant = "acme".parse().unwrap();
    process.run(process.ingest.erase(&tenant, ErasureKind::User, vec!["ada".into()], "pk")).unwrap_err();
    drop(process);
    world.mend();
    let process = Process::start(&world, "main");
    assert_eq!(process.ids("acme", Table::Observations), once(&["d"]));
    balance(&process);
    process.erase(ErasureKind::Trace, "t3");
    assert!(process.all_ids()[0].is_empty());
    drop(process);
    let process = Process::start(&world, "main");
    assert!(process.all_ids()[0].is_empty(), "the log with its erase frame is replayed");
    balance(&process);
}

#[test]
fn another_process_hears_of_it_and_forgets_what_it_holds() {
    let world = World::new();
    let (one, two) = (Process::start(&world, "one"), Process::start(&world, "two"));
    one.append("acme", said()).unwrap();
    two.append("acme", vec![whose("t9", "ada", "s9"), span("t9", "z", None), span("t8", "y", None)]).unwrap();
    one.erase(ErasureKind::User, "ada");
    two.run(crate::ingest::erase::look(&two.ingest.shared)).unwrap();
    // Bob's row was flushed by the erasure that the other one answered for.
    assert_eq!(two.ids("acme", Table::Observations), once(&["d", "y"]));
    assert_eq!(two.send(vec![whose("t9", "ada", "s9"), span("t9", "z", None)]), ["z"]);
    two.flush().unwrap();
    one.flush().unwrap();
    let bob_and_y = once(&["d", "y"]);
    one.run(async { tokio::time::sleep(Duration::from_millis(1100)).await });
    assert_eq!(one.ids("acme", Table::Observations), bob_and_y);
    balance(&one);
}

#[test]
fn an_erasure_takes_what_others_flushed_a_moment_before() {
    let world = World::new();
    let (one, two) = (Process::start(&world, "one"), Process::start(&world, "two"));
    // What is known of the table is young enough for a query.
    assert!(two.all_ids()[0].is_empty());
    one.append("acme", said()).unwrap();
    one.flush().unwrap();
    two.erase(ErasureKind::User, "ada");
    // It need not be alive to forget.
    drop(one);
    let three = Process::start(&world, "three");
    assert_eq!(three.ids("acme", Table::Observations), once(&["d"]));
    assert_eq!(three.ids("acme", Table::ObservationIo), once(&["", "d"]));
}

#[test]
fn what_was_flushed_by_one_who_had_not_heard_and_died_is_masked_when_it_starts_again() {
    let world = World::new();
    let (one, two) = (Process::start(&world, "one"), Process::start(&world, "two"));
    one.append("acme", said()).unwrap();
    two.erase(ErasureKind::User, "ada");
    one.flush().unwrap();
    drop(one);
    let one = Process::start(&world, "one");
    one.run(crate::ingest::erase::look(&one.ingest.shared)).unwrap();
    assert_eq!(one.ids("acme", Table::Observations), once(&["d"]));
    balance(&one);
}

#[test]
fn a_row_that_is_masked_while_a_repeat_of_it_is_flushed_stands_once_and_hidden() {
    let world = World::new();
    let (one, two) = (Process::start(&world, "one"), Process::start(&world, "two"));
    one.append("acme", said()).unwrap();
    one.flush().unwrap();
    // The other has the same, and its flush is stuck half-way: what is frozen does not hear of an erasure.
    two.append("acme", said()).unwrap();
    world.break_puts("_delta_log");
    two.flush().unwrap_err();
    world.mend();
    one.erase(ErasureKind::User, "ada");
    two.flush().unwrap();
    for process in [&one, &two] {
        process.run(async { tokio::time::sleep(Duration::from_millis(1100)).await });
        assert_eq!(process.ids("acme", Table::Observations), once(&["d"]));
        assert_eq!(process.ids("acme", Table::Scores), once(&["of s1", "of t3"]));
        balance(process);
    }
    let snapshot = two.run(two.catalog.snapshot(&"acme".parse().unwrap(), Table::Observations)).unwrap();
    assert_eq!(snapshot.rows(), 4, "readers from elsewhere see each once");
    assert_eq!(two.all_books()["stored"], 7);
}

#[test]
fn a_tenant_that_is_gone_is_let_go_of_and_its_frames_are_dropped_at_replay() {
    let world = World::new();
    let process = Process::start(&world, "main");
    process.append("acme", said()).unwrap();
    process.append("other", vec![span("t", "o", None)]).unwrap();
    process.erase(ErasureKind::Tenant, "acme");
    assert!(process.all_ids()[0].is_empty());
    process.append("acme", said()).unwrap();
    assert!(process.all_ids()[0].is_empty(), "what was under way is not kept");
    assert!(process.ingest.shared.own.buffers.get(&"acme".parse().unwrap()).is_none());
    drop(process);
    let process = Process::start(&world, "main");
    assert!(process.all_ids()[0].is_empty());
    assert_eq!(process.ids("other", Table::Observations), once(&["o"]), "neighbours stay");
}

#[test]
fn what_is_refused_for_seven_days_may_come_again_after_them() {
    let world = World::new();
    let process = Process::start(&world, "main");
    process.append("acme", said()).unwrap();
    let id = process.erase(ErasureKind::User, "ada");
    let erasures = process.catalog.erasures();
    let erasure = erasures.find(&"acme".parse().unwrap(), &id).unwrap();
    let (state, _) = process.run(erasures.state(&erasure)).unwrap();
    assert_eq!(state, ErasureState::Masked);
    let rewritten = Rewritten { at_us: world.clock.now_us(), ..Default::default() };
    process.run(erasures.set_rewritten(&erasure, rewritten)).unwrap();
    world.clock.advance_us(crate::catalog::erasures::REFUSED_FOR_US);
    assert_eq!(process.send(vec![whose("t7", "ada", "s7"), span("t7", "f", None)]), [""; 0]);
    assert_eq!(process.ids("acme", Table::Observations), once(&["d", "f"]));
}

#[test]
fn rows_that_named_nobody_go_when_their_trace_is_named_as_a_forgotten_users() {
    let world = World::new();
    let process = Process::start(&world, "main");
    process.append("acme", said()).unwrap();
    process.erase(ErasureKind::User, "ada");
    // Nobody says whose they are: in files, and fresh.
    assert_eq!(process.send(vec![span("t9", "early", None), score("of t9", Some("t9"), None)]), [""; 0]);
    process.flush().unwrap();
    assert_eq!(process.send(vec![span("t9", "fresh", None), span("t3", "g", None)]), [""; 0]);
    assert_eq!(process.ids("acme", Table::Observations), once(&["d", "early", "fresh", "g"]));
    process.send(vec![whose("t9", "ada", "s9")]);
    let shared = &process.ingest.shared;
    process.run(crate::ingest::erase::erase_named(shared, false)).unwrap();
    let left: Vec<Vec<String>> = vec![
        vec!["d".into(), "g".into()],
        vec!["".into(), "d".into(), "g".into()],
        vec!["t3".into()],
        vec!["of s1".into(), "of t3".into()],
    ];
    assert_eq!(process.all_ids(), left);
    balance(&process);
    // Named before any row came: refused here at once, and everywhere from the next look on, after a kill too.
    process.send(vec![whose("t10", "ada", "s9")]);
    assert_eq!(process.send(vec![span("t10", "h", None)]), ["h"]);
    process.run(crate::ingest::erase::erase_named(shared, false)).unwrap();
    assert_eq!(process.catalog.erasures().last(), 2, "no rows of it stand: it can wait for others");
    world.clock.advance_us(600 * 1_000_000);
    process.run(crate::ingest::erase::erase_named(shared, false)).unwrap();
    assert_eq!(process.catalog.erasures().last(), 3);
    drop(process);
    let process = Process::start(&world, "main");
    assert_eq!(process.send(vec![span("t10", "h", None), span("t9", "late", None)]), ["h", "late"]);
    assert_eq!(process.all_ids(), left);
    let two = Process::start(&world, "two");
    assert_eq!(two.send(vec![span("t10", "h", None)]), ["h"], "another process knows too");
    process.run(crate::ingest::erase::erase_named(&process.ingest.shared, false)).unwrap();
    assert_eq!(process.catalog.erasures().last(), 3, "nothing is asked twice");
}

#[test]
fn a_text_whose_observation_a_crash_kept_from_its_file_is_erased_with_its_trace() {
    for (broken, kind, value) in [
        ("observations/_delta_log", ErasureKind::Trace, "t1"),
        ("observations/_delta_log", ErasureKind::User, "ada"),
        ("trace_facts/_delta_log", ErasureKind::User, "ada"),
    ] {
        for asked_elsewhere in [false, true] {
            let world = World::new();
            let process = Process::start(&world, "main");
            process.append("acme", said()).unwrap();
            world.break_puts(broken);
            process.flush().unwrap_err();
            drop(process);
            world.mend();
            let process = Process::start(&world, "main");
            let other = Process::start(&world, "other");
            if asked_elsewhere { &other } else { &process }.erase(kind, value);
            world.clock.advance_us(2_000_000);
            process.run(process.ingest.look_for_erasures()).unwrap();
            // Traces that are found to be hers only here are written down when it stops, at the latest.
            process.run(process.ingest.stop()).unwrap();
            let texts = Process::start(&world, "main").ids("acme", Table::ObservationIo);
            let gone: &[&str] = if kind == ErasureKind::Trace { &["a", "b"] } else { &["a", "b", "c"] };
            let left: Vec<&str> = gone.iter().copied().filter(|id| texts.contains_key(*id)).collect();
            let told = format!("{broken}, {kind}, elsewhere: {asked_elsewhere}: {texts:?}");
            assert!(left.is_empty() && texts.contains_key("d"), "{told}");
        }
    }
}
