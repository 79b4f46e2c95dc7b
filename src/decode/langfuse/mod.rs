//! Langfuse's classic batch, `{"batch": [{id, timestamp, type, body}]}`, and its single posts.
//!
//! Each event is decoded by itself: one that cannot be read is refused with its reason and its neighbours are kept.
//! What is said to be null is cleared, what is absent is left alone; which of both holds of a field stands at the field.

mod fields;
mod observation;
mod score;
mod trace;

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::digest::digest;
use super::fit::fit;
use super::trace::AboutTrace;
use super::{DecodeError, DecodeLimits, Decoded, reject};
use crate::base::TimestampUs;
use crate::model::{Event, EventBatch, Order, RejectReason, Rejection};
use fields::{Fields, Invalid, Said};

/// Ids of events may have as many characters.
const EVENT_ID_CHARS_MAX: usize = 800;
const SOURCE: &str = "langfuse-batch";

/// The client, as far as the request's headers tell.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sdk {
    pub name: Option<String>,
    pub version: Option<String>,
}

/// A request of Langfuse's own, decoded. [`Rejection::id`] of what was refused is the event's id.
#[derive(Debug, Clone, Default)]
pub struct LangfuseBatch {
    pub decoded: Decoded,
    /// What became of each event, in the order they came.
    pub answers: Vec<EventAnswer>,
    /// Event ids of scores whose data type was not said but follows from their value.
    pub implied_types: BTreeSet<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventAnswer {
    pub event_id: String,
    /// The trace, observation or score that it is about; empty where that could not be read.
    pub about: String,
    /// Why it was refused.
    pub refused: Option<(RejectReason, String)>,
}

/// Decodes the body of `POST /api/public/ingestion`.
pub fn langfuse_batch(body: &[u8], sdk: &Sdk, limits: &DecodeLimits) -> Result<LangfuseBatch, DecodeError> {
    #[derive(Deserialize)]
    struct Envelope<'a> {
        #[serde(borrow)]
        batch: Vec<&'a RawValue>,
        #[serde(borrow)]
        metadata: Option<&'a RawValue>,
    }
    let envelope: Envelope<'_> = serde_json::from_slice(body).map_err(DecodeError::Batch)?;
    let said = envelope.metadata.and_then(|raw| Fields::read(raw).ok()).unwrap_or_default();
    let sdk = Sdk {
        name: said.peek_text("sdk_name").or_else(|| sdk.name.clone()),
        version: said.peek_text("sdk_version").or_else(|| sdk.version.clone()),
    };
    let mut reading = Reading::new(&sdk, limits);
    envelope.batch.into_iter().for_each(|raw| reading.event(raw));
    Ok(reading.finish())
}

/// When bodies without envelopes came, and an id for the first of them that has none; the others' ids follow from it.
#[derive(Debug, Clone, Copy)]
pub struct Posted<'a> {
    pub at_us: TimestampUs,
    pub new_id: &'a str,
}

/// Decodes the body of one of the single posts, as the event of `kind` that it would be in a batch.
pub fn langfuse_post(
    kind: &str,
    body: &[u8],
    posted: Posted<'_>,
    sdk: &Sdk,
    limits: &DecodeLimits,
) -> Result<LangfuseBatch, DecodeError> {
    let body: &RawValue = serde_json::from_slice(body).map_err(DecodeError::Post)?;
    let mut reading = Reading::new(sdk, limits);
    reading.said(kind, body, posted);
    Ok(reading.finish())
}

/// Decodes the body of `POST /api/public/scores`: one score, or a list of them. Whether it was a list.
pub fn langfuse_scores(
    body: &[u8],
    posted: Posted<'_>,
    sdk: &Sdk,
    limits: &DecodeLimits,
) -> Result<(LangfuseBatch, bool), DecodeError> {
    let body: &RawValue = serde_json::from_slice(body).map_err(DecodeError::Post)?;
    let mut reading = Reading::new(sdk, limits);
    let is_list = body.get().trim_start().starts_with('[');
    let scores = match is_list {
        true => serde_json::from_str::<Vec<&RawValue>>(body.get()).map_err(DecodeError::Post)?,
        false => vec![body],
    };
    for (at, score) in scores.into_iter().enumerate() {
        let new_id = match at {
            0 => posted.new_id.to_owned(),
            _ => format!("{}-{at}", posted.new_id),
        };
        reading.said("score-create", score, Posted { new_id: &new_id, ..posted });
    }
    Ok((reading.finish(), is_list))
}

/// What an event's body is read with.
struct Context<'a> {
    event_id: &'a str,
    /// For what is created without an id.
    new_id: &'a str,
    event_us: TimestampUs,
    sdk: &'a Sdk,
    limits: &'a DecodeLimits,
}

impl Context<'_> {
    fn order(&self, is_update: bool) -> Order {
        Order { event_time_us: self.event_us, is_update, event_id: self.event_id.to_owned() }
    }
}

/// What an event became.
enum Read {
    Observation {
        event: Event,
        about: AboutTrace,
    },
    Trace(Event),
    Score {
        event: Event,
        is_type_implied: bool,
    },
    /// It is for a server's operator, or about nothing that is kept.
    Nothing,
}

struct Reading<'a> {
    sdk: &'a Sdk,
    limits: &'a DecodeLimits,
    observations: Vec<Event>,
    about_traces: Vec<AboutTrace>,
    others: Vec<Event>,
    scores: u64,
    batch: LangfuseBatch,
}

impl<'a> Reading<'a> {
    fn new(sdk: &'a Sdk, limits: &'a DecodeLimits) -> Self {
        let (observations, about_traces, others) = Default::default();
        Self { sdk, limits, observations, about_traces, others, scores: 0, batch: LangfuseBatch::default() }
    }

    /// An event in its envelope.
    fn event(&mut self, raw: &RawValue) {
        let (mut event_id, mut about) = (String::new(), String::new());
        let read = self.enveloped(raw, &mut event_id, &mut about);
        self.take_in(event_id, about, read);
    }

    fn enveloped(&mut self, raw: &RawValue, event_id: &mut String, about: &mut String) -> Result<Read, Invalid> {
        let mut envelope = Fields::read(raw)?;
        let id = envelope.text("id")?.value().unwrap_or_default();
        *event_id = id.chars().take(EVENT_ID_CHARS_MAX).collect();
        if id.is_empty() {
            return Err(Invalid(RejectReason::MissingId, "an event needs an id".to_owned()));
        }
        if id.len() != event_id.len() || id.contains('\r') {
            let message = format!("an event's id has 1 to {EVENT_ID_CHARS_MAX} characters and no line breaks");
            return Err(Invalid(RejectReason::InvalidId, message));
        }
        let missing = |what: &str| Invalid(RejectReason::Malformed, format!("an event needs a {what}"));
        let event_us = envelope.time_ns("timestamp")?.value().ok_or_else(|| missing("timestamp"))?.div_euclid(1000);
        let kind = envelope.text("type")?.value().ok_or_else(|| missing("type"))?;
        let body = envelope.raw("body").ok_or_else(|| missing("body"))?;
        let context = Context { event_id, new_id: event_id, event_us, sdk: self.sdk, limits: self.limits };
        let read = read(&kind, body, &context, about)?;
        self.fitting(read, body)
    }

    /// A body without an envelope: its id is a digest, so that the same said again is the same event.
    fn said(&mut self, kind: &str, body: &RawValue, posted: Posted<'_>) {
        let event_id = digest(body.get().as_bytes());
        let mut about = String::new();
        let Posted { at_us: event_us, new_id } = posted;
        let context = Context { event_id: &event_id, new_id, event_us, sdk: self.sdk, limits: self.limits };
        let read = read(kind, body, &context, &mut about).and_then(|read| self.fitting(read, body));
        self.take_in(event_id, about, read);
    }

    fn take_in(&mut self, event_id: String, about: String, read: Result<Read, Invalid>) {
        let mut refused = None;
        match read {
            Ok(Read::Observation { event, about }) => {
                self.observations.push(event);
                self.about_traces.push(about);
            }
            Ok(Read::Trace(event)) => self.others.push(event),
            Ok(Read::Score { event, is_type_implied }) => {
                self.others.push(event);
                self.scores += 1;
                if is_type_implied {
                    self.batch.implied_types.insert(event_id.clone());
                }
            }
            Ok(Read::Nothing) => {}
            Err(Invalid(reason, message)) => {
                self.batch.decoded.rejections.push(reject(event_id.clone(), reason, message.clone()));
                refused = Some((reason, message));
            }
        }
        self.batch.answers.push(EventAnswer { event_id, about, refused });
    }

    /// What a body became, without the media in its texts, and with those texts cut that are too long.
    fn fitting(&mut self, mut read: Read, body: &RawValue) -> Result<Read, Invalid> {
        let (bytes, limits) = (body.get().len(), self.limits);
        match &mut read {
            Read::Observation { event, .. } | Read::Trace(event) => {
                let media = &mut self.batch.decoded.media;
                fit(event, bytes > limits.span_bytes_max, limits, media).map_err(observation::invalid)?;
            }
            Read::Score { .. } if bytes > limits.span_bytes_max => {
                let message = format!("it has {bytes} bytes; the limit is {}", limits.span_bytes_max);
                return Err(Invalid(RejectReason::TooLarge, message));
            }
            Read::Score { .. } | Read::Nothing => {}
        }
        Ok(read)
    }

    fn finish(mut self) -> LangfuseBatch {
        let Decoded { batch, items, rejections, .. } = &mut self.batch.decoded;
        // Facts about a trace are no row of their own in the books: only those refused are counted.
        *items = self.observations.len() as u64 + self.scores + rejections.len() as u64;
        let roots = trace::roots(&self.observations, &self.about_traces);
        let events = [self.observations, roots, self.others].concat();
        *batch = EventBatch { events, received: *items, ..EventBatch::default() };
        batch.count_rejections(rejections);
        self.batch
    }
}

/// Reads a body by the event's type; `about` becomes the id of what it is about.
fn read(kind: &str, body: &RawValue, context: &Context<'_>, about: &mut String) -> Result<Read, Invalid> {
    if kind == "sdk-log" {
        tracing::debug!(log = body.get().chars().take(1_000).collect::<String>(), "a client's own log");
        return Ok(Read::Nothing);
    }
    let mut fields = Fields::read(body)?;
    match kind {
        "trace-create" => trace::read(fields, context, about).map(Read::Trace),
        "score-create" => score::read(fields, context, about),
        _ => match observation::kind(kind, &mut fields)? {
            Some(kind) => observation::read(kind, fields, context, about),
            None => {
                let shown: String = kind.chars().take(80).collect();
                Err(Invalid(RejectReason::Malformed, format!("{shown:?} is no type of event")))
            }
        },
    }
}

/// Metadata: an object's pairs; anything else under one key.
fn metadata(said: Said<&RawValue>) -> Vec<(String, String)> {
    match said.value() {
        None => Vec::new(),
        Some(raw) => fields::pairs(raw).unwrap_or_else(|| vec![("metadata".to_owned(), fields::plain(raw))]),
    }
}

/// The rejection of an event that a rule outside of this room refuses.
pub fn refuse(batch: &mut LangfuseBatch, event_id: &str, reason: RejectReason, message: &str) {
    let Decoded { batch: events, rejections, .. } = &mut batch.decoded;
    events.events.retain(|event| event.order.event_id != event_id);
    let rejection: Rejection = reject(event_id, reason, message);
    events.count_rejections(std::slice::from_ref(&rejection));
    rejections.push(rejection);
    if let Some(answer) = batch.answers.iter_mut().find(|answer| answer.event_id == event_id) {
        answer.refused = Some((reason, message.to_owned()));
    }
}
