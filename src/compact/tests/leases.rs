//! One holder at a time; a lease runs out, is renewed, and is given back.

use std::time::Duration;

use object_store::memory::InMemory;

use super::tables::*;
use crate::base::ManualClock;
use crate::compact::lease::Leases;
use crate::model::tables::Table;
use crate::store::{Location, SeededFaults, Store};

const LENGTH: Duration = Duration::from_millis(600);
const TABLE: Table = Table::Scores;

fn memory() -> Location {
    Location::Memory(std::sync::Arc::new(InMemory::new()))
}

async fn leases(location: &Location, now_us: i64) -> Leases {
    let store = Store::open(location.clone()).await.unwrap();
    Leases::new(store, as_clock(&ManualClock::at(now_us)), LENGTH)
}

#[tokio::test]
async fn one_holds_it_until_it_is_given_back() {
    let location = memory();
    let (one, two) = (leases(&location, NOW_US).await, leases(&location, NOW_US).await);
    for _ in 0..3 {
        let held = one.claim(&tenant(), TABLE, day()).await.unwrap().unwrap();
        assert!(two.claim(&tenant(), TABLE, day()).await.unwrap().is_none());
        assert!(one.claim(&tenant(), TABLE, day()).await.unwrap().is_none(), "also not twice in one process");
        held.release().await;
        let held = two.claim(&tenant(), TABLE, day()).await.unwrap().unwrap();
        assert!(one.claim(&tenant(), TABLE, day()).await.unwrap().is_none());
        held.release().await;
    }
    let left = one.claim(&tenant(), TABLE, day()).await.unwrap().unwrap();
    drop(left);
    let objects = Store::open(location).await.unwrap().list(&"leases".into(), None).await.unwrap();
    assert!(objects.len() <= 2, "numbers before the highest go: {}", objects.len());
}

#[tokio::test]
async fn a_dead_holder_is_followed_when_its_lease_ran_out_whatever_the_clocks_say() {
    // The other's clock is right, an hour early, an hour late.
    for skew_us in [0, 3_600_000_000, -3_600_000_000] {
        let location = memory();
        let (one, two) = (leases(&location, NOW_US).await, leases(&location, NOW_US - skew_us).await);
        let dead = one.claim(&tenant(), TABLE, day()).await.unwrap().unwrap();
        assert!(dead.is_valid());
        if skew_us >= 0 {
            assert!(two.claim(&tenant(), TABLE, day()).await.unwrap().is_none());
        }
        tokio::time::sleep(LENGTH * 2).await;
        assert!(!dead.is_valid());
        let held = two.claim(&tenant(), TABLE, day()).await.unwrap();
        assert!(held.is_some(), "skew {skew_us}");
        dead.release().await;
        assert!(held.unwrap().is_valid(), "what ran out cannot be given back");
        let three = leases(&location, NOW_US - skew_us).await;
        assert!(three.claim(&tenant(), TABLE, day()).await.unwrap().is_none());
    }
}

#[tokio::test]
async fn a_lease_that_is_kept_does_not_run_out_and_one_taken_over_says_so() {
    let location = memory();
    let (one, two) = (leases(&location, NOW_US).await, leases(&location, NOW_US).await);
    let mut held = one.claim(&tenant(), TABLE, day()).await.unwrap().unwrap();
    for _ in 0..5 {
        let kept = tokio::time::timeout(LENGTH / 2, held.keep()).await;
        assert!(kept.is_err() && held.is_valid());
        assert!(two.claim(&tenant(), TABLE, day()).await.unwrap().is_none());
    }
    // It sleeps, and another takes over.
    tokio::time::sleep(LENGTH * 2).await;
    let other = two.claim(&tenant(), TABLE, day()).await.unwrap().unwrap();
    let lost = held.keep().await;
    assert!(lost.to_string().contains("taken over"), "{lost}");
    assert!(other.is_valid());
}

#[tokio::test]
async fn of_many_who_claim_on_a_bad_store_one_succeeds() {
    for seed in 0..6 {
        let location = memory();
        let claims = (0..8u64).map(|at| {
            let location = location.clone();
            async move {
                let faults = std::sync::Arc::new(SeededFaults::new(seed * 100 + at, 10, 20, 20));
                let store = Store::with_faults(location, faults).await.unwrap();
                let leases = Leases::new(store, as_clock(&ManualClock::at(NOW_US)), LENGTH);
                leases.claim(&tenant(), TABLE, day()).await.ok().flatten()
            }
        });
        let held = futures::future::join_all(claims).await.into_iter().flatten().count();
        assert!(held <= 1, "seed {seed}: {held} hold it");
    }
}
