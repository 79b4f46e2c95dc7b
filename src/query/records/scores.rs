//! Pages of scores.

use std::collections::HashMap;

use arrow::array::RecordBatch;
use datafusion::logical_expr::LogicalPlanBuilder;

use super::base::{Base, having};
use super::observations::texts;
use super::{RECORDS_MAX, RecordsAsked, ScoreRecord, ScoredTrace};
use crate::model::tables::Table;
use crate::query::error::QueryError;
use crate::query::running::Query;
use crate::query::traces::{Cells, text_of};

pub(super) async fn page(query: &Query, base: &Base, asked: &RecordsAsked) -> Result<Vec<ScoreRecord>, QueryError> {
    let plan = base.page(query, asked, &["id"], &[])?;
    let batches = query.collect(&plan, asked.limit as u64).await?;
    let mut scores: Vec<ScoreRecord> = batches.iter().flat_map(records).collect();
    if asked.with.trace {
        add_traces(query, &mut scores).await?;
    }
    Ok(scores)
}

fn records(batch: &RecordBatch) -> Vec<ScoreRecord> {
    let cells = Cells::of(batch);
    let record = |row| ScoreRecord {
        id: cells.key("id", row),
        trace_id: cells.text("trace_id", row),
        observation_id: cells.text("observation_id", row),
        session_id: cells.text("session_id", row),
        dataset_run_id: cells.text("dataset_run_id", row),
        name: cells.key("name", row),
        data_type: cells.key("data_type", row),
        value: cells.double("value", row),
        string_value: cells.text("string_value", row),
        source: cells.text("source", row),
        comment: cells.text("comment", row),
        config_id: cells.text("config_id", row),
        queue_id: cells.text("queue_id", row),
        environment: cells.text("environment", row),
        metadata: cells.map("metadata", row, text_of),
        timestamp_us: cells.time_us("timestamp", row).unwrap_or_default(),
        created_us: cells.time_us("ingested_at", row).unwrap_or_default(),
        trace: None,
    };
    (0..batch.num_rows()).map(record).collect()
}

async fn add_traces(query: &Query, scores: &mut [ScoreRecord]) -> Result<(), QueryError> {
    let ids = texts(scores.iter().filter_map(|score| score.trace_id.as_deref()));
    let mut said: HashMap<String, ScoredTrace> = HashMap::new();
    if !ids.is_empty() {
        let rows = having(query, Table::TraceFacts, ("trace_id", &ids), None).await?;
        let plan = rows.and_then(LogicalPlanBuilder::build).map_err(|e| query.translate(e))?;
        for batch in query.collect(&plan, RECORDS_MAX as u64).await? {
            let cells = Cells::of(&batch);
            said.extend((0..batch.num_rows()).map(|row| {
                let trace = ScoredTrace {
                    user_id: cells.text("user_id", row),
                    session_id: cells.text("session_id", row),
                    environment: cells.text("environment", row),
                    tags: cells.texts("tags", row),
                };
                (cells.key("trace_id", row), trace)
            }));
        }
    }
    for score in scores {
        score.trace = score.trace_id.as_ref().map(|trace| said.get(trace).cloned().unwrap_or_default());
    }
    Ok(())
}
