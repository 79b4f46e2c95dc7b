//! The slow half of an erasure: after no answer shows it, no object may hold it.
//!
//! Files that hold erased rows are written again without them, late objects too; then the old ones go when no query can
//! read them any more, and the log when it is old enough. That nothing is left is found by looking, and only then there
//! is a receipt. Every step can be done twice, by several processes at once.

mod copies;
mod fold;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::lease::Leases;
use super::workshop::Workshop;
use super::{CompactError, CompactSettings, Compactor, Result};
use crate::base::{Budget, ByteSize, Clock, TenantId, TimestampUs};
use crate::catalog::erasures::{Erasure, ErasureKind, Masked, Receipt, Rewritten};
use crate::catalog::{Catalog, ERASED_FROM, Rollups};

/// Times of erasures.
#[derive(Debug, Clone)]
pub struct EraseSettings {
    /// Until then every process has heard of it, and what they flushed before is in the tables.
    pub settle_s: u64,
    /// Objects that are not live any more may be read for this long.
    pub linger_s: u64,
    /// Objects that nothing ever named may be about to be named for this long.
    pub orphans_kept_s: u64,
    /// Log objects that are in every table are kept this long.
    pub log_kept_s: u64,
    pub look_every_s: u64,
    /// Memory for writing files again, where nothing is merged.
    pub memory_max: ByteSize,
    /// Files are not made larger than twice this.
    pub target_bytes: ByteSize,
    /// How long an eraser that fell silent keeps others away from the files it was at.
    pub lease_s: u64,
}

impl Default for EraseSettings {
    fn default() -> Self {
        let CompactSettings { target_bytes, lease_s, .. } = CompactSettings::default();
        Self {
            settle_s: 60,
            linger_s: 2 * 3600,
            orphans_kept_s: 86_400,
            log_kept_s: 3600,
            look_every_s: 30,
            memory_max: ByteSize::mib(64),
            target_bytes,
            lease_s,
        }
    }
}

/// Copies that are not due to go are looked at this seldom.
const PATIENCE_MAX_US: i64 = 600_000_000;

/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct Eraser {
    workshop: Arc<Workshop>,
    settings: Arc<EraseSettings>,
    memory: Arc<Mutex<Memory>>,
}

#[derive(Debug, Default)]
struct Memory {
    /// Ids, once it was looked.
    done: Option<HashSet<String>>,
    /// By number: before that there is nothing to do.
    not_before_us: HashMap<u64, TimestampUs>,
    /// By number: when a last look found more to rewrite.
    again_us: HashMap<u64, TimestampUs>,
}

/// What a look at the copies left found.
#[derive(Debug, Clone, Copy, Default)]
struct Left {
    objects: u64,
    /// When the next of them may go; none: it is not known.
    next_us: Option<TimestampUs>,
}

impl Left {
    fn wait(&mut self, until_us: TimestampUs) {
        self.objects += 1;
        self.next_us = Some(self.next_us.map_or(until_us, |next_us| next_us.min(until_us)));
    }
}

impl Eraser {
    /// With memory of its own, where nothing is merged.
    pub fn new(catalog: Catalog, clock: Arc<dyn Clock>, rollups: Arc<dyn Rollups>, settings: EraseSettings) -> Self {
        let workshop = Workshop {
            leases: Leases::new(catalog.store().clone(), Arc::clone(&clock), Duration::from_secs(settings.lease_s)),
            budget: Budget::new("erasures", settings.memory_max),
            memory_of_one: settings.memory_max,
            target_bytes: settings.target_bytes,
            catalog,
            clock,
            rollups,
        };
        Self { workshop: Arc::new(workshop), settings: Arc::new(settings), memory: Arc::default() }
    }

    /// With the memory that merges of this process have.
    pub fn beside(compactor: &Compactor, settings: EraseSettings) -> Self {
        let workshop = Arc::clone(&compactor.0.workshop);
        Self { workshop, settings: Arc::new(settings), memory: Arc::default() }
    }

    pub fn budget(&self) -> &Budget {
        &self.workshop.budget
    }

    fn catalog(&self) -> &Catalog {
        &self.workshop.catalog
    }

    fn now_us(&self) -> TimestampUs {
        self.workshop.clock.now_us()
    }

    /// Round after round, until dropped.
    pub async fn run(self) {
        loop {
            tokio::time::sleep(Duration::from_secs(self.settings.look_every_s.max(1))).await;
            if let Err(error) = self.round().await {
                tracing::warn!(%error, "a round of erasures failed; the next one tries again");
            }
        }
    }

    /// Brings every erasure as far as it can come now. Returns how many are not done.
    pub async fn round(&self) -> Result<usize> {
        let erasures = self.catalog().erasures();
        erasures.catch_up().await?;
        if self.memory.lock().done.is_none() {
            let done = erasures.done().await?;
            self.memory.lock().done = Some(done.into_iter().collect());
        }
        let is_open =
            |erasure: &Arc<Erasure>| self.memory.lock().done.as_ref().is_none_or(|done| !done.contains(&erasure.id));
        let mut open = 0;
        for erasure in erasures.after(0).into_iter().filter(is_open) {
            open += 1;
            let not_before_us = self.memory.lock().not_before_us.get(&erasure.number).copied();
            if not_before_us.is_some_and(|not_before_us| self.now_us() < not_before_us) {
                continue;
            }
            // Whatever is the matter with one, the others have their turn.
            match self.advance(&erasure).await {
                Ok(true) => {
                    open -= 1;
                    let mut memory = self.memory.lock();
                    memory.not_before_us.remove(&erasure.number);
                    memory.done.get_or_insert_default().insert(erasure.id.clone());
                }
                Ok(false) => {}
                Err(CompactError::Busy) => {
                    let (id, tenant) = (&erasure.id, &erasure.tenant);
                    tracing::debug!(erasure = id, tenant, "an erasure waits for others at the same files");
                }
                Err(error) => {
                    let (id, tenant) = (&erasure.id, &erasure.tenant);
                    tracing::warn!(erasure = id, tenant, %error, "an erasure waits; it is tried again");
                }
            }
        }
        Ok(open)
    }

    /// True if it is done.
    async fn advance(&self, erasure: &Erasure) -> Result<bool> {
        let erasures = self.catalog().erasures();
        if erasures.receipt(erasure).await?.is_some() {
            return Ok(true);
        }
        let Ok(tenant) = erasure.tenant.parse::<TenantId>() else { return Ok(false) };
        let now_us = self.now_us();
        let settled_us = erasure.asked_us + seconds(self.settings.settle_s);
        if now_us < settled_us {
            self.memory.lock().not_before_us.insert(erasure.number, settled_us);
            return Ok(false);
        }
        let rewritten = match erasures.rewritten(erasure).await? {
            Some(rewritten) => rewritten,
            None => {
                let (_, files) = self.rewrite(&tenant, erasure).await?;
                let now_us = self.now_us();
                let logs = copies::last_log_objects(self.catalog().store()).await?;
                let mut rewritten = Rewritten { at_us: now_us, files, logs, ..Default::default() };
                rewritten.copies = self.copies_left(&tenant, erasure, &rewritten, false).await?.objects;
                erasures.set_rewritten(erasure, rewritten).await?
            }
        };
        let left = self.copies_left(&tenant, erasure, &rewritten, true).await?;
        if left.objects > 0 {
            let soon_us = now_us + PATIENCE_MAX_US;
            let next_us = left.next_us.map_or(now_us, |next_us| next_us.min(soon_us));
            self.memory.lock().not_before_us.insert(erasure.number, next_us);
            return Ok(false);
        }
        // Who was away all this time may have brought rows since.
        let (more, files) = self.rewrite(&tenant, erasure).await?;
        if more || files > 0 {
            self.memory.lock().again_us.insert(erasure.number, self.now_us());
            return Ok(false);
        }
        self.receipt(erasure, rewritten).await?;
        Ok(true)
    }

    /// Whether the tenant is deleted, with whatever else was to be forgotten of it.
    fn goes_whole(&self, tenant: &TenantId) -> bool {
        self.catalog().erasures().denied(tenant).is_some_and(|denied| denied.all())
    }

    /// Masks what stands, and writes files and late objects again without it. Whether there was more to mask, and how
    /// many files were written again.
    async fn rewrite(&self, tenant: &TenantId, erasure: &Erasure) -> Result<(bool, u64)> {
        if self.goes_whole(tenant) {
            return Ok((false, 0));
        }
        let rows = self.catalog().mask(tenant, erasure).await?;
        let more = !rows.is_empty();
        if more {
            let masked = Masked { at_us: self.now_us(), rows };
            self.catalog().erasures().add_masked(erasure, masked).await?;
        }
        let mut files = 0;
        for table in ERASED_FROM {
            files += fold::fold(&self.workshop, tenant, table).await?;
        }
        Ok((more, files))
    }

    /// Looks for copies that nobody needs, lets those go that may go if `delete`, and says how many are left.
    async fn copies_left(
        &self,
        tenant: &TenantId,
        erasure: &Erasure,
        rewritten: &Rewritten,
        delete: bool,
    ) -> Result<Left> {
        let again_us = self.memory.lock().again_us.get(&erasure.number).copied();
        let look = copies::Look {
            catalog: self.catalog(),
            settings: &self.settings,
            now_us: self.now_us(),
            rewritten_us: rewritten.at_us.max(again_us.unwrap_or(rewritten.at_us)),
            delete,
        };
        let mut left = Left::default();
        if self.goes_whole(tenant) {
            // What is left of it is for the erasure of the tenant to let go.
            let delete = look.delete && erasure.kind == ErasureKind::Tenant;
            copies::Look { delete, ..look }.at_tenant(tenant, &mut left).await?;
        } else {
            look.at_tables(tenant, &mut left).await?;
        }
        look.at_logs(&rewritten.logs, &mut left).await?;
        Ok(left)
    }

    async fn receipt(&self, erasure: &Erasure, rewritten: Rewritten) -> Result<()> {
        let erasures = self.catalog().erasures();
        let mut rows: BTreeMap<String, u64> = BTreeMap::new();
        for masked in erasures.masked(erasure).await? {
            masked.rows.into_iter().for_each(|(table, count)| *rows.entry(table).or_default() += count);
        }
        let receipt = Receipt {
            id: erasure.id.clone(),
            tenant: erasure.tenant.clone(),
            kind: erasure.kind,
            subjects: erasure.subjects.clone(),
            asked_by: erasure.asked_by.clone(),
            asked_us: erasure.asked_us,
            rewritten_us: rewritten.at_us,
            done_us: self.now_us(),
            rows,
            files_rewritten: rewritten.files,
            copies_gone: rewritten.copies,
        };
        let (id, tenant) = (&erasure.id, &erasure.tenant);
        tracing::info!(erasure = id, tenant, kind = %erasure.kind, "erased: the last copy is gone");
        Ok(erasures.set_receipt(erasure, receipt).await?)
    }
}

fn seconds(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX / 1_000_000).saturating_mul(1_000_000)
}
