//! One server: the rooms joined, the doors opened, everything closed in order.
//!
//! Promises: when [`start`] returns, all that was ever acked under this writer id is visible and the doors are open;
//! when [`Running::stop`] returns, requests under way were answered and the buffer is in the tables or in the log.
//! Must never know: flags and environment; it is handed settings.

mod rooms;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::{Handle, Runtime};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::base::{Clock, SystemClock, WriterId};
use crate::catalog::administration::Administration;
use crate::catalog::audit::Audit;
use crate::catalog::keys::{FirstTenant, Keys};
use crate::catalog::retention::Retentions;
use crate::catalog::score_configs::ScoreConfigs;
use crate::catalog::system::{SystemError, SystemObjects};
use crate::catalog::tenants::Tenants;
use crate::catalog::{Catalog, FreshRows, Rollups};
use crate::compact::{CompactError, CompactSettings, Compactor, EraseSettings, Eraser, Role, Upkeep, UpkeepSettings};
use crate::decode::DecodeLimits;
use crate::doors::{self, Counters, Doors, DoorsError};
use crate::ingest::{Ingest, IngestError, IngestSettings, RowSettings};
use crate::query::{Engine, FileRollups, QueryError, QueryLimits};
use crate::store::{Location, Store, StoreError};
use rooms::{Forgetting, StoreAnswers, ThisNode, WayIn, WayOut};

/// All a server is told. It holds a secret, so it does not print.
#[derive(Clone)]
pub struct ServerSettings {
    pub data: Location,
    pub grpc_addr: SocketAddr,
    pub http_addr: SocketAddr,
    /// Pages of these origins may ask over HTTP.
    pub cors_origins: Vec<String>,
    pub writer: WriterId,
    pub ingest: IngestSettings,
    pub query: QueryLimits,
    /// `None`: another process keeps the store up.
    pub upkeep: Option<UpkeepSettings>,
    /// `None`: another process brings erasures to their end.
    pub erase: Option<EraseSettings>,
    /// `None`: files are merged elsewhere, or not at all.
    pub compact: Option<CompactSettings>,
    /// Created at start when absent.
    pub first: Option<FirstTenant>,
}

#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    System(#[from] SystemError),
    #[error(transparent)]
    Ingest(#[from] IngestError),
    #[error(transparent)]
    Query(#[from] QueryError),
    #[error(transparent)]
    Compact(#[from] CompactError),
    #[error(transparent)]
    Doors(#[from] DoorsError),
    #[error("{address} cannot be listened on: {source}")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error("no threads for queries: {0}")]
    Threads(std::io::Error),
    #[error("log {0} belongs to another process now: this one stops")]
    Fenced(WriterId),
}

/// A server with open doors.
#[derive(Debug)]
pub struct Running {
    pub grpc_addr: SocketAddr,
    pub http_addr: SocketAddr,
    ingest: Ingest,
    keys: Keys,
    audit: Audit,
    close: oneshot::Sender<()>,
    doors: JoinHandle<Result<(), DoorsError>>,
    upkeep: Vec<JoinHandle<()>>,
    compacting: Option<Role>,
    _computing: Computing,
}

/// Planning recurses over a statement, and a statement may be deep.
const QUERY_STACK_BYTES: usize = 32 << 20;

/// Where queries compute: on threads of their own, so that a heavy one delays no ack.
#[derive(Debug)]
struct Computing(Option<Runtime>);

impl Computing {
    fn start() -> std::io::Result<Self> {
        let threads = tokio::runtime::Builder::new_multi_thread()
            .thread_name("query")
            .thread_stack_size(QUERY_STACK_BYTES)
            .enable_all()
            .build();
        Ok(Self(Some(threads?)))
    }

    fn handle(&self) -> Handle {
        self.0.as_ref().expect("it is taken only when dropped").handle().clone()
    }
}

impl Drop for Computing {
    fn drop(&mut self) {
        // Waiting for its threads would block the thread that drops it.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// The system objects of a store: tenants and keys.
pub async fn open_keys(store: &Store) -> Result<Keys, SystemError> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let objects = SystemObjects::new(store.clone(), clock);
    let tenants = Tenants::new(objects.clone());
    Keys::open(objects, tenants).await
}

/// The upkeep of a store, for a process that does nothing else.
pub fn compactor(store: &Store, settings: CompactSettings) -> Result<Compactor, CompactError> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let tenants = Tenants::new(SystemObjects::new(store.clone(), Arc::clone(&clock)));
    let catalog = Catalog::new(store.clone(), Arc::clone(&clock));
    Compactor::new(catalog, tenants, clock, rollups()?, settings)
}

fn rollups() -> Result<Arc<dyn Rollups>, CompactError> {
    Ok(Arc::new(FileRollups::new().map_err(|error| CompactError::Rollups(error.to_string()))?))
}

/// Probes the store, claims and replays the log, opens the doors.
pub async fn start(settings: ServerSettings) -> Result<Running, ServerError> {
    // The addresses first: a taken port is known before anything is claimed.
    let (grpc, grpc_addr) = listen(settings.grpc_addr).await?;
    let (http, http_addr) = listen(settings.http_addr).await?;

    let store = Store::open(settings.data).await?;
    let keys = open_keys(&store).await?;
    if let Some(first) = &settings.first {
        keys.ensure_first(first).await?;
    }
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let catalog = Catalog::new(store.clone(), Arc::clone(&clock));
    let upkeep = settings.upkeep.map(|settings| Upkeep::new(catalog.clone(), Arc::clone(&clock), settings));
    let ingest =
        Ingest::start(catalog.clone(), Arc::clone(&clock), settings.writer, settings.ingest, RowSettings::default())
            .await?;
    let (prices, audit) = (catalog.prices().clone(), catalog.audit().clone());
    let media = catalog.media().clone();
    let maskings = catalog.maskings().clone();
    let rollups = rollups()?;
    let compactor = settings.compact.map(|compact| {
        let (tenants, clock) = (keys.tenants().clone(), Arc::clone(&clock));
        Compactor::new(catalog.clone(), tenants, clock, Arc::clone(&rollups), compact)
    });
    let compactor = compactor.transpose()?;
    let eraser = settings.erase.map(|settings| match &compactor {
        Some(compactor) => Eraser::beside(compactor, settings),
        None => Eraser::new(catalog.clone(), Arc::clone(&clock), rollups, settings),
    });
    let fresh: Arc<dyn FreshRows> = Arc::new(ingest.clone());
    let computing = Computing::start().map_err(ServerError::Threads)?;
    let retentions = Retentions::new(SystemObjects::new(store.clone(), Arc::clone(&clock)));
    let administration = Administration::new(&catalog, keys.clone(), retentions);
    let erasing = Arc::new(Forgetting { ingest: ingest.clone(), catalog: catalog.clone(), keys: keys.clone() });
    let operating = Arc::new(ThisNode { ingest: ingest.clone(), catalog: catalog.clone(), started_us: clock.now_us() });
    let engine = Engine::on(catalog, fresh, settings.query, computing.handle())?;
    let used = keys.clone();
    let doors = Doors {
        intake: Arc::new(WayIn(ingest.clone())),
        answers: Arc::new(WayOut(engine)),
        erasing,
        ready: Arc::new(StoreAnswers(store.clone())),
        operating,
        administration,
        keys,
        prices,
        score_configs: ScoreConfigs::new(SystemObjects::new(store.clone(), Arc::clone(&clock))),
        media,
        maskings,
        clock,
        decode_limits: DecodeLimits::default(),
        counters: Arc::new(Counters::default()),
        audit: audit.clone(),
        store,
        budgets: std::iter::once(ingest.budget())
            .chain(compactor.as_ref().map(Compactor::budget))
            .chain(eraser.as_ref().filter(|_| compactor.is_none()).map(Eraser::budget))
            .cloned()
            .collect(),
        cors_origins: settings.cors_origins,
    };
    let compacting = compactor.map(|compactor| compactor.start()).transpose()?;
    let (close, closed) = oneshot::channel::<()>();
    let shutdown = async {
        // The sender is never dropped without a word while the server runs.
        let _ = closed.await;
    };
    let doors = tokio::spawn(doors::serve(doors, grpc, http, shutdown));
    let upkeep = upkeep.map(|upkeep| tokio::spawn(upkeep.run()));
    let eraser = eraser.map(|eraser| tokio::spawn(eraser.run()));
    let uses = tokio::spawn(store_uses(used.clone(), audit.clone()));
    let upkeep = upkeep.into_iter().chain(eraser).chain([uses]).collect();
    Ok(Running {
        grpc_addr,
        http_addr,
        ingest,
        keys: used,
        audit,
        close,
        doors,
        upkeep,
        compacting,
        _computing: computing,
    })
}

/// How often it is looked whether the use of a key, or a page of the audit, is to be stored.
const USES_STORED_EVERY: Duration = Duration::from_secs(60);

/// Without end.
async fn store_uses(keys: Keys, audit: Audit) {
    loop {
        tokio::time::sleep(USES_STORED_EVERY).await;
        if let Err(error) = keys.store_uses().await {
            tracing::warn!(%error, "which keys were used cannot be stored now; it is tried again");
        }
        if let Err(error) = audit.store(false).await {
            tracing::warn!(%error, "who called for what cannot be stored now; it is tried again");
        }
    }
}

/// A listener, and the address it got: port 0 picks one.
async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), ServerError> {
    let failed = |source| ServerError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

impl Running {
    /// Serves until `stop` resolves, then closes in order. An error if a door failed or another process took the log.
    pub async fn until(mut self, stop: impl Future<Output = ()>) -> Result<(), ServerError> {
        let fenced = tokio::select! {
            () = stop => false,
            () = self.ingest.fenced() => true,
            ended = &mut self.doors => {
                // Doors end by themselves only when they cannot go on.
                ended.unwrap_or(Ok(()))?;
                false
            }
        };
        match fenced {
            true => Err(ServerError::Fenced(self.ingest.writer().clone())),
            false => self.stop().await,
        }
    }

    /// Flushes what is buffered into the tables.
    pub async fn flush(&self) -> Result<(), ServerError> {
        Ok(self.ingest.flush(true).await?)
    }

    /// Closes the doors, answers what is under way, flushes.
    pub async fn stop(self) -> Result<(), ServerError> {
        // Whatever it is at can be left there, and done again.
        self.upkeep.iter().for_each(JoinHandle::abort);
        let _ = self.close.send(());
        if !self.doors.is_finished() {
            self.doors.await.unwrap_or(Ok(()))?;
        }
        if let Some(compacting) = self.compacting {
            compacting.stop().await;
        }
        // Neither is worth a failed stop.
        let _ = self.keys.store_uses().await;
        if let Err(error) = self.audit.store(true).await {
            tracing::warn!(%error, "who called for what since the last page was stored is lost");
        }
        self.ingest.stop().await?;
        Ok(())
    }
}
