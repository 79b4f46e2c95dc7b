//! `POST /api/v1/{Service}/{Method}`: every call of `tracelake.v1` in proto3 JSON; a stream answers as server-sent events
//! and is also asked by GET, as browsers' `EventSource` does, with the question as `?query=`.
//!
//! A call is turned into its bytes, handed to the same services and the same guard as over gRPC, and its answer turned
//! back: a method needs nothing of its own here, and its key the same role.

mod events;
mod from_json;
mod schema;
mod to_json;
mod web;

use axum::body::{Body, to_bytes};
use axum::extract::{Query, Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, Method, StatusCode, Uri, Version};
use axum::response::{IntoResponse, Response};
use axum::{Router, routing};
use bytes::{BufMut, BytesMut};
use serde::Deserialize;
use serde_json::{Value, json};
use tonic::codegen::Service;
use tonic::{Code, Status};

use super::super::body::{self, Admission, Pieces};
use super::super::{Doors, Refusal, auth};
use super::problem::Problem;
use super::request::{Refused, encoding, text};
use crate::base::{ByteSize, Kind};
use schema::{MethodOf, schema};

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
    let router = web::route(router, schema(), services.clone());
    let call = |State(doors): State<Doors>, request: Request| call(doors, services, request);
    let call = routing::post(call.clone()).get(call);
    router.route("/api/v1/{service}/{method}", call.clone()).route("/api/v1/{service}/{method}/", call)
}

async fn call(doors: Doors, services: Router, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let mut pieces = Pieces::new(body);
    let asked = Asked { is_get: parts.method != Method::POST, uri: &parts.uri, headers: &parts.headers };
    match answer(&doors, services, asked, &mut pieces).await {
        Ok(answer) => answer,
        Err(problem) => {
            body::hear_out(&mut pieces).await;
            problem.into_response()
        }
    }
}

struct Asked<'a> {
    is_get: bool,
    uri: &'a Uri,
    headers: &'a HeaderMap,
}

async fn answer(
    doors: &Doors,
    services: Router,
    Asked { is_get, uri, headers }: Asked<'_>,
    pieces: &mut Pieces,
) -> Result<Response, Problem> {
    // Nobody unknown makes us hold a body; what the key may do is looked at by the services' own guard.
    auth::identity(doors, headers).await?;
    let schema = schema();
    let path = uri.path().trim_start_matches("/api/v1/").trim_end_matches('/');
    let method = schema.method(path).filter(|_| !path.starts_with(NOT_HERE)).ok_or_else(|| {
        let shown: String = path.chars().take(100).collect();
        Problem::new(StatusCode::NOT_FOUND, format!("there is no call {shown}"))
    })?;
    let mut question = match is_get {
        // Streams only read: a page that makes a browser follow such a link changes nothing.
        true if method.is_stream => asked_by_link(uri)?,
        true => return Err(Problem::new(StatusCode::METHOD_NOT_ALLOWED, format!("{path} is asked by POST"))),
        false => asked_by_body(doors, headers, pieces).await?,
    };
    if method.is_stream {
        events::resume(schema, method, headers, &mut question);
        let answer = passed_on(services, path, headers, message_of(method, &question)?).await?;
        return Ok(events::response(schema, method, answer));
    }
    let json = ask(services, path, headers, &question).await?;
    Ok((StatusCode::OK, [(CONTENT_TYPE, "application/json")], json.to_string()).into_response())
}

/// The answer to a call that has one, its path as `MetricsService/Query`.
pub(super) async fn ask(services: Router, path: &str, headers: &HeaderMap, question: &Value) -> Result<Value, Problem> {
    let schema = schema();
    let method = schema.method(path).ok_or_else(|| internal("there is no such call"))?;
    let answer = passed_on(services, path, headers, message_of(method, question)?).await?;
    let body = to_bytes(answer, ANSWER_MAX.as_usize()).await;
    let body = body.map_err(|_| Problem::from(Refusal::limit("bytes", format!("the answer is above {ANSWER_MAX}"))))?;
    let message = body.get(HEAD_BYTES..).ok_or_else(|| internal("a call has no answer"))?;
    to_json::message(schema, &method.output, message).ok_or_else(|| internal("an answer is not of its type"))
}

fn message_of(method: &MethodOf, question: &Value) -> Result<Vec<u8>, Problem> {
    from_json::message(schema(), &method.input, question).map_err(invalid)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Link {
    #[serde(default)]
    query: String,
}

fn asked_by_link(uri: &Uri) -> Result<Value, Problem> {
    let link = Query::<Link>::try_from_uri(uri);
    let Query(link) =
        link.map_err(|_| invalid("only the parameter query is known, once: the question in JSON".into()))?;
    read(link.query.as_bytes(), "query")
}

async fn asked_by_body(doors: &Doors, headers: &HeaderMap, pieces: &mut Pieces) -> Result<Value, Problem> {
    // A page of another origin may send any other type without asking first, with credentials that the browser kept.
    let media_type = text(headers, CONTENT_TYPE);
    let is_json = media_type.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"));
    if !is_json {
        let message = "the content-type of a call is application/json";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
    }
    let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let encoding = encoding(headers).map_err(|refused| match refused {
        Refused::By(refusal) => Problem::from(refusal),
        Refused::MediaType(message) => Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message),
    })?;
    let held = body::read(Admission::Intake(doors.intake.clone()), pieces, length, encoding, BODY_MAX).await?;
    read(&held.bytes, "the body")
}

fn read(text: &[u8], what: &str) -> Result<Value, Problem> {
    match text.iter().all(u8::is_ascii_whitespace) {
        true => Ok(json!({})),
        false => serde_json::from_slice(text).map_err(|e| invalid(format!("{what} is not JSON: {e}"))),
    }
}

/// The answer, if the call is not refused at once.
async fn passed_on(mut services: Router, path: &str, headers: &HeaderMap, message: Vec<u8>) -> Result<Body, Problem> {
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
    let request = request.body(Body::from(framed.freeze())).map_err(|_| internal("a call could not be passed on"))?;
    let Ok(response) = services.call(request).await;
    match Status::from_header_map(response.headers()) {
        Some(status) if status.code() != Code::Ok => Err(problem(&status)),
        _ => Ok(response.into_body()),
    }
}

fn invalid(why: String) -> Problem {
    Refusal::new(Kind::Invalid, why).into()
}

fn internal(what: &str) -> Problem {
    Refusal::new(Kind::Internal, what).into()
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
