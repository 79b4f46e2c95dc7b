//! The merge rules (I3; `langfuse-wire` §1a): events of one id, sorted by [`Order`], fold into one row.
//!
//! Folding a sorted set makes the result independent of the order of arrival. Per field:
//! *last said wins* for scalars (absent keeps the old), *first said wins* for what places a row (start time,
//! environment), the earliest for a trace's timestamp, union for tags, by key for metadata and attributes, whole-map replacement for
//! usage, cost and model parameters.

use super::{Observation, Order, Score, TraceFacts};

/// A row and, when several events made it, which of them decided what.
#[derive(Debug, Clone, PartialEq)]
pub struct Merged<T> {
    pub row: T,
    /// The `_merge` column: `None` for a row born of one event; else, per event in order, its place and the
    /// fields it won, as `format version, then (order, bit set of fields)`.
    pub provenance: Option<Vec<u8>>,
}

/// The version of the `_merge` bytes.
const PROVENANCE_VERSION: u8 = 1;

struct Provenance {
    wins: Vec<u64>,
}

impl Provenance {
    fn new(events: usize) -> Self {
        Self { wins: vec![0; events] }
    }

    /// Field `field` is decided by event `event` from now on.
    fn last(&mut self, event: usize, field: u32) {
        for wins in &mut self.wins {
            *wins &= !(1 << field);
        }
        self.shared(event, field);
    }

    /// Field `field` has a part from event `event` (maps and sets).
    fn shared(&mut self, event: usize, field: u32) {
        self.wins[event] |= 1 << field;
    }

    fn encode(self, orders: &[&Order]) -> Option<Vec<u8>> {
        use prost::Message;
        if orders.len() < 2 {
            return None;
        }
        let mut bytes = vec![PROVENANCE_VERSION];
        for (order, wins) in orders.iter().zip(self.wins) {
            order.encode_length_delimited(&mut bytes).expect("a Vec grows as needed");
            bytes.extend_from_slice(&wins.to_le_bytes());
        }
        Some(bytes)
    }
}

/// Generates the fold of one struct: the bit of a field is its place in these lists, so fields are only appended.
macro_rules! fold {
    (
        $(#[$doc:meta])* $name:ident, $row:ty,
        last: [$($last:ident),* $(,)?],
        first: [$($first:ident),* $(,)?],
        earliest: [$($earliest:ident),* $(,)?],
        replace: [$($replace:ident),* $(,)?],
        by_key: [$($by_key:ident),* $(,)?],
        union: [$($union:ident),* $(,)?],
        then: $then:expr
    ) => {
        $(#[$doc])*
        ///
        /// `events` must be sorted by order and not empty.
        pub fn $name(events: &[(&Order, &$row)]) -> Merged<$row> {
            debug_assert!(events.windows(2).all(|pair| pair[0].0 <= pair[1].0), "I3: events are sorted");
            let mut row = events[0].1.clone();
            let mut provenance = Provenance::new(events.len());
            for (at, (_, event)) in events.iter().enumerate() {
                let mut field = 0;
                $(
                    if event.$last.is_some() {
                        if at > 0 { row.$last = event.$last.clone(); }
                        provenance.last(at, field);
                    }
                    field += 1;
                )*
                $(
                    if event.$first.is_some() && (at == 0 || row.$first.is_none()) {
                        row.$first = event.$first.clone();
                        provenance.last(at, field);
                    }
                    field += 1;
                )*
                $(
                    if event.$earliest.is_some_and(|said| at == 0 || row.$earliest.is_none_or(|kept| said < kept)) {
                        row.$earliest = event.$earliest;
                        provenance.last(at, field);
                    }
                    field += 1;
                )*
                $(
                    if !event.$replace.is_empty() {
                        if at > 0 { row.$replace = event.$replace.clone(); }
                        provenance.last(at, field);
                    }
                    field += 1;
                )*
                $(
                    if !event.$by_key.is_empty() {
                        if at > 0 { row.$by_key.extend(event.$by_key.iter().map(|(k, v)| (k.clone(), v.clone()))); }
                        provenance.shared(at, field);
                    }
                    field += 1;
                )*
                $(
                    if !event.$union.is_empty() {
                        if at > 0 { row.$union.extend(event.$union.iter().cloned()); }
                        provenance.shared(at, field);
                    }
                    field += 1;
                )*
                debug_assert!(field <= 64);
            }
            $( row.$union.sort_unstable(); row.$union.dedup(); )*
            let then: fn(&mut $row) = $then;
            then(&mut row);
            let orders: Vec<&Order> = events.iter().map(|(order, _)| *order).collect();
            Merged { row, provenance: provenance.encode(&orders) }
        }
    };
}

fold! {
    /// Merges the events of one observation.
    merge_observation, Observation,
    last: [
        parent_id, root_mark, observation_type, operation, name, trace_name, user_id, session_id, agent_id,
        agent_name, tool_name, release, version, level, status, error_type, status_message, response_id, end_ns,
        completion_start_ns, model, provider, prompt_name, prompt_version, input_tokens, cached_input_tokens,
        cache_write_tokens, output_tokens, reasoning_tokens, total_tokens, usage_source, service_tier, service_name,
        scope_name, scope_version, sdk_name, sdk_version, source, input, output, exception_stacktrace,
    ],
    first: [start_ns, environment],
    earliest: [],
    replace: [usage, provided_cost, model_parameters, finish_reasons],
    by_key: [metadata, attributes],
    union: [tags],
    // An end before the start is the start (Langfuse clamps the same way).
    then: |row| if let (Some(start), Some(end)) = (row.start_ns, row.end_ns) { row.end_ns = Some(end.max(start)) }
}

fold! {
    /// Merges the facts of one trace.
    merge_trace, TraceFacts,
    last: [name, user_id, session_id, release, version, public, root_id, root_name, input, output],
    first: [environment],
    earliest: [timestamp_us],
    replace: [],
    by_key: [metadata],
    union: [tags],
    then: |_| {}
}

fold! {
    /// Merges the events of one score.
    merge_score, Score,
    last: [observation_id, session_id, value, string_value, source, comment, config_id],
    first: [trace_id, timestamp_us, environment],
    earliest: [],
    replace: [],
    by_key: [metadata],
    union: [],
    then: |_| {}
}
