//! The doors: gRPC and HTTP. Who is asking, may they, what do they say; and every answer in the words of its protocol.
//!
//! Promises: nobody unknown makes us hold a body; a body is admitted before it is held and never grows past its limit
//! (I7); trouble of ours is said so that clients try again, and never as a 500; an error names no other tenant (I5).
//! Must never know: how rows are stored, merged or queried; the rooms below come in as [`Intake`] and [`Answers`]. Presets
//! are data, from wire to wire: the doors take them from where they are written.

mod audit;
mod auth;
mod body;
mod connections;
mod counters;
mod grpc;
mod http;
mod otlp;
mod prices;
mod serve;
mod status;

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use futures::stream::BoxStream;

use crate::base::{Budget, ByteSize, Clock, Reservation, TenantId, TimestampUs};
use crate::catalog::administration::Administration;
use crate::catalog::audit::Audit;
use crate::catalog::erasures::{ErasureKind, ErasureStatus};
use crate::catalog::keys::{Identity, Keys};
use crate::catalog::maskings::Maskings;
use crate::catalog::media::Media;
use crate::catalog::prices::PriceBooks;
use crate::catalog::score_configs::ScoreConfigs;
use crate::decode::DecodeLimits;
use crate::model::{EventBatch, Rejection};
use crate::query::records::{RecordsAnswer, RecordsAsked};
use crate::store::Store;
use crate::wire;

pub use audit::asked;
pub use counters::{Counters, Door};
pub use prices::{check_price, delete_prices, list_prices, put_of, put_prices};
pub use serve::{DoorsError, serve};
pub use status::Refusal;

/// The largest request that is taken, after decompression.
pub const REQUEST_MAX: ByteSize = ByteSize::mib(64);

/// The way in, as the doors need it.
#[async_trait]
pub trait Intake: Send + Sync {
    /// Room for `bytes` of a request that is about to be read. Called before the bytes are held; a full buffer waits
    /// a little and then refuses with [`crate::base::Kind::Unavailable`] and a delay.
    async fn admit(&self, bytes: u64) -> Result<Reservation, Refusal>;

    /// Durable and visible to the next query on return (I1, I4).
    async fn append(&self, tenant: &TenantId, batch: EventBatch, held: Reservation) -> Result<(), Refusal>;

    /// What this process has put into ledgers since it started: door, outcome and reason, and how many.
    fn booked(&self) -> Vec<Booking> {
        Vec::new()
    }

    /// Takes out of `batch` what is about something erased lately, counted as rejected. Called before `append`.
    async fn refuse_erased(&self, _tenant: &TenantId, _batch: &mut EventBatch) -> Vec<Rejection> {
        Vec::new()
    }
}

/// How many observations and scores a ledger says of a door, an outcome and a reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Booking {
    pub door: Arc<str>,
    pub outcome: &'static str,
    pub reason: Option<String>,
    pub count: i64,
}

/// Forgetting, as the doors need it.
#[async_trait]
pub trait Erasing: Send + Sync {
    /// On return no answer of this process shows it.
    async fn erase(&self, who: &Identity, kind: ErasureKind, values: Vec<String>) -> Result<ErasureStatus, Refusal>;

    /// One of `who`'s tenant.
    async fn erasure(&self, who: &Identity, id: &str) -> Result<ErasureStatus, Refusal>;

    /// All of `who`'s tenant, oldest first.
    async fn erasures(&self, who: &Identity) -> Result<Vec<ErasureStatus>, Refusal>;
}

/// The way out, as the doors need it. A key bound to one account or user is shown only what is that one's.
#[async_trait]
pub trait Answers: Send + Sync {
    /// One SELECT over the tables of `who`'s tenant. `None`: the server's limits.
    async fn sql(&self, who: &Identity, sql: &str, limits: AskedLimits) -> Result<SqlAnswer, Refusal>;

    /// Answers to all of `asked`, in their order, from one snapshot of the tables.
    async fn metrics(
        &self,
        who: &Identity,
        asked: Vec<wire::MetricsRequest>,
    ) -> Result<Vec<wire::MetricsResponse>, Refusal>;

    /// One answer, which may be long.
    async fn metrics_series(
        &self,
        who: &Identity,
        asked: wire::MetricsRequest,
    ) -> Result<wire::MetricsResponse, Refusal>;

    async fn list_traces(
        &self,
        who: &Identity,
        asked: wire::ListTracesRequest,
    ) -> Result<wire::ListTracesResponse, Refusal>;

    async fn search_traces(
        &self,
        who: &Identity,
        asked: wire::SearchTracesRequest,
    ) -> Result<wire::SearchTracesResponse, Refusal>;

    /// Pages of traces, observations, sessions and scores, in the order of the questions, from one snapshot.
    async fn records(&self, who: &Identity, asked: Vec<RecordsAsked>) -> Result<Vec<RecordsAnswer>, Refusal>;

    /// One trace in parts; after a refusal nothing follows.
    async fn trace(&self, who: &Identity, asked: wire::GetTraceRequest) -> Result<TraceParts, Refusal>;
}

/// Whether this process can do its work.
#[async_trait]
pub trait Ready: Send + Sync {
    /// `Err` says in a sentence what is missing: the store is away, the log is being replayed.
    async fn ready(&self) -> Result<(), String>;
}

/// What whoever operates this node asks of it.
#[async_trait]
pub trait Operating: Send + Sync {
    /// What is held of `of`, or of all tenants, in no file yet.
    fn node(&self, of: Option<&TenantId>) -> Node;

    /// On return all that was acked here of `of`, or of all tenants, is in tables; those tables, by tenant.
    async fn flush(&self, of: Option<&TenantId>) -> Result<Vec<wire::FlushedTable>, Refusal>;
}

/// What a node says of itself.
#[derive(Debug, Clone, Default)]
pub struct Node {
    pub writer: String,
    pub started_us: TimestampUs,
    pub held: Vec<wire::Held>,
    pub followed_logs: Vec<String>,
}

/// What a caller asks a query to stay below; never above the server's own limits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AskedLimits {
    pub rows_max: Option<u64>,
    pub time_max: Option<Duration>,
}

pub type TraceParts = BoxStream<'static, Result<wire::GetTraceResponse, Refusal>>;

pub struct SqlAnswer {
    pub schema: SchemaRef,
    pub batches: BoxStream<'static, Result<RecordBatch, Refusal>>,
}

/// Everything the doors open on. Cheap to clone.
#[derive(Clone)]
pub struct Doors {
    pub intake: Arc<dyn Intake>,
    pub answers: Arc<dyn Answers>,
    pub erasing: Arc<dyn Erasing>,
    pub ready: Arc<dyn Ready>,
    pub operating: Arc<dyn Operating>,
    pub keys: Keys,
    pub administration: Administration,
    pub prices: PriceBooks,
    pub score_configs: ScoreConfigs,
    pub media: Media,
    /// What is taken out of requests before anything is written.
    pub maskings: Maskings,
    /// Dates what comes without a time.
    pub clock: Arc<dyn Clock>,
    pub decode_limits: DecodeLimits,
    pub counters: Arc<Counters>,
    /// Who called for what.
    pub audit: Audit,
    /// Its calls are shown at `/metrics`.
    pub store: Store,
    /// Their use is shown at `/metrics`.
    pub budgets: Vec<Budget>,
    /// Pages of these origins may ask over HTTP.
    pub cors_origins: Vec<String>,
}

impl Doors {
    /// The bounds of what a tenant sends. Where rules mask, base64 stays in its text: they look at it there, and what they
    /// take out must not stand beside it.
    fn limits_for(&self, tenant: &TenantId) -> DecodeLimits {
        let takes_media = self.decode_limits.takes_media && self.maskings.mask(tenant).is_none();
        DecodeLimits { takes_media, ..self.decode_limits }
    }
}

#[cfg(test)]
mod tests;
