//! The tenant's own customer, project and flow, found in metadata.

use std::collections::BTreeMap;

/// The metadata keys that name them; `*` at the front matches any beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
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

impl DimensionKeys {
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
