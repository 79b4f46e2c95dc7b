//! Rows are priced by the books that their log frames are stamped with, whatever happens between.

use super::*;
use crate::catalog::prices::PriceBooks;
use crate::price::{BookText, ModelText, PriceText, TierText, WhenText};

fn acme() -> TenantId {
    "acme".parse().unwrap()
}

impl Process {
    /// A million input tokens of `acme-llm` cost this from now on.
    fn set_price(&self, usd: &str) {
        let usd_per_million = [("input".to_owned(), usd.to_owned())].into();
        let tier =
            TierText { name: "t".into(), when: WhenText::default(), usd_per_million, usd_per_unit: BTreeMap::new() };
        let prices = vec![PriceText { valid_from: None, tiers: vec![tier] }];
        let (id, pattern) = ("acme-llm".to_owned(), "acme-llm".to_owned());
        let model = ModelText { id, providers: vec![], pattern, created: None, prices };
        let put = |book: &mut BookText| {
            book.put(model.clone());
            Ok(())
        };
        let books: &PriceBooks = self.catalog.prices();
        self.run(books.change(&acme(), "test", put)).unwrap();
    }

    /// A call of `acme-llm` that used a million tokens.
    fn call(&self, id: &str, is_open: bool) {
        self.append("acme", vec![call(id, 0, is_open)]).unwrap();
    }

    fn costs(&self) -> Vec<(String, Option<String>)> {
        let mut costs = Vec::new();
        for batch in self.rows("acme", Table::Observations) {
            let text = |name: &str| batch.column_by_name(name).unwrap().as_string_view().clone();
            let ids = text("id");
            let prices = text("price_id");
            costs.extend(
                ids.iter().zip(prices.iter()).map(|(id, price)| (id.unwrap().to_owned(), price.map(str::to_owned))),
            );
        }
        costs.sort();
        costs
    }
}

fn call(id: &str, event_time_us: i64, is_open: bool) -> Event {
    let observation = Observation {
        trace_id: "t".into(),
        id: id.into(),
        parent_id: Some("r".into()),
        model: Some("acme-llm".into()),
        start_ns: Some(START_US * 1000),
        end_ns: (!is_open).then_some(START_US * 1000 + 1),
        input_tokens: Some(1_000_000),
        ..Default::default()
    };
    let order = Order { event_time_us: START_US + event_time_us, is_update: event_time_us > 0, event_id: id.into() };
    Event { order, kind: Some(EventKind::Observation(observation)) }
}

fn by_book(expected: &[(&str, Option<u64>)]) -> Vec<(String, Option<String>)> {
    let price = |number: u64| format!("own-{number}/acme-llm/start/t");
    expected.iter().map(|(id, number)| ((*id).to_owned(), number.map(price))).collect()
}

#[test]
fn a_row_is_priced_by_the_book_that_held_when_it_came_in_also_after_a_crash() {
    let world = World::new();
    let process = Process::start(&world, "main");
    process.call("a", false);
    process.set_price("1");
    process.call("b", false);
    process.set_price("2");
    process.call("c", false);
    let expected = by_book(&[("a", None), ("b", Some(1)), ("c", Some(2))]);
    assert_eq!(process.costs(), expected);
    drop(process);
    let process = Process::start(&world, "main");
    assert_eq!(process.costs(), expected, "after a replay");
    process.flush().unwrap();
    assert_eq!(process.costs(), expected, "in files");
}

#[test]
fn what_is_carried_keeps_its_book() {
    let world = World::new();
    let process = Process::start(&world, "main");
    process.set_price("1");
    process.call("open", true);
    process.set_price("2");
    process.call("b", false);
    process.run(process.ingest.flush(false)).unwrap();
    drop(process);
    let process = Process::start(&world, "main");
    assert_eq!(process.costs(), by_book(&[("b", Some(2)), ("open", Some(1))]));
}

#[test]
fn a_row_said_in_parts_is_priced_by_the_book_of_the_last_flushed_or_not() {
    for is_flushed in [false, true] {
        let world = World::new();
        let process = Process::start(&world, "main");
        process.set_price("1");
        process.call("a", false);
        if is_flushed {
            process.flush().unwrap();
        }
        world.clock.advance_us(1_000_000);
        process.set_price("2");
        process.append("acme", vec![call("a", 5, false)]).unwrap();
        assert_eq!(process.costs(), by_book(&[("a", Some(2))]), "{is_flushed}");
        drop(process);
        let process = Process::start(&world, "main");
        assert_eq!(process.costs(), by_book(&[("a", Some(2))]), "{is_flushed}");
    }
}

#[test]
fn another_process_learns_of_a_price_and_a_log_with_a_book_that_is_gone_is_not_replayed() {
    let world = World::new();
    let (one, other) = (Process::start(&world, "one"), Process::start(&world, "other"));
    one.set_price("1");
    other.run(other.catalog.prices().catch_up()).unwrap();
    other.call("a", false);
    assert_eq!(other.costs(), by_book(&[("a", Some(1))]));
    let book = store::system("prices/acme", &format!("{:020}", 1));
    one.run(one.catalog.store().delete(&book)).unwrap();
    drop((one, other));
    let error = Process::try_start(&world, "other").map(drop).unwrap_err().to_string();
    assert!(error.contains("price book") && error.contains("+own-1 of tenant acme is not in the store"), "{error}");
}
