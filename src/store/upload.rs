//! Objects too large for memory, put piece by piece. What is small goes by one PUT, as everything else does; commits
//! and log objects never come here.

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStore, PutMultipartOptions, PutPayload, UploadPart};

use super::{Result, Store, failed};

/// Every part but the last has this size: S3 wants at least 5 MiB, R2 wants them equal, and 10,000 of them are 80 GiB.
pub const PART_BYTES: usize = 8 << 20;
/// Parts on their way at once; so many more bytes are held than were pushed last.
pub const PARTS_AT_ONCE: usize = 2;

/// An object being put under a name nobody else uses. Nothing is visible before [`Upload::finish`]; an upload that is
/// dropped leaves no object (on S3 its parts stay, unseen, until the bucket's rule for unfinished uploads).
#[derive(Debug)]
pub struct Upload {
    store: Store,
    path: Path,
    pending: BytesMut,
    parts: Option<Parts>,
    size_bytes: u64,
}

struct Parts {
    upload: Box<dyn MultipartUpload>,
    under_way: FuturesUnordered<UploadPart>,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} parts under way", self.under_way.len())
    }
}

impl Store {
    /// Begins an object of unknown size at `path`, whose name nobody else uses.
    pub fn upload(&self, path: Path) -> Upload {
        Upload { store: self.clone(), path, pending: BytesMut::new(), parts: None, size_bytes: 0 }
    }
}

impl Upload {
    /// Bytes pushed so far.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Takes the next bytes; waits while too many are on their way. After an error the upload is of no use.
    pub async fn push(&mut self, mut bytes: Bytes) -> Result<()> {
        self.size_bytes += bytes.len() as u64;
        while !bytes.is_empty() {
            let fits = bytes.len().min(PART_BYTES - self.pending.len());
            self.pending.extend_from_slice(&bytes.split_to(fits));
            if self.pending.len() == PART_BYTES {
                let part = self.pending.split().freeze();
                self.put_part(part).await?;
            }
        }
        Ok(())
    }

    /// The object is there, whole and durable, on return. Its size.
    pub async fn finish(mut self) -> Result<u64> {
        let rest = self.pending.split().freeze();
        if self.parts.is_none() {
            self.store.put(&self.path, rest).await?;
            return Ok(self.size_bytes);
        }
        if !rest.is_empty() {
            self.put_part(rest).await?;
        }
        let path = self.path.clone();
        let parts = self.parts.as_mut().expect("some part was put");
        while let Some(done) = parts.under_way.next().await {
            done.map_err(|e| failed("upload", &path, e))?;
        }
        parts.upload.complete().await.map_err(|e| failed("upload", &path, e))?;
        Ok(self.size_bytes)
    }

    /// Gives the store's space back, if the store answers.
    pub async fn abort(mut self) {
        if let Some(mut parts) = self.parts.take() {
            parts.under_way.clear();
            let _ = parts.upload.abort().await;
        }
    }

    async fn put_part(&mut self, part: Bytes) -> Result<()> {
        let failure = |e| failed("upload", &self.path, e);
        if self.parts.is_none() {
            let begun = self.store.objects.put_multipart_opts(&self.path, PutMultipartOptions::default()).await;
            self.parts = Some(Parts { upload: begun.map_err(failure)?, under_way: FuturesUnordered::new() });
        }
        let parts = self.parts.as_mut().expect("begun above");
        while parts.under_way.len() >= PARTS_AT_ONCE {
            if let Some(done) = parts.under_way.next().await {
                done.map_err(failure)?;
            }
        }
        parts.under_way.push(parts.upload.put_part(PutPayload::from(part)));
        Ok(())
    }
}
