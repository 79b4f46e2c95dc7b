use super::grpc::{channel, with_key};
use super::http::Sent;
use super::*;
use crate::wire::SqlRequest;
use crate::wire::sql_service_client::SqlServiceClient;

/// Door, method, query, outcome and number of the calls noted for a tenant, in the order of their names.
async fn noted(world: &World, tenant: &str) -> Vec<String> {
    let rows = world.audit.of(&tenant.parse().unwrap()).await.unwrap();
    let mut noted: Vec<String> = rows
        .iter()
        .map(|row| {
            let (alike, query) = (&row.alike, row.alike.query.as_deref().unwrap_or("-"));
            assert!(alike.public_key.starts_with("pk-lf-"));
            format!("{} {} {query} {} {}", alike.door, alike.method, alike.outcome, row.calls.count)
        })
        .collect();
    noted.sort();
    noted
}

#[tokio::test]
async fn every_call_of_a_known_key_is_noted_with_its_pattern_and_without_what_is_in_it() {
    let world = World::open().await;
    let reader = world.key(&[Role::Read]).await;
    let mut client = SqlServiceClient::new(channel(&world).await);
    let request = |key: &str, sql: &str| with_key(key, SqlRequest { sql: sql.into(), ..Default::default() });
    client.query(request(&reader, "SELECT 'of Ada'")).await.unwrap();
    client.query(request(&reader, "SELECT 'of Bob'")).await.unwrap();
    client.query(request(&world.key(&[Role::Ingest]).await, "SELECT 1")).await.unwrap_err();
    client.query(request("Basic cGs6c2s=", "SELECT 1")).await.unwrap_err();
    *world.answers.refusal.lock() = Some(Refusal::new(Kind::Invalid, "no such column"));
    client.query(request(&reader, "SELECT a_name_that_is_somebodys")).await.unwrap_err();

    // By HTTP it is the same call, once; one that gets nowhere is noted where it came in.
    *world.answers.refusal.lock() = None;
    let over_http = Sent::json(&reader, "{}").at("/api/v1/MetricsService/Query");
    over_http.clone().to(world.http).await.is(200, "{");
    over_http.clone().at("/api/v1/MetricsService/Nothing").to(world.http).await.is(404, "Nothing");
    Sent::get("/api/v2/analytics/top-users").with("authorization", &reader).to(world.http).await.is(200, "{");

    let writer = world.key_with(&[Role::Ingest, Role::Admin], WritesFor::All, None).await;
    Sent::traces(&writer, &trace_request(1, 0)).to(world.http).await;
    let for_other = Sent::traces(&writer, &trace_request(1, 0)).with(auth::TENANT_HEADER, "other");
    for_other.to(world.http).await;
    let deleting = Sent::get("/api/public/traces/the-trace-of-ada").by("DELETE").with("authorization", &writer);
    assert_eq!(deleting.to(world.http).await.status, 200);
    Sent::get("/health").to(world.http).await;

    let expected = [
        "langfuse-http DELETE /api/public/traces/{trace} - ok 1",
        "langfuse-http POST /api/v1/{service}/{method} - not_found 1",
        "metrics-grpc tracelake.v1.MetricsService/Query - ok 1",
        "metrics-grpc tracelake.v1.MetricsService/TopUsers - ok 1",
        "otlp-http POST /v1/traces - ok 1",
        "sql-grpc tracelake.v1.SqlService/Query - invalid_argument 1",
        "sql-grpc tracelake.v1.SqlService/Query - permission_denied 1",
        "sql-grpc tracelake.v1.SqlService/Query shape of 15 bytes ok 2",
    ];
    assert_eq!(noted(&world, "acme").await, expected);
    assert_eq!(noted(&world, "other").await, ["otlp-http POST /v1/traces - ok 1"]);
}
