//! How large a statement's expressions become when each column is replaced by what it is made of, as the optimizer does
//! to bring filters down to the tables. `x || x` of a column that is itself `x || x` doubles at every level: a short
//! statement would take planning all the memory and time there is, and no limit would stop it.

use std::collections::HashMap;

use datafusion::common::Column;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::expr::{Exists, InSubquery};
use datafusion::logical_expr::{Expr, LogicalPlan};

use super::error::QueryError;

/// Operators, functions and columns in one expression. Planning looks at each some dozen times.
const NODES_MAX: u64 = 50_000;

/// Refuses a plan whose expressions outgrow [`NODES_MAX`].
pub(super) fn is_small(plan: &LogicalPlan) -> Result<(), QueryError> {
    columns(plan).map(drop).map_err(|e| match e {
        DataFusionError::Plan(message) => QueryError::Invalid(message),
        other => QueryError::Internal(other.to_string()),
    })
}

/// The nodes each column of a plan is made of, at most.
fn columns(plan: &LogicalPlan) -> Result<Vec<u64>> {
    let inputs = plan.inputs().into_iter().map(columns).collect::<Result<Vec<_>>>()?;
    let mut known: HashMap<Column, u64> = HashMap::new();
    for (input, nodes) in plan.inputs().into_iter().zip(&inputs) {
        known.extend(input.schema().columns().into_iter().zip(nodes.iter().copied()));
    }
    let mut made = Vec::new();
    plan.apply_expressions(|expr| {
        made.push(nodes(expr, &known)?);
        Ok(TreeNodeRecursion::Continue)
    })?;
    let width = plan.schema().fields().len();
    let most = inputs.iter().flatten().copied().max().unwrap_or(1);
    Ok(match plan {
        LogicalPlan::Projection(_) => made,
        // Group columns stand first and may be looked through; what is summed up may not.
        LogicalPlan::Aggregate(aggregate) => {
            let groups = if made.len() == width { aggregate.group_expr.len() } else { width };
            let group = |at: usize| made.get(at).copied().unwrap_or(1);
            (0..width).map(|at| if at < groups { group(at) } else { 1 }).collect()
        }
        LogicalPlan::Union(_) => {
            let at_most = |at: usize| inputs.iter().filter_map(|nodes| nodes.get(at)).copied().max().unwrap_or(1);
            (0..width).map(at_most).collect()
        }
        _ => {
            let passed: Vec<u64> = inputs.into_iter().flatten().collect();
            if passed.len() == width { passed } else { vec![most; width] }
        }
    })
}

fn nodes(expr: &Expr, known: &HashMap<Column, u64>) -> Result<u64> {
    let mut count: u64 = 0;
    expr.apply(|expr| {
        count = count.saturating_add(match expr {
            Expr::Column(column) => known.get(column).copied().unwrap_or(1),
            Expr::ScalarSubquery(subquery)
            | Expr::Exists(Exists { subquery, .. })
            | Expr::InSubquery(InSubquery { subquery, .. }) => {
                columns(&subquery.subquery)?;
                1
            }
            _ => 1,
        });
        Ok(TreeNodeRecursion::Continue)
    })?;
    if count > NODES_MAX {
        return Err(DataFusionError::Plan(format!(
            "an expression may have {NODES_MAX} operators and columns, those of the columns it is made of included: \
             this one has more"
        )));
    }
    Ok(count)
}
