//! The sweep: what a tenant's prefix holds that nothing names. A crash between a write and its commit leaves such objects.
//!
//! The one place where listing is the way: first the objects are listed, then the tables are read, so that a file which
//! is committed meanwhile is seen as live. Only names that we give are ever deleted, and only objects a day old.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Result;
use super::vacuum::{Step, TableReport};
use crate::base::TenantId;
use crate::model::tables::Table;
use crate::store::{self, ObjectMeta, Store, TenantObject};

/// Commits whose rows the ledger does not hold yet are kept this long.
const UNBOOKED_KEPT: Duration = Duration::from_secs(7 * 86_400);

/// What lies below a tenant's prefix, by table.
#[derive(Debug, Default)]
pub(super) struct Inventory {
    tables: BTreeMap<Table, TableObjects>,
    /// There are media.
    pub(super) has_media: bool,
}

#[derive(Debug, Default)]
struct TableObjects {
    /// With their paths as add actions write them.
    data: Vec<(String, ObjectMeta)>,
    /// Roll-ups, by the paths of their data files.
    rollups: Vec<(String, ObjectMeta)>,
    /// With their ids.
    indexes: Vec<(String, ObjectMeta)>,
    /// With their numbers.
    late: Vec<(u64, ObjectMeta)>,
    log: Vec<ObjectMeta>,
}

impl Inventory {
    /// One LIST of the tenant's prefix.
    pub(super) async fn of(objects: &Store, tenant: &TenantId) -> Result<Self> {
        let mut inventory = Self::default();
        for meta in objects.list(&store::tenant_root(tenant), None).await? {
            if store::media_object(tenant, &meta.location).is_some() {
                inventory.has_media = true;
                continue;
            }
            let Some((table, object)) = store::tenant_object(tenant, &meta.location) else { continue };
            let Some(table) = Table::from_name(&table) else { continue };
            let found = inventory.tables.entry(table).or_default();
            match object {
                TenantObject::Data(path) => found.data.push((path, meta)),
                TenantObject::Rollup(path) => found.rollups.push((path, meta)),
                TenantObject::Index(id) => found.indexes.push((id, meta)),
                TenantObject::Late(number) => found.late.push((number, meta)),
                TenantObject::Log => found.log.push(meta),
            }
        }
        Ok(inventory)
    }
}

impl Step<'_> {
    /// Deletes what no snapshot of the table names, if it is old enough.
    pub(super) async fn sweep(&self, inventory: &Inventory, report: &mut TableReport) -> Result<()> {
        let Some(found) = inventory.tables.get(&self.table) else { return Ok(()) };
        let snapshot = self.catalog().snapshot(self.tenant, self.table).await?;
        let held = self.catalog().held(self.tenant, self.table);
        let is_named =
            |path: &str| snapshot.removed.contains_key(path) || held.iter().any(|held| held.files.contains_key(path));
        let indexes: BTreeSet<&str> = held
            .iter()
            .flat_map(|held| held.files.values().filter_map(|file| file.index.as_deref()))
            .chain(snapshot.removed.values().filter_map(|file| file.index.as_deref()))
            .collect();
        let data = found.data.iter().chain(&found.rollups).filter(|(path, _)| !is_named(path));
        let indexes = found.indexes.iter().filter(|(id, _)| !indexes.contains(id.as_str()));
        let late = found.late.iter().filter(|(number, _)| {
            let is_live = held.iter().any(|held| held.late.values().any(|live| live == number));
            !is_live && !snapshot.late_freed.contains_key(number) && self.is_over(snapshot.late_freed_before_us)
        });
        let unnamed = data.map(|(_, meta)| meta).chain(indexes.map(|(_, meta)| meta)).chain(late.map(|(_, meta)| meta));
        for meta in unnamed.filter(|meta| self.is_forgotten(meta)) {
            self.delete(&meta.location).await?;
            report.orphans.add(meta.size);
        }
        Ok(())
    }

    /// Whoever wrote the newest checkpoint may have been stopped before its hint: until the next one is due, the table
    /// would be listed whenever it is loaded. One is written now.
    pub(super) async fn mend_hint(&self, inventory: &Inventory) -> Result<()> {
        let log = inventory.tables.get(&self.table).map_or(&[][..], |found| &found.log);
        let newest = log.iter().filter_map(|meta| store::delta_checkpoint_version(&meta.location)).max();
        if newest.is_some() && !self.dry_run && self.catalog().checkpointed(self.tenant, self.table).await? < newest {
            self.catalog().checkpoint(self.tenant, self.table).await?;
        }
        Ok(())
    }

    /// Deletes commits and checkpoints that nobody needs any more.
    pub(super) async fn clean_log(&self, inventory: &Inventory, report: &mut TableReport) -> Result<()> {
        let Some(found) = inventory.tables.get(&self.table) else { return Ok(()) };
        let kept = match self.is_booked().await? {
            true => Duration::from_secs(self.settings.log_kept_s),
            false => Duration::from_secs(self.settings.log_kept_s).max(UNBOOKED_KEPT),
        };
        for meta in self.catalog().log_to_clean(self.tenant, self.table, &found.log, kept).await? {
            self.delete(&meta.location).await?;
            report.log.add(meta.size);
        }
        Ok(())
    }

    /// Whether the ledger has taken in all that the table has. Else whoever replays a log after a crash reads in the
    /// table's commits what it must count.
    async fn is_booked(&self) -> Result<bool> {
        let snapshot = self.catalog().known_snapshot(self.tenant, self.table).await?;
        let ledger = self.catalog().known_snapshot(self.tenant, Table::Ledger).await?;
        Ok(snapshot.positions.iter().all(|(writer, position)| ledger.position(writer) >= *position))
    }

    fn is_forgotten(&self, meta: &ObjectMeta) -> bool {
        meta.last_modified.timestamp_micros() < self.now_us - self.settings.orphans_kept_s as i64 * 1_000_000
    }
}
