//! What a key bound to one account or one user can name: views that hold nobody else's rows (I5).
//!
//! Such a question's own session knows these views and nothing else: no table of the tenant, no file, no store. What a
//! view reads is planned and run in a session of its own, behind [`OwnRows`], through which no part of a question gets:
//! a filter that may fail on a row, and so tell of it, only ever sees rows that are shown.
//!
//! **Whose a row is.** An observation is the user's or the account's that it names. Its text and its scores go with it.
//! What is said of a whole trace (facts, input and output, scores) is shown when all observations of the trace are its
//! owner's, and of a session likewise: a trace that two users share shows each their own observations, and to neither
//! what is said of both. That is decided over all that is kept, whatever period a question is about.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{SchemaProvider, Session};
use datafusion::common::ParamValues;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::TableProvider;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{
    Expr, LogicalPlan, LogicalPlanBuilder, Operator, TableProviderFilterPushDown, TableType, ident,
};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{EmissionType, ReplaceChildrenOptions};
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, Partitioning, PlanProperties,
    SendableRecordBatchStream,
};
use datafusion::scalar::ScalarValue;

use super::error::QueryError;
use super::guard;
use crate::base::TenantId;
use crate::catalog::keys::{Bound, Identity};
use crate::model::tables::Table;

/// Whose rows a question may see: a tenant's, or of these only those of one account or one user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    pub tenant: TenantId,
    pub bound: Option<Bound>,
}

impl From<&TenantId> for Scope {
    fn from(tenant: &TenantId) -> Self {
        Self { tenant: tenant.clone(), bound: None }
    }
}

impl From<&Identity> for Scope {
    fn from(who: &Identity) -> Self {
        Self { tenant: who.tenant.clone(), bound: who.bound.clone() }
    }
}

/// All that a bound question can name.
pub(super) struct BoundTables {
    /// Knows the tenant's tables; no question is planned in it.
    whole: SessionState,
    bound: Bound,
}

const SHOWN: [Table; 4] = [Table::Observations, Table::TraceFacts, Table::ObservationIo, Table::Scores];

impl BoundTables {
    pub(super) fn new(whole: SessionState, bound: Bound) -> Self {
        Self { whole, bound }
    }

    async fn view(&self, table: Table) -> Result<BoundView> {
        let (column, value) = match &self.bound {
            Bound::Account(account) => ("account", account),
            Bound::User(user) => ("user_id", user),
        };
        let rows = self.whole.create_logical_plan(&own_rows(table, column)).await?;
        let owner = ScalarValue::Utf8(Some(value.clone()));
        let rows = rows.with_param_values(ParamValues::from(vec![owner]))?;
        Ok(BoundView { table, whole: self.whole.clone(), rows })
    }
}

/// The rows of `table` whose owner, named in `column` of `observations`, is `$1`.
fn own_rows(table: Table, column: &'static str) -> String {
    let observation = |id: &str| {
        format!(
            "EXISTS (SELECT 1 FROM observations o WHERE o.{column} = $1 AND o.trace_id = t.trace_id AND o.id = t.{id})"
        )
    };
    let whole = |id: &str| {
        format!(
            "t.{id} IN (SELECT o.{id} FROM observations o WHERE o.{id} IS NOT NULL
                        GROUP BY o.{id} HAVING bool_and(coalesce(o.{column} = $1, false)))"
        )
    };
    let conditions = match table {
        Table::Observations => vec![format!("t.{column} = $1")],
        Table::TraceFacts => vec![whole("trace_id")],
        Table::ObservationIo => {
            vec![format!("t.id <> '' AND {}", observation("id")), format!("t.id = '' AND {}", whole("trace_id"))]
        }
        Table::Scores => vec![
            format!("t.observation_id IS NOT NULL AND {}", observation("observation_id")),
            format!("t.observation_id IS NULL AND t.trace_id IS NOT NULL AND {}", whole("trace_id")),
            format!("t.observation_id IS NULL AND t.trace_id IS NULL AND {}", whole("session_id")),
        ],
        Table::Ledger => vec!["false".to_owned()],
    };
    let parts = conditions.iter().map(|condition| format!("SELECT * FROM {} t WHERE {condition}", table.name()));
    parts.collect::<Vec<_>>().join(" UNION ALL ")
}

#[async_trait]
impl SchemaProvider for BoundTables {
    fn table_names(&self) -> Vec<String> {
        SHOWN.iter().map(|table| table.name().to_owned()).collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        match Table::from_name(name).filter(|table| SHOWN.contains(table)) {
            Some(table) => Ok(Some(Arc::new(self.view(table).await?))),
            None => Ok(None),
        }
    }

    fn table_exist(&self, name: &str) -> bool {
        SHOWN.iter().any(|table| table.name() == name)
    }
}

impl fmt::Debug for BoundTables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BoundTables")
    }
}

struct BoundView {
    table: Table,
    whole: SessionState,
    rows: LogicalPlan,
}

#[async_trait]
impl TableProvider for BoundView {
    fn schema(&self) -> SchemaRef {
        self.table.table_schema()
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        let support = |filter: &&Expr| match cannot_fail(filter) {
            true => TableProviderFilterPushDown::Inexact,
            false => TableProviderFilterPushDown::Unsupported,
        };
        Ok(filters.iter().map(support).collect())
    }

    async fn scan(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let schema = self.schema();
        let mut rows = LogicalPlanBuilder::from(self.rows.clone()).alias(self.table.name())?;
        if let Some(filter) = conjunction(filters.iter().cloned()) {
            rows = rows.filter(filter)?;
        }
        if let Some(asked) = projection {
            rows = rows.project(asked.iter().map(|at| ident(schema.field(*at).name())))?;
        }
        // A limit below a filter would count rows that do not pass it.
        if let Some(limit) = limit.filter(|_| filters.is_empty()) {
            rows = rows.limit(0, Some(limit))?;
        }
        let asked = match projection {
            Some(asked) => Arc::new(schema.project(asked)?),
            None => schema,
        };
        let rows = self.whole.create_physical_plan(&rows.build()?).await?;
        guard::stays_inside(&rows).map_err(|error| match error {
            QueryError::Internal(reason) => DataFusionError::Internal(reason),
            other => DataFusionError::Internal(other.to_string()),
        })?;
        Ok(Arc::new(OwnRows::new(rows, asked, self.whole.task_ctx())))
    }
}

impl fmt::Debug for BoundView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BoundView")
    }
}

/// A comparison of columns with values, and what is made of such ones: no row makes it fail, so it may see all.
fn cannot_fail(filter: &Expr) -> bool {
    let is_plain = |expr: &Expr| matches!(expr, Expr::Column(_) | Expr::Literal(..));
    match filter {
        Expr::Column(_) | Expr::Literal(..) => true,
        Expr::BinaryExpr(binary) => match binary.op {
            Operator::And | Operator::Or => cannot_fail(&binary.left) && cannot_fail(&binary.right),
            Operator::Eq | Operator::NotEq | Operator::Lt | Operator::LtEq | Operator::Gt | Operator::GtEq => {
                is_plain(&binary.left) && is_plain(&binary.right)
            }
            _ => false,
        },
        Expr::Not(inner) => cannot_fail(inner),
        Expr::IsNull(inner) | Expr::IsNotNull(inner) => is_plain(inner),
        Expr::Between(between) => is_plain(&between.expr) && is_plain(&between.low) && is_plain(&between.high),
        Expr::InList(list) => is_plain(&list.expr) && list.list.iter().all(is_plain),
        _ => false,
    }
}

/// The end of a bound question's own plan: below it others' rows are read, and it shows none of them, nor their number,
/// nor the plan that reads them.
pub(super) struct OwnRows {
    rows: Arc<dyn ExecutionPlan>,
    /// Of the session that knows the tenant's tables; the question's own has no store to read from.
    context: Arc<TaskContext>,
    properties: Arc<PlanProperties>,
}

impl OwnRows {
    fn new(rows: Arc<dyn ExecutionPlan>, schema: SchemaRef, context: Arc<TaskContext>) -> Self {
        let partitions = rows.output_partitioning().partition_count();
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(partitions),
            EmissionType::Incremental,
            rows.boundedness(),
        );
        Self { rows, context, properties: Arc::new(properties) }
    }
}

impl ExecutionPlan for OwnRows {
    fn name(&self) -> &str {
        "OwnRows"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    /// None that an optimiser may look into.
    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn replace_children(
        self: Arc<Self>,
        _: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, partition: usize, _: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        self.rows.execute(partition, Arc::clone(&self.context))
    }
}

impl DisplayAs for OwnRows {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OwnRows")
    }
}

impl fmt::Debug for OwnRows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OwnRows")
    }
}
