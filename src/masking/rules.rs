//! Rules as a tenant sets them: what to find, and what becomes of it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::built_in::BuiltIn;
use super::mask::Mask;

/// Rules of one tenant. Each is run over each text.
const RULES_MAX: usize = 50;
/// Of an expression or a path.
const FIND_BYTES_MAX: usize = 1_000;
const NAME_BYTES_MAX: usize = 40;

/// The names of the rules that tracelake brings along.
pub const BUILT_IN: [&str; 5] = ["email", "phone", "cpf", "credit_card", "api_key"];

/// One rule. Its name stands in `sensitive_kinds`, and in the text in place of what was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MaskingRule {
    pub name: String,
    pub find: Find,
    pub action: MaskingAction,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Find {
    /// What the rule's name says; one of [`BUILT_IN`].
    BuiltIn,
    /// A regular expression.
    Pattern(String),
    /// Where it stands: a field, or a key below `metadata`, `attributes`, `input` or `output`, with dots between.
    Path(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MaskingAction {
    /// It goes without a trace.
    Drop,
    /// A keyed hash stands in its place: equal texts of one tenant stay equal.
    Hash,
    /// Its kind stands in its place.
    Redact,
    /// It stays, and the row says that it is there.
    Detect,
}

impl MaskingAction {
    const ALL: [Self; 4] = [Self::Drop, Self::Hash, Self::Redact, Self::Detect];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Drop => "drop",
            Self::Hash => "hash",
            Self::Redact => "redact",
            Self::Detect => "detect",
        }
    }
}

impl FromStr for MaskingAction {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|action| action.as_str() == word);
        known.ok_or_else(|| format!("{word:?} is not an action: use drop, hash, redact or detect"))
    }
}

/// As the command line lists it: `badge=hash:pattern \bB-\d{6}\b`.
impl fmt::Display for MaskingRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name, self.action.as_str())?;
        match &self.find {
            Find::BuiltIn => Ok(()),
            Find::Pattern(pattern) => write!(f, ":pattern {pattern}"),
            Find::Path(path) => write!(f, ":path {path}"),
        }
    }
}

/// Refuses rules that cannot be run, or could not be told apart, with a sentence that says why.
pub fn check(rules: &[MaskingRule]) -> Result<(), String> {
    if rules.len() > RULES_MAX {
        return Err(format!("a tenant may have {RULES_MAX} masking rules, not {}", rules.len()));
    }
    for (at, MaskingRule { name, find, .. }) in rules.iter().enumerate() {
        let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(is_word) {
            return Err(format!(
                "{name:?} cannot name a masking rule: use at most {NAME_BYTES_MAX} small letters, digits and _"
            ));
        }
        if rules[..at].iter().any(|before| before.name == *name) {
            return Err(format!("two masking rules are named {name}"));
        }
        if *find != Find::BuiltIn && BuiltIn::from_word(name).is_some() {
            return Err(format!("{name} is a rule that tracelake brings along: choose another name"));
        }
        if let Find::Pattern(text) | Find::Path(text) = find
            && (text.is_empty() || text.len() > FIND_BYTES_MAX)
        {
            return Err(format!("rule {name}: what it finds has 1 to {FIND_BYTES_MAX} bytes, not {}", text.len()));
        }
    }
    Mask::new(rules, "").map(drop)
}
