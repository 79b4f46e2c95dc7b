//! The only room that touches `object_store`: paths, create-once, fsync, lost replies, the start-up probe, faults.
//!
//! Promises: an `Ok` from [`Store::create`] or [`Store::put`] means the object is durable (folders: file and directory
//! fsynced); a create has exactly one winner; our own success is never taken for somebody else's. Every call is counted.
//! Must never know: what the bytes mean.

mod fault;
mod folder;
mod location;
mod paths;
mod probe;
mod upload;
mod watched;

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
pub use object_store::ObjectMeta;
pub use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};

use crate::base::{Kind, TenantId, TimestampUs};

pub use fault::{Call, Fault, Faults, SeededFaults};
pub use location::Location;
pub use paths::{
    MediaObject, TenantObject, data_file, data_file_made_us, data_object, day_of_data_file, delta_checkpoint,
    delta_checkpoint_version, delta_log, delta_version, index_file, last_checkpoint, late_object, lease, log_object,
    log_sequence, logs, low_mark, media, media_content, media_mention, media_object, rollup, rollup_object, rollups,
    system, table_root, tenant_object, tenant_root, tenants, timed_id,
};
pub use upload::{PART_BYTES, PARTS_AT_ONCE, Upload};
pub use watched::{Counts, Operation};

/// One bucket or folder. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    objects: Arc<watched::WatchedStore>,
    location: Location,
}

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the store is not reachable now ({action} {path}): {source}")]
    Away { action: &'static str, path: String, source: object_store::Error },
    #[error("the store refuses our credentials ({action} {path}): {}", refusal(source))]
    Denied { action: &'static str, path: String, source: object_store::Error },
    #[error("{path} is not in the store")]
    Missing { path: String },
    #[error("{location} cannot be a tracelake store: {reason}")]
    Unfit { location: String, reason: String },
    #[error("{0}")]
    Location(String),
}

impl StoreError {
    pub fn kind(&self) -> Kind {
        match self {
            Self::Away { .. } => Kind::Unavailable,
            Self::Denied { .. } => Kind::Unavailable,
            Self::Missing { .. } => Kind::NotFound,
            Self::Unfit { .. } | Self::Location(_) => Kind::Invalid,
        }
    }
}

pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// What became of a create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Created {
    /// The object is there, durable, and ours.
    Ours,
    /// Another's object was there first; this is its content.
    Theirs(Bytes),
}

/// Rounds of put and read-back before a create with an unknown outcome is given up.
const CREATE_ATTEMPTS_MAX: u32 = 6;
/// Ranges of one object fetched at once.
const RANGES_AT_ONCE: usize = 8;
/// Bytes between two ranges that are fetched in vain rather than by another request.
const RANGE_GAP_MAX: u64 = 16 << 10;
const BACKOFF_FIRST: Duration = Duration::from_millis(20);

impl Store {
    /// Opens and probes a store: it must refuse to create a key twice and let one of 16 racing creates win.
    pub async fn open(location: Location) -> Result<Self> {
        let store = Self::over(location.connect()?, location);
        probe::probe(&store).await?;
        Ok(store)
    }

    /// Opens for reading: no probe, nothing is written.
    pub fn open_read_only(location: Location) -> Result<Self> {
        Ok(Self::over(location.connect()?, location))
    }

    /// A store over any objects and with scripted faults, probed: for tests and simulation.
    pub async fn with_faults(location: Location, faults: Arc<dyn Faults>) -> Result<Self> {
        let objects = watched::WatchedStore::new(location.connect()?, Some(faults));
        let store = Self { objects: Arc::new(objects), location };
        probe::probe(&store).await?;
        Ok(store)
    }

    fn over(objects: Arc<dyn ObjectStore>, location: Location) -> Self {
        Self { objects: Arc::new(watched::WatchedStore::new(objects, None)), location }
    }

    pub fn location(&self) -> &Location {
        &self.location
    }

    /// Calls made so far, by operation.
    pub fn counts(&self) -> Counts {
        self.objects.counts()
    }

    /// All a tenant's queries may ever read through (I5): paths are below `tenants/{id}/`.
    pub fn tenant_objects(&self, tenant: &TenantId) -> Arc<dyn ObjectStore> {
        Arc::new(PrefixStore::new(Arc::clone(&self.objects) as Arc<dyn ObjectStore>, tenant_root(tenant)))
    }

    /// Creates `path` if it is absent. `body` must be unique to this call (it carries an id of ours), because a reply may
    /// be lost: on any doubt the object is read back, and an equal body is our own success.
    pub async fn create(&self, path: &Path, body: Bytes) -> Result<Created> {
        let mut backoff = BACKOFF_FIRST;
        let mut attempt = 1;
        loop {
            let options = PutOptions::from(PutMode::Create);
            let failure = match self.objects.put_opts(path, PutPayload::from(body.clone()), options).await {
                Ok(_) => return Ok(Created::Ours),
                Err(failure) => failure,
            };
            // What a folder holds may not be durable yet; putting again makes it so, or says that it exists.
            let exists = matches!(failure, object_store::Error::AlreadyExists { .. });
            if self.location.is_folder() && !exists && attempt < CREATE_ATTEMPTS_MAX {
                tokio::time::sleep(backoff).await;
                backoff *= 2;
                attempt += 1;
                continue;
            }
            // Also after `AlreadyExists`: it may be our own put, retried below us, or a 409 with nothing there.
            match self.get(path).await {
                Ok(Some(_)) if self.location.is_folder() && !exists => return Err(failed("create", path, failure)),
                Ok(Some(found)) if found == body => return Ok(Created::Ours),
                Ok(Some(found)) => return Ok(Created::Theirs(found)),
                Ok(None) if attempt < CREATE_ATTEMPTS_MAX && !is_denied(&failure) => {}
                Ok(None) => return Err(failed("create", path, failure)),
                // Unknown: never conclude. The same bytes may be put again at the same place.
                Err(unknown) if attempt >= CREATE_ATTEMPTS_MAX || is_denied(&failure) => return Err(unknown),
                Err(_) => {}
            }
            tokio::time::sleep(backoff).await;
            backoff *= 2;
            attempt += 1;
        }
    }

    /// Puts an object whose name nobody else uses. Durable on return.
    pub async fn put(&self, path: &Path, body: Bytes) -> Result<()> {
        let mut backoff = BACKOFF_FIRST;
        let mut attempt = 1;
        loop {
            match self.objects.put_opts(path, PutPayload::from(body.clone()), PutOptions::default()).await {
                Ok(_) => return Ok(()),
                Err(failure) if attempt >= CREATE_ATTEMPTS_MAX || is_denied(&failure) => {
                    return Err(failed("put", path, failure));
                }
                Err(_) => tokio::time::sleep(backoff).await,
            }
            backoff *= 2;
            attempt += 1;
        }
    }

    /// The whole object, or `None` if there is none.
    pub async fn get(&self, path: &Path) -> Result<Option<Bytes>> {
        let read = async { self.objects.get(path).await?.bytes().await };
        match read.await {
            Ok(body) => Ok(Some(body)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(failure) => Err(failed("get", path, failure)),
        }
    }

    /// How large an object is, or `None` if there is none.
    pub async fn size(&self, path: &Path) -> Result<Option<u64>> {
        match self.objects.head(path).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(failure) => Err(failed("head", path, failure)),
        }
    }

    /// Parts of an object, in the order asked for. Those close to each other come by one request, and nothing is held
    /// but what was asked for, or little more.
    pub async fn get_ranges(&self, path: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let joined = joined(ranges);
        let fetched = stream::iter(joined.iter().cloned()).map(|range| async move {
            match self.objects.get_range(path, range.clone()).await {
                Ok(bytes) if bytes.len() as u64 == range.end - range.start => Ok(bytes),
                Ok(_) | Err(object_store::Error::NotFound { .. }) => {
                    Err(StoreError::Missing { path: path.to_string() })
                }
                Err(failure) => Err(failed("get", path, failure)),
            }
        });
        let fetched: Vec<Bytes> = fetched.buffered(RANGES_AT_ONCE).try_collect().await?;
        let part = |range: &Range<u64>| {
            let at = joined.partition_point(|joined| joined.end < range.end);
            let (whole, from) = (&fetched[at], joined[at].start);
            let part = whole.slice((range.start - from) as usize..(range.end - from) as usize);
            // A small part would keep the whole alive.
            if part.len() < whole.len() / 2 { Bytes::copy_from_slice(&part) } else { part }
        };
        Ok(ranges.iter().map(part).collect())
    }

    /// Objects below `prefix` after `after`, in order of their names. Never on a hot path (I10).
    pub async fn list(&self, prefix: &Path, after: Option<&Path>) -> Result<Vec<ObjectMeta>> {
        let listing = match after {
            Some(after) => self.objects.list_with_offset(Some(prefix), after),
            None => self.objects.list(Some(prefix)),
        };
        let mut found: Vec<ObjectMeta> = listing.try_collect().await.map_err(|e| failed("list", prefix, e))?;
        found.sort_by(|a, b| a.location.cmp(&b.location));
        Ok(found)
    }

    /// The names of the "folders" directly below `prefix`.
    pub async fn list_folders(&self, prefix: &Path) -> Result<Vec<String>> {
        let found = self.objects.list_with_delimiter(Some(prefix)).await.map_err(|e| failed("list", prefix, e))?;
        Ok(found.common_prefixes.iter().filter_map(|path| path.filename().map(str::to_owned)).collect())
    }

    /// The store's own time: that of an object made, looked at and deleted now.
    pub async fn now_us(&self) -> Result<TimestampUs> {
        let path = paths::system("probe", &uuid::Uuid::new_v4().to_string());
        self.put(&path, Bytes::from_static(b"now")).await?;
        let made = self.objects.head(&path).await.map_err(|e| failed("head", &path, e));
        self.delete(&path).await?;
        Ok(made?.last_modified.timestamp_micros())
    }

    /// Removes an object; one that is not there is removed already.
    pub async fn delete(&self, path: &Path) -> Result<()> {
        match self.objects.delete(path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(failure) => Err(failed("delete", path, failure)),
        }
    }
}

/// Ranges in order, those close to each other as one.
fn joined(ranges: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut sorted = ranges.to_vec();
    sorted.sort_by_key(|range| (range.start, range.end));
    let mut joined: Vec<Range<u64>> = Vec::new();
    for range in sorted {
        match joined.last_mut() {
            Some(last) if range.start <= last.end + RANGE_GAP_MAX => last.end = last.end.max(range.end),
            _ => joined.push(range),
        }
    }
    joined
}

fn is_denied(failure: &object_store::Error) -> bool {
    use object_store::Error::{PermissionDenied, Unauthenticated};
    matches!(failure, PermissionDenied { .. } | Unauthenticated { .. })
}

/// What S3 says in a page of XML, as one sentence; anything else as it is.
fn refusal(source: &object_store::Error) -> String {
    let said = source.to_string();
    let code = said.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>"));
    match code {
        Some((code, _)) => format!(
            "S3 says {code}; check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and what they may do in this bucket"
        ),
        None => said,
    }
}

fn failed(action: &'static str, path: &Path, source: object_store::Error) -> StoreError {
    let path = path.to_string();
    match is_denied(&source) {
        true => StoreError::Denied { action, path, source },
        false => StoreError::Away { action, path, source },
    }
}

#[cfg(test)]
mod tests;
