//! What an erasure is, at rest.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fmt::Write;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{SUBJECT_BYTES_MAX, SUBJECTS_MAX};
use crate::base::{TenantId, TimestampUs};
use crate::catalog::system::{Result, SystemError};

/// What is forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ErasureKind {
    Trace,
    /// With the traces that belong to it.
    Session,
    /// With the traces that belong to it.
    User,
    /// All of it.
    Tenant,
    /// By its id.
    Score,
}

impl ErasureKind {
    pub const ALL: [Self; 5] = [Self::Trace, Self::Session, Self::User, Self::Tenant, Self::Score];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Session => "session",
            Self::User => "user",
            Self::Tenant => "tenant",
            Self::Score => "score",
        }
    }
}

impl FromStr for ErasureKind {
    type Err = SystemError;

    fn from_str(text: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|kind| kind.as_str() == text);
        let unknown =
            || SystemError::Invalid(format!("{text:?} is not erased: trace, session, user, tenant and score are"));
        found.ok_or_else(unknown)
    }
}

impl fmt::Display for ErasureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is asked.
#[derive(Debug, Clone)]
pub struct NewErasure {
    pub tenant: TenantId,
    pub kind: ErasureKind,
    /// Keys of that kind, in clear.
    pub values: Vec<String>,
    /// The public key that asked.
    pub asked_by: String,
    /// The hashes of the traces that belong to it, as far as they are known.
    pub traces: BTreeSet<u64>,
}

impl NewErasure {
    pub(super) fn check(&self) -> Result<()> {
        let invalid = |why: String| Err(SystemError::Invalid(why));
        if self.values.is_empty() || self.values.iter().any(String::is_empty) {
            return invalid(format!("which {} is to be erased? Its id is empty", self.kind));
        }
        if self.values.len() > SUBJECTS_MAX {
            return invalid(format!(
                "{} ids at once; at most {SUBJECTS_MAX} are erased by one call",
                self.values.len()
            ));
        }
        if self.values.iter().any(|value| value.len() > SUBJECT_BYTES_MAX) {
            return invalid(format!("an id longer than {SUBJECT_BYTES_MAX} bytes is none of ours"));
        }
        Ok(())
    }
}

/// What was asked, as it stands in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Erasure {
    pub number: u64,
    pub id: String,
    pub tenant: String,
    pub kind: ErasureKind,
    /// Traces, tenants and scores by their ids, sessions and users by their digests.
    pub subjects: Vec<String>,
    pub asked_by: String,
    pub asked_us: TimestampUs,
    /// Until then what is said about it is refused.
    pub until_us: TimestampUs,
    /// The hashes of the traces that go with it.
    pub traces: BTreeSet<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ErasureState {
    /// Written down: in force on every node within two seconds.
    Asked,
    /// No answer shows it.
    Masked,
    /// No live file holds it.
    Rewritten,
    /// No object holds it, and there is a receipt.
    Done,
}

impl ErasureState {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::Masked => "masked",
            Self::Rewritten => "rewritten",
            Self::Done => "done",
        }
    }
}

/// One erasure and its course.
#[derive(Debug, Clone)]
pub struct ErasureStatus {
    pub erasure: Arc<Erasure>,
    pub state: ErasureState,
    pub rewritten_us: Option<TimestampUs>,
    pub done_us: Option<TimestampUs>,
    /// Taken out, by table.
    pub rows: BTreeMap<String, u64>,
    /// Written again.
    pub files: u64,
    /// Objects that may have held it when no live one did any more.
    pub copies: u64,
}

/// What one process took out of its answers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Masked {
    pub at_us: TimestampUs,
    /// By table. Rows that were in no file yet are among them.
    pub rows: BTreeMap<String, u64>,
}

/// No live object holds it; what is left are copies that are not read any more.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rewritten {
    pub at_us: TimestampUs,
    pub files: u64,
    pub rows: BTreeMap<String, u64>,
    /// Objects that may hold it still: data, index and late objects that are not live, and log objects.
    pub copies: u64,
    /// By log, the last object that may hold it.
    pub logs: BTreeMap<String, u64>,
}

/// The last word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    pub id: String,
    pub tenant: String,
    pub kind: ErasureKind,
    pub subjects: Vec<String>,
    pub asked_by: String,
    pub asked_us: TimestampUs,
    pub rewritten_us: TimestampUs,
    /// When the last copy was seen to be gone.
    pub done_us: TimestampUs,
    pub rows: BTreeMap<String, u64>,
    pub files_rewritten: u64,
    /// Objects that held it, or may have, after no live one did; all are gone.
    pub copies_gone: u64,
}

/// The digest of a key: the same for ever, and of no use to anyone who does not have the key.
pub fn digest(tenant: &str, kind: ErasureKind, value: &str) -> String {
    let mut hash = Sha256::new();
    for part in ["tracelake erasure", tenant, kind.as_str(), value] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    let mut text = "sha256:".to_owned();
    for byte in hash.finalize() {
        _ = write!(text, "{byte:02x}");
    }
    text
}
