//! Rows that stand in a file, read back as the events they were merged from: late events merge with them, and the row
//! is built again.
//!
//! Promises: what a row does not say itself (a default, what its trace says) is not read as said, so building the row
//! again from what was read gives the same row.

mod observation;
mod report;

use arrow::array::RecordBatch;

use super::cells::cells;
use crate::base::TimestampUs;
use crate::model::merge::{score_bits, trace_bits};
use crate::model::{Merge, Observation, Order, ReadError, Score, ScoreDataType, TraceFacts};

pub use observation::{ObservationReader, ReadObservation, Stamped};
pub use report::{REPORT_COLUMNS, ReportReader};

/// Reads one row of `observations`; an [`ObservationReader`] reads many.
pub fn read_observation(batch: &RecordBatch, row: usize) -> Result<ReadObservation, ReadError> {
    ObservationReader::new(batch)?.read(row)
}

/// A row of `observation_io`.
#[derive(Debug, Clone, PartialEq)]
pub struct ReadIo {
    pub said: IoEvents,
    /// The start of the observation, as the row is sorted by it.
    pub start_us: TimestampUs,
}

/// Events with nothing but ids and texts.
#[derive(Debug, Clone, PartialEq)]
pub enum IoEvents {
    Observation(Vec<(Order, Observation)>),
    Trace(Vec<(Order, TraceFacts)>),
}

/// Reads one row of `observation_io`; an [`IoReader`] reads many.
pub fn read_io(batch: &RecordBatch, row: usize) -> Result<ReadIo, ReadError> {
    IoReader::new(batch)?.read(row)
}

/// A row of `trace_facts`.
#[derive(Debug, Clone, PartialEq)]
pub struct ReadTraceFacts {
    pub events: Vec<(Order, TraceFacts)>,
    pub ingested_at_us: TimestampUs,
}

/// Reads one row of `trace_facts`; a [`TraceReader`] reads many.
pub fn read_trace_facts(batch: &RecordBatch, row: usize) -> Result<ReadTraceFacts, ReadError> {
    TraceReader::new(batch)?.read(row)
}

/// A row of `scores`.
#[derive(Debug, Clone, PartialEq)]
pub struct ReadScore {
    pub events: Vec<(Order, Score)>,
    pub ingested_at_us: TimestampUs,
}

/// Reads one row of `scores`; a [`ScoreReader`] reads many.
pub fn read_score(batch: &RecordBatch, row: usize) -> Result<ReadScore, ReadError> {
    ScoreReader::new(batch)?.read(row)
}

cells! {
    IoColumns {
        trace_id: Text, id: Text, start_time: Timestamp, input: Text, output: Text, exception_stacktrace: Text,
        attributes: TextMap, _merge: Binary,
    }
}

/// Reads the rows of a batch of `observation_io`.
#[derive(Debug)]
pub struct IoReader {
    columns: IoColumns,
    rows: usize,
}

impl IoReader {
    pub fn new(batch: &RecordBatch) -> Result<Self, ReadError> {
        Ok(Self { columns: IoColumns::of(batch)?, rows: batch.num_rows() })
    }

    pub fn read(&self, row: usize) -> Result<ReadIo, ReadError> {
        within(row, self.rows)?;
        let columns = &self.columns;
        let (trace_id, id) = (columns.trace_id.key(row)?, columns.id.key(row)?);
        let (input, output) = (columns.input.owned(row), columns.output.owned(row));
        let provenance = columns._merge.get(row);
        let attributes = columns.attributes.texts(row);
        let said = if id.is_empty() {
            IoEvents::Trace(events(
                TraceFacts { trace_id, input, output, attributes, ..Default::default() },
                provenance,
            )?)
        } else {
            let exception_stacktrace = columns.exception_stacktrace.owned(row);
            let text =
                Observation { trace_id, id, input, output, exception_stacktrace, attributes, ..Default::default() };
            IoEvents::Observation(events(text, provenance)?)
        };
        Ok(ReadIo { said, start_us: columns.start_time.always(row)? })
    }
}

cells! {
    TraceColumns {
        trace_id: Text, timestamp: Timestamp, name: Text, user_id: Text, session_id: Text, tags: TextList,
        release: Text, version: Text, environment: Text, public: Boolean, metadata: TextMap, root_id: Text,
        ingested_at: Timestamp, _merge: Binary, root_name: Text, sensitive_kinds: TextList,
    }
}

/// Reads the rows of a batch of `trace_facts`.
#[derive(Debug)]
pub struct TraceReader {
    columns: TraceColumns,
    rows: usize,
}

impl TraceReader {
    pub fn new(batch: &RecordBatch) -> Result<Self, ReadError> {
        Ok(Self { columns: TraceColumns::of(batch)?, rows: batch.num_rows() })
    }

    pub fn read(&self, row: usize) -> Result<ReadTraceFacts, ReadError> {
        within(row, self.rows)?;
        let columns = &self.columns;
        let provenance = columns._merge.get(row);
        let bits = TraceFacts::said(provenance)?;
        // Provenance knows what was said; without it, what may be a stand-in is none.
        let is_said = |bit: u64, is_no_stand_in: bool| bits.map_or(is_no_stand_in, |bits| bits & bit != 0);
        let ingested_at_us = columns.ingested_at.always(row)?;
        let (shown_name, root_name) = (columns.name.owned(row), columns.root_name.owned(row));
        let (name, root_name) = match is_said(trace_bits::name, shown_name != root_name) {
            true => (shown_name, root_name),
            false => (None, root_name.or(shown_name)),
        };
        let facts = TraceFacts {
            trace_id: columns.trace_id.key(row)?,
            timestamp_us: (columns.timestamp.get(row))
                .filter(|us| is_said(trace_bits::timestamp_us, *us != ingested_at_us)),
            name,
            user_id: columns.user_id.owned(row),
            session_id: columns.session_id.owned(row),
            tags: columns.tags.texts(row),
            release: columns.release.owned(row),
            version: columns.version.owned(row),
            environment: columns.environment.owned(row).filter(|it| is_said(trace_bits::environment, it != "default")),
            public: columns.public.get(row).filter(|it| is_said(trace_bits::public, *it)),
            metadata: columns.metadata.texts(row),
            root_id: columns.root_id.owned(row),
            root_name,
            input: None,
            output: None,
            attributes: Default::default(),
            cleared: 0,
            sensitive_kinds: columns.sensitive_kinds.texts(row),
        };
        Ok(ReadTraceFacts { events: events(facts, provenance)?, ingested_at_us })
    }
}

cells! {
    ScoreColumns {
        id: Text, trace_id: Text, observation_id: Text, session_id: Text, timestamp: Timestamp, name: Text,
        data_type: Text, value: Double, string_value: Text, source: Text, comment: Text, config_id: Text,
        environment: Text, metadata: TextMap, ingested_at: Timestamp, _merge: Binary, dataset_run_id: Text,
        queue_id: Text, execution_trace_id: Text, sensitive_kinds: TextList,
    }
}

/// Reads the rows of a batch of `scores`.
#[derive(Debug)]
pub struct ScoreReader {
    columns: ScoreColumns,
    rows: usize,
}

impl ScoreReader {
    pub fn new(batch: &RecordBatch) -> Result<Self, ReadError> {
        Ok(Self { columns: ScoreColumns::of(batch)?, rows: batch.num_rows() })
    }

    pub fn read(&self, row: usize) -> Result<ReadScore, ReadError> {
        within(row, self.rows)?;
        let columns = &self.columns;
        let provenance = columns._merge.get(row);
        let bits = Score::said(provenance)?;
        let is_said = |bit: u64, is_no_stand_in: bool| bits.map_or(is_no_stand_in, |bits| bits & bit != 0);
        let ingested_at_us = columns.ingested_at.always(row)?;
        let data_type = columns.data_type.get(row).and_then(ScoreDataType::from_word);
        let score = Score {
            id: columns.id.key(row)?,
            trace_id: columns.trace_id.owned(row),
            observation_id: columns.observation_id.owned(row),
            session_id: columns.session_id.owned(row),
            name: columns.name.owned(row).unwrap_or_default(),
            data_type: data_type.unwrap_or(ScoreDataType::Numeric).into(),
            value: columns.value.get(row),
            string_value: columns.string_value.owned(row),
            source: columns.source.owned(row).filter(|it| is_said(score_bits::source, it != "API")),
            comment: columns.comment.owned(row),
            config_id: columns.config_id.owned(row),
            environment: columns.environment.owned(row).filter(|it| is_said(score_bits::environment, it != "default")),
            timestamp_us: (columns.timestamp.get(row))
                .filter(|us| is_said(score_bits::timestamp_us, *us != ingested_at_us)),
            metadata: columns.metadata.texts(row),
            dataset_run_id: columns.dataset_run_id.owned(row),
            queue_id: columns.queue_id.owned(row),
            execution_trace_id: columns.execution_trace_id.owned(row),
            cleared: 0,
            sensitive_kinds: columns.sensitive_kinds.texts(row),
        };
        Ok(ReadScore { events: events(score, provenance)?, ingested_at_us })
    }
}

/// The events that a row was merged from.
fn events<T: Merge>(row: T, provenance: Option<&[u8]>) -> Result<Vec<(Order, T)>, ReadError> {
    let order = row.order_of_one();
    row.split(provenance, &order)
}

fn within(row: usize, rows: usize) -> Result<(), ReadError> {
    if row < rows { Ok(()) } else { Err(ReadError::NoSuchRow { row, rows }) }
}
