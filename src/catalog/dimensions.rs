//! What in metadata names each tenant's own customers, projects and flows: `system/dimensions/{number}`, one object for a
//! change, of which a tenant's last holds.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::RwLock;
use serde::{Deserialize, Serialize};

use super::numbered::{Changes, Numbered};
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
    changes: Changes,
    own: RwLock<HashMap<TenantId, Arc<DimensionKeys>>>,
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

impl Numbered for Change {
    fn number(&self) -> u64 {
        self.number
    }
}

impl Dimensions {
    /// Knows of no tenant's own keys before it caught up.
    pub fn new(objects: SystemObjects) -> Self {
        let changes = Changes::new(objects.clone(), DIMENSIONS);
        Self(Arc::new(Inner { objects, changes, own: RwLock::default() }))
    }

    /// A tenant's own keys; `None`: those that hold for all who have none. No request; the same `Arc` until they change.
    pub fn own(&self, tenant: &TenantId) -> Option<Arc<DimensionKeys>> {
        self.0.own.read().get(tenant).cloned()
    }

    /// The keys that hold for a tenant. No request.
    pub fn of(&self, tenant: &TenantId) -> Arc<DimensionKeys> {
        self.own(tenant).unwrap_or_default()
    }

    /// Durable and in force here on return, elsewhere within 10 seconds: for rows that get into files from then on.
    pub async fn set(&self, tenant: &TenantId, keys: DimensionKeys, made_by: &str) -> Result<()> {
        keys.check().map_err(SystemError::Invalid)?;
        let change = |number| Change {
            number,
            tenant: tenant.to_string(),
            keys: keys.clone(),
            made_by: made_by.to_owned(),
            made_us: self.0.objects.now_us(),
        };
        self.0.changes.add(change, |change| self.learn(change)).await
    }

    /// Learns what others changed since: one request when there is nothing new.
    pub async fn catch_up(&self) -> Result<()> {
        self.0.changes.catch_up(|change| self.learn(change)).await
    }

    /// As [`Dimensions::catch_up`], once: for those who answer one question and end.
    pub async fn load_once(&self) -> Result<()> {
        self.0.changes.load_once(|change| self.learn(change)).await
    }

    fn learn(&self, change: Change) -> Result<()> {
        self.0.own.write().insert(change.tenant.parse()?, Arc::new(change.keys));
        Ok(())
    }
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
