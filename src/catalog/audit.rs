//! Who asked what: every call by key, door and method, without prompts or parameters, as pages below
//! `system/audit/{tenant}/{day}/`.
//!
//! Calls that are alike within a minute are one row, of the way in within an hour: what is kept grows with how many
//! kinds of calls there are, not with their number. A page has one writer, this process, which writes it over until its
//! time is over; no page is written for a tenant nobody called for. A process that is killed loses the calls of the last
//! five minutes (the way in: up to six hours); its stop loses none.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::system::{Result, SystemObjects};
use crate::base::{Day, TenantId, TimestampUs};

const AUDIT: &str = "audit";
const MINUTE_US: i64 = 60_000_000;
const HOUR_US: i64 = 60 * MINUTE_US;
/// New calls that read or change something are in the store after this long.
const STORED_WITHIN_US: i64 = 5 * MINUTE_US;
/// The hours one page of the way in covers: ten thousand tenants that send all day cost 40,000 requests then.
const INTAKE_PAGE_HOURS: i64 = 6;
/// Rows kept in memory by all tenants together; beyond, what was asked for is left out of new rows.
const ROWS_MAX: usize = 50_000;
/// Longer descriptions of what was asked for are cut.
const QUERY_BYTES_MAX: usize = 1_000;

/// One call.
#[derive(Debug, Clone)]
pub struct Call {
    pub public_key: String,
    pub door: &'static str,
    /// The gRPC service and method, or the HTTP method and path, with placeholders for what is in it.
    pub method: String,
    /// What was asked for, without values: the statement with `?` for its literals, the measures and dimensions.
    pub query: Option<String>,
    /// `ok`, or why not.
    pub outcome: &'static str,
    pub at_us: TimestampUs,
    pub duration_us: i64,
    /// It brought data in.
    pub is_intake: bool,
}

/// Calls that are alike.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Alike {
    /// The minute, or of the way in the hour, they began in.
    pub period_us: TimestampUs,
    pub public_key: String,
    pub door: String,
    pub method: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    pub outcome: String,
}

/// How many they were, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Calls {
    pub first_us: TimestampUs,
    pub last_us: TimestampUs,
    pub count: u64,
    /// Of all of them, until their answer began.
    pub duration_us: i64,
}

/// A row of the table `audit`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRow {
    #[serde(flatten)]
    pub alike: Alike,
    #[serde(flatten)]
    pub calls: Calls,
}

/// What this process saw. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Audit(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    objects: SystemObjects,
    /// Part of the names of all its pages.
    process: Uuid,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    pages: HashMap<TenantId, BTreeMap<PageName, Page>>,
    rows: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct PageName {
    is_intake: bool,
    from_us: TimestampUs,
}

#[derive(Debug, Default)]
struct Page {
    rows: BTreeMap<Alike, Calls>,
    /// When the first call came that the store does not know of.
    unstored_since_us: Option<TimestampUs>,
}

#[derive(Serialize, Deserialize)]
struct StoredPage {
    rows: Vec<AuditRow>,
}

impl PageName {
    fn of(call: &Call) -> Self {
        let length_us = if call.is_intake { INTAKE_PAGE_HOURS * HOUR_US } else { HOUR_US };
        Self { is_intake: call.is_intake, from_us: call.at_us.div_euclid(length_us) * length_us }
    }

    fn until_us(&self) -> TimestampUs {
        self.from_us + if self.is_intake { INTAKE_PAGE_HOURS * HOUR_US } else { HOUR_US }
    }

    /// Below the tenant's folder: `2026-11-27/09-out-{process}`.
    fn path(&self, process: Uuid) -> String {
        let (day, hour) = (Day::of_us(self.from_us), self.from_us.rem_euclid(Day::US) / HOUR_US);
        let kind = if self.is_intake { "in" } else { "out" };
        format!("{day}/{hour:02}-{kind}-{process}")
    }
}

impl Calls {
    fn add(&mut self, call: &Call) {
        self.first_us = self.first_us.min(call.at_us);
        self.last_us = self.last_us.max(call.at_us);
        self.count += 1;
        self.duration_us = self.duration_us.saturating_add(call.duration_us);
    }
}

impl Audit {
    pub fn new(objects: SystemObjects) -> Self {
        Self(Arc::new(Inner { objects, process: Uuid::now_v7(), open: Mutex::default() }))
    }

    /// Costs a look at memory; [`Audit::store`] brings it into the store.
    pub fn note(&self, tenant: &TenantId, call: &Call) {
        let mut open = self.0.open.lock();
        let has_room = open.rows < ROWS_MAX;
        let period_us = if call.is_intake { HOUR_US } else { MINUTE_US };
        let alike = Alike {
            period_us: call.at_us.div_euclid(period_us) * period_us,
            public_key: call.public_key.clone(),
            door: call.door.to_owned(),
            method: call.method.clone(),
            query: call.query.as_deref().filter(|_| has_room).map(cut),
            outcome: call.outcome.to_owned(),
        };
        let page = open.pages.entry(tenant.clone()).or_default().entry(PageName::of(call)).or_default();
        page.unstored_since_us.get_or_insert(call.at_us);
        let before = page.rows.len();
        let none = Calls { first_us: call.at_us, last_us: call.at_us, count: 0, duration_us: 0 };
        page.rows.entry(alike).or_insert(none).add(call);
        let more = page.rows.len() - before;
        open.rows += more;
    }

    /// Stores what has waited long enough; with `all`, everything. Pages whose time is over are let go of.
    pub async fn store(&self, all: bool) -> Result<()> {
        let now_us = self.0.objects.now_us();
        for (tenant, name, rows) in self.due(now_us, all) {
            let path = name.path(self.0.process);
            if let Err(error) = self.0.objects.put(&folder(&tenant), &path, StoredPage { rows }).await {
                if let Some(page) = self.0.open.lock().pages.get_mut(&tenant).and_then(|pages| pages.get_mut(&name)) {
                    page.unstored_since_us.get_or_insert(now_us);
                }
                return Err(error);
            }
        }
        let mut open = self.0.open.lock();
        let is_over = |name: &PageName, page: &Page| page.unstored_since_us.is_none() && name.until_us() <= now_us;
        open.pages.values_mut().for_each(|pages| pages.retain(|name, page| !is_over(name, page)));
        open.pages.retain(|_, pages| !pages.is_empty());
        open.rows = open.pages.values().flat_map(|pages| pages.values()).map(|page| page.rows.len()).sum();
        Ok(())
    }

    /// The pages to store now; they count as stored from here on.
    fn due(&self, now_us: TimestampUs, all: bool) -> Vec<(TenantId, PageName, Vec<AuditRow>)> {
        let mut due = Vec::new();
        for (tenant, pages) in &mut self.0.open.lock().pages {
            for (name, page) in pages {
                let Some(since_us) = page.unstored_since_us else { continue };
                let has_waited = !name.is_intake && now_us - since_us >= STORED_WITHIN_US;
                if all || has_waited || name.until_us() <= now_us {
                    page.unstored_since_us = None;
                    due.push((tenant.clone(), name.clone(), page.rows()));
                }
            }
        }
        due
    }

    /// All that is known of a tenant's calls, oldest first: this process's until now, others' as far as they are stored.
    /// Lists, and reads a page an hour and process at most.
    pub async fn of(&self, tenant: &TenantId) -> Result<Vec<AuditRow>> {
        let stored = self.0.objects.named::<StoredPage>(&folder(tenant)).await?;
        let (mut rows, mut ours) = (Vec::new(), Vec::new());
        if let Some(pages) = self.0.open.lock().pages.get(tenant) {
            for (name, page) in pages {
                ours.push(name.path(self.0.process));
                rows.extend(page.rows());
            }
        }
        let others = stored.into_iter().filter(|(path, _)| !ours.contains(path));
        rows.extend(others.flat_map(|(_, page)| page.rows));
        rows.sort_by(|one, other| (one.calls.first_us, &one.alike).cmp(&(other.calls.first_us, &other.alike)));
        Ok(rows)
    }

    /// Deletes the pages of days before `from`. Returns how many.
    pub async fn forget_before(&self, tenant: &TenantId, from: Day) -> Result<u64> {
        let is_before = |path: &str| path.split('/').next().and_then(|day| day.parse::<Day>().ok()) < Some(from);
        self.0.objects.delete_named(&folder(tenant), is_before).await
    }
}

fn folder(tenant: &TenantId) -> String {
    format!("{AUDIT}/{tenant}")
}

impl Page {
    fn rows(&self) -> Vec<AuditRow> {
        self.rows.iter().map(|(alike, calls)| AuditRow { alike: alike.clone(), calls: *calls }).collect()
    }
}

fn cut(query: &str) -> String {
    let end = query.floor_char_boundary(QUERY_BYTES_MAX);
    match end < query.len() {
        true => format!("{}…", &query[..end]),
        false => query.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;
    use crate::base::{Clock, ManualClock};
    use crate::store::{Location, Store};

    const START_US: i64 = 1_790_000_000_000_000 / HOUR_US / 24 * 24 * HOUR_US;

    async fn audits(count: usize) -> (Vec<Audit>, ManualClock) {
        let clock = ManualClock::at(START_US);
        let store = Store::open(Location::Memory(Arc::new(InMemory::new()))).await.unwrap();
        let audit = || Audit::new(SystemObjects::new(store.clone(), Arc::new(clock.clone())));
        ((0..count).map(|_| audit()).collect(), clock)
    }

    fn call(at_us: TimestampUs, method: &str, is_intake: bool) -> Call {
        Call {
            public_key: "pk-lf-1".into(),
            door: "sql-grpc",
            method: method.into(),
            query: Some("SELECT ?".into()),
            outcome: "ok",
            at_us,
            duration_us: 10,
            is_intake,
        }
    }

    /// The minute from the start, the method and the number of each row.
    fn counts(rows: &[AuditRow]) -> Vec<(i64, &str, u64)> {
        let minute = |row: &AuditRow| (row.alike.period_us - START_US) / MINUTE_US;
        rows.iter().map(|row| (minute(row), row.alike.method.as_str(), row.calls.count)).collect()
    }

    #[tokio::test]
    async fn calls_that_are_alike_are_one_row_and_every_process_sees_what_is_stored() {
        let (audits, clock) = audits(2).await;
        let (acme, other): (TenantId, TenantId) = ("acme".parse().unwrap(), "acme-2".parse().unwrap());
        for at_s in [0, 1, 59, 60] {
            audits[0].note(&acme, &call(START_US + at_s * 1_000_000, "Query", false));
            audits[0].note(&acme, &call(START_US + at_s * 1_000_000, "Export", true));
        }
        audits[0].note(&other, &call(START_US, "Query", false));
        let seen = [(0, "Export", 4), (0, "Query", 3), (1, "Query", 1)];
        assert_eq!(counts(&audits[0].of(&acme).await.unwrap()), seen, "before anything is stored");
        assert!(audits[1].of(&acme).await.unwrap().is_empty());
        clock.advance_us(STORED_WITHIN_US);
        audits[0].store(false).await.unwrap();
        assert_eq!(counts(&audits[1].of(&acme).await.unwrap()), seen[1..], "the way in waits for its page to end");
        assert_eq!(counts(&audits[0].of(&acme).await.unwrap()), seen, "nothing counts twice");
        audits[0].note(&acme, &call(clock.now_us(), "Query", false));
        audits[0].store(true).await.unwrap();
        let all = [(0, "Export", 4), (0, "Query", 3), (1, "Query", 1), (5, "Query", 1)];
        assert_eq!(counts(&audits[1].of(&acme).await.unwrap()), all, "a page is written over");
        assert_eq!(counts(&audits[1].of(&other).await.unwrap()), [(0, "Query", 1)]);
    }

    #[tokio::test]
    async fn pages_are_let_go_of_when_their_hour_is_over_and_deleted_by_day() {
        let (audits, clock) = audits(1).await;
        let acme: TenantId = "acme".parse().unwrap();
        for day in 0..3 {
            audits[0].note(&acme, &call(START_US + day * Day::US, "Query", false));
        }
        clock.advance_us(3 * Day::US);
        audits[0].store(false).await.unwrap();
        assert!(audits[0].0.open.lock().pages.is_empty());
        assert_eq!(audits[0].of(&acme).await.unwrap().len(), 3);
        let from = Day::of_us(START_US + 2 * Day::US);
        assert_eq!(audits[0].forget_before(&acme, from).await.unwrap(), 2);
        assert_eq!(counts(&audits[0].of(&acme).await.unwrap()), [(2 * 1440, "Query", 1)]);
    }

    #[tokio::test]
    async fn a_flood_of_different_statements_takes_bounded_memory() {
        let (audits, _) = audits(1).await;
        let acme: TenantId = "acme".parse().unwrap();
        for at in 0..ROWS_MAX + 100 {
            let query = Some(format!("SELECT column_{at}"));
            audits[0].note(&acme, &Call { query, ..call(START_US, "Query", false) });
        }
        assert_eq!(audits[0].0.open.lock().rows, ROWS_MAX + 1);
        let long = Call { query: Some("é".repeat(QUERY_BYTES_MAX)), ..call(START_US, "Other", false) };
        assert!(cut(long.query.as_deref().unwrap()).len() <= QUERY_BYTES_MAX + 3);
    }
}
