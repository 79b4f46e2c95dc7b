//! What can go wrong with a question. Messages name the limit or the field, never a path and never a tenant.

use std::error::Error;
use std::time::Duration;

use datafusion::arrow::error::ArrowError;
use datafusion::error::DataFusionError;

use crate::base::{ByteSize, Kind};
use crate::catalog::CatalogError;
use crate::store::StoreError;

#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    #[error("{0}")]
    Invalid(String),
    #[error("{0}")]
    NotFound(&'static str),
    #[error("this connection only reads: {0}")]
    ReadOnly(String),
    /// `name` is `time`, `memory`, `rows`, `result bytes` or `spill`.
    #[error("the limit `{name}` of a query ({value}) is reached: {advice}")]
    Limit { name: &'static str, value: String, advice: &'static str },
    /// The server is full, not the question wrong: the same question may be asked again later.
    #[error("the limit `{name}` of this server ({value}) is reached: ask again in a moment")]
    Busy { name: &'static str, value: String },
    #[error("the tables cannot be read now: {0}")]
    Unavailable(String),
    /// Its own words name paths: they are for the log.
    #[error("the tables cannot be read now")]
    Catalog(#[from] CatalogError),
    /// What the question had pinned was deleted under it: it took longer than removed files are kept.
    #[error("a file of the table was retired while it was read: ask again")]
    Gone,
    #[error("a mistake of ours: {0}")]
    Internal(String),
}

impl QueryError {
    pub fn kind(&self) -> Kind {
        match self {
            Self::Invalid(_) => Kind::Invalid,
            Self::NotFound(_) => Kind::NotFound,
            Self::ReadOnly(_) => Kind::Forbidden,
            Self::Limit { .. } => Kind::LimitReached,
            Self::Busy { .. } | Self::Unavailable(_) | Self::Gone => Kind::Unavailable,
            Self::Catalog(e) => e.kind(),
            Self::Internal(_) => Kind::Internal,
        }
    }

    /// Whether an object it needed is not there any more: over the tables as they stand now it may be answered.
    pub(super) fn is_gone(&self) -> bool {
        match self {
            Self::Gone => true,
            Self::Catalog(error) => names_missing(error),
            _ => false,
        }
    }

    /// Whether a file, or the store that has it, is why there is no answer.
    pub(super) fn says_of_a_file(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }

    /// The limit that was reached, by name.
    pub fn limit(&self) -> Option<&'static str> {
        match self {
            Self::Limit { name, .. } | Self::Busy { name, .. } => Some(name),
            _ => None,
        }
    }

    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::Invalid(message.into())
    }
    pub(super) fn time(limit: Duration) -> Self {
        let advice = "ask for a shorter range, fewer groups or fewer rows";
        Self::Limit { name: "time", value: format!("{} ms", limit.as_millis()), advice }
    }
    pub(super) fn memory(limit: ByteSize) -> Self {
        let advice = "ask for a shorter range, fewer groups or fewer columns";
        Self::Limit { name: "memory", value: limit.to_string(), advice }
    }
    pub(super) fn memory_all(limit: ByteSize) -> Self {
        Self::Busy { name: "memory of all queries", value: limit.to_string() }
    }
    pub(super) fn rows(limit: u64) -> Self {
        Self::Limit { name: "rows", value: limit.to_string(), advice: "add a LIMIT, a filter or a wider bucket" }
    }
    pub(super) fn result_bytes(limit: ByteSize) -> Self {
        let advice = "ask for fewer rows or narrower columns";
        Self::Limit { name: "result bytes", value: limit.to_string(), advice }
    }
}

/// What the engine says, in our words. `memory` is the limit to name when memory was refused.
pub(super) fn translate(error: DataFusionError, memory: QueryError) -> QueryError {
    if let Some(own) = own_error(&error) {
        return own;
    }
    let root = error.find_root();
    let text = root.to_string();
    if names_missing(&error) || (is_of_a_file(root) && says_missing(&text)) {
        return QueryError::Gone;
    }
    match root {
        DataFusionError::ResourcesExhausted(message) if message.contains("disk space") => {
            QueryError::Limit { name: "spill", value: clean(&text), advice: "ask for a shorter range or fewer groups" }
        }
        DataFusionError::ResourcesExhausted(_) => memory,
        DataFusionError::Internal(_) | DataFusionError::ExecutionJoin(_) => QueryError::Internal(clean(&text)),
        DataFusionError::ObjectStore(_) | DataFusionError::IoError(_) => {
            QueryError::Unavailable("the store did not answer".to_owned())
        }
        DataFusionError::ParquetError(_) => QueryError::Unavailable("a file could not be read".to_owned()),
        DataFusionError::ArrowError(inner, _) => match inner.as_ref() {
            ArrowError::IoError(..) => QueryError::Unavailable("the store did not answer".to_owned()),
            ArrowError::ParquetError(_) => QueryError::Unavailable("a file could not be read".to_owned()),
            ArrowError::ExternalError(_) => QueryError::Unavailable("a file could not be read".to_owned()),
            _ => QueryError::Invalid(clean(&text)),
        },
        DataFusionError::External(_) => QueryError::Unavailable("the tables could not be read".to_owned()),
        _ => QueryError::Invalid(clean(&text)),
    }
}

/// Whether it comes of an object that is not in the store.
fn names_missing(error: &(dyn Error + 'static)) -> bool {
    let missing = |error: &(dyn Error + 'static)| {
        matches!(error.downcast_ref(), Some(object_store::Error::NotFound { .. }))
            || matches!(error.downcast_ref(), Some(StoreError::Missing { .. }))
            || matches!(error.downcast_ref(), Some(CatalogError::Store(StoreError::Missing { .. })))
    };
    let mut next = Some(error);
    while let Some(error) = next {
        if missing(error) {
            return true;
        }
        next = error.source();
    }
    false
}

/// Whether a file could not be read, or its footer.
fn is_of_a_file(root: &DataFusionError) -> bool {
    match root {
        DataFusionError::ParquetError(_) => true,
        DataFusionError::ArrowError(inner, _) => {
            matches!(inner.as_ref(), ArrowError::ParquetError(_) | ArrowError::ExternalError(_))
        }
        _ => false,
    }
}

/// A footer that is not there is told of in words only.
fn says_missing(text: &str) -> bool {
    text.contains("Object at location") && text.contains("not found")
}

/// An error of ours that went through the engine as `External`.
fn own_error(error: &DataFusionError) -> Option<QueryError> {
    match error.find_root() {
        DataFusionError::External(inner) => {
            let carried = inner.downcast_ref::<Carried>()?;
            carried.0.lock().take()
        }
        _ => None,
    }
}

/// Carries an error of ours through the engine.
#[derive(Debug, thiserror::Error)]
#[error("carried")]
struct Carried(parking_lot::Mutex<Option<QueryError>>);

impl From<QueryError> for DataFusionError {
    fn from(error: QueryError) -> Self {
        DataFusionError::External(Box::new(Carried(parking_lot::Mutex::new(Some(error)))))
    }
}

/// The engine's sentence without where it was thrown, what it suggests to report, and any path of the store.
fn clean(message: &str) -> String {
    const MESSAGE_CHARS_MAX: usize = 1000;
    let message = message.split("\n\nbacktrace:").next().unwrap_or_default();
    let message = message.split(".\nThis issue was likely caused by").next().unwrap_or_default();
    let message = [
        "Error during planning: ",
        "Execution error: ",
        "Arrow error: ",
        "Internal error: ",
        "This feature is not implemented: ",
    ]
    .into_iter()
    .fold(message, |message, prefix| message.strip_prefix(prefix).unwrap_or(message));
    let is_path = |word: &str| {
        word.contains("tenants/")
            || word.contains("_delta_log")
            || word.contains(".parquet")
            || word.starts_with("tenant://")
    };
    let words: Vec<&str> = message.split(' ').map(|word| if is_path(word) { "(a file)" } else { word }).collect();
    words.join(" ").chars().take(MESSAGE_CHARS_MAX).collect()
}
