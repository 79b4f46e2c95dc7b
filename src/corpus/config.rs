//! What can be asked for. Everything else about the traces is fixed, so that two runs can be compared.

use crate::base::{Day, TimestampUs};

#[derive(Debug, Clone, PartialEq)]
pub struct CorpusConfig {
    pub seed: u64,
    /// Exactly this many spans; the last trace is cut to fit.
    pub observations: u64,
    /// The first moment a span may start.
    pub start_us: TimestampUs,
    /// No span ends later, unless its trace is longer than the whole period.
    pub end_us: TimestampUs,
    /// How many people call; a few of them do most of the calling.
    pub users: u32,
    pub text: TextSize,
    /// The share of spans that fail: 0 to 1.
    pub error_rate: f64,
    /// The share of traces whose client says what its calls cost: 0 to 1.
    pub provided_cost_rate: f64,
}

/// How much prompt and answer text the spans carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextSize {
    None,
    /// A sentence or two.
    Small,
    /// 0.2 to 50 KB per message, lognormal; agents send their growing history again with every call.
    Prompts,
}

impl Default for CorpusConfig {
    /// Ten thousand spans over one fixed day.
    fn default() -> Self {
        let day = Day::from_days(20_500);
        Self {
            seed: 42,
            observations: 10_000,
            start_us: day.start_us(),
            end_us: day.start_us() + Day::US,
            users: 1_000,
            text: TextSize::None,
            error_rate: 0.015,
            provided_cost_rate: 0.12,
        }
    }
}
