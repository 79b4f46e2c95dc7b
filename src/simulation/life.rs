//! The steps, drawn from a seed.

mod farewell;

use std::cell::Cell;
use std::sync::Arc;

use object_store::memory::InMemory;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tempfile::TempDir;

use super::checks;
use super::chores::{Chores, RETENTION_DAYS};
use super::client::Client;
use super::history::{Forgotten, Request};
use super::node::{Node, Worker};
use super::process::Process;
use super::said::START_US;
use super::time::Time;
use crate::base::{Day, Kind, TenantId};
use crate::catalog::erasures::ErasureKind;
use crate::catalog::retention::{Retention, Retentions};
use crate::catalog::system::SystemObjects;
use crate::catalog::tenants::Tenants;
use crate::doctor;
use crate::store::Location;

const STEPS: usize = 60;
/// All is made well after so many, and looked at.
const SETTLE_EVERY: usize = 20;
const WRITERS: [&str; 2] = ["node-1", "node-2"];
const WORKERS: usize = 2;

pub(super) struct Life {
    seed: u64,
    random: SmallRng,
    location: Location,
    _folder: Option<TempDir>,
    time: Time,
    nodes: [Option<Node>; 2],
    workers: [Option<Worker>; WORKERS],
    clients: [Client; 2],
    /// Somebody asks to be forgotten now and then.
    forgets: bool,
    /// What was done, for whoever reads a failure.
    story: Vec<String>,
    /// For how many files roll-ups stood when it was looked at them.
    rolled_up: Cell<u64>,
}

/// Somebody who does chores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Node(usize),
    Worker(usize),
}

impl Life {
    pub(super) fn new(seed: u64, forgets: bool) -> Self {
        let mut random = SmallRng::seed_from_u64(seed);
        // Folders fsync and have other replies to tell.
        let folder = random.random_bool(0.2).then(|| tempfile::tempdir().unwrap());
        let location = match &folder {
            Some(folder) => Location::Folder(folder.path().to_owned()),
            None => Location::Memory(Arc::new(InMemory::new())),
        };
        // The first says the most; the second has the same ids.
        let clients =
            [("acme", 0.3), ("zenith", 0.5)].map(|(voice, rule)| Client::new(voice, random.random_bool(rule)));
        let life = Self {
            seed,
            random,
            location,
            _folder: folder,
            time: Time::from(START_US),
            nodes: [None, None],
            workers: [None, None],
            clients,
            forgets,
            story: Vec::new(),
            rolled_up: Cell::default(),
        };
        life.found();
        life
    }

    /// Makes the tenants, and their rules.
    fn found(&self) {
        let (process, catalog) = Process::start(&self.location, &self.time, 0).unwrap();
        process.run_well(async {
            let objects = SystemObjects::new(catalog.store().clone(), self.time.clock());
            let (tenants, retentions) = (Tenants::new(objects.clone()), Retentions::new(objects));
            for client in &self.clients {
                tenants.create(&client.tenant).await.unwrap();
                if client.has_rule {
                    let rule = Retention { days: Some(RETENTION_DAYS), ..Default::default() };
                    retentions.set(&client.tenant, &rule).await.unwrap();
                }
            }
        });
    }

    /// For how many files roll-ups stood when it was looked at them.
    pub(super) fn run(mut self) -> u64 {
        for step in 0..STEPS {
            let spoke = usize::from(self.random.random_bool(0.3));
            self.step(spoke);
            self.look(spoke);
            if step % SETTLE_EVERY == SETTLE_EVERY - 1 {
                self.settle();
            }
        }
        if self.forgets {
            self.farewell();
        }
        self.rolled_up.get()
    }

    fn tell(&mut self, what: impl Into<String>) {
        self.story.push(what.into());
    }

    fn hold(&self, outcome: Result<(), String>) {
        if let Err(wrong) = outcome {
            panic!("seed {}: {wrong}\nafter:\n  {}", self.seed, self.story.join("\n  "));
        }
    }

    fn hold_that(&self, is_so: bool, otherwise: impl FnOnce() -> String) {
        self.hold(if is_so { Ok(()) } else { Err(otherwise()) });
    }

    /// One thing happens, and if it is said, by this client.
    fn step(&mut self, spoke: usize) {
        for at in 0..2 {
            if self.nodes[at].is_none() && self.random.random_bool(0.6) {
                self.start(at);
            }
        }
        let Some(at) = self.somebody() else { return self.start(0) };
        match self.random.random_range(0..100) {
            0..28 => {
                let request = self.speak(spoke);
                self.send(at, spoke, request);
            }
            28..40 if !self.clients[spoke].history.requests.is_empty() => {
                let again = self.random.random_range(0..self.clients[spoke].history.requests.len());
                self.send(at, spoke, again);
            }
            40..48 => self.flush(at),
            48..54 => self.flush_while_writing(at, spoke),
            54..58 => self.all_at_once(),
            58..61 => {
                self.tell(format!("{at} is killed"));
                self.nodes[at] = None;
            }
            61..66 => {
                let calls = self.random.random_range(1..40);
                self.tell(format!("{at} will end at its call {calls}"));
                self.node(at).process.end_after(calls);
                self.flush(at);
                let lives = self.nodes[at].as_ref().is_none_or(|node| node.process.is_spared());
                self.outcome(Who::Node(at), lives);
            }
            66..73 => {
                let by_us = match self.random.random_range(0..3) {
                    0 => self.random.random_range(1..120) * 60_000_000,
                    1 => self.random.random_range(1..48) * 3_600_000_000,
                    _ => self.random.random_range(1..40) * Day::US,
                };
                self.tell(format!("{} hours pass", by_us / 3_600_000_000));
                self.time.advance_us(by_us);
            }
            73..77 => {
                self.tell(format!("{at} looks after the logs"));
                let node = self.node(at);
                let looked = node.process.run(node.ingest.look_after_logs());
                self.outcome(Who::Node(at), looked.is_some());
            }
            77..80 if self.forgets => self.forget(at, spoke),
            77..80 => self.flush(at),
            80..96 => self.chore(at),
            _ => {
                let bad = self.random.random_bool(0.6);
                self.tell(format!("{at} has {} weather", if bad { "bad" } else { "good" }));
                self.node(at).process.set_bad_weather(bad);
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

    fn process(&self, who: Who) -> (&Process, &Chores) {
        match who {
            Who::Node(at) => (&self.node(at).process, &self.node(at).chores),
            Who::Worker(at) => {
                let worker = self.workers[at].as_ref().unwrap();
                (&worker.process, &worker.chores)
            }
        }
    }

    fn start(&mut self, at: usize) {
        self.tell(format!("{at} starts"));
        let seed = self.random.random();
        match Node::start(&self.location, &self.time, WRITERS[at], seed) {
            Ok(node) => self.nodes[at] = Some(node),
            Err(error) => self.hold(Err(format!("{at} does not start: {error}"))),
        }
        (0..2).for_each(|client| self.look(client));
    }

    /// A process that ended, or that another took the log of, is gone.
    fn outcome(&mut self, who: Who, lives: bool) {
        if !lives {
            self.tell(format!("{who:?} ended"));
            match who {
                Who::Node(at) => self.nodes[at] = None,
                Who::Worker(at) => self.workers[at] = None,
            }
        }
    }

    /// What nobody said before; the number of the request.
    fn speak(&mut self, spoke: usize) -> usize {
        let now_us = self.time.now_us();
        let client = &mut self.clients[spoke];
        let events = client.speaker.request(&mut self.random, now_us);
        let (first_sent_us, last_sent_us) = (now_us, now_us);
        let request = Request { events, acked: Default::default(), open: true, first_sent_us, last_sent_us };
        client.history.requests.push(request);
        client.history.requests.len() - 1
    }

    fn send(&mut self, at: usize, spoke: usize, request: usize) {
        let batch = self.clients[spoke].batch(request, self.time.now_us());
        let node = self.node(at);
        let sent = node.process.run(node.append(&self.clients[spoke].tenant, batch));
        self.sent(at, spoke, request, sent.map(|sent| sent.map_err(|error| error.kind())));
    }

    fn sent(&mut self, at: usize, spoke: usize, request: usize, sent: Option<Result<(), Kind>>) {
        self.tell(format!("{at} is sent request {request} of {}: {sent:?}", self.clients[spoke].tenant));
        let known = &mut self.clients[spoke].history.requests[request];
        match sent {
            Some(Ok(())) => {
                known.acked.insert(at);
                known.open = false;
            }
            _ => known.open = true,
        }
        self.outcome(Who::Node(at), !matches!(sent, None | Some(Err(Kind::Fenced))));
    }

    fn flush(&mut self, at: usize) {
        let all = self.random.random_bool(0.6);
        let node = self.node(at);
        let flushed = node.process.run(node.ingest.flush(all));
        self.tell(format!("{at} flushes{}: {:?}", if all { " all" } else { "" }, flushed.as_ref().map(Result::is_ok)));
        let lives = match flushed {
            Some(Ok(())) => true,
            Some(Err(error)) if matches!(error.kind(), Kind::Unavailable) => true,
            Some(Err(error)) if matches!(error.kind(), Kind::Fenced) => false,
            Some(Err(error)) => return self.hold(Err(format!("a flush of {at} fails: {error}"))),
            None => false,
        };
        self.outcome(Who::Node(at), lives);
    }

    /// Appends, merges and questions while a flush is under way.
    fn flush_while_writing(&mut self, at: usize, spoke: usize) {
        let new = self.speak(spoke);
        let again = self.random.random_range(0..self.clients[spoke].history.requests.len());
        let now_us = self.time.now_us();
        let batches = [new, again].map(|request| self.clients[spoke].batch(request, now_us));
        let all = self.random.random_bool(0.5);
        let (node, tenant) = (self.node(at), &self.clients[spoke].tenant);
        let done = node.process.run(async {
            let [one, other] = batches;
            let ask = async {
                let mut twice = Vec::new();
                for _ in 0..3 {
                    let statement = "SELECT trace_id, id, count(*) AS n, array_agg(name) AS names, array_agg(day) AS days, \
                         array_agg(ingested_at) AS came FROM observations GROUP BY 1, 2 HAVING count(*) > 1";
                    twice.extend(node.sql(tenant, statement).await.unwrap_or_default());
                }
                twice
            };
            let (flush, merge) = (node.ingest.flush(all), node.chores.merge());
            tokio::join!(node.append(tenant, one), node.append(tenant, other), flush, merge, ask)
        });
        self.tell(format!("{at} flushes and merges while it is written and asked"));
        match done {
            None => self.outcome(Who::Node(at), false),
            Some((one, other, _, merged, twice)) => {
                self.hold(twice.first().map_or(Ok(()), |row| Err(format!("I2: seen while flushing: {row}"))));
                self.hold(merged.map(drop));
                self.sent(at, spoke, new, Some(one.map_err(|error| error.kind())));
                if self.nodes[at].is_some() {
                    self.sent(at, spoke, again, Some(other.map_err(|error| error.kind())));
                }
            }
        }
    }

    /// Flushes of both, and merges by all workers, at the same moment.
    fn all_at_once(&mut self) {
        self.tell("all flush and merge at once");
        (0..WORKERS).for_each(|at| self.employ(at));
        let outcomes: Vec<Result<(), String>> = std::thread::scope(|scope| {
            for node in self.nodes.iter().flatten() {
                scope.spawn(|| node.process.run(node.ingest.flush(true)));
            }
            let merges: Vec<_> = self.workers.iter().flatten().collect();
            let merges: Vec<_> =
                merges.into_iter().map(|it| scope.spawn(|| it.process.run(it.chores.merge()))).collect();
            let merged = merges.into_iter().map(|merge| merge.join().unwrap());
            merged.map(|done| done.map_or(Ok(()), |done| done.map(drop))).collect()
        });
        outcomes.into_iter().for_each(|outcome| self.hold(outcome));
    }

    fn employ(&mut self, at: usize) {
        if self.workers[at].is_none() {
            let seed = self.random.random();
            self.workers[at] = Some(Worker::start(&self.location, &self.time, seed));
            let bad = self.random.random_bool(0.3);
            self.workers[at].as_ref().unwrap().process.set_bad_weather(bad);
        }
    }

    /// One of them does something of the upkeep, and may be killed at it.
    fn chore(&mut self, at: usize) {
        let who = match self.random.random_range(0..=WORKERS) {
            WORKERS => Who::Node(at),
            worker => {
                self.employ(worker);
                Who::Worker(worker)
            }
        };
        let ends = self.random.random_bool(0.25).then(|| self.random.random_range(1..60));
        if let Some(calls) = ends {
            self.tell(format!("{who:?} will end at its call {calls}"));
            self.process(who).0.end_after(calls);
        }
        let kind = self.random.random_range(0..10);
        let at_once = self.random.random_bool(0.5);
        self.do_chore(who, kind, at_once);
        let lives = match who {
            Who::Node(at) => self.nodes[at].is_some(),
            Who::Worker(at) => self.workers[at].is_some(),
        };
        if ends.is_some() && lives {
            let is_spared = self.process(who).0.is_spared();
            self.outcome(who, is_spared);
        }
    }

    fn do_chore(&mut self, who: Who, kind: u32, at_once: bool) {
        let tenants = self.clients.each_ref().map(|client| client.tenant.clone());
        let (process, chores) = self.process(who);
        let (what, done) = match kind {
            0..4 => ("merges", process.run(chores.merge()).map(|done| done.map(|done| format!("{done}")))),
            4..8 => {
                ("tidies up", process.run(tidy(chores, &tenants, at_once)).map(|done| done.map(|()| String::new())))
            }
            _ => ("erases", process.run(chores.erase()).map(|done| done.map(|left| format!("{left} are not done")))),
        };
        if matches!(kind, 4..8) {
            self.kept();
        }
        self.tell(format!("{who:?} {what}: {done:?}"));
        match done {
            None => self.outcome(who, false),
            Some(done) => self.hold(done.map(drop)),
        }
    }

    /// Retention was looked at.
    fn kept(&mut self) {
        let kept_from = Day::from_days(Day::of_us(self.time.now_us()).days() - RETENTION_DAYS as i32);
        for client in self.clients.iter_mut().filter(|client| client.has_rule) {
            client.history.kept_from = client.history.kept_from.max(Some(kept_from));
        }
    }

    /// Somebody or something is to be forgotten. All who live hear of it, as they do within two seconds.
    fn forget(&mut self, at: usize, spoke: usize) {
        let (kind, id) = self.clients[spoke].speaker.somebody(&mut self.random);
        self.forget_this(at, spoke, kind, id);
    }

    fn forget_this(&mut self, at: usize, spoke: usize, kind: ErasureKind, id: String) {
        let (node, tenant) = (self.node(at), &self.clients[spoke].tenant);
        let bad = node.process.set_bad_weather(false);
        let asked = node.process.run(node.forget(tenant, kind, &id));
        node.process.set_bad_weather(bad);
        let told = asked.as_ref().map(|asked| asked.as_ref().map_err(ToString::to_string));
        let told = format!("{at} forgets {kind} {id:?} of {tenant}: {told:?}");
        self.tell(told);
        match asked {
            Some(Ok(())) => {}
            Some(Err(error)) if error.kind() == Kind::Fenced => self.outcome(Who::Node(at), false),
            Some(Err(error)) => return self.hold(Err(format!("it is not forgotten: {error}"))),
            None => self.outcome(Who::Node(at), false),
        }
        self.pass_a_moment();
        self.hear_of_erasures();
        let asked_us = self.time.now_us();
        self.clients[spoke].history.forgotten.push(Forgotten { kind, id, asked_us });
    }

    fn hear_of_erasures(&mut self) {
        for at in 0..2 {
            let Some(node) = &self.nodes[at] else { continue };
            match node.process.run_well(node.ingest.look_for_erasures()) {
                Ok(()) => {}
                Err(error) if error.kind() == Kind::Fenced => self.outcome(Who::Node(at), false),
                Err(error) => self.hold(Err(format!("{at} does not forget: {error}"))),
            }
        }
    }

    /// What others did may be seen that much later.
    fn pass_a_moment(&self) {
        self.time.advance_us(2_000_000);
    }

    /// What holds at any moment: of the public tables of both, since files go hours after they left their table; and of
    /// one tenant's answers.
    fn look(&mut self, spoke: usize) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        for at in 0..2 {
            let client = &mut self.clients[at];
            if client.is_deleted {
                continue;
            }
            let versions = runtime.block_on(client.public.look(&self.location, &client.tenant));
            let tenant = client.tenant.clone();
            self.hold(versions.map_err(|wrong| format!("{tenant}: {wrong}")));
        }
        let client = &self.clients[spoke];
        for at in (0..2).filter(|_| !client.is_deleted) {
            if let Some(node) = &self.nodes[at] {
                let held = checks::own_acks(node, client, at);
                self.hold(held.map_err(|wrong| format!("node {at}, {}: {wrong}", client.tenant)));
            }
        }
    }

    /// All is well again: everything ever said is sent until it is acked, and must be readable everywhere.
    fn settle(&mut self) {
        self.tell("all is well again");
        self.nodes = [None, None];
        self.workers = [None, None];
        let flush_first = self.random.random_bool(0.5);
        (0..2).for_each(|at| self.start(at));
        for spoke in (0..2).filter(|spoke| !self.clients[*spoke].is_deleted).collect::<Vec<_>>() {
            let requests = self.clients[spoke].history.requests.len();
            for request in (0..requests).filter(|at| self.clients[spoke].history.requests[*at].open).collect::<Vec<_>>()
            {
                let at = self.random.random_range(0..2);
                self.send(at, spoke, request);
                if self.nodes[at].is_none() || self.clients[spoke].history.requests[request].open {
                    self.hold(Err(format!("request {request} is not acked in good weather")));
                }
            }
        }
        if !flush_first {
            (0..2).for_each(|client| self.look(client));
        }
        for at in 0..2 {
            self.flush(at);
            let node = self.node(at);
            let flushed = node.process.run(node.ingest.flush(true));
            self.hold(flushed.unwrap().map_err(|error| error.to_string()));
        }
        self.pass_a_moment();
        (0..2).for_each(|client| self.look(client));
        let who = Who::Node(self.random.random_range(0..2));
        for kind in [0, 4, 9] {
            self.do_chore(who, kind, true);
            (0..2).for_each(|client| self.look(client));
        }
        // Whoever starts now has seen all commits; others see them within two seconds.
        for at in 0..2 {
            self.nodes[at] = None;
            self.start(at);
            for client in self.clients.iter().filter(|client| !client.is_deleted) {
                let settled = checks::all(self.node(at), client).and_then(|rolled_up| {
                    self.rolled_up.update(|before| before + rolled_up);
                    match client.history.kept_from {
                        Some(kept_from) => checks::retention(self.node(at), client, kept_from),
                        None => Ok(()),
                    }
                });
                self.hold(settled.map_err(|wrong| format!("node {at}, {}, settled: {wrong}", client.tenant)));
            }
        }
        self.examine();
    }

    /// The doctor finds nothing wrong.
    fn examine(&self) {
        let (process, catalog) = Process::start(&self.location, &self.time, 0).unwrap();
        let examined =
            process.run_well(doctor::examine(catalog.store().clone(), self.time.clock(), Default::default()));
        let examined = examined.map_err(|error| format!("the doctor cannot look: {error}"));
        self.hold(examined.and_then(|found| match found.is_healthy() {
            true => Ok(()),
            false => Err(format!("the doctor says:\n{found}")),
        }));
    }
}

async fn tidy(chores: &Chores, tenants: &[TenantId], at_once: bool) -> Result<(), String> {
    for tenant in tenants {
        chores.tidy(tenant, at_once).await?;
    }
    Ok(())
}
