pub(super) mod random;

use proptest::prelude::*;

use super::*;

fn order(event_time_us: i64, is_update: bool, event_id: &str) -> Order {
    Order { event_time_us, is_update, event_id: event_id.into() }
}

#[test]
fn an_update_before_its_create_merges_as_if_it_came_after() {
    let create =
        Observation { name: Some("llm".into()), start_ns: Some(10), tags: vec!["b".into()], ..Default::default() };
    let update = Observation { end_ns: Some(5), start_ns: Some(99), tags: vec!["a".into()], ..Default::default() };
    let (first, second) = (order(7, false, "x"), order(7, true, "a"));
    assert!(first < second, "create before update on a tie");
    let merged = merge_observation(&[(&first, &create), (&second, &update)]);
    assert_eq!(merged.row.name.as_deref(), Some("llm"));
    assert_eq!(merged.row.start_ns, Some(10), "the first start wins");
    assert_eq!(merged.row.end_ns, Some(10), "an end before the start is the start");
    assert_eq!(merged.row.tags, ["a", "b"]);
    assert!(merged.provenance.is_some());
}

#[test]
fn a_row_of_one_event_has_no_provenance() {
    let event = Observation { id: "o".into(), ..Default::default() };
    let merged = merge_observation(&[(&order(1, false, "e"), &event)]);
    assert_eq!(merged, Merged { row: event, provenance: None });
}

#[test]
fn a_later_event_without_metadata_keys_keeps_the_earlier_ones() {
    let facts = |pairs: &[(&str, &str)]| TraceFacts {
        metadata: pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
        ..Default::default()
    };
    let (a, b, c) = (facts(&[("k", "1"), ("only", "a")]), facts(&[("k", "2")]), facts(&[]));
    let (x, y, z) = (order(1, false, ""), order(2, false, ""), order(3, false, ""));
    let merged = merge_trace(&[(&x, &a), (&y, &b), (&z, &c)]).row;
    assert_eq!(merged.metadata, facts(&[("k", "2"), ("only", "a")]).metadata);
}

proptest! {
    /// I3: a merged set can be merged again with what it already holds, and nothing changes.
    #[test]
    fn merging_is_idempotent(times in proptest::collection::vec(0i64..50, 1..6), names in proptest::collection::vec("[a-c]?", 6)) {
        let mut events: Vec<(Order, Observation)> = times.iter().zip(&names).enumerate().map(|(at, (time, name))| {
            let name = Some(name.clone()).filter(|name| !name.is_empty());
            (order(*time, at % 2 == 1, &at.to_string()), Observation { name, start_ns: Some(*time), ..Default::default() })
        }).collect();
        events.sort_by(|a, b| a.0.cmp(&b.0));
        let borrowed: Vec<_> = events.iter().map(|(order, event)| (order, event)).collect();
        let once = merge_observation(&borrowed);
        let doubled: Vec<_> = borrowed.iter().flat_map(|event| [*event, *event]).collect();
        prop_assert_eq!(once.row, merge_observation(&doubled).row);
    }
}
