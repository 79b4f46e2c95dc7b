//! One log and what of it is not in files yet: our own, or one adopted from a process that went away.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use super::Result;
use super::buffer::TenantBuffer;
use super::entry::{Origin, TableSet};
use super::log::{LogHandle, Owner};
use super::packed::PackedBatch;
use super::replay::{self, Replayed};
use super::rows::{RowSettings, TenantSettings};
use crate::base::{Clock, Reservation, TenantId, TimestampUs, WriterId};
use crate::catalog::Catalog;
use crate::catalog::erasures::Erasures;
use crate::format::log::{EncodedFrame, new_id};
use crate::model::tables::Table;
use crate::price::Prices;

/// The positions of one tenant's tables, as far as this log is concerned.
pub(super) type TablePositions = [u64; Table::ALL.len()];

#[derive(Debug)]
pub(super) struct Writer {
    id: WriterId,
    log: LogHandle,
    fenced: watch::Receiver<bool>,
    /// The sequence of our claim: everything of an earlier owner lies below.
    pub(super) claimed: u64,
    pub(super) buffers: Arc<Buffers>,
    /// The low mark last written.
    pub(super) marked: Mutex<u64>,
    /// When objects below it that were too young become old enough to go; none: there are none.
    pub(super) sweep_at_us: Mutex<Option<TimestampUs>>,
}

/// The tenants' buffers of one log.
#[derive(Debug)]
pub(super) struct Buffers {
    rows: Arc<RowSettings>,
    catalog: Catalog,
    by_tenant: RwLock<HashMap<TenantId, Arc<TenantState>>>,
}

#[derive(Debug)]
pub(super) struct TenantState {
    pub(super) buffer: TenantBuffer,
    /// Where the tables stand; `None` until the first flush looks, for tenants that were not in the replayed log.
    pub(super) positions: Mutex<Option<TablePositions>>,
    /// What the tables' commits up to here found standing is in the buffer's books: a replay put it there.
    pub(super) told: Mutex<TablePositions>,
    /// One flush of its rows at a time.
    pub(super) flushing: tokio::sync::Mutex<()>,
}

impl Writer {
    /// Claims the log of `id` and replays it.
    pub(super) async fn open(
        catalog: &Catalog,
        clock: &Arc<dyn Clock>,
        id: WriterId,
        rows: &Arc<RowSettings>,
    ) -> Result<Self> {
        let (fence, fenced) = watch::channel(false);
        let owner =
            Owner { store: catalog.store().clone(), clock: Arc::clone(clock), writer: id.clone(), owner_id: new_id() };
        let buffers = Arc::new(Buffers::new(Arc::clone(rows), catalog.clone()));
        let Replayed { claimed, marked, objects, frames, dropped } =
            replay::claim_and_replay(&owner, catalog, &buffers).await?;
        tracing::info!(writer = %id, claimed, objects, frames, dropped, "log claimed and replayed");
        let log = owner.start(claimed, move || {
            fence.send_replace(true);
        });
        Ok(Self {
            id,
            log,
            fenced,
            claimed,
            buffers,
            marked: Mutex::new(marked),
            sweep_at_us: Mutex::new(Some(TimestampUs::MIN)),
        })
    }

    /// True from the moment another process owns the log.
    pub(super) fn is_fenced(&self) -> bool {
        *self.fenced.borrow()
    }

    pub(super) fn fence(&self) -> watch::Receiver<bool> {
        self.fenced.clone()
    }

    pub(super) fn id(&self) -> &WriterId {
        &self.id
    }

    pub(super) fn log(&self) -> &LogHandle {
        &self.log
    }

    /// `batch` is stamped with the version of `prices`, and stands in `frame`.
    pub(super) async fn append(
        &self,
        tenant: &TenantId,
        frame: EncodedFrame,
        batch: PackedBatch,
        prices: Arc<Prices>,
        held: Reservation,
    ) -> Result<()> {
        let (buffers, tenant) = (Arc::clone(&self.buffers), tenant.clone());
        let apply = move |position: u64, stamp_us| {
            if buffers.is_gone(&tenant) {
                return;
            }
            let state = buffers.of(&tenant, position.saturating_sub(1));
            let origin = Origin { stamp_us, door: batch.head.door.as_str().into(), prices };
            state.buffer.apply(position, origin, batch, TableSet::ALL, Some(held));
        };
        self.log.append(Some(frame), apply).await.map(drop)
    }
}

impl Buffers {
    pub(super) fn new(rows: Arc<RowSettings>, catalog: Catalog) -> Self {
        Self { rows, catalog, by_tenant: RwLock::default() }
    }

    /// The tenant's buffer; a new one stands at `position`.
    pub(super) fn of(&self, tenant: &TenantId, position: u64) -> Arc<TenantState> {
        if let Some(state) = self.get(tenant) {
            return state;
        }
        let mut by_tenant = self.by_tenant.write();
        let state = by_tenant.entry(tenant.clone()).or_insert_with(|| {
            let settings = TenantSettings::new(&self.rows, &self.catalog, tenant);
            let buffer = TenantBuffer::new(settings, position);
            Arc::new(TenantState {
                buffer,
                positions: Mutex::new(None),
                told: Default::default(),
                flushing: Default::default(),
            })
        });
        Arc::clone(state)
    }

    pub(super) fn get(&self, tenant: &TenantId) -> Option<Arc<TenantState>> {
        self.by_tenant.read().get(tenant).cloned()
    }

    pub(super) fn erasures(&self) -> &Erasures {
        self.catalog.erasures()
    }

    /// Whether the tenant was erased: nothing is held of it.
    pub(super) fn is_gone(&self, tenant: &TenantId) -> bool {
        self.erasures().denied(tenant).is_some_and(|denied| denied.all())
    }

    /// Lets go of all that is held of a tenant.
    pub(super) fn remove(&self, tenant: &TenantId) {
        self.by_tenant.write().remove(tenant);
    }

    /// In order of their names.
    pub(super) fn all(&self) -> BTreeMap<TenantId, Arc<TenantState>> {
        self.by_tenant.read().iter().map(|(tenant, state)| (tenant.clone(), Arc::clone(state))).collect()
    }

    /// The lowest position any tenant still needs from the log.
    pub(super) fn needs_from(&self) -> Option<u64> {
        self.by_tenant.read().values().filter_map(|state| state.buffer.needs_from()).min()
    }
}
