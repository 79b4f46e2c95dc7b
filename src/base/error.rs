//! What a caller should do about an error: the one thing every door needs to know.

/// The doors translate a kind into a gRPC status or an HTTP code; rooms say only which kind it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The request itself is wrong: sending it again cannot help.
    Invalid,
    /// No key, an unknown key, or a wrong secret.
    Unauthenticated,
    /// A good key without the role needed.
    Forbidden,
    /// What is named does not exist.
    NotFound,
    /// It exists already.
    Exists,
    /// The request is larger than a named limit.
    TooLarge,
    /// A named limit of this query (time, memory, rows) was reached.
    LimitReached,
    /// Trouble of ours that passes: the store is away, a buffer is full. Retry after a delay.
    Unavailable,
    /// Another process owns this log: this one must stop.
    Fenced,
    /// Bytes at rest are not what we wrote. Never retried, never skipped.
    Corrupt,
    /// A mistake of ours.
    Internal,
}
