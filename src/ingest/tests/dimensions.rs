//! Which metadata keys name the tenant's own customers, projects and flows: each tenant's own, and changed while it runs.

use super::late::{facts, order};
use super::*;

fn span_of(id: &str, metadata: &[(&str, &str)]) -> Event {
    let Event { order, kind } = span("t", id, None);
    let Some(EventKind::Observation(mut said)) = kind else { unreachable!("a span") };
    said.metadata = metadata.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
    Event { order, kind: Some(EventKind::Observation(said)) }
}

impl Process {
    fn set_account(&self, tenant: &str, key: &str) {
        let keys = DimensionKeys { account: key.into(), ..Default::default() };
        self.run(self.catalog.dimensions().set(&tenant.parse().unwrap(), keys, "test")).unwrap();
    }

    fn accounts(&self, tenant: &str) -> Vec<Option<String>> {
        self.column(tenant, Table::Observations, "account")
    }
}

fn some(values: &[&str]) -> Vec<Option<String>> {
    values.iter().map(|value| Some(value.to_string())).collect()
}

#[test]
fn rows_take_their_account_from_the_tenants_own_key_fresh_flushed_and_replayed() {
    let world = World::new();
    let process = Process::start(&world, "main");
    let said = || span_of("a", &[("tenant_id", "by default"), ("customer", "by its own key")]);
    for tenant in ["acme", "other"] {
        process.append(tenant, vec![said()]).unwrap();
    }
    assert_eq!(process.accounts("acme"), some(&["by default"]), "a query before");
    process.set_account("acme", "customer");
    assert_eq!(process.accounts("acme"), some(&["by its own key"]), "rows that are in no file yet follow at once");
    assert_eq!(process.accounts("other"), some(&["by default"]), "nobody else's do");
    drop(process);
    let process = Process::start(&world, "main");
    assert_eq!(process.accounts("acme"), some(&["by its own key"]), "replayed");
    process.flush().unwrap();
    assert_eq!(process.accounts("acme"), some(&["by its own key"]), "flushed");
    process.set_account("acme", "tenant_id");
    process.append("acme", vec![span_of("b", &[("tenant_id", "the second")])]).unwrap();
    assert_eq!(process.accounts("acme"), some(&["by its own key", "the second"]), "what is in files stays as it is");
}

#[test]
fn an_account_that_is_said_of_the_trace_an_hour_later_reaches_rows_in_files() {
    let world = World::new();
    let process = Process::start(&world, "main");
    process.set_account("acme", "*customer");
    process.append("acme", vec![span_of("a", &[])]).unwrap();
    process.flush().unwrap();
    let late = facts("t", order(5, false, "late"), |said| {
        said.metadata = [("our_customer".to_owned(), "initech".to_owned())].into();
    });
    process.append("acme", vec![late]).unwrap();
    assert_eq!(process.accounts("acme"), some(&["initech"]), "fresh");
    process.flush().unwrap();
    assert_eq!(process.accounts("acme"), some(&["initech"]), "late");
    let idle = Process::start(&world, "other");
    assert_eq!(idle.accounts("acme"), some(&["initech"]), "by a process that holds nothing of the tenant");
}
