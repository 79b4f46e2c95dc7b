//! What each tenant wants masked in what it sends: `system/maskings/{number}`, one object for a change, of which a
//! tenant's last holds. The secret that keys a tenant's hashes is made with its first rules and stays for ever, so that
//! what was hashed before and after a change joins.
//!
//! What holds now is known in memory, ready to run.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::numbered::{Changes, Numbered};
use super::system::{Result, SystemError, SystemObjects};
use crate::base::{TenantId, TimestampUs};
use crate::masking::{self, Mask, MaskingRule};

const MASKINGS: &str = "maskings";

/// The masking rules of a store's tenants. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Maskings(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    objects: SystemObjects,
    changes: Changes,
    own: RwLock<HashMap<TenantId, Own>>,
}

#[derive(Debug)]
struct Own {
    rules: Vec<MaskingRule>,
    /// `None`: there is nothing to mask.
    mask: Option<Arc<Mask>>,
    secret: Secret,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
struct Secret(String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl Secret {
    fn new() -> Self {
        Self(format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple()))
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Change {
    number: u64,
    tenant: String,
    rules: Vec<MaskingRule>,
    /// What hashes are keyed with.
    secret: Secret,
    /// The public key that made it, or `command line`.
    made_by: String,
    made_us: TimestampUs,
}

impl Numbered for Change {
    fn number(&self) -> u64 {
        self.number
    }
}

impl Maskings {
    /// Knows of no rules before it caught up.
    pub fn new(objects: SystemObjects) -> Self {
        let changes = Changes::new(objects.clone(), MASKINGS);
        Self(Arc::new(Inner { objects, changes, own: RwLock::default() }))
    }

    /// What a tenant's requests go through; `None`: nothing. No request.
    pub fn mask(&self, tenant: &TenantId) -> Option<Arc<Mask>> {
        self.0.own.read().get(tenant)?.mask.clone()
    }

    /// In the order they were set. No request.
    pub fn rules(&self, tenant: &TenantId) -> Vec<MaskingRule> {
        self.0.own.read().get(tenant).map(|own| own.rules.clone()).unwrap_or_default()
    }

    /// Durable and in force here on return, elsewhere within 10 seconds: for requests that come in from then on. What
    /// stands already stays as it is.
    pub async fn set(&self, tenant: &TenantId, rules: Vec<MaskingRule>, made_by: &str) -> Result<()> {
        masking::check(&rules).map_err(SystemError::Invalid)?;
        let change = |number| Change {
            number,
            tenant: tenant.to_string(),
            rules: rules.clone(),
            secret: self.0.own.read().get(tenant).map_or_else(Secret::new, |own| own.secret.clone()),
            made_by: made_by.to_owned(),
            made_us: self.0.objects.now_us(),
        };
        self.0.changes.add(change, |change| self.learn(change)).await
    }

    /// Learns what others changed since: one request when there is nothing new.
    pub async fn catch_up(&self) -> Result<()> {
        self.0.changes.catch_up(|change| self.learn(change)).await
    }

    /// As [`Maskings::catch_up`], once: for those who answer one question and end.
    pub async fn load_once(&self) -> Result<()> {
        self.0.changes.load_once(|change| self.learn(change)).await
    }

    /// Rules that this program cannot run are an error: it must not let pass what they would mask.
    fn learn(&self, change: Change) -> Result<()> {
        let tenant: TenantId = change.tenant.parse()?;
        let mask = match change.rules.is_empty() {
            true => None,
            false => Some(Arc::new(Mask::new(&change.rules, &change.secret.0).map_err(SystemError::Invalid)?)),
        };
        self.0.own.write().insert(tenant, Own { rules: change.rules, mask, secret: change.secret });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;
    use crate::base::SystemClock;
    use crate::masking::{Find, MaskingAction};
    use crate::model::{Event, EventBatch, EventKind, Order, Score};
    use crate::store::{Location, Store};

    fn hash(name: &str) -> Vec<MaskingRule> {
        vec![MaskingRule { name: name.into(), find: Find::BuiltIn, action: MaskingAction::Hash }]
    }

    fn masked(maskings: &Maskings, tenant: &TenantId) -> String {
        let score = Score { comment: Some("ana@example.com".to_owned()), ..Default::default() };
        let events = vec![Event { order: Order::default(), kind: Some(EventKind::Score(score)) }];
        let mut batch = EventBatch { events, ..Default::default() };
        maskings.mask(tenant).unwrap().apply(&mut batch);
        match batch.events.remove(0).kind {
            Some(EventKind::Score(score)) => score.comment.unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn hashes_join_on_every_node_before_and_after_a_change_and_with_no_other_tenants() {
        let store = Store::open(Location::Memory(Arc::new(InMemory::new()))).await.unwrap();
        let maskings = || Maskings::new(SystemObjects::new(store.clone(), Arc::new(SystemClock)));
        let (one, two) = (maskings(), maskings());
        let (acme, other): (TenantId, TenantId) = ("acme".parse().unwrap(), "other".parse().unwrap());
        two.catch_up().await.unwrap();
        assert!(two.mask(&acme).is_none());
        one.set(&acme, hash("email"), "test").await.unwrap();
        // Both know of one change less than there is when they begin to write.
        two.set(&other, hash("email"), "test").await.unwrap();
        one.catch_up().await.unwrap();
        let before = masked(&one, &acme);
        assert_eq!(before, masked(&two, &acme));
        assert_ne!(before, masked(&one, &other));
        two.set(&acme, Vec::new(), "test").await.unwrap();
        one.catch_up().await.unwrap();
        assert!(one.mask(&acme).is_none());
        one.set(&acme, hash("email"), "test").await.unwrap();
        let three = maskings();
        three.load_once().await.unwrap();
        assert_eq!((masked(&three, &acme), three.rules(&acme)), (before, hash("email")));
        let refused = one.set(&acme, hash("passport"), "test").await.unwrap_err();
        assert!(refused.to_string().contains("passport"), "{refused}");
    }
}
