//! Rows of a view rather than what they add up to: the same fields, the same filters.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Field as ArrowField, Schema};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::LogicalPlanBuilder;

use super::field::{self, Field, Scope};
use super::request::Question;
use super::rows::{self, Tables};
use super::value;
use crate::base::TimestampUs;
use crate::query::error::QueryError;
use crate::query::running::Query;
use crate::wire::{Aggregation, Filter, Measure, MetricValue, MetricsRequest, TimeRange, View};

pub(in crate::query) struct Listing {
    question: Question,
    fields: Vec<Field>,
}

impl Listing {
    /// Traces that begin in the range, with a column for each of `names`.
    pub(in crate::query) fn of_traces(
        (from_us, to_us): (TimestampUs, TimestampUs),
        filters: &[Filter],
        names: &[&str],
    ) -> Result<Self, QueryError> {
        let request = MetricsRequest {
            view: View::Traces.into(),
            range: Some(TimeRange { from_unix_micros: from_us, to_unix_micros: to_us }),
            filters: filters.to_vec(),
            measures: vec![Measure { aggregation: Aggregation::Count.into(), ..Default::default() }],
            ..Default::default()
        };
        let mut question = Question::parse(&request, 1)?;
        let scope = Scope { view: View::Traces, steps: 0 };
        let fields = names.iter().map(|name| field::resolve(scope, name)).collect::<Result<Vec<_>, _>>()?;
        fields.iter().for_each(|field| question.needs.and(&field.needs));
        Ok(Self { question, fields })
    }

    /// The plan's column of the field at this place.
    pub(in crate::query) fn column(at: usize) -> String {
        format!("f{at}")
    }

    pub(in crate::query) async fn rows(
        &self,
        query: &Query,
    ) -> Result<Result<LogicalPlanBuilder, DataFusionError>, QueryError> {
        let tables = Tables::of(&self.question, query).await?;
        let columns = self.fields.iter().enumerate().map(|(at, field)| field.expr.clone().alias(Self::column(at)));
        Ok(rows::of(&self.question, &tables).and_then(|rows| rows.project(columns)))
    }

    /// The same rows with the fields' own names.
    pub(in crate::query) fn named(&self, batch: &RecordBatch) -> RecordBatch {
        let column =
            |field: &Field, at: usize| ArrowField::new(&field.name, batch.column(at).data_type().clone(), true);
        let columns: Vec<ArrowField> = self.fields.iter().enumerate().map(|(at, field)| column(field, at)).collect();
        let named = RecordBatch::try_new(Arc::new(Schema::new(columns)), batch.columns().to_vec());
        named.unwrap_or_else(|_| batch.clone())
    }

    pub(in crate::query) fn value(&self, batch: &RecordBatch, at: usize, row: usize) -> MetricValue {
        value::dimension(batch.column(at), row).into()
    }
}
