//! What is to be forgotten: `system/erasures/{number}`, in the order it was asked, and how far each has come.
//!
//! Every process knows them all: from its start, and by asking for the next number once a second. Of persons and
//! conversations only a digest is written down: a list of who asked to be forgotten would remember them.

mod denied;
mod record;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use parking_lot::RwLock;
use uuid::Uuid;

use super::system::{Result, SystemError, SystemObjects};
use crate::base::{TenantId, TimestampUs};

pub use denied::Denied;
pub use record::{Erasure, ErasureKind, ErasureState, ErasureStatus, Masked, NewErasure, Receipt, Rewritten, digest};

const ERASURES: &str = "erasures";
const MASKED: &str = "erasures-masked";
const REWRITTEN: &str = "erasures-rewritten";
const RECEIPTS: &str = "receipts";

/// For so long, what is said about a forgotten key is refused: senders may still have it in their queues. Longer where
/// files still hold it: what hides its old rows would hide new ones too.
pub const REFUSED_FOR_US: i64 = 7 * 86_400_000_000;
/// How often it is looked whether files hold what is due to come again.
const LOOK_EVERY_US: i64 = 60 * 1_000_000;
/// Keys one erasure may name.
pub const SUBJECTS_MAX: usize = 1_000;
const SUBJECT_BYTES_MAX: usize = 1_000;

/// The erasures of a store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Erasures(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    objects: SystemObjects,
    known: RwLock<Known>,
    /// Held while numbers are read or taken.
    moving: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Known {
    is_loaded: bool,
    /// By number; they begin at 1 and have no gaps.
    all: BTreeMap<u64, Arc<Erasure>>,
    denied: HashMap<TenantId, Arc<Denied>>,
    /// By number: when no live file held it any more.
    rewritten: HashMap<u64, TimestampUs>,
    /// When it was last looked for those.
    looked_us: TimestampUs,
    receipts: HashMap<String, Arc<Receipt>>,
}

impl Erasures {
    /// Knows of none before it caught up.
    pub fn new(objects: SystemObjects) -> Self {
        Self(Arc::new(Inner { objects, known: RwLock::default(), moving: tokio::sync::Mutex::default() }))
    }

    /// Writes down what is asked; durable and in force here on return.
    pub async fn ask(&self, asked: NewErasure) -> Result<Arc<Erasure>> {
        asked.check()?;
        let _moving = self.0.moving.lock().await;
        self.load().await?;
        let asked_us = self.0.objects.now_us();
        let until_us = match asked.kind {
            ErasureKind::Tenant => i64::MAX,
            _ => asked_us.saturating_add(REFUSED_FOR_US),
        };
        let tenant = asked.tenant.to_string();
        let written_down = |value: &String| match asked.kind {
            ErasureKind::Trace | ErasureKind::Tenant | ErasureKind::Score => value.clone(),
            kind @ (ErasureKind::Session | ErasureKind::User) => digest(&tenant, kind, value),
        };
        let mut erasure = Erasure {
            number: 0,
            id: Uuid::now_v7().to_string(),
            kind: asked.kind,
            subjects: asked.values.iter().map(written_down).collect(),
            asked_by: asked.asked_by,
            asked_us,
            until_us,
            traces: asked.traces,
            tenant,
        };
        loop {
            erasure.number = self.next();
            let name = format!("{:020}", erasure.number);
            match self.0.objects.create(ERASURES, &name, erasure.clone()).await? {
                None => return Ok(self.learn(erasure)),
                Some(theirs) => _ = self.learn(theirs),
            }
        }
    }

    /// Learns what others asked since. The first time all there are: one LIST, and a request for each; later one request
    /// when there is nothing new.
    pub async fn catch_up(&self) -> Result<()> {
        let _moving = self.0.moving.lock().await;
        self.load().await?;
        while let Some(next) = self.0.objects.get(ERASURES, &format!("{:020}", self.next())).await? {
            self.learn(next);
        }
        self.look_for_rewritten().await
    }

    /// What may come again by its time does so when its files were written again. Costs nothing while there is no such.
    async fn look_for_rewritten(&self) -> Result<()> {
        let now_us = self.now_us();
        let due: Vec<Arc<Erasure>> = {
            let mut known = self.0.known.write();
            let is_open =
                |erasure: &&Arc<Erasure>| erasure.until_us <= now_us && !known.rewritten.contains_key(&erasure.number);
            let due: Vec<_> = known.all.values().filter(is_open).cloned().collect();
            if due.is_empty() || (0..LOOK_EVERY_US).contains(&now_us.saturating_sub(known.looked_us)) {
                return Ok(());
            }
            known.looked_us = now_us;
            due
        };
        for erasure in due {
            self.rewritten(&erasure).await?;
        }
        Ok(())
    }

    /// Those known with numbers above `number`.
    pub fn after(&self, number: u64) -> Vec<Arc<Erasure>> {
        self.0.known.read().all.range(number + 1..).map(|(_, erasure)| Arc::clone(erasure)).collect()
    }

    /// The number of the last one known; 0 if there is none.
    pub fn last(&self) -> u64 {
        self.next() - 1
    }

    pub fn of_tenant(&self, tenant: &TenantId) -> Vec<Arc<Erasure>> {
        let known = self.0.known.read();
        known.all.values().filter(|erasure| erasure.tenant == tenant.as_str()).cloned().collect()
    }

    /// What of this tenant is refused, if anything ever was.
    pub fn denied(&self, tenant: &TenantId) -> Option<Arc<Denied>> {
        self.0.known.read().denied.get(tenant).cloned()
    }

    /// The tenants of whom anything was ever refused.
    pub fn tenants(&self) -> Vec<TenantId> {
        self.0.known.read().denied.keys().cloned().collect()
    }

    /// Puts an erasure in force that a log tells of.
    pub fn deny(&self, erasure: &Erasure) {
        let Ok(tenant) = erasure.tenant.parse::<TenantId>() else { return };
        let mut known = self.0.known.write();
        let until_us = known.refused_until_us(erasure);
        let denied = known.denied.entry(tenant).or_insert_with(|| Arc::new(Denied::new(&erasure.tenant)));
        denied.add(erasure, until_us);
    }

    async fn load(&self) -> Result<()> {
        if !self.0.known.read().is_loaded {
            let mut made_us: HashMap<String, TimestampUs> =
                self.0.objects.made_us(REWRITTEN).await?.into_iter().collect();
            for erasure in self.0.objects.all::<Erasure>(ERASURES).await? {
                let rewritten_us = made_us.remove(&format!("{:020}", erasure.number));
                // Only whether it was before the end of its time matters; of the others the moment itself is read.
                let in_time_us = rewritten_us.filter(|rewritten_us| *rewritten_us <= erasure.until_us);
                if let Some(rewritten_us) = in_time_us {
                    self.0.known.write().rewritten.insert(erasure.number, rewritten_us);
                }
                let erasure = self.learn(erasure);
                if rewritten_us.is_some() && in_time_us.is_none() {
                    self.rewritten(&erasure).await?;
                }
            }
            self.0.known.write().is_loaded = true;
        }
        Ok(())
    }

    fn next(&self) -> u64 {
        self.0.known.read().all.last_key_value().map_or(1, |(number, _)| number + 1)
    }

    fn learn_rewritten(&self, erasure: &Erasure, at_us: TimestampUs) {
        let mut known = self.0.known.write();
        if known.rewritten.insert(erasure.number, at_us).is_some() {
            return;
        }
        let of_tenant = known.all.values().filter(|other| other.tenant == erasure.tenant);
        let all: Vec<_> = of_tenant.map(|other| (Arc::clone(other), known.refused_until_us(other))).collect();
        let tenant = erasure.tenant.parse::<TenantId>();
        if let Some(denied) = tenant.ok().and_then(|tenant| known.denied.get(&tenant)) {
            denied.reset(&all);
        }
    }

    fn learn(&self, erasure: Erasure) -> Arc<Erasure> {
        self.deny(&erasure);
        let erasure = Arc::new(erasure);
        self.0.known.write().all.insert(erasure.number, Arc::clone(&erasure));
        erasure
    }
}

impl Known {
    fn refused_until_us(&self, erasure: &Erasure) -> TimestampUs {
        match (erasure.kind, self.rewritten.get(&erasure.number)) {
            (ErasureKind::Tenant, _) | (_, None) => TimestampUs::MAX,
            (_, Some(rewritten_us)) => erasure.until_us.max(*rewritten_us),
        }
    }
}

/// How far they have come.
impl Erasures {
    /// Rows were masked by one process.
    pub async fn add_masked(&self, erasure: &Erasure, masked: Masked) -> Result<()> {
        let folder = format!("{MASKED}/{:020}", erasure.number);
        self.0.objects.create(&folder, &Uuid::now_v7().to_string(), masked).await.map(drop)
    }

    pub async fn masked(&self, erasure: &Erasure) -> Result<Vec<Masked>> {
        self.0.objects.all(&format!("{MASKED}/{:020}", erasure.number)).await
    }

    /// No live object holds it any more. What was written first stands.
    pub async fn set_rewritten(&self, erasure: &Erasure, rewritten: Rewritten) -> Result<Rewritten> {
        let name = format!("{:020}", erasure.number);
        let theirs = self.0.objects.create(REWRITTEN, &name, rewritten.clone()).await?;
        let rewritten = theirs.unwrap_or(rewritten);
        self.learn_rewritten(erasure, rewritten.at_us);
        Ok(rewritten)
    }

    pub async fn rewritten(&self, erasure: &Erasure) -> Result<Option<Rewritten>> {
        let rewritten = self.0.objects.get::<Rewritten>(REWRITTEN, &format!("{:020}", erasure.number)).await?;
        if let Some(rewritten) = &rewritten {
            self.learn_rewritten(erasure, rewritten.at_us);
        }
        Ok(rewritten)
    }

    /// The last copy is gone.
    pub async fn set_receipt(&self, erasure: &Erasure, receipt: Receipt) -> Result<()> {
        self.0.objects.create(&format!("{RECEIPTS}/{}", erasure.tenant), &erasure.id, receipt).await.map(drop)
    }

    pub async fn receipt(&self, erasure: &Erasure) -> Result<Option<Arc<Receipt>>> {
        if let Some(receipt) = self.0.known.read().receipts.get(&erasure.id) {
            return Ok(Some(Arc::clone(receipt)));
        }
        let receipt = self.0.objects.get::<Receipt>(&format!("{RECEIPTS}/{}", erasure.tenant), &erasure.id).await?;
        let Some(receipt) = receipt.map(Arc::new) else { return Ok(None) };
        self.0.known.write().receipts.insert(erasure.id.clone(), Arc::clone(&receipt));
        Ok(Some(receipt))
    }

    /// The ids of those that are done. One LIST.
    pub async fn done(&self) -> Result<BTreeSet<String>> {
        Ok(self.0.objects.names(RECEIPTS).await?.into_iter().collect())
    }

    /// How far one has come, and its receipt if it is done.
    pub async fn state(&self, erasure: &Erasure) -> Result<(ErasureState, Option<Arc<Receipt>>)> {
        if let Some(receipt) = self.receipt(erasure).await? {
            return Ok((ErasureState::Done, Some(receipt)));
        }
        if self.rewritten(erasure).await?.is_some() {
            return Ok((ErasureState::Rewritten, None));
        }
        match self.masked(erasure).await?.is_empty() {
            true => Ok((ErasureState::Asked, None)),
            false => Ok((ErasureState::Masked, None)),
        }
    }

    /// All that is known of one's course.
    pub async fn status(&self, erasure: Arc<Erasure>) -> Result<ErasureStatus> {
        let (state, receipt) = self.state(&erasure).await?;
        if let Some(receipt) = receipt {
            let Receipt { rewritten_us, done_us, rows, files_rewritten, copies_gone, .. } = Receipt::clone(&receipt);
            let (rewritten_us, done_us) = (Some(rewritten_us), Some(done_us));
            return Ok(ErasureStatus {
                erasure,
                state,
                rewritten_us,
                done_us,
                rows,
                files: files_rewritten,
                copies: copies_gone,
            });
        }
        let rewritten = self.rewritten(&erasure).await?;
        let mut rows: BTreeMap<String, u64> = BTreeMap::new();
        for masked in self.masked(&erasure).await? {
            masked.rows.into_iter().for_each(|(table, count)| *rows.entry(table).or_default() += count);
        }
        let (files, copies) = rewritten.as_ref().map_or((0, 0), |rewritten| (rewritten.files, rewritten.copies));
        let rewritten_us = rewritten.map(|rewritten| rewritten.at_us);
        Ok(ErasureStatus { erasure, state, rewritten_us, done_us: None, rows, files, copies })
    }

    /// One of a tenant's, by its id.
    pub fn find(&self, tenant: &TenantId, id: &str) -> Result<Arc<Erasure>> {
        let found = self.of_tenant(tenant).into_iter().find(|erasure| erasure.id == id);
        found.ok_or_else(|| SystemError::ErasureMissing(id.to_owned()))
    }

    pub fn now_us(&self) -> TimestampUs {
        self.0.objects.now_us()
    }
}

#[cfg(test)]
mod tests;
