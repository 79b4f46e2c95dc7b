use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use rust_decimal::{Decimal, RoundingStrategy};

use super::book::BUILT_IN;
use super::*;
use crate::base::{Day, Money, TimestampUs};

fn day(text: &str) -> TimestampUs {
    text.parse::<Day>().unwrap().start_us()
}

fn map(counts: &[(&str, i64)]) -> BTreeMap<String, i64> {
    counts.iter().map(|(name, count)| (name.to_string(), *count)).collect()
}

fn tokens(input: i64, cached: i64, output: i64) -> Quantities {
    Quantities::from_inclusive(Some(input), Some(cached), None, Some(output), None, &BTreeMap::new())
}

fn ask<'a>(model: &'a str, usage: &'a Quantities) -> Ask<'a> {
    Ask { model, provider: None, at_us: day("2026-11-21"), service_tier: None, speed: None, duration_us: None, usage }
}

fn total(ask: &Ask<'_>) -> String {
    PriceBook::built_in().price(ask).map_or("none".into(), |priced| priced.total.to_string())
}

/// A book of one model, `m`.
fn book(prices: &str) -> Result<PriceBook, PriceError> {
    let model = format!(r#"{{"id": "m", "providers": ["p"], "pattern": "m", "prices": {prices}}}"#);
    PriceBook::parse(&format!(r#"{{"version": "v1", "models": [{model}]}}"#))
}

#[test]
fn the_reference_call_costs_what_the_price_lists_say() {
    // 120 in, of which 100 cached; 45 out, of which 20 reasoning.
    let usage = Quantities::from_inclusive(Some(120), Some(100), None, Some(45), Some(20), &BTreeMap::new());
    for (model, expected) in [
        ("gpt-4o-mini", "0.0000375"),            // (20·0.15 + 100·0.075 + 45·0.60) per million
        ("gpt-4o", "0.000625"),                  // (20·2.5 + 100·1.25 + 45·10) per million
        ("text-embedding-3-small", "0.0000024"), // 120·0.02: neither cached nor output rate
        ("claude-sonnet-4-5", "0.000765"),       // (20·3 + 100·0.3 + 45·15) per million
        ("gemini-2.5-pro", "0.0004875"),         // (20·1.25 + 100·0.125 + 45·10) per million
    ] {
        assert_eq!(total(&ask(model, &usage)), expected, "{model}");
    }
    let priced = PriceBook::built_in().price(&ask("openai/gpt-4o-mini-2024-07-18", &usage)).unwrap();
    let by_kind: Vec<_> = priced.by_kind.iter().map(|(kind, cost)| (kind.as_str(), cost.to_string())).collect();
    let expected =
        [("cached_input", "0.0000075"), ("input", "0.000003"), ("output", "0.000015"), ("reasoning", "0.000012")];
    assert_eq!(by_kind, expected.map(|(kind, cost)| (kind, cost.to_string())));
    assert_eq!((priced.input.to_string(), priced.output.to_string()), ("0.0000105".into(), "0.000027".into()));
    assert_eq!(priced.model_id, "gpt-4o-mini");
    assert_eq!(priced.price_id, format!("{}/gpt-4o-mini/start/standard", PriceBook::built_in().version()));
}

#[test]
fn names_as_senders_write_them_find_their_model() {
    for (name, provider, expected) in [
        ("gpt-4o-mini-2024-07-18", None, "gpt-4o-mini"),
        ("azure/gpt-4o", None, "gpt-4o"),
        ("GPT-4o", Some("OpenAI"), "gpt-4o"),
        ("gpt-4o", Some("openai.chat"), "gpt-4o"),
        ("gpt-4o-2024-05-13", None, "gpt-4o-2024-05-13"),
        ("azure/eu/gpt-4o-2024-08-06", None, "azure/us/gpt-4o"),
        ("gpt-35-turbo", Some("azure.ai.openai"), "gpt-3.5-turbo"),
        ("ft:gpt-4o-mini-2024-07-18:acme::abc123", None, "ft:gpt-4o-mini"),
        ("models/gemini-2.5-pro", Some("gcp.gemini"), "gemini-2.5-pro"),
        ("publishers/google/models/gemini-2.0-flash-001", Some("gcp.vertex_ai"), "gemini-2.0-flash"),
        ("claude-sonnet-4-5-20250929", Some("anthropic"), "claude-sonnet-4-5"),
        ("anthropic/claude-sonnet-4.5", None, "claude-sonnet-4-5"),
        ("vertex_ai/claude-opus-4-5@20251101", None, "claude-opus-4-5"),
        ("anthropic.claude-sonnet-4-5-20250929-v1:0", Some("aws.bedrock"), "claude-sonnet-4-5"),
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", Some("aws.bedrock"), "us.anthropic.claude-sonnet-4-5"),
        ("us.anthropic.claude-3-5-haiku-20241022-v1:0", None, "claude-3-5-haiku"),
        ("bedrock/us.amazon.nova-lite-v1:0", None, "amazon.nova-lite"),
        ("llama-3.3-70b-versatile", Some("groq"), "llama-3.3-70b-versatile"),
        ("openai/gpt-oss-120b", Some("groq"), "groq/openai/gpt-oss-120b"),
        ("openai/gpt-oss-120b", Some("together"), "together_ai/openai/gpt-oss-120b"),
        ("accounts/fireworks/models/kimi-k2p5", None, "accounts/fireworks/models/kimi-k2p5"),
        ("mistral-large-latest", Some("mistral_ai"), "mistral-large-latest"),
        ("deepseek-chat", Some("openai"), "deepseek-chat"),
        ("sonar-pro", Some("perplexity"), "sonar-pro"),
        ("grok-4-0709", Some("x_ai"), "grok-4"),
        ("moonshotai/kimi-k2.5", None, "kimi-k2.5"),
    ] {
        let found = PriceBook::built_in().find(name, provider).map(|model| model.id.clone());
        assert_eq!(found.as_deref(), Some(expected), "{name} by {provider:?}");
    }
}

/// Names as gateways, clouds and frameworks write them, and the traps between them.
#[test]
fn names_with_dates_regions_versions_and_prefixes_find_their_model() {
    for (name, provider, expected) in [
        // Dated, and with what the date is joined by.
        ("gpt-4.1-2025-04-14", None, Some("gpt-4.1")),
        ("gpt-4.1-mini-2025-04-14", Some("openai"), Some("gpt-4.1-mini")),
        ("o3-mini-2025-01-31", None, Some("o3-mini")),
        ("claude-3-5-sonnet-20241022", None, Some("claude-3-5-sonnet")),
        ("claude-3-7-sonnet-latest", None, Some("claude-3-7-sonnet")),
        ("gemini-2.5-flash-lite", None, Some("gemini-2.5-flash-lite")),
        // A longer name is another model, never the shorter one's price.
        ("gpt-4o-mini", None, Some("gpt-4o-mini")),
        ("gpt-4.1-nano", None, Some("gpt-4.1-nano")),
        ("o1-mini", None, Some("o1-mini")),
        ("gpt-5-mini", None, Some("gpt-5-mini")),
        ("gpt-5-mini-but-not-really", None, None),
        // Prefixes of gateways.
        ("openai/gpt-4o-mini", None, Some("gpt-4o-mini")),
        ("openrouter/anthropic/claude-3.7-sonnet", None, Some("claude-3-7-sonnet")),
        ("anthropic/claude-3-5-haiku-20241022", None, Some("claude-3-5-haiku")),
        ("azure/gpt-4o-mini", None, Some("gpt-4o-mini")),
        // Bedrock: vendor, version, region of the inference profile.
        ("anthropic.claude-3-5-haiku-20241022-v1:0", None, Some("claude-3-5-haiku")),
        ("bedrock/anthropic.claude-3-haiku-20240307-v1:0", None, Some("claude-3-haiku")),
        ("eu.anthropic.claude-3-haiku-20240307-v1:0", None, Some("claude-3-haiku")),
        ("amazon.nova-pro-v1:0", Some("aws.bedrock"), Some("amazon.nova-pro")),
        ("global.anthropic.claude-sonnet-4-5-20250929-v1:0", None, Some("claude-sonnet-4-5")),
        ("bedrock/us-east-1/anthropic.claude-3-haiku-20240307-v1:0", None, Some("claude-3-haiku")),
        ("bedrock/converse/us.anthropic.claude-sonnet-4-20250514-v1:0", None, Some("claude-sonnet-4")),
        (
            "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.anthropic.claude-sonnet-4-5-20250929-v1:0",
            None,
            Some("us.anthropic.claude-sonnet-4-5"),
        ),
        ("us.meta.llama3-3-70b-instruct-v1:0", None, Some("meta.llama3-3-70b-instruct")),
        ("publishers/anthropic/models/claude-sonnet-4@20250514", None, Some("claude-sonnet-4")),
        ("gpt-4o-audio-preview-2024-12-17", None, Some("gpt-4o-audio-preview")),
        ("gpt-4-0613", None, Some("gpt-4")),
        ("gpt-4-32k", None, Some("gpt-4-32k")),
        ("chatgpt-4o-latest", None, Some("chatgpt-4o-latest")),
        ("my-deployment", Some("azure"), None),
        // Vertex: @ before the version.
        ("claude-3-5-haiku@20241022", Some("gcp.vertex_ai"), Some("claude-3-5-haiku")),
        ("vertex_ai/gemini-2.5-pro", None, Some("gemini-2.5-pro")),
        // Fine-tunes cost by their own list.
        ("ft:gpt-4o-mini-2024-07-18:acme:support:9XyZ", None, Some("ft:gpt-4o-mini")),
        ("ft:gpt-3.5-turbo-0125:acme::9AbC", None, Some("ft:gpt-3.5-turbo-0125")),
    ] {
        let found = PriceBook::built_in().find(name, provider).map(|model| model.id.clone());
        assert_eq!(found.as_deref(), expected, "{name} by {provider:?}");
    }
}

#[test]
fn an_unknown_model_has_no_price() {
    let usage = tokens(10, 0, 10);
    let long = "gpt-4o".repeat(100);
    for name in ["", "  ", "my-own-llama", "gpt-4o-mini-but-not-really", "xgpt-4o", "gpt-oss-120b", long.as_str()] {
        assert_eq!(total(&ask(name, &usage)), "none", "{name}");
    }
}

#[test]
fn the_built_in_book_is_wide_and_consistent() {
    let book = PriceBook::built_in();
    let providers: BTreeSet<_> = book.models().flat_map(|model| model.providers.clone()).collect();
    assert!(book.models().count() >= 150 && providers.len() >= 10, "{} by {providers:?}", book.models().count());
    for model in book.models() {
        // Every name that is an id is that model's, whoever else's pattern fits it.
        assert_eq!(book.find(&model.id, None).map(|found| &found.id), Some(&model.id));
        // A price holds at any time: an old trace is not unpriced.
        assert!(model.price_at(0).is_some(), "{}", model.id);
        for tier in model.prices.iter().flat_map(|price| &price.tiers) {
            let dearest =
                tier.rates().map(|(_, usd, is_per_million)| (usd, is_per_million)).filter(|rate| rate.1).max();
            // The dearest token there is costs 600 USD a million, the dearest fine-tuned or old ones far less.
            assert!(dearest.is_none_or(|(usd, _)| usd <= Decimal::from(1000)), "{} {}", model.id, tier.name);
        }
    }
    // Where one pattern fits another model's id, the other's must not fit back: one of them is the more specific.
    let models: Vec<_> = book.models().collect();
    let patterns = models.iter().map(|model| format!("^(?:{})$", model.pattern));
    let patterns = regex::bytes::RegexSetBuilder::new(patterns)
        .case_insensitive(true)
        .unicode(false)
        .size_limit(64 << 20)
        .dfa_size_limit(64 << 20)
        .build()
        .unwrap();
    let claimed: BTreeSet<(usize, usize)> = (0..models.len())
        .flat_map(|of| patterns.matches(models[of].id.as_bytes()).into_iter().map(move |by| (by, of)))
        .filter(|(by, of)| by != of)
        .collect();
    for (by, of) in &claimed {
        let (by_id, of_id) = (&models[*by].id, &models[*of].id);
        assert!(!claimed.contains(&(*of, *by)), "{by_id} and {of_id} claim each other's id");
        assert!(by_id.len() < of_id.len(), "{by_id} hides {of_id}");
    }
}

#[test]
fn claude_caches_are_read_and_written_at_their_own_rates() {
    // 1000 in: 300 read from the cache, 400 written, of which 100 for an hour; 10 out.
    let others =
        map(&[("input_cache_creation_1h", 100), ("input", 300), ("input_cached_tokens", 300), ("total", 1010)]);
    let usage = Quantities::from_inclusive(Some(1000), Some(300), Some(400), Some(10), None, &others);
    assert_eq!(usage.input_tokens(), 1000);
    // (300·3 + 300·0.3 + 300·3.75 + 100·6 + 10·15) per million
    assert_eq!(total(&ask("claude-sonnet-4-5", &usage)), "0.002865");
}

#[test]
fn a_long_context_is_priced_by_all_input_tokens() {
    for (input, cached, expected) in [
        (200_000, 0, "0.25001"),         // 200,000·1.25 + 1·10
        (200_001, 0, "0.5000175"),       // 200,001·2.5 + 1·15
        (200_001, 200_000, "0.0500175"), // 1·2.5 + 200,000·0.25 + 1·15: cached tokens fill the context too
    ] {
        assert_eq!(total(&ask("gemini-2.5-pro", &tokens(input, cached, 1))), expected);
    }
}

#[test]
fn a_service_tier_has_its_own_price_where_it_is_known() {
    let usage = tokens(1_000_000, 0, 0);
    for (model, tier, expected) in [
        ("gpt-5", None, "1.25"),
        ("gpt-5", Some("default"), "1.25"),
        ("gpt-5", Some("flex"), "0.625"),
        ("gpt-5", Some("Priority"), "2.5"),
        ("claude-opus-4-5", Some("batch"), "2.5"),
        ("mistral-tiny", Some("no-such-tier"), "0.25"),
    ] {
        let ask = Ask { service_tier: tier, ..ask(model, &usage) };
        assert_eq!(total(&ask), expected, "{model} {tier:?}");
    }
}

#[test]
fn the_price_is_the_one_that_held_when_the_call_began() {
    let usage = tokens(1_000_000, 0, 0);
    for (at, expected) in [("2025-06-09", "10"), ("2025-06-10", "2"), ("2030-01-01", "2"), ("1969-12-31", "10")] {
        assert_eq!(total(&Ask { at_us: day(at), ..ask("o3", &usage) }), expected, "{at}");
    }
    let dated = book(r#"[{"valid_from": "2026-01-01", "tiers": [{"name": "t", "usd_per_million": {"input": "1"}}]}]"#);
    let dated = dated.unwrap();
    assert!(dated.price(&Ask { at_us: day("2026-01-01") - 1, ..ask("m", &usage) }).is_none());
    let priced = dated.price(&Ask { at_us: day("2026-01-01"), ..ask("m", &usage) }).unwrap();
    assert_eq!(priced.price_id, "v1/m/2026-01-01/t");
}

#[test]
fn a_kind_without_a_rate_takes_its_wholes_rate_or_is_left_out() {
    let book = book(
        r#"[{"tiers": [{"name": "t", "usd_per_million": {"input": "1", "output": "2"}, "usd_per_unit": {"seconds": "0.5"}}]}]"#,
    )
    .unwrap();
    let one = |kind| Quantities { by_kind: [(kind, 1_000_000)].into() };
    for (kind, expected) in [
        (UsageKind::CachedInput, Some("1")),
        (UsageKind::CachedInputAudio, Some("1")),
        (UsageKind::CacheWrite, Some("1")),
        (UsageKind::CacheWrite1h, Some("1")),
        (UsageKind::InputAudio, Some("1")),
        (UsageKind::InputImage, Some("1")),
        (UsageKind::Reasoning, Some("2")),
        (UsageKind::OutputAudio, Some("2")),
        (UsageKind::OutputImage, Some("2")),
        (UsageKind::Seconds, Some("500000")),
        (UsageKind::Milliseconds, Some("500")),
        (UsageKind::Images, None),
        (UsageKind::Searches, None),
    ] {
        let priced = book.price(&ask("m", &one(kind)));
        assert_eq!(priced.map(|priced| priced.total.to_string()).as_deref(), expected, "{}", kind.as_str());
    }
}

#[test]
fn things_other_than_tokens_have_prices_too() {
    let none = || Quantities::from_inclusive(None, None, None, None, None, &BTreeMap::new());
    let of = |counts: &[(&str, i64)]| Quantities::from_inclusive(None, None, None, None, None, &map(counts));
    assert_eq!(total(&ask("whisper-1", &of(&[("seconds", 90)]))), "0.009");
    assert_eq!(total(&ask("whisper-1", &of(&[("milliseconds", 1500)]))), "0.00015");
    assert_eq!(total(&ask("tts-1", &of(&[("characters", 1000)]))), "0.015");
    assert_eq!(total(&ask("rerank-v3.5", &of(&[("search_units", 3)]))), "0.006");
    assert_eq!(total(&ask("dall-e-3", &of(&[("images", 2)]))), "0.08");
    // Nothing reported is unknown; zero reported is zero.
    assert_eq!(total(&ask("gpt-4o", &none())), "none");
    assert_eq!(total(&ask("gpt-4o", &tokens(0, 0, 0))), "0");
    // A million dollars is nonsense, not a price.
    assert_eq!(total(&ask("gpt-4o", &tokens(i64::MAX, 0, 0))), "none");
}

#[test]
fn parts_come_out_of_their_wholes() {
    let split = |input, cached, write, output, reasoning, others: &[(&str, i64)]| {
        let usage = Quantities::from_inclusive(input, cached, write, output, reasoning, &map(others));
        usage.by_kind.iter().map(|(kind, count)| format!("{}={count}", kind.as_str())).collect::<Vec<_>>().join(" ")
    };
    for (actual, expected) in [
        (
            split(Some(120), Some(100), None, Some(45), Some(20), &[]),
            "input=20 cached_input=100 output=25 reasoning=20",
        ),
        // The map repeats the flat counts under other names: ignored.
        (
            split(
                Some(120),
                Some(100),
                None,
                Some(45),
                None,
                &[("input_cached_tokens", 100), ("prompt_tokens", 120), ("x", 9)],
            ),
            "input=20 cached_input=100 output=45",
        ),
        (
            split(Some(100), None, None, Some(50), None, &[("input_audio_tokens", 60), ("output_audio_tokens", 45)]),
            "input=40 input_audio=60 output=5 output_audio=45",
        ),
        // Cached audio is a part of audio and of cached input.
        (
            split(Some(100), Some(50), None, None, None, &[("input_audio", 60), ("audio.cache_read.input_tokens", 30)]),
            "input=20 cached_input=20 cached_input_audio=30 input_audio=30",
        ),
        // No cache write reported apart from the one-hour part: it comes out of input.
        (split(Some(100), None, None, None, None, &[("input_cache_creation_1h", 40)]), "input=60 cache_write_1h=40"),
        // Parts larger than their wholes.
        (
            split(Some(10), Some(30), Some(5), Some(1), Some(2), &[]),
            "input=0 cached_input=30 cache_write=5 output=0 reasoning=2",
        ),
        (split(Some(10), None, None, None, None, &[("input_audio", 30)]), "input=0 input_audio=10"),
        (split(Some(-5), Some(-1), None, None, None, &[("images", -2)]), "input=0 cached_input=0"),
    ] {
        assert_eq!(actual, expected);
    }
}

#[test]
fn a_book_that_parses_works_and_others_say_what_is_wrong() {
    let tier = r#"{"name": "t", "usd_per_million": {"input": "1"}}"#;
    let prices = |tiers: &str| format!(r#"[{{"tiers": [{tiers}]}}]"#);
    assert!(book(&prices(tier)).is_ok());
    for (text, expected) in [
        (prices(""), "the last tier, and no other, has no condition"),
        (
            prices(&format!("{tier}, {}", tier.replace("\"t\"", "\"u\""))),
            "the last tier, and no other, has no condition",
        ),
        (prices(&format!("{tier}, {tier}")), "stands twice"),
        (prices(&tier.replace("input", "imput")), "\"imput\" is not a kind of usage"),
        (prices(&tier.replace("\"1\"", "\"-1\"")), "not a decimal from 0"),
        (prices(&tier.replace("\"1\"", "\"1e-3\"")), "not a decimal from 0"),
        (prices(&tier.replace("\"1\"", "\"0.0000000000001\"")), "not a decimal from 0"),
        (prices(&tier.replace("\"1\"", "1.5")), "invalid type: floating point"),
        (prices(&tier.replace("usd_per", "eur_per")), "unknown field"),
        (prices(r#"{"name": "t"}"#), "has no rates"),
        ("[]".into(), "no price"),
        (format!(r#"[{{"valid_from": "2026-02-30", "tiers": [{tier}]}}]"#), "not a date"),
        (format!(r#"[{{"tiers": [{tier}]}}, {{"tiers": [{tier}]}}]"#), "oldest first"),
    ] {
        let error = book(&text).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains(expected), "{text}: {error:?}");
    }
    let model = |id: &str, pattern: &str| {
        format!(r#"{{"id": "{id}", "providers": [], "pattern": "{pattern}", "prices": {}}}"#, prices(tier))
    };
    let parse = |models: &str| PriceBook::parse(&format!(r#"{{"version": "v", "models": [{models}]}}"#));
    assert!(matches!(parse(&model("a", "(a")), Err(PriceError::Model { .. })));
    assert!(matches!(parse(&format!("{}, {}", model("a", "a"), model("A", "a"))), Err(PriceError::ModelTwice { .. })));
    // Patterns stand for whole names.
    assert!(parse(&model("a", "a|b")).unwrap().find("ab", None).is_none());
}

#[test]
fn senders_that_make_names_up_do_not_fill_the_memory_or_change_answers() {
    let book = PriceBook::built_in();
    for number in 0..10_000 {
        assert!(book.find(&format!("made-up-{number}"), Some("openai")).is_none());
    }
    for number in 0..100 {
        assert_eq!(book.find("gpt-4o", Some(&format!("provider-{number}"))).unwrap().id, "gpt-4o");
    }
}

/// A tenant's own book.
fn own(models: &str) -> Result<PriceBook, PriceError> {
    let text = format!(r#"{{"version": "own-1", "models": [{models}]}}"#);
    PriceBook::own(serde_json::from_str(&text).map_err(|error| PriceError::Unreadable(error.to_string()))?)
}

fn own_model(id: &str, pattern: &str, prices: &str) -> String {
    format!(r#"{{"id": "{id}", "pattern": "{pattern}", "prices": {prices}}}"#)
}

#[test]
fn a_tenants_own_prices_come_first_from_the_moment_they_hold() {
    let tier = |usd: &str| format!(r#"[{{"name": "t", "usd_per_million": {{"input": "{usd}"}}}}]"#);
    let prices = format!(
        r#"[{{"valid_from": "2026-03-01", "tiers": {}}}, {{"valid_from": "2026-03-01T12:00:00Z", "tiers": {}}}]"#,
        tier("1"),
        tier("2")
    );
    let own = own(&own_model("house-gpt", "gpt-4o(-.*)?", &prices)).unwrap();
    let prices = Prices::new(PriceBook::built_in(), Some(Arc::new(own)));
    let shipped = PriceBook::built_in().version().to_owned();
    assert_eq!(prices.version().as_ref(), format!("{shipped}+own-1"));
    assert_eq!(split_version(prices.version()), (shipped.as_str(), Some("own-1")));
    let usage = tokens(1_000_000, 0, 1_000_000);
    let noon = day("2026-03-01") + 12 * 3_600_000_000;
    for (model, at_us, expected, price_id) in [
        ("gpt-4o", day("2026-03-01") - 1, "12.5", format!("{shipped}/gpt-4o/2024-10-02/standard")),
        // Where the own book has a price it decides alone: what it does not name is free.
        ("gpt-4o", day("2026-03-01"), "1", "own-1/house-gpt/2026-03-01/t".into()),
        ("gpt-4o-mini", noon - 1, "1", "own-1/house-gpt/2026-03-01/t".into()),
        ("gpt-4o", noon, "2", "own-1/house-gpt/2026-03-01T12:00:00Z/t".into()),
        ("gpt-3.5-turbo", noon, "2", format!("{shipped}/gpt-3.5-turbo/2024-02-16/standard")),
    ] {
        let priced = prices.price(&Ask { at_us, ..ask(model, &usage) }).unwrap();
        assert_eq!((priced.total.to_string().as_str(), &priced.price_id), (expected, &price_id), "{model} {at_us}");
    }
    assert!(prices.price(&ask("my-own-llama", &usage)).is_none());
}

#[test]
fn a_machine_of_ones_own_costs_by_the_call_and_by_the_second() {
    let own = own(&own_model(
        "llama",
        "llama-.*",
        r#"[{"tiers": [{"name": "t", "usd_per_unit": {"requests": "0.001", "duration_seconds": "0.0012", "characters": "0.5"}}]}]"#,
    ))
    .unwrap();
    let none = Quantities::default();
    let said = |counts: &[(&str, i64)]| Quantities::from_inclusive(None, None, None, None, None, &map(counts));
    for (usage, duration_us, expected) in [
        (none.clone(), Some(2_500_000), "0.004"), // one call, and 2.5 s of 0.0012
        (none.clone(), Some(1), "0.0010000012"),
        (none, None, "0.001"),
        (said(&[("requests", 3)]), Some(0), "0.003"),
        (said(&[("seconds", 9)]), Some(-5), "0.001"), // seconds of audio are not seconds of the machine
    ] {
        let ask = Ask { duration_us, ..ask("llama-70b", &usage) };
        assert_eq!(own.price(&ask).map(|priced| priced.total.to_string()).as_deref(), Some(expected), "{usage:?}");
    }
    // No shipped price charges for what a call did not say it used.
    let tokens = tokens(10, 0, 0);
    let with = |duration_us| PriceBook::built_in().price(&Ask { duration_us, ..ask("gpt-4o", &tokens) });
    assert_eq!(with(Some(60_000_000)), with(None));
}

#[test]
fn a_tier_may_ask_for_a_speed() {
    let own = own(&own_model(
        "m",
        "m",
        r#"[{"tiers": [
            {"name": "fast-batch", "when": {"speed": ["fast"], "service_tier": ["batch"]}, "usd_per_million": {"input": "3"}},
            {"name": "fast", "when": {"speed": ["fast"]}, "usd_per_million": {"input": "6"}},
            {"name": "standard", "usd_per_million": {"input": "1", "cache_write_5m": "2"}}]}]"#,
    ))
    .unwrap();
    let usage = Quantities::from_inclusive(Some(1_000_000), None, None, None, None, &BTreeMap::new());
    for (speed, service_tier, expected) in [
        (None, None, "standard"),
        (Some("standard"), None, "standard"),
        (Some("Fast"), None, "fast"),
        (Some("fast"), Some("batch"), "fast-batch"),
        (None, Some("batch"), "standard"),
    ] {
        let (_, _, tier) = own.tier(&Ask { speed, service_tier, ..ask("m", &usage) }).unwrap();
        assert_eq!(tier.name, expected);
    }
}

#[test]
fn a_tenants_book_is_bounded() {
    let prices = r#"[{"tiers": [{"name": "t", "usd_per_million": {"input": "1"}}]}]"#;
    let many = (0..2_001).map(|n| own_model(&format!("m{n}"), "m", prices)).collect::<Vec<_>>().join(",");
    assert!(matches!(own(&many), Err(PriceError::TooMany { limit: 2_000, .. })));
    let long = (0..70).map(|n| own_model(&format!("m{n}"), &"m".repeat(1000), prices)).collect::<Vec<_>>().join(",");
    assert!(matches!(own(&long), Err(PriceError::Patterns(_))));
    let large = (0..9).map(|n| own_model(&format!("m{n}"), "(a{90}){90}", prices)).collect::<Vec<_>>().join(",");
    assert!(matches!(own(&large), Err(PriceError::Patterns(_))));
    let twice = r#"[{"tiers": [{"name": "t", "usd_per_million": {"cache_write": "1", "cache_write_5m": "2"}}]}]"#;
    assert!(own(&own_model("m", "m", twice)).unwrap_err().to_string().contains("has two rates"));
}

#[test]
fn prices_of_one_model_are_put_beside_each_other_by_their_time() {
    let priced = |valid_from: Option<&str>, usd: &str| -> ModelText {
        let tier = format!(r#"{{"name": "t", "usd_per_million": {{"input": "{usd}"}}}}"#);
        let from = valid_from.map_or(String::new(), |from| format!(r#""valid_from": "{from}","#));
        serde_json::from_str(&own_model("m", "m", &format!(r#"[{{{from} "tiers": [{tier}]}}]"#))).unwrap()
    };
    let mut book = BookText::empty("own-1");
    for (from, usd) in [(Some("2026-02-01"), "2"), (None, "1"), (Some("2026-03-01"), "3"), (Some("2026-02-01"), "9")] {
        book.put_price(priced(from, usd)).unwrap();
    }
    let rates = |book: &BookText| {
        let rate = |price: &PriceText| price.tiers[0].usd_per_million["input"].clone();
        book.models[0].prices.iter().map(rate).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(rates(&book), "1 9 3");
    PriceBook::own(book.clone()).unwrap();
    assert!(book.put_price(priced(Some("March"), "3")).is_err());
    assert!(book.remove("M") && !book.remove("m"));
}

#[test]
fn the_text_of_the_built_in_book_has_a_version_of_its_own() {
    // Rows in stores are priced by this version: other prices need another version, and this digest with it.
    assert!(PriceBook::parse(BUILT_IN).is_ok());
    let digest = hex::encode(<sha2::Sha256 as sha2::Digest>::digest(BUILT_IN));
    assert_eq!((PriceBook::built_in().version(), &digest[..16]), ("2026-11-21", "620a71df60aa27de"));
}

proptest! {
    #[test]
    fn costs_are_the_exact_product_rounded_once(mantissa in 0i64..1_000_000_000, scale in 3u32..=12, count in 0i64..10_000_000_000) {
        let rate = Decimal::new(mantissa, scale);
        let book = book(&format!(r#"[{{"tiers": [{{"name": "t", "usd_per_million": {{"input": "{rate}"}}}}]}}]"#)).unwrap();
        let exact = rate * Decimal::from(count) / Decimal::from(1_000_000);
        let expected = exact.round_dp_with_strategy(12, RoundingStrategy::MidpointNearestEven);
        let priced = book.price(&ask("m", &tokens(count, 0, 0))).map(|priced| priced.total.to_decimal().normalize());
        prop_assert_eq!(priced, (expected < Decimal::from(1_000_000)).then_some(expected.normalize()));
    }

    #[test]
    fn no_token_is_counted_twice(
        input in 0i64..1000, cached in 0i64..500, write in 0i64..500, output in 0i64..1000, reasoning in 0i64..1000,
        audio in 0i64..1000, cached_audio in 0i64..500, image in 0i64..1000, hour in 0i64..500, spoken in 0i64..1000,
    ) {
        let others = map(&[
            ("input_audio_tokens", audio), ("audio.cache_read.input_tokens", cached_audio), ("input_image_tokens", image),
            ("input_cache_creation_1h", hour), ("output_audio_tokens", spoken), ("input", input), ("output", output),
            ("input_cached_tokens", cached), ("output_reasoning_tokens", reasoning), ("total", input + output),
        ]);
        let usage = Quantities::from_inclusive(Some(input), Some(cached), Some(write), Some(output), Some(reasoning), &others);
        let all: i64 = usage.by_kind.values().sum();
        prop_assert_eq!(usage.input_tokens(), input.max(cached + write));
        prop_assert_eq!(all - usage.input_tokens(), output.max(reasoning));
        let priced = PriceBook::built_in().price(&ask("gpt-4o", &usage)).unwrap();
        prop_assert_eq!(priced.total, priced.by_kind.values().copied().sum::<Money>());
        prop_assert_eq!(priced.total, priced.input + priced.output);
    }
}
