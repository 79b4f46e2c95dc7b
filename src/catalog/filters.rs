//! Key filters in memory: loaded when first asked for, one request for all files of a commit, kept within a budget.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::OnceCell;

use super::snapshot::DataFile;
use super::{CatalogError, Result};
use crate::base::{ByteSize, TenantId};
use crate::format::index::{self, IndexObject, LoadedFilter};
use crate::model::tables::Table;
use crate::store::{self, Store};

/// Memory for the filters of all tenants. At 4.5 bytes a key this is 110 million rows; beyond it the filters asked for
/// least recently are loaded again when needed.
pub const KEY_FILTERS_MAX: ByteSize = ByteSize::mib(512);

#[derive(Debug)]
pub(super) struct Filters {
    store: Store,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    indexes: HashMap<String, Slot>,
    bytes: usize,
    /// Counts uses: what was used last has the highest number.
    uses: u64,
}

#[derive(Debug)]
struct Slot {
    index: Arc<OnceCell<Arc<LoadedIndex>>>,
    bytes: usize,
    used: u64,
}

/// The filters of the files of one commit.
#[derive(Debug, Default)]
pub(super) struct LoadedIndex {
    files: HashMap<String, FileFilters>,
    bytes: usize,
}

#[derive(Debug)]
struct FileFilters {
    keys: LoadedFilter,
    traces: LoadedFilter,
}

/// What is looked for in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sought {
    Key(u64),
    Trace(u64),
}

impl Filters {
    pub(super) fn new(store: Store) -> Self {
        Self { store, known: Mutex::default() }
    }

    /// The filters of `file`, loaded if need be. A file without any may hold every key.
    pub(super) async fn of(&self, tenant: &TenantId, table: Table, file: &DataFile) -> Result<Arc<LoadedIndex>> {
        let Some(id) = &file.index else { return Ok(Arc::default()) };
        let path = store::index_file(tenant, table.name(), id);
        let cell = self.slot(path.as_ref());
        let loaded = cell
            .get_or_try_init(|| async {
                let body = self.store.get(&path).await?;
                let Some(body) = body else {
                    tracing::warn!(%path, "this index object is missing; its files are read instead of their filters");
                    return Ok(Arc::default());
                };
                let object = index::decode(body);
                let object = object.map_err(|source| CatalogError::Format { path: path.to_string(), source })?;
                Ok::<_, CatalogError>(Arc::new(LoadedIndex::of(&object)))
            })
            .await?;
        self.account(path.as_ref(), loaded.bytes);
        Ok(Arc::clone(loaded))
    }

    /// Keeps the filters of a commit of our own, which need not be read back.
    pub(super) fn remember(&self, tenant: &TenantId, table: Table, id: &str, object: &IndexObject) {
        let path = store::index_file(tenant, table.name(), id);
        let loaded = LoadedIndex::of(object);
        let bytes = loaded.bytes;
        let _ = self.slot(path.as_ref()).set(Arc::new(loaded));
        self.account(path.as_ref(), bytes);
    }

    fn slot(&self, path: &str) -> Arc<OnceCell<Arc<LoadedIndex>>> {
        let mut known = self.known.lock();
        known.uses += 1;
        let used = known.uses;
        let slot =
            known.indexes.entry(path.to_owned()).or_insert_with(|| Slot { index: Arc::default(), bytes: 0, used });
        slot.used = used;
        Arc::clone(&slot.index)
    }

    /// Counts what was loaded, and lets go of what was not used for longest.
    fn account(&self, path: &str, bytes: usize) {
        let mut known = self.known.lock();
        let Some(slot) = known.indexes.get_mut(path) else { return };
        let more = bytes - std::mem::replace(&mut slot.bytes, bytes).min(bytes);
        known.bytes += more;
        while known.bytes > KEY_FILTERS_MAX.as_usize() && known.indexes.len() > 1 {
            let oldest = known.indexes.iter().min_by_key(|(_, slot)| slot.used).map(|(path, _)| path.clone());
            let Some(gone) = oldest.and_then(|path| known.indexes.remove(&path)) else { return };
            known.bytes -= gone.bytes;
        }
    }
}

impl LoadedIndex {
    fn of(object: &IndexObject) -> Self {
        let loaded =
            |filter: &Option<index::KeyFilter>| filter.as_ref().map_or(LoadedFilter::Unknown, |filter| filter.load());
        let filters = |file: &index::FileIndex| {
            (file.path.clone(), FileFilters { keys: loaded(&file.keys), traces: loaded(&file.traces) })
        };
        let files: HashMap<_, _> = object.files.iter().map(filters).collect();
        let bytes = files.values().map(|file| file.keys.bytes() + file.traces.bytes() + 256).sum();
        Self { files, bytes }
    }

    pub(super) fn may_hold(&self, path: &str, sought: Sought) -> bool {
        let Some(file) = self.files.get(path) else { return true };
        match sought {
            Sought::Key(hash) => file.keys.may_hold(hash),
            Sought::Trace(hash) => file.traces.may_hold(hash),
        }
    }
}
