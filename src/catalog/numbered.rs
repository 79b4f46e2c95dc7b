//! Changes in one order for all processes: `system/{kind}/{number}`, one object for a change, created once. What holds is
//! known in memory; asking for the next number now and then finds the changes of others, at one request when there is none.

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Mutex;

use super::system::{Result, SystemObjects};

/// A change knows its number; they begin at 1 and have no gaps.
pub(super) trait Numbered: Clone + Serialize + DeserializeOwned {
    fn number(&self) -> u64;
}

/// How far one process knows the changes of a kind.
#[derive(Debug)]
pub(super) struct Changes {
    objects: SystemObjects,
    kind: &'static str,
    /// Held while changes are read or made.
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    is_loaded: bool,
    last: u64,
}

impl Changes {
    /// Knows of none.
    pub(super) fn new(objects: SystemObjects, kind: &'static str) -> Self {
        Self { objects, kind, known: Mutex::default() }
    }

    /// Makes the change of the next number, after all before it were learnt: durable and learnt on return.
    pub(super) async fn add<C: Numbered>(
        &self,
        make: impl Fn(u64) -> C,
        learn: impl Fn(C) -> Result<()>,
    ) -> Result<()> {
        let mut known = self.known.lock().await;
        self.load(&mut known, &learn).await?;
        loop {
            let change = make(known.last + 1);
            let theirs = self.objects.create(self.kind, &name(change.number()), change.clone()).await?;
            let is_ours = theirs.is_none();
            known.learn(theirs.unwrap_or(change), &learn)?;
            if is_ours {
                return Ok(());
            }
        }
    }

    /// Learns what others changed since. The first time all there is: one LIST, and a request for each change; later one
    /// request when there is nothing new.
    pub(super) async fn catch_up<C: Numbered>(&self, learn: impl Fn(C) -> Result<()>) -> Result<()> {
        let mut known = self.known.lock().await;
        self.load(&mut known, &learn).await?;
        while let Some(change) = self.objects.get(self.kind, &name(known.last + 1)).await? {
            known.learn(change, &learn)?;
        }
        Ok(())
    }

    /// As [`Changes::catch_up`], once: for those who answer one question and end.
    pub(super) async fn load_once<C: Numbered>(&self, learn: impl Fn(C) -> Result<()>) -> Result<()> {
        let mut known = self.known.lock().await;
        self.load(&mut known, &learn).await
    }

    async fn load<C: Numbered>(&self, known: &mut Known, learn: &impl Fn(C) -> Result<()>) -> Result<()> {
        if !known.is_loaded {
            for change in self.objects.all::<C>(self.kind).await? {
                known.learn(change, learn)?;
            }
            known.is_loaded = true;
        }
        Ok(())
    }
}

impl Known {
    /// What cannot be learnt is met again by the next look.
    fn learn<C: Numbered>(&mut self, change: C, learn: &impl Fn(C) -> Result<()>) -> Result<()> {
        let number = change.number();
        learn(change)?;
        self.last = self.last.max(number);
        Ok(())
    }
}

fn name(number: u64) -> String {
    format!("{number:020}")
}
