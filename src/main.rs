//! The command line.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Parser, Subcommand};
use tracelake::base::{ByteSize, Clock, SystemClock, TenantId};
use tracelake::catalog::Catalog;
use tracelake::catalog::erasures::{ErasureKind, NewErasure};
use tracelake::catalog::keys::{CreatedKey, Keys, NewKey, Role};
use tracelake::catalog::retention::{Retention, Retentions};
use tracelake::catalog::system::SystemObjects;
use tracelake::catalog::tenants::Tenants;
use tracelake::cli::demo::{DemoTarget, DemoTenant, demo};
use tracelake::cli::{
    self, Asked, Connection, LocalTables, OutputFormat, Subject, VacuumOrder, erase, erasures, export_subject, repl,
    run,
};
use tracelake::compact::{CompactSettings, UpkeepSettings};
use tracelake::config::{ServeArgs, Settings};
use tracelake::doctor;
use tracelake::model::tables::Table;
use tracelake::price::PriceBook;
use tracelake::server::{self, Running};
use tracelake::store::{Location, Store};

// Gives freed pages back sooner than the system's allocator, and is faster on many small strings.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// LLM traces in open Delta tables on your own bucket: takes them, keeps them, answers what they cost.
#[derive(Parser)]
#[command(name = "tracelake", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Takes traces and answers questions, until stopped
    Serve(Box<ServeArgs>),
    /// Starts a server on a fresh folder, sends it realistic traces, and shows what it can answer
    Demo(DemoArgs),
    /// Runs one SQL statement, or opens a prompt when none is given
    Sql(SqlArgs),
    /// Merges small files into large ones, once; a running server does so by itself
    Compact(CompactArgs),
    /// Creates, lists and deletes tenants
    #[command(subcommand)]
    Tenant(TenantCommand),
    /// Creates, lists and revokes keys
    #[command(subcommand)]
    Key(KeyCommand),
    /// Forgets traces, sessions or users: gone from answers at once, from files and the log by and by
    Erase(EraseArgs),
    /// Lists what was erased, and how far each erasure has come
    Erasures(ServerArgs),
    /// What is held on one person
    #[command(subcommand)]
    Subject(SubjectCommand),
    /// Lists the models that have a price
    Prices,
    /// Deletes what is no longer needed now, as servers do by and by, and says what went
    Vacuum(VacuumArgs),
    /// Reads a store through and says what is wrong in it; beside a running server too
    Doctor(DoctorArgs),
}

#[derive(clap::Args)]
struct DoctorArgs {
    #[command(flatten)]
    data: DataArg,
    /// Only this tenant
    #[arg(long)]
    tenant: Option<TenantId>,
    /// Mend what is safe: indexes, checkpoints and hints that are missing or wrong, old orphans
    #[arg(long)]
    fix: bool,
}

#[derive(clap::Args)]
struct VacuumArgs {
    #[command(flatten)]
    data: DataArg,
    /// Only this tenant
    #[arg(long)]
    tenant: Option<TenantId>,
    /// Say what would go, and delete nothing
    #[arg(long)]
    dry_run: bool,
    /// Days that rows are kept, for tenants without a rule of their own
    #[arg(long, env = "TRACELAKE_RETENTION_DAYS")]
    retention_days: Option<u32>,
    /// Seconds that files stay after they left their table; no less than any server's queries may run
    #[arg(long, env = "TRACELAKE_REMOVED_FILES_KEPT_S", default_value_t = 7200)]
    removed_files_kept_s: u64,
    /// Seconds that commits stay in the tables' Delta logs; a day at least
    #[arg(long, env = "TRACELAKE_DELTA_LOG_KEPT_S", default_value_t = 86_400)]
    delta_log_kept_s: u64,
}

#[derive(clap::Args)]
struct DemoArgs {
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

#[derive(clap::Args)]
struct SqlArgs {
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
struct ServerArgs {
    /// The server to ask
    #[arg(long, env = "TRACELAKE_SERVER", default_value = "127.0.0.1:4317")]
    server: String,
    #[arg(long, env = "TRACELAKE_PUBLIC_KEY", default_value = "", hide_env_values = true)]
    public_key: String,
    #[arg(long, env = "TRACELAKE_SECRET_KEY", default_value = "", hide_env_values = true)]
    secret_key: String,
}

impl ServerArgs {
    async fn connect(&self) -> Outcome<Connection> {
        Ok(Connection::connect(&self.server, &self.public_key, &self.secret_key).await?)
    }
}

#[derive(clap::Args)]
struct EraseArgs {
    #[command(flatten)]
    subject: Subject,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Subcommand)]
enum SubjectCommand {
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

#[derive(clap::Args)]
struct CompactArgs {
    #[command(flatten)]
    data: DataArg,
    /// Keep at it until ctrl-C
    #[arg(long)]
    follow: bool,
    /// Merges that run at once
    #[arg(long, env = "TRACELAKE_COMPACT_WORKERS", default_value_t = 1)]
    compact_workers: usize,
    /// Memory for all of them together
    #[arg(long, env = "TRACELAKE_COMPACT_MEMORY_MAX", default_value = "256MiB")]
    compact_memory_max: ByteSize,
    /// Files a tenant's day may have in a table before some are merged
    #[arg(long, env = "TRACELAKE_COMPACT_FILES_MAX", default_value_t = 18)]
    compact_files_max: usize,
    /// Seconds for which a merge whose process fell silent keeps others away
    #[arg(long, env = "TRACELAKE_COMPACT_LEASE_S", default_value_t = 120)]
    compact_lease_s: u64,
    /// What is logged: error, warn, info, debug, trace
    #[arg(long, env = "TRACELAKE_LOG_LEVEL", default_value = "warn")]
    log_level: String,
}

#[derive(clap::Args)]
struct DataArg {
    /// A folder, or s3://bucket/prefix
    #[arg(long, env = "TRACELAKE_DATA")]
    data: String,
}

#[derive(Subcommand)]
enum TenantCommand {
    Create {
        tenant: TenantId,
        #[command(flatten)]
        data: DataArg,
    },
    List {
        #[command(flatten)]
        data: DataArg,
    },
    /// Says, or sets, how many days its rows are kept
    Retention {
        tenant: TenantId,
        /// Days for all tables that are not named; the ledger is kept for ever unless it is named
        #[arg(long)]
        days: Option<u32>,
        /// Days for one table, 0 for ever: observation_io=30
        #[arg(long, value_parser = table_days)]
        table: Vec<(String, u32)>,
        /// Keep everything for ever
        #[arg(long, conflicts_with_all = ["days", "table"])]
        forever: bool,
        #[command(flatten)]
        data: DataArg,
    },
    /// Refuses its keys from now on and erases its data; the id is never used again
    Delete {
        tenant: TenantId,
        #[command(flatten)]
        data: DataArg,
    },
}

#[derive(Subcommand)]
enum KeyCommand {
    /// Prints a new key; its secret is shown once and not kept
    Create {
        tenant: TenantId,
        /// What the key may do: ingest, read, admin, platform
        #[arg(long, value_delimiter = ',', default_values = ["ingest", "read"])]
        roles: Vec<Role>,
        #[command(flatten)]
        data: DataArg,
    },
    List {
        #[arg(long)]
        tenant: Option<TenantId>,
        #[command(flatten)]
        data: DataArg,
    },
    /// Refused everywhere within 10 seconds
    Revoke {
        public_key: String,
        #[command(flatten)]
        data: DataArg,
    },
}

/// A plan is walked level by level, and a statement may have many. Memory is taken when a stack grows, not before.
const STACK_BYTES: usize = 32 << 20;

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().thread_stack_size(STACK_BYTES).enable_all().build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("tracelake: no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(async {
        match arguments.command {
            Command::Serve(arguments) => serve(arguments.settings()?).await,
            Command::Demo(arguments) => show(arguments).await,
            Command::Sql(arguments) => sql(arguments).await,
            Command::Compact(arguments) => compact(arguments).await,
            Command::Tenant(command) => tenant(command).await,
            Command::Key(command) => key(command).await,
            Command::Erase(arguments) => {
                let connection = arguments.server.connect().await?;
                Ok(erase(&connection, arguments.subject, &mut std::io::stdout()).await?)
            }
            Command::Erasures(server) => Ok(erasures(&server.connect().await?, &mut std::io::stdout()).await?),
            Command::Subject(SubjectCommand::Export { user, out, server }) => {
                export(&server.connect().await?, &user, &out).await
            }
            Command::Prices => prices(),
            Command::Vacuum(arguments) => vacuum(arguments).await,
            Command::Doctor(arguments) => doctor(arguments).await,
        }
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tracelake: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(settings: Settings) -> Outcome {
    log_to_stderr(&settings.log_level);
    settings.log();
    let running = server::start(settings.server()).await?;
    println!("tracelake {} on {}", env!("CARGO_PKG_VERSION"), settings.data);
    announce(&running)?;
    running.until(asked_to_stop()).await?;
    Ok(())
}

fn announce(running: &Running) -> Outcome {
    let mut out = std::io::stdout().lock();
    writeln!(out, "gRPC {}", running.grpc_addr)?;
    writeln!(out, "HTTP {}", running.http_addr)?;
    out.flush()?;
    Ok(())
}

/// Resolves on SIGTERM or ctrl-C.
async fn asked_to_stop() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return std::future::pending().await };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}

fn log_to_stderr(level: &str) {
    let filter = tracing_subscriber::EnvFilter::try_new(level).unwrap_or_else(|_| "info".into());
    let ansi = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(ansi).init();
}

async fn show(arguments: DemoArgs) -> Outcome {
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
fn fresh_folder(wanted: &std::path::Path) -> Outcome<String> {
    let text = |path: &std::path::Path| path.to_str().map(str::to_owned).ok_or("the folder's name is not UTF-8");
    if !wanted.exists() || wanted.read_dir()?.next().is_none() {
        return Ok(text(wanted)?);
    }
    let name = text(wanted)?;
    let free = (2..1000).map(|number| format!("{name}-{number}")).find(|name| !std::path::Path::new(name).exists());
    free.ok_or_else(|| format!("{name} and a thousand like it are taken").into())
}

async fn sql(arguments: SqlArgs) -> Outcome {
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

async fn export(connection: &Connection, user: &str, out: &std::path::Path) -> Outcome {
    let files = export_subject(connection, user, out, SystemClock.now_us()).await?;
    for file in files {
        println!("{:>10} rows  {:>12} bytes  {}", file.rows, file.bytes, out.join(file.name).display());
    }
    println!("receipt: {}", out.join("receipt.json").display());
    Ok(())
}

async fn compact(arguments: CompactArgs) -> Outcome {
    log_to_stderr(&arguments.log_level);
    let settings = CompactSettings {
        memory_max: arguments.compact_memory_max,
        workers: arguments.compact_workers,
        files_max: arguments.compact_files_max,
        lease_s: arguments.compact_lease_s,
        ..Default::default()
    };
    let compactor = server::compactor(&Store::open(arguments.data.data.parse()?).await?, settings)?;
    if arguments.follow {
        let role = compactor.start()?;
        println!("merging files of {} until ctrl-C", arguments.data.data);
        asked_to_stop().await;
        role.stop().await;
        println!("{}", compactor.done());
    } else {
        println!("{}", compactor.run_once().await?);
    }
    match compactor.parked() {
        parked if parked.is_empty() => Ok(()),
        parked => {
            parked.iter().for_each(|parked| eprintln!("{parked}"));
            Err(format!("files of {} days stay as they are", parked.len()).into())
        }
    }
}

async fn keys_of(data: &DataArg) -> Outcome<Keys> {
    Ok(server::open_keys(&Store::open(data.data.parse()?).await?).await?)
}

async fn tenant(command: TenantCommand) -> Outcome {
    match command {
        TenantCommand::Create { tenant, data } => {
            keys_of(&data).await?.tenants().create(&tenant).await?;
            println!("tenant {tenant} created; next: tracelake key create {tenant} --data {}", data.data);
        }
        TenantCommand::List { data } => {
            for tenant in keys_of(&data).await?.tenants().list().await? {
                println!("{tenant}");
            }
        }
        TenantCommand::Retention { tenant, days, table, forever, data } => {
            let asked = (!table.is_empty() || days.is_some() || forever)
                .then(|| Retention { days: days.filter(|days| *days > 0), tables: table.into_iter().collect() });
            retention(&tenant, asked, &data).await?;
        }
        TenantCommand::Delete { tenant, data } => {
            let store = Store::open(data.data.parse()?).await?;
            server::open_keys(&store).await?.tenants().delete(&tenant).await?;
            let asked = NewErasure {
                tenant: tenant.clone(),
                kind: ErasureKind::Tenant,
                values: vec![tenant.to_string()],
                asked_by: "command line".to_owned(),
                traces: Default::default(),
            };
            Catalog::new(store, Arc::new(SystemClock)).erasures().ask(asked).await?;
            println!("tenant {tenant} deleted: its keys are refused and its id is never used again");
            println!("its data is erased by the servers on this store, and a receipt kept");
        }
    }
    Ok(())
}

/// `TABLE=DAYS`, of a table there is.
fn table_days(text: &str) -> Result<(String, u32), String> {
    let (table, days) = text.split_once('=').ok_or("use TABLE=DAYS, such as observation_io=30")?;
    let known = Table::from_name(table).ok_or_else(|| {
        let names: Vec<&str> = Table::ALL.iter().map(|table| table.name()).collect();
        format!("there is no table {table:?}, only {}", names.join(", "))
    })?;
    Ok((known.name().to_owned(), days.parse().map_err(|_| format!("{days:?} is not a number of days"))?))
}

async fn retention(tenant: &TenantId, asked: Option<Retention>, data: &DataArg) -> Outcome {
    let store = Store::open(data.data.parse()?).await?;
    let objects = SystemObjects::new(store, Arc::new(SystemClock));
    Tenants::new(objects.clone()).require_live(tenant).await?;
    let retentions = Retentions::new(objects);
    if let Some(rule) = &asked {
        retentions.set(tenant, rule).await?;
    }
    println!("{}", retentions.of(tenant).await?.unwrap_or_default());
    Ok(())
}

async fn vacuum(arguments: VacuumArgs) -> Outcome {
    log_to_stderr("warn");
    let settings = UpkeepSettings {
        linger_s: arguments.removed_files_kept_s,
        log_kept_s: arguments.delta_log_kept_s,
        retention_days: arguments.retention_days.filter(|days| *days > 0),
        ..Default::default()
    };
    let VacuumArgs { tenant, dry_run, data, .. } = arguments;
    let order = VacuumOrder { data: data.data.parse()?, tenant, dry_run, settings };
    match cli::vacuum(order, &mut std::io::stdout()).await? {
        true => Ok(()),
        false => Err("some tables could not be vacuumed: see above".into()),
    }
}

async fn doctor(arguments: DoctorArgs) -> Outcome {
    log_to_stderr("error");
    let DoctorArgs { data, tenant, fix } = arguments;
    let store = match fix {
        true => Store::open(data.data.parse()?).await?,
        false => Store::open_read_only(data.data.parse()?)?,
    };
    let examination = doctor::examine(store, Arc::new(SystemClock), doctor::Order { tenant, fix }).await?;
    println!("{examination}");
    match examination.is_healthy() {
        true => Ok(()),
        false => Err("this store needs attention: see above".into()),
    }
}

async fn key(command: KeyCommand) -> Outcome {
    match command {
        KeyCommand::Create { tenant, roles, data } => {
            let new = NewKey::with_roles(tenant, roles.into_iter().collect());
            let created = keys_of(&data).await?.create(new).await?;
            println!("TRACELAKE_PUBLIC_KEY={}", created.public_key);
            println!("TRACELAKE_SECRET_KEY={}", created.secret_key);
        }
        KeyCommand::List { tenant, data } => {
            for key in keys_of(&data).await?.list(tenant.as_ref()).await? {
                println!("{key}");
            }
        }
        KeyCommand::Revoke { public_key, data } => {
            keys_of(&data).await?.revoke(&public_key).await?;
            println!("key {public_key} revoked");
        }
    }
    Ok(())
}

fn prices() -> Outcome {
    let book = PriceBook::built_in();
    let mut out = std::io::stdout().lock();
    writeln!(out, "price book {}", book.version())?;
    for model in book.models() {
        writeln!(out, "{model}")?;
    }
    Ok(())
}
