//! gRPC-Web: the gRPC calls as browsers can make them, at `/tracelake.v1.{Service}/{Method}` of the HTTP port.
//!
//! Only the frames are turned, by tonic's own layer: what arrives at the guard is a gRPC call like any other, so that
//! keys, roles, limits and the audit are those of the gRPC port.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::{Router, routing};
use futures::stream;
use tokio::sync::Mutex;
use tonic::codegen::Service;
use tonic::{Code, Status};
use tonic_web::GrpcWebLayer;

use super::super::super::body::{self, Pieces};
use super::super::super::{Doors, Refusal};
use super::super::problem::Problem;
use super::schema::Schema;

const MEDIA_TYPES: [&str; 4] = [
    "application/grpc-web",
    "application/grpc-web+proto",
    "application/grpc-web-text",
    "application/grpc-web-text+proto",
];

pub(super) fn route(mut router: Router<Doors>, schema: &Schema, services: Router) -> Router<Doors> {
    let services = services.layer(GrpcWebLayer::new());
    for service in schema.services() {
        let services = services.clone();
        let call = routing::post(move |request: Request| call(services, request));
        router = router.route(&format!("/{service}/{{method}}"), call);
    }
    router
}

async fn call(mut services: Router, request: Request) -> Response {
    let media_type = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !MEDIA_TYPES.contains(&media_type) {
        let message = format!("this path takes gRPC-Web only: {}; JSON is at /api/v1/", MEDIA_TYPES.join(", "));
        return Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message).into_response();
    }
    let (parts, body) = request.into_parts();
    let mut pieces = Pieces::new(body);
    // How long a message may take is the guard's to say.
    pieces.message_ends();
    let pieces = Arc::new(Mutex::new(pieces));
    let passed_on = stream::try_unfold(Arc::clone(&pieces), async |pieces| {
        let piece = pieces.lock().await.next().await?;
        Ok::<_, Refusal>(piece.map(|piece| (piece, Arc::clone(&pieces))))
    });
    let Ok(response) = services.call(Request::from_parts(parts, Body::from_stream(passed_on))).await;
    let is_refused = Status::from_header_map(response.headers()).is_some_and(|status| status.code() != Code::Ok);
    if let (true, Ok(mut pieces)) = (is_refused, pieces.try_lock()) {
        body::hear_out(&mut pieces).await;
    }
    response.map(Body::new)
}
