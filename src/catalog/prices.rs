//! Price books: `system/prices/{tenant}/{number}`, of which the highest number holds; create-only, so that every row can
//! be priced again by the version it was stamped with. `system/prices-shipped/{version}` keeps the books that programs
//! came with, for the programs after them.
//!
//! Which book holds now is known in memory. Every change is announced as `system/price-changes/{number}`; asking for the
//! next number now and then finds the changes of others, at one request when there is none.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;
use serde::{Deserialize, Serialize};

use super::system::{Result, SystemError, SystemObjects};
use crate::base::{TenantId, TimestampUs};
use crate::price::{BookText, PriceBook, Prices, Tier, split_version};

const OWN: &str = "prices";
const SHIPPED: &str = "prices-shipped";
const CHANGES: &str = "price-changes";
/// Older versions kept in memory, for rows that wait and logs that are replayed. When full all are forgotten.
const OLDER_MAX: usize = 256;
/// Others who change the same tenant's prices at the same time, and are first.
const RACES_MAX: usize = 100;

/// The price books of a store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct PriceBooks(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    objects: SystemObjects,
    known: RwLock<Known>,
    /// Rows flushed here that name a model and have no cost.
    unpriced: AtomicU64,
    /// Held while changes are read or made.
    moving: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Known {
    is_loaded: bool,
    /// The number of the next change; `None` before anybody looked.
    next: Option<u64>,
    /// Tenants with a book of their own, by its number.
    current: HashMap<TenantId, (u64, Arc<Prices>)>,
    shipped: HashMap<String, Arc<PriceBook>>,
    older: HashMap<(TenantId, String), Arc<Prices>>,
}

/// One version of a tenant's own book.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct OwnBook {
    tenant: String,
    number: u64,
    made_us: TimestampUs,
    /// The public key that made it, or `command line`.
    made_by: String,
    book: BookText,
}

#[derive(Debug, Serialize, Deserialize)]
struct ShippedBook {
    book: BookText,
}

#[derive(Debug, Serialize, Deserialize)]
struct PriceChange {
    tenant: String,
    number: u64,
}

impl PriceBooks {
    /// Knows of no tenant's own book before it caught up.
    pub fn new(objects: SystemObjects) -> Self {
        Self(Arc::new(Inner {
            objects,
            known: RwLock::default(),
            unpriced: AtomicU64::new(0),
            moving: tokio::sync::Mutex::default(),
        }))
    }

    /// Rows of some tenant were flushed here that name a model and have no cost.
    pub fn count_unpriced(&self, rows: u64) {
        self.0.unpriced.fetch_add(rows, Ordering::Relaxed);
    }

    /// How many there were since this process began, of all tenants.
    pub fn unpriced(&self) -> u64 {
        self.0.unpriced.load(Ordering::Relaxed)
    }

    /// What the tenant's rows are priced by from now on. No request.
    pub fn current(&self, tenant: &TenantId) -> Arc<Prices> {
        let known = self.0.known.read();
        known.current.get(tenant).map_or_else(Prices::built_in, |(_, prices)| Arc::clone(prices))
    }

    /// The prices that a stamp names, for ever the same. An error if the store holds no such book.
    pub async fn at(&self, tenant: &TenantId, version: &str) -> Result<Arc<Prices>> {
        if let Some(known) = self.known_at(tenant, version) {
            return Ok(known);
        }
        let (shipped, own) = split_version(version);
        let shipped = self.shipped(shipped).await?;
        let own = match own {
            None => None,
            Some(label) => {
                let missing = || SystemError::PricesMissing { tenant: tenant.to_string(), version: version.to_owned() };
                let number = number_of(label).ok_or_else(missing)?;
                let own = self.own(tenant, number).await?.ok_or_else(missing)?;
                Some(Arc::new(PriceBook::own_again(own.book)?))
            }
        };
        let prices = Arc::new(Prices::new(shipped, own));
        let older = &mut self.0.known.write().older;
        if older.len() >= OLDER_MAX {
            older.clear();
        }
        older.insert((tenant.clone(), version.to_owned()), Arc::clone(&prices));
        Ok(prices)
    }

    /// The same for several stamps, by version.
    pub async fn at_each(
        &self,
        tenant: &TenantId,
        versions: impl IntoIterator<Item = &str>,
    ) -> Result<BTreeMap<String, Arc<Prices>>> {
        let versions: BTreeSet<&str> = versions.into_iter().collect();
        let mut prices = BTreeMap::new();
        for version in versions {
            prices.insert(version.to_owned(), self.at(tenant, version).await?);
        }
        Ok(prices)
    }

    /// What a row of this tenant was priced by, by the id it has; `None`: the store has no such book or price.
    pub async fn tier_of(&self, tenant: &TenantId, price_id: &str) -> Result<Option<Tier>> {
        let version = price_id.split('/').next().unwrap_or_default();
        let book = match number_of(version) {
            Some(number) => self.at_number(tenant, number).await.map(|prices| prices.own().cloned()),
            None => self.shipped(version).await.map(Some),
        };
        match book {
            Ok(book) => Ok(book.and_then(|book| book.tier_of(price_id).cloned())),
            Err(SystemError::PricesMissing { .. } | SystemError::ShippedPricesMissing(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Keeps the book of this program in the store, for the programs after it. Lists.
    pub async fn publish(&self) -> Result<()> {
        let book = PriceBook::built_in_text();
        if self.0.objects.names(SHIPPED).await?.contains(&book.version) {
            return Ok(());
        }
        let version = book.version.clone();
        self.0.objects.create(SHIPPED, &version, ShippedBook { book }).await.map(drop)
    }

    /// Learns what others changed since. The first time all there is: two LISTs, and a request for each tenant with a
    /// book of its own; later one request when there is nothing new.
    pub async fn catch_up(&self) -> Result<()> {
        let _moving = self.0.moving.lock().await;
        let mut next = self.next().await?;
        if !self.0.known.read().is_loaded {
            // After the number was read: what changes meanwhile is announced at it or later.
            for own in self.0.objects.newest_of_each::<OwnBook>(OWN).await?.into_values() {
                self.learn(own)?;
            }
            self.0.known.write().is_loaded = true;
        }
        while let Some(change) = self.0.objects.get::<PriceChange>(CHANGES, &name(next)).await? {
            let tenant: TenantId = change.tenant.parse()?;
            let is_news = self.0.known.read().current.get(&tenant).is_none_or(|(known, _)| *known < change.number);
            if is_news && let Some(own) = self.own(&tenant, change.number).await? {
                self.learn(own)?;
            }
            next += 1;
            self.0.known.write().next = Some(next);
        }
        Ok(())
    }

    /// What holds now, read from the store. Lists: for those who do not follow the changes.
    pub async fn newest_of(&self, tenant: &TenantId) -> Result<Arc<Prices>> {
        let newest = self.newest(tenant).await?;
        self.at_number(tenant, newest.map_or(0, |own| own.number)).await
    }

    pub fn now_us(&self) -> TimestampUs {
        self.0.objects.now_us()
    }

    /// The tenant's own book as it is written down; without models if it has none. Lists.
    pub async fn own_text(&self, tenant: &TenantId) -> Result<BookText> {
        let newest = self.newest(tenant).await?;
        Ok(newest.map_or_else(|| BookText::empty(label(0)), |own| own.book))
    }

    /// Changes the tenant's own book: durable and in force here on return, elsewhere within 10 seconds. Nothing is
    /// written if `change` changes nothing or fails, or the book would not be sound.
    pub async fn change(
        &self,
        tenant: &TenantId,
        made_by: &str,
        change: impl Fn(&mut BookText) -> Result<()>,
    ) -> Result<Arc<Prices>> {
        let _moving = self.0.moving.lock().await;
        for _ in 0..RACES_MAX {
            let newest = self.newest(tenant).await?;
            let number = newest.as_ref().map_or(0, |own| own.number) + 1;
            let before = newest.map_or_else(|| BookText::empty(label(0)), |own| own.book);
            let mut book = before.clone();
            change(&mut book)?;
            if book == before {
                return self.at_number(tenant, number - 1).await;
            }
            book.version = label(number);
            // Refused before it stands in the store for ever.
            PriceBook::own(book.clone())?;
            let (made_us, made_by) = (self.0.objects.now_us(), made_by.to_owned());
            let own = OwnBook { tenant: tenant.to_string(), number, made_us, made_by, book };
            if self.0.objects.create(&folder(tenant), &name(number), own.clone()).await?.is_none() {
                let prices = self.learn(own)?;
                self.announce(tenant, number).await?;
                return Ok(prices);
            }
        }
        Err(SystemError::Invalid("others keep changing these prices: try again".to_owned()))
    }

    async fn announce(&self, tenant: &TenantId, number: u64) -> Result<()> {
        let mut next = self.next().await?;
        let change = || PriceChange { tenant: tenant.to_string(), number };
        // What stands at a number taken by another is read by the next round: the number known stays below it.
        while self.0.objects.create(CHANGES, &name(next), change()).await?.is_some() {
            next += 1;
        }
        Ok(())
    }

    async fn next(&self) -> Result<u64> {
        if let Some(next) = self.0.known.read().next {
            return Ok(next);
        }
        let names = self.0.objects.names(CHANGES).await?;
        let next = names.iter().filter_map(|name| name.parse::<u64>().ok()).max().unwrap_or(0) + 1;
        self.0.known.write().next = Some(next);
        Ok(next)
    }

    async fn at_number(&self, tenant: &TenantId, number: u64) -> Result<Arc<Prices>> {
        let shipped = PriceBook::built_in();
        match number {
            0 => Ok(Prices::built_in()),
            number => self.at(tenant, &format!("{}+{}", shipped.version(), label(number))).await,
        }
    }

    async fn newest(&self, tenant: &TenantId) -> Result<Option<OwnBook>> {
        Ok(self.0.objects.newest::<OwnBook>(&folder(tenant)).await?.map(|(_, own)| own))
    }

    async fn own(&self, tenant: &TenantId, number: u64) -> Result<Option<OwnBook>> {
        self.0.objects.get(&folder(tenant), &name(number)).await
    }

    async fn shipped(&self, version: &str) -> Result<Arc<PriceBook>> {
        let built_in = PriceBook::built_in();
        if version == built_in.version() {
            return Ok(built_in);
        }
        if let Some(known) = self.0.known.read().shipped.get(version) {
            return Ok(Arc::clone(known));
        }
        let found = match is_path_segment(version) {
            true => self.0.objects.get::<ShippedBook>(SHIPPED, version).await?,
            false => None,
        };
        let missing = || SystemError::ShippedPricesMissing(version.to_owned());
        let book = Arc::new(PriceBook::shipped(found.ok_or_else(missing)?.book)?);
        self.0.known.write().shipped.insert(version.to_owned(), Arc::clone(&book));
        Ok(book)
    }

    fn known_at(&self, tenant: &TenantId, version: &str) -> Option<Arc<Prices>> {
        let built_in = Prices::built_in();
        if **built_in.version() == *version {
            return Some(built_in);
        }
        let known = self.0.known.read();
        let current = known.current.get(tenant).map(|(_, prices)| prices);
        let current = current.filter(|prices| **prices.version() == *version);
        current.or_else(|| known.older.get(&(tenant.clone(), version.to_owned()))).cloned()
    }

    fn learn(&self, own: OwnBook) -> Result<Arc<Prices>> {
        let tenant: TenantId = own.tenant.parse()?;
        let number = own.number;
        let prices = Arc::new(Prices::new(PriceBook::built_in(), Some(Arc::new(PriceBook::own_again(own.book)?))));
        let mut known = self.0.known.write();
        let newer = known.current.get(&tenant).filter(|(known, _)| *known > number);
        if newer.is_none() {
            known.current.insert(tenant, (number, Arc::clone(&prices)));
        }
        Ok(prices)
    }
}

fn folder(tenant: &TenantId) -> String {
    format!("{OWN}/{tenant}")
}

fn name(number: u64) -> String {
    format!("{number:020}")
}

/// The version of a tenant's own book.
fn label(number: u64) -> String {
    format!("own-{number}")
}

fn number_of(label: &str) -> Option<u64> {
    label.strip_prefix("own-")?.parse().ok()
}

/// A stamp is read from bytes at rest: it must not lead out of its folder.
fn is_path_segment(version: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    !version.is_empty() && !version.starts_with('.') && version.bytes().all(legal)
}

#[cfg(test)]
mod tests;
