//! `observation_io`: wide and cold, the text of each observation. Dashboards never touch it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Column;
use super::columns::{self as fill, ColumnType as T};
use crate::base::TimestampUs;
use crate::model::{Observation, TraceFacts};

pub(super) const COMMENT: &str =
    "Prompts, answers and whatever else was sent. A trace's own input and output stand under an empty id.";

/// Whose text it is.
#[derive(Debug, Clone)]
pub enum IoRow {
    Observation { observation: Arc<Observation>, start_us: TimestampUs, provenance: Option<Vec<u8>> },
    Trace { facts: Arc<TraceFacts>, start_us: TimestampUs, provenance: Option<Vec<u8>> },
}

// One column a line.
#[rustfmt::skip]
pub const OBSERVATION_IO: &[Column<IoRow>] = &[
    Column { name: "trace_id", kind: T::Text, comment: "The trace, as sent.", fill: |r| fill::text(r, |r| Some(r.trace_id())) },
    Column { name: "id", kind: T::Text, comment: "The observation; empty for the trace's own input and output.", fill: |r| fill::text(r, |r| Some(r.id())) },
    Column { name: "start_time", kind: T::Timestamp, comment: "Start of the observation, UTC.", fill: |r| fill::timestamp(r, |r| Some(r.start_us())) },
    Column { name: "input", kind: T::Text, comment: "Text as sent; structures are JSON.", fill: |r| fill::text(r, |r| r.text(|o| &o.input, |f| &f.input)) },
    Column { name: "output", kind: T::Text, comment: "Text as sent; structures are JSON.", fill: |r| fill::text(r, |r| r.text(|o| &o.output, |f| &f.output)) },
    Column { name: "exception_stacktrace", kind: T::Text, comment: "Of the exception event.", fill: |r| fill::text(r, |r| r.text(|o| &o.exception_stacktrace, |_| &None)) },
    Column { name: "attributes", kind: T::TextMap, comment: "Everything sent that has no column of its own; values that are not text are JSON.", fill: |r| fill::text_map(r, IoRow::attributes) },
    Column { name: "_merge", kind: T::Binary, comment: "Which event decided which text; null for one event without a time.", fill: |r| fill::binary(r, IoRow::provenance) },
];

impl IoRow {
    fn trace_id(&self) -> &str {
        match self {
            Self::Observation { observation, .. } => &observation.trace_id,
            Self::Trace { facts, .. } => &facts.trace_id,
        }
    }

    fn id(&self) -> &str {
        match self {
            Self::Observation { observation, .. } => &observation.id,
            Self::Trace { .. } => "",
        }
    }

    fn start_us(&self) -> TimestampUs {
        match self {
            Self::Observation { start_us, .. } | Self::Trace { start_us, .. } => *start_us,
        }
    }

    fn provenance(&self) -> Option<&[u8]> {
        match self {
            Self::Observation { provenance, .. } | Self::Trace { provenance, .. } => provenance.as_deref(),
        }
    }

    fn text<'a>(
        &'a self,
        of_observation: fn(&'a Observation) -> &'a Option<String>,
        of_trace: fn(&'a TraceFacts) -> &'a Option<String>,
    ) -> Option<&'a str> {
        match self {
            Self::Observation { observation, .. } => of_observation(observation).as_deref(),
            Self::Trace { facts, .. } => of_trace(facts).as_deref(),
        }
    }

    fn attributes(&self) -> &BTreeMap<String, String> {
        match self {
            Self::Observation { observation, .. } => &observation.attributes,
            Self::Trace { facts, .. } => &facts.attributes,
        }
    }
}
