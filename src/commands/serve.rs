//! `tracelake serve`: the server, until it is asked to stop.

use std::io::Write;

use tracelake::config::Settings;
use tracelake::server::{self, Running};

use super::{Outcome, log_to_stderr};

pub(super) async fn serve(settings: Settings) -> Outcome {
    log_to_stderr(&settings.log_level);
    settings.log();
    let running = server::start(settings.server()).await?;
    println!("tracelake {} on {}", env!("CARGO_PKG_VERSION"), settings.data);
    announce(&running)?;
    running.until(asked_to_stop()).await?;
    Ok(())
}

pub(super) fn announce(running: &Running) -> Outcome {
    let mut out = std::io::stdout().lock();
    writeln!(out, "gRPC {}", running.grpc_addr)?;
    writeln!(out, "HTTP {}", running.http_addr)?;
    out.flush()?;
    Ok(())
}

/// Resolves on SIGTERM or ctrl-C.
pub(super) async fn asked_to_stop() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return std::future::pending().await };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}
