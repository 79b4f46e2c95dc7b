//! Pages of traces, newest first. The newest days are looked at first: a page that they fill reads no others. And first
//! it is found which traces a page has, then what there is to say of those few: most of a summary's columns are never
//! read of the others.

use std::collections::HashSet;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use datafusion::common::Column;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{Expr, JoinType, LogicalPlan, LogicalPlanBuilder, lit};
use datafusion::prelude::ident;
use datafusion::scalar::ScalarValue;

use super::cells::Cells;
use super::cursor::Cursor;
use crate::base::{Day, TimestampUs};
use crate::query::error::QueryError;
use crate::query::kept::Kept;
use crate::query::metrics::Listing;
use crate::query::running::Query;
use crate::wire::{Filter, FilterOperator, ListTracesRequest, ListTracesResponse, Reading, TimeRange, TraceSummary};

const LIMIT_DEFAULT: u32 = 50;
const LIMIT_MAX: u32 = 1_000;
const FIELDS_MAX: usize = 50;
/// A page not filled by the newest days looks at this many times as many.
const WIDENING: i64 = 4;

/// Fields of VIEW_TRACES that every summary has.
const SUMMARY: [&str; 20] = [
    "trace_id",
    "name",
    "start_time",
    "end_time",
    "latency_ms",
    "user_id",
    "session_id",
    "environment",
    "release",
    "version",
    "account",
    "project",
    "flow",
    "tags",
    "observations",
    "calls",
    "errors",
    "input_tokens",
    "output_tokens",
    "total_tokens",
];
const COST: &str = "total_cost";
/// What decides which traces a page has.
const KEYS: [&str; 2] = ["trace_id", "start_time"];

struct Key {
    start_us: TimestampUs,
    id: String,
}

pub(in crate::query) async fn list(
    query: &Query,
    request: &ListTracesRequest,
) -> Result<ListTracesResponse, QueryError> {
    let limit = limit(request.limit, LIMIT_DEFAULT, LIMIT_MAX)?;
    if request.fields.len() > FIELDS_MAX {
        return Err(QueryError::invalid(format!("more than {FIELDS_MAX} fields")));
    }
    let range = request.range.ok_or_else(|| QueryError::invalid("a time range is required"))?;
    let (filters, fields) = (request.filters.as_slice(), request.fields.as_slice());
    let pages = Pages { range, filters, fields, limit, first_us: FIRST_US, chosen: None };
    let (traces, next) = pages.page(query, Cursor::parse(&request.cursor)?).await?;
    Ok(ListTracesResponse { traces, next_cursor: next, reading: Some(Reading { exact: true, ..query.reading() }) })
}

pub(super) fn limit(asked: u32, default: u32, most: u32) -> Result<usize, QueryError> {
    match asked {
        0 => Ok(default as usize),
        asked if asked <= most => Ok(asked as usize),
        asked => Err(QueryError::invalid(format!("a limit of {asked} is not possible: use 1 to {most}"))),
    }
}

pub(super) struct Pages<'a> {
    pub(super) range: TimeRange,
    pub(super) filters: &'a [Filter],
    pub(super) fields: &'a [String],
    pub(super) limit: usize,
    /// How much of the range is looked at first.
    pub(super) first_us: i64,
    /// Who leaves traces out. `None`: all may be on a page.
    pub(super) chosen: Option<&'a dyn Chosen>,
}

/// Chooses traces by what their summaries do not say.
#[async_trait]
pub(super) trait Chosen: Sync {
    /// Of those that begin in this window.
    async fn among(&self, query: &Query, window_us: (TimestampUs, TimestampUs)) -> Result<Among, QueryError>;
}

pub(super) enum Among {
    All,
    /// Few enough to be looked for by their ids.
    These(Vec<String>),
    /// Those in the plan's one column. It may read rows that are held in memory.
    Those {
        traces: LogicalPlanBuilder,
        _held: Option<Kept>,
    },
}

pub(super) const FIRST_US: i64 = Day::US;

impl Pages<'_> {
    /// One page and the cursor of the next.
    pub(super) async fn page(
        &self,
        query: &Query,
        after: Option<Cursor>,
    ) -> Result<(Vec<TraceSummary>, String), QueryError> {
        let (from_us, mut to_us) = (self.range.from_unix_micros, self.range.to_unix_micros);
        // All is checked at once, also what no window needs to look at.
        Listing::of_traces((from_us, to_us), self.filters, &self.names())?;
        if let Some(after) = &after {
            // The trace at the cursor, and others that began with it, are among those left.
            to_us = to_us.min(after.start_us.saturating_add(1));
        }
        let end_us = to_us;
        let (mut found, mut ids): (Vec<Key>, HashSet<String>) = Default::default();
        let mut width_us = self.first_us;
        while from_us < to_us && found.len() <= self.limit {
            let start_us = from_us.max(to_us.saturating_sub(width_us));
            let wanted = self.limit + 1 - found.len();
            let keys = self.newest_keys(query, (start_us, to_us), after.as_ref(), wanted).await?;
            // A trace of several days may seem to begin twice.
            found.extend(keys.into_iter().filter(|key| ids.insert(key.id.clone())));
            to_us = start_us;
            width_us = width_us.saturating_mul(WIDENING);
        }
        let has_more = found.len() > self.limit;
        found.truncate(self.limit);
        let last = found.last().filter(|_| has_more);
        let next = last.map(|last| Cursor { start_us: last.start_us, trace_id: last.id.clone() }.text());
        // All that was looked through: a trace has its rows where it was found.
        Ok((self.summaries(query, found, (to_us, end_us)).await?, next.unwrap_or_default()))
    }

    /// Of the traces that begin in a window.
    async fn newest_keys(
        &self,
        query: &Query,
        window_us: (TimestampUs, TimestampUs),
        after: Option<&Cursor>,
        count: usize,
    ) -> Result<Vec<Key>, QueryError> {
        let among = match self.chosen {
            Some(chosen) => chosen.among(query, window_us).await?,
            None => Among::All,
        };
        if matches!(&among, Among::These(ids) if ids.is_empty()) {
            return Ok(Vec::new());
        }
        let listing = Listing::of_traces(window_us, self.filters, &KEYS)?;
        let rows = listing.rows(query).await?;
        let plan =
            rows.and_then(|rows| newest(among.of(rows)?, &KEYS, after, count)).map_err(|e| query.translate(e))?;
        let mut keys = Vec::with_capacity(count);
        for batch in query.collect(&plan, count as u64).await? {
            let named = listing.named(&batch);
            let cells = Cells::of(&named);
            keys.extend((0..batch.num_rows()).map(|row| Key {
                start_us: cells.time_us("start_time", row).unwrap_or_default(),
                id: cells.key("trace_id", row),
            }));
        }
        Ok(keys)
    }

    /// What there is to say of the traces of these keys.
    async fn summaries(
        &self,
        query: &Query,
        found: Vec<Key>,
        within_us: (TimestampUs, TimestampUs),
    ) -> Result<Vec<TraceSummary>, QueryError> {
        if found.is_empty() {
            return Ok(Vec::new());
        }
        let count = found.len();
        let values = found.into_iter().map(|key| key.id).collect();
        let operator = FilterOperator::In.into();
        let ids = Filter { field: "trace_id".to_owned(), operator, values, ..Filter::default() };
        let listing = Listing::of_traces(within_us, &[ids], &self.names())?;
        let rows = listing.rows(query).await?;
        let plan = rows.and_then(|rows| newest(rows, &SUMMARY, None, count)).map_err(|e| query.translate(e))?;
        let batches = query.collect(&plan, count as u64).await?;
        let mut summaries = Vec::with_capacity(count);
        for batch in &batches {
            let named = listing.named(batch);
            let cells = Cells::of(&named);
            summaries.extend((0..batch.num_rows()).map(|row| self.summary(&listing, batch, &cells, row)));
        }
        Ok(summaries)
    }

    fn names(&self) -> Vec<&str> {
        SUMMARY.into_iter().chain([COST]).chain(self.fields.iter().map(String::as_str)).collect()
    }

    fn summary(&self, listing: &Listing, batch: &RecordBatch, cells: &Cells<'_>, row: usize) -> TraceSummary {
        let extra = SUMMARY.len() + 1;
        TraceSummary {
            id: cells.key("trace_id", row),
            name: cells.text("name", row),
            start_unix_micros: cells.time_us("start_time", row).unwrap_or_default(),
            end_unix_micros: cells.time_us("end_time", row),
            latency_ms: cells.double("latency_ms", row),
            user_id: cells.text("user_id", row),
            session_id: cells.text("session_id", row),
            environment: cells.text("environment", row),
            release: cells.text("release", row),
            version: cells.text("version", row),
            account: cells.text("account", row),
            project: cells.text("project", row),
            flow: cells.text("flow", row),
            tags: cells.texts("tags", row),
            observations: cells.long("observations", row).unwrap_or_default(),
            calls: cells.long("calls", row).unwrap_or_default(),
            errors: cells.long("errors", row).unwrap_or_default(),
            input_tokens: cells.long("input_tokens", row),
            output_tokens: cells.long("output_tokens", row),
            total_tokens: cells.long("total_tokens", row),
            total_cost: cells.money(COST, row),
            values: (extra..extra + self.fields.len()).map(|at| listing.value(batch, at, row)).collect(),
        }
    }
}

impl Among {
    /// Of rows of [`KEYS`] those of these traces.
    fn of(&self, rows: LogicalPlanBuilder) -> Result<LogicalPlanBuilder, DataFusionError> {
        let id = Listing::column(0);
        match self {
            Self::All => Ok(rows),
            Self::These(ids) => rows.filter(ident(id).in_list(ids.iter().map(lit).collect(), false)),
            Self::Those { traces, .. } => {
                let traces = traces.clone().build()?;
                let key = traces.schema().qualified_field(0).1.name().clone();
                let on = (vec![Column::new_unqualified(id)], vec![Column::new_unqualified(key)]);
                rows.join(traces, JoinType::LeftSemi, on, None)
            }
        }
    }
}

/// `names`: the columns of `rows`.
fn newest(
    rows: LogicalPlanBuilder,
    names: &[&str],
    after: Option<&Cursor>,
    count: usize,
) -> Result<LogicalPlan, DataFusionError> {
    let place = |wanted| names.iter().position(|name| *name == wanted).expect("traces have a start and an id");
    let (start, id) = (Listing::column(place("start_time")), Listing::column(place("trace_id")));
    let rows = match after {
        Some(after) => rows.filter(is_after(after, ident(&start), ident(&id)))?,
        None => rows,
    };
    rows.sort_with_limit(vec![ident(start).sort(false, false), ident(id).sort(true, false)], Some(count))?.build()
}

fn is_after(cursor: &Cursor, start: Expr, id: Expr) -> Expr {
    let at = lit(ScalarValue::TimestampMicrosecond(Some(cursor.start_us), Some("UTC".into())));
    let same = start.clone().eq(at.clone()).and(id.gt(lit(cursor.trace_id.clone())));
    start.lt(at).or(same)
}
