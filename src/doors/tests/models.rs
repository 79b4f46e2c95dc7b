//! Langfuse's models at the HTTP door, in the shapes and units its clients know.

use serde_json::{Value, json};

use super::http::{Answered, Sent};
use super::*;

const MODELS: &str = "/api/public/models";

async fn get(world: &World, key: &str, path: &str) -> Answered {
    Sent::get(path).with("authorization", key).to(world.http).await
}

async fn post(world: &World, key: &str, body: &Value) -> Answered {
    Sent::json(key, &body.to_string()).at(MODELS).to(world.http).await
}

async fn delete(world: &World, key: &str, id: &Value) -> Answered {
    let path = format!("{MODELS}/{}", id.as_str().unwrap());
    Sent::get(&path).by("DELETE").with("authorization", key).to(world.http).await
}

#[tokio::test]
async fn a_model_is_made_listed_found_and_deleted() {
    let world = World::open().await;
    let key = world.key(&[Role::Admin, Role::Read]).await;
    let shipped = get(&world, &key, &format!("{MODELS}?limit=1")).await.json()["meta"]["totalItems"].as_u64().unwrap();
    let said = json!({
        "modelName": "acme-llm", "matchPattern": "(?i)^(acme-llm)(-v\\d+)?$", "startDate": "2026-03-01T00:00:00.000Z",
        "unit": "TOKENS", "inputPrice": 1.5e-7, "outputPrice": 0.0000006, "tokenizerConfig": null,
    });
    let made = post(&world, &key, &said).await;
    made.is(200, "acme-llm");
    let made = made.json();
    // Every field that clients of any version require.
    for field in ["id", "modelName", "matchPattern", "isLangfuseManaged", "createdAt", "prices", "pricingTiers"] {
        assert!(!made[field].is_null(), "{field}: {made}");
    }
    assert!(made.as_object().unwrap().contains_key("tokenizerConfig"));
    assert_eq!(made["matchPattern"], said["matchPattern"]);
    assert_eq!(made["startDate"], said["startDate"]);
    assert_eq!((&made["inputPrice"], &made["outputPrice"]), (&json!(1.5e-7), &json!(6e-7)));
    assert_eq!(made["prices"], json!({"input": {"price": 1.5e-7}, "output": {"price": 6e-7}}));
    let tier = &made["pricingTiers"][0];
    assert_eq!((&tier["isDefault"], &tier["priority"], &tier["conditions"]), (&json!(true), &json!(0), &json!([])));
    assert_eq!(tier["prices"], json!({"input": 1.5e-7, "output": 6e-7}));
    assert_eq!(made["isLangfuseManaged"], json!(false));

    // The same model from another day on is another of theirs.
    let later = json!({"modelName": "acme-llm", "matchPattern": "acme-llm", "unit": "TOKENS",
        "startDate": "2026-06-01T00:00:00Z", "totalPrice": 0.000002});
    let later = post(&world, &key, &later).await.json();
    assert_eq!(later["prices"], json!({"input": {"price": 2e-6}, "output": {"price": 2e-6}}));
    let listed = get(&world, &key, &format!("{MODELS}?page=1&limit=3")).await.json();
    assert_eq!(listed["meta"]["totalItems"], json!(shipped + 2));
    assert_eq!(listed["meta"]["totalPages"], json!((shipped + 2).div_ceil(3)));
    let managed: Vec<&Value> = listed["data"].as_array().unwrap().iter().map(|one| &one["isLangfuseManaged"]).collect();
    assert_eq!(managed, [&json!(false), &json!(false), &json!(true)]);
    let one = get(&world, &key, &format!("{MODELS}/{}", made["id"].as_str().unwrap())).await.json();
    assert_eq!(one["startDate"], made["startDate"]);
    // Nobody else's.
    assert_eq!(world.prices.current(&"other".parse().unwrap()).own().map(|_| ()), None);

    // Put in its place, also under another name; and anew.
    let mut renamed = said.clone();
    (renamed["modelName"], renamed["inputPrice"]) = (json!("acme-llm-2"), json!(1e-7));
    let put = async |id: &Value, body: &Value| {
        let path = format!("{MODELS}/{}", id.as_str().unwrap());
        Sent::json(&key, &body.to_string()).by("PUT").at(&path).to(world.http).await
    };
    let made_again = put(&made["id"], &renamed).await;
    made_again.is(200, "acme-llm-2");
    get(&world, &key, &format!("{MODELS}/{}", made["id"].as_str().unwrap())).await.is(404, "no model");
    let made = made_again.json();
    assert_eq!(made["inputPrice"], json!(1e-7));
    put(&json!("of-my-own"), &renamed).await.is(200, "acme-llm-2");
    put(&made["id"], &json!({"modelName": "x"})).await.is(400, "no model");
    let totals = async || get(&world, &key, &format!("{MODELS}?limit=1")).await.json()["meta"]["totalItems"].clone();
    assert_eq!(totals().await, json!(shipped + 2));

    delete(&world, &key, &made["id"]).await.is(200, "deleted");
    delete(&world, &key, &made["id"]).await.is(404, "no model");
    delete(&world, &key, &later["id"]).await.is(200, "deleted");
    let listed = get(&world, &key, &format!("{MODELS}?limit=1")).await.json();
    assert_eq!(listed["meta"]["totalItems"], json!(shipped));
    delete(&world, &key, &listed["data"][0]["id"]).await.is(400, "comes with the server");
    put(&listed["data"][0]["id"], &renamed).await.is(400, "comes with the server");
    get(&world, &key, &format!("{MODELS}/nonsense")).await.is(404, "no model");
    get(&world, &key, &format!("{MODELS}?limit=101")).await.is(400, "1 to 100");
}

#[tokio::test]
async fn tiers_come_back_as_they_were_said_and_price_so() {
    let world = World::open().await;
    let key = world.key(&[Role::Admin, Role::Read]).await;
    let said = json!({"modelName": "m", "matchPattern": "(?i)my-m", "unit": "TOKENS", "pricingTiers": [
        {"name": "Standard", "isDefault": true, "priority": 0, "conditions": [],
         "prices": {"input": 1e-6, "input_cached_tokens": 1e-7, "cache_read_input_tokens": 1e-7, "output": 2e-6}},
        {"name": "Large Context", "isDefault": false, "priority": 1, "prices": {"input": 4e-6, "output": 8e-6},
         "conditions": [{"usageDetailPattern": "^(input|prompt)", "operator": "gt", "value": 200000}]}]});
    let made = post(&world, &key, &said).await;
    made.is(200, "Large-Context");
    let made = made.json();
    let default =
        made["pricingTiers"].as_array().unwrap().iter().find(|tier| tier["isDefault"] == json!(true)).unwrap();
    assert_eq!(default["prices"], json!({"input": 1e-6, "cached_input": 1e-7, "output": 2e-6}));
    let large = made["pricingTiers"].as_array().unwrap().iter().find(|tier| tier["isDefault"] == json!(false)).unwrap();
    let condition = json!({"usageDetailPattern": "input", "operator": "gt", "value": 200000, "caseSensitive": false});
    assert_eq!(
        (&large["conditions"], &large["prices"]),
        (&json!([condition]), &json!({"input": 4e-6, "output": 8e-6}))
    );
    // Their patterns are searched for anywhere in a name.
    let prices = world.prices.current(&"acme".parse().unwrap());
    let usage = |input: i64| crate::price::Quantities { by_kind: [(crate::price::UsageKind::Input, input)].into() };
    for (input, expected) in [(200_000, "0.2"), (200_001, "0.800004")] {
        let usage = usage(input);
        let ask = crate::price::Ask {
            model: "eu.my-m-2026",
            provider: None,
            at_us: 0,
            service_tier: None,
            speed: None,
            duration_us: None,
            usage: &usage,
        };
        assert_eq!(prices.price(&ask).unwrap().total.to_string(), expected);
    }
}

#[tokio::test]
async fn what_cannot_be_priced_is_refused_with_the_reason() {
    let world = World::open().await;
    let key = world.key(&[Role::Admin, Role::Read]).await;
    let base = || json!({"modelName": "m", "matchPattern": "m", "unit": "TOKENS", "inputPrice": 1e-6});
    for (field, value, why) in [
        ("matchPattern", json!("(?=look)ahead"), "no regular expression"),
        ("inputPrice", json!(-1e-6), "not a decimal"),
        ("inputPrice", json!("0.1"), "the body is no model"),
        ("totalPrice", json!(1e-6), "totalPrice cannot stand beside"),
        ("inputPrice", json!(null), "either flat prices or pricingTiers"),
        ("startDate", json!("yesterday"), "not a date"),
        ("unit", json!("BYTES"), "unit"),
        ("tokenizerId", json!("openai"), "tokenizerId"),
        ("modelName", json!(""), "1 to 256 bytes"),
        (
            "pricingTiers",
            json!([{"name": "a", "isDefault": true, "prices": {"thoughts": 1}}]),
            "either flat prices or pricingTiers",
        ),
    ] {
        let mut said = base();
        said[field] = value;
        post(&world, &key, &said).await.is(400, why);
    }
    let mut said = base();
    said.as_object_mut().unwrap().remove("inputPrice");
    said["pricingTiers"] = json!([{"name": "a", "isDefault": true, "prices": {"thoughts": 1}}]);
    post(&world, &key, &said).await.is(400, "not a kind of usage");
    said["pricingTiers"] = json!([{"name": "a", "isDefault": true, "prices": {"input_tokens": 1, "prompt_tokens": 2}}]);
    post(&world, &key, &said).await.is(400, "another price");
    said["pricingTiers"] = json!([{"name": "a", "prices": {"input": 1}, "conditions": [
        {"source": "metadata", "key": "team", "operator": "in", "values": ["x"]}]}]);
    post(&world, &key, &said).await.is(400, "a condition other than");
    // Who may not.
    let reader = world.key(&[Role::Read]).await;
    post(&world, &reader, &base()).await.is(403, "`admin`");
    get(&world, &world.key(&[Role::Ingest]).await, MODELS).await.is(403, "`read`");
    get(&world, "Basic cGs6c2s=", MODELS).await.is(401, "key");
    assert!(world.prices.current(&"acme".parse().unwrap()).own().is_none());
}
