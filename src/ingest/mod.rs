//! The way in: admit, group-commit to the log, buffer and merge, flush to Parquet, commit, replay.
//!
//! Promises: `append` returns `Ok` only when the data is a durable object and visible to queries here (I1, I4); what the
//! log holds is in the tables exactly once (I2), whatever crashes when; buffers are bounded (I7).
//! Must never know: which door a request came by beyond its name, and what is asked of the rows.

mod books;
mod buffer;
mod changes;
mod counting;
mod entry;
mod erase;
mod flush;
mod fresh;
mod held;
mod late;
mod log;
mod marks;
mod packed;
mod repeats;
mod replay;
mod rows;
mod segment;
mod standing;
mod tail;
mod writer;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use tokio::sync::watch;

use crate::base::{Budget, ByteSize, Kind, Reservation, TenantId, WriterId};
use crate::catalog::system::SystemError;
use crate::catalog::{Catalog, CatalogError};
use crate::format::FormatError;
use crate::model::EventBatch;
use crate::store::StoreError;

pub use books::Booking;
pub use held::Held;
use packed::pack;
pub use rows::RowSettings;
use writer::Writer;

#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    #[error("{name} is full ({limit}): retry later")]
    Full { name: &'static str, limit: ByteSize },
    #[error("{name} has no room for the log of another process ({limit})")]
    NoRoom { name: &'static str, limit: ByteSize },
    #[error("a request of {size} is larger than {name} ({limit})")]
    TooLarge { size: ByteSize, name: &'static str, limit: ByteSize },
    #[error("the log could not be written: {0}")]
    Away(String),
    #[error("log {writer} belongs to another process now")]
    Fenced { writer: WriterId },
    #[error("this server is stopping")]
    Stopped,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    #[error(transparent)]
    System(#[from] SystemError),
    #[error("{path}: {source}")]
    Format { path: String, source: FormatError },
    #[error("log {writer}: {reason}")]
    Corrupt { writer: WriterId, reason: String },
    #[error("rows of {table} could not be written as Parquet: {source}")]
    Parquet { table: &'static str, source: parquet::errors::ParquetError },
}

impl IngestError {
    pub fn kind(&self) -> Kind {
        match self {
            Self::TooLarge { .. } | Self::NoRoom { .. } => Kind::TooLarge,
            Self::Full { .. } | Self::Away(_) | Self::Stopped => Kind::Unavailable,
            Self::Fenced { .. } => Kind::Fenced,
            Self::Store(e) => e.kind(),
            Self::Catalog(e) => e.kind(),
            Self::System(e) => e.kind(),
            Self::Format { .. } | Self::Corrupt { .. } => Kind::Corrupt,
            Self::Parquet { .. } => Kind::Internal,
        }
    }

    /// How long a sender should wait before it tries again.
    pub fn retry_after(&self) -> Duration {
        Duration::from_secs(2)
    }
}

pub type Result<T, E = IngestError> = std::result::Result<T, E>;

/// The limits and times of the way in.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IngestSettings {
    /// Memory for requests on their way in and rows not flushed yet, over all tenants.
    pub buffer_bytes_max: ByteSize,
    /// A tenant's rows are flushed when they take this much memory.
    pub flush_bytes: ByteSize,
    /// … or when the oldest is this old, for tenants with more than `quiet_bytes`.
    pub flush_after_s: u64,
    /// Quiet tenants are flushed after this long: fewer, larger files. Where there are more than a thousand, each waits
    /// longer, up to three hours.
    pub flush_quiet_after_s: u64,
    pub quiet_bytes: ByteSize,
    /// Open observations, and rows whose trace has no root yet, wait this long for more.
    pub wait_for_root_s: u64,
    /// Log objects that are in every table are kept this long.
    pub log_kept_s: u64,
    /// A log without news for this long, with rows in no table, is adopted.
    pub adopt_after_s: u64,
    /// The logs of other processes are followed, so that queries here see what those acked before it is flushed.
    pub follow: bool,
}

impl Default for IngestSettings {
    fn default() -> Self {
        Self {
            buffer_bytes_max: ByteSize::mib(512),
            flush_bytes: ByteSize::mib(64),
            flush_after_s: 60,
            flush_quiet_after_s: 900,
            quiet_bytes: ByteSize::mib(1),
            wait_for_root_s: 600,
            log_kept_s: 3600,
            adopt_after_s: 180,
            follow: true,
        }
    }
}

/// How long a request waits for room in the buffer before it is refused.
const ROOM_PATIENCE: Duration = Duration::from_millis(500);

/// The way in of one process. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Ingest {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    catalog: Catalog,
    clock: Arc<dyn crate::base::Clock>,
    settings: IngestSettings,
    rows: Arc<RowSettings>,
    budget: Budget,
    booked: books::Bookings,
    own: Arc<Writer>,
    /// Our own writer first, then adopted ones until they are drained.
    writers: RwLock<Vec<Arc<Writer>>>,
    /// Logs of other processes.
    followed: RwLock<Vec<Arc<tail::Followed>>>,
    /// One erasure takes effect at a time.
    erasing: tokio::sync::Mutex<erase::Pending>,
    /// True from the moment another process owns our log.
    fenced: watch::Receiver<bool>,
    stopping: watch::Sender<bool>,
}

impl Shared {
    /// Waits for `pause`; false when the process stops or is fenced meanwhile.
    async fn goes_on_after(&self, pause: Duration) -> bool {
        let mut stopping = self.stopping.subscribe();
        let mut fenced = self.fenced.clone();
        tokio::select! {
            _ = tokio::time::sleep(pause) => true,
            _ = stopping.wait_for(|stopping| *stopping) => false,
            _ = fenced.wait_for(|fenced| *fenced) => false,
        }
    }
}

impl Ingest {
    /// Claims the writer's log, replays what is in no table yet, and starts flushing. When it returns, everything ever
    /// acked under this writer id is visible.
    pub async fn start(
        catalog: Catalog,
        clock: Arc<dyn crate::base::Clock>,
        writer: WriterId,
        settings: IngestSettings,
        rows: RowSettings,
    ) -> Result<Self> {
        let budget = Budget::new("buffer_bytes_max", settings.buffer_bytes_max);
        let rows = Arc::new(rows);
        // Before any log is replayed: what was erased does not come back by that.
        catalog.erasures().catch_up().await?;
        // Before any row is stamped with it, the book of this program is where later programs find it.
        catalog.prices().publish().await?;
        catalog.prices().catch_up().await?;
        catalog.dimensions().catch_up().await?;
        // Before a door opens: no text comes in past rules that are set.
        catalog.maskings().catch_up().await?;
        let erasing = tokio::sync::Mutex::new(erase::Pending::at_start(catalog.erasures()));
        let own = Arc::new(Writer::open(&catalog, &clock, writer, &rows).await?);
        let fenced = own.fence();
        let (stopping, _) = watch::channel(false);
        let writers = RwLock::new(vec![Arc::clone(&own)]);
        let followed = RwLock::default();
        let follow = settings.follow;
        let booked = books::Bookings::default();
        let shared = Shared {
            catalog,
            clock,
            settings,
            rows,
            budget,
            booked,
            own,
            writers,
            followed,
            erasing,
            fenced,
            stopping,
        };
        let ingest = Self { shared: Arc::new(shared) };
        tokio::spawn(flush::run(Arc::clone(&ingest.shared)));
        tokio::spawn(marks::run(Arc::clone(&ingest.shared)));
        tokio::spawn(erase::run(Arc::clone(&ingest.shared)));
        tokio::spawn(changes::run(Arc::clone(&ingest.shared)));
        if follow {
            tokio::spawn(tail::run(Arc::clone(&ingest.shared)));
        }
        Ok(ingest)
    }

    /// Takes memory for a request of `bytes` before it is read. Waits a little when the buffer is full, then refuses.
    pub async fn admit(&self, bytes: u64) -> Result<Reservation> {
        let budget = &self.shared.budget;
        if bytes > budget.limit().bytes() {
            return Err(IngestError::TooLarge { size: ByteSize(bytes), name: budget.name(), limit: budget.limit() });
        }
        let full = IngestError::Full { name: budget.name(), limit: budget.limit() };
        budget.reserve(bytes, ROOM_PATIENCE).await.ok_or(full)
    }

    /// Appends what one request said. On `Ok` it is durable in the store and visible to the next query here. A request
    /// that says nothing, as collectors send to see whether somebody is there, writes nothing.
    pub async fn append(&self, tenant: &TenantId, mut batch: EventBatch, admitted: Reservation) -> Result<()> {
        if *self.shared.stopping.borrow() {
            return Err(IngestError::Stopped);
        }
        if batch.says_nothing() {
            return Ok(());
        }
        let prices = self.shared.catalog.prices().current(tenant);
        batch.price_book = prices.version().to_string();
        // Encoding and compressing is work for this request's task, not for the one that owns the log.
        let of_tenant = tenant.clone();
        let encode = move || {
            let batch = pack(batch);
            (log::events_frame(&of_tenant, &batch.payload), batch)
        };
        let (frame, batch) = tokio::task::spawn_blocking(encode).await.map_err(|_| IngestError::Stopped)?;
        // From here on the rows count, not the request's bytes.
        let bytes = batch.payload.len() as u64 + batch.events.len() as u64 * segment::EVENT_OVERHEAD_BYTES;
        drop(admitted);
        let held = self.admit(bytes).await?;
        self.shared.own.append(tenant, frame, batch, prices, held).await
    }

    /// What this process has put into ledgers since it started, all tenants together.
    pub fn booked(&self) -> Vec<Booking> {
        self.shared.booked.all()
    }

    /// Memory for requests and fresh rows.
    pub fn budget(&self) -> &Budget {
        &self.shared.budget
    }

    pub fn writer(&self) -> &WriterId {
        self.shared.own.id()
    }

    /// Resolves when another process owns our log: this one must stop.
    pub async fn fenced(&self) {
        let mut fenced = self.shared.fenced.clone();
        if fenced.wait_for(|fenced| *fenced).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Flushes what is buffered now. Rows that may wait for more are carried on in the log, unless `all`.
    pub async fn flush(&self, all: bool) -> Result<()> {
        flush::flush_of(&self.shared, None, all).await
    }

    /// Flushes what is due by now, as happens by itself twice a second: for whoever moves the clock.
    pub async fn flush_due(&self) {
        flush::look(&self.shared, &flush::Failed::default()).await;
    }

    /// One round of log upkeep: marks, sweep, adoption.
    #[cfg(test)]
    pub(crate) async fn look_after_logs(&self) -> Result<()> {
        marks::look(&self.shared).await
    }

    /// What is done every second: erasures asked elsewhere take effect here.
    #[cfg(test)]
    pub(crate) async fn look_for_erasures(&self) -> Result<()> {
        erase::look(&self.shared).await
    }

    /// Flushes and stops. Requests after this are refused.
    pub async fn stop(&self) -> Result<()> {
        self.shared.stopping.send_replace(true);
        // No other process knows of them.
        if let Err(error) = erase::erase_named(&self.shared, true).await {
            tracing::warn!(%error, "traces named after an erasure are not written down: they are refused no longer");
        }
        self.flush(false).await
    }
}

#[cfg(test)]
mod tests;
