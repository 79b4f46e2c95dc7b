//! Tables with random rows, and what must hold of them whatever was merged.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryViewArray, BooleanArray, Decimal128Array, Decimal128Builder, Float64Array,
    Int64Array, Int64Builder, ListBuilder, MapBuilder, MapFieldNames, RecordBatch, StringBuilder, StringViewArray,
    TimestampMicrosecondArray,
};
use arrow::compute::{SortColumn, concat_batches, lexsort_to_indices, take_record_batch};
use arrow::datatypes::{DataType, Field, Int64Type, TimestampMicrosecondType};
use rand::Rng;
use rand::rngs::SmallRng;
use uuid::Uuid;

use crate::base::{Clock, Day, ManualClock, TenantId, WriterId};
use crate::catalog::{Append, Catalog, Change, NewFile};
use crate::format::index::{self, FileIndex, IndexObject, KeyFilter};
use crate::format::parquet;
use crate::model::tables::{ColumnType, Table};
use crate::store::{self, Location, Store};

pub(super) const NOW_US: i64 = 20_000 * Day::US + Day::US / 2;

pub(super) fn tenant() -> TenantId {
    "acme".parse().unwrap()
}

pub(super) fn day() -> Day {
    Day::from_days(19_990)
}

/// A catalog of its own, as another process would have.
pub(super) async fn catalog(location: &Location) -> (Catalog, ManualClock) {
    over(Store::open(location.clone()).await.unwrap())
}

pub(super) fn over(store: Store) -> (Catalog, ManualClock) {
    let clock = ManualClock::at(NOW_US);
    (Catalog::new(store, Arc::new(clock.clone())), clock)
}

/// Rows of `table` with keys nobody else has, in the table's order. `text_bytes` is about what a row's input weighs.
pub(super) fn rows(table: Table, count: usize, text_bytes: usize, random: &mut SmallRng) -> RecordBatch {
    let start_us = day().start_us();
    // Few traces and few times, so that files overlap and equal sort keys lie in several files.
    let traces: Vec<String> = (0..count).map(|_| format!("trace-{:02}", random.random_range(0..12))).collect();
    let columns = table.columns().into_iter().map(|(name, kind, _)| match (name, kind) {
        ("trace_id", _) if table == Table::TraceFacts => texts((0..count).map(|_| Some(unique("trace", random)))),
        ("trace_id", _) => texts(traces.iter().cloned().map(Some)),
        ("id", _) => texts((0..count).map(|_| Some(unique("a-rather-long-id", random)))),
        ("start_time" | "timestamp" | "ingested_at", _) => {
            let time = |_| start_us + random.random_range(0..500) * 1_000_000;
            Arc::new(TimestampMicrosecondArray::from_iter_values((0..count).map(time)).with_timezone("UTC"))
        }
        ("input", _) => texts((0..count).map(|_| (!random.random_bool(0.1)).then(|| text(text_bytes, random)))),
        ("door", _) => texts((0..count).map(|_| Some(format!("door-{}", random.random_range(0..2))))),
        ("outcome", _) => texts((0..count).map(|_| Some("stored".to_owned()))),
        ("reason", _) => texts((0..count).map(|_| random.random_bool(0.5).then(|| "too large".to_owned()))),
        ("count", _) => Arc::new(Int64Array::from_iter_values((0..count).map(|_| random.random_range(1..9)))),
        (_, kind) => filled(kind, count, random),
    });
    let batch = RecordBatch::try_new(table.file_schema(), columns.collect()).unwrap();
    parquet::sort(table, &batch).unwrap()
}

fn unique(what: &str, random: &mut SmallRng) -> String {
    format!("{what}-{:016x}", random.random::<u64>())
}

/// Text that hardly shrinks.
fn text(bytes: usize, random: &mut SmallRng) -> String {
    let mut text = String::with_capacity(bytes + 16);
    while text.len() < bytes {
        text.push_str(&format!("{:016x}", random.random::<u64>()));
    }
    text
}

fn texts(values: impl Iterator<Item = Option<String>>) -> ArrayRef {
    Arc::new(values.collect::<StringViewArray>())
}

fn filled(kind: ColumnType, count: usize, random: &mut SmallRng) -> ArrayRef {
    let mut maybe = |most: i64| (!random.random_bool(0.2)).then(|| random.random_range(0..most));
    let names = || Some(MapFieldNames { entry: "key_value".into(), key: "key".into(), value: "value".into() });
    match kind {
        ColumnType::Text => texts((0..count).map(|_| maybe(9).map(|n| format!("one of few long values, number {n}")))),
        ColumnType::Long => Arc::new((0..count).map(|_| maybe(1 << 40)).collect::<Int64Array>()),
        ColumnType::Double => Arc::new((0..count).map(|_| maybe(100).map(|n| n as f64)).collect::<Float64Array>()),
        ColumnType::Boolean => Arc::new((0..count).map(|_| maybe(2).map(|n| n == 1)).collect::<BooleanArray>()),
        ColumnType::Timestamp => {
            Arc::new((0..count).map(|_| maybe(1 << 50)).collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
        }
        ColumnType::Money => {
            let amounts: Decimal128Array = (0..count).map(|_| maybe(1 << 50).map(i128::from)).collect();
            Arc::new(amounts.with_data_type(kind.arrow()))
        }
        ColumnType::Binary => {
            let bytes: Vec<_> = (0..count).map(|_| maybe(1 << 40).map(|n| n.to_le_bytes())).collect();
            Arc::new(bytes.iter().map(|bytes| bytes.as_ref().map(|b| b.as_slice())).collect::<BinaryViewArray>())
        }
        ColumnType::TextList => {
            let field = Field::new("element", DataType::Utf8, true);
            let mut builder = ListBuilder::new(StringBuilder::new()).with_field(field);
            for _ in 0..count {
                (0..maybe(4).unwrap_or(0)).for_each(|n| builder.values().append_value(format!("tag {n}")));
                builder.append(true);
            }
            Arc::new(builder.finish())
        }
        ColumnType::TextMap => {
            let mut builder = MapBuilder::new(names(), StringBuilder::new(), StringBuilder::new());
            for _ in 0..count {
                for n in 0..maybe(4).unwrap_or(0) {
                    builder.keys().append_value(format!("key {n}"));
                    builder.values().append_option(maybe(99).map(|n| n.to_string()));
                }
                builder.append(true).unwrap();
            }
            Arc::new(builder.finish())
        }
        ColumnType::LongMap => {
            let mut builder = MapBuilder::new(names(), StringBuilder::new(), Int64Builder::new());
            for _ in 0..count {
                for n in 0..maybe(3).unwrap_or(0) {
                    builder.keys().append_value(format!("key {n}"));
                    builder.values().append_option(maybe(99));
                }
                builder.append(true).unwrap();
            }
            Arc::new(builder.finish())
        }
        ColumnType::MoneyMap => {
            let values = Decimal128Builder::new().with_data_type(ColumnType::Money.arrow());
            let mut builder = MapBuilder::new(names(), StringBuilder::new(), values);
            for _ in 0..count {
                for n in 0..maybe(3).unwrap_or(0) {
                    builder.keys().append_value(format!("key {n}"));
                    builder.values().append_option(maybe(99).map(i128::from));
                }
                builder.append(true).unwrap();
            }
            Arc::new(builder.finish())
        }
    }
}

/// Puts and commits one file, as a flush does.
pub(super) async fn flush(catalog: &Catalog, table: Table, rows: &RecordBatch) {
    flush_as(catalog, table, rows, "main").await;
}

pub(super) async fn flush_as(catalog: &Catalog, table: Table, rows: &RecordBatch, writer: &str) {
    let written = parquet::write(table, [rows.clone()]).unwrap();
    let path = store::data_file(day(), Uuid::new_v4());
    let index_id = Uuid::new_v4();
    let keys = KeyFilter::of(parquet::key_hashes(table.key_columns(), rows));
    let files = vec![FileIndex { path: path.clone(), keys, traces: None }];
    let index = IndexObject { table: table.name().to_owned(), files };
    let objects = catalog.store();
    objects.put(&store::data_object(&tenant(), table.name(), &path), written.bytes.clone()).await.unwrap();
    objects
        .put(&store::index_file(&tenant(), table.name(), &index_id.to_string()), index::encode(&index))
        .await
        .unwrap();
    let file = NewFile {
        path,
        day: day(),
        size_bytes: written.bytes.len() as u64,
        footer_bytes: written.footer_bytes,
        time_us: written.time_us,
        stats: written.delta_stats(table),
        index: Some(index_id.to_string()),
        rollups: Default::default(),
        rewrites: 0,
        undated: false,
    };
    let writer: WriterId = writer.parse().unwrap();
    let from = catalog.known_snapshot(&tenant(), table).await.unwrap().position(&writer);
    let append =
        Append { writer, from, to: from + 1, files: vec![file], late: None, checked: None, merged: Default::default() };
    catalog.commit(&tenant(), table, Change::Append(append)).await.unwrap();
}

/// All rows of the live files, each file checked against its commit: rows, size, true times, order, keys.
pub(super) async fn read(catalog: &Catalog, table: Table) -> RecordBatch {
    let snapshot = catalog.snapshot(&tenant(), table).await.unwrap();
    let mut all = Vec::new();
    for file in snapshot.files.values() {
        let path = store::data_object(&tenant(), table.name(), &file.path);
        let body = catalog.store().get(&path).await.unwrap().expect("a live file is in the store");
        assert_eq!(body.len() as u64, file.size_bytes, "{}", file.path);
        let options = ::parquet::arrow::arrow_reader::ArrowReaderOptions::new().with_schema(table.file_schema());
        let reader =
            ::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new_with_options(body, options);
        let batches: Vec<RecordBatch> = reader.unwrap().build().unwrap().map(Result::unwrap).collect();
        let rows = concat_batches(&table.file_schema(), &batches).unwrap();
        assert_eq!(rows.num_rows() as u64, file.rows, "{}", file.path);
        assert_eq!(rows, in_order(table, &rows, false), "{} is sorted", file.path);
        let times = rows.column_by_name(table.time_column()).unwrap().as_primitive::<TimestampMicrosecondType>();
        let range = times.values().iter().min().zip(times.values().iter().max()).map(|(low, high)| (*low, *high));
        assert_eq!(file.time_us, range, "{}", file.path);
        if !table.key_columns().is_empty() {
            check_index(catalog, table, file, &rows).await;
        }
        all.push(rows);
    }
    let all = concat_batches(&table.file_schema(), &all).unwrap();
    let mut keys = BTreeSet::new();
    for hash in parquet::key_hashes(table.key_columns(), &all) {
        assert!(keys.insert(hash) || table.key_columns().is_empty(), "I2: a key stands twice in {}", table.name());
    }
    all
}

async fn check_index(catalog: &Catalog, table: Table, file: &crate::catalog::DataFile, rows: &RecordBatch) {
    let id: Uuid = file.index.as_deref().expect("files with keys have an index").parse().unwrap();
    let body =
        catalog.store().get(&store::index_file(&tenant(), table.name(), &id.to_string())).await.unwrap().unwrap();
    let object = index::decode(body).unwrap();
    let own = object.files.iter().find(|own| own.path == file.path).expect("it is in its index object");
    let has = own.keys.as_ref().unwrap().load();
    assert!(
        parquet::key_hashes(table.key_columns(), rows).into_iter().all(|hash| has.may_hold(hash)),
        "{} lacks a key",
        file.path
    );
    if table.has_trace_filters() && file.rewrites > 0 {
        let has = own.traces.as_ref().unwrap().load();
        let traces = parquet::trace_hashes(rows);
        assert!(traces.into_iter().all(|hash| has.may_hold(hash)), "{} lacks a trace", file.path);
    }
}

/// Rows in the table's order; with `keys`, those that are equal there by their keys.
pub(super) fn in_order(table: Table, rows: &RecordBatch, keys: bool) -> RecordBatch {
    let mut names: Vec<&str> = table.sort_columns().to_vec();
    if keys {
        names.extend(table.key_columns());
    }
    if names.is_empty() {
        return rows.clone();
    }
    let mut columns: Vec<SortColumn> = names
        .iter()
        .map(|name| SortColumn { values: rows.column_by_name(name).unwrap().clone(), options: None })
        .collect();
    // Where nothing else decides, rows stay as they are.
    columns
        .push(SortColumn { values: Arc::new(Int64Array::from_iter_values(0..rows.num_rows() as i64)), options: None });
    take_record_batch(rows, &lexsort_to_indices(&columns, None).unwrap()).unwrap()
}

/// The same rows, in whatever order and files.
#[track_caller]
pub(super) fn assert_same(table: Table, found: &RecordBatch, expected: &[RecordBatch]) {
    let expected = concat_batches(&table.file_schema(), expected).unwrap();
    if table == Table::Ledger {
        return assert_eq!(sums(found), sums(&expected));
    }
    assert_eq!(found.num_rows(), expected.num_rows(), "{}", table.name());
    let (found, expected) = (in_order(table, found, true), in_order(table, &expected, true));
    for (at, field) in table.file_schema().fields().iter().enumerate() {
        assert_eq!(found.column(at), expected.column(at), "{}.{}", table.name(), field.name());
    }
}

/// What the books say, by what was counted.
pub(super) fn sums(rows: &RecordBatch) -> BTreeMap<(i64, String, String, Option<String>), i64> {
    let text = |name: &str| rows.column_by_name(name).unwrap().as_string_view().clone();
    let (door, outcome, reason) = (text("door"), text("outcome"), text("reason"));
    let times = rows.column_by_name("ingested_at").unwrap().as_primitive::<TimestampMicrosecondType>();
    let counts = rows.column_by_name("count").unwrap().as_primitive::<Int64Type>();
    let mut sums = BTreeMap::new();
    for row in 0..rows.num_rows() {
        let reason = reason.is_valid(row).then(|| reason.value(row).to_owned());
        let key = (times.value(row), door.value(row).to_owned(), outcome.value(row).to_owned(), reason);
        *sums.entry(key).or_default() += counts.value(row);
    }
    sums
}

/// Live files of a table.
pub(super) async fn file_count(catalog: &Catalog, table: Table) -> usize {
    catalog.snapshot(&tenant(), table).await.unwrap().files.len()
}

pub(super) fn as_clock(clock: &ManualClock) -> Arc<dyn Clock> {
    Arc::new(clock.clone())
}
