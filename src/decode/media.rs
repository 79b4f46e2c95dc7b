//! Images, sounds and documents that stand as base64 in texts: taken out, with the reference in their place that
//! Langfuse's own clients leave there, so that whoever reads resolves both alike.
//!
//! Known are data URIs (`data:image/png;base64,…`), in any text, and strings of JSON beside a media type: Anthropic's
//! `{"type": "base64", "media_type", "data"}`, Google's `{"mimeType", "data"}`, OpenTelemetry's `{"type": "blob",
//! "mime_type", "content"}` and OpenAI's `{"data", "format": "wav"}`. What is short, or no base64, stays as it is.

use std::collections::BTreeSet;
use std::ops::Range;

use base64::Engine;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::DecodeLimits;
use crate::model::{Event, EventKind, MEDIUM_IN_TEXT, media_id};

/// Shorter ones are cheaper in their text than as an object of their own.
const LETTERS_MIN: usize = 4 << 10;
/// Different ones of one request: each is an object of its own, and what comes above stays in its text.
const MEDIA_MAX: usize = 100;
/// And how often they may stand in it.
const MENTIONS_MAX: usize = 1_000;
/// How far from its base64 a media type is looked for.
const NEAR_BYTES: usize = 400;
const MARK: &str = ";base64,";
const TYPE_KEYS: [&str; 5] = ["media_type", "mime_type", "mimeType", "mediaType", "format"];
const DATA_KEYS: [&str; 4] = ["data", "content", "base64", "bytes"];
const SOUNDS: [&str; 6] = ["wav", "mp3", "flac", "opus", "ogg", "pcm16"];

const CONFIG: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_padding_mode(DecodePaddingMode::Indifferent)
    .with_decode_allow_trailing_bits(true);
const PLAIN: GeneralPurpose = GeneralPurpose::new(&STANDARD, CONFIG);
const URL: GeneralPurpose = GeneralPurpose::new(&URL_SAFE, CONFIG);

/// Bytes that stood in a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InlineMedium {
    pub trace_id: String,
    pub observation_id: Option<String>,
    /// `input`, `output` or `metadata`.
    pub field: &'static str,
    /// A media type without parameters, in small letters.
    pub content_type: String,
    pub sha256: [u8; 32],
    pub body: Bytes,
}

/// Takes all media out of an event's texts.
pub(super) fn take_out(event: &mut Event, limits: &DecodeLimits, media: &mut Vec<InlineMedium>) {
    if !limits.takes_media {
        return;
    }
    match &mut event.kind {
        Some(EventKind::Observation(said)) => {
            let (trace, id) = (said.trace_id.as_str(), Some(said.id.as_str()));
            let texts = [("input", &mut said.input), ("output", &mut said.output)];
            texts.into_iter().for_each(|(field, text)| of_text(text.as_mut(), trace, id, field, media));
            let more = said.attributes.values_mut().chain(said.metadata.values_mut());
            more.for_each(|text| of_text(Some(text), trace, id, "metadata", media));
        }
        Some(EventKind::Trace(said)) => {
            let trace = said.trace_id.as_str();
            let texts = [("input", &mut said.input), ("output", &mut said.output)];
            texts.into_iter().for_each(|(field, text)| of_text(text.as_mut(), trace, None, field, media));
            let more = said.attributes.values_mut().chain(said.metadata.values_mut());
            more.for_each(|text| of_text(Some(text), trace, None, "metadata", media));
        }
        Some(EventKind::Score(_)) | None => {}
    }
}

fn of_text(
    text: Option<&mut String>,
    trace_id: &str,
    observation_id: Option<&str>,
    field: &'static str,
    media: &mut Vec<InlineMedium>,
) {
    let Some(text) = text.filter(|text| may_hold(text)) else { return };
    let (mut out, mut copied) = (String::new(), 0);
    let mut found = uris(text);
    found.extend(blobs(text));
    found.sort_by_key(|found| found.range.start);
    for Found { range, content_type, letters } in found {
        let has_room = range.start >= copied && media.len() < MENTIONS_MAX;
        let Some(body) = has_room.then(|| decoded(&text[letters])).flatten() else { continue };
        let sha256: [u8; 32] = Sha256::digest(&body).into();
        // The same picture, again and again: one body.
        let known = media.iter().find(|known| known.sha256 == sha256).map(|known| known.body.clone());
        let body = match known {
            Some(body) => body,
            None if different(media) < MEDIA_MAX => Bytes::from(body),
            None => continue,
        };
        out.push_str(&text[copied..range.start]);
        out.push_str(&reference(&content_type, &sha256));
        copied = range.end;
        let (trace_id, observation_id) = (trace_id.to_owned(), observation_id.map(str::to_owned));
        media.push(InlineMedium { trace_id, observation_id, field, content_type, sha256, body });
    }
    if copied > 0 {
        out.push_str(&text[copied..]);
        *text = out;
    }
}

/// Whether there are letters of base64 enough in a row. Of any such row every so many bytes one is looked at, and of texts
/// without one hardly any other.
fn may_hold(text: &str) -> bool {
    const STEP: usize = LETTERS_MIN / 2;
    let bytes = text.as_bytes();
    let is_letter = |byte: &&u8| byte.is_ascii_alphanumeric() || b"+/=-_\\".contains(byte);
    let count = |bytes: &mut dyn Iterator<Item = &u8>| bytes.take(LETTERS_MIN).take_while(is_letter).count();
    let in_a_row = |at: usize| count(&mut bytes[..at].iter().rev()) + count(&mut bytes[at..].iter());
    (STEP..bytes.len()).step_by(STEP).any(|at| is_letter(&&bytes[at]) && in_a_row(at) >= LETTERS_MIN)
}

fn different(media: &[InlineMedium]) -> usize {
    media.iter().map(|medium| medium.sha256).collect::<BTreeSet<_>>().len()
}

/// Base64 in a text: what the reference takes the place of, and the letters.
struct Found {
    range: Range<usize>,
    content_type: String,
    letters: Range<usize>,
}

fn uris(text: &str) -> Vec<Found> {
    let marks = text.match_indices(MARK).filter_map(|(mark, _)| {
        let near = text.floor_char_boundary(mark.saturating_sub(NEAR_BYTES));
        let start = near + text[near..mark].rfind("data:")?;
        // Nothing else stands between the two: a URI before it may be another's.
        if !text[start..mark].bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/+.-_;=:\\".contains(&byte)) {
            return None;
        }
        let content_type = text[start + "data:".len()..mark].split(';').next()?;
        let content_type = media_type(&content_type.replace("\\/", "/"))?;
        let letters = mark + MARK.len()..end_of_letters(text, mark + MARK.len());
        (letters.len() >= LETTERS_MIN).then_some(Found { range: start..letters.end, content_type, letters })
    });
    marks.collect()
}

fn blobs(text: &str) -> Vec<Found> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(quote) = text[at..].find('"').map(|quote| at + quote) {
        at = quote + 1;
        // Most strings are over, or hold a space, within some letters.
        let end = end_of_letters(text, at);
        if end - at < LETTERS_MIN {
            at = at.max(text.floor_char_boundary(end));
            continue;
        }
        let near = text.floor_char_boundary(quote.saturating_sub(NEAR_BYTES));
        let (before, after) =
            (&text[near..quote], &text[end..text.floor_char_boundary((end + NEAR_BYTES).min(text.len()))]);
        let is_data = before
            .trim_end()
            .strip_suffix(':')
            .is_some_and(|before| DATA_KEYS.iter().any(|key| before.trim_end().ends_with(&format!("\"{key}\""))));
        let kind = || value_near(before, true).or_else(|| value_near(after, false));
        if let (true, true, Some(content_type)) = (is_data, after.starts_with('"'), kind()) {
            found.push(Found { range: at..end, content_type, letters: at..end });
        }
        at = end;
    }
    found
}

/// The media type that stands next to base64 within the same object: nearest its end (`from_end`), or its beginning.
fn value_near(text: &str, from_end: bool) -> Option<String> {
    // Of a neighbour in the list nothing is meant.
    let text = match from_end {
        true => text.rfind('}').map_or(text, |closed| &text[closed..]),
        false => text.find('}').map_or(text, |closes| &text[..closes]),
    };
    TYPE_KEYS.iter().find_map(|key| {
        let rest = &text[text.find(&format!("\"{key}\""))? + key.len() + 2..];
        let value = rest.trim_start().strip_prefix(':')?.trim_start().strip_prefix('"')?;
        let value = &value[..value.find('"')?];
        match *key {
            "format" => SOUNDS.contains(&value).then(|| format!("audio/{value}")),
            _ => media_type(&value.replace("\\/", "/")),
        }
    })
}

/// Without parameters, if it is one.
fn media_type(text: &str) -> Option<String> {
    let (kind, of) = text.split_once('/')?;
    let is_name = |name: &str| {
        (1..=80).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".+-".contains(&byte))
    };
    (is_name(kind) && is_name(of)).then(|| text.to_ascii_lowercase())
}

fn end_of_letters(text: &str, from: usize) -> usize {
    let bytes = text.as_bytes();
    let mut at = from;
    loop {
        match bytes.get(at) {
            Some(byte) if byte.is_ascii_alphanumeric() || b"+/=-_".contains(byte) => at += 1,
            // As some write a slash in JSON.
            Some(b'\\') if bytes.get(at + 1) == Some(&b'/') => at += 2,
            _ => return at,
        }
    }
}

fn decoded(letters: &str) -> Option<Vec<u8>> {
    let plain = if letters.contains('\\') { letters.replace('\\', "") } else { letters.to_owned() };
    PLAIN.decode(&plain).or_else(|_| URL.decode(&plain)).ok()
}

fn reference(content_type: &str, sha256: &[u8; 32]) -> String {
    format!("{MEDIUM_IN_TEXT}type={content_type}|id={}|source=base64_data_uri@@@", media_id(sha256))
}

#[cfg(test)]
mod tests {
    use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};

    use super::*;

    /// The text without its media, and their types and sizes.
    fn taken(text: &str) -> (String, Vec<(String, usize)>) {
        let (mut text, mut media) = (text.to_owned(), Vec::new());
        of_text(Some(&mut text), "t", Some("o"), "input", &mut media);
        let shown = media.iter().map(|medium| (medium.content_type.clone(), medium.body.len()));
        let id = |medium: &InlineMedium| BASE64_URL_SAFE_NO_PAD.encode(medium.sha256)[..22].to_owned();
        (media.iter().fold(text, |text, medium| text.replace(&id(medium), "ID")), shown.collect())
    }

    fn letters(bytes: usize) -> String {
        BASE64_STANDARD.encode((0..bytes).map(|at| (at * 7 + at / 256) as u8).collect::<Vec<_>>())
    }

    #[test]
    fn each_way_of_writing_it_leaves_a_reference() {
        let (data, url) = (letters(4_000), letters(4_000).replace('+', "-").replace('/', "_"));
        let png = "@@@langfuseMedia:type=image/png|id=ID|source=base64_data_uri@@@";
        let wav = "@@@langfuseMedia:type=audio/wav|id=ID|source=base64_data_uri@@@";
        for (text, left, kinds) in [
            (format!("see data:image/png;base64,{data} here"), format!("see {png} here"), vec!["image/png"]),
            (format!("data:image/PNG;name=a;base64,{url}"), png.to_owned(), vec!["image/png"]),
            (
                format!(r#"[{{"url":"data:image\/png;base64,{}"}}]"#, data.replace('/', "\\/")),
                format!(r#"[{{"url":"{png}"}}]"#),
                vec!["image/png"],
            ),
            (
                format!(r#"{{"type":"base64","media_type":"image/png","data":"{data}"}}"#),
                format!(r#"{{"type":"base64","media_type":"image/png","data":"{png}"}}"#),
                vec!["image/png"],
            ),
            (
                format!(r#"{{"content": "{data}", "mime_type" : "image/png"}}"#),
                format!(r#"{{"content": "{png}", "mime_type" : "image/png"}}"#),
                vec!["image/png"],
            ),
            (
                format!(r#"[{{"data":"{data}","format":"wav"}},{{"mimeType":"image/png","data":"{data}"}}]"#),
                format!(r#"[{{"data":"{wav}","format":"wav"}},{{"mimeType":"image/png","data":"{png}"}}]"#),
                vec!["audio/wav", "image/png"],
            ),
        ] {
            let (found, media) = taken(&text);
            assert_eq!(found, left);
            assert_eq!(media, kinds.into_iter().map(|kind| (kind.to_owned(), 4_000)).collect::<Vec<_>>());
        }
    }

    #[test]
    fn what_is_short_or_something_else_stays() {
        let data = letters(4_000);
        for text in [
            format!("data:image/png;base64,{}", letters(1_000)),
            format!("data:;base64,{data}"),
            format!("data:image/png;base64,{data}A"),
            format!(";base64,{data}"),
            format!(r#"{{"data":"{data}"}}"#),
            format!(r#"{{"notes":"{data}","mime_type":"image/png"}}"#),
            format!(r#"[{{"mime_type":"image/png"}},{{"data":"{data}"}}]"#),
            format!(r#"{{"data":"{data} ","mime_type":"image/png"}}"#),
            format!(r#"{{"data":"{data}","format":"json"}}"#),
            format!(r#"{{"a":["data:image/png;base64,x"],"b":";base64,{data}"}}"#),
            "ü\"".repeat(10_000),
            "\"".repeat(10_000),
            format!("data:{}", ";base64,".repeat(2_000)),
        ] {
            assert_eq!(taken(&text), (text.clone(), Vec::new()));
        }
    }

    #[test]
    fn of_one_request_no_more_than_so_many() {
        let one = |bytes: usize| format!("data:image/png;base64,{} ", letters(bytes));
        let many: String = (0..MEDIA_MAX + 5).map(|more| one(4_000 + more)).collect();
        let (left, media) = taken(&many);
        assert_eq!(media.len(), MEDIA_MAX);
        assert_eq!(left.matches(";base64,").count(), 5);
        let (left, media) = taken(&one(4_000).repeat(MEDIA_MAX + 5));
        assert_eq!(
            (left.contains(";base64,"), media.len()),
            (false, MEDIA_MAX + 5),
            "the same again costs nothing more"
        );
    }
}
