//! An observation: one span, generation or event of a trace, as one event says it or as its merged row.

use std::collections::BTreeMap;

/// The attribute that says how many bytes of an observation's texts were cut on their way in.
pub const TRUNCATED: &str = "truncated_bytes";

/// Times are nanoseconds since 1970, UTC. Absent means "not said", which is not the same as empty.
///
/// The prost tags are the log's encoding: numbers are never used twice.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Observation {
    #[prost(string, tag = "1")]
    pub trace_id: String,
    #[prost(string, tag = "2")]
    pub id: String,
    #[prost(string, optional, tag = "3")]
    pub parent_id: Option<String>,
    /// The sender's own mark that this is the trace's root, parent or not.
    #[prost(bool, optional, tag = "4")]
    pub root_mark: Option<bool>,
    #[prost(enumeration = "ObservationType", optional, tag = "5")]
    pub observation_type: Option<i32>,
    /// `gen_ai.operation.name` or its like: chat, embeddings, execute_tool, invoke_agent, …
    #[prost(string, optional, tag = "6")]
    pub operation: Option<String>,
    #[prost(string, optional, tag = "7")]
    pub name: Option<String>,

    #[prost(string, optional, tag = "8")]
    pub trace_name: Option<String>,
    #[prost(string, optional, tag = "9")]
    pub user_id: Option<String>,
    #[prost(string, optional, tag = "10")]
    pub session_id: Option<String>,
    #[prost(string, optional, tag = "11")]
    pub agent_id: Option<String>,
    #[prost(string, optional, tag = "12")]
    pub agent_name: Option<String>,
    #[prost(string, optional, tag = "13")]
    pub tool_name: Option<String>,
    #[prost(string, optional, tag = "14")]
    pub environment: Option<String>,
    #[prost(string, optional, tag = "15")]
    pub release: Option<String>,
    #[prost(string, optional, tag = "16")]
    pub version: Option<String>,
    #[prost(string, repeated, tag = "17")]
    pub tags: Vec<String>,

    #[prost(enumeration = "Level", optional, tag = "18")]
    pub level: Option<i32>,
    #[prost(enumeration = "Status", optional, tag = "19")]
    pub status: Option<i32>,
    #[prost(string, optional, tag = "20")]
    pub error_type: Option<String>,
    #[prost(string, optional, tag = "21")]
    pub status_message: Option<String>,
    #[prost(string, repeated, tag = "22")]
    pub finish_reasons: Vec<String>,
    #[prost(string, optional, tag = "23")]
    pub response_id: Option<String>,

    #[prost(int64, optional, tag = "24")]
    pub start_ns: Option<i64>,
    #[prost(int64, optional, tag = "25")]
    pub end_ns: Option<i64>,
    #[prost(int64, optional, tag = "26")]
    pub completion_start_ns: Option<i64>,

    #[prost(string, optional, tag = "27")]
    pub model: Option<String>,
    #[prost(string, optional, tag = "28")]
    pub provider: Option<String>,
    #[prost(btree_map = "string, string", tag = "29")]
    pub model_parameters: BTreeMap<String, String>,
    #[prost(string, optional, tag = "30")]
    pub prompt_name: Option<String>,
    #[prost(int64, optional, tag = "31")]
    pub prompt_version: Option<i64>,

    /// Token and other counts by kind, names as Langfuse stores them (`input`, `output`, `total`, `input_cached_tokens`…).
    #[prost(btree_map = "string, int64", tag = "32")]
    pub usage: BTreeMap<String, i64>,
    /// All input tokens, cached ones included.
    #[prost(int64, optional, tag = "33")]
    pub input_tokens: Option<i64>,
    /// Input tokens read from a cache: a part of `input_tokens`.
    #[prost(int64, optional, tag = "34")]
    pub cached_input_tokens: Option<i64>,
    /// Input tokens written to a cache: a part of `input_tokens`.
    #[prost(int64, optional, tag = "35")]
    pub cache_write_tokens: Option<i64>,
    /// All output tokens, reasoning included.
    #[prost(int64, optional, tag = "36")]
    pub output_tokens: Option<i64>,
    /// Output tokens spent on reasoning: a part of `output_tokens`.
    #[prost(int64, optional, tag = "37")]
    pub reasoning_tokens: Option<i64>,
    #[prost(int64, optional, tag = "38")]
    pub total_tokens: Option<i64>,
    #[prost(enumeration = "UsageSource", optional, tag = "39")]
    pub usage_source: Option<i32>,

    /// What the client says it cost, by kind, in picodollars (10⁻¹² USD); `total` may be missing.
    #[prost(btree_map = "string, int64", tag = "40")]
    pub provided_cost: BTreeMap<String, i64>,
    /// `priority`, `flex`, `batch`, …: a price tier's condition.
    #[prost(string, optional, tag = "41")]
    pub service_tier: Option<String>,

    #[prost(btree_map = "string, string", tag = "42")]
    pub metadata: BTreeMap<String, String>,
    #[prost(string, optional, tag = "43")]
    pub service_name: Option<String>,
    #[prost(string, optional, tag = "44")]
    pub scope_name: Option<String>,
    #[prost(string, optional, tag = "45")]
    pub scope_version: Option<String>,
    #[prost(string, optional, tag = "46")]
    pub sdk_name: Option<String>,
    #[prost(string, optional, tag = "47")]
    pub sdk_version: Option<String>,
    /// The protocol: `otlp`, `langfuse-batch`, `tracelake`.
    #[prost(string, optional, tag = "48")]
    pub source: Option<String>,
    /// The fields said to be nothing (an explicit null), by their bits in the provenance: what was said of them before
    /// is void. A field is never both said and cleared.
    #[prost(uint64, tag = "49")]
    pub cleared: u64,

    /// The kinds of sensitive text that the tenant's masking rules found in this event; sorted, each once.
    #[prost(string, repeated, tag = "50")]
    pub sensitive_kinds: Vec<String>,

    /// Names of the tools that a call of a model offers, each once, and of those that its answer asks for, in order.
    #[prost(string, repeated, tag = "51")]
    pub tools_offered: Vec<String>,
    #[prost(string, repeated, tag = "52")]
    pub tools_called: Vec<String>,

    // Wide and cold: these stand in observation_io.
    #[prost(string, optional, tag = "60")]
    pub input: Option<String>,
    #[prost(string, optional, tag = "61")]
    pub output: Option<String>,
    #[prost(string, optional, tag = "62")]
    pub exception_stacktrace: Option<String>,
    /// Everything the client sent that has no column of its own. Values that are not strings are JSON.
    #[prost(btree_map = "string, string", tag = "63")]
    pub attributes: BTreeMap<String, String>,
}

macro_rules! named_enum {
    ($(#[$doc:meta])* $name:ident { $($(#[$note:meta])* $variant:ident = $number:literal => $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
        #[repr(i32)]
        pub enum $name { $($(#[$note])* $variant = $number),+ }

        impl $name {
            pub const ALL: &[$name] = &[$($name::$variant),+];

            /// The word that stands in the table.
            pub fn as_str(self) -> &'static str {
                match self { $($name::$variant => $text),+ }
            }

            /// Reads the word, in any case.
            pub fn from_word(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|value| value.as_str().eq_ignore_ascii_case(word))
            }
        }
    };
}
pub(crate) use named_enum;

named_enum! {
    /// What kind of step an observation is. A number unknown to this version reads as `Span`.
    ObservationType {
        Span = 0 => "SPAN",
        Generation = 1 => "GENERATION",
        Event = 2 => "EVENT",
        Embedding = 3 => "EMBEDDING",
        Agent = 4 => "AGENT",
        Tool = 5 => "TOOL",
        Chain = 6 => "CHAIN",
        Retriever = 7 => "RETRIEVER",
        Guardrail = 8 => "GUARDRAIL",
        Evaluator = 9 => "EVALUATOR",
    }
}

named_enum! {
    Level {
        Default = 0 => "DEFAULT",
        Debug = 1 => "DEBUG",
        Warning = 2 => "WARNING",
        Error = 3 => "ERROR",
    }
}

named_enum! {
    Status {
        Unset = 0 => "unset",
        Ok = 1 => "ok",
        Error = 2 => "error",
    }
}

named_enum! {
    UsageSource {
        /// No usage was reported.
        None = 0 => "none",
        /// The client reported it.
        Provided = 1 => "provided",
        /// Counted by us from the text.
        Counted = 2 => "counted",
        /// A span that sums up others, or a second report of one call: kept in the map, not counted in the columns.
        Repeated = 3 => "repeated",
    }
}

named_enum! {
    CostSource {
        None = 0 => "none",
        Provided = 1 => "provided",
        Computed = 2 => "computed",
    }
}
