//! One refusal, and what each protocol calls it: the only table from kinds to gRPC codes and HTTP statuses.

use std::fmt;
use std::time::Duration;

use axum::http::StatusCode;
use prost::Message;
use tonic::{Code, Status};

use crate::base::Kind;
use crate::catalog::system::SystemError;

/// How long a client waits when nobody below says how long.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Why a request is not served, in words its sender may read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub kind: Kind,
    pub message: String,
    /// With [`Kind::Unavailable`]: when to try again.
    pub retry_after: Option<Duration>,
    /// With [`Kind::LimitReached`]: which one: `rows`, `time` or `memory`.
    pub limit: Option<&'static str>,
}

impl Refusal {
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), retry_after: None, limit: None }
    }

    pub fn unavailable(message: impl Into<String>, retry_after: Duration) -> Self {
        Self { retry_after: Some(retry_after), ..Self::new(Kind::Unavailable, message) }
    }

    pub fn limit(limit: &'static str, message: impl Into<String>) -> Self {
        Self { limit: Some(limit), ..Self::new(Kind::LimitReached, message) }
    }

    /// An error from below. What is trouble of ours goes to our log in full and to the client in general words: it may
    /// name paths and endpoints.
    pub fn from_below(kind: Kind, error: &(dyn std::error::Error + 'static)) -> Self {
        let general = match kind {
            Kind::Unavailable => "the store is not reachable now",
            Kind::Fenced => "this server is being replaced by another",
            Kind::Corrupt => "stored data cannot be read: the server's log says which",
            Kind::Internal => "a mistake of the server's: its log says which",
            _ => return Self::new(kind, error.to_string()),
        };
        tracing::warn!(%error, ?kind, "refused");
        Self::new(kind, general)
    }

    /// On the way in every trouble of ours is worth another try: nothing sent may be lost to a mistake here.
    pub(super) fn on_the_way_in(mut self) -> Self {
        if matches!(self.kind, Kind::Fenced | Kind::Corrupt | Kind::Internal) {
            self.kind = Kind::Unavailable;
        }
        self
    }

    pub(super) fn code(&self) -> Code {
        table(self).0
    }
    pub(super) fn http_status(&self) -> StatusCode {
        table(self).1
    }

    /// The code as counters name it.
    pub(super) fn outcome(&self) -> &'static str {
        outcome(self.code())
    }

    /// The delay to state, if trying again helps.
    pub(super) fn delay(&self) -> Option<Duration> {
        let retryable = self.code() == Code::Unavailable;
        retryable.then(|| self.retry_after.unwrap_or(RETRY_AFTER))
    }
}

fn table(refusal: &Refusal) -> (Code, StatusCode) {
    match refusal.kind {
        Kind::Invalid => (Code::InvalidArgument, StatusCode::BAD_REQUEST),
        Kind::Unauthenticated => (Code::Unauthenticated, StatusCode::UNAUTHORIZED),
        Kind::Forbidden => (Code::PermissionDenied, StatusCode::FORBIDDEN),
        Kind::NotFound => (Code::NotFound, StatusCode::NOT_FOUND),
        Kind::Exists => (Code::AlreadyExists, StatusCode::CONFLICT),
        Kind::TooLarge => (Code::ResourceExhausted, StatusCode::PAYLOAD_TOO_LARGE),
        Kind::LimitReached if refusal.limit == Some("time") => {
            (Code::DeadlineExceeded, StatusCode::UNPROCESSABLE_ENTITY)
        }
        Kind::LimitReached => (Code::ResourceExhausted, StatusCode::UNPROCESSABLE_ENTITY),
        Kind::Unavailable | Kind::Fenced => (Code::Unavailable, StatusCode::SERVICE_UNAVAILABLE),
        Kind::Corrupt => (Code::DataLoss, StatusCode::INTERNAL_SERVER_ERROR),
        Kind::Internal => (Code::Internal, StatusCode::INTERNAL_SERVER_ERROR),
    }
}

pub(super) fn outcome(code: Code) -> &'static str {
    match code {
        Code::Ok => "ok",
        Code::InvalidArgument => "invalid_argument",
        Code::Unauthenticated => "unauthenticated",
        Code::PermissionDenied => "permission_denied",
        Code::NotFound => "not_found",
        Code::AlreadyExists => "already_exists",
        Code::ResourceExhausted => "resource_exhausted",
        Code::DeadlineExceeded => "deadline_exceeded",
        Code::Unavailable => "unavailable",
        Code::Unimplemented => "unimplemented",
        Code::DataLoss => "data_loss",
        _ => "internal",
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Refusal {}

impl From<SystemError> for Refusal {
    fn from(error: SystemError) -> Self {
        Self::from_below(error.kind(), &error)
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let code = refusal.code();
        match refusal.delay() {
            None => Status::new(code, refusal.message),
            Some(delay) => {
                let details = retry_details(code, &refusal.message, delay);
                Status::with_details(code, refusal.message, details.into())
            }
        }
    }
}

/// `google.rpc.Status`, the form of `grpc-status-details-bin`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct StatusDetails {
    #[prost(int32, tag = "1")]
    pub(super) code: i32,
    #[prost(string, tag = "2")]
    pub(super) message: String,
    #[prost(message, repeated, tag = "3")]
    pub(super) details: Vec<prost_types::Any>,
}

/// `google.rpc.RetryInfo`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    pub(super) retry_delay: Option<prost_types::Duration>,
}

pub(super) const RETRY_INFO_URL: &str = "type.googleapis.com/google.rpc.RetryInfo";

fn retry_details(code: Code, message: &str, delay: Duration) -> Vec<u8> {
    let retry_delay = prost_types::Duration { seconds: delay.as_secs() as i64, nanos: delay.subsec_nanos() as i32 };
    let info = RetryInfo { retry_delay: Some(retry_delay) };
    let any = prost_types::Any { type_url: RETRY_INFO_URL.to_owned(), value: info.encode_to_vec() };
    StatusDetails { code: code.into(), message: message.to_owned(), details: vec![any] }.encode_to_vec()
}
