//! The attributes of one span, sorted into what they mean.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;

use super::dialect::{self, Count, Family, Meaning, Slot, Target};
use super::value::{boolean, count, filled_text, is_empty, text, without_nul};

/// A value and the key that brought it.
#[derive(Debug)]
pub(super) struct Found {
    rank: u8,
    pub(super) key: String,
    pub(super) value: Value,
}

impl Found {
    pub(super) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::StringValue(text) => Some(text),
            _ => None,
        }
    }
}

/// Each attribute is looked up once and moved to its place; what means nothing to us is kept in `rest`.
#[derive(Debug)]
pub(super) struct Bag {
    slots: [Option<Found>; Slot::COUNT],
    counts: [Option<Found>; Count::COUNT],
    /// Few, so a list: kind and amount.
    pub(super) costs: Vec<(&'static str, Found)>,
    pub(super) other_counts: Vec<Found>,
    pub(super) model_parameters: Vec<(String, Value)>,
    pub(super) metadata: Vec<(String, Value)>,
    pub(super) trace_metadata: Vec<(String, Value)>,
    /// Of the span and of its trace.
    pub(super) context_metadata: Vec<(String, Value)>,
    /// Lists in pieces by family, the keys whole.
    pub(super) prompts: Vec<(String, Value)>,
    pub(super) completions: Vec<(String, Value)>,
    pub(super) inputs: Vec<(String, Value)>,
    pub(super) outputs: Vec<(String, Value)>,
    pub(super) rest: BTreeMap<String, String>,
    rest_max: usize,
    dropped: usize,
}

impl Bag {
    /// `scope` is the instrumentation: some have keys of their own.
    pub(super) fn new(attributes: Vec<KeyValue>, scope: Option<&str>, rest_max: usize) -> Self {
        let of_scope = dialect::scoped_keys(scope);
        let mut bag = Self {
            slots: [const { None }; Slot::COUNT],
            counts: [const { None }; Count::COUNT],
            costs: Vec::new(),
            other_counts: Vec::new(),
            model_parameters: Vec::new(),
            metadata: Vec::new(),
            trace_metadata: Vec::new(),
            context_metadata: Vec::new(),
            prompts: Vec::new(),
            completions: Vec::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            rest: BTreeMap::new(),
            rest_max,
            dropped: 0,
        };
        for attribute in attributes {
            let value = attribute.value.and_then(|value| value.value);
            let (key, value) = (without_nul(attribute.key), value.unwrap_or(Value::StringValueStrindex(0)));
            let meaning = of_scope.iter().find(|(known, _)| *known == key).map(|(_, meaning)| *meaning);
            bag.sort(meaning.or_else(|| dialect::meaning(&key)), key, value);
        }
        bag
    }

    fn sort(&mut self, meaning: Option<Meaning>, key: String, value: Value) {
        match meaning {
            Some(Meaning::Ranked(target, rank)) => self.offer(target, Found { rank, key, value }),
            Some(Meaning::Family(family, prefix_bytes)) if key.len() > prefix_bytes => {
                self.sort_family(family, prefix_bytes, key, value);
            }
            _ => self.keep(key, value),
        }
    }

    fn sort_family(&mut self, family: Family, prefix_bytes: usize, key: String, value: Value) {
        match family {
            Family::Metadata => self.metadata.push((key[prefix_bytes..].to_owned(), value)),
            Family::TraceMetadata => self.trace_metadata.push((key[prefix_bytes..].to_owned(), value)),
            Family::ContextMetadata => self.context_metadata.push((key[prefix_bytes..].to_owned(), value)),
            Family::Experiment => self.metadata.push((key, value)),
            Family::ModelParameter => self.model_parameters.push((key, value)),
            Family::OtherCount if count(&value).is_some() && !key[prefix_bytes..].contains("cost") => {
                self.other_counts.push(Found { rank: 0, key, value });
            }
            Family::OtherCount => self.keep(key, value),
            Family::IndexedPrompt => self.prompts.push((key, value)),
            Family::IndexedCompletion => self.completions.push((key, value)),
            Family::IndexedInput => self.inputs.push((key, value)),
            Family::IndexedOutput => self.outputs.push((key, value)),
        }
    }

    /// The better ranked of two values stays; the other one is an attribute, unless it says the same.
    fn offer(&mut self, target: Target, found: Found) {
        let slot = match target {
            Target::One(slot) if !is_empty(&found.value) => &mut self.slots[slot as usize],
            Target::Count(kind) if count(&found.value).is_some() => &mut self.counts[kind as usize],
            Target::Cost(kind) if !is_empty(&found.value) => return self.offer_cost(kind, found),
            _ => return self.keep(found.key, found.value),
        };
        let held_is_better = slot.as_ref().is_some_and(|held| held.rank <= found.rank);
        let loser = if held_is_better { Some(found) } else { slot.replace(found) };
        let winner = slot.as_ref().map(|held| &held.value);
        if let Some(loser) = loser.filter(|loser| Some(&loser.value) != winner) {
            self.keep(loser.key, loser.value);
        }
    }

    fn offer_cost(&mut self, kind: &'static str, found: Found) {
        let held = self.costs.iter_mut().find(|(held, _)| *held == kind).map(|(_, held)| held);
        let loser = match held {
            None => return self.costs.push((kind, found)),
            Some(held) if held.rank <= found.rank => found,
            Some(held) => std::mem::replace(held, found),
        };
        self.keep(loser.key, loser.value);
    }

    /// A value that came another way than by an attribute: `via` is its place in the row.
    pub(super) fn offer_text(&mut self, slot: Slot, via: &'static str, text: String) {
        self.offer(
            Target::One(slot),
            Found { rank: dialect::rank(via), key: via.to_owned(), value: Value::StringValue(text) },
        );
    }

    /// Would a value that comes by `via` win?
    pub(super) fn beats(&self, slot: Slot, via: &str) -> bool {
        self.slots[slot as usize].as_ref().is_none_or(|held| dialect::rank(via) < held.rank)
    }

    pub(super) fn keep(&mut self, key: String, value: Value) {
        self.keep_text(key, text(value));
    }

    pub(super) fn keep_text(&mut self, key: String, text: String) {
        if self.rest.len() < self.rest_max {
            self.rest.insert(key, text);
        } else {
            self.dropped += 1;
        }
    }

    pub(super) fn keep_all(&mut self, pairs: Vec<(String, Value)>) {
        for (key, value) in pairs {
            self.keep(key, value);
        }
    }

    pub(super) fn peek(&self, slot: Slot) -> Option<&Found> {
        self.slots[slot as usize].as_ref()
    }

    /// The text of a slot without taking it.
    pub(super) fn peek_text(&self, slot: Slot) -> Option<&str> {
        self.peek(slot)?.text()
    }

    /// A count that came inside a payload, at `place`: it holds where no attribute says one.
    pub(super) fn fill_count(&mut self, count: Count, place: &str, number: i64) {
        self.counts[count as usize].get_or_insert_with(|| Found {
            rank: u8::MAX,
            key: place.to_owned(),
            value: Value::IntValue(number),
        });
    }

    /// A count of a kind without an agreed name.
    pub(super) fn add_count(&mut self, key: String, number: i64) {
        self.other_counts.push(Found { rank: u8::MAX, key, value: Value::IntValue(number) });
    }

    pub(super) fn take(&mut self, slot: Slot) -> Option<Found> {
        self.slots[slot as usize].take()
    }

    pub(super) fn take_text(&mut self, slot: Slot) -> Option<String> {
        self.take(slot).and_then(|found| filled_text(found.value))
    }

    /// The slot read by `read`; a value it cannot read is an attribute.
    pub(super) fn take_as<T>(&mut self, slot: Slot, read: impl FnOnce(&Value) -> Option<T>) -> Option<T> {
        let found = self.take(slot)?;
        let read = read(&found.value);
        if read.is_none() {
            self.keep(found.key, found.value);
        }
        read
    }

    pub(super) fn take_boolean(&mut self, slot: Slot) -> Option<bool> {
        self.take_as(slot, boolean)
    }

    /// Puts the slot among the attributes.
    pub(super) fn return_slot(&mut self, slot: Slot) {
        if let Some(found) = self.take(slot) {
            self.keep(found.key, found.value);
        }
    }

    pub(super) fn take_counts(&mut self) -> [Option<Found>; Count::COUNT] {
        std::mem::replace(&mut self.counts, [const { None }; Count::COUNT])
    }

    /// Whatever no one asked for is an attribute too.
    pub(super) fn into_rest(mut self) -> BTreeMap<String, String> {
        // One by one: the lists are kilobytes, and mostly empty.
        for at in 0..self.slots.len() {
            if let Some(slot) = self.slots[at].take() {
                self.keep(slot.key, slot.value);
            }
        }
        for at in 0..self.counts.len() {
            if let Some(count) = self.counts[at].take() {
                self.keep(count.key, count.value);
            }
        }
        for (_, cost) in std::mem::take(&mut self.costs) {
            self.keep(cost.key, cost.value);
        }
        if self.dropped > 0 {
            self.rest.insert("dropped_attributes".to_owned(), self.dropped.to_string());
        }
        self.rest
    }
}
