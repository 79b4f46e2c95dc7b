//! Langfuse's read API over the real server: what was sent by the classic batch comes back in both generations.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use crate::http::HttpRequest;
use crate::process::{PUBLIC_KEY, SECRET_KEY, ServerProcess, path};

fn basic() -> String {
    format!("Basic {}", BASE64_STANDARD.encode(format!("{PUBLIC_KEY}:{SECRET_KEY}")))
}

pub(crate) struct Reader<'a>(pub(crate) &'a ServerProcess);

impl Reader<'_> {
    pub(crate) async fn answer(&self, path: &str) -> (u16, Value) {
        let request = HttpRequest::get(&format!("/api/public/{path}")).header("authorization", &basic());
        let answer = request.send(&self.0.http_addr).await;
        (answer.status, serde_json::from_slice(&answer.body).unwrap_or_else(|_| panic!("{path}: {}", answer.text())))
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        let (status, body) = self.answer(path).await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    /// The ids of a list, in its order.
    async fn ids(&self, path: &str) -> Vec<String> {
        let list = self.get(path).await;
        list["data"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect()
    }

    /// The ids of all pages by cursor, and how many pages there were.
    async fn all(&self, path: &str) -> (Vec<String>, usize) {
        let (mut ids, mut pages, mut cursor) = (Vec::new(), 0, String::new());
        loop {
            let page = self.get(&format!("{path}&cursor={cursor}")).await;
            let data = page["data"].as_array().unwrap();
            ids.extend(data.iter().map(|item| item["id"].as_str().unwrap().to_owned()));
            pages += 1;
            match page["meta"]["cursor"].as_str() {
                Some(next) => cursor = next.to_owned(),
                None => return (ids, pages),
            }
        }
    }
}

fn event(kind: &str, body: Value) -> Value {
    let id = format!("event of {kind} {}", body["id"].as_str().unwrap());
    json!({"id": id, "timestamp": "2026-11-20T10:00:09.000Z", "type": kind, "body": body})
}

/// Two traces of one session, one of them bare, an agent's steps, and what was judged.
pub(crate) async fn send(server: &ServerProcess) {
    let batch = json!({"batch": [
        event("trace-create", json!({
            "id": "t1", "timestamp": "2026-11-20T10:00:00.000Z", "name": "chat", "userId": "ann", "sessionId": "s1",
            "tags": ["a", "b"], "release": "r1", "version": "v1", "environment": "e2e", "public": true,
            "metadata": {"tenant": "acme", "n": 2, "nested": {"x": [1]}}, "input": {"q": "hi"},
        })),
        event("span-create", json!({
            "id": "root", "traceId": "t1", "name": "agent", "startTime": "2026-11-20T10:00:00.000Z",
            "endTime": "2026-11-20T10:00:04.000Z", "output": "done", "environment": "e2e",
        })),
        event("generation-create", json!({
            "id": "g1", "traceId": "t1", "parentObservationId": "root", "name": "llm", "model": "mine",
            "startTime": "2026-11-20T10:00:01.000Z", "endTime": "2026-11-20T10:00:03.000Z",
            "completionStartTime": "2026-11-20T10:00:01.500Z", "environment": "e2e",
            "input": [{"role": "user", "content": "hi"}], "output": "there", "promptName": "p", "promptVersion": 3,
            "modelParameters": {"temperature": 0.2, "max_tokens": 5},
            "usageDetails": {"input": 20, "output": 45, "input_cached_tokens": 100}, "costDetails": {"total": 0.0031},
            "metadata": {"long": "x".repeat(300), "team": "red"},
        })),
        event("generation-create", json!({
            "id": "g2", "traceId": "t1", "parentObservationId": "root", "name": "llm", "model": "mine",
            "startTime": "2026-11-20T10:00:03.000Z", "endTime": "2026-11-20T10:00:04.000Z", "environment": "e2e",
            "level": "ERROR", "statusMessage": "429",
        })),
        event("trace-create", json!({
            "id": "t2", "timestamp": "2026-11-20T11:00:00.000Z", "name": "bare", "userId": "bob", "sessionId": "s1",
            "input": "only text", "output": {"a": 1},
        })),
        event("score-create", json!({"id": "sc1", "traceId": "t1", "name": "quality", "value": 0.9, "comment": "good"})),
        event("score-create", json!({
            "id": "sc2", "traceId": "t1", "observationId": "g1", "name": "helpful", "value": 1, "dataType": "BOOLEAN",
        })),
        event("score-create", json!({"id": "sc3", "traceId": "t2", "name": "verdict", "value": "fine"})),
        event("score-create", json!({"id": "sc4", "sessionId": "s1", "name": "mood", "value": 3})),
    ]});
    post(server, "ingestion", batch).await;
}

async fn post(server: &ServerProcess, path: &str, body: Value) {
    let request = HttpRequest::post(&format!("/api/public/{path}"), "application/json", body.to_string());
    let answer = request.header("authorization", &basic()).send(&server.http_addr).await;
    assert!((200..300).contains(&answer.status), "{path}: {} {}", answer.status, answer.text());
    assert!(path != "ingestion" || answer.text().contains("\"errors\":[]"), "{}", answer.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_sent_comes_back_in_both_generations() {
    let folder = tempfile::tempdir().unwrap();
    let server = ServerProcess::start(path(folder.path()));
    send(&server).await;
    all_comes_back(&Reader(&server)).await;
    assert!(server.stop().success());
    // And from files.
    let server = ServerProcess::start(path(folder.path()));
    all_comes_back(&Reader(&server)).await;
    the_wrong_is_named(&Reader(&server)).await;
}

async fn all_comes_back(reader: &Reader<'_>) {
    traces(reader).await;
    observations(reader).await;
    sessions(reader).await;
    scores(reader).await;
}

async fn traces(reader: &Reader<'_>) {
    let list = reader.get("traces").await;
    assert_eq!(list["meta"], json!({"page": 1, "limit": 50, "totalItems": 2, "totalPages": 1}));
    let [bare, trace] = list["data"].as_array().unwrap().as_slice() else { panic!("{list}") };
    assert_eq!(
        (bare["id"].as_str(), &bare["input"], &bare["output"]),
        (Some("t2"), &json!("only text"), &json!({"a": 1}))
    );
    assert_eq!((&bare["latency"], &bare["observations"], &bare["scores"]), (&json!(0.0), &json!([]), &json!(["sc3"])));
    let expected = json!({
        "id": "t1", "timestamp": "2026-11-20T10:00:00.000Z", "name": "chat", "userId": "ann", "sessionId": "s1",
        "tags": ["a", "b"], "release": "r1", "version": "v1", "environment": "e2e", "public": true,
        "bookmarked": false, "externalId": null, "projectId": "acme", "htmlPath": "/project/acme/traces/t1",
        "metadata": {"tenant": "acme", "n": 2, "nested": {"x": [1]}}, "input": {"q": "hi"}, "output": "done",
        "observations": ["root", "g1", "g2"], "scores": ["sc1", "sc2"], "totalCost": 0.0031, "latency": 4.0,
    });
    for (name, expected) in expected.as_object().unwrap() {
        assert_eq!(&trace[name], expected, "{name}");
    }
    let lean = reader.get("traces?fields=core&userId=ann").await["data"][0].clone();
    let told = ["input", "metadata", "observations", "scores", "latency", "totalCost"].map(|name| lean[name].clone());
    assert_eq!(told, [Value::Null, Value::Null, json!([]), json!([]), json!(-1), json!(-1)]);

    for (query, expected) in [
        ("name=chat", vec!["t1"]),
        ("sessionId=s1", vec!["t2", "t1"]),
        ("orderBy=timestamp.asc", vec!["t1", "t2"]),
        ("orderBy=name.asc&limit=1&page=2", vec!["t1"]),
        ("limit=1&page=3", vec![]),
        ("tags=a&tags=b", vec!["t1"]),
        ("tags=a,b", vec!["t1"]),
        ("tags=a&tags=c", vec![]),
        ("environment=e2e&environment=default", vec!["t2", "t1"]),
        ("release=r1&version=v1", vec!["t1"]),
        ("fromTimestamp=2026-11-20T11:00:00Z", vec!["t2"]),
        ("toTimestamp=2026-11-20T12:00:00%2B01:00", vec!["t1"]),
    ] {
        assert_eq!(reader.ids(&format!("traces?{query}")).await, expected, "{query}");
    }
    for (kind, column, operator, value, key, expected) in [
        ("number", "latency", ">=", json!(4), None, vec!["t1"]),
        ("number", "totalCost", "<", json!(0.01), None, vec!["t1"]),
        ("number", "errorCount", "=", json!(0), None, vec!["t2"]),
        ("stringOptions", "level", "any of", json!(["ERROR"]), None, vec!["t1"]),
        ("arrayOptions", "tags", "none of", json!(["a"]), None, vec!["t2"]),
        ("string", "name", "starts with", json!("ch"), None, vec!["t1"]),
        ("stringObject", "metadata", "=", json!("acme"), Some("tenant"), vec!["t1"]),
        ("numberObject", "scores_avg", ">", json!(0.5), Some("quality"), vec!["t1"]),
        ("categoryOptions", "score_categories", "any of", json!(["fine"]), Some("verdict"), vec!["t2"]),
        ("datetime", "timestamp", ">", json!("2026-11-20T10:00:00Z"), None, vec!["t2"]),
        ("null", "release", "is null", json!(""), None, vec!["t2"]),
    ] {
        let filter = json!([{"type": kind, "column": column, "operator": operator, "value": value, "key": key}]);
        let found = reader.ids(&format!("traces?filter={}", escaped(&filter))).await;
        assert_eq!(found, expected, "{filter}");
    }

    let trace = reader.get("traces/t1").await;
    let names: Vec<&Value> = trace["observations"].as_array().unwrap().iter().map(|item| &item["name"]).collect();
    assert_eq!(names, ["agent", "llm", "llm"]);
    assert_eq!(trace["observations"][1]["output"], "there");
    assert_eq!(
        (&trace["latency"], &trace["totalCost"], &trace["output"]),
        (&json!(4.0), &json!(0.0031), &json!("done"))
    );
    assert_eq!(trace["scores"].as_array().unwrap().len(), 2);
    assert_eq!(reader.get("traces/t2").await["input"], "only text");
}

async fn observations(reader: &Reader<'_>) {
    let list = reader.get("observations?type=GENERATION&traceId=t1").await;
    assert_eq!(list["meta"]["totalItems"], 2);
    let observation = reader.get("observations/g1").await;
    assert_eq!(list["data"][1], observation);
    let expected = json!({
        "id": "g1", "traceId": "t1", "projectId": "acme", "parentObservationId": "root", "name": "llm",
        "type": "GENERATION", "environment": "e2e", "startTime": "2026-11-20T10:00:01.000Z",
        "endTime": "2026-11-20T10:00:03.000Z", "completionStartTime": "2026-11-20T10:00:01.500Z", "level": "DEFAULT",
        "input": [{"role": "user", "content": "hi"}], "output": "there", "model": "mine",
        "modelParameters": {"temperature": "0.2", "max_tokens": 5}, "promptName": "p", "promptVersion": 3,
        "usageDetails": {"input": 20, "output": 45, "input_cached_tokens": 100, "total": 165},
        "costDetails": {"total": 0.0031}, "promptTokens": 120, "completionTokens": 45, "totalTokens": 165,
        "calculatedTotalCost": 0.0031, "latency": 2.0, "timeToFirstToken": 0.5, "unit": "TOKENS",
    });
    for (name, expected) in expected.as_object().unwrap() {
        assert_eq!(&observation[name], expected, "{name}");
    }
    assert_eq!(observation["usage"]["total"], 165);

    for (query, expected) in [
        ("name=llm&level=ERROR", vec!["g2"]),
        ("userId=ann", vec!["g2", "g1", "root"]),
        ("parentObservationId=root&limit=1&page=2", vec!["g1"]),
        ("fromStartTime=2026-11-20T10:00:03Z", vec!["g2"]),
        ("toStartTime=2026-11-20T10:00:01Z", vec!["root"]),
        ("environment=e2e&environment=x", vec!["g2", "g1", "root"]),
    ] {
        assert_eq!(reader.ids(&format!("observations?{query}")).await, expected, "{query}");
        assert_eq!(
            reader.ids(&format!("v2/observations?{query}")).await,
            match query.contains("page") {
                true => vec!["g2".to_owned()],
                false => expected.iter().map(|id| (*id).to_owned()).collect(),
            }
        );
    }
    assert_eq!(reader.ids("v2/observations?isRootObservation=true&sessionId=s1").await, ["root"]);
    for (filter, expected) in [
        (json!([{"type": "string", "column": "traceName", "operator": "=", "value": "chat"}]), 3),
        (json!([{"type": "number", "column": "latency", "operator": ">", "value": 1.5}]), 2),
        (json!([{"type": "string", "column": "output", "operator": "matches", "value": "her"}]), 1),
        (json!([{"type": "stringObject", "column": "metadata", "key": "team", "operator": "=", "value": "red"}]), 1),
        (json!([{"type": "null", "column": "statusMessage", "operator": "is not null", "value": ""}]), 1),
    ] {
        let found = reader.ids(&format!("v2/observations?filter={}", escaped(&filter))).await;
        assert_eq!(found.len(), expected, "{filter}");
    }
    let (ids, pages) = reader.all("v2/observations?limit=1").await;
    assert_eq!((ids, pages), (["g2", "g1", "root"].map(str::to_owned).to_vec(), 3));
    let default = reader.get("v2/observations?limit=1&name=llm&level=DEFAULT").await["data"][0].clone();
    let names: Vec<&String> = default.as_object().unwrap().keys().collect();
    assert!(default["input"].is_null() && names.contains(&&"userId".to_owned()), "{names:?}");
    let groups = "fields=core,basic,time,io,metadata,model,usage,prompt,metrics,trace_context,nonsense";
    let whole = reader.get(&format!("v2/observations?{groups}&name=llm&level=DEFAULT")).await["data"][0].clone();
    let expected = json!({
        "input": "[{\"content\":\"hi\",\"role\":\"user\"}]", "output": "there", "providedModelName": "mine",
        "totalCost": 0.0031, "latency": 2.0, "timeToFirstToken": 0.5, "traceName": "chat", "tags": ["a", "b"],
        "release": "r1", "promptVersion": 3, "userId": "ann", "isRootObservation": false, "inputPrice": null,
    });
    for (name, expected) in expected.as_object().unwrap() {
        assert_eq!(&whole[name], expected, "{name}");
    }
    let metadata = |keys: &str| format!("v2/observations?fields=metadata&name=llm&level=DEFAULT{keys}");
    let cut = reader.get(&metadata("")).await["data"][0]["metadata"].clone();
    assert_eq!((cut["long"].as_str().unwrap().len(), &cut["team"]), (200, &json!("red")));
    let long = reader.get(&metadata("&expandMetadata=long")).await["data"][0]["metadata"]["long"].clone();
    assert_eq!(long.as_str().unwrap().len(), 300);
}

async fn sessions(reader: &Reader<'_>) {
    let list = reader.get("sessions").await;
    let session =
        json!({"id": "s1", "createdAt": "2026-11-20T10:00:00.000Z", "projectId": "acme", "environment": "e2e"});
    assert_eq!((&list["data"], &list["meta"]["totalItems"]), (&json!([session]), &json!(1)));
    assert_eq!(reader.ids("sessions?fromTimestamp=2026-11-20T10:30:00Z").await, [""; 0]);
    assert_eq!(reader.ids("sessions?environment=other").await, [""; 0]);
    let session = reader.get("sessions/s1").await;
    let traces: Vec<&Value> = session["traces"].as_array().unwrap().iter().map(|trace| &trace["id"]).collect();
    assert_eq!(traces, ["t2", "t1"]);
    assert_eq!(session["traces"][0]["output"], json!({"a": 1}));
}

async fn scores(reader: &Reader<'_>) {
    let first = reader.get("scores?orderBy=x").await;
    assert_eq!(first["meta"]["totalItems"], 3, "a session's score is none of the first generation: {first}");
    assert_eq!(reader.get("v2/scores").await["meta"]["totalItems"], 4);
    let numeric = reader.get("v2/scores?dataType=NUMERIC&operator=%3E%3D&value=0.5&userId=ann&name=quality").await;
    let numeric = &numeric["data"][0];
    let expected = json!({
        "id": "sc1", "traceId": "t1", "observationId": null, "name": "quality", "value": 0.9, "dataType": "NUMERIC",
        "source": "API", "comment": "good", "environment": "default", "timestamp": "2026-11-20T10:00:09.000Z",
        "trace": {"userId": "ann", "sessionId": "s1", "environment": "e2e", "tags": ["a", "b"]},
    });
    for (name, expected) in expected.as_object().unwrap() {
        assert_eq!(&numeric[name], expected, "{name}");
    }
    let boolean = reader.get("v2/scores/sc2").await;
    assert_eq!((&boolean["value"], &boolean["stringValue"]), (&json!(1.0), &json!("True")));
    let category = reader.get("scores/sc3").await;
    assert_eq!((&category["value"], &category["stringValue"]), (&json!(0.0), &json!("fine")));
    assert_eq!(reader.get("v2/scores/sc4").await["sessionId"], "s1");
    assert_eq!(reader.answer("scores/sc4").await.0, 404);
    for (query, expected) in [
        ("traceTags=a", vec!["sc1", "sc2"]),
        ("sessionId=s1", vec!["sc4"]),
        ("scoreIds=sc1,sc4", vec!["sc1", "sc4"]),
        ("observationId=g1&traceId=t1", vec!["sc2"]),
        ("operator=!%3D&value=0.9&dataType=NUMERIC", vec!["sc4"]),
    ] {
        assert_eq!(reader.ids(&format!("v2/scores?{query}")).await, expected, "{query}");
    }
    let (ids, pages) = reader.all("v3/scores?limit=3").await;
    assert_eq!((ids, pages), (["sc1", "sc2", "sc3", "sc4"].map(str::to_owned).to_vec(), 2));
    let third = reader.get("v3/scores?fields=core,details,subject&name=quality,helpful,verdict").await;
    let told = |at: usize| (third["data"][at]["value"].clone(), third["data"][at]["subject"].clone());
    assert_eq!(told(0), (json!(0.9), json!({"kind": "trace", "id": "t1"})));
    assert_eq!(told(1), (json!(true), json!({"kind": "observation", "id": "g1", "traceId": "t1"})));
    assert_eq!(told(2), (json!("fine"), json!({"kind": "trace", "id": "t2"})));
    for (query, expected) in [
        ("dataType=NUMERIC&valueMin=0.5&valueMax=1.0&traceId=t1", vec!["sc1"]),
        ("dataType=BOOLEAN&value=true", vec!["sc2"]),
        ("dataType=CATEGORICAL&value=fine,bad", vec!["sc3"]),
        ("toTimestamp=2026-11-20T10:00:09.000Z", vec![]),
        ("authorUserId=x", vec![]),
    ] {
        assert_eq!(reader.ids(&format!("v3/scores?{query}")).await, expected, "{query}");
    }
}

async fn the_wrong_is_named(reader: &Reader<'_>) {
    let nest = "%5B".repeat(200);
    for (path, status, says) in [
        ("traces/nothing", 404, "trace nothing"),
        ("observations/nothing", 404, "observation nothing"),
        ("sessions/nothing", 404, "session nothing"),
        ("v2/scores/nothing", 404, "score nothing"),
        ("traces?page=0", 400, "page"),
        ("traces?page=18446744073709551615", 200, ""),
        ("traces?limit=101", 400, "limit"),
        ("traces?limit=-1", 400, "limit"),
        ("traces?fromTimestamp=yesterday", 400, "fromTimestamp"),
        ("traces?fromTimestamp=2026-11-21T00:00:00Z&toTimestamp=2026-11-20T00:00:00Z", 400, "fromTimestamp"),
        ("traces?orderBy=cost.desc", 400, "orderBy"),
        ("traces?orderBy=name.up", 400, "orderBy"),
        ("traces?filter=nonsense", 400, "filter"),
        ("traces?filter=%5B%7B%22column%22:%22modle%22,%22operator%22:%22=%22%7D%5D", 400, "modle"),
        (&format!("traces?filter={nest}"), 400, "filter"),
        ("traces?name=%FF", 200, ""),
        ("observations?level=LOUD", 400, "level"),
        ("v2/observations?cursor=nonsense", 400, "cursor"),
        ("v2/observations?cursor=e30", 400, "cursor"),
        ("v2/observations?limit=1001", 400, "limit"),
        ("v2/observations?isRootObservation=maybe", 400, "isRootObservation"),
        ("v2/scores?operator=%3E", 400, "operator"),
        ("v2/scores?operator=like&value=1", 400, "operator"),
        ("v2/scores?dataType=MOOD", 400, "dataType"),
        ("v3/scores?limit=101", 400, "limit"),
        ("v3/scores?value=1", 400, "dataType"),
        ("v3/scores?observationId=x", 400, "traceId"),
        ("v3/scores?dataType=NUMERIC&value=x", 400, "value"),
    ] {
        let (answered, body) = reader.answer(path).await;
        assert_eq!(answered, status, "{path}: {body}");
        assert!(status == 200 || body["message"].as_str().unwrap().contains(says), "{path}: {body}");
    }
}

/// JSON as part of an address.
pub(crate) fn escaped(json: &Value) -> String {
    json.to_string().bytes().map(|byte| format!("%{byte:02X}")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_token_cost_is_told_as_it_was_when_it_was_priced() {
    let folder = tempfile::tempdir().unwrap();
    let server = ServerProcess::start(path(folder.path()));
    let reader = Reader(&server);
    let generation = |id: &str| {
        event(
            "generation-create",
            json!({
                "id": id, "traceId": "t", "model": "gpt-4o-mini", "startTime": "2026-11-20T10:00:00.000Z",
                "endTime": "2026-11-20T10:00:01.000Z", "usageDetails": {"input": 1000, "output": 100},
            }),
        )
    };
    post(&server, "ingestion", json!({"batch": [generation("shipped")]})).await;
    let own = json!({
        "modelName": "gpt-4o-mini", "matchPattern": "(?i)^gpt-4o-mini$", "unit": "TOKENS", "inputPrice": 2e-6,
    });
    post(&server, "models", own).await;
    post(&server, "ingestion", json!({"batch": [generation("own")]})).await;
    for (id, input, output, texts) in [
        ("shipped", json!(1.5e-7), json!(6e-7), [json!("0.00000015"), json!("0.0000006")]),
        ("own", json!(2e-6), Value::Null, [json!("0.000002"), Value::Null]),
    ] {
        let one = reader.get(&format!("observations/{id}")).await;
        assert_eq!([&one["inputPrice"], &one["outputPrice"]], [&input, &output], "{id}");
        let trace = reader.get("traces/t").await;
        let within = trace["observations"].as_array().unwrap().iter().find(|one| one["id"] == id).unwrap().clone();
        assert_eq!([&within["inputPrice"], &within["outputPrice"]], [&input, &output], "{id}");
        let second = reader.get("v2/observations?fields=core,model").await;
        let second = second["data"].as_array().unwrap().iter().find(|one| one["id"] == id).unwrap().clone();
        assert_eq!([&second["inputPrice"], &second["outputPrice"]], [&texts[0], &texts[1]], "{id}");
    }
    assert_eq!(reader.get("v2/observations?limit=1").await["data"][0]["inputPrice"], Value::Null, "not asked for");
}
