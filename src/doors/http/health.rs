//! Is it up, can it work, what has it done. Asked without a key.

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use super::super::{Counters, Doors};

/// The process answers.
pub(super) async fn health() -> Response {
    json(StatusCode::OK, &serde_json::json!({ "status": "OK", "version": env!("CARGO_PKG_VERSION") }))
}

/// What Langfuse's clients ask.
pub(super) async fn langfuse_health() -> Response {
    health().await
}

/// The store can be reached and what was acked before the start can be read.
pub(super) async fn ready(State(doors): State<Doors>) -> Response {
    match doors.ready.ready().await {
        Ok(()) => json(StatusCode::OK, &serde_json::json!({ "status": "OK" })),
        Err(reason) => {
            let body = serde_json::json!({ "status": "not ready", "reason": reason });
            json(StatusCode::SERVICE_UNAVAILABLE, &body)
        }
    }
}

pub(super) async fn metrics(State(doors): State<Doors>) -> Response {
    let mut text = doors.counters.text(doors.store.counts(), &doors.budgets);
    Counters::add_unpriced(&mut text, doors.prices.unpriced());
    let prometheus = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    ([(CONTENT_TYPE, prometheus)], text).into_response()
}

fn json(status: StatusCode, body: &serde_json::Value) -> Response {
    (status, [(CONTENT_TYPE, HeaderValue::from_static("application/json"))], body.to_string()).into_response()
}
