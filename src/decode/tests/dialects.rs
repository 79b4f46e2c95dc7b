//! Each dialect by one or more spans as its sender writes them: attributes in, what a row of theirs must say out.

use serde_json::{Value, json};

use super::reading::{ids, request, wrapped};
use super::rules::only;
use crate::decode::{DecodeLimits, otlp_json};
use crate::model::{Observation, TraceFacts};

const START_NS: i64 = 1_795_242_103_000_000_000;

/// A span of `scope` called `name`, as it is decoded.
fn read(scope: &str, name: &str, attributes: &Value, events: &Value) -> (Observation, TraceFacts) {
    let mut span = ids(1);
    span["name"] = name.into();
    span["startTimeUnixNano"] = START_NS.to_string().into();
    span["endTimeUnixNano"] = (START_NS + 1_500_000_000).to_string().into();
    span["attributes"] = wrapped(attributes);
    span["events"] = events.clone();
    let mut body = request(vec![span]);
    body["resourceSpans"][0]["scopeSpans"][0]["scope"] = json!({"name": scope, "version": "1.0"});
    only(otlp_json(body.to_string().as_bytes(), &DecodeLimits::default()).unwrap())
}

/// The columns of a row that have a value, by name.
fn columns(observation: &Observation, facts: &TraceFacts) -> Value {
    let us = |ns: Option<i64>| ns.map(|ns| (ns - START_NS) / 1000);
    json!({
        "type": observation.observation_type().as_str(), "name": observation.name, "operation": observation.operation,
        "model": observation.model, "provider": observation.provider, "model_parameters": observation.model_parameters,
        "user_id": observation.user_id, "session_id": observation.session_id, "tags": observation.tags,
        "level": observation.level().as_str(), "status_message": observation.status_message,
        "finish_reasons": observation.finish_reasons, "response_id": observation.response_id,
        "agent_name": observation.agent_name, "tool_name": observation.tool_name,
        "prompt_name": observation.prompt_name, "prompt_version": observation.prompt_version,
        "ttft_us": us(observation.completion_start_ns), "usage": observation.usage,
        "usage_source": observation.usage_source().as_str(), "input_tokens": observation.input_tokens,
        "cached_input_tokens": observation.cached_input_tokens, "cache_write_tokens": observation.cache_write_tokens,
        "output_tokens": observation.output_tokens, "reasoning_tokens": observation.reasoning_tokens,
        "total_tokens": observation.total_tokens, "cost": observation.provided_cost,
        "metadata": observation.metadata, "input": observation.input, "output": observation.output,
        "trace_metadata": facts.metadata, "attributes": observation.attributes,
    })
}

/// `wanted` names some of the columns; the others may say anything.
fn check(scope: &str, name: &str, attributes: Value, wanted: Value) {
    check_with_events(scope, name, attributes, json!([]), wanted);
}

fn check_with_events(scope: &str, name: &str, attributes: Value, events: Value, wanted: Value) {
    let (observation, facts) = read(scope, name, &attributes, &events);
    let got = columns(&observation, &facts);
    for (column, value) in wanted.as_object().unwrap() {
        assert_eq!(got[column], *value, "{column} of {scope} {name}");
    }
}

#[test]
fn openllmetry() {
    let common = json!({
        "traceloop.association.properties.user_id": "user-42", "traceloop.association.properties.session_id": "s1",
        "traceloop.association.properties.tenant": "acme", "traceloop.association.properties.attempt": 2,
        "traceloop.workflow.name": "chat-agent-run",
    });
    let with = |more: Value| {
        let mut all = common.as_object().unwrap().clone();
        all.extend(more.as_object().unwrap().clone());
        Value::from(all)
    };
    check_with_events(
        "opentelemetry.instrumentation.openai.v1",
        "openai.chat",
        with(json!({
            "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-4o-mini",
            "gen_ai.response.model": "gpt-4o-mini-2024-07-18", "gen_ai.response.id": "chatcmpl-1",
            "gen_ai.request.temperature": 0.2, "gen_ai.response.finish_reasons": ["stop"],
            "gen_ai.usage.input_tokens": 120, "gen_ai.usage.output_tokens": 45, "gen_ai.usage.total_tokens": 165,
            "gen_ai.usage.cache_read.input_tokens": 100, "gen_ai.usage.reasoning_tokens": 20,
            "gen_ai.input.messages": r#"[{"role": "user"}]"#, "gen_ai.output.messages": r#"[{"role": "assistant"}]"#,
            "gen_ai.system_instructions": r#"[{"type": "text"}]"#, "traceloop.prompt.key": "greeting",
            "traceloop.prompt.version": 7,
        })),
        json!([{"name": "gen_ai.content.completion.chunk", "timeUnixNano": (START_NS + 250_000).to_string()},
               {"name": "gen_ai.content.completion.chunk", "timeUnixNano": (START_NS + 900_000).to_string()}]),
        json!({
            "type": "GENERATION", "model": "gpt-4o-mini-2024-07-18", "response_id": "chatcmpl-1", "ttft_us": 250,
            "user_id": "user-42", "session_id": "s1", "metadata": {"tenant": "acme", "attempt": "2"},
            "trace_metadata": {"tenant": "acme", "attempt": "2"}, "model_parameters": {"temperature": "0.2"},
            "input_tokens": 120, "cached_input_tokens": 100, "output_tokens": 45, "reasoning_tokens": 20,
            "total_tokens": 165, "prompt_name": "greeting", "prompt_version": 7,
            "input": r#"[{"role":"system","parts":[{"type": "text"}]},{"role": "user"}]"#,
            "output": r#"[{"role": "assistant"}]"#,
        }),
    );
    check(
        "opentelemetry.instrumentation.openai.v1",
        "openai.embeddings",
        with(json!({
            "gen_ai.system": "OpenAI", "llm.request.type": "embedding", "gen_ai.request.model": "text-embedding-3-small",
            "gen_ai.usage.prompt_tokens": 8, "llm.usage.total_tokens": 8, "gen_ai.prompt.0.content": "paris",
            "llm.headers": "None", "llm.request.functions.0.name": "get_weather",
        })),
        json!({
            "type": "EMBEDDING", "operation": "embedding", "provider": "OpenAI", "input_tokens": 8, "total_tokens": 8,
            "input": r#"[{"content":"paris"}]"#,
        }),
    );
    let workflow = |kind: &str, more: Value| {
        let mut attributes = with(more);
        attributes["traceloop.span.kind"] = kind.into();
        attributes["traceloop.entity.input"] = r#"{"args": ["weather"], "kwargs": {}}"#.into();
        attributes["traceloop.entity.output"] = r#""It is \"sunny\"""#.into();
        attributes
    };
    for (kind, wanted) in [("task", "SPAN"), ("workflow", "SPAN"), ("agent", "AGENT"), ("tool", "TOOL")] {
        check(
            "traceloop.tracer",
            "planning.task",
            workflow(kind, json!({})),
            json!({
                "type": wanted, "input": r#"{"args": ["weather"], "kwargs": {}}"#, "output": r#"It is "sunny""#,
                "session_id": "s1",
            }),
        );
    }
}

#[test]
fn vercels_ai_sdk() {
    let call = json!({
        "ai.operationId": "ai.streamText.doStream", "operation.name": "ai.streamText.doStream plan-llm",
        "ai.telemetry.functionId": "plan-llm", "ai.model.id": "gpt-4o-mini", "ai.model.provider": "openai.chat",
        "gen_ai.system": "openai.chat", "gen_ai.request.model": "gpt-4o-mini",
        "gen_ai.response.model": "gpt-4o-mini-2024-07-18", "gen_ai.response.id": "chatcmpl-2",
        "gen_ai.response.finish_reasons": ["stop"], "ai.settings.maxRetries": 0, "gen_ai.request.max_tokens": 200,
        "ai.prompt.toolChoice": r#"{"type":"auto"}"#, "ai.prompt.tools": [r#"{"name":"get_weather"}"#],
        "ai.prompt.messages": "[1]", "ai.response.text": "It is sunny.", "ai.response.msToFirstChunk": 183.5,
        "ai.response.providerMetadata": r#"{"openai":{"acceptedPredictionTokens":3,"reasoningTokens":20}}"#,
        "ai.usage.inputTokens": 120, "ai.usage.outputTokens": 45, "ai.usage.totalTokens": 165,
        "ai.usage.cachedInputTokens": 100, "gen_ai.usage.input_tokens": 120, "gen_ai.usage.output_tokens": 45,
        "ai.telemetry.metadata.userId": "user-42", "ai.telemetry.metadata.sessionId": "s2",
        "ai.telemetry.metadata.tags": ["e2e", "a"], "ai.telemetry.metadata.flag": true,
        "ai.telemetry.metadata.langfusePrompt": r#"{"name":"p","version":3}"#,
    });
    check(
        "ai",
        "ai.streamText.doStream",
        call,
        json!({
            "type": "GENERATION", "name": "plan-llm:ai.streamText.doStream", "model": "gpt-4o-mini-2024-07-18",
            "provider": "openai.chat", "user_id": "user-42", "session_id": "s2", "tags": ["a", "e2e"],
            "metadata": {"flag": "true"}, "trace_metadata": {"flag": "true"}, "ttft_us": 183_500,
            "model_parameters": {"maxRetries": "0", "max_tokens": "200", "toolChoice": r#"{"type":"auto"}"#},
            "input": "[1]", "output": "It is sunny.", "input_tokens": 120, "cached_input_tokens": 100,
            "output_tokens": 45, "reasoning_tokens": 20, "total_tokens": 165, "prompt_name": "p", "prompt_version": 3,
            "usage": {"input": 20, "input_cached_tokens": 100, "output": 25, "output_reasoning_tokens": 20,
                      "total": 165, "accepted_prediction_tokens": 3},
        }),
    );
    check(
        "ai",
        "ai.toolCall",
        json!({"ai.operationId": "ai.toolCall", "ai.toolCall.name": "get_weather", "ai.toolCall.id": "call_1",
               "ai.toolCall.args": "{\"city\":\"Paris\"}", "ai.toolCall.result": "{\"temp\":21}"}),
        json!({"type": "TOOL", "name": "get_weather", "tool_name": "get_weather", "input": "{\"city\":\"Paris\"}",
               "output": "{\"temp\":21}"}),
    );
    check(
        "ai",
        "ai.embed.doEmbed",
        json!({"ai.operationId": "ai.embed.doEmbed", "ai.model.id": "text-embedding-3-small", "ai.usage.tokens": 8,
               "ai.values": ["\"paris\""]}),
        json!({"type": "EMBEDDING", "input_tokens": 8, "total_tokens": 8, "input": "[\"\\\"paris\\\"\"]"}),
    );
    let anthropic = json!({"anthropic": {"usage": {
        "cache_creation_input_tokens": 30, "cache_read_input_tokens": 50,
        "cache_creation": {"ephemeral_5m_input_tokens": 20, "ephemeral_1h_input_tokens": 10}}}});
    check(
        "ai",
        "ai.generateText.doGenerate",
        json!({"ai.operationId": "ai.generateText.doGenerate", "gen_ai.request.model": "claude-sonnet-4-5",
               "gen_ai.usage.input_tokens": 100, "gen_ai.usage.output_tokens": 5,
               "ai.response.providerMetadata": anthropic.to_string()}),
        json!({"input_tokens": 100, "cached_input_tokens": 50, "cache_write_tokens": 30, "total_tokens": 105,
               "usage": {"input": 20, "input_cached_tokens": 50, "input_cache_creation": 30, "output": 5, "total": 105,
                         "input_cache_creation_5m": 20, "input_cache_creation_1h": 10}}),
    );
    // Version 7: the application's context, and a step that repeats its call's usage.
    check(
        "gen_ai",
        "step 1",
        json!({"gen_ai.operation.name": "agent_step", "gen_ai.usage.input_tokens": 120, "gen_ai.agent.name": "plan-llm",
               "ai.settings.context.tenant": "acme", "ai.settings.context.userId": "user-42",
               "ai.settings.context.tags": ["e2e"], "user.id": "user-42", "session.id": "s7"}),
        json!({"type": "SPAN", "usage_source": "repeated", "input_tokens": null, "usage": {"input": 120, "total": 120},
               "metadata": {"tenant": "acme"}, "tags": ["e2e"], "session_id": "s7", "agent_name": "plan-llm"}),
    );
}

#[test]
fn logfire_and_pydantic_ai() {
    check(
        "pydantic-ai",
        "chat gpt-4o-mini",
        json!({
            "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.system": "openai",
            "gen_ai.request.model": "gpt-4o-mini", "gen_ai.response.model": "gpt-4o-mini-2024-07-18",
            "gen_ai.conversation.id": "run-1", "session.id": "[Scrubbed due to 'session']",
            "gen_ai.input.messages": "[]", "gen_ai.output.messages": "[2]", "gen_ai.agent.name": "weather-agent",
            "gen_ai.usage.input_tokens": 120, "gen_ai.usage.output_tokens": 45,
            "gen_ai.usage.details.cache_read_tokens": 100, "gen_ai.usage.details.reasoning_tokens": 20,
            "gen_ai.usage.details.audio_tokens": 0, "operation.cost": 2.1e-05, "logfire.msg": "chat gpt-4o-mini",
            "logfire.span_type": "span", "logfire.level_num": 9, "logfire.json_schema": "{}",
        }),
        json!({
            "type": "GENERATION", "name": "chat gpt-4o-mini", "level": "DEFAULT", "input": "[]", "output": "[2]",
            "input_tokens": 120, "cached_input_tokens": 100, "output_tokens": 45, "reasoning_tokens": 20,
            "cost": {"total": 21_000_000}, "agent_name": "weather-agent", "session_id": null,
        }),
    );
    check(
        "pydantic-ai",
        "invoke_agent weather-agent",
        json!({
            "gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "weather-agent", "model_name": "gpt-4o-mini",
            "gen_ai.aggregated_usage.input_tokens": 200, "gen_ai.aggregated_usage.output_tokens": 60,
            "operation.cost": 4e-5, "pydantic_ai.all_messages": r#"[{"role":"user"}]"#, "final_result": "It is sunny.",
            "metadata": r#"{"tenant":"acme"}"#, "logfire.msg": "weather-agent run", "logfire.level_num": 9,
            "gen_ai.system_instructions": r#"[{"type":"text"}]"#,
        }),
        json!({
            "type": "AGENT", "name": "weather-agent run", "input_tokens": null, "usage": {}, "cost": {},
            "input": r#"[{"role":"system","parts":[{"type":"text"}]},{"role":"user"}]"#, "output": "It is sunny.",
            "metadata": {"tenant": "acme"}, "model": null,
        }),
    );
    // Its older form: all messages as events in one attribute.
    check(
        "pydantic-ai",
        "chat gpt-4o",
        json!({"gen_ai.operation.name": "chat", "gen_ai.request.model": "gpt-4o", "events":
            r#"[{"event.name":"gen_ai.user.message","content":"hi"},{"event.name":"gen_ai.choice","message":"there"}]"#}),
        json!({"input": r#"[{"content":"hi","event.name":"gen_ai.user.message"}]"#,
               "output": r#"[{"event.name":"gen_ai.choice","message":"there"}]"#}),
    );
    check(
        "pydantic-ai",
        "running tool",
        json!({"gen_ai.tool.name": "get_weather", "gen_ai.tool.call.id": "call_1", "tool_arguments": "{}",
               "tool_response": "21 degrees", "logfire.level_num": 17}),
        json!({"type": "TOOL", "tool_name": "get_weather", "input": "{}", "output": "21 degrees", "level": "ERROR"}),
    );
    check(
        "logfire",
        "checked {x}",
        json!({"logfire.span_type": "log", "logfire.level_num": 13, "logfire.msg": "checked 1",
               "logfire.msg_template": "checked {x}", "logfire.tags": ["e2e"], "x": 1}),
        json!({"type": "EVENT", "name": "checked 1", "level": "WARNING", "tags": ["e2e"],
               "attributes": {"logfire.msg_template": "checked {x}", "logfire.span_type": "log", "x": "1"}}),
    );
}

#[test]
fn mlflow() {
    check(
        "mlflow",
        "ChatOpenAI",
        json!({
            "mlflow.spanType": "\"CHAT_MODEL\"", "mlflow.spanInputs": r#"{"messages":[]}"#,
            "mlflow.spanOutputs": "\"It is sunny.\"", "mlflow.llm.model": "gpt-4o-mini", "mlflow.llm.provider": "openai",
            "mlflow.chat.tokenUsage": r#"{"input_tokens": 120, "output_tokens": 45, "total_tokens": 165}"#,
            "mlflow.traceRequestId": "\"tr-1\"",
        }),
        json!({
            "type": "GENERATION", "model": "gpt-4o-mini", "provider": "openai", "input": r#"{"messages":[]}"#,
            "output": "It is sunny.", "input_tokens": 120, "output_tokens": 45, "total_tokens": 165,
            "usage_source": "provided",
        }),
    );
    for (kind, wanted) in
        [("\"AGENT\"", "AGENT"), ("TOOL", "TOOL"), ("\"RETRIEVER\"", "RETRIEVER"), ("\"PARSER\"", "SPAN")]
    {
        check("mlflow", "step", json!({"mlflow.spanType": kind}), json!({"type": wanted}));
    }
}

#[test]
fn googles_agent_development_kit() {
    let response = json!({"content": {}, "usage_metadata": {
        "prompt_token_count": 120, "candidates_token_count": 25, "cached_content_token_count": 100,
        "thoughts_token_count": 20, "total_token_count": 165}});
    check(
        "gcp.vertex.agent",
        "call_llm",
        json!({
            "gen_ai.system": "gcp.vertex.agent", "gen_ai.request.model": "gemini-2.5-flash",
            "gcp.vertex.agent.invocation_id": "e-1", "gcp.vertex.agent.session_id": "s3",
            "gcp.vertex.agent.llm_request": r#"{"model": "gemini-2.5-flash"}"#,
            "gcp.vertex.agent.llm_response": response.to_string(), "gen_ai.usage.input_tokens": 120,
            "gen_ai.usage.output_tokens": 25, "gen_ai.response.finish_reasons": ["stop"],
        }),
        json!({
            "type": "GENERATION", "model": "gemini-2.5-flash", "session_id": "s3", "input_tokens": 120,
            "cached_input_tokens": 100, "output_tokens": 45, "reasoning_tokens": 20, "total_tokens": 165,
            "input": r#"{"model": "gemini-2.5-flash"}"#, "output": response.to_string(),
            "usage": {"input": 20, "input_cached_tokens": 100, "output": 25, "output_reasoning_tokens": 20, "total": 165},
        }),
    );
    check(
        "gcp.vertex.agent",
        "execute_tool get_weather",
        json!({"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "get_weather", "gen_ai.tool.call.id": "c1",
               "gcp.vertex.agent.tool_call_args": r#"{"city":"Paris"}"#, "gcp.vertex.agent.tool_response": "{}"}),
        json!({"type": "TOOL", "tool_name": "get_weather", "input": r#"{"city":"Paris"}"#, "output": "{}"}),
    );
}

#[test]
fn livekit() {
    let scope = "livekit-agents";
    check(
        scope,
        "agent_turn",
        json!({"lk.user_input": "hi", "lk.chat_ctx": "[]", "lk.response.text": "there", "lk.agent_name": "helper"}),
        json!({"type": "AGENT", "level": "DEFAULT", "input": "[]", "output": "there", "agent_name": "helper"}),
    );
    check(
        scope,
        "function_tool",
        json!({"lk.function_tool.name": "get_weather", "lk.function_tool.id": "call_1",
               "lk.function_tool.args": "{}", "lk.function_tool.output": "21"}),
        json!({"type": "TOOL", "tool_name": "get_weather", "input": "{}", "output": "21"}),
    );
    check(
        scope,
        "llm_request",
        json!({"gen_ai.request.model": "gpt-4o-mini", "gen_ai.usage.input_tokens": 120,
               "gen_ai.usage.output_tokens": 45, "lk.response.ttft": 0.25}),
        json!({"type": "GENERATION", "input_tokens": 120, "ttft_us": 250_000, "level": "DEFAULT"}),
    );
    check(scope, "eou_detection", json!({}), json!({"type": "SPAN", "level": "DEBUG"}));
    check("my.agent", "agent_turn", json!({}), json!({"type": "SPAN", "level": "DEFAULT"}));
}

#[test]
fn genkit() {
    let output = json!({"message": {}, "usage": {
        "inputTokens": 120, "outputTokens": 45, "thoughtsTokens": 20, "totalTokens": 165}});
    let input = r#"{"messages":[],"config":{"temperature":0.2,"stop":["x"],"seed":null}}"#;
    check(
        "genkit-tracer",
        "generate",
        json!({
            "genkit:type": "action", "genkit:metadata:subtype": "model", "genkit:name": "googleai/gemini-2.5-flash",
            "genkit:input": input, "genkit:output": output.to_string(), "genkit:state": "success",
            "genkit:sessionId": "s4",
        }),
        json!({
            "type": "GENERATION", "name": "googleai/gemini-2.5-flash", "model": "googleai/gemini-2.5-flash",
            "model_parameters": {"temperature": "0.2", "stop": r#"["x"]"#}, "session_id": "s4", "input": input,
            "output": output.to_string(), "input_tokens": 120, "output_tokens": 45, "reasoning_tokens": 20,
            "total_tokens": 165,
            "usage": {"input": 120, "output": 25, "output_reasoning_tokens": 20, "total": 165},
        }),
    );
    check(
        "genkit-tracer",
        "flow",
        json!({"genkit:type": "flow", "genkit:name": "weatherFlow", "genkit:input": "\"Paris\""}),
        json!({"type": "SPAN", "name": "weatherFlow", "model": null, "input": "\"Paris\""}),
    );
}

#[test]
fn claude_code() {
    let scope = "com.anthropic.claude_code.tracing";
    check(
        scope,
        "claude_code.llm_request",
        json!({
            "model": "claude-sonnet-4-5", "input_tokens": 20, "output_tokens": 45, "cache_read_tokens": 100,
            "cache_creation_tokens": 12, "ttft_ms": 250, "speed": "fast", "stop_reason": "end_turn",
            "session.id": "s5", "user.id": "u5", "gen_ai.response.id": "msg_1", "success": true,
        }),
        json!({
            "type": "GENERATION", "model": "claude-sonnet-4-5", "input_tokens": 132, "cached_input_tokens": 100,
            "cache_write_tokens": 12, "output_tokens": 45, "total_tokens": 177, "ttft_us": 250_000,
            "usage": {"input": 20, "input_cached_tokens": 100, "input_cache_creation": 12, "output": 45, "total": 177},
            "model_parameters": {"speed": "fast"}, "finish_reasons": ["end_turn"], "session_id": "s5",
            "response_id": "msg_1",
        }),
    );
    // More tokens beside the cache than in it prove nothing: here they are never inside.
    check(
        scope,
        "claude_code.llm_request",
        json!({"model": "m", "input_tokens": 500, "output_tokens": 1, "cache_read_tokens": 100}),
        json!({"input_tokens": 600, "cached_input_tokens": 100, "total_tokens": 601}),
    );
    check(scope, "claude_code.tool", json!({"tool_name": "Bash"}), json!({"type": "TOOL", "tool_name": "Bash"}));
    check(
        scope,
        "claude_code.interaction",
        json!({"user_prompt": "fix it"}),
        json!({"type": "AGENT", "input": "fix it"}),
    );
    check("other", "x", json!({"input_tokens": 5, "speed": "fast"}), json!({"usage": {}, "model_parameters": {}}));
}

#[test]
fn experiments_are_metadata() {
    check(
        "langfuse-sdk",
        "experiment-item-run",
        json!({"langfuse.experiment.id": "e1", "langfuse.experiment.name": "n", "langfuse.experiment.dataset.id": "d",
               "langfuse.experiment.item.expected_output": "{\"a\":1}", "langfuse.experiment.metadata": "{\"k\":1}"}),
        json!({"metadata": {
            "langfuse.experiment.id": "e1", "langfuse.experiment.name": "n", "langfuse.experiment.dataset.id": "d",
            "langfuse.experiment.item.expected_output": "{\"a\":1}", "langfuse.experiment.metadata": "{\"k\":1}"}}),
    );
}
