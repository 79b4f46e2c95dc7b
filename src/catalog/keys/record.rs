//! What a key is, at rest and in hand.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::base::{Day, TenantId, TimestampUs};
use crate::catalog::system::{Result, SystemError};

const PUBLIC_KEY_BYTES_MAX: usize = 100;
const SECRET_BYTES_MAX: usize = 500;

/// What a key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Write traces and scores.
    Ingest,
    /// Ask metrics and SQL about its tenant.
    Read,
    /// Its tenant's keys, prices and erasure.
    Admin,
    /// All tenants: aggregates and administration, never rows.
    Platform,
}

/// The one value of a dimension a key may see.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Bound {
    Account(String),
    User(String),
}

/// For whom a key may write.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WritesFor {
    #[default]
    Own,
    /// Its own tenant and these.
    Listed(BTreeSet<String>),
    All,
}

/// What a key is created with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewKey {
    pub tenant: TenantId,
    pub roles: BTreeSet<Role>,
    pub expires_us: Option<TimestampUs>,
    pub bound: Option<Bound>,
    pub writes_for: WritesFor,
}

/// A key as it is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    pub public_key: String,
    pub tenant: String,
    pub roles: BTreeSet<Role>,
    pub created_us: TimestampUs,
    pub expires_us: Option<TimestampUs>,
    pub revoked_us: Option<TimestampUs>,
    /// UTC. `None`: never, or before this was kept.
    pub last_used: Option<Day>,
    pub bound: Option<Bound>,
    pub writes_for: WritesFor,
}

/// One line of a list.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let roles: Vec<&str> = self.roles.iter().map(|role| role.as_str()).collect();
        let (key, tenant, roles) = (&self.public_key, &self.tenant, roles.join(","));
        write!(f, "{key:<44} {tenant:<24} {roles:<20} created {}", Day::of_us(self.created_us))?;
        if let Some(expires_us) = self.expires_us {
            write!(f, "  expires {}", Day::of_us(expires_us))?;
        }
        if let Some(day) = self.last_used {
            write!(f, "  last used {day}")?;
        }
        match &self.bound {
            Some(Bound::Account(account)) => write!(f, "  account {account:?}")?,
            Some(Bound::User(user)) => write!(f, "  user {user:?}")?,
            None => {}
        }
        match self.revoked_us {
            Some(revoked_us) => write!(f, "  revoked {}", Day::of_us(revoked_us)),
            None => Ok(()),
        }
    }
}

/// Who is asking: the owner of a key that was shown with its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub public_key: String,
    pub tenant: TenantId,
    pub roles: BTreeSet<Role>,
    pub bound: Option<Bound>,
    pub writes_for: WritesFor,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) public_key: String,
    pub(super) tenant: String,
    pub(super) roles: BTreeSet<Role>,
    /// HMAC-SHA-256 of the secret under the pepper, hexadecimal.
    pub(super) secret_hmac: String,
    pub(super) pepper: u32,
    pub(super) created_us: TimestampUs,
    pub(super) expires_us: Option<TimestampUs>,
    pub(super) bound: Option<Bound>,
    pub(super) writes_for: WritesFor,
}

impl NewKey {
    pub fn with_roles(tenant: TenantId, roles: BTreeSet<Role>) -> Self {
        Self { tenant, roles, expires_us: None, bound: None, writes_for: WritesFor::Own }
    }
}

impl Identity {
    /// An error that names the role needed, unless the key has it.
    pub fn require(&self, role: Role) -> Result<()> {
        self.require_any(&[role]).map(drop)
    }

    /// The first of these roles that the key has; else an error that names them.
    pub fn require_any(&self, roles: &[Role]) -> Result<Role> {
        if let Some(role) = roles.iter().find(|role| self.roles.contains(role)) {
            return Ok(*role);
        }
        let needed: Vec<String> = roles.iter().map(|role| format!("`{role}`")).collect();
        let has: Vec<&str> = self.roles.iter().map(|role| role.as_str()).collect();
        let (needed, key, has) = (needed.join(" or "), &self.public_key, has.join(", "));
        Err(SystemError::Forbidden(format!("this needs a key with the role {needed}; key {key} has: {has}")))
    }
}

impl WritesFor {
    pub fn allows(&self, tenant: &TenantId) -> bool {
        match self {
            Self::Own => false,
            Self::Listed(listed) => listed.contains(tenant.as_str()),
            Self::All => true,
        }
    }
}

impl Record {
    pub(super) fn new(
        public_key: &str,
        secret_hmac: String,
        pepper: u32,
        created_us: TimestampUs,
        new: NewKey,
    ) -> Result<Self> {
        if new.roles.is_empty() {
            return Err(SystemError::Invalid("a key needs at least one role".to_owned()));
        }
        if new.writes_for != WritesFor::Own && !new.roles.contains(&Role::Ingest) {
            return Err(SystemError::Invalid("a key that writes for other tenants needs the role `ingest`".to_owned()));
        }
        if new.bound.is_some() && new.roles.iter().any(|role| *role != Role::Read) {
            return Err(SystemError::Invalid(
                "a key bound to an account or a user can have the role `read` only".to_owned(),
            ));
        }
        Ok(Self {
            public_key: public_key.to_owned(),
            tenant: new.tenant.to_string(),
            roles: new.roles,
            secret_hmac,
            pepper,
            created_us,
            expires_us: new.expires_us,
            bound: new.bound,
            writes_for: new.writes_for,
        })
    }

    pub(super) fn identity(&self) -> Result<Identity> {
        Ok(Identity {
            public_key: self.public_key.clone(),
            tenant: self.tenant.parse()?,
            roles: self.roles.clone(),
            bound: self.bound.clone(),
            writes_for: self.writes_for.clone(),
        })
    }

    pub(super) fn into_key(self, revoked: &BTreeMap<String, TimestampUs>, used: &HashMap<String, Day>) -> Key {
        Key {
            last_used: used.get(&self.public_key).copied(),
            revoked_us: revoked.get(&self.public_key).copied(),
            public_key: self.public_key,
            tenant: self.tenant,
            roles: self.roles,
            created_us: self.created_us,
            expires_us: self.expires_us,
            bound: self.bound,
            writes_for: self.writes_for,
        }
    }
}

impl Role {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Read => "read",
            Self::Admin => "admin",
            Self::Platform => "platform",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = SystemError;

    fn from_str(text: &str) -> Result<Self> {
        let all = [Self::Ingest, Self::Read, Self::Admin, Self::Platform];
        let unknown = || SystemError::Invalid(format!("{text:?} is not a role: use ingest, read, admin or platform"));
        all.into_iter().find(|role| role.as_str() == text).ok_or_else(unknown)
    }
}

/// Public keys are chosen by users: anything printable that Basic authentication can carry.
pub(super) fn check_public_key(public_key: &str) -> Result<()> {
    let legal = |byte: u8| byte.is_ascii_graphic() && byte != b':';
    match (1..=PUBLIC_KEY_BYTES_MAX).contains(&public_key.len()) && public_key.bytes().all(legal) {
        true => Ok(()),
        false => Err(SystemError::Invalid(format!(
            "a public key has 1 to {PUBLIC_KEY_BYTES_MAX} printable ASCII characters other than space and ':'"
        ))),
    }
}

pub(super) fn check_secret(secret_key: &str) -> Result<()> {
    match (1..=SECRET_BYTES_MAX).contains(&secret_key.len()) {
        true => Ok(()),
        false => Err(SystemError::Invalid(format!("a secret key has 1 to {SECRET_BYTES_MAX} bytes"))),
    }
}

/// Keys of our own making as they are; any other in hexadecimal after a `_`, because file systems fold case and give
/// some characters a meaning.
pub(super) fn path_segment(public_key: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    match public_key.bytes().all(plain) {
        true => public_key.to_owned(),
        false => format!("_{}", hex::encode(public_key)),
    }
}
