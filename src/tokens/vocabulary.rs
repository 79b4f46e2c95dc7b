//! Which model has which vocabulary.

/// A byte-pair vocabulary that a maintained crate carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vocabulary {
    Cl100kBase,
    O200kBase,
}

/// Families of models, by how their names begin. As OpenAI's tiktoken assigns them (`tiktoken/model.py`), without the
/// models that think before they answer.
const FAMILIES: [(&str, Vocabulary); 10] = [
    ("gpt-4o", Vocabulary::O200kBase),
    ("chatgpt-4o", Vocabulary::O200kBase),
    ("gpt-4.1", Vocabulary::O200kBase),
    ("gpt-4.5", Vocabulary::O200kBase),
    ("gpt-4", Vocabulary::Cl100kBase),
    ("gpt-3.5-turbo", Vocabulary::Cl100kBase),
    // Azure's spelling.
    ("gpt-35-turbo", Vocabulary::Cl100kBase),
    ("text-embedding-3-small", Vocabulary::Cl100kBase),
    ("text-embedding-3-large", Vocabulary::Cl100kBase),
    ("text-embedding-ada-002", Vocabulary::Cl100kBase),
];

/// Members of these families that hear, speak or search: their texts are not all they are given.
const MORE_THAN_TEXT: [&str; 5] = ["audio", "realtime", "transcribe", "tts", "search"];

impl Vocabulary {
    /// By the model's name as a sender says it: with its provider before a slash, fine-tuned or not, dated or not.
    pub fn of(model: &str) -> Option<Self> {
        let name = model.rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
        let name = name.strip_prefix("ft:").unwrap_or(&name);
        let is_of = |family: &str| {
            let rest = name.strip_prefix(family);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', ':', '@']))
        };
        let (_, vocabulary) = FAMILIES.into_iter().find(|(family, _)| is_of(family))?;
        let is_text_only = !MORE_THAN_TEXT.iter().any(|word| name.split(['-', ':']).any(|part| part == *word));
        is_text_only.then_some(vocabulary)
    }

    /// Tokens of this very text. The first call for a vocabulary loads it: some 20 MiB and a tenth of a second.
    pub(super) fn tokens(self, text: &str) -> i64 {
        let tokenizer = match self {
            Self::Cl100kBase => bpe_openai::cl100k_base(),
            Self::O200kBase => bpe_openai::o200k_base(),
        };
        tokenizer.count(text) as i64
    }
}
