//! Requests of plain spans, made by hand.

use std::ops::Range;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};

/// A span that is a trace of its own. Another number, another trace; the same number, the same span.
pub(crate) fn span(name: &str, number: u64) -> Span {
    const START_NS: u64 = 1_790_000_000_000_000_000;
    Span {
        trace_id: u128::from(number + 1).to_be_bytes().to_vec(),
        span_id: (number + 1).to_be_bytes().to_vec(),
        name: name.to_owned(),
        start_time_unix_nano: START_NS + number * 1_000_000,
        end_time_unix_nano: START_NS + number * 1_500_000 + 1_000_000,
        ..Default::default()
    }
}

pub(crate) fn export(spans: Vec<Span>) -> ExportTraceServiceRequest {
    let scope_spans = vec![ScopeSpans { spans, ..Default::default() }];
    ExportTraceServiceRequest { resource_spans: vec![ResourceSpans { scope_spans, ..Default::default() }] }
}

pub(crate) fn export_of(name: &str, numbers: Range<u64>) -> ExportTraceServiceRequest {
    export(numbers.map(|number| span(name, number)).collect())
}
