//! No key stands in two live files (I2): checked over all keys of a table, a share of them at a time.

use std::collections::{BTreeMap, HashSet};

use arrow::array::{AsArray, StringViewArray};
use futures::TryStreamExt;

use super::files::{Unread, as_views, unread};
use super::finding::Place;
use super::{Result, Round};
use crate::base::TenantId;
use crate::catalog::Snapshot;
use crate::format::parquet;
use crate::model::tables::Table;

/// Keys held at once, 8 bytes each: tables with more are read several times.
const KEYS_AT_ONCE: u64 = 16_000_000;
/// Keys looked at for real, and told, when hashes meet.
const SUSPECTS_MAX: usize = 10_000;
const TOLD_MAX: usize = 10;

/// The hashes of one share of a table's keys.
#[derive(Debug)]
pub(super) struct Standing {
    hashes: Vec<u64>,
    share: u64,
    shares: u64,
}

impl Standing {
    pub(super) fn of(table: Table, snapshot: &Snapshot) -> Self {
        let rows = if table.key_columns().is_empty() { 0 } else { snapshot.rows() };
        Self { hashes: Vec::new(), share: 0, shares: rows.div_ceil(KEYS_AT_ONCE).max(1) }
    }

    pub(super) fn take(&mut self, hashes: &[u64]) {
        let (share, shares) = (self.share, self.shares);
        let is_ours = |hash: &&u64| (u128::from(**hash) * u128::from(shares)) >> 64 == u128::from(share);
        self.hashes.extend(hashes.iter().filter(is_ours));
    }

    /// Hashes that came more than once.
    fn met(&mut self) -> HashSet<u64> {
        self.hashes.sort_unstable();
        let twice = self.hashes.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]);
        twice.take(SUSPECTS_MAX).collect()
    }
}

impl Round {
    /// `standing` holds the first share already.
    pub(super) async fn unique(
        &mut self,
        tenant: &TenantId,
        table: Table,
        snapshot: &Snapshot,
        mut standing: Standing,
    ) -> Result<()> {
        if table.key_columns().is_empty() {
            return Ok(());
        }
        loop {
            let met = standing.met();
            if !met.is_empty() {
                self.tell_twins(tenant, table, snapshot, &met).await?;
            }
            standing = Standing { hashes: Vec::new(), share: standing.share + 1, shares: standing.shares };
            if standing.share == standing.shares {
                return Ok(());
            }
            for file in snapshot.files.values() {
                // What cannot be read was told before.
                let Ok((_, mut batches)) = self.open(tenant, table, file, table.key_columns()).await else { continue };
                while let Ok(Some(batch)) = batches.try_next().await {
                    standing.take(&parquet::key_hashes(table.key_columns(), &as_views(&batch)));
                }
            }
        }
    }

    /// Reads the keys behind hashes that met: two keys of one hash are no twins.
    async fn tell_twins(
        &mut self,
        tenant: &TenantId,
        table: Table,
        snapshot: &Snapshot,
        met: &HashSet<u64>,
    ) -> Result<()> {
        let names = table.key_columns();
        let mut places: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for file in snapshot.files.values() {
            let Ok((_, mut batches)) = self.open(tenant, table, file, names).await else { continue };
            loop {
                let batch = match batches.try_next().await.map_err(unread) {
                    Ok(Some(batch)) => as_views(&batch),
                    Err(Unread::Away(error)) => return Err(error),
                    Ok(None) | Err(Unread::Damaged(_)) => break,
                };
                let columns: Vec<&StringViewArray> =
                    names.iter().filter_map(|name| Some(batch.column_by_name(name)?.as_string_view())).collect();
                for (row, hash) in parquet::key_hashes(names, &batch).into_iter().enumerate() {
                    if met.contains(&hash) {
                        let key: Vec<&str> = columns.iter().map(|column| column.value(row)).collect();
                        places.entry(key.join(" ")).or_default().push(&file.path);
                    }
                }
            }
        }
        places.retain(|_, files| files.len() > 1);
        let place = Place::table(tenant, table);
        for (key, files) in places.iter().take(TOLD_MAX) {
            let what = format!("{key} stands {} times: in {}", files.len(), files.join(" and "));
            self.found.error(&place, what);
        }
        if places.len() > TOLD_MAX {
            self.found.error(&place, format!("{} more keys stand more than once", places.len() - TOLD_MAX));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_of_a_large_table_hold_every_key_once() {
        let hashes: Vec<u64> = (0..1000u64).map(|at| at.wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect();
        let mut held = Vec::new();
        for share in 0..7 {
            let mut standing = Standing { hashes: Vec::new(), share, shares: 7 };
            standing.take(&hashes);
            assert!((90..200).contains(&standing.hashes.len()), "{}", standing.hashes.len());
            assert!(standing.met().is_empty());
            standing.take(&hashes[..10]);
            assert_eq!(standing.met().len(), hashes[..10].iter().filter(|hash| standing.hashes.contains(hash)).count());
            standing.hashes.dedup();
            held.extend(standing.hashes);
        }
        held.sort_unstable();
        let mut all = hashes;
        all.sort_unstable();
        assert_eq!(held, all);
    }
}
