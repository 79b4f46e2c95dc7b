//! `POST /api/v1/{Service}/{Method}`: every call of `tracelake.v1` that has one answer, in proto3 JSON.
//!
//! A call is turned into its bytes, handed to the same services and the same guard as over gRPC, and its answer turned
//! back: a method needs nothing of its own here, and its key the same role.

mod from_json;
mod schema;
mod to_json;

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode, Version};
use axum::response::{IntoResponse, Response};
use axum::{Router, routing};
use bytes::{BufMut, Bytes, BytesMut};
use serde_json::{Value, json};
use tonic::codegen::Service;
use tonic::{Code, Status};

use super::super::body::{self, Admission, Pieces};
use super::super::{Doors, Refusal, auth};
use super::problem::Problem;
use super::request::{Refused, encoding};
use crate::base::{ByteSize, Kind};
use schema::{Schema, schema};

/// Of a question, as over gRPC.
const BODY_MAX: ByteSize = ByteSize::mib(1);
/// Of an answer's bytes.
const ANSWER_MAX: ByteSize = ByteSize::mib(256);
/// A byte that says whether a message is compressed, and four for its length.
const HEAD_BYTES: usize = 5;
/// What is sent in here is large, and has doors of its own.
const NOT_HERE: &str = "IngestService";

/// The paths, over the services of the gRPC door.
pub(super) fn route(router: Router<Doors>, services: Router) -> Router<Doors> {
    let call = routing::post(move |State(doors): State<Doors>, request: Request| call(doors, services, request));
    router.route("/api/v1/{service}/{method}", call.clone()).route("/api/v1/{service}/{method}/", call)
}

async fn call(doors: Doors, services: Router, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let mut pieces = Pieces::new(body);
    let path = parts.uri.path().trim_start_matches("/api/v1/").trim_end_matches('/').to_owned();
    match answer(&doors, services, &path, &parts.headers, &mut pieces).await {
        Ok(answer) => (StatusCode::OK, [(CONTENT_TYPE, "application/json")], answer.to_string()).into_response(),
        Err(problem) => {
            body::hear_out(&mut pieces).await;
            problem.into_response()
        }
    }
}

async fn answer(
    doors: &Doors,
    services: Router,
    path: &str,
    headers: &HeaderMap,
    pieces: &mut Pieces,
) -> Result<Value, Problem> {
    // Nobody unknown makes us hold a body; what the key may do is looked at by the services' own guard.
    auth::identity(doors, headers).await?;
    let schema = schema();
    let method = schema.method(path).filter(|_| !path.starts_with(NOT_HERE)).ok_or_else(|| {
        let shown: String = path.chars().take(100).collect();
        Problem::new(StatusCode::NOT_FOUND, format!("there is no call {shown}"))
    })?;
    if method.is_stream {
        let message = format!("{path} answers with a stream: ask for it over gRPC");
        return Err(Problem::new(StatusCode::NOT_IMPLEMENTED, message));
    }
    let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let encoding = encoding(headers).map_err(|refused| match refused {
        Refused::By(refusal) => Problem::from(refusal),
        Refused::MediaType(message) => Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message),
    })?;
    let held = body::read(Admission::Intake(doors.intake.clone()), pieces, length, encoding, BODY_MAX).await?;
    let message = message(schema, &held.bytes, &method.input)?;

    let answered = passed_on(services, path, headers, message).await?;
    to_json::message(schema, &method.output, &answered)
        .ok_or_else(|| Problem::from(Refusal::new(Kind::Internal, "an answer is not of its type")))
}

fn message(schema: &Schema, body: &[u8], of: &str) -> Result<Vec<u8>, Problem> {
    let invalid = |why: String| Problem::from(Refusal::new(Kind::Invalid, why));
    let json: Value = match body.iter().all(u8::is_ascii_whitespace) {
        true => json!({}),
        false => serde_json::from_slice(body).map_err(|e| invalid(format!("the body is not JSON: {e}")))?,
    };
    from_json::message(schema, of, &json).map_err(invalid)
}

/// The answer's bytes.
async fn passed_on(mut services: Router, path: &str, headers: &HeaderMap, message: Vec<u8>) -> Result<Bytes, Problem> {
    let mut framed = BytesMut::with_capacity(HEAD_BYTES + message.len());
    framed.put_u8(0);
    framed.put_u32(message.len() as u32);
    framed.extend_from_slice(&message);
    let mut request = Request::builder()
        .method("POST")
        .version(Version::HTTP_2)
        .uri(format!("/tracelake.v1.{path}"))
        .header(CONTENT_TYPE, "application/grpc")
        .header("te", "trailers");
    if let Some(key) = headers.get(AUTHORIZATION) {
        request = request.header(AUTHORIZATION, key);
    }
    let internal = |what: &str| Problem::from(Refusal::new(Kind::Internal, what));
    let request = request.body(Body::from(framed.freeze())).map_err(|_| internal("a call could not be passed on"))?;
    let Ok(response) = services.call(request).await;
    match Status::from_header_map(response.headers()) {
        Some(status) if status.code() != Code::Ok => return Err(problem(&status)),
        _ => {}
    }
    let body = to_bytes(response.into_body(), ANSWER_MAX.as_usize()).await;
    let body = body.map_err(|_| Problem::from(Refusal::limit("bytes", format!("the answer is above {ANSWER_MAX}"))))?;
    match body.len() >= HEAD_BYTES {
        true => Ok(body.slice(HEAD_BYTES..)),
        false => Err(internal("a call has no answer")),
    }
}

fn problem(status: &Status) -> Problem {
    let kind = match status.code() {
        Code::InvalidArgument => Kind::Invalid,
        Code::Unauthenticated => Kind::Unauthenticated,
        Code::PermissionDenied => Kind::Forbidden,
        Code::NotFound | Code::Unimplemented => Kind::NotFound,
        Code::AlreadyExists => Kind::Exists,
        Code::ResourceExhausted | Code::DeadlineExceeded => Kind::LimitReached,
        Code::Unavailable => Kind::Unavailable,
        Code::DataLoss => Kind::Corrupt,
        _ => Kind::Internal,
    };
    Refusal::new(kind, status.message()).into()
}

#[cfg(test)]
pub(in crate::doors) fn from_json(of: &str, json: &Value) -> Result<Vec<u8>, String> {
    from_json::message(schema(), of, json)
}

#[cfg(test)]
pub(in crate::doors) fn to_json(of: &str, bytes: &[u8]) -> Option<Value> {
    to_json::message(schema(), of, bytes)
}
