//! Tables are loaded from checkpoints, and a checkpoint says what the log says.

use bytes::Bytes;

use super::*;
use crate::store::{delta_checkpoint, delta_log, last_checkpoint};

const TABLE: Table = Table::Observations;

async fn grown(location: &Location, commits: u64) -> Catalog {
    let catalog = catalog(location, None).await;
    for position in 0..commits {
        catalog.commit(&tenant(), TABLE, append("w", position, position + 1, 2)).await.unwrap();
    }
    catalog
}

/// The checkpoint is written behind the commit.
async fn hinted(catalog: &Catalog) -> Bytes {
    for _ in 0..500 {
        if let Some(hint) = catalog.store().get(&last_checkpoint(&tenant(), TABLE.name())).await.unwrap() {
            return hint;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("no checkpoint was written");
}

#[tokio::test]
async fn the_fiftieth_commit_leaves_a_checkpoint_and_loading_lists_nothing() {
    let location = memory();
    let grown = grown(&location, CHECKPOINT_EVERY + 3).await;
    let hint: serde_json::Value = serde_json::from_slice(&hinted(&grown).await).unwrap();
    assert!(hint["version"].as_u64().unwrap() >= CHECKPOINT_EVERY - 1, "{hint}");
    // What a checkpoint must hold beyond files and positions.
    let first = grown.known_snapshot(&tenant(), TABLE).await.unwrap().files.keys().next().cloned().unwrap();
    let rewrite =
        Change::Rewrite(Rewrite { inputs: vec![first.clone()], outputs: vec![file(1, 2)], ..Default::default() });
    grown.commit(&tenant(), TABLE, rewrite).await.unwrap();
    grown.checkpoint(&tenant(), TABLE).await.unwrap();
    let known = grown.known_snapshot(&tenant(), TABLE).await.unwrap();

    let fresh = catalog(&location, None).await;
    let before = fresh.store().counts();
    let loaded = fresh.snapshot(&tenant(), TABLE).await.unwrap();
    let after = fresh.store().counts();
    assert_eq!(after.list - before.list, 0, "I10");
    assert!(after.get - before.get <= 4, "{} requests for a table with a new checkpoint", after.get - before.get);
    assert_eq!(loaded.files, known.files, "also since which version each file is there");
    assert_eq!((loaded.version, &loaded.positions), (known.version, &known.positions));
    assert_eq!(loaded.removed[&first].size_bytes, 10, "what belonged to a removed file is known");
    assert_eq!(loaded.removed.keys().collect::<Vec<_>>(), known.removed.keys().collect::<Vec<_>>());
    fresh.commit(&tenant(), TABLE, append("w", CHECKPOINT_EVERY + 3, CHECKPOINT_EVERY + 4, 1)).await.unwrap();
}

#[tokio::test]
async fn a_table_without_its_early_log_is_whole() {
    let location = memory();
    let grown = grown(&location, 30).await;
    let version = grown.checkpoint(&tenant(), TABLE).await.unwrap().unwrap();
    grown.commit(&tenant(), TABLE, append("w", 30, 31, 2)).await.unwrap();
    for early in 0..version {
        grown.store().delete(&delta_log(&tenant(), TABLE.name(), Some(early))).await.unwrap();
    }
    let fresh = catalog(&location, None).await;
    assert_eq!(fresh.snapshot(&tenant(), TABLE).await.unwrap().rows(), 62);
    // Also when the hint is lost: then one LIST finds the checkpoint.
    grown.store().delete(&last_checkpoint(&tenant(), TABLE.name())).await.unwrap();
    let fresh = catalog(&location, None).await;
    assert_eq!(fresh.snapshot(&tenant(), TABLE).await.unwrap().rows(), 62);
    assert_eq!(fresh.store().counts().list, 1);
}

#[tokio::test]
async fn a_damaged_hint_or_checkpoint_is_gone_round_while_the_log_is_there() {
    let location = memory();
    let grown = grown(&location, 20).await;
    let version = grown.checkpoint(&tenant(), TABLE).await.unwrap().unwrap();
    let (hint, object) = (last_checkpoint(&tenant(), TABLE.name()), delta_checkpoint(&tenant(), TABLE.name(), version));
    for (path, damage) in
        [(&hint, "{\"version\":"), (&hint, "{\"version\":99,\"size\":1}"), (&object, "PAR1 not really")]
    {
        grown.store().put(path, Bytes::from(damage)).await.unwrap();
        let fresh = catalog(&location, None).await;
        assert_eq!(fresh.snapshot(&tenant(), TABLE).await.unwrap().rows(), 40, "{damage}");
    }
    for early in 0..3 {
        grown.store().delete(&delta_log(&tenant(), TABLE.name(), Some(early))).await.unwrap();
    }
    let fresh = catalog(&location, None).await;
    let error = fresh.snapshot(&tenant(), TABLE).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Corrupt, "never silently less: {error}");
}

#[tokio::test]
async fn a_gap_after_a_checkpoint_stops_loudly() {
    let location = memory();
    let grown = grown(&location, 20).await;
    grown.checkpoint(&tenant(), TABLE).await.unwrap();
    for position in 20..26 {
        grown.commit(&tenant(), TABLE, append("w", position, position + 1, 2)).await.unwrap();
    }
    grown.store().delete(&delta_log(&tenant(), TABLE.name(), Some(23))).await.unwrap();
    let error = catalog(&location, None).await.snapshot(&tenant(), TABLE).await.unwrap_err();
    assert!(error.to_string().contains("commit 23 is missing"), "{error}");
}

#[tokio::test]
async fn late_objects_are_live_through_checkpoints() {
    let location = memory();
    let grown = grown(&location, 3).await;
    for (from, number) in [(3, 70), (4, 71)] {
        let Change::Append(mut change) = append("w", from, from + 1, 1) else { unreachable!() };
        change.late = Some(number);
        grown.commit(&tenant(), TABLE, Change::Append(change)).await.unwrap();
    }
    let fold = Rewrite { folded: vec![70], dropped: 0, late: Some(72), ..Default::default() };
    grown.commit(&tenant(), TABLE, Change::Rewrite(fold)).await.unwrap();
    let known = grown.known_snapshot(&tenant(), TABLE).await.unwrap();
    assert_eq!(known.late.values().copied().collect::<Vec<_>>(), [72, 71]);
    assert_eq!(known.late_freed.keys().copied().collect::<Vec<_>>(), [70]);
    grown.checkpoint(&tenant(), TABLE).await.unwrap();
    let loaded = catalog(&location, None).await.snapshot(&tenant(), TABLE).await.unwrap();
    assert_eq!(loaded.late, known.late);
    assert!(loaded.late_freed_before_us > 0, "which of them went before is not known, only when the last did");
}

#[tokio::test]
async fn what_retention_drops_is_counted_through_checkpoints() {
    let location = memory();
    let grown = grown(&location, 5).await;
    grown.commit(&tenant(), TABLE, Change::DropDays { through: Day::from_days(1) }).await.unwrap();
    grown.checkpoint(&tenant(), TABLE).await.unwrap();
    let loaded = catalog(&location, None).await.snapshot(&tenant(), TABLE).await.unwrap();
    assert_eq!((loaded.rows(), loaded.dropped_rows), (0, 10));
}
