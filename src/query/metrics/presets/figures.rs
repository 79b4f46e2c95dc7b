//! Values of an answer by their names.

use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;

use crate::wire::metric_value::Value;
use crate::wire::{MetricValue, MetricsResponse, MetricsRow};

/// An answer, read.
#[derive(Clone, Copy)]
pub(super) struct Figures<'a>(pub(super) &'a MetricsResponse);

impl<'a> Figures<'a> {
    pub(super) fn value(self, row: &'a MetricsRow, name: &str) -> Option<&'a Value> {
        let at = self.0.measures.iter().position(|measure| measure.name == name)?;
        row.measures.get(at)?.value.as_ref()
    }

    pub(super) fn whole(self, row: &MetricsRow, name: &str) -> i64 {
        match self.value(row, name) {
            Some(Value::Integer(whole)) => *whole,
            _ => 0,
        }
    }

    pub(super) fn number(self, row: &MetricsRow, name: &str) -> Option<f64> {
        number(self.value(row, name)?)
    }

    /// USD as exact text; `None` where no price is known.
    pub(super) fn money(self, row: &MetricsRow, name: &str) -> Option<String> {
        match self.value(row, name)? {
            Value::Decimal(amount) => Some(amount.clone()),
            _ => None,
        }
    }

    /// The only row of an answer without dimensions and buckets.
    pub(super) fn one(self) -> &'a MetricsRow {
        static NOTHING: MetricsRow = MetricsRow {
            bucket_start_unix_micros: None,
            dimensions: Vec::new(),
            measures: Vec::new(),
            is_other: false,
            unpriced_rows: None,
        };
        self.0.rows.first().unwrap_or(&NOTHING)
    }

    pub(super) fn metric(self, row: &MetricsRow, name: &str) -> MetricValue {
        MetricValue { value: self.value(row, name).cloned() }
    }
}

/// For statistics: amounts as well.
pub(super) fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Integer(whole) => Some(*whole as f64),
        Value::Number(number) => Some(*number),
        Value::Decimal(amount) => amount.parse::<Decimal>().ok()?.to_f64(),
        _ => None,
    }
}

pub(super) fn text(value: Option<&MetricValue>) -> Option<String> {
    match value?.value.as_ref()? {
        Value::Text(text) => Some(text.clone()),
        Value::Integer(whole) => Some(whole.to_string()),
        Value::Number(number) => Some(number.to_string()),
        Value::Boolean(boolean) => Some(boolean.to_string()),
        _ => None,
    }
}
