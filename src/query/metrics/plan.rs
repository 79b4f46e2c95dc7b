//! From a checked question to plans. Those over the table read the same rows: `base`, with a column per dimension,
//! `at`, and a column per input. Those over kept groups read no file: what was grouped once is put together
//! again for the ranking, the others, the buckets and the total.

use std::sync::Arc;

use datafusion::common::Column;
use datafusion::datasource::{TableProvider, provider_as_source};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, ScalarUDF, SortExpr, lit, when};
use datafusion::prelude::ident;

use super::field;
use super::fields::FieldKind;
use super::parts::{self, Part, UNPRICED, input_name, measure_name};
use super::request::{By, Question};
use super::rollup;
use super::rows::{self, Tables};
use crate::query::functions::{self, OrNone, ShownGroup};

/// What a plan reads.
#[derive(Debug, Clone)]
pub(super) enum Source {
    Tables(Tables),
    /// What a plan of [`groups`] gave: a row per group, or per group and bucket, with the parts of all measures. A total
    /// is also made of what [`by_bucket`] gave.
    Groups(Arc<dyn TableProvider>),
}

/// Every group by its dimensions, and by its bucket where there are buckets, with the parts of all measures.
pub(super) fn groups(question: &Question, table: &Source) -> Result<LogicalPlan> {
    let groups = bucket(question, table).into_iter().chain(dimensions(question)).collect();
    grouped(question, table, true, None, groups, &all(question))?.build()
}

/// Rows grouped by their dimensions, best first, one more than are shown: the ranking, and without buckets the answer.
pub(super) fn ranked(question: &Question, from: &Source) -> Result<LogicalPlan> {
    let measures: Vec<usize> = match question.buckets {
        None => all(question),
        Some(_) => question.order.iter().filter_map(|order| measure_of(order.by)).collect(),
    };
    let groups = match from {
        Source::Groups(kept) if question.buckets.is_none() => kept_groups(kept)?,
        _ => grouped(question, from, true, None, dimensions(question), &measures)?,
    };
    let order = question.order.iter().filter_map(|order| {
        let name = match order.by {
            By::Bucket => return None,
            By::Measure(at) => measure_name(at),
            By::Dimension(at) => dimension_name(at),
        };
        Some(ident(name).sort(order.ascending, false))
    });
    let ties = dimensions(question).into_iter().map(|dimension| dimension.sort(true, false));
    let order: Vec<SortExpr> = order.chain(ties).collect();
    measured(question, groups, dimensions(question), &measures)?
        .sort_with_limit(order, Some(question.groups_max + 1))?
        .build()
}

/// All groups that are not shown, together.
pub(super) fn others(question: &Question, from: &Source, shown: ShownGroup, count: usize) -> Result<LogicalPlan> {
    let hidden = group_of(question, shown).eq(lit(count as i64));
    let groups = grouped(question, from, true, Some(hidden), Vec::new(), &all(question))?;
    measured(question, groups, Vec::new(), &all(question))?.build()
}

/// Shown groups and the others by bucket: `bucket`, `rank`, parts of all measures. Without dimensions `rank` is missing.
pub(super) fn by_bucket(question: &Question, from: &Source, shown: Option<ShownGroup>) -> Result<LogicalPlan> {
    let rank = shown.map(|shown| group_of(question, shown).alias(RANK));
    let groups = bucket(question, from).into_iter().chain(rank).collect();
    grouped(question, from, true, None, groups, &all(question))?.build()
}

fn bucket(question: &Question, from: &Source) -> Option<Expr> {
    let buckets = question.buckets.as_ref()?;
    let args = || vec![lit(buckets.bucket.width()), ident(AT), lit(buckets.bucket.zone())];
    Some(match from {
        Source::Tables(_) => functions::time_bucket().call(args()).alias(BUCKET),
        Source::Groups(_) => ident(BUCKET),
    })
}

/// The measures of what [`by_bucket`] gave.
pub(super) fn bucketed(question: &Question, kept: &Arc<dyn TableProvider>, has_ranks: bool) -> Result<LogicalPlan> {
    let groups = [BUCKET, RANK].into_iter().take(1 + usize::from(has_ranks)).map(ident).collect();
    measured(question, kept_groups(kept)?, groups, &all(question))?.build()
}

/// Everything that matched, each row once.
pub(super) fn total(question: &Question, from: &Source) -> Result<LogicalPlan> {
    let groups = grouped(question, from, false, None, Vec::new(), &all(question))?;
    measured(question, groups, Vec::new(), &all(question))?.build()
}

pub(super) const AT: &str = "at";
const BUCKET: &str = "bucket";
const RANK: &str = "rank";

pub(super) fn dimension_name(at: usize) -> String {
    format!("d{at}")
}

pub(super) fn dimensions(question: &Question) -> Vec<Expr> {
    (0..question.dimensions.len()).map(|at| ident(dimension_name(at))).collect()
}

fn all(question: &Question) -> Vec<usize> {
    (0..question.measures.len()).collect()
}

fn measure_of(by: By) -> Option<usize> {
    match by {
        By::Measure(at) => Some(at),
        By::Bucket | By::Dimension(_) => None,
    }
}

fn group_of(question: &Question, shown: ShownGroup) -> Expr {
    ScalarUDF::from(shown).call(dimensions(question))
}

/// With `apart`, a row with several tags becomes one row per tag when tags are a dimension.
fn base(question: &Question, tables: &Tables, apart: bool) -> Result<LogicalPlanBuilder> {
    let mut rows = rows::of(question, tables)?;
    let mut columns = vec![field::time_of(question.view).alias(AT)];
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
    for (at, input) in question.inputs.iter().enumerate() {
        let value = match &input.condition {
            Some(condition) => when(condition.clone(), input.field.expr.clone()).end()?,
            None => input.field.expr.clone(),
        };
        columns.push(value.alias(input_name(at)));
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

/// Group columns, then the parts of `measures`, brought together from rows and their roll-ups, or from kept groups.
pub(super) fn grouped(
    question: &Question,
    from: &Source,
    apart: bool,
    condition: Option<Expr>,
    groups: Vec<Expr>,
    measures: &[usize],
) -> Result<LogicalPlanBuilder> {
    let parts = parts::of(question, measures);
    let passing = |rows: LogicalPlanBuilder| match &condition {
        Some(condition) => rows.filter(condition.clone()),
        None => Ok(rows),
    };
    let tables = match from {
        Source::Tables(tables) => tables,
        Source::Groups(kept) => return put_together(passing(kept_groups(kept)?)?, groups, &parts),
    };
    let aggregates = parts.iter().map(|part| Ok(part.of_rows(question)?.alias(part.name())));
    let aggregates = aggregates.collect::<Result<Vec<_>>>()?;
    let mut of_rows = passing(base(question, tables, apart)?)?.aggregate(groups.clone(), aggregates)?;
    if tables.rolled_up.is_empty() {
        return Ok(of_rows);
    }
    let columns: Vec<Expr> = groups.iter().cloned().chain(parts.iter().map(|part| ident(part.name()))).collect();
    for sums in rows::sums(&tables.rolled_up)? {
        let sums = passing(rollup::base(question, sums, &parts)?)?.project(columns.clone())?;
        of_rows = of_rows.union(sums.build()?)?;
    }
    put_together(of_rows, names(&groups), &parts)
}

/// Parts of groups that are the same, as parts of one.
fn put_together(rows: LogicalPlanBuilder, groups: Vec<Expr>, parts: &[Part]) -> Result<LogicalPlanBuilder> {
    let mut columns: Vec<Expr> = names(&groups);
    columns.extend(parts.iter().map(|part| part.settled()));
    let aggregates = parts.iter().map(|part| part.of_parts().alias(part.name()));
    rows.aggregate(groups, aggregates.collect::<Vec<_>>())?.project(columns)
}

fn kept_groups(kept: &Arc<dyn TableProvider>) -> Result<LogicalPlanBuilder> {
    LogicalPlanBuilder::scan("kept", provider_as_source(Arc::clone(kept)), None)
}

/// From parts to one column per group expression and one per measure of `measures`, named `m0`, `m1`, …; with all
/// measures also how many rows have no price.
fn measured(
    question: &Question,
    groups: LogicalPlanBuilder,
    by: Vec<Expr>,
    measures: &[usize],
) -> Result<LogicalPlanBuilder> {
    let mut columns = names(&by);
    let mut done = Vec::new();
    for &at in measures {
        if !done.contains(&at) {
            columns.push(parts::measure(question, question.measures[at].aggregate)?.alias(measure_name(at)));
            done.push(at);
        }
    }
    if measures.len() == question.measures.len() {
        columns.extend(parts::unpriced(question).map(|unpriced| unpriced.alias(UNPRICED)));
    }
    groups.project(columns)
}

fn names(groups: &[Expr]) -> Vec<Expr> {
    groups.iter().map(|group| ident(group.qualified_name().1)).collect()
}
