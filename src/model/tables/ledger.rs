//! `ledger`: the books (I9). Rows add up: per day and door, received = stored + merged + rejected + erased + still
//! buffered. What was erased from files had been stored: receipts say how much that was.

use super::Column;
use super::columns::{self as fill, ColumnType as T};
use crate::base::TimestampUs;

pub(super) const COMMENT: &str = "The books: sum(count) by day, door and outcome. received = stored + merged + rejected + erased, once all is flushed.";

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LedgerRow {
    pub ingested_at_us: TimestampUs,
    pub door: String,
    pub outcome: &'static str,
    pub reason: Option<String>,
    pub count: i64,
}

// One column a line.
#[rustfmt::skip]
pub const LEDGER: &[Column<LedgerRow>] = &[
    Column { name: "ingested_at", kind: T::Timestamp, comment: "The stamp of the log object that held the requests counted.", fill: |r| fill::timestamp(r, |r| Some(r.ingested_at_us)) },
    Column { name: "door", kind: T::Text, comment: "otlp-grpc, otlp-http, tracelake-grpc, langfuse-http; media, by whichever door.", fill: |r| fill::text(r, |r| Some(&r.door)) },
    Column { name: "outcome", kind: T::Text, comment: "received, stored, merged, rejected, or erased before it was stored.", fill: |r| fill::text(r, |r| Some(r.outcome)) },
    Column { name: "reason", kind: T::Text, comment: "Why it was rejected.", fill: |r| fill::text(r, |r| r.reason.as_deref()) },
    Column { name: "count", kind: T::Long, comment: "Observations and scores; media of the door media.", fill: |r| fill::long(r, |r| Some(r.count)) },
];
