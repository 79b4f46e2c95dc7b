//! `tracelake vacuum`: what upkeep would delete by and by, deleted now, and a table of what went.

use std::io::Write;
use std::sync::Arc;

use super::tables::{bare, right};
use super::{CliError, numbers};
use crate::base::{ByteSize, SystemClock, TenantId};
use crate::catalog::Catalog;
use crate::catalog::system::SystemError;
use crate::compact::{Gone, TableReport, Upkeep, UpkeepSettings, Vacuum};
use crate::store::{Location, Store};

/// What to vacuum.
#[derive(Debug)]
pub struct VacuumOrder {
    pub data: Location,
    /// `None`: all that are not deleted.
    pub tenant: Option<TenantId>,
    /// Only say what would go.
    pub dry_run: bool,
    pub settings: UpkeepSettings,
}

/// Vacuums and prints a table of what went. False: some table could not be vacuumed; the output says which and why.
pub async fn vacuum(order: VacuumOrder, out: &mut (dyn Write + Send)) -> Result<bool, CliError> {
    let store = match order.dry_run {
        true => Store::open_read_only(order.data)?,
        false => Store::open(order.data).await?,
    };
    let clock = Arc::new(SystemClock);
    let upkeep = Upkeep::new(Catalog::new(store, clock.clone()), clock, order.settings);
    let how = Vacuum { dry_run: order.dry_run, listing: true, at_once: true };
    if !order.dry_run {
        upkeep.check_clock().await?;
    }
    let live = upkeep.tenants().await?;
    let tenants = match order.tenant {
        Some(tenant) if !live.contains(&tenant) => return Err(SystemError::TenantMissing(tenant.to_string()).into()),
        Some(tenant) => vec![tenant],
        None => live,
    };
    let mut rows = Vec::new();
    for tenant in tenants {
        for (table, report) in upkeep.vacuum(&tenant, how).await? {
            rows.push((tenant.clone(), table.name(), report));
        }
    }
    write!(out, "{}", report(&rows, order.dry_run))?;
    Ok(rows.iter().all(|(_, _, report)| report.error.is_none()))
}

type Row = (TenantId, &'static str, TableReport);

fn report(rows: &[Row], dry_run: bool) -> String {
    let mut text = String::new();
    let told: Vec<&Row> = rows.iter().filter(|(_, _, report)| is_news(report)).collect();
    if told.is_empty() {
        text.push_str("nothing to vacuum\n");
    } else {
        let mut table = bare();
        table.set_header(["tenant", "table"].map(comfy_table::Cell::new).into_iter().chain(COLUMNS.map(right)));
        for (tenant, name, report) in &told {
            let cells = [tenant.to_string(), (*name).to_owned()].map(comfy_table::Cell::new).into_iter();
            table.add_row(cells.chain(gone_of(report).map(|gone| right(amount(gone)))));
        }
        text.push_str(&format!("{table}\n"));
        text.push_str(
            "over: files of days past retention, which left the table; removed: files that left it, deleted;\n",
        );
        text.push_str("lingering: those that queries may still read; orphans: objects that nothing names.\n");
        if dry_run {
            text.push_str("dry run: nothing was deleted\n");
        }
    }
    for (tenant, name, report) in rows {
        if let Some(error) = &report.error {
            text.push_str(&format!("{name} of {tenant} could not be vacuumed: {error}\n"));
        }
    }
    text
}

const COLUMNS: [&str; 5] = ["over", "removed", "lingering", "orphans", "old log"];

fn gone_of(report: &TableReport) -> [Gone; 5] {
    [report.dropped, report.retired, report.lingering, report.orphans, report.log]
}

fn is_news(report: &TableReport) -> bool {
    gone_of(report).iter().any(|gone| gone.objects > 0)
}

fn amount(gone: Gone) -> String {
    match gone.objects {
        0 => String::new(),
        objects => format!("{} ({})", numbers::count(objects as i64), ByteSize(gone.bytes)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_went_is_a_table_and_what_failed_is_named() {
        let gone = |objects, bytes| Gone { objects, bytes };
        let quiet = TableReport::default();
        let busy = TableReport {
            dropped: gone(2, 2048),
            retired: gone(1234, 5 << 30),
            log: gone(49, 100),
            ..TableReport::default()
        };
        let broken = TableReport { error: Some("commit 3 is missing".to_owned()), ..TableReport::default() };
        let acme: TenantId = "acme".parse().unwrap();
        let rows =
            [(acme.clone(), "observations", busy), (acme.clone(), "ledger", quiet.clone()), (acme, "scores", broken)];
        let text = report(&rows, true);
        let expected = "\
╭────────┬──────────────┬──────────┬──────────────┬───────────┬─────────┬───────────╮
│ tenant ┆ table        ┆     over ┆      removed ┆ lingering ┆ orphans ┆   old log │
╞════════╪══════════════╪══════════╪══════════════╪═══════════╪═════════╪═══════════╡
│ acme   ┆ observations ┆ 2 (2KiB) ┆ 1,234 (5GiB) ┆           ┆         ┆ 49 (100B) │
╰────────┴──────────────┴──────────┴──────────────┴───────────┴─────────┴───────────╯
";
        assert!(text.starts_with(expected), "{text}");
        assert!(text.contains("dry run: nothing was deleted"));
        assert!(text.ends_with("scores of acme could not be vacuumed: commit 3 is missing\n"), "{text}");
        assert_eq!(report(&[("a".parse().unwrap(), "scores", quiet)], false), "nothing to vacuum\n");
    }
}
