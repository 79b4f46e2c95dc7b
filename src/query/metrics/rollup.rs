//! What of the rows of a file is summed up beside it, and which questions those sums answer.
//!
//! A roll-up has a row for every hour and every set of values of [`DIMENSIONS`], with parts as [`parts`] makes them: the
//! plan that fills it and the plan that reads it are made of the same expressions. It says nothing of single rows, so it
//! answers what asks for nothing finer than an hour, and for no other column.

use std::sync::{Arc, LazyLock};

use datafusion::datasource::TableProvider;
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, lit, when};
use datafusion::prelude::ident;

use super::field::Field;
use super::fields::FieldKind;
use super::parts::{self, Part, ROWS};
use super::plan::{self, AT, Source, dimension_name};
use super::request::{Input, Question};
use super::rows::Tables;
use super::sums::Sums;
use crate::base::TimestampUs;
use crate::format::rollup::RollupKind;
use crate::model::tables::Table;
use crate::query::functions::{self, HOUR_US};
use crate::wire::{Aggregation, Measure, MetricsRequest, TimeRange, View};

/// Columns of few values, by which dashboards group and filter. A change of them, or of [`MEASURED`], is a new
/// [`crate::format::rollup::VERSION`].
const DIMENSIONS: [&str; 8] = ["type", "name", "trace_name", "model", "provider", "environment", "level", "status"];

const SUM: &[Aggregation] = &[Aggregation::Count, Aggregation::Sum];
const SKETCH: &[Aggregation] =
    &[Aggregation::Count, Aggregation::Sum, Aggregation::Min, Aggregation::Max, Aggregation::Sketch];

/// Fields that are summed up, and what of them.
const MEASURED: [(&str, &[Aggregation]); 13] = [
    ("latency_ms", SKETCH),
    ("ttft_ms", SKETCH),
    ("total_cost", SKETCH),
    ("input_cost", SUM),
    ("output_cost", SUM),
    ("tokens_per_second", SUM),
    ("input_tokens", SUM),
    ("uncached_input_tokens", SUM),
    ("cached_input_tokens", SUM),
    ("cache_write_tokens", SUM),
    ("output_tokens", SUM),
    ("reasoning_tokens", SUM),
    ("total_tokens", SUM),
];

pub(super) const HOUR: &str = "hour";

/// What a roll-up is made by: everything at once, of all times.
static ALL: LazyLock<Question> = LazyLock::new(|| {
    let measure = |field: &str, aggregation: &Aggregation| Measure {
        field: field.to_owned(),
        aggregation: (*aggregation).into(),
        ..Default::default()
    };
    let measures = MEASURED.iter().flat_map(|(field, parts)| parts.iter().map(move |part| measure(field, part)));
    let request = MetricsRequest {
        view: View::Observations.into(),
        range: Some(TimeRange { from_unix_micros: TimestampUs::MIN, to_unix_micros: TimestampUs::MAX }),
        dimensions: DIMENSIONS.map(str::to_owned).into(),
        measures: measures.collect(),
        ..Default::default()
    };
    Question::parse(&request, 1).expect("its fields are known")
});

/// What it takes of observations.
pub(super) fn expressions() -> Vec<Expr> {
    let fields = ALL.inputs.iter().map(|input| &input.field).chain(&ALL.dimensions);
    fields.map(|field| field.expr.clone()).collect()
}

/// What is summed up that is no column, as it is computed.
#[cfg(test)]
pub(in crate::query) fn formulas() -> Vec<String> {
    let formula = |input: &Input| match input.field.expr {
        Expr::Column(_) => None,
        ref formula => Some(formula.to_string()),
    };
    ALL.inputs.iter().filter_map(formula).collect()
}

pub(super) fn made_of(observations: Arc<dyn TableProvider>) -> Result<LogicalPlan> {
    let question: &Question = &ALL;
    let measures: Vec<usize> = (0..question.measures.len()).collect();
    let hour = functions::hour_of().call(vec![ident(AT)]).alias(HOUR);
    let groups: Vec<Expr> = std::iter::once(hour).chain(plan::dimensions(question)).collect();
    let source = Source::Tables(Tables::over((Table::Observations, observations)));
    let dimensions = DIMENSIONS.iter().enumerate().map(|(at, name)| ident(dimension_name(at)).alias(*name));
    let sums = parts::of(question, &measures).into_iter().map(|part| match column(question, part) {
        Some(name) => ident(part.name()).alias(name),
        None => ident(part.name()),
    });
    let columns: Vec<Expr> = std::iter::once(ident(HOUR)).chain(dimensions).chain(sums).collect();
    plan::grouped(question, &source, true, None, groups, &measures)?.project(columns)?.build()
}

/// Whether sums by the hour are all that is asked for.
pub(super) fn answers(question: &Question) -> bool {
    let measures: Vec<usize> = (0..question.measures.len()).collect();
    let conditions = question.inputs.iter().filter_map(|input| input.condition.as_ref()).chain(&question.condition);
    let mut asked = conditions.chain(question.dimensions.iter().map(|field| &field.expr));
    let buckets = question.buckets.as_ref().map(|buckets| &buckets.starts);
    let by_the_hour = |starts: &Vec<TimestampUs>| !starts.is_empty() && starts.iter().all(|at| at % HOUR_US == 0);
    question.view == View::Observations
        && question.needs.is_empty()
        && question.is_disjoint()
        && buckets.is_none_or(by_the_hour)
        && asked.all(is_of_dimensions)
        && parts::of(question, &measures).into_iter().all(|part| sum(question, part).is_some())
}

/// What `plan` takes of rows, taken of their sums: `at`, a column per dimension, one per part.
pub(super) fn base(question: &Question, sums: LogicalPlanBuilder, parts: &[Part]) -> Result<LogicalPlanBuilder> {
    let sums = match &question.condition {
        Some(condition) => sums.filter(condition.clone())?,
        None => sums,
    };
    let dimensions = question.dimensions.iter().enumerate();
    let dimensions = dimensions.map(|(at, field)| field.expr.clone().alias(dimension_name(at)));
    let parts = parts.iter().filter_map(|part| Some(sum(question, *part)?.alias(part.name())));
    sums.project(std::iter::once(ident(HOUR).alias(AT)).chain(dimensions).chain(parts))
}

/// The hours that lie within a range, whole.
pub(super) fn is_within(from_us: TimestampUs, to_us: TimestampUs) -> Expr {
    super::rows::within(&ident(HOUR), from_us, to_us)
}

/// A part as it follows from the columns of a roll-up. `None`: it does not.
fn sum(question: &Question, part: Part) -> Option<Expr> {
    let passing = |input: &Input, sum: Expr| match &input.condition {
        Some(condition) => when(condition.clone(), sum).end().ok(),
        None => Some(sum),
    };
    if part == Part::Rows {
        return Some(ident(ROWS));
    }
    let input = &question.inputs[part.input()?];
    if let Part::Count(_) = part
        && is_of_dimensions(&input.field.expr)
    {
        // All rows of a group say the same.
        let said = when(input.field.expr.clone().is_not_null(), ident(ROWS)).otherwise(lit(0i64)).ok()?;
        return passing(input, said);
    }
    let column = column(question, part)?;
    Sums::of(RollupKind::Hours).schema().column_with_name(&column)?;
    passing(input, ident(column))
}

/// What the column is called that has this part of a field. `None`: such parts are in no roll-up.
fn column(question: &Question, part: Part) -> Option<String> {
    let what = match part {
        Part::Rows => return Some(ROWS.to_owned()),
        Part::Count(_) => "count",
        Part::Sum(_) => "sum",
        Part::Min(_) => "min",
        Part::Max(_) => "max",
        Part::Sketch(_) => "sketch",
        Part::Distinct(_) | Part::Exact(..) | Part::Stddev(_) | Part::Samples(_) => return None,
    };
    Some(format!("{} {what}", question.inputs[part.input()?].field.name))
}

/// Whether groups by this field are few.
pub(super) fn has_few_values(field: &Field) -> bool {
    DIMENSIONS.contains(&field.name.as_str()) || field.kind == FieldKind::Boolean
}

fn is_of_dimensions(expr: &Expr) -> bool {
    expr.column_refs().iter().all(|column| DIMENSIONS.contains(&column.name.as_str()))
}
