//! What was generated, exactly: the numbers every answer about the traces must reach.

use std::collections::BTreeMap;

use super::Trace;
use crate::base::{Money, TimestampUs};

/// One call of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    pub model: &'static str,
    pub failed: bool,
    /// Cached ones included.
    pub input_tokens: i64,
    pub cached_input_tokens: i64,
    /// Reasoning included.
    pub output_tokens: i64,
    pub reasoning_tokens: i64,
    /// What the client says it cost.
    pub provided_cost: Option<Money>,
}

/// Totals over traces.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    pub traces: u64,
    pub observations: u64,
    /// Observations that failed.
    pub errors: u64,
    pub by_model: BTreeMap<&'static str, ModelFacts>,
    /// Traces by name.
    pub by_trace_name: BTreeMap<&'static str, u64>,
    pub first_start_us: Option<TimestampUs>,
    pub last_end_us: Option<TimestampUs>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ModelFacts {
    pub calls: u64,
    pub errors: u64,
    pub input_tokens: i64,
    pub cached_input_tokens: i64,
    pub output_tokens: i64,
    pub reasoning_tokens: i64,
    pub calls_with_cost: u64,
    pub provided_cost: Money,
}

impl Facts {
    pub fn of<'a>(traces: impl IntoIterator<Item = &'a Trace>) -> Self {
        let mut facts = Self::default();
        traces.into_iter().for_each(|trace| facts.add(trace));
        facts
    }

    pub fn add(&mut self, trace: &Trace) {
        self.traces += 1;
        self.observations += trace.spans.len() as u64;
        self.errors += trace.errors;
        *self.by_trace_name.entry(trace.name).or_default() += 1;
        for call in &trace.calls {
            self.by_model.entry(call.model).or_default().add(call);
        }
        for span in &trace.spans {
            let (start_us, end_us) = (span.start_time_unix_nano as i64 / 1_000, span.end_time_unix_nano as i64 / 1_000);
            self.first_start_us = Some(self.first_start_us.map_or(start_us, |first| first.min(start_us)));
            self.last_end_us = Some(self.last_end_us.map_or(end_us, |last| last.max(end_us)));
        }
    }

    /// All models together.
    pub fn model_total(&self) -> ModelFacts {
        let mut total = ModelFacts::default();
        for model in self.by_model.values() {
            total.calls += model.calls;
            total.errors += model.errors;
            total.input_tokens += model.input_tokens;
            total.cached_input_tokens += model.cached_input_tokens;
            total.output_tokens += model.output_tokens;
            total.reasoning_tokens += model.reasoning_tokens;
            total.calls_with_cost += model.calls_with_cost;
            total.provided_cost = total.provided_cost + model.provided_cost;
        }
        total
    }
}

impl ModelFacts {
    pub fn total_tokens(&self) -> i64 {
        self.input_tokens + self.output_tokens
    }

    fn add(&mut self, call: &Call) {
        self.calls += 1;
        self.errors += u64::from(call.failed);
        self.input_tokens += call.input_tokens;
        self.cached_input_tokens += call.cached_input_tokens;
        self.output_tokens += call.output_tokens;
        self.reasoning_tokens += call.reasoning_tokens;
        self.calls_with_cost += u64::from(call.provided_cost.is_some());
        self.provided_cost = self.provided_cost + call.provided_cost.unwrap_or_default();
    }
}
