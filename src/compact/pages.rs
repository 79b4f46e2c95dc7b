//! Ranges of one file, fetched, and kept while they are used.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};

use super::Result;
use crate::store::{Path, Store};

/// Reads ranges of a file and keeps what the last window used: windows share pages.
#[derive(Clone)]
pub(super) struct PageReader {
    store: Store,
    path: Path,
    size_bytes: u64,
    pages: Arc<Mutex<Pages>>,
}

#[derive(Default)]
struct Pages {
    kept: Vec<(Range<u64>, Bytes)>,
    /// Which of them this window asked for.
    used: Vec<bool>,
}

impl Pages {
    fn find(&mut self, range: &Range<u64>) -> Option<Bytes> {
        let holds = |kept: &Range<u64>| kept.start <= range.start && range.end <= kept.end;
        let at = self.kept.iter().position(|(kept, _)| holds(kept))?;
        self.used[at] = true;
        let (kept, bytes) = &self.kept[at];
        Some(bytes.slice((range.start - kept.start) as usize..(range.end - kept.start) as usize))
    }

    fn keep(&mut self, range: Range<u64>, bytes: Bytes) {
        self.kept.push((range, bytes));
        self.used.push(true);
    }
}

impl PageReader {
    pub(super) fn new(store: Store, path: Path, size_bytes: u64) -> Self {
        Self { store, path, size_bytes, pages: Arc::default() }
    }

    /// Fetches a part that windows will need all of, unless it is there.
    pub(super) async fn fetch(&self, range: Range<u64>) -> Result<()> {
        if self.pages.lock().find(&range).is_none() {
            let mut parts = self.store.get_ranges(&self.path, std::slice::from_ref(&range)).await?;
            self.pages.lock().keep(range, parts.pop().unwrap_or_default());
        }
        Ok(())
    }

    pub(super) fn begin_window(&self) {
        self.pages.lock().used.fill(false);
    }

    pub(super) fn end_window(&self) {
        let mut pages = self.pages.lock();
        let mut used = std::mem::take(&mut pages.used).into_iter();
        pages.kept.retain(|_| used.next().unwrap_or(false));
        pages.used = vec![true; pages.kept.len()];
    }

    pub(super) fn forget(&self) {
        *self.pages.lock() = Pages::default();
    }

    pub(super) fn kept_bytes(&self) -> u64 {
        self.pages.lock().kept.iter().map(|(_, bytes)| bytes.len() as u64).sum()
    }

    async fn ranges(&self, ranges: Vec<Range<u64>>) -> ParquetResult<Vec<Bytes>> {
        let mut found: Vec<Option<Bytes>> = {
            let mut pages = self.pages.lock();
            ranges.iter().map(|range| pages.find(range)).collect()
        };
        let missing: Vec<Range<u64>> =
            ranges.iter().zip(&found).filter(|(_, found)| found.is_none()).map(|(range, _)| range.clone()).collect();
        if !missing.is_empty() {
            if let Some(range) = missing.iter().find(|range| range.end > self.size_bytes || range.start > range.end) {
                return Err(ParquetError::General(format!("{range:?} lies outside of the file")));
            }
            let fetched = self.store.get_ranges(&self.path, &missing).await;
            let mut fetched = fetched.map_err(|e| ParquetError::External(Box::new(e)))?.into_iter();
            let mut pages = self.pages.lock();
            for (range, slot) in ranges.iter().zip(&mut found) {
                if slot.is_none()
                    && let Some(bytes) = fetched.next()
                {
                    pages.keep(range.clone(), bytes.clone());
                    *slot = Some(bytes);
                }
            }
        }
        Ok(found.into_iter().flatten().collect())
    }
}

impl AsyncFileReader for PageReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, ParquetResult<Bytes>> {
        async move {
            let found = self.ranges(vec![range]).await?;
            found.into_iter().next().ok_or_else(|| ParquetError::General("a range without bytes".to_owned()))
        }
        .boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, ParquetResult<Vec<Bytes>>> {
        self.ranges(ranges).boxed()
    }

    /// Never asked for: the footer was read when the file was opened.
    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, ParquetResult<Arc<ParquetMetaData>>> {
        async move {
            let size_bytes = self.size_bytes;
            let reader = ParquetMetaDataReader::new().with_arrow_reader_options(options);
            Ok(Arc::new(reader.load_and_finish(self, size_bytes).await?))
        }
        .boxed()
    }
}
