//! Late objects: what came about rows that stand in files already, until a fold brings it into the files.
//!
//! A table's commit makes one live, or retires it, by a `txn` action whose application is a slot of ours: atomically with
//! the files and positions of that commit, and without a meaning for other readers.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message;

use super::Result;
use super::envelope::Envelope;
use crate::base::Day;
use crate::model::TraceFacts;

const ENVELOPE: Envelope = Envelope { what: "late object", magic: b"TLLAT", version: 1 };

/// The newest version this tracelake writes and reads.
#[derive(Clone, PartialEq, Message)]
pub struct LateObject {
    #[prost(string, tag = "1")]
    pub table: String,
    /// Whole rows, by home day: each stands for the row of a file with the same key.
    #[prost(message, repeated, tag = "2")]
    pub days: Vec<LateDay>,
    /// Of `observations`: what is said about traces now, to be stamped onto their rows in files. One per trace.
    #[prost(message, repeated, tag = "3")]
    pub facts: Vec<TraceFacts>,
    /// Rows of files with these keys are gone, and nothing stands for them.
    #[prost(message, repeated, tag = "4")]
    pub removed: Vec<RemovedKey>,
}

#[derive(Clone, PartialEq, Message)]
pub struct LateDay {
    /// Days since 1970-01-01.
    #[prost(int32, tag = "1")]
    day: i32,
    /// A Parquet file of the table, as a data file of that day would be.
    #[prost(bytes = "bytes", tag = "2")]
    pub rows: Bytes,
    #[prost(uint64, tag = "3")]
    pub count: u64,
}

#[derive(Clone, PartialEq, Message)]
pub struct RemovedKey {
    /// The values of the table's key columns.
    #[prost(string, repeated, tag = "1")]
    pub parts: Vec<String>,
}

impl LateDay {
    pub fn new(day: Day, rows: Bytes, count: u64) -> Self {
        Self { day: day.days(), rows, count }
    }

    pub fn day(&self) -> Day {
        Day::from_days(self.day)
    }
}

impl LateObject {
    pub fn encode_object(&self) -> Bytes {
        ENVELOPE.encode(self)
    }

    pub fn decode_object(object: Bytes) -> Result<Self> {
        ENVELOPE.decode(object)
    }

    pub fn is_empty(&self) -> bool {
        self.days.is_empty() && self.facts.is_empty() && self.removed.is_empty()
    }
}

/// The slots of a table: which late object each makes live. Slots are used again, so that a table's log does not grow
/// with the number of late objects it ever had.
pub type LateSlots = BTreeMap<u32, u64>;

const SLOT_PREFIX: &str = "tracelake-late/";

/// The application id of a slot's `txn` actions.
pub fn slot_app_id(slot: u32) -> String {
    format!("{SLOT_PREFIX}{slot}")
}

/// The slot of a `txn` action, if it is one of these.
pub fn slot_of_app_id(app_id: &str) -> Option<u32> {
    app_id.strip_prefix(SLOT_PREFIX)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_object_reads_as_it_was_written_and_damage_is_an_error() {
        let object = LateObject {
            table: "observations".into(),
            days: vec![LateDay::new(Day::from_days(3), Bytes::from_static(b"PAR1"), 1)],
            facts: vec![TraceFacts { trace_id: "t".into(), user_id: Some("ada".into()), ..Default::default() }],
            removed: vec![RemovedKey { parts: vec!["t".into(), "a".into()] }],
        };
        let bytes = object.encode_object();
        assert_eq!(LateObject::decode_object(bytes.clone()).unwrap(), object);
        let mut damaged = bytes.to_vec();
        let last = damaged.len() - 1;
        damaged[last] ^= 1;
        assert!(LateObject::decode_object(damaged.into()).is_err());
        assert_eq!(slot_of_app_id(&slot_app_id(7)), Some(7));
        assert_eq!(slot_of_app_id("tracelake/main"), None);
    }
}
