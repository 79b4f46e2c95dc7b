//! `tracelake status` and `tracelake flush`: what whoever operates a server asks of it.

use tracelake::base::{Clock, SystemClock};
use tracelake::cli;

use super::Outcome;
use super::ask::ServerArgs;

#[derive(clap::Args)]
pub(super) struct NodeArgs {
    #[command(flatten)]
    whose: cli::Whose,
    #[command(flatten)]
    server: ServerArgs,
}

pub(super) async fn status(arguments: NodeArgs) -> Outcome {
    let connection = arguments.server.connect().await?;
    Ok(cli::status(&connection, arguments.whose, SystemClock.now_us(), &mut std::io::stdout()).await?)
}

pub(super) async fn flush(arguments: NodeArgs) -> Outcome {
    let connection = arguments.server.connect().await?;
    Ok(cli::flush(&connection, arguments.whose, &mut std::io::stdout()).await?)
}
