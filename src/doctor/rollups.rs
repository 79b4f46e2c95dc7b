//! The roll-ups of live files: there, and of as many rows as their file has.

use ::parquet::arrow::ProjectionMask;
use ::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use arrow::array::AsArray;
use arrow::compute;
use arrow::datatypes::Int64Type;
use bytes::Bytes;

use super::finding::Place;
use super::{Result, Round};
use crate::base::TenantId;
use crate::catalog::{DataFile, Snapshot};
use crate::format::rollup::{ROWS, RollupFacts};
use crate::model::tables::Table;
use crate::store;

impl Round {
    pub(super) async fn rollups(&mut self, tenant: &TenantId, table: Table, snapshot: &Snapshot) -> Result<()> {
        let place = Place::table(tenant, table);
        for file in snapshot.files.values() {
            for (kind, facts) in file.rollups.all().filter(|(_, facts)| facts.is_known()) {
                let path = store::rollup_object(tenant, kind, table.name(), &file.path);
                let which = format!("the {} of {}", kind.name(), file.path);
                let Some(body) = self.store.get(&path).await? else {
                    let what = format!("{which} is missing: questions go to its rows, at a second try");
                    self.found.warning(&place, what);
                    continue;
                };
                let Some(wrong) = wrong(file, facts, body) else { continue };
                if self.fix {
                    self.store.delete(&path).await?;
                }
                let what = format!("{which} {wrong}");
                self.found.error(&place, what).mend("delete it: questions then go to the rows", self.fix);
            }
        }
        Ok(())
    }
}

fn wrong(file: &DataFile, facts: RollupFacts, body: Bytes) -> Option<String> {
    if body.len() as u64 != facts.size_bytes {
        return Some(format!("has {} bytes where its add says {}", body.len(), facts.size_bytes));
    }
    match rows_in(body) {
        None => Some("cannot be read".to_owned()),
        Some(rows) if rows != file.rows => Some(format!("sums up {rows} rows of {}", file.rows)),
        Some(_) => None,
    }
}

/// How many rows were summed up.
fn rows_in(body: Bytes) -> Option<u64> {
    let mut rows = 0;
    let builder = ParquetRecordBatchReaderBuilder::try_new(body).ok()?;
    let mask = ProjectionMask::columns(builder.parquet_schema(), [ROWS]);
    for batch in builder.with_projection(mask).build().ok()? {
        let batch = batch.ok()?;
        rows += compute::sum(batch.column_by_name(ROWS)?.as_primitive_opt::<Int64Type>()?).unwrap_or(0);
    }
    rows.try_into().ok()
}
