//! Where a store is: a folder, or a bucket of an S3 service.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use object_store::ObjectStore;
use object_store::aws::AmazonS3Builder;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ClientOptions, RetryConfig};

use super::folder::FolderStore;
use super::{Result, StoreError};

#[derive(Debug, Clone)]
pub enum Location {
    Folder(PathBuf),
    /// Credentials, region and endpoint come from the standard `AWS_*` variables.
    S3 {
        bucket: String,
        prefix: String,
    },
    /// For tests: shared by all clones.
    Memory(Arc<InMemory>),
}

/// A request that takes longer than this has an unknown outcome.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

impl Location {
    /// A folder is where an fsync is the price of an ack; elsewhere it is a request.
    pub fn is_folder(&self) -> bool {
        matches!(self, Self::Folder(_))
    }

    pub(super) fn connect(&self) -> Result<Arc<dyn ObjectStore>> {
        match self {
            Self::Folder(folder) => Ok(Arc::new(FolderStore::open(folder)?)),
            Self::Memory(objects) => Ok(Arc::clone(objects) as Arc<dyn ObjectStore>),
            Self::S3 { bucket, prefix } => {
                let endpoint = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"]
                    .into_iter()
                    .find_map(|name| std::env::var(name).ok());
                let plain_http = endpoint.as_deref().is_some_and(|endpoint| endpoint.starts_with("http://"));
                let client = ClientOptions::new()
                    .with_timeout(REQUEST_TIMEOUT)
                    .with_connect_timeout(CONNECT_TIMEOUT)
                    .with_allow_http(plain_http);
                let mut builder = AmazonS3Builder::from_env()
                    .with_bucket_name(bucket)
                    .with_client_options(client)
                    .with_retry(RetryConfig { max_retries: 3, retry_timeout: REQUEST_TIMEOUT, ..Default::default() });
                if let Some(endpoint) = endpoint {
                    builder = builder.with_endpoint(endpoint);
                }
                let objects = builder.build().map_err(|e| StoreError::Location(format!("{self}: {e}")))?;
                match prefix.is_empty() {
                    true => Ok(Arc::new(objects)),
                    false => Ok(Arc::new(PrefixStore::new(objects, Path::from(prefix.as_str())))),
                }
            }
        }
    }
}

impl FromStr for Location {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self> {
        if let Some(rest) = text.strip_prefix("s3://") {
            let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            if bucket.is_empty() {
                return Err(StoreError::Location(format!("{text:?} names no bucket: use s3://bucket/prefix")));
            }
            return Ok(Self::S3 { bucket: bucket.to_owned(), prefix: prefix.trim_matches('/').to_owned() });
        }
        match text.split_once("://") {
            Some((scheme, _)) => Err(StoreError::Location(format!(
                "{scheme:?} is not a store tracelake knows: use a folder or s3://bucket/prefix"
            ))),
            None if text.is_empty() => Err(StoreError::Location("the data location is empty".to_owned())),
            None => Ok(Self::Folder(PathBuf::from(text))),
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(folder) => write!(f, "{}", folder.display()),
            Self::S3 { bucket, prefix } if prefix.is_empty() => write!(f, "s3://{bucket}"),
            Self::S3 { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
            Self::Memory(_) => f.write_str("memory"),
        }
    }
}
