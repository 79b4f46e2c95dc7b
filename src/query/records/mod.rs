//! Traces, observations, sessions and scores as they are: pages of them by any filter, in any order, with their number.
//!
//! What fits a filter is found over narrow columns (`base`); the wide ones are read for the rows of the page only.
//! Filters and orders name columns of `base`.

mod base;
mod observations;
mod scores;
mod traces;

use std::collections::BTreeMap;

use crate::base::TimestampUs;
use crate::query::error::QueryError;
use crate::query::running::Query;
use crate::wire::{Filter, ObservationText, OrderBy, TimeRange, TraceObservation};
use base::Base;

/// Rows of one answer that asks for all.
pub const RECORDS_MAX: usize = 100_000;

/// What is asked for: rows whose time lies in the range and that pass all filters.
#[derive(Debug, Clone)]
pub struct RecordsAsked {
    pub kind: RecordKind,
    pub range: TimeRange,
    /// By columns of the kind.
    pub filters: Vec<Filter>,
    /// Default: newest first. What is equal in all of it comes in the order of ids.
    pub order: Vec<OrderBy>,
    pub skip: usize,
    /// At most [`RECORDS_MAX`].
    pub limit: usize,
    pub with: With,
}

/// What is answered beside the rows themselves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct With {
    /// How many there are, whatever the page.
    pub count: bool,
    /// Inputs and outputs.
    pub texts: bool,
    /// Of traces: the ids of their observations and scores.
    pub members: bool,
    /// Of scores: what is said of the trace that was scored.
    pub trace: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordKind {
    /// Also those of which nothing but the trace itself was told.
    Traces,
    Observations,
    /// A session begins with its first trace.
    Sessions,
    Scores,
}

#[derive(Debug, Clone)]
pub struct RecordsAnswer {
    pub records: Records,
    /// With [`With::count`].
    pub count: Option<u64>,
}

#[derive(Debug, Clone)]
pub enum Records {
    Traces(Vec<TraceRecord>),
    Observations(Vec<ObservationRecord>),
    Sessions(Vec<SessionRecord>),
    Scores(Vec<ScoreRecord>),
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct TraceRecord {
    pub id: String,
    /// As said, else the earliest start.
    pub timestamp_us: TimestampUs,
    pub name: Option<String>,
    pub user_id: Option<String>,
    pub session_id: Option<String>,
    pub release: Option<String>,
    pub version: Option<String>,
    pub environment: Option<String>,
    pub is_public: bool,
    pub tags: Vec<String>,
    pub metadata: BTreeMap<String, String>,
    /// Its own, else its root's.
    pub input: Option<String>,
    pub output: Option<String>,
    /// From the earliest start to the latest end.
    pub latency_ms: Option<f64>,
    /// USD as exact decimal text.
    pub total_cost: Option<String>,
    /// When its first and its last part came in.
    pub created_us: TimestampUs,
    pub updated_us: TimestampUs,
    /// With [`With::members`].
    pub observation_ids: Vec<String>,
    pub score_ids: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct ObservationRecord {
    pub seen: TraceObservation,
    pub text: Option<ObservationText>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct SessionRecord {
    pub id: String,
    pub created_us: TimestampUs,
    pub environment: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct ScoreRecord {
    pub id: String,
    pub trace_id: Option<String>,
    pub observation_id: Option<String>,
    pub session_id: Option<String>,
    pub dataset_run_id: Option<String>,
    pub name: String,
    /// NUMERIC, BOOLEAN, CATEGORICAL, TEXT or CORRECTION.
    pub data_type: String,
    pub value: Option<f64>,
    pub string_value: Option<String>,
    pub source: Option<String>,
    pub comment: Option<String>,
    pub config_id: Option<String>,
    pub queue_id: Option<String>,
    pub environment: Option<String>,
    pub metadata: BTreeMap<String, String>,
    pub timestamp_us: TimestampUs,
    pub created_us: TimestampUs,
    /// With [`With::trace`].
    pub trace: Option<ScoredTrace>,
}

/// What is said of the trace that was scored.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ScoredTrace {
    pub user_id: Option<String>,
    pub session_id: Option<String>,
    pub environment: Option<String>,
    pub tags: Vec<String>,
}

/// One page, over the tables that `query` has pinned.
pub(super) async fn answer(query: &Query, asked: &RecordsAsked) -> Result<RecordsAnswer, QueryError> {
    if asked.limit > RECORDS_MAX {
        return Err(QueryError::rows(RECORDS_MAX as u64));
    }
    let base = Base::of(query, asked).await?;
    let count = match asked.with.count {
        true => Some(base.count(query).await?),
        false => None,
    };
    let is_past_the_end = count.is_some_and(|count| asked.skip as u64 >= count);
    let records = match asked.kind {
        RecordKind::Traces if is_past_the_end => Records::Traces(Vec::new()),
        RecordKind::Observations if is_past_the_end => Records::Observations(Vec::new()),
        RecordKind::Sessions if is_past_the_end => Records::Sessions(Vec::new()),
        RecordKind::Scores if is_past_the_end => Records::Scores(Vec::new()),
        RecordKind::Traces => Records::Traces(traces::page(query, &base, asked).await?),
        RecordKind::Observations => Records::Observations(observations::page(query, &base, asked).await?),
        RecordKind::Sessions => Records::Sessions(traces::sessions(query, &base, asked).await?),
        RecordKind::Scores => Records::Scores(scores::page(query, &base, asked).await?),
    };
    Ok(RecordsAnswer { records, count })
}
