//! `tracelake prices`: what models cost.

use std::path::PathBuf;

use clap::Subcommand;
use tracelake::base::TenantId;
use tracelake::cli::prices::{
    Checked, PriceDesk, SetPrice, check_price, import_prices, list_prices, remove_prices, set_price,
};

use super::Outcome;
use super::ask::ServerArgs;

#[derive(Subcommand)]
pub(super) enum PricesCommand {
    /// Lists the models that have a price, the tenant's own marked by *
    List {
        /// In the model's name or a provider's
        #[arg(default_value = "")]
        filter: String,
        /// Only the tenant's own
        #[arg(long)]
        own: bool,
        #[command(flatten)]
        desk: DeskArgs,
    },
    /// Says which price a model's name goes by, and what a call would cost; fails if it has none
    Check {
        #[command(flatten)]
        checked: Checked,
        #[command(flatten)]
        desk: DeskArgs,
    },
    /// Sets one price of one model, for the tenant
    Set {
        #[command(flatten)]
        set: SetPrice,
        #[command(flatten)]
        desk: DeskArgs,
    },
    /// Puts all models of a file into the tenant's own book: JSON or TOML as books are, CSV, or LiteLLM's JSON
    Import {
        file: PathBuf,
        /// What the file does not name leaves the tenant's own book
        #[arg(long)]
        replace_all: bool,
        #[command(flatten)]
        desk: DeskArgs,
    },
    /// Takes models out of the tenant's own book
    Remove {
        #[arg(required = true)]
        models: Vec<String>,
        #[command(flatten)]
        desk: DeskArgs,
    },
}

/// Who is asked: a server, a store, or this program
#[derive(clap::Args)]
pub(super) struct DeskArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// Read and change the prices in this store instead of asking a server
    #[arg(long, requires = "tenant")]
    data: Option<String>,
    /// Whose prices, with --data
    #[arg(long)]
    tenant: Option<TenantId>,
    /// The book that comes with this program, without a server
    #[arg(long, conflicts_with_all = ["data", "tenant"])]
    shipped: bool,
}

impl DeskArgs {
    async fn open(self) -> Outcome<PriceDesk> {
        match (self.shipped, &self.data, self.tenant) {
            (true, ..) => Ok(PriceDesk::Program),
            (false, Some(data), Some(tenant)) => Ok(PriceDesk::open(data.parse()?, tenant).await?),
            _ => Ok(PriceDesk::Server(Box::new(self.server.connect().await?))),
        }
    }
}

pub(super) async fn prices(command: PricesCommand) -> Outcome {
    let mut out = std::io::stdout();
    match command {
        PricesCommand::List { filter, own, desk } => list_prices(&desk.open().await?, &filter, own, &mut out).await?,
        PricesCommand::Check { checked, desk } => {
            let model = checked.model.clone();
            if !check_price(&desk.open().await?, checked, &mut out).await? {
                return Err(format!("{model} has no price").into());
            }
        }
        PricesCommand::Set { set, desk } => set_price(&desk.open().await?, set, &mut out).await?,
        PricesCommand::Import { file, replace_all, desk } => {
            import_prices(&desk.open().await?, &file, replace_all, &mut out).await?;
        }
        PricesCommand::Remove { models, desk } => remove_prices(&desk.open().await?, models, &mut out).await?,
    }
    Ok(())
}
