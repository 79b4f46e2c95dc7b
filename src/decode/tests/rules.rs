//! The mapping, rule by rule: a span with these attributes becomes an observation with this field.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::reading::{ids, request, wrapped};
use crate::decode::{DecodeLimits, Decoded, Sdk, otlp_json, otlp_json_by};
use crate::model::{EventKind, Level, Observation, ObservationType, RejectReason, Status, TraceFacts};

const START_NS: i64 = 1_795_242_103_000_000_000;

pub(super) fn decoded(span: Value) -> Decoded {
    otlp_json(request(vec![span]).to_string().as_bytes(), &DecodeLimits::default()).unwrap()
}

pub(super) fn only(decoded: Decoded) -> (Observation, TraceFacts) {
    assert_eq!(decoded.rejections, []);
    let (mut observation, mut facts) = (None, None);
    for event in decoded.batch.events {
        match event.kind.unwrap() {
            EventKind::Observation(said) => observation = Some(said),
            EventKind::Trace(said) => facts = Some(said),
            EventKind::Score(_) => unreachable!(),
        }
    }
    (observation.unwrap(), facts.unwrap_or_default())
}

fn span(attributes: Value) -> Value {
    let mut span = ids(1);
    span["name"] = "span-name".into();
    span["startTimeUnixNano"] = START_NS.to_string().into();
    span["endTimeUnixNano"] = (START_NS + 1_500_000_000).to_string().into();
    span["attributes"] = wrapped(&attributes);
    span
}

pub(super) fn observed(attributes: Value) -> Observation {
    only(decoded(span(attributes))).0
}

pub(super) fn refused(attributes: Value) -> RejectReason {
    decoded(span(attributes)).rejections[0].reason
}

pub(super) fn map<V>(pairs: &[(&str, V)]) -> BTreeMap<String, V>
where
    V: Clone,
{
    pairs.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect()
}

#[test]
fn the_type_comes_from_the_first_source_that_knows() {
    let check = |attributes: Value, wanted: ObservationType| {
        assert_eq!(observed(attributes.clone()).observation_type(), wanted, "{attributes}");
    };
    use ObservationType::*;
    check(json!({}), Span);
    check(json!({"langfuse.observation.type": "GUARDRAIL"}), Guardrail);
    check(json!({"langfuse.observation.type": "agent", "openinference.span.kind": "LLM"}), Agent);
    check(json!({"langfuse.observation.type": "nonsense", "openinference.span.kind": "LLM"}), Generation);
    check(json!({"openinference.span.kind": "PROMPT"}), Span);
    check(json!({"openinference.span.kind": "RETRIEVER"}), Retriever);
    check(json!({"gen_ai.operation.name": "chat"}), Generation);
    check(json!({"gen_ai.operation.name": "embeddings", "gen_ai.request.model": "m"}), Embedding);
    check(json!({"gen_ai.operation.name": "retrieval"}), Span);
    check(json!({"gen_ai.operation.name": "execute_tool"}), Tool);
    check(json!({"gen_ai.operation.name": "invoke_agent", "gen_ai.request.model": "m"}), Agent);
    check(json!({"ai.operationId": "ai.streamText.doStream"}), Generation);
    check(json!({"operation.name": "ai.toolCall my-function"}), Tool);
    check(json!({"gen_ai.tool.call.id": "c"}), Tool);
    check(json!({"llm.model_name": "m"}), Generation);
}

#[test]
fn the_best_key_wins_and_the_other_is_kept() {
    let observation = observed(json!({
        "gen_ai.request.model": "asked", "gen_ai.response.model": "answered", "user.id": "u", "langfuse.user.id": "u",
        "session.id": "", "gen_ai.conversation.id": "c", "app.flag": true, "app.list": [1, 2.5, "x"],
    }));
    assert_eq!(observation.model.as_deref(), Some("answered"));
    assert_eq!(observation.user_id.as_deref(), Some("u"));
    assert_eq!(observation.session_id.as_deref(), Some("c"), "an empty value is none");
    let rest = &observation.attributes;
    assert_eq!(rest["gen_ai.request.model"], "asked");
    assert!(!rest.contains_key("user.id"), "it says the same");
    assert_eq!((rest["app.flag"].as_str(), rest["app.list"].as_str()), ("true", "[1,2.5,\"x\"]"));
}

#[test]
fn attributes_that_cannot_be_read_are_kept_as_they_came() {
    let bad = json!({
        "langfuse.observation.usage_details": "{oops", "langfuse.observation.cost_details": "free",
        "langfuse.observation.model.parameters": "[1]", "langfuse.observation.completion_start_time": "soon",
        "langfuse.observation.level": "LOUD", "langfuse.observation.prompt.version": "latest",
        "gen_ai.usage.input_tokens": "many", "gen_ai.usage.cost": "unknown", "metadata": "no object",
    });
    let got = observed(bad.clone());
    for (key, value) in bad.as_object().unwrap() {
        assert_eq!(got.attributes.get(key).map(String::as_str), value.as_str(), "{key}");
    }
    assert_eq!((got.usage_source, got.completion_start_ns, got.level), (None, None, None));
}

#[test]
fn the_first_token_is_a_time_or_a_wait_or_an_event() {
    let check = |attributes: Value, after_ns: i64| {
        assert_eq!(observed(attributes.clone()).completion_start_ns, Some(START_NS + after_ns), "{attributes}");
    };
    let time = |text: &str| json!({"langfuse.observation.completion_start_time": text});
    assert_eq!(chrono::DateTime::from_timestamp_nanos(START_NS).to_rfc3339(), "2026-11-21T06:21:43+00:00");
    check(time("\"2026-11-21T06:21:43.840602Z\""), 840_602_000);
    check(time("2026-11-21T07:21:43.5+01:00"), 500_000_000);
    check(time("2026-11-21T06:21:43.5"), 500_000_000);
    check(json!({"gen_ai.response.time_to_first_chunk": 0.25}), 250_000_000);
    check(json!({"ai.response.msToFirstChunk": 12.5}), 12_500_000);
    for name in ["First Token Stream Event", "gen_ai.content.completion.chunk", "llm.content.completion.chunk"] {
        let mut span = span(json!({}));
        let event = |after_ns: i64| json!({"name": name, "timeUnixNano": (START_NS + after_ns).to_string()});
        span["events"] = json!([event(5), event(9)]);
        assert_eq!(only(decoded(span)).0.completion_start_ns, Some(START_NS + 5), "{name}");
    }
}

#[test]
fn errors_come_from_the_level_the_status_or_the_exception() {
    let mut failed = span(json!({}));
    failed["status"] = json!({"code": "STATUS_CODE_ERROR"});
    failed["events"] = json!([
        {"name": "exception", "attributes": wrapped(&json!({
            "exception.type": "ValueError", "exception.message": "bad", "exception.stacktrace": "at x",
        }))},
        {"name": "note", "timeUnixNano": 5, "attributes": wrapped(&json!({"n": 1}))},
    ]);
    let got = only(decoded(failed.clone())).0;
    assert_eq!((got.level(), got.status()), (Level::Error, Status::Error));
    assert_eq!((got.error_type.as_deref(), got.status_message.as_deref()), (Some("ValueError"), Some("bad")));
    assert_eq!(got.exception_stacktrace.as_deref(), Some("at x"));
    assert_eq!(got.attributes["events"], r#"[{"attributes":{"n":1},"name":"note","time_unix_nano":5}]"#);

    failed["status"] = json!({"code": 2, "message": "said"});
    failed["attributes"] = wrapped(&json!({"error.type": "RateLimitError", "langfuse.observation.level": "warn"}));
    let got = only(decoded(failed)).0;
    assert_eq!((got.error_type.as_deref(), got.status_message.as_deref()), (Some("RateLimitError"), Some("said")));
    assert_eq!(got.level(), Level::Warning, "what the client says of the level comes first");

    let got = observed(json!({"langfuse.observation.level": "FATAL"}));
    assert_eq!((got.level(), got.status), (Level::Error, None));
}

#[test]
fn input_and_output_come_from_the_best_source() {
    let check = |attributes: Value, input: &str, output: &str| {
        let got = observed(attributes.clone());
        assert_eq!((got.input.as_deref(), got.output.as_deref()), (Some(input), Some(output)), "{attributes}");
    };
    check(json!({"langfuse.observation.input": "a", "input.value": "b", "output.value": "c"}), "a", "c");
    check(json!({"traceloop.entity.input": "a", "traceloop.entity.output": "b"}), "a", "b");
    check(
        json!({"gen_ai.input.messages": [{"role": "user"}], "gen_ai.output.messages": "x"}),
        r#"[{"role":"user"}]"#,
        "x",
    );
    check(json!({"gen_ai.tool.call.arguments": "{}", "gen_ai.tool.call.result": "r"}), "{}", "r");
    check(
        json!({"gen_ai.prompt.0.role": "user", "gen_ai.prompt.0.content": "hi", "gen_ai.prompt.10.role": "z",
               "gen_ai.prompt.2.role": "y", "gen_ai.completion.0.content": "there"}),
        r#"[{"content":"hi","role":"user"},{"role":"y"},{"role":"z"}]"#,
        r#"[{"content":"there"}]"#,
    );
    check(
        json!({"llm.input_messages.1.message.tool_calls.0.tool_call.id": "c",
               "llm.output_messages.0.message.role": "a"}),
        r#"[{"message":{"tool_calls":[{"tool_call":{"id":"c"}}]}}]"#,
        r#"[{"message":{"role":"a"}}]"#,
    );
    let got = observed(json!({"input.value": "whole", "llm.input_messages.0.message.role": "user"}));
    assert_eq!(got.attributes["llm.input_messages.0.message.role"], "user", "the pieces are kept");
}

#[test]
fn message_events_become_input_and_output() {
    let mut span = span(json!({}));
    let event = |name: &str, attributes: Value| json!({"name": name, "attributes": wrapped(&attributes)});
    span["events"] = json!([
        event("gen_ai.system.message", json!({"content": "be brief"})),
        event("gen_ai.user.message", json!({"content": "hi"})),
        event("gen_ai.choice", json!({"index": 0, "message": "there"})),
    ]);
    let got = only(decoded(span.clone())).0;
    assert_eq!(got.input.unwrap(), r#"[{"content":"be brief","role":"system"},{"content":"hi","role":"user"}]"#);
    assert_eq!(got.output.unwrap(), r#"[{"index":0,"message":"there","role":"assistant"}]"#);

    span["events"] = json!([
        event("gen_ai.content.prompt", json!({"gen_ai.prompt": "hi"})),
        event("gen_ai.content.completion", json!({"gen_ai.completion": "there"})),
        event("gen_ai.client.inference.operation.details", json!({"gen_ai.input.messages": "all"})),
    ]);
    let got = only(decoded(span)).0;
    assert_eq!((got.input.as_deref(), got.output.as_deref()), (Some("all"), Some("there")));
}

#[test]
fn metadata_keeps_top_level_keys_as_text() {
    let got = observed(json!({
        "langfuse.observation.metadata": r#"{"a": 1.50, "b": {"c": [1, 2]}, "d": "text", "e": null}"#,
        "langfuse.observation.metadata.k": true, "langfuse.metadata.m": "x", "metadata": r#"{"oi": "y"}"#,
        "ai.telemetry.metadata.tenant": "acme",
    }));
    let wanted = [
        ("a", "1.50"),
        ("b", r#"{"c": [1, 2]}"#),
        ("d", "text"),
        ("e", "null"),
        ("k", "true"),
        ("m", "x"),
        ("oi", "y"),
        ("tenant", "acme"),
    ];
    assert_eq!(got.metadata, map(&wanted.map(|(key, text)| (key, text.to_owned()))));
    let got = observed(json!({"langfuse.observation.metadata": "just text"}));
    assert_eq!(got.metadata["metadata"], "just text");
}

#[test]
fn only_langfuses_python_sdk_from_5_and_javascript_sdk_from_6_on_encode_metadata() {
    let by = |sdk: Sdk, language: &str, version: &str| {
        let mut body = request(vec![span(json!({"langfuse.observation.metadata.k": "\"123\""}))]);
        let resource = &mut body["resourceSpans"][0];
        resource["resource"] = json!({"attributes": wrapped(&json!({"telemetry.sdk.language": language}))});
        resource["scopeSpans"][0]["scope"] = json!({"name": "langfuse-sdk", "version": version});
        let decoded = otlp_json_by(&sdk, body.to_string().as_bytes(), &DecodeLimits::default()).unwrap();
        only(decoded).0.metadata["k"].clone()
    };
    let metadata = |language: &str, version: &str| by(Sdk::default(), language, version);
    assert_eq!(metadata("python", "5.0.4"), "123");
    assert_eq!(metadata("python", "10.0.0"), "123");
    assert_eq!(metadata("python", "4.18.0"), "\"123\"");
    assert_eq!(metadata("python", ""), "\"123\"");
    assert_eq!(metadata("nodejs", "5.11.1"), "\"123\"");
    assert_eq!(metadata("nodejs", "6.0.0"), "123");
    // The request's headers where the scope does not say, as LiteLLM's does not; never where it does.
    let header = |name: &str, version: &str| Sdk { name: Some(name.to_owned()), version: Some(version.to_owned()) };
    assert_eq!(by(header("python", "5.0.4"), "python", ""), "123");
    assert_eq!(by(header("python", "5.0.4"), "", ""), "123");
    assert_eq!(by(header("python", "4.18.0"), "python", ""), "\"123\"");
    assert_eq!(by(header("python", "5.0.4"), "python", "4.18.0"), "\"123\"");
}

#[test]
fn tags_come_in_four_spellings() {
    for tags in [json!(["b", "a", "b"]), json!("[\"b\", \"a\"]"), json!("b, a,"), json!("[\"a\",\"b\",\"\"]")] {
        let (observation, facts) = only(decoded(span(json!({"langfuse.trace.tags": tags}))));
        assert_eq!((observation.tags, facts.tags), (vec!["a".into(), "b".into()], vec!["a".into(), "b".into()]));
    }
    assert_eq!(observed(json!({"tag.tags": "solo"})).tags, ["solo"]);
}

#[test]
fn environments_follow_langfuses_rule() {
    let long = "x".repeat(60);
    for (said, wanted) in
        [("Prod", "prod"), ("langfuse-eval", "eval"), ("a b", "default"), ("übung", "default"), (&long, &long[..40])]
    {
        assert_eq!(observed(json!({"langfuse.environment": said})).environment.as_deref(), Some(wanted));
    }
    assert_eq!(observed(json!({})).environment, None);
}

#[test]
fn the_span_speaks_before_its_resource() {
    let mut body = request(vec![span(json!({"deployment.environment": "request"})), span(json!({}))]);
    body["resourceSpans"][0]["resource"] = json!({"attributes": wrapped(&json!({
        "deployment.environment": "old", "deployment.environment.name": "staging", "service.name": "shop",
        "service.version": "1.2", "langfuse.release": "r7", "host.name": "h", "telemetry.sdk.name": "opentelemetry",
    }))});
    let decoded = otlp_json(body.to_string().as_bytes(), &DecodeLimits::default()).unwrap();
    let observations: Vec<_> = decoded
        .batch
        .events
        .into_iter()
        .filter_map(|event| match event.kind {
            Some(EventKind::Observation(observation)) => Some(observation),
            _ => None,
        })
        .collect();
    let [first, second] = &observations[..] else { panic!() };
    assert_eq!((first.environment.as_deref(), second.environment.as_deref()), (Some("request"), Some("staging")));
    assert_eq!((second.service_name.as_deref(), second.version.as_deref()), (Some("shop"), Some("1.2")));
    assert_eq!((second.release.as_deref(), second.sdk_name.as_deref()), (Some("r7"), Some("opentelemetry")));
    assert_eq!(second.attributes, map(&[("resource.host.name", "h".to_owned())]));
}

#[test]
fn a_call_keeps_its_particulars() {
    let got = observed(json!({
        "gen_ai.request.temperature": 0.5, "gen_ai.request.stop_sequences": ["\n"], "gen_ai.provider.name": "openai",
        "gen_ai.response.id": "r1", "gen_ai.response.finish_reasons": ["stop"], "gen_ai.agent.name": "a",
        "gen_ai.tool.name": "t", "langfuse.observation.prompt.name": "p", "langfuse.observation.prompt.version": 3,
        "openai.response.service_tier": "flex", "gen_ai.operation.name": "chat",
    }));
    assert_eq!(
        got.model_parameters,
        map(&[("temperature", "0.5".to_owned()), ("stop_sequences", r#"["\n"]"#.to_owned())])
    );
    assert_eq!((got.provider.as_deref(), got.response_id.as_deref()), (Some("openai"), Some("r1")));
    assert_eq!(
        (got.finish_reasons, got.agent_name.as_deref(), got.tool_name.as_deref()),
        (vec!["stop".into()], Some("a"), Some("t"))
    );
    assert_eq!((got.prompt_name.as_deref(), got.prompt_version), (Some("p"), Some(3)));
    assert_eq!((got.service_tier.as_deref(), got.operation.as_deref()), (Some("flex"), Some("chat")));
    assert!(got.attributes.is_empty(), "{:?}", got.attributes);
    let got = observed(json!({
        "langfuse.observation.model.parameters":
            r#"{"temperature": 0.20, "max_tokens": "Infinity", "service_tier": "priority"}"#,
    }));
    assert_eq!((got.model_parameters["temperature"].as_str(), got.service_tier.as_deref()), ("0.20", Some("priority")));
}

#[test]
fn links_and_too_many_attributes_are_not_lost_silently() {
    let mut linked = span(json!({"a": 1, "b": 2, "c": 3}));
    linked["links"] = json!([{"traceId": "0af7651916cd43dd8448eb211c80319c", "spanId": "b7ad6b7169203331"}]);
    let limits = DecodeLimits { attributes_max: 2, ..DecodeLimits::default() };
    let got = only(otlp_json(request(vec![linked.clone()]).to_string().as_bytes(), &limits).unwrap()).0;
    assert_eq!(got.attributes["dropped_attributes"], "2");
    let links = &only(decoded(linked)).0.attributes["links"];
    assert_eq!(
        links,
        r#"[{"attributes":{},"span_id":"b7ad6b7169203331","trace_id":"0af7651916cd43dd8448eb211c80319c"}]"#
    );
}

#[test]
fn a_trace_is_told_by_its_root_and_by_whoever_knows() {
    let mut root =
        span(json!({"langfuse.version": "v7", "langfuse.trace.metadata.k": 1, "langfuse.trace.public": true}));
    root["name"] = "root".into();
    let mut child = span(json!({"user.id": "u", "tag.tags": ["b"], "langfuse.trace.input": "in"}));
    child["spanId"] = "b7ad6b7169203332".into();
    child["parentSpanId"] = root["spanId"].clone();
    child["startTimeUnixNano"] = (START_NS - 1_000_000).to_string().into();
    let mut silent = child.clone();
    silent["spanId"] = "b7ad6b7169203333".into();
    silent["startTimeUnixNano"] = 1.into();
    silent["attributes"] = json!([]);
    let body = request(vec![child.clone(), silent.clone(), root.clone()]).to_string();
    let decoded = otlp_json(body.as_bytes(), &DecodeLimits::default()).unwrap();
    assert_eq!((decoded.batch.received, decoded.batch.events.len()), (3, 4));
    let last = decoded.batch.events.last().unwrap();
    let Some(EventKind::Trace(facts)) = &last.kind else { panic!() };
    assert_eq!(last.order.event_time_us, (START_NS + 1_500_000_000) / 1000);
    assert_eq!(facts.timestamp_us, Some((START_NS - 1_000_000) / 1000), "the silent span has no say");
    assert_eq!((facts.root_name.as_deref(), facts.root_id.as_deref()), (Some("root"), root["spanId"].as_str()));
    assert_eq!((facts.user_id.as_deref(), facts.version.as_deref(), facts.public), (Some("u"), Some("v7"), Some(true)));
    assert_eq!((facts.tags.as_slice(), facts.metadata["k"].as_str()), (&["b".to_owned()][..], "1"));
    assert_eq!(facts.input.as_deref(), Some("in"));
    let shuffled = request(vec![root, child, silent.clone()]).to_string();
    let again = otlp_json(shuffled.as_bytes(), &DecodeLimits::default()).unwrap();
    assert_eq!(again.batch.events.last(), decoded.batch.events.last(), "the order in the request does not matter");
    assert_eq!(
        otlp_json(request(vec![silent]).to_string().as_bytes(), &DecodeLimits::default()).unwrap().batch.events.len(),
        1
    );
}

#[test]
fn a_scrubbed_session_is_no_session() {
    assert_eq!(observed(json!({"session.id": "[Scrubbed due to 'session']"})).session_id, None);
}

#[test]
fn what_a_resource_says_is_bounded() {
    let mut body = request(vec![span(json!({}))]);
    let long = "ü".repeat(5_000);
    let attributes: Value = (0..100).map(|number| (format!("host.{number}"), Value::from(long.clone()))).collect();
    body["resourceSpans"][0]["resource"] = json!({"attributes": wrapped(&attributes)});
    let got = only(otlp_json(body.to_string().as_bytes(), &DecodeLimits::default()).unwrap()).0;
    assert_eq!(got.attributes.len(), 32);
    assert!(got.attributes.values().all(|text| text.len() == 1024));
}

#[test]
fn langfuses_python_sdk_up_to_3_3_calls_generations_spans() {
    let kind = |version: &str| {
        let attributes = json!({"langfuse.observation.type": "span", "langfuse.observation.model.name": "m"});
        let mut body = request(vec![span(attributes)]);
        let resource = &mut body["resourceSpans"][0];
        resource["resource"] = json!({"attributes": wrapped(&json!({"telemetry.sdk.language": "python"}))});
        resource["scopeSpans"][0]["scope"] = json!({"name": "langfuse-sdk", "version": version});
        only(otlp_json(body.to_string().as_bytes(), &DecodeLimits::default()).unwrap()).0.observation_type()
    };
    assert_eq!(kind("3.3.2"), ObservationType::Generation);
    assert_eq!(kind("3.15.0"), ObservationType::Span);
    assert_eq!(kind(""), ObservationType::Span);
}

#[test]
fn the_ai_sdk_links_a_prompt_by_json() {
    let got = observed(
        json!({"ai.telemetry.metadata.langfusePrompt": r#"{"name": "p", "version": 4, "isFallback": false}"#}),
    );
    assert_eq!((got.prompt_name.as_deref(), got.prompt_version), (Some("p"), Some(4)));
}
