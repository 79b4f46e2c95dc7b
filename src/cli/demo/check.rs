//! Whether the server counted what was sent, once: observations, traces, errors, and tokens by model.

use std::collections::BTreeMap;

use super::Visit;
use crate::cli::{CliError, Connection};
use crate::corpus::Facts;
use crate::wire::metric_value::Value;
use crate::wire::{
    Aggregation, Filter, FilterOperator, Measure, MetricValue, MetricsRequest, MetricsResponse, TimeRange, View,
};

/// What there is in a range of time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Counts {
    observations: i64,
    errors: i64,
    traces: i64,
    /// Calls, and input, cached input, output and reasoning tokens, as `SUMS` has them.
    by_model: BTreeMap<String, [i64; 5]>,
}

const SUMS: [&str; 4] = ["input_tokens", "cached_input_tokens", "output_tokens", "reasoning_tokens"];

/// Errors unless the counts grew by exactly what was sent.
pub(super) async fn check(visit: &Visit<'_>) -> Result<(), CliError> {
    let after = count(&visit.connection, visit.load.range()).await?;
    let mut expected = visit.before.clone();
    expected.add(&visit.load.facts());
    let differences = expected.differences(&after);
    if differences.is_empty() {
        Ok(())
    } else {
        Err(CliError::Mismatch(format!("tenant {}: {}", visit.tenant.name, differences.join("; "))))
    }
}

pub(super) async fn count(connection: &Connection, range: TimeRange) -> Result<Counts, CliError> {
    let counting = Measure { aggregation: Aggregation::Count as i32, name: "n".into(), ..Default::default() };
    let sums = SUMS.iter().map(|field| Measure {
        field: (*field).to_owned(),
        aggregation: Aggregation::Sum as i32,
        name: (*field).to_owned(),
        ..Default::default()
    });
    let everything = MetricsRequest { measures: vec![counting], range: Some(range), ..Default::default() };
    let by_model = MetricsRequest {
        dimensions: vec!["model".into()],
        measures: everything.measures.iter().cloned().chain(sums).collect(),
        ..everything.clone()
    };
    let failed = Filter {
        field: "level".into(),
        operator: FilterOperator::Equals as i32,
        values: vec!["ERROR".into()],
        ..Default::default()
    };
    let errors = MetricsRequest { filters: vec![failed], ..everything.clone() };
    let traces = MetricsRequest { view: View::Traces as i32, ..everything.clone() };

    let mut counts = Counts {
        observations: single(&connection.metrics(everything).await?)?,
        errors: single(&connection.metrics(errors).await?)?,
        traces: single(&connection.metrics(traces).await?)?,
        by_model: BTreeMap::new(),
    };
    for row in connection.metrics(by_model).await?.rows {
        let model = match row.dimensions.first().and_then(|model| model.value.clone()) {
            Some(Value::Text(model)) if !model.is_empty() => model,
            // Spans that call no model.
            _ => continue,
        };
        let mut numbers = [0; 5];
        for (number, value) in numbers.iter_mut().zip(&row.measures) {
            *number = integer(value)?;
        }
        counts.by_model.insert(model, numbers);
    }
    Ok(counts)
}

/// The only number of an answer; no row at all is nought.
fn single(response: &MetricsResponse) -> Result<i64, CliError> {
    response.rows.first().and_then(|row| row.measures.first()).map_or(Ok(0), integer)
}

/// Null, the sum over nothing, is nought.
fn integer(value: &MetricValue) -> Result<i64, CliError> {
    match &value.value {
        None => Ok(0),
        Some(Value::Integer(integer)) => Ok(*integer),
        Some(Value::Number(number)) if number.fract() == 0.0 => Ok(*number as i64),
        other => Err(CliError::Mismatch(format!("a whole number was expected, not {other:?}"))),
    }
}

impl Counts {
    fn add(&mut self, facts: &Facts) {
        self.observations += facts.observations as i64;
        self.errors += facts.errors as i64;
        self.traces += facts.traces as i64;
        for (model, sent) in &facts.by_model {
            let numbers = self.by_model.entry((*model).to_owned()).or_default();
            let sent = [
                sent.calls as i64,
                sent.input_tokens,
                sent.cached_input_tokens,
                sent.output_tokens,
                sent.reasoning_tokens,
            ];
            numbers.iter_mut().zip(sent).for_each(|(number, sent)| *number += sent);
        }
    }

    /// One sentence for each number that is not as expected.
    fn differences(&self, actual: &Counts) -> Vec<String> {
        let mut differences = Vec::new();
        let mut compare = |what: String, expected: i64, actual: i64| {
            if expected != actual {
                differences.push(format!("{what}: {expected} expected, {actual} counted"));
            }
        };
        compare("observations".into(), self.observations, actual.observations);
        compare("errors".into(), self.errors, actual.errors);
        compare("traces".into(), self.traces, actual.traces);
        let models: std::collections::BTreeSet<&String> = self.by_model.keys().chain(actual.by_model.keys()).collect();
        for model in models {
            let expected = self.by_model.get(model).copied().unwrap_or_default();
            let counted = actual.by_model.get(model).copied().unwrap_or_default();
            for (what, (expected, counted)) in ["calls"].iter().chain(&SUMS).zip(expected.into_iter().zip(counted)) {
                compare(format!("{what} of {model}"), expected, counted);
            }
        }
        differences
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corpus::{Corpus, CorpusConfig};

    #[test]
    fn a_single_wrong_number_is_named() {
        let mut expected = Counts::default();
        expected.add(&Corpus::facts(CorpusConfig { observations: 500, ..CorpusConfig::default() }));
        let mut actual = expected.clone();
        assert!(expected.differences(&actual).is_empty());
        actual.by_model.get_mut("gpt-4o").unwrap()[3] += 1;
        actual.traces -= 2;
        let differences = expected.differences(&actual);
        assert_eq!(differences.len(), 2);
        assert!(differences[0].starts_with("traces: ") && differences[1].starts_with("output_tokens of gpt-4o: "));
    }
}
