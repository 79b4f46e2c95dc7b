//! Checkpoints: made from the log itself, not from memory, so that what a table says is not remembered wrong for ever.

use std::sync::Arc;

use bytes::Bytes;

use super::table::TableState;
use super::{Catalog, CatalogError, Result};
use crate::base::TenantId;
use crate::format::checkpoint::{self, LastCheckpoint};
use crate::model::tables::Table;
use crate::store;

/// A checkpoint is due after so many commits; whoever makes the last of them writes it.
pub const CHECKPOINT_EVERY: u64 = 50;

pub(super) fn is_due(version: u64) -> bool {
    (version + 1).is_multiple_of(CHECKPOINT_EVERY)
}

impl Catalog {
    /// Writes a checkpoint of the table as it stands, durable on return, and says of which version it is.
    /// `None`: the table has never been written.
    pub async fn checkpoint(&self, tenant: &TenantId, table: Table) -> Result<Option<u64>> {
        self.table(tenant, table).checkpoint().await
    }

    /// The newest checkpoint there is, as far as the hint says. One request at most.
    pub async fn checkpointed(&self, tenant: &TenantId, table: Table) -> Result<Option<u64>> {
        self.table(tenant, table).hinted_version().await
    }

    /// Writes the checkpoint that a commit made due, behind the commit's back.
    pub(super) fn checkpoint_behind(&self, state: Arc<TableState>) {
        tokio::spawn(async move {
            // Whoever holds it writes what we would.
            let Ok(_only) = state.checkpointing.try_lock() else { return };
            if let Err(error) = state.write_checkpoint().await {
                let (tenant, table) = (&state.tenant, state.table.name());
                tracing::warn!(%tenant, table, %error, "a checkpoint was not written; the next one will be");
            }
        });
    }
}

impl TableState {
    async fn checkpoint(&self) -> Result<Option<u64>> {
        let _only = self.checkpointing.lock().await;
        self.write_checkpoint().await
    }

    async fn write_checkpoint(&self) -> Result<Option<u64>> {
        let state = self.read_log().await?.state();
        let Some(version) = state.version else { return Ok(None) };
        if let Some(known) = self.verified_within(std::time::Duration::MAX)
            && known.version == Some(version)
            && !known.files.keys().eq(state.adds.keys())
        {
            return Err(self.corrupt(format!("version {version} in memory holds other files than the log says")));
        }
        let path = store::delta_checkpoint(&self.tenant, self.table.name(), version);
        let encoded = tokio::task::spawn_blocking(move || checkpoint::encode(&state)).await;
        let (body, hint) = encoded
            .map_err(|_| self.corrupt("the checkpoint was not finished".to_owned()))?
            .map_err(|source| CatalogError::Format { path: path.to_string(), source })?;
        self.store.put(&path, body).await?;
        self.point_at(&hint).await?;
        Ok(Some(version))
    }

    /// Names a checkpoint in the hint, unless a newer one is named there.
    pub(super) async fn point_at(&self, hint: &LastCheckpoint) -> Result<()> {
        if self.hinted_version().await? < Some(hint.version) {
            let body = serde_json::to_vec(hint).expect("numbers become JSON");
            let path = store::last_checkpoint(&self.tenant, self.table.name());
            self.store.put(&path, Bytes::from(body)).await?;
        }
        self.note_checkpoint(Some(hint.version));
        Ok(())
    }

    async fn hinted_version(&self) -> Result<Option<u64>> {
        let path = store::last_checkpoint(&self.tenant, self.table.name());
        let body = self.store.get(&path).await?;
        let hint = body.and_then(|body| serde_json::from_slice::<LastCheckpoint>(&body).ok());
        Ok(hint.map(|hint| hint.version))
    }

    pub(super) fn note_checkpoint(&self, version: Option<u64>) {
        let mut known = self.checkpointed.lock();
        *known = version.max(*known);
    }
}
