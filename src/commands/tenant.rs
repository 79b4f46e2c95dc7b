//! `tracelake tenant`: who the tables belong to.

use clap::Subcommand;
use tracelake::base::{SystemClock, TenantId};
use tracelake::catalog::Catalog;
use tracelake::catalog::administration::Administration;
use tracelake::catalog::retention::{Retention, Retentions};
use tracelake::catalog::system::SystemObjects;
use tracelake::catalog::tenants::Tenants;
use tracelake::masking::{Find, MaskingRule};
use tracelake::model::tables::Table;
use tracelake::server;
use tracelake::store::Store;

use super::{DataArg, Outcome, masking};

/// Who changes what is changed here.
const BY: &str = "command line";

#[derive(Subcommand)]
pub(super) enum TenantCommand {
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
    /// Says, or sets, which metadata keys name the tenant's own customers, projects and flows
    Dimensions {
        tenant: TenantId,
        /// The metadata key of observations.account; * at the front matches any beginning
        #[arg(long)]
        account: Option<String>,
        /// … of observations.project
        #[arg(long)]
        project: Option<String>,
        /// … of observations.flow
        #[arg(long)]
        flow: Option<String>,
        #[command(flatten)]
        data: DataArg,
    },
    /// Says, or sets, what is masked in all that it sends before anything is written; off where there is no rule
    Masking {
        tenant: TenantId,
        /// A rule that tracelake brings along, NAME=ACTION: email, phone, cpf, credit_card or api_key, or all of them as
        /// `all`; drop, hash, redact or detect. Like the others it replaces the rule of that name
        #[arg(long)]
        rule: Vec<String>,
        /// A regular expression, NAME=ACTION:EXPRESSION, such as 'badge=hash:\bB-\d{6}\b'
        #[arg(long)]
        pattern: Vec<String>,
        /// Where it stands, NAME=ACTION:PATH, such as document=drop:metadata.customer.document; a path begins with a
        /// field (input, output, metadata, attributes, user_id, …), goes through lists, and * is any key
        #[arg(long)]
        path: Vec<String>,
        /// Takes the rule of this name away
        #[arg(long)]
        remove: Vec<String>,
        /// Takes all rules away; the key of hashes is kept
        #[arg(long)]
        clear: bool,
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

pub(super) async fn tenant(command: TenantCommand) -> Outcome {
    match command {
        TenantCommand::Create { tenant, data } => {
            super::keys_of(&data).await?.tenants().create(&tenant).await?;
            println!("tenant {tenant} created; next: tracelake key create {tenant} --data {}", data.data);
        }
        TenantCommand::List { data } => {
            for tenant in super::keys_of(&data).await?.tenants().list().await? {
                println!("{tenant}");
            }
        }
        TenantCommand::Retention { tenant, days, table, forever, data } => {
            let asked = (!table.is_empty() || days.is_some() || forever)
                .then(|| Retention { days: days.filter(|days| *days > 0), tables: table.into_iter().collect() });
            retention(&tenant, asked, &data).await?;
        }
        TenantCommand::Dimensions { tenant, account, project, flow, data } => {
            let administration = administration(&data).await?;
            let keys = administration.set_dimensions(&tenant, [account, project, flow], BY).await?;
            println!("{keys}");
        }
        TenantCommand::Masking { tenant, rule, pattern, path, remove, clear, data } => {
            let new = rule.iter().map(|text| masking::built_in(text)).collect::<Result<Vec<_>, _>>()?.concat();
            let patterns = pattern.iter().map(|text| masking::told(text, Find::Pattern));
            let paths = path.iter().map(|text| masking::told(text, Find::Path));
            let new: Vec<MaskingRule> =
                new.into_iter().map(Ok).chain(patterns).chain(paths).collect::<Result<_, _>>()?;
            let (store, objects) = objects_of(&data).await?;
            Tenants::new(objects).require_live(&tenant).await?;
            let catalog = Catalog::new(store, std::sync::Arc::new(SystemClock));
            let maskings = catalog.maskings();
            maskings.load_once().await?;
            let before = maskings.rules(&tenant);
            let changed = masking::changed(before.clone(), new, &remove, clear)?;
            if changed != before {
                maskings.set(&tenant, changed, BY).await?;
            }
            masking::say(&maskings.rules(&tenant));
        }
        TenantCommand::Delete { tenant, data } => {
            administration(&data).await?.delete_tenant(&tenant, BY).await?;
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
    let administration = administration(data).await?;
    if let Some(rule) = &asked {
        administration.set_retention(tenant, rule).await?;
    }
    println!("{}", administration.retention(tenant).await?.unwrap_or_default());
    Ok(())
}

async fn administration(data: &DataArg) -> Result<Administration, Box<dyn std::error::Error>> {
    let store = Store::open(data.data.parse()?).await?;
    let keys = server::open_keys(&store).await?;
    let clock = std::sync::Arc::new(SystemClock);
    let retentions = Retentions::new(SystemObjects::new(store.clone(), clock.clone()));
    Ok(Administration::new(&Catalog::new(store, clock), keys, retentions))
}

async fn objects_of(data: &DataArg) -> Result<(Store, SystemObjects), Box<dyn std::error::Error>> {
    let store = Store::open(data.data.parse()?).await?;
    Ok((store.clone(), SystemObjects::new(store, std::sync::Arc::new(SystemClock))))
}
