//! Every call to the store passes here: it is counted (I10), and tests can make it fail.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};

use super::fault::{Call, Fault, Faults, broken};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    Put,
    Get,
    List,
    Delete,
}

/// Calls made, by operation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub put: u64,
    pub get: u64,
    pub list: u64,
    pub delete: u64,
}

#[derive(Debug)]
pub(super) struct WatchedStore {
    inner: Arc<dyn ObjectStore>,
    watch: Watch,
}

/// Counts calls and suffers their faults.
#[derive(Debug, Clone)]
struct Watch {
    faults: Option<Arc<dyn Faults>>,
    calls: Arc<[AtomicU64; 4]>,
}

impl WatchedStore {
    pub(super) fn new(inner: Arc<dyn ObjectStore>, faults: Option<Arc<dyn Faults>>) -> Self {
        Self { inner, watch: Watch { faults, calls: Arc::default() } }
    }

    pub(super) fn counts(&self) -> Counts {
        let [put, get, list, delete] = [0, 1, 2, 3].map(|at: usize| self.watch.calls[at].load(Ordering::Relaxed));
        Counts { put, get, list, delete }
    }

    async fn enter(&self, operation: Operation, path: &Path) -> Result<Fault> {
        self.watch.enter(operation, path).await
    }
}

impl Watch {
    /// Counts a call, suffers what its fault does before the store sees it, and says what comes after.
    async fn enter(&self, operation: Operation, path: &Path) -> Result<Fault> {
        self.calls[operation as usize].fetch_add(1, Ordering::Relaxed);
        let Some(faults) = &self.faults else { return Ok(Fault::None) };
        match faults.on(Call { operation, path }) {
            Fault::Fail => Err(broken(path)),
            Fault::Never => std::future::pending().await,
            Fault::Delay(delay) => {
                tokio::time::sleep(delay).await;
                Ok(Fault::None)
            }
            fault => Ok(fault),
        }
    }

    /// A listing, begun when its call has passed.
    fn listed(
        &self,
        prefix: Option<&Path>,
        listing: BoxStream<'static, Result<ObjectMeta>>,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let (watch, prefix) = (self.clone(), prefix.cloned().unwrap_or_default());
        let entered = async move {
            watch.enter(Operation::List, &prefix).await?;
            Ok::<_, object_store::Error>(listing.map_ok(move |meta| watch.dated(meta)))
        };
        stream::once(entered).try_flatten().boxed()
    }

    /// With the time the object was made at, as far as tests have their own.
    fn dated(&self, mut meta: ObjectMeta) -> ObjectMeta {
        if let Some(faults) = &self.faults {
            meta.last_modified = faults.made_at(meta.last_modified);
        }
        meta
    }
}

#[async_trait]
impl ObjectStore for WatchedStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, mut options: PutOptions) -> Result<PutResult> {
        let fault = self.enter(Operation::Put, location).await?;
        match fault {
            Fault::IgnoreCondition => options.mode = PutMode::Overwrite,
            Fault::CheckThenWrite if options.mode == PutMode::Create => {
                if let Ok(found) = self.inner.head(location).await {
                    let source = format!("{} is there", found.location).into();
                    return Err(object_store::Error::AlreadyExists { path: location.to_string(), source });
                }
                tokio::task::yield_now().await;
                options.mode = PutMode::Overwrite;
            }
            Fault::Twice => _ = self.inner.put_opts(location, payload.clone(), options.clone()).await,
            Fault::ComesLate(delay) => {
                let (inner, path) = (Arc::clone(&self.inner), location.clone());
                let location = path.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(delay).await;
                    inner.put_opts(&location, payload, options).await
                });
                return Err(broken(&path));
            }
            Fault::Torn => {
                let whole = bytes::Bytes::from(payload);
                let _ = self.inner.put_opts(location, whole.slice(..whole.len() / 2).into(), options).await;
                return Err(broken(location));
            }
            _ => {}
        }
        let done = self.inner.put_opts(location, payload, options).await;
        match fault {
            Fault::LoseReply => Err(broken(location)),
            Fault::DoneNever => std::future::pending().await,
            _ => done,
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        // A lost reply to the beginning leaves parts nobody knows of, which is a failure like any other.
        if self.enter(Operation::Put, location).await? == Fault::LoseReply {
            return Err(broken(location));
        }
        let upload = self.inner.put_multipart_opts(location, options).await?;
        Ok(Box::new(WatchedUpload { inner: upload, path: location.clone(), watch: self.watch.clone() }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.enter(Operation::Get, location).await?;
        let mut found = self.inner.get_opts(location, options).await?;
        found.meta = self.watch.dated(found.meta);
        Ok(found)
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.enter(Operation::Get, location).await?;
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let watch = self.watch.clone();
        let watched = locations.and_then(move |location| {
            let watch = watch.clone();
            async move { watch.enter(Operation::Delete, &location).await.map(|_| location) }
        });
        self.inner.delete_stream(watched.boxed())
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.watch.listed(prefix, self.inner.list(prefix))
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.watch.listed(prefix, self.inner.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.enter(Operation::List, prefix.unwrap_or(&Path::default())).await?;
        let mut found = self.inner.list_with_delimiter(prefix).await?;
        found.objects = found.objects.into_iter().map(|meta| self.watch.dated(meta)).collect();
        Ok(found)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.enter(Operation::Put, to).await?;
        self.inner.copy_opts(from, to, options).await
    }
}

/// An upload whose parts and end are calls like any other.
#[derive(Debug)]
struct WatchedUpload {
    inner: Box<dyn MultipartUpload>,
    path: Path,
    watch: Watch,
}

#[async_trait]
impl MultipartUpload for WatchedUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (watch, path) = (self.watch.clone(), self.path.clone());
        let put = self.inner.put_part(data);
        Box::pin(async move {
            let fault = watch.enter(Operation::Put, &path).await?;
            put.await?;
            match fault {
                Fault::LoseReply => Err(broken(&path)),
                _ => Ok(()),
            }
        })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let fault = self.watch.enter(Operation::Put, &self.path).await?;
        let done = self.inner.complete().await;
        match fault {
            Fault::LoseReply => Err(broken(&self.path)),
            _ => done,
        }
    }

    async fn abort(&mut self) -> Result<()> {
        self.watch.enter(Operation::Delete, &self.path).await?;
        self.inner.abort().await
    }
}

impl fmt::Display for WatchedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}
