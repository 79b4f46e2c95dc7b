//! Langfuse's read API at the HTTP door: what is asked of the rooms below, and the shapes that its clients read.

use serde_json::{Value, json};

use super::http::Sent;
use super::*;
use crate::query::records::{
    ObservationRecord, RecordKind, Records, ScoreRecord, ScoredTrace, SessionRecord, TraceRecord,
};
use crate::wire::{Filter, FilterOperator, Observation, ObservationText, TraceObservation};

/// What pages are made of.
#[derive(Default)]
pub(super) struct Held {
    traces: Mutex<Vec<TraceRecord>>,
    observations: Mutex<Vec<ObservationRecord>>,
    sessions: Mutex<Vec<SessionRecord>>,
    scores: Mutex<Vec<ScoreRecord>>,
}

/// All of the kind, up to the limit.
pub(super) fn answer(asked: &RecordsAsked, held: &Held) -> RecordsAnswer {
    fn some<T: Clone>(all: &Mutex<Vec<T>>, limit: usize) -> Vec<T> {
        all.lock().iter().take(limit).cloned().collect()
    }
    let records = match asked.kind {
        RecordKind::Traces => Records::Traces(some(&held.traces, asked.limit)),
        RecordKind::Observations => Records::Observations(some(&held.observations, asked.limit)),
        RecordKind::Sessions => Records::Sessions(some(&held.sessions, asked.limit)),
        RecordKind::Scores => Records::Scores(some(&held.scores, asked.limit)),
    };
    RecordsAnswer { records, count: asked.with.count.then_some(7) }
}

impl World {
    async fn read(&self, key: &str, path: &str) -> Value {
        let answered = Sent::get(&format!("/api/public/{path}")).with("authorization", key).to(self.http).await;
        assert_eq!(answered.status, 200, "{path}: {:?}", answered);
        answered.json()
    }

    /// The last question.
    fn asked(&self) -> (Identity, RecordsAsked) {
        self.answers.asked_records.lock().last().cloned().unwrap()
    }
}

/// 2026-11-20 10:00:00.123456 UTC.
const AT_US: i64 = 1_795_168_800_123_456;

const LISTS: [&str; 7] = ["traces", "observations", "v2/observations", "sessions", "scores", "v2/scores", "v3/scores"];

#[tokio::test]
async fn reading_takes_a_key_that_may_read() {
    let world = World::open().await;
    let writer = world.key(&[Role::Ingest]).await;
    let reader = world.key(&[Role::Read]).await;
    for path in LISTS.into_iter().chain(["traces/t", "observations/o", "sessions/s", "scores/s", "v2/scores/s"]) {
        let at = || Sent::get(&format!("/api/public/{path}"));
        at().to(world.http).await.is(401, "key");
        at().with("authorization", &writer).to(world.http).await.is(403, "`read`");
        let found = at().with("authorization", &reader).to(world.http).await;
        match LISTS.contains(&path) {
            true => assert_eq!(found.json()["data"], json!([]), "{path}"),
            false => found.is(404, "LangfuseNotFoundError"),
        }
    }
    *world.answers.refusal.lock() = Some(Refusal::limit("time", "the query ran longer than its limit of time"));
    let at = Sent::get("/api/public/traces").with("authorization", &reader);
    at.to(world.http).await.is(422, "limit of time");
}

#[tokio::test]
async fn a_bound_key_asks_as_itself() {
    let world = World::open().await;
    let bound = Bound::User("ann".to_owned());
    let key = world.key_with(&[Role::Read], WritesFor::Own, Some(bound.clone())).await;
    for path in LISTS {
        world.read(&key, path).await;
        assert_eq!(world.asked().0.bound.as_ref(), Some(&bound), "{path}");
    }
}

fn said(filters: &[Filter]) -> Vec<String> {
    let one = |filter: &Filter| {
        let operator = FilterOperator::try_from(filter.operator).unwrap();
        let word = operator.as_str_name().trim_start_matches("FILTER_OPERATOR_");
        format!("{} {word} {}", filter.field, filter.values.join("|"))
    };
    filters.iter().map(one).collect()
}

#[tokio::test]
async fn parameters_become_filters_and_a_filter_goes_before_them() {
    let world = World::open().await;
    let key = world.key(&[Role::Read]).await;
    let path = "traces?userId=ann&name=chat&tags=a&tags=b,c&environment=e&page=3&limit=20&orderBy=userId.desc\
                &fromTimestamp=2026-11-20T10:00:00Z&toTimestamp=2026-11-20T11:00:00+01:00";
    let answered = Sent::get(&format!("/api/public/{path}")).with("authorization", &key).to(world.http).await;
    answered.is(400, "fromTimestamp is not before toTimestamp");
    let path = path.replace("11:00:00+01:00", "12:00:00+01:00");
    assert_eq!(
        world.read(&key, &path).await["meta"],
        json!({"page": 3, "limit": 20, "totalItems": 7, "totalPages": 1})
    );
    let (_, asked) = world.asked();
    let expected =
        ["user_id EQUALS ann", "name EQUALS chat", "tags HAS_ALL a|b,c", "environment IN e"].map(str::to_owned);
    assert_eq!(said(&asked.filters), expected);
    assert_eq!((asked.skip, asked.limit, asked.order[0].field.as_str()), (40, 20, "user_id"));
    assert_eq!(asked.range.to_unix_micros - asked.range.from_unix_micros, 3_600_000_000);
    // A latency is asked for in seconds, also where milliseconds stand.
    let filter = "%5B%7B%22type%22:%22number%22,%22column%22:%22latency%22,%22operator%22:%22%3E%22,%22value%22:1.5%7D,\
                  %7B%22type%22:%22string%22,%22column%22:%22name%22,%22operator%22:%22contains%22,%22value%22:%22l%22%7D%5D";
    world.read(&key, &format!("observations?name=llm&filter={filter}")).await;
    assert_eq!(said(&world.asked().1.filters), ["latency_ms GREATER 1500", "name CONTAINS l"]);
}

#[tokio::test]
async fn an_observation_is_told_in_seconds_and_its_texts_as_json_or_as_text() {
    let world = World::open().await;
    let key = world.key(&[Role::Read]).await;
    let observation = Observation {
        trace_id: "t".to_owned(),
        id: "o".to_owned(),
        input_tokens: Some(120),
        model_parameters: [("t".to_owned(), "0.2".to_owned()), ("n".to_owned(), "5".to_owned())].into(),
        metadata: [("n".to_owned(), "2".to_owned()), ("text".to_owned(), "é".repeat(201))].into(),
        ..Default::default()
    };
    let seen = TraceObservation {
        observation: Some(observation),
        start_unix_micros: AT_US,
        latency_ms: Some(1_500.0),
        ttft_ms: Some(250.0),
        total_cost: Some("0.000000000001".to_owned()),
        ..Default::default()
    };
    let text =
        ObservationText { input: Some("[1, 2]".to_owned()), output: Some("[1, 2".to_owned()), ..Default::default() };
    world.answers.records.observations.lock().push(ObservationRecord { seen, text: Some(text) });
    let first = world.read(&key, "observations").await["data"][0].clone();
    assert_eq!((&first["input"], &first["output"]), (&json!([1, 2]), &json!("[1, 2")));
    assert_eq!((&first["latency"], &first["timeToFirstToken"]), (&json!(1.5), &json!(0.25)));
    assert_eq!((&first["calculatedTotalCost"], &first["promptTokens"]), (&json!(1e-12), &json!(120)));
    assert_eq!(first["modelParameters"], json!({"t": "0.2", "n": 5}));
    assert_eq!(
        (&first["type"], &first["level"], &first["environment"]),
        (&json!("SPAN"), &json!("DEFAULT"), &json!("default"))
    );
    assert_eq!((&first["startTime"], &first["endTime"]), (&json!("2026-11-20T10:00:00.123Z"), &Value::Null));
    let second = world.read(&key, "v2/observations?fields=io,metadata,metrics").await["data"][0].clone();
    assert_eq!((&second["input"], &second["latency"]), (&json!("[1, 2]"), &json!(1.5)));
    assert_eq!(
        (second["metadata"]["text"].as_str().unwrap().chars().count(), &second["metadata"]["n"]),
        (200, &json!(2))
    );
    assert_eq!(second.get("name"), None, "basic was not asked for");
    let parsed = world.read(&key, "v2/observations?fields=io&parseIoAsJson=true").await["data"][0].clone();
    assert_eq!(parsed["input"], json!([1, 2]));
}

#[tokio::test]
async fn a_cursor_says_where_a_page_ended_to_the_microsecond() {
    let world = World::open().await;
    let key = world.key(&[Role::Read]).await;
    for at in 0..3 {
        let observation = Observation { trace_id: "t".to_owned(), id: format!("o{at}"), ..Default::default() };
        let seen =
            TraceObservation { observation: Some(observation), start_unix_micros: AT_US - at, ..Default::default() };
        world.answers.records.observations.lock().push(ObservationRecord { seen, text: None });
    }
    let page = world.read(&key, "v2/observations?limit=2").await;
    assert_eq!((page["data"].as_array().unwrap().len(), world.asked().1.limit), (2, 3));
    let cursor = page["meta"]["cursor"].as_str().unwrap();
    world.read(&key, &format!("v2/observations?limit=3&cursor={cursor}")).await;
    let (_, asked) = world.asked();
    assert_eq!(asked.range.to_unix_micros, AT_US, "the last one began a microsecond before");
    let rest = &asked.filters[0].any_of;
    assert_eq!(said(&rest[..1]), ["start_time LESS 2026-11-20T10:00:00.123455Z"]);
    assert_eq!(said(&rest[2].all_of[1..]), ["trace_id EQUALS t", "id GREATER o1"]);
    let last = world.read(&key, "v2/observations?limit=3").await;
    assert_eq!(last["meta"], json!({}), "nothing comes after");
}

#[tokio::test]
async fn scores_are_told_as_each_generation_knows_them() {
    let world = World::open().await;
    let key = world.key(&[Role::Read]).await;
    let score = |kind: &str, value: Option<f64>, word: Option<&str>| ScoreRecord {
        id: kind.to_owned(),
        data_type: kind.to_owned(),
        value,
        string_value: word.map(str::to_owned),
        session_id: Some("s".to_owned()),
        timestamp_us: AT_US,
        trace: Some(ScoredTrace { tags: vec!["a".to_owned()], ..Default::default() }),
        ..Default::default()
    };
    *world.answers.records.scores.lock() = vec![
        score("NUMERIC", Some(0.5), None),
        score("BOOLEAN", Some(1.0), Some("True")),
        score("CATEGORICAL", None, Some("good")),
        score("TEXT", None, Some("words")),
        score("CORRECTION", None, Some("right")),
    ];
    let second = world.read(&key, "v2/scores").await;
    let told: Vec<_> =
        second["data"].as_array().unwrap().iter().map(|one| (one.get("value"), one.get("stringValue"))).collect();
    let (half, one, zero) = (json!(0.5), json!(1.0), json!(0.0));
    let words = ["True", "good", "words", "right"].map(Value::from);
    let expected = [
        (Some(&half), None),
        (Some(&one), Some(&words[0])),
        (Some(&zero), Some(&words[1])),
        (None, Some(&words[2])),
        (Some(&zero), Some(&words[3])),
    ];
    assert_eq!(told, expected);
    assert_eq!(second["data"][0]["trace"]["environment"], "default");
    let third = world.read(&key, "v3/scores?fields=subject").await;
    let values: Vec<_> = third["data"].as_array().unwrap().iter().map(|one| one["value"].clone()).collect();
    assert_eq!(values, [json!(0.5), json!(true), json!("good"), json!("words"), json!("right")]);
    assert_eq!(third["data"][0]["subject"], json!({"kind": "session", "id": "s"}));
    world.read(&key, "scores").await;
    let asked = world.asked().1;
    assert_eq!(said(&asked.filters), ["trace_id IS_NOT_NULL ", "data_type IN NUMERIC|BOOLEAN|CATEGORICAL"]);
    assert!(asked.with.trace);
}

#[tokio::test]
async fn a_filter_that_cannot_be_is_told_with_its_column_and_what_would_do() {
    let world = World::open().await;
    let key = world.key(&[Role::Read]).await;
    let one = |kind: &str, column: &str, operator: &str, value: Value| {
        json!([{"type": kind, "column": column, "operator": operator, "value": value}]).to_string()
    };
    for (filter, says) in [
        ("{}".to_owned(), "filter is no JSON list"),
        ("[1]".to_owned(), "a filter is {type"),
        (one("string", "nmae", "=", json!("x")), "none of id, name"),
        (one("number", "name", ">", json!(1)), "name: operator"),
        (one("string", "name", "like", json!("x")), "starts with"),
        (one("number", "latency", ">", json!("fast")), "is not a number"),
        (one("datetime", "timestamp", ">", json!("soon")), "timestamp is a time"),
        (one("stringOptions", "name", "any of", json!([])), "empty list"),
        (one("stringObject", "metadata", "=", json!("x")), "a key is required"),
        (one("string", "name", "=", json!(["x"])), "not a list"),
        (one("boolean", "public", "=", json!("maybe")), "true or false"),
    ] {
        let escaped: String = filter.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let at = format!("/api/public/traces?filter={escaped}");
        Sent::get(&at).with("authorization", &key).to(world.http).await.is(400, says);
    }
}
