//! A file is read in windows, whatever they share.

use std::sync::Arc;

use arrow::compute::concat_batches;
use object_store::memory::InMemory;
use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::tables::*;
use crate::base::ByteSize;
use crate::compact::input::FileInput;
use crate::compact::memory::Shares;
use crate::model::tables::Table;
use crate::store::Location;

/// Windows of the only file of a table, and after how many of them the reader went on with its pages. After the
/// `short`th, memory is short.
async fn windows(table: Table, shares: &Shares, short: Option<usize>) -> (usize, usize) {
    let (catalog, _) = catalog(&Location::Memory(Arc::new(InMemory::new()))).await;
    let mut random = SmallRng::seed_from_u64(11);
    let rows = rows(table, 12_000, 1_000, &mut random);
    flush(&catalog, table, &rows).await;
    let snapshot = catalog.snapshot(&tenant(), table).await.unwrap();
    let file = Arc::clone(snapshot.files.values().next().unwrap());
    let mut input = FileInput::open(catalog.store(), &tenant(), table, file, shares).await.unwrap();
    let (mut read, mut went_on) = (Vec::new(), 0);
    while let Some(window) = input.next().await.unwrap() {
        read.push(window);
        went_on += usize::from(input.goes_on());
        if Some(read.len()) == short {
            input.forget_pages();
        }
    }
    let schema = table.file_schema();
    assert_eq!(concat_batches(&schema, &read).unwrap(), concat_batches(&schema, [&rows]).unwrap());
    (read.len(), went_on)
}

#[tokio::test]
async fn pages_that_windows_share_are_decompressed_once_where_there_is_memory() {
    let shares = |inputs: u64| {
        let whole = Shares::of(ByteSize::mib(256), 1, None).unwrap();
        Shares { inputs, input: inputs, ..whole }
    };
    let (count, went_on) = windows(Table::Observations, &shares(24 << 20), None).await;
    assert!(count > 2, "{count} windows");
    assert_eq!(went_on, count - 1, "of {count} windows");
    let (count, went_on) = windows(Table::Observations, &shares(24 << 20), Some(2)).await;
    assert_eq!(went_on, 2, "of {count} windows, two before memory was short");
    // Large pages of text are not held, nor any where there is too little.
    for (table, inputs) in [(Table::ObservationIo, 12 << 20), (Table::Observations, 2 << 20)] {
        let (count, went_on) = windows(table, &shares(inputs), None).await;
        assert!(count > 2, "{count} windows of {table:?}");
        assert_eq!(went_on, 0, "of {count} windows of {table:?}");
    }
}
