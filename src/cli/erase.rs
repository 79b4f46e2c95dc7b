//! `tracelake erase` and `tracelake erasures`: what is to be forgotten, and how far it has come.

use std::io::Write;

use comfy_table::Cell;

use super::tables::{bare, right};
use super::{CliError, Connection};
use crate::base::Day;
use crate::wire::{EraseRequest, Erasure, ErasureKind, ErasureState, ListErasuresRequest};

/// Whom or what to forget.
#[derive(Debug, Clone, Default, clap::Args)]
#[group(required = true, multiple = false)]
pub struct Subject {
    /// A trace, with its observations, texts and scores; may be given several times
    #[arg(long)]
    pub trace: Vec<String>,
    /// A session, with its traces
    #[arg(long)]
    pub session: Vec<String>,
    /// A user, with all traces of theirs
    #[arg(long)]
    pub user: Vec<String>,
}

/// Asks, and says what came of it.
pub async fn erase(connection: &Connection, subject: Subject, out: &mut dyn Write) -> Result<(), CliError> {
    let Subject { trace, session, user } = subject;
    let all = [(ErasureKind::Trace, trace), (ErasureKind::Session, session), (ErasureKind::User, user)];
    for (kind, values) in all.into_iter().filter(|(_, values)| !values.is_empty()) {
        let answer = connection.erase(EraseRequest { kind: kind.into(), values }).await?;
        let Some(erasure) = answer.erasure else { continue };
        let rows: Vec<String> = sorted(&erasure).iter().map(|(table, count)| format!("{count} of {table}")).collect();
        let rows = if rows.is_empty() { "no rows were there".to_owned() } else { rows.join(", ") };
        writeln!(out, "erasure {}: no answer shows it any more ({rows})", erasure.id)?;
        writeln!(out, "files and the log follow by themselves: tracelake erasures")?;
    }
    Ok(())
}

/// All erasures of the tenant, oldest first.
pub async fn erasures(connection: &Connection, out: &mut dyn Write) -> Result<(), CliError> {
    let mut table = bare();
    table.set_header(["id", "what", "state", "asked by", "asked", "rows", "files written again", "last copy gone"]);
    for erasure in connection.list_erasures(ListErasuresRequest {}).await?.erasures {
        let kind = ErasureKind::try_from(erasure.kind).map_or("", |kind| words(kind.as_str_name(), "ERASURE_KIND_"));
        let state = ErasureState::try_from(erasure.state).map_or("", |it| words(it.as_str_name(), "ERASURE_STATE_"));
        let rows: u64 = erasure.rows.values().sum();
        table.add_row(vec![
            Cell::new(&erasure.id),
            Cell::new(format!("{} {}", erasure.subjects.len(), kind.to_lowercase())),
            Cell::new(state.to_lowercase()),
            Cell::new(&erasure.asked_by),
            Cell::new(Day::of_us(erasure.asked_unix_micros)),
            right(rows),
            right(erasure.files_rewritten),
            Cell::new(erasure.done_unix_micros.map_or(String::new(), |us| Day::of_us(us).to_string())),
        ]);
    }
    writeln!(out, "{table}")?;
    Ok(())
}

fn sorted(erasure: &Erasure) -> Vec<(&String, &u64)> {
    let mut rows: Vec<_> = erasure.rows.iter().collect();
    rows.sort();
    rows
}

fn words<'a>(name: &'a str, prefix: &str) -> &'a str {
    name.strip_prefix(prefix).unwrap_or(name)
}
