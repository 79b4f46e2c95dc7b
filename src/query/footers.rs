//! File footers kept between queries: one bounded store for all, of which each tenant sees its own part (I5, I7).

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use datafusion::common::{HashMap, TableReference};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::{CachedParquetFileReaderFactory, ParquetFileReaderFactory};
use datafusion::error::Result;
use datafusion::execution::cache::cache_manager::{
    CacheManager, CacheManagerConfig, CachedFileMetadataEntry, FileMetadataCache,
};
use datafusion::execution::cache::{Cache, CacheEntryInfo};
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use futures::future::BoxFuture;
use object_store::ObjectStore;
use object_store::path::Path;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::errors::Result as ParquetResult;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData};

use crate::base::{ByteSize, TenantId};
use crate::store::tenant_root;

#[derive(Clone)]
pub(super) struct Footers(Arc<FileMetadataCache>);

impl Footers {
    pub(super) fn new(limit: ByteSize) -> Result<Self> {
        let config = CacheManagerConfig::default().with_metadata_cache_limit(limit.as_usize());
        Ok(Self(CacheManager::try_new(&config)?.get_file_metadata_cache()))
    }

    /// Reads files of one tenant, keeping their footers with page index.
    pub(super) fn reader(&self, tenant: &TenantId, objects: Arc<dyn ObjectStore>) -> Arc<dyn ParquetFileReaderFactory> {
        let own = OwnFooters { all: Arc::clone(&self.0), prefix: tenant_root(tenant).to_string() };
        Arc::new(WholeFooters(CachedParquetFileReaderFactory::new(objects, Arc::new(own))))
    }
}

/// Asks for the page index with every footer: it is then kept with it, where else it would be read at every query.
#[derive(Debug)]
struct WholeFooters(CachedParquetFileReaderFactory);

impl ParquetFileReaderFactory for WholeFooters {
    fn create_reader(
        &self,
        partition: usize,
        file: PartitionedFile,
        footer_bytes: Option<usize>,
        metrics: &ExecutionPlanMetricsSet,
    ) -> Result<Box<dyn AsyncFileReader + Send>> {
        Ok(Box::new(WholeFooterReader(self.0.create_reader(partition, file, footer_bytes, metrics)?)))
    }
}

struct WholeFooterReader(Box<dyn AsyncFileReader + Send>);

impl AsyncFileReader for WholeFooterReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, ParquetResult<Bytes>> {
        self.0.get_bytes(range)
    }
    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, ParquetResult<Vec<Bytes>>> {
        self.0.get_byte_ranges(ranges)
    }
    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, ParquetResult<Arc<ParquetMetaData>>> {
        let options = options.cloned().unwrap_or_default().with_page_index_policy(PageIndexPolicy::Optional);
        Box::pin(async move { self.0.get_metadata(Some(&options)).await })
    }
}

/// The entries of one tenant: every key is put below its prefix, so that no path names another's entry.
struct OwnFooters {
    all: Arc<FileMetadataCache>,
    prefix: String,
}

impl OwnFooters {
    fn key(&self, path: &Path) -> Path {
        Path::from(format!("{}/{path}", self.prefix))
    }
}

impl Cache<Path, CachedFileMetadataEntry> for OwnFooters {
    fn get(&self, path: &Path) -> Option<CachedFileMetadataEntry> {
        self.all.get(&self.key(path))
    }
    fn put(&self, path: &Path, value: CachedFileMetadataEntry) -> Option<CachedFileMetadataEntry> {
        self.all.put(&self.key(path), value)
    }
    fn remove(&self, path: &Path) -> Option<CachedFileMetadataEntry> {
        self.all.remove(&self.key(path))
    }
    fn contains_key(&self, path: &Path) -> bool {
        self.all.contains_key(&self.key(path))
    }
    fn len(&self) -> usize {
        self.all.len()
    }
    /// A tenant may not empty what is everybody's.
    fn clear(&self) {}
    fn name(&self) -> String {
        "footers".to_owned()
    }
    fn cache_limit(&self) -> usize {
        self.all.cache_limit()
    }
    fn update_cache_limit(&self, _: usize) {}
    fn cache_ttl(&self) -> Option<Duration> {
        None
    }
    fn update_cache_ttl(&self, _: Option<Duration>) {}
    fn drop_table_entries(&self, _: &TableReference) -> Result<()> {
        Ok(())
    }
    fn list_entries(&self) -> HashMap<Path, CacheEntryInfo<CachedFileMetadataEntry>> {
        HashMap::new()
    }
}
