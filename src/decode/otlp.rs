//! An OTLP trace request, in protobuf or JSON, as a batch of events.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;

use super::dialect::{Meaning, Slot, Target, meaning};
use super::fit::fit;
use super::value::{environment, text, without_nul};
use super::{DecodeError, DecodeLimits, Decoded, Sdk, cut, json, media, span, trace};
use crate::model::{EventBatch, Rejection};

/// Resource attributes without a column that are copied to each span: resource detectors add dozens.
const RESOURCE_ATTRIBUTES_MAX: usize = 32;
/// What a resource or scope says is copied to each of its spans, so one long text must not become gigabytes.
const RESOURCE_TEXT_BYTES_MAX: usize = 1024;
/// The scope of all Langfuse SDKs.
const LANGFUSE_SCOPE: &str = "langfuse-sdk";

/// Decodes a request. Every span is either an event or a rejection; for each trace that the spans say something
/// about, one more event follows.
pub fn otlp_request(request: ExportTraceServiceRequest, limits: &DecodeLimits) -> Decoded {
    decode(request, Vec::new(), &Sdk::default(), limits)
}

/// Decodes a protobuf body, already decompressed.
pub fn otlp_protobuf(body: &[u8], limits: &DecodeLimits) -> Result<Decoded, DecodeError> {
    otlp_protobuf_by(&Sdk::default(), body, limits)
}

/// As [`otlp_protobuf`], of the client that the request's headers name.
pub fn otlp_protobuf_by(sdk: &Sdk, body: &[u8], limits: &DecodeLimits) -> Result<Decoded, DecodeError> {
    Ok(decode(ExportTraceServiceRequest::decode(body)?, Vec::new(), sdk, limits))
}

/// Decodes a JSON body, already decompressed.
pub fn otlp_json(body: &[u8], limits: &DecodeLimits) -> Result<Decoded, DecodeError> {
    otlp_json_by(&Sdk::default(), body, limits)
}

/// As [`otlp_json`], of the client that the request's headers name.
pub fn otlp_json_by(sdk: &Sdk, body: &[u8], limits: &DecodeLimits) -> Result<Decoded, DecodeError> {
    let (request, malformed) = json::request(body)?;
    Ok(decode(request, malformed, sdk, limits))
}

/// `rejections` are spans already refused.
fn decode(
    request: ExportTraceServiceRequest,
    mut rejections: Vec<Rejection>,
    sdk: &Sdk,
    limits: &DecodeLimits,
) -> Decoded {
    let spans =
        request.resource_spans.iter().flat_map(|resource| &resource.scope_spans).map(|scope| scope.spans.len()).sum();
    let mut batch = EventBatch { received: (spans + rejections.len()) as u64, ..EventBatch::default() };
    // Room for what is said about traces too: these are large, and a list that grows is copied whole.
    batch.events.reserve(spans + traces_at_most(&request));
    let mut said = Vec::with_capacity(spans);
    let (mut encoded, mut media) = (Vec::new(), Vec::new());
    for resource_spans in request.resource_spans {
        let resource = Origin::new(resource_spans.resource.unwrap_or_default());
        for scope_spans in resource_spans.scope_spans {
            let origin = resource.with_scope(scope_spans.scope.unwrap_or_default(), sdk);
            for span in scope_spans.spans {
                let decoded = span::decode(span, &origin, limits, &mut encoded).and_then(|(mut event, about)| {
                    fit(&mut event, encoded.len() > limits.span_bytes_max, limits, &mut media)?;
                    Ok((event, about))
                });
                match decoded {
                    Ok((event, about_trace)) => {
                        batch.events.push(event);
                        said.push(about_trace);
                    }
                    Err(rejection) => rejections.push(rejection),
                }
            }
        }
    }
    let mut facts = trace::facts(&batch.events, said);
    for facts in &mut facts {
        media::take_out(facts, limits, &mut media);
        // What does not fit even so is kept: its spans are, and each of those does.
        _ = cut::event(facts, limits);
    }
    batch.events.extend(facts);
    batch.count_rejections(&rejections);
    Decoded { items: batch.received, batch, rejections, media }
}

/// Spans of one trace mostly follow each other.
fn traces_at_most(request: &ExportTraceServiceRequest) -> usize {
    let scopes = request.resource_spans.iter().flat_map(|resource| &resource.scope_spans);
    scopes.map(|scope| scope.spans.chunk_by(|one, next| one.trace_id == next.trace_id).count()).sum()
}

/// What resource and scope say about each of their spans.
#[derive(Debug, Clone, Default)]
pub(super) struct Origin {
    pub(super) service_name: Option<String>,
    pub(super) service_version: Option<String>,
    pub(super) environment: Option<String>,
    pub(super) release: Option<String>,
    pub(super) scope_name: Option<String>,
    pub(super) scope_version: Option<String>,
    pub(super) sdk_name: Option<String>,
    pub(super) sdk_version: Option<String>,
    /// `resource.<key>` and `scope.<key>` without a column.
    pub(super) attributes: Vec<(String, String)>,
    /// Metadata values are JSON texts: Langfuse's Python SDK from 5 on, and its JavaScript SDK from 6 on.
    pub(super) metadata_is_json: bool,
    /// Langfuse's Python SDK up to 3.3 calls generations spans.
    pub(super) spans_may_be_generations: bool,
    language: String,
}

impl Origin {
    fn new(resource: Resource) -> Self {
        let mut origin = Self::default();
        let mut environments = None;
        for (key, value) in filled(resource.attributes) {
            match (key.as_str(), meaning(&key)) {
                ("telemetry.sdk.name", _) => origin.sdk_name = Some(value),
                ("telemetry.sdk.version", _) => origin.sdk_version = Some(value),
                ("telemetry.sdk.language", _) => origin.language = value,
                (key, _) if key.starts_with("telemetry.sdk.") => {}
                (_, Some(Meaning::Ranked(Target::One(Slot::ServiceName), _))) => origin.service_name = Some(value),
                (_, Some(Meaning::Ranked(Target::One(Slot::ServiceVersion), _))) => {
                    origin.service_version = Some(value)
                }
                (_, Some(Meaning::Ranked(Target::One(Slot::Release), _))) => origin.release = Some(value),
                (_, Some(Meaning::Ranked(Target::One(Slot::Environment), rank))) => {
                    environments = environments.into_iter().chain([(rank, value)]).min();
                }
                _ if origin.attributes.len() < RESOURCE_ATTRIBUTES_MAX => {
                    origin.attributes.push((format!("resource.{key}"), value));
                }
                _ => {}
            }
        }
        origin.environment = environments.map(|(_, name)| environment(&name));
        origin
    }

    fn with_scope(&self, scope: InstrumentationScope, sdk: &Sdk) -> Self {
        let mut origin = self.clone();
        let (name, version) = (cut(without_nul(scope.name)), cut(without_nul(scope.version)));
        if name == LANGFUSE_SCOPE {
            // Proxies drop headers, so what the scope says of itself goes first.
            let said = if version.is_empty() { sdk.version.as_deref().unwrap_or_default() } else { &version };
            let named = sdk.name.as_deref().unwrap_or_default();
            let python = self.language == "python" || (self.language.is_empty() && named == "python");
            let javascript = matches!(self.language.as_str(), "nodejs" | "webjs")
                || (self.language.is_empty() && named == "javascript");
            origin.metadata_is_json =
                (python && number(said, 0) >= Some(5)) || (javascript && number(said, 0) >= Some(6));
            origin.spans_may_be_generations = python
                && number(&version, 0).is_some()
                && (number(&version, 0), number(&version, 1)) <= (Some(3), Some(3));
            origin.sdk_name = Some(name.clone());
            origin.sdk_version = Some(version.clone()).filter(|version| !version.is_empty());
        }
        let attributes = filled(scope.attributes).filter(|(key, _)| key != "public_key");
        origin
            .attributes
            .extend(attributes.take(RESOURCE_ATTRIBUTES_MAX).map(|(key, value)| (format!("scope.{key}"), value)));
        origin.scope_name = Some(name).filter(|name| !name.is_empty());
        origin.scope_version = Some(version).filter(|version| !version.is_empty());
        origin
    }
}

fn filled(attributes: Vec<KeyValue>) -> impl Iterator<Item = (String, String)> {
    attributes.into_iter().filter_map(|attribute| {
        let value: Value = attribute.value?.value?;
        let value = cut(text(value));
        (!value.is_empty()).then(|| (cut(without_nul(attribute.key)), value))
    })
}

/// At most [`RESOURCE_TEXT_BYTES_MAX`] of `text`, whole characters.
fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(RESOURCE_TEXT_BYTES_MAX));
    text
}

/// The number at `place` of a dotted version; none for a version that is not said.
fn number(version: &str, place: usize) -> Option<u32> {
    let part = version.split('.').nth(place)?;
    let digits = part.bytes().take_while(u8::is_ascii_digit).count();
    part[..digits].parse().ok()
}
