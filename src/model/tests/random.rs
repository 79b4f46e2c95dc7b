//! Random events: few values, so that they agree and contradict each other often.

use std::collections::BTreeMap;

use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use crate::model::{Observation, Order, Score, TraceFacts, observation_bits, score_bits, trace_bits};

pub(crate) struct Random(SmallRng);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(SmallRng::seed_from_u64(seed))
    }

    pub(crate) fn chance(&mut self, percent: u32) -> bool {
        self.0.random_range(0..100) < percent
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0.random_range(0..limit)
    }

    pub(crate) fn shuffle<T>(&mut self, things: &mut [T]) {
        things.shuffle(&mut self.0);
    }

    fn text(&mut self, percent: u32) -> Option<String> {
        self.chance(percent).then(|| ["a", "b", "c", ""][self.below(4)].to_owned())
    }

    fn number(&mut self, percent: u32) -> Option<i64> {
        self.chance(percent).then(|| self.0.random_range(0..5))
    }

    fn environment(&mut self) -> Option<String> {
        self.chance(40).then(|| ["default", "production"][self.below(2)].to_owned())
    }

    fn texts(&mut self) -> BTreeMap<String, String> {
        let keys = ["tenant_id", "my_project_id", "flow_id", "k"];
        let some = if self.chance(30) { self.below(keys.len()) } else { 0 };
        (0..some).map(|_| (keys[self.below(keys.len())].to_owned(), self.text(100).unwrap())).collect()
    }

    fn longs(&mut self) -> BTreeMap<String, i64> {
        let some = if self.chance(30) { self.below(3) } else { 0 };
        (0..some).map(|_| (["input", "output", "total"][self.below(3)].to_owned(), self.below(4) as i64)).collect()
    }

    pub(crate) fn tags(&mut self) -> Vec<String> {
        let some = if self.chance(30) { self.below(3) } else { 0 };
        let mut tags: Vec<String> = (0..some).map(|_| self.text(100).unwrap()).collect();
        tags.sort_unstable();
        tags.dedup();
        tags
    }

    /// Nanoseconds: mostly small, sometimes with every digit, sometimes before 1970.
    fn start_ns(&mut self) -> i64 {
        match self.below(4) {
            0 => -1_234_567,
            1 => 1_700_000_000_123_456_789,
            _ => self.0.random_range(0..9) * 1000,
        }
    }

    /// Never before any start, up to 13 days (or 30 years) after the latest.
    fn end_ns(&mut self) -> i64 {
        let latest_start_ns = 1_700_000_000_123_456_789;
        let after_ns: i64 = if self.chance(20) { 1_000_000_000_000_000_000 } else { 1_234_567_890_123_456 };
        latest_start_ns + self.0.random_range(0..after_ns)
    }

    /// Some of `fields` said to be nothing.
    fn cleared(&mut self, fields: &[u64]) -> u64 {
        fields.iter().filter(|_| self.chance(15)).fold(0, |all, bit| all | bit)
    }

    pub(crate) fn observation(&mut self) -> Observation {
        use observation_bits as bits;
        let cleared = self.cleared(&[bits::name, bits::end_ns, bits::model, bits::level, bits::prompt_name]);
        let unless = |bit: u64| cleared & bit == 0;
        let said = self.observation_saying_all();
        Observation {
            cleared,
            name: said.name.filter(|_| unless(bits::name)),
            end_ns: said.end_ns.filter(|_| unless(bits::end_ns)),
            model: said.model.filter(|_| unless(bits::model)),
            level: said.level.filter(|_| unless(bits::level)),
            prompt_name: said.prompt_name.filter(|_| unless(bits::prompt_name)),
            ..said
        }
    }

    fn observation_saying_all(&mut self) -> Observation {
        let usage = self.longs();
        // Nobody says that it was counted, or repeats what it does not say.
        let sources: &[i32] = if usage.is_empty() { &[0, 1] } else { &[0, 1, 3] };
        Observation {
            cleared: 0,
            sensitive_kinds: self.tags(),
            trace_id: "t".into(),
            id: "o".into(),
            parent_id: self.text(30),
            root_mark: self.chance(20).then(|| self.chance(50)),
            observation_type: self.number(30).map(|n| n as i32),
            operation: self.text(20),
            name: self.text(40),
            trace_name: self.text(20),
            user_id: self.text(20),
            session_id: self.text(20),
            agent_id: self.text(20),
            agent_name: self.text(20),
            tool_name: self.text(20),
            environment: self.environment(),
            release: self.text(20),
            version: self.text(20),
            tags: self.tags(),
            level: self.number(30).map(|n| n as i32 % 4),
            status: self.number(30).map(|n| n as i32 % 3),
            error_type: self.text(20),
            status_message: self.text(20),
            finish_reasons: self.tags(),
            tools_offered: self.tags(),
            tools_called: self.tags(),
            response_id: self.text(20),
            start_ns: self.chance(50).then(|| self.start_ns()),
            end_ns: self.chance(50).then(|| self.end_ns()),
            completion_start_ns: self.chance(30).then(|| self.start_ns() + 77),
            model: self.text(20),
            provider: self.text(20),
            model_parameters: self.texts(),
            prompt_name: self.text(20),
            prompt_version: self.number(20),
            usage,
            input_tokens: self.number(20),
            cached_input_tokens: self.number(20),
            cache_write_tokens: self.number(20),
            output_tokens: self.number(20),
            reasoning_tokens: self.number(20),
            total_tokens: self.number(20),
            usage_source: self.number(30).map(|n| sources[n as usize % sources.len()]),
            provided_cost: self.longs(),
            service_tier: self.text(20),
            metadata: self.texts(),
            service_name: self.text(20),
            scope_name: self.text(20),
            scope_version: self.text(20),
            sdk_name: self.text(20),
            sdk_version: self.text(20),
            source: self.text(20),
            input: self.text(20),
            output: self.text(20),
            exception_stacktrace: self.text(20),
            attributes: self.texts(),
        }
    }

    pub(crate) fn facts(&mut self) -> TraceFacts {
        use trace_bits as bits;
        let cleared = self.cleared(&[bits::name, bits::user_id, bits::session_id, bits::release, bits::root_name]);
        let unless = |bit: u64| cleared & bit == 0;
        let said = self.facts_saying_all();
        TraceFacts {
            cleared,
            name: said.name.filter(|_| unless(bits::name)),
            user_id: said.user_id.filter(|_| unless(bits::user_id)),
            session_id: said.session_id.filter(|_| unless(bits::session_id)),
            release: said.release.filter(|_| unless(bits::release)),
            root_name: said.root_name.filter(|_| unless(bits::root_name)),
            ..said
        }
    }

    fn facts_saying_all(&mut self) -> TraceFacts {
        TraceFacts {
            cleared: 0,
            sensitive_kinds: self.tags(),
            attributes: self.texts(),
            trace_id: "t".into(),
            timestamp_us: self.number(50),
            name: self.text(30),
            user_id: self.text(30),
            session_id: self.text(30),
            tags: self.tags(),
            release: self.text(30),
            version: self.text(30),
            environment: self.environment(),
            public: self.chance(30).then(|| self.chance(50)),
            metadata: self.texts(),
            root_id: self.chance(30).then(|| ["o", "p"][self.below(2)].to_owned()),
            root_name: self.text(30),
            input: self.text(20),
            output: self.text(20),
        }
    }

    pub(crate) fn score(&mut self) -> Score {
        use score_bits as bits;
        let cleared = self.cleared(&[bits::comment, bits::config_id, bits::source]);
        let unless = |bit: u64| cleared & bit == 0;
        let said = self.score_saying_all();
        Score {
            cleared,
            comment: said.comment.filter(|_| unless(bits::comment)),
            config_id: said.config_id.filter(|_| unless(bits::config_id)),
            source: said.source.filter(|_| unless(bits::source)),
            ..said
        }
    }

    fn score_saying_all(&mut self) -> Score {
        Score {
            cleared: 0,
            sensitive_kinds: self.tags(),
            dataset_run_id: self.text(30),
            queue_id: self.text(30),
            execution_trace_id: self.text(30),
            id: "s".into(),
            trace_id: self.text(30),
            observation_id: self.text(30),
            session_id: self.text(30),
            name: self.text(100).unwrap(),
            data_type: self.below(4) as i32,
            value: self.number(30).map(|n| n as f64),
            string_value: self.text(30),
            source: self.chance(40).then(|| ["API", "EVAL"][self.below(2)].to_owned()),
            comment: self.text(30),
            config_id: self.text(30),
            environment: self.environment(),
            timestamp_us: self.number(50),
            metadata: self.texts(),
        }
    }

    /// Up to seven events, sorted, no two of one time; the times are near those that rows have, and an event's time is
    /// often its row's own.
    pub(crate) fn events<T>(&mut self, event: fn(&mut Self) -> T, own_time_us: fn(&T) -> i64) -> Vec<(Order, T)> {
        let count = 1 + self.below(7);
        let mut events: Vec<(Order, T)> = (0..count)
            .map(|at| {
                let event = event(self);
                let event_time_us = if self.chance(50) { own_time_us(&event) } else { self.below(9) as i64 };
                (Order { event_time_us, is_update: self.chance(30), event_id: format!("e{at}") }, event)
            })
            .collect();
        events.sort_by(|a, b| a.0.cmp(&b.0));
        events.dedup_by_key(|(order, _)| (order.event_time_us, order.is_update));
        events
    }
}
