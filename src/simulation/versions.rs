//! Every version of every public table, as a reader from elsewhere sees it: each key at most once (I2), and rewrites
//! that keep what they read (I8).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::base::TenantId;
use crate::catalog::BatchKeys;
use crate::format::delta::{self, Action};
use crate::format::parquet;
use crate::model::tables::Table;
use crate::store::{self, Location, Store};

type Keys = Arc<Vec<String>>;

#[derive(Debug, Default)]
struct Versions {
    next: u64,
    live: BTreeMap<String, Keys>,
    times: HashMap<String, u32>,
    /// Rows declared gone so far.
    dropped: u64,
}

#[derive(Debug, Default)]
pub(super) struct PublicTables {
    by_table: HashMap<Table, Versions>,
}

impl PublicTables {
    /// Reads what was committed since the last look. An error says what is wrong in which version.
    pub(super) async fn look(&mut self, location: &Location, tenant: &TenantId) -> Result<(), String> {
        let store = Store::open_read_only(location.clone()).map_err(|error| error.to_string())?;
        for table in Table::ALL.into_iter().filter(|table| !table.key_columns().is_empty()) {
            let versions = self.by_table.entry(table).or_default();
            loop {
                let path = store::delta_log(tenant, table.name(), Some(versions.next));
                let Some(body) = store.get(&path).await.map_err(|error| error.to_string())? else { break };
                let actions = delta::decode_commit(&body).map_err(|error| error.to_string())?;
                versions.apply(&store, tenant, table, actions).await?;
                versions.next += 1;
            }
        }
        Ok(())
    }
}

impl Versions {
    async fn apply(
        &mut self,
        store: &Store,
        tenant: &TenantId,
        table: Table,
        actions: Vec<Action>,
    ) -> Result<(), String> {
        let at = format!("{} version {}", table.name(), self.next);
        let (mut before, mut after) = (BTreeSet::new(), BTreeSet::new());
        for action in &actions {
            let Action::Remove(remove) = action else { continue };
            let gone = self.live.remove(&remove.path).ok_or_else(|| format!("{at} removes {} twice", remove.path))?;
            for key in gone.iter() {
                *self.times.get_mut(key).expect("it was counted") -= 1;
            }
            before.extend(gone.iter().cloned());
        }
        for action in &actions {
            let Action::Add(add) = action else { continue };
            let keys = read_keys(store, tenant, table, &add.path).await?;
            for key in keys.iter() {
                *self.times.entry(key.clone()).or_default() += 1;
            }
            after.extend(keys.iter().cloned());
            self.live.insert(add.path.clone(), keys);
        }
        let dropped = actions.iter().find_map(|action| match action {
            Action::Txn(txn) if txn.app_id == "tracelake-dropped-rows" => Some(txn.version as u64),
            _ => None,
        });
        let declared = dropped.map_or(0, |dropped| dropped - self.dropped);
        self.dropped += declared;
        // A rewrite says nothing new, and what it leaves out it declares.
        let is = |name: &str| matches!(&actions[0], Action::CommitInfo(info) if info.operation == name);
        if is("OPTIMIZE") && (!after.is_subset(&before) || (before.len() - after.len()) as u64 != declared) {
            let new: Vec<_> = after.difference(&before).collect();
            let gone: Vec<_> = before.difference(&after).collect();
            return Err(format!("I8: {at} adds {new:?} and leaves out {gone:?}, and declares {declared} gone"));
        }
        match self.times.iter().find(|(_, times)| **times > 1) {
            Some((key, times)) => Err(format!("{at}: {key} stands {times} times")),
            None => Ok(()),
        }
    }
}

async fn read_keys(store: &Store, tenant: &TenantId, table: Table, path: &str) -> Result<Keys, String> {
    let root = store::table_root(tenant, table.name());
    let at = path.split('/').fold(root, |at, part| at.join(part));
    let body = store.get(&at).await.map_err(|error| error.to_string())?;
    let body = body.ok_or_else(|| format!("{path} is added and not in the store"))?;
    let day = store::day_of_data_file(path).ok_or_else(|| format!("{path} has no day"))?;
    let mut keys = Vec::new();
    for batch in parquet::read(table, body, day).map_err(|error| error.to_string())? {
        let batch_keys = BatchKeys::of(table, &batch);
        keys.extend((0..batch.num_rows()).map(|row| batch_keys.parts(row).join("/")));
    }
    Ok(Arc::new(keys))
}
