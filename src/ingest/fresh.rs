//! Fresh rows for queries: all segments of all logs this process holds, set against the files of a snapshot.

use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;

use super::Ingest;
use super::buffer::views_above;
use super::rows::{RowSettings, TenantSettings};
use super::segment::{Segment, View, Waited};
use super::tail::Followed;
use crate::base::{Budget, TenantId, WriterId};
use crate::catalog::{Catalog, CatalogError, Fresh, FreshRows, FreshTable, PinnedRows, Snapshot};
use crate::model::tables::Table;

#[derive(Debug)]
struct Pinned {
    catalog: Catalog,
    tenant: TenantId,
    by_writer: Vec<(WriterId, Vec<Arc<View>>)>,
    /// Logs of other processes, and up to where they were settled.
    followed: Vec<(Arc<Followed>, Vec<Arc<View>>, u64)>,
    budget: Budget,
    settings: Arc<RowSettings>,
    /// Views joined to one, with those they were made of: most tables of a query need the same.
    joined: Mutex<Vec<Joined>>,
}

/// Views, and the one they were made into.
type Joined = (Vec<Arc<View>>, Arc<View>);

impl FreshRows for Ingest {
    fn pin(&self, tenant: &TenantId) -> Arc<dyn PinnedRows> {
        let writers = self.shared.writers.read();
        let followed = self.shared.followed.read();
        let others = followed.iter().filter(|log| !writers.iter().any(|writer| writer.id() == log.id()));
        let followed = others.map(|log| (Arc::clone(log), log.pin(tenant), log.settled(tenant))).collect();
        let pin = |writer: &Arc<super::Writer>| {
            let state = writer.buffers.get(tenant)?;
            Some((writer.id().clone(), state.buffer.pin()))
        };
        Arc::new(Pinned {
            catalog: self.shared.catalog.clone(),
            tenant: tenant.clone(),
            by_writer: writers.iter().filter_map(pin).collect(),
            followed,
            budget: self.shared.budget.clone(),
            settings: TenantSettings::new(&self.shared.rows, &self.shared.catalog, tenant).now(),
            joined: Mutex::default(),
        })
    }
}

#[async_trait]
impl PinnedRows for Pinned {
    async fn rows(&self, table: Table, snapshot: &Arc<Snapshot>) -> Result<FreshTable, CatalogError> {
        let mut above = Vec::new();
        for (writer, views) in &self.by_writer {
            views_above(views, table, snapshot.position(writer), &self.settings, &mut above);
        }
        // Where their owners cut their books is theirs to know: those come with the flush.
        let followed = self.followed.iter().filter(|_| table != Table::Ledger);
        for (log, views, settled) in followed {
            let position = snapshot.position(log.id());
            let newer = match position > *settled {
                true => {
                    log.settle(&self.tenant, position, &self.catalog, &self.budget).await;
                    Some(log.pin(&self.tenant))
                }
                false => None,
            };
            views_above(newer.as_ref().unwrap_or(views), table, position, &self.settings, &mut above);
        }
        let fresh = match self.joined(above) {
            None => Fresh { dimensions: Arc::clone(&self.settings.keys), ..Default::default() },
            Some(view) => {
                let fresh = view.fresh(&self.catalog, &self.tenant, table, snapshot).await?;
                Fresh::clone(&fresh)
            }
        };
        self.catalog.beside_files(&self.tenant, table, snapshot, fresh).await
    }
}

impl Pinned {
    /// One view of all of these: an id that several speak of is one row.
    fn joined(&self, views: Vec<Arc<View>>) -> Option<Arc<View>> {
        if views.len() < 2 {
            return views.into_iter().next();
        }
        let same = |(of, _): &&Joined| {
            of.len() == views.len() && of.iter().zip(&views).all(|(one, other)| Arc::ptr_eq(one, other))
        };
        let mut joined = self.joined.lock();
        if let Some((_, view)) = joined.iter().find(same) {
            return Some(Arc::clone(view));
        }
        let mut segment = Segment::clone(&views[0].segment);
        views[1..].iter().for_each(|view| segment.join(&view.segment));
        let view = Arc::new(View::new(segment, Arc::clone(&self.settings), Waited::default()));
        joined.push((views, Arc::clone(&view)));
        Some(view)
    }
}
