//! System objects: small, create-only JSON objects below `system/`. Each carries a format version and an id of ours;
//! a version newer than this program knows is refused by name.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::ObjectMeta;
use object_store::path::Path;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::base::{Clock, InvalidId, Kind, TimestampUs};
use crate::price::PriceError;
use crate::store::{Created, Store, StoreError, system};

/// The newest format of system objects this program writes and reads.
pub const FORMAT: u32 = 1;
/// Objects read at once when a folder of `system/` is listed.
const READS_AT_ONCE: usize = 16;

#[derive(Debug, thiserror::Error)]
pub enum SystemError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{path} has format {found}, this tracelake knows formats up to {FORMAT}: use a newer tracelake")]
    Newer { path: String, found: u32 },
    #[error("{path} is not a system object: {reason}")]
    Corrupt { path: String, reason: String },
    #[error(transparent)]
    InvalidId(#[from] InvalidId),
    #[error("{0}")]
    Invalid(String),
    #[error("tenant {0} exists already")]
    TenantExists(String),
    #[error("tenant {0} does not exist")]
    TenantMissing(String),
    #[error("tenant {0} was deleted, and tenant ids are never used again")]
    TenantDeleted(String),
    #[error("key {0} exists already with another secret or tenant: choose another public key")]
    KeyDiffers(String),
    #[error("key {0} does not exist")]
    KeyMissing(String),
    #[error("there is no score configuration {0:?}")]
    ScoreConfigMissing(String),
    #[error("there is no erasure {0}")]
    ErasureMissing(String),
    #[error(transparent)]
    Price(#[from] PriceError),
    #[error("there is no model {0} of this tenant's own")]
    ModelMissing(String),
    #[error("price book {version} of tenant {tenant} is not in the store")]
    PricesMissing { tenant: String, version: String },
    #[error("the price book {0:?} that a program came with is not in the store")]
    ShippedPricesMissing(String),
    #[error("{0}")]
    Unauthenticated(String),
    #[error("{0}")]
    Forbidden(String),
}

impl SystemError {
    pub fn kind(&self) -> Kind {
        match self {
            Self::Store(e) => e.kind(),
            Self::Newer { .. } | Self::Corrupt { .. } => Kind::Corrupt,
            Self::InvalidId(_) | Self::Invalid(_) | Self::TenantDeleted(_) => Kind::Invalid,
            Self::TenantExists(_) | Self::KeyDiffers(_) => Kind::Exists,
            Self::TenantMissing(_)
            | Self::KeyMissing(_)
            | Self::ModelMissing(_)
            | Self::ErasureMissing(_)
            | Self::ScoreConfigMissing(_) => Kind::NotFound,
            Self::Price(e) => e.kind(),
            Self::PricesMissing { .. } | Self::ShippedPricesMissing(_) => Kind::Corrupt,
            Self::Unauthenticated(_) => Kind::Unauthenticated,
            Self::Forbidden(_) => Kind::Forbidden,
        }
    }
}

pub type Result<T, E = SystemError> = std::result::Result<T, E>;

/// Access to `system/`, and the time that is written into it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SystemObjects {
    store: Store,
    clock: Arc<dyn Clock>,
}

/// What stands in the store: the body between a version and an id that makes the bytes unique to one call.
#[derive(Serialize, Deserialize)]
struct Envelope<T> {
    format: u32,
    object_id: String,
    #[serde(flatten)]
    body: T,
}

/// Read first, so that a newer object is refused by its version and not by a field we do not know.
#[derive(Deserialize)]
struct Version {
    format: u32,
}

impl SystemObjects {
    pub fn new(store: Store, clock: Arc<dyn Clock>) -> Self {
        Self { store, clock }
    }

    pub fn now_us(&self) -> TimestampUs {
        self.clock.now_us()
    }

    /// Creates `system/{kind}/{name}`, durable on return; `Some` is what stood there already.
    pub(super) async fn create<T>(&self, kind: &str, name: &str, body: T) -> Result<Option<T>>
    where
        T: Serialize + DeserializeOwned,
    {
        let path = system(kind, name);
        let envelope = Envelope { format: FORMAT, object_id: Uuid::new_v4().to_string(), body };
        let bytes = serde_json::to_vec(&envelope).map_err(|e| corrupt(&path, &e))?;
        match self.store.create(&path, Bytes::from(bytes)).await? {
            Created::Ours => Ok(None),
            Created::Theirs(found) => decode(&path, &found).map(Some),
        }
    }

    /// Writes over `system/{kind}/{name}`, durable on return: for notes of which the last one may win or be lost.
    pub(super) async fn put<T: Serialize>(&self, kind: &str, name: &str, body: T) -> Result<()> {
        let path = system(kind, name);
        let envelope = Envelope { format: FORMAT, object_id: Uuid::new_v4().to_string(), body };
        let bytes = serde_json::to_vec(&envelope).map_err(|e| corrupt(&path, &e))?;
        Ok(self.store.put(&path, Bytes::from(bytes)).await?)
    }

    pub(super) async fn get<T: DeserializeOwned>(&self, kind: &str, name: &str) -> Result<Option<T>> {
        let path = system(kind, name);
        self.store.get(&path).await?.map(|bytes| decode(&path, &bytes)).transpose()
    }

    /// Every object below `system/{kind}`, in order of their names. Lists: never on a hot path (I10).
    pub(super) async fn all<T: DeserializeOwned>(&self, kind: &str) -> Result<Vec<T>> {
        let found = self.store.list(&system(kind, ""), None).await?;
        let read = |path: Path| async move {
            let bytes = self.store.get(&path).await?;
            bytes.map(|bytes| decode(&path, &bytes)).transpose()
        };
        let reads = futures::stream::iter(found.into_iter().map(|meta| read(meta.location)));
        let bodies: Vec<Option<T>> = reads.buffered(READS_AT_ONCE).try_collect().await?;
        Ok(bodies.into_iter().flatten().collect())
    }

    /// Every object below `system/{kind}` by its path from there, in order of it. Lists.
    pub(super) async fn named<T: DeserializeOwned>(&self, kind: &str) -> Result<Vec<(String, T)>> {
        let read = |(name, path): (String, Path)| async move {
            let bytes = self.store.get(&path).await?;
            let body = bytes.map(|bytes| decode(&path, &bytes)).transpose()?;
            Ok::<_, SystemError>(body.map(|body| (name, body)))
        };
        let reads = futures::stream::iter(self.paths(kind).await?.into_iter().map(read));
        let found: Vec<Option<(String, T)>> = reads.buffered(READS_AT_ONCE).try_collect().await?;
        Ok(found.into_iter().flatten().collect())
    }

    /// Deletes the objects below `system/{kind}` whose path from there `is_gone`. Lists. Returns how many.
    pub(super) async fn delete_named(&self, kind: &str, is_gone: impl Fn(&str) -> bool) -> Result<u64> {
        let mut gone = 0;
        for (_, path) in self.paths(kind).await?.into_iter().filter(|(name, _)| is_gone(name)) {
            self.store.delete(&path).await?;
            gone += 1;
        }
        Ok(gone)
    }

    /// When each object below `system/{kind}` was made, by the store's clock and by its path from there. Lists.
    pub(super) async fn made_us(&self, kind: &str) -> Result<Vec<(String, TimestampUs)>> {
        let found = self.store.list(&system(kind, ""), None).await?;
        let made_us = |meta: &ObjectMeta| meta.last_modified.timestamp_micros();
        Ok(found.iter().filter_map(|meta| Some((meta.location.filename()?.to_owned(), made_us(meta)))).collect())
    }

    async fn paths(&self, kind: &str) -> Result<Vec<(String, Path)>> {
        let root = system(kind, "");
        let found = self.store.list(&root, None).await?;
        let name = |path: &Path| {
            path.prefix_match(&root)
                .map(|parts| parts.map(|part| part.as_ref().to_owned()).collect::<Vec<_>>().join("/"))
        };
        Ok(found.into_iter().filter_map(|meta| Some((name(&meta.location)?, meta.location))).collect())
    }

    /// The object of `system/{kind}` with the highest number for a name. Lists.
    pub(super) async fn newest<T: DeserializeOwned>(&self, kind: &str) -> Result<Option<(u64, T)>> {
        let found = self.store.list(&system(kind, ""), None).await?;
        let number = |path: &Path| path.filename()?.parse::<u64>().ok();
        let Some(newest) = found.iter().filter_map(|meta| number(&meta.location)).max() else { return Ok(None) };
        let body = self.get(kind, &format!("{newest:020}")).await?;
        Ok(body.map(|body| (newest, body)))
    }

    /// The same for every folder below `system/{kind}`, by its name. One LIST.
    pub(super) async fn newest_of_each<T: DeserializeOwned>(&self, kind: &str) -> Result<BTreeMap<String, T>> {
        let found = self.store.list(&system(kind, ""), None).await?;
        // In order of their names, numbers of equal length: the last of a folder is its newest.
        let folder = |path: &Path| Some(path.parts().rev().nth(1)?.as_ref().to_owned());
        let newest: BTreeMap<String, Path> =
            found.into_iter().filter_map(|meta| Some((folder(&meta.location)?, meta.location))).collect();
        let mut bodies = BTreeMap::new();
        for (folder, path) in newest {
            if let Some(bytes) = self.store.get(&path).await? {
                bodies.insert(folder, decode(&path, &bytes)?);
            }
        }
        Ok(bodies)
    }

    /// The names of the objects of `system/{kind}`. Lists.
    pub(super) async fn names(&self, kind: &str) -> Result<Vec<String>> {
        let found = self.store.list(&system(kind, ""), None).await?;
        Ok(found.iter().filter_map(|meta| meta.location.filename().map(str::to_owned)).collect())
    }
}

fn decode<T: DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<T> {
    let version: Version = serde_json::from_slice(bytes).map_err(|e| corrupt(path, &e))?;
    if version.format > FORMAT {
        return Err(SystemError::Newer { path: path.to_string(), found: version.format });
    }
    let envelope: Envelope<T> = serde_json::from_slice(bytes).map_err(|e| corrupt(path, &e))?;
    Ok(envelope.body)
}

fn corrupt(path: &Path, error: &serde_json::Error) -> SystemError {
    SystemError::Corrupt { path: path.to_string(), reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;
    use crate::base::SystemClock;
    use crate::store::Location;

    #[tokio::test]
    async fn a_newer_format_is_refused_by_name_and_garbage_as_corrupt() {
        let store = Store::open(Location::Memory(Arc::new(InMemory::new()))).await.unwrap();
        let objects = SystemObjects::new(store.clone(), Arc::new(SystemClock));
        let newer = Bytes::from(r#"{"format":2,"shape":"unknown"}"#);
        store.create(&system("tenants", "new"), newer).await.unwrap();
        store.create(&system("tenants", "bad"), Bytes::from("{")).await.unwrap();
        let refused = objects.get::<serde_json::Value>("tenants", "new").await.unwrap_err();
        assert!(refused.to_string().contains("system/tenants/new has format 2"), "{refused}");
        let refused = objects.get::<serde_json::Value>("tenants", "bad").await.unwrap_err();
        assert_eq!(refused.kind(), Kind::Corrupt);
    }
}
