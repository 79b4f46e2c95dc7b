//! `_index` objects: what only we read about the files of one commit. Filters of the keys and of the traces in each file,
//! so that "have we this id already" is answered without opening a file: a false yes once in four billion.
//!
//! A flush asks hundreds of thousands of keys of dozens of files. With fingerprints of 16 bits, which objects of version 1
//! have, each flush opened some of them for nothing, and read their key columns whole.

use bytes::Bytes;
use prost::Message;
use xorf::{BinaryFuse16, BinaryFuse32, Filter};

use super::Result;
use super::envelope::Envelope;

const ENVELOPE: Envelope = Envelope { what: "index object", magic: b"TLIDX", version: 2 };

#[derive(Clone, PartialEq, Message)]
pub struct IndexObject {
    #[prost(string, tag = "1")]
    pub table: String,
    #[prost(message, repeated, tag = "2")]
    pub files: Vec<FileIndex>,
}

#[derive(Clone, PartialEq, Message)]
pub struct FileIndex {
    /// The data file, as its add action names it.
    #[prost(string, tag = "1")]
    pub path: String,
    #[prost(message, optional, tag = "2")]
    pub keys: Option<KeyFilter>,
    /// Of `observations` and their texts: the traces its rows belong to. Files of texts had none once.
    #[prost(message, optional, tag = "3")]
    pub traces: Option<KeyFilter>,
}

/// A binary fuse filter over 64-bit key hashes: about 4.5 bytes a key.
#[derive(Clone, PartialEq, Message)]
pub struct KeyFilter {
    #[prost(uint64, tag = "1")]
    pub count: u64,
    #[prost(fixed64, tag = "2")]
    seed: u64,
    #[prost(uint32, tag = "3")]
    segment_length: u32,
    #[prost(uint32, tag = "4")]
    segment_length_mask: u32,
    #[prost(uint32, tag = "5")]
    segment_count_length: u32,
    /// Little-endian.
    #[prost(bytes = "vec", tag = "6")]
    fingerprints: Vec<u8>,
    /// Of one fingerprint: 32. None: 16, as in objects of version 1.
    #[prost(uint32, optional, tag = "7")]
    fingerprint_bits: Option<u32>,
}

impl KeyFilter {
    /// A filter of these hashes, which are sorted and made unique here. `None`: the construction failed, which
    /// random hashes make practically impossible; a file without a filter may hold any key.
    pub fn of(mut hashes: Vec<u64>) -> Option<Self> {
        hashes.sort_unstable();
        hashes.dedup();
        if hashes.is_empty() {
            return Some(Self::default());
        }
        let filter = BinaryFuse32::try_from(&hashes).ok()?;
        Some(Self {
            count: hashes.len() as u64,
            seed: filter.descriptor.seed,
            segment_length: filter.descriptor.segment_length,
            segment_length_mask: filter.descriptor.segment_length_mask,
            segment_count_length: filter.descriptor.segment_count_length,
            fingerprints: filter.fingerprints.iter().flat_map(|print| print.to_le_bytes()).collect(),
            fingerprint_bits: Some(u32::BITS),
        })
    }

    /// A filter ready to be asked; keep it rather than making it again.
    pub fn load(&self) -> LoadedFilter {
        if self.count == 0 {
            return LoadedFilter::Empty;
        }
        // The library has no other way to make one than by building one.
        macro_rules! loaded {
            ($filter:ident, $print:ty) => {{
                let Ok(mut filter) = $filter::try_from(&[0u64][..]) else { return LoadedFilter::Unknown };
                filter.descriptor.seed = self.seed;
                filter.descriptor.segment_length = self.segment_length;
                filter.descriptor.segment_length_mask = self.segment_length_mask;
                filter.descriptor.segment_count_length = self.segment_count_length;
                let prints = self.fingerprints.as_chunks::<{ size_of::<$print>() }>().0;
                filter.fingerprints = prints.iter().map(|print| <$print>::from_le_bytes(*print)).collect();
                filter
            }};
        }
        match self.fingerprint_bits {
            Some(u32::BITS) => LoadedFilter::Fuse(Box::new(loaded!(BinaryFuse32, u32))),
            Some(_) => LoadedFilter::Unknown,
            None => LoadedFilter::Short(Box::new(loaded!(BinaryFuse16, u16))),
        }
    }
}

/// A key filter in memory.
#[derive(Debug)]
pub enum LoadedFilter {
    /// No key is there.
    Empty,
    /// Nothing is known: any key may be there.
    Unknown,
    Fuse(Box<BinaryFuse32>),
    /// A yes is false once in 65,000.
    Short(Box<BinaryFuse16>),
}

impl LoadedFilter {
    /// False: the key is surely not there. True: it is, or (hardly ever) it is not.
    pub fn may_hold(&self, hash: u64) -> bool {
        match self {
            Self::Empty => false,
            Self::Unknown => true,
            Self::Fuse(filter) => filter.contains(&hash),
            Self::Short(filter) => filter.contains(&hash),
        }
    }

    /// Memory it takes.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Empty | Self::Unknown => 0,
            Self::Fuse(filter) => filter.fingerprints.len() * size_of::<u32>(),
            Self::Short(filter) => filter.fingerprints.len() * size_of::<u16>(),
        }
    }
}

/// The hash of a row's key, the same for ever: SHA-256 of the parts with their lengths, cut to 64 bits.
pub fn key_hash(parts: &[&str]) -> u64 {
    use sha2::{Digest, Sha256};
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    let digest = hash.finalize();
    u64::from_le_bytes(digest[..8].try_into().expect("a SHA-256 has 32 bytes"))
}

pub fn encode(index: &IndexObject) -> Bytes {
    ENVELOPE.encode(index)
}

pub fn decode(object: Bytes) -> Result<IndexObject> {
    ENVELOPE.decode(object)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_knows_every_key_also_after_it_was_stored() {
        for count in [0usize, 1, 2, 1000] {
            let hashes: Vec<u64> = (0..count).map(|at| key_hash(&["trace", &at.to_string()])).collect();
            let keys = KeyFilter::of(hashes.clone()).unwrap();
            let index = IndexObject {
                table: "scores".into(),
                files: vec![FileIndex { path: "p".into(), keys: Some(keys), traces: None }],
            };
            let read = decode(encode(&index)).unwrap();
            assert_eq!(read, index);
            let filter = read.files[0].keys.as_ref().unwrap().load();
            assert!(hashes.iter().all(|hash| filter.may_hold(*hash)));
            let strangers = (0..2000).filter(|at| filter.may_hold(key_hash(&["other", &at.to_string()]))).count();
            assert_eq!(strangers, 0, "of 2000 strangers of {count} keys");
        }
    }

    #[test]
    fn filters_of_older_objects_are_asked_as_they_are() {
        let hashes: Vec<u64> = (0..1000).map(|at| key_hash(&["trace", &at.to_string()])).collect();
        let filter = BinaryFuse16::try_from(&hashes[..]).unwrap();
        let old = KeyFilter {
            count: 1000,
            seed: filter.descriptor.seed,
            segment_length: filter.descriptor.segment_length,
            segment_length_mask: filter.descriptor.segment_length_mask,
            segment_count_length: filter.descriptor.segment_count_length,
            fingerprints: filter.fingerprints.iter().flat_map(|print| print.to_le_bytes()).collect(),
            fingerprint_bits: None,
        };
        let filter = old.load();
        assert!(hashes.iter().all(|hash| filter.may_hold(*hash)));
        let strangers = (0..2000).filter(|at| filter.may_hold(key_hash(&["other", &at.to_string()]))).count();
        assert!(strangers <= 2, "{strangers} of 2000");
        let newer = KeyFilter { fingerprint_bits: Some(8), ..old };
        assert!(newer.load().may_hold(5), "of what is not known nothing is sure");
    }

    #[test]
    fn a_damaged_index_is_an_error() {
        let mut object = encode(&IndexObject { table: "t".into(), files: vec![] }).to_vec();
        object[12] ^= 1;
        assert!(decode(object.into()).is_err());
        assert!(decode(Bytes::from_static(b"TLIDX")).is_err());
    }

    #[test]
    fn key_hashes_are_the_same_for_ever() {
        assert_eq!(key_hash(&["a", "b"]), 0x9123_94e3_13b6_6acf);
        assert_ne!(key_hash(&["ab", ""]), key_hash(&["a", "b"]));
    }
}
