//! `tracelake tail`: traces as they come in, one a line, going on where a stream ended.

use std::io::Write;

use chrono::{DateTime, Utc};

use super::{CliError, Connection, numbers};
use crate::wire::{Filter, FilterOperator, TailRequest, TailResponse, TraceSummary};

#[derive(clap::Args)]
pub struct TailArgs {
    /// Only traces for which all hold: field=value, on any field of traces (user_id=ada, tags=panic, metadata:team=x)
    #[arg(long = "where", value_name = "FIELD=VALUE")]
    conditions: Vec<String>,
    /// Only traces with an error
    #[arg(long)]
    errors: bool,
    /// A trace once nothing more of it comes in, rather than as soon as it is seen
    #[arg(long)]
    finished: bool,
}

/// Prints until the server refuses or the output is closed.
pub async fn tail(connection: &Connection, arguments: TailArgs, out: &mut (dyn Write + Send)) -> Result<(), CliError> {
    let mut request =
        TailRequest { filters: filters(&arguments)?, finished_only: arguments.finished, ..Default::default() };
    loop {
        let mut messages = connection.tail(request.clone()).await?;
        while let Some(TailResponse { traces, cursor, dropped, .. }) = messages.message().await? {
            for trace in traces.iter().rev() {
                writeln!(out, "{}", line(trace))?;
            }
            if dropped > 0 {
                writeln!(out, "… and {dropped} more")?;
            }
            out.flush()?;
            request.cursor = cursor;
        }
    }
}

fn filters(arguments: &TailArgs) -> Result<Vec<Filter>, CliError> {
    let of = |field: &str, operator: FilterOperator, value: &str| Filter {
        field: field.to_owned(),
        operator: operator.into(),
        values: vec![value.to_owned()],
        ..Default::default()
    };
    let condition = |text: &String| match text.split_once('=') {
        Some((field @ "tags", value)) => Ok(of(field, FilterOperator::HasAny, value)),
        Some((field, value)) if !field.is_empty() => Ok(of(field, FilterOperator::Equals, value)),
        _ => Err(CliError::Invalid(format!("{text:?} is not a condition such as user_id=ada"))),
    };
    let errors = arguments.errors.then(|| Ok(of("errors", FilterOperator::Greater, "0")));
    arguments.conditions.iter().map(condition).chain(errors).collect()
}

fn line(trace: &TraceSummary) -> String {
    let at = DateTime::<Utc>::from_timestamp_micros(trace.start_unix_micros).unwrap_or_default();
    let mut line = format!("{}  {}", at.format("%H:%M:%S%.3f"), trace.name.as_deref().unwrap_or("—"));
    if let Some(ms) = trace.latency_ms {
        line.push_str(&format!("  {}", numbers::duration(ms)));
    }
    if let Some(tokens) = trace.total_tokens {
        line.push_str(&format!("  {} tokens", numbers::count(tokens)));
    }
    if let Some(cost) = trace.total_cost.as_ref().and_then(|cost| cost.parse().ok()) {
        line.push_str(&format!("  {}", numbers::money(cost)));
    }
    if trace.errors > 0 {
        line.push_str(&format!("  {} errors", trace.errors));
    }
    if let Some(user) = &trace.user_id {
        line.push_str(&format!("  {user}"));
    }
    line.push_str(&format!("  {}", trace.id));
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_a_line() {
        let trace = TraceSummary {
            id: "t1".into(),
            name: Some("ask".into()),
            start_unix_micros: 3_661_000_500,
            latency_ms: Some(1_234.0),
            total_tokens: Some(5_000),
            total_cost: Some("0.0042".into()),
            errors: 2,
            ..Default::default()
        };
        assert_eq!(line(&trace), "01:01:01.000  ask  1.2 s  5,000 tokens  $0.0042  2 errors  t1");
    }

    #[test]
    fn conditions_become_filters() {
        let arguments = |conditions: &[&str]| TailArgs {
            conditions: conditions.iter().map(|text| (*text).to_owned()).collect(),
            errors: true,
            finished: false,
        };
        let found = filters(&arguments(&["user_id=a=b", "tags=panic"])).unwrap();
        let shown: Vec<_> = found.iter().map(|filter| (filter.field.as_str(), filter.values[0].as_str())).collect();
        assert_eq!(shown, [("user_id", "a=b"), ("tags", "panic"), ("errors", "0")]);
        assert!(filters(&arguments(&["panic"])).unwrap_err().to_string().contains("user_id=ada"));
    }
}
