//! Of rows of `observations`, only what decides whether their usage repeats that of others.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;

use super::super::cells::cells;
use super::within;
use crate::model::{CostSource, Observation, ObservationType, ReadError, UsageSource};

/// The columns that a [`ReportReader`] reads.
pub const REPORT_COLUMNS: [&str; 12] = [
    "trace_id",
    "id",
    "parent_id",
    "type",
    "response_id",
    "start_ns",
    "model",
    "usage",
    "total_tokens",
    "usage_source",
    "cost",
    "cost_source",
];

cells! {
    Columns {
        trace_id: Text, id: Text, parent_id: Text, observation_type: Text = "type", response_id: Text, start_ns: Long,
        model: Text, usage: LongMap, total_tokens: Long, usage_source: Text, cost: MoneyMap, cost_source: Text,
    }
}

/// Reads the rows of a batch of `observations` with at least [`REPORT_COLUMNS`].
#[derive(Debug)]
pub struct ReportReader {
    columns: Columns,
    rows: usize,
}

impl ReportReader {
    pub fn new(batch: &RecordBatch) -> Result<Self, ReadError> {
        Ok(Self { columns: Columns::of(batch)?, rows: batch.num_rows() })
    }

    /// The trace that a row belongs to.
    pub fn trace(&self, row: usize) -> Option<&str> {
        self.columns.trace_id.get(row)
    }

    /// An observation as [`Observation::as_report`] leaves it.
    pub fn read(&self, row: usize) -> Result<Observation, ReadError> {
        within(row, self.rows)?;
        let columns = &self.columns;
        let provided = columns.cost_source.get(row) == Some(CostSource::Provided.as_str());
        let provided_cost = match provided {
            true => columns.cost.amounts(row).into_iter().map(|(kind, amount)| (kind, amount.pico())).collect(),
            false => BTreeMap::new(),
        };
        Ok(Observation {
            trace_id: columns.trace_id.key(row)?,
            id: columns.id.key(row)?,
            parent_id: columns.parent_id.owned(row),
            observation_type: columns
                .observation_type
                .get(row)
                .and_then(ObservationType::from_word)
                .map(|kind| kind as i32),
            response_id: columns.response_id.owned(row),
            start_ns: columns.start_ns.get(row),
            model: columns.model.owned(row),
            usage: columns.usage.longs(row),
            total_tokens: columns.total_tokens.get(row),
            usage_source: columns.usage_source.get(row).and_then(UsageSource::from_word).map(|source| source as i32),
            provided_cost,
            ..Observation::default()
        })
    }
}
