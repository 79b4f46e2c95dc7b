//! gRPC messages as they arrive: room first, then the bytes, inflated; handed on as plain messages.

use axum::body::Body;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use tonic::Status;

use super::super::Refusal;
use super::super::body::{Admission, Encoding, Grant, Pieces, inflate, too_large};
use super::Rooms;
use crate::base::{ByteSize, Kind};

/// One byte that says whether the message is compressed, four for its length.
const HEAD_BYTES: usize = 5;

struct Frames {
    pieces: Pieces,
    arrived: BytesMut,
    admission: Admission,
    encoding: Encoding,
    message_max: ByteSize,
    rooms: Rooms,
}

/// `body` with every message uncompressed. The room of each is put into `rooms` before the message is handed on.
pub(super) fn plain(admission: Admission, body: Body, encoding: Encoding, message_max: ByteSize, rooms: Rooms) -> Body {
    let pieces = Pieces::new(body);
    let frames = Frames { pieces, arrived: BytesMut::new(), admission, encoding, message_max, rooms };
    Body::from_stream(futures::stream::try_unfold(frames, |mut frames| async move {
        let message = frames.next().await.map_err(Status::from)?;
        Ok::<_, Status>(message.map(|message| (message, frames)))
    }))
}

impl Frames {
    async fn next(&mut self) -> Result<Option<Bytes>, Refusal> {
        while self.arrived.len() < HEAD_BYTES {
            match self.pieces.next().await? {
                Some(piece) => self.arrived.extend_from_slice(&piece),
                None if self.arrived.is_empty() => return Ok(None),
                None => return Err(ended_early()),
            }
        }
        self.pieces.message_begins();
        let is_compressed = self.arrived.get_u8() != 0;
        let length = u64::from(self.arrived.get_u32());
        if length > self.message_max.bytes() {
            return Err(too_large(self.message_max));
        }
        let mut grant = Grant::new(self.admission.clone());
        grant.grow(length).await?;
        self.arrived.reserve((length as usize).saturating_sub(self.arrived.len()));
        while (self.arrived.len() as u64) < length {
            match self.pieces.next().await? {
                Some(piece) => self.arrived.extend_from_slice(&piece),
                None => return Err(ended_early()),
            }
        }
        self.pieces.message_ends();
        let encoding = match (is_compressed, self.encoding) {
            (false, _) => Encoding::Identity,
            (true, Encoding::Identity) => {
                return Err(Refusal::new(Kind::Invalid, "a message is compressed, but grpc-encoding says it is not"));
            }
            (true, encoding) => encoding,
        };
        let sent = self.arrived.split_to(length as usize).freeze();
        let message = inflate(encoding, sent, &mut grant, self.message_max).await?;
        // The transport copies the message once more before it is decoded.
        grant.grow(message.len() as u64).await?;
        self.rooms.put(grant.finish(2 * message.len() as u64).await?);
        let mut framed = BytesMut::with_capacity(HEAD_BYTES + message.len());
        framed.put_u8(0);
        framed.put_u32(message.len() as u32);
        framed.extend_from_slice(&message);
        Ok(Some(framed.freeze()))
    }
}

fn ended_early() -> Refusal {
    Refusal::new(Kind::Invalid, "the request ended in the middle of a message")
}
