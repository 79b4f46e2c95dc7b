//! The HTTP port: OTLP, Langfuse's API, health and metrics. Paths are served with and without a trailing slash and
//! never redirect: a redirected POST is lost or loops.

mod analytics;
mod cors;
mod erase;
mod health;
mod langfuse;
mod models;
mod otlp;
mod problem;
mod request;
mod rpc;

use axum::Router;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::middleware;
use axum::response::IntoResponse;
use axum::routing::{MethodRouter, get, post};

use chrono::{DateTime, SecondsFormat};
use rust_decimal::Decimal;
use serde_json::Value;

use super::{Doors, audit};
use crate::base::TimestampUs;
use problem::Problem;
#[cfg(test)]
pub(super) use rpc::{from_json, to_json};

/// `services`: those of the gRPC door, behind their guard.
pub(super) fn routes(doors: &Doors, services: Router) -> Router {
    let mut router: Router<Doors> = Router::new();
    for base in ["/v1", "/api/public/otel/v1"] {
        router = serve(router, &format!("{base}/traces"), post(otlp::traces));
        router = serve(router, &format!("{base}/metrics"), post(otlp::metrics));
        router = serve(router, &format!("{base}/logs"), post(otlp::logs));
    }
    router = serve(router, "/health", get(health::health));
    router = serve(router, "/ready", get(health::ready));
    router = serve(router, "/metrics", get(health::metrics));
    router = serve(router, "/api/public/models", get(models::list).post(models::create));
    router = serve(router, "/api/public/models/{id}", get(models::one).put(models::replace).delete(models::delete));
    router = serve(router, "/api/public/health", get(health::langfuse_health));
    router = serve(router, "/api/public/ready", get(health::ready));
    router = langfuse::routes(router);
    router = analytics::routes(router, &services);
    router = serve(router, "/api/v1/openapi.json", get(openapi));
    router = rpc::route(router, services);
    let router = router
        .route_layer(middleware::from_fn_with_state(doors.clone(), audit::http))
        .fallback(|| async { Problem::new(StatusCode::NOT_FOUND, "there is nothing at this path") })
        .method_not_allowed_fallback(|| async {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this path does not take this method")
        })
        .with_state(doors.clone());
    match doors.cors_origins.is_empty() {
        true => router,
        false => router.layer(middleware::from_fn_with_state(doors.clone(), cors::answer)),
    }
}

/// What `/api/v1/` answers, for everybody: it says nothing of anyone. `tests/it/openapi.rs` writes it from the protos.
async fn openapi() -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], include_str!("../../../proto/openapi.json"))
}

/// Milliseconds, as Langfuse says times.
fn instant(us: TimestampUs) -> String {
    DateTime::from_timestamp_micros(us).unwrap_or_default().to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// The number nearest to a decimal.
fn decimal_number(decimal: Decimal) -> Value {
    decimal.to_string().parse::<f64>().map_or(Value::Null, Value::from)
}

fn serve(router: Router<Doors>, path: &str, methods: MethodRouter<Doors>) -> Router<Doors> {
    router.route(path, methods.clone()).route(&format!("{path}/"), methods)
}
