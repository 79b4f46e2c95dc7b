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
/// On a bucket each object is a paid request: at most one per this time, unless it is full.
const BUCKET_INTERVAL: Duration = Duration::from_millis(250);

/// What one request wants in the log.
pub(super) struct Entry {
    pub(super) frame: Option<EncodedFrame>,
    /// Called when the object is durable, in the order of the log, before the waiter is told.
    pub(super) apply: Box<dyn FnOnce(u64, TimestampUs) + Send>,
    pub(super) done: oneshot::Sender<Result<u64, IngestError>>,
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
        let entry = Entry { frame, apply: Box::new(apply), done };
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
        for entry in between {
            (entry.apply)(last, owner.clock.now_us());
            let _ = entry.done.send(Ok(last));
        }
        if entries.is_empty() {
            continue;
        }
        let frames: Vec<EncodedFrame> = entries.iter().filter_map(|entry| entry.frame.clone()).collect();
        previous_put = Instant::now();
        let sequence = last + 1;
        let (stamp_us, object) = owner.object(sequence, &frames);
        match owner.store.create(&store::log_object(&owner.writer, Some(sequence)), object).await {
            Ok(Created::Ours) => {
                last = sequence;
                tell_all(entries, sequence, stamp_us);
            }
            Ok(Created::Theirs(_)) => return fenced(&owner, sequence, entries, waiting, on_fenced).await,
            Err(error) => {
                // Nothing is known about the object at `sequence`: it may be ours, or absent. The next object is put
                // at the same number; if ours is there it is another's by its bytes, so first make sure.
                tracing::warn!(writer = %owner.writer, sequence, %error, "the log could not be written");
                match settle(&owner, sequence).await {
                    Settled::Ours { stamp_us } => {
                        last = sequence;
                        tell_all(entries, sequence, stamp_us);
                    }
                    Settled::Absent => {
                        for entry in entries {
                            let _ = entry.done.send(Err(IngestError::Away(error.to_string())));
                        }
                    }
                    Settled::Theirs => return fenced(&owner, sequence, entries, waiting, on_fenced).await,
                }
            }
        }
    }
}

/// The object is durable: apply, then tell. A waiter that went away was not told; its data is there all the same.
fn tell_all(entries: Vec<Entry>, sequence: u64, stamp_us: TimestampUs) {
    for entry in entries {
        (entry.apply)(sequence, stamp_us);
        let _ = entry.done.send(Ok(sequence));
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
    let refuse = |entry: Entry| {
        let _ = entry.done.send(Err(IngestError::Fenced { writer: owner.writer.clone() }));
    };
    entries.into_iter().for_each(refuse);
    while let Some(entry) = waiting.recv().await {
        refuse(entry);
    }
    on_fenced();
}

enum Settled {
    Ours { stamp_us: TimestampUs },
    Theirs,
    Absent,
}

/// Waits until it is known what stands at `sequence` after a put with an unknown outcome. Appending goes on only then:
/// whoever was in that object must not be told "failed" if it is there, nor its number be used twice.
async fn settle(owner: &Owner, sequence: u64) -> Settled {
    let path = store::log_object(&owner.writer, Some(sequence));
    loop {
        match owner.store.get(&path).await {
            Ok(Some(body)) => match log::decode_object(&body) {
                Ok((header, _)) if header.owner_id == owner.owner_id => {
                    return Settled::Ours { stamp_us: header.stamp_us };
                }
                _ => return Settled::Theirs,
            },
            Ok(None) => return Settled::Absent,
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
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
