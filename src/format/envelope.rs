//! The frame around our own small objects: `magic(5) version:u16 crc32c:u32 body`, integers little-endian.

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;

use super::{FormatError, Result};

const HEAD_BYTES: usize = 5 + 2 + 4;

/// One kind of object: its magic bytes and the newest version this tracelake knows.
pub(super) struct Envelope {
    pub(super) what: &'static str,
    pub(super) magic: &'static [u8; 5],
    pub(super) version: u16,
}

impl Envelope {
    pub(super) fn encode<M: Message>(&self, message: &M) -> Bytes {
        let body = message.encode_to_vec();
        let mut object = BytesMut::with_capacity(HEAD_BYTES + body.len());
        object.put_slice(self.magic);
        object.put_u16_le(self.version);
        object.put_u32_le(crc32c::crc32c(&body));
        object.put_slice(&body);
        object.freeze()
    }

    pub(super) fn decode<M: Message + Default>(&self, object: Bytes) -> Result<M> {
        let corrupt = |detail: &str| FormatError::Corrupt { what: self.what, detail: detail.to_owned() };
        let (head, body) = object.split_at_checked(HEAD_BYTES).ok_or_else(|| corrupt("it is too short"))?;
        if &head[..5] != self.magic {
            return Err(corrupt("it does not begin with the magic bytes"));
        }
        let version = u16::from_le_bytes([head[5], head[6]]);
        if version > self.version {
            return Err(FormatError::Newer { what: self.what, found: version, known: self.version });
        }
        if crc32c::crc32c(body).to_le_bytes() != head[7..11] {
            return Err(corrupt("the checksum is wrong"));
        }
        M::decode(object.slice(HEAD_BYTES..)).map_err(|e| corrupt(&e.to_string()))
    }
}
