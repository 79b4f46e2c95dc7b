use proptest::prelude::*;

use super::*;

fn object(payloads: &[usize]) -> Bytes {
    let tenant: TenantId = "acme".parse().unwrap();
    let frames: Vec<EncodedFrame> = payloads
        .iter()
        .map(|length| {
            let counts = CountsBatch { door: "x".repeat(*length), received: 3, ..Default::default() };
            EncodedFrame::new(Some(&tenant), FrameKind::Counts, &counts)
        })
        .collect();
    encode_object(&header(), &frames)
}

fn header() -> ObjectHeader {
    ObjectHeader { writer: "main".into(), sequence: 9, stamp_us: 1, object_id: vec![7; 16], owner_id: vec![8; 16] }
}

#[test]
fn an_object_reads_back_as_it_was_written() {
    let (read, frames) = decode_object(&object(&[0, 40, 5000])).unwrap();
    assert_eq!(read, header());
    assert_eq!(frames.iter().map(|f| f.decode::<CountsBatch>().unwrap().door.len()).collect::<Vec<_>>(), [0, 40, 5000]);
    assert_eq!(frames[0].tenant.as_ref().unwrap().as_str(), "acme");
    assert!(decode_object(&object(&[])).unwrap().1.is_empty());
}

#[test]
fn a_missing_end_is_torn_and_a_changed_middle_is_corrupt() {
    let whole = object(&[40, 900]);
    for cut in 0..whole.len() {
        let error = decode_object(&whole[..cut]).unwrap_err();
        assert!(matches!(error, FormatError::Torn { .. }), "cut at {cut}: {error}");
    }
    for at in 0..whole.len() {
        let mut changed = whole.to_vec();
        changed[at] ^= 0x40;
        assert!(decode_object(&changed).is_err(), "a change at {at} goes unnoticed");
    }
}

#[test]
fn a_newer_version_is_refused_by_name() {
    let mut newer = object(&[1]).to_vec();
    newer[5] = 2;
    assert!(decode_object(&newer).unwrap_err().to_string().contains("version 2"));
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = decode_object(&bytes);
        let mut with_magic = object(&[10]).to_vec();
        with_magic.truncate(40);
        with_magic.extend(bytes);
        let _ = decode_object(&with_magic);
    }
}
