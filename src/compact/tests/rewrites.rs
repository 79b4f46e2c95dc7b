//! A rewrite is the sorted union of its inputs, whatever they weigh.

use std::sync::Arc;

use arrow::array::RecordBatch;
use object_store::memory::InMemory;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use proptest::prelude::*;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::tables::*;
use crate::base::{Budget, ByteSize};
use crate::catalog::{Catalog, Change, NoRollups, Rewrite};
use crate::compact::plan::{Job, JobKind};
use crate::compact::rewrite::{Rewritten, Workplace, rewrite};
use crate::compact::{CompactError, Fold, NoFold, Result};
use crate::model::tables::Table;
use crate::store::Location;

fn memory() -> Location {
    Location::Memory(Arc::new(InMemory::new()))
}

async fn job(catalog: &Catalog, table: Table) -> Job {
    let snapshot = catalog.snapshot(&tenant(), table).await.unwrap();
    Job { day: day(), kind: JobKind::Tier, inputs: snapshot.files.values().cloned().collect() }
}

struct Limits {
    memory: ByteSize,
    target: ByteSize,
}

const WIDE: Limits = Limits { memory: ByteSize::mib(256), target: ByteSize::mib(256) };

async fn rewrite_all(catalog: &Catalog, table: Table, limits: &Limits, fold: &dyn Fold) -> Result<Rewritten> {
    let budget = Budget::new("test", limits.memory);
    let (_, clock) = over(catalog.store().clone());
    let place = Workplace {
        store: catalog.store(),
        clock: &clock,
        budget: &budget,
        memory_max: limits.memory,
        target_bytes: limits.target,
        rollups: &NoRollups,
    };
    let rewritten = rewrite(place, &tenant(), table, &job(catalog, table).await, fold).await?;
    assert_eq!(budget.used(), 0, "all memory is given back");
    assert!(rewritten.memory_most <= limits.memory.bytes(), "I7: {} bytes", rewritten.memory_most);
    Ok(rewritten)
}

async fn commit(catalog: &Catalog, table: Table, rewritten: &Rewritten) {
    catalog.commit(&tenant(), table, rewritten.change()).await.unwrap();
}

async fn merge_equals_sorted_union(seed: u64) {
    let mut random = SmallRng::seed_from_u64(seed);
    for table in Table::ALL {
        let (catalog, _) = catalog(&memory()).await;
        let mut flushed = Vec::new();
        for _ in 0..random.random_range(2..7) {
            let count = [1, 3, 50, 400, 3_000][random.random_range(0..5)];
            let batch = rows(table, count, random.random_range(0..300), &mut random);
            flush(&catalog, table, &batch).await;
            flushed.push(batch);
        }
        // Small targets cut outputs; little memory makes windows small.
        let limits = Limits {
            memory: ByteSize::mib([64, 256][random.random_range(0..2)]),
            target: ByteSize::kib([4, 40, 10_000][random.random_range(0..3)]),
        };
        let rewritten = rewrite_all(&catalog, table, &limits, &NoFold).await.unwrap();
        assert_eq!(rewritten.rows_in, rewritten.rows_out + rewritten.merged, "I8");
        commit(&catalog, table, &rewritten).await;
        assert_same(table, &read(&catalog, table).await, &flushed);
        let live = catalog.snapshot(&tenant(), table).await.unwrap();
        assert!(live.files.values().all(|file| file.rewrites == 1));
        if limits.target > ByteSize::mib(1) {
            assert_eq!(live.files.len(), 1);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, ..ProptestConfig::default() })]

    #[test]
    fn a_rewrite_is_the_sorted_union_of_its_inputs(seed in any::<u64>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(merge_equals_sorted_union(seed));
    }
}

#[tokio::test]
async fn row_groups_of_merged_files_are_worth_a_request() {
    let (catalog, _) = catalog(&memory()).await;
    let mut random = SmallRng::seed_from_u64(9);
    for _ in 0..2 {
        flush(&catalog, Table::Observations, &rows(Table::Observations, 20_000, 100, &mut random)).await;
    }
    // What is merged again is read whole, group by group; what is large already is there to be asked.
    for (target, most) in [(ByteSize::mib(256), 3), (ByteSize::mib(8), 1)] {
        let limits = Limits { target, ..WIDE };
        let rewritten = rewrite_all(&catalog, Table::Observations, &limits, &NoFold).await.unwrap();
        let file = &rewritten.outputs[0];
        let path = crate::store::data_object(&tenant(), Table::Observations.name(), &file.path);
        let body = catalog.store().get(&path).await.unwrap().unwrap();
        let parquet = ParquetRecordBatchReaderBuilder::try_new(body).unwrap();
        let groups = parquet.metadata().num_row_groups();
        assert!(groups <= most, "{groups} row groups of {} bytes", file.size_bytes);
    }
}

#[tokio::test]
async fn outputs_are_cut_where_the_sort_key_changes() {
    let (catalog, _) = catalog(&memory()).await;
    let mut random = SmallRng::seed_from_u64(7);
    for _ in 0..4 {
        flush(&catalog, Table::ObservationIo, &rows(Table::ObservationIo, 2_000, 100, &mut random)).await;
    }
    let limits = Limits { memory: ByteSize::mib(256), target: ByteSize::kib(100) };
    let rewritten = rewrite_all(&catalog, Table::ObservationIo, &limits, &NoFold).await.unwrap();
    assert!(rewritten.outputs.len() >= 3, "{} outputs", rewritten.outputs.len());
    commit(&catalog, Table::ObservationIo, &rewritten).await;
    let snapshot = catalog.snapshot(&tenant(), Table::ObservationIo).await.unwrap();
    let mut whose = std::collections::BTreeMap::new();
    for file in snapshot.files.values() {
        let path = crate::store::data_object(&tenant(), "observation_io", &file.path);
        let body = catalog.store().get(&path).await.unwrap().unwrap();
        let reader = ::parquet::arrow::arrow_reader::ParquetRecordBatchReader::try_new(body, 10_000).unwrap();
        for batch in reader.map(Result::unwrap) {
            let traces = arrow::compute::cast(&batch["trace_id"], &arrow::datatypes::DataType::Utf8View).unwrap();
            for trace in arrow::array::AsArray::as_string_view(&traces).iter().flatten() {
                let whose = whose.entry(trace.to_owned()).or_insert_with(|| file.path.clone());
                assert_eq!(*whose, file.path, "{trace} lies in two files");
            }
        }
    }
}

/// One row of 10 MB in every file, and little memory.
#[tokio::test]
async fn rows_of_ten_megabytes_are_merged_in_little_memory() {
    let (catalog, _) = catalog(&memory()).await;
    let mut random = SmallRng::seed_from_u64(3);
    let mut flushed = Vec::new();
    for _ in 0..4 {
        let small = rows(Table::ObservationIo, 300, 2_000, &mut random);
        let large = rows(Table::ObservationIo, 1, 10 << 20, &mut random);
        let both = arrow::compute::concat_batches(&small.schema(), &[small, large]).unwrap();
        let both = crate::format::parquet::sort(Table::ObservationIo, &both).unwrap();
        flush(&catalog, Table::ObservationIo, &both).await;
        flushed.push(both);
    }
    let limits = Limits { memory: ByteSize::mib(96), target: ByteSize::mib(256) };
    let rewritten = rewrite_all(&catalog, Table::ObservationIo, &limits, &NoFold).await.unwrap();
    println!("held at most {} MiB", rewritten.memory_most >> 20);
    commit(&catalog, Table::ObservationIo, &rewritten).await;
    assert_same(Table::ObservationIo, &read(&catalog, Table::ObservationIo).await, &flushed);
}

#[tokio::test]
async fn what_does_not_fit_is_said_and_not_tried() {
    let (catalog, _) = catalog(&memory()).await;
    let mut random = SmallRng::seed_from_u64(3);
    for _ in 0..30 {
        flush(&catalog, Table::Scores, &rows(Table::Scores, 2, 0, &mut random)).await;
    }
    let limits = Limits { memory: ByteSize::mib(48), target: ByteSize::mib(256) };
    let refused = rewrite_all(&catalog, Table::Scores, &limits, &NoFold).await.unwrap_err();
    assert!(matches!(refused, CompactError::OverBudget { files: 30, .. }), "{refused}");
}

/// Drops rows by key and brings others: what a late change does.
struct Replace {
    key: String,
    rows: Vec<RecordBatch>,
}

impl Fold for Replace {
    fn keep(&self, rows: RecordBatch) -> Result<RecordBatch, arrow::error::ArrowError> {
        let ids = arrow::array::AsArray::as_string_view(&rows["id"]);
        let stays: arrow::array::BooleanArray = ids.iter().map(|id| Some(id != Some(&self.key))).collect();
        arrow::compute::filter_record_batch(&rows, &stays)
    }

    fn replacements(&self) -> Vec<RecordBatch> {
        self.rows.clone()
    }
}

#[tokio::test]
async fn a_fold_replaces_rows_on_the_way() {
    let (catalog, _) = catalog(&memory()).await;
    let mut random = SmallRng::seed_from_u64(5);
    let batches: Vec<RecordBatch> = (0..3).map(|_| rows(Table::Observations, 500, 0, &mut random)).collect();
    for batch in &batches {
        flush(&catalog, Table::Observations, batch).await;
    }
    let key = arrow::array::AsArray::as_string_view(&batches[1]["id"]).value(250).to_owned();
    let new = rows(Table::Observations, 1, 0, &mut random);
    let fold = Replace { key: key.clone(), rows: vec![new.clone()] };
    let rewritten = rewrite_all(&catalog, Table::Observations, &WIDE, &fold).await.unwrap();
    assert_eq!((rewritten.rows_in, rewritten.rows_out, rewritten.merged), (1_500, 1_500, 0));
    commit(&catalog, Table::Observations, &rewritten).await;
    let kept: Vec<RecordBatch> = batches.into_iter().map(|batch| fold.keep(batch).unwrap()).chain([new]).collect();
    assert_same(Table::Observations, &read(&catalog, Table::Observations).await, &kept);
    // Two rows that become one are declared.
    let fold = Replace { key: "nobody".to_owned(), rows: vec![rows(Table::Observations, 1, 0, &mut random)] };
    let refused = rewrite_all(&catalog, Table::Observations, &WIDE, &fold).await.unwrap_err();
    assert!(matches!(refused, CompactError::RowsDiffer { .. }), "{refused}: a replacement without its row");
}

#[tokio::test]
async fn the_books_say_the_same_in_fewer_rows() {
    let (catalog, _) = catalog(&memory()).await;
    let mut random = SmallRng::seed_from_u64(11);
    let batches: Vec<RecordBatch> = (0..5).map(|_| rows(Table::Ledger, 2_000, 0, &mut random)).collect();
    for batch in &batches {
        flush(&catalog, Table::Ledger, batch).await;
    }
    let rewritten = rewrite_all(&catalog, Table::Ledger, &WIDE, &NoFold).await.unwrap();
    assert!(rewritten.rows_out <= 2_000 && rewritten.merged == 10_000 - rewritten.rows_out);
    let undeclared = Change::Rewrite(Rewrite {
        inputs: rewritten.inputs.clone(),
        outputs: rewritten.outputs.clone(),
        dropped: rewritten.merged - 1,
        ..Default::default()
    });
    assert!(catalog.commit(&tenant(), Table::Ledger, undeclared).await.is_err(), "I8");
    commit(&catalog, Table::Ledger, &rewritten).await;
    assert_same(Table::Ledger, &read(&catalog, Table::Ledger).await, &batches);
}

#[tokio::test]
async fn a_file_that_is_not_sorted_or_not_whole_stops_the_rewrite() {
    let (catalog, _) = catalog(&memory()).await;
    let mut random = SmallRng::seed_from_u64(1);
    let sorted = rows(Table::Scores, 100, 0, &mut random);
    let order: arrow::array::UInt32Array = (0..100u32).rev().collect();
    let backwards = arrow::compute::take_record_batch(&sorted, &order).unwrap();
    flush(&catalog, Table::Scores, &rows(Table::Scores, 100, 0, &mut random)).await;
    flush(&catalog, Table::Scores, &backwards).await;
    let refused = rewrite_all(&catalog, Table::Scores, &WIDE, &NoFold).await.unwrap_err();
    assert!(refused.to_string().contains("not in the order"), "{refused}");
    // A file cut off in the middle.
    let snapshot = catalog.snapshot(&tenant(), Table::Scores).await.unwrap();
    let path = crate::store::data_object(&tenant(), "scores", snapshot.files.keys().next().unwrap());
    let body = catalog.store().get(&path).await.unwrap().unwrap();
    catalog.store().put(&path, body.slice(..body.len() / 2)).await.unwrap();
    assert!(rewrite_all(&catalog, Table::Scores, &WIDE, &NoFold).await.is_err());
}
