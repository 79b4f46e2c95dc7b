//! What an observation, a trace fact and a score are; how partial events of one id become one row; the Arrow schemas.
//!
//! Promises: merging is a pure function of the set of events, whatever their order of arrival (I3); the columns of
//! every table are declared once, in `tables/`, with their meaning.
//! Must never know: the wire they came by, prices, files, time of day. Pure: no IO, no clock.

mod counted;
mod dimensions;
mod error;
mod event;
mod media;
mod merge;
mod observation;
mod repeated;
mod score;
pub mod tables;
mod trace;

pub use counted::{Counted, CountedTokens};
pub use dimensions::DimensionKeys;
pub use error::ReadError;
pub use event::{Event, EventBatch, EventKind, Order, RejectReason, Rejection};
pub use media::{MEDIA_ID_LETTERS, MEDIUM_IN_TEXT, MediaCounts, media_id};
pub use merge::{
    Merge, Merged, merge_observation, merge_score, merge_trace, split_observation, split_score, split_trace,
};
pub(crate) use merge::{observation_bits, score_bits, trace_bits};
pub use observation::{CostSource, Level, Observation, ObservationType, Status, TRUNCATED, UsageSource};
pub use repeated::{Report, repeated};
pub use score::{Score, ScoreDataType};
pub use trace::TraceFacts;

#[cfg(test)]
mod tests;
