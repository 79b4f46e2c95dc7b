//! Broken tables.

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};

use super::*;
use crate::format::checkpoint;
use crate::format::index::{self, FileIndex, IndexObject, KeyFilter};
use crate::format::rollup::{self, RollupEncoder, RollupKind};
use crate::store::{delta_checkpoint, delta_log, index_file, last_checkpoint, late_object, rollup_object};

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_is_missing_or_unreadable() {
    let world = World::healthy().await;
    world.store.delete(&delta_log(&acme(), "scores", Some(1))).await.unwrap();
    let missing = "ERROR acme/scores: commit 1 is missing, and no checkpoint stands for it";
    world.check(&[missing], false);
    let path = delta_log(&acme(), "ledger", Some(2));
    world.put(&path, "{\"add\":").await;
    world.check(&[missing, "ERROR acme/ledger: commit 2 cannot be read: … line 1"], false);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_a_checkpoint_stands_for() {
    let world = World::healthy().await;
    world.store.delete(&delta_log(&acme(), OBSERVATIONS.name(), Some(1))).await.unwrap();
    world.check(&["note acme/observations: commit 1 is missing; checkpoint 3 stands for it"], false);
    assert!(world.examine(false).await.is_healthy());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_that_is_damaged_or_lies() {
    let world = World::healthy().await;
    let path = delta_checkpoint(&acme(), OBSERVATIONS.name(), 3);
    let sound = world.get(&path).await;
    world.put(&path, sound.slice(..sound.len() / 2)).await;
    world.check(&["ERROR acme/observations: checkpoint 3 cannot be read"], true);
    assert_eq!(world.get(&path).await, sound, "made anew, byte for byte");

    let mut state = checkpoint::decode(3, sound).unwrap();
    let forgotten = state.adds.keys().next().unwrap().clone();
    let add = state.adds.remove(&forgotten).unwrap();
    world.put(&path, checkpoint::encode(&state).unwrap().0).await;
    // What servers load by it differs from the log as well.
    let lost = format!("ERROR acme/observations: checkpoint 3 differs from its log: {forgotten} is live and not in it");
    world.check(
        &[
            &lost,
            "ERROR acme/observations: servers load other files than its log says",
            "ERROR acme: the ledger says that 84 rows were stored; 64 stand",
        ],
        true,
    );
    state.adds.insert(forgotten, add);
    state.txns.values_mut().for_each(|txn| txn.version += 1);
    world.put(&path, checkpoint::encode(&state).unwrap().0).await;
    let found = world.examine(true).await;
    assert!(found.findings[0].what.contains("position of tracelake/main"), "{found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hint_that_is_missing_or_names_nothing() {
    let world = World::healthy().await;
    let hint = last_checkpoint(&acme(), OBSERVATIONS.name());
    world.store.delete(&hint).await.unwrap();
    let found = world.examine(false).await;
    assert_eq!(world.examine(false).await.findings, found.findings, "without a fix nothing changes");
    assert!(!found.is_healthy());
    world.check(&["warning acme/observations: the hint at its newest checkpoint is missing"], true);
    world.put(&hint, "not JSON").await;
    world.check(&["warning acme/observations: the hint at its newest checkpoint cannot be read"], true);
    world.put(&hint, r#"{"version":77,"size":1}"#).await;
    world.check(&["warning acme/observations: the hint names checkpoint 77, which is not there"], true);
    let checkpoint = delta_checkpoint(&acme(), OBSERVATIONS.name(), 3);
    world.store.delete(&checkpoint).await.unwrap();
    world.check(&["warning acme/observations: the hint names checkpoint 3, which is not there"], true);
    assert!(world.store.get(&checkpoint).await.unwrap().is_some(), "made from the log");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_gone_cut_or_overwritten() {
    let world = World::healthy().await;
    let file = world.first_file(OBSERVATIONS).await;
    let path = world.object(OBSERVATIONS, &file);
    let sound = world.get(&path).await;
    world.put(&path, sound.slice(1..)).await;
    let what = format!("ERROR acme/observations: {} has {} bytes where", file.path, sound.len() - 1);
    world.check(&[&what], false);
    world.put(&path, vec![7; sound.len()]).await;
    world.check(&[&format!("ERROR acme/observations: {} cannot be read", file.path)], false);
    world.store.delete(&path).await.unwrap();
    let what = format!("ERROR acme/observations: {} is live and not in the store: 20 rows are lost", file.path);
    world.check(&[&what], false);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_add_that_lies_about_its_file() {
    let world = World::healthy().await;
    // The ledger has no keys: nothing but rows and times can be wrong.
    let mut file = world.copied(Table::Ledger).await;
    file.stats = r#"{"numRecords":99}"#.to_owned();
    file.time_us = Some((1, 2));
    let path = file.path.clone();
    world.commit(Table::Ledger, vec![file], None).await;
    let found = world.examine(false).await;
    let said: Vec<&str> = found.findings.iter().map(|finding| finding.what.as_str()).collect();
    assert!(said.contains(&format!("{path} has 2 rows where its add says 99").as_str()), "{found}");
    assert!(said.iter().any(|what| what.contains("has rows outside of the times its add says")), "{found}");
    assert!(said.iter().any(|what| what.contains("the ledger says that 105 rows were stored; 84 stand")), "{found}");
    assert!(!found.is_healthy());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_is_missing_damaged_or_denies_a_key() {
    let world = World::healthy().await;
    let file = world.first_file(OBSERVATIONS).await;
    let id = file.index.clone().unwrap();
    let path = index_file(&acme(), OBSERVATIONS.name(), &id);
    let sound = world.get(&path).await;
    world.store.delete(&path).await.unwrap();
    world.check(&[&format!("ERROR acme/observations: index {id} of 1 live files is missing")], true);
    assert_eq!(index::decode(world.get(&path).await).unwrap(), index::decode(sound.clone()).unwrap());
    world.put(&path, sound.slice(..sound.len() - 3)).await;
    world.check(&[&format!("ERROR acme/observations: index {id} of 1 live files cannot be read")], true);
    let filter = || KeyFilter::of(vec![1, 2, 3]);
    let other = |path: &str, keys, traces| {
        let files = vec![FileIndex { path: path.to_owned(), keys, traces }];
        index::encode(&IndexObject { table: OBSERVATIONS.name().to_owned(), files })
    };
    let entry = index::decode(sound).unwrap().files.remove(0);
    for (broken, says) in [
        (other(&file.path, filter(), entry.traces.clone()), "holds keys that its filter denies"),
        (other(&file.path, entry.keys.clone(), filter()), "holds traces that its filter denies"),
        (other(&file.path, entry.keys.clone(), None), "has no trace filter"),
        (other("day=2020-01-01/else.parquet", entry.keys, entry.traces), "is not in it"),
    ] {
        world.put(&path, broken).await;
        world.check(&[&format!("ERROR acme/observations: index {id} of 1 live files is wrong … {says}")], true);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_stands_in_two_files() {
    let world = World::healthy().await;
    let twin = world.copied(Table::Scores).await;
    world.commit(Table::Scores, vec![twin], None).await;
    world.check(
        &[
            "ERROR acme/scores: score of acme- … stands 2 times: in day= … and day=",
            "ERROR acme/scores: it stands at … which ends at",
            "warning acme/scores: … has no index",
            "note acme: the books were not compared",
        ],
        false,
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_retention_took_are_in_the_books() {
    let world = World::healthy().await;
    let through = world.first_file(OBSERVATIONS).await.day;
    world.catalog.commit(&acme(), OBSERVATIONS, Change::DropDays { through }).await.unwrap();
    let found = world.examine(false).await;
    assert!(found.findings.is_empty(), "{found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_object_that_is_live_and_gone() {
    let world = World::healthy().await;
    world.commit(Table::TraceFacts, Vec::new(), Some(7)).await;
    world.check(&["ERROR acme/trace_facts: late object 7 is live and not in the store"], false);
    world.put(&late_object(&acme(), "trace_facts", Some(7)), "no envelope").await;
    world.check(&["ERROR acme/trace_facts: late object 7 cannot be read"], false);
}

#[tokio::test(flavor = "multi_thread")]
async fn orphans_are_counted_and_not_deleted_by_a_clock_that_is_ahead() {
    let world = World::healthy().await;
    let orphan = world.copied(OBSERVATIONS).await;
    let path = crate::store::data_object(&acme(), OBSERVATIONS.name(), &orphan.path);
    assert!(world.examine(false).await.findings.is_empty(), "a file that is young may be committed yet");
    world.clock.advance_us(25 * 3_600_000_000);
    let found = world.examine(false).await;
    assert!(found.findings[0].what.starts_with("1 objects") && found.is_healthy(), "{found}");
    let found = world.examine(true).await;
    let clock = found.findings.iter().filter(|finding| finding.what.contains("clock is"));
    assert!(clock.count() > 0 && !found.is_healthy(), "{found}");
    assert!(world.store.get(&path).await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_roll_up_that_is_missing_or_wrong() {
    let world = World::healthy().await;
    let rows = world.first_file(OBSERVATIONS).await.rows as i64;
    let sums = |rows: i64| {
        let schema = Arc::new(Schema::new(vec![Field::new(rollup::ROWS, DataType::Int64, false)]));
        let column: ArrayRef = Arc::new(Int64Array::from(vec![rows - 1, 1]));
        let sums = RecordBatch::try_new(Arc::clone(&schema), vec![column]).unwrap();
        let mut encoder = RollupEncoder::new(RollupKind::Traces, schema).unwrap();
        encoder.write(&sums).unwrap();
        encoder.finish().unwrap()
    };
    let (body, facts) = sums(rows);
    let mut copy = world.copied(OBSERVATIONS).await;
    copy.rollups.put(RollupKind::Traces, facts);
    let path = rollup_object(&acme(), RollupKind::Traces, OBSERVATIONS.name(), &copy.path);
    world.commit(OBSERVATIONS, vec![copy], None).await;
    let found = async |fix| {
        let found = world.examine(fix).await;
        let about = found.findings.into_iter().filter(|finding| finding.what.contains("roll-up"));
        about.map(|finding| (finding.what, finding.is_mended)).collect::<Vec<_>>()
    };
    let only = async |fix, what: &str, is_mended: bool| {
        let found = found(fix).await;
        assert!(matches!(&found[..], [(said, mended)] if said.contains(what) && *mended == is_mended), "{found:?}");
    };
    only(false, "is missing", false).await;
    world.put(&path, body).await;
    assert_eq!(found(false).await, []);
    world.put(&path, sums(rows + 1).0).await;
    only(false, &format!("sums up {} rows of {rows}", rows + 1), false).await;
    world.put(&path, Bytes::from(vec![0; facts.size_bytes as usize])).await;
    only(false, "cannot be read", false).await;
    world.put(&path, "short").await;
    only(true, "has 5 bytes where its add says", true).await;
    only(true, "is missing", false).await;
}
