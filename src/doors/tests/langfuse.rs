//! Langfuse's own requests at the HTTP door: what its clients send, and answers in the shapes they read.

use serde_json::{Value, json};

use super::http::Sent;
use super::*;
use crate::model::EventKind;

const AT: &str = "2026-11-21T06:21:24.917Z";

fn span(id: &str) -> Value {
    json!({"id": format!("e-{id}"), "timestamp": AT, "type": "span-create", "body": {"id": id, "traceId": "t"}})
}

fn kept(world: &World) -> usize {
    world.appended().iter().map(|(_, batch)| batch.events.len()).sum()
}

#[tokio::test]
async fn a_batch_is_answered_event_by_event() {
    let world = World::open().await;
    let key = world.key(&[Role::Ingest]).await;
    let bad = json!({"id": "e-bad", "timestamp": AT, "type": "span-update", "body": {"traceId": "t"}});
    let log = json!({"id": "e-log", "timestamp": AT, "type": "sdk-log", "body": {"log": "x"}});
    let body = json!({"batch": [span("a"), bad, log], "metadata": null}).to_string();
    let sent = Sent::json(&key, &body).at("/api/public/ingestion").with("x_langfuse_sdk_name", "python");
    let gzip = sent.clone().compressed("gzip", super::http::gzip(body.as_bytes()));
    for sent in [sent.clone(), sent.clone().at("/api/public/ingestion/"), sent.clone().chunked(), gzip] {
        let answered = sent.to(world.http).await;
        assert_eq!(answered.status, 207);
        let expected = json!({
            "successes": [{"id": "e-a", "status": 201}, {"id": "e-log", "status": 201}],
            "errors": [{
                "id": "e-bad", "status": 400, "message": "Invalid request data",
                "error": "an update needs the id of what it updates",
            }],
        });
        assert_eq!(answered.json(), expected);
    }
    let (tenant, batch) = world.appended().remove(0);
    assert_eq!((tenant.as_str(), batch.door.as_str(), batch.received), ("acme", "langfuse-http", 2));
    let Some(EventKind::Observation(first)) = &batch.events[0].kind else { panic!("a span") };
    assert_eq!(first.sdk_name.as_deref(), Some("python"));
}

#[tokio::test]
async fn a_batch_is_refused_whole_in_words_its_clients_read() {
    let world = World::open().await;
    let key = world.key(&[Role::Ingest]).await;
    let sent = |body: &str| Sent::json(&key, body).at("/api/public/ingestion");
    sent("{").to(world.http).await.is(400, "the body is not {\\\"batch\\\"");
    sent("{\"batch\": 1}").to(world.http).await.is(400, "batch");
    sent("{\"batch\": []}").with("authorization", "Basic cGs6c2s=").to(world.http).await.is(401, "key");
    let reader = world.key(&[Role::Read]).await;
    sent("{\"batch\": []}").with("authorization", &reader).to(world.http).await.is(403, "`ingest`");
    let huge = (REQUEST_MAX.bytes() + 1).to_string();
    sent("{}").with("content-length", &huge).to(world.http).await.is(413, "64MiB");
    assert_eq!(kept(&world), 0);
    // Trouble of ours is worth another try, and never a 500.
    *world.intake.refusal.lock() = Some(Refusal::new(Kind::Internal, "oops"));
    let body = json!({"batch": [span("a")]}).to_string();
    let refused = sent(&body).to(world.http).await;
    refused.is(503, "oops");
    assert!(refused.has_header("retry-after: "), "{refused:?}");
}

#[tokio::test]
async fn scores_are_posted_one_by_one_and_as_a_list() {
    let world = World::open().await;
    let key = world.key(&[Role::Ingest]).await;
    let post = |body: Value| Sent::json(&key, &body.to_string()).at("/api/public/scores").to(world.http);
    let good = json!({"id": "s", "traceId": "t", "name": "q", "value": 1});
    let one = post(good.clone()).await;
    assert_eq!((one.status, one.json()), (200, json!({"id": "s"})));
    let without_id = post(json!({"traceId": "t", "name": "q", "value": 1})).await.json();
    assert_eq!(without_id["id"].as_str().unwrap().len(), 36, "{without_id}");
    post(json!({"name": "q", "value": 1})).await.is(400, "traceId");
    let list = post(json!([good, good])).await;
    assert_eq!((list.status, list.json()), (202, json!({"message": "Accepted"})));
    let mixed = post(json!([good, {"id": "bad", "traceId": "t", "name": "q"}])).await;
    assert_eq!(mixed.status, 207);
    let expected = json!({
        "accepted": 1, "rejected": 1, "errors": [{"message": "a score needs a value (score bad)", "id": "bad"}],
    });
    assert_eq!(mixed.json(), expected);
    post(json!("x")).await.is(400, "object");
}

#[tokio::test]
async fn the_single_posts_of_old_are_kept_and_answered_with_their_id() {
    let world = World::open().await;
    let key = world.key(&[Role::Ingest]).await;
    let send = |method: &'static str, path: &str| {
        let body = json!({"id": format!("of {path}"), "traceId": "t", "name": "n"}).to_string();
        Sent::json(&key, &body).at(&format!("/api/public/{path}")).by(method).to(world.http)
    };
    for (method, path) in [
        ("POST", "traces"),
        ("POST", "spans"),
        ("PATCH", "spans"),
        ("POST", "generations"),
        ("PATCH", "generations"),
        ("POST", "events"),
    ] {
        let answered = send(method, path).await;
        assert_eq!((answered.status, answered.json()), (200, json!({"id": format!("of {path}")})), "{method} {path}");
    }
    assert_eq!(world.appended().len(), 6);
    Sent::json(&key, "{\"level\": \"LOUD\"}").at("/api/public/spans").to(world.http).await.is(400, "level");
}

#[tokio::test]
async fn clients_find_one_project_and_a_server_new_enough() {
    let world = World::open().await;
    for role in [Role::Ingest, Role::Read, Role::Admin] {
        let key = world.key(&[role]).await;
        let projects = Sent::get("/api/public/projects").with("authorization", &key).to(world.http).await;
        let expected =
            json!({"id": "acme", "name": "acme", "organization": {"id": "acme", "name": "acme"}, "metadata": {}});
        assert_eq!(projects.json(), json!({ "data": [expected] }));
    }
    Sent::get("/api/public/projects").to(world.http).await.is(401, "key");
    let health = Sent::get("/api/public/health").to(world.http).await.json();
    let version: Vec<u32> = health["version"].as_str().unwrap().split('.').map(|part| part.parse().unwrap()).collect();
    // Below 4.59 the Python SDK 5 sends less.
    assert!(health["status"] == "OK" && version >= vec![4, 59, 0], "{health}");
    let strict = "/api/public/health?failIfDatabaseUnavailable=true&failIfNoRecentEvents=true";
    assert_eq!(Sent::get(strict).to(world.http).await.status, 200);
    assert_eq!(Sent::get("/api/public/ready").to(world.http).await.status, 200);
    *world.ready.0.lock() = Some("the store is away".to_owned());
    assert_eq!(Sent::get(strict).to(world.http).await.status, 503);
    assert_eq!(Sent::get("/api/public/ready").to(world.http).await.status, 503);
    assert_eq!(Sent::get("/api/public/health").to(world.http).await.status, 200);
}

/// Every call that clients were seen to make and that nothing answers yet.
#[tokio::test]
async fn what_is_not_here_is_not_found_in_words_clients_know() {
    let world = World::open().await;
    let key = world.key(&[Role::Ingest, Role::Read]).await;
    for path in [
        "v2/prompts/weather-agent?label=production",
        "v2/prompts",
        "v2/datasets/qa-set",
        "dataset-items?datasetName=qa-set&page=1&limit=50",
        "comments",
        "experiments",
    ] {
        let found = Sent::get(&format!("/api/public/{path}")).with("authorization", &key).to(world.http).await;
        found.is(404, "LangfuseNotFoundError");
    }
    for path in ["v2/prompts", "v2/datasets", "dataset-items", "dataset-run-items"] {
        let posted = Sent::json(&key, "{}").at(&format!("/api/public/{path}")).to(world.http).await;
        posted.is(404, "LangfuseNotFoundError");
    }
}

#[tokio::test]
async fn score_configurations_are_made_kept_and_held_up_to_scores() {
    let world = World::open().await;
    let admin = world.key(&[Role::Admin]).await;
    let writer = world.key(&[Role::Ingest]).await;
    let at = "/api/public/score-configs";
    let create = |body: Value| Sent::json(&admin, &body.to_string()).at(at).to(world.http);
    let categories = json!([{"label": "good", "value": 1}, {"label": "bad", "value": -1}]);
    let config = create(json!({"name": "verdict", "dataType": "CATEGORICAL", "categories": categories})).await.json();
    assert_eq!((config["name"].as_str(), config["isArchived"].as_bool()), (Some("verdict"), Some(false)));
    assert_eq!((config["projectId"].as_str(), config["categories"][1]["label"].as_str()), (Some("acme"), Some("bad")));
    let bounded = create(json!({"name": "stars", "dataType": "NUMERIC", "minValue": 0, "maxValue": 5})).await.json();
    let yes_no = create(json!({"name": "helpful", "dataType": "BOOLEAN"})).await.json();
    assert_eq!(yes_no["categories"][0], json!({"label": "True", "value": 1.0}));
    create(json!({"name": "x", "dataType": "CATEGORICAL"})).await.is(400, "categories");
    Sent::json(&writer, "{}").at(at).to(world.http).await.is(403, "`admin`");

    let get = |path: String| Sent::get(&path).with("authorization", &writer).to(world.http);
    let listed = get(format!("{at}?page=1&limit=2")).await.json();
    assert_eq!(listed["meta"], json!({"page": 1, "limit": 2, "totalItems": 3, "totalPages": 2}));
    assert_eq!(listed["data"].as_array().unwrap().len(), 2);
    let id = |config: &Value| config["id"].as_str().unwrap().to_owned();
    assert_eq!(get(format!("{at}/{}", id(&config))).await.json(), config);
    get(format!("{at}/nothing")).await.is(404, "no score configuration");
    get(format!("{at}?limit=0")).await.is(400, "limit");

    let score = |config: &Value, value: Value| json!({"traceId": "t", "name": config["name"], "value": value, "configId": config["id"]});
    let post = |body: Value| Sent::json(&writer, &body.to_string()).at("/api/public/scores").to(world.http);
    for (config, value) in [(&config, json!("bad")), (&bounded, json!(4.5)), (&yes_no, json!(1))] {
        assert_eq!(post(score(config, value)).await.status, 200);
    }
    let scores: Vec<_> = world.appended().into_iter().flat_map(|(_, batch)| batch.events).collect();
    let stored = |at: usize| match scores[at].kind.clone() {
        Some(EventKind::Score(score)) => (score.data_type().as_str(), score.value, score.string_value),
        other => panic!("{other:?}"),
    };
    assert_eq!(stored(0), ("CATEGORICAL", Some(-1.0), Some("bad".to_owned())));
    assert_eq!(stored(2), ("BOOLEAN", Some(1.0), Some("True".to_owned())));
    // What breaks a rule is told so, whichever way it came, and counted.
    post(score(&bounded, json!(6))).await.is(400, "above the most");
    let mixed = post(json!([score(&config, json!("ugly")), score(&config, json!("good"))])).await;
    assert_eq!((mixed.status, mixed.json()["rejected"].as_u64()), (207, Some(1)));
    let event = |id: &str, body: Value| json!({"id": id, "timestamp": AT, "type": "score-create", "body": body});
    let unknown = json!({"traceId": "t", "name": "q", "value": 1, "configId": "nothing"});
    let batch = json!({"batch": [event("1", score(&bounded, json!(6))), event("2", unknown), span("a")]});
    let answered = Sent::json(&writer, &batch.to_string()).at("/api/public/ingestion").to(world.http).await.json();
    assert_eq!(answered["successes"], json!([{"id": "e-a", "status": 201}]));
    assert_eq!(answered["errors"][1]["error"], "its configuration does not exist");
    let (_, last) = world.appended().pop().unwrap();
    assert_eq!((last.received, last.rejected["invalid_value"]), (3, 2));
    // And an archived one takes none.
    let archive = Sent::json(&admin, "{\"isArchived\": true}").at(&format!("{at}/{}", id(&bounded))).by("PATCH");
    assert_eq!(archive.to(world.http).await.json()["isArchived"], true);
    post(score(&bounded, json!(1))).await.is(400, "archived");
}
