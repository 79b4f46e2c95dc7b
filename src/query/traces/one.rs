//! One trace, in parts: never more of it in memory than a part and what the engine has in hand.

use arrow::array::RecordBatch;
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder, lit};
use datafusion::prelude::ident;
use futures::TryStreamExt;
use tokio::sync::mpsc;

use super::cells::{Cells, long_of, money_of, text_of};
use super::list::Pages;
use crate::base::TimestampUs;
use crate::model::tables::Table;
use crate::query::error::QueryError;
use crate::query::metrics::{GROUP_SPAN_MAX_US, scan, within};
use crate::query::running::Query;
use crate::wire::{
    Filter, FilterOperator, GetTraceRequest, GetTraceResponse, Observation, ObservationText, Reading, Score, TimeRange,
    TraceObservation, score,
};

pub(in crate::query) type Parts = mpsc::Sender<Result<GetTraceResponse, QueryError>>;

/// A part is sent when its texts weigh as much.
const PART_BYTES: usize = 512 << 10;
const PART_ROWS: usize = 500;

/// Sends the parts of a trace. An error: nothing follows. Gone listeners are none of our trouble.
pub(in crate::query) async fn send(query: &Query, request: &GetTraceRequest, parts: &Parts) -> Result<(), QueryError> {
    let range = match request.range {
        Some(range) if range.from_unix_micros >= range.to_unix_micros => {
            return Err(QueryError::invalid("the time range is empty"));
        }
        Some(range) => range,
        None => TimeRange { from_unix_micros: TimestampUs::MIN, to_unix_micros: TimestampUs::MAX },
    };
    if request.trace_id.is_empty() {
        return Err(QueryError::invalid("trace_id is required"));
    }
    let id = Filter {
        field: "trace_id".to_owned(),
        operator: FilterOperator::Equals.into(),
        values: vec![request.trace_id.clone()],
        ..Default::default()
    };
    let pages = Pages { range, filters: &[id], fields: &[], limit: 1, first_us: i64::MAX, chosen: None };
    let (mut found, _) = pages.page(query, None).await?;
    let trace = found.pop().ok_or(QueryError::NotFound("nothing of this trace is there"))?;
    // All of it lies near its start.
    let near = TimeRange {
        from_unix_micros: trace.start_unix_micros,
        to_unix_micros: trace.start_unix_micros.saturating_add(GROUP_SPAN_MAX_US),
    };
    put(parts, GetTraceResponse { trace: Some(trace), ..Default::default() }).await;

    let of = |table| rows(query, table, &request.trace_id);
    let plan = of(Table::Observations).await?.and_then(|rows| {
        let rows = rows.filter(within(&ident("start_time"), near.from_unix_micros, near.to_unix_micros))?;
        rows.sort(vec![ident("start_time").sort(true, false), ident("id").sort(true, false)])?.build()
    });
    each(query, plan, parts, |cells, row, part| part.observations.push(observation(cells, row))).await?;
    if request.with_io {
        let plan = of(Table::ObservationIo).await?.and_then(LogicalPlanBuilder::build);
        each(query, plan, parts, |cells, row, part| part.texts.push(text(cells, row))).await?;
    }
    let plan = of(Table::Scores)
        .await?
        .and_then(|rows| rows.sort(vec![ident("timestamp").sort(true, false), ident("id").sort(true, false)])?.build());
    each(query, plan, parts, |cells, row, part| part.scores.push(score(cells, row))).await?;
    let reading = Some(Reading { exact: true, ..query.reading() });
    put(parts, GetTraceResponse { reading, ..Default::default() }).await;
    Ok(())
}

type Planned<T> = Result<T, datafusion::error::DataFusionError>;

async fn rows(query: &Query, table: Table, trace_id: &str) -> Result<Planned<LogicalPlanBuilder>, QueryError> {
    let provider = query.table(table).await?;
    Ok(scan(table, &provider).and_then(|rows| rows.filter(ident("trace_id").eq(lit(trace_id)))))
}

async fn put(parts: &Parts, part: GetTraceResponse) {
    // Nobody listens any more: the task is about to be stopped.
    let _ = parts.send(Ok(part)).await;
}

/// Rows as they come, in parts.
async fn each(
    query: &Query,
    plan: Planned<LogicalPlan>,
    parts: &Parts,
    add: impl Fn(&Cells<'_>, usize, &mut GetTraceResponse),
) -> Result<(), QueryError> {
    let plan = plan.map_err(|e| query.translate(e))?;
    let (plan, mut rows) = query.stream(&plan).await?;
    let (mut part, mut held, mut bytes) = (GetTraceResponse::default(), 0, 0);
    while let Some(batch) = rows.try_next().await.map_err(|e| query.translate(e))? {
        let (cells, row_bytes) = (Cells::of(&batch), bytes_per_row(&batch));
        for row in 0..batch.num_rows() {
            add(&cells, row, &mut part);
            (held, bytes) = (held + 1, bytes + row_bytes);
            if held >= PART_ROWS || bytes >= PART_BYTES {
                put(parts, std::mem::take(&mut part)).await;
                (held, bytes) = (0, 0);
            }
        }
    }
    if held > 0 {
        put(parts, part).await;
    }
    query.note(&plan);
    Ok(())
}

fn bytes_per_row(batch: &RecordBatch) -> usize {
    crate::query::stream::bytes_of(batch) as usize / batch.num_rows().max(1)
}

pub(in crate::query) fn observation(cells: &Cells<'_>, row: usize) -> TraceObservation {
    let nanos = |column: &str| cells.time_us(column, row).map(|us| us.saturating_mul(1_000));
    let said = Observation {
        trace_id: cells.key("trace_id", row),
        id: cells.key("id", row),
        parent_id: cells.text("parent_id", row),
        r#type: cells.text("type", row),
        name: cells.text("name", row),
        start_unix_nano: cells.long("start_ns", row),
        end_unix_nano: nanos("end_time"),
        completion_start_unix_nano: nanos("completion_start_time"),
        event_unix_nano: None,
        level: cells.text("level", row),
        status_message: cells.text("status_message", row),
        error_type: cells.text("error_type", row),
        model: cells.text("model", row),
        provider: cells.text("provider", row),
        model_parameters: cells.map("model_parameters", row, text_of),
        prompt_name: cells.text("prompt_name", row),
        prompt_version: cells.long("prompt_version", row),
        finish_reasons: cells.texts("finish_reasons", row),
        tools_offered: cells.texts("tools_offered", row),
        tools_called: cells.texts("tools_called", row),
        response_id: cells.text("response_id", row),
        input_tokens: cells.long("input_tokens", row),
        cached_input_tokens: cells.long("cached_input_tokens", row),
        cache_write_tokens: cells.long("cache_write_tokens", row),
        output_tokens: cells.long("output_tokens", row),
        reasoning_tokens: cells.long("reasoning_tokens", row),
        total_tokens: cells.long("total_tokens", row),
        usage: cells.map("usage", row, long_of),
        cost: cells.map("cost", row, money_of),
        service_tier: cells.text("service_tier", row),
        input: None,
        output: None,
        metadata: cells.map("metadata", row, text_of),
        environment: cells.text("environment", row),
        release: cells.text("release", row),
        version: cells.text("version", row),
        user_id: cells.text("user_id", row),
        session_id: cells.text("session_id", row),
        tags: cells.texts("tags", row),
        agent_id: cells.text("agent_id", row),
        agent_name: cells.text("agent_name", row),
        tool_name: cells.text("tool_name", row),
        operation: cells.text("operation", row),
    };
    TraceObservation {
        observation: Some(said),
        is_root: cells.boolean("is_root", row).unwrap_or_default(),
        trace_name: cells.text("trace_name", row),
        account: cells.text("account", row),
        project: cells.text("project", row),
        flow: cells.text("flow", row),
        status: cells.text("status", row),
        truncated: cells.boolean("truncated", row),
        start_unix_micros: cells.time_us("start_time", row).unwrap_or_default(),
        latency_ms: cells.double("latency_ms", row),
        ttft_ms: cells.double("ttft_ms", row),
        model_id: cells.text("model_id", row),
        usage_source: cells.text("usage_source", row),
        input_cost: cells.money("input_cost", row),
        output_cost: cells.money("output_cost", row),
        total_cost: cells.money("total_cost", row),
        cost_source: cells.text("cost_source", row),
        price_id: cells.text("price_id", row),
        service_name: cells.text("service_name", row),
        source: cells.text("source", row),
        ingested_unix_micros: cells.time_us("ingested_at", row).unwrap_or_default(),
    }
}

pub(in crate::query) fn text(cells: &Cells<'_>, row: usize) -> ObservationText {
    ObservationText {
        observation_id: cells.key("id", row),
        input: cells.text("input", row),
        output: cells.text("output", row),
        exception_stacktrace: cells.text("exception_stacktrace", row),
        attributes: cells.map("attributes", row, text_of),
    }
}

fn score(cells: &Cells<'_>, row: usize) -> Score {
    let (number, word) = (cells.double("value", row), cells.text("string_value", row));
    let value = match cells.key("data_type", row).as_str() {
        "BOOLEAN" => number.map(|number| score::Value::Boolean(number != 0.0)),
        "CATEGORICAL" => word.map(score::Value::Categorical),
        "TEXT" => word.map(score::Value::Text),
        _ => number.map(score::Value::Numeric),
    };
    Score {
        id: cells.key("id", row),
        trace_id: cells.text("trace_id", row),
        observation_id: cells.text("observation_id", row),
        session_id: cells.text("session_id", row),
        name: cells.key("name", row),
        value,
        source: cells.text("source", row),
        comment: cells.text("comment", row),
        environment: cells.text("environment", row),
        timestamp_unix_nano: cells.time_us("timestamp", row).map(|us| us.saturating_mul(1_000)),
        metadata: cells.map("metadata", row, text_of),
        config_id: cells.text("config_id", row),
    }
}
