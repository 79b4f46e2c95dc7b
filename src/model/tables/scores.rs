//! `scores`: judgements on traces, observations, sessions and runs over datasets.

use std::borrow::Cow;
use std::sync::Arc;

use super::Column;
use super::columns::{self as fill, ColumnType as T};
use crate::base::TimestampUs;
use crate::model::{Score, ScoreDataType};

pub(super) const COMMENT: &str = "One row per score of a trace, an observation, a session or a run over a dataset.";

#[derive(Debug, Clone)]
pub struct ScoreRow {
    pub score: Arc<Score>,
    pub ingested_at_us: TimestampUs,
    pub provenance: Option<Vec<u8>>,
}

// One column a line.
#[rustfmt::skip]
pub const SCORES: &[Column<ScoreRow>] = &[
    Column { name: "id", kind: T::Text, comment: "The score, as sent: unique in the tenant.", fill: |r| fill::text(r, |r| Some(&r.score.id)) },
    Column { name: "trace_id", kind: T::Text, comment: "The trace judged.", fill: |r| fill::text(r, |r| r.score.trace_id.as_deref()) },
    Column { name: "observation_id", kind: T::Text, comment: "The observation judged.", fill: |r| fill::text(r, |r| r.score.observation_id.as_deref()) },
    Column { name: "session_id", kind: T::Text, comment: "The session judged.", fill: |r| fill::text(r, |r| r.score.session_id.as_deref()) },
    Column { name: "timestamp", kind: T::Timestamp, comment: "When it was given, UTC.", fill: |r| fill::timestamp(r, |r| Some(r.timestamp_us())) },
    Column { name: "name", kind: T::Text, comment: "What is judged: helpfulness, user_rating, …", fill: |r| fill::text(r, |r| Some(&r.score.name)) },
    Column { name: "data_type", kind: T::Text, comment: "NUMERIC, BOOLEAN, CATEGORICAL, TEXT or CORRECTION.", fill: |r| fill::text(r, |r| Some(ScoreDataType::try_from(r.score.data_type).unwrap_or(ScoreDataType::Numeric).as_str())) },
    Column { name: "value", kind: T::Double, comment: "Numeric value; 0 or 1 for boolean scores; a category's number, from its configuration.", fill: |r| fill::double(r, |r| r.score.value) },
    Column { name: "string_value", kind: T::Text, comment: "Category, text or corrected output; True or False for boolean scores.", fill: |r| fill::text(r, |r| r.score.string_value.as_deref()) },
    Column { name: "source", kind: T::Text, comment: "API, EVAL or ANNOTATION.", fill: |r| fill::text(r, |r| Some(r.score.source.as_deref().unwrap_or("API"))) },
    Column { name: "comment", kind: T::Text, comment: "The judge's words.", fill: |r| fill::text(r, |r| r.score.comment.as_deref()) },
    Column { name: "config_id", kind: T::Text, comment: "The score's configuration.", fill: |r| fill::text(r, |r| r.score.config_id.as_deref()) },
    Column { name: "environment", kind: T::Text, comment: "`default` where none was said.", fill: |r| fill::text(r, |r| Some(r.score.environment.as_deref().unwrap_or("default"))) },
    Column { name: "metadata", kind: T::TextMap, comment: "The sender's own keys.", fill: |r| fill::text_map(r, |r| &r.score.metadata) },
    Column { name: "ingested_at", kind: T::Timestamp, comment: "The stamp of the log object that first held it.", fill: |r| fill::timestamp(r, |r| Some(r.ingested_at_us)) },
    Column { name: "_merge", kind: T::Binary, comment: "Which event decided which field; null for a row of one event whose time is the row's own.", fill: |r| fill::binary(r, |r| r.provenance.as_deref()) },
    Column { name: "dataset_run_id", kind: T::Text, comment: "The run over a dataset that is judged.", fill: |r| fill::text(r, |r| r.score.dataset_run_id.as_deref()) },
    Column { name: "queue_id", kind: T::Text, comment: "The queue in which a person gave it.", fill: |r| fill::text(r, |r| r.score.queue_id.as_deref()) },
    Column { name: "execution_trace_id", kind: T::Text, comment: "The trace of the evaluation that gave it.", fill: |r| fill::text(r, |r| r.score.execution_trace_id.as_deref()) },
    Column { name: "sensitive_kinds", kind: T::TextList, comment: "Kinds of sensitive text that the tenant's masking rules found in it.", fill: |r| fill::text_list(r, |r| Cow::Borrowed(&r.score.sensitive_kinds)) },
];

impl ScoreRow {
    pub fn timestamp_us(&self) -> TimestampUs {
        self.score.timestamp_us.unwrap_or(self.ingested_at_us)
    }
}
