//! Working: plan, claim, rewrite, commit, give back.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::fold::NoFold;
use super::folding::{self, FoldPlan};
use super::lease::{Lease, Leases};
use super::plan::{self, Job};
use super::rewrite::Rewritten;
use super::workshop::Workshop;
use super::{CompactError, CompactSettings, Result};
use crate::base::{Budget, ByteSize, Clock, Day, TenantId};
use crate::catalog::tenants::{TenantState, Tenants};
use crate::catalog::{Catalog, CatalogError, Change, Committed, Rewrite, Rollups, Snapshot};
use crate::model::tables::Table;
use crate::store::{self, StoreError};

/// What is parked is tried again after this, then after twice as long, and so on.
const PARKED_FIRST: Duration = Duration::from_secs(600);
const PARKED_MOST: Duration = Duration::from_secs(6 * 3600);

/// The upkeep of one store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Compactor(pub(super) Arc<Shared>);

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) workshop: Arc<Workshop>,
    tenants: Tenants,
    pub(super) settings: CompactSettings,
    parked: Mutex<BTreeMap<Where, Parked>>,
    done: Mutex<Done>,
    /// Set once, when workers are to give up what they are at.
    pub(super) stopping: watch::Sender<bool>,
}

type Where = (TenantId, Table, Day);

/// Stands for all days, in leases and for what is parked: folds of one table are made one after the other.
const FOLDS: Day = Day::from_days(i32::MAX);

/// Work that cannot be done now, and why. Nothing is lost by it: the old files stay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parked {
    pub tenant: TenantId,
    pub table: Table,
    pub day: Day,
    pub reason: String,
    pub tries: u32,
    /// Not tried again before this.
    until: Instant,
}

/// One line of a list.
impl fmt::Display for Parked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tenant, table, day, reason, tries, .. } = self;
        write!(f, "{tenant} {} {day}: {reason} (tried {tries} times)", table.name())
    }
}

/// What was done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Done {
    pub rewrites: u64,
    pub files_in: u64,
    pub files_out: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub rows_in: u64,
    pub rows_out: u64,
    /// Late objects folded in.
    pub folded: u64,
    /// Rewrites another was faster with, or that lost their lease: their files are orphans.
    pub void: u64,
    /// Days another worker is at.
    pub busy: u64,
    /// The most memory one rewrite held.
    pub memory_most: u64,
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} rewrites: {} files of {} became {} of {}; {} rows in, {} out",
            self.rewrites,
            self.files_in,
            ByteSize(self.bytes_in),
            self.files_out,
            ByteSize(self.bytes_out),
            self.rows_in,
            self.rows_out
        )?;
        match self.busy {
            0 => Ok(()),
            busy => write!(f, "; {busy} days are with other workers"),
        }
    }
}

/// What came of looking at a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Looked {
    Nothing,
    Worked,
    /// Another is at it.
    Busy,
}

impl Compactor {
    pub fn new(
        catalog: Catalog,
        tenants: Tenants,
        clock: Arc<dyn Clock>,
        rollups: Arc<dyn Rollups>,
        settings: CompactSettings,
    ) -> Result<Self> {
        settings.check()?;
        let workshop = Arc::new(Workshop {
            leases: Leases::new(catalog.store().clone(), Arc::clone(&clock), settings.lease()),
            budget: Budget::new("upkeep", settings.memory_max),
            memory_of_one: settings.memory_of_one(),
            target_bytes: settings.target_bytes,
            catalog,
            clock,
            rollups,
        });
        let (parked, done, stopping) = (Mutex::default(), Mutex::default(), watch::Sender::new(false));
        Ok(Self(Arc::new(Shared { workshop, tenants, settings, parked, done, stopping })))
    }

    pub fn budget(&self) -> &Budget {
        &self.0.workshop.budget
    }

    pub fn done(&self) -> Done {
        *self.0.done.lock()
    }

    /// Work that waits because it failed.
    pub fn parked(&self) -> Vec<Parked> {
        self.0.parked.lock().values().cloned().collect()
    }

    /// Rewrites all that is due in every table, and says what that was. What others are at is left to them.
    pub async fn run_once(&self) -> Result<Done> {
        let tenants = self.0.tenants().await?;
        let tables: Vec<_> =
            tenants.into_iter().flat_map(|tenant| Table::ALL.map(|table| (tenant.clone(), table))).collect();
        let queue = Arc::new(Mutex::new(tables));
        let before = self.done();
        // Dropped with this future, they end with it.
        let mut workers = JoinSet::new();
        for _ in 0..self.0.settings.workers {
            let (shared, queue) = (Arc::clone(&self.0), Arc::clone(&queue));
            workers.spawn(async move {
                loop {
                    let Some((tenant, table)) = queue.lock().pop() else { return Ok(()) };
                    let snapshot = shared.catalog().snapshot(&tenant, table).await?;
                    shared.work_on(&tenant, table, snapshot).await?;
                }
            });
        }
        while let Some(ended) = workers.join_next().await {
            ended.unwrap_or(Err(CompactError::Stopped))?;
        }
        Ok(self.done().since(&before))
    }
}

impl Done {
    fn count(&mut self, rewritten: &Rewritten) {
        self.rewrites += 1;
        self.files_in += rewritten.inputs.len() as u64;
        self.files_out += rewritten.outputs.len() as u64;
        self.bytes_in += rewritten.bytes_in;
        self.bytes_out += rewritten.bytes_out;
        self.rows_in += rewritten.rows_in;
        self.rows_out += rewritten.rows_out;
        self.memory_most = self.memory_most.max(rewritten.memory_most);
    }

    fn since(&self, before: &Done) -> Done {
        Done {
            rewrites: self.rewrites - before.rewrites,
            files_in: self.files_in - before.files_in,
            files_out: self.files_out - before.files_out,
            bytes_in: self.bytes_in - before.bytes_in,
            bytes_out: self.bytes_out - before.bytes_out,
            rows_in: self.rows_in - before.rows_in,
            rows_out: self.rows_out - before.rows_out,
            folded: self.folded - before.folded,
            void: self.void - before.void,
            busy: self.busy - before.busy,
            memory_most: self.memory_most,
        }
    }
}

impl Shared {
    pub(super) fn catalog(&self) -> &Catalog {
        &self.workshop.catalog
    }

    /// Tenants that have data.
    pub(super) async fn tenants(&self) -> Result<Vec<TenantId>> {
        let names = self.catalog().store().list_folders(&store::tenants()).await?;
        Ok(names.into_iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// Does what is due in a table until nothing is.
    pub(super) async fn work_on(&self, tenant: &TenantId, table: Table, snapshot: Arc<Snapshot>) -> Result<Looked> {
        let mut snapshot = snapshot;
        let mut looked = Looked::Nothing;
        let mut left_alone: HashSet<Day> = HashSet::new();
        if self.fold(tenant, table, &snapshot).await? == Looked::Worked {
            looked = Looked::Worked;
            snapshot = self.catalog().snapshot(tenant, table).await?;
        }
        loop {
            let jobs = plan::plan(
                &snapshot,
                self.workshop.clock.now_us(),
                &self.settings.plan(self.workshop.rollups.as_ref()),
            );
            let mut jobs = jobs.into_iter().filter(|job| !left_alone.contains(&job.day));
            let Some(job) = jobs.find(|job| !self.is_parked(tenant, table, job.day)) else { return Ok(looked) };
            // Its files are on their way out.
            if self.tenants.state(tenant).await? == TenantState::Deleted {
                return Ok(looked);
            }
            let Some(mut lease) = self.workshop.leases.claim(tenant, table, job.day).await? else {
                self.done.lock().busy += 1;
                left_alone.insert(job.day);
                looked = Looked::Busy;
                continue;
            };
            let outcome = self.work_under(&mut lease, tenant, table, &job).await;
            lease.release().await;
            match outcome {
                Ok(()) => {
                    self.parked.lock().remove(&(tenant.clone(), table, job.day));
                    looked = Looked::Worked;
                }
                Err(error) => {
                    left_alone.insert(job.day);
                    self.settle(tenant, table, job.day, error)?;
                }
            }
            snapshot = self.catalog().snapshot(tenant, table).await?;
        }
    }

    /// Folds late changes that are due into the files they touch, all days in one commit. Nothing is done if others were
    /// faster with one of the files.
    async fn fold(&self, tenant: &TenantId, table: Table, snapshot: &Snapshot) -> Result<Looked> {
        if snapshot.late.is_empty() || self.is_parked(tenant, table, FOLDS) {
            return Ok(Looked::Nothing);
        }
        let (now_us, times) = (self.workshop.clock.now_us(), self.settings.fold());
        self.catalog().dimensions().catch_up().await?;
        let keys = self.catalog().dimensions().of(tenant);
        let due = folding::plan(self.catalog(), tenant, table, snapshot, now_us, times, keys).await?;
        let Some(due) = due else { return Ok(Looked::Nothing) };
        if self.tenants.state(tenant).await? == TenantState::Deleted {
            return Ok(Looked::Nothing);
        }
        let Some(mut lease) = self.workshop.leases.claim(tenant, table, FOLDS).await? else {
            self.done.lock().busy += 1;
            return Ok(Looked::Busy);
        };
        let outcome = self.fold_under(&mut lease, tenant, table, &due).await;
        lease.release().await;
        match outcome {
            Ok(()) => {
                self.parked.lock().remove(&(tenant.clone(), table, FOLDS));
                Ok(Looked::Worked)
            }
            Err(error) => {
                self.settle(tenant, table, FOLDS, error)?;
                Ok(Looked::Nothing)
            }
        }
    }

    async fn fold_under(&self, lease: &mut Lease, tenant: &TenantId, table: Table, due: &FoldPlan) -> Result<()> {
        let mut stopping = self.stopping.subscribe();
        let all = tokio::select! {
            all = lease.during(self.fold_days(tenant, table, due)) => all?,
            _ = stopping.wait_for(|stopping| *stopping) => return Err(CompactError::Stopped),
        };
        let mut change = Rewrite { folded: due.numbers.clone(), ..Default::default() };
        for rewritten in &all {
            change.inputs.extend(rewritten.inputs.iter().cloned());
            change.outputs.extend(rewritten.outputs.iter().cloned());
            change.dropped += rewritten.merged;
        }
        if let Committed::Done { version } = self.catalog().commit(tenant, table, Change::Rewrite(change)).await? {
            tracing::debug!(%tenant, table = table.name(), version, objects = due.numbers.len(), "late changes folded in");
            let mut done = self.done.lock();
            done.folded += due.numbers.len() as u64;
            all.iter().for_each(|rewritten| done.count(rewritten));
        }
        Ok(())
    }

    async fn fold_days(&self, tenant: &TenantId, table: Table, due: &FoldPlan) -> Result<Vec<Rewritten>> {
        let mut all = Vec::with_capacity(due.jobs.len());
        for job in &due.jobs {
            let fold = due.of_day(table, job.day)?;
            all.push(self.workshop.rewrite(tenant, table, job, &fold).await?);
        }
        Ok(all)
    }

    /// Does a job while its lease holds, and commits it. Nothing is done if others were faster.
    async fn work_under(&self, lease: &mut Lease, tenant: &TenantId, table: Table, job: &Job) -> Result<()> {
        let live = self.catalog().snapshot(tenant, table).await?;
        if job.inputs.iter().any(|file| !live.files.contains_key(&file.path)) {
            return Ok(());
        }
        let mut stopping = self.stopping.subscribe();
        let rewritten = tokio::select! {
            rewritten = lease.during(self.rewrite_what_fits(tenant, table, job)) => rewritten?,
            _ = stopping.wait_for(|stopping| *stopping) => return Err(CompactError::Stopped),
        };
        self.commit(tenant, table, &rewritten).await
    }

    /// The job, or half of it, or half of that: as much of it as fits into memory.
    async fn rewrite_what_fits(&self, tenant: &TenantId, table: Table, job: &Job) -> Result<Rewritten> {
        let mut job = job.clone();
        loop {
            match self.workshop.rewrite(tenant, table, &job, &NoFold).await {
                Err(over @ CompactError::OverBudget { .. }) => match job.half() {
                    Some(half) => {
                        tracing::debug!(%tenant, table = table.name(), day = %job.day, files = job.inputs.len(), "halved");
                        job = half;
                    }
                    None => return Err(over),
                },
                rewritten => return rewritten,
            }
        }
    }

    async fn commit(&self, tenant: &TenantId, table: Table, rewritten: &Rewritten) -> Result<()> {
        let Committed::Done { version } = self.catalog().commit(tenant, table, rewritten.change()).await? else {
            return Ok(());
        };
        let (files_in, files_out) = (rewritten.inputs.len(), rewritten.outputs.len());
        tracing::debug!(
            %tenant, table = table.name(), version, files_in, files_out,
            rows = rewritten.rows_out, bytes_in = rewritten.bytes_in, bytes_out = rewritten.bytes_out, "rewritten"
        );
        let mut done = self.done.lock();
        done.count(rewritten);
        Ok(())
    }

    /// What a failure means: others were faster, this day cannot be done now, or the store is in trouble.
    fn settle(&self, tenant: &TenantId, table: Table, day: Day, error: CompactError) -> Result<()> {
        match error {
            CompactError::Catalog(CatalogError::InputGone { .. } | CatalogError::Slept { .. })
            | CompactError::Store(StoreError::Missing { .. })
            | CompactError::LeaseLost { .. } => {
                self.done.lock().void += 1;
                Ok(())
            }
            CompactError::Busy => {
                self.done.lock().busy += 1;
                Ok(())
            }
            CompactError::OverBudget { .. }
            | CompactError::Parquet { .. }
            | CompactError::Arrow { .. }
            | CompactError::UnknownColumn { .. }
            | CompactError::Corrupt { .. }
            | CompactError::Panicked { .. }
            | CompactError::RowsDiffer { .. } => {
                self.park(tenant, table, day, &error);
                Ok(())
            }
            error => Err(error),
        }
    }

    fn is_parked(&self, tenant: &TenantId, table: Table, day: Day) -> bool {
        let parked = self.parked.lock();
        parked.get(&(tenant.clone(), table, day)).is_some_and(|parked| Instant::now() < parked.until)
    }

    fn park(&self, tenant: &TenantId, table: Table, day: Day, error: &CompactError) {
        let mut parked = self.parked.lock();
        let key = (tenant.clone(), table, day);
        let tries = parked.get(&key).map_or(0, |parked| parked.tries) + 1;
        let wait = PARKED_FIRST.saturating_mul(1 << (tries - 1).min(16)).min(PARKED_MOST);
        tracing::warn!(%tenant, table = table.name(), %day, tries, %error, "files stay as they are for now");
        let (tenant, reason, until) = (tenant.clone(), error.to_string(), Instant::now() + wait);
        parked.insert(key, Parked { tenant, table, day, reason, tries, until });
    }
}
