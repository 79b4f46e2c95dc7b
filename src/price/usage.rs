//! How much of what was used: kinds of usage, and the split of reported counts into kinds that never overlap.

use std::collections::BTreeMap;

/// What a price can be put on. Tokens first, then things counted one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum UsageKind {
    Input,
    CachedInput,
    CachedInputAudio,
    CacheWrite,
    CacheWrite1h,
    InputAudio,
    InputImage,
    Output,
    Reasoning,
    OutputAudio,
    OutputImage,
    Images,
    Characters,
    Pages,
    Requests,
    Searches,
    Seconds,
    Milliseconds,
    /// How long the call took, counted in microseconds and priced by the second: a machine of one's own.
    Duration,
}

use UsageKind as K;

/// The side of a call that a kind is booked on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Input,
    Output,
    Other,
}

impl UsageKind {
    pub const ALL: [UsageKind; 19] = [
        K::Input,
        K::CachedInput,
        K::CachedInputAudio,
        K::CacheWrite,
        K::CacheWrite1h,
        K::InputAudio,
        K::InputImage,
        K::Output,
        K::Reasoning,
        K::OutputAudio,
        K::OutputImage,
        K::Images,
        K::Characters,
        K::Pages,
        K::Requests,
        K::Searches,
        K::Seconds,
        K::Milliseconds,
        K::Duration,
    ];

    /// The word in price books and in cost maps.
    pub fn as_str(self) -> &'static str {
        match self {
            K::Input => "input",
            K::CachedInput => "cached_input",
            K::CachedInputAudio => "cached_input_audio",
            K::CacheWrite => "cache_write",
            K::CacheWrite1h => "cache_write_1h",
            K::InputAudio => "input_audio",
            K::InputImage => "input_image",
            K::Output => "output",
            K::Reasoning => "reasoning",
            K::OutputAudio => "output_audio",
            K::OutputImage => "output_image",
            K::Images => "images",
            K::Characters => "characters",
            K::Pages => "pages",
            K::Requests => "requests",
            K::Searches => "searches",
            K::Seconds => "seconds",
            K::Milliseconds => "milliseconds",
            K::Duration => "duration_seconds",
        }
    }

    pub fn from_word(word: &str) -> Option<Self> {
        // A cache is written for five minutes unless said otherwise.
        let word = if word == "cache_write_5m" { "cache_write" } else { word };
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }

    /// Whether it is counted in tokens.
    pub fn is_token(self) -> bool {
        self.side() != Side::Other
    }

    /// The kind that instrumentations call by this name, or by its own word.
    pub fn of_name(name: &str) -> Option<Self> {
        let flat = |(_, names): &&(UsageKind, &[&str])| names.contains(&name);
        let found = || FLAT_NAMES.iter().chain(&NAMES).find(flat).map(|(kind, _)| *kind);
        Self::from_word(name).or_else(found)
    }

    /// Whose rate holds for a kind that has none of its own. Always a kind that stands earlier in `ALL`, so that
    /// following it ends; `None` for kinds that are then free.
    pub(super) fn rate_of(self) -> Option<UsageKind> {
        match self {
            K::CachedInput | K::CacheWrite | K::InputAudio | K::InputImage => Some(K::Input),
            K::CachedInputAudio => Some(K::CachedInput),
            K::CacheWrite1h => Some(K::CacheWrite),
            K::Reasoning | K::OutputAudio | K::OutputImage => Some(K::Output),
            _ => None,
        }
    }

    pub(super) fn side(self) -> Side {
        match self {
            K::Input
            | K::CachedInput
            | K::CachedInputAudio
            | K::CacheWrite
            | K::CacheWrite1h
            | K::InputAudio
            | K::InputImage => Side::Input,
            K::Output | K::Reasoning | K::OutputAudio | K::OutputImage => Side::Output,
            _ => Side::Other,
        }
    }
}

/// Counts by kind in exclusive buckets: no token stands in two of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Quantities {
    pub by_kind: BTreeMap<UsageKind, i64>,
}

/// Names of kinds that have counts of their own in the tables.
const FLAT_NAMES: [(UsageKind, &[&str]); 5] = [
    (K::Input, &["input_tokens", "prompt_tokens"]),
    (K::Output, &["output_tokens", "completion_tokens"]),
    (K::CachedInput, &["input_cached_tokens", "input_cache_read", "cache_read_input_tokens", "cached_tokens"]),
    (
        K::CacheWrite,
        &[
            "input_cache_creation",
            "input_cache_creation_5m",
            "cache_creation_input_tokens",
            "input_cache_write_tokens",
            "cache_write_tokens",
        ],
    ),
    (K::Reasoning, &["output_reasoning", "output_reasoning_tokens", "reasoning_tokens"]),
];

/// Names in a usage map that add to what the flat counts say. Everything else in the map is either one of the flat
/// counts under another name or unknown, and both must not be paid for.
const NAMES: [(UsageKind, &[&str]); 12] = [
    (K::CachedInputAudio, &["input_cached_audio_tokens", "cached_input_audio", "audio.cache_read.input_tokens"]),
    (
        K::InputAudio,
        &["input_audio_tokens", "input_audio", "prompt_audio_tokens", "prompt_details.audio", "audio.input_tokens"],
    ),
    (
        K::OutputAudio,
        &[
            "output_audio_tokens",
            "output_audio",
            "completion_audio_tokens",
            "completion_details.audio",
            "audio.output_tokens",
        ],
    ),
    (
        K::CacheWrite1h,
        &[
            "input_cache_creation_1h",
            "cache_write_1h",
            "cache_creation.ephemeral_1h_input_tokens",
            "ephemeral_1h_input_tokens",
        ],
    ),
    (K::InputImage, &["input_image_tokens", "input_image", "image.input_tokens"]),
    (K::OutputImage, &["output_image_tokens", "output_image", "image.output_tokens"]),
    (K::Images, &["images"]),
    (K::Characters, &["characters", "input_characters"]),
    (K::Pages, &["pages", "pages_processed"]),
    (K::Requests, &["requests"]),
    (
        K::Searches,
        &[
            "searches",
            "search_units",
            "web_search_requests",
            "server_tool_use.web_search_requests",
            "num_search_queries",
            "web_search_call_count",
        ],
    ),
    (K::Seconds, &["seconds"]),
];

impl Quantities {
    /// Splits counts as the tables hold them, where a whole includes its parts: cached input and cache writes are
    /// parts of `input`, `reasoning` of `output`. `others` is the observation's usage map; of it only kinds are taken
    /// that the flat counts do not cover, each out of its whole (audio and image tokens out of what is left of input
    /// or output, one-hour writes out of cache writes), so that nothing is counted twice.
    /// Parts larger than their whole leave zero of it; negative counts are zero.
    pub fn from_inclusive(
        input: Option<i64>,
        cached_input: Option<i64>,
        cache_write: Option<i64>,
        output: Option<i64>,
        reasoning: Option<i64>,
        others: &BTreeMap<String, i64>,
    ) -> Self {
        let mut left = Self::default();
        left.set(K::CachedInput, cached_input);
        left.set(K::CacheWrite, cache_write);
        left.set(K::Reasoning, reasoning);
        left.set(K::Input, input.map(|input| less(less(input, cached_input), cache_write)));
        left.set(K::Output, output.map(|output| less(output, reasoning)));
        if others.is_empty() {
            return left;
        }
        for (kind, names) in NAMES {
            // One count under two names is one count.
            if let Some(count) = names.iter().find_map(|name| others.get(*name)) {
                left.move_out(kind, *count);
            }
        }
        if !left.by_kind.contains_key(&K::Seconds) {
            left.set(K::Milliseconds, others.get("milliseconds").copied());
        }
        left
    }

    /// All input tokens, whatever their kind: what long-context tiers go by.
    pub fn input_tokens(&self) -> i64 {
        self.by_kind
            .iter()
            .filter(|(kind, _)| kind.side() == Side::Input)
            .fold(0, |sum: i64, (_, count)| sum.saturating_add((*count).max(0)))
    }

    /// Moves `count` to `kind` from its whole, or from the whole's whole where that was not reported; at most what is
    /// left there. Where none was reported there is nothing to take it from, and it counts by itself.
    fn move_out(&mut self, kind: UsageKind, count: i64) {
        let mut moved = count.max(0);
        if kind == K::InputAudio {
            // Audio is reported with its cached part.
            moved = less(moved, self.by_kind.get(&K::CachedInputAudio).copied());
        }
        let mut whole = kind.rate_of();
        while let Some(of) = whole {
            if let Some(left) = self.by_kind.get_mut(&of) {
                moved = moved.min(*left);
                *left -= moved;
                break;
            }
            whole = of.rate_of();
        }
        if moved > 0 {
            self.by_kind.insert(kind, moved);
        }
    }

    fn set(&mut self, kind: UsageKind, count: Option<i64>) {
        if let Some(count) = count {
            self.by_kind.insert(kind, count.max(0));
        }
    }
}

fn less(whole: i64, part: Option<i64>) -> i64 {
    whole.max(0).saturating_sub(part.unwrap_or(0).max(0)).max(0)
}
