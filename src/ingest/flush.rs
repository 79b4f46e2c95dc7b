//! From buffer to table: decide whom to flush, freeze, carry what waits, write Parquet, commit.
//!
//! Order, for one tenant: freeze up to position P; write the carry frame of what waits; then per table, text before
//! observations: Parquet, index object, commit `(from, P]`. A crash anywhere leaves orphans, never a hole.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use uuid::Uuid;

use super::rows;
use super::segment::View;
use super::writer::{TablePositions, TenantState, Writer};
use super::{IngestError, Result, Shared};
use crate::base::{TenantId, WriterId};
use crate::catalog::{Append, Change, Committed, NewFile};
use crate::format::index::{self, FileIndex, IndexObject, KeyFilter};
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
/// Frames older than this are flushed, however quiet the tenant.
const FRAME_AGE_MAX_US: i64 = 30 * 60 * 1_000_000;

/// Looks at the buffers until the process stops or is fenced.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut failed: HashMap<(WriterId, TenantId), Instant> = HashMap::new();
    while shared.goes_on_after(LOOK_EVERY).await {
        let writers = shared.writers.read().clone();
        for writer in writers {
            for (tenant, all) in due(&shared, &writer) {
                let whose = (writer.id().clone(), tenant.clone());
                if failed.get(&whose).is_some_and(|since| since.elapsed() < RETRY_AFTER) {
                    continue;
                }
                match flush_tenant(&shared, &writer, &tenant, all).await {
                    Ok(()) => _ = failed.remove(&whose),
                    Err(error) => {
                        tracing::warn!(%tenant, writer = %writer.id(), %error, "flush failed; it is tried again");
                        failed.insert(whose, Instant::now());
                    }
                }
            }
        }
    }
}

/// Flushes every buffer there is.
pub(super) async fn flush_everything(shared: &Shared, all: bool) -> Result<()> {
    let writers = shared.writers.read().clone();
    for writer in writers {
        for tenant in writer.buffers.all().into_keys() {
            flush_tenant(shared, &writer, &tenant, all).await?;
        }
    }
    Ok(())
}

/// Tenants to flush now, and whether what may wait goes too. Under pressure the heaviest come first.
fn due(shared: &Shared, writer: &Writer) -> Vec<(TenantId, bool)> {
    let settings = &shared.settings;
    let pressed = shared.budget.used() > shared.budget.limit().bytes() / 100 * PRESSURE_PERCENT;
    let now_us = shared.clock.now_us();
    let mut due = Vec::new();
    for (tenant, state) in writer.buffers.all() {
        let weight = state.buffer.weight();
        let age_us = weight.oldest_us.map_or(0, |oldest_us| now_us - oldest_us);
        let holds_rows = weight.oldest_us.is_some() || weight.waiting_since_us.is_some();
        let busy = weight.bytes > settings.quiet_bytes.bytes();
        let wait_s = if busy { settings.flush_after_s } else { settings.flush_quiet_after_s };
        let old = weight.oldest_us.is_some() && (age_us >= wait_s as i64 * 1_000_000 || age_us >= FRAME_AGE_MAX_US);
        // What waited long enough goes, some of it late rather than the rest carried again and again.
        let waited_us = weight.waiting_since_us.map_or(0, |since_us| now_us - since_us);
        let overdue = waited_us >= settings.wait_for_root_s as i64 * 1_000_000 + WAITING_SLACK_US;
        if weight.frozen > 0
            || old
            || overdue
            || (pressed && holds_rows)
            || weight.bytes >= settings.flush_bytes.bytes()
        {
            due.push((weight.bytes, tenant));
        }
    }
    due.sort_unstable_by(|a, b| b.cmp(a));
    due.into_iter().map(|(_, tenant)| (tenant, pressed)).collect()
}

/// Freezes a tenant's rows and brings them, and any frozen before them, into the tables.
pub(super) async fn flush_tenant(shared: &Shared, writer: &Writer, tenant: &TenantId, all: bool) -> Result<()> {
    let Some(state) = writer.buffers.get(tenant) else { return Ok(()) };
    let _flushing = writer.flushing.lock().await;
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
        // All tables are written at once, on as many cores as there are; they are committed in their order.
        let standing = positions(shared, writer, tenant, state).await?;
        let mut written: Vec<_> = Table::ALL
            .into_iter()
            .map(|table| (standing[table as usize] < view.segment.to).then(|| write_in_background(table, &view)))
            .collect();
        for table in Table::ALL {
            let Some(files) = written[table as usize].take() else { continue };
            let mut moved = commit_table(shared, writer, tenant, state, table, view.segment.to, files).await?;
            while let Some(position) = moved {
                set_position(shared, writer, tenant, state, table, position).await?;
                state.buffer.unwant_oldest(table, position);
                let Some(view) = state.buffer.oldest_frozen() else { break };
                let files = write_in_background(table, &view);
                moved = commit_table(shared, writer, tenant, state, table, view.segment.to, files).await?;
            }
        }
        state.buffer.release_oldest();
    }
    Ok(())
}

type Writing = JoinHandle<Result<Written, ::parquet::errors::ParquetError>>;

fn write_in_background(table: Table, view: &Arc<View>) -> Writing {
    let view = Arc::clone(view);
    tokio::task::spawn_blocking(move || write_files(table, &view))
}

/// Puts and commits one table's share of a segment. `Some(position)`: another owner of the log committed that far.
async fn commit_table(
    shared: &Shared,
    writer: &Writer,
    tenant: &TenantId,
    state: &Arc<TenantState>,
    table: Table,
    to: u64,
    writing: Writing,
) -> Result<Option<u64>> {
    let written = writing.await.map_err(|_| IngestError::Stopped)?;
    let written = written.map_err(|source| IngestError::Parquet { table: table.name(), source })?;
    if written.files.is_empty() {
        return Ok(None);
    }
    let objects = shared.catalog.store();
    let root = store::table_root(tenant, table.name());
    for (file, body) in &written.files {
        let path = file.path.split('/').fold(root.clone(), |path, part| path.join(part));
        objects.put(&path, body.clone()).await?;
    }
    if let Some((id, body)) = &written.index {
        objects.put(&store::index_file(tenant, table.name(), *id), body.clone()).await?;
    }
    let files: Vec<NewFile> = written.files.into_iter().map(|(file, _)| file).collect();
    let from = positions(shared, writer, tenant, state).await?[table as usize];
    let append = Append { writer: writer.id().clone(), from, to, files };
    match shared.catalog.commit(tenant, table, Change::Append(append)).await? {
        Committed::Done { version } => {
            tracing::debug!(%tenant, table = table.name(), version, from, to, "flushed");
            set_position(shared, writer, tenant, state, table, to).await?;
            Ok(None)
        }
        Committed::Nothing => {
            set_position(shared, writer, tenant, state, table, to).await?;
            Ok(None)
        }
        Committed::Moved { position } => Ok(Some(position)),
        Committed::Behind { position } => Err(IngestError::Corrupt {
            writer: writer.id().clone(),
            reason: format!("{} of {tenant} stands at {position}, before {from}", table.name()),
        }),
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

struct Written {
    files: Vec<(NewFile, Bytes)>,
    index: Option<(Uuid, Bytes)>,
}

/// The files of one table, one per home day, and the index object over them.
fn write_files(table: Table, view: &View) -> Result<Written, ::parquet::errors::ParquetError> {
    let index_id = Uuid::now_v7();
    let mut files = Vec::new();
    let mut indexes = Vec::new();
    let keys = table.key_columns();
    for rows in rows::days(table, &view.segment, view.settings()) {
        let mut hashes = Vec::new();
        let batches = rows.batches.inspect(|batch| hashes.extend(parquet::key_hashes(keys, batch)));
        let written = parquet::write(table, batches)?;
        let path = store::data_file(rows.day, Uuid::now_v7());
        if !keys.is_empty() {
            indexes.push(FileIndex { path: path.clone(), keys: KeyFilter::of(hashes) });
        }
        let file = NewFile {
            path,
            day: rows.day,
            size_bytes: written.bytes.len() as u64,
            footer_bytes: written.footer_bytes,
            time_us: written.time_us,
            stats: written.delta_stats(table),
            index: (!keys.is_empty()).then(|| index_id.to_string()),
            rewrites: 0,
        };
        files.push((file, written.bytes));
    }
    let index = (!indexes.is_empty()).then(|| {
        let object = IndexObject { table: table.name().to_owned(), files: indexes };
        (index_id, index::encode(&object))
    });
    Ok(Written { files, index })
}
