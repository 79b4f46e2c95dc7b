//! A stream's messages as server-sent events: each as `data` in proto3 JSON. The last event is `end`, or `refused` with
//! an error as HTTP's; a stream that ends without either broke off.
//!
//! Where messages carry a cursor it is the event's id, and a browser that comes back goes on from there.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use bytes::{Buf, Bytes, BytesMut};
use serde_json::{Value, json};
use tonic::{Code, Status};

use super::schema::{MethodOf, Schema};
use super::{ANSWER_MAX, HEAD_BYTES, to_json};

/// Proxies close what is silent for half a minute.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
const CURSOR: &str = "cursor";
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Proxies that gather answers would hold events back.
const UNBUFFERED: (HeaderName, HeaderValue) =
    (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));

/// Where a listener that comes back goes on; its question stays as it was.
pub(super) fn resume(schema: &Schema, method: &MethodOf, headers: &HeaderMap, question: &mut Value) {
    let said = headers.get(LAST_EVENT_ID).and_then(|value| value.to_str().ok()).filter(|id| !id.is_empty());
    if let (Some(id), true, Some(question)) = (said, has_cursor(schema, method), question.as_object_mut()) {
        question.insert(CURSOR.to_owned(), id.into());
    }
}

pub(super) fn response(schema: &'static Schema, method: &'static MethodOf, body: Body) -> Response {
    let has_ids = has_cursor(schema, method);
    let messages = Messages { body, arrived: BytesMut::new() };
    let events = futures::stream::unfold(Some(messages), move |messages| async move {
        let mut messages = messages?;
        let message = match messages.next().await {
            Ok(bytes) => to_json::message(schema, &method.output, &bytes)
                .ok_or_else(|| Status::internal("an answer is not of its type")),
            Err(status) => Err(status),
        };
        let (event, rest) = match message {
            Ok(message) => (told(&message, has_ids), Some(messages)),
            Err(status) => (ended(&status), None),
        };
        Some((Ok::<_, Infallible>(event), rest))
    });
    let events = Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE));
    ([UNBUFFERED], events).into_response()
}

fn told(message: &Value, has_ids: bool) -> Event {
    let event = Event::default().data(message.to_string());
    match message.get(CURSOR).and_then(Value::as_str) {
        Some(cursor) if has_ids && !cursor.contains(['\0', '\r', '\n']) => event.id(cursor),
        _ => event,
    }
}

fn ended(status: &Status) -> Event {
    match status.code() {
        // With no data a browser drops the event.
        Code::Ok => Event::default().event("end").data("{}"),
        code => {
            let why = json!({ "error": format!("{code:?}"), "message": status.message() });
            Event::default().event("refused").data(why.to_string())
        }
    }
}

fn has_cursor(schema: &Schema, method: &MethodOf) -> bool {
    let has =
        |message: &str| schema.message(message).is_some_and(|known| known.fields.iter().any(|f| f.name == CURSOR));
    has(&method.input) && has(&method.output)
}

/// The messages of a gRPC answer.
struct Messages {
    body: Body,
    arrived: BytesMut,
}

impl Messages {
    /// `Err`: how it ended, which is mostly well.
    async fn next(&mut self) -> Result<Bytes, Status> {
        loop {
            if let Some(length) = self.arrived.get(1..HEAD_BYTES).map(|mut length| length.get_u32() as usize) {
                if length as u64 > ANSWER_MAX.bytes() {
                    return Err(Status::resource_exhausted(format!("a message is above {ANSWER_MAX}")));
                }
                if self.arrived.len() >= HEAD_BYTES + length {
                    self.arrived.advance(HEAD_BYTES);
                    return Ok(self.arrived.split_to(length).freeze());
                }
            }
            let frame = poll_fn(|context| Pin::new(&mut self.body).poll_frame(context)).await;
            match frame {
                None => return Err(Status::internal("the answer broke off")),
                Some(Err(_)) => return Err(Status::unavailable("the answer broke off")),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.arrived.extend_from_slice(&data),
                    Err(frame) => {
                        let trailers = frame.into_trailers().unwrap_or_default();
                        return Err(Status::from_header_map(&trailers)
                            .unwrap_or_else(|| Status::internal("an answer does not say how it ended")));
                    }
                },
            }
        }
    }
}
