//! What of one tenant is refused and shown to nobody: asked for every event, so it costs nothing where nothing is denied.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::RwLock;

use super::{Erasure, ErasureKind, digest};
use crate::base::TimestampUs;
use crate::format::index::key_hash;

/// Traces of denied persons and sessions that came later and are remembered.
const LEARNED_MAX: usize = 100_000;

/// The keys of one tenant that were erased, each until it may come again.
#[derive(Debug)]
pub struct Denied {
    tenant: String,
    keys: RwLock<Keys>,
}

#[derive(Debug, Default)]
struct Keys {
    traces: HashMap<u64, TimestampUs>,
    /// Of sessions and users, by digest.
    sessions: HashMap<String, TimestampUs>,
    users: HashMap<String, TimestampUs>,
    scores: HashMap<u64, TimestampUs>,
    /// Traces that turned out to belong to one of them, until an erasure of their own names them.
    learned: HashMap<u64, Named>,
    all: bool,
}

/// A trace that was named as a denied one's after the erasure was asked: rows that named nobody may stand anywhere.
#[derive(Debug)]
struct Named {
    trace_id: String,
    /// When what named it came.
    at_us: TimestampUs,
    until_us: TimestampUs,
}

impl Denied {
    pub(super) fn new(tenant: &str) -> Self {
        Self { tenant: tenant.to_owned(), keys: RwLock::default() }
    }

    /// Only these from now on.
    pub(super) fn reset(&self, all: &[(Arc<Erasure>, TimestampUs)]) {
        let mut keys = self.keys.write();
        let learned = std::mem::take(&mut keys.learned);
        *keys = Keys { learned, ..Keys::default() };
        all.iter().for_each(|(erasure, until_us)| keys.add(erasure, *until_us));
    }

    pub(super) fn add(&self, erasure: &Erasure, until_us: TimestampUs) {
        self.keys.write().add(erasure, until_us);
    }
}

impl Keys {
    fn add(&mut self, erasure: &Erasure, until_us: TimestampUs) {
        fn extend<K: Eq + std::hash::Hash>(
            keys: &mut HashMap<K, TimestampUs>,
            more: impl Iterator<Item = K>,
            until_us: TimestampUs,
        ) {
            for key in more {
                let known = keys.entry(key).or_insert(until_us);
                *known = until_us.max(*known);
            }
        }
        let keys = self;
        let mut traces: Vec<u64> = erasure.traces.iter().copied().collect();
        if erasure.kind == ErasureKind::Trace {
            traces.extend(erasure.subjects.iter().map(|trace| key_hash(&[trace])));
        }
        traces.iter().for_each(|trace| _ = keys.learned.remove(trace));
        extend(&mut keys.traces, traces.into_iter(), until_us);
        match erasure.kind {
            ErasureKind::Trace => {}
            ErasureKind::Session => extend(&mut keys.sessions, erasure.subjects.iter().cloned(), until_us),
            ErasureKind::User => extend(&mut keys.users, erasure.subjects.iter().cloned(), until_us),
            ErasureKind::Tenant => keys.all = true,
            ErasureKind::Score => {
                let hashes = erasure.subjects.iter().map(|score| key_hash(&[score]));
                extend(&mut keys.scores, hashes, until_us);
            }
        }
    }
}

impl Denied {
    /// The tenant itself is gone.
    pub fn all(&self) -> bool {
        self.keys.read().all
    }

    /// Whether nothing that arrives at `at_us` can be denied.
    pub fn is_over(&self, at_us: TimestampUs) -> bool {
        let keys = self.keys.read();
        let over = |until_us: &TimestampUs| *until_us <= at_us;
        !keys.all
            && keys.traces.values().all(over)
            && keys.sessions.values().all(over)
            && keys.users.values().all(over)
            && keys.scores.values().all(over)
    }

    /// Whether persons or sessions are denied: only then is it worth to look at who an event is about.
    pub fn has_owners(&self) -> bool {
        let keys = self.keys.read();
        !(keys.sessions.is_empty() && keys.users.is_empty())
    }

    pub fn trace(&self, trace_id: &str, at_us: TimestampUs) -> bool {
        let keys = self.keys.read();
        let hash = key_hash(&[trace_id]);
        let until_us = keys.traces.get(&hash).copied().max(keys.learned.get(&hash).map(|named| named.until_us));
        keys.all || until_us.is_some_and(|until_us| at_us < until_us)
    }

    pub fn score(&self, id: &str, at_us: TimestampUs) -> bool {
        let keys = self.keys.read();
        keys.scores.get(&key_hash(&[id])).is_some_and(|until_us| at_us < *until_us)
    }

    /// Whether a person or session is denied.
    pub fn owner(&self, user_id: Option<&str>, session_id: Option<&str>, at_us: TimestampUs) -> bool {
        self.owner_until(user_id, session_id).is_some_and(|until_us| at_us < until_us)
    }

    fn owner_until(&self, user_id: Option<&str>, session_id: Option<&str>) -> Option<TimestampUs> {
        let keys = self.keys.read();
        let until = |of: &HashMap<String, TimestampUs>, kind, id: Option<&str>| match of.is_empty() {
            true => None,
            false => of.get(&digest(&self.tenant, kind, id?)).copied(),
        };
        let user = until(&keys.users, ErasureKind::User, user_id);
        user.max(until(&keys.sessions, ErasureKind::Session, session_id))
    }

    /// If what came at `at_us` says that a trace belongs to a denied person or session, what else is said about it is
    /// denied too.
    pub fn learn(&self, trace_id: &str, user_id: Option<&str>, session_id: Option<&str>, at_us: TimestampUs) {
        let Some(until_us) = self.owner_until(user_id, session_id).filter(|until_us| at_us < *until_us) else { return };
        let mut keys = self.keys.write();
        let hash = key_hash(&[trace_id]);
        if keys.learned.len() < LEARNED_MAX && !keys.traces.contains_key(&hash) {
            let named = || Named { trace_id: trace_id.to_owned(), at_us, until_us };
            keys.learned.entry(hash).or_insert_with(named);
        }
    }

    /// Traces that belong to a denied person or session and that no erasure names: only this process knows of them.
    /// With when what named them came.
    pub fn learned(&self) -> Vec<(String, TimestampUs)> {
        self.keys.read().learned.values().map(|named| (named.trace_id.clone(), named.at_us)).collect()
    }
}
