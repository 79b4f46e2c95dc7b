//! `tracelake demo`: a server on a fresh folder, realistic traces, and what it can answer.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use tracelake::base::TenantId;
use tracelake::catalog::keys::{CreatedKey, NewKey, Role};
use tracelake::cli::demo::{DemoTarget, DemoTenant, demo};
use tracelake::config::Settings;
use tracelake::server;
use tracelake::store::{Location, Store};

use super::serve::{announce, asked_to_stop};
use super::{Outcome, log_to_stderr};

#[derive(clap::Args)]
pub(super) struct DemoArgs {
    /// The folder to put the data in; it must not hold a demo's data already
    #[arg(long)]
    data: Option<PathBuf>,
    /// Keep serving after the tour, until ctrl-C
    #[arg(long)]
    keep: bool,
    /// Spans, generations and events to send
    #[arg(long, default_value_t = 8_000)]
    observations: u64,
}

pub(super) async fn show(arguments: DemoArgs) -> Outcome {
    log_to_stderr("warn");
    let data = arguments.data.unwrap_or_else(|| "tracelake-demo".into());
    let folder = fresh_folder(&data)?;
    let location: Location = folder.parse()?;
    let keys = server::open_keys(&Store::open(location.clone()).await?).await?;
    let mut tenants = Vec::new();
    for name in ["acme", "globex", "initech"] {
        let tenant: TenantId = name.parse()?;
        keys.tenants().create(&tenant).await?;
        let CreatedKey { public_key, secret_key } =
            keys.create(NewKey::with_roles(tenant, [Role::Ingest, Role::Read].into())).await?;
        tenants.push(DemoTenant { name: name.to_owned(), public_key, secret_key });
    }
    let running = server::start(Settings::for_demo(location)?.server()).await?;
    let now_us = SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros() as i64;
    let target = DemoTarget {
        grpc_addr: running.grpc_addr.to_string(),
        tenants,
        data: folder,
        observations: arguments.observations,
        now_us,
        // Cargo says so to what it runs.
        program: if std::env::var_os("CARGO").is_some() { "cargo run -q --" } else { "tracelake" }.to_owned(),
        keeps_serving: arguments.keep,
    };
    let mut out = std::io::stdout();
    demo(&target, &mut out).await?;
    running.flush().await?;
    if arguments.keep {
        announce(&running)?;
        println!("serving until ctrl-C");
        return Ok(running.until(asked_to_stop()).await?);
    }
    Ok(running.stop().await?)
}

/// The folder asked for, or the next free name beside it: a demo's data is never mixed with other data.
fn fresh_folder(wanted: &Path) -> Outcome<String> {
    let text = |path: &Path| path.to_str().map(str::to_owned).ok_or("the folder's name is not UTF-8");
    if !wanted.exists() || wanted.read_dir()?.next().is_none() {
        return Ok(text(wanted)?);
    }
    let name = text(wanted)?;
    let free = (2..1000).map(|number| format!("{name}-{number}")).find(|name| !Path::new(name).exists());
    free.ok_or_else(|| format!("{name} and a thousand like it are taken").into())
}
