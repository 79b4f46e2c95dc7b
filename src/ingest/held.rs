//! What is in the log and in no file yet, for whoever operates the node: how much it is, and bringing it into files now.

use super::buffer::Weight;
use super::{Ingest, IngestError, Result, flush};
use crate::base::{TenantId, TimestampUs, WriterId};

/// Rows of one tenant from one log that are in no file yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    pub tenant: TenantId,
    pub writer: WriterId,
    /// Of memory.
    pub bytes: u64,
    /// When the oldest that nobody waits for came.
    pub oldest_us: Option<TimestampUs>,
    /// When the oldest that waits for more came: an open observation, a trace without its root.
    pub waiting_since_us: Option<TimestampUs>,
}

impl Ingest {
    /// By tenant, then by log. Logs that others write are not among them.
    pub fn held(&self, of: Option<&TenantId>) -> Vec<Held> {
        let mut held = Vec::new();
        for writer in self.shared.writers.read().iter() {
            for (tenant, state) in writer.buffers.all() {
                let Weight { held_bytes, oldest_us, waiting_since_us, frozen, .. } = state.buffer.weight();
                let is_asked = of.is_none_or(|of| *of == tenant);
                if is_asked && (held_bytes > 0 || frozen > 0) {
                    let writer = writer.id().clone();
                    held.push(Held { tenant, writer, bytes: held_bytes, oldest_us, waiting_since_us });
                }
            }
        }
        held.sort_by(|one, other| (&one.tenant, &one.writer).cmp(&(&other.tenant, &other.writer)));
        held
    }

    /// The logs of other live processes whose rows queries here see.
    pub fn followed(&self) -> Vec<WriterId> {
        self.shared.followed.read().iter().map(|followed| followed.id().clone()).collect()
    }

    /// Brings all that is held of `of`, or of everybody, into the tables, also what may wait for more. It goes on to its
    /// end when its caller goes away.
    pub async fn flush_now(&self, of: Option<TenantId>) -> Result<()> {
        let ingest = self.clone();
        let flushing = tokio::spawn(async move { flush::flush_of(&ingest.shared, of.as_ref(), true).await });
        flushing.await.map_err(|_| IngestError::Stopped)?
    }
}
