//! How a medium is named, and how media are counted.

use std::collections::BTreeMap;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use super::RejectReason;

/// How what stands in a text for a medium that was taken out of it begins: Langfuse's clients write and look for it.
pub const MEDIUM_IN_TEXT: &str = "@@@langfuseMedia:";

/// Letters of a medium's id.
pub const MEDIA_ID_LETTERS: usize = 22;

/// The beginning of the hash of its bytes in URL-safe base64: what Langfuse's clients name a medium by, so that a reference
/// in a text and the object it leads to have one name.
pub fn media_id(sha256: &[u8]) -> String {
    let mut id = BASE64_URL_SAFE_NO_PAD.encode(sha256);
    id.truncate(MEDIA_ID_LETTERS);
    id
}

/// What became of the media of one request: the ledger counts them apart, as of the door [`MediaCounts::DOOR`].
/// `received` is the sum of the others.
#[derive(Clone, PartialEq, prost::Message)]
pub struct MediaCounts {
    #[prost(uint64, tag = "1")]
    pub received: u64,
    /// Their bytes came, and were kept.
    #[prost(uint64, tag = "2")]
    pub stored: u64,
    /// Their bytes were there already.
    #[prost(uint64, tag = "3")]
    pub merged: u64,
    /// Refused, by reason.
    #[prost(btree_map = "string, uint64", tag = "4")]
    pub rejected: BTreeMap<String, u64>,
}

impl MediaCounts {
    pub const DOOR: &str = "media";

    pub fn one_stored() -> Self {
        Self { received: 1, stored: 1, ..Self::default() }
    }

    pub fn one_merged() -> Self {
        Self { received: 1, merged: 1, ..Self::default() }
    }

    pub fn one_rejected(reason: RejectReason) -> Self {
        Self { received: 1, rejected: [(reason.as_str().to_owned(), 1)].into(), ..Self::default() }
    }
}
