//! Tokens and money, as reported by each kind of sender.

use serde_json::{Value, json};

use super::rules::{map, observed, refused};
use crate::model::{RejectReason, UsageSource};

#[test]
fn usage_is_read_in_every_convention() {
    // The same call, clients §4: 120 in, 100 of them cached; 45 out, 20 of them reasoning where it is said.
    let langfuse = [
        (r#"{"input": 20, "output": 45, "input_cached_tokens": 100}"#, 0),
        (
            r#"{"input": 20, "output": 45, "total": 165, "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": 100}"#,
            0,
        ),
        (
            r#"{"input": 20, "output": 25, "total": 165, "input_cached_tokens": 100, "output_reasoning_tokens": 20,
                "input_audio_tokens": 0}"#,
            20,
        ),
        (
            r#"{"input": 120, "output": 45, "total": 165, "input_cached_tokens": 100, "output_reasoning_tokens": 20}"#,
            20,
        ),
        (r#"{"input": 20, "output": 25, "total": 165, "input_cache_read": 100, "output_reasoning": 20}"#, 20),
        (
            r#"{"prompt_tokens": 120, "completion_tokens": 45, "total_tokens": 165,
                "prompt_tokens_details": {"cached_tokens": 100, "audio_tokens": 0},
                "completion_tokens_details": {"reasoning_tokens": 20}}"#,
            20,
        ),
        (
            r#"{"input_tokens": 120, "input_tokens_details": {"cached_tokens": 100, "cache_write_tokens": null},
                "output_tokens": 45, "output_tokens_details": {"reasoning_tokens": 20}, "total_tokens": 165}"#,
            20,
        ),
    ];
    for (usage, reasoning) in langfuse {
        check_usage(json!({"langfuse.observation.usage_details": usage}), reasoning);
    }
    let others = [
        (
            json!({"gen_ai.usage.input_tokens": 120, "gen_ai.usage.output_tokens": 45,
                   "gen_ai.usage.cache_read.input_tokens": 100, "gen_ai.usage.reasoning.output_tokens": 20}),
            20,
        ),
        (
            json!({"gen_ai.usage.input_tokens": 120, "gen_ai.usage.output_tokens": 45,
                   "gen_ai.usage.details.cache_read_tokens": 100, "gen_ai.usage.details.reasoning_tokens": 20}),
            20,
        ),
        (
            json!({"gen_ai.usage.prompt_tokens": 120, "gen_ai.usage.completion_tokens": 45,
                   "llm.usage.total_tokens": 165, "gen_ai.usage.cache_read_input_tokens": 100}),
            0,
        ),
        (
            json!({"llm.token_count.prompt": 120, "llm.token_count.completion": 45, "llm.token_count.total": 165,
                   "llm.token_count.prompt_details.cache_read": 100,
                   "llm.token_count.completion_details.reasoning": 20}),
            20,
        ),
        (
            json!({"gen_ai.usage.input_tokens": 120, "ai.usage.inputTokens": 120, "ai.usage.outputTokens": "45",
                   "ai.usage.cachedInputTokens": 100, "ai.usage.reasoningTokens": 20}),
            20,
        ),
        // Input reported without its cache, as Anthropic's API has it: 100 cannot be inside 20.
        (
            json!({"gen_ai.usage.input_tokens": 20, "gen_ai.usage.output_tokens": 45,
                   "gen_ai.usage.cache_read.input_tokens": 100}),
            0,
        ),
    ];
    for (attributes, reasoning) in others {
        check_usage(attributes, reasoning);
    }
}

fn check_usage(attributes: Value, reasoning: i64) {
    let got = observed(attributes.clone());
    let flat = (got.input_tokens, got.output_tokens, got.cached_input_tokens, got.total_tokens);
    assert_eq!(flat, (Some(120), Some(45), Some(100), Some(165)), "{attributes}");
    assert_eq!(got.reasoning_tokens.unwrap_or(0), reasoning, "{attributes}");
    assert_eq!((got.usage_source(), got.usage["total"]), (UsageSource::Provided, 165), "{attributes}");
}

#[test]
fn agreed_names_become_buckets_and_others_are_kept_by_name() {
    let got = observed(json!({
        "gen_ai.usage.input_tokens": 132, "gen_ai.usage.output_tokens": 45, "gen_ai.usage.cache_read.input_tokens": 100,
        "gen_ai.usage.cache_write.input_tokens": 12, "gen_ai.usage.reasoning.output_tokens": 20,
        "gen_ai.usage.details.accepted_prediction_tokens": 3, "gen_ai.usage.cost.currency": "USD",
    }));
    let wanted = [
        ("input", 20),
        ("output", 25),
        ("total", 177),
        ("input_cached_tokens", 100),
        ("input_cache_creation", 12),
        ("output_reasoning_tokens", 20),
        ("accepted_prediction_tokens", 3),
    ];
    assert_eq!(got.usage, map(&wanted));
    assert_eq!((got.input_tokens, got.cache_write_tokens), (Some(132), Some(12)));
    assert_eq!(got.attributes["gen_ai.usage.cost.currency"], "USD");
}

#[test]
fn what_cannot_be_a_count_is_none() {
    let details = r#"{"input": -1, "output": 1e300, "x": 1.5, "y": null, "total": "7"}"#;
    let got = observed(json!({"langfuse.observation.usage_details": details}));
    assert_eq!((got.usage, got.total_tokens), (map(&[("total", 7)]), Some(7)));
    let got = observed(json!({"gen_ai.usage.input_tokens": i64::MAX, "llm.token_count.prompt": -1}));
    assert_eq!((got.usage.len(), got.input_tokens), (0, None));
    assert_eq!(got.attributes["gen_ai.usage.input_tokens"], i64::MAX.to_string());
}

#[test]
fn a_write_by_time_to_live_is_a_part_of_all_writes() {
    let usage =
        json!({"input": 10, "input_cache_creation": 30, "input_cache_creation_5m": 20, "input_cache_creation_1h": 10});
    let got = observed(json!({"langfuse.observation.usage_details": usage.to_string()}));
    assert_eq!((got.input_tokens, got.cache_write_tokens), (Some(40), Some(30)));
}

#[test]
fn an_aggregating_span_repeats_its_childrens_usage() {
    for attributes in [
        json!({"gen_ai.operation.name": "invoke_agent"}),
        json!({"gen_ai.operation.name": "agent_step"}),
        json!({"ai.operationId": "ai.generateText"}),
        json!({"operation.name": "ai.streamText my-function"}),
    ] {
        let mut attributes = attributes;
        attributes["gen_ai.usage.input_tokens"] = 7.into();
        attributes["gen_ai.usage.cost"] = 2_000_000.into();
        attributes["gen_ai.request.model"] = "m".into();
        let got = observed(attributes);
        assert_eq!(got.usage_source(), UsageSource::Repeated);
        assert_eq!((got.usage["input"], got.input_tokens, got.total_tokens), (7, None, None));
        assert_eq!((got.model, got.provided_cost.len()), (None, 0));
        assert_eq!(got.attributes["gen_ai.request.model"], "m");
    }
    assert_eq!(observed(json!({"gen_ai.operation.name": "invoke_agent"})).usage_source, None, "no usage at all");
}

#[test]
fn costs_are_exact_and_impossible_ones_refuse_the_span() {
    let details = |json: &str| json!({"langfuse.observation.cost_details": json});
    let cost = |attributes: Value| observed(attributes).provided_cost;
    assert_eq!(
        cost(details(r#"{"input": 0.001, "output": 1e-7, "total": 0.0010001, "x": null}"#)),
        map(&[("input", 1_000_000_000), ("output", 100_000), ("total", 1_000_100_000)])
    );
    assert_eq!(cost(details(r#"{"total": 0.123456789012}"#)), map(&[("total", 123_456_789_012)]));
    assert_eq!(cost(details(r#"{"total": "0.5"}"#)), map(&[("total", 500_000_000_000)]));
    assert_eq!(cost(json!({"gen_ai.usage.cost": 0.0031})), map(&[("total", 3_100_000_000)]));
    assert_eq!(
        cost(json!({"llm.cost.total": 0.3, "llm.cost.prompt": 0.1, "llm.cost.completion": 0.2, "operation.cost": 0.4})),
        map(&[("input", 100_000_000_000), ("output", 200_000_000_000), ("total", 300_000_000_000)])
    );
    assert_eq!(cost(json!({"gen_ai.cost.total_cost": "0.25"})), map(&[("total", 250_000_000_000)]));
    for impossible in [
        details(r#"{"total": 1000000}"#),
        details(r#"{"total": -0.1}"#),
        details(r#"{"input": "NaN"}"#),
        json!({"gen_ai.usage.cost": 1e300}),
        json!({"gen_ai.usage.cost": -1}),
        json!({"llm.cost.total": "inf"}),
    ] {
        assert_eq!(refused(impossible.clone()), RejectReason::InvalidCost, "{impossible}");
    }
}
