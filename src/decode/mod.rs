//! OTLP with every attribute dialect, Langfuse's own requests, and our own proto, into the words of `model`.
//!
//! Promises: pure, no IO and no clock; never panics on any input; one bad span is refused with its reason and its
//! neighbours are kept; nothing a client sent is dropped silently: what has no column of its own is an attribute. The
//! same content decodes to the same events on every machine, event ids included.
//! Must never know: which tenant, which door, what things cost, what is already stored.

mod bag;
mod cut;
mod dialect;
mod digest;
mod fit;
mod inside;
mod json;
mod langfuse;
mod loose;
mod media;
mod native;
mod otlp;
mod pieces;
mod span;
mod span_events;
mod tools;
mod trace;
mod usage;
mod value;

use crate::base::Kind;
use crate::model::{EventBatch, RejectReason, Rejection};

pub use langfuse::{EventAnswer, LangfuseBatch, Posted, Sdk, langfuse_batch, langfuse_post, langfuse_scores, refuse};
pub use media::InlineMedium;
pub use native::ingest_request;
pub use otlp::{otlp_json, otlp_json_by, otlp_protobuf, otlp_protobuf_by, otlp_request};

#[cfg(test)]
mod tests;

/// What a request became. The batch's books are done; its door and price book are for the caller to fill.
#[derive(Debug, Clone, Default)]
pub struct Decoded {
    pub batch: EventBatch,
    /// Spans or items in the request, refused ones included.
    pub items: u64,
    pub rejections: Vec<Rejection>,
    /// What stood as base64 in texts: references stand there now, and the bytes must be stored before the batch is.
    pub media: Vec<InlineMedium>,
}

/// The bounds of one span or item.
#[derive(Debug, Clone, Copy)]
pub struct DecodeLimits {
    /// Encoded size. Of a larger span or event the longest texts are cut, and `truncated_bytes` among its attributes says
    /// by how much; it is refused where that does not help, and a score is.
    pub span_bytes_max: usize,
    /// Of ids in our own proto; those of OTLP have a fixed length.
    pub id_bytes_max: usize,
    /// Attributes kept beside those with a column; `dropped_attributes` then says how many more there were.
    pub attributes_max: usize,
    /// Base64 media are taken out of texts. Not where rules are to look at the texts as they were sent.
    pub takes_media: bool,
}

impl Default for DecodeLimits {
    fn default() -> Self {
        Self { span_bytes_max: 10 << 20, id_bytes_max: 800, attributes_max: 10_000, takes_media: true }
    }
}

/// The request as a whole cannot be read: nothing of it is kept.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    #[error("the body is not an OTLP trace request in protobuf: {0}")]
    Protobuf(#[from] prost::DecodeError),
    #[error("the body is not JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("the body is not an OTLP trace request: {0}")]
    Shape(&'static str),
    #[error("the body is not {{\"batch\": [event, …]}}: {0}")]
    Batch(serde_json::Error),
    #[error("the body cannot be read: {0}")]
    Post(serde_json::Error),
}

impl DecodeError {
    pub fn kind(&self) -> Kind {
        match self {
            Self::Protobuf(_) | Self::Json(_) | Self::Shape(_) | Self::Batch(_) | Self::Post(_) => Kind::Invalid,
        }
    }
}

fn reject(id: impl Into<String>, reason: RejectReason, message: impl Into<String>) -> Rejection {
    Rejection { id: id.into(), reason, message: message.into() }
}
