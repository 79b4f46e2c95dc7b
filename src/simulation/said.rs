//! What clients say: spans whole or split in two, facts of traces, scores; in any order, about days near and far.

use rand::Rng;
use rand::rngs::SmallRng;

use crate::base::{Day, TimestampUs};
use crate::catalog::erasures::ErasureKind;
use crate::model::{
    Event, EventKind, Observation, ObservationType, Order, Score, ScoreDataType, TraceFacts, UsageSource,
};

pub(super) const START_US: TimestampUs = 1_790_000_000_000_000;

/// People who are spoken of, and sessions: few, so that much is about each.
const PEOPLE: u32 = 6;

/// One tenant's clients. All speakers use the same ids; what they say of them begins with their voice (I5).
#[derive(Debug)]
pub(super) struct Speaker {
    pub(super) voice: &'static str,
    said: u64,
    traces: u64,
    observations: u64,
    scores: u64,
    /// The second halves of split spans, to be sent some time after the first.
    halves: Vec<Event>,
}

impl Speaker {
    pub(super) fn new(voice: &'static str) -> Self {
        Self { voice, said: 0, traces: 0, observations: 0, scores: 0, halves: Vec::new() }
    }

    /// Something that may be spoken of: a trace, a person or a session.
    pub(super) fn somebody(&mut self, random: &mut SmallRng) -> (ErasureKind, String) {
        match random.random_range(0..4) {
            0 | 1 => (ErasureKind::Trace, self.trace(random)),
            2 => (ErasureKind::User, self.person("user", random)),
            _ => (ErasureKind::Session, self.person("session", random)),
        }
    }

    fn person(&self, what: &str, random: &mut SmallRng) -> String {
        format!("{} {what} {}", self.voice, random.random_range(0..PEOPLE))
    }

    fn says(&self, what: &str) -> String {
        format!("{} {what} {}", self.voice, self.said)
    }

    /// The events of one request that nobody has said before.
    pub(super) fn request(&mut self, random: &mut SmallRng, now_us: TimestampUs) -> Vec<Event> {
        let mut events = Vec::new();
        for _ in 0..random.random_range(1..4) {
            match random.random_range(0..20) {
                0..8 => events.push(self.whole(random, now_us)),
                8..12 => {
                    let halves = self.halves(random, now_us);
                    let first = random.random_range(0..2);
                    for (at, half) in halves.into_iter().enumerate() {
                        if at == first {
                            events.push(half)
                        } else {
                            self.halves.push(half)
                        };
                    }
                }
                12..15 if !self.halves.is_empty() => {
                    let at = random.random_range(0..self.halves.len());
                    events.push(self.halves.swap_remove(at));
                }
                15..19 => events.push(self.facts(random, now_us)),
                _ => events.push(self.score(random, now_us)),
            }
        }
        events
    }

    fn trace(&mut self, random: &mut SmallRng) -> String {
        if self.traces == 0 || random.random_range(0..4) == 0 {
            self.traces += 1;
        }
        // Mostly one of the last few.
        let back = if random.random_range(0..4) == 0 { self.traces } else { self.traces.min(4) };
        format!("t{}", self.traces - random.random_range(0..back))
    }

    fn order(&mut self, random: &mut SmallRng, is_update: bool) -> Order {
        self.said += 1;
        // Clocks of senders differ: what is said later may have happened before. No two at the same time.
        let event_time_us = START_US + random.random_range(0..1000) * 1_000_000 + self.said as i64;
        Order { event_time_us, is_update, event_id: format!("e{}", self.said) }
    }

    fn observation(&mut self, random: &mut SmallRng) -> Observation {
        self.observations += 1;
        Observation {
            trace_id: self.trace(random),
            // The same id in another trace is another observation.
            id: format!("o{}", self.observations / 2 * 2 + u64::from(random.random_bool(0.8))),
            ..Default::default()
        }
    }

    fn whole(&mut self, random: &mut SmallRng, now_us: TimestampUs) -> Event {
        let mut said = self.observation(random);
        self.said += 1;
        said.id = format!("{}-w{}", said.id, self.said);
        said.start_ns = start_ns(random, now_us);
        said.end_ns = said.start_ns.map(|ns| ns + random.random_range(0..100) * 1_000_000);
        said.name = Some(self.says("name"));
        said.parent_id = random.random_bool(0.5).then(|| "o1".to_owned());
        said.user_id = random.random_bool(0.1).then(|| self.person("user", random));
        said.tags = some_tags(random);
        price(&mut said, random);
        if random.random_bool(0.5) {
            said.input = Some(self.says("input"));
        }
        let event_time_us = said.end_ns.map_or(START_US + self.said as i64, |ns| ns / 1000);
        let order = Order { event_time_us, is_update: false, event_id: format!("w{}", self.said) };
        Event { order, kind: Some(EventKind::Observation(said)) }
    }

    /// A create and its update, which may say it all, or the half.
    fn halves(&mut self, random: &mut SmallRng, now_us: TimestampUs) -> [Event; 2] {
        let base = self.observation(random);
        let id = format!("{}-h{}", base.id, self.said);
        let start_ns = start_ns(random, now_us);
        let (create, update) = (self.order(random, false), self.order(random, true));
        let says_start = random.random_range(0..4);
        let mut first = Observation {
            trace_id: base.trace_id.clone(),
            id: id.clone(),
            start_ns: start_ns.filter(|_| says_start > 0),
            name: Some(self.says("created")),
            observation_type: Some(ObservationType::Generation as i32),
            tags: some_tags(random),
            input: random.random_bool(0.5).then(|| self.says("input")),
            metadata: [(format!("c{}", self.said), "create".to_owned())].into(),
            ..Default::default()
        };
        price(&mut first, random);
        let mut second = Observation {
            trace_id: base.trace_id,
            id,
            start_ns: start_ns.filter(|_| says_start < 2),
            end_ns: start_ns.filter(|_| random.random_bool(0.8)).map(|ns| ns + lasts_ns(random)),
            name: random.random_bool(0.5).then(|| self.says("updated")),
            output: random.random_bool(0.5).then(|| self.says("output")),
            tags: some_tags(random),
            metadata: [(format!("u{}", self.said), "update".to_owned())].into(),
            ..Default::default()
        };
        if random.random_bool(0.5) {
            price(&mut second, random);
        }
        let event = |order, said| Event { order, kind: Some(EventKind::Observation(said)) };
        [event(create, first), event(update, second)]
    }

    fn facts(&mut self, random: &mut SmallRng, now_us: TimestampUs) -> Event {
        let order = self.order(random, false);
        let mut facts = TraceFacts { timestamp_us: start_ns(random, now_us).map(|ns| ns / 1000), ..Default::default() };
        facts.name = random.random_bool(0.5).then(|| self.says("trace"));
        facts.user_id = random.random_bool(0.5).then(|| self.person("user", random));
        facts.session_id = random.random_bool(0.3).then(|| self.person("session", random));
        facts.tags = some_tags(random);
        facts.metadata = [(format!("f{}", self.said), "fact".to_owned())].into();
        facts.input = random.random_bool(0.3).then(|| self.says("input"));
        facts.output = random.random_bool(0.3).then(|| self.says("output"));
        facts.root_id = random.random_bool(0.3).then(|| "o1".to_owned());
        facts.trace_id = self.trace(random);
        Event { order, kind: Some(EventKind::Trace(facts)) }
    }

    fn score(&mut self, random: &mut SmallRng, now_us: TimestampUs) -> Event {
        let order = self.order(random, false);
        if self.scores == 0 || random.random_bool(0.5) {
            self.scores += 1;
        }
        let score = Score {
            id: format!("s{}", random.random_range(0..self.scores) + 1),
            name: "right".to_owned(),
            data_type: ScoreDataType::Numeric as i32,
            value: random.random_bool(0.8).then(|| random.random_range(0..10) as f64),
            comment: random.random_bool(0.5).then(|| self.says("comment")),
            timestamp_us: start_ns(random, now_us).map(|ns| ns / 1000),
            ..Default::default()
        };
        Event { order, kind: Some(EventKind::Score(score)) }
    }
}

/// Mostly a moment; or days.
fn lasts_ns(random: &mut SmallRng) -> i64 {
    match random.random_range(0..10) {
        0 => random.random_range(0..15) * Day::US * 1000,
        _ => random.random_range(0..100) * 1_000_000,
    }
}

fn some_tags(random: &mut SmallRng) -> Vec<String> {
    ["a", "b", "c"].into_iter().filter(|_| random.random_range(0..6) == 0).map(str::to_owned).collect()
}

fn price(said: &mut Observation, random: &mut SmallRng) {
    match random.random_range(0..4) {
        0 => said.provided_cost = [("input".to_owned(), random.random_range(1..9_000_000_000))].into(),
        1 | 2 => {
            said.model = Some("gpt-4o-mini".to_owned());
            said.input_tokens = Some(random.random_range(0..5000));
            said.output_tokens = Some(random.random_range(0..500));
            said.usage_source = Some(UsageSource::Provided as i32);
        }
        _ => {}
    }
}

/// Now, mostly; or days and months ago, days ahead, at the beginning of time, or not said.
fn start_ns(random: &mut SmallRng, now_us: TimestampUs) -> Option<i64> {
    let at_us = match random.random_range(0..20) {
        0 => return None,
        1 => random.random_range(1..1_000_000),
        2 => now_us + random.random_range(0..20) * Day::US,
        3..6 => now_us - random.random_range(0..200) * Day::US,
        _ => now_us - random.random_range(0..7_200) * 1_000_000,
    };
    Some(at_us * 1000)
}
