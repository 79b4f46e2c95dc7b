//! The values of an answer: read from columns, compared, printed. Money stays a decimal all the way (I6).

use std::cmp::Ordering;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Decimal128Type, Float64Type, Int64Type, TimestampMicrosecondType};
use rust_decimal::Decimal;

use super::fields::FieldKind;
use super::request::{Aggregate, Question};
use crate::query::functions::{self, Bin};
use crate::wire::{Histogram, HistogramBin, MetricValue, Texts, metric_value};

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Null,
    Text(String),
    Whole(i128),
    Number(f64),
    /// In units of 10⁻¹² USD.
    Money(i128),
    Boolean(bool),
    /// Microseconds.
    Time(i64),
    Texts(Vec<String>),
    Bins(Vec<Bin>),
    Sketch(Vec<u8>),
}

impl Value {
    /// Nulls come last, whichever way the rest is ordered.
    pub(super) fn order(&self, other: &Value, ascending: bool) -> Ordering {
        let ordering = match (self, other) {
            (Value::Null, Value::Null) => return Ordering::Equal,
            (Value::Null, _) => return Ordering::Greater,
            (_, Value::Null) => return Ordering::Less,
            (Value::Text(a), Value::Text(b)) => a.cmp(b),
            (Value::Time(a), Value::Time(b)) => a.cmp(b),
            (Value::Whole(a), Value::Whole(b)) | (Value::Money(a), Value::Money(b)) => a.cmp(b),
            (Value::Number(a), Value::Number(b)) => a.total_cmp(b),
            (Value::Boolean(a), Value::Boolean(b)) => a.cmp(b),
            _ => Ordering::Equal,
        };
        if ascending { ordering } else { ordering.reverse() }
    }

    /// What part of `total` it is.
    pub(super) fn share_of(&self, total: &Value) -> Value {
        let (own, all) = match (self, total) {
            (Value::Whole(own), Value::Whole(all)) | (Value::Money(own), Value::Money(all)) => {
                (*own as f64, *all as f64)
            }
            (Value::Number(own), Value::Number(all)) => (*own, *all),
            _ => return Value::Null,
        };
        if all == 0.0 { Value::Null } else { Value::Number(own / all) }
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
        DataType::Timestamp(..) => Value::Time(column.as_primitive::<TimestampMicrosecondType>().value(row)),
        DataType::List(_) => {
            let texts = cast(&column.as_list::<i32>().value(row), &DataType::Utf8);
            let texts = texts.ok().map(|texts| texts.as_string::<i32>().iter().flatten().map(str::to_owned).collect());
            Value::Texts(texts.unwrap_or_default())
        }
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
    let aggregate = question.measures[at].aggregate;
    let is_money = aggregate.input().is_some_and(|input| question.inputs[input].field.kind == FieldKind::Money);
    match column.data_type() {
        DataType::Timestamp(..) => Value::Time(column.as_primitive::<TimestampMicrosecondType>().value(row)),
        DataType::Binary => {
            let sketch = column.as_binary::<i32>().value(row);
            match aggregate {
                Aggregate::Histogram(_, bins) => functions::bins(sketch, bins).map_or(Value::Null, Value::Bins),
                _ => Value::Sketch(sketch.to_vec()),
            }
        }
        DataType::List(_) => {
            let texts = column.as_list::<i32>().value(row);
            Value::Texts(texts.as_string::<i32>().iter().flatten().map(str::to_owned).collect())
        }
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
        Aggregate::Samples(_) => Value::Texts(Vec::new()),
        Aggregate::Histogram(..) => Value::Bins(Vec::new()),
        Aggregate::Share(None) => Value::Whole(0),
        Aggregate::Sum(input) | Aggregate::Share(Some(input)) => match question.inputs[input].field.kind {
            FieldKind::Money => Value::Money(0),
            FieldKind::Number => Value::Number(0.0),
            _ => Value::Whole(0),
        },
        _ => Value::Null,
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
            Value::Time(us) => Some(Wire::UnixMicros(us)),
            Value::Texts(values) => Some(Wire::Texts(Texts { values })),
            Value::Bins(bins) => {
                let bins = bins.into_iter().map(|Bin { lower, upper, count }| HistogramBin { lower, upper, count });
                Some(Wire::Histogram(Histogram { bins: bins.collect() }))
            }
            Value::Sketch(bytes) => Some(Wire::Sketch(bytes)),
        };
        Self { value }
    }
}

/// Of units of 10⁻¹² USD: exact, without trailing zeros.
pub(in crate::query) fn amount(pico: i128) -> String {
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
