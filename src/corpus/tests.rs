use std::collections::{BTreeMap, HashSet};

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use prost::Message;
use sha2::{Digest, Sha256};

use super::*;

fn config(seed: u64, observations: u64, text: TextSize) -> CorpusConfig {
    CorpusConfig { seed, observations, text, ..CorpusConfig::default() }
}

/// The hash of everything that would be sent.
fn fingerprint(config: CorpusConfig) -> String {
    let mut hasher = Sha256::new();
    requests(config, 100).for_each(|request| hasher.update(request.encode_to_vec()));
    hex::encode(&hasher.finalize()[..8])
}

#[test]
fn the_same_seed_gives_the_same_bytes_for_ever() {
    assert_eq!(fingerprint(config(1, 2_000, TextSize::None)), "c9100e359af1058a");
    assert_eq!(fingerprint(config(1, 300, TextSize::Prompts)), "c5fb81c7dfe11ee3");
    assert_ne!(fingerprint(config(1, 300, TextSize::Small)), fingerprint(config(2, 300, TextSize::Small)));
}

#[test]
fn exactly_the_asked_number_of_spans_comes_with_unique_ids_and_true_parents() {
    for observations in [0, 1, 7, 3_000] {
        let traces: Vec<Trace> = Corpus::new(config(3, observations, TextSize::None)).collect();
        let mut ids = HashSet::new();
        for trace in &traces {
            assert!((1..=16).contains(&trace.spans.len()));
            let own: HashSet<&[u8]> = trace.spans.iter().map(|span| span.span_id.as_slice()).collect();
            let root = &trace.spans[0];
            assert!(root.parent_span_id.is_empty() && root.name == trace.name);
            for span in &trace.spans {
                assert_eq!((span.trace_id.len(), span.span_id.len()), (16, 8));
                assert_eq!(span.trace_id, root.trace_id);
                assert!(ids.insert((span.trace_id.clone(), span.span_id.clone())));
                assert!(span.parent_span_id.is_empty() || own.contains(span.parent_span_id.as_slice()));
                assert!(span.start_time_unix_nano >= root.start_time_unix_nano);
                assert!(span.end_time_unix_nano >= span.start_time_unix_nano);
            }
        }
        assert_eq!(ids.len() as u64, observations);
        assert_eq!(Facts::of(&traces).observations, observations);
    }
}

#[test]
fn all_spans_lie_in_the_period_in_the_order_of_their_traces() {
    let config = config(4, 20_000, TextSize::None);
    let facts = Corpus::facts(config.clone());
    assert!(facts.first_start_us.unwrap() >= config.start_us);
    assert!(facts.last_end_us.unwrap() <= config.end_us);
    let starts: Vec<u64> =
        Corpus::new(config).map(|trace| trace.spans[0].start_time_unix_nano / 1_000_000_000).collect();
    assert!(starts.windows(2).all(|pair| pair[0] <= pair[1] + 180), "order is kept but for a little jitter");
}

#[test]
fn the_shape_is_that_of_llm_traffic() {
    let facts = Corpus::facts(config(5, 50_000, TextSize::None));
    let share = |part: u64, whole: u64| part as f64 / whole as f64;
    assert!((0.013..0.017).contains(&share(facts.errors, facts.observations)), "errors {}", facts.errors);
    assert!((3.0..5.5).contains(&share(facts.observations, facts.traces)), "traces {}", facts.traces);

    let total = facts.model_total();
    assert_eq!(facts.by_model.len(), 13, "{:?}", facts.by_model.keys());
    assert!((0.2..0.4).contains(&share(facts.by_model["gpt-4o-mini"].calls, total.calls)));
    assert!((0.08..0.16).contains(&share(total.calls_with_cost, total.calls)));
    assert!((1_000..6_000).contains(&(total.input_tokens / total.calls as i64)), "{total:?}");
    assert!(total.cached_input_tokens > 0 && total.cached_input_tokens < total.input_tokens / 2);
    assert!(total.reasoning_tokens > 0 && total.reasoning_tokens < total.output_tokens);
    assert_eq!(facts.by_model["qwen3-14b-local"].calls_with_cost, 0);
    assert_eq!(facts.by_model["text-embedding-3-small"].output_tokens, 0);
}

#[test]
fn a_few_users_make_most_of_the_traffic_and_agents_are_among_the_slowest() {
    let mut traces_by_user: BTreeMap<String, u64> = BTreeMap::new();
    let mut generation_ms = Vec::new();
    for trace in Corpus::new(config(6, 30_000, TextSize::None)) {
        *traces_by_user.entry(trace.user_id.unwrap_or_default()).or_default() += 1;
        let chats = trace.spans.iter().filter(|span| span.name.starts_with("chat ") && span.status.is_none());
        generation_ms.extend(chats.map(|span| (span.end_time_unix_nano - span.start_time_unix_nano) / 1_000_000));
    }
    let traces: u64 = traces_by_user.values().sum();
    let first = traces_by_user["user-00000"] as f64 / traces as f64;
    assert!((0.1..0.15).contains(&first), "{first}");
    assert!(traces_by_user.len() > 500);
    generation_ms.sort_unstable();
    let (median, p99) = (generation_ms[generation_ms.len() / 2], generation_ms[generation_ms.len() * 99 / 100]);
    assert!((1_500..6_000).contains(&median) && p99 > 5 * median, "{median} {p99}");
}

#[test]
fn text_changes_no_id_no_time_and_no_count() {
    let silent: Vec<Trace> = Corpus::new(config(7, 500, TextSize::None)).collect();
    let chatty: Vec<Trace> = Corpus::new(config(7, 500, TextSize::Prompts)).collect();
    assert_eq!(Facts::of(&silent), Facts::of(&chatty));
    for (silent, chatty) in silent.iter().zip(&chatty) {
        for (bare, full) in silent.spans.iter().zip(&chatty.spans) {
            assert_eq!((&bare.span_id, bare.start_time_unix_nano), (&full.span_id, full.start_time_unix_nano));
            assert!(bare.attributes.iter().all(|attribute| full.attributes.contains(attribute)));
        }
    }
}

#[test]
fn agents_send_their_history_again_as_json() {
    let agent = Corpus::new(config(8, 5_000, TextSize::Prompts))
        .find(|trace| trace.name == "code-review" && histories(trace).len() > 3)
        .unwrap();
    let histories = histories(&agent);
    for pair in histories.windows(2) {
        let (earlier, later) = (&pair[0], &pair[1]);
        assert!(later.starts_with(&earlier[..earlier.len() - 1]), "each call sends what the one before it sent");
        assert!(serde_json::from_str::<serde_json::Value>(later).unwrap().is_array());
    }
}

fn histories(trace: &Trace) -> Vec<String> {
    let inputs = ["gen_ai.input.messages", "langfuse.observation.input", "input.value"];
    let chats = trace.spans.iter().filter(|span| span.name.starts_with("chat "));
    let attributes = chats.flat_map(|span| &span.attributes).filter(|pair| inputs.contains(&pair.key.as_str()));
    attributes
        .filter_map(|pair| match &pair.value.as_ref()?.value {
            Some(Value::StringValue(text)) => Some(text.clone()),
            _ => None,
        })
        .collect()
}

#[test]
fn costs_survive_being_sent_as_doubles() {
    let mut costs = 0;
    for trace in Corpus::new(CorpusConfig { provided_cost_rate: 1.0, ..config(9, 2_000, TextSize::None) }) {
        let spans = trace.spans.iter().flat_map(|span| &span.attributes);
        let sent = spans.filter_map(|pair| match (pair.key.as_str(), pair.value.as_ref()?.value.as_ref()?) {
            ("gen_ai.usage.cost" | "llm.cost.total", Value::DoubleValue(cost)) => {
                Some(crate::base::Money::from_f64(*cost).unwrap())
            }
            _ => None,
        });
        let sent: Vec<_> = sent.collect();
        let said: Vec<_> = trace.calls.iter().filter_map(|call| call.provided_cost).collect();
        assert!(sent.is_empty() || sent == said);
        costs += sent.len();
    }
    assert!(costs > 500, "{costs}");
}
