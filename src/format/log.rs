//! Log objects: `wal/{writer}/{sequence}`, frames of many tenants in one object.
//!
//! ```text
//! header  "TLWAL" version:u16 length:u32 crc32c:u32 ObjectHeader
//! frames  length:u32 crc32c:u32 kind:u8 flags:u8 tenant_length:u8 tenant payload      (crc over all after it)
//! footer  "TLEND" frames:u32 bytes:u64 crc32c:u32                                      (crc over the two before it)
//! ```
//! Integers are little-endian. The footer comes last: an object without one is torn, one with a wrong frame is corrupt.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};
use parking_lot::Mutex;
use prost::Message;
use uuid::Uuid;
use zstd::bulk::Compressor;

use super::{FormatError, Result};
use crate::base::{ByteSize, TenantId, TimestampUs};
use crate::model::Event;

const MAGIC: &[u8; 5] = b"TLWAL";
const END: &[u8; 5] = b"TLEND";
const VERSION: u16 = 1;
const FOOTER_BYTES: usize = 5 + 4 + 8 + 4;
const FRAME_HEAD_BYTES: usize = 4 + 4;
const WHAT: &str = "log object";

/// Payloads below this are stored as they are.
const COMPRESS_ABOVE: usize = 512;
/// Fast enough to stand before an ack: it costs less than the bytes it saves on the way to the disk or the bucket.
const ZSTD_LEVEL: i32 = 1;
/// Each takes about a megabyte.
const COMPRESSORS_KEPT: usize = 8;
/// A frame is one request: larger ones are refused at the door.
const PAYLOAD_MAX: ByteSize = ByteSize::mib(512);

const FLAG_ZSTD: u8 = 1;

/// Who wrote the object, and when by its clock: rows are placed and dated by this stamp, also at replay.
#[derive(Clone, PartialEq, Message)]
pub struct ObjectHeader {
    #[prost(string, tag = "1")]
    pub writer: String,
    #[prost(uint64, tag = "2")]
    pub sequence: u64,
    #[prost(int64, tag = "3")]
    pub stamp_us: TimestampUs,
    /// Random: by it a process knows its own object again.
    #[prost(bytes = "vec", tag = "4")]
    pub object_id: Vec<u8>,
    /// Random per process: all objects of one owner of the log share it.
    #[prost(bytes = "vec", tag = "5")]
    pub owner_id: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FrameKind {
    /// An [`EventBatch`](crate::model::EventBatch): what one request said.
    Events = 1,
    /// A [`CarryBatch`]: rows not flushed yet, written again so that the log can move on.
    Carry = 2,
    /// A [`Claim`]: from here on the log belongs to another process.
    Claim = 3,
    /// An [`EraseFrame`]: what the log says about a trace, session or user before it is dropped.
    Erase = 4,
    /// An [`EraseFrame`] too: the tenant is gone, its frames are dropped and counted.
    TenantDelete = 5,
    /// A [`CountsBatch`]: books that must survive, without events.
    Counts = 6,
}

impl FrameKind {
    fn from_number(number: u8) -> Option<Self> {
        [Self::Events, Self::Carry, Self::Claim, Self::Erase, Self::TenantDelete, Self::Counts]
            .into_iter()
            .find(|kind| *kind as u8 == number)
    }
}

/// Carried rows, grouped by where they first stood.
#[derive(Clone, PartialEq, Message)]
pub struct CarryBatch {
    #[prost(message, repeated, tag = "1")]
    pub groups: Vec<CarryGroup>,
    /// What is carried came at or before this sequence. 0: not told.
    #[prost(uint64, tag = "2")]
    pub up_to: u64,
}

#[derive(Clone, PartialEq, Message)]
pub struct CarryGroup {
    /// The stamp of the object that first held these events.
    #[prost(int64, tag = "1")]
    pub stamp_us: TimestampUs,
    #[prost(string, tag = "2")]
    pub door: String,
    #[prost(string, tag = "3")]
    pub price_book: String,
    #[prost(message, repeated, tag = "4")]
    pub events: Vec<Event>,
}

/// A new owner's claim.
#[derive(Clone, PartialEq, Message)]
pub struct Claim {
    /// The object just before this one, if it was found torn: never acked, and skipped at replay.
    #[prost(uint64, optional, tag = "1")]
    pub torn_sequence: Option<u64>,
    #[prost(string, tag = "2")]
    pub process: String,
}

/// An erasure, as far as a log must know it.
#[derive(Clone, PartialEq, Message)]
pub struct EraseFrame {
    /// Its number in `system/erasures`.
    #[prost(uint64, tag = "1")]
    pub number: u64,
    #[prost(string, tag = "2")]
    pub id: String,
    /// `trace`, `session`, `user` or `tenant`.
    #[prost(string, tag = "3")]
    pub kind: String,
    /// Traces and tenants by their ids, sessions and users by digests.
    #[prost(string, repeated, tag = "4")]
    pub subjects: Vec<String>,
    #[prost(string, tag = "5")]
    pub asked_by: String,
    #[prost(int64, tag = "6")]
    pub asked_us: TimestampUs,
    /// What was stamped before this is dropped.
    #[prost(int64, tag = "7")]
    pub until_us: TimestampUs,
    /// Hashes of the traces that go with it.
    #[prost(fixed64, repeated, tag = "8")]
    pub traces: Vec<u64>,
}

/// Books without events: a request of which nothing was accepted.
#[derive(Clone, PartialEq, Message)]
pub struct CountsBatch {
    #[prost(string, tag = "1")]
    pub door: String,
    #[prost(uint64, tag = "2")]
    pub received: u64,
    #[prost(btree_map = "string, uint64", tag = "3")]
    pub rejected: BTreeMap<String, u64>,
}

/// An encoded frame, ready to be joined with others into an object.
#[derive(Debug, Clone)]
pub struct EncodedFrame(Bytes);

impl EncodedFrame {
    pub fn new(tenant: Option<&TenantId>, kind: FrameKind, payload: &impl Message) -> Self {
        Self::of_payload(tenant, kind, &payload.encode_to_vec())
    }

    /// A frame of a payload that is encoded already.
    pub fn of_payload(tenant: Option<&TenantId>, kind: FrameKind, payload: &[u8]) -> Self {
        let compressed = (payload.len() > COMPRESS_ABOVE)
            .then(|| compress(payload).ok())
            .flatten()
            .filter(|smaller| smaller.len() < payload.len());
        let flags = if compressed.is_some() { FLAG_ZSTD } else { 0 };
        let stored = compressed.as_deref().unwrap_or(payload);
        let tenant = tenant.map_or("", |tenant| tenant.as_str());
        let mut frame = BytesMut::with_capacity(FRAME_HEAD_BYTES + 3 + tenant.len() + stored.len());
        frame.put_bytes(0, FRAME_HEAD_BYTES);
        frame.put_u8(kind as u8);
        frame.put_u8(flags);
        frame.put_u8(tenant.len() as u8);
        frame.put_slice(tenant.as_bytes());
        frame.put_slice(stored);
        let length = (frame.len() - FRAME_HEAD_BYTES) as u32;
        let crc = crc32c::crc32c(&frame[FRAME_HEAD_BYTES..]);
        frame[0..4].copy_from_slice(&length.to_le_bytes());
        frame[4..8].copy_from_slice(&crc.to_le_bytes());
        Self(frame.freeze())
    }

    pub fn bytes(&self) -> usize {
        self.0.len()
    }
}

/// With one of a few contexts that are kept: making one costs as much as compressing a small frame.
fn compress(payload: &[u8]) -> std::io::Result<Vec<u8>> {
    static KEPT: Mutex<Vec<Compressor<'static>>> = Mutex::new(Vec::new());
    let kept = KEPT.lock().pop();
    let mut compressor = kept.map_or_else(|| Compressor::new(ZSTD_LEVEL), Ok)?;
    let compressed = compressor.compress(payload);
    let mut kept = KEPT.lock();
    if kept.len() < COMPRESSORS_KEPT {
        kept.push(compressor);
    }
    compressed
}

/// One object: its header, then frames in the order they were appended.
pub fn encode_object(header: &ObjectHeader, frames: &[EncodedFrame]) -> Bytes {
    let head = header.encode_to_vec();
    let body: usize = frames.iter().map(EncodedFrame::bytes).sum();
    let mut object = BytesMut::with_capacity(MAGIC.len() + 10 + head.len() + body + FOOTER_BYTES);
    object.put_slice(MAGIC);
    object.put_u16_le(VERSION);
    object.put_u32_le(head.len() as u32);
    object.put_u32_le(crc32c::crc32c(&head));
    object.put_slice(&head);
    for frame in frames {
        object.put_slice(&frame.0);
    }
    object.put_slice(END);
    let from = object.len();
    object.put_u32_le(frames.len() as u32);
    object.put_u64_le(body as u64);
    let crc = crc32c::crc32c(&object[from..]);
    object.put_u32_le(crc);
    object.freeze()
}

/// A frame as read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// `None` for frames about the log itself.
    pub tenant: Option<TenantId>,
    pub kind: FrameKind,
    pub payload: Vec<u8>,
}

impl Frame {
    pub fn decode<M: Message + Default>(&self) -> Result<M> {
        M::decode(self.payload.as_slice()).map_err(|e| corrupt(format!("{:?} frame: {e}", self.kind)))
    }
}

/// Reads an object whole: every frame is checked, or the object is an error.
pub fn decode_object(object: &[u8]) -> Result<(ObjectHeader, Vec<Frame>)> {
    let mut rest = object;
    let (header, frames_expected, body_bytes) = {
        let magic = take(&mut rest, MAGIC.len()).ok_or_else(|| torn("no header"))?;
        if magic != MAGIC {
            return Err(corrupt("it does not begin with the magic bytes"));
        }
        let version = u16::from_le_bytes(number(&mut rest).ok_or_else(|| torn("no version"))?);
        if version > VERSION {
            return Err(FormatError::Newer { what: WHAT, found: version, known: VERSION });
        }
        let length = u32::from_le_bytes(number(&mut rest).ok_or_else(|| torn("no header length"))?) as usize;
        let crc = u32::from_le_bytes(number(&mut rest).ok_or_else(|| torn("no header checksum"))?);
        let head = take(&mut rest, length).ok_or_else(|| torn("half a header"))?;
        let footer = footer(rest)?;
        if crc32c::crc32c(head) != crc {
            return Err(corrupt("the header's checksum is wrong"));
        }
        let header = ObjectHeader::decode(head).map_err(|e| corrupt(format!("header: {e}")))?;
        (header, footer.0, footer.1)
    };
    let body = rest.len() - FOOTER_BYTES;
    if body != body_bytes {
        return Err(corrupt(format!("{body} bytes of frames where the footer says {body_bytes}")));
    }
    let mut rest = &rest[..body];
    let mut frames = Vec::with_capacity(frames_expected.min(1 << 16));
    while !rest.is_empty() {
        let at = body - rest.len();
        frames.push(
            frame(&mut rest).map_err(|detail| corrupt(format!("frame {} at byte {at}: {detail}", frames.len())))?,
        );
    }
    if frames.len() != frames_expected {
        return Err(corrupt(format!("{} frames where the footer says {frames_expected}", frames.len())));
    }
    Ok((header, frames))
}

/// `(frames, bytes of frames)` from the end of an object.
fn footer(after_header: &[u8]) -> Result<(usize, usize)> {
    let start = after_header.len().checked_sub(FOOTER_BYTES).ok_or_else(|| torn("no footer"))?;
    let mut footer = &after_header[start..];
    if take(&mut footer, END.len()) != Some(END) {
        return Err(torn("no footer"));
    }
    let said = &footer[..12];
    let frames = u32::from_le_bytes(number(&mut footer).ok_or_else(|| torn("half a footer"))?);
    let bytes = u64::from_le_bytes(number(&mut footer).ok_or_else(|| torn("half a footer"))?);
    let crc = u32::from_le_bytes(number(&mut footer).ok_or_else(|| torn("half a footer"))?);
    if crc32c::crc32c(said) != crc {
        return Err(corrupt("the footer's checksum is wrong"));
    }
    Ok((frames as usize, bytes as usize))
}

fn frame(rest: &mut &[u8]) -> Result<Frame, String> {
    let length = u32::from_le_bytes(number(rest).ok_or("half a length")?) as usize;
    let crc = u32::from_le_bytes(number(rest).ok_or("half a checksum")?);
    let mut body = take(rest, length).ok_or_else(|| format!("{length} bytes said, {} there", rest.len()))?;
    if crc32c::crc32c(body) != crc {
        return Err("the checksum is wrong".to_owned());
    }
    let [kind, flags, tenant_length] = number(&mut body).ok_or("half a frame head")?;
    let kind = FrameKind::from_number(kind).ok_or_else(|| format!("unknown kind {kind}"))?;
    let tenant = take(&mut body, tenant_length as usize).ok_or("half a tenant")?;
    let tenant = match tenant {
        [] => None,
        tenant => {
            let text = std::str::from_utf8(tenant).map_err(|e| e.to_string())?;
            Some(text.parse::<TenantId>().map_err(|e| e.to_string())?)
        }
    };
    let payload = match flags {
        0 => body.to_vec(),
        FLAG_ZSTD => {
            let size = zstd::zstd_safe::get_frame_content_size(body).ok().flatten().unwrap_or(u64::MAX);
            if size > PAYLOAD_MAX.bytes() {
                return Err(format!("a payload above {PAYLOAD_MAX}"));
            }
            zstd::bulk::decompress(body, size as usize).map_err(|e| e.to_string())?
        }
        flags => return Err(format!("unknown flags {flags:#x}")),
    };
    Ok(Frame { tenant, kind, payload })
}

/// A fresh identity for an object or a process.
pub fn new_id() -> Vec<u8> {
    Uuid::new_v4().as_bytes().to_vec()
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(length)?;
    *rest = left;
    Some(taken)
}

fn number<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    take(rest, N)?.try_into().ok()
}

fn torn(detail: impl Into<String>) -> FormatError {
    FormatError::Torn { what: WHAT, detail: detail.into() }
}

fn corrupt(detail: impl Into<String>) -> FormatError {
    FormatError::Corrupt { what: WHAT, detail: detail.into() }
}

#[cfg(test)]
mod tests;
