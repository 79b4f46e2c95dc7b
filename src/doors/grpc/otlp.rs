//! OTLP over gRPC: traces are kept; metrics and logs are answered, counted and dropped, or their senders would log an
//! error at every interval.

use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::LogsService;
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::MetricsService;
use opentelemetry_proto::tonic::collector::metrics::v1::{ExportMetricsServiceRequest, ExportMetricsServiceResponse};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::TraceService;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use prost::Message;
use tonic::{Request, Response, Status};

use super::super::otlp::{Kept, keep};
use super::super::{Door, Doors};
use super::passed;
use crate::decode;

pub(super) struct Otlp(pub(super) Doors);

#[tonic::async_trait]
impl TraceService for Otlp {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let (caller, rooms) = passed(&request)?;
        let mut room = rooms.take()?;
        let request = request.into_inner();
        let bytes = request.encoded_len();
        room.shrink_to(bytes as u64);
        let limits = self.0.limits_for(&caller.tenant);
        let decode = move || Ok(decode::otlp_request(request, &limits));
        let kept = keep(&self.0, Door::OtlpGrpc, &caller, room, bytes, decode).await?;
        Ok(Response::new(response(&kept)))
    }
}

/// The answer of both OTLP doors.
pub(in super::super) fn response(kept: &Kept) -> ExportTraceServiceResponse {
    let partial_success = (!kept.rejections.is_empty()).then(|| ExportTracePartialSuccess {
        rejected_spans: kept.rejections.len() as i64,
        error_message: kept.reasons(),
    });
    ExportTraceServiceResponse { partial_success }
}

#[tonic::async_trait]
impl MetricsService for Otlp {
    async fn export(
        &self,
        _: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        self.0.counters.dropped(Door::OtlpGrpc, "metrics");
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl LogsService for Otlp {
    async fn export(
        &self,
        _: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        self.0.counters.dropped(Door::OtlpGrpc, "logs");
        Ok(Response::new(ExportLogsServiceResponse::default()))
    }
}
