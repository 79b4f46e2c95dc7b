//! Reading a request's body: admitted before it is held, inflated step by step, never past a limit.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use bytes::{Bytes, BytesMut};
use flate2::bufread::MultiGzDecoder;
use futures::StreamExt;

use super::{Intake, Refusal};
use crate::base::{Budget, ByteSize, Kind, Reservation};

/// Room is asked for in steps of at least this size, so that a body in small pieces asks seldom.
const STEP_BYTES: u64 = 256 << 10;
/// Inflated between two looks at the limit; a worker thread is given up as often.
const INFLATE_BYTES: usize = 64 << 10;
/// zstd frames with a larger window (8 MiB) are refused: the window is memory that nobody admitted.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;
/// A message that has begun arrives within this time, or its room is given back.
const ARRIVAL_TIME_MAX: Duration = Duration::from_secs(60);

/// How much, and for how long, a refused sender is listened to. Nothing of it is held.
const HEAR_OUT_MAX: ByteSize = ByteSize::mib(32);
const HEAR_OUT_TIME_MAX: Duration = Duration::from_secs(2);
/// How long a question waits for room.
const QUESTION_PATIENCE: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Identity,
    Gzip,
    Zstd,
}

/// Bytes in hand, and the room they were given.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) bytes: Bytes,
    pub(super) room: Reservation,
}

/// Who gives room.
#[derive(Clone)]
pub(super) enum Admission {
    /// For what is to be kept.
    Intake(Arc<dyn Intake>),
    /// For questions, so that they are heard while the way in is full.
    Questions(Budget),
}

impl Admission {
    async fn admit(&self, bytes: u64) -> Result<Reservation, Refusal> {
        match self {
            Self::Intake(intake) => intake.admit(bytes).await.map_err(Refusal::on_the_way_in),
            Self::Questions(budget) => budget.reserve(bytes, QUESTION_PATIENCE).await.ok_or_else(|| {
                Refusal::new(Kind::Unavailable, format!("{} of {} are in use", budget.limit(), budget.name()))
            }),
        }
    }
}

/// Room for one message as it grows.
pub(super) struct Grant {
    admission: Admission,
    room: Option<Reservation>,
    used: u64,
}

impl Grant {
    pub(super) fn new(admission: Admission) -> Self {
        Self { admission, room: None, used: 0 }
    }

    /// Room for `bytes` more, before they are held.
    pub(super) async fn grow(&mut self, bytes: u64) -> Result<(), Refusal> {
        self.used += bytes;
        let has = self.room.as_ref().map_or(0, Reservation::bytes);
        if self.used > has {
            let more = self.admission.admit((self.used - has).max(STEP_BYTES)).await?;
            match &mut self.room {
                Some(room) => room.absorb(more),
                None => self.room = Some(more),
            }
        }
        Ok(())
    }

    /// The room, cut to `bytes`.
    pub(super) async fn finish(mut self, bytes: u64) -> Result<Reservation, Refusal> {
        match self.room.take() {
            Some(mut room) => {
                room.shrink_to(bytes);
                Ok(room)
            }
            None => self.admission.admit(0).await,
        }
    }
}

/// A whole HTTP body, inflated. The room it holds is that of its inflated bytes.
pub(super) async fn read(
    admission: Admission,
    pieces: &mut Pieces,
    content_length: Option<u64>,
    encoding: Encoding,
    limit: ByteSize,
) -> Result<Held, Refusal> {
    let mut grant = Grant::new(admission);
    let announced = content_length.unwrap_or(0);
    if announced > limit.bytes() {
        return Err(too_large(limit));
    }
    grant.grow(announced).await?;
    let mut granted = announced;
    let mut bytes = BytesMut::with_capacity(announced as usize);
    while let Some(piece) = pieces.next().await? {
        let length = (bytes.len() + piece.len()) as u64;
        if length > limit.bytes() {
            return Err(too_large(limit));
        }
        grant.grow(length.saturating_sub(granted)).await?;
        granted = granted.max(length);
        bytes.extend_from_slice(&piece);
    }
    let bytes = inflate(encoding, bytes.freeze(), &mut grant, limit).await?;
    let room = grant.finish(bytes.len() as u64).await?;
    Ok(Held { bytes, room })
}

/// Reads a body to its end and forgets it, so that the connection can be used again.
pub(super) async fn discard(pieces: &mut Pieces, limit: ByteSize) -> Result<(), Refusal> {
    let mut length = 0;
    while let Some(piece) = pieces.next().await? {
        length += piece.len() as u64;
        if length > limit.bytes() {
            return Err(too_large(limit));
        }
    }
    Ok(())
}

/// Lets a sender whose request is refused finish speaking, for a while: to one who still speaks when the connection is
/// closed, the refusal may never arrive, and it cannot know whether to try again.
pub(super) async fn hear_out(pieces: &mut Pieces) {
    // Whatever comes of it, the refusal is answered.
    _ = tokio::time::timeout(HEAR_OUT_TIME_MAX, discard(pieces, HEAR_OUT_MAX)).await;
}

/// What `bytes` hold, at most `limit` of it; room is asked for as it grows.
pub(super) async fn inflate(
    encoding: Encoding,
    bytes: Bytes,
    grant: &mut Grant,
    limit: ByteSize,
) -> Result<Bytes, Refusal> {
    match encoding {
        Encoding::Identity => Ok(bytes),
        Encoding::Gzip => inflate_from(MultiGzDecoder::new(bytes.as_ref()), "gzip", grant, limit).await,
        Encoding::Zstd => {
            let garbage = |e: io::Error| not_compressed("zstd", &e);
            let mut decoder = zstd::stream::read::Decoder::with_buffer(bytes.as_ref()).map_err(garbage)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(garbage)?;
            inflate_from(decoder, "zstd", grant, limit).await
        }
    }
}

async fn inflate_from(
    mut inflating: impl Read + Send,
    name: &str,
    grant: &mut Grant,
    limit: ByteSize,
) -> Result<Bytes, Refusal> {
    let mut inflated = Vec::new();
    let mut piece = vec![0; INFLATE_BYTES];
    loop {
        let length = inflating.read(&mut piece).map_err(|e| not_compressed(name, &e))?;
        if length == 0 {
            return Ok(Bytes::from(inflated));
        }
        if (inflated.len() + length) as u64 > limit.bytes() {
            return Err(too_large(limit));
        }
        // Room for what the vector will hold, which doubles; never more than the limit.
        let needed = inflated.len() + length;
        if needed > inflated.capacity() {
            let capacity = (needed * 2).max(INFLATE_BYTES).min(limit.as_usize());
            grant.grow((capacity - inflated.capacity()) as u64).await?;
            inflated.reserve_exact(capacity - inflated.len());
        }
        inflated.extend_from_slice(&piece[..length]);
        tokio::task::yield_now().await;
    }
}

/// The pieces of a body as they arrive, in time.
pub(super) struct Pieces {
    stream: BodyDataStream,
    deadline: Option<tokio::time::Instant>,
}

impl Pieces {
    pub(super) fn new(body: Body) -> Self {
        let deadline = Some(tokio::time::Instant::now() + ARRIVAL_TIME_MAX);
        Self { stream: body.into_data_stream(), deadline }
    }

    /// A stream of messages may rest between them: the time runs only inside a message.
    pub(super) fn message_begins(&mut self) {
        self.deadline = Some(tokio::time::Instant::now() + ARRIVAL_TIME_MAX);
    }
    pub(super) fn message_ends(&mut self) {
        self.deadline = None;
    }

    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Refusal> {
        let arrived = match self.deadline {
            None => self.stream.next().await,
            Some(deadline) => tokio::time::timeout_at(deadline, self.stream.next()).await.map_err(|_| {
                let message = format!("the body did not arrive within {} s", ARRIVAL_TIME_MAX.as_secs());
                Refusal::new(Kind::Unavailable, message)
            })?,
        };
        arrived.transpose().map_err(|e| Refusal::new(Kind::Invalid, format!("the body ended early: {e}")))
    }
}

pub(super) fn too_large(limit: ByteSize) -> Refusal {
    let message = format!("the request is larger than {limit}, the limit after decompression: send smaller batches");
    Refusal::new(Kind::TooLarge, message)
}

fn not_compressed(name: &str, error: &io::Error) -> Refusal {
    Refusal::new(Kind::Invalid, format!("the body is not {name}: {error}"))
}
