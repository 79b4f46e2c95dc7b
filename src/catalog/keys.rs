//! Keys: who may do what, for which tenant. `system/keys/{public key}` holds a keyed hash of the secret, never the
//! secret; `system/keys-revoked/{public key}` ends a key; `system/keys-used/{public key}` says on which day it was last used.
//!
//! A key holds a set of roles and nothing is implied: `admin` without `read` reads no rows. `tracelake key create`
//! gives `ingest` and `read` unless told otherwise.

mod record;
mod uses;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use hmac::{Hmac, Mac};
use rand::TryRngCore;
use rand::rngs::OsRng;
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use uuid::Uuid;

use super::recent::Recent;
use super::system::{Result, SystemError, SystemObjects};
use super::tenants::{TenantState, Tenants};
use crate::base::{Day, TenantId, TimestampUs};
use record::{Record, check_public_key, check_secret, path_segment};
use uses::Uses;

pub use record::{Bound, Identity, Key, NewKey, Role, WritesFor};

const KEYS: &str = "keys";
const REVOKED: &str = "keys-revoked";
const PEPPERS: &str = "pepper";
const PEPPER: u32 = 1;
/// Good keys kept in memory, and as many names that are no key: a flood of guesses must not push out the good ones.
const KEYS_RECENT_MAX: usize = 10_000;
/// Look-ups of different keys that may run at once; look-ups of one key never do.
const LOOK_UPS_AT_ONCE: usize = 32;
/// One sentence for both, so that nobody learns which public keys exist.
const NO_SUCH_KEY: &str = "unknown public key or wrong secret key";

/// The keys of one store. Cheap to clone.
#[derive(Clone)]
pub struct Keys(Arc<Inner>);

struct Inner {
    objects: SystemObjects,
    tenants: Tenants,
    pepper: Vec<u8>,
    known: Recent<Found>,
    unknown: Recent<()>,
    uses: Uses,
    look_ups: [tokio::sync::Mutex<()>; LOOK_UPS_AT_ONCE],
}

/// What a look-up found under a public key.
#[derive(Clone)]
struct Found {
    record: Arc<Record>,
    is_revoked: bool,
}

#[derive(Serialize, Deserialize)]
struct Pepper {
    secret_hex: String,
}

#[derive(Serialize, Deserialize)]
struct Revocation {
    public_key: String,
    revoked_us: TimestampUs,
}

/// A key as its owner gets it, once: the secret is not kept.
#[derive(Clone, PartialEq, Eq)]
pub struct CreatedKey {
    pub public_key: String,
    pub secret_key: String,
}

/// The tenant and key a container is started with.
#[derive(Clone, PartialEq, Eq)]
pub struct FirstTenant {
    pub tenant: TenantId,
    /// Public and secret key.
    pub key: Option<(String, String)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FirstKey {
    /// No key was asked for.
    None,
    Created,
    Present,
    /// It is there but was revoked, and stays so.
    Revoked,
}

/// Without the pepper.
impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys")
    }
}

impl Keys {
    /// Reads the pepper, creating it in an empty store.
    pub async fn open(objects: SystemObjects, tenants: Tenants) -> Result<Self> {
        let name = PEPPER.to_string();
        let pepper = match objects.get::<Pepper>(PEPPERS, &name).await? {
            Some(found) => found,
            None => {
                let ours = hex::encode(random_256_bits()?);
                let found = objects.create(PEPPERS, &name, Pepper { secret_hex: ours.clone() }).await?;
                found.unwrap_or(Pepper { secret_hex: ours })
            }
        };
        let pepper = hex::decode(&pepper.secret_hex)
            .map_err(|e| SystemError::Corrupt { path: format!("system/{PEPPERS}/{name}"), reason: e.to_string() })?;
        let (known, unknown) = (Recent::new(KEYS_RECENT_MAX), Recent::new(KEYS_RECENT_MAX));
        Ok(Self(Arc::new(Inner {
            objects,
            tenants,
            pepper,
            known,
            unknown,
            uses: Uses::default(),
            look_ups: Default::default(),
        })))
    }

    pub fn tenants(&self) -> &Tenants {
        &self.0.tenants
    }

    /// Creates a key with a random 256-bit secret, usable on return on this node (elsewhere within 10 seconds).
    pub async fn create(&self, new: NewKey) -> Result<CreatedKey> {
        let public_key = format!("pk-lf-{}", Uuid::new_v4());
        let secret_key = format!("sk-lf-{}", hex::encode(random_256_bits()?));
        self.create_as(&public_key, &secret_key, new).await?;
        Ok(CreatedKey { public_key, secret_key })
    }

    /// No request with this key succeeds any more, on other nodes after at most 10 seconds. Revoking twice is no error.
    pub async fn revoke(&self, public_key: &str) -> Result<()> {
        check_public_key(public_key)?;
        let segment = path_segment(public_key);
        if self.0.objects.get::<Record>(KEYS, &segment).await?.is_none() {
            return Err(SystemError::KeyMissing(public_key.to_owned()));
        }
        let body = Revocation { public_key: public_key.to_owned(), revoked_us: self.0.objects.now_us() };
        self.0.objects.create(REVOKED, &segment, body).await?;
        self.0.known.forget(public_key);
        Ok(())
    }

    /// One key as it is listed; `None`: there is none.
    pub async fn find(&self, public_key: &str) -> Result<Option<Key>> {
        check_public_key(public_key)?;
        let (objects, segment) = (&self.0.objects, path_segment(public_key));
        let Some(record) = objects.get::<Record>(KEYS, &segment).await? else { return Ok(None) };
        let revocation = objects.get::<Revocation>(REVOKED, &segment).await?;
        let revoked = revocation.into_iter().map(|it| (it.public_key, it.revoked_us)).collect();
        Ok(Some(record.into_key(&revoked, &HashMap::new())))
    }

    /// Stores which keys were used today, for [`Keys::list`]: one write for each key and day. What is not stored when a
    /// process dies is stored at the next use.
    pub async fn store_uses(&self) -> Result<()> {
        self.0.uses.write(&self.0.objects, path_segment).await
    }

    /// The keys of one tenant, or of all; no secrets and no hashes.
    pub async fn list(&self, tenant: Option<&TenantId>) -> Result<Vec<Key>> {
        let objects = &self.0.objects;
        let (records, revocations, used) =
            futures::try_join!(objects.all::<Record>(KEYS), objects.all(REVOKED), Uses::all(objects))?;
        let revoked: BTreeMap<String, TimestampUs> =
            revocations.into_iter().map(|it: Revocation| (it.public_key, it.revoked_us)).collect();
        let wanted = records.into_iter().filter(|record| tenant.is_none_or(|tenant| record.tenant == tenant.as_str()));
        Ok(wanted.map(|record| record.into_key(&revoked, &used)).collect())
    }

    /// Creates the first tenant and its key where absent: with roles `ingest`, `read` and `admin`. The same call again
    /// changes nothing; another secret for an existing key is an error.
    pub async fn ensure_first(&self, first: &FirstTenant) -> Result<FirstKey> {
        self.0.tenants.create_if_absent(&first.tenant).await?;
        let Some((public_key, secret_key)) = &first.key else { return Ok(FirstKey::None) };
        let roles = BTreeSet::from([Role::Ingest, Role::Read, Role::Admin]);
        let created = self.create_as(public_key, secret_key, NewKey::with_roles(first.tenant.clone(), roles)).await?;
        if created {
            return Ok(FirstKey::Created);
        }
        match self.0.objects.get::<Revocation>(REVOKED, &path_segment(public_key)).await? {
            Some(_) => Ok(FirstKey::Revoked),
            None => Ok(FirstKey::Present),
        }
    }

    /// Who shows this key and secret. At most 10 seconds stale; never lists; expiry is exact.
    pub async fn authenticate(&self, public_key: &str, secret_key: &str) -> Result<Identity> {
        let refused = || SystemError::Unauthenticated(NO_SUCH_KEY.to_owned());
        if check_public_key(public_key).is_err() || check_secret(secret_key).is_err() {
            return Err(refused());
        }
        let found = self.look_up(public_key).await?.ok_or_else(refused)?;
        if !self.0.is_secret(&found.record, secret_key) {
            return Err(refused());
        }
        // Whoever holds the secret may know what became of the key.
        if found.is_revoked {
            return Err(SystemError::Unauthenticated(format!("key {public_key} was revoked")));
        }
        if found.record.expires_us.is_some_and(|expires_us| self.0.objects.now_us() >= expires_us) {
            return Err(SystemError::Unauthenticated(format!("key {public_key} has expired")));
        }
        let identity = found.record.identity()?;
        match self.0.tenants.state(&identity.tenant).await? {
            TenantState::Live => {
                self.0.uses.note(public_key, Day::of_us(self.0.objects.now_us()));
                Ok(identity)
            }
            _ => Err(SystemError::Unauthenticated(format!("the tenant of key {public_key} was deleted"))),
        }
    }

    /// Where a request goes that names a tenant: to the key's own, or to another if the key may write for it.
    pub async fn tenant_for(&self, identity: &Identity, named: Option<&str>) -> Result<TenantId> {
        let Some(named) = named else { return Ok(identity.tenant.clone()) };
        let named: TenantId = named.parse()?;
        if named == identity.tenant {
            return Ok(named);
        }
        // Asked before the tenant's existence: a key learns nothing about tenants it may not write for.
        if !identity.writes_for.allows(&named) {
            let why = format!("key {} may not write for tenant {named}", identity.public_key);
            return Err(SystemError::Forbidden(why));
        }
        self.0.tenants.require_live(&named).await?;
        Ok(named)
    }

    async fn look_up(&self, public_key: &str) -> Result<Option<Found>> {
        if let Some(answer) = self.recent(public_key) {
            return Ok(answer);
        }
        let mut hasher = DefaultHasher::new();
        public_key.hash(&mut hasher);
        let _alone = self.0.look_ups[hasher.finish() as usize % LOOK_UPS_AT_ONCE].lock().await;
        if let Some(answer) = self.recent(public_key) {
            return Ok(answer);
        }
        let asked_us = self.0.objects.now_us();
        let segment = path_segment(public_key);
        let (record, revocation) = futures::try_join!(
            self.0.objects.get::<Record>(KEYS, &segment),
            self.0.objects.get::<Revocation>(REVOKED, &segment)
        )?;
        let Some(record) = record else {
            self.0.unknown.put(public_key, asked_us, ());
            return Ok(None);
        };
        let found = Found { record: Arc::new(record), is_revoked: revocation.is_some() };
        self.0.known.put(public_key, asked_us, found.clone());
        Ok(Some(found))
    }

    fn recent(&self, public_key: &str) -> Option<Option<Found>> {
        let now_us = self.0.objects.now_us();
        match self.0.known.get(public_key, now_us) {
            Some(found) => Some(Some(found)),
            None => self.0.unknown.get(public_key, now_us).map(|()| None),
        }
    }

    /// Whether the key was created just now; `false` if the same key with the same secret was there.
    async fn create_as(&self, public_key: &str, secret_key: &str, new: NewKey) -> Result<bool> {
        check_public_key(public_key)?;
        check_secret(secret_key)?;
        self.0.tenants.require_live(&new.tenant).await?;
        let tenant = new.tenant.clone();
        let hash_hex = hex::encode(self.0.hash(secret_key));
        let record = Record::new(public_key, hash_hex, PEPPER, self.0.objects.now_us(), new)?;
        let found = self.0.objects.create(KEYS, &path_segment(public_key), record).await?;
        self.0.unknown.forget(public_key);
        match found {
            None => Ok(true),
            Some(found) if found.tenant == tenant.as_str() && self.0.is_secret(&found, secret_key) => Ok(false),
            Some(_) => Err(SystemError::KeyDiffers(public_key.to_owned())),
        }
    }
}

impl Inner {
    fn hash(&self, secret_key: &str) -> Vec<u8> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.pepper).expect("HMAC takes keys of any length");
        mac.update(secret_key.as_bytes());
        mac.finalize().into_bytes().to_vec()
    }

    fn is_secret(&self, record: &Record, secret_key: &str) -> bool {
        let stored = hex::decode(&record.secret_hmac).unwrap_or_default();
        record.pepper == PEPPER && bool::from(stored.ct_eq(&self.hash(secret_key)))
    }
}

fn random_256_bits() -> Result<[u8; 32]> {
    let mut bytes = [0; 32];
    OsRng
        .try_fill_bytes(&mut bytes)
        .map_err(|e| SystemError::Invalid(format!("no randomness from the system: {e}")))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
