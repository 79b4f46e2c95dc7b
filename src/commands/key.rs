//! `tracelake key`: who may do what.

use clap::Subcommand;
use tracelake::base::{Day, TenantId};
use tracelake::catalog::keys::{Bound, NewKey, Role};

use super::{DataArg, Outcome};

#[derive(Subcommand)]
pub(super) enum KeyCommand {
    /// Prints a new key; its secret is shown once and not kept
    Create {
        tenant: TenantId,
        /// What the key may do: ingest, read, admin, platform; `ingest,read` unless said, `read` for a bound key
        #[arg(long, value_delimiter = ',')]
        roles: Option<Vec<Role>>,
        /// Shows it the rows of this account only; with the role `read` alone
        #[arg(long, conflicts_with = "user")]
        account: Option<String>,
        /// Shows it the rows of this user only; with the role `read` alone
        #[arg(long)]
        user: Option<String>,
        /// The day, in UTC, on which it is first refused: 2027-01-31
        #[arg(long)]
        expires: Option<Day>,
        #[command(flatten)]
        data: DataArg,
    },
    /// Says what each key may do, what it is bound to and until when it is taken
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
        KeyCommand::Create { tenant, roles, account, user, expires, data } => {
            let bound = account.map(Bound::Account).or(user.map(Bound::User));
            // A bound key reads and does nothing else: that need not be said.
            let roles = roles.unwrap_or_else(|| match bound {
                Some(_) => vec![Role::Read],
                None => vec![Role::Ingest, Role::Read],
            });
            let expires_us = expires.map(Day::start_us);
            let new = NewKey { bound, expires_us, ..NewKey::with_roles(tenant, roles.into_iter().collect()) };
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
