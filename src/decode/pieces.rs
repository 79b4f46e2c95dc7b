//! Lists that come as one attribute per leaf, `llm.input_messages.0.message.role`, put together again.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::common::v1::any_value::Value;

use super::value::json;

/// Deeper keys stay one word: what senders nest is far shallower, and recursion stays bounded.
const DEPTH_MAX: usize = 16;

enum Node {
    Leaf(serde_json::Value),
    Branch(BTreeMap<Word, Node>),
}

/// Numbers sort as numbers, before names.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Word {
    Place(u64),
    Name(String),
}

/// The JSON that `items` spell, without the first `prefix_words` of each key. Gaps in numbering close.
pub(super) fn joined(items: Vec<(String, Value)>, prefix_words: usize) -> serde_json::Value {
    let mut root = BTreeMap::new();
    for (key, value) in items {
        let words = key.splitn(DEPTH_MAX, '.').skip(prefix_words).map(word);
        insert(&mut root, words, json(value));
    }
    spell(Node::Branch(root))
}

fn word(text: &str) -> Word {
    match text.parse() {
        Ok(place) if text.len() <= 10 => Word::Place(place),
        _ => Word::Name(text.to_owned()),
    }
}

fn insert(root: &mut BTreeMap<Word, Node>, words: impl Iterator<Item = Word>, leaf: serde_json::Value) {
    let mut words = words.peekable();
    let mut branch = root;
    while let Some(word) = words.next() {
        if words.peek().is_none() {
            // A leaf does not replace what hangs below the same word.
            branch.entry(word).or_insert(Node::Leaf(leaf));
            return;
        }
        let node = branch.entry(word).or_insert_with(|| Node::Branch(BTreeMap::new()));
        if let Node::Leaf(early) = node {
            let early = std::mem::take(early);
            *node = Node::Branch(BTreeMap::from([(Word::Name("value".to_owned()), Node::Leaf(early))]));
        }
        let Node::Branch(below) = node else { return };
        branch = below;
    }
}

fn spell(node: Node) -> serde_json::Value {
    match node {
        Node::Leaf(value) => value,
        Node::Branch(branch) if branch.keys().all(|word| matches!(word, Word::Place(_))) => {
            branch.into_values().map(spell).collect::<Vec<_>>().into()
        }
        Node::Branch(branch) => {
            let pairs = branch.into_iter().map(|(word, node)| {
                let name = match word {
                    Word::Place(place) => place.to_string(),
                    Word::Name(name) => name,
                };
                (name, spell(node))
            });
            serde_json::Value::Object(pairs.collect())
        }
    }
}
