//! The rows of a view: scanned, brought together by trace, session or user, joined with scores, filtered.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use datafusion::common::Column;
use datafusion::datasource::{TableProvider, provider_as_source};
use datafusion::error::Result;
use datafusion::functions_aggregate::expr_fn::count;
use datafusion::functions_aggregate::first_last::last_value;
use datafusion::functions_aggregate::min_max::min_udaf;
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::{Expr, ExprFunctionExt, JoinType, LogicalPlanBuilder, cast, lit, when};
use datafusion::prelude::ident;
use datafusion::scalar::ScalarValue;

use super::field::{self, SCORES_GIVEN, label_name, of_observation_name, of_trace_name, score_name, step_name};
use super::request::Question;
use super::{rollup, trace_rows};
use crate::base::{Day, TimestampUs};
use crate::format::rollup::RollupKind;
use crate::model::tables::Table;
use crate::query::error::QueryError;
use crate::query::rolled_up::RolledUp;
use crate::query::running::Query;
use crate::wire::View;

/// A trace or session is looked for this far on both sides of the range: its rows lie no further apart.
pub(in crate::query) const GROUP_SPAN_MAX_US: i64 = Day::US;

/// The tables a question reads.
#[derive(Debug, Clone)]
pub(super) struct Tables {
    main: (Table, Arc<dyn TableProvider>),
    scores: Option<Arc<dyn TableProvider>>,
    facts: Option<Arc<dyn TableProvider>>,
    observations: Option<Arc<dyn TableProvider>>,
    /// All rows of `main`.
    whole: Arc<dyn TableProvider>,
    /// What is answered without rows of `main`, which has only the others: sums by the hour, or by trace.
    pub(super) rolled_up: RolledUp,
    of_traces: RolledUp,
}

impl Tables {
    pub(super) async fn of(question: &Question, query: &Query) -> Result<Self, QueryError> {
        let main = field::table_of(question.view);
        let mut this = Self::over((main, query.table(main).await?));
        if rollup::answers(question) {
            let (from_us, to_us) = (question.from_us, question.to_us);
            if let Some((rows, sums)) = query.rolled_up(RollupKind::Hours, main, from_us, to_us).await? {
                (this.main.1, this.rolled_up) = (rows, sums);
            }
        } else if trace_rows::answers(question) {
            let (from_us, to_us) = around(question);
            if let Some((rows, sums)) = query.rolled_up(RollupKind::Traces, main, from_us, to_us).await? {
                (this.main.1, this.of_traces) = (rows, sums);
            }
        }
        // Who is bound to one account or user sees of traces only those with observations of that one.
        let has_bare_traces = question.view == View::Traces && query.sees_all();
        if !question.needs.scores.is_empty() || question.needs.scores_given {
            this.scores = Some(query.table(Table::Scores).await?);
        }
        if !question.needs.of_trace.is_empty() || has_bare_traces {
            this.facts = Some(query.table(Table::TraceFacts).await?);
        }
        if !question.needs.of_observation.is_empty() {
            this.observations = Some(query.table(Table::Observations).await?);
        }
        Ok(this)
    }

    /// The rows of one table alone.
    pub(super) fn over(main: (Table, Arc<dyn TableProvider>)) -> Self {
        let whole = Arc::clone(&main.1);
        let (rolled_up, of_traces) = (RolledUp::default(), RolledUp::default());
        Self { main, scores: None, facts: None, observations: None, whole, rolled_up, of_traces }
    }
}

/// The roll-ups that stand for rows: of files that lie in the range, and of others the hours that do.
pub(super) fn sums(rolled_up: &RolledUp) -> Result<Vec<LogicalPlanBuilder>> {
    let scan =
        |sums: &Arc<dyn TableProvider>| LogicalPlanBuilder::scan("sums", provider_as_source(Arc::clone(sums)), None);
    let RolledUp { whole, cut } = rolled_up;
    let whole = whole.iter().map(&scan);
    let cut = cut.iter().map(|cut| scan(&cut.sums)?.filter(rollup::is_within(cut.from_us, cut.to_us)));
    whole.chain(cut).collect()
}

/// One row per row of the view that lies in the range and passes the filters.
pub(super) fn of(question: &Question, tables: &Tables) -> Result<LogicalPlanBuilder> {
    let (from_us, to_us) = (question.from_us, question.to_us);
    let (main, provider) = &tables.main;
    let time = field::time_of(question.view);
    // What no sums stand for: other files, and rows of the first and the last hour, of which a range has only a part.
    let rest = |(from_us, to_us): (TimestampUs, TimestampUs), sums: &RolledUp| {
        let rows = scan(*main, provider)?.filter(within(&time, from_us, to_us))?;
        let Some(cut) = &sums.cut else { return Ok(rows) };
        let ends = [(from_us, cut.from_us), (cut.to_us, to_us)];
        ends.into_iter().filter(|(from, to)| from < to).try_fold(rows, |rows, (from_us, to_us)| {
            rows.union(scan(*main, &cut.rows)?.filter(within(&time, from_us, to_us))?.build()?)
        })
    };
    let mut rows = match field::group_of(question.view) {
        None => rest((from_us, to_us), &tables.rolled_up)?,
        Some(by) => {
            // First all rows that may belong to a group of the range, then the groups that begin in it.
            let around = around(question);
            let needs = &question.needs;
            let aggregates = needs.aggregates.iter().filter(|(name, _)| name != by);
            let aggregates: Vec<Expr> = aggregates.map(|(name, part)| part.clone().alias(name)).collect();
            let together = |rows: LogicalPlanBuilder| {
                let rows = rows.filter(ident(by).is_not_null())?;
                let rows = if needs.steps { reached(question, rows, by)? } else { rows };
                rows.aggregate(vec![ident(by)], aggregates.clone())
            };
            let mut groups = together(rest(around, &tables.of_traces)?)?;
            if !tables.of_traces.is_empty() {
                groups = trace_rows::put_together(question, groups, sums(&tables.of_traces)?)?;
            }
            if let Some(facts) = tables.facts.as_ref().filter(|_| question.view == View::Traces) {
                // Others than those of the range are asked for only by what looks at the traces before.
                let of = if needs.windows.is_empty() { (from_us, to_us) } else { around };
                groups = groups.union(together(bare_traces(facts, &tables.whole, of)?)?.build()?)?;
            }
            if !needs.windows.is_empty() {
                groups = groups.window(needs.windows.iter().map(|(name, window)| window.clone().alias(name)))?;
            }
            groups.filter(within(&time, from_us, to_us))?
        }
    };
    for (at, name) in question.needs.scores.iter().enumerate() {
        if let Some(scores) = &tables.scores {
            rows = scored(question, rows, scores, at, name)?;
        }
    }
    if let Some(scores) = tables.scores.as_ref().filter(|_| question.needs.scores_given) {
        rows = scores_given(question, rows, scores)?;
    }
    if let Some(facts) = tables.facts.as_ref().filter(|_| !question.needs.of_trace.is_empty()) {
        rows = of_traces(question, rows, facts)?;
    }
    if let Some(observations) = &tables.observations {
        rows = of_observations(question, rows, observations)?;
    }
    match &question.condition {
        Some(condition) => rows.filter(condition.clone()),
        None => Ok(rows),
    }
}

/// Where rows lie that may belong to a group of the range.
fn around(question: &Question) -> (TimestampUs, TimestampUs) {
    let around = match question.view {
        View::Users => 0,
        _ => GROUP_SPAN_MAX_US,
    };
    (question.from_us.saturating_sub(around), question.to_us.saturating_add(around))
}

pub(in crate::query) fn scan(table: Table, provider: &Arc<dyn TableProvider>) -> Result<LogicalPlanBuilder> {
    LogicalPlanBuilder::scan(table.name(), provider_as_source(Arc::clone(provider)), None)
}

pub(in crate::query) fn within(time: &Expr, from_us: TimestampUs, to_us: TimestampUs) -> Expr {
    let at = |us| lit(ScalarValue::TimestampMicrosecond(Some(us), Some("UTC".into())));
    time.clone().gt_eq(at(from_us)).and(time.clone().lt(at(to_us)))
}

/// Traces without observations, as rows of `observations` that say nothing but what is said about the trace. Of nearly
/// all traces a root is known, and nothing is looked for.
fn bare_traces(
    facts: &Arc<dyn TableProvider>,
    observations: &Arc<dyn TableProvider>,
    (from_us, to_us): (TimestampUs, TimestampUs),
) -> Result<LogicalPlanBuilder> {
    const SEEN: &str = "seen trace";
    let near = (from_us.saturating_sub(GROUP_SPAN_MAX_US), to_us.saturating_add(GROUP_SPAN_MAX_US));
    let seen = scan(Table::Observations, observations)?
        .filter(within(&ident("start_time"), near.0, near.1))?
        .project([ident("trace_id").alias(SEEN)])?
        .build()?;
    let on = (vec![Column::new_unqualified("trace_id")], vec![Column::new_unqualified(SEEN)]);
    let said = scan(Table::TraceFacts, facts)?
        .filter(within(&ident("timestamp"), from_us, to_us).and(ident("root_id").is_null()))?
        .join(seen, JoinType::LeftAnti, on, None)?;
    // By names of their own first: the two tables call different things `name`, and the optimizer moves expressions about.
    let said = said.project(BARE.map(|(_, of_facts)| ident(of_facts).alias(of_trace_name(of_facts))))?;
    let column = |field: &Arc<Field>| match BARE.iter().find(|(name, _)| name == field.name()) {
        Some((name, of_facts)) => Ok(ident(of_trace_name(of_facts)).alias(*name)),
        None => Ok(lit(ScalarValue::try_from(field.data_type())?).alias(field.name())),
    };
    said.project(observations.schema().fields().iter().map(column).collect::<Result<Vec<Expr>>>()?)
}

/// Columns of `observations` that are known of a trace without any, and what they are in `trace_facts`.
const BARE: [(&str, &str); 11] = [
    ("trace_id", "trace_id"),
    ("start_time", "timestamp"),
    ("trace_name", "name"),
    ("user_id", "user_id"),
    ("session_id", "session_id"),
    ("tags", "tags"),
    ("release", "release"),
    ("version", "version"),
    ("environment", "environment"),
    ("metadata", "metadata"),
    ("ingested_at", "ingested_at"),
];

/// Adds for each step when its group first reached it: the first of its observations to begin after the step before.
fn reached(question: &Question, mut rows: LogicalPlanBuilder, by: &str) -> Result<LogicalPlanBuilder> {
    let time = field::time_of(question.view);
    for (step, is_step) in question.steps.iter().enumerate() {
        // A trace without observations has done no step.
        let is_step = &is_step.clone().and(ident("type").is_not_null());
        let follows = match step {
            0 => is_step.clone(),
            _ => is_step.clone().and(time.clone().gt(ident(step_name(step - 1)))),
        };
        let first = WindowFunction::new(min_udaf(), vec![when(follows, time.clone()).end()?]);
        let first = Expr::from(first).partition_by(vec![ident(by)]).build()?;
        rows = rows.window([first.alias(step_name(step))])?;
    }
    Ok(rows)
}

/// Joins the last score of a name that each row was given.
fn scored(
    question: &Question,
    rows: LogicalPlanBuilder,
    scores: &Arc<dyn TableProvider>,
    at: usize,
    name: &str,
) -> Result<LogicalPlanBuilder> {
    let keys: &[(&str, &str)] = match question.view {
        View::Sessions => &[("session_id", "session_id")],
        View::Traces => &[("trace_id", "trace_id")],
        _ => &[("trace_id", "trace_id"), ("id", "observation_id")],
    };
    let time = ident("timestamp");
    let given = given(question, keys);
    let order = || vec![time.clone().sort(true, false), ident("id").sort(true, false)];
    let key_name = |key: &str| format!("score {at} {key}");
    let groups = keys.iter().map(|(_, key)| ident(*key).alias(key_name(key)));
    let last = scan(Table::Scores, scores)?
        .filter(given.and(ident("name").eq(lit(name))))?
        .aggregate(
            groups,
            [
                last_value(ident("value"), order()).alias(score_name(name)),
                last_value(ident("string_value"), order()).alias(label_name(name)),
            ],
        )?
        .build()?;
    let columns = |names: Vec<String>| names.into_iter().map(Column::new_unqualified).collect::<Vec<_>>();
    let left = columns(keys.iter().map(|(own, _)| (*own).to_owned()).collect());
    let right = columns(keys.iter().map(|(_, key)| key_name(key)).collect());
    rows.join(last, JoinType::Left, (left, right), None)
}

/// Scores that have all `keys`. One may be given long after what it is about, hardly before.
fn given(question: &Question, keys: &[(&str, &str)]) -> Expr {
    let since = within(&ident("timestamp"), question.from_us.saturating_sub(GROUP_SPAN_MAX_US), TimestampUs::MAX);
    keys.iter().map(|(_, key)| ident(*key).is_not_null()).fold(since, Expr::and)
}

/// Joins how many scores each row was given.
fn scores_given(
    question: &Question,
    rows: LogicalPlanBuilder,
    scores: &Arc<dyn TableProvider>,
) -> Result<LogicalPlanBuilder> {
    let keys: &[(&str, &str)] = match question.view {
        View::Traces => &[("trace_id", "trace_id")],
        _ => &[("trace_id", "trace_id"), ("id", "observation_id")],
    };
    let key_name = |key: &str| format!("scored {key}");
    let groups = keys.iter().map(|(_, key)| ident(*key).alias(key_name(key)));
    let counted = scan(Table::Scores, scores)?
        .filter(given(question, keys))?
        .aggregate(groups, [count(lit(1)).alias(SCORES_GIVEN)])?
        .build()?;
    let columns = |names: Vec<String>| names.into_iter().map(Column::new_unqualified).collect::<Vec<_>>();
    let left = columns(keys.iter().map(|(own, _)| (*own).to_owned()).collect());
    let right = columns(keys.iter().map(|(_, key)| key_name(key)).collect());
    rows.join(counted, JoinType::Left, (left, right), None)
}

/// Joins what is said about the observation that each score is about.
fn of_observations(
    question: &Question,
    rows: LogicalPlanBuilder,
    observations: &Arc<dyn TableProvider>,
) -> Result<LogicalPlanBuilder> {
    let (trace, id) = (of_observation_name("trace_id"), of_observation_name("id"));
    let columns = question.needs.of_observation.iter().map(|column| match column.as_str() {
        "prompt_version" => ident("prompt_version").alias(of_observation_name("prompt_version")),
        text => cast(ident(text), DataType::Utf8View).alias(of_observation_name(text)),
    });
    let keys = [ident("trace_id").alias(&trace), ident("id").alias(&id)];
    let seen = scan(Table::Observations, observations)?.project(keys.into_iter().chain(columns))?.build()?;
    let left = ["trace_id", "observation_id"].map(Column::new_unqualified).to_vec();
    rows.join(seen, JoinType::Left, (left, vec![Column::new_unqualified(trace), Column::new_unqualified(id)]), None)
}

/// Joins what is said about the trace that each score is about.
fn of_traces(
    question: &Question,
    rows: LogicalPlanBuilder,
    facts: &Arc<dyn TableProvider>,
) -> Result<LogicalPlanBuilder> {
    let key = of_trace_name("id");
    let columns = question.needs.of_trace.iter().map(|column| match column.as_str() {
        "tags" => ident("tags").alias(of_trace_name("tags")),
        text => cast(ident(text), DataType::Utf8View).alias(of_trace_name(text)),
    });
    let columns = std::iter::once(ident("trace_id").alias(&key)).chain(columns);
    let said = scan(Table::TraceFacts, facts)?.project(columns)?.build()?;
    let on = (vec![Column::new_unqualified("trace_id")], vec![Column::new_unqualified(key)]);
    rows.join(said, JoinType::Left, on, None)
}
