//! Tokens counted from texts, for calls whose sender says no usage.
//!
//! Promises: a count is one that the model's provider would have made of these texts, as they are, or there is none. So nothing
//! is counted without the model's own vocabulary; of a call with images, sounds or tools, whose tokens no text shows; or of
//! a model that thinks before it answers, whose thoughts are paid for and not seen. Time grows with the text's length and
//! no faster, whatever the text.
//! Must never know: what an observation is, and what a token costs. Pure: no IO, no clock.

mod chat;
mod vocabulary;

pub use vocabulary::Vocabulary;

/// Longer texts are not counted: the largest of these models take a million tokens, of some four bytes each.
const TEXT_BYTES_MAX: usize = 4 << 20;

/// What a text comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    Tokens(i64),
    /// There is more to it than its texts, or it is not understood.
    Unknown,
}

impl Vocabulary {
    /// What a chat model was given: a text, or messages as JSON.
    pub fn count_prompt(self, text: &str) -> Count {
        self.within(text, chat::prompt)
    }

    /// What it answered: a text, or a message as JSON.
    pub fn count_answer(self, text: &str) -> Count {
        self.within(text, chat::answer)
    }

    /// What a model was given to embed: a text, or a JSON list of texts.
    pub fn count_embedded(self, text: &str) -> Count {
        self.within(text, chat::embedded)
    }

    fn within(self, text: &str, count: fn(Self, &str) -> Option<i64>) -> Count {
        let counted = if text.len() <= TEXT_BYTES_MAX { count(self, text) } else { None };
        counted.map_or(Count::Unknown, Count::Tokens)
    }
}

#[cfg(test)]
mod tests;
