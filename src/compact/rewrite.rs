//! One job: open the files, merge, write, and say what came of it. Nothing is live before the caller commits it.

use std::collections::VecDeque;
use std::time::Duration;

use super::fold::Fold;
use super::input::FileInput;
use super::ledger::Sums;
use super::memory::{KEY_FILTER_BYTES, Shares, beside_sums, rows_max_alone};
use super::merge::{Merge, Source};
use super::output::{Output, Wanted};
use super::plan::{Job, SEALED};
use super::{CompactError, Result};
use crate::base::{Budget, ByteSize, Clock, Reservation, TenantId};
use crate::catalog::{Change, NewFile, Rewrite, Rollups};
use crate::format::rollup::RollupKind;
use crate::model::tables::Table;
use crate::store::Store;

/// Row groups of narrow files that will be merged again: each is fetched by one request then, and held whole. What the
/// writer holds for its many columns counts: of 4 MiB row groups had 3,300 rows, and were slow to read.
const ROW_GROUP_TIER: ByteSize = ByteSize::mib(8);
/// How long a merge waits for memory that others of this process hold, before it gives way.
const MEMORY_PATIENCE: Duration = Duration::from_secs(60);
/// A merge of little takes no more than this many times its files: text shrinks up to 25-fold.
const MEMORY_FOR_BYTES: u64 = 32;
const MEMORY_FOR_ANY: u64 = 40 << 20;

/// Where and with what a job is done.
#[derive(Clone, Copy)]
pub struct Workplace<'a> {
    pub store: &'a Store,
    pub clock: &'a dyn Clock,
    /// Memory of all jobs of this process.
    pub budget: &'a Budget,
    /// Memory this one may have.
    pub memory_max: ByteSize,
    pub target_bytes: ByteSize,
    /// Who sums up what is written.
    pub rollups: &'a dyn Rollups,
}

/// New files that say the same as the old ones; orphans until they are committed.
#[derive(Debug, Clone)]
pub struct Rewritten {
    pub inputs: Vec<String>,
    pub outputs: Vec<NewFile>,
    pub rows_in: u64,
    pub rows_out: u64,
    /// Rows that became one with another: rows in = rows out + merged (I8).
    pub merged: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// The most memory the job held, as it counts.
    pub memory_most: u64,
}

impl Rewritten {
    pub fn change(&self) -> Change {
        Change::Rewrite(Rewrite {
            inputs: self.inputs.clone(),
            outputs: self.outputs.clone(),
            dropped: self.merged,
            ..Default::default()
        })
    }
}

/// Does a job. On an error nothing was done but objects were left that nobody names.
pub async fn rewrite(
    place: Workplace<'_>,
    tenant: &TenantId,
    table: Table,
    job: &Job,
    fold: &dyn Fold,
) -> Result<Rewritten> {
    let for_sums = memory_for_sums(&place, table, job).await;
    let has_sums = !for_sums.is_empty();
    match rewrite_once(place, tenant, table, job, fold, for_sums).await {
        // The merge lacks what the sums take: it does without them.
        Err(CompactError::OverBudget { .. }) if has_sums => {
            rewrite_once(place, tenant, table, job, fold, Vec::new()).await
        }
        done => done,
    }
}

async fn rewrite_once(
    place: Workplace<'_>,
    tenant: &TenantId,
    table: Table,
    job: &Job,
    fold: &dyn Fold,
    for_sums: Vec<(RollupKind, Reservation)>,
) -> Result<Rewritten> {
    let files = job.inputs.len();
    let over = || CompactError::OverBudget { files, limit: place.memory_max };
    let sums: u64 = for_sums.iter().map(|(_, held)| held.bytes()).sum();
    let for_merge = ByteSize(place.memory_max.bytes() - sums);
    let replacements: VecDeque<_> = fold.replacements().into();
    let replaced: u64 = replacements.iter().map(|batch| batch.num_rows() as u64).sum();
    let rows_in = job.rows();
    let bytes_max = place.target_bytes.bytes().saturating_mul(2);
    // What is replaced is dropped: there are never more rows than before.
    let alone = (job.bytes() <= bytes_max && rows_in <= rows_max_alone(for_merge)).then_some(rows_in);
    let (alone, shares) = match Shares::of(for_merge, files, alone) {
        Some(shares) => (alone, shares),
        // Its keys leave too little to read so many files: it becomes several.
        None => (None, Shares::of(for_merge, files, None).ok_or_else(over)?),
    };
    let need = MEMORY_FOR_ANY.saturating_add(job.bytes().saturating_mul(MEMORY_FOR_BYTES));
    let need = need.saturating_add(rows_in.saturating_mul(KEY_FILTER_BYTES)).min(shares.whole);
    let held = place.budget.reserve(need, MEMORY_PATIENCE).await.ok_or(CompactError::Busy)?;
    let mut memory = Memory { budget: place.budget, held: vec![held], most: 0, shares, files };

    let mut sources = Vec::with_capacity(files + 1);
    for file in &job.inputs {
        let input = FileInput::open(place.store, tenant, table, file.clone(), &shares).await?;
        sources.push(Source::File(Box::new(input)));
    }
    if !replacements.is_empty() {
        sources.push(Source::Rows(replacements));
    }

    let pieces = match alone {
        Some(_) => 1,
        None => job.bytes().div_ceil(bytes_max.max(1)).max(rows_in.div_ceil(shares.output_rows_max)).max(1),
    };
    let mut output = Output::begin(Wanted {
        store: place.store,
        clock: place.clock,
        tenant,
        table,
        day: job.day,
        rewrites: job.rewrites(),
        undated: job.inputs.iter().any(|file| file.undated),
        row_group: match table == Table::ObservationIo || job.is_last(place.target_bytes) {
            true => shares.row_group,
            false => shares.row_group.min(ROW_GROUP_TIER),
        },
        rows_per_file: rows_in.div_ceil(pieces).max(1),
        // A file that is alone is not cut: its filter is made when the inputs are gone.
        bytes_max: if alone.is_some() { u64::MAX } else { bytes_max },
        rollups: place.rollups,
        sums: for_sums.iter().map(|(kind, _)| *kind).collect(),
    })?;
    let mut rows_out = 0;
    let merged = match table.sort_columns().is_empty() {
        true => sum_up(table, sources, fold, &mut output, &mut rows_out).await,
        false => put_in_order(table, sources, fold, &mut output, &mut rows_out, &mut memory).await,
    };
    let dropped = match merged {
        Ok(dropped) => dropped,
        Err(error) => {
            output.abandon().await;
            return Err(error);
        }
    };
    let expected = (rows_in + replaced).checked_sub(dropped);
    let adds_up = table.key_columns().is_empty() || expected == Some(rows_out);
    let (true, Some(merged)) = (adds_up, rows_in.checked_sub(rows_out)) else {
        output.abandon().await;
        let reason = format!("{rows_in} rows read, {dropped} dropped, {replaced} replaced, {rows_out} written");
        return Err(CompactError::RowsDiffer { table: table.name(), reason });
    };
    let outputs = output.finish().await?;
    Ok(Rewritten {
        inputs: job.inputs.iter().map(|file| file.path.clone()).collect(),
        rows_in,
        rows_out,
        merged,
        bytes_in: job.bytes(),
        bytes_out: outputs.iter().map(|file| file.size_bytes).sum(),
        outputs,
        memory_most: memory.most,
    })
}

/// What is left for the merge must be enough for it. Sums of a file that will be merged again are worth no waiting, and
/// those of traces are not made of it.
async fn memory_for_sums(place: &Workplace<'_>, table: Table, job: &Job) -> Vec<(RollupKind, Reservation)> {
    let (mut left, mut held) = (place.memory_max, Vec::new());
    for kind in RollupKind::ALL {
        if kind == RollupKind::Traces && !job.is_last(place.target_bytes) {
            continue;
        }
        let Some(memory) = place.rollups.memory_max(kind, table, job.rows()) else { continue };
        let Some(beside) = beside_sums(left, memory) else { continue };
        let reserved = match job.rewrites() == SEALED {
            true => place.budget.reserve(memory.bytes(), MEMORY_PATIENCE).await,
            false => place.budget.try_reserve(memory.bytes()),
        };
        if let Some(reserved) = reserved {
            held.push((kind, reserved));
            left = beside;
        }
    }
    held
}

/// Returns the rows that were dropped for replacements.
async fn put_in_order(
    table: Table,
    sources: Vec<Source>,
    fold: &dyn Fold,
    output: &mut Output<'_>,
    rows_out: &mut u64,
    memory: &mut Memory<'_>,
) -> Result<u64> {
    let mut merge = Merge::begin(table, sources, fold).await?;
    loop {
        memory.check(&mut merge, output)?;
        let Some(rows) = merge.next().await? else { return Ok(merge.dropped()) };
        *rows_out += rows.num_rows() as u64;
        output.push(rows).await?;
    }
}

/// Rows that add up have no keys that could be replaced: none is dropped.
async fn sum_up(
    table: Table,
    sources: Vec<Source>,
    fold: &dyn Fold,
    output: &mut Output<'_>,
    rows_out: &mut u64,
) -> Result<u64> {
    let mut sums = Sums::begin(table, sources, fold)?;
    while let Some(rows) = sums.next().await? {
        *rows_out += rows.num_rows() as u64;
        output.push(rows).await?;
    }
    Ok(0)
}

/// What a job holds of the budget. It begins with an estimate; rows that weigh more than their file says make it ask
/// for more, or give up.
struct Memory<'a> {
    budget: &'a Budget,
    held: Vec<Reservation>,
    most: u64,
    shares: Shares,
    files: usize,
}

impl Memory<'_> {
    fn check(&mut self, merge: &mut Merge<'_>, output: &Output<'_>) -> Result<()> {
        if merge.held_bytes() > self.shares.inputs {
            // Pages can be fetched again, decoded rows cannot.
            merge.forget_pages();
        }
        let uses = merge.held_bytes() + output.held_bytes();
        self.most = self.most.max(uses);
        let has: u64 = self.held.iter().map(Reservation::bytes).sum();
        if uses > has {
            let more = self.budget.try_reserve(uses - has);
            let limit = ByteSize(self.shares.whole);
            self.held.push(more.ok_or(CompactError::OverBudget { files: self.files, limit })?);
        }
        Ok(())
    }
}
