//! What measures are made of: aggregates, each once, that can be taken of rows and most of them of other aggregates.
//!
//! `sum` and `average` of one column share a sum, five percentiles of one column share a sketch.

use arrow::datatypes::DataType;
use datafusion::error::Result;
use datafusion::functions::core::expr_fn::coalesce;
use datafusion::functions_aggregate::expr_fn::{count, count_distinct, max, min};
use datafusion::functions_aggregate::percentile_cont::percentile_cont;
use datafusion::functions_aggregate::stddev::stddev;
use datafusion::logical_expr::{AggregateUDF, Expr, cast, lit, when};
use datafusion::prelude::ident;
use datafusion::scalar::ScalarValue;

use super::fields::FieldKind;
use super::request::{Aggregate, Question};
pub(super) use crate::format::rollup::ROWS;
use crate::query::functions::{self, FLOAT_UNIT};

pub(super) const UNPRICED: &str = "unpriced";

/// The column a measure's values are in, before they are brought together.
pub(super) fn input_name(at: usize) -> String {
    format!("v{at}")
}
pub(super) fn measure_name(at: usize) -> String {
    format!("m{at}")
}

/// One aggregate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Part {
    Rows,
    Count(usize),
    Sum(usize),
    Min(usize),
    Max(usize),
    Sketch(usize),
    Distinct(usize),
    /// 0 to 1.
    Exact(usize, f64),
    Stddev(usize),
    Samples(usize),
}

/// The parts of these measures, each once.
pub(super) fn of(question: &Question, measures: &[usize]) -> Vec<Part> {
    // A grouping needs a column, even where only the groups themselves are asked for.
    let mut parts = vec![Part::Rows];
    let priced = question.priced().filter(|_| measures.len() == question.measures.len());
    let made_of = measures.iter().flat_map(|at| match question.measures[*at].aggregate {
        Aggregate::CountRows => vec![],
        Aggregate::Count(input) => vec![Part::Count(input)],
        Aggregate::Sum(input) => sum(question, input),
        Aggregate::Share(None) => vec![],
        Aggregate::Share(Some(input)) => sum(question, input),
        Aggregate::Rate(input, of) => std::iter::once(Part::Count(input)).chain(of.map(Part::Count)).collect(),
        Aggregate::Stddev(input) => vec![Part::Stddev(input)],
        Aggregate::Samples(input) => vec![Part::Samples(input)],
        Aggregate::Histogram(input, _) | Aggregate::Sketch(input) => vec![Part::Sketch(input)],
        Aggregate::Avg(input) => vec![Part::Sum(input), Part::Count(input)],
        Aggregate::Min(input) => vec![Part::Min(input)],
        Aggregate::Max(input) => vec![Part::Max(input)],
        Aggregate::CountDistinct(input) => vec![Part::Distinct(input)],
        Aggregate::Percentile(input, q) if question.exact_percentiles => vec![Part::Exact(input, q)],
        Aggregate::Percentile(input, _) => vec![Part::Sketch(input)],
    });
    for part in made_of.chain(priced.map(Part::Count)) {
        if !parts.contains(&part) {
            parts.push(part);
        }
    }
    parts
}

/// A sum, and what says whether there was anything to add up.
fn sum(question: &Question, input: usize) -> Vec<Part> {
    std::iter::once(Part::Sum(input)).chain(question.inputs[input].passing.map(Part::Count)).collect()
}

impl Part {
    pub(super) fn name(self) -> String {
        match self {
            Self::Rows => ROWS.to_owned(),
            Self::Count(input) => format!("count_{input}"),
            Self::Sum(input) => format!("sum_{input}"),
            Self::Min(input) => format!("min_{input}"),
            Self::Max(input) => format!("max_{input}"),
            Self::Sketch(input) => format!("sketch_{input}"),
            Self::Distinct(input) => format!("distinct_{input}"),
            Self::Exact(input, q) => format!("exact_{input}_{}", q.to_bits()),
            Self::Stddev(input) => format!("stddev_{input}"),
            Self::Samples(input) => format!("samples_{input}"),
        }
    }

    /// The input it is taken of.
    pub(super) fn input(self) -> Option<usize> {
        match self {
            Self::Rows => None,
            Self::Count(input)
            | Self::Sum(input)
            | Self::Min(input)
            | Self::Max(input)
            | Self::Sketch(input)
            | Self::Distinct(input)
            | Self::Exact(input, _)
            | Self::Stddev(input)
            | Self::Samples(input) => Some(input),
        }
    }

    /// Whether the part of all groups follows from the parts of each: how many different values there are does not.
    pub(super) fn adds_up(self) -> bool {
        !matches!(self, Self::Distinct(_) | Self::Exact(..) | Self::Stddev(_) | Self::Samples(_))
    }

    /// The aggregate over rows.
    pub(super) fn of_rows(self, question: &Question) -> Result<Expr> {
        let value = |at: usize| ident(input_name(at));
        let float = |at: usize| cast(value(at), DataType::Float64);
        Ok(match self {
            Self::Rows => count(lit(1)),
            Self::Count(input) => count(value(input)),
            Self::Sum(input) => match question.inputs[input].field.kind {
                FieldKind::Number => functions::exact_units().call(vec![float(input)]),
                _ => functions::exact_sum().call(vec![value(input)]),
            },
            Self::Min(input) => min(value(input)),
            Self::Max(input) => max(value(input)),
            Self::Sketch(input) => AggregateUDF::call(&functions::sketch(), vec![float(input)]),
            Self::Distinct(input) => count_distinct(value(input)),
            Self::Exact(input, q) => percentile_cont(float(input).sort(true, false), lit(q)),
            Self::Stddev(input) => stddev(float(input)),
            Self::Samples(input) => functions::samples().call(vec![cast(value(input), DataType::Utf8)]),
        })
    }

    /// The aggregate over the same part of several groups; [`Self::settled`] makes the part of it.
    pub(super) fn of_parts(self) -> Expr {
        let part = ident(self.name());
        match self {
            Self::Min(_) => min(part),
            Self::Max(_) => max(part),
            Self::Sketch(_) => functions::sketch_merge().call(vec![part]),
            Self::Rows
            | Self::Count(_)
            | Self::Sum(_)
            | Self::Distinct(_)
            | Self::Exact(..)
            | Self::Stddev(_)
            | Self::Samples(_) => functions::exact_sum().call(vec![part]),
        }
    }

    /// Counts of no groups at all are zero, and of the type they had.
    pub(super) fn settled(self) -> Expr {
        let part = ident(self.name());
        match self {
            Self::Rows | Self::Count(_) => coalesce(vec![cast(part, DataType::Int64), lit(0i64)]).alias(self.name()),
            _ => part,
        }
    }
}

/// A measure, made of its parts. Of a share: what the group itself has.
pub(super) fn measure(question: &Question, aggregate: Aggregate) -> Result<Expr> {
    let part = |part: Part| ident(part.name());
    let float = |expr: Expr| cast(expr, DataType::Float64);
    let kind = |input: usize| question.inputs[input].field.kind;
    let units = |input: usize| match kind(input) {
        FieldKind::Number => float(part(Part::Sum(input))) / lit(FLOAT_UNIT),
        _ => part(Part::Sum(input)),
    };
    Ok(match aggregate {
        Aggregate::CountRows | Aggregate::Share(None) => part(Part::Rows),
        Aggregate::Count(input) => part(Part::Count(input)),
        Aggregate::Sum(input) | Aggregate::Share(Some(input)) => match kind(input) {
            // Nothing costs nothing, but calls without a price do not: what they cost is not known.
            FieldKind::Money => {
                let zero = lit(ScalarValue::Decimal128(Some(0), 38, 12));
                let rows = question.inputs[input].passing.map_or(Part::Rows, Part::Count);
                when(part(rows).eq(lit(0i64)), zero).otherwise(part(Part::Sum(input)))?
            }
            FieldKind::Number => coalesce(vec![units(input), lit(0.0)]),
            _ => coalesce(vec![units(input), lit(ScalarValue::Decimal128(Some(0), 38, 0))]),
        },
        Aggregate::Avg(input) => match kind(input) {
            FieldKind::Money => functions::exact_ratio().call(vec![part(Part::Sum(input)), part(Part::Count(input))]),
            _ => {
                // Of nothing there is no average, and it is not infinite.
                let counted = part(Part::Count(input));
                when(counted.clone().gt(lit(0i64)), float(units(input)) / float(counted)).end()?
            }
        },
        Aggregate::Min(input) => part(Part::Min(input)),
        Aggregate::Max(input) => part(Part::Max(input)),
        Aggregate::CountDistinct(input) => part(Part::Distinct(input)),
        Aggregate::Percentile(input, q) if question.exact_percentiles => part(Part::Exact(input, q)),
        Aggregate::Percentile(input, q) => functions::sketch_quantile().call(vec![part(Part::Sketch(input)), lit(q)]),
        Aggregate::Histogram(input, _) | Aggregate::Sketch(input) => part(Part::Sketch(input)),
        Aggregate::Stddev(input) => part(Part::Stddev(input)),
        Aggregate::Samples(input) => part(Part::Samples(input)),
        // Nothing has no rate.
        Aggregate::Rate(input, of) => {
            let (passed, rows) = (part(Part::Count(input)), part(of.map_or(Part::Rows, Part::Count)));
            when(rows.clone().gt(lit(0i64)), float(passed) / float(rows)).end()?
        }
    })
}

/// Rows whose amount is not known.
pub(super) fn unpriced(question: &Question) -> Option<Expr> {
    let priced = question.priced()?;
    Some(ident(Part::Rows.name()) - ident(Part::Count(priced).name()))
}
