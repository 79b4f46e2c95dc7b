//! `trace_facts`: one row per trace, what is said about the trace rather than about a span.

use std::borrow::Cow;
use std::sync::Arc;

use super::Column;
use super::columns::{self as fill, ColumnType as T};
use crate::base::TimestampUs;
use crate::model::TraceFacts;

pub(super) const COMMENT: &str = "One row per trace: what is said about the trace rather than about one of its spans.";

#[derive(Debug, Clone)]
pub struct TraceRow {
    pub facts: Arc<TraceFacts>,
    pub ingested_at_us: TimestampUs,
    pub provenance: Option<Vec<u8>>,
}

// One column a line.
#[rustfmt::skip]
pub const TRACE_FACTS: &[Column<TraceRow>] = &[
    Column { name: "trace_id", kind: T::Text, comment: "The trace, as sent.", fill: |r| fill::text(r, |r| Some(&r.facts.trace_id)) },
    Column { name: "timestamp", kind: T::Timestamp, comment: "When the trace began, UTC.", fill: |r| fill::timestamp(r, |r| Some(r.timestamp_us())) },
    Column { name: "name", kind: T::Text, comment: "As said; else the root's name.", fill: |r| fill::text(r, |r| r.facts.name.as_deref().or(r.facts.root_name.as_deref())) },
    Column { name: "user_id", kind: T::Text, comment: "The end user.", fill: |r| fill::text(r, |r| r.facts.user_id.as_deref()) },
    Column { name: "session_id", kind: T::Text, comment: "The conversation.", fill: |r| fill::text(r, |r| r.facts.session_id.as_deref()) },
    Column { name: "tags", kind: T::TextList, comment: "Sorted, each once.", fill: |r| fill::text_list(r, |r| Cow::Borrowed(&r.facts.tags)) },
    Column { name: "release", kind: T::Text, comment: "The application's release.", fill: |r| fill::text(r, |r| r.facts.release.as_deref()) },
    Column { name: "version", kind: T::Text, comment: "The trace's version.", fill: |r| fill::text(r, |r| r.facts.version.as_deref()) },
    Column { name: "environment", kind: T::Text, comment: "`default` where none was said.", fill: |r| fill::text(r, |r| Some(r.facts.environment.as_deref().unwrap_or("default"))) },
    Column { name: "public", kind: T::Boolean, comment: "Shared by its sender.", fill: |r| fill::boolean(r, |r| Some(r.facts.public.unwrap_or(false))) },
    Column { name: "metadata", kind: T::TextMap, comment: "The sender's own keys; values that are not text are JSON.", fill: |r| fill::text_map(r, |r| &r.facts.metadata) },
    Column { name: "root_id", kind: T::Text, comment: "The observation that is the root.", fill: |r| fill::text(r, |r| r.facts.root_id.as_deref()) },
    Column { name: "ingested_at", kind: T::Timestamp, comment: "The stamp of the log object that first held it.", fill: |r| fill::timestamp(r, |r| Some(r.ingested_at_us)) },
    Column { name: "_merge", kind: T::Binary, comment: "Which event decided which field; null for a row of one event whose time is the row's own.", fill: |r| fill::binary(r, |r| r.provenance.as_deref()) },
    Column { name: "root_name", kind: T::Text, comment: "The name of the root.", fill: |r| fill::text(r, |r| r.facts.root_name.as_deref()) },
    Column { name: "sensitive_kinds", kind: T::TextList, comment: "Kinds of sensitive text that the tenant's masking rules found in what is said of the trace itself.", fill: |r| fill::text_list(r, |r| Cow::Borrowed(&r.facts.sensitive_kinds)) },
];

impl TraceRow {
    pub fn timestamp_us(&self) -> TimestampUs {
        self.facts.timestamp_us.unwrap_or(self.ingested_at_us)
    }
}
