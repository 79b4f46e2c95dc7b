//! Opening the doors, and closing them: no new requests, those under way are answered.

use std::future::{Future, IntoFuture};
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::transport::Server;
use tonic_health::ServingStatus;

use super::connections::Limited;
use super::{Doors, Refusal, grpc, http};

/// Requests under way when the doors close are given up after this.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(30);
/// How often gRPC's health is brought up to date.
const HEALTH_EVERY: Duration = Duration::from_secs(1);
/// Streams of one gRPC connection.
const STREAMS_MAX: u32 = 256;
/// Of one stream and of one connection: enough for a fast sender far away, small enough to be forgotten.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// A peer that went away without a word is noticed.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

#[derive(Debug, thiserror::Error)]
pub enum DoorsError {
    #[error("the gRPC door at {address}: {source}")]
    Grpc { address: SocketAddr, source: tonic::transport::Error },
    #[error("the HTTP door at {address}: {source}")]
    Http { address: SocketAddr, source: std::io::Error },
    #[error("a listening socket has no address: {0}")]
    Address(std::io::Error),
    #[error("the gRPC services do not fit together: {0}")]
    Services(Refusal),
}

/// Serves until `shutdown` resolves, then answers what is under way, for at most 30 seconds.
pub async fn serve(
    doors: Doors,
    grpc: TcpListener,
    http: TcpListener,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), DoorsError> {
    let grpc_address = grpc.local_addr().map_err(DoorsError::Address)?;
    let http_address = http.local_addr().map_err(DoorsError::Address)?;
    let (close, closing) = watch::channel(false);
    let closed = |mut closing: watch::Receiver<bool>| async move {
        // An error means that the sender is gone: closed as well.
        _ = closing.wait_for(|is_closing| *is_closing).await;
    };

    let (health, _) = tonic_health::server::health_reporter();
    let routes = grpc::routes(&doors, health.clone()).map_err(DoorsError::Services)?;
    let services = routes.clone().into_axum_router();
    let serving_grpc = Server::builder()
        .max_concurrent_streams(STREAMS_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keepalive_interval(Some(KEEPALIVE_EVERY))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .add_routes(routes)
        .serve_with_incoming_shutdown(Limited::new(grpc).into_stream(), closed(closing.clone()));
    let serving_http = axum::serve(Limited::new(http), http::routes(&doors, services))
        .with_graceful_shutdown(closed(closing.clone()))
        .into_future();

    let ready = doors.ready.clone();
    let reporting = async move {
        let mut ticks = tokio::time::interval(HEALTH_EVERY);
        loop {
            ticks.tick().await;
            let status = match ready.ready().await {
                Ok(()) => ServingStatus::Serving,
                Err(_) => ServingStatus::NotServing,
            };
            health.set_service_status("", status).await;
        }
    };

    let serving = async {
        let grpc = async {
            let served = serving_grpc.await.map_err(|source| DoorsError::Grpc { address: grpc_address, source });
            close.send_replace(true);
            served
        };
        let http = async {
            let served = serving_http.await.map_err(|source| DoorsError::Http { address: http_address, source });
            close.send_replace(true);
            served
        };
        let (grpc, http) = tokio::join!(grpc, http);
        grpc.and(http)
    };
    tokio::pin!(serving);
    tokio::select! {
        served = &mut serving => return served,
        () = reporting => {}
        () = shutdown => {}
    }
    close.send_replace(true);
    match tokio::time::timeout(DRAIN_TIME_MAX, serving).await {
        Ok(served) => served,
        Err(_) => {
            tracing::warn!("requests still under way after {} s were given up", DRAIN_TIME_MAX.as_secs());
            Ok(())
        }
    }
}
