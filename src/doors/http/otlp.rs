//! OTLP over HTTP: protobuf or JSON, plain or compressed, with a length or in chunks.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use prost::Message;

use super::super::body::{self, Admission, Held, Pieces};
use super::super::otlp::{Kept, keep};
use super::super::{Door, Doors, REQUEST_MAX, Refusal, auth, grpc};
use super::request::{Refused, encoding, sdk, text};
use crate::catalog::keys::Role;
use crate::decode;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Protobuf,
    Json,
}

impl Format {
    fn name(self) -> &'static str {
        match self {
            Self::Protobuf => "application/x-protobuf",
            Self::Json => "application/json",
        }
    }
}

/// Answered when every span that was not refused is durable and visible.
pub(super) async fn traces(State(doors): State<Doors>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let mut pieces = Pieces::new(body);
    match export(&doors, &parts.headers, &mut pieces).await {
        Ok((format, kept)) => {
            doors.counters.answered(Door::OtlpHttp, "ok");
            success(format, &kept)
        }
        Err(refused) => refused.answer(&doors, Door::OtlpHttp, &mut pieces).await,
    }
}

pub(super) async fn metrics(State(doors): State<Doors>, request: Request) -> Response {
    drop_signal(&doors, "metrics", request).await
}

pub(super) async fn logs(State(doors): State<Doors>, request: Request) -> Response {
    drop_signal(&doors, "logs", request).await
}

async fn export(doors: &Doors, headers: &HeaderMap, pieces: &mut Pieces) -> Result<(Format, Kept), Refused> {
    let caller = auth::caller(doors, headers, Role::Ingest).await?;
    let format = format(headers)?;
    let encoding = encoding(headers)?;
    let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let admission = Admission::Intake(doors.intake.clone());
    let Held { bytes, room } = body::read(admission, pieces, length, encoding, REQUEST_MAX).await?;
    let (limits, size, sdk) = (doors.limits_for(&caller.tenant), bytes.len(), sdk(headers));
    let decode = move || {
        let decoded = match format {
            Format::Protobuf => decode::otlp_protobuf_by(&sdk, &bytes, &limits),
            Format::Json => decode::otlp_json_by(&sdk, &bytes, &limits),
        };
        decoded.map_err(|e| Refusal::from_below(e.kind(), &e))
    };
    let kept = keep(doors, Door::OtlpHttp, &caller, room, size, decode).await?;
    Ok((format, kept))
}

/// Metrics and logs are not kept: their senders are told yes, or they would log an error at every interval.
async fn drop_signal(doors: &Doors, signal: &'static str, request: Request<Body>) -> Response {
    let (parts, body) = request.into_parts();
    let mut pieces = Pieces::new(body);
    let dropping = async {
        auth::caller(doors, &parts.headers, Role::Ingest).await?;
        let format = format(&parts.headers)?;
        body::discard(&mut pieces, REQUEST_MAX).await?;
        Ok(format)
    };
    match dropping.await {
        Ok(format) => {
            doors.counters.dropped(Door::OtlpHttp, signal);
            success(format, &Kept::default())
        }
        Err(refused) => Refused::answer(refused, doors, Door::OtlpHttp, &mut pieces).await,
    }
}

fn format(headers: &HeaderMap) -> Result<Format, Refused> {
    let sent = text(headers, CONTENT_TYPE);
    let essence = sent.split(';').next().unwrap_or_default().trim();
    [Format::Protobuf, Format::Json].into_iter().find(|format| essence.eq_ignore_ascii_case(format.name())).ok_or_else(
        || {
            let sent = sent.chars().take(100).collect::<String>();
            Refused::MediaType(format!(
                "content-type {sent:?} is not accepted: use application/x-protobuf or application/json"
            ))
        },
    )
}

/// In the format the request came in.
fn success(format: Format, kept: &Kept) -> Response {
    let body = match format {
        Format::Protobuf => grpc::trace_response(kept).encode_to_vec(),
        Format::Json if kept.rejections.is_empty() => b"{}".to_vec(),
        Format::Json => {
            // 64-bit numbers are text in protobuf's JSON.
            let rejected = kept.rejections.len().to_string();
            let partial = serde_json::json!({ "rejectedSpans": rejected, "errorMessage": kept.reasons() });
            serde_json::json!({ "partialSuccess": partial }).to_string().into_bytes()
        }
    };
    (StatusCode::OK, [(CONTENT_TYPE, HeaderValue::from_static(format.name()))], body).into_response()
}
