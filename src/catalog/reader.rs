//! A live file as the Parquet library reads it: ranges of an object.

use std::ops::Range;
use std::sync::Arc;

use ::parquet::arrow::arrow_reader::ArrowReaderOptions;
use ::parquet::arrow::async_reader::AsyncFileReader;
use ::parquet::errors::{ParquetError, Result};
use ::parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;

use super::snapshot::DataFile;
use crate::base::TenantId;
use crate::model::tables::Table;
use crate::store::{self, Path, Store};

/// Reads one file by ranges: its footer by one exact request, where its length is known.
#[derive(Debug, Clone)]
pub struct FileReader {
    store: Store,
    path: Path,
    size_bytes: u64,
    footer_bytes: Option<usize>,
}

impl FileReader {
    pub fn new(store: Store, tenant: &TenantId, table: Table, file: &DataFile) -> Self {
        let root = store::table_root(tenant, table.name());
        let path = file.path.split('/').fold(root, |path, part| path.join(part));
        let footer_bytes = file.footer_bytes.map(|bytes| bytes as usize);
        Self { store, path, size_bytes: file.size_bytes, footer_bytes }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl AsyncFileReader for FileReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes>> {
        async move {
            let mut parts = self.get_byte_ranges(vec![range]).await?;
            Ok(parts.pop().unwrap_or_default())
        }
        .boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, Result<Vec<Bytes>>> {
        let read = async move { self.store.get_ranges(&self.path, &ranges).await };
        read.map(|parts| parts.map_err(|e| ParquetError::External(Box::new(e)))).boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, Result<Arc<ParquetMetaData>>> {
        async move {
            let size_bytes = self.size_bytes;
            let reader = ParquetMetaDataReader::new()
                .with_arrow_reader_options(options)
                .with_page_index_policy(PageIndexPolicy::Optional)
                .with_prefetch_hint(self.footer_bytes);
            Ok(Arc::new(reader.load_and_finish(self, size_bytes).await?))
        }
        .boxed()
    }
}
