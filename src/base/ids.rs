//! Ids that become path segments, checked once when they are made.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {value:?} is not allowed: use 1 to 63 of a-z, 0-9 and '-'")]
pub struct InvalidId {
    what: &'static str,
    value: String,
}

macro_rules! path_id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(value: &str) -> Result<Self, InvalidId> {
                let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
                if (1..=63).contains(&value.len()) && value.bytes().all(legal) {
                    Ok(Self(value.into()))
                } else {
                    Err(InvalidId { what: $what, value: value.chars().take(80).collect() })
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

path_id!(
    /// A tenant: the unit of isolation, and the prefix `tenants/{id}/` on the bucket. Never reused.
    TenantId,
    "tenant id"
);
path_id!(
    /// A writer: the owner of one log, `wal/{id}/`. Few and stable: a node keeps its id over restarts.
    WriterId,
    "writer id"
);
