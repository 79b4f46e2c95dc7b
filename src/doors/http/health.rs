//! Is it up, can it work, what has it done. Asked without a key.

use axum::extract::{Query, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use serde::Deserialize;

use super::super::{Counters, Doors};

/// The process answers.
pub(super) async fn health() -> Response {
    json(StatusCode::OK, &serde_json::json!({ "status": "OK", "version": env!("CARGO_PKG_VERSION") }))
}

/// The version of Langfuse's server that clients of it may take us for: some send less to older ones.
const LANGFUSE_VERSION: &str = "4.75.0";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct HealthQuery {
    fail_if_database_unavailable: Option<String>,
}

/// What Langfuse's clients ask; with `failIfDatabaseUnavailable=true` as [`ready`].
pub(super) async fn langfuse_health(State(doors): State<Doors>, Query(query): Query<HealthQuery>) -> Response {
    if query.fail_if_database_unavailable.is_some_and(|asked| asked == "true")
        && let Err(reason) = doors.ready.ready().await
    {
        return json(StatusCode::SERVICE_UNAVAILABLE, &serde_json::json!({ "status": reason }));
    }
    let ours = env!("CARGO_PKG_VERSION");
    json(StatusCode::OK, &serde_json::json!({ "status": "OK", "version": LANGFUSE_VERSION, "tracelake": ours }))
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
    let mut text = doors.counters.text(doors.store.counts(), &doors.budgets, &doors.intake.booked());
    Counters::add_unpriced(&mut text, doors.prices.unpriced());
    let prometheus = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    ([(CONTENT_TYPE, prometheus)], text).into_response()
}

fn json(status: StatusCode, body: &serde_json::Value) -> Response {
    (status, [(CONTENT_TYPE, HeaderValue::from_static("application/json"))], body.to_string()).into_response()
}
