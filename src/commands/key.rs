//! `tracelake key`: who may do what.

use clap::Subcommand;
use tracelake::base::TenantId;
use tracelake::catalog::keys::{NewKey, Role};

use super::{DataArg, Outcome};

#[derive(Subcommand)]
pub(super) enum KeyCommand {
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

pub(super) async fn key(command: KeyCommand) -> Outcome {
    match command {
        KeyCommand::Create { tenant, roles, data } => {
            let new = NewKey::with_roles(tenant, roles.into_iter().collect());
            let created = super::keys_of(&data).await?.create(new).await?;
            println!("TRACELAKE_PUBLIC_KEY={}", created.public_key);
            println!("TRACELAKE_SECRET_KEY={}", created.secret_key);
        }
        KeyCommand::List { tenant, data } => {
            for key in super::keys_of(&data).await?.list(tenant.as_ref()).await? {
                println!("{key}");
            }
        }
        KeyCommand::Revoke { public_key, data } => {
            super::keys_of(&data).await?.revoke(&public_key).await?;
            println!("key {public_key} revoked");
        }
    }
    Ok(())
}
