//! The upkeep as a role of a running process: a queue of tables, and workers on threads of their own.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rand::Rng;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::worker::{Compactor, Looked, Shared};
use super::{CompactError, Result};
use crate::base::TenantId;
use crate::model::tables::Table;

/// Tenants are looked for this often.
const TENANTS_EVERY: Duration = Duration::from_secs(600);
/// Between two reads of an idle table's log, at least and at most.
const REFRESH_LEAST: Duration = Duration::from_secs(60);
const REFRESH_MOST: Duration = Duration::from_secs(3600);
/// A table whose store or log is in trouble is left alone this long.
const TROUBLE: Duration = Duration::from_secs(30);
/// How often an idle worker looks at the queue.
const IDLE: Duration = Duration::from_millis(500);

impl Compactor {
    /// Starts workers on threads of their own, so that no ack and no query waits for a merge.
    pub fn start(&self) -> Result<Role> {
        let count = self.0.settings.workers;
        let mut threads = tokio::runtime::Builder::new_multi_thread();
        let threads = threads.thread_name("upkeep").worker_threads(count).enable_all().build();
        let threads = threads.map_err(CompactError::Threads)?;
        let queue = Arc::new(Queue::default());
        threads.spawn(find_tenants(Arc::clone(&self.0), Arc::clone(&queue)));
        let worker = |_| threads.spawn(follow(Arc::clone(&self.0), Arc::clone(&queue)));
        let workers = (0..count).map(worker).collect();
        Ok(Role { compactor: self.clone(), workers, threads: Some(threads) })
    }
}

/// Workers under way. Dropped, they end at once; their orphans are for the sweep.
#[derive(Debug)]
pub struct Role {
    compactor: Compactor,
    workers: Vec<JoinHandle<()>>,
    threads: Option<Runtime>,
}

impl Role {
    /// Lets workers give up what they are at, and their leases back.
    pub async fn stop(mut self) {
        self.compactor.0.stopping.send_replace(true);
        for worker in self.workers.drain(..) {
            let _ = worker.await;
        }
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        // Waiting for its threads would block the thread that drops it.
        if let Some(threads) = self.threads.take() {
            threads.shutdown_background();
        }
    }
}

/// Tables by when they are to be looked at next.
#[derive(Debug, Default)]
struct Queue {
    due: Mutex<BinaryHeap<Reverse<Visit>>>,
    known: Mutex<HashSet<TenantId>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Visit {
    at: Instant,
    /// When the log is read again, and not only what this process knows of it.
    refresh_at: Instant,
    refresh_every: Duration,
    version: Option<u64>,
    planned_at: Option<Instant>,
    tenant: TenantId,
    table: Table,
}

impl Ord for Visit {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, &self.tenant, self.table).cmp(&(other.at, &other.tenant, other.table))
    }
}

impl PartialOrd for Visit {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// Keeps the queue full of the tables there are.
async fn find_tenants(shared: Arc<Shared>, queue: Arc<Queue>) {
    while !*shared.stopping.borrow() {
        match shared.tenants().await {
            Ok(tenants) => {
                for tenant in tenants {
                    if queue.known.lock().insert(tenant.clone()) {
                        queue.due.lock().extend(Table::ALL.map(|table| Reverse(first_visit(&shared, &tenant, table))));
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "the upkeep cannot see which tenants there are"),
        }
        shared.rest(TENANTS_EVERY).await;
    }
}

/// Spread over the first rounds, so that a start does not load every table at once.
fn first_visit(shared: &Shared, tenant: &TenantId, table: Table) -> Visit {
    let now = Instant::now();
    let refresh_at = now + jittered(REFRESH_LEAST);
    let at = now + jittered(Duration::from_secs(shared.settings.interval_s));
    let (tenant, refresh_every) = (tenant.clone(), REFRESH_LEAST);
    Visit { at, refresh_at, refresh_every, version: None, planned_at: None, tenant, table }
}

/// Between half of `length` and one and a half of it.
fn jittered(length: Duration) -> Duration {
    length.mul_f64(rand::rng().random_range(0.5..1.5))
}

async fn follow(shared: Arc<Shared>, queue: Arc<Queue>) {
    let interval = Duration::from_secs(shared.settings.interval_s);
    while !*shared.stopping.borrow() {
        let now = Instant::now();
        let next = {
            let mut due = queue.due.lock();
            match due.peek() {
                Some(Reverse(visit)) if visit.at <= now => due.pop(),
                _ => None,
            }
        };
        let Some(Reverse(mut visit)) = next else {
            shared.rest(IDLE).await;
            continue;
        };
        let wait = match look(&shared, &mut visit).await {
            Ok(Looked::Nothing | Looked::Worked) => jittered(interval),
            Ok(Looked::Busy) => jittered(interval * 2),
            Err(CompactError::Stopped) => return,
            Err(error) => {
                tracing::warn!(tenant = %visit.tenant, table = visit.table.name(), %error, "upkeep failed; it is tried again");
                jittered(TROUBLE)
            }
        };
        visit.at = Instant::now() + wait;
        queue.due.lock().push(Reverse(visit));
    }
}

/// Looks at a table as cheaply as it can: what this process committed itself is known without a request.
async fn look(shared: &Shared, visit: &mut Visit) -> Result<Looked> {
    let now = Instant::now();
    let (tenant, table) = (visit.tenant.clone(), visit.table);
    let snapshot = match now >= visit.refresh_at {
        true => {
            let known = shared.catalog().loaded_snapshot(&tenant, table).map(|snapshot| snapshot.version);
            let snapshot = shared.catalog().snapshot(&tenant, table).await?;
            // Others change it as often as we look: look more often. Never: less. Our own commits need no look.
            let every = match known.unwrap_or(visit.version) == snapshot.version {
                true => visit.refresh_every * 2,
                false => visit.refresh_every / 2,
            };
            visit.refresh_every = every.clamp(REFRESH_LEAST, REFRESH_MOST);
            visit.refresh_at = now + jittered(visit.refresh_every);
            Some(snapshot)
        }
        false => shared.catalog().loaded_snapshot(&tenant, table),
    };
    let Some(snapshot) = snapshot else { return Ok(Looked::Nothing) };
    // A day becomes due by the clock alone, but not every few seconds.
    let planned_lately = visit.planned_at.is_some_and(|at| at.elapsed() < REFRESH_LEAST);
    if snapshot.version == visit.version && planned_lately {
        return Ok(Looked::Nothing);
    }
    visit.version = snapshot.version;
    visit.planned_at = Some(now);
    let looked = shared.work_on(&tenant, table, snapshot).await?;
    if looked == Looked::Busy {
        visit.planned_at = None;
    }
    Ok(looked)
}

impl Shared {
    /// Waits, or returns early when all is to stop.
    async fn rest(&self, length: Duration) {
        let mut stopping = self.stopping.subscribe();
        let _ = tokio::time::timeout(length, stopping.wait_for(|stopping| *stopping)).await;
    }
}
