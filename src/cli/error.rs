//! What can go wrong for somebody at a terminal.

use tonic::{Code, Status};

use crate::base::Kind;

#[derive(Debug, thiserror::Error)]
pub enum CliError {
    #[error("{address:?} is not a server address: {why}")]
    Address { address: String, why: String },
    #[error("cannot reach {address}: {why}")]
    Unreachable { address: String, why: String },
    #[error("the server answered {}: {message}", words(*code))]
    Refused { code: Code, message: String },
    #[error("the server's answer cannot be read: {0}")]
    Answer(#[from] arrow::error::ArrowError),
    #[error("cannot read or write here: {0}")]
    Local(#[from] std::io::Error),
    #[error("cannot read the line: {0}")]
    Line(#[from] rustyline::error::ReadlineError),
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
    #[error(transparent)]
    Query(#[from] crate::query::QueryError),
    #[error(transparent)]
    System(#[from] crate::catalog::system::SystemError),
    #[error(transparent)]
    Compact(Box<crate::compact::CompactError>),
    #[error("{0}")]
    Invalid(String),
    #[error("{path} holds an export already: choose another folder")]
    Exists { path: String },
    #[error("what the server counts differs from what was sent: {0}")]
    Mismatch(String),
}

impl CliError {
    pub fn kind(&self) -> Kind {
        match self {
            Self::Address { .. } | Self::Invalid(_) => Kind::Invalid,
            Self::Unreachable { .. } => Kind::Unavailable,
            Self::Refused { code, .. } => match code {
                Code::Unauthenticated => Kind::Unauthenticated,
                Code::PermissionDenied => Kind::Forbidden,
                Code::NotFound => Kind::NotFound,
                Code::AlreadyExists => Kind::Exists,
                Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => Kind::Invalid,
                Code::ResourceExhausted | Code::DeadlineExceeded => Kind::LimitReached,
                Code::Unavailable | Code::Aborted => Kind::Unavailable,
                _ => Kind::Internal,
            },
            Self::Exists { .. } => Kind::Exists,
            Self::Store(e) => e.kind(),
            Self::Query(e) => e.kind(),
            Self::System(e) => e.kind(),
            Self::Compact(e) => e.kind(),
            Self::Answer(_) | Self::Mismatch(_) | Self::Local(_) | Self::Line(_) => Kind::Internal,
        }
    }
}

impl From<crate::compact::CompactError> for CliError {
    fn from(error: crate::compact::CompactError) -> Self {
        Self::Compact(Box::new(error))
    }
}

impl From<Status> for CliError {
    fn from(status: Status) -> Self {
        Self::Refused { code: status.code(), message: status.message().to_owned() }
    }
}

fn words(code: Code) -> &'static str {
    match code {
        Code::Unauthenticated => "that it does not know this key (unauthenticated)",
        Code::PermissionDenied => "that this key may not do that (permission denied)",
        Code::InvalidArgument => "that the request is wrong (invalid argument)",
        Code::ResourceExhausted => "that a limit was reached (resource exhausted)",
        Code::DeadlineExceeded => "that it took too long (deadline exceeded)",
        Code::Unavailable => "that it cannot serve this now (unavailable)",
        Code::Unimplemented => "that it does not offer this (unimplemented)",
        _ => "with an error",
    }
}
