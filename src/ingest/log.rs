//! The writer's log: claim it, then append by group commit, one object for all tenants, one put in flight.
//!
//! An object is created at the next number. Ours: everyone in it is told. Somebody else's: the log has a new owner, all
//! waiters fail, and this process must stop (fenced).

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::IngestError;
use crate::base::{ByteSize, Clock, TenantId, TimestampUs, WriterId};
use crate::format::log::{self, Claim, EncodedFrame, FrameKind, ObjectHeader};
use crate::store::{self, Created, Store};

/// An object is closed when this much waits, even before its time.
const OBJECT_BYTES: ByteSize = ByteSize::mib(8);
/// Requests that wait at most; beyond it the sender of the next one waits.
const WAITING_MAX: usize = 4096;
/// How often it is looked whether an object whose put failed is there after all.
const SETTLE_EVERY: Duration = Duration::from_millis(200);
/// On a bucket each object is a paid request: at most one per this time, unless it is full.
const BUCKET_INTERVAL: Duration = Duration::from_millis(if cfg!(test) { 5 } else { 250 });

/// What one request wants in the log.
pub(super) struct Entry {
    pub(super) frame: Option<EncodedFrame>,
    /// Called when the object is durable, in the order of the log, before the waiter is told.
    pub(super) apply: Box<dyn FnOnce(u64, TimestampUs) + Send>,
    /// Until it was told.
    pub(super) done: Option<oneshot::Sender<Result<u64, IngestError>>>,
}

impl Entry {
    /// A waiter that went away is not told; what it sent is in the log all the same.
    fn tell(&mut self, outcome: Result<u64, IngestError>) {
        if let Some(done) = self.done.take() {
            let _ = done.send(outcome);
        }
    }
}

/// A handle to the task that owns the log's tail.
#[derive(Debug, Clone)]
pub(super) struct LogHandle {
    entries: mpsc::Sender<Entry>,
}

impl LogHandle {
    /// Appends a frame; on `Ok(sequence)` it is durable, applied, and at that place in the log. Without a frame:
    /// `apply` runs between two objects.
    pub(super) async fn append(
        &self,
        frame: Option<EncodedFrame>,
        apply: impl FnOnce(u64, TimestampUs) + Send + 'static,
    ) -> Result<u64, IngestError> {
        let (done, told) = oneshot::channel();
        let entry = Entry { frame, apply: Box::new(apply), done: Some(done) };
        self.entries.send(entry).await.map_err(|_| IngestError::Stopped)?;
        told.await.map_err(|_| IngestError::Stopped)?
    }
}

/// Who owns the tail of a log.
#[derive(Debug, Clone)]
pub(super) struct Owner {
    pub(super) store: Store,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) writer: WriterId,
    pub(super) owner_id: Vec<u8>,
}

impl Owner {
    fn object(&self, sequence: u64, frames: &[EncodedFrame]) -> (TimestampUs, bytes::Bytes) {
        let stamp_us = self.clock.now_us();
        let header = ObjectHeader {
            writer: self.writer.to_string(),
            sequence,
            stamp_us,
            object_id: log::new_id(),
            owner_id: self.owner_id.clone(),
        };
        (stamp_us, log::encode_object(&header, frames))
    }

    /// Whether an object of this log was written by this process.
    fn wrote(&self, object: &[u8]) -> bool {
        log::decode_object(object).is_ok_and(|(header, _)| header.owner_id == self.owner_id)
    }

    /// Tries to claim the log at `sequence`. `Some(body)`: taken; replay that object and try the next number.
    pub(super) async fn claim(
        &self,
        sequence: u64,
        torn_sequence: Option<u64>,
    ) -> Result<Option<bytes::Bytes>, IngestError> {
        let process = format!("tracelake {} pid {}", env!("CARGO_PKG_VERSION"), std::process::id());
        let claim = EncodedFrame::new(None, FrameKind::Claim, &Claim { torn_sequence, process });
        let (_, object) = self.object(sequence, &[claim]);
        match self.store.create(&store::log_object(&self.writer, Some(sequence)), object).await? {
            Created::Ours => Ok(None),
            Created::Theirs(body) => Ok(Some(body)),
        }
    }

    /// Starts the task that appends after `last`. It ends when all handles are dropped, or fenced.
    pub(super) fn start(self, last: u64, on_fenced: impl FnOnce() + Send + 'static) -> LogHandle {
        let (entries, waiting) = mpsc::channel(WAITING_MAX);
        tokio::spawn(append_all(self, last, waiting, on_fenced));
        LogHandle { entries }
    }
}

async fn append_all(
    owner: Owner,
    mut last: u64,
    mut waiting: mpsc::Receiver<Entry>,
    on_fenced: impl FnOnce() + Send + 'static,
) {
    let interval = if owner.store.location().is_folder() { Duration::ZERO } else { BUCKET_INTERVAL };
    let mut previous_put = Instant::now() - interval;
    while let Some(first) = waiting.recv().await {
        let entries = gather(first, &mut waiting, previous_put + interval).await;
        // What only wants to stand between two objects stands before this one: nothing of it is applied yet.
        let (entries, between): (Vec<Entry>, Vec<Entry>) = entries.into_iter().partition(|entry| entry.frame.is_some());
        tell_all(between, last, owner.clock.now_us());
        if entries.is_empty() {
            continue;
        }
        let frames: Vec<EncodedFrame> = entries.iter().filter_map(|entry| entry.frame.clone()).collect();
        previous_put = Instant::now();
        match put(&owner, last + 1, entries, &frames, &mut waiting).await {
            Ok(sequence) => last = sequence,
            Err(unwritten) => return fenced(&owner, last + 1, unwritten, waiting, on_fenced).await,
        }
    }
}

/// Puts one object at `sequence` or after it, applies and tells. Returns the last sequence that is ours now; an error
/// holds those not told yet, and means that the log is another's.
async fn put(
    owner: &Owner,
    mut sequence: u64,
    mut entries: Vec<Entry>,
    frames: &[EncodedFrame],
    waiting: &mut mpsc::Receiver<Entry>,
) -> Result<u64, Vec<Entry>> {
    loop {
        let (stamp_us, object) = owner.object(sequence, frames);
        let path = store::log_object(&owner.writer, Some(sequence));
        let error = match owner.store.create(&path, object.clone()).await {
            Ok(Created::Ours) => {
                tell_all(entries, sequence, stamp_us);
                return Ok(sequence);
            }
            // An earlier object of ours, given up as lost, came late: nobody was told that it is there.
            Ok(Created::Theirs(body)) if owner.wrote(&body) => {
                sequence += 1;
                continue;
            }
            Ok(Created::Theirs(_)) => return Err(entries),
            Err(error) => error,
        };
        tracing::warn!(writer = %owner.writer, sequence, %error, "the log could not be written");
        match settle(owner, sequence, &object, &mut entries, &error.to_string(), waiting).await {
            Settled::Ours => {
                tell_all(entries, sequence, stamp_us);
                return Ok(sequence);
            }
            Settled::OursBefore => sequence += 1,
            Settled::Theirs => return Err(entries),
            Settled::Absent => {
                refuse_all(entries, &error.to_string());
                return Ok(sequence - 1);
            }
        }
    }
}

/// The object is durable: apply, then tell. A waiter that went away was not told; its data is there all the same.
fn tell_all(entries: Vec<Entry>, sequence: u64, stamp_us: TimestampUs) {
    for Entry { apply, done, .. } in entries {
        apply(sequence, stamp_us);
        if let Some(done) = done {
            let _ = done.send(Ok(sequence));
        }
    }
}

async fn fenced(
    owner: &Owner,
    sequence: u64,
    entries: Vec<Entry>,
    mut waiting: mpsc::Receiver<Entry>,
    on_fenced: impl FnOnce(),
) {
    tracing::error!(writer = %owner.writer, sequence, "fenced: another process owns this log now");
    waiting.close();
    let refuse = |mut entry: Entry| entry.tell(Err(IngestError::Fenced { writer: owner.writer.clone() }));
    entries.into_iter().for_each(refuse);
    while let Some(entry) = waiting.recv().await {
        refuse(entry);
    }
    on_fenced();
}

enum Settled {
    /// Just the object that was put.
    Ours,
    /// An object of this process, but an earlier one.
    OursBefore,
    Theirs,
    Absent,
}

/// Waits until it is known what stands at `sequence` after a put with an unknown outcome: its number must not be used
/// twice, and whoever was in it must not be acked for another's bytes. Nobody waits for that longer than one look: those
/// in the object and those behind it are told that the store is away; if the object proves to be there, it is applied.
async fn settle(
    owner: &Owner,
    sequence: u64,
    object: &bytes::Bytes,
    entries: &mut [Entry],
    why: &str,
    waiting: &mut mpsc::Receiver<Entry>,
) -> Settled {
    let path = store::log_object(&owner.writer, Some(sequence));
    loop {
        match owner.store.get(&path).await {
            Ok(Some(body)) if body == *object => return Settled::Ours,
            Ok(Some(body)) if owner.wrote(&body) => return Settled::OursBefore,
            Ok(Some(_)) => return Settled::Theirs,
            Ok(None) => return Settled::Absent,
            Err(_) => {}
        }
        entries.iter_mut().for_each(|entry| entry.tell(Err(IngestError::Away(why.to_owned()))));
        let pause = tokio::time::sleep(SETTLE_EVERY);
        tokio::pin!(pause);
        loop {
            tokio::select! {
                () = &mut pause => break,
                Some(mut entry) = waiting.recv() => entry.tell(Err(IngestError::Away(why.to_owned()))),
            }
        }
    }
}

fn refuse_all(entries: Vec<Entry>, why: &str) {
    for mut entry in entries {
        entry.tell(Err(IngestError::Away(why.to_owned())));
    }
}

/// All that waits now, and on a bucket what comes until `not_before`, up to one object's size. Order is kept.
async fn gather(first: Entry, waiting: &mut mpsc::Receiver<Entry>, not_before: Instant) -> Vec<Entry> {
    let size = |entry: &Entry| entry.frame.as_ref().map_or(0, EncodedFrame::bytes);
    let mut bytes = size(&first);
    let mut entries = vec![first];
    while bytes < OBJECT_BYTES.as_usize() {
        let next = match waiting.try_recv() {
            Ok(next) => next,
            Err(_) => match tokio::time::timeout_at(not_before, waiting.recv()).await {
                Ok(Some(next)) => next,
                _ => break,
            },
        };
        bytes += size(&next);
        entries.push(next);
    }
    entries
}

/// The frame of one request.
pub(super) fn events_frame(tenant: &TenantId, payload: &[u8]) -> EncodedFrame {
    EncodedFrame::of_payload(Some(tenant), FrameKind::Events, payload)
}
