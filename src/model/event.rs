//! One thing said about one id, and the batch a request becomes.

use std::collections::BTreeMap;

use super::{MediaCounts, Observation, Score, TraceFacts};

/// Orders the events of one id: by time, then create before update, then by event id (`langfuse-wire` §1a).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Message)]
pub struct Order {
    /// When the client says this was said: microseconds since 1970. A span's end, a batch event's timestamp.
    #[prost(int64, tag = "1")]
    pub event_time_us: i64,
    #[prost(bool, tag = "2")]
    pub is_update: bool,
    /// The client's event id, or a digest of the content where the protocol has none (OTLP).
    #[prost(string, tag = "3")]
    pub event_id: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Event {
    #[prost(message, required, tag = "1")]
    pub order: Order,
    #[prost(oneof = "EventKind", tags = "2, 3, 4")]
    pub kind: Option<EventKind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
#[allow(clippy::large_enum_variant, reason = "nearly all events are observations: a box would be one allocation each")]
pub enum EventKind {
    #[prost(message, tag = "2")]
    Observation(Observation),
    #[prost(message, tag = "3")]
    Trace(TraceFacts),
    #[prost(message, tag = "4")]
    Score(Score),
}

impl EventKind {
    /// The trace it is about; of a score there may be none.
    pub fn trace_id(&self) -> Option<&str> {
        match self {
            Self::Observation(said) => Some(&said.trace_id),
            Self::Trace(said) => Some(&said.trace_id),
            Self::Score(said) => said.trace_id.as_deref(),
        }
    }
}

/// What one request said, for one tenant: the payload of an `events` frame in the log.
#[derive(Clone, PartialEq, prost::Message)]
pub struct EventBatch {
    /// The door it came by: `otlp-grpc`, `otlp-http`, `tracelake-grpc`, …
    #[prost(string, tag = "1")]
    pub door: String,
    #[prost(message, repeated, tag = "2")]
    pub events: Vec<Event>,
    /// Observations and scores in the request, refused ones included (I9).
    #[prost(uint64, tag = "3")]
    pub received: u64,
    /// Refused ones by reason (I9).
    #[prost(btree_map = "string, uint64", tag = "4")]
    pub rejected: BTreeMap<String, u64>,
    /// The version of the price book that prices the rows of this batch.
    #[prost(string, tag = "5")]
    pub price_book: String,
    /// Media of the request: none of them is an event.
    #[prost(message, optional, tag = "6")]
    pub media: Option<MediaCounts>,
}

/// Why an event was refused. The names are a contract: they stand in the ledger and in metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RejectReason {
    MissingId,
    InvalidId,
    InvalidTime,
    InvalidCost,
    InvalidValue,
    TooLarge,
    Malformed,
    /// It is about something that was erased lately.
    Erased,
}

impl RejectReason {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MissingId => "missing_id",
            Self::InvalidId => "invalid_id",
            Self::InvalidTime => "invalid_time",
            Self::InvalidCost => "invalid_cost",
            Self::InvalidValue => "invalid_value",
            Self::TooLarge => "too_large",
            Self::Malformed => "malformed",
            Self::Erased => "erased",
        }
    }
}

/// One refused event: which, why, and a sentence for its sender.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    pub id: String,
    pub reason: RejectReason,
    pub message: String,
}

impl EventBatch {
    /// Nothing to keep, and nothing to count.
    pub fn says_nothing(&self) -> bool {
        self.events.is_empty() && self.received == 0 && self.rejected.is_empty() && self.media.is_none()
    }

    /// Counts `rejections` into this batch's books.
    pub fn count_rejections(&mut self, rejections: &[Rejection]) {
        for rejection in rejections {
            *self.rejected.entry(rejection.reason.as_str().to_owned()).or_default() += 1;
        }
    }
}
