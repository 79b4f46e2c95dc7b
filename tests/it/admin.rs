//! `AdminService` from outside: who may administer what, over gRPC and HTTP, and what comes of it.

use std::process::Command;

use serde_json::{Value, json};
use tonic::Code;
use tracelake::wire::admin_service_client::AdminServiceClient;
use tracelake::wire::masking_rule::Find;
use tracelake::wire::{
    CreateKeyRequest, CreateTenantRequest, DeleteTenantRequest, DimensionKeys, FlushRequest, GetStatusRequest,
    GetTenantSettingsRequest, KeyRole, ListKeysRequest, ListTenantsRequest, MaskingAction, MaskingRule, Retention,
    RevokeKeyRequest, SetDimensionsRequest, SetMaskingRequest, SetRetentionRequest,
};

use crate::grpc::{Caller, basic};
use crate::http::HttpRequest;
use crate::process::{PUBLIC_KEY, SECRET_KEY, ServerProcess, path, rows};

/// A key made beside the data, as the first of its kind must be.
fn key_by_hand(data: &str, tenant: &str, roles: &str) -> (String, String) {
    let made = Command::new(env!("CARGO_BIN_EXE_tracelake"))
        .args(["key", "create", tenant, "--roles", roles, "--data", data])
        .output()
        .unwrap();
    let printed = String::from_utf8(made.stdout).unwrap();
    let value = |name: &str| printed.lines().find_map(|line| line.strip_prefix(name)).unwrap().to_owned();
    (value("TRACELAKE_PUBLIC_KEY="), value("TRACELAKE_SECRET_KEY="))
}

fn roles(roles: &[KeyRole]) -> Vec<i32> {
    roles.iter().map(|role| *role as i32).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_platform_key_runs_tenants_and_their_keys_from_birth_to_erasure() {
    let folder = tempfile::tempdir().unwrap();
    let server = ServerProcess::start(path(folder.path()));
    let (public_key, secret_key) = key_by_hand(path(folder.path()), "acme", "platform");
    let platform = Caller::connect(&server.grpc_addr, &public_key, &secret_key).await;
    let mut admin = AdminServiceClient::new(platform.channel.clone());
    let globex = || "globex".to_owned();

    admin.create_tenant(platform.signed(CreateTenantRequest { tenant: globex() })).await.unwrap();
    let again = admin.create_tenant(platform.signed(CreateTenantRequest { tenant: globex() })).await.unwrap_err();
    assert_eq!(again.code(), Code::AlreadyExists, "{again}");
    let nameless = admin.delete_tenant(platform.signed(DeleteTenantRequest::default())).await.unwrap_err();
    assert_eq!(nameless.code(), Code::InvalidArgument, "{nameless}");

    // A key of the new tenant works at once, and may administer it.
    let asked =
        CreateKeyRequest { tenant: globex(), roles: roles(&[KeyRole::Read, KeyRole::Admin]), ..Default::default() };
    let key = admin.create_key(platform.signed(asked)).await.unwrap().into_inner();
    let owner = Caller::connect(&server.grpc_addr, &key.public_key, &key.secret_key).await;
    owner.sql("SELECT 1").await.unwrap();

    // Nothing but an id is needed to be forgotten: keys are refused, and the id is used up.
    let deleted = admin.delete_tenant(platform.signed(DeleteTenantRequest { tenant: globex() })).await.unwrap();
    assert!(!deleted.into_inner().erasure_id.is_empty());
    let refused = owner.sql("SELECT 1").await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated, "{refused}");
    assert!(admin.create_tenant(platform.signed(CreateTenantRequest { tenant: globex() })).await.is_err());
    let listed = admin.list_tenants(platform.signed(ListTenantsRequest {})).await.unwrap().into_inner().tenants;
    let shown: Vec<(&str, bool)> =
        listed.iter().map(|tenant| (tenant.id.as_str(), tenant.deleted_unix_micros.is_some())).collect();
    assert_eq!(shown, [("acme", false), ("globex", true)]);
    assert!(owner_less(&server, &public_key, &secret_key).await, "and it still reads no rows");
}

/// A platform key without the role `read` is refused rows.
async fn owner_less(server: &ServerProcess, public_key: &str, secret_key: &str) -> bool {
    let caller = Caller::connect(&server.grpc_addr, public_key, secret_key).await;
    caller.sql("SELECT 1").await.is_err_and(|refused| refused.code() == Code::PermissionDenied)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_admin_key_administers_its_own_tenant_and_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let data = path(folder.path());
    let server = ServerProcess::start(data);
    let (public_key, secret_key) = key_by_hand(data, "acme", "platform");
    let platform = Caller::connect(&server.grpc_addr, &public_key, &secret_key).await;
    let mut calls = AdminServiceClient::new(platform.channel.clone());
    calls.create_tenant(platform.signed(CreateTenantRequest { tenant: "globex".to_owned() })).await.unwrap();
    let globex = CreateKeyRequest { tenant: "globex".to_owned(), ..Default::default() };
    let theirs = calls.create_key(platform.signed(globex.clone())).await.unwrap().into_inner();
    // The first key of a server has the roles ingest, read and admin.
    let admin = Caller::connect(&server.grpc_addr, PUBLIC_KEY, SECRET_KEY).await;

    // Another tenant, whether it is there or not.
    for tenant in ["globex", "initech"] {
        let key = CreateKeyRequest { tenant: tenant.to_owned(), ..Default::default() };
        let refusals = [
            calls.create_key(admin.signed(key)).await.unwrap_err(),
            calls.list_keys(admin.signed(ListKeysRequest { tenant: tenant.to_owned() })).await.unwrap_err(),
            calls
                .get_tenant_settings(admin.signed(GetTenantSettingsRequest { tenant: tenant.to_owned() }))
                .await
                .unwrap_err(),
            calls.delete_tenant(admin.signed(DeleteTenantRequest { tenant: tenant.to_owned() })).await.unwrap_err(),
        ];
        for refused in refusals {
            assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
            assert!(refused.message().contains("`platform`"), "{refused}");
        }
    }
    // Nor by the name of a key: that of another tenant is as good as none.
    for public_key in [theirs.public_key.as_str(), "pk-lf-nobody"] {
        let asked = RevokeKeyRequest { tenant: String::new(), public_key: public_key.to_owned() };
        let refused = calls.revoke_key(admin.signed(asked)).await.unwrap_err();
        assert_eq!(refused.code(), Code::NotFound, "{refused}");
    }
    let other = Caller::connect(&server.grpc_addr, &theirs.public_key, &theirs.secret_key).await;
    other.sql("SELECT 1").await.unwrap();
    // Nor a role above its own, nor the end of a key that has it.
    let above = CreateKeyRequest { roles: roles(&[KeyRole::Platform]), ..Default::default() };
    let refused = calls.create_key(admin.signed(above)).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    let asked = RevokeKeyRequest { public_key: public_key.clone(), ..Default::default() };
    let refused = calls.revoke_key(admin.signed(asked)).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");

    // Its own: a bound key, listed without its secret, then ended.
    let bound = CreateKeyRequest { user: Some("ada".to_owned()), ..Default::default() };
    let bound = calls.create_key(admin.signed(bound)).await.unwrap().into_inner();
    let listed = calls.list_keys(admin.signed(ListKeysRequest::default())).await.unwrap().into_inner().keys;
    let shown = listed.iter().find(|key| key.public_key == bound.public_key).unwrap();
    assert_eq!((shown.user.as_deref(), shown.roles.as_slice()), (Some("ada"), &roles(&[KeyRole::Read])[..]));
    assert!(listed.iter().all(|key| key.tenant == "acme"), "{listed:?}");
    assert!(!format!("{listed:?}").contains(&bound.secret_key));
    let reader = Caller::connect(&server.grpc_addr, &bound.public_key, &bound.secret_key).await;
    reader.sql("SELECT count(*) FROM observations").await.unwrap();
    let refused = calls.list_keys(reader.signed(ListKeysRequest::default())).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    assert!(refused.message().contains("`admin` or `platform`"), "{refused}");
    let asked = RevokeKeyRequest { public_key: bound.public_key.clone(), ..Default::default() };
    calls.revoke_key(admin.signed(asked)).await.unwrap();
    let refused = reader.sql("SELECT 1").await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated, "{refused}");
    let both =
        CreateKeyRequest { user: Some("ada".to_owned()), account: Some("initech".to_owned()), ..Default::default() };
    assert_eq!(calls.create_key(admin.signed(both)).await.unwrap_err().code(), Code::InvalidArgument);

    // What it may set, and how the command line sees it.
    let rule = Retention { days: Some(90), table_days: [("observation_io".to_owned(), 30)].into() };
    let set = SetRetentionRequest { retention: Some(rule.clone()), ..Default::default() };
    calls.set_retention(admin.signed(set)).await.unwrap();
    let unknown = Retention { days: None, table_days: [("spans".to_owned(), 1)].into() };
    let set = SetRetentionRequest { retention: Some(unknown), ..Default::default() };
    let refused = calls.set_retention(admin.signed(set)).await.unwrap_err();
    assert!(refused.code() == Code::InvalidArgument && refused.message().contains("observation_io"), "{refused}");
    let keys = DimensionKeys { account: Some("customer_id".to_owned()), ..Default::default() };
    let set = SetDimensionsRequest { dimensions: Some(keys), ..Default::default() };
    calls.set_dimensions(admin.signed(set)).await.unwrap();
    let settings = calls.get_tenant_settings(admin.signed(GetTenantSettingsRequest::default())).await.unwrap();
    let settings = settings.into_inner();
    assert_eq!(settings.retention, Some(rule));
    let dimensions = settings.dimensions.unwrap();
    assert_eq!(dimensions.account.as_deref(), Some("customer_id"));
    assert_eq!(dimensions.flow.as_deref(), Some("*flow_id"), "what is left out stays");
    assert_eq!(settings.masking, []);
    let rule =
        |name: &str, find, action: MaskingAction| MaskingRule { name: name.to_owned(), find, action: action.into() };
    let (email, badge) = (
        rule("email", Some(Find::BuiltIn(true)), MaskingAction::Redact),
        rule("badge", Some(Find::Pattern("B-[0-9]{6}".to_owned())), MaskingAction::Drop),
    );
    let set = |rules: Vec<MaskingRule>| SetMaskingRequest { tenant: String::new(), rules };
    calls.set_masking(admin.signed(set(vec![email.clone(), badge.clone()]))).await.unwrap();
    for (wrong, says) in [
        (rule("badge", Some(Find::Pattern("(".to_owned())), MaskingAction::Drop), "badge"),
        (rule("badge", None, MaskingAction::Drop), "what to find"),
        (rule("badge", Some(Find::BuiltIn(true)), MaskingAction::Unspecified), "no action"),
        (rule("iban", Some(Find::BuiltIn(true)), MaskingAction::Drop), "iban"),
    ] {
        let refused = calls.set_masking(admin.signed(set(vec![wrong]))).await.unwrap_err();
        assert!(refused.code() == Code::InvalidArgument && refused.message().contains(says), "{refused}");
    }
    let asked = SetMaskingRequest { tenant: "globex".to_owned(), rules: Vec::new() };
    assert_eq!(calls.set_masking(admin.signed(asked)).await.unwrap_err().code(), Code::PermissionDenied);
    let settings = calls.get_tenant_settings(admin.signed(GetTenantSettingsRequest::default())).await.unwrap();
    assert_eq!(settings.into_inner().masking, [email, badge], "what was refused changed nothing");
    let span = HttpRequest::post("/v1/traces", "application/json", one_call("ask ana@example.com about B-123456"));
    span.header("authorization", &basic(PUBLIC_KEY, SECRET_KEY)).send(&server.http_addr).await;
    let named = rows(&server.connect().await, "SELECT name FROM observations").await;
    assert_eq!(named, [json!({"name": "ask [email] about "})]);
    let shown = Command::new(env!("CARGO_BIN_EXE_tracelake"))
        .args(["tenant", "retention", "acme", "--data", data])
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8(shown.stdout).unwrap().trim(),
        "rows are kept for 90 days, those of observation_io for 30 days"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_over_http() {
    let folder = tempfile::tempdir().unwrap();
    let server = ServerProcess::start(path(folder.path()));
    let call = async |method: &str, body: Value| {
        let path = format!("/api/v1/AdminService/{method}");
        let request = HttpRequest::post(&path, "application/json", body.to_string());
        let answer = request.header("authorization", &basic(PUBLIC_KEY, SECRET_KEY)).send(&server.http_addr).await;
        (answer.status, serde_json::from_str::<Value>(&answer.text()).unwrap())
    };
    let (status, made) = call("CreateKey", json!({"roles": ["KEY_ROLE_READ"]})).await;
    assert_eq!(status, 200, "{made}");
    let (status, listed) = call("ListKeys", json!({})).await;
    assert_eq!(status, 200, "{listed}");
    let keys = listed["keys"].as_array().unwrap();
    assert!(keys.iter().any(|key| key["publicKey"] == made["publicKey"]), "{listed}");
    let (status, refused) = call("ListTenants", json!({})).await;
    assert_eq!(status, 403, "{refused}");
}

/// One answered call, sent as JSON.
fn one_call(name: &str) -> Vec<u8> {
    let span = json!({
        "traceId": "5b8efff798038103d269b633813fc60c", "spanId": "eee19b7ec3c1b174", "name": name,
        "startTimeUnixNano": "1795168800000000000", "endTimeUnixNano": "1795168801000000000",
    });
    json!({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}).to_string().into_bytes()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_node_holds_is_told_and_brought_into_files_when_asked() {
    let folder = tempfile::tempdir().unwrap();
    let data = path(folder.path());
    let server = ServerProcess::start(data);
    let admin = Caller::connect(&server.grpc_addr, PUBLIC_KEY, SECRET_KEY).await;
    let mut calls = AdminServiceClient::new(admin.channel.clone());
    let span = HttpRequest::post("/v1/traces", "application/json", one_call("first"));
    let sent = span.header("authorization", &basic(PUBLIC_KEY, SECRET_KEY)).send(&server.http_addr).await;
    assert_eq!(sent.status, 200, "{}", sent.text());

    let status = calls.get_status(admin.signed(GetStatusRequest::default())).await.unwrap().into_inner();
    assert!(status.is_ready && status.not_ready_reason.is_empty() && status.started_unix_micros > 0, "{status:?}");
    assert!(!status.version.is_empty() && !status.writer.is_empty(), "{status:?}");
    assert!(status.memory.iter().any(|memory| memory.used_bytes > 0 && memory.limit_bytes > 0), "{status:?}");
    let [held] = status.held.as_slice() else { panic!("{status:?}") };
    assert!((held.tenant.as_str(), held.bytes > 0, held.oldest_unix_micros.is_some()) == ("acme", true, true));

    // In files, for whoever opens them without this server.
    let files = || -> usize {
        let local = Command::new(env!("CARGO_BIN_EXE_tracelake"))
            .args(["sql", "SELECT count(*) AS n FROM observations", "--format", "csv", "--tenant", "acme"])
            .args(["--data", data])
            .output()
            .unwrap();
        String::from_utf8(local.stdout).unwrap().lines().last().unwrap().parse().unwrap()
    };
    assert_eq!(files(), 0);
    let flushed = calls.flush(admin.signed(FlushRequest::default())).await.unwrap().into_inner().tables;
    assert_eq!(files(), 1);
    let observations = flushed.iter().find(|table| table.table == "observations").unwrap();
    assert_eq!((observations.tenant.as_str(), observations.files, observations.rows), ("acme", 1, 1));
    let status = calls.get_status(admin.signed(GetStatusRequest::default())).await.unwrap().into_inner();
    assert_eq!(status.held, []);
    let again = calls.flush(admin.signed(FlushRequest::default())).await.unwrap().into_inner().tables;
    assert_eq!(again, flushed, "there is nothing to do");

    // Another's, and everybody's, are for the platform.
    for (tenant, all_tenants, code) in [
        ("globex", false, Code::PermissionDenied),
        ("", true, Code::PermissionDenied),
        ("acme", true, Code::InvalidArgument),
    ] {
        let asked = FlushRequest { tenant: tenant.to_owned(), all_tenants };
        assert_eq!(calls.flush(admin.signed(asked)).await.unwrap_err().code(), code);
        let asked = GetStatusRequest { tenant: tenant.to_owned(), all_tenants };
        assert_eq!(calls.get_status(admin.signed(asked)).await.unwrap_err().code(), code);
    }
    let span = HttpRequest::post("/v1/traces", "application/json", one_call("again"));
    span.header("authorization", &basic(PUBLIC_KEY, SECRET_KEY)).send(&server.http_addr).await;
    let (public_key, secret_key) = key_by_hand(data, "acme", "platform");
    let tracelake = |command: &str| {
        let ran = Command::new(env!("CARGO_BIN_EXE_tracelake"))
            .args([command, "--all-tenants", "--server", &server.grpc_addr])
            .args(["--public-key", &public_key, "--secret-key", &secret_key])
            .output()
            .unwrap();
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        String::from_utf8(ran.stdout).unwrap()
    };
    let shown = tracelake("status");
    assert!(shown.contains("ready") && shown.contains("acme") && shown.contains("buffer_bytes_max"), "{shown}");
    let shown = tracelake("flush");
    assert!(shown.contains("acme") && shown.contains("trace_facts"), "{shown}");
    assert!(tracelake("status").contains("all that was acked is in files"));
}
