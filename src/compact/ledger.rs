//! Rows that add up: those that differ in their count only become one. What was counted stays the same.

use std::collections::BTreeMap;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::Int64Type;
use arrow::error::ArrowError;
use arrow::row::{OwnedRow, RowConverter, SortField};

use super::fold::Fold;
use super::merge::Source;
use super::{CompactError, Result};
use crate::model::tables::Table;

/// The column that is summed; all others say what was counted.
const COUNT: &str = "count";
/// Sums held at once. When there are more they are written, and the rest is summed anew.
const SUMS_MAX: usize = 100_000;

pub(super) struct Sums<'a> {
    table: Table,
    fold: &'a dyn Fold,
    converter: RowConverter,
    sources: Vec<Source>,
}

impl<'a> Sums<'a> {
    pub(super) fn begin(table: Table, mut sources: Vec<Source>, fold: &'a dyn Fold) -> Result<Self> {
        sources.reverse();
        let schema = table.file_schema();
        let others = schema.fields().iter().filter(|field| field.name() != COUNT);
        let fields = others.map(|field| SortField::new(field.data_type().clone())).collect();
        let converter =
            RowConverter::new(fields).map_err(|source| CompactError::Arrow { table: table.name(), source })?;
        Ok(Self { table, fold, converter, sources })
    }

    /// The next rows, summed, or `None` after the last.
    pub(super) async fn next(&mut self) -> Result<Option<RecordBatch>> {
        let mut sums: BTreeMap<OwnedRow, i64> = BTreeMap::new();
        while sums.len() < SUMS_MAX
            && let Some(source) = self.sources.last_mut()
        {
            match source.next(self.fold, self.table).await? {
                None => _ = self.sources.pop(),
                Some((rows, _)) => self.add(&mut sums, &rows).map_err(|source| self.failed(source))?,
            }
        }
        match sums.is_empty() {
            true => Ok(None),
            false => self.rows(&sums).map(Some).map_err(|source| self.failed(source)),
        }
    }

    fn failed(&self, source: ArrowError) -> CompactError {
        CompactError::Arrow { table: self.table.name(), source }
    }

    fn add(&self, sums: &mut BTreeMap<OwnedRow, i64>, rows: &RecordBatch) -> Result<(), ArrowError> {
        let schema = rows.schema();
        let place = schema.index_of(COUNT)?;
        let others: Vec<ArrayRef> = rows
            .columns()
            .iter()
            .enumerate()
            .filter(|(at, _)| *at != place)
            .map(|(_, column)| column.clone())
            .collect();
        let keys = self.converter.convert_columns(&others)?;
        let counts = rows.column(place).as_primitive::<Int64Type>();
        for (row, key) in keys.iter().enumerate() {
            let count = if counts.is_null(row) { 0 } else { counts.value(row) };
            let sum = sums.entry(key.owned()).or_default();
            let too_large = || ArrowError::ArithmeticOverflow(format!("{COUNT} {sum} and {count}"));
            *sum = sum.checked_add(count).ok_or_else(too_large)?;
        }
        Ok(())
    }

    fn rows(&self, sums: &BTreeMap<OwnedRow, i64>) -> Result<RecordBatch, ArrowError> {
        let schema = self.table.file_schema();
        let mut columns = self.converter.convert_rows(sums.keys().map(OwnedRow::row))?;
        let counts = Int64Array::from_iter_values(sums.values().copied());
        columns.insert(schema.index_of(COUNT)?, std::sync::Arc::new(counts));
        RecordBatch::try_new(schema, columns)
    }
}
