//! What the HTTP doors share: how a request is encoded, and refusals with the media types that only HTTP knows.

use axum::http::header::CONTENT_ENCODING;
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};

use super::super::body::{self, Encoding, Pieces};
use super::super::{Door, Doors, Refusal};
use super::problem::Problem;
use crate::decode::Sdk;

/// A refusal, or a media type that has no kind because only HTTP knows it.
pub(super) enum Refused {
    By(Refusal),
    MediaType(String),
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self::By(refusal.on_the_way_in())
    }
}

impl Refused {
    /// Hears the sender out, then says why.
    pub(super) async fn answer(self, doors: &Doors, door: Door, pieces: &mut Pieces) -> Response {
        body::hear_out(pieces).await;
        match self {
            Self::By(refusal) => {
                doors.counters.answered(door, refusal.outcome());
                Problem::from(refusal).into_response()
            }
            Self::MediaType(message) => {
                doors.counters.answered(door, "unsupported_media_type");
                Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message).into_response()
            }
        }
    }
}

/// Clients write these headers with dashes or with underscores, and proxies drop the latter.
pub(super) fn sdk(headers: &HeaderMap) -> Sdk {
    let text = |names: [&str; 2]| {
        let said = names.into_iter().find_map(|name| headers.get(name))?.to_str().ok()?;
        Some(said.chars().take(100).collect::<String>()).filter(|text| !text.is_empty())
    };
    Sdk {
        name: text(["x-langfuse-sdk-name", "x_langfuse_sdk_name"]),
        version: text(["x-langfuse-sdk-version", "x_langfuse_sdk_version"]),
    }
}

pub(super) fn encoding(headers: &HeaderMap) -> Result<Encoding, Refused> {
    let sent = text(headers, CONTENT_ENCODING);
    match sent.trim().to_ascii_lowercase().as_str() {
        "" | "identity" => Ok(Encoding::Identity),
        "gzip" | "x-gzip" => Ok(Encoding::Gzip),
        "zstd" => Ok(Encoding::Zstd),
        _ => {
            let sent = sent.chars().take(100).collect::<String>();
            Err(Refused::MediaType(format!("content-encoding {sent:?} is not accepted: use gzip, zstd or none")))
        }
    }
}

pub(super) fn text(headers: &HeaderMap, name: HeaderName) -> String {
    headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).unwrap_or_default()
}
