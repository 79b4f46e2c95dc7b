//! What can be wrong with a price book. Asking a price never fails: a model without one is simply unpriced.

use crate::base::Kind;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PriceError {
    #[error("the price book cannot be read: {0}")]
    Unreadable(String),
    #[error("the price book holds {models} models, the limit is {limit}")]
    TooMany { models: usize, limit: usize },
    #[error("the price book's version {0:?} is not allowed: use 1 to 64 letters, digits, '-', '_' and '.'")]
    Version(String),
    #[error("provider name {0:?} stands for two providers")]
    ProviderTwice(String),
    #[error("model {model:?} stands twice in the price book")]
    ModelTwice { model: String },
    #[error("model {model:?}: {why}")]
    Model { model: String, why: String },
    #[error("the price book's patterns are too large together: {0}")]
    Patterns(String),
}

impl PriceError {
    pub fn kind(&self) -> Kind {
        Kind::Invalid
    }
}
