//! A tenant's rules, ready to run over texts.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::ops::Range;

use hmac::{Hmac, Mac};
use regex::{Regex, RegexBuilder};
use sha2::Sha256;

use super::built_in::BuiltIn;
use super::json;
use super::path::{AttributePath, Field, Way};
use super::rules::{Find, MaskingAction, MaskingRule};

/// What a tenant's own expression may take when it is compiled: it is run over every text.
const PATTERN_COMPILED_BYTES_MAX: usize = 256 << 10;
/// Of a hash, as it stands in a text.
const HASH_BYTES: usize = 16;

/// The places of the rules that found something.
pub(super) type Kinds = BTreeSet<usize>;

#[derive(Debug)]
pub struct Mask {
    rules: Vec<Rule>,
    hasher: Hmac<Sha256>,
}

#[derive(Debug)]
struct Rule {
    name: String,
    action: MaskingAction,
    finder: Finder,
}

#[derive(Debug)]
enum Finder {
    BuiltIn(BuiltIn),
    Pattern(Regex),
    Path(AttributePath),
}

/// What becomes of a value that a path leads to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Become {
    Nothing,
    Text(String),
}

impl Mask {
    /// `secret`: what hashes are keyed with. Refuses rules that cannot be run, with a sentence that says why.
    pub fn new(rules: &[MaskingRule], secret: &str) -> Result<Self, String> {
        let compiled = |MaskingRule { name, find, action }: &MaskingRule| {
            let finder = match find {
                Find::BuiltIn => BuiltIn::from_word(name).map(Finder::BuiltIn).ok_or_else(|| {
                    format!("there is no rule {name:?}: tracelake brings along {}", super::BUILT_IN.join(", "))
                })?,
                Find::Pattern(pattern) => {
                    Finder::Pattern(pattern_of(pattern).map_err(|e| format!("rule {name}: {e}"))?)
                }
                Find::Path(path) => Finder::Path(AttributePath::parse(path).map_err(|e| format!("rule {name}: {e}"))?),
            };
            Ok::<_, String>(Rule { name: name.clone(), action: *action, finder })
        };
        let hasher = Hmac::new_from_slice(secret.as_bytes()).expect("HMAC takes keys of any length");
        Ok(Self { rules: rules.iter().map(compiled).collect::<Result<_, _>>()?, hasher })
    }

    /// The names of the rules that found something: sorted, each once.
    pub(super) fn names(&self, kinds: &Kinds) -> Vec<String> {
        let names: BTreeSet<&str> = kinds.iter().map(|at| self.rules[*at].name.as_str()).collect();
        names.into_iter().map(str::to_owned).collect()
    }

    /// The paths that lead to or below `field`.
    pub(super) fn ways(&self, field: Field) -> Vec<Way<'_>> {
        self.rules
            .iter()
            .enumerate()
            .filter_map(|(rule, one)| match &one.finder {
                Finder::Path(path) if path.field == field => Some(Way { rule, left: &path.below }),
                _ => None,
            })
            .collect()
    }

    /// What becomes of `text` if one of `ways` has arrived at it and does not leave it.
    pub(super) fn arrived(&self, text: &str, ways: &[Way<'_>], kinds: &mut Kinds) -> Option<Become> {
        if text.is_empty() {
            return None;
        }
        let mut outcome = None;
        for way in ways.iter().filter(|way| way.left.is_empty()) {
            kinds.insert(way.rule);
            let action = self.rules[way.rule].action;
            if outcome.is_none() && action != MaskingAction::Detect {
                outcome = Some(match action {
                    MaskingAction::Drop => Become::Nothing,
                    _ => Become::Text(self.in_place_of(way.rule, text)),
                });
            }
        }
        outcome
    }

    /// `text`, which may be JSON, without what rules find in it; `None`: it stays as it is.
    pub(super) fn text(&self, text: &str, ways: &[Way<'_>], kinds: &mut Kinds) -> Option<String> {
        json::masked(self, text, ways, kinds, 0)
    }

    /// As [`Mask::text`], of text that is not JSON.
    pub(super) fn plain(&self, text: &str, kinds: &mut Kinds) -> Option<String> {
        let mut hits: Vec<(Range<usize>, usize)> = Vec::new();
        let mut found = Vec::new();
        for (at, rule) in self.rules.iter().enumerate() {
            match &rule.finder {
                Finder::BuiltIn(kind) => kind.find(text, &mut found),
                Finder::Pattern(pattern) => {
                    found.extend(pattern.find_iter(text).map(|hit| hit.range()).filter(|range| !range.is_empty()));
                }
                Finder::Path(_) => {}
            }
            if !found.is_empty() {
                kinds.insert(at);
            }
            let stays = rule.action == MaskingAction::Detect;
            hits.extend(found.drain(..).filter(|_| !stays).map(|range| (range, at)));
        }
        if hits.is_empty() {
            return None;
        }
        hits.sort_by_key(|(range, rule)| (range.start, Reverse(range.end), *rule));
        let mut masked = String::with_capacity(text.len());
        let mut copied = 0;
        let mut hits = hits.into_iter().peekable();
        while let Some((mut range, rule)) = hits.next() {
            // What overlaps goes with it, whoever found it.
            while let Some((next, _)) = hits.next_if(|(next, _)| next.start < range.end) {
                range.end = range.end.max(next.end);
            }
            masked.push_str(&text[copied..range.start]);
            masked.push_str(&self.in_place_of(rule, &text[range.clone()]));
            copied = range.end;
        }
        masked.push_str(&text[copied..]);
        Some(masked)
    }

    fn in_place_of(&self, rule: usize, found: &str) -> String {
        let Rule { name, action, finder } = &self.rules[rule];
        match action {
            MaskingAction::Drop => String::new(),
            MaskingAction::Detect => found.to_owned(),
            MaskingAction::Redact => format!("[{name}]"),
            MaskingAction::Hash => {
                let mut hasher = self.hasher.clone();
                match finder {
                    Finder::BuiltIn(kind) => hasher.update(kind.plain(found).as_bytes()),
                    _ => hasher.update(found.as_bytes()),
                }
                format!("{name}_{}", hex::encode(&hasher.finalize().into_bytes()[..HASH_BYTES]))
            }
        }
    }
}

fn pattern_of(pattern: &str) -> Result<Regex, String> {
    let built = RegexBuilder::new(pattern)
        .size_limit(PATTERN_COMPILED_BYTES_MAX)
        .dfa_size_limit(PATTERN_COMPILED_BYTES_MAX)
        .build();
    let compiled = built.map_err(|e| match e {
        regex::Error::CompiledTooBig(bytes) => format!("its expression takes more than {bytes} bytes when compiled"),
        other => other.to_string(),
    })?;
    match compiled.is_match("") {
        true => Err("its expression finds nothing at all in every text: say what must be there".to_owned()),
        false => Ok(compiled),
    }
}
