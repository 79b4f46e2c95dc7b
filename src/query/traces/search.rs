//! Traces of which an input or output holds a text.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::DataType;
use async_trait::async_trait;
use datafusion::datasource::{TableProvider, provider_as_source};
use datafusion::error::Result as Planned;
use datafusion::functions::core::expr_fn::coalesce;
use datafusion::functions::string::expr_fn::{contains, lower};
use datafusion::functions::unicode::expr_fn::{strpos, substring};
use datafusion::functions_aggregate::expr_fn::sum;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, cast, lit, when};
use datafusion::prelude::ident;

use super::cells::Cells;
use super::cursor::Cursor;
use super::list::{Among, Chosen, FIRST_US, Pages, limit};
use crate::base::TimestampUs;
use crate::model::tables::Table;
use crate::query::error::QueryError;
use crate::query::functions;
use crate::query::metrics::{GROUP_SPAN_MAX_US, scan, within};
use crate::query::running::{Query, Spilling};
use crate::wire::{FoundTrace, Reading, SearchIn, SearchTracesRequest, SearchTracesResponse, Snippet};

const LIMIT_DEFAULT: u32 = 20;
const LIMIT_MAX: u32 = 200;
const TEXT_CHARS_MAX: usize = 1_000;
/// Of one trace.
const SNIPPETS_MAX: usize = 3;
/// Before and after the text.
const AROUND_CHARS: i64 = 80;
/// Of a query's memory, what the ids of found traces may take.
const FOUND_SHARE: f64 = 0.25;
/// So many traces are looked for by their ids, where the files tell early which they do not have.
const IDS_MAX: usize = 1_000;
const HIT: &str = "hit";

pub(in crate::query) async fn search(
    query: &Query,
    request: &SearchTracesRequest,
) -> Result<SearchTracesResponse, QueryError> {
    let limit = limit(request.limit, LIMIT_DEFAULT, LIMIT_MAX)?;
    let range = request.range.ok_or_else(|| QueryError::invalid("a time range is required"))?;
    let chars = request.text.chars().count();
    if !(1..=TEXT_CHARS_MAX).contains(&chars) {
        return Err(QueryError::invalid(format!(
            "the text to search for has {chars} characters: 1 to {TEXT_CHARS_MAX}"
        )));
    }
    let io = query.table(Table::ObservationIo).await?;
    let looked = Looked { request, sides: sides(request)?, io: Arc::clone(&io) };
    let filters = looked.request.filters.as_slice();
    let pages = Pages { range, filters, fields: &[], limit, first_us: FIRST_US, chosen: Some(&looked) };
    let (traces, next_cursor) = pages.page(query, Cursor::parse(&request.cursor)?).await?;

    let ids: Vec<Expr> = traces.iter().map(|trace| lit(trace.id.clone())).collect();
    let starts = || traces.iter().map(|trace| trace.start_unix_micros);
    let near_us = (starts().min().unwrap_or_default(), starts().max().unwrap_or_default().saturating_add(1));
    let mut found: BTreeMap<String, (i64, Vec<Snippet>)> = BTreeMap::new();
    if !ids.is_empty() {
        let rows = || -> Planned<LogicalPlanBuilder> {
            let rows = scan(Table::ObservationIo, &io)?.filter(ident("trace_id").in_list(ids.clone(), false))?;
            looked.hits(rows, near_us)
        };
        let counted = rows().and_then(|rows| looked.counted(rows)).map_err(|e| query.translate(e))?;
        for batch in query.collect(&counted, limit as u64).await? {
            let cells = Cells::of(&batch);
            for row in 0..batch.num_rows() {
                found.entry(cells.key("trace_id", row)).or_default().0 = cells.long("hits", row).unwrap_or_default();
            }
        }
        let most = (limit * SNIPPETS_MAX * 20) as u64;
        let snippets = rows().and_then(|rows| looked.snippets(rows, most as usize)).map_err(|e| query.translate(e))?;
        for batch in query.collect(&snippets, most).await? {
            let cells = Cells::of(&batch);
            for row in 0..batch.num_rows() {
                let Some((_, snippets)) = found.get_mut(&cells.key("trace_id", row)) else { continue };
                for (column, is_output) in [("input", false), ("output", true)] {
                    let room = snippets.len() < SNIPPETS_MAX;
                    if let Some(text) = cells.text(column, row).filter(|_| room) {
                        snippets.push(Snippet { observation_id: cells.key("id", row), is_output, text });
                    }
                }
            }
        }
    }
    let traces = traces.into_iter().map(|trace| {
        let (hits, snippets) = found.remove(&trace.id).unwrap_or_default();
        FoundTrace { trace: Some(trace), hits, snippets }
    });
    let reading = Some(Reading { exact: true, ..query.reading() });
    Ok(SearchTracesResponse { traces: traces.collect(), next_cursor, reading })
}

fn sides(request: &SearchTracesRequest) -> Result<Vec<&'static str>, QueryError> {
    match SearchIn::try_from(request.search_in) {
        Ok(SearchIn::Unspecified) => Ok(vec!["input", "output"]),
        Ok(SearchIn::Input) => Ok(vec!["input"]),
        Ok(SearchIn::Output) => Ok(vec!["output"]),
        Err(_) => Err(QueryError::invalid("search_in is SEARCH_IN_INPUT or SEARCH_IN_OUTPUT")),
    }
}

struct Looked<'a> {
    request: &'a SearchTracesRequest,
    sides: Vec<&'static str>,
    io: Arc<dyn TableProvider>,
}

/// Texts are read first, then the traces of those that hold it: joined in one plan, the traces would wait in memory
/// until the last text is read.
#[async_trait]
impl Chosen for Looked<'_> {
    async fn among(&self, query: &Query, window_us: (TimestampUs, TimestampUs)) -> Result<Among, QueryError> {
        let hits = scan(Table::ObservationIo, &self.io).and_then(|rows| self.hits(rows, window_us));
        let none: [Expr; 0] = [];
        let traces = hits.and_then(|hits| hits.aggregate([ident("trace_id").alias(HIT)], none));
        let plan = traces.and_then(LogicalPlanBuilder::build).map_err(|e| query.translate(e))?;
        let Some(found) = query.collect_within(&plan, FOUND_SHARE, Spilling::Allowed).await? else {
            return Ok(Among::Those { traces: LogicalPlanBuilder::from(plan), _held: None });
        };
        if found.batches().iter().map(RecordBatch::num_rows).sum::<usize>() <= IDS_MAX {
            let ids = |batch: &RecordBatch| {
                let cells = Cells::of(batch);
                (0..batch.num_rows()).map(|row| cells.key(HIT, row)).collect::<Vec<_>>()
            };
            return Ok(Among::These(found.batches().iter().flat_map(ids).collect()));
        }
        let traces = found.table().and_then(|table| LogicalPlanBuilder::scan("found", provider_as_source(table), None));
        Ok(Among::Those { traces: traces.map_err(|e| query.translate(e))?, _held: Some(found) })
    }
}

impl Looked<'_> {
    /// Rows with the text in one of their sides, of traces that begin in this time.
    fn hits(
        &self,
        rows: LogicalPlanBuilder,
        (from_us, to_us): (TimestampUs, TimestampUs),
    ) -> Planned<LogicalPlanBuilder> {
        let from_us = from_us.saturating_sub(GROUP_SPAN_MAX_US);
        let to_us = to_us.saturating_add(GROUP_SPAN_MAX_US);
        let holds = self.sides.iter().map(|side| self.holds(side)).reduce(Expr::or).unwrap_or_else(|| lit(false));
        rows.filter(within(&ident("start_time"), from_us, to_us).and(holds))
    }

    fn holds(&self, side: &str) -> Expr {
        match self.request.case_sensitive || !self.request.text.is_ascii() {
            true => contains(self.cased(ident(side)), lit(self.text())),
            false => functions::holds_any_case().call(vec![ident(side), lit(self.text())]),
        }
    }

    fn text(&self) -> String {
        if self.request.case_sensitive { self.request.text.clone() } else { self.request.text.to_lowercase() }
    }

    fn cased(&self, text: Expr) -> Expr {
        if self.request.case_sensitive { text } else { lower(text) }
    }

    fn counted(&self, rows: LogicalPlanBuilder) -> Planned<LogicalPlan> {
        let one = |side: &&str| -> Planned<Expr> { when(self.holds(side), lit(1i64)).otherwise(lit(0i64)) };
        let ones = self.sides.iter().map(one).collect::<Planned<Vec<_>>>()?;
        let hits = ones.into_iter().reduce(|a, b| a + b).unwrap_or(lit(0i64));
        rows.aggregate(vec![ident("trace_id")], [sum(hits).alias("hits")])?.build()
    }

    /// What stands around the text, in each side that holds it.
    fn snippets(&self, rows: LogicalPlanBuilder, most: usize) -> Planned<LogicalPlan> {
        let length = self.request.text.chars().count() as i64;
        let around = |side: &str| -> Planned<Expr> {
            let at = cast(strpos(self.cased(ident(side)), lit(self.text())), DataType::Int64) - lit(AROUND_CHARS);
            let from = when(at.clone().gt(lit(1i64)), at).otherwise(lit(1i64))?;
            let text = substring(ident(side), from, lit(length + 2 * AROUND_CHARS));
            Ok(when(coalesce(vec![self.holds(side), lit(false)]), text).end()?.alias(side))
        };
        let mut columns = vec![ident("trace_id"), ident("id"), ident("start_time")];
        for side in &self.sides {
            columns.push(around(side)?);
        }
        let order = ["trace_id", "start_time", "id"].map(|column| ident(column).sort(true, false)).to_vec();
        rows.project(columns)?.sort_with_limit(order, Some(most))?.build()
    }
}
