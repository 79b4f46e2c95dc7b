//! The last look at a plan before it runs: it reads this tenant's files and nothing else, and it can be stopped.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::physical_plan::FileScanConfig;
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::Result;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{BinaryExpr, Expr, LogicalPlan, Operator};
use datafusion::optimizer::AnalyzerRule;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

use super::bound::OwnRows;
use super::error::QueryError;
use super::functions;
use super::memory::Outputs;
use super::patch::PatchExec;
use super::provider::OBJECTS_URL;
use crate::format::rollup::RollupKind;
use crate::model::tables::Table;
use crate::store;

/// Operators, joins, SELECTs and the like in one statement. Each may put the rest one level deeper, and planning goes
/// down level by level on one stack: too deep a statement would end the process, everyone's.
const LEVELS_MAX: usize = 1_000;

/// Looked at before parsing: even to drop a deep syntax tree takes a deep stack. Parentheses the parser counts itself.
pub(super) fn is_shallow(sql: &str) -> Result<(), QueryError> {
    let tokens = Tokenizer::new(&GenericDialect {}, sql).tokenize().map_err(|e| QueryError::Invalid(e.to_string()))?;
    let mut in_from = false;
    let deepens = |token: &&Token| match token {
        Token::Word(word) => {
            in_from = match word.keyword {
                Keyword::FROM => true,
                Keyword::SELECT | Keyword::WHERE | Keyword::GROUP | Keyword::ORDER | Keyword::LIMIT => false,
                _ => in_from,
            };
            DEEPENING.contains(&word.keyword)
        }
        // Tables side by side are joins.
        Token::Comma => in_from,
        Token::Whitespace(_) | Token::LParen | Token::RParen | Token::Number(..) | Token::SingleQuotedString(_) => {
            false
        }
        _ => true,
    };
    match tokens.iter().filter(deepens).count() {
        levels if levels > LEVELS_MAX => Err(QueryError::invalid(format!(
            "a statement may have {LEVELS_MAX} operators, joins and SELECTs, this one has {levels}: use IN for lists"
        ))),
        _ => Ok(()),
    }
}

const DEEPENING: [Keyword; 20] = [
    Keyword::AND,
    Keyword::OR,
    Keyword::NOT,
    Keyword::XOR,
    Keyword::IS,
    Keyword::IN,
    Keyword::LIKE,
    Keyword::ILIKE,
    Keyword::BETWEEN,
    Keyword::DIV,
    Keyword::AT,
    Keyword::COLLATE,
    Keyword::CASE,
    Keyword::SELECT,
    Keyword::JOIN,
    Keyword::LATERAL,
    Keyword::UNION,
    Keyword::INTERSECT,
    Keyword::EXCEPT,
    Keyword::INTERVAL,
];

/// One statement that reads. EXPLAIN and EXPLAIN ANALYZE read too.
pub(super) fn reads_only(plan: &LogicalPlan) -> Result<(), QueryError> {
    let mut refused = None;
    let visited = plan.apply_with_subqueries(|node| {
        refused = match node {
            LogicalPlan::Ddl(ddl) => Some(ddl.name().to_owned()),
            LogicalPlan::Dml(dml) => Some(dml.op.to_string()),
            LogicalPlan::Copy(_) => Some("COPY".to_owned()),
            LogicalPlan::Statement(statement) => Some(statement.name().to_owned()),
            LogicalPlan::RecursiveQuery(_) => Some("WITH RECURSIVE".to_owned()),
            _ => None,
        };
        Ok(if refused.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    match (refused, visited) {
        (Some(what), _) => Err(QueryError::ReadOnly(format!("{what} is refused, ask with SELECT"))),
        (None, Err(e)) => Err(QueryError::Internal(e.to_string())),
        (None, Ok(_)) => Ok(()),
    }
}

/// I5: every leaf of the plan is of a kind we know, and every file lies below a table of ours in the tenant's own store.
/// What is below `OwnRows` was looked through when it was planned. Late changes come from the tenant's own pinned tables, and are put to files of it only.
pub(super) fn stays_inside(plan: &Arc<dyn ExecutionPlan>) -> Result<(), QueryError> {
    let refuse = |what: &str| Err(QueryError::Internal(format!("I5: a plan may not contain {what}")));
    if plan.is::<PatchExec>() && !plan.children().iter().all(|input| is_scan(input)) {
        return refuse("late changes of anything but files");
    }
    if let Some(source) = plan.downcast_ref::<DataSourceExec>() {
        let source = source.data_source();
        if let Some(files) = source.downcast_ref::<FileScanConfig>() {
            if files.object_store_url.as_str() != OBJECTS_URL {
                return refuse("another store");
            }
            let paths = files.file_groups.iter().flat_map(|group| group.iter()).map(|file| file.path().as_ref());
            if !paths.into_iter().all(is_ours) {
                return refuse("a file outside of the tenant's tables");
            }
        } else if !source.is::<MemorySourceConfig>() {
            return refuse("a source that is neither a file nor fresh rows");
        }
    } else if plan.children().is_empty() && !plan.is::<OwnRows>() && !LEAVES.contains(&plan.name()) {
        return refuse(plan.name());
    }
    plan.children().into_iter().try_for_each(stays_inside)
}

/// A scan of files, with nothing around it that makes rows.
fn is_scan(plan: &Arc<dyn ExecutionPlan>) -> bool {
    let around = plan.is::<RepartitionExec>() || plan.is::<CooperativeExec>();
    match plan.downcast_ref::<DataSourceExec>() {
        Some(source) => source.data_source().is::<FileScanConfig>(),
        None => around && plan.children().into_iter().all(is_scan),
    }
}

/// Leaves without rows of any table; `StreamingTableExec` is the information schema.
const LEAVES: [&str; 4] = ["EmptyExec", "PlaceholderRowExec", "ExplainExec", "StreamingTableExec"];

/// A file of a table, or the roll-up of one.
fn is_ours(path: &str) -> bool {
    let of_rollup = |kind| path.strip_prefix(store::rollups(kind))?.strip_prefix('/');
    let data_file = RollupKind::ALL.into_iter().find_map(of_rollup).unwrap_or(path);
    data_file.split_once("/day=").is_some_and(|(table, _)| Table::from_name(table).is_some())
}

/// Operators that make many rows of one compute for long between two looks at their input, and then cannot be
/// stopped by time. Around each of them a node hands control back now and then.
#[derive(Debug)]
pub(super) struct Yielding;

const MULTIPLYING: [&str; 7] = [
    "CrossJoinExec",
    "NestedLoopJoinExec",
    "HashJoinExec",
    "SortMergeJoinExec",
    "SymmetricHashJoinExec",
    "PiecewiseMergeJoinExec",
    "UnnestExec",
];

impl PhysicalOptimizerRule for Yielding {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let wrapped = plan.transform_up(|node| {
            Ok(match MULTIPLYING.contains(&node.name()) {
                true => Transformed::yes(Arc::new(CooperativeExec::new(node)) as Arc<dyn ExecutionPlan>),
                false => Transformed::no(node),
            })
        })?;
        Ok(wrapped.data)
    }

    fn name(&self) -> &str {
        "yielding"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// Puts functions whose results can outgrow any limit behind one that weighs them first; `||` is such a function.
#[derive(Debug)]
pub(super) struct Weighing(pub(super) Arc<Outputs>);

impl AnalyzerRule for Weighing {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        let weighed = plan.transform_up_with_subqueries(|node| {
            let names = NamePreserver::new(&node);
            let weighed = node.map_expressions(|expr| {
                let name = names.save(&expr);
                Ok(expr.transform_up(|expr| self.weighed(expr))?.update_data(|expr| name.restore(expr)))
            })?;
            weighed.map_data(LogicalPlan::recompute_schema)
        })?;
        Ok(weighed.data)
    }

    fn name(&self) -> &str {
        "weighing"
    }
}

impl Weighing {
    fn weighed(&self, expr: Expr) -> Result<Transformed<Expr>> {
        let (function, args) = match expr {
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::StringConcat, right }) => {
                (functions::text_concat(), vec![*left, *right])
            }
            Expr::ScalarFunction(ScalarFunction { func, args }) => (func, args),
            other => return Ok(Transformed::no(other)),
        };
        Ok(match functions::bounded(&function, &self.0) {
            Some(bounded) => Transformed::yes(Expr::ScalarFunction(ScalarFunction::new_udf(bounded, args))),
            None => Transformed::no(Expr::ScalarFunction(ScalarFunction::new_udf(function, args))),
        })
    }
}

#[cfg(test)]
mod tests {
    use datafusion::physical_plan::empty::EmptyExec;

    use super::*;
    use crate::catalog::{Changes, RowKeys};
    use crate::query::patch::Patch;

    #[test]
    fn late_changes_stand_on_files_only() {
        let mut replaced = RowKeys::default();
        replaced.insert(1, ["score".into()].into());
        let changes = Changes { replaced: Arc::new(replaced), ..Default::default() };
        let (patch, read) = Patch::of(Table::Scores, &changes, None).unwrap().expect("a row is replaced");
        let schema = Table::Scores.table_schema().project(&read).unwrap();
        let empty: Arc<dyn ExecutionPlan> = Arc::new(EmptyExec::new(Arc::new(schema)));
        assert!(stays_inside(&empty).is_ok());
        let patched: Arc<dyn ExecutionPlan> = Arc::new(PatchExec::new(empty, patch));
        assert!(stays_inside(&patched).unwrap_err().to_string().contains("anything but files"));
    }
}
