//! `tracelake.v1.IngestService`: our own words, in one message or many.

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use prost::Message;
use tonic::{Request, Response, Status, Streaming};

use super::super::auth::Caller;
use super::super::otlp::{Kept, keep};
use super::super::{Door, Doors, Refusal};
use super::{Rooms, passed};
use crate::base::Kind;
use crate::decode;
use crate::wire::ingest_service_server::IngestService;
use crate::wire::{IngestRequest, IngestResponse, Rejected};

/// Messages of one stream that may wait for their append at once.
const APPENDS_AT_ONCE: usize = 8;
/// Refused items an answer names; further ones end the stream, whose sender is plainly mistaken.
const REJECTED_MAX: usize = 10_000;

pub(super) struct Ingest(pub(super) Doors);

#[tonic::async_trait]
impl IngestService for Ingest {
    async fn ingest(&self, request: Request<IngestRequest>) -> Result<Response<IngestResponse>, Status> {
        let (caller, rooms) = passed(&request)?;
        let mut answer = IngestResponse::default();
        add(&mut answer, self.keep(&caller, &rooms, request.into_inner()).await?)?;
        Ok(Response::new(answer))
    }

    async fn ingest_stream(
        &self,
        request: Request<Streaming<IngestRequest>>,
    ) -> Result<Response<IngestResponse>, Status> {
        let (caller, rooms) = passed(&request)?;
        let mut messages = request.into_inner();
        let mut answer = IngestResponse::default();
        let mut appends = FuturesUnordered::new();
        let mut is_open = true;
        while is_open || !appends.is_empty() {
            tokio::select! {
                message = messages.message(), if is_open && appends.len() < APPENDS_AT_ONCE => match message? {
                    Some(message) => appends.push(self.keep(&caller, &rooms, message)),
                    None => is_open = false,
                },
                Some(kept) = appends.next() => add(&mut answer, kept?)?,
            }
        }
        Ok(Response::new(answer))
    }
}

impl Ingest {
    /// Takes the message's room at once: rooms lie in the order of the messages.
    fn keep<'a>(
        &'a self,
        caller: &'a Caller,
        rooms: &Rooms,
        request: IngestRequest,
    ) -> impl Future<Output = Result<Kept, Refusal>> + Send + 'a {
        let room = rooms.take();
        let limits = self.0.limits_for(&caller.tenant);
        async move {
            let mut room = room.map_err(|status| Refusal::new(Kind::Unavailable, status.message()))?;
            let bytes = request.encoded_len();
            room.shrink_to(bytes as u64);
            let decode = move || Ok(decode::ingest_request(request, &limits));
            keep(&self.0, Door::TracelakeGrpc, caller, room, bytes, decode).await
        }
    }
}

fn add(answer: &mut IngestResponse, kept: Kept) -> Result<(), Refusal> {
    let rejected = kept.rejections.len();
    if answer.rejected.len() + rejected > REJECTED_MAX {
        let message = format!("more than {REJECTED_MAX} items were refused; the first: {}", kept.reasons());
        return Err(Refusal::new(Kind::Invalid, message));
    }
    answer.accepted += kept.items.saturating_sub(rejected as u64);
    let named = kept.rejections.into_iter().map(|rejection| Rejected {
        id: rejection.id,
        reason: rejection.reason.as_str().to_owned(),
        message: rejection.message,
    });
    answer.rejected.extend(named);
    Ok(())
}
