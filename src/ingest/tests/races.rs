//! Sequences that need an unlucky moment: each was found by reading, and is played step by step here.

use super::erase::score;
use super::late::{facts, order};
use super::*;

fn ids_of(fresh: FreshTable) -> Vec<String> {
    let mut ids = Vec::new();
    for batch in fresh.batches {
        let column = batch.column_by_name("id").unwrap().as_string_view().clone();
        ids.extend(column.iter().flatten().map(str::to_owned));
    }
    ids.sort();
    ids
}

#[test]
fn a_query_that_pinned_before_a_flush_still_sees_what_waits() {
    let world = World::new();
    let process = Process::start(&world, "main");
    let tenant = "acme".parse().unwrap();
    process.append("acme", vec![span("t", "child", Some("root")), span("u", "whole", None)]).unwrap();
    let pinned = process.ingest.pin(&tenant);
    process.run(process.ingest.flush(false)).unwrap();
    let snapshot = process.run(process.catalog.snapshot(&tenant, Table::Observations)).unwrap();
    assert_eq!(snapshot.rows(), 1);
    assert_eq!(ids_of(process.run(pinned.rows(Table::Observations, &snapshot)).unwrap()), ["child"]);
    // And once more, with a view that holds only what waits.
    let pinned = process.ingest.pin(&tenant);
    process.append("acme", vec![span("v", "later", None)]).unwrap();
    process.run(process.ingest.flush(false)).unwrap();
    let snapshot = process.run(process.catalog.snapshot(&tenant, Table::Observations)).unwrap();
    assert_eq!(ids_of(process.run(pinned.rows(Table::Observations, &snapshot)).unwrap()), ["child"]);
}

#[test]
fn a_query_from_before_a_flush_stamps_what_that_flush_says_of_traces_onto_rows_in_files() {
    let world = World::new();
    let process = Process::start(&world, "main");
    let tenant = "acme".parse().unwrap();
    process.append("acme", vec![span("t", "a", None)]).unwrap();
    process.flush().unwrap();
    process.append("acme", vec![facts("t", order(5, false, "f"), |said| said.name = Some("chat".into()))]).unwrap();
    let before = process.run(process.catalog.snapshot(&tenant, Table::Observations)).unwrap();
    let pinned = process.ingest.pin(&tenant);
    process.flush().unwrap();
    let fresh = process.run(pinned.rows(Table::Observations, &before)).unwrap();
    assert_eq!(fresh.changes.facts.keys().collect::<Vec<_>>(), ["t"], "the row in the file has no name yet");
}

#[test]
fn what_waits_is_not_carried_again_until_something_new_is_due() {
    let world = World::new();
    let process = Process::start(&world, "main");
    process.append("acme", vec![span("t", "child", Some("root"))]).unwrap();
    process.run(process.ingest.flush(false)).unwrap();
    let puts = || world.faults.puts.load(Ordering::SeqCst);
    let before = puts();
    // Ten minutes less one second: old enough for any flush by age, not for giving up on the root.
    world.clock.advance_us(599 * 1_000_000);
    process.run(tokio_pause(1200));
    assert_eq!(puts(), before, "nothing was written");
    world.clock.advance_us(120 * 1_000_000);
    process.run(tokio_pause(1500));
    let rows = process.run(process.catalog.snapshot(&"acme".parse().unwrap(), Table::Observations)).unwrap().rows();
    assert_eq!(rows, 1, "and then it goes without its root");
}

async fn tokio_pause(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

#[test]
fn an_object_of_ours_that_comes_late_neither_acks_others_nor_fences_us() {
    let world = World::new();
    let process = Process::start(&world, "main");
    process.append("acme", vec![span("t", "a", None)]).unwrap();
    // A copy of our last object appears at the next number, as if an earlier put had been on its way all the time.
    let writer = process.ingest.writer().clone();
    let ours = process.run(process.catalog.store().get(&store::log_object(&writer, Some(2)))).unwrap().unwrap();
    process.run(process.catalog.store().put(&store::log_object(&writer, Some(3)), ours)).unwrap();
    process.append("acme", vec![span("t", "b", None)]).unwrap();
    let own = process.run(process.catalog.store().get(&store::log_object(&writer, Some(4)))).unwrap();
    assert!(own.is_some(), "what was acked stands in an object of its own");
    assert_eq!(process.ids("acme", Table::Observations), once(&["a", "b"]));
}

#[test]
fn an_idle_process_is_left_alone_by_its_neighbours() {
    let world = World::new();
    drop(Process::start(&world, "node-1"));
    let idle = Process::start(&world, "node-1");
    idle.run(marks::look(&idle.ingest.shared)).unwrap();
    let other = Process::start(&world, "node-2");
    world.clock.advance_us(100 * 365 * 24 * HOUR_US);
    other.run(marks::look(&other.ingest.shared)).unwrap();
    assert_eq!(other.ingest.shared.writers.read().len(), 1, "there is nothing to adopt");
    idle.append("acme", vec![span("t", "a", None)]).unwrap();
}

#[test]
fn an_adopted_log_is_let_go_when_its_owner_comes_back() {
    let world = World::new();
    let lost = Process::start(&world, "node-1");
    lost.append("acme", vec![span("t", "a", None)]).unwrap();
    drop(lost);
    let neighbour = Process::start(&world, "node-2");
    world.clock.advance_us(100 * 365 * 24 * HOUR_US);
    neighbour.run(marks::look(&neighbour.ingest.shared)).unwrap();
    assert_eq!(neighbour.ingest.shared.writers.read().len(), 2);
    let back = Process::start(&world, "node-1");
    // Its claim is news: by a clock like the store's, the log is not silent any more.
    world.clock.advance_us(-100 * 365 * 24 * HOUR_US);
    // The heartbeat finds the log taken; the round after that lets it go.
    neighbour.run(marks::look(&neighbour.ingest.shared)).unwrap();
    neighbour.run(marks::look(&neighbour.ingest.shared)).unwrap();
    assert_eq!(neighbour.ingest.shared.writers.read().len(), 1);
    assert_eq!(back.ids("acme", Table::Observations), once(&["a"]));
}

#[test]
fn flushed_rows_are_not_kept_again_by_a_replay_nor_counted_again() {
    let world = World::new();
    let process = Process::start(&world, "main");
    process.append("acme", vec![span("t", "a", None)]).unwrap();
    process.flush().unwrap();
    drop(process);
    // No mark was written: the replay begins at the start of the log.
    let process = Process::start(&world, "main");
    assert_eq!(process.ingest.shared.own.buffers.needs_from(), None, "everything is in the tables");
    process.append("acme", vec![span("t", "b", None)]).unwrap();
    let sums = process.books();
    assert_eq!(sums, [("received", 1), ("stored", 1)].map(|(outcome, count)| (outcome.to_owned(), count)).into());
}

#[test]
fn what_the_owner_before_committed_after_the_claim_is_stored_and_not_merged() {
    let world = World::new();
    let first = Process::start(&world, "main");
    first.append("acme", vec![span("t", "a", None), span("t", "b", Some("a"))]).unwrap();
    world.break_puts("observations/_delta_log");
    first.flush().unwrap_err();
    let second = Process::start(&world, "main");
    // The first needs no log for what it froze before; it dies before the books.
    world.break_puts("ledger/_delta_log");
    first.flush().unwrap_err();
    drop(first);
    world.mend();
    // A query of the second has seen the commit before its flush looks.
    second.run(async { tokio::time::sleep(Duration::from_millis(1100)).await });
    assert_eq!(second.ids("acme", Table::Observations), once(&["a", "b"]));
    second.flush().unwrap();
    assert_eq!(second.ids("acme", Table::Observations), once(&["a", "b"]));
    assert_eq!(second.all_books(), [("received".to_owned(), 2), ("stored".to_owned(), 2)].into());
}

#[test]
fn what_the_owner_before_counted_after_the_claim_is_not_counted_again() {
    let world = World::new();
    let first = Process::start(&world, "main");
    first.append("acme", vec![span("t", "a", None)]).unwrap();
    first.flush().unwrap();
    // One id that stands, and one that does not.
    first.append("acme", vec![span("t", "a", None), span("t", "b", Some("a"))]).unwrap();
    world.break_puts("_delta_log");
    first.flush().unwrap_err();
    let second = Process::start(&world, "main");
    second.append("acme", vec![span("t", "c", Some("a"))]).unwrap();
    world.mend();
    // All of it, the books too, while the second believes it is its own to commit.
    first.flush().unwrap();
    drop(first);
    second.flush().unwrap();
    assert_eq!(second.ids("acme", Table::Observations), once(&["a", "b", "c"]));
    let books = [("merged".to_owned(), 1), ("received".to_owned(), 4), ("stored".to_owned(), 3)];
    assert_eq!(second.all_books(), books.into());
}

/// Two processes hold the same event of one log, and the second the same again, which it merged with the first.
/// What the first then commits of it counts once.
fn one_id_of_two_owners(broken_for_the_second: &str) -> (World, Process, Process) {
    let world = World::new();
    let first = Process::start(&world, "main");
    first.append("acme", vec![span("t", "a", None)]).unwrap();
    world.break_puts(broken_for_the_second);
    first.flush().unwrap_err();
    let second = Process::start(&world, "main");
    world.mend();
    second.append("acme", vec![span("t", "a", None)]).unwrap();
    (world, first, second)
}

fn once_and_again() -> BTreeMap<String, i64> {
    [("merged".to_owned(), 1), ("received".to_owned(), 2), ("stored".to_owned(), 1)].into()
}

#[test]
fn an_id_that_the_owner_before_counted_after_the_claim_is_not_counted_with_what_repeats_it() {
    let (_world, first, second) = one_id_of_two_owners("_delta_log");
    first.flush().unwrap();
    drop(first);
    second.flush().unwrap();
    assert_eq!(second.ids("acme", Table::Observations), once(&["a"]));
    assert_eq!(second.all_books(), once_and_again());
}

#[test]
fn an_id_that_the_owner_before_stored_after_the_claim_and_did_not_count_is_stored() {
    let (world, first, second) = one_id_of_two_owners("observations/_delta_log");
    world.break_puts("ledger/_delta_log");
    first.flush().unwrap_err();
    drop(first);
    world.mend();
    second.flush().unwrap();
    assert_eq!(second.all_books(), once_and_again());
}

#[test]
fn what_a_replay_counted_as_merged_is_not_counted_again_where_another_owner_goes_on() {
    let world = World::new();
    let first = Process::start(&world, "main");
    first.append("acme", vec![span("t", "a", None)]).unwrap();
    first.flush().unwrap();
    first.append("acme", vec![span("t", "a", None), score("s", Some("t"), None), span("t", "b", Some("a"))]).unwrap();
    world.break_puts("scores/_delta_log");
    first.flush().unwrap_err();
    // It finds told that `a` stood.
    let second = Process::start(&world, "main");
    world.break_puts("ledger/_delta_log");
    first.flush().unwrap_err();
    drop(first);
    world.mend();
    second.append("acme", vec![span("t", "c", Some("a"))]).unwrap();
    second.flush().unwrap();
    let books = [("merged".to_owned(), 1), ("received".to_owned(), 5), ("stored".to_owned(), 4)];
    assert_eq!(second.all_books(), books.into());
}

#[test]
fn what_a_replay_counted_as_merged_is_not_counted_again_by_a_second_try() {
    let world = World::new();
    let first = Process::start(&world, "main");
    first.append("acme", vec![span("t", "a", None)]).unwrap();
    first.flush().unwrap();
    first.append("acme", vec![span("t", "a", None)]).unwrap();
    world.break_puts("ledger/_delta_log");
    first.flush().unwrap_err();
    drop(first);
    world.mend();
    let second = Process::start(&world, "main");
    second.append("acme", vec![span("t", "b", Some("a"))]).unwrap();
    world.break_puts("ledger/_delta_log");
    second.flush().unwrap_err();
    world.mend();
    second.flush().unwrap();
    let books = [("merged".to_owned(), 1), ("received".to_owned(), 3), ("stored".to_owned(), 2)];
    assert_eq!(second.all_books(), books.into());
}

#[test]
fn what_comes_again_while_a_freeze_is_undone_is_merged_by_the_books_too() {
    let world = World::new();
    let process = Process::start(&world, "main");
    process.append("acme", vec![span("t", "a", None)]).unwrap();
    let state = process.ingest.shared.own.buffers.get(&"acme".parse().unwrap()).unwrap();
    let position = state.buffer.pin()[0].segment.to;
    state.buffer.freeze(position, i64::MAX).unwrap();
    process.append("acme", vec![span("t", "a", None)]).unwrap();
    // Its carry frame could not be written.
    state.buffer.thaw();
    process.flush().unwrap();
    assert_eq!(process.all_books(), once_and_again());
}

#[test]
fn what_stands_by_half_and_comes_again_does_not_wait_for_its_root() {
    let world = World::new();
    let first = Process::start(&world, "main");
    // Its root is missing: it could wait.
    first.append("acme", vec![span("t", "a", Some("r"))]).unwrap();
    world.break_puts("ledger/_delta_log");
    first.flush().unwrap_err();
    drop(first);
    world.mend();
    let second = Process::start(&world, "main");
    second.append("acme", vec![span("t", "a", Some("r"))]).unwrap();
    second.run(second.ingest.flush(false)).unwrap();
    second.flush().unwrap();
    assert_eq!(second.all_books(), once_and_again());
}
