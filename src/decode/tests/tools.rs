//! The shapes in which providers and instrumentations write which tools there are and which are asked for.

use serde_json::{Value, json};

use super::super::tools;
use crate::model::{Event, EventKind, Observation, ObservationType};

fn names(said: Observation) -> (Vec<String>, Vec<String>) {
    let mut event = Event { kind: Some(EventKind::Observation(said)), ..Default::default() };
    tools::find(&mut event);
    let Some(EventKind::Observation(said)) = event.kind else { unreachable!("it was one") };
    (said.tools_offered, said.tools_called)
}

fn call() -> Observation {
    let mut said = Observation::default();
    said.set_observation_type(ObservationType::Generation);
    said
}

fn called(output: &Value) -> Vec<String> {
    names(Observation { output: Some(output.to_string()), ..call() }).1
}

fn offered(input: &Value) -> Vec<String> {
    names(Observation { input: Some(input.to_string()), ..call() }).0
}

fn offered_beside(pairs: &[(&str, &str)]) -> Vec<String> {
    let attributes = pairs.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned())).collect();
    names(Observation { attributes, ..call() }).0
}

#[test]
fn what_an_answer_asks_for_is_found_in_every_shape() {
    let function = |name: &str| json!({"type": "function", "function": {"name": name, "arguments": "{}"}});
    let cases = [
        ("OpenAI, chat", json!({"role": "assistant", "content": null, "tool_calls": [function("a"), function("b")]})),
        (
            "OpenAI, the whole response",
            json!({"choices": [{"message": {"tool_calls": [function("a"), function("b")]}}]}),
        ),
        (
            "OpenAI, responses",
            json!({"output": [{"type": "reasoning"}, {"type": "function_call", "name": "a"}, {"type": "function_call", "name": "b"}]}),
        ),
        (
            "Anthropic",
            json!({"content": [{"type": "text", "text": "tool_use"}, {"type": "tool_use", "name": "a", "input": {"name": "x"}}, {"type": "tool_use", "name": "b"}]}),
        ),
        (
            "Google",
            json!({"candidates": [{"content": {"parts": [{"functionCall": {"name": "a", "args": {}}}, {"functionCall": {"name": "b"}}]}}]}),
        ),
        (
            "OpenTelemetry",
            json!([{"role": "assistant", "parts": [{"type": "tool_call", "name": "a", "id": "1"}, {"type": "tool_call", "name": "b"}]}]),
        ),
        (
            "OpenInference",
            json!([{"message": {"tool_calls": [{"tool_call": {"function": {"name": "a"}}}, {"tool_call": {"function": {"name": "b"}}}]}}]),
        ),
        (
            "Bedrock",
            json!({"output": {"message": {"content": [{"text": "x"}, {"toolUse": {"toolUseId": "1", "name": "a", "input": {}}}, {"toolUse": {"toolUseId": "2", "name": "b"}}]}}}),
        ),
        ("AI SDK", json!([{"toolCallId": "1", "toolName": "a", "input": "{}"}, {"toolCallId": "2", "toolName": "b"}])),
        ("LangChain", json!({"tool_calls": [{"name": "a", "args": {}}, {"name": "b", "args": {}}], "content": ""})),
    ];
    for (whose, output) in cases {
        assert_eq!(called(&output), ["a", "b"], "{whose}");
    }
    assert_eq!(called(&json!({"function_call": {"name": "a", "arguments": "{}"}})), ["a"], "OpenAI, before tools");
    assert_eq!(called(&json!({"tool_calls": [function("a"), function("a")]})), ["a", "a"], "twice");
    let beside =
        [("ai.response.toolCalls".to_owned(), json!([{"toolCallId": "1", "toolName": "a"}]).to_string())].into();
    let said = Observation { output: Some("It is sunny".into()), attributes: beside, ..call() };
    assert_eq!(names(said).1, ["a"], "beside a text");
}

#[test]
fn what_a_call_offers_is_found_in_every_shape() {
    let function = |name: &str| json!({"type": "function", "function": {"name": name, "parameters": {}}});
    let cases = [
        ("OpenAI", json!({"messages": [{"content": "x"}], "tools": [function("a"), function("b")]})),
        ("OpenAI, before tools", json!({"functions": [{"name": "a"}, {"name": "b"}]})),
        ("Anthropic", json!({"tools": [{"name": "a", "input_schema": {"name": "x"}}, {"name": "b"}, {"name": "a"}]})),
        ("Google", json!({"config": {"tools": [{"functionDeclarations": [{"name": "a"}, {"name": "b"}]}]}})),
        (
            "Bedrock",
            json!({"toolConfig": {"tools": [{"toolSpec": {"name": "a", "inputSchema": {}}}, {"toolSpec": {"name": "b"}}], "toolChoice": {"any": {}}}}),
        ),
        ("by name", json!({"tools": {"a": {"description": "x"}, "b": {}}})),
    ];
    for (whose, input) in cases {
        assert_eq!(offered(&input), ["a", "b"], "{whose}");
    }
    let definitions = json!([function("a"), {"name": "b"}]).to_string();
    assert_eq!(offered_beside(&[("gen_ai.tool.definitions", &definitions)]), ["a", "b"]);
    let texts = json!([json!({"type": "function", "name": "a"}).to_string()]).to_string();
    assert_eq!(offered_beside(&[("ai.prompt.tools", &texts)]), ["a"]);
    let (one, other) = (function("a").to_string(), function("b").to_string());
    assert_eq!(
        offered_beside(&[("llm.tools.0.tool.json_schema", &one), ("llm.tools.1.tool.json_schema", &other)]),
        ["a", "b"]
    );
    assert_eq!(offered_beside(&[("llm.tools.10.name", "b"), ("llm.tools.2.name", "a")]), ["a", "b"], "by number");
    assert_eq!(
        offered_beside(&[("llm.request.functions.0.name", "a"), ("llm.request.functions.0.parameters", "{}")]),
        ["a"]
    );
}

#[test]
fn what_only_looks_like_a_tool_is_none() {
    for output in [
        json!("call the tool"),
        json!({"role": "assistant", "content": "tool_calls", "tool_calls": null}),
        json!([{"type": "tool-result", "toolCallId": "1", "toolName": "a"}]),
        json!({"tool_calls": [{"function": {"name": ""}}, {"function": 7}, "a", null]}),
        json!({"type": "tool_use", "name": "x".repeat(201)}),
    ] {
        assert!(called(&output).is_empty(), "{output}");
    }
    let history = json!([{"role": "assistant", "tool_calls": [{"function": {"name": "earlier"}}]}]);
    let said = Observation { input: Some(history.to_string()), output: Some("done".into()), ..call() };
    assert_eq!(names(said), (vec![], vec![]), "an input repeats what was called before");
    for broken in ["{\"tools\": [", "{\"tools\": 7}", "{\"tools\": [[[[\"{\"]]]]}", "[\"tools\"]"] {
        assert!(names(Observation { input: Some(broken.into()), ..call() }).0.is_empty(), "{broken}");
    }
    let of_a_step =
        Observation { output: Some(json!({"tool_calls": [{"name": "a"}]}).to_string()), ..Default::default() };
    assert!(names(of_a_step).1.is_empty(), "what is no call of a model repeats one");
}

#[test]
fn what_the_sender_says_itself_stands() {
    let said = Observation {
        tools_called: vec!["mine".into()],
        output: Some(json!({"tool_calls": [{"name": "a"}]}).to_string()),
        ..call()
    };
    assert_eq!(names(said).1, ["mine"]);
}

#[test]
fn one_call_in_two_shapes_of_one_message_is_one_call() {
    let call = json!({"id": "c1", "name": "a", "args": {}});
    let anthropic = json!({"content": [{"type": "tool_use", "id": "c1", "name": "a"}], "tool_calls": [call]});
    assert_eq!(called(&anthropic), ["a"]);
    let function = json!({"id": "c1", "type": "function", "function": {"name": "a", "arguments": "{}"}});
    let openai =
        json!({"additional_kwargs": {"tool_calls": [function]}, "tool_calls": [call, {"id": "c2", "name": "a"}]});
    assert_eq!(called(&openai), ["a", "a"]);
}

#[test]
fn tools_of_the_provider_are_named_by_their_type_and_nothing_else_is_a_tool() {
    let own = json!([
        {"type": "web_search", "user_location": {"city": "x"}}, {"type": "code_interpreter", "container": {"type": "auto"}},
        {"type": "function", "function": {"parameters": {}}}, {"cachePoint": {"x": 1}}, {"name": "a\0b"},
        {"toolSpec": {"name": "c"}},
    ]);
    assert_eq!(offered(&json!({"tools": own})), ["web_search", "code_interpreter", "c"]);
    assert!(called(&json!({"tool_calls": [{"name": "a\0b"}]})).is_empty());
    assert_eq!(offered(&json!({"config": "x", "kwargs": {"tools": [{"name": "a"}]}})), ["a"]);
}
