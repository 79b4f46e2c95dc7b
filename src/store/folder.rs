//! A folder as a store: create-if-absent and durable puts, which `object_store`'s own local store does not do.
//!
//! A put writes a file in `.staging/`, fsyncs it, links (create) or renames (overwrite) it into place, and fsyncs every
//! directory it changed.

use std::collections::HashSet;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};
use parking_lot::Mutex;
use uuid::Uuid;

use super::StoreError;

const STAGING: &str = ".staging";

#[derive(Debug)]
pub(super) struct FolderStore {
    reader: LocalFileSystem,
    root: Arc<PathBuf>,
    /// Folders whose names this process has made durable: an earlier one may have ended before it could.
    named: Arc<Mutex<HashSet<PathBuf>>>,
}

impl FolderStore {
    pub(super) fn open(folder: &FilePath) -> Result<Self, StoreError> {
        let unusable = |e: &dyn fmt::Display| StoreError::Location(format!("{}: {e}", folder.display()));
        fs::create_dir_all(folder.join(STAGING)).map_err(|e| unusable(&e))?;
        let root = folder.canonicalize().map_err(|e| unusable(&e))?;
        let reader = LocalFileSystem::new_with_prefix(&root).map_err(|e| unusable(&e))?;
        Ok(Self { reader, root: Arc::new(root), named: Arc::default() })
    }
}

/// Puts `payload` at `relative`; on `Ok` the bytes and the name are on the disk.
fn put_durably(
    root: &FilePath,
    named: &Mutex<HashSet<PathBuf>>,
    relative: &Path,
    payload: &PutPayload,
    create: bool,
) -> io::Result<()> {
    let target = root.join(relative.as_ref());
    let staged = root.join(STAGING).join(Uuid::new_v4().to_string());
    let folder = target.parent().unwrap_or(root);
    make_folders(root, named, folder)?;
    let written = (|| {
        let mut file = File::create_new(&staged)?;
        for part in payload.iter() {
            file.write_all(part)?;
        }
        file.sync_all()?;
        match create {
            true => fs::hard_link(&staged, &target),
            false => fs::rename(&staged, &target),
        }
    })();
    if create || written.is_err() {
        // A staged file left behind costs space, never truth.
        let _ = fs::remove_file(&staged);
    }
    match written {
        // Whoever is told that it exists may rely on it.
        Err(e) if e.kind() == ErrorKind::AlreadyExists => sync_folder(folder).and(Err(e)),
        written => written.and_then(|()| sync_folder(folder)),
    }
}

/// Makes `folder` and those above it below `root`, and makes their names durable.
fn make_folders(root: &FilePath, named: &Mutex<HashSet<PathBuf>>, folder: &FilePath) -> io::Result<()> {
    if folder == root || named.lock().contains(folder) {
        return Ok(());
    }
    let above = folder.parent().unwrap_or(root);
    make_folders(root, named, above)?;
    match fs::create_dir(folder) {
        Err(e) if e.kind() != ErrorKind::AlreadyExists => return Err(e),
        _ => sync_folder(above)?,
    }
    named.lock().insert(folder.to_owned());
    Ok(())
}

fn sync_folder(folder: &FilePath) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[async_trait]
impl ObjectStore for FolderStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let create = match options.mode {
            PutMode::Create => true,
            PutMode::Overwrite => false,
            PutMode::Update(_) => return Err(not_offered("If-Match")),
        };
        let (root, named, relative) = (Arc::clone(&self.root), Arc::clone(&self.named), location.clone());
        let put = tokio::task::spawn_blocking(move || put_durably(&root, &named, &relative, &payload, create));
        match put.await {
            Ok(Ok(())) => Ok(PutResult { e_tag: None, version: None }),
            Ok(Err(e)) if e.kind() == ErrorKind::AlreadyExists => {
                Err(Error::AlreadyExists { path: location.to_string(), source: Box::new(e) })
            }
            Ok(Err(e)) => Err(broken(&e)),
            Err(e) => Err(broken(&e)),
        }
    }

    async fn put_multipart_opts(&self, location: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        let staged = self.root.join(STAGING).join(Uuid::new_v4().to_string());
        let file = File::create_new(&staged).map_err(|e| broken(&e))?;
        Ok(Box::new(StagedUpload {
            root: Arc::clone(&self.root),
            named: Arc::clone(&self.named),
            relative: location.clone(),
            staged: Arc::new(Staged { path: staged, file }),
            written: 0,
        }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.reader.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.reader.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.reader.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.reader.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(not_offered("copy"))
    }
}

/// A file put part by part: staged, then named. Dropped before, it is gone.
#[derive(Debug)]
struct StagedUpload {
    root: Arc<PathBuf>,
    named: Arc<Mutex<HashSet<PathBuf>>>,
    relative: Path,
    staged: Arc<Staged>,
    written: u64,
}

#[derive(Debug)]
struct Staged {
    path: PathBuf,
    file: File,
}

impl Drop for Staged {
    fn drop(&mut self) {
        // Not there any more when it was put in its place; left behind it costs space, never truth.
        let _ = fs::remove_file(&self.path);
    }
}

impl StagedUpload {
    /// On `Ok` the bytes and the name are on the disk.
    fn put_in_place(
        root: &FilePath,
        named: &Mutex<HashSet<PathBuf>>,
        relative: &Path,
        staged: &Staged,
    ) -> io::Result<()> {
        let target = root.join(relative.as_ref());
        let folder = target.parent().unwrap_or(root);
        make_folders(root, named, folder)?;
        staged.file.sync_all()?;
        fs::rename(&staged.path, &target)?;
        sync_folder(folder)
    }
}

#[async_trait]
impl MultipartUpload for StagedUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (staged, mut at) = (Arc::clone(&self.staged), self.written);
        self.written += data.content_length() as u64;
        let write = move || {
            data.iter().try_for_each(|part| {
                staged.file.write_all_at(part, at)?;
                at += part.len() as u64;
                Ok(())
            })
        };
        Box::pin(async move {
            match tokio::task::spawn_blocking(write).await {
                Ok(written) => written.map_err(|e: io::Error| broken(&e)),
                Err(e) => Err(broken(&e)),
            }
        })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let (root, named, relative) = (Arc::clone(&self.root), Arc::clone(&self.named), self.relative.clone());
        let staged = Arc::clone(&self.staged);
        let put = tokio::task::spawn_blocking(move || Self::put_in_place(&root, &named, &relative, &staged));
        match put.await {
            Ok(Ok(())) => Ok(PutResult { e_tag: None, version: None }),
            Ok(Err(e)) => Err(broken(&e)),
            Err(e) => Err(broken(&e)),
        }
    }

    async fn abort(&mut self) -> Result<()> {
        let _ = fs::remove_file(&self.staged.path);
        Ok(())
    }
}

fn broken(error: &dyn fmt::Display) -> Error {
    Error::Generic { store: "folder", source: error.to_string().into() }
}

fn not_offered(what: &str) -> Error {
    Error::NotSupported { source: format!("a folder store offers no {what}").into() }
}

impl fmt::Display for FolderStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "folder {}", self.root.display())
    }
}
