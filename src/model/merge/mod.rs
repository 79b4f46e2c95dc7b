//! The merge rules (I3; `langfuse-wire` §1a): events of one id, sorted by [`Order`], fold into one row.
//!
//! Folding a sorted set makes the result independent of the order of arrival. Per field:
//! *last said wins* for scalars (absent keeps the old), *first said wins* for what places a row (start time,
//! environment), the earliest for a trace's timestamp, union for tags and sensitive kinds, by key for metadata and attributes, whole-map
//! replacement for usage (with the counts that are read off it), cost and model parameters. Metadata merges deeply:
//! where both values are JSON objects, their keys merge too. What is said to be nothing is nothing from then on.
//!
//! A merged row splits again into the events that decided its fields, so that events which arrive after it was written
//! merge with it as if they had come in time: `merge(split(merge(A)) ∪ B) = merge(A ∪ B)`. What cannot be known again:
//! * which event said which key of a map: all of it goes to the last one that said any. A late event that lies between
//!   two such events loses the keys that they said, though the first of them alone may have said them;
//! * an end that was moved to its start stays there, even if an earlier start arrives;
//! * the id of an event that decided a row alone: a late event of the very same time comes after it.

mod deep;
mod provenance;

use std::collections::BTreeMap;

use provenance::{Decided, Deciders};

use super::{Observation, Order, ReadError, Score, TraceFacts};

/// A row and, where that cannot be told from the row itself, which event decided what.
#[derive(Debug, Clone, PartialEq)]
pub struct Merged<T> {
    pub row: T,
    /// The `_merge` column. `None`: one event decided all, and its order is the row's [`Merge::order_of_one`].
    pub provenance: Option<Vec<u8>>,
}

/// What events of one id can be merged into, and split into again.
pub trait Merge: Sized {
    /// `events` must be sorted by order and not empty.
    fn merge(events: &[(&Order, &Self)]) -> Merged<Self>;

    /// What [`Merge::merge`] makes of one event, without a copy.
    fn alone(order: &Order, event: Self) -> Merged<Self>;

    /// The order of the event that made this row alone, unless its provenance says another.
    fn order_of_one(&self) -> Order;

    /// The events that decided this row, each with what it decided; sorted by order. A row without provenance is one
    /// event of the order `order_of_one`.
    fn split(self, provenance: Option<&[u8]>, order_of_one: &Order) -> Result<Vec<(Order, Self)>, ReadError>;

    /// The fields that events said, as bits; `None` where the provenance does not tell.
    fn said(provenance: Option<&[u8]>) -> Result<Option<u64>, ReadError>;
}

/// Generates the rules of one struct. The number before a field is its bit in the provenance: a contract, never used
/// twice, so a new field takes the next free one.
macro_rules! fold {
    (
        $row:ident, $bits:ident, $merge:ident, $split:ident,
        ids: [$($id:ident),*],
        last_event: [$($always_bit:literal: $($always:ident),*)?],
        last: [$($last_bit:literal $last:ident),* $(,)?],
        first: [$($first_bit:literal $first:ident),* $(,)?],
        earliest: [$($earliest_bit:literal $earliest:ident),* $(,)?],
        replace: [$($replace_bit:literal $replace:ident),* $(,)?],
        together: $is_told:expr => [$($together_bit:literal $together:ident),* $(,)?],
        by_key: [$($by_key_bit:literal $by_key:ident),* $(,)?],
        union: [$($union_bit:literal $union:ident),* $(,)?],
        order_of_one: $order_of_one:expr,
        is_ambiguous: $is_ambiguous:expr,
        then: $then:expr
    ) => {
        impl Merge for $row {
            fn merge(events: &[(&Order, &Self)]) -> Merged<Self> {
                debug_assert!(events.windows(2).all(|pair| pair[0].0 <= pair[1].0), "I3: events are sorted");
                let mut row = events[0].1.clone();
                let mut deciders = Deciders::new(events.iter().map(|(order, _)| *order).collect());
                let is_told: fn(&Self) -> bool = $is_told;
                for (at, (_, event)) in events.iter().enumerate() {
                    $(
                        $( if at > 0 { row.$always.clone_from(&event.$always); } )*
                        if !deciders.is_again(at, $always_bit) { deciders.decide(at, $always_bit); }
                    )?
                    $(
                        if event.$last.is_some() {
                            if !(deciders.is_again(at, $last_bit) && row.$last == event.$last) {
                                if at > 0 { row.$last = event.$last.clone(); }
                                deciders.decide(at, $last_bit);
                            }
                        } else if event.cleared & 1 << $last_bit != 0 {
                            row.$last = None;
                            deciders.clear(at, $last_bit);
                        }
                    )*
                    // One told after another replaces it whole: what it does not say is not said any more.
                    let replaces = at > 0 && is_told(event);
                    $(
                        if event.$together.is_some() {
                            if !(deciders.is_again(at, $together_bit) && row.$together == event.$together) {
                                if at > 0 { row.$together = event.$together.clone(); }
                                deciders.decide(at, $together_bit);
                            }
                        } else if replaces {
                            row.$together = None;
                            deciders.forget($together_bit);
                        }
                    )*
                    let _ = replaces;
                    $(
                        if event.$first.is_some() && (at == 0 || row.$first.is_none()) {
                            row.$first = event.$first.clone();
                            deciders.decide(at, $first_bit);
                        }
                    )*
                    $(
                        if event.$earliest.is_some_and(|said| at == 0 || row.$earliest.is_none_or(|kept| said < kept)) {
                            row.$earliest = event.$earliest;
                            deciders.decide(at, $earliest_bit);
                        }
                    )*
                    $(
                        if !event.$replace.is_empty()
                            && !(deciders.is_again(at, $replace_bit) && row.$replace == event.$replace)
                        {
                            if at > 0 { row.$replace = event.$replace.clone(); }
                            deciders.decide(at, $replace_bit);
                        }
                    )*
                    $(
                        if !event.$by_key.is_empty() {
                            let changed = at == 0 || merge_keys(&mut row.$by_key, &event.$by_key);
                            if changed || !deciders.is_again(at, $by_key_bit) {
                                deciders.decide(at, $by_key_bit);
                            }
                        }
                    )*
                    $(
                        if !event.$union.is_empty()
                            && !(deciders.is_again(at, $union_bit) && holds_all(&row.$union, &event.$union))
                        {
                            if at > 0 { row.$union.extend(event.$union.iter().cloned()); }
                            deciders.decide(at, $union_bit);
                        }
                    )*
                }
                row.tidy();
                row.cleared = deciders.cleared();
                let provenance = deciders.encode(|order| row.is_plain(order));
                Merged { row, provenance }
            }

            fn alone(order: &Order, mut event: Self) -> Merged<Self> {
                event.tidy();
                let mut fields = event.cleared;
                $( fields |= 1 << $always_bit; )?
                $( if event.$together.is_some() { fields |= 1 << $together_bit; } )*
                $( if event.$last.is_some() { fields |= 1 << $last_bit; } )*
                $( if event.$first.is_some() { fields |= 1 << $first_bit; } )*
                $( if event.$earliest.is_some() { fields |= 1 << $earliest_bit; } )*
                $( if !event.$replace.is_empty() { fields |= 1 << $replace_bit; } )*
                $( if !event.$by_key.is_empty() { fields |= 1 << $by_key_bit; } )*
                $( if !event.$union.is_empty() { fields |= 1 << $union_bit; } )*
                let decided = Decided { order: order.clone(), fields, cleared: event.cleared };
                let provenance = provenance::of_one(decided, |order| event.is_plain(order));
                Merged { row: event, provenance }
            }

            fn order_of_one(&self) -> Order {
                let time_us: fn(&Self) -> Option<i64> = $order_of_one;
                Order { event_time_us: time_us(self).unwrap_or(0), ..Order::default() }
            }

            fn split(mut self, provenance: Option<&[u8]>, order_of_one: &Order) -> Result<Vec<(Order, Self)>, ReadError> {
                let Some(provenance) = provenance else { return Ok(vec![(order_of_one.clone(), self)]) };
                let decided = provenance::decode(provenance, $bits::ALL)?;
                let part = |one: &Decided| Self {
                    $($id: self.$id.clone(),)*
                    $($($always: self.$always.clone(),)*)?
                    cleared: one.cleared,
                    ..Self::default()
                };
                let mut parts: Vec<Self> = decided.iter().map(part).collect();
                // What no event claims must not be lost: anything said later goes before it.
                let decider = |bit: u32| decided.iter().rposition(|one| one.fields & 1 << bit != 0).unwrap_or(0);
                $( parts[decider($together_bit)].$together = self.$together.take(); )*
                $( parts[decider($last_bit)].$last = self.$last.take(); )*
                $( parts[decider($first_bit)].$first = self.$first.take(); )*
                $( parts[decider($earliest_bit)].$earliest = self.$earliest.take(); )*
                $( parts[decider($replace_bit)].$replace = std::mem::take(&mut self.$replace); )*
                $( parts[decider($by_key_bit)].$by_key = std::mem::take(&mut self.$by_key); )*
                $( parts[decider($union_bit)].$union = std::mem::take(&mut self.$union); )*
                Ok(decided.into_iter().map(|one| one.order).zip(parts).collect())
            }

            fn said(provenance: Option<&[u8]>) -> Result<Option<u64>, ReadError> {
                let Some(provenance) = provenance else { return Ok(None) };
                let decided = provenance::decode(provenance, $bits::ALL)?;
                Ok(Some(decided.iter().fold(0, |all, one| all | (one.fields & !one.cleared))))
            }
        }

        impl $row {
            /// What holds of a row whatever its events said.
            fn tidy(&mut self) {
                $( self.$union.sort_unstable(); self.$union.dedup(); )*
                let then: fn(&mut Self) = $then;
                then(self);
            }

            /// A row of one event with this order needs no provenance.
            fn is_plain(&self, order: &Order) -> bool {
                let is_ambiguous: fn(&Self) -> bool = $is_ambiguous;
                !order.is_update
                    && order.event_time_us == self.order_of_one().event_time_us
                    && self.cleared == 0
                    && !is_ambiguous(self)
            }
        }

        /// The bit of each field in the provenance.
        #[allow(dead_code, non_upper_case_globals, reason = "named as the fields are; few are asked for by name")]
        pub(crate) mod $bits {
            $( pub(crate) const $last: u64 = 1 << $last_bit; )*
            $( pub(in crate::model) const $together: u64 = 1 << $together_bit; )*
            $( pub(in crate::model) const $first: u64 = 1 << $first_bit; )*
            $( pub(in crate::model) const $earliest: u64 = 1 << $earliest_bit; )*
            $( pub(in crate::model) const $replace: u64 = 1 << $replace_bit; )*
            $( pub(in crate::model) const $by_key: u64 = 1 << $by_key_bit; )*
            $( pub(in crate::model) const $union: u64 = 1 << $union_bit; )*
            pub(in crate::model) const ALL: u64 = {
                let bits = [
                    $(1 << $always_bit,)?
                    $($last,)* $($together,)* $($first,)* $($earliest,)* $($replace,)* $($by_key,)* $($union,)*
                ];
                let (mut all, mut at) = (0, 0);
                while at < bits.len() {
                    assert!(all & bits[at] == 0, "no bit is used twice");
                    all |= bits[at];
                    at += 1;
                }
                all
            };
        }

        #[doc = concat!("[`Merge::merge`] of [`", stringify!($row), "`]s.")]
        pub fn $merge(events: &[(&Order, &$row)]) -> Merged<$row> {
            $row::merge(events)
        }

        #[doc = concat!("[`Merge::split`] of a [`", stringify!($row), "`].")]
        pub fn $split(
            row: $row,
            provenance: Option<&[u8]>,
            order_of_one: &Order,
        ) -> Result<Vec<(Order, $row)>, ReadError> {
            row.split(provenance, order_of_one)
        }
    };
}

fold! {
    Observation, observation_bits, merge_observation, split_observation,
    ids: [trace_id, id],
    last_event: [],
    last: [
        0 parent_id, 1 root_mark, 2 observation_type, 3 operation, 4 name, 5 trace_name, 6 user_id, 7 session_id,
        8 agent_id, 9 agent_name, 10 tool_name, 11 release, 12 version, 13 level, 14 status, 15 error_type,
        16 status_message, 17 response_id, 18 end_ns, 19 completion_start_ns, 20 model, 21 provider, 22 prompt_name,
        23 prompt_version, 31 service_tier, 32 service_name, 33 scope_name,
        34 scope_version, 35 sdk_name, 36 sdk_version, 37 source, 38 input, 39 output, 40 exception_stacktrace,
    ],
    first: [41 start_ns, 42 environment],
    earliest: [],
    replace: [43 usage, 44 provided_cost, 45 model_parameters, 46 finish_reasons, 51 tools_offered, 52 tools_called],
    together: |event| !event.usage.is_empty() => [
        24 input_tokens, 25 cached_input_tokens, 26 cache_write_tokens, 27 output_tokens, 28 reasoning_tokens,
        29 total_tokens, 30 usage_source,
    ],
    by_key: [47 metadata, 48 attributes],
    union: [49 tags, 50 sensitive_kinds],
    order_of_one: |row| row.end_ns.or(row.start_ns).map(|ns| ns.div_euclid(1000)),
    // The table says in `_own` what a row says itself.
    is_ambiguous: |_| false,
    // An end before the start is the start (Langfuse clamps the same way).
    then: |row| if let (Some(start), Some(end)) = (row.start_ns, row.end_ns) { row.end_ns = Some(end.max(start)) }
}

fold! {
    TraceFacts, trace_bits, merge_trace, split_trace,
    ids: [trace_id],
    last_event: [],
    last: [
        0 name, 1 user_id, 2 session_id, 3 release, 4 version, 5 public, 6 root_id, 7 root_name, 8 input, 9 output,
    ],
    first: [10 environment],
    earliest: [11 timestamp_us],
    replace: [],
    together: |_| false => [],
    by_key: [12 metadata, 14 attributes],
    union: [13 tags, 15 sensitive_kinds],
    order_of_one: |row| row.timestamp_us,
    // The table shows these words where nothing was said, too.
    is_ambiguous: |row| {
        let is_roots_name = row.name.is_some() && row.name == row.root_name;
        is_roots_name || row.environment.as_deref() == Some("default") || row.public == Some(false)
    },
    then: |_| {}
}

fold! {
    Score, score_bits, merge_score, split_score,
    ids: [id],
    last_event: [11: name, data_type],
    last: [
        0 observation_id, 1 session_id, 4 source, 5 comment, 6 config_id, 12 dataset_run_id, 13 queue_id,
        14 execution_trace_id,
    ],
    first: [7 trace_id, 8 timestamp_us, 9 environment],
    earliest: [],
    replace: [],
    together: |event| event.value.is_some() || event.string_value.is_some() => [2 value, 3 string_value],
    by_key: [10 metadata],
    union: [15 sensitive_kinds],
    order_of_one: |row| row.timestamp_us,
    is_ambiguous: |row| row.environment.as_deref() == Some("default") || row.source.as_deref() == Some("API"),
    then: |_| {}
}

/// Whether anything changed.
fn merge_keys(row: &mut BTreeMap<String, String>, said: &BTreeMap<String, String>) -> bool {
    let mut changed = false;
    for (key, value) in said {
        changed |= match row.get_mut(key) {
            Some(before) => deep::merge(before, value),
            None => row.insert(key.clone(), value.clone()).is_none(),
        };
    }
    changed
}

fn holds_all(all: &[String], some: &[String]) -> bool {
    let all: std::collections::HashSet<&String> = all.iter().collect();
    some.iter().all(|one| all.contains(one))
}

#[cfg(test)]
mod tests;
