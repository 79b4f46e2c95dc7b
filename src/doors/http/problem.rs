//! Refusals as HTTP answers: `{"error", "message"}`, which is what Langfuse's clients read.

use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use super::super::Refusal;

#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    message: String,
    retry_after_s: Option<u64>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), retry_after_s: None }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        // Whole seconds, rounded up: a client that comes too early is refused again.
        let retry_after_s = refusal.delay().map(|delay| delay.as_millis().div_ceil(1000).max(1) as u64);
        Self { status: refusal.http_status(), message: refusal.message, retry_after_s }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let error = self.status.canonical_reason().unwrap_or("Error");
        let body = serde_json::json!({ "error": error, "message": self.message }).to_string();
        let json = HeaderValue::from_static("application/json");
        let mut response = (self.status, [(CONTENT_TYPE, json)], body).into_response();
        if let Some(seconds) = self.retry_after_s {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            let basic = HeaderValue::from_static("Basic realm=\"tracelake\"");
            response.headers_mut().insert(WWW_AUTHENTICATE, basic);
        }
        response
    }
}
