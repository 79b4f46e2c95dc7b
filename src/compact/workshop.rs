//! What every rewrite of this process is done with: memory, leases, and care for what panics.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt;

use super::fold::Fold;
use super::lease::Leases;
use super::plan::Job;
use super::rewrite::{Rewritten, Workplace, rewrite};
use super::{CompactError, Result};
use crate::base::{Budget, ByteSize, Clock, TenantId};
use crate::catalog::{Catalog, Rollups};
use crate::model::tables::Table;

#[derive(Debug)]
pub(super) struct Workshop {
    pub(super) catalog: Catalog,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) leases: Leases,
    /// Memory of all rewrites.
    pub(super) budget: Budget,
    /// Memory of one.
    pub(super) memory_of_one: ByteSize,
    pub(super) target_bytes: ByteSize,
    /// Who sums up what is written.
    pub(super) rollups: Arc<dyn Rollups>,
}

impl Workshop {
    /// Does a job; nothing is live before the caller commits it.
    pub(super) async fn rewrite(
        &self,
        tenant: &TenantId,
        table: Table,
        job: &Job,
        fold: &dyn Fold,
    ) -> Result<Rewritten> {
        let place = Workplace {
            store: self.catalog.store(),
            clock: self.clock.as_ref(),
            budget: &self.budget,
            memory_max: self.memory_of_one,
            target_bytes: self.target_bytes,
            rollups: self.rollups.as_ref(),
        };
        // What reads files may panic on bytes nobody wrote; it must not take the worker with it.
        let rewritten = AssertUnwindSafe(rewrite(place, tenant, table, job, fold)).catch_unwind().await;
        rewritten.unwrap_or(Err(CompactError::Panicked { table: table.name() }))
    }
}
