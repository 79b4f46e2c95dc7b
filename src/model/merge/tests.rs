use proptest::prelude::*;

use super::*;
use crate::model::tests::random::Random;

fn merge<T: Merge>(events: &[(Order, T)]) -> Merged<T> {
    let mut borrowed: Vec<(&Order, &T)> = events.iter().map(|(order, event)| (order, event)).collect();
    borrowed.sort_by(|a, b| a.0.cmp(b.0));
    T::merge(&borrowed)
}

fn split<T: Merge>(merged: Merged<T>) -> Vec<(Order, T)> {
    let order = merged.row.order_of_one();
    merged.row.split(merged.provenance.as_deref(), &order).unwrap()
}

/// Who decided what, as far as it is kept: the id of an event that decided alone is not.
fn decided<T: Merge>(merged: &Merged<T>, ids_kept: bool) -> Option<Vec<Decided>> {
    let mut decided = provenance::decode(merged.provenance.as_deref()?, u64::MAX).unwrap();
    if !ids_kept {
        decided.iter_mut().for_each(|one| one.order.event_id.clear());
    }
    Some(decided)
}

/// Events arrive in a random order, a few at a time, and each time what stands is written, read and merged again.
fn arrives_in_any_order<T: Merge + Clone + PartialEq + std::fmt::Debug>(
    random: &mut Random,
    events: Vec<(Order, T)>,
    without_maps: fn(T) -> T,
) {
    let at_once = merge(&events);
    let mut arriving = events;
    random.shuffle(&mut arriving);
    let mut standing: Option<Merged<T>> = None;
    while !arriving.is_empty() {
        let some = arriving.split_off(arriving.len() - 1 - random.below(arriving.len()));
        let before: Vec<(Order, T)> = standing.map(split).unwrap_or_default();
        standing = Some(merge(&[before, some].concat()));
    }
    let standing = standing.unwrap();
    assert_eq!(decided(&standing, false), decided(&at_once, false));
    assert_eq!(without_maps(standing.row), without_maps(at_once.row));
}

/// Two arrivals: maps are equal too, unless the later one reaches in between two events of the first.
fn maps_merge_again<T: Merge + Clone + PartialEq + std::fmt::Debug>(random: &mut Random, events: Vec<(Order, T)>) {
    let (from, to) = (random.below(events.len()), random.below(events.len()));
    let (from, to) = (from.min(to), from.max(to));
    // The first to be written are those of a stretch of time.
    let written: Vec<_> = events[from..=to].to_vec();
    let late = [&events[..from], &events[to + 1..]].concat();
    let again = merge(&[split(merge(&written)), late].concat());
    assert_eq!(again.row, merge(&events).row);
}

fn end_us(observation: &Observation) -> i64 {
    observation.order_of_one().event_time_us
}

fn timestamp_us<T: Merge>(row: &T) -> i64 {
    row.order_of_one().event_time_us
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// I3: what was written merges with what comes later, as if all had come at once.
    #[test]
    fn late_events_of_an_observation_merge_as_if_in_time(seed: u64) {
        let mut random = Random::new(seed);
        let events = random.events(Random::observation, end_us);
        maps_merge_again(&mut random, events.clone());
        arrives_in_any_order(&mut random, events, |row| {
            Observation { metadata: Default::default(), attributes: Default::default(), ..row }
        });
    }

    #[test]
    fn late_facts_of_a_trace_merge_as_if_in_time(seed: u64) {
        let mut random = Random::new(seed);
        let events = random.events(Random::facts, timestamp_us);
        maps_merge_again(&mut random, events.clone());
        arrives_in_any_order(&mut random, events, |row| {
            TraceFacts { metadata: Default::default(), attributes: Default::default(), ..row }
        });
    }

    #[test]
    fn late_events_of_a_score_merge_as_if_in_time(seed: u64) {
        let mut random = Random::new(seed);
        let events = random.events(Random::score, timestamp_us);
        maps_merge_again(&mut random, events.clone());
        arrives_in_any_order(&mut random, events, |row| Score { metadata: Default::default(), ..row });
    }

    /// Events that have come already change nothing, provenance included, however often they come again.
    #[test]
    fn what_is_said_again_changes_nothing(seed: u64) {
        let mut random = Random::new(seed);
        let events = random.events(Random::observation, end_us);
        let written = merge(&events);
        let again: Vec<_> = events.into_iter().filter(|_| random.chance(60)).collect();
        prop_assert_eq!(&merge(&[split(written.clone()), again].concat()), &written);
    }

    #[test]
    fn an_event_alone_is_a_merge_of_one(seed: u64) {
        let mut random = Random::new(seed);
        for (order, event) in random.events(Random::observation, end_us) {
            prop_assert_eq!(Observation::alone(&order, event.clone()), Observation::merge(&[(&order, &event)]));
        }
        for (order, event) in random.events(Random::facts, timestamp_us) {
            prop_assert_eq!(TraceFacts::alone(&order, event.clone()), TraceFacts::merge(&[(&order, &event)]));
        }
        for (order, event) in random.events(Random::score, timestamp_us) {
            prop_assert_eq!(Score::alone(&order, event.clone()), Score::merge(&[(&order, &event)]));
        }
    }

    /// Whatever the bytes, there is an answer or an error.
    #[test]
    fn any_bytes_are_read_or_refused(bytes: Vec<u8>, flip in 0usize..200, seed: u64) {
        let row = Observation::default();
        let _ = row.clone().split(Some(&bytes), &Order::default());
        let mut versioned = vec![1];
        versioned.extend(&bytes);
        let _ = row.clone().split(Some(&versioned), &Order::default());
        let mut random = Random::new(seed);
        let merged = merge(&random.events(Random::observation, end_us));
        if let Some(mut real) = merged.provenance {
            let at = flip % real.len();
            real[at] ^= 1 << (flip % 8);
            let _ = row.clone().split(Some(&real), &Order::default());
            real.truncate(at);
            let _ = row.split(Some(&real), &Order::default());
        }
    }
}

fn order(event_time_us: i64, is_update: bool, event_id: &str) -> Order {
    Order { event_time_us, is_update, event_id: event_id.into() }
}

/// Bytes at rest: these stay readable for ever.
#[test]
fn provenance_is_written_as_ever() {
    let (a, b) = (order(5, false, "x"), order(7, true, "y"));
    let create = Observation { name: Some("llm".into()), start_ns: Some(10), ..Default::default() };
    let update = Observation { output: Some("so".into()), tags: vec!["t".into()], ..Default::default() };
    let merged = merge(&[(a, create), (b, update)]);
    let golden = "010508051a01781000000000020000".to_owned() + "07080710011a01790000000080000200";
    assert_eq!(hex::encode(merged.provenance.unwrap()), golden);
}

#[test]
fn what_is_said_to_be_nothing_is_nothing_from_then_on_and_written_as_ever() {
    let (a, b, c) = (order(5, false, "x"), order(7, true, "y"), order(6, true, "z"));
    let create = Observation { name: Some("llm".into()), model: Some("m".into()), ..Default::default() };
    let update = Observation { cleared: observation_bits::name, ..Default::default() };
    let merged = merge(&[(a, create), (b, update)]);
    assert_eq!((merged.row.name.as_deref(), merged.row.model.as_deref()), (None, Some("m")));
    let golden = "020508051a01780000100000000000000000000000000007".to_owned()
        + "080710011a017910000000000000001000000000000000";
    assert_eq!(hex::encode(merged.provenance.clone().unwrap()), golden);
    let late = (c, Observation { name: Some("between".into()), ..Default::default() });
    let later = (order(8, true, "w"), Observation { name: Some("again".into()), ..Default::default() });
    assert_eq!(merge(&[split(merged.clone()), vec![]].concat()), merged);
    let mut events = split(merged);
    events.push(late);
    assert_eq!(merge(&events).row.name, None);
    events.push(later);
    let last = merge(&events).row;
    assert_eq!((last.name.as_deref(), last.cleared), (Some("again"), 0));
}

#[test]
fn usage_told_anew_replaces_all_counts() {
    let usage = |kind: &str, cached: Option<i64>| Observation {
        usage: [(kind.to_owned(), 1)].into(),
        input_tokens: Some(9),
        cached_input_tokens: cached,
        ..Default::default()
    };
    let first = (order(1, false, "a"), usage("a", Some(5)));
    let second = (order(3, true, "b"), usage("b", None));
    let merged = merge(&[first, second]);
    assert_eq!((merged.row.cached_input_tokens, merged.row.input_tokens), (None, Some(9)));
    let late = (order(2, true, "c"), usage("c", Some(7)));
    assert_eq!(merge(&[vec![late], split(merged)].concat()).row.cached_input_tokens, None);
}

#[test]
fn a_score_given_again_is_the_last_in_name_type_and_value() {
    let (number, word) = (
        Score { name: "q".into(), value: Some(1.0), comment: Some("c".into()), ..Default::default() },
        Score { name: "r".into(), data_type: 2, string_value: Some("good".into()), ..Default::default() },
    );
    let merged = merge(&[(order(1, false, "a"), number.clone()), (order(3, false, "b"), word)]);
    let said =
        |row: &Score| (row.name.clone(), row.data_type, row.value, row.string_value.clone(), row.comment.clone());
    let expected = ("r".to_owned(), 2, None, Some("good".to_owned()), Some("c".to_owned()));
    assert_eq!(said(&merged.row), expected);
    let events = [split(merged), vec![(order(2, false, "c"), number)]].concat();
    assert_eq!(said(&merge(&events).row), expected);
}

#[test]
fn a_version_to_come_is_refused_by_name() {
    let split = |bytes: &[u8]| Observation::default().split(Some(bytes), &Order::default()).unwrap_err().to_string();
    assert_eq!(split(&[3, 0]), "a row's provenance has version 3; this tracelake reads up to 2");
    assert_eq!(split(&[]), "a row's provenance is damaged: it is empty");
    assert_eq!(split(&[1]), "a row's provenance is damaged: it names no event");
    assert_eq!(split(&[1, 0, 1]), "a row's provenance is damaged: a set of fields is cut");
    assert_eq!(split(&[1, 9, 1]), "a row's provenance is damaged: an order is cut or garbled");
    let clears_more = [&[2, 0][..], &[1, 0, 0, 0, 0, 0, 0, 0], &[2, 0, 0, 0, 0, 0, 0, 0]].concat();
    assert!(split(&clears_more).ends_with("an event clears a field that it did not decide"));
    let unknown_field = [1, 0, 0, 0, 0, 0, 0, 0, 0, 0x80];
    assert!(split(&unknown_field).ends_with("it names fields that this tracelake does not know"));
}

#[test]
fn one_event_needs_provenance_only_where_its_time_is_not_the_rows_own() {
    let span = Observation { start_ns: Some(1_000), end_ns: Some(9_999), ..Default::default() };
    assert_eq!(Observation::alone(&order(9, false, "digest"), span.clone()).provenance, None);
    for (time_us, is_update) in [(9, true), (8, false)] {
        let merged = Observation::alone(&order(time_us, is_update, "digest"), span.clone());
        assert_eq!(split(merged), [(order(time_us, is_update, ""), span.clone())]);
    }
}

#[test]
fn what_no_event_claims_is_kept() {
    let merged = merge(&[
        (order(1, false, "a"), Observation { name: Some("n".into()), ..Default::default() }),
        (order(2, false, "b"), Observation { model: Some("m".into()), ..Default::default() }),
    ]);
    let row = Observation { user_id: Some("u".into()), ..merged.row };
    let events = row.split(merged.provenance.as_deref(), &Order::default()).unwrap();
    assert_eq!(events[0].1.user_id.as_deref(), Some("u"));
}

#[test]
fn a_late_event_between_two_that_wrote_a_map_loses_their_keys() {
    let says =
        |key: &str, value: &str| TraceFacts { metadata: [(key.into(), value.into())].into(), ..Default::default() };
    let written = merge(&[(order(1, false, "a"), says("k", "1")), (order(3, false, "c"), says("other", "3"))]);
    let late = (order(2, false, "b"), says("k", "2"));
    let again = merge(&[split(written), vec![late]].concat());
    assert_eq!(again.row.metadata["k"], "1", "in time it would be 2: that only the first said it is not kept");
}
