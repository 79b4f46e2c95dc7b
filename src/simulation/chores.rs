//! What a process does beside its work, or a worker of its own does all day: merging, retiring, sweeping, erasing.

use std::sync::Arc;

use super::time::Time;
use crate::base::{Kind, TenantId};
use crate::catalog::system::SystemObjects;
use crate::catalog::tenants::Tenants;
use crate::catalog::{Catalog, Rollups};
use crate::compact::{
    CompactError, CompactSettings, Compactor, Done, EraseSettings, Eraser, Upkeep, UpkeepSettings, Vacuum,
};
use crate::query::FileRollups;

/// Rows of a tenant that has a rule are kept for so many days.
pub(super) const RETENTION_DAYS: u32 = 30;

pub(super) struct Chores {
    compactor: Compactor,
    upkeep: Upkeep,
    eraser: Eraser,
}

fn rollups() -> Arc<dyn Rollups> {
    Arc::new(FileRollups::new().unwrap().of_all())
}

impl Chores {
    pub(super) fn new(catalog: &Catalog, time: &Time) -> Self {
        let clock = time.clock();
        let tenants = Tenants::new(SystemObjects::new(catalog.store().clone(), Arc::clone(&clock)));
        // Often, so that much of it happens in a short life.
        let compact = CompactSettings { files_max: 4, lease_s: 1, fold_older_s: 600, workers: 2, ..Default::default() };
        let upkeep = UpkeepSettings { deletes_per_s: 1_000_000, ..Default::default() };
        Self {
            compactor: Compactor::new(catalog.clone(), tenants, Arc::clone(&clock), rollups(), compact).unwrap(),
            upkeep: Upkeep::new(catalog.clone(), Arc::clone(&clock), upkeep),
            eraser: Eraser::new(catalog.clone(), clock, rollups(), EraseSettings::default()),
        }
    }

    /// Merges and folds all that is due. What cannot be merged at all is a fault of ours.
    pub(super) async fn merge(&self) -> Result<Done, String> {
        let done = self.compactor.run_once().await.or_else(forgive)?;
        match self.compactor.parked().first() {
            None => Ok(done),
            Some(parked) => Err(format!("I8: {parked}")),
        }
    }

    /// Retention, lingering deletes, orphans, old logs: of one tenant.
    pub(super) async fn tidy(&self, tenant: &TenantId, at_once: bool) -> Result<(), String> {
        if let Err(error) = self.upkeep.check_clock().await {
            return forgive(error);
        }
        let how = Vacuum { listing: true, at_once, ..Default::default() };
        self.upkeep.vacuum(tenant, how).await.map(drop).or_else(forgive)
    }

    /// Brings erasures on their way; how many are not done.
    pub(super) async fn erase(&self) -> Result<usize, String> {
        self.eraser.round().await.or_else(forgive)
    }
}

/// The store may be away; anything else may not happen.
fn forgive<T: Default>(error: CompactError) -> Result<T, String> {
    match error.kind() {
        Kind::Unavailable => Ok(T::default()),
        _ => Err(error.to_string()),
    }
}
