//! The writers' logs: contiguous from their low mark on, every object readable, and no table further than its log.

use std::collections::{BTreeMap, BTreeSet};

use super::finding::Place;
use super::{Result, Round};
use crate::base::{TenantId, WriterId};
use crate::catalog::Snapshot;
use crate::format::FormatError;
use crate::format::log::{self, Claim, FrameKind};
use crate::model::EventBatch;
use crate::model::tables::Table;
use crate::store;

/// What was learnt from the logs.
#[derive(Debug, Default)]
pub(super) struct Logs {
    by_writer: BTreeMap<WriterId, LogSeen>,
}

#[derive(Debug, Default)]
struct LogSeen {
    /// The first sequence that is not known to be in every table.
    mark: u64,
    /// The last sequence there is.
    end: u64,
    /// By tenant: the last object with rows, from the mark on, and the last counted one below it.
    rows_above: BTreeMap<TenantId, u64>,
    counted_below: BTreeMap<TenantId, u64>,
}

impl Logs {
    /// Whether the logs hold rows of a tenant that its ledger does not have yet: it is the last table of a flush.
    pub(super) fn wait_for(&self, tenant: &TenantId, ledger: &Snapshot) -> bool {
        let last = |(writer, seen): (_, &LogSeen)| seen.rows_above.get(tenant).map(|last| (writer, *last));
        self.by_writer.iter().filter_map(last).any(|(writer, last)| last > ledger.position(writer))
    }
}

impl Round {
    pub(super) async fn writers(&mut self) -> Result<Logs> {
        let mut logs = Logs::default();
        for name in self.store.list_folders(&store::logs()).await? {
            let Ok(writer) = name.parse::<WriterId>() else { continue };
            let seen = self.log(&writer).await?;
            logs.by_writer.insert(writer, seen);
        }
        Ok(logs)
    }

    async fn log(&mut self, writer: &WriterId) -> Result<LogSeen> {
        let place = Place::log(writer);
        let marks = self.store.list(&store::low_mark(writer, None), None).await?;
        let mark = marks.iter().filter_map(|meta| store::log_sequence(&meta.location)).max().unwrap_or(0).max(1);
        let listed = self.store.list(&store::log_object(writer, None), None).await?;
        let sequences: BTreeSet<u64> = listed.iter().filter_map(|meta| store::log_sequence(&meta.location)).collect();
        let end = sequences.last().copied().unwrap_or(0);
        let mut seen = LogSeen { mark, end, ..LogSeen::default() };
        // Objects below the mark go in any order; from it on there are no holes.
        if let Some(missing) = (mark..=end).find(|sequence| !sequences.contains(sequence)) {
            self.found.error(&place, format!("object {missing} is missing: what it held may be in no table"));
        }
        if mark > end + 1 {
            self.found.error(&place, format!("it is marked as committed below {mark} and ends at {end}"));
        }
        let mut torn = None;
        for sequence in sequences {
            let Some(body) = self.store.get(&store::log_object(writer, Some(sequence))).await? else { continue };
            self.found.seen.log_objects += 1;
            let torn_before = torn.take();
            match log::decode_object(&body) {
                Ok((header, _)) if header.sequence != sequence || header.writer != writer.as_str() => {
                    let (said, of) = (header.sequence, &header.writer);
                    self.found.error(&place, format!("object {sequence} says that it is {said} of log {of}"));
                }
                Ok((_, frames)) => {
                    let claims = frames.iter().filter(|frame| frame.kind == FrameKind::Claim);
                    let mut claims = claims.filter_map(|frame| frame.decode::<Claim>().ok());
                    if let Some(torn) = torn_before
                        && !claims.any(|claim| claim.torn_sequence == Some(torn))
                    {
                        self.found.error(&place, format!("object {torn} is torn, and {sequence} is not its claim"));
                    }
                    for frame in frames {
                        self.frame(&place, &mut seen, sequence, &frame);
                    }
                }
                Err(FormatError::Torn { .. }) if sequence >= mark => torn = Some(sequence),
                Err(error) if sequence >= mark => {
                    self.found.error(&place, format!("object {sequence} cannot be read: {error}"));
                }
                Err(error) => {
                    let what = format!("object {sequence}, which is in the tables, cannot be read: {error}");
                    self.found.note(&place, what);
                }
            }
        }
        if let Some(torn) = torn {
            let what =
                format!("its last object, {torn}, is torn: it was never acked, and the next start steps over it");
            self.found.note(&place, what);
        }
        Ok(seen)
    }

    fn frame(&mut self, place: &Place, seen: &mut LogSeen, sequence: u64, frame: &log::Frame) {
        let Some(tenant) = &frame.tenant else { return };
        if sequence >= seen.mark && matches!(frame.kind, FrameKind::Events | FrameKind::Carry) {
            seen.rows_above.insert(tenant.clone(), sequence);
        }
        if frame.kind != FrameKind::Events {
            return;
        }
        match frame.decode::<EventBatch>() {
            Ok(batch) if sequence < seen.mark && batch.received > 0 => {
                seen.counted_below.insert(tenant.clone(), sequence);
            }
            Ok(_) => {}
            Err(error) => {
                self.found.error(place, format!("a frame of object {sequence} cannot be read: {error}"));
            }
        }
    }

    /// Where a tenant's tables stand in the logs.
    pub(super) async fn positions(&mut self, tenant: &TenantId, logs: &Logs) -> Result<()> {
        for table in Table::ALL {
            // A table that cannot be loaded is told of in its turn.
            let Ok(snapshot) = self.catalog.snapshot(tenant, table).await else { continue };
            let place = Place::table(tenant, table);
            for (writer, position) in &snapshot.positions {
                let end = logs.by_writer.get(writer).map_or(0, |seen| seen.end.max(seen.mark.saturating_sub(1)));
                if *position > end {
                    let what = format!("it stands at {position} of log {writer}, which ends at {end}");
                    self.found.error(&place, what);
                }
            }
            if table != Table::Ledger {
                continue;
            }
            for (writer, seen) in &logs.by_writer {
                let (position, counted) = (snapshot.position(writer), seen.counted_below.get(tenant));
                if let Some(counted) = counted.filter(|counted| **counted > position) {
                    let mark = seen.mark;
                    let what = format!(
                        "it stands at {position} of log {writer}; object {counted} is not in it, and is marked as if it \
                         were (below {mark})"
                    );
                    self.found.error(&place, what);
                }
            }
        }
        Ok(())
    }
}
