//! Vacuum: all that upkeep deletes, for one tenant at a time; once by hand, or round after round beside a server.
//!
//! Every hour the days and removed files of each table known to the process are looked at, from memory. Once a day, at an
//! hour that follows from its name, each tenant's prefix is listed, for orphans and old log files, and all its tables
//! have their turn.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use super::sweep::Inventory;
use super::{CompactError, Result};
use crate::base::{Clock, Day, TenantId, TimestampUs};
use crate::catalog::Catalog;
use crate::catalog::retention::{Retention, Retentions};
use crate::catalog::system::SystemObjects;
use crate::catalog::tenants::Tenants;
use crate::model::tables::Table;
use crate::store::Path;

/// Times and limits of upkeep.
#[derive(Debug, Clone)]
pub struct UpkeepSettings {
    /// A removed file stays this long: past the longest query of any process.
    pub linger_s: u64,
    /// Commits stay this long in the Delta logs; a day at least.
    pub log_kept_s: u64,
    /// Objects that nothing names stay this long: past the slowest flush or merge.
    pub orphans_kept_s: u64,
    /// For tenants without a rule of their own. `None`: for ever.
    pub retention_days: Option<u32>,
    /// Who called for what is kept so many days.
    pub audit_kept_days: u32,
    /// More are not deleted in a second: queries need the store too.
    pub deletes_per_s: u32,
    /// Nothing is deleted by a clock that is further ahead of the store's. 0: the clock is not checked.
    pub clock_ahead_max_s: u64,
}

impl Default for UpkeepSettings {
    fn default() -> Self {
        Self {
            linger_s: 2 * 3600,
            log_kept_s: 86_400,
            orphans_kept_s: 86_400,
            retention_days: None,
            audit_kept_days: AUDIT_KEPT_DAYS,
            deletes_per_s: 200,
            clock_ahead_max_s: 600,
        }
    }
}

/// A year, and time to look back at it.
pub const AUDIT_KEPT_DAYS: u32 = 400;
/// Between two rounds of a server.
const ROUND_EVERY: Duration = Duration::from_secs(3600);
/// The first round waits until a server that just started has other things behind it.
const FIRST_ROUND_AFTER: Duration = Duration::from_secs(120);

/// Objects and their bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Gone {
    pub objects: u64,
    pub bytes: u64,
}

impl Gone {
    pub(super) fn add(&mut self, bytes: u64) {
        self.objects += 1;
        self.bytes += bytes;
    }

    pub(super) fn less(self, other: Self) -> Self {
        Self { objects: self.objects.saturating_sub(other.objects), bytes: self.bytes.saturating_sub(other.bytes) }
    }
}

/// What a vacuum did, or would do, to one table.
#[derive(Debug, Clone, Default)]
pub struct TableReport {
    /// Files that left the table because their days are over. They linger.
    pub dropped: Gone,
    pub dropped_rows: u64,
    /// Removed files that were deleted.
    pub retired: Gone,
    /// Late objects that were deleted, folded in before.
    pub folded: u64,
    /// Removed files that are still there.
    pub lingering: Gone,
    /// Objects that nothing named.
    pub orphans: Gone,
    /// Old files of the Delta log.
    pub log: Gone,
    /// Why it could not be done.
    pub error: Option<String>,
}

/// How much to do.
#[derive(Debug, Clone, Copy, Default)]
pub struct Vacuum {
    /// Only say what would be done.
    pub dry_run: bool,
    /// Also list the tenant's prefix, for orphans and old log files.
    pub listing: bool,
    /// Do not wait for a checkpoint that comes by itself.
    pub at_once: bool,
}

/// The upkeep of a store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Upkeep {
    catalog: Catalog,
    clock: Arc<dyn Clock>,
    tenants: Tenants,
    retentions: Retentions,
    settings: Arc<UpkeepSettings>,
}

/// One table's turn.
pub(super) struct Step<'a> {
    upkeep: &'a Upkeep,
    pub(super) settings: &'a UpkeepSettings,
    pub(super) tenant: &'a TenantId,
    pub(super) table: Table,
    pub(super) now_us: TimestampUs,
    pub(super) dry_run: bool,
    pub(super) at_once: bool,
}

impl Upkeep {
    pub fn new(catalog: Catalog, clock: Arc<dyn Clock>, settings: UpkeepSettings) -> Self {
        let objects = SystemObjects::new(catalog.store().clone(), Arc::clone(&clock));
        let (tenants, retentions) = (Tenants::new(objects.clone()), Retentions::new(objects));
        Self { catalog, clock, tenants, retentions, settings: Arc::new(settings) }
    }

    /// The tenants whose tables are kept up.
    pub async fn tenants(&self) -> Result<Vec<TenantId>> {
        Ok(self.tenants.live().await?)
    }

    /// An error if this machine's clock would delete what is still young.
    pub async fn check_clock(&self) -> Result<()> {
        if self.settings.clock_ahead_max_s == 0 {
            return Ok(());
        }
        let ahead_s = (self.clock.now_us() - self.catalog.store().now_us().await?) / 1_000_000;
        match ahead_s > self.settings.clock_ahead_max_s as i64 {
            true => Err(CompactError::Clock { ahead_s }),
            false => Ok(()),
        }
    }

    /// Vacuums one tenant. What fails for a table is in its report; the other tables have their turn all the same.
    pub async fn vacuum(&self, tenant: &TenantId, how: Vacuum) -> Result<Vec<(Table, TableReport)>> {
        let rule = self.retentions.of(tenant).await?;
        self.vacuum_by(tenant, rule.as_ref(), how).await
    }

    async fn vacuum_by(
        &self,
        tenant: &TenantId,
        rule: Option<&Retention>,
        how: Vacuum,
    ) -> Result<Vec<(Table, TableReport)>> {
        let inventory = match how.listing {
            true => Some(Inventory::of(self.catalog.store(), tenant).await?),
            false => None,
        };
        let default = Retention { days: self.settings.retention_days, ..Retention::default() };
        let rule = rule.unwrap_or(&default);
        let mut reports = Vec::with_capacity(Table::ALL.len());
        for table in Table::ALL {
            let mut report = TableReport::default();
            if let Err(error) = self.step(tenant, table, how).take(rule, inventory.as_ref(), &mut report).await {
                tracing::warn!(%tenant, table = table.name(), %error, "upkeep of this table failed; it is tried again");
                report.error = Some(error.to_string());
            }
            reports.push((table, report));
        }
        if let Some(inventory) = inventory.filter(|_| !how.dry_run) {
            // A medium is kept as long as the texts that refer to it.
            let through = rule.through(Table::ObservationIo, self.clock.now_us());
            let kept_from = through.map(|through| Day::from_days(through.days() + 1));
            if inventory.has_media {
                self.catalog.media().retire(tenant, kept_from).await?;
            }
            let kept_days = i32::try_from(self.settings.audit_kept_days).unwrap_or(i32::MAX);
            let from = Day::from_days(Day::of_us(self.clock.now_us()).days().saturating_sub(kept_days));
            self.catalog.audit().forget_before(tenant, from).await?;
        }
        Ok(reports)
    }

    /// Only the sweep of what nothing names.
    pub async fn orphans(&self, tenant: &TenantId, how: Vacuum) -> Result<Vec<(Table, TableReport)>> {
        let inventory = Inventory::of(self.catalog.store(), tenant).await?;
        let mut reports = Vec::with_capacity(Table::ALL.len());
        for table in Table::ALL {
            let mut report = TableReport::default();
            let swept = self.step(tenant, table, how).sweep(&inventory, &mut report).await;
            report.error = swept.err().map(|error| error.to_string());
            reports.push((table, report));
        }
        Ok(reports)
    }

    pub(super) fn step<'a>(&'a self, tenant: &'a TenantId, table: Table, how: Vacuum) -> Step<'a> {
        let Vacuum { dry_run, at_once, .. } = how;
        Step { upkeep: self, settings: &self.settings, tenant, table, now_us: self.clock.now_us(), dry_run, at_once }
    }

    /// Round after round, until dropped.
    pub async fn run(self) {
        tokio::time::sleep(FIRST_ROUND_AFTER).await;
        loop {
            if let Err(error) = self.round().await {
                tracing::warn!(%error, "a round of upkeep failed; the next one tries again");
            }
            tokio::time::sleep(ROUND_EVERY).await;
        }
    }

    /// One round over all tenants.
    pub async fn round(&self) -> Result<()> {
        self.check_clock().await?;
        let rules = self.retentions.all().await?;
        for tenant in self.tenants().await? {
            let how = Vacuum { listing: self.is_hour_of(&tenant), ..Vacuum::default() };
            // Whatever is the matter with one tenant, the others have their turn.
            if let Err(error) = self.vacuum_by(&tenant, rules.get(&tenant), how).await {
                tracing::warn!(%tenant, %error, "upkeep of this tenant failed; it is tried again");
            }
        }
        Ok(())
    }

    /// Each tenant has its hour of the day, whatever process asks, and however often it was restarted.
    fn is_hour_of(&self, tenant: &TenantId) -> bool {
        let mut hash = DefaultHasher::new();
        tenant.as_str().hash(&mut hash);
        (self.clock.now_us().div_euclid(3_600_000_000)).rem_euclid(24) as u64 == hash.finish() % 24
    }
}

impl Step<'_> {
    pub(super) fn catalog(&self) -> &Catalog {
        &self.upkeep.catalog
    }

    async fn take(&self, rule: &Retention, inventory: Option<&Inventory>, report: &mut TableReport) -> Result<()> {
        // A table nobody asked for since the start is not loaded every hour for this, only in its tenant's hour.
        if inventory.is_none() && !self.catalog().knows(self.tenant, self.table) {
            return Ok(());
        }
        self.drop_days(rule.through(self.table, self.now_us), report).await?;
        self.retire(report).await?;
        if let Some(inventory) = inventory {
            self.sweep(inventory, report).await?;
            self.mend_hint(inventory).await?;
            self.clean_log(inventory, report).await?;
        }
        Ok(())
    }

    /// Deletes one object, not faster than the settings allow.
    pub(super) async fn delete(&self, path: &Path) -> Result<()> {
        if !self.dry_run {
            self.catalog().store().delete(path).await?;
            tokio::time::sleep(Duration::from_secs(1) / self.settings.deletes_per_s.max(1)).await;
        }
        Ok(())
    }
}
