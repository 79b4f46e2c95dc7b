//! Pages of other origins: those that were listed may ask, with a key, and nobody else's.
//!
//! By hand, as a layer for it would be a new dependency for these few headers: an origin is on the list or it is not.
//! What a browser may not read, everybody else may still ask: keys guard the answers, this guards the people with keys.

use axum::extract::{Request, State};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD,
    ORIGIN, VARY,
};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::super::Doors;

const METHODS: HeaderValue = HeaderValue::from_static("GET, POST, PUT, PATCH, DELETE");
/// Those that our doors read, and those that clients of gRPC-Web and Langfuse's send.
const SENT: HeaderValue = HeaderValue::from_static(
    "authorization, content-type, content-encoding, last-event-id, x-tracelake-tenant, x-grpc-web, x-user-agent, \
     grpc-timeout, x-langfuse-sdk-name, x-langfuse-sdk-version, x-langfuse-sdk-integration, x-langfuse-public-key",
);
const SHOWN: HeaderValue =
    HeaderValue::from_static("grpc-status, grpc-message, grpc-status-details-bin, retry-after, www-authenticate");
/// Seconds that a browser need not ask again.
const KNOWN_FOR: HeaderValue = HeaderValue::from_static("600");

/// Around every path, and in front of the keys: a browser asks first without one.
pub(super) async fn answer(State(doors): State<Doors>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    let is_listed =
        |origin: &&HeaderValue| doors.cors_origins.iter().any(|listed| listed.as_bytes() == origin.as_bytes());
    let origin = headers.get(ORIGIN).filter(is_listed).cloned();
    let asks_first = request.method() == Method::OPTIONS && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = match asks_first {
        true => StatusCode::NO_CONTENT.into_response(),
        false => next.run(request).await,
    };
    let headers = response.headers_mut();
    // Answers differ by origin: caches must know.
    headers.append(VARY, HeaderValue::from_static("origin"));
    let Some(origin) = origin else { return response };
    // The origin itself, never `*`: with credentials that would be everybody.
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    if asks_first {
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, SENT);
        headers.insert(ACCESS_CONTROL_MAX_AGE, KNOWN_FOR);
    } else {
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, SHOWN);
    }
    response
}
