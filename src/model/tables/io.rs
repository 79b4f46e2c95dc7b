//! `observation_io`: wide and cold, the text of each observation. Dashboards never touch it.

use std::collections::BTreeMap;

use super::Column;
use super::columns::{self as fill, ColumnType as T};
use crate::base::TimestampUs;

pub(super) const COMMENT: &str =
    "Prompts, answers and whatever else was sent. A trace's own input and output stand under an empty id.";

#[derive(Debug, Clone)]
pub struct IoRow {
    pub trace_id: String,
    pub id: String,
    pub start_us: TimestampUs,
    pub input: Option<String>,
    pub output: Option<String>,
    pub exception_stacktrace: Option<String>,
    pub attributes: BTreeMap<String, String>,
}

// One column a line.
#[rustfmt::skip]
pub const OBSERVATION_IO: &[Column<IoRow>] = &[
    Column { name: "trace_id", kind: T::Text, comment: "The trace, as sent.", fill: |r| fill::text(r, |r| Some(&r.trace_id)) },
    Column { name: "id", kind: T::Text, comment: "The observation; empty for the trace's own input and output.", fill: |r| fill::text(r, |r| Some(&r.id)) },
    Column { name: "start_time", kind: T::Timestamp, comment: "Start of the observation, UTC.", fill: |r| fill::timestamp(r, |r| Some(r.start_us)) },
    Column { name: "input", kind: T::Text, comment: "Text as sent; structures are JSON.", fill: |r| fill::text(r, |r| r.input.as_deref()) },
    Column { name: "output", kind: T::Text, comment: "Text as sent; structures are JSON.", fill: |r| fill::text(r, |r| r.output.as_deref()) },
    Column { name: "exception_stacktrace", kind: T::Text, comment: "Of the exception event.", fill: |r| fill::text(r, |r| r.exception_stacktrace.as_deref()) },
    Column { name: "attributes", kind: T::TextMap, comment: "Everything sent that has no column of its own; values that are not text are JSON.", fill: |r| fill::text_map(r, |r| &r.attributes) },
];
