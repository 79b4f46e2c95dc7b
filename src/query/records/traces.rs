//! Pages of traces, and of the sessions they make up.

use std::collections::{BTreeMap, HashMap};

use arrow::array::RecordBatch;
use datafusion::logical_expr::LogicalPlanBuilder;
use datafusion::prelude::ident;

use super::base::{Base, having};
use super::observations::texts;
use super::{RecordsAsked, SessionRecord, TraceRecord};
use crate::model::tables::Table;
use crate::query::error::QueryError;
use crate::query::metrics::GROUP_SPAN_MAX_US;
use crate::query::running::Query;
use crate::query::traces::{Cells, text_of};

/// Observations and scores of the traces of one page.
const MEMBERS_MAX: u64 = 1_000_000;

const COLUMNS: [&str; 15] = [
    "id",
    "timestamp",
    "name",
    "user_id",
    "session_id",
    "release",
    "version",
    "environment",
    "public",
    "tags",
    "root_id",
    "latency_ms",
    "total_cost",
    "first_in",
    "last_in",
];

pub(super) async fn page(query: &Query, base: &Base, asked: &RecordsAsked) -> Result<Vec<TraceRecord>, QueryError> {
    let plan = base.page(query, asked, &["id"], &COLUMNS)?;
    let (mut traces, mut roots) = (Vec::new(), HashMap::new());
    for batch in query.collect(&plan, asked.limit as u64).await? {
        let cells = Cells::of(&batch);
        for row in 0..batch.num_rows() {
            traces.push(record(&cells, row));
            roots.insert(cells.key("id", row), cells.key("root_id", row));
        }
    }
    if traces.is_empty() {
        return Ok(traces);
    }
    if asked.with.members || asked.with.texts {
        add_observations(query, &mut traces, &mut roots, asked.with.members).await?;
    }
    if asked.with.members {
        add_scores(query, &mut traces).await?;
    }
    if asked.with.texts {
        add_texts(query, &mut traces, &roots).await?;
        add_metadata(query, &mut traces).await?;
    }
    Ok(traces)
}

fn record(cells: &Cells<'_>, row: usize) -> TraceRecord {
    let created_us = cells.time_us("first_in", row).unwrap_or_default();
    TraceRecord {
        id: cells.key("id", row),
        timestamp_us: cells.time_us("timestamp", row).unwrap_or_default(),
        name: cells.text("name", row),
        user_id: cells.text("user_id", row),
        session_id: cells.text("session_id", row),
        release: cells.text("release", row),
        version: cells.text("version", row),
        environment: cells.text("environment", row),
        is_public: cells.boolean("public", row).unwrap_or_default(),
        tags: cells.texts("tags", row),
        latency_ms: cells.double("latency_ms", row),
        total_cost: cells.money("total_cost", row),
        created_us,
        updated_us: cells.time_us("last_in", row).unwrap_or(created_us),
        ..Default::default()
    }
}

/// Each row of `table` that is of one of the traces.
async fn each(
    query: &Query,
    table: Table,
    traces: &[TraceRecord],
    near: bool,
    columns: &[&str],
    mut take: impl FnMut(&Cells<'_>, usize),
) -> Result<(), QueryError> {
    let ids = texts(traces.iter().map(|trace| trace.id.as_str()));
    let times = || traces.iter().map(|trace| trace.timestamp_us);
    let (first, last) = (times().min().unwrap_or_default(), times().max().unwrap_or_default());
    let near = near.then(|| (first.saturating_sub(GROUP_SPAN_MAX_US), last.saturating_add(GROUP_SPAN_MAX_US)));
    let rows = having(query, table, ("trace_id", &ids), near).await?;
    let plan = rows
        .and_then(|rows| rows.project(columns.iter().map(|column| ident(*column))))
        .and_then(LogicalPlanBuilder::build)
        .map_err(|e| query.translate(e))?;
    let batches: Vec<RecordBatch> = query.collect(&plan, MEMBERS_MAX).await?;
    for batch in &batches {
        let cells = Cells::of(batch);
        (0..batch.num_rows()).for_each(|row| take(&cells, row));
    }
    Ok(())
}

/// An observation of a trace by its start: whether it has no parent, and whether it is a root.
type Seen = BTreeMap<(i64, String), (bool, bool)>;

/// The ids of their observations in the order of their starts; and which is the root: the first without a parent, rather
/// than what was marked as one.
async fn add_observations(
    query: &Query,
    traces: &mut [TraceRecord],
    roots: &mut HashMap<String, String>,
    members: bool,
) -> Result<(), QueryError> {
    let mut found: HashMap<String, Seen> = HashMap::new();
    const SEEN: [&str; 5] = ["trace_id", "id", "parent_id", "is_root", "start_time"];
    each(query, Table::Observations, traces, true, &SEEN, |cells, row| {
        let place = (cells.time_us("start_time", row).unwrap_or_default(), cells.key("id", row));
        let has_no_parent = cells.text("parent_id", row).is_none_or(|parent| parent.is_empty());
        let is_root = cells.boolean("is_root", row).unwrap_or_default();
        found.entry(cells.key("trace_id", row)).or_default().insert(place, (has_no_parent, is_root));
    })
    .await?;
    for trace in traces {
        let Some(seen) = found.remove(&trace.id) else { continue };
        if let Some(root) = roots.get_mut(&trace.id) {
            let without_parent = seen.iter().find(|(_, (has_no_parent, _))| *has_no_parent);
            let marked = || seen.iter().find(|(_, (_, is_root))| *is_root).filter(|_| root.is_empty());
            if let Some(((_, id), _)) = without_parent.or_else(marked) {
                *root = id.clone();
            }
        }
        if members {
            trace.observation_ids = seen.into_keys().map(|(_, id)| id).collect();
        }
    }
    Ok(())
}

async fn add_scores(query: &Query, traces: &mut [TraceRecord]) -> Result<(), QueryError> {
    let mut found: HashMap<String, Vec<(i64, String)>> = HashMap::new();
    each(query, Table::Scores, traces, false, &["trace_id", "id", "timestamp"], |cells, row| {
        let score = (cells.time_us("timestamp", row).unwrap_or_default(), cells.key("id", row));
        found.entry(cells.key("trace_id", row)).or_default().push(score);
    })
    .await?;
    for trace in traces {
        let mut scores = found.remove(&trace.id).unwrap_or_default();
        scores.sort();
        trace.score_ids = scores.into_iter().map(|(_, id)| id).collect();
    }
    Ok(())
}

type Sides = (Option<String>, Option<String>);

/// A trace's own input and output stand under an empty id.
async fn add_texts(
    query: &Query,
    traces: &mut [TraceRecord],
    roots: &HashMap<String, String>,
) -> Result<(), QueryError> {
    let mut wanted: Vec<&str> = roots.values().map(String::as_str).chain([""]).collect();
    wanted.sort_unstable();
    wanted.dedup();
    let ids = texts(traces.iter().map(|trace| trace.id.as_str()));
    let rows = having(query, Table::ObservationIo, ("trace_id", &ids), None).await?;
    let of_root = ident("id").in_list(wanted.into_iter().map(datafusion::logical_expr::lit).collect(), false);
    let plan = rows
        .and_then(|rows| rows.filter(of_root))
        .and_then(|rows| rows.project(["trace_id", "id", "input", "output"].map(ident)))
        .and_then(LogicalPlanBuilder::build)
        .map_err(|e| query.translate(e))?;
    let mut found: HashMap<(String, String), Sides> = HashMap::new();
    for batch in query.collect(&plan, MEMBERS_MAX).await? {
        let cells = Cells::of(&batch);
        for row in 0..batch.num_rows() {
            let sides = (cells.text("input", row), cells.text("output", row));
            found.insert((cells.key("trace_id", row), cells.key("id", row)), sides);
        }
    }
    for trace in traces {
        let own = found.remove(&(trace.id.clone(), String::new())).unwrap_or_default();
        let root = roots.get(&trace.id).cloned().unwrap_or_default();
        let of_root = found.remove(&(trace.id.clone(), root)).unwrap_or_default();
        (trace.input, trace.output) = (own.0.or(of_root.0), own.1.or(of_root.1));
    }
    Ok(())
}

async fn add_metadata(query: &Query, traces: &mut [TraceRecord]) -> Result<(), QueryError> {
    let mut found: HashMap<String, BTreeMap<String, String>> = HashMap::new();
    each(query, Table::TraceFacts, traces, true, &["trace_id", "metadata"], |cells, row| {
        found.insert(cells.key("trace_id", row), cells.map("metadata", row, text_of));
    })
    .await?;
    for trace in traces {
        trace.metadata = found.remove(&trace.id).unwrap_or_default();
    }
    Ok(())
}

pub(super) async fn sessions(
    query: &Query,
    base: &Base,
    asked: &RecordsAsked,
) -> Result<Vec<SessionRecord>, QueryError> {
    let plan = base.page(query, asked, &["id"], &["id", "timestamp", "environment"])?;
    let batches = query.collect(&plan, asked.limit as u64).await?;
    let record = |batch: &RecordBatch, row: usize| {
        let cells = Cells::of(batch);
        SessionRecord {
            id: cells.key("id", row),
            created_us: cells.time_us("timestamp", row).unwrap_or_default(),
            environment: cells.text("environment", row),
        }
    };
    Ok(batches.iter().flat_map(|batch| (0..batch.num_rows()).map(move |row| record(batch, row))).collect())
}
