//! `tracelake.v1.MetricsService`: the general question and the presets over it.

use futures::StreamExt;
use futures::stream::BoxStream;
use tonic::{Request, Response, Status};

use super::super::Doors;
use super::passed;
use crate::query::presets;
use crate::wire::metrics_service_server::MetricsService;
use crate::wire::{
    CostBreakdownRequest, LatencyPercentilesRequest, MetricsRequest, MetricsResponse, TimeSeriesRequest,
};

/// Rows of one message of a streamed answer.
const ROWS_PER_MESSAGE: usize = 1_000;

pub(super) struct Metrics(pub(super) Doors);

type Answer = Result<Response<MetricsResponse>, Status>;

#[tonic::async_trait]
impl MetricsService for Metrics {
    async fn query(&self, request: Request<MetricsRequest>) -> Answer {
        self.one(request, |request| request).await
    }

    type QueryStreamStream = BoxStream<'static, Result<MetricsResponse, Status>>;

    async fn query_stream(
        &self,
        request: Request<MetricsRequest>,
    ) -> Result<Response<Self::QueryStreamStream>, Status> {
        let (caller, _) = passed(&request)?;
        let answer = self.0.answers.metrics_series(&caller.who, request.into_inner()).await?;
        Ok(Response::new(futures::stream::iter(in_parts(answer)).map(Ok).boxed()))
    }

    async fn cost_breakdown(&self, request: Request<CostBreakdownRequest>) -> Answer {
        self.one(request, presets::cost_breakdown).await
    }

    async fn latency_percentiles(&self, request: Request<LatencyPercentilesRequest>) -> Answer {
        self.one(request, presets::latency_percentiles).await
    }

    async fn time_series(&self, request: Request<TimeSeriesRequest>) -> Answer {
        self.one(request, presets::time_series).await
    }
}

impl Metrics {
    /// A preset that is one question.
    async fn one<R>(&self, request: Request<R>, preset: impl FnOnce(R) -> MetricsRequest) -> Answer {
        let (caller, _) = passed(&request)?;
        let mut answers = self.0.answers.metrics(&caller.who, vec![preset(request.into_inner())]).await?;
        answers.pop().map(Response::new).ok_or_else(|| Status::internal("a question without an answer"))
    }
}

/// The names in the first part, what is about all rows in the last.
fn in_parts(mut answer: MetricsResponse) -> Vec<MetricsResponse> {
    let rows = std::mem::take(&mut answer.rows);
    let mut parts: Vec<MetricsResponse> = Vec::with_capacity(rows.len() / ROWS_PER_MESSAGE + 1);
    let mut rows = rows.into_iter().peekable();
    loop {
        let part = rows.by_ref().take(ROWS_PER_MESSAGE).collect();
        parts.push(MetricsResponse { rows: part, ..Default::default() });
        if rows.peek().is_none() {
            break;
        }
    }
    parts[0].dimensions = std::mem::take(&mut answer.dimensions);
    parts[0].measures = std::mem::take(&mut answer.measures);
    if let Some(last) = parts.last_mut() {
        last.total = answer.total;
        last.snapshot = answer.snapshot;
        last.reading = answer.reading;
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{MetricsRow, Reading};

    #[test]
    fn parts_hold_all_rows_once_and_in_order() {
        for count in [0, 1, 1_000, 1_001, 2_500] {
            let rows = (0..count).map(|at| MetricsRow { bucket_start_unix_micros: Some(at), ..Default::default() });
            let answer = MetricsResponse {
                dimensions: vec!["model".into()],
                rows: rows.collect(),
                reading: Some(Reading::default()),
                ..Default::default()
            };
            let parts = in_parts(answer.clone());
            assert_eq!(parts.len(), (count as usize).div_ceil(1_000).max(1));
            assert_eq!(parts.iter().flat_map(|part| part.rows.clone()).collect::<Vec<_>>(), answer.rows);
            assert_eq!((&parts[0].dimensions, parts.last().unwrap().reading.is_some()), (&answer.dimensions, true));
        }
    }
}
