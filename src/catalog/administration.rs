//! Administration of tenants and their keys, the same from the command line and from the doors.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Catalog;
use super::dimensions::Dimensions;
use super::erasures::{Erasure, ErasureKind, Erasures, NewErasure};
use super::keys::{CreatedKey, Key, Keys, NewKey, Role};
use super::maskings::Maskings;
use super::retention::{Retention, Retentions};
use super::system::{Result, SystemError};
use crate::base::TenantId;
use crate::masking::MaskingRule;
use crate::model::DimensionKeys;
use crate::model::tables::Table;

/// What may be administered of a store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Administration {
    keys: Keys,
    retentions: Retentions,
    dimensions: Dimensions,
    erasures: Erasures,
    maskings: Maskings,
}

impl Administration {
    pub fn new(catalog: &Catalog, keys: Keys, retentions: Retentions) -> Self {
        let (dimensions, erasures) = (catalog.dimensions().clone(), catalog.erasures().clone());
        let maskings = catalog.maskings().clone();
        Self { keys, retentions, dimensions, erasures, maskings }
    }

    /// An error if there is no such tenant, or none any more.
    pub async fn require(&self, tenant: &TenantId) -> Result<()> {
        self.keys.tenants().require_live(tenant).await
    }

    /// Refuses its keys from now on and asks for its data to be erased: servers on the store do that. Asked again where
    /// only the first half was done before.
    pub async fn delete_tenant(&self, tenant: &TenantId, asked_by: &str) -> Result<Arc<Erasure>> {
        self.keys.tenants().delete(tenant).await?;
        let asked = NewErasure {
            tenant: tenant.clone(),
            kind: ErasureKind::Tenant,
            values: vec![tenant.to_string()],
            asked_by: asked_by.to_owned(),
            traces: BTreeSet::new(),
        };
        self.erasures.ask(asked).await
    }

    /// A key of `new`'s tenant, made by somebody with these roles: none is given that stands above them.
    pub async fn create_key(&self, by: &BTreeSet<Role>, new: NewKey) -> Result<CreatedKey> {
        platform_by_platform(by, &new.roles, "made")?;
        self.keys.create(new).await
    }

    /// Revokes a key of `tenant`; that of another is not found.
    pub async fn revoke_key(&self, by: &BTreeSet<Role>, tenant: &TenantId, public_key: &str) -> Result<()> {
        let key: Option<Key> = self.keys.find(public_key).await?.filter(|key| key.tenant == tenant.as_str());
        let key = key.ok_or_else(|| SystemError::KeyMissing(public_key.to_owned()))?;
        platform_by_platform(by, &key.roles, "revoked")?;
        self.keys.revoke(public_key).await
    }

    /// The rule of a tenant; none: everything is kept for ever.
    pub async fn retention(&self, tenant: &TenantId) -> Result<Option<Retention>> {
        self.require(tenant).await?;
        self.retentions.of(tenant).await
    }

    /// Replaces the rule of a tenant, for the next round of upkeep.
    pub async fn set_retention(&self, tenant: &TenantId, rule: &Retention) -> Result<()> {
        if let Some(unknown) = rule.tables.keys().find(|name| Table::from_name(name).is_none()) {
            let known: Vec<&str> = Table::ALL.iter().map(|table| table.name()).collect();
            return Err(SystemError::Invalid(format!("there is no table {unknown:?}, only {}", known.join(", "))));
        }
        self.require(tenant).await?;
        self.retentions.set(tenant, rule).await
    }

    /// What is masked in what a tenant sends, in the order it was set.
    pub async fn masking(&self, tenant: &TenantId) -> Result<Vec<MaskingRule>> {
        self.require(tenant).await?;
        self.maskings.load_once().await?;
        Ok(self.maskings.rules(tenant))
    }

    /// Replaces the masking rules of a tenant.
    pub async fn set_masking(&self, tenant: &TenantId, rules: Vec<MaskingRule>, made_by: &str) -> Result<()> {
        self.require(tenant).await?;
        self.maskings.set(tenant, rules, made_by).await
    }

    /// The dimension keys that hold for a tenant.
    pub async fn dimensions(&self, tenant: &TenantId) -> Result<Arc<DimensionKeys>> {
        self.require(tenant).await?;
        self.dimensions.load_once().await?;
        Ok(self.dimensions.of(tenant))
    }

    /// Changes the keys that are said; those that hold then.
    pub async fn set_dimensions(
        &self,
        tenant: &TenantId,
        [account, project, flow]: [Option<String>; 3],
        made_by: &str,
    ) -> Result<Arc<DimensionKeys>> {
        let before = self.dimensions(tenant).await?;
        let keys = DimensionKeys {
            account: account.unwrap_or_else(|| before.account.clone()),
            project: project.unwrap_or_else(|| before.project.clone()),
            flow: flow.unwrap_or_else(|| before.flow.clone()),
        };
        if keys != *before {
            self.dimensions.set(tenant, keys, made_by).await?;
        }
        Ok(self.dimensions.of(tenant))
    }
}

/// A key's roles are given and taken by nobody who stands below them.
fn platform_by_platform(by: &BTreeSet<Role>, of: &BTreeSet<Role>, how: &str) -> Result<()> {
    match of.contains(&Role::Platform) && !by.contains(&Role::Platform) {
        true => Err(SystemError::Forbidden(format!("a key with the role `platform` is {how} by one that has it"))),
        false => Ok(()),
    }
}
