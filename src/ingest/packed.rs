//! Events as they stand in the log: encoded once, kept as bytes, made into rows when rows are asked for.
//!
//! An observation as a struct takes ten times the memory of its encoding, most of it empty fields and map nodes. A
//! buffer of bytes holds ten times the rows in the same memory, and larger files come of it.

use std::marker::PhantomData;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};

use super::counting::{self, CountedBy, CountedTexts};
use crate::base::TimestampUs;
use crate::format::index::key_hash;
use crate::model::{Event, EventBatch, EventKind, Observation, Order, Score, TraceFacts};

/// One message, encoded. What is rarely asked for stands at its end.
#[derive(Debug)]
pub(super) struct Packed<T> {
    bytes: Bytes,
    /// Where the rarely asked for begins: an observation's texts and attributes.
    cold_from: usize,
    /// Of what a call says without its usage: its texts in tokens, once somebody counted them.
    texts: Option<Arc<OnceLock<(CountedBy, CountedTexts)>>>,
    kind: PhantomData<fn() -> T>,
}

impl<T> Clone for Packed<T> {
    fn clone(&self) -> Self {
        let texts = self.texts.clone();
        Self { bytes: self.bytes.clone(), cold_from: self.cold_from, texts, kind: PhantomData }
    }
}

impl<T: Message + Default> Packed<T> {
    /// All of it.
    pub(super) fn whole(&self) -> T {
        decode(self.bytes.clone())
    }

    /// All but what is rarely asked for.
    pub(super) fn hot(&self) -> T {
        decode(self.bytes.slice(..self.cold_from))
    }

    /// Only what is rarely asked for; ids are not in it.
    pub(super) fn cold(&self) -> T {
        decode(self.bytes.slice(self.cold_from..))
    }

    /// Lets go of the request's memory that it is a part of.
    pub(super) fn detach(&mut self) {
        self.bytes = Bytes::copy_from_slice(&self.bytes);
    }

    pub(super) fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    pub(super) fn has_cold(&self) -> bool {
        self.cold_from < self.bytes.len()
    }
}

impl Packed<Observation> {
    /// It has texts that may be counted, and nobody did yet.
    pub(super) fn is_uncounted(&self) -> bool {
        self.texts.as_ref().is_some_and(|texts| texts.get().is_none())
    }

    /// Its texts in tokens, counted once for all its copies.
    pub(super) fn texts(&self, by: CountedBy) -> CountedTexts {
        if !self.has_cold() {
            return CountedTexts::default();
        }
        let count = || by.count(&self.cold());
        match self.texts.as_ref().map(|texts| texts.get_or_init(|| (by, count()))) {
            Some((known, texts)) if *known == by => *texts,
            // It is another model's call by now.
            _ => count(),
        }
    }
}

fn decode<T: Message + Default>(bytes: Bytes) -> T {
    T::decode(bytes).expect("bytes that this room encoded")
}

/// What is asked of events all the time, without decoding them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Glance {
    /// Start of an observation; a trace's or score's timestamp.
    pub(super) start_us: Option<TimestampUs>,
    pub(super) end_us: Option<TimestampUs>,
    /// Says that it is a trace's root, or names no parent; facts: names the root.
    pub(super) is_root: bool,
    /// Of a trace's facts: some of it stands in `observation_io`.
    pub(super) has_text: bool,
    /// Of an observation: a hash of the response that it is about, whether it says what was used or what it cost, and
    /// whether it may say the sum of others.
    pub(super) response: Option<u64>,
    pub(super) reports: bool,
    pub(super) may_sum_up: bool,
    /// Of an observation: it may be a call whose tokens are counted from the texts that it says.
    pub(super) may_be_counted: bool,
}

/// A batch ready for the log and for the buffer: the events share the payload's memory.
#[derive(Debug)]
pub(super) struct PackedBatch {
    /// The encoded [`EventBatch`].
    pub(super) payload: Bytes,
    /// Everything but the events.
    pub(super) head: EventBatch,
    pub(super) events: Vec<PackedEvent>,
}

#[derive(Debug)]
pub(super) struct PackedEvent {
    pub(super) order: Order,
    pub(super) glance: Glance,
    pub(super) bytes: u64,
    pub(super) kind: PackedKind,
}

#[derive(Debug)]
pub(super) enum PackedKind {
    Observation { trace_id: Arc<str>, id: Arc<str>, packed: Packed<Observation> },
    Trace { trace_id: Arc<str>, packed: Packed<TraceFacts> },
    Score { id: Arc<str>, packed: Packed<Score> },
}

/// Encodes a batch as prost would, and remembers where in it each event lies.
pub(super) fn pack(mut batch: EventBatch) -> PackedBatch {
    // Exactly what it takes: a buffer of rows is full of these, and one that grows is copied again and again.
    let mut buffer = Vec::with_capacity(batch.encoded_len());
    let events = std::mem::take(&mut batch.events);
    batch.encode(&mut buffer).expect("a Vec grows as needed");
    let places: Vec<Place> = events.into_iter().filter_map(|event| put(event, &mut buffer)).collect();
    let payload = Bytes::from(buffer);
    let events = places.into_iter().map(|place| place.event(&payload)).collect();
    PackedBatch { payload, head: batch, events }
}

/// Where an event's message lies in the payload.
struct Place {
    order: Order,
    glance: Glance,
    from: usize,
    cold_from: usize,
    to: usize,
    key: Key,
}

enum Key {
    Observation(Arc<str>, Arc<str>),
    Trace(Arc<str>),
    Score(Arc<str>),
}

/// The tag of [`EventBatch::events`].
const EVENTS_TAG: u32 = 2;
const ORDER_TAG: u32 = 1;

fn put(event: Event, buffer: &mut Vec<u8>) -> Option<Place> {
    match event.kind? {
        EventKind::Observation(mut observation) => {
            let key = Key::Observation(observation.trace_id.as_str().into(), observation.id.as_str().into());
            // An end before the start is the start; merging says the same of rows of several events.
            if let (Some(start_ns), Some(end_ns)) = (observation.start_ns, observation.end_ns) {
                observation.end_ns = Some(end_ns.max(start_ns));
            }
            let us = |ns: Option<i64>| ns.map(|ns| ns.div_euclid(1000));
            let glance = Glance {
                start_us: us(observation.start_ns),
                end_us: us(observation.end_ns),
                is_root: observation.parent_id.is_none() || observation.root_mark == Some(true),
                has_text: false,
                response: observation.response_id.as_deref().map(|response| key_hash(&[response])),
                reports: observation.reports(),
                may_sum_up: observation.may_sum_up(),
                may_be_counted: counting::may_be_counted(&observation),
            };
            // Their tags are the highest, so that they stand last in prost's own order too.
            let cold = Observation {
                input: observation.input.take(),
                output: observation.output.take(),
                exception_stacktrace: observation.exception_stacktrace.take(),
                attributes: std::mem::take(&mut observation.attributes),
                ..Default::default()
            };
            Some(put_message(2, event.order, glance, &observation, Some(&cold), key, buffer))
        }
        EventKind::Trace(facts) => {
            let key = Key::Trace(facts.trace_id.as_str().into());
            let glance = Glance {
                start_us: facts.timestamp_us,
                is_root: facts.root_id.is_some(),
                has_text: facts.input.is_some() || facts.output.is_some() || !facts.attributes.is_empty(),
                ..Default::default()
            };
            Some(put_message(3, event.order, glance, &facts, None, key, buffer))
        }
        EventKind::Score(score) => {
            let key = Key::Score(score.id.as_str().into());
            let glance = Glance { start_us: score.timestamp_us, ..Default::default() };
            Some(put_message(4, event.order, glance, &score, None, key, buffer))
        }
    }
}

/// `events { order, kind { hot cold } }`
fn put_message<T: Message>(
    kind_tag: u32,
    order: Order,
    glance: Glance,
    hot: &T,
    cold: Option<&T>,
    key: Key,
    buffer: &mut Vec<u8>,
) -> Place {
    let hot_bytes = hot.encoded_len();
    let message_bytes = hot_bytes + cold.map_or(0, Message::encoded_len);
    let order_bytes = order.encoded_len();
    let field = |tag: u32, length: usize| key_len(tag) + encoded_len_varint(length as u64) + length;
    encode_key(EVENTS_TAG, WireType::LengthDelimited, buffer);
    encode_varint((field(ORDER_TAG, order_bytes) + field(kind_tag, message_bytes)) as u64, buffer);
    encode_key(ORDER_TAG, WireType::LengthDelimited, buffer);
    encode_varint(order_bytes as u64, buffer);
    order.encode_raw(buffer);
    encode_key(kind_tag, WireType::LengthDelimited, buffer);
    encode_varint(message_bytes as u64, buffer);
    let from = buffer.len();
    hot.encode_raw(buffer);
    let cold_from = buffer.len();
    if let Some(cold) = cold {
        cold.encode_raw(buffer);
    }
    let to = buffer.len();
    debug_assert_eq!((cold_from - from, to - from), (hot_bytes, message_bytes));
    Place { order, glance, from, cold_from, to, key }
}

impl Place {
    fn event(self, payload: &Bytes) -> PackedEvent {
        let Self { order, glance, from, cold_from, to, key } = self;
        fn packed<T>(payload: &Bytes, from: usize, cold_from: usize, to: usize) -> Packed<T> {
            Packed { bytes: payload.slice(from..to), cold_from: cold_from - from, texts: None, kind: PhantomData }
        }
        let kind = match key {
            Key::Observation(trace_id, id) => {
                let texts = (glance.may_be_counted && cold_from < to).then(Arc::default);
                let packed = Packed { texts, ..packed(payload, from, cold_from, to) };
                PackedKind::Observation { trace_id, id, packed }
            }
            Key::Trace(trace_id) => PackedKind::Trace { trace_id, packed: packed(payload, from, cold_from, to) },
            Key::Score(id) => PackedKind::Score { id, packed: packed(payload, from, cold_from, to) },
        };
        PackedEvent { order, glance, bytes: (to - from) as u64, kind }
    }
}

impl PackedEvent {
    /// The trace and id of an observation.
    pub(super) fn observation_key(&self) -> Option<(Arc<str>, Arc<str>)> {
        match &self.kind {
            PackedKind::Observation { trace_id, id, .. } => Some((Arc::clone(trace_id), Arc::clone(id))),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packed_batch_is_the_batch_as_prost_encodes_it() {
        let observation = Observation {
            trace_id: "t".into(),
            id: "o".into(),
            name: Some("llm".into()),
            start_ns: Some(5_999),
            input: Some("why?".into()),
            attributes: [("k".to_owned(), "v".to_owned())].into(),
            usage: [("input".to_owned(), 7)].into(),
            ..Default::default()
        };
        let order = Order { event_time_us: 1, is_update: true, event_id: "e".into() };
        let kinds = [
            EventKind::Observation(observation.clone()),
            EventKind::Trace(TraceFacts { trace_id: "t".into(), root_id: Some("o".into()), ..Default::default() }),
            EventKind::Score(Score { id: "s".into(), value: Some(0.5), ..Default::default() }),
        ];
        let events = kinds.map(|kind| Event { order: order.clone(), kind: Some(kind) }).to_vec();
        let batch =
            EventBatch { door: "test".into(), received: 2, price_book: "b".into(), events, ..Default::default() };
        let packed = pack(batch.clone());
        assert_eq!(EventBatch::decode(packed.payload.clone()).unwrap(), batch);
        let PackedKind::Observation { packed: first, .. } = &packed.events[0].kind else { panic!("an observation") };
        assert_eq!(first.whole(), observation);
        assert_eq!((first.hot().input, first.hot().name), (None, Some("llm".to_owned())));
        assert_eq!((first.cold().input, first.cold().name), (Some("why?".to_owned()), None));
        assert_eq!(
            packed.events[0].glance,
            Glance { start_us: Some(5), is_root: true, reports: true, ..Default::default() }
        );
    }
}
