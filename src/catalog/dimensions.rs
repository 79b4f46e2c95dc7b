//! What in metadata names each tenant's own customers, projects and flows: `system/dimensions/{number}`, one object for a
//! change, of which a tenant's last holds.
//!
//! What holds now is known in memory; asking for the next number now and then finds the changes of others, at one
//! request when there is none.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::RwLock;
use serde::{Deserialize, Serialize};

use super::system::{Result, SystemError, SystemObjects};
use crate::base::{TenantId, TimestampUs};
use crate::model::DimensionKeys;

const DIMENSIONS: &str = "dimensions";

/// The dimension keys of a store's tenants. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Dimensions(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    objects: SystemObjects,
    known: RwLock<Known>,
    /// Held while changes are read or made.
    moving: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Known {
    is_loaded: bool,
    /// The number of the last change known; they begin at 1 and have no gaps.
    last: u64,
    own: HashMap<TenantId, Arc<DimensionKeys>>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Change {
    number: u64,
    tenant: String,
    keys: DimensionKeys,
    /// The public key that made it, or `command line`.
    made_by: String,
    made_us: TimestampUs,
}

impl Dimensions {
    /// Knows of no tenant's own keys before it caught up.
    pub fn new(objects: SystemObjects) -> Self {
        Self(Arc::new(Inner { objects, known: RwLock::default(), moving: tokio::sync::Mutex::default() }))
    }

    /// A tenant's own keys; `None`: those that hold for all who have none. No request; the same `Arc` until they change.
    pub fn own(&self, tenant: &TenantId) -> Option<Arc<DimensionKeys>> {
        self.0.known.read().own.get(tenant).cloned()
    }

    /// The keys that hold for a tenant. No request.
    pub fn of(&self, tenant: &TenantId) -> Arc<DimensionKeys> {
        self.own(tenant).unwrap_or_default()
    }

    /// Durable and in force here on return, elsewhere within 10 seconds: for rows that get into files from then on.
    pub async fn set(&self, tenant: &TenantId, keys: DimensionKeys, made_by: &str) -> Result<()> {
        keys.check().map_err(SystemError::Invalid)?;
        let _moving = self.0.moving.lock().await;
        self.load().await?;
        loop {
            let number = self.0.known.read().last + 1;
            let (made_us, made_by) = (self.0.objects.now_us(), made_by.to_owned());
            let change = Change { number, tenant: tenant.to_string(), keys: keys.clone(), made_by, made_us };
            match self.0.objects.create(DIMENSIONS, &name(number), change.clone()).await? {
                None => return self.learn(change),
                Some(theirs) => self.learn(theirs)?,
            }
        }
    }

    /// Learns what others changed since. The first time all there is: one LIST, and a request for each change; later one
    /// request when there is nothing new.
    pub async fn catch_up(&self) -> Result<()> {
        let _moving = self.0.moving.lock().await;
        self.load().await?;
        loop {
            let next = self.0.known.read().last + 1;
            match self.0.objects.get(DIMENSIONS, &name(next)).await? {
                Some(change) => self.learn(change)?,
                None => return Ok(()),
            }
        }
    }

    /// As [`Dimensions::catch_up`], once: for those who answer one question and end.
    pub async fn load_once(&self) -> Result<()> {
        let _moving = self.0.moving.lock().await;
        self.load().await
    }

    async fn load(&self) -> Result<()> {
        if !self.0.known.read().is_loaded {
            for change in self.0.objects.all::<Change>(DIMENSIONS).await? {
                self.learn(change)?;
            }
            self.0.known.write().is_loaded = true;
        }
        Ok(())
    }

    fn learn(&self, change: Change) -> Result<()> {
        let tenant: TenantId = change.tenant.parse()?;
        let mut known = self.0.known.write();
        known.last = known.last.max(change.number);
        known.own.insert(tenant, Arc::new(change.keys));
        Ok(())
    }
}

fn name(number: u64) -> String {
    format!("{number:020}")
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;
    use crate::base::SystemClock;
    use crate::store::{Location, Store};

    #[tokio::test]
    async fn the_keys_set_last_hold_and_are_known_elsewhere_after_a_look() {
        let store = Store::open(Location::Memory(Arc::new(InMemory::new()))).await.unwrap();
        let dimensions = || Dimensions::new(SystemObjects::new(store.clone(), Arc::new(SystemClock)));
        let (one, two) = (dimensions(), dimensions());
        let (acme, other): (TenantId, TenantId) = ("acme".parse().unwrap(), "other".parse().unwrap());
        let keys = |account: &str| DimensionKeys { account: account.into(), ..Default::default() };
        two.catch_up().await.unwrap();
        one.set(&acme, keys("customer"), "test").await.unwrap();
        assert_eq!(one.of(&acme).account, "customer");
        assert_eq!(two.own(&acme), None);
        // Both know of none when they begin to write.
        two.set(&other, keys("org"), "test").await.unwrap();
        two.set(&acme, keys("*customer_id"), "test").await.unwrap();
        one.catch_up().await.unwrap();
        let three = dimensions();
        three.load_once().await.unwrap();
        for dimensions in [&one, &two, &three] {
            assert_eq!(dimensions.of(&acme).account, "*customer_id");
            assert_eq!(dimensions.of(&other).account, "org");
        }
        assert!(Arc::ptr_eq(&one.of(&acme), &one.of(&acme)));
    }

    #[tokio::test]
    async fn keys_that_could_match_anything_or_nothing_are_refused() {
        let store = Store::open(Location::Memory(Arc::new(InMemory::new()))).await.unwrap();
        let dimensions = Dimensions::new(SystemObjects::new(store, Arc::new(SystemClock)));
        let acme: TenantId = "acme".parse().unwrap();
        for (bad, why) in [("", "empty"), ("*", "empty"), ("a*b", "only at its front"), (&"x".repeat(300), "200 bytes")]
        {
            let keys = DimensionKeys { flow: bad.to_owned(), ..Default::default() };
            let refused = dimensions.set(&acme, keys, "test").await.unwrap_err().to_string();
            assert!(refused.contains("flow") && refused.contains(why), "{refused}");
        }
    }
}
