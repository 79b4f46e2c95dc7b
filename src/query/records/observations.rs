//! Pages of observations: their keys by narrow columns, then the rows themselves and their texts.

use std::collections::HashMap;

use arrow::array::RecordBatch;
use datafusion::logical_expr::LogicalPlanBuilder;

use super::base::{Base, having};
use super::{ObservationRecord, RECORDS_MAX, RecordsAsked};
use crate::base::TimestampUs;
use crate::model::tables::Table;
use crate::query::error::QueryError;
use crate::query::running::Query;
use crate::query::traces::{Cells, observation, text};
use crate::wire::ObservationText;

/// Larger pages are read in one go: what would be saved is less than what finding them twice costs.
const APART_MAX: usize = 1_000;

type Key = (String, String);

pub(super) async fn page(
    query: &Query,
    base: &Base,
    asked: &RecordsAsked,
) -> Result<Vec<ObservationRecord>, QueryError> {
    const TIES: [&str; 2] = ["trace_id", "id"];
    let mut found: Vec<ObservationRecord> = match asked.limit <= APART_MAX {
        false => {
            let plan = base.page(query, asked, &TIES, &[])?;
            query.collect(&plan, asked.limit as u64).await?.iter().flat_map(records).collect()
        }
        true => {
            let plan = base.page(query, asked, &TIES, &["trace_id", "id", "start_time"])?;
            let mut keys: Vec<(Key, TimestampUs)> = Vec::new();
            for batch in query.collect(&plan, asked.limit as u64).await? {
                let cells = Cells::of(&batch);
                keys.extend((0..batch.num_rows()).map(|row| {
                    let key = (cells.key("trace_id", row), cells.key("id", row));
                    (key, cells.time_us("start_time", row).unwrap_or_default())
                }));
            }
            whole(query, keys).await?
        }
    };
    if asked.with.texts {
        add_texts(query, &mut found).await?;
    }
    Ok(found)
}

fn records(batch: &RecordBatch) -> Vec<ObservationRecord> {
    let cells = Cells::of(batch);
    let record = |row| ObservationRecord { seen: observation(&cells, row), text: None };
    (0..batch.num_rows()).map(record).collect()
}

/// The observations with these keys, in their order.
async fn whole(query: &Query, keys: Vec<(Key, TimestampUs)>) -> Result<Vec<ObservationRecord>, QueryError> {
    let times = || keys.iter().map(|(_, at)| *at);
    let (Some(first), Some(last)) = (times().min(), times().max()) else { return Ok(Vec::new()) };
    let ids = texts(keys.iter().map(|((_, id), _)| id.as_str()));
    let near = Some((first, last.saturating_add(1)));
    let rows = having(query, Table::Observations, ("id", &ids), near).await?;
    let plan = rows.and_then(LogicalPlanBuilder::build).map_err(|e| query.translate(e))?;
    let mut by_key: HashMap<Key, ObservationRecord> = HashMap::new();
    for batch in query.collect(&plan, RECORDS_MAX as u64).await? {
        by_key.extend(records(&batch).into_iter().map(|record| (key_of(&record), record)));
    }
    Ok(keys.iter().filter_map(|(key, _)| by_key.remove(key)).collect())
}

fn key_of(record: &ObservationRecord) -> Key {
    let said = record.seen.observation.as_ref();
    said.map(|said| (said.trace_id.clone(), said.id.clone())).unwrap_or_default()
}

async fn add_texts(query: &Query, found: &mut [ObservationRecord]) -> Result<(), QueryError> {
    let keys: Vec<Key> = found.iter().map(key_of).collect();
    let traces = texts(keys.iter().map(|(trace, _)| trace.as_str()));
    let mut by_key: HashMap<Key, ObservationText> = HashMap::new();
    // Where the observations are of few traces, all texts of these traces are wanted, or most of them.
    let of = match traces.len() < keys.len() {
        true => ("trace_id", traces),
        false => ("id", texts(keys.iter().map(|(_, id)| id.as_str()))),
    };
    if of.1.is_empty() {
        return Ok(());
    }
    let rows = having(query, Table::ObservationIo, (of.0, &of.1), None).await?;
    let plan = rows.and_then(LogicalPlanBuilder::build).map_err(|e| query.translate(e))?;
    for batch in query.collect(&plan, 2 * RECORDS_MAX as u64).await? {
        let cells = Cells::of(&batch);
        for row in 0..batch.num_rows() {
            by_key.insert((cells.key("trace_id", row), cells.key("id", row)), text(&cells, row));
        }
    }
    for (record, key) in found.iter_mut().zip(keys) {
        record.text = by_key.remove(&key);
    }
    Ok(())
}

/// Each once.
pub(super) fn texts<'a>(all: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut all: Vec<&str> = all.collect();
    all.sort_unstable();
    all.dedup();
    all
}
