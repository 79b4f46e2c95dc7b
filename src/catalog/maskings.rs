//! What each tenant wants masked in what it sends: `system/maskings/{number}`, one object for a change, of which a
//! tenant's last holds. The secret that keys a tenant's hashes is made with its first rules and stays for ever, so that
//! what was hashed before and after a change joins.
//!
//! What holds now is known in memory, ready to run; changes of others are found as those of dimension keys are.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

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
    known: RwLock<Known>,
    /// Held while changes are read or made.
    moving: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Known {
    is_loaded: bool,
    /// The number of the last change known; they begin at 1 and have no gaps.
    last: u64,
    own: HashMap<TenantId, Own>,
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

impl Maskings {
    /// Knows of no rules before it caught up.
    pub fn new(objects: SystemObjects) -> Self {
        Self(Arc::new(Inner { objects, known: RwLock::default(), moving: tokio::sync::Mutex::default() }))
    }

    /// What a tenant's requests go through; `None`: nothing. No request.
    pub fn mask(&self, tenant: &TenantId) -> Option<Arc<Mask>> {
        self.0.known.read().own.get(tenant)?.mask.clone()
    }

    /// In the order they were set. No request.
    pub fn rules(&self, tenant: &TenantId) -> Vec<MaskingRule> {
        self.0.known.read().own.get(tenant).map(|own| own.rules.clone()).unwrap_or_default()
    }

    /// Durable and in force here on return, elsewhere within 10 seconds: for requests that come in from then on. What
    /// stands already stays as it is.
    pub async fn set(&self, tenant: &TenantId, rules: Vec<MaskingRule>, made_by: &str) -> Result<()> {
        masking::check(&rules).map_err(SystemError::Invalid)?;
        let _moving = self.0.moving.lock().await;
        self.load().await?;
        loop {
            let number = self.0.known.read().last + 1;
            let kept = self.0.known.read().own.get(tenant).map(|own| own.secret.clone());
            let (made_us, made_by) = (self.0.objects.now_us(), made_by.to_owned());
            let secret = kept.unwrap_or_else(Secret::new);
            let change = Change { number, tenant: tenant.to_string(), rules: rules.clone(), secret, made_by, made_us };
            match self.0.objects.create(MASKINGS, &name(number), change.clone()).await? {
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
            match self.0.objects.get(MASKINGS, &name(next)).await? {
                Some(change) => self.learn(change)?,
                None => return Ok(()),
            }
        }
    }

    /// As [`Maskings::catch_up`], once: for those who answer one question and end.
    pub async fn load_once(&self) -> Result<()> {
        let _moving = self.0.moving.lock().await;
        self.load().await
    }

    async fn load(&self) -> Result<()> {
        if !self.0.known.read().is_loaded {
            for change in self.0.objects.all::<Change>(MASKINGS).await? {
                self.learn(change)?;
            }
            self.0.known.write().is_loaded = true;
        }
        Ok(())
    }

    /// Rules that this program cannot run are an error: it must not let pass what they would mask.
    fn learn(&self, change: Change) -> Result<()> {
        let tenant: TenantId = change.tenant.parse()?;
        let mask = match change.rules.is_empty() {
            true => None,
            false => Some(Arc::new(Mask::new(&change.rules, &change.secret.0).map_err(SystemError::Invalid)?)),
        };
        let mut known = self.0.known.write();
        known.last = known.last.max(change.number);
        known.own.insert(tenant, Own { rules: change.rules, mask, secret: change.secret });
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
