//! What is left of what was erased: objects below the tenant's prefix that are not live, and the logs.

use std::collections::{BTreeMap, BTreeSet};

use super::{EraseSettings, Left, seconds};
use crate::base::{Day, TenantId, TimestampUs, WriterId};
use crate::catalog::{Catalog, ERASED_FROM};
use crate::compact::Result;
use crate::format::log::{self, FrameKind};
use crate::model::tables::Table;
use crate::store::{self, ObjectMeta, Store, TenantObject};

/// The last object of every log there is.
pub(super) async fn last_log_objects(objects: &Store) -> Result<BTreeMap<String, u64>> {
    let mut last = BTreeMap::new();
    for name in objects.list_folders(&store::logs()).await? {
        let Ok(writer) = name.parse::<WriterId>() else { continue };
        let listed = objects.list(&store::log_object(&writer, None), None).await?;
        if let Some(sequence) = listed.iter().filter_map(|meta| store::log_sequence(&meta.location)).max() {
            last.insert(name, sequence);
        }
    }
    Ok(last)
}

#[derive(Clone, Copy)]
pub(super) struct Look<'a> {
    pub(super) catalog: &'a Catalog,
    pub(super) settings: &'a EraseSettings,
    pub(super) now_us: TimestampUs,
    /// Since then no live object holds it.
    pub(super) rewritten_us: TimestampUs,
    pub(super) delete: bool,
}

impl Look<'_> {
    /// All that is below a tenant that is gone.
    pub(super) async fn at_tenant(&self, tenant: &TenantId, left: &mut Left) -> Result<()> {
        let over_us = self.rewritten_us + seconds(self.settings.linger_s);
        for meta in self.catalog.store().list(&store::tenant_root(tenant), None).await? {
            self.let_go(&meta, over_us, left).await?;
        }
        if self.delete {
            self.catalog.audit().forget_before(tenant, Day::from_days(i32::MAX)).await?;
        }
        Ok(())
    }

    /// Data files, their roll-ups, index and late objects that are older than the rewrite and not live. A Delta log names
    /// no person: its statistics hold times and counts, and it goes by its own rule.
    pub(super) async fn at_tables(&self, tenant: &TenantId, left: &mut Left) -> Result<()> {
        let objects = self.catalog.store();
        // Listed first: what is committed meanwhile is then seen to be live.
        let listed = objects.list(&store::tenant_root(tenant), None).await?;
        let mut by_table: BTreeMap<Table, Vec<(TenantObject, ObjectMeta)>> = BTreeMap::new();
        for meta in listed {
            let found = store::tenant_object(tenant, &meta.location);
            let Some((table, object)) = found.and_then(|(name, object)| Some((Table::from_name(&name)?, object)))
            else {
                continue;
            };
            if meta.last_modified.timestamp_micros() <= self.rewritten_us && ERASED_FROM.contains(&table) {
                by_table.entry(table).or_default().push((object, meta));
            }
        }
        for (table, found) in by_table {
            self.at_table(tenant, table, found, left).await?;
        }
        Ok(())
    }

    async fn at_table(
        &self,
        tenant: &TenantId,
        table: Table,
        found: Vec<(TenantObject, ObjectMeta)>,
        left: &mut Left,
    ) -> Result<()> {
        let snapshot = self.catalog.snapshot(tenant, table).await?;
        let indexes: BTreeSet<&str> = snapshot.files.values().filter_map(|file| file.index.as_deref()).collect();
        let held = self.catalog.held(tenant, table);
        let linger_us = seconds(self.settings.linger_s);
        let mut checkpointed = false;
        for (object, meta) in found {
            // When it was retired; none: nothing ever named it, as far as is known.
            let (is_live, retired_us) = match &object {
                TenantObject::Log => continue,
                TenantObject::Data(path) | TenantObject::Rollup(path) => {
                    (snapshot.files.contains_key(path), snapshot.removed.get(path).map(|file| file.removed_us))
                }
                TenantObject::Index(id) => {
                    let removed = snapshot.removed.values().filter(|file| file.index.as_ref() == Some(id));
                    (indexes.contains(id.as_str()), removed.map(|file| file.removed_us).max())
                }
                TenantObject::Late(number) => {
                    (snapshot.late.values().any(|live| live == number), snapshot.late_freed.get(number).copied())
                }
            };
            if is_live {
                continue;
            }
            let orphan_us = meta.last_modified.timestamp_micros() + seconds(self.settings.orphans_kept_s);
            let mut over_us = match retired_us {
                Some(retired_us) => retired_us + linger_us,
                None => orphan_us.max(self.rewritten_us + linger_us),
            };
            if let TenantObject::Data(path) | TenantObject::Rollup(path) = &object {
                if held.iter().any(|held| held.files.contains_key(path)) {
                    over_us = over_us.max(self.now_us + 1);
                }
                // A log of which only the newest checkpoint is left must still be whole.
                if self.delete && over_us <= self.now_us && !checkpointed {
                    self.catalog.checkpoint(tenant, table).await?;
                    checkpointed = true;
                }
            }
            self.let_go(&meta, over_us, left).await?;
        }
        Ok(())
    }

    /// Log objects up to the last one that may hold it. Claims stay, and what nobody can read: they keep numbers taken.
    pub(super) async fn at_logs(&self, logs: &BTreeMap<String, u64>, left: &mut Left) -> Result<()> {
        let objects = self.catalog.store();
        for (name, last) in logs {
            let Ok(writer) = name.parse::<WriterId>() else { continue };
            let marks = objects.list(&store::low_mark(&writer, None), None).await?;
            let mark = marks.iter().filter_map(|meta| store::log_sequence(&meta.location)).max().unwrap_or(0);
            for meta in objects.list(&store::log_object(&writer, None), None).await? {
                let Some(sequence) = store::log_sequence(&meta.location).filter(|sequence| sequence <= last) else {
                    continue;
                };
                if is_fence(objects, &meta).await? {
                    continue;
                }
                match sequence < mark {
                    true => {
                        let over_us = meta.last_modified.timestamp_micros() + seconds(self.settings.log_kept_s);
                        self.let_go(&meta, over_us, left).await?;
                    }
                    false => left.objects += 1,
                }
            }
        }
        Ok(())
    }

    async fn let_go(&self, meta: &ObjectMeta, over_us: TimestampUs, left: &mut Left) -> Result<()> {
        match self.delete && over_us <= self.now_us {
            true => self.catalog.store().delete(&meta.location).await?,
            false => left.wait(over_us),
        }
        Ok(())
    }
}

async fn is_fence(objects: &Store, meta: &ObjectMeta) -> Result<bool> {
    let Some(body) = objects.get(&meta.location).await? else { return Ok(true) };
    Ok(log::decode_object(&body).map_or(true, |(_, frames)| frames.iter().any(|frame| frame.kind == FrameKind::Claim)))
}
