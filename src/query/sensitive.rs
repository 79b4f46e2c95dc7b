//! `sensitive_use`: what masking rules found, by day, kind, model and user; a view over what rows say of themselves.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::UnnestOptions;
use datafusion::datasource::{TableProvider, ViewTable, provider_as_source};
use datafusion::error::Result;
use datafusion::functions_aggregate::expr_fn::count;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, cast, ident, lit};
use datafusion::scalar::ScalarValue;

use super::provider::TableAt;
use super::system_tables::SENSITIVE_USE;
use crate::model::tables::Table;

/// The tables whose rows say what was found in them.
pub(super) const SOURCES: [Table; 3] = [Table::Observations, Table::TraceFacts, Table::Scores];

pub(super) fn view(tables: [Arc<TableAt>; 3]) -> Result<Arc<dyn TableProvider>> {
    let [observations, traces, scores] = tables;
    let found = LogicalPlanBuilder::from(rows_of(Table::Observations, observations, ident("model"), ident("user_id"))?)
        .union(rows_of(Table::TraceFacts, traces, nothing(), ident("user_id"))?)?
        .union(rows_of(Table::Scores, scores, nothing(), nothing())?)?
        // Of rows that are older than the column nothing is known.
        .unnest_column_with_options("kind", UnnestOptions::new().with_preserve_nulls(false))?
        .aggregate(["day", "kind", "model", "user_id", "found_in"].map(ident), [count(lit(1i64)).alias("rows")])?
        .project(SENSITIVE_USE.columns.iter().map(|(name, ..)| ident(*name)))?;
    Ok(Arc::new(ViewTable::new(found.build()?, None)))
}

fn rows_of(table: Table, at: Arc<TableAt>, model: Expr, user: Expr) -> Result<LogicalPlan> {
    let columns = [
        cast(ident(table.time_column()), DataType::Date32).alias("day"),
        ident("sensitive_kinds").alias("kind"),
        model.alias("model"),
        user.alias("user_id"),
        lit(ScalarValue::Utf8View(Some(table.name().to_owned()))).alias("found_in"),
    ];
    LogicalPlanBuilder::scan(table.name(), provider_as_source(at), None)?.project(columns)?.build()
}

fn nothing() -> Expr {
    lit(ScalarValue::Utf8View(None))
}
