//! Commands that ask a server by a key: SQL, erasures, the export of a person.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use tracelake::base::{Clock, SystemClock, TenantId};
use tracelake::cli::{self, Asked, Connection, LocalTables, OutputFormat, Subject, export_subject, repl, run};

use super::Outcome;

#[derive(clap::Args)]
pub(super) struct SqlArgs {
    /// The statement; none: a prompt with history
    statement: Option<String>,
    /// The server to ask
    #[arg(long, env = "TRACELAKE_SERVER", default_value = "127.0.0.1:4317")]
    server: String,
    #[arg(long, env = "TRACELAKE_PUBLIC_KEY", default_value = "", hide_env_values = true)]
    public_key: String,
    #[arg(long, env = "TRACELAKE_SECRET_KEY", default_value = "", hide_env_values = true)]
    secret_key: String,
    /// Open the tables here instead of asking a server: what is in files, read-only
    #[arg(long, requires = "tenant")]
    data: Option<String>,
    /// Whose tables, with --data
    #[arg(long)]
    tenant: Option<TenantId>,
    #[arg(long, value_enum, default_value_t = OutputFormat::Table)]
    format: OutputFormat,
}

/// Which server, and by which key
#[derive(clap::Args)]
pub(super) struct ServerArgs {
    /// The server to ask
    #[arg(long, env = "TRACELAKE_SERVER", default_value = "127.0.0.1:4317")]
    server: String,
    #[arg(long, env = "TRACELAKE_PUBLIC_KEY", default_value = "", hide_env_values = true)]
    public_key: String,
    #[arg(long, env = "TRACELAKE_SECRET_KEY", default_value = "", hide_env_values = true)]
    secret_key: String,
}

impl ServerArgs {
    pub(super) async fn connect(&self) -> Outcome<Connection> {
        Ok(Connection::connect(&self.server, &self.public_key, &self.secret_key).await?)
    }
}

#[derive(clap::Args)]
pub(super) struct EraseArgs {
    #[command(flatten)]
    subject: Subject,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Subcommand)]
pub(super) enum SubjectCommand {
    /// Writes all that is held on a user as JSON lines and Parquet, with a receipt; needs a key with the role `read`
    Export {
        #[arg(long)]
        user: String,
        /// The folder to write into
        #[arg(long)]
        out: PathBuf,
        #[command(flatten)]
        server: ServerArgs,
    },
}

pub(super) async fn sql(arguments: SqlArgs) -> Outcome {
    let asked: Box<dyn Asked> = match (&arguments.data, arguments.tenant) {
        (Some(data), Some(tenant)) => Box::new(LocalTables::open(data.parse()?, tenant)?),
        _ => Box::new(Connection::connect(&arguments.server, &arguments.public_key, &arguments.secret_key).await?),
    };
    match arguments.statement {
        Some(statement) => {
            run(asked.as_ref(), &statement, arguments.format, &mut std::io::stdout()).await?;
        }
        None => repl(asked.as_ref(), arguments.format).await?,
    }
    Ok(())
}

pub(super) async fn erase(arguments: EraseArgs) -> Outcome {
    let connection = arguments.server.connect().await?;
    Ok(cli::erase(&connection, arguments.subject, &mut std::io::stdout()).await?)
}

pub(super) async fn erasures(server: ServerArgs) -> Outcome {
    Ok(cli::erasures(&server.connect().await?, &mut std::io::stdout()).await?)
}

pub(super) async fn subject(command: SubjectCommand) -> Outcome {
    let SubjectCommand::Export { user, out, server } = command;
    export(&server.connect().await?, &user, &out).await
}

async fn export(connection: &Connection, user: &str, out: &Path) -> Outcome {
    let files = export_subject(connection, user, out, SystemClock.now_us()).await?;
    for file in files {
        println!("{:>10} rows  {:>12} bytes  {}", file.rows, file.bytes, out.join(file.name).display());
    }
    println!("receipt: {}", out.join("receipt.json").display());
    Ok(())
}
