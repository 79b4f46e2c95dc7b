//! The gRPC port: OTLP, `tracelake.v1`, health and reflection.

mod access;
mod admin;
mod erasure;
mod frames;
mod ingest;
mod metrics;
mod otlp;
mod prices;
mod sql;
mod subscribe;
mod tail;
mod traces;

use std::collections::VecDeque;
use std::sync::Arc;

use axum::middleware;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::LogsServiceServer;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server as otlp_metrics;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::TraceServiceServer;
use parking_lot::Mutex;
use tonic::service::Routes;
use tonic::{Request, Status};

pub(super) use otlp::response as trace_response;

use super::auth::Caller;
use super::{Doors, REQUEST_MAX, Refusal};
use crate::base::{Kind, Reservation};
use crate::wire;

/// Above the limit that is checked before tonic sees a message: that one speaks first, and in clear words.
const DECODING_MAX: usize = REQUEST_MAX.as_usize() + 1024;

/// The services behind the port, each behind its key.
pub(super) fn routes(doors: &Doors, health: tonic_health::server::HealthReporter) -> Result<Routes, Refusal> {
    let unregistered = |e: tonic_reflection::server::Error| Refusal::new(Kind::Internal, format!("reflection: {e}"));
    let descriptors = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(wire::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let services = Routes::default()
        .add_service(TraceServiceServer::new(otlp::Otlp(doors.clone())).max_decoding_message_size(DECODING_MAX))
        .add_service(
            otlp_metrics::MetricsServiceServer::new(otlp::Otlp(doors.clone())).max_decoding_message_size(DECODING_MAX),
        )
        .add_service(LogsServiceServer::new(otlp::Otlp(doors.clone())).max_decoding_message_size(DECODING_MAX))
        .add_service(
            wire::ingest_service_server::IngestServiceServer::new(ingest::Ingest(doors.clone()))
                .max_decoding_message_size(DECODING_MAX),
        )
        .add_service(wire::metrics_service_server::MetricsServiceServer::new(metrics::Metrics::new(doors.clone())))
        .add_service(wire::trace_service_server::TraceServiceServer::new(traces::Traces::new(doors.clone())))
        .add_service(wire::sql_service_server::SqlServiceServer::new(sql::Sql(doors.clone())))
        .add_service(wire::erasure_service_server::ErasureServiceServer::new(erasure::Erasures(doors.clone())))
        .add_service(wire::price_service_server::PriceServiceServer::new(prices::PriceDesk(doors.clone())))
        .add_service(wire::admin_service_server::AdminServiceServer::new(admin::AdminDesk(doors.clone())))
        .add_service(tonic_health::pb::health_server::HealthServer::new(
            tonic_health::server::HealthService::from_health_reporter(health),
        ))
        .add_service(descriptors().build_v1().map_err(unregistered)?)
        .add_service(descriptors().build_v1alpha().map_err(unregistered)?);
    let guarded = services
        .into_axum_router()
        .layer(middleware::from_fn_with_state(access::Guard::new(doors.clone()), access::guard));
    Ok(Routes::from(guarded))
}

/// Room for messages that were read, in the order of the messages.
#[derive(Debug, Clone, Default)]
struct Rooms(Arc<Mutex<VecDeque<Reservation>>>);

impl Rooms {
    fn put(&self, room: Reservation) {
        self.0.lock().push_back(room);
    }

    fn take(&self) -> Result<Reservation, Status> {
        self.0.lock().pop_front().ok_or_else(|| Status::unavailable("a message came without room for it"))
    }
}

/// What the guard learnt about a request that it let pass.
fn passed<R>(request: &Request<R>) -> Result<(Caller, Rooms), Status> {
    let extensions = request.extensions();
    match (extensions.get::<Caller>(), extensions.get::<Rooms>()) {
        (Some(caller), Some(rooms)) => Ok((caller.clone(), rooms.clone())),
        _ => Err(Status::unauthenticated("no key was shown")),
    }
}
