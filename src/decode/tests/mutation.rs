//! Whatever arrives: an answer or an error, never a panic, and the books balance.

use prost::Message;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use super::fixtures::recordings;
use super::recordings::{Wire, bodies};
use crate::decode::{DecodeLimits, Decoded, ingest_request, otlp_json};
use crate::model::EventKind;
use crate::wire;

const ROUNDS: usize = 4_000;

/// Changes a few bytes: flipped, overwritten, cut out, inserted, doubled, or the end cut off.
fn mutate(body: &[u8], random: &mut SmallRng) -> Vec<u8> {
    let mut body = body.to_vec();
    for _ in 0..random.random_range(1..=4) {
        if body.is_empty() {
            return body;
        }
        let at = random.random_range(0..body.len());
        let end = (at + random.random_range(1..=16)).min(body.len());
        match random.random_range(0..6) {
            0 => body[at] ^= 1 << random.random_range(0..8),
            1 => body[at] = random.random(),
            2 => drop(body.drain(at..end)),
            3 => body.insert(at, *b"\0\"{}[]\\09e-\xff".get(random.random_range(0..12)).unwrap()),
            4 => {
                let copy = body[at..end].to_vec();
                body.splice(at..at, copy);
            }
            _ => body.truncate(at),
        }
    }
    body
}

/// The smallest bodies of the recordings, so that rounds are many.
fn corpus(of: Wire) -> Vec<Vec<u8>> {
    let mut corpus: Vec<Vec<u8>> = recordings()
        .iter()
        .flat_map(bodies)
        .filter(|(wire, body)| *wire == of && body.len() < 20_000)
        .map(|(_, body)| body)
        .collect();
    corpus.sort();
    corpus
}

fn check_books(decoded: &Decoded) {
    let batch = &decoded.batch;
    let items = batch.events.iter().filter(|event| !matches!(event.kind, Some(EventKind::Trace(_)))).count();
    assert_eq!(batch.received, (items + decoded.rejections.len()) as u64);
    assert_eq!(batch.rejected.values().sum::<u64>(), decoded.rejections.len() as u64);
}

fn mutated_bodies_never_panic(wire: Wire, seed: u64) {
    let (corpus, mut random) = (corpus(wire), SmallRng::seed_from_u64(seed));
    assert!(!corpus.is_empty());
    let mut read = 0;
    for round in 0..ROUNDS {
        let body = mutate(&corpus[round % corpus.len()], &mut random);
        if let Ok(decoded) = wire.decode(&body) {
            read += 1;
            check_books(&decoded);
        }
    }
    assert!(read > ROUNDS / 20, "most mutants must get past the envelope to be worth anything: {read}");
}

#[test]
fn mutated_protobuf_never_panics() {
    mutated_bodies_never_panic(Wire::OtlpProtobuf, 1);
}

#[test]
fn mutated_json_never_panics() {
    mutated_bodies_never_panic(Wire::OtlpJson, 2);
}

#[test]
fn mutated_batches_never_panic() {
    mutated_bodies_never_panic(Wire::LangfuseBatch, 5);
}

#[test]
fn mutated_scores_never_panic() {
    mutated_bodies_never_panic(Wire::LangfuseScores, 6);
}

/// Puts something odd in the place of one node, mostly a deep one.
fn graft(node: &mut Value, random: &mut SmallRng) {
    let children: Vec<&mut Value> = match node {
        Value::Array(items) => items.iter_mut().collect(),
        Value::Object(pairs) => pairs.values_mut().collect(),
        _ => Vec::new(),
    };
    let at = random.random_range(0..children.len().max(1));
    match children.into_iter().nth(at) {
        Some(child) if random.random_range(0..12) > 0 => graft(child, random),
        _ => {
            let odd = [
                json!(null),
                json!({}),
                json!([]),
                json!(""),
                json!("\0"),
                json!(-1),
                json!(u64::MAX),
                json!(1e308),
                json!({"intValue": "x"}),
                json!({"doubleValue": "NaN"}),
                json!({"arrayValue": null}),
                json!({"a": [[{}]]}),
                json!({"stringValue": "{\"total\": 1e400, \"input\": -0, \"x\": {\"y\": [1]}}"}),
                json!({"kvlistValue": {"values": [{"key": "total", "value": {"doubleValue": 1e18}}]}}),
                json!({"stringValue": "9999-99-99T99:99:99Z"}),
                json!({"stringValue": "\"\\\"\""}),
            ];
            *node = odd[random.random_range(0..odd.len())].clone();
        }
    }
}

#[test]
fn grafted_json_never_panics_and_is_always_read() {
    let mut random = SmallRng::seed_from_u64(4);
    let corpus: Vec<Value> = corpus(Wire::OtlpJson).iter().map(|body| serde_json::from_slice(body).unwrap()).collect();
    for round in 0..ROUNDS / 4 {
        let mut document = corpus[round % corpus.len()].clone();
        for _ in 0..random.random_range(1..=20) {
            graft(&mut document["resourceSpans"][0]["scopeSpans"], &mut random);
        }
        check_books(&otlp_json(document.to_string().as_bytes(), &DecodeLimits::default()).unwrap());
    }
}

/// Whatever stands in an event, it is kept or refused by itself: its neighbours are as they were.
#[test]
fn grafted_batches_never_panic_and_are_always_read() {
    let mut random = SmallRng::seed_from_u64(7);
    for wire in [Wire::LangfuseBatch, Wire::LangfuseScores] {
        let corpus: Vec<Value> = corpus(wire).iter().map(|body| serde_json::from_slice(body).unwrap()).collect();
        for round in 0..ROUNDS / 4 {
            let mut document = corpus[round % corpus.len()].clone();
            let events = if wire == Wire::LangfuseBatch { &mut document["batch"] } else { &mut document };
            let untouched = events[0].clone();
            for event in events.as_array_mut().unwrap().iter_mut().skip(1) {
                graft(event, &mut random);
            }
            let alone = match wire {
                Wire::LangfuseBatch => json!({ "batch": [untouched], "metadata": document["metadata"] }),
                _ => json!([untouched]),
            };
            let decoded = wire.decode(document.to_string().as_bytes()).unwrap();
            check_books(&decoded);
            let alone = wire.decode(alone.to_string().as_bytes()).unwrap().batch.events;
            let said = |event: &&crate::model::Event| !is_root_fact(event);
            for event in alone.iter().filter(said) {
                assert!(decoded.batch.events.contains(event), "{event:?}");
            }
        }
    }
}

fn is_root_fact(event: &crate::model::Event) -> bool {
    matches!(&event.kind, Some(EventKind::Trace(facts)) if facts.root_id.is_some())
}

#[test]
fn mutated_own_proto_never_panics() {
    let observation = wire::Observation {
        trace_id: "t".into(),
        id: "o".into(),
        name: Some("llm".into()),
        start_unix_nano: Some(1_795_242_103_549_089_401),
        input_tokens: Some(20),
        cost: [("total".to_owned(), "0.5".to_owned())].into(),
        ..Default::default()
    };
    let score = wire::Score {
        id: "s".into(),
        trace_id: Some("t".into()),
        name: "q".into(),
        value: Some(wire::score::Value::Numeric(0.5)),
        ..Default::default()
    };
    let request = wire::IngestRequest {
        observations: vec![observation],
        traces: vec![wire::Trace { id: "t".into(), ..Default::default() }],
        scores: vec![score],
    };
    let (body, mut random) = (request.encode_to_vec(), SmallRng::seed_from_u64(3));
    for _ in 0..ROUNDS {
        if let Ok(request) = wire::IngestRequest::decode(&mutate(&body, &mut random)[..]) {
            ingest_request(request, &DecodeLimits::default());
        }
    }
}

#[test]
fn deep_and_long_keys_do_not_exhaust_the_stack() {
    let deep = format!("gen_ai.prompt.{}", "0.a.".repeat(100_000));
    let body = serde_json::json!({"resourceSpans": [{"scopeSpans": [{"spans": [{
        "traceId": "0af7651916cd43dd8448eb211c80319c", "spanId": "b7ad6b7169203331",
        "attributes": [{"key": deep, "value": {"stringValue": "x"}}],
    }]}]}]});
    let decoded = otlp_json(body.to_string().as_bytes(), &DecodeLimits::default()).unwrap();
    assert_eq!(decoded.batch.received, 1);
    let nested = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(otlp_json(nested.as_bytes(), &DecodeLimits::default()).is_err());
}
