//! Which attribute key means what: dialects as tables.
//!
//! A row says `target <- keys, best first`; a new dialect is more keys in these rows, or another table. All tables
//! together become one map, so that each attribute of a span is looked up once.

mod call;
mod payload;
mod trace;
mod usage;

use std::collections::HashMap;
use std::sync::LazyLock;

use foldhash::fast::FixedState;

pub(super) use call::{
    CLAUDE_CODE, TYPE_RULES, aggregates, is_noisy, level, named_type, numbered_level, observation_type, scoped_keys,
};
pub(super) use payload::{
    CONTENT_EVENTS, DETAILS_EVENT, EXCEPTION_EVENT, FIRST_TOKEN_EVENTS, INDEXED_MESSAGES, INDEXED_PROMPT,
    MESSAGE_EVENTS, QUOTED, VIA_CONTENT, VIA_DETAILS, VIA_LIST, VIA_MESSAGES,
};

/// One row of a table.
struct Row {
    target: Target,
    keys: &'static [&'static str],
}

const fn row(slot: Slot, keys: &'static [&'static str]) -> Row {
    Row { target: Target::One(slot), keys }
}

/// What the value of a key becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// One value of the observation or trace; the best key present wins.
    One(Slot),
    /// A count of tokens; the best key present wins.
    Count(Count),
    /// A cost of this kind; the best key present wins.
    Cost(&'static str),
}

/// The values a span has at most one of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub(super) enum Slot {
    ObservationType,
    SpanKind,
    MlflowKind,
    TraceloopKind,
    LogfireKind,
    Operation,
    GenkitSubtype,
    AiOperation,
    AiFunction,
    ToolCallId,
    Name,
    Level,
    LevelNumber,
    StatusMessage,
    ErrorType,
    Model,
    Provider,
    ModelParameters,
    ServiceTier,
    FinishReasons,
    ResponseId,
    PromptName,
    PromptVersion,
    PromptLink,
    AgentId,
    AgentName,
    ToolName,
    FirstTokenTime,
    FirstTokenSeconds,
    FirstTokenMillis,
    UsageDetails,
    /// JSON with counts in it, by whose sender's rule.
    AiProviderMetadata,
    MlflowUsage,
    CostDetails,
    Input,
    Output,
    /// A list of message events as one attribute.
    MessageEvents,
    SystemInstructions,
    Metadata,
    ContextMetadata,
    TraceMetadata,
    TraceName,
    TraceInput,
    TraceOutput,
    UserId,
    SessionId,
    Tags,
    Environment,
    Release,
    Version,
    Public,
    RootMark,
    /// Resource attributes.
    ServiceName,
    ServiceVersion,
}

impl Slot {
    pub(super) const COUNT: usize = Slot::ServiceVersion as usize + 1;
}

/// Token counts that instrumentations agree on, whatever they call them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub(super) enum Count {
    Input,
    Output,
    Total,
    CachedInput,
    CacheWrite,
    Reasoning,
    OutputAudio,
}

impl Count {
    pub(super) const COUNT: usize = Count::OutputAudio as usize + 1;
}

/// Keys that carry a name of the sender's own after a prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    Metadata,
    TraceMetadata,
    /// Set once around a piece of work, it stands on every span in it: of the span and of the trace.
    ContextMetadata,
    /// Kept as metadata under its whole name.
    Experiment,
    ModelParameter,
    /// A count without an agreed name.
    OtherCount,
    /// `prefix.N.field`: a list in pieces, to be put together again.
    IndexedPrompt,
    IndexedCompletion,
    IndexedInput,
    IndexedOutput,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// The target, and the key's place in its row: lower is better.
    Ranked(Target, u8),
    /// The family, and how many bytes of the key are its prefix.
    Family(Family, usize),
}

/// What `key` means, if any dialect knows it.
pub(super) fn meaning(key: &str) -> Option<Meaning> {
    if let Some((target, rank)) = INDEX.get(key) {
        return Some(Meaning::Ranked(*target, *rank));
    }
    let first = *key.as_bytes().first()?;
    PREFIXES
        .iter()
        .find(|(prefix, _)| prefix.as_bytes()[0] == first && key.starts_with(prefix))
        .map(|(prefix, family)| Meaning::Family(*family, prefix.len()))
}

/// The place of `key` in its row, for values that do not come as attributes.
pub(super) fn rank(key: &str) -> u8 {
    INDEX.get(key).map_or(u8::MAX, |(_, rank)| *rank)
}

/// Families by prefix; a prefix stands before any prefix of itself.
const PREFIXES: &[(&str, Family)] = &[
    ("langfuse.observation.metadata.", Family::Metadata),
    ("langfuse.trace.metadata.", Family::TraceMetadata),
    ("langfuse.metadata.", Family::Metadata),
    ("langfuse.experiment.", Family::Experiment),
    ("ai.telemetry.metadata.", Family::ContextMetadata),
    ("ai.settings.context.", Family::ContextMetadata),
    ("traceloop.association.properties.", Family::ContextMetadata),
    ("gen_ai.usage.", Family::OtherCount),
    ("llm.token_count.", Family::OtherCount),
    ("gen_ai.request.", Family::ModelParameter),
    ("llm.invocation_parameters.", Family::ModelParameter),
    ("ai.settings.", Family::ModelParameter),
    // `toolChoice`; the tools themselves have a name of their own.
    ("ai.prompt.toolC", Family::ModelParameter),
    ("gen_ai.prompt.", Family::IndexedPrompt),
    ("gen_ai.completion.", Family::IndexedCompletion),
    ("llm.input_messages.", Family::IndexedInput),
    ("llm.output_messages.", Family::IndexedOutput),
];

/// The keys are ours: nobody can choose them to collide, and every attribute is looked up here.
type Index = HashMap<&'static str, (Target, u8), FixedState>;

static INDEX: LazyLock<Index> = LazyLock::new(|| {
    let mut index = Index::default();
    for row in [trace::TABLE, call::TABLE, payload::TABLE, usage::TABLE].into_iter().flatten() {
        for (rank, key) in row.keys.iter().enumerate() {
            let taken = index.insert(*key, (row.target, rank as u8));
            debug_assert!(taken.is_none(), "{key} stands in two rows");
        }
    }
    index
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_stands_in_two_rows() {
        let keys: Vec<_> = [trace::TABLE, call::TABLE, payload::TABLE, usage::TABLE]
            .into_iter()
            .flatten()
            .flat_map(|row| row.keys)
            .collect();
        assert_eq!(keys.len(), INDEX.len());
    }

    #[test]
    fn exact_keys_come_before_families() {
        let ranked = |slot| Some(Meaning::Ranked(Target::One(slot), 0));
        assert_eq!(meaning("langfuse.user.id"), ranked(Slot::UserId));
        assert_eq!(meaning("gen_ai.request.temperature"), Some(Meaning::Family(Family::ModelParameter, 15)));
        assert!(matches!(meaning("gen_ai.request.model"), Some(Meaning::Ranked(Target::One(Slot::Model), _))));
        assert!(matches!(meaning("gen_ai.usage.input_tokens"), Some(Meaning::Ranked(Target::Count(Count::Input), _))));
        assert_eq!(meaning("app.tenant"), None);
        assert_eq!(meaning(""), None);
    }
}
