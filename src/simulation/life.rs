//! The steps, drawn from a seed.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::sync::Arc;

use object_store::memory::InMemory;
use tempfile::TempDir;

use super::checks;
use super::history::{History, Request};
use super::node::Node;
use super::said::{START_US, Speaker};
use super::versions::PublicTables;
use crate::base::{Clock, Day, Kind, ManualClock};
use crate::model::{EventBatch, EventKind};
use crate::store::Location;

const STEPS: usize = 40;
const WRITERS: [&str; 2] = ["node-1", "node-2"];

pub(super) struct Life {
    seed: u64,
    random: SmallRng,
    location: Location,
    _folder: Option<TempDir>,
    clock: ManualClock,
    nodes: [Option<Node>; 2],
    speaker: Speaker,
    history: History,
    public: PublicTables,
    /// What was done, for whoever reads a failure.
    story: Vec<String>,
}

impl Life {
    pub(super) fn new(seed: u64) -> Self {
        let mut random = SmallRng::seed_from_u64(seed);
        // Folders fsync and have other replies to tell.
        let folder = random.random_bool(0.2).then(|| tempfile::tempdir().unwrap());
        let location = match &folder {
            Some(folder) => Location::Folder(folder.path().to_owned()),
            None => Location::Memory(Arc::new(InMemory::new())),
        };
        Self {
            seed,
            random,
            location,
            _folder: folder,
            clock: ManualClock::at(START_US),
            nodes: [None, None],
            speaker: Speaker::default(),
            history: History::default(),
            public: PublicTables::default(),
            story: Vec::new(),
        }
    }

    pub(super) fn run(mut self) {
        for step in 0..STEPS {
            self.step();
            self.look();
            if step % 20 == 19 {
                self.settle();
            }
        }
    }

    fn tell(&mut self, what: impl Into<String>) {
        self.story.push(what.into());
    }

    fn hold(&self, outcome: Result<(), String>) {
        if let Err(wrong) = outcome {
            panic!("seed {}: {wrong}\nafter:\n  {}", self.seed, self.story.join("\n  "));
        }
    }

    /// One thing happens.
    fn step(&mut self) {
        for at in 0..2 {
            if self.nodes[at].is_none() && self.random.random_bool(0.6) {
                self.start(at);
            }
        }
        let Some(at) = self.somebody() else { return self.start(0) };
        match self.random.random_range(0..100) {
            0..35 => {
                let events = self.speaker.request(&mut self.random, self.clock.now_us());
                self.history.requests.push(Request { events, acked: Default::default(), open: true });
                self.send(at, self.history.requests.len() - 1);
            }
            35..50 if !self.history.requests.is_empty() => {
                let again = self.random.random_range(0..self.history.requests.len());
                self.send(at, again);
            }
            50..60 => self.flush(at),
            60..66 => self.flush_while_writing(at),
            66..72 => self.flush_everywhere(),
            72..77 => {
                self.tell(format!("{at} is killed"));
                self.nodes[at] = None;
            }
            77..85 => {
                let calls = self.random.random_range(1..40);
                self.tell(format!("{at} will end at its call {calls}"));
                self.node(at).end_after(calls);
                self.flush(at);
                let lives = self.nodes[at].as_ref().is_none_or(Node::is_spared);
                self.outcome(at, lives);
            }
            85..90 => {
                let by_us = match self.random.random_range(0..3) {
                    0 => self.random.random_range(1..120) * 60_000_000,
                    1 => self.random.random_range(1..48) * 3_600_000_000,
                    _ => self.random.random_range(1..40) * Day::US,
                };
                self.tell(format!("{} hours pass", by_us / 3_600_000_000));
                self.clock.advance_us(by_us);
            }
            90..96 => {
                self.tell(format!("{at} looks after the logs"));
                let node = self.node(at);
                let looked = node.run(node.ingest.look_after_logs());
                self.outcome(at, looked.map(|_| ()).is_some());
            }
            _ => {
                let bad = self.random.random_bool(0.6);
                self.tell(format!("{at} has {} weather", if bad { "bad" } else { "good" }));
                self.node(at).set_bad_weather(bad);
            }
        }
    }

    fn somebody(&mut self) -> Option<usize> {
        let alive: Vec<usize> = (0..2).filter(|at| self.nodes[*at].is_some()).collect();
        (!alive.is_empty()).then(|| alive[self.random.random_range(0..alive.len())])
    }

    fn node(&self, at: usize) -> &Node {
        self.nodes[at].as_ref().unwrap()
    }

    fn start(&mut self, at: usize) {
        self.tell(format!("{at} starts"));
        let seed = self.random.random();
        match Node::start(&self.location, &self.clock, WRITERS[at], seed) {
            Ok(node) => self.nodes[at] = Some(node),
            Err(error) => self.hold(Err(format!("{at} does not start: {error}"))),
        }
        self.look();
    }

    /// A process that ended, or that another took the log of, is gone.
    fn outcome(&mut self, at: usize, lives: bool) {
        if !lives {
            self.tell(format!("{at} ended"));
            self.nodes[at] = None;
        }
    }

    fn batch(&self, request: usize) -> EventBatch {
        let events = self.history.requests[request].events.clone();
        let counted = events.iter().filter(|event| !matches!(event.kind, Some(EventKind::Trace(_)))).count();
        EventBatch { door: "test".into(), events, received: counted as u64, ..Default::default() }
    }

    fn send(&mut self, at: usize, request: usize) {
        let batch = self.batch(request);
        let node = self.node(at);
        let sent = node.run(node.append(batch));
        self.sent(at, request, sent.map(|sent| sent.map_err(|error| error.kind())));
    }

    fn sent(&mut self, at: usize, request: usize, sent: Option<Result<(), Kind>>) {
        self.tell(format!("{at} is sent request {request}: {sent:?}"));
        let known = &mut self.history.requests[request];
        match sent {
            Some(Ok(())) => {
                known.acked.insert(at);
                known.open = false;
            }
            _ => known.open = true,
        }
        self.outcome(at, !matches!(sent, None | Some(Err(Kind::Fenced))));
    }

    fn flush(&mut self, at: usize) {
        let all = self.random.random_bool(0.6);
        let node = self.node(at);
        let flushed = node.run(node.ingest.flush(all));
        self.tell(format!("{at} flushes{}: {:?}", if all { " all" } else { "" }, flushed.as_ref().map(Result::is_ok)));
        let lives = match flushed {
            Some(Ok(())) => true,
            Some(Err(error)) if matches!(error.kind(), Kind::Unavailable) => true,
            Some(Err(error)) if matches!(error.kind(), Kind::Fenced) => false,
            Some(Err(error)) => return self.hold(Err(format!("a flush of {at} fails: {error}"))),
            None => false,
        };
        self.outcome(at, lives);
    }

    /// Appends and questions while a flush is under way.
    fn flush_while_writing(&mut self, at: usize) {
        let events = self.speaker.request(&mut self.random, self.clock.now_us());
        self.history.requests.push(Request { events, acked: Default::default(), open: true });
        let new = self.history.requests.len() - 1;
        let again = self.random.random_range(0..self.history.requests.len());
        let batches = [self.batch(new), self.batch(again)];
        let all = self.random.random_bool(0.5);
        let node = self.node(at);
        let done = node.run(async {
            let [one, other] = batches;
            let ask = async {
                let mut twice = Vec::new();
                for _ in 0..3 {
                    let statement = "SELECT trace_id, id, count(*) AS n, array_agg(name) AS names, array_agg(day) AS days, \
                         array_agg(ingested_at) AS came FROM observations GROUP BY 1, 2 HAVING count(*) > 1";
                    twice.extend(node.sql(statement).await.unwrap_or_default());
                }
                twice
            };
            let flush = node.ingest.flush(all);
            tokio::join!(node.append(one), node.append(other), flush, ask)
        });
        self.tell(format!("{at} flushes while it is written and asked"));
        match done {
            None => self.outcome(at, false),
            Some((one, other, _, twice)) => {
                self.hold(twice.first().map_or(Ok(()), |row| Err(format!("I2: seen while flushing: {row}"))));
                self.sent(at, new, Some(one.map_err(|error| error.kind())));
                if self.nodes[at].is_some() {
                    self.sent(at, again, Some(other.map_err(|error| error.kind())));
                }
            }
        }
    }

    /// Both at the same moment.
    fn flush_everywhere(&mut self) {
        self.tell("all flush at once");
        std::thread::scope(|scope| {
            for node in self.nodes.iter().flatten() {
                scope.spawn(|| node.run(node.ingest.flush(true)));
            }
        });
    }

    /// What holds at any moment.
    fn look(&mut self) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let versions = runtime.block_on(self.public.look(&self.location));
        self.hold(versions);
        for at in 0..2 {
            if let Some(node) = &self.nodes[at] {
                self.hold(checks::own_acks(node, &self.history, at).map_err(|wrong| format!("node {at}: {wrong}")));
            }
        }
    }

    /// All is well again: everything ever said is sent until it is acked, and must be readable everywhere.
    fn settle(&mut self) {
        self.tell("all is well again");
        for at in 0..2 {
            self.nodes[at] = None;
        }
        let flush_first = self.random.random_bool(0.5);
        for at in 0..2 {
            self.start(at);
        }
        let open: Vec<usize> = (0..self.history.requests.len()).filter(|at| self.history.requests[*at].open).collect();
        for request in open {
            let at = self.random.random_range(0..2);
            self.send(at, request);
            if self.nodes[at].is_none() || self.history.requests[request].open {
                self.hold(Err(format!("request {request} is not acked in good weather")));
            }
        }
        if !flush_first {
            self.look();
        }
        for at in 0..2 {
            self.flush(at);
            let node = self.node(at);
            let flushed = node.run(node.ingest.flush(true));
            self.hold(flushed.unwrap().map_err(|error| error.to_string()));
        }
        self.look();
        // Whoever starts now has seen all commits; others see them within two seconds.
        for at in 0..2 {
            self.nodes[at] = None;
            self.start(at);
            self.hold(
                checks::all(self.node(at), &self.history).map_err(|wrong| format!("node {at}, settled: {wrong}")),
            );
        }
    }
}
