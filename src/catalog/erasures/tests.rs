use std::collections::BTreeSet;

use object_store::memory::InMemory;

use super::*;
use crate::base::{Clock, Kind, ManualClock};
use crate::format::index::key_hash;
use crate::store::{Location, Store};

async fn store() -> Store {
    Store::open(Location::Memory(Arc::new(InMemory::new()))).await.unwrap()
}

fn asked(kind: ErasureKind, values: &[&str]) -> NewErasure {
    NewErasure {
        tenant: "acme".parse().unwrap(),
        kind,
        values: values.iter().map(|value| value.to_string()).collect(),
        asked_by: "pk".to_owned(),
        traces: BTreeSet::new(),
    }
}

#[tokio::test]
async fn every_process_learns_what_any_of_them_was_asked_and_numbers_have_no_gaps() {
    let (store, clock) = (store().await, ManualClock::at(1_000));
    let open = async || {
        let erasures = Erasures::new(SystemObjects::new(store.clone(), Arc::new(clock.clone())));
        erasures.catch_up().await.unwrap();
        erasures
    };
    let (one, two) = (open().await, open().await);
    let acme: TenantId = "acme".parse().unwrap();
    one.ask(asked(ErasureKind::Trace, &["t"])).await.unwrap();
    let user = two.ask(asked(ErasureKind::User, &["ada@example.org"])).await.unwrap();
    assert_eq!(user.number, 2, "the number that was taken is passed over");
    assert!(two.denied(&acme).unwrap().trace("t", 1_000), "and what it says is in force");
    assert!(!one.denied(&acme).unwrap().owner(Some("ada@example.org"), None, 1_000));
    one.catch_up().await.unwrap();
    assert!(one.denied(&acme).unwrap().owner(Some("ada@example.org"), None, 1_000));
    assert!(!one.denied(&acme).unwrap().owner(Some("bob"), Some("ada@example.org"), 1_000));
    assert_eq!(open().await.after(0).len(), 2);
    let stands: Vec<_> = store.list(&crate::store::system(ERASURES, ""), None).await.unwrap();
    for meta in stands {
        let body = store.get(&meta.location).await.unwrap().unwrap();
        assert!(!String::from_utf8_lossy(&body).contains("ada@"), "a person's name is not kept by being forgotten");
    }
}

#[tokio::test]
async fn what_is_erased_is_refused_for_seven_days_and_traces_of_a_person_with_it() {
    let clock = ManualClock::at(0);
    let erasures = Erasures::new(SystemObjects::new(store().await, Arc::new(clock)));
    let acme: TenantId = "acme".parse().unwrap();
    let traces = [key_hash(&["t1"])].into();
    let erasure = erasures.ask(NewErasure { traces, ..asked(ErasureKind::Session, &["s"]) }).await.unwrap();
    erasures.set_rewritten(&erasure, Rewritten { at_us: 60_000_000, ..Default::default() }).await.unwrap();
    let denied = erasures.denied(&acme).unwrap();
    assert!(denied.owner(None, Some("s"), REFUSED_FOR_US - 1) && denied.trace("t1", REFUSED_FOR_US - 1));
    assert!(!denied.owner(None, Some("s"), REFUSED_FOR_US) && !denied.trace("t1", REFUSED_FOR_US));
    assert!(!denied.is_over(REFUSED_FOR_US - 1) && denied.is_over(REFUSED_FOR_US));
    denied.learn("t1", None, Some("s"), 3);
    denied.learn("t2", None, Some("s"), 4);
    denied.learn("t3", Some("s"), None, 4);
    denied.learn("t4", None, Some("s"), REFUSED_FOR_US);
    assert!(denied.trace("t2", 5) && !denied.trace("t3", 5) && !denied.trace("t4", 5) && !denied.all());
    assert_eq!(denied.learned(), [("t2".to_owned(), 4)], "what no erasure names yet");
    erasures.ask(asked(ErasureKind::Trace, &["t2"])).await.unwrap();
    assert!(denied.trace("t2", 5) && denied.learned().is_empty());
    erasures.ask(asked(ErasureKind::Tenant, &["acme"])).await.unwrap();
    assert!(denied.all() && denied.trace("anything", i64::MAX - 1));
}

#[tokio::test]
async fn what_files_still_hold_is_refused_until_they_are_written_again() {
    let (store, clock) = (store().await, ManualClock::at(0));
    let open = || Erasures::new(SystemObjects::new(store.clone(), Arc::new(clock.clone())));
    let (one, two) = (open(), open());
    let acme: TenantId = "acme".parse().unwrap();
    let early = one.ask(asked(ErasureKind::Trace, &["early"])).await.unwrap();
    let late = one.ask(asked(ErasureKind::Trace, &["late", "early"])).await.unwrap();
    two.catch_up().await.unwrap();
    one.set_rewritten(&early, Rewritten { at_us: 5, ..Default::default() }).await.unwrap();
    clock.advance_us(REFUSED_FOR_US + LOOK_EVERY_US);
    let refused = |erasures: &Erasures, trace: &str, at_us| erasures.denied(&acme).unwrap().trace(trace, at_us);
    for erasures in [&one, &two] {
        erasures.catch_up().await.unwrap();
        assert!(refused(erasures, "late", clock.now_us()));
        assert!(refused(erasures, "early", clock.now_us()), "one of the two that name it is open");
    }
    let rewritten_us = clock.now_us();
    one.set_rewritten(&late, Rewritten { at_us: rewritten_us, ..Default::default() }).await.unwrap();
    two.catch_up().await.unwrap();
    assert!(refused(&two, "late", rewritten_us + 1), "it looked less than a minute ago");
    clock.advance_us(LOOK_EVERY_US);
    two.catch_up().await.unwrap();
    let three = open();
    three.catch_up().await.unwrap();
    for erasures in [&one, &two, &three] {
        for trace in ["early", "late"] {
            assert!(refused(erasures, trace, rewritten_us - 1) && !refused(erasures, trace, rewritten_us), "{trace}");
        }
    }
}

#[tokio::test]
async fn the_state_follows_what_was_written_down() {
    let erasures = Erasures::new(SystemObjects::new(store().await, Arc::new(ManualClock::at(0))));
    for bad in [&[][..], &[""], &["x"; SUBJECTS_MAX + 1]] {
        assert_eq!(erasures.ask(asked(ErasureKind::Trace, bad)).await.unwrap_err().kind(), Kind::Invalid);
    }
    let erasure = erasures.ask(asked(ErasureKind::Trace, &["t"])).await.unwrap();
    let state = async || erasures.state(&erasure).await.unwrap().0;
    assert_eq!(state().await, ErasureState::Asked);
    erasures.add_masked(&erasure, Masked::default()).await.unwrap();
    assert_eq!(state().await, ErasureState::Masked);
    let first = Rewritten { files: 1, ..Default::default() };
    erasures.set_rewritten(&erasure, first.clone()).await.unwrap();
    let second = erasures.set_rewritten(&erasure, Rewritten { files: 2, ..Default::default() }).await.unwrap();
    assert_eq!(second, first, "what was written first stands");
    assert_eq!(state().await, ErasureState::Rewritten);
    let acme: TenantId = "acme".parse().unwrap();
    assert_eq!(erasures.find(&acme, &erasure.id).unwrap().number, 1);
    let other: TenantId = "other".parse().unwrap();
    assert_eq!(erasures.find(&other, &erasure.id).unwrap_err().kind(), Kind::NotFound);
}
