//! Runs the plans of a question and puts the answer together: shown groups, the others, the total, the gaps.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::LogicalPlan;

use super::parts::{UNPRICED, measure_name};
use super::plan::{self, Source};
use super::request::{Aggregate, By, Measure, Question};
use super::rollup;
use super::rows::Tables;
use super::value::{self, Value};
use crate::base::TimestampUs;
use crate::query::error::QueryError;
use crate::query::functions::ShownGroup;
use crate::query::kept::{Kept, in_memory};
use crate::query::running::{Query, Spilling};
use crate::wire::{MeasureColumn, MetricsResponse, MetricsRow, Reading};

pub(in crate::query) async fn answer(query: &Query, question: Question) -> Result<MetricsResponse, QueryError> {
    let tables = Tables::of(&question, query).await?;
    let asking = Asking { query, question: &question, table: Source::Tables(tables) };
    let (mut rows, mut total) = match question.buckets {
        None => asking.groups().await?,
        Some(_) => asking.buckets().await?,
    };
    if rows.len() as u64 > question.rows_max + 1 {
        return Err(QueryError::rows(question.rows_max));
    }
    rows.sort_by(|a, b| a.order(b, &question));
    divide_shares(&question, &mut rows, &mut total);
    let column = |measure: &Measure| MeasureColumn {
        name: measure.name.clone(),
        unit: measure.unit.to_owned(),
        relative_error: question.relative_error(measure.aggregate),
        meaning: measure.meaning.to_owned(),
    };
    let measures: Vec<MeasureColumn> = question.measures.iter().map(column).collect();
    let exact = measures.iter().all(|measure| measure.relative_error == 0.0);
    Ok(MetricsResponse {
        dimensions: question.dimensions.iter().map(|field| field.name.clone()).collect(),
        measures,
        rows: rows.into_iter().map(MetricsRow::from).collect(),
        total: total.map(MetricsRow::from),
        snapshot: query.versions(),
        reading: Some(Reading { exact, ..query.reading() }),
    })
}

/// Rows hold what they have of it, the total has all.
fn divide_shares(question: &Question, rows: &mut [Row], total: &mut Option<Row>) {
    let Some(total) = total else { return };
    for (at, measure) in question.measures.iter().enumerate() {
        if let Aggregate::Share(_) = measure.aggregate {
            let all = total.measures[at].clone();
            for row in rows.iter_mut().chain([&mut *total]) {
                row.measures[at] = row.measures[at].share_of(&all);
            }
        }
    }
}

#[derive(Debug, Clone)]
struct Row {
    bucket: Option<TimestampUs>,
    dimensions: Vec<Value>,
    measures: Vec<Value>,
    unpriced: Option<i64>,
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
            unpriced_rows: row.unpriced,
        }
    }
}

struct Asking<'a> {
    query: &'a Query,
    question: &'a Question,
    table: Source,
}

/// The rows of an answer and, where asked for, the total.
type Answered = (Vec<Row>, Option<Row>);

impl Asking<'_> {
    /// Without buckets: the ranking is the answer, and what it leaves out is summed up. The files are read once where
    /// the groups are few enough to be kept; else once for each of ranking, others and total.
    async fn groups(&self) -> Result<Answered, QueryError> {
        let question = self.question;
        if question.dimensions.is_empty() {
            let total = self.total(&self.table).await?;
            return Ok((vec![total.clone()], question.with_total.then_some(total)));
        }
        let kept = match question.adds_up() && (question.with_total || question.is_cut) {
            true => self.kept(plan::groups(question, &self.table), Spilling::Allowed).await?,
            false => None,
        };
        let from = self.source(kept.as_ref())?;
        let (shown, has_others) = self.ranking(&from).await?;
        let mut rows: Vec<Row> =
            (0..shown.num_rows()).map(|row| self.row(None, self.dimensions_of(&shown, row), &shown, row)).collect();
        if has_others {
            let group = self.shown_group(&shown)?;
            let plan = self.planned(plan::others(question, &from, group, shown.num_rows()))?;
            let others = self.one(&plan).await?;
            rows.push(Row { is_other: true, ..self.row(None, self.no_dimensions(), &others, 0) });
        }
        let total = match (question.with_total, question.is_disjoint()) {
            (false, _) => None,
            (true, true) => Some(self.total(&from).await?),
            (true, false) => Some(self.total(&self.table).await?),
        };
        Ok((rows, total))
    }

    /// With buckets: groups are ranked over the whole range, then all are cut into buckets, the others together. The files
    /// are read once where the groups are few by what they are of; else once for each, as of many groups few are shown.
    async fn buckets(&self) -> Result<Answered, QueryError> {
        let question = self.question;
        let Some(buckets) = &question.buckets else { return Ok((Vec::new(), None)) };
        let is_small = question.dimensions.iter().all(rollup::has_few_values);
        let kept = match !question.dimensions.is_empty() && is_small && question.adds_up() {
            true => self.kept(plan::groups(question, &self.table), Spilling::Refused).await?,
            false => None,
        };
        let from = self.source(kept.as_ref())?;
        let (groups, shown, has_others) = match question.dimensions.is_empty() {
            true => (vec![Vec::new()], None, false),
            false => {
                let (shown, has_others) = self.ranking(&from).await?;
                let groups = (0..shown.num_rows()).map(|row| self.dimensions_of(&shown, row)).collect();
                (groups, Some(self.shown_group(&shown)?), has_others)
            }
        };
        let series = groups.len() as u64 + u64::from(has_others);
        if !buckets.skip_gaps && series * buckets.starts.len() as u64 > question.rows_max {
            return Err(QueryError::rows(question.rows_max));
        }

        let has_ranks = shown.is_some();
        let plan = self.planned(plan::by_bucket(question, &from, shown))?;
        let parts = self.query.collect(&plan, question.rows_max).await?;
        let schema = parts.first().map_or_else(|| Arc::new(plan.schema().as_arrow().clone()), RecordBatch::schema);
        let cut = in_memory(schema, parts).map_err(|e| self.translate(e))?;
        let plan = self.planned(plan::bucketed(question, &cut, has_ranks))?;
        let mut found: BTreeMap<(usize, TimestampUs), Row> = BTreeMap::new();
        for batch in self.query.collect(&plan, question.rows_max).await? {
            for row in 0..batch.num_rows() {
                let rank = match has_ranks {
                    true => batch.column(1).as_primitive::<Int64Type>().value(row) as usize,
                    false => 0,
                };
                let start = batch.column(0).as_primitive::<TimestampMicrosecondType>().value(row);
                let dimensions = groups.get(rank).cloned().unwrap_or_else(|| self.no_dimensions());
                let is_other = rank >= groups.len();
                found.insert((rank, start), Row { is_other, ..self.row(Some(start), dimensions, &batch, row) });
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
                let gap = || Row {
                    bucket: Some(start),
                    dimensions: groups.get(rank).cloned().unwrap_or_else(|| self.no_dimensions()),
                    measures: self.nothing(),
                    unpriced: question.priced().map(|_| 0),
                    is_other: rank >= groups.len(),
                };
                rows.push(found.get(&(rank, start)).cloned().unwrap_or_else(gap));
            }
        }
        let total = match (question.with_total, question.adds_up() && question.is_disjoint()) {
            (false, _) => None,
            (true, true) => Some(self.total(&Source::Groups(cut)).await?),
            (true, false) => Some(self.total(&self.table).await?),
        };
        Ok((rows, total))
    }

    async fn total(&self, from: &Source) -> Result<Row, QueryError> {
        let plan = self.planned(plan::total(self.question, from))?;
        let total = self.one(&plan).await?;
        Ok(self.row(None, self.no_dimensions(), &total, 0))
    }

    /// What is kept, or else the tables.
    fn source(&self, kept: Option<&Kept>) -> Result<Source, QueryError> {
        match kept {
            Some(kept) => kept.table().map(Source::Groups).map_err(|e| self.translate(e)),
            None => Ok(self.table.clone()),
        }
    }

    /// The groups of a plan, unless they are too many.
    async fn kept(
        &self,
        plan: Result<LogicalPlan, DataFusionError>,
        spilling: Spilling,
    ) -> Result<Option<Kept>, QueryError> {
        self.query.collect_within(&self.planned(plan)?, KEPT_SHARE, spilling).await
    }

    /// The groups that are shown, best first, and whether there are others.
    async fn ranking(&self, from: &Source) -> Result<(RecordBatch, bool), QueryError> {
        let plan = self.planned(plan::ranked(self.question, from))?;
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

    fn no_dimensions(&self) -> Vec<Value> {
        vec![Value::Null; self.question.dimensions.len()]
    }

    /// Of row `at`: what its columns say by their names.
    fn row(&self, bucket: Option<TimestampUs>, dimensions: Vec<Value>, batch: &RecordBatch, at: usize) -> Row {
        let measure = |measure: usize| match batch.column_by_name(&measure_name(measure)) {
            Some(column) => value::measure(self.question, measure, column, at),
            None => Value::Null,
        };
        let unpriced = batch.column_by_name(UNPRICED).map(|column| column.as_primitive::<Int64Type>().value(at));
        let measures = (0..self.question.measures.len()).map(measure).collect();
        Row { bucket, dimensions, measures, unpriced, is_other: false }
    }

    fn nothing(&self) -> Vec<Value> {
        (0..self.question.measures.len()).map(|at| value::of_nothing(self.question, at)).collect()
    }

    /// A grouping without keys answers with exactly one row.
    async fn one(&self, plan: &LogicalPlan) -> Result<RecordBatch, QueryError> {
        let batches = self.query.collect(plan, 1).await?;
        let one = batches.into_iter().find(|batch| batch.num_rows() == 1);
        one.ok_or_else(|| QueryError::Internal("a total without a row".to_owned()))
    }

    fn planned(&self, plan: Result<LogicalPlan, DataFusionError>) -> Result<LogicalPlan, QueryError> {
        plan.map_err(|e| self.translate(e))
    }

    fn translate(&self, error: DataFusionError) -> QueryError {
        self.query.translate(error)
    }
}

/// Of a query's memory, what kept groups may take: ranking them takes some more.
const KEPT_SHARE: f64 = 0.125;
