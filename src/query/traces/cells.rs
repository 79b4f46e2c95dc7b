//! Columns of an answer by name, read a value at a time, in the words of the wire.

use std::collections::BTreeMap;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Decimal128Type, Float64Type, Int64Type, TimestampMicrosecondType};

use crate::base::RowMap;
use crate::query::metrics::amount;

/// Of one batch, for all of its rows. A column that is not there reads as null.
pub(in crate::query) struct Cells<'a>(RowMap<&'a str, &'a ArrayRef>);

impl<'a> Cells<'a> {
    pub(in crate::query) fn of(batch: &'a RecordBatch) -> Self {
        let fields = batch.schema_ref().fields().iter();
        Self(fields.zip(batch.columns()).map(|(field, column)| (field.name().as_str(), column)).collect())
    }

    fn at(&self, column: &str, row: usize) -> Option<&'a ArrayRef> {
        self.0.get(column).copied().filter(|array| array.is_valid(row))
    }

    pub(in crate::query) fn text(&self, column: &str, row: usize) -> Option<String> {
        text_of(self.at(column, row)?, row)
    }

    pub(in crate::query) fn key(&self, column: &str, row: usize) -> String {
        self.text(column, row).unwrap_or_default()
    }

    pub(in crate::query) fn long(&self, column: &str, row: usize) -> Option<i64> {
        let array = self.at(column, row)?;
        match array.data_type() {
            DataType::Int64 => Some(array.as_primitive::<Int64Type>().value(row)),
            DataType::Decimal128(..) => i64::try_from(array.as_primitive::<Decimal128Type>().value(row)).ok(),
            _ => None,
        }
    }

    pub(in crate::query) fn double(&self, column: &str, row: usize) -> Option<f64> {
        Some(self.at(column, row)?.as_primitive_opt::<Float64Type>()?.value(row))
    }

    pub(in crate::query) fn boolean(&self, column: &str, row: usize) -> Option<bool> {
        Some(self.at(column, row)?.as_boolean_opt()?.value(row))
    }

    pub(in crate::query) fn time_us(&self, column: &str, row: usize) -> Option<i64> {
        Some(self.at(column, row)?.as_primitive_opt::<TimestampMicrosecondType>()?.value(row))
    }

    /// USD as exact decimal text.
    pub(in crate::query) fn money(&self, column: &str, row: usize) -> Option<String> {
        Some(amount(self.at(column, row)?.as_primitive_opt::<Decimal128Type>()?.value(row)))
    }

    pub(in crate::query) fn texts(&self, column: &str, row: usize) -> Vec<String> {
        let Some(lists) = self.at(column, row).and_then(|array| array.as_list_opt::<i32>()) else { return Vec::new() };
        let offsets = lists.value_offsets();
        (offsets[row] as usize..offsets[row + 1] as usize).filter_map(|at| text_of(lists.values(), at)).collect()
    }

    pub(in crate::query) fn map<T>(
        &self,
        column: &str,
        row: usize,
        value: fn(&ArrayRef, usize) -> Option<T>,
    ) -> BTreeMap<String, T> {
        let Some(maps) = self.at(column, row).and_then(|array| array.as_map_opt()) else { return BTreeMap::new() };
        let offsets = maps.value_offsets();
        let entry = |at: usize| Some((text_of(maps.keys(), at)?, value(maps.values(), at)?));
        (offsets[row] as usize..offsets[row + 1] as usize).filter_map(entry).collect()
    }
}

pub(in crate::query) fn text_of(array: &ArrayRef, row: usize) -> Option<String> {
    if array.is_null(row) {
        return None;
    }
    let text = match array.data_type() {
        DataType::Utf8View => array.as_string_view().value(row).to_owned(),
        DataType::Utf8 => array.as_string::<i32>().value(row).to_owned(),
        _ => cast(&array.slice(row, 1), &DataType::Utf8).ok()?.as_string_opt::<i32>()?.value(0).to_owned(),
    };
    Some(text)
}

pub(super) fn long_of(array: &ArrayRef, row: usize) -> Option<i64> {
    let longs = array.as_primitive_opt::<Int64Type>()?;
    longs.is_valid(row).then(|| longs.value(row))
}

pub(super) fn money_of(array: &ArrayRef, row: usize) -> Option<String> {
    let amounts = array.as_primitive_opt::<Decimal128Type>()?;
    amounts.is_valid(row).then(|| amount(amounts.value(row)))
}
