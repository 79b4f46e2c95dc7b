//! Media from the outside: said, put by a link, read by a link and by a key, stored once, and erased with their traces.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::grpc::basic;
use crate::http::{HttpAnswer, HttpRequest};
use crate::process::{PUBLIC_KEY, SECRET_KEY, ServerProcess, path, rows};

const PICTURE: &[u8] = b"\x89PNG of a lake";

struct World {
    server: ServerProcess,
    folder: tempfile::TempDir,
}

impl World {
    fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { server: ServerProcess::start(path(folder.path())), folder }
    }

    async fn ask(&self, request: HttpRequest) -> HttpAnswer {
        request.header("authorization", &basic(PUBLIC_KEY, SECRET_KEY)).send(&self.server.http_addr).await
    }

    /// What a client says before it sends a medium.
    async fn announce(&self, trace: &str, body: &[u8], more: Value) -> HttpAnswer {
        let mut said = json!({
            "traceId": trace, "observationId": "o", "contentType": "image/png", "contentLength": body.len(),
            "sha256Hash": BASE64_STANDARD.encode(Sha256::digest(body)), "field": "input",
        });
        said.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.ask(HttpRequest::post("/api/public/media", "application/json", said.to_string())).await
    }

    async fn upload_link(&self, trace: &str, body: &[u8]) -> (String, Option<String>) {
        let answer = self.announce(trace, body, json!({})).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
        let said: Value = serde_json::from_slice(&answer.body).unwrap();
        (said["mediaId"].as_str().unwrap().to_owned(), said["uploadUrl"].as_str().map(|link| self.path_of(link)))
    }

    fn path_of(&self, link: &str) -> String {
        link.strip_prefix("http://tracelake").unwrap_or_else(|| panic!("{link}")).to_owned()
    }

    /// Without a key, as clients follow links.
    async fn put(&self, link: &str, body: &[u8]) -> HttpAnswer {
        HttpRequest::put(link, "image/png", body).send(&self.server.http_addr).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_medium_is_put_once_and_read_by_whoever_may() {
    let world = World::open();
    let (id, link) = world.upload_link("t1", PICTURE).await;
    let link = link.unwrap();
    let missing = world.ask(HttpRequest::get(&format!("/api/public/media/{id}"))).await;
    assert_eq!(missing.status, 404, "nothing was put");
    let refused = world.put(&link, b"other bytes").await;
    assert_eq!((refused.status, refused.text().contains("other bytes")), (400, true), "{}", refused.text());
    for forged in [link.replace("tenant=acme", "tenant=globex"), link.replace("image%2Fpng", "text%2Fhtml")] {
        assert_eq!(world.put(&forged, PICTURE).await.status, 401);
    }
    assert_eq!(world.put("/api/public/media/x/content", PICTURE).await.status, 401);
    assert_eq!(world.put(&link, PICTURE).await.status, 200);
    let told = HttpRequest::post(&format!("/api/public/media/{id}"), "application/json", "{}");
    assert_eq!(world.ask(told).await.status, 405);
    assert_eq!(world.upload_link("t2", PICTURE).await, (id.clone(), None), "it is there");

    let answer = world.ask(HttpRequest::get(&format!("/api/public/media/{id}"))).await;
    let said: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(
        (said["contentType"].as_str(), said["contentLength"].as_u64()),
        (Some("image/png"), Some(PICTURE.len() as u64))
    );
    let url = world.path_of(said["url"].as_str().unwrap());
    let by_link = HttpRequest::get(&url).send(&world.server.http_addr).await;
    assert_eq!((by_link.status, by_link.body.as_slice()), (200, PICTURE));
    assert!(by_link.head.contains("content-type: image/png") && by_link.head.contains("nosniff"), "{}", by_link.head);
    let content = format!("/api/public/media/{id}/content");
    assert_eq!(world.ask(HttpRequest::get(&content)).await.body, PICTURE);
    assert_eq!(HttpRequest::get(&content).send(&world.server.http_addr).await.status, 401);
    assert_eq!(world.put(&url, PICTURE).await.status, 401, "a link to read is none to write");

    let connection = world.server.connect().await;
    let media = rows(&connection, "SELECT id, content_type, bytes, traces FROM media").await;
    let expected = json!({"id": id, "content_type": "image/png", "bytes": PICTURE.len(), "traces": 2});
    assert_eq!(media, [expected]);
    assert_eq!(world.announce("t1", PICTURE, json!({"contentLength": 1u64 << 40})).await.status, 413);
    let books =
        "SELECT outcome, reason, sum(count) AS count FROM ledger WHERE door = 'media' GROUP BY 1, 2 ORDER BY 1, 2";
    let books = rows(&connection, books).await;
    let counted =
        |outcome: &str, reason: Option<&str>, count: u64| json!({"outcome": outcome, "reason": reason, "count": count});
    let expected = [
        counted("merged", None, 1),
        counted("received", None, 4),
        counted("rejected", Some("malformed"), 1),
        counted("rejected", Some("too_large"), 1),
        counted("stored", None, 1),
    ];
    assert_eq!(books, expected);
    let metrics = HttpRequest::get("/metrics").send(&world.server.http_addr).await.text();
    assert!(metrics.contains("\ntracelake_media_total 1\n"), "{metrics}");

    for (more, status, says) in [
        (json!({"field": "notes"}), 400, "field is not one of input, output, metadata"),
        (json!({"traceId": ""}), 400, "traceId"),
        (json!({"sha256Hash": "abc"}), 400, "sha256Hash"),
        (json!({"contentType": "a picture"}), 400, "not a media type"),
        (json!({"contentLength": 1u64 << 40}), 413, "64MiB"),
        (json!({"contentLength": -1}), 400, "the body"),
    ] {
        let refused = world.announce("t1", PICTURE, more).await;
        assert_eq!((refused.status, refused.text().contains(says)), (status, true), "{says}: {}", refused.text());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_trace_alone_mentions_goes_with_it() {
    let world = World::open();
    let put = async |trace: &str, body: &[u8]| {
        let (id, link) = world.upload_link(trace, body).await;
        if let Some(link) = link {
            assert_eq!(world.put(&link, body).await.status, 200);
        }
        id
    };
    let ours = put("t1", b"only of t1").await;
    let both = put("t1", b"of both").await;
    put("t2", b"of both").await;
    let (_, late) = world.upload_link("t1", b"on its way").await;
    let read = world.ask(HttpRequest::get(&format!("/api/public/media/{ours}"))).await;
    let said: Value = serde_json::from_slice(&read.body).unwrap();
    let url = world.path_of(said["url"].as_str().unwrap());

    let erased = world.ask(HttpRequest::delete("/api/public/traces/t1", "")).await;
    assert_eq!(erased.status, 200, "{}", erased.text());
    assert_eq!(HttpRequest::get(&url).send(&world.server.http_addr).await.status, 404, "an older link");
    assert_eq!(world.ask(HttpRequest::get(&format!("/api/public/media/{both}"))).await.status, 200);
    assert_eq!(world.put(&late.unwrap(), b"on its way").await.status, 404, "its trace is gone");
    assert_eq!(world.upload_link("t1", b"another").await.1, None, "nothing is taken for an erased trace");
    let connection = world.server.connect().await;
    assert_eq!(rows(&connection, "SELECT traces FROM media").await, [json!({"traces": 1})]);
    let left: Vec<_> = walk(&world.folder.path().join("tenants/acme/_media"));
    assert_eq!(left.len(), 2, "the bytes of both and one mention: {left:?}");
}

/// A span whose input has a picture, as OpenTelemetry's clients send it.
fn with_picture(trace: u128, picture: &[u8]) -> String {
    let input = json!([{"role": "user", "parts": [
        {"type": "text", "content": "what is this?"},
        {"type": "blob", "mime_type": "image/png", "content": BASE64_STANDARD.encode(picture)},
    ]}]);
    let value = |text: String| json!({"stringValue": text});
    let span = json!({
        "traceId": format!("{trace:032x}"), "spanId": "eee19b7ec3c1b174", "name": "chat gpt-4o",
        "startTimeUnixNano": "1795168800000000000", "endTimeUnixNano": "1795168801000000000",
        "attributes": [
            {"key": "gen_ai.operation.name", "value": value("chat".to_owned())},
            {"key": "gen_ai.input.messages", "value": value(input.to_string())},
        ],
    });
    json!({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}).to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn base64_in_texts_is_stored_beside_them_however_large() {
    let world = World::open();
    // Larger than a span may be: taken out before texts are cut.
    let picture: Vec<u8> = (0..12_000_000u32).map(|at| (at % 251) as u8).collect();
    for trace in [7, 8] {
        let sent = world.ask(HttpRequest::post("/v1/traces", "application/json", with_picture(trace, &picture))).await;
        assert_eq!(sent.status, 200, "{}", sent.text());
    }
    let connection = world.server.connect().await;
    let media = rows(&connection, "SELECT id, content_type, bytes, traces FROM media").await;
    let [medium] = media.as_slice() else { panic!("{media:?}") };
    assert_eq!(
        (&medium["content_type"], &medium["bytes"], &medium["traces"]),
        (&json!("image/png"), &json!(12_000_000), &json!(2))
    );
    let id = medium["id"].as_str().unwrap();
    let content = world.ask(HttpRequest::get(&format!("/api/public/media/{id}/content"))).await;
    assert!(content.status == 200 && content.body == picture);
    let texts = rows(&connection, "SELECT input FROM observation_io ORDER BY trace_id").await;
    for text in &texts {
        let input: Value = serde_json::from_str(text["input"].as_str().unwrap()).unwrap();
        let reference = format!("@@@langfuseMedia:type=image/png|id={id}|source=base64_data_uri@@@");
        assert_eq!(input[0]["parts"][1]["content"], json!(reference), "{input}");
    }
    assert_eq!(texts.len(), 2);
    // Nothing of it is kept where the store cannot take it, or where what has it is refused.
    let erased = world.ask(HttpRequest::delete(&format!("/api/public/traces/{:032x}", 7), "")).await;
    assert_eq!(erased.status, 200, "{}", erased.text());
    world
        .ask(HttpRequest::post("/v1/traces", "application/json", with_picture(7, b"again".repeat(1_000).as_slice())))
        .await;
    assert_eq!(rows(&connection, "SELECT traces FROM media").await, [json!({"traces": 1})]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn masking_rules_see_base64_where_it_was_sent() {
    let world = World::open();
    let picture = b"a picture that a rule takes out".repeat(500);
    let data = path(world.folder.path()).to_owned();
    let masking = std::process::Command::new(env!("CARGO_BIN_EXE_tracelake"))
        .args(["tenant", "masking", "acme", "--path", "pictures=drop:input.parts.content", "--data", &data])
        .output()
        .unwrap();
    assert!(masking.status.success(), "{}", String::from_utf8_lossy(&masking.stderr));
    // Rules hold within ten seconds.
    let connection = world.server.connect().await;
    for trace in 1.. {
        let sent = world.ask(HttpRequest::post("/v1/traces", "application/json", with_picture(trace, &picture))).await;
        assert_eq!(sent.status, 200, "{}", sent.text());
        let text = format!("SELECT input FROM observation_io WHERE trace_id = '{trace:032x}'");
        let input = rows(&connection, &text).await.remove(0)["input"].as_str().unwrap().to_owned();
        if !input.contains("langfuseMedia") {
            let input: Value = serde_json::from_str(&input).unwrap();
            assert_eq!(input[0]["parts"][1]["content"], Value::Null, "{input}");
            let media = rows(&connection, "SELECT traces FROM media").await;
            assert!(media.iter().all(|medium| medium["traces"] == json!(trace as u64 - 1)), "{media:?}");
            return;
        }
        assert!(trace < 60, "the rule does not hold");
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
}

fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}
