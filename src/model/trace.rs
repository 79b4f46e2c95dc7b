//! What is said about a trace rather than about one of its spans.

use std::collections::BTreeMap;

#[derive(Clone, PartialEq, prost::Message)]
pub struct TraceFacts {
    #[prost(string, tag = "1")]
    pub trace_id: String,
    /// When the trace began, microseconds since 1970; the earliest one said wins.
    #[prost(int64, optional, tag = "2")]
    pub timestamp_us: Option<i64>,
    #[prost(string, optional, tag = "3")]
    pub name: Option<String>,
    #[prost(string, optional, tag = "4")]
    pub user_id: Option<String>,
    #[prost(string, optional, tag = "5")]
    pub session_id: Option<String>,
    #[prost(string, repeated, tag = "6")]
    pub tags: Vec<String>,
    #[prost(string, optional, tag = "7")]
    pub release: Option<String>,
    #[prost(string, optional, tag = "8")]
    pub version: Option<String>,
    #[prost(string, optional, tag = "9")]
    pub environment: Option<String>,
    #[prost(bool, optional, tag = "10")]
    pub public: Option<bool>,
    #[prost(btree_map = "string, string", tag = "11")]
    pub metadata: BTreeMap<String, String>,
    /// The observation that is the trace's root.
    #[prost(string, optional, tag = "12")]
    pub root_id: Option<String>,
    /// The root's name: the trace's name where none was said.
    #[prost(string, optional, tag = "13")]
    pub root_name: Option<String>,
    #[prost(string, optional, tag = "14")]
    pub input: Option<String>,
    #[prost(string, optional, tag = "15")]
    pub output: Option<String>,
    /// What the client sent about the trace that has no column of its own; stands beside input and output.
    #[prost(btree_map = "string, string", tag = "16")]
    pub attributes: BTreeMap<String, String>,
    /// The fields said to be nothing, as [`super::Observation::cleared`].
    #[prost(uint64, tag = "17")]
    pub cleared: u64,
    /// As [`super::Observation::sensitive_kinds`].
    #[prost(string, repeated, tag = "18")]
    pub sensitive_kinds: Vec<String>,
}

impl TraceFacts {
    /// Whether rows stamped with one and with the other are the same.
    pub fn stamps_like(&self, other: &Self) -> bool {
        self.name == other.name
            && self.user_id == other.user_id
            && self.session_id == other.session_id
            && self.environment == other.environment
            && self.release == other.release
            && self.version == other.version
            && self.tags == other.tags
            && self.root_id == other.root_id
            && self.root_name == other.root_name
            && self.metadata == other.metadata
            && self.cleared == other.cleared
    }
}
