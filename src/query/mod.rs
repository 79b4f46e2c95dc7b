//! The way out: SQL, metrics and traces over one tenant's tables.
//!
//! Promises: a question sees one tenant, by construction (I5); all that was acked before it on this node (I4), each row
//! once (I2); money to the last digit (I6); and it stops at a named limit of time, memory, rows or bytes (I7).
//! What can be answered by the roll-ups of merged files is, to the same last digit: `metrics::rollup` and
//! `metrics::trace_rows` say what that is, `summing` makes them for who merges, `rolled_up` reads them.
//! Must never know: the protocol it was asked by, or how rows come in.

mod bound;
mod bucket;
mod engine;
mod error;
mod footers;
mod functions;
mod guard;
mod inlining;
mod kept;
mod limits;
mod memory;
mod metrics;
mod patch;
mod provider;
mod prune;
pub mod records;
mod rolled_up;
mod running;
mod sensitive;
mod session;
mod shape;
mod stamp;
mod stream;
mod summing;
mod system_tables;
mod tenant;
mod traces;

pub use bound::Scope;
pub use engine::{Engine, TraceParts};
pub use error::QueryError;
pub use limits::{QueryLimits, SqlLimits};
pub use metrics::presets;
pub use shape::{metrics_shape, statement_shape};
pub use stream::SqlAnswer;
pub use summing::FileRollups;
pub use system_tables::{SYSTEM_TABLES, SystemTable};

#[cfg(test)]
mod tests;
