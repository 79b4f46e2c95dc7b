//! What pages are pages of: one row per trace, observation, session or score, filtered.
//!
//! The statements are ours; what a caller sends is only ever a column looked up or a value.

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use datafusion::common::{Column, ParamValues};
use datafusion::error::Result as Planned;
use datafusion::functions_aggregate::expr_fn::{array_agg, avg, count};
use datafusion::logical_expr::{Expr, ExprFunctionExt, JoinType, LogicalPlan, LogicalPlanBuilder, SortExpr, lit};
use datafusion::prelude::ident;
use datafusion::scalar::ScalarValue;

use super::{RecordKind, RecordsAsked};
use crate::base::TimestampUs;
use crate::model::tables::Table;
use crate::query::error::QueryError;
use crate::query::metrics::{GROUP_SPAN_MAX_US, on_columns, scan, within};
use crate::query::running::Query;
use crate::wire::{Filter, FilterOperator};

/// `$1` and `$2`: from when and until when; `{of}`: which rows at all.
const TRACES: &str = r#"
SELECT coalesce(f.trace_id, o.trace_id) AS id, coalesce(f."timestamp", o.start_time) AS "timestamp",
    coalesce(f.name, o.trace_name) AS name, coalesce(f.user_id, o.user_id) AS user_id,
    coalesce(f.session_id, o.session_id) AS session_id, coalesce(f.release, o.release) AS release,
    coalesce(f.version, o.version) AS version, coalesce(f.environment, o.environment) AS environment,
    coalesce(f.public, false) AS public, f.tags, f.metadata, coalesce(f.root_id, '') AS root_id,
    (CAST(o.end_time AS BIGINT) - CAST(o.start_time AS BIGINT)) / 1000.0 AS latency_ms,
    (CAST(o.end_time AS BIGINT) - CAST(o.start_time AS BIGINT)) / 1000000.0 AS latency_s,
    o.total_cost, o.input_cost, o.output_cost, o.total_tokens, o.input_tokens, o.output_tokens,
    coalesce(o.errors, 0) AS errors, coalesce(o.warnings, 0) AS warnings, o.levels,
    least(f.ingested_at, o.first_in) AS first_in, greatest(f.ingested_at, o.last_in) AS last_in
FROM (SELECT * FROM trace_facts WHERE "timestamp" >= $1 AND "timestamp" < $2 {of}) f
FULL JOIN (
    SELECT trace_id, min(start_time) AS start_time, max(coalesce(end_time, start_time)) AS end_time,
        max(trace_name) AS trace_name, max(user_id) AS user_id, max(session_id) AS session_id,
        max(release) AS release, max(version) AS version, max(environment) AS environment,
        sum(total_cost) AS total_cost, sum(input_cost) AS input_cost, sum(output_cost) AS output_cost,
        sum(total_tokens) AS total_tokens, sum(input_tokens) AS input_tokens, sum(output_tokens) AS output_tokens,
        count(*) FILTER (WHERE level = 'ERROR') AS errors, count(*) FILTER (WHERE level = 'WARNING') AS warnings,
        array_agg(DISTINCT level) AS levels, min(ingested_at) AS first_in, max(ingested_at) AS last_in
    FROM observations WHERE start_time >= $1 AND start_time < $2 {of} GROUP BY trace_id
) o ON f.trace_id = o.trace_id"#;

/// One of them, or those of one session.
const OF_TRACE: &str = "AND trace_id = $3";
const OF_SESSION: &str = "AND trace_id IN (SELECT trace_id FROM trace_facts WHERE session_id = $3
    UNION ALL SELECT trace_id FROM observations WHERE session_id = $3)";

const SESSIONS: &str = r#"
SELECT session_id AS id, min("timestamp") AS "timestamp", max(environment) AS environment
FROM ({traces}) t WHERE session_id IS NOT NULL GROUP BY session_id"#;

const OBSERVATIONS: &str = "SELECT * FROM observations WHERE start_time >= $1 AND start_time < $2";
const OBSERVATIONS_AND_TEXTS: &str = "
SELECT o.*, t.input, t.output FROM observations o
LEFT JOIN observation_io t ON o.trace_id = t.trace_id AND o.id = t.id WHERE o.start_time >= $1 AND o.start_time < $2";

const SCORES: &str = r#"SELECT * FROM scores WHERE "timestamp" >= $1 AND "timestamp" < $2"#;
const SCORES_AND_TRACES: &str = r#"
SELECT s.*, f.user_id, f.tags, f.name AS trace_name, f.session_id AS trace_session_id
FROM scores s LEFT JOIN trace_facts f ON s.trace_id = f.trace_id
WHERE s."timestamp" >= $1 AND s."timestamp" < $2"#;

/// What a trace was scored on average under a name, and the words it was given.
const SCORE: &str = "score:";
const LABEL: &str = "score_label:";

pub(super) struct Base {
    rows: LogicalPlanBuilder,
    time: &'static str,
}

impl Base {
    pub(super) async fn of(query: &Query, asked: &RecordsAsked) -> Result<Self, QueryError> {
        let (from_us, to_us) = (asked.range.from_unix_micros, asked.range.to_unix_micros);
        if from_us >= to_us {
            return Err(QueryError::invalid("the time range is empty: it ends before it begins"));
        }
        let around = (from_us.saturating_sub(GROUP_SPAN_MAX_US), to_us.saturating_add(GROUP_SPAN_MAX_US));
        let names = |names: &[&str]| names.iter().any(|name| asked.filters.iter().any(|filter| is_named(filter, name)));
        let one = |of: &str, fact: &str| Some((equals(&asked.filters, of)?, fact.to_owned()));
        let (text, (from_us, to_us), key) = match asked.kind {
            RecordKind::Traces => {
                let key = one("id", OF_TRACE).or_else(|| one("session_id", OF_SESSION));
                (TRACES.to_owned(), around, key)
            }
            RecordKind::Sessions => (SESSIONS.replace("{traces}", TRACES), around, one("id", OF_SESSION)),
            RecordKind::Observations if names(&["input", "output"]) => {
                (OBSERVATIONS_AND_TEXTS.to_owned(), (from_us, to_us), None)
            }
            RecordKind::Observations => (OBSERVATIONS.to_owned(), (from_us, to_us), None),
            RecordKind::Scores if names(&["user_id", "tags", "trace_name", "trace_session_id"]) => {
                (SCORES_AND_TRACES.to_owned(), (from_us, to_us), None)
            }
            RecordKind::Scores => (SCORES.to_owned(), (from_us, to_us), None),
        };
        let (key, of) = key.map_or((None, String::new()), |(key, of)| (Some(key), of));
        let plan = query.plan_sql(&text.replace("{of}", &of)).await?;
        let at = |us| ScalarValue::TimestampMicrosecond(Some(us), Some("UTC".into()));
        let values = [at(from_us), at(to_us)].into_iter().chain(key.map(|key| ScalarValue::Utf8(Some(key))));
        let plan = plan.with_param_values(ParamValues::from(values.collect::<Vec<_>>()));
        let plan = plan.map_err(|e| query.translate(e))?;
        let time = match asked.kind {
            RecordKind::Observations => "start_time",
            RecordKind::Traces | RecordKind::Sessions | RecordKind::Scores => "timestamp",
        };
        let mut rows = LogicalPlanBuilder::from(plan);
        if asked.kind == RecordKind::Traces {
            rows = judged(query, rows, &asked.filters).await?;
        }
        let range = within(&ident(time), asked.range.from_unix_micros, asked.range.to_unix_micros);
        let condition = match on_columns(rows.schema(), &asked.filters)? {
            Some(condition) => range.and(condition),
            None => range,
        };
        let rows = rows.filter(condition).map_err(|e| query.translate(e))?;
        Ok(Self { rows, time })
    }

    pub(super) async fn count(&self, query: &Query) -> Result<u64, QueryError> {
        let all: Vec<Expr> = Vec::new();
        let plan = self.rows.clone().aggregate(all, [count(lit(1)).alias("count")]).and_then(|rows| rows.build());
        let batches = query.collect(&plan.map_err(|e| query.translate(e))?, 1).await?;
        let counted = batches.iter().find(|batch| batch.num_rows() == 1);
        Ok(counted.map_or(0, |batch| batch.column(0).as_primitive::<Int64Type>().value(0) as u64))
    }

    /// The rows of the page: of these columns, or all.
    pub(super) fn page(
        &self,
        query: &Query,
        asked: &RecordsAsked,
        ties: &[&str],
        columns: &[&str],
    ) -> Result<LogicalPlan, QueryError> {
        let mut order = Vec::new();
        for by in &asked.order {
            if self.rows.schema().field_with_unqualified_name(&by.field).is_err() {
                return Err(QueryError::invalid(format!("there is no order by {:?}", by.field)));
            }
            order.push(ident(&by.field).sort(by.ascending, false));
        }
        if order.is_empty() {
            order.push(ident(self.time).sort(false, false));
        }
        order.extend(ties.iter().map(|tie| ident(*tie).sort(true, false)));
        self.paged(asked, order, columns).map_err(|e| query.translate(e))
    }

    fn paged(&self, asked: &RecordsAsked, order: Vec<SortExpr>, columns: &[&str]) -> Planned<LogicalPlan> {
        let rows = self.rows.clone().sort_with_limit(order, Some(asked.skip.saturating_add(asked.limit)))?;
        let rows = rows.limit(asked.skip, Some(asked.limit))?;
        match columns.is_empty() {
            true => rows.build(),
            false => rows.project(columns.iter().map(|column| ident(*column)))?.build(),
        }
    }
}

/// Rows of `table` with one of these texts in `column`, near a time if one is named.
pub(super) async fn having(
    query: &Query,
    table: Table,
    (column, texts): (&str, &[&str]),
    near: Option<(TimestampUs, TimestampUs)>,
) -> Result<Planned<LogicalPlanBuilder>, QueryError> {
    let provider = query.table(table).await?;
    let texts = texts.iter().map(|text| lit(*text)).collect();
    let has = ident(column).in_list(texts, false);
    let condition = match near {
        Some((from_us, to_us)) => has.and(within(&ident(table.time_column()), from_us, to_us)),
        None => has,
    };
    Ok(scan(table, &provider).and_then(|rows| rows.filter(condition)))
}

/// Joins to traces how they were scored, for each name that a filter asks about.
async fn judged(
    query: &Query,
    mut rows: LogicalPlanBuilder,
    filters: &[Filter],
) -> Result<LogicalPlanBuilder, QueryError> {
    let mut fields: Vec<&str> = Vec::new();
    filters.iter().for_each(|filter| named(filter, &mut fields));
    fields.sort_unstable();
    fields.dedup();
    for field in fields {
        let given = match (field.strip_prefix(SCORE), field.strip_prefix(LABEL)) {
            (Some(name), _) => (name, avg(ident("value"))),
            (_, Some(name)) => (name, array_agg(ident("string_value"))),
            (None, None) => continue,
        };
        let scores = having(query, Table::Scores, ("name", &[given.0]), None).await?;
        let joined = scores.and_then(|scores| {
            let key = format!("of {field}");
            let of_all = given.1.filter(ident("trace_id").is_not_null()).build()?;
            let scores = scores.aggregate(vec![ident("trace_id").alias(&key)], [of_all.alias(field)])?.build()?;
            let on = (vec![Column::new_unqualified("id")], vec![Column::new_unqualified(key)]);
            rows.join(scores, JoinType::Left, on, None)
        });
        rows = joined.map_err(|e| query.translate(e))?;
    }
    Ok(rows)
}

/// All fields that a filter names.
fn named<'a>(filter: &'a Filter, fields: &mut Vec<&'a str>) {
    if !filter.field.is_empty() {
        fields.push(&filter.field);
    }
    let inner = filter.all_of.iter().chain(&filter.any_of).chain(&filter.none_of);
    inner.for_each(|filter| named(filter, fields));
}

fn is_named(filter: &Filter, name: &str) -> bool {
    let mut fields = Vec::new();
    named(filter, &mut fields);
    fields.contains(&name)
}

/// The value that `field` must be equal to.
fn equals(filters: &[Filter], field: &str) -> Option<String> {
    let is_it = |filter: &&Filter| filter.field == field && filter.operator == i32::from(FilterOperator::Equals);
    filters.iter().find(is_it)?.values.first().cloned()
}
