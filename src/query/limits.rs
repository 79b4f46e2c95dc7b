//! Every bound of this room, with its name and its number (I7).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::QueryError;
use crate::base::{ByteSize, TenantId};

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QueryLimits {
    /// Milliseconds from question to last row.
    pub time_ms_max: u64,
    /// What one query may hold while it computes.
    pub memory_max: ByteSize,
    /// What all queries together may hold.
    pub memory_all: ByteSize,
    /// What sorts and groupings may put on the local disk when their memory is full, all queries together. 0B: nothing.
    pub spill_max: ByteSize,
    /// Footers of files kept in memory, all tenants together.
    pub footers_max: ByteSize,
    /// Rows of one SQL answer.
    pub rows_max: u64,
    /// Rows of one metrics answer.
    pub metric_rows_max: u64,
    /// Rows of one metrics answer that is streamed.
    pub metric_series_rows_max: u64,
    /// Bytes of one answer, in memory.
    pub result_bytes_max: ByteSize,
    /// Queries that compute at the same time.
    pub concurrent_max: usize,
    /// Of these, queries of one tenant.
    pub concurrent_per_tenant_max: usize,
    /// Milliseconds a query waits for its turn before it is refused.
    pub wait_ms_max: u64,
    /// Threads' worth of work one query is cut into. 0: as many as there are cores.
    pub partitions: usize,
    /// What files were summed up to when they were merged may stand for their rows.
    pub rollups: bool,
}

impl Default for QueryLimits {
    fn default() -> Self {
        Self {
            time_ms_max: 60_000,
            memory_max: ByteSize::mib(512),
            memory_all: ByteSize::gib(1),
            spill_max: ByteSize::gib(2),
            footers_max: ByteSize::mib(256),
            rows_max: 1_000_000,
            metric_rows_max: 10_000,
            metric_series_rows_max: 250_000,
            result_bytes_max: ByteSize::gib(1),
            concurrent_max: 32,
            concurrent_per_tenant_max: 16,
            wait_ms_max: 5_000,
            partitions: 0,
            rollups: true,
        }
    }
}

impl QueryLimits {
    pub(super) fn time_max(&self) -> Duration {
        Duration::from_millis(self.time_ms_max)
    }
    pub(super) fn partitions(&self) -> usize {
        match self.partitions {
            0 => std::thread::available_parallelism().map_or(2, usize::from),
            partitions => partitions,
        }
    }
}

/// What the caller wants less of than the server's limits; more is not to be had.
#[derive(Debug, Clone, Copy, Default)]
pub struct SqlLimits {
    pub rows_max: Option<u64>,
    pub time_max: Option<Duration>,
}

/// Lets so many queries in at once, and so many of one tenant.
#[derive(Debug)]
pub(super) struct Gate {
    all: Arc<Semaphore>,
    tenants: Mutex<HashMap<TenantId, Arc<Semaphore>>>,
    all_max: usize,
    tenant_max: usize,
    wait_max: Duration,
}

/// Held while a query computes.
#[derive(Debug)]
pub(super) struct Turn {
    _all: OwnedSemaphorePermit,
    _tenant: OwnedSemaphorePermit,
}

impl Gate {
    pub(super) fn new(limits: &QueryLimits) -> Self {
        Self {
            all: Arc::new(Semaphore::new(limits.concurrent_max)),
            tenants: Mutex::default(),
            all_max: limits.concurrent_max,
            tenant_max: limits.concurrent_per_tenant_max,
            wait_max: Duration::from_millis(limits.wait_ms_max),
        }
    }

    /// Waits for a turn, first among the tenant's own queries: a tenant that waits for itself takes no one's place.
    pub(super) async fn enter(&self, tenant: &TenantId) -> Result<Turn, QueryError> {
        let deadline = tokio::time::Instant::now() + self.wait_max;
        let own = self.tenant(tenant);
        let _tenant = tokio::time::timeout_at(deadline, own.acquire_owned())
            .await
            .map_err(|_| busy("concurrent queries of one tenant", self.tenant_max))?
            .map_err(|_| closed())?;
        let _all = tokio::time::timeout_at(deadline, Arc::clone(&self.all).acquire_owned())
            .await
            .map_err(|_| busy("concurrent queries", self.all_max))?
            .map_err(|_| closed())?;
        Ok(Turn { _all, _tenant })
    }

    fn tenant(&self, tenant: &TenantId) -> Arc<Semaphore> {
        /// Above this number of tenants, those that ask nothing now are forgotten.
        const TENANTS_KEPT: usize = 1024;
        let mut tenants = self.tenants.lock();
        if tenants.len() > TENANTS_KEPT {
            // Permits hold a clone: a semaphore with one owner has no query inside.
            tenants.retain(|_, semaphore| Arc::strong_count(semaphore) > 1);
        }
        let new = || Arc::new(Semaphore::new(self.tenant_max));
        Arc::clone(tenants.entry(tenant.clone()).or_insert_with(new))
    }
}

fn busy(name: &'static str, max: usize) -> QueryError {
    QueryError::Busy { name, value: max.to_string() }
}

fn closed() -> QueryError {
    QueryError::Internal("the gate is closed".to_owned())
}
