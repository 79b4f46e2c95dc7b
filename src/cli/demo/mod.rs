//! The demo: a few thousand realistic traces for several tenants go in, answers come out.
//!
//! Promises: speaks to the server as any client would; ends in an error if the server's counts are not exactly those sent.
//! Must never know: how the server was started, or where its state lies beyond the words to print.

mod check;
mod report;
mod send;

use std::io::Write;

use super::{CliError, Connection};
use crate::base::TimestampUs;

/// A running server, and who may speak to it.
#[derive(Debug, Clone)]
pub struct DemoTarget {
    /// `host:port` of the gRPC door.
    pub grpc_addr: String,
    /// At least one; each with a key that may ingest and read.
    pub tenants: Vec<DemoTenant>,
    /// The folder or bucket, as people write it: for the hints at the end.
    pub data: String,
    /// Spans to send for the first tenant; the others get less and less.
    pub observations: u64,
    /// The traces end just before it; also the seed, so that a second run adds new traces.
    pub now_us: TimestampUs,
    /// How this program is called: for the hints.
    pub program: String,
    /// The server stays when the demo is over.
    pub keeps_serving: bool,
}

#[derive(Debug, Clone)]
pub struct DemoTenant {
    /// Its id, as it stands in the paths of its tables.
    pub name: String,
    pub public_key: String,
    pub secret_key: String,
}

/// Sends, asks, prints. On return everything sent is durable and was counted exactly once.
pub async fn demo(target: &DemoTarget, out: &mut (dyn Write + Send)) -> Result<(), CliError> {
    let mut visits = Vec::new();
    for (place, tenant) in target.tenants.iter().enumerate() {
        let connection = Connection::connect(&target.grpc_addr, &tenant.public_key, &tenant.secret_key).await?;
        let load = send::Load::new(target, place as u64);
        let before = check::count(&connection, load.range()).await?;
        visits.push(Visit { tenant, connection, load, before });
    }
    send::send_all(&visits, out).await?;
    for visit in &visits {
        check::check(visit).await?;
    }
    report::print(target, &visits, out).await
}

/// One tenant's part of the run.
struct Visit<'t> {
    tenant: &'t DemoTenant,
    connection: Connection,
    load: send::Load,
    /// What the server had counted before.
    before: check::Counts,
}
