//! The tenant's own customer, project and flow, found in metadata.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// The metadata keys that name them; `*` at the front matches any beginning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DimensionKeys {
    pub account: String,
    pub project: String,
    pub flow: String,
}

impl Default for DimensionKeys {
    fn default() -> Self {
        Self { account: "tenant_id".into(), project: "*project_id".into(), flow: "*flow_id".into() }
    }
}

/// Longer names of metadata are no keys.
const KEY_BYTES_MAX: usize = 200;

/// One line.
impl fmt::Display for DimensionKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "account is metadata {:?}, project {:?}, flow {:?}", self.account, self.project, self.flow)
    }
}

impl DimensionKeys {
    /// Says which key is none, and why.
    pub fn check(&self) -> Result<(), String> {
        for (dimension, key) in [("account", &self.account), ("project", &self.project), ("flow", &self.flow)] {
            let why = match Self::matching(key) {
                "" => "is empty",
                name if name.contains('*') => "may have a * only at its front",
                name if name.len() > KEY_BYTES_MAX => "is longer than 200 bytes",
                _ => continue,
            };
            return Err(format!("the metadata key of {dimension} {why}"));
        }
        Ok(())
    }

    /// The value under `key`; of several keys that match a pattern, the first by name.
    pub fn find<'a>(key: &str, metadata: &'a BTreeMap<String, String>) -> Option<&'a str> {
        match key.strip_prefix('*') {
            None => metadata.get(key).map(String::as_str),
            Some(ending) => metadata.iter().find(|(name, _)| name.ends_with(ending)).map(|(_, value)| value.as_str()),
        }
    }

    /// A name that `key` matches.
    pub(super) fn matching(key: &str) -> &str {
        key.strip_prefix('*').unwrap_or(key)
    }
}
