//! The doctor: looks through a bucket and says what is wrong in it, and what could be mended.
//!
//! Promises: what it calls healthy was read: every log, checkpoint, footer, index, roll-up and key of every live file. Without
//! being asked to fix it changes nothing; asked, it only makes anew what follows from other objects, and deletes only
//! what upkeep would delete. It may run beside servers.
//! Must never know: which requests made the rows, and what is asked of them.

mod books;
mod delta_log;
mod files;
mod finding;
mod keys;
mod rollups;
mod writers;

use std::sync::Arc;

use crate::base::{ByteSize, Clock, Kind, TenantId};
use crate::catalog::system::{SystemError, SystemObjects};
use crate::catalog::tenants::Tenants;
use crate::catalog::{Catalog, CatalogError};
use crate::compact::{CompactError, Upkeep, UpkeepSettings, Vacuum};
use crate::model::tables::Table;
use crate::store::{Store, StoreError};

use finding::Place;
pub use finding::{Examination, Finding, Seen, Severity};

/// Only trouble that keeps it from looking is an error; whatever else is wrong is a finding.
#[derive(Debug, thiserror::Error)]
pub enum DoctorError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    System(#[from] SystemError),
    #[error(transparent)]
    Upkeep(#[from] CompactError),
    #[error("the store is not reachable now: {0}")]
    Away(String),
}

impl DoctorError {
    pub fn kind(&self) -> Kind {
        match self {
            Self::Store(e) => e.kind(),
            Self::System(e) => e.kind(),
            Self::Upkeep(e) => e.kind(),
            Self::Away(_) => Kind::Unavailable,
        }
    }
}

pub type Result<T, E = DoctorError> = std::result::Result<T, E>;

/// What to examine.
#[derive(Debug, Clone, Default)]
pub struct Order {
    /// `None`: all tenants that are not deleted.
    pub tenant: Option<TenantId>,
    /// Mend what is safe to mend.
    pub fix: bool,
}

/// Looks through the store and, if asked, mends.
pub async fn examine(store: Store, clock: Arc<dyn Clock>, order: Order) -> Result<Examination> {
    let tenants = Tenants::new(SystemObjects::new(store.clone(), Arc::clone(&clock)));
    // Of its own: what a server remembers must not hide what the store says.
    let catalog = Catalog::new(store.clone(), Arc::clone(&clock));
    let mut round = Round { store, catalog, clock, fix: order.fix, found: Examination::default() };
    let tenants = match order.tenant {
        Some(tenant) => {
            tenants.require_live(&tenant).await?;
            vec![tenant]
        }
        None => tenants.live().await?,
    };
    let logs = round.writers().await?;
    for tenant in &tenants {
        round.found.seen.tenants += 1;
        for table in Table::ALL {
            round.table(tenant, table).await?;
        }
        // After the tables: what was mended in them is seen here.
        round.positions(tenant, &logs).await?;
        round.books(tenant, &logs).await?;
        round.orphans(tenant).await?;
    }
    Ok(round.found)
}

/// One examination under way.
struct Round {
    store: Store,
    catalog: Catalog,
    clock: Arc<dyn Clock>,
    fix: bool,
    found: Examination,
}

impl Round {
    async fn table(&mut self, tenant: &TenantId, table: Table) -> Result<()> {
        let place = Place::table(tenant, table);
        let Some(log) = self.delta_log(tenant, table).await? else { return Ok(()) };
        let snapshot = match self.catalog.snapshot(tenant, table).await {
            Ok(snapshot) => snapshot,
            Err(CatalogError::Store(error)) => return Err(error.into()),
            Err(error) => {
                self.found.error(&place, format!("servers cannot load it: {error}"));
                return Ok(());
            }
        };
        // Somebody may have committed in between; then the log is no longer what was read.
        if snapshot.version == log.version && !snapshot.files.keys().eq(log.adds.keys()) {
            self.found.error(&place, "servers load other files than its log says".to_owned());
        }
        self.found.seen.tables += 1;
        self.files(tenant, table, &snapshot).await
    }

    /// What nothing names: counted, and deleted if asked and old enough.
    async fn orphans(&mut self, tenant: &TenantId) -> Result<()> {
        let upkeep = Upkeep::new(self.catalog.clone(), Arc::clone(&self.clock), UpkeepSettings::default());
        let mut is_fixed = self.fix;
        if self.fix {
            match upkeep.check_clock().await {
                Err(error @ CompactError::Clock { .. }) => {
                    self.found.warning(&Place::tenant(tenant), error.to_string());
                    is_fixed = false;
                }
                checked => checked?,
            }
        }
        for (table, report) in upkeep.orphans(tenant, Vacuum { dry_run: !is_fixed, ..Vacuum::default() }).await? {
            if report.orphans.objects > 0 {
                let (count, size) = (report.orphans.objects, ByteSize(report.orphans.bytes));
                let what = format!("{count} objects ({size}) older than a day that nothing names");
                self.found.note(&Place::table(tenant, table), what).mend("delete them", is_fixed);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
