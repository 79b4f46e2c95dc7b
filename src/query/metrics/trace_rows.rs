//! What of the traces of a file is summed up beside it, and which questions of traces those sums answer.
//!
//! For each hour of the file it has a row for every trace that has observations in it: what the fields of [`FIELDS`] are
//! made of. A trace has rows in several hours, files and yet in none: they are brought together as its observations would
//! be, by the aggregates of aggregates.

use std::sync::{Arc, LazyLock};

use arrow::datatypes::DataType;
use datafusion::datasource::TableProvider;
use datafusion::error::Result;
use datafusion::functions::core::expr_fn::coalesce;
use datafusion::functions_aggregate::expr_fn::{count, max, min};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, cast, lit};
use datafusion::prelude::ident;

use super::field::{self, Scope, group_start, time_of};
use super::parts::ROWS;
use super::request::Question;
use super::rollup::HOUR;
use super::rows::scan;
use crate::model::tables::Table;
use crate::query::functions;
use crate::wire::View;

/// Fields of traces that dashboards and lists ask for. A change of them is a new [`crate::format::rollup::VERSION`].
const FIELDS: [&str; 25] = [
    "name",
    "flow_name",
    "account",
    "project",
    "flow",
    "user_id",
    "session_id",
    "environment",
    "release",
    "version",
    "tags",
    "input_tokens",
    "cached_input_tokens",
    "output_tokens",
    "total_tokens",
    "input_cost",
    "output_cost",
    "total_cost",
    "observations",
    "calls",
    "tool_calls",
    "errors",
    "start_time",
    "latency_ms",
    "ttft_ms",
];

const TRACE: &str = "trace_id";

/// Aggregates over the observations of a trace, each once, and the columns they are in.
static COLUMNS: LazyLock<Vec<(String, Expr)>> = LazyLock::new(|| {
    let scope = Scope { view: View::Traces, steps: 0 };
    let of_fields =
        FIELDS.iter().flat_map(|name| field::resolve(scope, name).expect("a field of traces").needs.aggregates);
    let mut columns: Vec<(String, Expr)> = Vec::new();
    for (name, aggregate) in std::iter::once(group_start()).chain(of_fields) {
        if !columns.iter().any(|(_, known)| *known == aggregate) {
            columns.push((name, aggregate));
        }
    }
    columns
});

pub(super) fn expressions() -> Vec<Expr> {
    COLUMNS.iter().map(|(_, aggregate)| aggregate.clone()).chain([ident(TRACE)]).collect()
}

pub(super) fn made_of(observations: Arc<dyn TableProvider>) -> Result<LogicalPlan> {
    let hour = functions::hour_of().call(vec![time_of(View::Traces)]).alias(HOUR);
    let aggregates = COLUMNS.iter().map(|(name, aggregate)| aggregate.clone().alias(name));
    let rows = count(lit(1)).alias(ROWS);
    scan(Table::Observations, &observations)?
        .aggregate([hour, ident(TRACE)], std::iter::once(rows).chain(aggregates))?
        .build()
}

/// Whether what is known of traces is all that is asked for. Few traces are read faster by their observations.
pub(super) fn answers(question: &Question) -> bool {
    let is_known = |(name, aggregate): &(String, Expr)| name == TRACE || column(aggregate).is_some();
    let asks_for_few = |condition: &Expr| condition.column_refs().iter().any(|column| column.name == TRACE);
    question.view == View::Traces
        && !question.needs.steps
        && question.needs.aggregates.iter().all(is_known)
        && !question.condition.as_ref().is_some_and(asks_for_few)
}

/// Traces by their observations and traces by their sums, as traces.
pub(super) fn put_together(
    question: &Question,
    of_rows: LogicalPlanBuilder,
    sums: Vec<LogicalPlanBuilder>,
) -> Result<LogicalPlanBuilder> {
    let asked: Vec<(&str, &Expr)> =
        question.needs.aggregates.iter().map(|(name, asked)| (name.as_str(), asked)).collect();
    let asked: Vec<(&str, &Expr)> = asked.into_iter().filter(|(name, _)| *name != TRACE).collect();
    let mut all = of_rows;
    for sums in sums {
        let columns = asked.iter().filter_map(|(name, asked)| Some(ident(column(asked)?).alias(*name)));
        let sums = sums.filter(ident(TRACE).is_not_null())?.project(std::iter::once(ident(TRACE)).chain(columns))?;
        all = all.union(sums.build()?)?;
    }
    let whole = asked.iter().filter_map(|(name, asked)| Some(of_parts(asked, ident(*name))?.alias(*name)));
    let settled = asked.iter().map(|(name, asked)| match is_count(asked) {
        true => coalesce(vec![cast(ident(*name), DataType::Int64), lit(0i64)]).alias(*name),
        false => ident(*name),
    });
    all.aggregate([ident(TRACE)], whole.collect::<Vec<_>>())?.project(std::iter::once(ident(TRACE)).chain(settled))
}

/// The column that has this aggregate of a trace's observations.
fn column(aggregate: &Expr) -> Option<&'static str> {
    COLUMNS.iter().find(|(_, known)| known == aggregate).map(|(name, _)| name.as_str())
}

/// The same of several parts of a trace, of which `column` has each.
fn of_parts(aggregate: &Expr, column: Expr) -> Option<Expr> {
    let Expr::AggregateFunction(function) = aggregate else { return None };
    match function.func.name() {
        "min" => Some(min(column)),
        "max" => Some(max(column)),
        "count" | "exact_sum" => Some(functions::exact_sum().call(vec![column])),
        _ => None,
    }
}

fn is_count(aggregate: &Expr) -> bool {
    matches!(aggregate, Expr::AggregateFunction(function) if function.func.name() == "count")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_every_aggregate_can_be_put_together() {
        for (name, aggregate) in COLUMNS.iter() {
            assert!(of_parts(aggregate, ident(name)).is_some(), "{name}: {aggregate}");
            let Expr::AggregateFunction(function) = aggregate else { panic!("{aggregate}") };
            let params = &function.params;
            assert!(!params.distinct && params.filter.is_none() && params.order_by.is_empty(), "{aggregate}");
        }
    }
}
