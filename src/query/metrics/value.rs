//! The values of an answer: read from columns, compared, printed. Money stays a decimal all the way (I6).

use std::cmp::Ordering;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Decimal128Type, Float64Type, Int64Type};
use rust_decimal::Decimal;

use super::fields::FieldKind;
use super::request::{Aggregate, Question};
use crate::wire::{MetricValue, metric_value};

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Null,
    Text(String),
    Whole(i128),
    Number(f64),
    /// In units of 10⁻¹² USD.
    Money(i128),
    Boolean(bool),
}

impl Value {
    /// Nulls come last, whichever way the rest is ordered.
    pub(super) fn order(&self, other: &Value, ascending: bool) -> Ordering {
        let ordering = match (self, other) {
            (Value::Null, Value::Null) => return Ordering::Equal,
            (Value::Null, _) => return Ordering::Greater,
            (_, Value::Null) => return Ordering::Less,
            (Value::Text(a), Value::Text(b)) => a.cmp(b),
            (Value::Whole(a), Value::Whole(b)) | (Value::Money(a), Value::Money(b)) => a.cmp(b),
            (Value::Number(a), Value::Number(b)) => a.total_cmp(b),
            (Value::Boolean(a), Value::Boolean(b)) => a.cmp(b),
            _ => Ordering::Equal,
        };
        if ascending { ordering } else { ordering.reverse() }
    }
}

/// The value of a dimension in row `row`.
pub(super) fn dimension(column: &ArrayRef, row: usize) -> Value {
    if column.is_null(row) {
        return Value::Null;
    }
    match column.data_type() {
        DataType::Boolean => Value::Boolean(column.as_boolean().value(row)),
        DataType::Int64 => Value::Whole(i128::from(column.as_primitive::<Int64Type>().value(row))),
        DataType::Float64 => Value::Number(column.as_primitive::<Float64Type>().value(row)),
        DataType::Decimal128(..) => Value::Money(column.as_primitive::<Decimal128Type>().value(row)),
        _ => match cast(&column.slice(row, 1), &DataType::Utf8) {
            Ok(text) => Value::Text(text.as_string::<i32>().value(0).to_owned()),
            Err(_) => Value::Null,
        },
    }
}

/// The value of a measure in row `row`.
pub(super) fn measure(question: &Question, at: usize, column: &ArrayRef, row: usize) -> Value {
    if column.is_null(row) {
        return Value::Null;
    }
    let is_money =
        input_of(question.measures[at].aggregate).is_some_and(|input| question.inputs[input].kind == FieldKind::Money);
    match column.data_type() {
        DataType::Int64 => Value::Whole(i128::from(column.as_primitive::<Int64Type>().value(row))),
        DataType::Decimal128(_, 0) => Value::Whole(column.as_primitive::<Decimal128Type>().value(row)),
        DataType::Decimal128(..) => Value::Money(column.as_primitive::<Decimal128Type>().value(row)),
        DataType::Float64 => {
            let number = column.as_primitive::<Float64Type>().value(row);
            // A percentile of amounts is an estimate or lies between two of them: rounded to what money can show.
            if is_money { Value::Money((number * 1e12).round_ties_even() as i128) } else { Value::Number(number) }
        }
        _ => Value::Null,
    }
}

/// What a measure says about no rows at all.
pub(super) fn of_nothing(question: &Question, at: usize) -> Value {
    match question.measures[at].aggregate {
        Aggregate::CountRows | Aggregate::Count(_) | Aggregate::CountDistinct(_) => Value::Whole(0),
        Aggregate::Sum(input) => match question.inputs[input].kind {
            FieldKind::Money => Value::Money(0),
            FieldKind::Number => Value::Number(0.0),
            _ => Value::Whole(0),
        },
        _ => Value::Null,
    }
}

fn input_of(aggregate: Aggregate) -> Option<usize> {
    match aggregate {
        Aggregate::Sum(input)
        | Aggregate::Avg(input)
        | Aggregate::Min(input)
        | Aggregate::Max(input)
        | Aggregate::Percentile(input, _) => Some(input),
        Aggregate::CountRows | Aggregate::Count(_) | Aggregate::CountDistinct(_) | Aggregate::ErrorRate => None,
    }
}

impl From<Value> for MetricValue {
    fn from(value: Value) -> Self {
        use metric_value::Value as Wire;
        let value = match value {
            Value::Null => None,
            Value::Text(text) => Some(Wire::Text(text)),
            // A sum beyond 64 bits is still exact, as text.
            Value::Whole(whole) => {
                Some(i64::try_from(whole).map_or_else(|_| Wire::Decimal(whole.to_string()), Wire::Integer))
            }
            Value::Number(number) => Some(Wire::Number(number)),
            Value::Money(pico) => Some(Wire::Decimal(amount(pico))),
            Value::Boolean(boolean) => Some(Wire::Boolean(boolean)),
        };
        Self { value }
    }
}

/// Exact, without trailing zeros.
fn amount(pico: i128) -> String {
    match Decimal::try_from_i128_with_scale(pico, 12) {
        Ok(amount) => amount.normalize().to_string(),
        // Beyond 96 bits: whole dollars and the rest, written one after the other.
        Err(_) => {
            let (whole, rest) = (pico.unsigned_abs() / 1_000_000_000_000, pico.unsigned_abs() % 1_000_000_000_000);
            let sign = if pico < 0 { "-" } else { "" };
            format!("{sign}{whole}.{rest:012}")
        }
    }
}
