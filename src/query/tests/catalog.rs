//! Over the real catalog and the files as they are really written.

use super::*;
use crate::base::{ManualClock, WriterId};
use crate::catalog::{Append, Catalog, Change, Committed, NewFile, NoFreshRows};
use crate::model::Observation;
use crate::model::tables::{IoRow, OBSERVATION_IO};

async fn commit(catalog: &Catalog, tenant: &TenantId, table: Table, rows: RecordBatch, from: u64) {
    let day = Day::of_us(START_US);
    let written = crate::format::parquet::write(table, [crate::format::parquet::sort(table, &rows).unwrap()]).unwrap();
    let path = data_file(day, Uuid::new_v4());
    let file = NewFile {
        path: path.clone(),
        day,
        size_bytes: written.bytes.len() as u64,
        footer_bytes: written.footer_bytes,
        time_us: written.time_us,
        stats: written.delta_stats(table),
        index: None,
        rollups: Default::default(),
        rewrites: 0,
        undated: false,
    };
    let root = table_root(tenant, table.name());
    catalog.store().put(&Path::from(format!("{root}/{path}")), written.bytes).await.unwrap();
    let writer: WriterId = "main".parse().unwrap();
    let append =
        Append { writer, from, to: from + 1, files: vec![file], late: None, checked: None, merged: Default::default() };
    let done = catalog.commit(tenant, table, Change::Append(append)).await.unwrap();
    assert!(matches!(done, Committed::Done { .. }), "{done:?}");
}

#[tokio::test]
async fn what_is_committed_is_what_is_answered() {
    let store = Store::open(Location::Memory(Arc::new(InMemory::new()))).await.unwrap();
    let catalog = Catalog::new(store, Arc::new(ManualClock::at(START_US)));
    let engine = Engine::new(catalog.clone(), Arc::new(NoFreshRows), QueryLimits::default()).unwrap();
    let acme: TenantId = "acme".parse().unwrap();
    let answer = async |sql: &str| -> String {
        let stream = engine.sql(&acme, sql, SqlLimits::default()).await.unwrap();
        let batches: Vec<RecordBatch> = stream.try_collect().await.unwrap();
        pretty_format_batches(&batches).unwrap().to_string()
    };
    assert!(answer("SELECT count(*), sum(total_cost) FROM observations").await.contains("| 0 "));

    let rows = observations(1, 200, 10);
    for (at, half) in rows.chunks(100).enumerate() {
        commit(&catalog, &acme, Table::Observations, batch(Table::Observations, OBSERVATIONS, half), at as u64).await;
    }
    let io: Vec<IoRow> = rows
        .iter()
        .map(|row| {
            let mut observation = Observation::clone(&row.observation);
            observation.input = Some("a long question ".repeat(40));
            observation.output = Some(format!("answer to {}", row.observation.id));
            observation.attributes = BTreeMap::from([("llm.k".to_owned(), "v".to_owned())]);
            IoRow::Observation { observation: Arc::new(observation), start_us: row.start_us(), provenance: None }
        })
        .collect();
    for (at, half) in io.chunks(100).enumerate() {
        commit(&catalog, &acme, Table::ObservationIo, batch(Table::ObservationIo, OBSERVATION_IO, half), at as u64)
            .await;
    }
    assert!(answer("SELECT count(*) FROM observations").await.contains("| 200 "));
    let joined = "SELECT o.id, i.output, i.attributes['llm.k'] AS k FROM observations o
        JOIN observation_io i ON o.trace_id = i.trace_id AND o.id = i.id WHERE o.id = 'obs-1-42'";
    assert!(answer(joined).await.contains("| obs-1-42 | answer to obs-1-42 | v |"), "{}", answer(joined).await);
    let ordered = "SELECT trace_id, start_time, id FROM observation_io ORDER BY trace_id, start_time, id";
    let found = answer(ordered).await;
    let mut expected: Vec<(String, i64, String)> =
        rows.iter().map(|row| (row.observation.trace_id.clone(), row.start_us(), row.observation.id.clone())).collect();
    expected.sort();
    let ids: Vec<&str> = found.lines().filter(|line| line.contains("obs-1-")).collect();
    assert_eq!(ids.len(), 200);
    for (line, (.., id)) in ids.iter().zip(&expected) {
        assert!(line.contains(&format!("| {id} ")), "{line} is not {id}");
    }
}
