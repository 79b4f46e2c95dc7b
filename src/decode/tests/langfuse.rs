//! The classic batch: what each type of event says, and what is refused by itself.

use serde_json::{Value, json};

use crate::decode::{DecodeLimits, LangfuseBatch, Posted, Sdk, langfuse_batch, langfuse_post, langfuse_scores};
use crate::model::{
    Event, EventKind, Level, Observation, Order, RejectReason, Score, Status, TraceFacts, merge_observation,
    merge_trace, observation_bits, trace_bits,
};

const AT: &str = "2026-11-21T06:21:24.917Z";
const AT_US: i64 = 1_795_242_084_917_000;

fn decode(events: Value) -> LangfuseBatch {
    let body = json!({ "batch": events, "metadata": {"sdk_name": "python", "sdk_version": "2.60.10"} }).to_string();
    langfuse_batch(body.as_bytes(), &Sdk::default(), &DecodeLimits::default()).unwrap()
}

fn said(kind: &str, body: Value) -> Value {
    json!({ "id": format!("e-{kind}"), "timestamp": AT, "type": kind, "body": body })
}

/// The one event that `kind` with `body` becomes; roots told beside it are left out.
fn event(kind: &str, body: Value) -> Event {
    let batch = decode(json!([said(kind, body)]));
    assert!(batch.decoded.rejections.is_empty(), "{:?}", batch.decoded.rejections);
    batch.decoded.batch.events.into_iter().next().unwrap()
}

fn observation(kind: &str, body: Value) -> Observation {
    match event(kind, body).kind.unwrap() {
        EventKind::Observation(observation) => observation,
        other => panic!("{other:?}"),
    }
}

fn trace(body: Value) -> TraceFacts {
    match event("trace-create", body).kind.unwrap() {
        EventKind::Trace(facts) => facts,
        other => panic!("{other:?}"),
    }
}

fn score(body: Value) -> Score {
    match event("score-create", body).kind.unwrap() {
        EventKind::Score(score) => score,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn refused(kind: &str, body: Value, reason: RejectReason, says: &str) {
    let batch = decode(json!([said(kind, body)]));
    let answer = &batch.answers[0];
    let (found, message) = answer.refused.clone().expect("it is refused");
    assert_eq!((found, answer.event_id.as_str()), (reason, format!("e-{kind}").as_str()), "{message}");
    assert!(message.contains(says), "{message}");
    assert_eq!((batch.decoded.batch.received, batch.decoded.batch.events.len()), (1, 0));
    assert_eq!(batch.decoded.batch.rejected[reason.as_str()], 1);
}

#[test]
fn every_type_of_event_becomes_what_it_names() {
    let ids = json!({"id": "o", "traceId": "t"});
    for (kind, word) in [
        ("span-create", "SPAN"),
        ("span-update", "SPAN"),
        ("generation-create", "GENERATION"),
        ("generation-update", "GENERATION"),
        ("event-create", "EVENT"),
        ("agent-create", "AGENT"),
        ("tool-create", "TOOL"),
        ("chain-create", "CHAIN"),
        ("retriever-create", "RETRIEVER"),
        ("evaluator-create", "EVALUATOR"),
        ("embedding-create", "EMBEDDING"),
        ("guardrail-create", "GUARDRAIL"),
    ] {
        let event = event(kind, ids.clone());
        assert_eq!(event.order.is_update, kind.ends_with("-update"), "{kind}");
        assert_eq!((event.order.event_time_us, event.order.event_id), (AT_US, format!("e-{kind}")));
        let Some(EventKind::Observation(said)) = event.kind else { panic!("{kind}") };
        assert_eq!((said.observation_type().as_str(), said.trace_id.as_str(), said.id.as_str()), (word, "t", "o"));
        assert_eq!((said.sdk_name.as_deref(), said.source.as_deref()), (Some("python"), Some("langfuse-batch")));
    }
    let old = observation("observation-create", json!({"id": "o", "traceId": "t", "type": "GENERATION"}));
    assert_eq!(old.observation_type().as_str(), "GENERATION");
    refused("observation-update", json!({"id": "o", "type": "DREAM"}), RejectReason::InvalidValue, "type");
    refused("dataset-run-item-create", json!({"id": "o"}), RejectReason::Malformed, "no type of event");
    let log = decode(json!([said("sdk-log", json!({"log": {"why": 1}}))]));
    assert!(log.decoded.batch.events.is_empty() && log.answers[0].refused.is_none());
    assert_eq!(log.decoded.batch.received, 0);
}

#[test]
fn an_observation_says_what_its_body_says() {
    let body = json!({
        "id": "o", "traceId": "t", "parentObservationId": "p", "name": "llm", "environment": "langfuse-E2E",
        "startTime": "2026-11-21T06:21:24.5Z", "endTime": "2026-11-21T07:21:25.500001+01:00",
        "completionStartTime": "2026-11-21T06:21:25Z", "level": "ERROR", "statusMessage": "why", "version": "v",
        "model": "gpt", "modelParameters": {"temperature": "0.2", "stop": ["\n"], "n": 2, "format": null},
        "promptName": "greeting", "promptVersion": 3, "input": {"a": [1]}, "output": "text",
        "metadata": {"k": "v", "n": 1, "o": {"p": null}},
        "costDetails": {"input": 0.001, "output": "0.002", "odd": "x", "bad": -1, "total": null},
        "user_id": "u", "trace": {"release": "r"}, "status": null,
    });
    let said = observation("generation-create", body);
    assert_eq!(said.parent_id.as_deref(), Some("p"));
    assert_eq!(said.environment.as_deref(), Some("e2e"));
    assert_eq!((said.start_ns, said.end_ns), (Some(1_795_242_084_500_000_000), Some(1_795_242_085_500_001_000)));
    assert_eq!(said.completion_start_ns, Some(1_795_242_085_000_000_000));
    assert_eq!((said.level(), said.status()), (Level::Error, Status::Error));
    assert_eq!((said.prompt_name.as_deref(), said.prompt_version), (Some("greeting"), Some(3)));
    let parameters = [("n", "2"), ("stop", "[\"\\n\"]"), ("temperature", "0.2")];
    assert_eq!(said.model_parameters, parameters.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
    assert_eq!((said.input.as_deref(), said.output.as_deref()), (Some("{\"a\":[1]}"), Some("text")));
    let metadata = [("k", "v"), ("n", "1"), ("o", "{\"p\":null}")];
    assert_eq!(said.metadata, metadata.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
    let costs = [("input".to_owned(), 1_000_000_000), ("output".to_owned(), 2_000_000_000)];
    assert_eq!(said.provided_cost, costs.into());
    // Nothing sent is lost.
    let rest = [("user_id", "u"), ("trace", "{\"release\":\"r\"}"), ("cost.odd", "x"), ("cost.bad", "-1")];
    assert_eq!(said.attributes, rest.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
    assert_eq!(said.cleared, 0);
}

#[test]
fn null_clears_but_for_the_three_that_keep_and_the_level_that_falls_back() {
    let body = json!({
        "id": "o", "traceId": "t", "name": null, "endTime": null, "model": "", "level": null,
        "statusMessage": null, "parentObservationId": null, "version": null, "metadata": null, "usage": null,
        "input": null, "output": "",
    });
    let said = observation("generation-update", body);
    assert_eq!(said.cleared, observation_bits::name | observation_bits::end_ns | observation_bits::model);
    assert_eq!((said.level, said.status), (Some(Level::Default.into()), Some(Status::Unset.into())));
    let before = observation(
        "generation-create",
        json!({
            "id": "o", "traceId": "t", "name": "n", "statusMessage": "why", "parentObservationId": "p", "version": "v",
            "level": "ERROR", "input": "in", "output": "out", "usage": {"input": 3},
        }),
    );
    let order = |at, is_update| Order { event_time_us: at, is_update, ..Order::default() };
    let row = merge_observation(&[(&order(1, false), &before), (&order(2, true), &said)]).row;
    assert_eq!((row.name.as_deref(), row.parent_id.as_deref(), row.version.as_deref()), (None, Some("p"), Some("v")));
    assert_eq!(
        (row.status_message.as_deref(), row.level(), row.status()),
        (Some("why"), Level::Default, Status::Unset)
    );
    assert_eq!((row.input.as_deref(), row.output.as_deref(), row.input_tokens), (Some("in"), Some("out"), Some(3)));
    let facts = trace(json!({"id": "t", "name": null, "userId": null, "sessionId": "", "version": null}));
    assert_eq!(facts.cleared, trace_bits::name | trace_bits::user_id | trace_bits::session_id);
}

#[test]
fn only_what_begins_an_observation_dates_it() {
    let ids = json!({"id": "o", "traceId": "t"});
    assert_eq!(observation("span-create", ids.clone()).start_ns, Some(AT_US * 1000));
    assert_eq!(observation("span-update", ids.clone()).start_ns, None);
    let event = observation("event-create", ids);
    assert_eq!((event.start_ns, event.end_ns), (Some(AT_US * 1000), Some(AT_US * 1000)));
    let of_its_own = observation("span-create", json!({"id": "o"}));
    assert_eq!(of_its_own.trace_id, "o");
    assert_eq!(observation("span-create", json!({"traceId": "t"})).id, "e-span-create");
}

#[test]
fn usage_comes_in_every_shape() {
    let check = |usage: Value, expected: [Option<i64>; 4], kinds: &[(&str, i64)]| {
        let mut body = json!({"id": "o", "traceId": "t"});
        body.as_object_mut().unwrap().extend(usage.as_object().unwrap().clone());
        let said = observation("generation-update", body);
        let counts = [said.input_tokens, said.cached_input_tokens, said.output_tokens, said.total_tokens];
        assert_eq!(counts, expected, "{usage}");
        let kinds = kinds.iter().map(|(kind, count)| ((*kind).to_owned(), *count)).collect();
        assert_eq!(said.usage, kinds, "{usage}");
        said
    };
    let three = [("input", 120), ("output", 45), ("total", 165)];
    let counts = [Some(120), None, Some(45), Some(165)];
    check(json!({"usage": {"input": 120, "output": 45, "total": 165, "unit": "TOKENS"}}), counts, &three);
    check(json!({"usage": {"promptTokens": 120, "completionTokens": 45, "totalTokens": 165}}), counts, &three);
    check(
        json!({"usage": {"input": 8, "unit": "TOKENS"}}),
        [Some(8), None, None, Some(8)],
        &[("input", 8), ("total", 8)],
    );
    let openai = json!({
        "prompt_tokens": 120, "completion_tokens": 45, "total_tokens": 165,
        "prompt_tokens_details": {"cached_tokens": 100, "audio_tokens": null},
        "completion_tokens_details": {"reasoning_tokens": 20},
    });
    let kinds =
        [("input", 20), ("output", 25), ("total", 165), ("input_cached_tokens", 100), ("output_reasoning_tokens", 20)];
    let whole = [Some(120), Some(100), Some(45), Some(165)];
    // The drop-in sends both: the details win.
    check(json!({"usageDetails": openai, "usage": {"input": 1, "output": 1}}), whole, &kinds);
    let record =
        json!({"input": 100, "output": "50", "cache_read_input_tokens": 40, "total": 190, "half": 0.5, "no": -1});
    let kinds = [("input", 100), ("output", 50), ("cache_read_input_tokens", 40), ("total", 190)];
    check(json!({"usageDetails": record}), [Some(140), Some(40), Some(50), Some(190)], &kinds);
    check(json!({"usageDetails": {}, "usage": {"input": 120, "output": 45}}), counts, &three);
    let images = check(json!({"usage": {"output": 2, "unit": "IMAGES"}}), [None; 4], &[("output", 2), ("total", 2)]);
    assert_eq!(images.attributes["usage.unit"], "IMAGES");
    let costs = check(json!({"usage": {"inputCost": 0, "totalCost": 1.6e-7}}), [None; 4], &[]);
    assert_eq!(costs.provided_cost, [("input".to_owned(), 0), ("total".to_owned(), 160_000)].into());
    refused("generation-update", json!({"id": "o", "costDetails": {"total": 1e6}}), RejectReason::InvalidCost, "total");
}

#[test]
fn a_trace_says_what_its_body_says_and_is_private_again_if_told_again_without() {
    let body = json!({
        "id": "t", "timestamp": "2026-11-21T06:21:24Z", "name": "n", "userId": 42, "sessionId": "s", "release": "r",
        "version": "v", "environment": "e2e", "public": true, "tags": ["b", "a", 1], "metadata": ["x"],
        "input": {"q": 1}, "output": 0, "externalId": "x", "end_time": null,
    });
    let said = trace(body);
    assert_eq!((said.timestamp_us, said.public), (Some(1_795_242_084_000_000), Some(true)));
    assert_eq!((said.user_id.as_deref(), said.tags), (Some("42"), vec!["b".to_owned(), "a".into(), "1".into()]));
    assert_eq!(said.metadata, [("metadata".to_owned(), "[\"x\"]".to_owned())].into());
    assert_eq!((said.input.as_deref(), said.output), (Some("{\"q\":1}"), None));
    assert_eq!(said.attributes, [("externalId".to_owned(), "x".to_owned())].into());
    let again = trace(json!({"id": "t", "tags": null}));
    assert_eq!((again.public, again.timestamp_us, again.name), (Some(false), Some(AT_US), None));
}

#[test]
fn the_parentless_observation_that_started_first_names_the_trace_in_any_order_of_requests() {
    let root = |id: &str, start: &str| {
        said(
            "span-create",
            json!({"id": id, "traceId": "t", "name": id, "startTime": start, "parentObservationId": null}),
        )
    };
    let child = said("span-create", json!({"id": "c", "traceId": "t", "parentObservationId": "a"}));
    let update = said("span-update", json!({"id": "b", "traceId": "t", "name": "x"}));
    let (first, second) = (root("a", "2026-11-21T06:00:00Z"), root("b", "2026-11-21T06:00:01Z"));
    let facts = |events: Value| {
        let events = decode(events).decoded.batch.events;
        let facts = |event| match event {
            Event { order, kind: Some(EventKind::Trace(facts)) } => Some((order, facts)),
            _ => None,
        };
        events.into_iter().filter_map(facts).collect::<Vec<_>>()
    };
    assert!(facts(json!([child, update])).is_empty());
    let together = facts(json!([second, child, first]));
    assert_eq!(together.len(), 1);
    assert_eq!(together[0].1.root_id.as_deref(), Some("a"));
    let mut apart = [facts(json!([first])), facts(json!([second]))].concat();
    apart.sort_by(|one, other| one.0.cmp(&other.0));
    let row = merge_trace(&apart.iter().map(|(order, facts)| (order, facts)).collect::<Vec<_>>()).row;
    assert_eq!((row.root_id.as_deref(), row.root_name.as_deref()), (Some("a"), Some("a")));
}

#[test]
fn scores_come_with_every_type_target_and_source() {
    let check = |body: Value, expected: (&str, Option<f64>, Option<&str>)| {
        let mut whole = json!({"id": "s", "traceId": "t", "name": "q"});
        whole.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
        let said = score(whole);
        assert_eq!((said.data_type().as_str(), said.value, said.string_value.as_deref()), expected, "{body}");
        said
    };
    check(json!({"value": 0.87}), ("NUMERIC", Some(0.87), None));
    check(json!({"value": "good"}), ("CATEGORICAL", None, Some("good")));
    check(json!({"value": 1.0, "dataType": "BOOLEAN"}), ("BOOLEAN", Some(1.0), Some("True")));
    check(json!({"value": false}), ("BOOLEAN", Some(0.0), Some("False")));
    check(json!({"value": "free text", "dataType": "TEXT"}), ("TEXT", None, Some("free text")));
    let corrected = check(json!({"value": "so", "dataType": "CORRECTION"}), ("CORRECTION", None, Some("so")));
    assert_eq!(corrected.name, "output");
    let whole = check(
        json!({
            "value": 1, "comment": "c", "source": "annotation", "configId": "k", "queueId": "u",
            "executionTraceId": "x", "environment": "E2E", "metadata": {"n": 3}, "observationId": "o",
        }),
        ("NUMERIC", Some(1.0), None),
    );
    assert_eq!((whole.source.as_deref(), whole.config_id.as_deref()), (Some("ANNOTATION"), Some("k")));
    assert_eq!((whole.queue_id.as_deref(), whole.execution_trace_id.as_deref()), (Some("u"), Some("x")));
    assert_eq!((whole.observation_id.as_deref(), whole.environment.as_deref()), (Some("o"), Some("e2e")));
    assert_eq!((whole.timestamp_us, whole.metadata["n"].as_str()), (Some(AT_US), "3"));
    let of_session = score(json!({"sessionId": "s", "name": "q", "value": 1, "traceId": null}));
    assert_eq!((of_session.session_id.as_deref(), of_session.id.as_str()), (Some("s"), "e-score-create"));
    assert_eq!(score(json!({"datasetRunId": "r", "name": "q", "value": 1})).dataset_run_id.as_deref(), Some("r"));

    let wrong = |body: Value, reason, says| refused("score-create", body, reason, says);
    wrong(json!({"name": "q", "value": 1}), RejectReason::MissingId, "traceId, sessionId and datasetRunId");
    let both = json!({"name": "q", "value": 1, "traceId": "t", "sessionId": "s"});
    wrong(both, RejectReason::MissingId, "only one");
    wrong(
        json!({"name": "q", "value": 1, "sessionId": "s", "observationId": "o"}),
        RejectReason::MissingId,
        "traceId too",
    );
    wrong(json!({"value": 1, "traceId": "t"}), RejectReason::InvalidValue, "name");
    wrong(json!({"name": "q", "traceId": "t"}), RejectReason::InvalidValue, "value");
    for (value, data_type, says) in [
        (json!("x"), "NUMERIC", "a number"),
        (json!(2), "BOOLEAN", "0 or 1"),
        (json!(1), "CATEGORICAL", "a text"),
        (json!(""), "TEXT", "1 to 500"),
        (json!("x".repeat(501)), "TEXT", "1 to 500"),
        (json!([1]), "NUMERIC", "a finite number or a text"),
        (json!(1), "GUESS", "dataType is"),
    ] {
        let body = json!({"name": "q", "traceId": "t", "value": value, "dataType": data_type});
        wrong(body, RejectReason::InvalidValue, says);
    }
    wrong(json!({"name": "q", "traceId": "t", "value": 1, "source": "X"}), RejectReason::InvalidValue, "source");
    let annotated = json!({"name": "q", "traceId": "t", "value": 1, "source": "ANNOTATION"});
    wrong(annotated, RejectReason::InvalidValue, "configId");
}

#[test]
fn one_bad_event_is_refused_by_its_id_and_its_neighbours_are_kept() {
    let good = |id: &str| json!({"id": id, "timestamp": AT, "type": "span-create", "body": {"id": id, "traceId": "t"}});
    let long = "x".repeat(801);
    let batch = decode(json!([
        good("1"),
        7,
        {"timestamp": AT, "type": "span-create", "body": {}},
        {"id": long, "timestamp": AT, "type": "span-create", "body": {}},
        {"id": "2", "timestamp": "yesterday", "type": "span-create", "body": {}},
        {"id": "3", "timestamp": AT, "type": "dream-create", "body": {}},
        {"id": "4", "timestamp": AT, "type": "span-create", "body": "x"},
        {"id": "5", "timestamp": AT, "type": "span-create"},
        {"id": "6", "timestamp": AT, "type": "span-update", "body": {"traceId": "t"}},
        {"id": "7", "timestamp": AT, "type": "span-create", "body": {"level": "LOUD"}},
        {"id": "8", "timestamp": AT, "type": "span-create", "body": {"startTime": "1969-01-01T00:00:00Z"}},
        {"id": "9", "timestamp": AT, "type": "generation-create", "body": {"promptName": "p"}},
        {"id": "10", "timestamp": AT, "type": "span-create", "body": {"id": "a\nb"}},
        {"id": "11", "timestamp": AT, "type": "span-create", "body": {"name": ["x"]}},
        good("12"),
    ]));
    use RejectReason::*;
    let reasons: Vec<Option<RejectReason>> =
        batch.answers.iter().map(|answer| answer.refused.as_ref().map(|(reason, _)| *reason)).collect();
    let expected = [
        None,
        Some(Malformed),
        Some(MissingId),
        Some(InvalidId),
        Some(InvalidTime),
        Some(Malformed),
        Some(Malformed),
        Some(Malformed),
        Some(MissingId),
        Some(InvalidValue),
        Some(InvalidTime),
        Some(InvalidValue),
        Some(InvalidId),
        Some(InvalidValue),
        None,
    ];
    assert_eq!(reasons, expected);
    let batch = batch.decoded.batch;
    assert_eq!((batch.received, batch.rejected.values().sum::<u64>()), (15, 13));
    let kept = batch.events.iter().filter(|event| matches!(event.kind, Some(EventKind::Observation(_)))).count();
    assert_eq!(kept, 2);
}

#[test]
fn hostile_bodies_are_refused_whole_or_by_event() {
    let limits = DecodeLimits { span_bytes_max: 10_000, ..DecodeLimits::default() };
    let read = |body: &str| langfuse_batch(body.as_bytes(), &Sdk::default(), &limits);
    for body in
        ["", "[]", "7", "{}", "{\"batch\": 7}", "{\"batch\": {}}", "{\"batch\": [", "{\"batch\": [{}], }", "\u{0}"]
    {
        let error = read(body).unwrap_err().to_string();
        assert!(error.starts_with("the body is not {\"batch\": [event, …]}: "), "{error}");
    }
    assert!(langfuse_batch(b"{\"batch\": [\"\xff\"]}", &Sdk::default(), &limits).is_err());
    assert_eq!(read("{\"batch\": []}").unwrap().answers, []);
    let span = |name: &str| {
        format!(
            r#"{{"batch": [{{"id": "1", "timestamp": "{AT}", "type": "span-create", "body": {{"id": "o", "name": {name}}}}}]}}"#
        )
    };
    let refused = |body: String| read(&body).unwrap().answers[0].refused.clone().map(|(reason, _)| reason);
    assert_eq!(refused(span(&format!("\"{}\"", "x".repeat(10_001)))), Some(RejectReason::TooLarge));
    assert_eq!(
        refused(span(&format!("{}1{}", "[".repeat(4_000), "]".repeat(4_000)))),
        Some(RejectReason::InvalidValue)
    );
    let long = span("\"n\"").replace("\"name\"", &format!("\"output\": \"{}\", \"name\"", "x".repeat(20_000)));
    let batch = read(&long).unwrap().decoded.batch;
    let Some(EventKind::Observation(kept)) = &batch.events[0].kind else { panic!("an observation") };
    assert!(kept.output.as_ref().unwrap().ends_with(" bytes cut]") && kept.attributes.contains_key("truncated_bytes"));
    assert_eq!(refused(span("\"half a pair \\ud83d\"")), None);
    // Deep metadata is kept as it came.
    let deep = format!("{}1{}", "{\"a\":".repeat(1_000), "}".repeat(1_000));
    let body = span("\"n\"").replace("\"name\"", &format!("\"metadata\": {deep}, \"name\""));
    assert_eq!(refused(body), None);
}

#[test]
fn posts_without_an_envelope_are_events_too() {
    let posted = Posted { at_us: 5, new_id: "new" };
    let (sdk, limits) = (Sdk { name: Some("js".into()), version: None }, DecodeLimits::default());
    let one = |kind: &str, body: &str| langfuse_post(kind, body.as_bytes(), posted, &sdk, &limits);
    let batch = one("span-create", r#"{"name": "n"}"#).unwrap();
    assert_eq!((batch.answers[0].about.as_str(), batch.answers.len()), ("new", 1));
    let EventKind::Observation(span) = batch.decoded.batch.events[0].kind.clone().unwrap() else { panic!("a span") };
    assert_eq!((span.start_ns, span.sdk_name.as_deref()), (Some(5_000), Some("js")));
    assert!(one("span-create", "{").is_err());
    assert!(one("span-create", "[]").unwrap().answers[0].refused.is_some());
    assert!(one("span-update", "{}").unwrap().answers[0].refused.is_some());

    let scores = |body: &str| langfuse_scores(body.as_bytes(), posted, &sdk, &limits).unwrap();
    let body = r#"{"traceId": "t", "name": "q", "value": 1}"#;
    let (single, is_list) = scores(body);
    assert_eq!((single.answers[0].about.as_str(), is_list), ("new", false));
    let dated = r#"{"id": "s", "traceId": "t", "name": "q", "value": 1, "timestamp": "2026-11-21T06:21:59.552689Z"}"#;
    let (list, is_list) = scores(&format!("[{body}, {dated}, {body}, 7]"));
    let about: Vec<&str> = list.answers.iter().map(|answer| answer.about.as_str()).collect();
    assert_eq!((about, is_list), (vec!["new", "s", "new-2", ""], true));
    assert_eq!(list.decoded.batch.events[1].order.event_time_us, 1_795_242_119_552_689);
    // Sent again, it is the same event.
    assert_eq!(scores(dated).0.decoded.batch.events, scores(dated).0.decoded.batch.events);
}

/// Clients tell a trace again with a later time, or with less than before (`clients` §0, 6 and 7).
#[test]
fn a_trace_told_again_keeps_its_first_time_and_what_is_not_said_again() {
    let told = |id: &str, timestamp: &str, body: Value| {
        let event = json!({ "id": id, "timestamp": timestamp, "type": "trace-create", "body": body });
        let event = decode(json!([event])).decoded.batch.events.remove(0);
        match event {
            Event { order, kind: Some(EventKind::Trace(facts)) } => (order, facts),
            other => panic!("{other:?}"),
        }
    };
    let first =
        json!({"id": "t", "timestamp": "2026-11-21T06:00:00Z", "name": "n", "tags": ["a"], "environment": "e2e"});
    let again =
        json!({"id": "t", "timestamp": "2026-11-21T06:30:00Z", "userId": "u", "tags": ["b"], "environment": "x"});
    let last = json!({"id": "t", "output": "done", "end_time": "2026-11-21T06:40:00Z"});
    let mut told = [
        told("3", "2026-11-21T06:40:00Z", last),
        told("1", "2026-11-21T06:00:01Z", first),
        told("2", "2026-11-21T06:30:01Z", again),
    ];
    told.sort_by(|one, other| one.0.cmp(&other.0));
    let row = merge_trace(&told.iter().map(|(order, facts)| (order, facts)).collect::<Vec<_>>()).row;
    assert_eq!(row.timestamp_us, Some(1_795_240_800_000_000));
    assert_eq!((row.name.as_deref(), row.user_id.as_deref()), (Some("n"), Some("u")));
    assert_eq!((row.tags, row.environment.as_deref()), (vec!["a".to_owned(), "b".into()], Some("e2e")));
    assert_eq!(row.output.as_deref(), Some("done"));
}

/// Ids are what their senders like (`clients` §0, 10).
#[test]
fn ids_of_every_form_are_kept_as_they_came() {
    for id in [
        "7fbb6e02-eeca-4c62-843f-530bfa1dda3a",
        "9ed3ffe3f11378adf39f47adc84530b0",
        "time-05-56-15-080195_chatcmpl-3460",
        "trace-litellm-20261121062117",
        "spaces and / slashes, ünïcode 🌍 \u{200b}\"quoted\"",
        &"x".repeat(800),
    ] {
        let said = observation("span-create", json!({"id": id, "traceId": id, "parentObservationId": id}));
        assert_eq!((said.id.as_str(), said.trace_id.as_str(), said.parent_id.as_deref()), (id, id, Some(id)));
    }
    refused("span-create", json!({"id": "x".repeat(801)}), RejectReason::InvalidId, "the limit is 800");
    refused("span-create", json!({"id": "a\rb"}), RejectReason::InvalidId, "line break");
    refused("span-create", json!({"id": {"a": 1}}), RejectReason::InvalidValue, "not text");
}
