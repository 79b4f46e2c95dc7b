//! From a checked question to plans. All of them read the same rows: `base`, with a column per dimension, `at`, a
//! column per input and `failed`; they differ in how they group.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::Column;
use datafusion::datasource::{TableProvider, provider_as_source};
use datafusion::error::Result;
use datafusion::functions::core::expr_fn::coalesce;
use datafusion::functions_aggregate::expr_fn::{count, count_distinct, max, min};
use datafusion::functions_aggregate::percentile_cont::percentile_cont;
use datafusion::logical_expr::{
    AggregateUDF, Expr, LogicalPlan, LogicalPlanBuilder, ScalarUDF, SortExpr, cast, lit, when,
};
use datafusion::prelude::ident;
use datafusion::scalar::ScalarValue;

use super::fields::{self, FieldKind};
use super::request::{Aggregate, By, Question};
use crate::base::{Day, TimestampUs};
use crate::query::functions::{self, OrNone, ShownGroup};
use crate::wire::View;

/// A trace is looked for this far on both sides of the range: its rows lie no further apart.
const TRACE_SPAN_MAX_US: i64 = Day::US;

/// Rows grouped by their dimensions, best first, one more than are shown: the ranking, and without buckets the answer.
pub(super) fn ranked(question: &Question, table: Arc<dyn TableProvider>) -> Result<LogicalPlan> {
    let measures: Vec<usize> = match question.buckets {
        None => (0..question.measures.len()).collect(),
        Some(_) => question.order.iter().filter_map(|order| measure_of(order.by)).collect(),
    };
    let dimensions: Vec<Expr> = (0..question.dimensions.len()).map(|at| ident(dimension_name(at))).collect();
    let base = base(question, table, true)?;
    let grouped = grouped(question, base, dimensions, &measures)?;
    let order = question.order.iter().filter_map(|order| {
        let name = match order.by {
            By::Bucket => return None,
            By::Measure(at) => measure_name(at),
            By::Dimension(at) => dimension_name(at),
        };
        Some(ident(name).sort(order.ascending, false))
    });
    let ties = (0..question.dimensions.len()).map(|at| ident(dimension_name(at)).sort(true, false));
    let order: Vec<SortExpr> = order.chain(ties).collect();
    grouped.sort_with_limit(order, Some(question.groups_max + 1))?.build()
}

/// All groups that are not shown, together.
pub(super) fn others(
    question: &Question,
    table: Arc<dyn TableProvider>,
    shown: ShownGroup,
    count: usize,
) -> Result<LogicalPlan> {
    let all: Vec<usize> = (0..question.measures.len()).collect();
    let base = base(question, table, true)?.filter(group_of(question, shown).eq(lit(count as i64)))?;
    grouped(question, base, Vec::new(), &all)?.build()
}

/// Shown groups and the others by bucket: `bucket`, `rank`, measures. Without dimensions `rank` is missing.
pub(super) fn bucketed(
    question: &Question,
    table: Arc<dyn TableProvider>,
    shown: Option<ShownGroup>,
) -> Result<LogicalPlan> {
    let all: Vec<usize> = (0..question.measures.len()).collect();
    let mut groups = Vec::new();
    if let Some(buckets) = &question.buckets {
        let args = vec![lit(buckets.bucket.width()), ident(AT), lit(buckets.bucket.zone())];
        groups.push(functions::time_bucket().call(args).alias("bucket"));
    }
    if let Some(shown) = shown {
        groups.push(group_of(question, shown).alias("rank"));
    }
    grouped(question, base(question, table, true)?, groups, &all)?.build()
}

/// Everything that matched, each row once.
pub(super) fn total(question: &Question, table: Arc<dyn TableProvider>) -> Result<LogicalPlan> {
    let all: Vec<usize> = (0..question.measures.len()).collect();
    grouped(question, base(question, table, false)?, Vec::new(), &all)?.build()
}

const AT: &str = "at";
const FAILED: &str = "failed";

fn dimension_name(at: usize) -> String {
    format!("d{at}")
}
fn input_name(at: usize) -> String {
    format!("v{at}")
}
fn measure_name(at: usize) -> String {
    format!("m{at}")
}

fn measure_of(by: By) -> Option<usize> {
    match by {
        By::Measure(at) => Some(at),
        By::Bucket | By::Dimension(_) => None,
    }
}

fn group_of(question: &Question, shown: ShownGroup) -> Expr {
    let dimensions = (0..question.dimensions.len()).map(|at| ident(dimension_name(at))).collect();
    ScalarUDF::from(shown).call(dimensions)
}

/// With `apart`, a row with several tags becomes one row per tag when tags are a dimension.
fn base(question: &Question, table: Arc<dyn TableProvider>, apart: bool) -> Result<LogicalPlanBuilder> {
    let view = question.view;
    let name = fields::table_of(view).name();
    let mut rows = LogicalPlanBuilder::scan(name, provider_as_source(table), None)?;
    let time = fields::time_of(view);
    rows = match view {
        View::Traces => {
            // First all rows that may belong to a trace of the range, then the traces that begin in it.
            let from = question.from_us.saturating_sub(TRACE_SPAN_MAX_US);
            let to = question.to_us.saturating_add(TRACE_SPAN_MAX_US);
            let parts: Vec<Expr> = question.needs.iter().map(|(name, part)| part.clone().alias(name)).collect();
            rows.filter(within(&time, from, to))?.aggregate(vec![ident("trace_id")], parts)?.filter(within(
                &time,
                question.from_us,
                question.to_us,
            ))?
        }
        _ => rows.filter(within(&time, question.from_us, question.to_us))?,
    };
    if let Some(condition) = question.filters.iter().cloned().reduce(Expr::and) {
        rows = rows.filter(condition)?;
    }

    let mut columns = vec![time.alias(AT)];
    if apart {
        let none = ScalarUDF::from(OrNone::new());
        columns.extend(question.dimensions.iter().enumerate().map(|(at, field)| {
            let expr = match field.kind {
                FieldKind::Texts => none.call(vec![field.expr.clone()]),
                _ => field.expr.clone(),
            };
            expr.alias(dimension_name(at))
        }));
    }
    columns.extend(question.inputs.iter().enumerate().map(|(at, input)| input.expr.clone().alias(input_name(at))));
    if question.measures.iter().any(|measure| measure.aggregate == Aggregate::ErrorRate) {
        columns.extend(fields::error_of(view).map(|failed| failed.alias(FAILED)));
    }
    rows = rows.project(columns)?;
    if apart {
        for (at, field) in question.dimensions.iter().enumerate() {
            if field.kind == FieldKind::Texts {
                rows = rows.unnest_column(Column::new_unqualified(dimension_name(at)))?;
            }
        }
    }
    Ok(rows)
}

fn within(time: &Expr, from_us: TimestampUs, to_us: TimestampUs) -> Expr {
    let at = |us| lit(ScalarValue::TimestampMicrosecond(Some(us), Some("UTC".into())));
    time.clone().gt_eq(at(from_us)).and(time.clone().lt(at(to_us)))
}

/// Groups, then one column per group expression and one per measure of `measures`, named `m0`, `m1`, ….
fn grouped(
    question: &Question,
    rows: LogicalPlanBuilder,
    groups: Vec<Expr>,
    measures: &[usize],
) -> Result<LogicalPlanBuilder> {
    let mut parts = Parts::default();
    let mut columns: Vec<Expr> = groups.iter().map(|group| ident(group.qualified_name().1)).collect();
    let mut done = Vec::new();
    for &at in measures {
        if !done.contains(&at) {
            columns.push(parts.measure(question, question.measures[at].aggregate)?.alias(measure_name(at)));
            done.push(at);
        }
    }
    // A grouping needs a column, even where only the groups themselves are asked for.
    parts.add("rows".to_owned(), count(lit(1)));
    let parts = parts.0.into_iter().map(|(name, part)| part.alias(name));
    rows.aggregate(groups, parts.collect::<Vec<_>>())?.project(columns)
}

/// The aggregates of a grouping, each once: five percentiles of one column share a sketch.
#[derive(Default)]
struct Parts(Vec<(String, Expr)>);

impl Parts {
    fn add(&mut self, name: String, part: Expr) -> Expr {
        if !self.0.iter().any(|(known, _)| *known == name) {
            self.0.push((name.clone(), part));
        }
        ident(name)
    }

    /// A measure, made of aggregates.
    fn measure(&mut self, question: &Question, aggregate: Aggregate) -> Result<Expr> {
        let value = |at: usize| ident(input_name(at));
        let float = |expr: Expr| cast(expr, DataType::Float64);
        Ok(match aggregate {
            Aggregate::CountRows => self.add("rows".to_owned(), count(lit(1))),
            Aggregate::Count(input) => self.add(format!("count_{input}"), count(value(input))),
            Aggregate::Sum(input) => {
                let sum = self.sum(input);
                let zero = match question.inputs[input].kind {
                    FieldKind::Money => lit(ScalarValue::Decimal128(Some(0), 38, 12)),
                    FieldKind::Number => lit(0.0),
                    _ => lit(ScalarValue::Decimal128(Some(0), 38, 0)),
                };
                coalesce(vec![sum, zero])
            }
            Aggregate::Avg(input) => {
                let (sum, count) = (self.sum(input), self.add(format!("count_{input}"), count(value(input))));
                match question.inputs[input].kind {
                    FieldKind::Money => functions::exact_ratio().call(vec![sum, count]),
                    _ => float(sum) / float(count),
                }
            }
            Aggregate::Min(input) => self.add(format!("min_{input}"), min(value(input))),
            Aggregate::Max(input) => self.add(format!("max_{input}"), max(value(input))),
            Aggregate::CountDistinct(input) => self.add(format!("distinct_{input}"), count_distinct(value(input))),
            Aggregate::Percentile(input, q) if question.exact_percentiles => {
                let name = format!("exact_{input}_{}", q.to_bits());
                self.add(name, percentile_cont(float(value(input)).sort(true, false), lit(q)))
            }
            Aggregate::Percentile(input, q) => {
                let sketch = AggregateUDF::call(&functions::sketch(), vec![float(value(input))]);
                let sketch = self.add(format!("sketch_{input}"), sketch);
                functions::sketch_quantile().call(vec![sketch, lit(q)])
            }
            Aggregate::ErrorRate => {
                let failed = self.add("failures".to_owned(), count(when(ident(FAILED), lit(1)).end()?));
                let rows = self.add("rows".to_owned(), count(lit(1)));
                // Nothing has no rate.
                when(rows.clone().gt(lit(0)), float(failed) / float(rows)).end()?
            }
        })
    }

    fn sum(&mut self, input: usize) -> Expr {
        let sum = AggregateUDF::call(&functions::exact_sum(), vec![ident(input_name(input))]);
        self.add(format!("sum_{input}"), sum)
    }
}
