//! Spans in the envelope an OpenTelemetry exporter sends.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};

use super::attributes::Attributes;
use super::{Corpus, CorpusConfig};

/// One resource, one scope.
pub fn request(service: &str, spans: Vec<Span>) -> ExportTraceServiceRequest {
    let mut attributes = Attributes::default();
    attributes.text("service.name", service);
    attributes.text("service.version", "2026.11.2");
    attributes.text("deployment.environment.name", "production");
    attributes.text("telemetry.sdk.language", "python");
    attributes.text("telemetry.sdk.name", "opentelemetry");
    attributes.text("telemetry.sdk.version", "1.42.0");
    let scope = InstrumentationScope { name: "corpus".into(), version: "1.0.0".into(), ..Default::default() };
    let scope_spans = ScopeSpans { scope: Some(scope), spans, schema_url: String::new() };
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource { attributes: attributes.into_vec(), ..Default::default() }),
            scope_spans: vec![scope_spans],
            schema_url: String::new(),
        }],
    }
}

/// The whole corpus in requests of `spans_per_request` spans; the last one may be smaller. Traces run over their edges.
pub fn requests(config: CorpusConfig, spans_per_request: usize) -> impl Iterator<Item = ExportTraceServiceRequest> {
    let spans_per_request = spans_per_request.max(1);
    let mut spans = Corpus::new(config).flat_map(|trace| trace.spans);
    std::iter::from_fn(move || {
        let batch: Vec<Span> = spans.by_ref().take(spans_per_request).collect();
        (!batch.is_empty()).then(|| request("corpus", batch))
    })
}
