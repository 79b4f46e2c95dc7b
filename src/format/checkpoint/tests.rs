use serde_json::json;

use super::*;
use crate::format::delta::{CommitInfo, creation};
use crate::model::tables::Table;

fn info(timestamp: i64) -> Action {
    let commit = json!({"commitInfo": {"timestamp": timestamp, "operation": "WRITE"}}).to_string();
    delta::decode_commit(commit.as_bytes()).unwrap().remove(0)
}

fn add(path: &str) -> Action {
    Action::Add(Add {
        path: path.to_owned(),
        partition_values: BTreeMap::from([("day".to_owned(), Some("2026-11-21".to_owned()))]),
        size: 4711,
        modification_time: 12,
        data_change: true,
        stats: Some(r#"{"numRecords":3,"minValues":{"start_time":"2026-11-21T00:00:00.000Z"}}"#.to_owned()),
        tags: Some(BTreeMap::from([("tracelake.index".to_owned(), Some("an \"index\"".to_owned()))])),
    })
}

fn remove(path: &str, at_ms: i64) -> Action {
    Action::Remove(Remove {
        path: path.to_owned(),
        deletion_timestamp: Some(at_ms),
        data_change: true,
        ..Default::default()
    })
}

fn txn(app_id: &str, version: i64) -> Action {
    Action::Txn(Txn { app_id: app_id.to_owned(), version, last_updated: Some(7) })
}

fn state() -> LogState {
    let mut state = LogState::default();
    let [protocol, metadata] = creation(Table::Observations, "an-id".into(), 5);
    state.apply(0, vec![info(1_000), protocol, metadata, add("a"), txn("tracelake/main", 3)]);
    state.apply(1, vec![info(2_000), add("b"), add("c"), txn("tracelake/main", 9), txn("tracelake-late/0", 17)]);
    state.apply(2, vec![info(3_000), remove("a", 3_000), txn("somebody/else", -1)]);
    state
}

#[test]
fn a_checkpoint_reads_back_whole() {
    let state = state();
    let (bytes, hint) = encode(&state).unwrap();
    assert_eq!((hint.version, hint.size, hint.num_of_add_files), (2, 8, Some(2)));
    let read = decode(2, bytes.clone()).unwrap();
    assert_eq!(read, state);
    let removed = &read.removes["a"];
    assert_eq!((removed.size, removed.extended_file_metadata), (Some(4711), Some(true)));
    assert_eq!(removed.tags.as_ref().unwrap()["tracelake.index"].as_deref(), Some("an \"index\""));
    assert_eq!(read.adds["b"].tags.as_ref().unwrap()[TAG_VERSION].as_deref(), Some("1"));
    assert!(encode(&read).unwrap().0 == bytes, "the same state gives the same bytes");
}

#[test]
fn more_files_than_are_encoded_at_once_are_all_there() {
    let mut state = state();
    let many: Vec<Action> = (0..ROWS_AT_ONCE * 2 + 5).map(|at| add(&format!("day=2026-11-21/{at}.parquet"))).collect();
    state.apply(3, [vec![info(4_000)], many].concat());
    let (bytes, hint) = encode(&state).unwrap();
    assert_eq!(hint.num_of_add_files, Some(state.adds.len() as u64));
    assert_eq!(decode(3, bytes).unwrap(), state);
}

#[test]
fn old_removals_are_forgotten_and_young_ones_are_not() {
    let mut state = state();
    let later = 3_000 + REMOVALS_KEPT_MS + 1;
    state.apply(3, vec![info(later), remove("b", later)]);
    let read = decode(3, encode(&state).unwrap().0).unwrap();
    assert_eq!(read.removes.keys().collect::<Vec<_>>(), ["b"]);
    assert_eq!(read.adds.keys().collect::<Vec<_>>(), ["c"]);
}

#[test]
fn what_is_no_checkpoint_or_of_another_version_is_refused() {
    let (bytes, _) = encode(&state()).unwrap();
    for damaged in [Bytes::new(), Bytes::from_static(b"PAR1"), bytes.slice(..bytes.len() / 2)] {
        assert!(matches!(decode(2, damaged), Err(FormatError::Corrupt { .. })));
    }
    assert!(decode(3, bytes).unwrap_err().to_string().contains("version 2"));
    let nothing = LogState { version: Some(4), ..LogState::default() };
    assert!(encode(&nothing).is_err(), "a checkpoint without a schema would lose the table");
    let mut newer = state();
    newer.protocol.as_mut().unwrap().min_reader_version = 3;
    let (bytes, _) = encode(&newer).unwrap();
    assert!(matches!(decode(2, bytes), Err(FormatError::Newer { found: 3, .. })));
}

#[test]
fn a_commit_that_says_no_time_is_of_unknown_age() {
    let mut state = state();
    state.apply(3, vec![add("d")]);
    assert_eq!(state.committed_ms, 0);
    let said = CommitInfo {
        timestamp: 9,
        operation: String::new(),
        engine_info: String::new(),
        txn_id: String::new(),
        more: BTreeMap::new(),
    };
    state.apply(4, vec![Action::CommitInfo(said)]);
    assert_eq!(state.committed_ms, 9);
}
