//! What a node does. Roles are wiring: the same binary, more or fewer rooms running.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NodeRole {
    Ingest,
    Query,
    Compact,
}

const ALL: [(NodeRole, &str); 3] =
    [(NodeRole::Ingest, "ingest"), (NodeRole::Query, "query"), (NodeRole::Compact, "compact")];

/// At least one role; by default all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRoles(BTreeSet<NodeRole>);

impl NodeRoles {
    pub fn has(&self, role: NodeRole) -> bool {
        self.0.contains(&role)
    }

    fn named<'a>(names: impl Iterator<Item = &'a str>) -> Result<Self, String> {
        let mut roles = BTreeSet::new();
        for name in names.map(str::trim).filter(|name| !name.is_empty()) {
            match ALL.iter().find(|(_, known)| *known == name) {
                Some((role, _)) => _ = roles.insert(*role),
                None if name == "all" => roles.extend(ALL.map(|(role, _)| role)),
                None => return Err(format!("{name:?} is not a role: use all, or a list of ingest, query, compact")),
            }
        }
        match roles.is_empty() {
            true => Err("a node needs a role: all, or a list of ingest, query, compact".to_owned()),
            false => Ok(Self(roles)),
        }
    }
}

impl Default for NodeRoles {
    fn default() -> Self {
        Self(ALL.map(|(role, _)| role).into())
    }
}

impl FromStr for NodeRoles {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::named(text.split(','))
    }
}

impl fmt::Display for NodeRoles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.len() == ALL.len() {
            return f.write_str("all");
        }
        let names: Vec<&str> = ALL.iter().filter(|(role, _)| self.has(*role)).map(|(_, name)| *name).collect();
        f.write_str(&names.join(","))
    }
}

/// In a file: the same text, or a list of names.
impl<'de> serde::Deserialize<'de> for NodeRoles {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(serde::Deserialize)]
        #[serde(untagged)]
        enum Written {
            Text(String),
            List(Vec<String>),
        }
        let roles = match Written::deserialize(deserializer)? {
            Written::Text(text) => text.parse(),
            Written::List(names) => Self::named(names.iter().map(String::as_str)),
        };
        roles.map_err(serde::de::Error::custom)
    }
}
