//! The arithmetic of a tenant's rows (I9): what the ledger says was stored is what stands in files, or was dropped. Beside
//! a server that is flushing it is not compared.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use futures::TryStreamExt;

use super::files::{Unread, as_views, unread};
use super::finding::Place;
use super::writers::Logs;
use super::{Result, Round};
use crate::base::TenantId;
use crate::catalog::{Catalog, Snapshot};
use crate::model::MediaCounts;
use crate::model::tables::Table;

/// What is counted. Media have no rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Of {
    Rows,
    Media,
}

/// By outcome.
type Sums = BTreeMap<(Of, String), i64>;

impl Round {
    pub(super) async fn books(&mut self, tenant: &TenantId, logs: &Logs) -> Result<()> {
        let place = Place::tenant(tenant);
        // As they stand now, the ledger first: it is the last table of a flush, so what it counts is in the others.
        let now = Catalog::new(self.store.clone(), Arc::clone(&self.clock));
        let [ledger, observations, scores] = [Table::Ledger, Table::Observations, Table::Scores];
        // A table that cannot be loaded was told of.
        let Ok(ledger) = now.snapshot(tenant, ledger).await else { return Ok(()) };
        let Ok(observations) = now.snapshot(tenant, observations).await else { return Ok(()) };
        let Ok(scores) = now.snapshot(tenant, scores).await else { return Ok(()) };
        let is_flushing = |table: &Snapshot| table.positions.iter().any(|(writer, at)| *at > ledger.position(writer));
        if logs.wait_for(tenant, &ledger) || is_flushing(&observations) || is_flushing(&scores) {
            self.found
                .note(&place, "the books were not compared: rows in the log are not in all tables yet".to_owned());
            return Ok(());
        }
        if ledger.dropped_rows > 0 {
            self.found.note(&place, "the books were not compared: the ledger's own days were dropped".to_owned());
            return Ok(());
        }
        let Some(sums) = self.sums(tenant, &ledger).await? else { return Ok(()) };
        let sum = |of: Of, outcome: &str| sums.get(&(of, outcome.to_owned())).copied().unwrap_or(0);
        let stands = observations.rows() + scores.rows();
        let dropped = observations.dropped_rows + scores.dropped_rows;
        let stored = sum(Of::Rows, "stored");
        if stored != (stands + dropped) as i64 {
            let what =
                format!("the ledger says that {stored} rows were stored; {stands} stand and {dropped} were dropped");
            self.found.error(&place, what);
        }
        for (of, what) in [(Of::Rows, ""), (Of::Media, " media")] {
            let received = sum(of, "received");
            let kept: i64 = ["stored", "merged", "rejected", "erased"].map(|outcome| sum(of, outcome)).iter().sum();
            if received != kept {
                let what = format!("the ledger says that {received}{what} were received, and tells the fate of {kept}");
                self.found.error(&place, what);
            }
        }
        Ok(())
    }

    /// The ledger's counts by outcome; `None` if some of it cannot be read, which was told.
    async fn sums(&self, tenant: &TenantId, ledger: &Snapshot) -> Result<Option<Sums>> {
        let mut sums = Sums::new();
        for file in ledger.files.values() {
            let opened = self.open(tenant, Table::Ledger, file, &["door", "outcome", "count"]).await;
            let Ok((_, mut batches)) = opened else { return Ok(None) };
            loop {
                let batch = match batches.try_next().await.map_err(unread) {
                    Ok(Some(batch)) => as_views(&batch),
                    Ok(None) => break,
                    Err(Unread::Away(error)) => return Err(error),
                    Err(Unread::Damaged(_)) => return Ok(None),
                };
                let column = |name: &str| batch.column_by_name(name);
                let (Some(doors), Some(outcomes), Some(counts)) = (column("door"), column("outcome"), column("count"))
                else {
                    return Ok(None);
                };
                let counted = outcomes.as_string_view().iter().zip(counts.as_primitive::<Int64Type>());
                for (door, (outcome, count)) in doors.as_string_view().iter().zip(counted) {
                    let of = if door == Some(MediaCounts::DOOR) { Of::Media } else { Of::Rows };
                    *sums.entry((of, outcome.unwrap_or_default().to_owned())).or_default() += count.unwrap_or(0);
                }
            }
        }
        Ok(Some(sums))
    }
}
