//! `GET /api/v2/analytics/…`: presets by link.

use super::http::Sent;
use super::*;

#[tokio::test]
async fn a_preset_by_link_is_its_call_with_its_roles() {
    let world = World::open().await;
    let key = world.key(&[Role::Read]).await;
    let get = |path: &str| Sent::get(&format!("/api/v2/analytics/{path}")).with("authorization", &key).to(world.http);
    let answered = get("cost-breakdown?from=2026-01-01&group_by=user_id,tags&limit=3").await;
    assert_eq!((answered.status, answered.json()), (200, serde_json::json!({"dimensions": ["user_id", "tags"]})));
    get("time-series/?granularity=week&timezone=Asia/Tokyo").await.is(200, "{");
    assert_eq!(world.answers.asked.lock()[0], "acme [\"user_id\", \"tags\"]");
    get("top-users?sort=cost").await.is(400, "there is no parameter");
    get("top-flows?to=tomorrow").await.is(400, "to is no time");
    get("user/ann/stats?group_by=model").await.is(400, "from, to, timezone, credits_per_usd");
    // What all tenants used is for the platform's keys, and so is what another one used.
    get("platform/stats").await.is(403, "`platform`");
    get("tenant/other/stats").await.is(403, "`platform`");
    get("tenant/nobody/stats").await.is(403, "`platform`");
    get("costs").await.is(404, "nothing at this path");
    Sent::get("/api/v2/analytics/top-users").to(world.http).await.is(401, "no key");
    Sent::json(&key, "{}").at("/api/v2/analytics/top-users").to(world.http).await.is(405, "method");
}
