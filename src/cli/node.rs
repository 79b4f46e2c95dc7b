//! `tracelake status` and `tracelake flush`: how a server is doing, and bringing what it holds into files now.

use std::io::Write;
use std::time::Duration;

use chrono::{DateTime, Utc};
use comfy_table::Cell;

use super::tables::{bare, right};
use super::{CliError, Connection, numbers};
use crate::base::{ByteSize, TimestampUs};
use crate::wire::{FlushRequest, GetStatusRequest};

/// Whose rows.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Whose {
    /// Another tenant than the key's own, for keys with the role `platform`
    #[arg(long, default_value = "")]
    tenant: String,
    /// All tenants, for keys with the role `platform`
    #[arg(long, conflicts_with = "tenant")]
    all_tenants: bool,
}

/// `now_us`: ages are counted from it.
pub async fn status(
    connection: &Connection,
    whose: Whose,
    now_us: TimestampUs,
    out: &mut dyn Write,
) -> Result<(), CliError> {
    let Whose { tenant, all_tenants } = whose;
    let status = connection.get_status(GetStatusRequest { tenant, all_tenants }).await?;
    let started = DateTime::<Utc>::from_timestamp_micros(status.started_unix_micros).unwrap_or_default();
    let started = started.format("%Y-%m-%d %H:%M:%S");
    writeln!(out, "tracelake {}, log {}, up since {started} UTC", status.version, status.writer)?;
    match status.is_ready {
        true => writeln!(out, "ready")?,
        false => writeln!(out, "not ready: {}", status.not_ready_reason)?,
    }
    if !status.followed_logs.is_empty() {
        writeln!(out, "follows the logs of {}", status.followed_logs.join(", "))?;
    }
    let mut memory = bare();
    memory.set_header(vec![Cell::new("memory"), right("used"), right("limit")]);
    for one in status.memory {
        memory.add_row(vec![Cell::new(one.name), right(ByteSize(one.used_bytes)), right(ByteSize(one.limit_bytes))]);
    }
    writeln!(out, "{memory}")?;
    if status.held.is_empty() {
        writeln!(out, "all that was acked is in files")?;
        return Ok(());
    }
    let age = |since_us: Option<TimestampUs>| {
        let age = since_us.map(|us| Duration::from_micros(now_us.saturating_sub(us).max(0) as u64));
        right(age.map_or_else(|| "—".to_owned(), |age| numbers::duration(age.as_secs_f64() * 1e3)))
    };
    let mut held = bare();
    held.set_header(vec![
        Cell::new("tenant"),
        Cell::new("log"),
        right("held in memory"),
        right("oldest"),
        right("waits for more since"),
    ]);
    for one in status.held {
        held.add_row(vec![
            Cell::new(one.tenant),
            Cell::new(one.writer),
            right(ByteSize(one.bytes)),
            age(one.oldest_unix_micros),
            age(one.waiting_since_unix_micros),
        ]);
    }
    writeln!(out, "{held}")?;
    Ok(())
}

/// On return every reader of the tables finds what was acked before.
pub async fn flush(connection: &Connection, whose: Whose, out: &mut dyn Write) -> Result<(), CliError> {
    let Whose { tenant, all_tenants } = whose;
    let flushed = connection.flush(FlushRequest { tenant, all_tenants }).await?;
    let mut tables = bare();
    tables.set_header(vec![Cell::new("tenant"), Cell::new("table"), right("version"), right("files"), right("rows")]);
    for table in flushed.tables {
        tables.add_row(vec![
            Cell::new(table.tenant),
            Cell::new(table.table),
            right(table.version),
            right(table.files),
            right(numbers::count(table.rows as i64)),
        ]);
    }
    writeln!(out, "{tables}")?;
    Ok(())
}
