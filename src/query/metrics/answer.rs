//! Runs the plans of a question and puts the answer together: shown groups, the others, the total, the gaps.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use datafusion::datasource::TableProvider;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::LogicalPlan;

use super::fields;
use super::plan;
use super::request::{By, Question};
use super::value::{self, Value};
use crate::base::TimestampUs;
use crate::query::engine::Query;
use crate::query::error::QueryError;
use crate::query::functions::ShownGroup;
use crate::wire::{MeasureColumn, MetricsResponse, MetricsRow};

pub(in crate::query) async fn answer(query: &Query, question: Question) -> Result<MetricsResponse, QueryError> {
    let table = query.tables.at(fields::table_of(question.view)).await?;
    let asking = Asking { query, question: &question, table };
    let mut rows = match question.buckets {
        None => asking.groups().await?,
        Some(_) => asking.buckets().await?,
    };
    if rows.len() as u64 > question.rows_max + 1 {
        return Err(QueryError::rows(question.rows_max));
    }
    rows.sort_by(|a, b| a.order(b, &question));
    let total = match question.with_total {
        true => Some(asking.total().await?),
        false => None,
    };
    let measures = question.measures.iter();
    Ok(MetricsResponse {
        dimensions: question.dimensions.iter().map(|field| field.name.clone()).collect(),
        measures: measures.map(|m| MeasureColumn { name: m.name.clone(), unit: m.unit.to_owned() }).collect(),
        rows: rows.into_iter().map(MetricsRow::from).collect(),
        total: total.map(MetricsRow::from),
        snapshot: query.tables.versions(),
    })
}

#[derive(Debug, Clone)]
struct Row {
    bucket: Option<TimestampUs>,
    dimensions: Vec<Value>,
    measures: Vec<Value>,
    is_other: bool,
}

impl Row {
    fn order(&self, other: &Row, question: &Question) -> Ordering {
        let mut ordering = Ordering::Equal;
        let mut others_placed = false;
        for order in &question.order {
            ordering = ordering.then_with(|| match order.by {
                By::Bucket if order.ascending => self.bucket.cmp(&other.bucket),
                By::Bucket => other.bucket.cmp(&self.bucket),
                By::Measure(_) | By::Dimension(_) if !others_placed => self.is_other.cmp(&other.is_other),
                By::Measure(_) | By::Dimension(_) => Ordering::Equal,
            });
            others_placed |= order.by != By::Bucket;
            ordering = ordering.then_with(|| match order.by {
                By::Bucket => Ordering::Equal,
                By::Measure(at) => self.measures[at].order(&other.measures[at], order.ascending),
                By::Dimension(at) => self.dimensions[at].order(&other.dimensions[at], order.ascending),
            });
        }
        let ties = self.dimensions.iter().zip(&other.dimensions).map(|(a, b)| a.order(b, true));
        ordering.then_with(|| ties.fold(Ordering::Equal, Ordering::then)).then(self.bucket.cmp(&other.bucket))
    }
}

impl From<Row> for MetricsRow {
    fn from(row: Row) -> Self {
        Self {
            bucket_start_unix_micros: row.bucket,
            dimensions: row.dimensions.into_iter().map(Into::into).collect(),
            measures: row.measures.into_iter().map(Into::into).collect(),
            is_other: row.is_other,
        }
    }
}

struct Asking<'a> {
    query: &'a Query,
    question: &'a Question,
    table: Arc<dyn TableProvider>,
}

impl Asking<'_> {
    /// Without buckets: the ranking is the answer, and one more plan sums up what it leaves out.
    async fn groups(&self) -> Result<Vec<Row>, QueryError> {
        let question = self.question;
        if question.dimensions.is_empty() {
            return Ok(vec![self.total().await?]);
        }
        let (shown, has_others) = self.ranking().await?;
        let mut rows = Vec::with_capacity(shown.num_rows() + 1);
        let dimensions = question.dimensions.len();
        for row in 0..shown.num_rows() {
            rows.push(Row {
                bucket: None,
                dimensions: self.dimensions_of(&shown, row),
                measures: self.measures_of(&shown.columns()[dimensions..], row),
                is_other: false,
            });
        }
        if has_others {
            let group = self.shown_group(&shown)?;
            let plan = self.planned(plan::others(question, self.table(), group, shown.num_rows()))?;
            let others = self.one(&plan).await?;
            rows.push(self.other(None, self.measures_of(others.columns(), 0)));
        }
        Ok(rows)
    }

    /// With buckets: groups are ranked over the whole range, then all are cut into buckets, the others together.
    async fn buckets(&self) -> Result<Vec<Row>, QueryError> {
        let question = self.question;
        let Some(buckets) = &question.buckets else { return Ok(Vec::new()) };
        let (groups, shown, has_others) = match question.dimensions.is_empty() {
            true => (vec![Vec::new()], None, false),
            false => {
                let (shown, has_others) = self.ranking().await?;
                let groups = (0..shown.num_rows()).map(|row| self.dimensions_of(&shown, row)).collect();
                (groups, Some(self.shown_group(&shown)?), has_others)
            }
        };
        let series = groups.len() as u64 + u64::from(has_others);
        if !buckets.skip_gaps && series * buckets.starts.len() as u64 > question.rows_max {
            return Err(QueryError::rows(question.rows_max));
        }

        let keys = 1 + usize::from(shown.is_some());
        let plan = self.planned(plan::bucketed(question, self.table(), shown))?;
        let mut found: BTreeMap<(usize, TimestampUs), Vec<Value>> = BTreeMap::new();
        for batch in self.query.collect(&plan, question.rows_max).await? {
            for row in 0..batch.num_rows() {
                let rank = match keys {
                    2 => batch.column(1).as_primitive::<Int64Type>().value(row) as usize,
                    _ => 0,
                };
                let start = batch.column(0).as_primitive::<TimestampMicrosecondType>().value(row);
                found.insert((rank, start), self.measures_of(&batch.columns()[keys..], row));
            }
        }
        let starts = |rank: usize| -> BTreeSet<TimestampUs> {
            let filled = found.range((rank, i64::MIN)..=(rank, i64::MAX)).map(|((_, start), _)| *start);
            match buckets.skip_gaps {
                true => filled.collect(),
                false => buckets.starts.iter().copied().chain(filled).collect(),
            }
        };
        let mut rows = Vec::new();
        for rank in 0..series as usize {
            for start in starts(rank) {
                let measures = found.get(&(rank, start)).cloned().unwrap_or_else(|| self.nothing());
                rows.push(match groups.get(rank) {
                    Some(dimensions) => {
                        Row { bucket: Some(start), dimensions: dimensions.clone(), measures, is_other: false }
                    }
                    None => self.other(Some(start), measures),
                });
            }
        }
        Ok(rows)
    }

    async fn total(&self) -> Result<Row, QueryError> {
        let plan = self.planned(plan::total(self.question, self.table()))?;
        let total = self.one(&plan).await?;
        let dimensions = vec![Value::Null; self.question.dimensions.len()];
        Ok(Row { bucket: None, dimensions, measures: self.measures_of(total.columns(), 0), is_other: false })
    }

    /// The groups that are shown, best first, and whether there are others.
    async fn ranking(&self) -> Result<(RecordBatch, bool), QueryError> {
        let plan = self.planned(plan::ranked(self.question, self.table()))?;
        let shown_max = self.question.groups_max;
        let batches = self.query.collect(&plan, shown_max as u64 + 1).await?;
        let schema = Arc::new(plan.schema().as_arrow().clone());
        let all = match batches.first() {
            Some(first) => concat_batches(&first.schema(), &batches).map_err(|e| self.translate(e.into()))?,
            None => RecordBatch::new_empty(schema),
        };
        let has_others = all.num_rows() > shown_max;
        Ok((all.slice(0, all.num_rows().min(shown_max)), has_others))
    }

    fn shown_group(&self, shown: &RecordBatch) -> Result<ShownGroup, QueryError> {
        let dimensions: Vec<usize> = (0..self.question.dimensions.len()).collect();
        let keys = shown.project(&dimensions).map_err(|e| self.translate(e.into()))?;
        ShownGroup::new(&keys).map_err(|e| self.translate(e))
    }

    fn dimensions_of(&self, batch: &RecordBatch, row: usize) -> Vec<Value> {
        (0..self.question.dimensions.len()).map(|at| value::dimension(batch.column(at), row)).collect()
    }

    fn measures_of(&self, columns: &[ArrayRef], row: usize) -> Vec<Value> {
        columns.iter().enumerate().map(|(at, column)| value::measure(self.question, at, column, row)).collect()
    }

    fn nothing(&self) -> Vec<Value> {
        (0..self.question.measures.len()).map(|at| value::of_nothing(self.question, at)).collect()
    }

    fn other(&self, bucket: Option<TimestampUs>, measures: Vec<Value>) -> Row {
        Row { bucket, dimensions: vec![Value::Null; self.question.dimensions.len()], measures, is_other: true }
    }

    /// A grouping without keys answers with exactly one row.
    async fn one(&self, plan: &LogicalPlan) -> Result<RecordBatch, QueryError> {
        let batches = self.query.collect(plan, 1).await?;
        let one = batches.into_iter().find(|batch| batch.num_rows() == 1);
        one.ok_or_else(|| QueryError::Internal("a total without a row".to_owned()))
    }

    fn table(&self) -> Arc<dyn TableProvider> {
        Arc::clone(&self.table)
    }

    fn planned(&self, plan: Result<LogicalPlan, DataFusionError>) -> Result<LogicalPlan, QueryError> {
        plan.map_err(|e| self.translate(e))
    }

    fn translate(&self, error: DataFusionError) -> QueryError {
        self.query.translate(error)
    }
}
