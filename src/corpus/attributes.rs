//! OpenTelemetry's attributes, written briefly.

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::span::Event;

use super::cast::Failure;
use crate::base::TimestampUs;

#[derive(Debug, Default)]
pub(super) struct Attributes(Vec<KeyValue>);

impl Attributes {
    pub(super) fn with_capacity(capacity: usize) -> Self {
        Self(Vec::with_capacity(capacity))
    }

    pub(super) fn into_vec(self) -> Vec<KeyValue> {
        self.0
    }

    pub(super) fn text(&mut self, key: impl Into<String>, value: impl Into<String>) {
        self.push(key, Value::StringValue(value.into()));
    }

    pub(super) fn text_if(&mut self, key: &str, value: Option<impl Into<String>>) {
        if let Some(value) = value {
            self.text(key, value);
        }
    }

    pub(super) fn texts(&mut self, key: &str, values: &[&str]) {
        let value = |text: &&str| AnyValue { value: Some(Value::StringValue((*text).to_owned())) };
        self.push(key, Value::ArrayValue(ArrayValue { values: values.iter().map(value).collect() }));
    }

    pub(super) fn int(&mut self, key: &str, value: i64) {
        self.push(key, Value::IntValue(value));
    }

    /// Counts that are nought are left out, as clients do.
    pub(super) fn count(&mut self, key: &str, value: i64) {
        if value > 0 {
            self.int(key, value);
        }
    }

    pub(super) fn double(&mut self, key: &str, value: f64) {
        self.push(key, Value::DoubleValue(value));
    }

    pub(super) fn flag(&mut self, key: &str, value: bool) {
        self.push(key, Value::BoolValue(value));
    }

    fn push(&mut self, key: impl Into<String>, value: Value) {
        self.0.push(KeyValue { key: key.into(), value: Some(AnyValue { value: Some(value) }), ..Default::default() });
    }
}

/// The event that a span records of an error it ends with.
pub(super) fn exception(failure: &Failure, at_us: TimestampUs) -> Event {
    let mut attributes = Attributes::default();
    attributes.text("exception.type", failure.kind);
    attributes.text("exception.message", failure.message);
    attributes.text(
        "exception.stacktrace",
        format!(
            "Traceback (most recent call last):\n  File \"app/run.py\", line 87, in call\n{}: {}",
            failure.kind, failure.message
        ),
    );
    Event {
        time_unix_nano: at_us as u64 * 1_000,
        name: "exception".into(),
        attributes: attributes.into_vec(),
        dropped_attributes_count: 0,
    }
}
