//! From a model's name, as anyone may write it, to the book's model: all patterns in one automaton, answers remembered.

use std::collections::HashMap;
use std::sync::OnceLock;

use parking_lot::RwLock;
use regex::bytes::{RegexSet, RegexSetBuilder};

use super::error::PriceError;

/// Longer names are nobody's model.
pub(super) const NAME_BYTES_MAX: usize = 256;
/// Names remembered. Real tenants use tens; when a sender makes names up, all is forgotten and begins anew.
const REMEMBERED_MAX: usize = 4096;
/// Providers remembered for one name.
const REMEMBERED_PROVIDERS_MAX: usize = 16;
/// Of the automaton in memory.
const AUTOMATON_BYTES_MAX: usize = 64 << 20;
/// Of all patterns as text: the built-in book has 58 KB, which fit the automaton five times.
const PATTERNS_BYTES_MAX: usize = 256 << 10;

#[derive(Debug)]
pub(super) struct Finder {
    /// One automaton of all patterns; made when the first name is looked up, since it takes tens of megabytes.
    automaton: OnceLock<RegexSet>,
    patterns: Vec<String>,
    /// In the order of the patterns.
    ids: Vec<String>,
    /// A provider's names in lower case, to the prefix that its own models have in the book.
    providers: HashMap<String, String>,
    remembered: RwLock<HashMap<Box<str>, Vec<Remembered>>>,
}

#[derive(Debug)]
struct Remembered {
    provider: Option<Box<str>>,
    found: Option<usize>,
}

impl Finder {
    /// The patterns have compiled one by one, and fit one automaton together if they are no longer than
    /// [`PATTERNS_BYTES_MAX`].
    pub(super) fn new(
        ids: Vec<String>,
        patterns: Vec<String>,
        providers: HashMap<String, String>,
    ) -> Result<Self, PriceError> {
        let bytes: usize = patterns.iter().map(String::len).sum();
        if bytes > PATTERNS_BYTES_MAX {
            return Err(PriceError::Patterns(format!("{bytes} bytes of patterns are more than {PATTERNS_BYTES_MAX}")));
        }
        Ok(Self { automaton: OnceLock::new(), patterns, ids, providers, remembered: RwLock::default() })
    }

    fn automaton(&self) -> &RegexSet {
        self.automaton.get_or_init(|| {
            let mut builder = builder(&self.patterns);
            let set = builder.size_limit(AUTOMATON_BYTES_MAX).dfa_size_limit(AUTOMATON_BYTES_MAX).build();
            // An automaton that does not fit prices nothing rather than something else.
            set.unwrap_or_else(|error| {
                tracing::error!(%error, "the price book's patterns do not fit one automaton: nothing is priced");
                RegexSet::empty()
            })
        })
    }

    /// The index of the model that `name` stands for: the one with exactly this id, else the most specific (longest)
    /// id among those whose patterns match. A provider's own entry, `provider/name`, is more specific than `name`.
    pub(super) fn find(&self, name: &str, provider: Option<&str>) -> Option<usize> {
        let name = name.trim();
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            return None;
        }
        let provider = provider.filter(|provider| !provider.is_empty() && provider.len() <= NAME_BYTES_MAX);
        if let Some(found) = self.recall(name, provider) {
            return found;
        }
        let found = self.search(name, provider);
        self.remember(name, provider, found);
        found
    }

    fn search(&self, name: &str, provider: Option<&str>) -> Option<usize> {
        let owned = provider.and_then(|provider| self.prefix(provider)).map(|prefix| format!("{prefix}/{name}"));
        let names = [owned.as_deref(), Some(name)];
        let rank = |index: usize| {
            let id = &self.ids[index];
            let exact = names.iter().flatten().any(|name| name.eq_ignore_ascii_case(id));
            (exact, id.len(), std::cmp::Reverse(index))
        };
        let matches = names.iter().flatten().flat_map(|name| self.automaton().matches(name.as_bytes()));
        matches.max_by_key(|index| rank(*index))
    }

    /// `openai.chat` is said by some senders for `openai`.
    fn prefix(&self, provider: &str) -> Option<&str> {
        let provider = provider.trim().to_ascii_lowercase();
        let family = provider.split('.').next().unwrap_or_default();
        self.providers.get(&provider).or_else(|| self.providers.get(family)).map(String::as_str)
    }

    fn recall(&self, name: &str, provider: Option<&str>) -> Option<Option<usize>> {
        let remembered = self.remembered.read();
        let answers = remembered.get(name)?;
        answers.iter().find(|answer| answer.provider.as_deref() == provider).map(|answer| answer.found)
    }

    fn remember(&self, name: &str, provider: Option<&str>, found: Option<usize>) {
        let mut remembered = self.remembered.write();
        if remembered.len() >= REMEMBERED_MAX {
            remembered.clear();
        }
        let answers = remembered.entry(name.into()).or_default();
        if answers.len() >= REMEMBERED_PROVIDERS_MAX {
            answers.clear();
        }
        answers.push(Remembered { provider: provider.map(Into::into), found });
    }
}

/// A pattern stands for whole names, whether it says so or not. Names are ASCII in practice; bytes instead of Unicode
/// classes keep a thousand patterns small.
fn builder(patterns: &[String]) -> RegexSetBuilder {
    let mut builder = RegexSetBuilder::new(patterns.iter().map(|pattern| format!("^(?:{pattern})$")));
    builder.unicode(false).case_insensitive(true);
    builder
}

/// Does this pattern, alone, compile and match this id?
pub(super) fn matches_own_id(pattern: &str, id: &str) -> Result<bool, String> {
    let alone = builder(&[pattern.to_string()]).size_limit(1 << 20).build().map_err(|error| error.to_string())?;
    Ok(alone.is_match(id.as_bytes()))
}
