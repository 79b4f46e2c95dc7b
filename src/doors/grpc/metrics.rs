//! `tracelake.v1.MetricsService`: the general question and its three presets.

use tonic::{Request, Response, Status};

use super::super::Doors;
use super::passed;
use crate::catalog::keys::Identity;
use crate::wire::metrics_service_server::MetricsService;
use crate::wire::{
    CostBreakdownRequest, LatencyPercentilesRequest, MetricsRequest, MetricsResponse, TimeSeriesRequest,
};

pub(super) struct Metrics(pub(super) Doors);

#[tonic::async_trait]
impl MetricsService for Metrics {
    async fn query(&self, request: Request<MetricsRequest>) -> Result<Response<MetricsResponse>, Status> {
        let (caller, _) = passed(&request)?;
        self.answer(&caller.who, request.into_inner()).await
    }

    async fn cost_breakdown(
        &self,
        request: Request<CostBreakdownRequest>,
    ) -> Result<Response<MetricsResponse>, Status> {
        let (caller, _) = passed(&request)?;
        self.answer(&caller.who, self.0.answers.cost_breakdown(request.into_inner())).await
    }

    async fn latency_percentiles(
        &self,
        request: Request<LatencyPercentilesRequest>,
    ) -> Result<Response<MetricsResponse>, Status> {
        let (caller, _) = passed(&request)?;
        self.answer(&caller.who, self.0.answers.latency_percentiles(request.into_inner())).await
    }

    async fn time_series(&self, request: Request<TimeSeriesRequest>) -> Result<Response<MetricsResponse>, Status> {
        let (caller, _) = passed(&request)?;
        self.answer(&caller.who, self.0.answers.time_series(request.into_inner())).await
    }
}

impl Metrics {
    async fn answer(&self, who: &Identity, request: MetricsRequest) -> Result<Response<MetricsResponse>, Status> {
        Ok(Response::new(self.0.answers.metrics(who, request).await?))
    }
}
