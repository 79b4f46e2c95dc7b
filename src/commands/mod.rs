//! What can be typed: one file a subject, each with its arguments and what it does with them.
//!
//! Thin: whatever is worth testing stands in the library.

mod ask;
mod demo;
mod key;
mod masking;
mod node;
mod prices;
mod question;
mod serve;
mod tenant;
mod upkeep;

use std::io::IsTerminal;

use clap::{Parser, Subcommand};
use tracelake::catalog::keys::Keys;
use tracelake::config::ServeArgs;
use tracelake::server;
use tracelake::store::Store;

pub(crate) type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

/// LLM traces in open Delta tables on your own bucket: takes them, keeps them, answers what they cost.
#[derive(Parser)]
#[command(name = "tracelake", version, arg_required_else_help = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Takes traces and answers questions, until stopped
    Serve(Box<ServeArgs>),
    /// Starts a server on a fresh folder, sends it realistic traces, and shows what it can answer
    Demo(demo::DemoArgs),
    /// Runs one SQL statement, or opens a prompt when none is given
    Sql(ask::SqlArgs),
    /// Shows traces as they come in, until stopped
    Tail(question::TailCommand),
    /// Asks one metrics question, as JSON, and prints a table or lines of blocks
    Ask(question::AskArgs),
    /// Says how a server is doing, and what of a tenant it holds that is in no file yet
    Status(node::NodeArgs),
    /// Brings what a server holds of a tenant into files now, for readers of the tables
    Flush(node::NodeArgs),
    /// Merges small files into large ones, once; a running server does so by itself
    Compact(upkeep::CompactArgs),
    /// Creates, lists and deletes tenants
    #[command(subcommand)]
    Tenant(tenant::TenantCommand),
    /// Creates, lists and revokes keys
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Forgets traces, sessions or users: gone from answers at once, from files and the log by and by
    Erase(ask::EraseArgs),
    /// Lists what was erased, and how far each erasure has come
    Erasures(ask::ServerArgs),
    /// What is held on one person
    #[command(subcommand)]
    Subject(ask::SubjectCommand),
    /// What models cost: lists, checks, sets and imports prices
    #[command(subcommand)]
    Prices(prices::PricesCommand),
    /// Deletes what is no longer needed now, as servers do by and by, and says what went
    Vacuum(upkeep::VacuumArgs),
    /// Reads a store through and says what is wrong in it; beside a running server too
    Doctor(upkeep::DoctorArgs),
}

#[derive(clap::Args)]
struct DataArg {
    /// A folder, or s3://bucket/prefix
    #[arg(long, env = "TRACELAKE_DATA")]
    data: String,
}

impl Arguments {
    pub(crate) async fn run(self) -> Outcome {
        match self.command {
            Command::Serve(arguments) => serve::serve(arguments.settings()?).await,
            Command::Demo(arguments) => demo::show(arguments).await,
            Command::Sql(arguments) => ask::sql(arguments).await,
            Command::Tail(arguments) => question::tail(arguments).await,
            Command::Ask(arguments) => question::ask(arguments).await,
            Command::Status(arguments) => node::status(arguments).await,
            Command::Flush(arguments) => node::flush(arguments).await,
            Command::Compact(arguments) => upkeep::compact(arguments).await,
            Command::Tenant(command) => tenant::tenant(command).await,
            Command::Key(command) => key::key(command).await,
            Command::Erase(arguments) => ask::erase(arguments).await,
            Command::Erasures(server) => ask::erasures(server).await,
            Command::Subject(command) => ask::subject(command).await,
            Command::Prices(command) => prices::prices(command).await,
            Command::Vacuum(arguments) => upkeep::vacuum(arguments).await,
            Command::Doctor(arguments) => upkeep::doctor(arguments).await,
        }
    }
}

fn log_to_stderr(level: &str) {
    let filter = tracing_subscriber::EnvFilter::try_new(level).unwrap_or_else(|_| "info".into());
    let ansi = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(ansi).init();
}

async fn keys_of(data: &DataArg) -> Outcome<Keys> {
    Ok(server::open_keys(&Store::open(data.data.parse()?).await?).await?)
}
