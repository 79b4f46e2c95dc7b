//! A tenant is deleted with all that it said, while senders do not stop and the other tenant goes on. It ends when no
//! copy is left, and nothing of the other is touched.

use super::*;
use crate::catalog::Catalog;
use crate::model::tables::Table;
use crate::store;

/// Things that happen between the deletion and the last look.
const STEPS_AFTER: usize = 12;
/// Rounds of the upkeep, some hours apart, until every copy is gone.
const ROUNDS_MAX: usize = 40;
const HOURS_BETWEEN_US: i64 = 3 * 3_600_000_000;

impl Life {
    pub(super) fn farewell(&mut self) {
        let gone = self.random.random_range(0..2);
        self.delete(gone);
        for _ in 0..STEPS_AFTER {
            if self.random.random_bool(0.4) && self.nodes[0].is_some() {
                let request = self.speak(gone);
                self.send(0, gone, request);
            }
            self.step(1 - gone);
            self.look(1 - gone);
        }
        self.settle();
        self.erase_all();
        self.nothing_is_left_of(gone);
    }

    /// Asked until somebody answers: whoever is asked may end in the middle of it.
    fn delete(&mut self, gone: usize) {
        let tenant = self.clients[gone].tenant.clone();
        self.clients[gone].is_deleted = true;
        loop {
            let Some(at) = self.somebody() else {
                self.start(0);
                continue;
            };
            let node = self.node(at);
            node.process.set_bad_weather(false);
            if self.random.random_bool(0.5) {
                let calls = self.random.random_range(1..25);
                self.node(at).process.end_after(calls);
            }
            let node = self.node(at);
            let asked = node.process.run(async {
                let objects = SystemObjects::new(node.store().clone(), self.time.clock());
                Tenants::new(objects).delete(&tenant).await.map_err(|error| error.to_string())?;
                node.forget(&tenant, ErasureKind::Tenant, tenant.as_str()).await.map_err(|error| error.to_string())
            });
            self.tell(format!("{at} deletes {tenant}: {asked:?}"));
            let is_spared = self.nodes[at].as_ref().is_some_and(|node| node.process.is_spared());
            self.outcome(Who::Node(at), is_spared && asked.as_ref().is_some_and(Result::is_ok));
            if asked.is_some_and(|asked| asked.is_ok()) {
                break;
            }
        }
        self.pass_a_moment();
        self.hear_of_erasures();
    }

    /// Logs are looked after, and copies let go, until no erasure is open.
    fn erase_all(&mut self) {
        for _ in 0..ROUNDS_MAX {
            let mut open = 0;
            for at in 0..2 {
                let node = self.node(at);
                let looked: Result<usize, String> = node.process.run_well(async {
                    node.ingest.flush(true).await.map_err(|error| error.to_string())?;
                    node.ingest.look_after_logs().await.map_err(|error| error.to_string())?;
                    node.chores.erase().await
                });
                match looked {
                    Ok(left) => open = left,
                    Err(wrong) => self.hold(Err(wrong)),
                }
            }
            if open == 0 {
                return self.tell("all that was to be erased is");
            }
            self.tell(format!("{open} erasures are open"));
            self.time.advance_us(HOURS_BETWEEN_US);
        }
        let (process, catalog) = Process::start(&self.location, &self.time, 0).unwrap();
        let left = process.run_well(async {
            let open = catalog.erasures().catch_up().await.map(|()| catalog.erasures().after(0)).unwrap_or_default();
            let mut states = Vec::new();
            for erasure in open {
                let state = catalog.erasures().state(&erasure).await.map(|(state, _)| state);
                states.push(format!("{} {:?}: {state:?}", erasure.tenant, erasure.subjects));
            }
            states.push(names(&catalog, &store::logs()).await.join(" "));
            for client in self.clients.iter().filter(|client| client.is_deleted) {
                states.push(names(&catalog, &store::tenant_root(&client.tenant)).await.join(" "));
            }
            states.join("\n  ")
        });
        self.hold(Err(format!("erasures are open after {ROUNDS_MAX} rounds:\n  {left}")));
    }

    fn nothing_is_left_of(&mut self, gone: usize) {
        // Others may know a table as it was a second ago.
        for at in 0..2 {
            self.nodes[at] = None;
            self.start(at);
        }
        let (deleted, other) = (&self.clients[gone], &self.clients[1 - gone]);
        let (process, catalog) = Process::start(&self.location, &self.time, 0).unwrap();
        let left = process.run_well(names(&catalog, &store::tenant_root(&deleted.tenant)));
        self.hold_that(left.is_empty(), || format!("{} is deleted, and there are {left:?}", deleted.tenant));
        for node in self.nodes.iter().flatten() {
            for table in Table::ALL {
                let rows = node.answer(&deleted.tenant, &format!("SELECT count(*) AS n FROM {}", table.name()));
                self.hold_that(rows[0]["n"] == 0, || format!("{} of a deleted tenant: {rows:?}", table.name()));
            }
            let held = checks::all(node, other);
            self.hold(held.map(drop).map_err(|wrong| format!("{}, after the other went: {wrong}", other.tenant)));
        }
        self.examine();
    }
}

/// What the store holds below `root`.
async fn names(catalog: &Catalog, root: &store::Path) -> Vec<String> {
    let found = catalog.store().list(root, None).await.unwrap();
    found.into_iter().map(|object| object.location.to_string()).collect()
}
