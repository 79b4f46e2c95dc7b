//! From a model's name, as anyone may write it, to the book's model: all patterns in one automaton, answers remembered.

use std::collections::HashMap;
use std::sync::OnceLock;

use parking_lot::RwLock;
use regex::bytes::{RegexSet, RegexSetBuilder};

use super::error::PriceError;
use super::file::BookLimits;

/// Longer names are nobody's model.
pub(super) const NAME_BYTES_MAX: usize = 256;
/// Names remembered. Real tenants use tens; when a sender makes names up, all is forgotten and begins anew.
const REMEMBERED_MAX: usize = 4096;
/// Providers remembered for one name.
const REMEMBERED_PROVIDERS_MAX: usize = 16;
/// Of one pattern's automaton in memory.
const PATTERN_AUTOMATON_BYTES_MAX: usize = 1 << 20;

#[derive(Debug)]
pub(super) struct Finder {
    /// One automaton of all patterns; made when the first name is looked up, since it takes tens of megabytes.
    automaton: OnceLock<RegexSet>,
    patterns: Vec<String>,
    automaton_bytes_max: usize,
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
    pub(super) fn new(
        ids: Vec<String>,
        patterns: Vec<String>,
        providers: HashMap<String, String>,
        limits: BookLimits,
    ) -> Result<Self, PriceError> {
        let bytes: usize = patterns.iter().map(String::len).sum();
        if bytes > limits.pattern_bytes {
            return Err(PriceError::Patterns(format!(
                "{bytes} bytes of patterns are more than {}",
                limits.pattern_bytes
            )));
        }
        let automaton_bytes_max = limits.automaton_bytes;
        let (automaton, remembered) = (OnceLock::new(), RwLock::default());
        Ok(Self { automaton, patterns, automaton_bytes_max, ids, providers, remembered })
    }

    /// Makes the automaton now, to see that it fits.
    pub(super) fn build(&self) -> Result<(), PriceError> {
        let set = self.compile().map_err(|error| PriceError::Patterns(error.to_string()))?;
        // Made by somebody else meanwhile: the same.
        let _ = self.automaton.set(set);
        Ok(())
    }

    fn automaton(&self) -> &RegexSet {
        self.automaton.get_or_init(|| {
            // An automaton that does not fit prices nothing rather than something else.
            self.compile().unwrap_or_else(|error| {
                tracing::error!(%error, "the price book's patterns do not fit one automaton: nothing is priced");
                RegexSet::empty()
            })
        })
    }

    fn compile(&self) -> Result<RegexSet, regex::Error> {
        let mut builder = builder(&self.patterns);
        builder.size_limit(self.automaton_bytes_max).dfa_size_limit(self.automaton_bytes_max).build()
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

/// An error that says why this pattern, alone, does not compile.
pub(super) fn compiles(pattern: &str) -> Result<(), String> {
    let alone = builder(&[pattern.to_string()]).size_limit(PATTERN_AUTOMATON_BYTES_MAX).build();
    alone.map(drop).map_err(|error| format!("the pattern is no regular expression that is known here: {error}"))
}
