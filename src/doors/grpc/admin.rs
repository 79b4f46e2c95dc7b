//! `tracelake.v1.AdminService`: tenants, their keys and settings.

use tonic::{Request, Response, Status};

use super::super::auth::Caller;
use super::super::{Doors, Refusal, audit};
use super::passed;
use crate::base::{Kind, TenantId};
use crate::catalog::keys::{self, Bound, NewKey, Role};
use crate::catalog::retention;
use crate::catalog::system::SystemError;
use crate::masking::{Find, MaskingAction, MaskingRule};
use crate::model;
use crate::wire;
use crate::wire::admin_service_server::AdminService;
use crate::wire::{
    CreateKeyRequest, CreateKeyResponse, CreateTenantRequest, CreateTenantResponse, DeleteTenantRequest,
    DeleteTenantResponse, DimensionKeys, FlushRequest, FlushResponse, GetStatusRequest, GetStatusResponse,
    GetTenantSettingsRequest, GetTenantSettingsResponse, Key, KeyRole, ListKeysRequest, ListKeysResponse,
    ListTenantsRequest, ListTenantsResponse, MemoryUse, Retention, RevokeKeyRequest, RevokeKeyResponse,
    SetDimensionsRequest, SetDimensionsResponse, SetMaskingRequest, SetMaskingResponse, SetRetentionRequest,
    SetRetentionResponse, Tenant, masking_rule,
};

pub(super) struct AdminDesk(pub(super) Doors);

type Answer<T> = Result<Response<T>, Status>;

/// Whom a call is about: the key's own tenant, or with the role `platform` any. Nobody else learns whether another exists.
fn tenant_of(caller: &Caller, named: &str) -> Result<TenantId, Refusal> {
    if named.is_empty() || named == caller.who.tenant.as_str() {
        return Ok(caller.who.tenant.clone());
    }
    caller.who.require(Role::Platform)?;
    let tenant = named.parse().map_err(SystemError::from)?;
    audit::passed(&tenant, Role::Platform);
    Ok(tenant)
}

/// The tenant of a call that must name it.
fn named(text: &str) -> Result<TenantId, Refusal> {
    let tenant = text.parse().map_err(SystemError::from)?;
    audit::passed(&tenant, Role::Platform);
    Ok(tenant)
}

impl AdminDesk {
    /// One tenant, or `None` for all of them.
    async fn one_or_all(&self, caller: &Caller, named: &str, all: bool) -> Result<Option<TenantId>, Refusal> {
        if !all {
            let tenant = tenant_of(caller, named)?;
            self.0.administration.require(&tenant).await?;
            return Ok(Some(tenant));
        }
        if !named.is_empty() {
            return Err(Refusal::new(Kind::Invalid, "either tenant or all_tenants, not both"));
        }
        caller.who.require(Role::Platform)?;
        Ok(None)
    }
}

#[tonic::async_trait]
impl AdminService for AdminDesk {
    async fn create_tenant(&self, request: Request<CreateTenantRequest>) -> Answer<CreateTenantResponse> {
        passed(&request)?;
        let tenant = named(&request.get_ref().tenant)?;
        self.0.keys.tenants().create(&tenant).await.map_err(Refusal::from)?;
        Ok(Response::new(CreateTenantResponse {}))
    }

    async fn list_tenants(&self, request: Request<ListTenantsRequest>) -> Answer<ListTenantsResponse> {
        passed(&request)?;
        let all = self.0.keys.tenants().list().await.map_err(Refusal::from)?;
        let tenants = all.into_iter().map(|tenant| Tenant {
            id: tenant.id,
            created_unix_micros: tenant.created_us,
            deleted_unix_micros: tenant.deleted_us,
        });
        Ok(Response::new(ListTenantsResponse { tenants: tenants.collect() }))
    }

    async fn delete_tenant(&self, request: Request<DeleteTenantRequest>) -> Answer<DeleteTenantResponse> {
        let (caller, _) = passed(&request)?;
        let tenant = named(&request.get_ref().tenant)?;
        let asked = self.0.administration.delete_tenant(&tenant, &caller.who.public_key).await;
        let erasure = asked.map_err(Refusal::from)?;
        Ok(Response::new(DeleteTenantResponse { erasure_id: erasure.id.clone() }))
    }

    async fn create_key(&self, request: Request<CreateKeyRequest>) -> Answer<CreateKeyResponse> {
        let (caller, _) = passed(&request)?;
        let asked = request.into_inner();
        let tenant = tenant_of(&caller, &asked.tenant)?;
        let new = new_key(tenant, asked)?;
        let created = self.0.administration.create_key(&caller.who.roles, new).await.map_err(Refusal::from)?;
        Ok(Response::new(CreateKeyResponse { public_key: created.public_key, secret_key: created.secret_key }))
    }

    async fn list_keys(&self, request: Request<ListKeysRequest>) -> Answer<ListKeysResponse> {
        let (caller, _) = passed(&request)?;
        let tenant = tenant_of(&caller, &request.get_ref().tenant)?;
        let keys = self.0.keys.list(Some(&tenant)).await.map_err(Refusal::from)?;
        Ok(Response::new(ListKeysResponse { keys: keys.into_iter().map(told).collect() }))
    }

    async fn revoke_key(&self, request: Request<RevokeKeyRequest>) -> Answer<RevokeKeyResponse> {
        let (caller, _) = passed(&request)?;
        let RevokeKeyRequest { tenant, public_key } = request.get_ref();
        let tenant = tenant_of(&caller, tenant)?;
        let revoked = self.0.administration.revoke_key(&caller.who.roles, &tenant, public_key).await;
        revoked.map_err(Refusal::from)?;
        Ok(Response::new(RevokeKeyResponse {}))
    }

    async fn set_masking(&self, request: Request<SetMaskingRequest>) -> Answer<SetMaskingResponse> {
        let (caller, _) = passed(&request)?;
        let SetMaskingRequest { tenant, rules } = request.into_inner();
        let tenant = tenant_of(&caller, &tenant)?;
        let rules = rules.into_iter().map(rule_of).collect::<Result<_, _>>()?;
        let set = self.0.administration.set_masking(&tenant, rules, &caller.who.public_key).await;
        set.map_err(Refusal::from)?;
        Ok(Response::new(SetMaskingResponse {}))
    }

    async fn get_status(&self, request: Request<GetStatusRequest>) -> Answer<GetStatusResponse> {
        let (caller, _) = passed(&request)?;
        let GetStatusRequest { tenant, all_tenants } = request.get_ref();
        let of = self.one_or_all(&caller, tenant, *all_tenants).await?;
        let ready = self.0.ready.ready().await;
        let node = self.0.operating.node(of.as_ref());
        let memory = self.0.budgets.iter().map(|budget| MemoryUse {
            name: budget.name().to_owned(),
            used_bytes: budget.used(),
            limit_bytes: budget.limit().bytes(),
        });
        Ok(Response::new(GetStatusResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            writer: node.writer,
            started_unix_micros: node.started_us,
            is_ready: ready.is_ok(),
            not_ready_reason: ready.err().unwrap_or_default(),
            memory: memory.collect(),
            held: node.held,
            followed_logs: node.followed_logs,
        }))
    }

    async fn flush(&self, request: Request<FlushRequest>) -> Answer<FlushResponse> {
        let (caller, _) = passed(&request)?;
        let FlushRequest { tenant, all_tenants } = request.get_ref();
        let of = self.one_or_all(&caller, tenant, *all_tenants).await?;
        let tables = self.0.operating.flush(of.as_ref()).await?;
        Ok(Response::new(FlushResponse { tables }))
    }

    async fn get_tenant_settings(
        &self,
        request: Request<GetTenantSettingsRequest>,
    ) -> Answer<GetTenantSettingsResponse> {
        let (caller, _) = passed(&request)?;
        let tenant = tenant_of(&caller, &request.get_ref().tenant)?;
        let administration = &self.0.administration;
        let rule = administration.retention(&tenant).await.map_err(Refusal::from)?;
        let dimensions = administration.dimensions(&tenant).await.map_err(Refusal::from)?;
        let retention = rule.map(|rule| Retention { days: rule.days, table_days: rule.tables });
        let masking = administration.masking(&tenant).await.map_err(Refusal::from)?;
        let masking = masking.into_iter().map(masking_told).collect();
        let dimensions = Some(dimensions_told(&dimensions));
        Ok(Response::new(GetTenantSettingsResponse { retention, dimensions, masking }))
    }

    async fn set_retention(&self, request: Request<SetRetentionRequest>) -> Answer<SetRetentionResponse> {
        let (caller, _) = passed(&request)?;
        let SetRetentionRequest { tenant, retention } = request.into_inner();
        let tenant = tenant_of(&caller, &tenant)?;
        let Some(Retention { days, table_days }) = retention else {
            let message = "retention says how long rows are kept: {} keeps them for ever";
            return Err(Refusal::new(Kind::Invalid, message).into());
        };
        let rule = retention::Retention { days: days.filter(|days| *days > 0), tables: table_days };
        self.0.administration.set_retention(&tenant, &rule).await.map_err(Refusal::from)?;
        Ok(Response::new(SetRetentionResponse {}))
    }

    async fn set_dimensions(&self, request: Request<SetDimensionsRequest>) -> Answer<SetDimensionsResponse> {
        let (caller, _) = passed(&request)?;
        let SetDimensionsRequest { tenant, dimensions } = request.into_inner();
        let tenant = tenant_of(&caller, &tenant)?;
        let DimensionKeys { account, project, flow } = dimensions.unwrap_or_default();
        let by = &caller.who.public_key;
        let set = self.0.administration.set_dimensions(&tenant, [account, project, flow], by).await;
        let dimensions = Some(dimensions_told(&*set.map_err(Refusal::from)?));
        Ok(Response::new(SetDimensionsResponse { dimensions }))
    }
}

fn new_key(tenant: TenantId, asked: CreateKeyRequest) -> Result<NewKey, Refusal> {
    let invalid = |message: &str| Refusal::new(Kind::Invalid, message);
    let bound = match (asked.account, asked.user) {
        (Some(_), Some(_)) => return Err(invalid("account and user: a key is bound to one of them")),
        (account, user) => account.map(Bound::Account).or(user.map(Bound::User)),
    };
    let role = |number: &i32| match KeyRole::try_from(*number) {
        Ok(KeyRole::Ingest) => Ok(Role::Ingest),
        Ok(KeyRole::Read) => Ok(Role::Read),
        Ok(KeyRole::Admin) => Ok(Role::Admin),
        Ok(KeyRole::Platform) => Ok(Role::Platform),
        Ok(KeyRole::Unspecified) | Err(_) => Err(invalid("roles are INGEST, READ, ADMIN or PLATFORM")),
    };
    let roles = match (asked.roles.as_slice(), &bound) {
        ([], Some(_)) => [Role::Read].into(),
        ([], None) => [Role::Ingest, Role::Read].into(),
        (said, _) => said.iter().map(role).collect::<Result<_, _>>()?,
    };
    Ok(NewKey { bound, expires_us: asked.expires_unix_micros, ..NewKey::with_roles(tenant, roles) })
}

fn told(key: keys::Key) -> Key {
    let role = |role: &Role| match role {
        Role::Ingest => KeyRole::Ingest.into(),
        Role::Read => KeyRole::Read.into(),
        Role::Admin => KeyRole::Admin.into(),
        Role::Platform => KeyRole::Platform.into(),
    };
    let (account, user) = match key.bound {
        Some(Bound::Account(account)) => (Some(account), None),
        Some(Bound::User(user)) => (None, Some(user)),
        None => (None, None),
    };
    Key {
        public_key: key.public_key,
        tenant: key.tenant,
        roles: key.roles.iter().map(role).collect(),
        created_unix_micros: key.created_us,
        expires_unix_micros: key.expires_us,
        revoked_unix_micros: key.revoked_us,
        last_used_day: key.last_used.map(|day| day.to_string()),
        account,
        user,
    }
}

fn dimensions_told(keys: &model::DimensionKeys) -> DimensionKeys {
    let model::DimensionKeys { account, project, flow } = keys.clone();
    DimensionKeys { account: Some(account), project: Some(project), flow: Some(flow) }
}

fn rule_of(rule: wire::MaskingRule) -> Result<MaskingRule, Refusal> {
    let invalid = |what: &str| Refusal::new(Kind::Invalid, format!("rule {:?} {what}", rule.name));
    let action = match wire::MaskingAction::try_from(rule.action) {
        Ok(wire::MaskingAction::Drop) => MaskingAction::Drop,
        Ok(wire::MaskingAction::Hash) => MaskingAction::Hash,
        Ok(wire::MaskingAction::Redact) => MaskingAction::Redact,
        Ok(wire::MaskingAction::Detect) => MaskingAction::Detect,
        Ok(wire::MaskingAction::Unspecified) | Err(_) => {
            return Err(invalid("has no action: DROP, HASH, REDACT or DETECT"));
        }
    };
    let find = match rule.find.as_ref() {
        Some(masking_rule::Find::BuiltIn(true)) => Find::BuiltIn,
        Some(masking_rule::Find::Pattern(pattern)) => Find::Pattern(pattern.clone()),
        Some(masking_rule::Find::Path(path)) => Find::Path(path.clone()),
        Some(masking_rule::Find::BuiltIn(false)) | None => {
            return Err(invalid("does not say what to find: built_in, pattern or path"));
        }
    };
    Ok(MaskingRule { name: rule.name, find, action })
}

fn masking_told(rule: MaskingRule) -> wire::MaskingRule {
    let action = match rule.action {
        MaskingAction::Drop => wire::MaskingAction::Drop,
        MaskingAction::Hash => wire::MaskingAction::Hash,
        MaskingAction::Redact => wire::MaskingAction::Redact,
        MaskingAction::Detect => wire::MaskingAction::Detect,
    };
    let find = match rule.find {
        Find::BuiltIn => masking_rule::Find::BuiltIn(true),
        Find::Pattern(pattern) => masking_rule::Find::Pattern(pattern),
        Find::Path(path) => masking_rule::Find::Path(path),
    };
    wire::MaskingRule { name: rule.name, find: Some(find), action: action.into() }
}
