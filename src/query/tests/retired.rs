//! Files that are deleted under a question: it is answered over the tables as they stand now, or told so; never with less.

use super::requests::{measure, request};
use super::*;
use crate::base::Kind;
use crate::store::data_object;
use crate::wire::Aggregation;

/// A catalog that is behind for the first so many snapshots of a table.
struct Behind {
    world: World,
    old: Snapshot,
    times: Mutex<u32>,
}

#[async_trait]
impl Snapshots for Behind {
    async fn snapshot(&self, tenant: &TenantId, table: Table) -> Result<Arc<Snapshot>, CatalogError> {
        let is_behind = table == Table::Observations && {
            let mut times = self.times.lock();
            *times = times.saturating_sub(1);
            *times > 0
        };
        match is_behind {
            true => Ok(Arc::new(self.old.clone())),
            false => self.world.snapshot(tenant, table).await,
        }
    }
}

/// An engine that sees a retired and deleted file of 300 rows for so many snapshots, then the one that replaced it.
async fn engine_behind(snapshots: u32) -> Engine {
    let setting = Setting::new(QueryLimits::default()).await;
    let rows = observations(3, 300, 24);
    setting.add_files("acme", &rows).await;
    let key = ("acme".to_owned(), Table::Observations);
    let old = setting.world.0.lock().snapshots.remove(&key).unwrap();
    setting.add_files("acme", &rows).await;
    for path in old.files.keys() {
        let object = data_object(&"acme".parse().unwrap(), Table::Observations.name(), path);
        setting.store.delete(&object).await.unwrap();
        for kind in RollupKind::ALL {
            let rollup = rollup_object(&"acme".parse().unwrap(), kind, Table::Observations.name(), path);
            setting.store.delete(&rollup).await.unwrap();
        }
    }
    let behind = Behind { world: setting.world.clone(), old, times: Mutex::new(snapshots + 1) };
    Engine::over(Arc::new(behind), setting.store, Arc::new(setting.world), QueryLimits::default(), None).unwrap()
}

async fn names(engine: &Engine) -> Result<usize, QueryError> {
    let statement = "SELECT name, input_tokens FROM observations";
    let tenant: TenantId = "acme".parse().unwrap();
    let answer = engine.sql(&tenant, statement, SqlLimits::default()).await?;
    let batches: Vec<RecordBatch> = answer.try_collect().await?;
    Ok(batches.iter().map(RecordBatch::num_rows).sum())
}

#[tokio::test]
async fn sql_plans_once_more_and_then_says_so() {
    assert_eq!(names(&engine_behind(1).await).await.unwrap(), 300);
    let error = names(&engine_behind(9).await).await.unwrap_err();
    assert!(matches!(error, QueryError::Gone), "{error}");
    assert_eq!((error.kind(), error.to_string().contains("ask again")), (Kind::Unavailable, true), "{error}");
}

#[tokio::test]
async fn so_do_metrics() {
    let question = || request(vec![measure(Aggregation::Sum, "input_tokens")], &[]);
    let tenant: TenantId = "acme".parse().unwrap();
    let told = engine_behind(0).await.metrics(&tenant, vec![question()]).await.unwrap();
    let again = engine_behind(1).await.metrics(&tenant, vec![question()]).await.unwrap();
    assert_eq!(again[0].rows, told[0].rows);
    let error = engine_behind(9).await.metrics(&tenant, vec![question()]).await.unwrap_err();
    assert!(matches!(error, QueryError::Gone), "{error}");
}
