//! Bytes at rest: log objects, Delta commits, Parquet files, roll-ups, `_index` and late objects.
//!
//! Promises: what is written carries magic, version and checksum; old versions stay readable for ever, an unknown newer
//! one is refused by name; damaged bytes are an error, never silently less.
//! Must never know: where bytes are stored, when, or by whom. Pure: no IO, no clock.

pub mod checkpoint;
pub mod delta;
mod envelope;
pub mod index;
pub mod late;
pub mod log;
pub mod parquet;
pub mod rollup;

/// Bytes that are not what we wrote, or from a version this one does not know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    #[error("{what} has version {found}; this tracelake reads up to {known}")]
    Newer { what: &'static str, found: u16, known: u16 },
    /// The end is missing: what a crash in the middle of a write leaves.
    #[error("{what} is torn: {detail}")]
    Torn { what: &'static str, detail: String },
    #[error("{what} is corrupt: {detail}")]
    Corrupt { what: &'static str, detail: String },
}

pub type Result<T, E = FormatError> = std::result::Result<T, E>;
