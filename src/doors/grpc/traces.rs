//! `tracelake.v1.TraceService`: one trace whole, many by filter, those that say a text.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};

use super::super::{Doors, Refusal};
use super::passed;
use super::tail::Tail;
use crate::base::{Clock, SystemClock};
use crate::wire::trace_service_server::TraceService;
use crate::wire::{
    GetTraceRequest, GetTraceResponse, ListTracesRequest, ListTracesResponse, SearchTracesRequest,
    SearchTracesResponse, TailRequest, TailResponse,
};

/// Open tails, all keys together.
const TAILS_MAX: usize = 64;
const TAILS_RETRY: Duration = Duration::from_secs(30);

pub(super) struct Traces {
    doors: Doors,
    tails: Arc<Semaphore>,
}

impl Traces {
    pub(super) fn new(doors: Doors) -> Self {
        Self { doors, tails: Arc::new(Semaphore::new(TAILS_MAX)) }
    }
}

#[tonic::async_trait]
impl TraceService for Traces {
    type GetTraceStream = BoxStream<'static, Result<GetTraceResponse, Status>>;

    async fn get_trace(&self, request: Request<GetTraceRequest>) -> Result<Response<Self::GetTraceStream>, Status> {
        let (caller, _) = passed(&request)?;
        let parts = self.doors.answers.trace(&caller.who, request.into_inner()).await?;
        Ok(Response::new(parts.map(|part| part.map_err(Status::from)).boxed()))
    }

    async fn list_traces(&self, request: Request<ListTracesRequest>) -> Result<Response<ListTracesResponse>, Status> {
        let (caller, _) = passed(&request)?;
        Ok(Response::new(self.doors.answers.list_traces(&caller.who, request.into_inner()).await?))
    }

    async fn search_traces(
        &self,
        request: Request<SearchTracesRequest>,
    ) -> Result<Response<SearchTracesResponse>, Status> {
        let (caller, _) = passed(&request)?;
        Ok(Response::new(self.doors.answers.search_traces(&caller.who, request.into_inner()).await?))
    }

    type TailStream = BoxStream<'static, Result<TailResponse, Status>>;

    async fn tail(&self, request: Request<TailRequest>) -> Result<Response<Self::TailStream>, Status> {
        let (caller, _) = passed(&request)?;
        let place = Arc::clone(&self.tails).try_acquire_owned();
        let place = place.map_err(|_| Refusal::unavailable(format!("{TAILS_MAX} tails are open"), TAILS_RETRY))?;
        let mut tail = Tail::begin(self.doors.answers.clone(), caller.who, request.into_inner(), SystemClock.now_us())?;
        // What cannot be asked is said at once.
        let first = tail.next(SystemClock.now_us()).await?;
        let rest = futures::stream::unfold(Some((tail, place)), |held| async move {
            let (mut tail, place) = held?;
            loop {
                tail.wait().await?;
                match tail.next(SystemClock.now_us()).await {
                    Err(refusal) => return Some((Err(Status::from(refusal)), None)),
                    Ok(Some(message)) => return Some((Ok(message), Some((tail, place)))),
                    Ok(None) => continue,
                }
            }
        });
        Ok(Response::new(futures::stream::iter(first.map(Ok)).chain(rest).boxed()))
    }
}
