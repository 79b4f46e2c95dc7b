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
/// On a bucket each object is a paid request: at most one per this time, unless it is full …
const BUCKET_INTERVAL: Duration = Duration::from_millis(if cfg!(test) { 5 } else { 250 });
/// … and as a rule one per this time, unless it carries [`WORTH_A_PUT`]: a trickle that never ends costs 13 USD a month at
/// S3's list prices rather than 52, for half a second more until an ack that nobody looks at.
const TRICKLE_INTERVAL: Duration = Duration::from_secs(1);
const WORTH_A_PUT: ByteSize = ByteSize::kib(256);
/// Time without puts is saved up to this, and spent by the next ones: a sender that waits for each ack is held up only
/// when it goes on for longer.
const SAVED_MAX: Duration = Duration::from_secs(120);

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
    let mut pace = (!owner.store.location().is_folder()).then(Pace::default);
    while let Some(first) = waiting.recv().await {
        // What only wants to stand between two objects stands before this one: nothing of it is applied yet.
        let between = |entry| tell_all(vec![entry], last, owner.clock.now_us());
        let entries = gather(first, &mut waiting, pace.as_ref(), between).await;
        if entries.is_empty() {
            continue;
        }
        let frames: Vec<EncodedFrame> = entries.iter().filter_map(|entry| entry.frame.clone()).collect();
        if let Some(pace) = pace.as_mut() {
            pace.put(Instant::now(), frames.iter().map(EncodedFrame::bytes).sum());
        }
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

/// When objects may be put on a bucket.
#[derive(Debug)]
struct Pace {
    previous: Option<Instant>,
    /// Time without puts, to be spent.
    saved: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { previous: None, saved: SAVED_MAX }
    }
}

impl Pace {
    fn put(&mut self, now: Instant, bytes: usize) {
        let passed = self.previous.map_or(SAVED_MAX, |previous| now - previous);
        self.saved = (self.saved + passed).min(SAVED_MAX);
        if bytes < WORTH_A_PUT.as_usize() {
            self.saved = self.saved.saturating_sub(TRICKLE_INTERVAL);
        }
        self.previous = Some(now);
    }

    /// The moment before which an object of `bytes` waits for more; `None`: it need not.
    fn not_before(&self, bytes: usize) -> Option<Instant> {
        let is_trickle = bytes < WORTH_A_PUT.as_usize() && self.saved < TRICKLE_INTERVAL;
        Some(self.previous? + if is_trickle { TRICKLE_INTERVAL } else { BUCKET_INTERVAL })
    }
}

/// All that waits now, and what comes as long as the pace allows, up to one object's size. Order is kept. What has no
/// frame waits for nothing.
async fn gather(
    first: Entry,
    waiting: &mut mpsc::Receiver<Entry>,
    pace: Option<&Pace>,
    between: impl Fn(Entry),
) -> Vec<Entry> {
    let mut next = first;
    let mut bytes = 0;
    let mut entries = Vec::new();
    loop {
        match next.frame.as_ref().map(EncodedFrame::bytes) {
            Some(more) => {
                bytes += more;
                entries.push(next);
            }
            None => between(next),
        }
        if bytes >= OBJECT_BYTES.as_usize() {
            return entries;
        }
        let not_before = pace.filter(|_| !entries.is_empty()).and_then(|pace| pace.not_before(bytes));
        next = match (waiting.try_recv(), not_before) {
            (Ok(next), _) => next,
            (Err(_), None) => return entries,
            (Err(_), Some(not_before)) => match tokio::time::timeout_at(not_before, waiting.recv()).await {
                Ok(Some(next)) => next,
                _ => return entries,
            },
        };
    }
}

/// The frame of one request.
pub(super) fn events_frame(tenant: &TenantId, payload: &[u8]) -> EncodedFrame {
    EncodedFrame::of_payload(Some(tenant), FrameKind::Events, payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Puts made within `length` by senders that always have something of `bytes` waiting.
    fn puts(pace: &mut Pace, from: Instant, length: Duration, bytes: usize) -> u32 {
        let mut now = from;
        let mut puts = 0;
        while now < from + length {
            pace.put(now, bytes);
            puts += 1;
            now = pace.not_before(bytes).expect("there was a put");
        }
        puts
    }

    #[test]
    fn a_trickle_that_goes_on_is_put_once_a_second_and_a_flood_or_a_burst_more_often() {
        let (from, hour) = (Instant::now(), Duration::from_secs(3600));
        let mut pace = Pace::default();
        assert_eq!(pace.not_before(1), None, "the first goes at once");
        let trickle = puts(&mut pace, from, hour, 1000);
        assert!((3600..3800).contains(&trickle), "{trickle}");
        let often = (hour.as_millis() / BUCKET_INTERVAL.as_millis()) as u32;
        assert_eq!(puts(&mut Pace::default(), from, hour, 300_000), often);
        let minute = Duration::from_secs(30);
        let burst = puts(&mut Pace::default(), from, minute, 1000);
        assert!(burst >= 30_000 / 250, "{burst}");
        // What was saved is spent: the pace just held up can only trickle, until there is a pause.
        assert_eq!(puts(&mut pace, from + hour, minute, 1000), 30);
        assert!(puts(&mut pace, from + hour * 2, minute, 1000) >= 30_000 / 250);
    }
}
