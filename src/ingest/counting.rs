//! Calls whose sender says no usage: their tokens, counted from the texts.
//!
//! Each text is counted once, where rows are made of it: off the way to the ack, and in a thread for such work. What is
//! counted depends on all that was ever said of a call and not on when, so that its row is the same fresh, flushed, after a
//! replay, and however often it is sent again: texts that stand in files are read again where something new is said.

use super::entry::Entry;
use super::packed::Packed;
use super::segment::Segment;
use super::standing::Base;
use crate::model::tables::Table;
use crate::model::{
    Counted, CountedTokens, Level, Observation, ObservationType, Order, Status, TRUNCATED, merge_observation,
};
use crate::tokens::{Count, Vocabulary};

/// What of a row's usage nobody says, if its texts tell. A call that goes on has no answer yet; one that ended without a
/// text is not understood.
pub(super) fn counted(
    entry: &Entry<Observation>,
    row: &Observation,
    base: Option<&Base<Observation>>,
) -> Option<Counted> {
    let by = CountedBy::of(row)?;
    if let Some(base) = base.filter(|base| !says_more(entry, base)) {
        return base.counted;
    }
    let said = entry.wanted_by(Table::Observations).map(|said| (&said.order, said.packed.texts(by)));
    let stood = base.map_or(&[][..], |base| &base.texts).iter().map(|(order, said)| (order, by.count(said)));
    let mut texts: Vec<(&Order, CountedTexts)> = stood.chain(said).collect();
    // As in the merged row, who says a text last decides.
    texts.sort_by_key(|(order, _)| *order);
    let input = texts.iter().rev().find_map(|(_, texts)| texts.input);
    let output = texts.iter().rev().find_map(|(_, texts)| texts.output);
    if input.or(output).is_none() {
        // Texts may be kept less long than their rows.
        return base.and_then(|base| base.counted);
    }
    let Count::Tokens(input) = input? else { return None };
    let output = match output {
        _ if by.is_embedding => None,
        Some(Count::Tokens(tokens)) => Some(tokens as i64),
        None if row.end_ns.is_none() => None,
        Some(Count::Unknown) | None => return None,
    };
    Some(Counted::Tokens(CountedTokens { input: input as i64, output }))
}

/// Whether the texts that stand are needed to count what is said now.
pub(super) fn is_open(entry: &Entry<Observation>, base: &Base<Observation>) -> bool {
    let merged = || entry.merged(Table::Observations, &base.events, Packed::hot, merge_observation);
    says_more(entry, base) && merged().is_some_and(|merged| CountedBy::of(&merged.row).is_some())
}

/// What gave way to a report stays so, whatever else is said of it but its usage.
fn says_more(entry: &Entry<Observation>, base: &Base<Observation>) -> bool {
    base.counted != Some(Counted::GaveWay) && entry.says_more(Table::Observations, &base.events)
}

/// Counts the texts of a segment that nobody counted yet, in a thread for such work.
pub(super) async fn count_texts(segment: &Segment) {
    let mut open: Vec<(Packed<Observation>, CountedBy)> = Vec::new();
    for entry in segment.observations.values() {
        let is_open = entry.wanted_by(Table::Observations).any(|said| said.packed.is_uncounted());
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
}

/// What stands in a text for a medium that was taken out of it.
const MEDIUM: &str = "@@@langfuseMedia:";

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
        let was_cut = said.attributes.contains_key(TRUNCATED);
        let is_whole = |text: &str| !was_cut && !text.contains(MEDIUM);
        let given = |text: &str| match is_embedding {
            _ if !is_whole(text) => Count::Unknown,
            true => vocabulary.count_embedded(text),
            false => vocabulary.count_prompt(text),
        };
        let answered = |text: &str| if is_whole(text) { vocabulary.count_answer(text) } else { Count::Unknown };
        CountedTexts {
            input: said.input.as_deref().map(given),
            output: said.output.as_deref().filter(|_| !is_embedding).map(answered),
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
