//! A score: a judgement on a trace, an observation, a session or a run over a dataset.

use std::collections::BTreeMap;

use super::observation::named_enum;

#[derive(Clone, PartialEq, prost::Message)]
pub struct Score {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(string, optional, tag = "2")]
    pub trace_id: Option<String>,
    #[prost(string, optional, tag = "3")]
    pub observation_id: Option<String>,
    #[prost(string, optional, tag = "4")]
    pub session_id: Option<String>,
    #[prost(string, tag = "5")]
    pub name: String,
    #[prost(enumeration = "ScoreDataType", tag = "6")]
    pub data_type: i32,
    /// Numeric and boolean (0 or 1) scores.
    #[prost(double, optional, tag = "7")]
    pub value: Option<f64>,
    /// Categorical and text scores and corrections; `True` / `False` for boolean ones.
    #[prost(string, optional, tag = "8")]
    pub string_value: Option<String>,
    /// `API`, `EVAL` or `ANNOTATION`.
    #[prost(string, optional, tag = "9")]
    pub source: Option<String>,
    #[prost(string, optional, tag = "10")]
    pub comment: Option<String>,
    #[prost(string, optional, tag = "11")]
    pub config_id: Option<String>,
    #[prost(string, optional, tag = "12")]
    pub environment: Option<String>,
    /// Microseconds since 1970.
    #[prost(int64, optional, tag = "13")]
    pub timestamp_us: Option<i64>,
    #[prost(btree_map = "string, string", tag = "14")]
    pub metadata: BTreeMap<String, String>,
    #[prost(string, optional, tag = "15")]
    pub dataset_run_id: Option<String>,
    /// The queue in which a person gave it.
    #[prost(string, optional, tag = "16")]
    pub queue_id: Option<String>,
    /// The trace of the evaluation that gave it.
    #[prost(string, optional, tag = "17")]
    pub execution_trace_id: Option<String>,
    /// The fields said to be nothing, as [`super::Observation::cleared`].
    #[prost(uint64, tag = "18")]
    pub cleared: u64,
    /// As [`super::Observation::sensitive_kinds`].
    #[prost(string, repeated, tag = "19")]
    pub sensitive_kinds: Vec<String>,
}

named_enum! {
    ScoreDataType {
        Numeric = 0 => "NUMERIC",
        Boolean = 1 => "BOOLEAN",
        Categorical = 2 => "CATEGORICAL",
        Text = 3 => "TEXT",
        /// What the output should have been.
        Correction = 4 => "CORRECTION",
    }
}
