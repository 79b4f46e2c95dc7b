//! Texts too long to keep whole: cut where it shows, rather than refused with all that stands beside them.

use std::collections::BTreeMap;

use prost::Message;

use super::{DecodeLimits, reject};
use crate::model::{Event, EventKind, Observation, RejectReason, Rejection, TRUNCATED, TraceFacts};

/// What stands in the place of what was cut, and the count.
const NOTE_BYTES: usize = 64;
/// Of a text that is cut, so much stays at least.
const KEPT_BYTES: usize = 1024;

/// Cuts the texts of an event that is too long.
pub(super) fn event(event: &mut Event, limits: &DecodeLimits) -> Result<(), Rejection> {
    match &mut event.kind {
        Some(EventKind::Observation(said)) => observation(said, limits),
        Some(EventKind::Trace(said)) => facts(said, limits),
        Some(EventKind::Score(_)) | None => Ok(()),
    }
}

/// Cuts the longest texts until all of the observation fits [`DecodeLimits::span_bytes_max`]; refused only if it is not
/// its texts that make it too large.
fn observation(observation: &mut Observation, limits: &DecodeLimits) -> Result<(), Rejection> {
    let bytes = observation.encoded_len();
    if bytes <= limits.span_bytes_max {
        return Ok(());
    }
    let Observation { input, output, exception_stacktrace, attributes, metadata, .. } = &mut *observation;
    let single = [input.as_mut(), output.as_mut(), exception_stacktrace.as_mut()].into_iter().flatten();
    let texts: Vec<&mut String> = single.chain(attributes.values_mut()).chain(metadata.values_mut()).collect();
    let cut = longest(texts, bytes - limits.span_bytes_max);
    note(&mut observation.attributes, cut);
    match observation.encoded_len() {
        bytes if bytes > limits.span_bytes_max => Err(too_large(&observation.id, bytes, limits)),
        _ => Ok(()),
    }
}

/// As [`observation`], of what is said about a trace.
fn facts(facts: &mut TraceFacts, limits: &DecodeLimits) -> Result<(), Rejection> {
    let bytes = facts.encoded_len();
    if bytes <= limits.span_bytes_max {
        return Ok(());
    }
    let TraceFacts { input, output, attributes, metadata, .. } = &mut *facts;
    let single = [input.as_mut(), output.as_mut()].into_iter().flatten();
    let texts: Vec<&mut String> = single.chain(attributes.values_mut()).chain(metadata.values_mut()).collect();
    let cut = longest(texts, bytes - limits.span_bytes_max);
    note(&mut facts.attributes, cut);
    match facts.encoded_len() {
        bytes if bytes > limits.span_bytes_max => Err(too_large(&facts.trace_id, bytes, limits)),
        _ => Ok(()),
    }
}

fn too_large(id: &str, bytes: usize, limits: &DecodeLimits) -> Rejection {
    let message = format!("it has {bytes} bytes with its texts cut; the limit is {}", limits.span_bytes_max);
    reject(id, RejectReason::TooLarge, message)
}

fn note(attributes: &mut BTreeMap<String, String>, cut: usize) {
    if cut > 0 {
        attributes.insert(TRUNCATED.to_owned(), cut.to_string());
    }
}

/// Cuts `excess` bytes and room for notes from the longest of `texts`, and from the next longest if that is not enough.
/// Returns how many bytes are gone.
fn longest(mut texts: Vec<&mut String>, excess: usize) -> usize {
    texts.sort_unstable_by_key(|text| std::cmp::Reverse(text.len()));
    // The attribute that counts takes room, too.
    let (mut left, mut cut) = (excess + NOTE_BYTES, 0);
    for text in texts {
        if left == 0 || text.len() <= KEPT_BYTES + NOTE_BYTES {
            break;
        }
        let whole = text.len();
        let keep = whole.saturating_sub(left + NOTE_BYTES).max(KEPT_BYTES);
        text.truncate(text.floor_char_boundary(keep));
        let gone = whole - text.len();
        text.push_str(&format!("… [{gone} bytes cut]"));
        cut += gone;
        left = left.saturating_sub(gone - NOTE_BYTES);
    }
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(span_bytes_max: usize) -> DecodeLimits {
        DecodeLimits { span_bytes_max, ..DecodeLimits::default() }
    }

    #[test]
    fn the_longest_texts_are_cut_where_it_shows_and_the_others_stay() {
        let mut said = Observation {
            id: "o".into(),
            input: Some("ü".repeat(10_000)),
            output: Some("y".repeat(30_000)),
            attributes: [("small".to_owned(), "z".repeat(900))].into(),
            ..Observation::default()
        };
        observation(&mut said, &limits(100_000)).unwrap();
        assert_eq!(said.attributes.len(), 1, "it fits");
        observation(&mut said, &limits(25_000)).unwrap();
        assert!(said.encoded_len() <= 25_000);
        let (input, output) = (said.input.clone().unwrap(), said.output.clone().unwrap());
        assert!(input == "ü".repeat(10_000) && output.len() < 5_000 && output.ends_with("bytes cut]"), "{output}");
        assert_eq!(said.attributes["small"].len(), 900);
        let kept = output.bytes().take_while(|byte| *byte == b'y').count();
        assert_eq!(said.attributes[TRUNCATED], (30_000 - kept).to_string());
        observation(&mut said, &limits(4_000)).unwrap();
        assert!(said.encoded_len() <= 4_000 && said.input.unwrap().contains("ü… ["));
    }

    #[test]
    fn what_is_too_large_beside_its_texts_is_refused() {
        let mut said = Observation { id: "o".into(), name: Some("n".repeat(5_000)), ..Observation::default() };
        let refused = observation(&mut said, &limits(4_000)).unwrap_err();
        assert_eq!((refused.id.as_str(), refused.reason), ("o", RejectReason::TooLarge));
    }
}
