//! Calls whose sender says no usage: their tokens, counted from the texts.
//!
//! Counting is done where rows are made: off the way to the ack, in a thread for such work, and once for what one event says.
//! What is counted depends on all that was said of a call and not on when, so that its row is the same fresh, flushed, after a
//! replay, and however often it is sent again: texts that stand in files are read again where something new is said.

use std::sync::Arc;

use super::entry::Entry;
use super::packed::Packed;
use super::segment::{ObservationKey, Segment};
use super::standing::Base;
use crate::base::RowMap;
use crate::model::tables::Table;
use crate::model::{
    Counted, CountedTokens, Level, MEDIUM_IN_TEXT, Observation, ObservationType, Order, Status, TRUNCATED,
    merge_observation,
};
use crate::tokens::{Count, Vocabulary};

/// What of a row's usage nobody says, if its texts tell. A call that goes on has no answer yet; one that ended without a
/// text is not understood.
pub(super) fn counted(
    entry: &Entry<Observation>,
    row: &Observation,
    base: Option<&Base<Observation>>,
) -> Option<Counted> {
    if gave_way(base) && is_silent_call(row) {
        return Some(Counted::GaveWay);
    }
    let by = CountedBy::of(row)?;
    let before = base.and_then(|base| base.counted);
    if base.is_some_and(|base| base.recount != Some(by)) {
        return before;
    }
    let said = entry.wanted_by(Table::Observations).map(|said| (&said.order, said.packed.texts(by)));
    let stood = base.map_or(&[][..], |base| &base.texts).iter().map(|(order, texts)| (order, *texts));
    let mut texts: Vec<(&Order, CountedTexts)> = stood.chain(said).collect();
    if texts.iter().any(|(_, texts)| texts.are_parts) {
        return None;
    }
    // As in the merged row, who says a text last decides. Texts may be kept less long than what was counted of them.
    texts.sort_by_key(|(order, _)| *order);
    let before = match before {
        Some(Counted::Tokens(tokens)) => Some(tokens),
        _ => None,
    };
    let input = texts.iter().rev().find_map(|(_, texts)| texts.input);
    let input = input.or(before.map(|before| Count::Tokens(before.input)));
    let output = texts.iter().rev().find_map(|(_, texts)| texts.output);
    let output = output.or(before.and_then(|before| before.output).map(Count::Tokens));
    let Count::Tokens(input) = input? else { return None };
    let output = match output {
        _ if by.is_embedding => None,
        Some(Count::Tokens(tokens)) => Some(tokens),
        None if row.end_ns.is_none() => None,
        Some(Count::Unknown) | None => return None,
    };
    Some(Counted::Tokens(CountedTokens { input, output }))
}

/// What gave way to a report stays so, whatever else is said of it but its usage.
fn gave_way(base: Option<&Base<Observation>>) -> bool {
    base.is_some_and(|base| base.counted == Some(Counted::GaveWay))
}

/// By what a row that stands is to be counted again, with the texts that stand: something is said that may change its
/// count, a text or what makes it a call of this model. None: what it was counted to stays.
pub(super) fn recount(entry: &Entry<Observation>, base: &Base<Observation>) -> Option<CountedBy> {
    if gave_way(Some(base)) || !entry.says_more(Table::Observations, &base.events) {
        return None;
    }
    let merged = entry.merged(Table::Observations, &base.events, Packed::hot, merge_observation)?;
    let by = CountedBy::of(&merged.row)?;
    let says_text = || entry.wanted_by(Table::Observations).any(|said| said.packed.has_cold());
    let stood_by = || {
        let events: Vec<(&Order, &Observation)> = base.events.iter().map(|(order, event)| (order, event)).collect();
        CountedBy::of(&merge_observation(&events).row)
    };
    (base.counted.is_none() || says_text() || stood_by() != Some(by)).then_some(by)
}

/// Counts the texts of a segment that nobody counted yet, in a thread for such work.
pub(super) async fn count_texts(segment: &Segment) {
    let mut open: Vec<(Packed<Observation>, CountedBy)> = Vec::new();
    for entry in segment.observations.values() {
        let may_be = entry.glance(Table::Observations).is_some_and(|glance| glance.may_be_counted);
        let is_open = may_be && entry.wanted_by(Table::Observations).any(|said| said.packed.is_uncounted());
        let merged = || entry.merged(Table::Observations, &[], Packed::hot, merge_observation);
        if let Some(by) = is_open.then(merged).flatten().and_then(|merged| CountedBy::of(&merged.row)) {
            open.extend(entry.wanted_by(Table::Observations).map(|said| (said.packed.clone(), by)));
        }
    }
    if !open.is_empty() {
        let count = move || open.into_iter().for_each(|(packed, by)| _ = packed.texts(by));
        // Should it fail, they are counted where rows are made.
        _ = tokio::task::spawn_blocking(count).await;
    }
}

/// A row that stands, and the events it can be taken apart into.
type StandingTexts = (ObservationKey, Vec<(Order, Observation)>);

/// Counts what is said of rows that stand, and the texts that stand of them, in a thread for such work.
pub(super) async fn count_standing(
    said: RowMap<ObservationKey, (Arc<Entry<Observation>>, CountedBy)>,
    standing: Vec<StandingTexts>,
) -> Vec<(ObservationKey, Vec<(Order, CountedTexts)>)> {
    let count = move || {
        for (entry, by) in said.values() {
            entry.wanted_by(Table::Observations).for_each(|said| _ = said.packed.texts(*by));
        }
        let counted = standing.into_iter().filter_map(|(key, events)| {
            let (_, by) = said.get(&key)?;
            Some((key, events.into_iter().map(|(order, event)| (order, by.count(&event))).collect()))
        });
        counted.collect()
    };
    // Should it fail, what was counted before stays.
    tokio::task::spawn_blocking(count).await.unwrap_or_default()
}

/// What the texts of a call are counted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CountedBy {
    vocabulary: Vocabulary,
    is_embedding: bool,
}

/// What the texts of one event come to. None: it says no such text.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct CountedTexts {
    input: Option<Count>,
    output: Option<Count>,
    /// Something of them was cut, or stands elsewhere.
    are_parts: bool,
}

/// Attributes that are a part of what a model is given; events are kept as JSON in one attribute.
const MORE_INPUT: [&str; 2] = ["gen_ai.system_instructions", "gen_ai.tool.definitions"];
const EVENTS: &str = "events";

impl CountedBy {
    /// Only for a call that went well, of which neither usage nor cost is said, to a model whose vocabulary is at hand.
    /// Calls with tools are more than their texts.
    fn of(said: &Observation) -> Option<Self> {
        let went_well = said.level() != Level::Error && said.status() != Status::Error;
        let has_tools = !said.tools_offered.is_empty() || !said.tools_called.is_empty();
        if said.observation_type.is_none() || !is_silent_call(said) || !went_well || has_tools {
            return None;
        }
        let vocabulary = Vocabulary::of(said.model.as_deref()?)?;
        Some(Self { vocabulary, is_embedding: said.observation_type() == ObservationType::Embedding })
    }

    pub(super) fn count(self, said: &Observation) -> CountedTexts {
        let Self { vocabulary, is_embedding } = self;
        let attribute = |key: &str| said.attributes.get(key).map(String::as_str);
        let in_events = |key: &&str| attribute(EVENTS).is_some_and(|events| events.contains(*key));
        let are_parts =
            attribute(TRUNCATED).is_some() || MORE_INPUT.iter().any(|key| attribute(key).is_some() || in_events(key));
        if are_parts {
            return CountedTexts { are_parts, ..CountedTexts::default() };
        }
        let is_whole = |text: &str| !text.contains(MEDIUM_IN_TEXT);
        let given = |text: &str| match is_embedding {
            _ if !is_whole(text) => Count::Unknown,
            true => vocabulary.count_embedded(text),
            false => vocabulary.count_prompt(text),
        };
        let answered = |text: &str| if is_whole(text) { vocabulary.count_answer(text) } else { Count::Unknown };
        CountedTexts {
            input: said.input.as_deref().map(given),
            output: said.output.as_deref().filter(|_| !is_embedding).map(answered),
            are_parts,
        }
    }
}

/// Part of what is said of a call, as far as it tells, with neither usage nor cost: to a model whose vocabulary is at hand,
/// or a text without a model.
pub(super) fn may_be_counted(said: &Observation) -> bool {
    is_silent_call(said)
        && match said.model.as_deref() {
            Some(model) => Vocabulary::of(model).is_some(),
            None => said.input.is_some() || said.output.is_some(),
        }
}

fn is_silent_call(said: &Observation) -> bool {
    let calls = [ObservationType::Generation, ObservationType::Embedding];
    let may_be_call = said.observation_type.is_none_or(|kind| calls.iter().any(|call| *call as i32 == kind));
    may_be_call && said.usage.is_empty() && said.provided_cost.is_empty() && said.usage_source.is_none()
}
