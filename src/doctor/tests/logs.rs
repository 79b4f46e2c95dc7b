//! Broken logs of writers.

use super::*;
use crate::base::WriterId;
use crate::store::{log_object, low_mark};

fn main() -> WriterId {
    "main".parse().unwrap()
}

async fn mark(world: &World, sequence: u64) {
    world.put(&low_mark(&main(), Some(sequence)), "{\"version\":1}").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_is_missing_or_unreadable() {
    let world = World::healthy().await;
    let path = log_object(&main(), Some(3));
    let sound = world.get(&path).await;
    let mut damaged = sound.to_vec();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 0xff;
    world.put(&path, damaged).await;
    world.check(&["ERROR log main: object 3 cannot be read"], false);
    world.put(&path, world.get(&log_object(&main(), Some(4))).await).await;
    world.check(&["ERROR log main: object 3 says that it is 4 of log main"], false);
    world.put(&path, sound.slice(..sound.len() - 9)).await;
    world.check(&["ERROR log main: object 3 is torn, and 4 is not its claim"], false);
    world.store.delete(&path).await.unwrap();
    world.check(&["ERROR log main: object 3 is missing"], false);
    // Below the low mark objects go in any order.
    mark(&world, 4).await;
    assert!(world.examine(false).await.findings.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torn_end_is_no_trouble() {
    let world = World::healthy().await;
    let last = world.store.list(&log_object(&main(), None), None).await.unwrap().pop().unwrap().location;
    let next = crate::store::log_sequence(&last).unwrap() + 1;
    let body = world.get(&last).await;
    world.put(&log_object(&main(), Some(next)), body.slice(..body.len() / 2)).await;
    let found = world.examine(false).await;
    assert!(found.findings.len() == 1 && found.findings[0].what.contains("is torn: it was never acked"), "{found}");
    assert!(found.is_healthy());
    // The next owner's claim says so.
    let ingest = world.ingest().await;
    ingest.stop().await.unwrap();
    let found = world.examine(false).await;
    assert!(found.findings.is_empty(), "{found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mark_that_says_too_much() {
    let world = World::healthy().await;
    let ingest = world.ingest().await;
    world.send(&ingest, "acme", "never flushed", 3).await;
    let listed = world.store.list(&log_object(&main(), None), None).await.unwrap();
    let end = crate::store::log_sequence(&listed.last().unwrap().location).unwrap();
    mark(&world, end + 1).await;
    world.check(&["ERROR acme/ledger: it stands at … and is marked as if it were"], false);
    mark(&world, end + 5).await;
    world.check(
        &[
            "ERROR acme/ledger: it stands at … and is marked as if it were",
            "ERROR log main: it is marked as committed below … and ends at",
        ],
        false,
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_stand_further_than_their_log() {
    let world = World::healthy().await;
    let listed = world.store.list(&log_object(&main(), None), None).await.unwrap();
    for meta in listed.iter().skip(4) {
        world.store.delete(&meta.location).await.unwrap();
    }
    let found = world.examine(false).await;
    let errors = found.findings.iter().filter(|finding| finding.what.contains("of log main, which ends at 4"));
    // Trace facts are written for no trace that says nothing of itself.
    assert!(errors.count() >= 8 && !found.is_healthy(), "{found}");
}
