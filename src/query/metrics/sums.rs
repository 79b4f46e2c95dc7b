//! The roll-ups of a file as plans: what each kind is made of, and what it has.

use std::sync::{Arc, LazyLock};

use arrow::datatypes::SchemaRef;
use datafusion::datasource::TableProvider;
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, LogicalPlan};

use super::field::{table_of, time_of};
use super::{rollup, trace_rows};
use crate::format::rollup::RollupKind;
use crate::query::kept::in_memory;
use crate::wire::View;

type MadeOf = fn(Arc<dyn TableProvider>) -> Result<LogicalPlan>;

pub(in crate::query) struct Sums {
    schema: SchemaRef,
    sources: Vec<String>,
    made_of: MadeOf,
}

static HOURS: LazyLock<Sums> = LazyLock::new(|| Sums::new(rollup::made_of, &rollup::expressions()));
static TRACES: LazyLock<Sums> = LazyLock::new(|| Sums::new(trace_rows::made_of, &trace_rows::expressions()));

impl Sums {
    pub(in crate::query) fn of(kind: RollupKind) -> &'static Self {
        match kind {
            RollupKind::Hours => &HOURS,
            RollupKind::Traces => &TRACES,
        }
    }

    fn new(made_of: MadeOf, expressions: &[Expr]) -> Self {
        let observations = table_of(View::Observations).table_schema();
        let plan = in_memory(observations, Vec::new()).and_then(made_of).expect("its expressions are sound");
        let schema = Arc::new(plan.schema().as_arrow().clone());
        let columns = expressions.iter().flat_map(|expression| expression.column_refs());
        let mut columns: Vec<String> = columns.map(|column| column.name.clone()).collect();
        columns.sort();
        columns.dedup();
        let time = time_of(View::Observations).qualified_name().1;
        columns.retain(|column| *column != time);
        Self { schema, sources: std::iter::once(time).chain(columns).collect(), made_of }
    }

    /// The columns of such a roll-up.
    pub(in crate::query) fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// The columns of `observations` that it is made of, their time first.
    pub(in crate::query) fn sources(&self) -> Vec<String> {
        self.sources.clone()
    }

    /// The roll-up of these observations.
    pub(in crate::query) fn made_of(&self, observations: Arc<dyn TableProvider>) -> Result<LogicalPlan> {
        (self.made_of)(observations)
    }
}
