//! Masking at the door: what a tenant's rules find in a request is dropped, hashed, redacted or only named, before
//! anything is written.
//!
//! Promises: what a rule drops, hashes or redacts is in no event that leaves this room, so that neither the log nor a
//! file ever holds it; JSON stays JSON, and what no rule finds stays as it was, byte for byte; work grows with the size
//! of the text alone (rules are bounded, and their expressions run in linear time); never panics on any input. Equal
//! texts of one tenant get equal hashes, those of two tenants do not.
//! Must never know: where settings are kept, the wire a request came by. Pure: no IO, no clock.
//!
//! Looked at: input, output, stack traces and status messages, metadata, attributes and model parameters (keys and
//! values), names, tags, users and sessions, comments and text values of scores. Not looked at: ids of traces,
//! observations and scores, without which nothing merges, and the words that say what software ran (models, versions,
//! environments, SDKs).

mod built_in;
mod events;
mod json;
mod mask;
mod path;
mod rules;

#[cfg(test)]
mod tests;

pub use mask::Mask;
pub use rules::{BUILT_IN, Find, MaskingAction, MaskingRule, check};
