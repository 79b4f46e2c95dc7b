//! Tenants: `system/tenants/{id}` says one was created, `system/tenants-deleted/{id}` that it is gone for ever.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::recent::Recent;
use super::system::{Result, SystemError, SystemObjects};
use crate::base::{Day, TenantId, TimestampUs};

const TENANTS: &str = "tenants";
const DELETED: &str = "tenants-deleted";
/// Tenants whose state is kept in memory.
const TENANTS_RECENT_MAX: usize = 10_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TenantState {
    Live,
    Missing,
    Deleted,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    pub id: String,
    pub created_us: TimestampUs,
    pub deleted_us: Option<TimestampUs>,
}

/// One line of a list.
impl fmt::Display for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<24} created {}", self.id, Day::of_us(self.created_us))?;
        match self.deleted_us {
            Some(deleted_us) => write!(f, "  deleted {}", Day::of_us(deleted_us)),
            None => Ok(()),
        }
    }
}

/// The tenants of one store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Tenants {
    objects: SystemObjects,
    recent: Arc<Recent<TenantState>>,
}

#[derive(Debug, Serialize, Deserialize)]
struct CreatedTenant {
    id: String,
    created_us: TimestampUs,
}

#[derive(Debug, Serialize, Deserialize)]
struct DeletedTenant {
    id: String,
    deleted_us: TimestampUs,
}

impl Tenants {
    pub fn new(objects: SystemObjects) -> Self {
        Self { objects, recent: Arc::new(Recent::new(TENANTS_RECENT_MAX)) }
    }

    /// The tenant exists, durably, on return. An id that was ever used is refused.
    pub async fn create(&self, tenant: &TenantId) -> Result<()> {
        match self.create_if_absent(tenant).await? {
            true => Ok(()),
            false => Err(SystemError::TenantExists(tenant.to_string())),
        }
    }

    /// Whether it was created just now. A deleted tenant is an error.
    pub async fn create_if_absent(&self, tenant: &TenantId) -> Result<bool> {
        if self.objects.get::<DeletedTenant>(DELETED, tenant.as_str()).await?.is_some() {
            return Err(SystemError::TenantDeleted(tenant.to_string()));
        }
        let body = CreatedTenant { id: tenant.to_string(), created_us: self.objects.now_us() };
        let found = self.objects.create(TENANTS, tenant.as_str(), body).await?;
        self.recent.forget(tenant.as_str());
        Ok(found.is_none())
    }

    /// From now on, and on other nodes within 10 seconds, the tenant's keys are refused. Deleting twice is no error.
    pub async fn delete(&self, tenant: &TenantId) -> Result<()> {
        if self.objects.get::<CreatedTenant>(TENANTS, tenant.as_str()).await?.is_none() {
            return Err(SystemError::TenantMissing(tenant.to_string()));
        }
        let body = DeletedTenant { id: tenant.to_string(), deleted_us: self.objects.now_us() };
        self.objects.create(DELETED, tenant.as_str(), body).await?;
        self.recent.forget(tenant.as_str());
        Ok(())
    }

    /// All tenants that ever were, by id.
    pub async fn list(&self) -> Result<Vec<Tenant>> {
        let (created, deleted) =
            futures::try_join!(self.objects.all::<CreatedTenant>(TENANTS), self.objects.all::<DeletedTenant>(DELETED))?;
        let deleted: BTreeMap<String, TimestampUs> = deleted.into_iter().map(|it| (it.id, it.deleted_us)).collect();
        let with_deletion = |it: CreatedTenant| {
            let deleted_us = deleted.get(&it.id).copied();
            Tenant { id: it.id, created_us: it.created_us, deleted_us }
        };
        Ok(created.into_iter().map(with_deletion).collect())
    }

    /// The tenants that are not deleted, by id: two LISTs, whatever their number.
    pub async fn live(&self) -> Result<Vec<TenantId>> {
        let (created, deleted) = futures::try_join!(self.objects.names(TENANTS), self.objects.names(DELETED))?;
        let deleted: BTreeSet<String> = deleted.into_iter().collect();
        let live = created.into_iter().filter(|name| !deleted.contains(name));
        live.map(|name| Ok(name.parse::<TenantId>()?)).collect()
    }

    /// At most 10 seconds stale; never lists.
    pub async fn state(&self, tenant: &TenantId) -> Result<TenantState> {
        let now_us = self.objects.now_us();
        if let Some(state) = self.recent.get(tenant.as_str(), now_us) {
            return Ok(state);
        }
        let (created, deleted) = futures::try_join!(
            self.objects.get::<CreatedTenant>(TENANTS, tenant.as_str()),
            self.objects.get::<DeletedTenant>(DELETED, tenant.as_str())
        )?;
        let state = match (created, deleted) {
            (_, Some(_)) => TenantState::Deleted,
            (Some(_), None) => TenantState::Live,
            (None, None) => TenantState::Missing,
        };
        self.recent.put(tenant.as_str(), now_us, state);
        Ok(state)
    }

    /// An error that names why data cannot be written to or asked of `tenant`, if so.
    pub async fn require_live(&self, tenant: &TenantId) -> Result<()> {
        match self.state(tenant).await? {
            TenantState::Live => Ok(()),
            TenantState::Missing => Err(SystemError::TenantMissing(tenant.to_string())),
            TenantState::Deleted => Err(SystemError::TenantDeleted(tenant.to_string())),
        }
    }
}
