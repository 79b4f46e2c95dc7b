//! `tracelake ask` and `tracelake tail`: metrics and traces from the shell.

use tracelake::cli;

use super::Outcome;
use super::ask::ServerArgs;

#[derive(clap::Args)]
pub(super) struct AskArgs {
    /// The question: a MetricsRequest of proto/tracelake/v1/metrics.proto as JSON; `range` may be 24h, 7d, 4w
    question: String,
    #[command(flatten)]
    server: ServerArgs,
}

pub(super) async fn ask(arguments: AskArgs) -> Outcome {
    let connection = arguments.server.connect().await?;
    Ok(cli::ask(&connection, &arguments.question, &mut std::io::stdout()).await?)
}

#[derive(clap::Args)]
pub(super) struct TailCommand {
    #[command(flatten)]
    what: cli::TailArgs,
    #[command(flatten)]
    server: ServerArgs,
}

pub(super) async fn tail(arguments: TailCommand) -> Outcome {
    let connection = arguments.server.connect().await?;
    Ok(cli::tail(&connection, arguments.what, &mut std::io::stdout()).await?)
}
