//! From buffer to table: decide whom to flush, freeze, carry what waits, write Parquet, commit.
//!
//! Order, for one tenant: freeze up to position P; write the carry frame of what waits; then per table, text before
//! observations: Parquet, index object, commit `(from, P]`. A crash anywhere leaves orphans, never a hole.
//!
//! Facts of traces must reach all rows of theirs, also those that another process commits at this moment. So a flush
//! commits facts first, and `observations` after it, even if it has no rows for it: whoever read the facts before and
//! commits rows after finds the table changed, and reads the facts again.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, stream};
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::buffer::Weight;
use super::rows::{self, Making, Part};
use super::segment::{BookKey, View};
use super::standing::{self, Asker, MergedCounts};
use super::writer::{TablePositions, TenantState, Writer};
use super::{IngestError, IngestSettings, Result, Shared, late};
use crate::base::{TenantId, TimestampUs, WriterId};
use crate::catalog::{Append, Change, Checked, Committed, NewFile, Snapshot};
use crate::format::index::{self, FileIndex, IndexObject, KeyFilter};
use crate::format::late::LateObject;
use crate::format::log::{EncodedFrame, FrameKind};
use crate::format::parquet;
use crate::model::tables::Table;
use crate::store;

/// How often buffers are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Above this share of the budget the heaviest tenants are flushed, and nothing waits any more.
const PRESSURE_PERCENT: u64 = 60;
/// Rows that waited long enough are collected for this long before they are flushed.
const WAITING_SLACK_US: i64 = 60 * 1_000_000;
/// A tenant whose flush failed is left alone this long: each try writes its files anew.
const RETRY_AFTER: Duration = Duration::from_secs(10);
/// Quiet tenants together are flushed about once in this time: a flush is some eleven puts, so that however many tenants
/// there are, they cost some 150 USD a month at S3's list prices. Each then waits the longer, and gets the larger files …
const QUIET_FLUSH_EVERY_S: u64 = 1;
/// … but no longer than this: until then the log must be kept, plain readers of the tables wait, and a start replays it.
const FRAME_AGE_MAX_S: u64 = 3 * 3600;
/// Flushes of quiet tenants under way at once. On a bucket each waits for a dozen requests in a row; in memory each takes
/// what its Parquet writers take, a few MiB.
const QUIET_AT_ONCE: usize = 8;

/// The order of the tables' commits.
const IN_ORDER: [Table; Table::ALL.len()] =
    [Table::ObservationIo, Table::TraceFacts, Table::Observations, Table::Scores, Table::Ledger];

/// Tenants whose flush failed, and when.
pub(super) type Failed = Mutex<HashMap<(WriterId, TenantId), Instant>>;

/// Looks at the buffers until the process stops or is fenced.
pub(super) async fn run(shared: Arc<Shared>) {
    let failed = Failed::default();
    while shared.goes_on_after(LOOK_EVERY).await {
        look(&shared, &failed).await;
    }
}

/// Flushes what is due.
pub(super) async fn look(shared: &Shared, failed: &Failed) {
    let writers = shared.writers.read().clone();
    for writer in writers {
        let writer = writer.as_ref();
        each(shared, due(shared, writer), |due| try_to_flush(shared, writer, due, failed)).await;
    }
}

/// Flushes what one tenant holds, or all do, each to its end, whatever comes of the others; `all`: what may wait, too.
pub(super) async fn flush_of(shared: &Shared, of: Option<&TenantId>, all: bool) -> Result<()> {
    let writers = shared.writers.read().clone();
    let mut outcome = Ok(());
    for writer in writers {
        let writer = writer.as_ref();
        let held = writer.buffers.all().into_iter().filter(|(tenant, _)| of.is_none_or(|of| of == tenant));
        let due = held.map(|(tenant, state)| Due { tenant, bytes: state.buffer.weight().held_bytes, all });
        let flush = |due: Due| async move { flush_tenant(shared, writer, &due.tenant, due.all).await };
        let flushed: Result<()> = each(shared, due.collect(), flush).await.into_iter().collect();
        outcome = outcome.and(flushed);
    }
    outcome
}

/// Large buffers one after the other, beside them small ones several at once.
async fn each<T, F: Future<Output = T>>(shared: &Shared, due: Vec<Due>, flush: impl Fn(Due) -> F) -> Vec<T> {
    let quiet_bytes = shared.settings.quiet_bytes.bytes();
    let (large, quiet): (Vec<Due>, Vec<Due>) = due.into_iter().partition(|due| due.bytes > quiet_bytes);
    let large = async {
        let mut flushed = Vec::new();
        for due in large {
            flushed.push(flush(due).await);
        }
        flushed
    };
    let quiet: Vec<F> = quiet.into_iter().map(&flush).collect();
    let quiet = stream::iter(quiet).buffer_unordered(QUIET_AT_ONCE).collect::<Vec<T>>();
    let (mut flushed, more) = futures::join!(large, quiet);
    flushed.extend(more);
    flushed
}

async fn try_to_flush(shared: &Shared, writer: &Writer, due: Due, failed: &Failed) {
    let Due { tenant, all, .. } = due;
    let whose = (writer.id().clone(), tenant.clone());
    if failed.lock().get(&whose).is_some_and(|since| since.elapsed() < RETRY_AFTER) {
        return;
    }
    match flush_tenant(shared, writer, &tenant, all).await {
        Ok(()) => _ = failed.lock().remove(&whose),
        Err(error) => {
            tracing::warn!(%tenant, writer = %writer.id(), %error, "flush failed; it is tried again");
            failed.lock().insert(whose, Instant::now());
        }
    }
}

/// A tenant to flush now.
struct Due {
    tenant: TenantId,
    bytes: u64,
    /// What may wait goes too.
    all: bool,
}

/// Whom to flush now, the heaviest first. Under pressure those who hold most are flushed as well, as many as relieve it.
fn due(shared: &Shared, writer: &Writer) -> Vec<Due> {
    let settings = &shared.settings;
    let now_us = shared.clock.now_us();
    let mut weights: Vec<(Weight, TenantId)> =
        writer.buffers.all().into_iter().map(|(tenant, state)| (state.buffer.weight(), tenant)).collect();
    weights.sort_unstable_by(|(one, a), (other, b)| (other.held_bytes, a).cmp(&(one.held_bytes, b)));
    let is_busy = |weight: &Weight| weight.bytes > settings.quiet_bytes.bytes();
    let quiet = weights.iter().filter(|(weight, _)| weight.oldest_us.is_some() && !is_busy(weight)).count();
    let quiet_after_s = settings.quiet_after_s(quiet as u64);
    let mut excess = shared.budget.used().saturating_sub(shared.budget.limit().bytes() / 100 * PRESSURE_PERCENT);
    let mut due = Vec::new();
    for (weight, tenant) in weights {
        let wait_s = if is_busy(&weight) { settings.flush_after_s } else { quiet_after_s };
        let wait_us = wait_s.min(FRAME_AGE_MAX_S) as i64 * 1_000_000;
        let old = weight.oldest_us.is_some_and(|oldest_us| now_us - oldest_us >= wait_us);
        // What waited long enough goes, some of it late rather than the rest carried again and again.
        let waited_us = weight.waiting_since_us.map_or(0, |since_us| now_us - since_us);
        let overdue = waited_us >= settings.wait_for_root_s as i64 * 1_000_000 + WAITING_SLACK_US;
        let pressed = excess > 0 && weight.held_bytes > 0;
        if weight.frozen > 0 || old || overdue || pressed || weight.bytes >= settings.flush_bytes.bytes() {
            excess = excess.saturating_sub(weight.held_bytes);
            due.push(Due { tenant, bytes: weight.held_bytes, all: pressed });
        }
    }
    due
}

impl IngestSettings {
    /// How long each of so many quiet tenants waits for its flush.
    pub fn quiet_after_s(&self, tenants: u64) -> u64 {
        self.flush_quiet_after_s.max(tenants.saturating_mul(QUIET_FLUSH_EVERY_S).min(FRAME_AGE_MAX_S))
    }
}

/// Freezes a tenant's rows and brings them, and any frozen before them, into the tables.
pub(super) async fn flush_tenant(shared: &Shared, writer: &Writer, tenant: &TenantId, all: bool) -> Result<()> {
    let Some(state) = writer.buffers.get(tenant) else { return Ok(()) };
    let _flushing = state.flushing.lock().await;
    // A flush that failed half-way is finished first: positions only move forward.
    commit_frozen(shared, writer, tenant, &state).await?;
    let waiting_since_us = match all {
        true => i64::MAX,
        false => shared.clock.now_us() - shared.settings.wait_for_root_s as i64 * 1_000_000,
    };
    let frozen = Arc::new(Mutex::new(None));
    let freeze = {
        let (state, frozen) = (Arc::clone(&state), Arc::clone(&frozen));
        // Between two log objects, so that the segment ends exactly at one.
        move |position, _| *frozen.lock() = state.buffer.freeze(position, waiting_since_us)
    };
    writer.log().append(None, freeze).await?;
    let Some((carry, carried)) = frozen.lock().take() else { return Ok(()) };
    let carried = Arc::new(carried);
    for carry in carry {
        let frame = EncodedFrame::new(Some(tenant), FrameKind::Carry, &carry);
        let apply = {
            let (state, carried) = (Arc::clone(&state), Arc::clone(&carried));
            move |position, _| state.buffer.carried(&carried, position)
        };
        if let Err(error) = writer.log().append(Some(frame), apply).await {
            // Without the carry the frozen segment must not be committed: what waited takes it back.
            state.buffer.thaw();
            return Err(error);
        }
    }
    commit_frozen(shared, writer, tenant, &state).await
}

/// Commits the frozen segments of a tenant, oldest first.
async fn commit_frozen(shared: &Shared, writer: &Writer, tenant: &TenantId, state: &Arc<TenantState>) -> Result<()> {
    while let Some(view) = state.buffer.oldest_frozen() {
        let standing = positions(shared, writer, tenant, state).await?;
        let open = |table: Table| standing[table as usize] < view.segment.to;
        let target = Target { shared, writer, tenant, state };
        // All tables but the ledger are written at once, on as many cores as there are; they are committed in order.
        let mut written: HashMap<Table, Prepared> = HashMap::new();
        for table in Table::ALL.into_iter().filter(|table| *table != Table::Ledger && open(*table)) {
            written.insert(table, target.prepare(table, &view, &MergedCounts::new()).await?);
        }
        // The ledger counts what the others stored: it comes last.
        let mut merged = MergedCounts::new();
        let mut alone = true;
        for table in IN_ORDER {
            if table == Table::Ledger && !alone {
                merged = target.told_above(positions(shared, writer, tenant, state).await?, view.segment.to).await?;
            }
            let prepared = match written.remove(&table) {
                Some(prepared) => prepared,
                None if table == Table::Ledger && open(table) => target.prepare(table, &view, &merged).await?,
                // A try before this one committed it, and told in its commit what it found standing.
                None if open(Table::Ledger) => {
                    let counted = standing[Table::Ledger as usize];
                    let stood = target.merged_by_others(table, counted, view.segment.to).await?;
                    standing::add_counts(&mut merged, &stood);
                    continue;
                }
                None => continue,
            };
            let Stood { merged: stood, by_us } = target.commit(table, view.segment.to, prepared, &merged).await?;
            standing::add_counts(&mut merged, &stood);
            alone &= by_us;
            if table == Table::TraceFacts && !view.segment.traces.is_empty() {
                // From here on only `observations` wants them.
                state.buffer.unwant_oldest(table, view.segment.to);
            }
        }
        state.buffer.release_oldest();
    }
    Ok(())
}

/// Whose rows a flush brings into the tables.
struct Target<'a> {
    shared: &'a Shared,
    writer: &'a Writer,
    tenant: &'a TenantId,
    state: &'a Arc<TenantState>,
}

/// What a commit found.
struct Stood {
    /// Ids that were in the table already.
    merged: MergedCounts,
    /// Nobody else committed rows of this log meanwhile.
    by_us: bool,
}

/// One table's share of a segment, on its way to a commit.
struct Prepared {
    /// The snapshot that its keys were looked up in.
    snapshot: Arc<Snapshot>,
    /// Ids that stood there already.
    merged: MergedCounts,
    /// There must be a commit, even without rows.
    has_news: bool,
    /// What the rows say, of the ledger.
    books: Option<BTreeMap<BookKey, i64>>,
    writing: JoinHandle<Result<Written, ::parquet::errors::ParquetError>>,
}

impl Target<'_> {
    /// Looks up which rows stand already, and starts to write the others as files, and changes of those that stand as a
    /// late object.
    async fn prepare(&self, table: Table, view: &Arc<View>, merged: &MergedCounts) -> Result<Prepared> {
        let catalog = &self.shared.catalog;
        let snapshot = catalog.known_snapshot(self.tenant, table).await?;
        let segment = &view.segment;
        let standing =
            standing::find(catalog, self.tenant, table, segment, view.settings(), &snapshot, Asker::Flush).await?;
        let counts = standing.merged_counts(table, segment);
        let has_news = standing.has_news;
        let books = (table == Table::Ledger).then(|| rows::books(segment, merged));
        let (view, merged) = (Arc::clone(view), merged.clone());
        let now_us = self.shared.clock.now_us();
        let write = move || {
            let settings = view.settings();
            write_files(
                table,
                now_us,
                Making { segment: &view.segment, settings, standing: &standing, part: Part::New, merged: &merged },
            )
        };
        Ok(Prepared { snapshot, merged: counts, has_news, books, writing: tokio::task::spawn_blocking(write) })
    }

    /// Puts and commits one table's share up to `to`. What was committed since it was prepared makes it look again.
    async fn commit(&self, table: Table, to: u64, mut prepared: Prepared, counted: &MergedCounts) -> Result<Stood> {
        let Self { shared, writer, tenant, state } = self;
        let mut counted = counted.clone();
        let mut by_us = true;
        // Ids that another owner of the log found standing, in the part it committed.
        let mut before = MergedCounts::new();
        loop {
            let Prepared { snapshot, merged, has_news, books, writing } = prepared;
            let from = positions(shared, writer, tenant, state).await?[table as usize];
            // What another owner of the log committed before the look stood at it, and is not found standing by us.
            let position = snapshot.position(writer.id()).min(to);
            if position > from {
                by_us = false;
                if let Some(books) = books.filter(|_| position == to) {
                    shared.booked.add(&books);
                }
                set_position(shared, writer, tenant, state, table, position).await?;
                standing::add_counts(&mut before, &self.merged_by_others(table, from, position).await?);
                state.buffer.unwant_oldest(table, position);
                let Some(view) = state.buffer.oldest_frozen().filter(|_| position < to) else {
                    return Ok(Stood { merged: before, by_us });
                };
                if table == Table::Ledger {
                    counted = self.told_above(positions(shared, writer, tenant, state).await?, to).await?;
                }
                prepared = self.prepare(table, &view, &counted).await?;
                continue;
            }
            let written = writing.await.map_err(|_| IngestError::Stopped)?;
            let written = written.map_err(|source| IngestError::Parquet { table: table.name(), source })?;
            if written.is_empty() && !has_news {
                standing::add_counts(&mut before, &merged);
                return Ok(Stood { merged: before, by_us });
            }
            let unpriced = written.unpriced;
            let append = self.put(table, &snapshot, written, &merged, from, to).await?;
            let committed = shared.catalog.commit(tenant, table, Change::Append(append)).await?;
            match committed {
                Committed::Done { version } => {
                    tracing::debug!(%tenant, table = table.name(), version, from, to, "flushed");
                    shared.catalog.prices().count_unpriced(unpriced);
                    if let Some(books) = &books {
                        shared.booked.add(books);
                    }
                    set_position(shared, writer, tenant, state, table, to).await?;
                    standing::add_counts(&mut before, &merged);
                    return Ok(Stood { merged: before, by_us });
                }
                // An earlier try of ours, whose reply was lost, or another owner's.
                Committed::Nothing => {
                    if let Some(books) = &books {
                        shared.booked.add(books);
                    }
                    set_position(shared, writer, tenant, state, table, to).await?;
                    standing::add_counts(&mut before, &self.merged_by_others(table, from, to).await?);
                    return Ok(Stood { merged: before, by_us: false });
                }
                Committed::Stale => {}
                Committed::Moved { position } => {
                    by_us = false;
                    set_position(shared, writer, tenant, state, table, position).await?;
                    standing::add_counts(&mut before, &self.merged_by_others(table, from, position).await?);
                    state.buffer.unwant_oldest(table, position);
                }
                Committed::Behind { position } => {
                    return Err(IngestError::Corrupt {
                        writer: writer.id().clone(),
                        reason: format!("{} of {tenant} stands at {position}, before {from}", table.name()),
                    });
                }
            }
            let Some(view) = state.buffer.oldest_frozen() else { return Ok(Stood { merged: before, by_us }) };
            if table == Table::Ledger && !by_us {
                counted = self.told_above(positions(shared, writer, tenant, state).await?, to).await?;
            }
            prepared = self.prepare(table, &view, &counted).await?;
        }
    }

    /// Stores files, index and late object; what is left is to commit them.
    async fn put(
        &self,
        table: Table,
        snapshot: &Snapshot,
        written: Written,
        merged: &MergedCounts,
        from: u64,
        to: u64,
    ) -> Result<Append> {
        let (catalog, tenant) = (&self.shared.catalog, self.tenant);
        let objects = catalog.store();
        let root = store::table_root(tenant, table.name());
        for (file, body) in &written.files {
            let path = file.path.split('/').fold(root.clone(), |path, part| path.join(part));
            objects.put(&path, body.clone()).await?;
        }
        if let Some((id, index)) = &written.index {
            objects.put(&store::index_file(tenant, table.name(), id), index::encode(index)).await?;
            catalog.remember_index(tenant, table, id, index);
        }
        let late = match &written.late {
            Some(object) => Some(catalog.put_late(tenant, table, snapshot, object).await?),
            None => None,
        };
        Ok(Append {
            writer: self.writer.id().clone(),
            from,
            to,
            files: written.files.into_iter().map(|(file, _)| file).collect(),
            late,
            checked: (!table.key_columns().is_empty()).then_some(Checked(snapshot.version)),
            merged: standing::told(merged),
        })
    }

    /// What the ledger must count as merged where another owner of the log has committed a part of it: what the commits
    /// above the ledger's position told. What lies below is in the books already.
    async fn told_above(&self, positions: TablePositions, to: u64) -> Result<MergedCounts> {
        let counted = positions[Table::Ledger as usize];
        let mut merged = MergedCounts::new();
        for table in [Table::Observations, Table::Scores] {
            standing::add_counts(&mut merged, &self.merged_by_others(table, counted, to).await?);
        }
        Ok(merged)
    }

    /// What appends of this log in `(from, to]` found standing, by whomever they were made; but for what the books have
    /// from a replay.
    async fn merged_by_others(&self, table: Table, from: u64, to: u64) -> Result<MergedCounts> {
        let mut merged = MergedCounts::new();
        let from = from.max(self.state.told.lock()[table as usize]);
        if matches!(table, Table::Observations | Table::Scores) {
            for appended in self.shared.catalog.merged_above(self.tenant, table, self.writer.id(), from).await? {
                if appended.to <= to {
                    standing::add_counts(&mut merged, &standing::merged_counts_of(&appended.merged));
                }
            }
        }
        Ok(merged)
    }
}

/// Where the tenant's tables stand, looked up once for tenants that were not replayed.
async fn positions(shared: &Shared, writer: &Writer, tenant: &TenantId, state: &TenantState) -> Result<TablePositions> {
    if let Some(positions) = *state.positions.lock() {
        return Ok(positions);
    }
    let mut positions = TablePositions::default();
    for table in Table::ALL {
        let snapshot = shared.catalog.known_snapshot(tenant, table).await?;
        let position = snapshot.position(writer.id());
        if position > writer.claimed {
            return Err(IngestError::Fenced { writer: writer.id().clone() });
        }
        positions[table as usize] = position;
    }
    *state.positions.lock() = Some(positions);
    Ok(positions)
}

async fn set_position(
    shared: &Shared,
    writer: &Writer,
    tenant: &TenantId,
    state: &TenantState,
    table: Table,
    position: u64,
) -> Result<()> {
    let mut known = positions(shared, writer, tenant, state).await?;
    known[table as usize] = position;
    *state.positions.lock() = Some(known);
    Ok(())
}

#[derive(Default)]
struct Written {
    files: Vec<(NewFile, Bytes)>,
    index: Option<(String, IndexObject)>,
    late: Option<LateObject>,
    /// Rows that name a model and have no cost.
    unpriced: u64,
}

impl Written {
    /// There is nothing to commit: a table without rows gets no commit, and its position may stay behind.
    fn is_empty(&self) -> bool {
        self.files.is_empty() && self.late.is_none()
    }
}

/// The files of one table, one per home day, the index object over them, and what changes about rows that stand.
fn write_files(
    table: Table,
    now_us: TimestampUs,
    making: Making<'_>,
) -> Result<Written, ::parquet::errors::ParquetError> {
    let index_id = store::timed_id(now_us).to_string();
    let mut written = Written::default();
    let mut indexes = Vec::new();
    let keys = table.key_columns();
    for rows in rows::days(table, making) {
        let (mut hashes, mut traces, mut unpriced) = (Vec::new(), Vec::new(), 0);
        let batches = rows.batches.inspect(|batch| {
            hashes.extend(parquet::key_hashes(keys, batch));
            if table.has_trace_filters() {
                traces.extend(parquet::trace_hashes(batch));
            }
            if table == Table::Observations {
                unpriced += rows::unpriced(batch);
            }
        });
        let bytes = parquet::write(table, batches)?;
        written.unpriced += unpriced;
        let path = store::data_file(rows.day, store::timed_id(now_us));
        if !keys.is_empty() {
            let traces = table.has_trace_filters().then(|| KeyFilter::of(traces)).flatten();
            indexes.push(FileIndex { path: path.clone(), keys: KeyFilter::of(hashes), traces });
        }
        let file = NewFile {
            path,
            day: rows.day,
            size_bytes: bytes.bytes.len() as u64,
            footer_bytes: bytes.footer_bytes,
            time_us: bytes.time_us,
            stats: bytes.delta_stats(table),
            index: (!keys.is_empty()).then(|| index_id.clone()),
            rollups: Default::default(),
            rewrites: 0,
            undated: rows.undated,
        };
        written.files.push((file, bytes.bytes));
    }
    written.index =
        (!indexes.is_empty()).then(|| (index_id, IndexObject { table: table.name().to_owned(), files: indexes }));
    written.late = late::object(table, making)?;
    Ok(written)
}
