//! Taking a log over: find its end, replay what is in no table yet, claim the next number.
//!
//! Each table is fed only what lies above its own position, so a crash between two tables' commits neither loses nor
//! doubles. A torn object at the end was never acked: the claim after it says so, and later replays skip it.

use std::collections::BTreeMap;

use super::entry::{Origin, TableSet};
use super::log::Owner;
use super::packed::pack;
use super::writer::{Buffers, TablePositions};
use super::{IngestError, Result};
use super::{erase, standing};
use crate::base::{TenantId, WriterId};
use crate::catalog::Catalog;
use crate::catalog::erasures::Denied;
use crate::format::FormatError;
use crate::format::log::{self, CarryBatch, Claim, CountsBatch, EraseFrame, Frame, FrameKind, ObjectHeader};
use crate::model::EventBatch;
use crate::model::tables::Table;
use crate::store::{self, ObjectMeta, Store};

pub(super) struct Replayed {
    /// Our claim's sequence.
    pub(super) claimed: u64,
    /// The low mark found.
    pub(super) marked: u64,
    pub(super) objects: u64,
    pub(super) frames: u64,
    /// Of these, frames of tenants that are gone.
    pub(super) dropped: u64,
}

/// Replays the log from its low mark, and claims the number after its end.
pub(super) async fn claim_and_replay(owner: &Owner, catalog: &Catalog, buffers: &Buffers) -> Result<Replayed> {
    let (marked, listed) = open_objects(&owner.store, &owner.writer).await?;
    let sequences: Vec<u64> = listed.iter().filter_map(|meta| store::log_sequence(&meta.location)).collect();
    let mut replay = Replay { owner, catalog, buffers, positions: BTreeMap::new(), frames: 0, dropped: 0 };
    let mut objects = 0;
    let mut torn: Option<u64> = None;
    let mut next = marked.max(1);
    // Objects below the mark may be gone, in any order; from the mark on there are no holes.
    for sequence in sequences.into_iter().filter(|sequence| *sequence >= marked.max(1)) {
        if sequence != next {
            return Err(replay.corrupt(format!("object {next} is missing; the next there is {sequence}")));
        }
        let path = store::log_object(&owner.writer, Some(sequence));
        let body = owner.store.get(&path).await?;
        let body = body.ok_or_else(|| replay.corrupt(format!("object {sequence} was listed but is not there")))?;
        torn = replay.object(sequence, &body, torn).await?;
        (objects, next) = (objects + 1, sequence + 1);
    }
    loop {
        match owner.claim(next, torn).await? {
            None => break,
            Some(body) => {
                torn = replay.object(next, &body, torn).await?;
                (objects, next) = (objects + 1, next + 1);
            }
        }
    }
    Ok(Replayed { claimed: next, marked, objects, frames: replay.frames, dropped: replay.dropped })
}

/// The low mark of a log, 0 if there is none, and the objects from it on.
pub(super) async fn open_objects(objects: &Store, writer: &WriterId) -> Result<(u64, Vec<ObjectMeta>)> {
    let (marked, _) = marked(objects, writer).await?;
    let after = store::log_object(writer, Some(marked.saturating_sub(1)));
    Ok((marked, objects.list(&store::log_object(writer, None), Some(&after)).await?))
}

/// The low mark of a log, 0 if there is none, and all marks.
pub(super) async fn marked(objects: &Store, writer: &WriterId) -> Result<(u64, Vec<ObjectMeta>)> {
    let marks = objects.list(&store::low_mark(writer, None), None).await?;
    let marked = marks.iter().filter_map(|meta| store::log_sequence(&meta.location)).max().unwrap_or(0);
    Ok((marked, marks))
}

struct Replay<'a> {
    owner: &'a Owner,
    catalog: &'a Catalog,
    buffers: &'a Buffers,
    positions: BTreeMap<TenantId, TablePositions>,
    frames: u64,
    dropped: u64,
}

impl Replay<'_> {
    /// Replays one object. `torn`: the object before was torn; this one must be the claim that says so. Returns its own
    /// sequence if this object is torn.
    async fn object(&mut self, sequence: u64, body: &[u8], torn: Option<u64>) -> Result<Option<u64>> {
        let path = store::log_object(&self.owner.writer, Some(sequence)).to_string();
        let (header, frames) = match log::decode_object(body) {
            Ok(read) => read,
            Err(FormatError::Torn { .. }) if torn.is_none() => return Ok(Some(sequence)),
            Err(source) => return Err(IngestError::Format { path, source }),
        };
        if header.sequence != sequence || header.writer != self.owner.writer.as_str() {
            let reason = format!("object {sequence} says it is {} of log {}", header.sequence, header.writer);
            return Err(self.corrupt(reason));
        }
        if let Some(torn) = torn {
            let claims = frames.iter().filter(|frame| frame.kind == FrameKind::Claim);
            let mut claims = claims.filter_map(|frame| frame.decode::<Claim>().ok());
            if !claims.any(|claim| claim.torn_sequence == Some(torn)) {
                return Err(self.corrupt(format!("object {torn} is torn, and {sequence} after it is not its claim")));
            }
        }
        for frame in frames {
            self.frame(sequence, &header, frame, &path).await?;
            self.frames += 1;
        }
        Ok(None)
    }

    async fn frame(&mut self, sequence: u64, header: &ObjectHeader, frame: Frame, path: &str) -> Result<()> {
        let format = |source| IngestError::Format { path: path.to_owned(), source };
        let Some(tenant) = frame.tenant.clone() else { return Ok(()) };
        let erasures = self.catalog.erasures();
        if matches!(frame.kind, FrameKind::Erase | FrameKind::TenantDelete) {
            let said = frame.decode::<EraseFrame>().map_err(format)?;
            let erasure =
                erase::erasure_of(&tenant, said).map_err(|e| self.corrupt(format!("object {sequence}: {e}")))?;
            erasures.deny(&erasure);
        }
        let denied = erasures.denied(&tenant);
        let denied = denied.as_deref();
        if denied.is_some_and(Denied::all) {
            self.buffers.remove(&tenant);
            self.dropped += 1;
            return Ok(());
        }
        let positions = self.positions_of(&tenant).await?;
        let wanted = Table::ALL.into_iter().filter(|table| sequence > positions[*table as usize]);
        let wanted = wanted.fold(TableSet::NONE, TableSet::with);
        if wanted.is_empty() {
            return Ok(());
        }
        let state = self.buffers.of(&tenant, sequence - 1);
        *state.positions.lock() = Some(positions);
        match frame.kind {
            FrameKind::Events => {
                let batch: EventBatch = frame.decode().map_err(format)?;
                let prices = self.catalog.prices().at(&tenant, &batch.price_book).await?;
                let origin = Origin { stamp_us: header.stamp_us, door: batch.door.as_str().into(), prices };
                state.buffer.apply(sequence, origin, pack(batch), wanted, None);
            }
            FrameKind::Carry => {
                let batch: CarryBatch = frame.decode().map_err(format)?;
                let versions = batch.groups.iter().map(|group| group.price_book.as_str());
                let prices = self.catalog.prices().at_each(&tenant, versions).await?;
                state.buffer.apply_carry(sequence, (batch, prices), wanted, positions[Table::Ledger as usize]);
            }
            FrameKind::Counts if wanted.has(Table::Ledger) => {
                let counts: CountsBatch = frame.decode().map_err(format)?;
                state.buffer.apply_counts(sequence, header.stamp_us, counts);
            }
            FrameKind::Counts | FrameKind::Claim => {}
            FrameKind::Erase => {
                denied.map(|denied| state.buffer.erase(sequence, denied));
            }
            // Its tenant's frames are all dropped.
            FrameKind::TenantDelete => {}
        }
        Ok(())
    }

    async fn positions_of(&mut self, tenant: &TenantId) -> Result<TablePositions> {
        if let Some(positions) = self.positions.get(tenant) {
            return Ok(*positions);
        }
        let writer = &self.owner.writer;
        let mut positions = TablePositions::default();
        for table in Table::ALL {
            positions[table as usize] = self.catalog.snapshot(tenant, table).await?.position(writer);
        }
        // A crash before the ledger's commit: what the tables' commits found standing must not count as stored.
        let counted = positions[Table::Ledger as usize];
        for table in [Table::Observations, Table::Scores] {
            for appended in self.catalog.merged_above(tenant, table, writer, counted).await? {
                let state = self.buffers.of(tenant, counted);
                state.buffer.count_merged(appended.to, &standing::merged_counts_of(&appended.merged));
                let told = &mut state.told.lock()[table as usize];
                *told = (*told).max(appended.to);
            }
        }
        self.positions.insert(tenant.clone(), positions);
        Ok(positions)
    }

    fn corrupt(&self, reason: String) -> IngestError {
        IngestError::Corrupt { writer: self.owner.writer.clone(), reason }
    }
}
