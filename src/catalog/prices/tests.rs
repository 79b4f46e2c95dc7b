use std::sync::Arc;

use object_store::memory::InMemory;

use super::*;
use crate::base::{Kind, ManualClock};
use crate::price::{Ask, ModelText, PriceText, Quantities, TierText, WhenText};
use crate::store::{Location, Store};

fn memory() -> Location {
    Location::Memory(Arc::new(InMemory::new()))
}

/// One process's view of the books in a store, and the store.
async fn books(location: &Location) -> (PriceBooks, Store) {
    let store = Store::open(location.clone()).await.unwrap();
    (PriceBooks::new(SystemObjects::new(store.clone(), Arc::new(ManualClock::at(1_000_000)))), store)
}

fn acme() -> TenantId {
    "acme".parse().unwrap()
}

/// A model that costs so many dollars for a million input tokens.
fn model(id: &str, usd: &str) -> ModelText {
    let usd_per_million = [("input".to_owned(), usd.to_owned())].into();
    let tier = TierText { name: "t".into(), when: WhenText::default(), usd_per_million, usd_per_unit: BTreeMap::new() };
    let price = PriceText { valid_from: None, tiers: vec![tier] };
    ModelText { id: id.into(), providers: vec![], pattern: id.into(), created: None, prices: vec![price] }
}

async fn set(books: &PriceBooks, tenant: &TenantId, id: &str, usd: &str) -> Result<Arc<Prices>> {
    let put = |book: &mut BookText| {
        book.put(model(id, usd));
        Ok(())
    };
    books.change(tenant, "pk-test", put).await
}

/// What a million input tokens cost, and by which price.
fn cost(prices: &Prices, model: &str) -> Option<(String, String)> {
    let usage = Quantities::from_inclusive(Some(1_000_000), None, None, None, None, &BTreeMap::new());
    let ask = Ask {
        model,
        provider: None,
        at_us: 1_790_000_000_000_000,
        service_tier: None,
        speed: None,
        duration_us: None,
        usage: &usage,
    };
    prices.price(&ask).map(|priced| (priced.total.to_string(), priced.price_id))
}

fn costs(usd: &str, price_id: &str) -> Option<(String, String)> {
    Some((usd.to_owned(), price_id.to_owned()))
}

#[tokio::test]
async fn a_change_holds_here_at_once_and_elsewhere_when_asked_for_and_for_its_tenant_alone() {
    let location = memory();
    let ((here, _), (there, store)) = (books(&location).await, books(&location).await);
    for side in [&here, &there] {
        side.catch_up().await.unwrap();
    }
    let set = set(&here, &acme(), "acme-llm", "3").await.unwrap();
    assert_eq!(cost(&set, "acme-llm"), costs("3", "own-1/acme-llm/start/t"));
    assert_eq!(here.current(&acme()), set);
    assert_eq!(cost(&there.current(&acme()), "acme-llm"), None);
    there.catch_up().await.unwrap();
    assert_eq!(cost(&there.current(&acme()), "acme-llm"), costs("3", "own-1/acme-llm/start/t"));
    assert_eq!(cost(&there.current(&"globex".parse().unwrap()), "acme-llm"), None);
    // A round without news is one request, and no LIST.
    let before = store.counts();
    there.catch_up().await.unwrap();
    let after = store.counts();
    assert_eq!((after.get - before.get, after.list - before.list, after.put - before.put), (1, 0, 0));
}

#[tokio::test]
async fn every_version_prices_as_it_always_did_after_any_restart() {
    let location = memory();
    let (here, _) = books(&location).await;
    let mut versions = Vec::new();
    for usd in ["1", "2", "3"] {
        versions.push((set(&here, &acme(), "acme-llm", usd).await.unwrap().version().to_string(), usd));
    }
    // The same again is no new version.
    assert_eq!(**set(&here, &acme(), "acme-llm", "3").await.unwrap().version(), versions[2].0);
    let (restarted, _) = books(&location).await;
    for (version, usd) in &versions {
        let prices = restarted.at(&acme(), version).await.unwrap();
        assert_eq!(prices.version().as_ref(), version);
        assert_eq!(cost(&prices, "acme-llm").unwrap().0, *usd, "{version}");
        assert_eq!(cost(&prices, "gpt-4o").unwrap().0, "2.5", "the shipped book is below it");
    }
    restarted.catch_up().await.unwrap();
    assert_eq!(restarted.current(&acme()).version().as_ref(), versions[2].0);
}

#[tokio::test]
async fn a_version_that_is_not_there_is_an_error_that_names_it() {
    let (books, _) = books(&memory()).await;
    let shipped = PriceBook::built_in().version().to_owned();
    for version in ["1999-01-01", "", "../keys", &format!("{shipped}+own-9"), &format!("{shipped}+x")] {
        let error = books.at(&acme(), version).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Corrupt, "{version:?}");
        assert!(error.to_string().contains(version), "{error}");
    }
}

#[tokio::test]
async fn the_book_a_program_came_with_is_kept_for_those_after_it() {
    let location = memory();
    let (here, store) = books(&location).await;
    here.publish().await.unwrap();
    here.publish().await.unwrap();
    // As an older program left it.
    let objects = SystemObjects::new(store, Arc::new(ManualClock::at(0)));
    let book = BookText { models: vec![model("gpt-4o", "77")], ..BookText::empty("2020-01-01") };
    objects.create(SHIPPED, "2020-01-01", ShippedBook { book }).await.unwrap();
    set(&here, &acme(), "acme-llm", "3").await.unwrap();
    let old = here.at(&acme(), "2020-01-01+own-1").await.unwrap();
    assert_eq!(cost(&old, "gpt-4o"), costs("77", "2020-01-01/gpt-4o/start/t"));
    assert_eq!(cost(&old, "acme-llm"), costs("3", "own-1/acme-llm/start/t"));
    let kept: ShippedBook = objects.get(SHIPPED, PriceBook::built_in().version()).await.unwrap().unwrap();
    assert_eq!(kept.book, PriceBook::built_in_text());
}

#[tokio::test]
async fn changes_at_the_same_time_are_all_kept() {
    let location = memory();
    let sides = futures::future::join_all((0..8).map(|_| books(&location))).await;
    let changes = sides.iter().enumerate().map(|(side, (books, _))| async move {
        set(books, &acme(), &format!("model-{side}"), "1").await.unwrap();
    });
    futures::future::join_all(changes).await;
    let text = sides[0].0.own_text(&acme()).await.unwrap();
    assert_eq!((text.version.as_str(), text.models.len()), ("own-8", 8));
    for (books, _) in &sides {
        books.catch_up().await.unwrap();
        assert_eq!(books.current(&acme()).own().unwrap().version(), "own-8");
    }
}

#[tokio::test]
async fn what_would_not_be_sound_is_refused_and_nothing_is_written() {
    let (books, store) = books(&memory()).await;
    let before = store.counts().put;
    let bomb = ModelText { pattern: "(a{500}){500}".into(), ..model("a", "1") };
    for (wrong, why) in [
        (ModelText { pattern: "(?<=a)b".into(), ..model("a", "1") }, "no regular expression"),
        (bomb, "size limit"),
        (model("a", "-1"), "not a decimal"),
        (model("", "1"), "an id has 1 to"),
    ] {
        let put = |book: &mut BookText| {
            book.put(wrong.clone());
            Ok(())
        };
        let error = books.change(&acme(), "pk-test", put).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid);
        assert!(error.to_string().contains(why), "{error}");
    }
    assert_eq!(store.counts().put, before);
}
