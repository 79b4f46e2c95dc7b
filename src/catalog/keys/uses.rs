//! The day each key was last used, UTC: `system/keys-used/{public key}`, written over at most once a day by each process.

use std::collections::HashMap;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::base::Day;
use crate::catalog::system::{Result, SystemObjects};

const USED: &str = "keys-used";
/// Keys whose day is remembered. When full they are forgotten, which costs a write for each that is used again.
const KEYS_MAX: usize = 10_000;

/// What one process saw of keys being used.
#[derive(Debug, Default)]
pub(super) struct Uses(Mutex<HashMap<String, Use>>);

#[derive(Debug, Clone, Copy)]
struct Use {
    day: Day,
    is_written: bool,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Used {
    pub(super) public_key: String,
    /// Days since 1970-01-01.
    pub(super) day: i32,
}

impl Uses {
    /// Costs a look at memory; what is new is written by [`Uses::write`].
    pub(super) fn note(&self, public_key: &str, today: Day) {
        let mut uses = self.0.lock();
        match uses.get_mut(public_key) {
            Some(known) if known.day >= today => {}
            Some(known) => *known = Use { day: today, is_written: false },
            None => {
                if uses.len() >= KEYS_MAX {
                    uses.retain(|_, known| !known.is_written);
                    // A flood of keys used for the first time today: their use shows tomorrow.
                    if uses.len() >= KEYS_MAX {
                        return;
                    }
                }
                uses.insert(public_key.to_owned(), Use { day: today, is_written: false });
            }
        }
    }

    pub(super) async fn write(&self, objects: &SystemObjects, segment: impl Fn(&str) -> String) -> Result<()> {
        let new: Vec<(String, Day)> = {
            let uses = self.0.lock();
            uses.iter().filter(|(_, known)| !known.is_written).map(|(key, known)| (key.clone(), known.day)).collect()
        };
        for (public_key, day) in new {
            let name = segment(&public_key);
            objects.put(USED, &name, Used { public_key: public_key.clone(), day: day.days() }).await?;
            if let Some(known) = self.0.lock().get_mut(&public_key).filter(|known| known.day == day) {
                known.is_written = true;
            }
        }
        Ok(())
    }

    /// By public key. Lists.
    pub(super) async fn all(objects: &SystemObjects) -> Result<HashMap<String, Day>> {
        let used = objects.all::<Used>(USED).await?;
        Ok(used.into_iter().map(|used| (used.public_key, Day::from_days(used.day))).collect())
    }
}
