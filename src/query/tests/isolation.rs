//! I5: whatever is asked, one tenant answers.

use super::*;
use crate::base::Kind;

async fn two_tenants() -> Setting {
    let setting = Setting::new(QueryLimits::default()).await;
    setting.add_files("acme", &observations(1, 30, 5)).await;
    setting.add_files("globex", &observations(2, 60, 5)).await;
    setting.add_fresh("globex", &observations(3, 9, 5));
    setting
}

#[tokio::test]
async fn each_tenant_sees_its_own_rows() {
    let setting = two_tenants().await;
    for (tenant, count) in [("acme", 30), ("globex", 69), ("initech", 0)] {
        let answer = setting.text(tenant, "SELECT count(*) AS n FROM observations").await;
        assert!(answer.contains(&format!("| {count} ")), "{tenant}: {answer}");
        let answer = setting.text(tenant, "SELECT count(model) AS n, count(*) AS c FROM observations").await;
        assert!(answer.contains(&format!("| {count} ")), "{tenant}: {answer}");
    }
}

#[tokio::test]
async fn hostile_sql_is_refused_and_names_no_other_tenant() {
    let setting = two_tenants().await;
    let globex_file = setting.world.0.lock().snapshots[&("globex".to_owned(), Table::Observations)]
        .files
        .keys()
        .next()
        .unwrap()
        .clone();
    let globex_file = format!("tenants/globex/observations/{globex_file}");
    let hostile = [
        "CREATE TABLE t AS SELECT 1".to_owned(),
        "CREATE VIEW v AS SELECT 1".to_owned(),
        "CREATE SCHEMA s".to_owned(),
        "CREATE DATABASE d".to_owned(),
        format!("CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION 'tenant://own/../{globex_file}'"),
        "CREATE FUNCTION f() RETURNS INT RETURN 1".to_owned(),
        "DROP TABLE observations".to_owned(),
        "INSERT INTO observations SELECT * FROM observations".to_owned(),
        "DELETE FROM observations".to_owned(),
        "UPDATE observations SET id = 'x'".to_owned(),
        "TRUNCATE TABLE observations".to_owned(),
        "COPY observations TO '/tmp/stolen.parquet'".to_owned(),
        "COPY (SELECT 1) TO 'tenant://own/x.parquet'".to_owned(),
        "SET datafusion.execution.time_zone = 'UTC'".to_owned(),
        "SHOW ALL".to_owned(),
        "RESET datafusion.execution.time_zone".to_owned(),
        "BEGIN".to_owned(),
        "PREPARE p AS SELECT 1".to_owned(),
        "EXPLAIN ANALYZE INSERT INTO observations SELECT * FROM observations".to_owned(),
        "WITH RECURSIVE r AS (SELECT 1 AS x UNION ALL SELECT x + 1 FROM r) SELECT * FROM r".to_owned(),
        "SELECT * FROM generate_series(1, 10)".to_owned(),
        "SELECT * FROM range(1, 10)".to_owned(),
        "SELECT range(1, 1000000000000)".to_owned(),
        "SELECT array_repeat('x', 2000000000)".to_owned(),
        format!("SELECT * FROM '{globex_file}'"),
        format!("SELECT * FROM \"tenant://own/{globex_file}\""),
        "SELECT * FROM 'file:///etc/passwd'".to_owned(),
        "SELECT * FROM globex.public.observations".to_owned(),
        "SELECT * FROM tracelake.globex.observations".to_owned(),
        "SELECT * FROM \"../globex/observations\"".to_owned(),
        "SELECT * FROM information_schema.df_settings".to_owned(),
        "SELECT * FROM parquet_metadata('x')".to_owned(),
        "SELECT 1; DROP TABLE observations".to_owned(),
    ];
    for sql in hostile {
        let error = setting.error("acme", &sql).await;
        assert!(matches!(error.kind(), Kind::Invalid | Kind::Forbidden), "{sql}: {:?} {error}", error.kind());
        let own_words = sql.contains("globex");
        assert!(own_words || !error.to_string().contains("globex"), "{sql}: {error}");
    }
    let answer = setting.text("acme", "SELECT count(*) FROM observations").await;
    assert!(answer.contains("| 30 "), "{answer}");
}

#[tokio::test]
async fn the_information_schema_shows_one_catalog_and_no_settings() {
    let setting = two_tenants().await;
    let tables = setting.text("acme", "SHOW TABLES").await;
    for table in Table::ALL {
        assert!(tables.contains(&format!(" {} ", table.name())), "{tables}");
    }
    let everything = [
        "SELECT * FROM information_schema.tables",
        "SELECT * FROM information_schema.columns",
        "SELECT * FROM information_schema.schemata",
        "SELECT * FROM information_schema.views",
        "DESCRIBE observations",
        "EXPLAIN SELECT * FROM observations",
        "EXPLAIN ANALYZE SELECT count(model) FROM observations",
    ];
    for sql in everything {
        let answer = setting.text("acme", sql).await;
        assert!(answer.starts_with('+'), "{sql}: {answer}");
        assert!(!answer.contains("globex") && !answer.contains("tenants/"), "{sql}: {answer}");
    }
}

#[tokio::test]
async fn a_footer_kept_for_one_tenant_does_not_answer_for_another() {
    // The same relative path, the same size, another tenant: only the key's prefix tells them apart.
    let setting = Setting::new(QueryLimits::default()).await;
    setting.add_files("acme", &observations(1, 30, 5)).await;
    let copied = setting.world.0.lock().snapshots[&("acme".to_owned(), Table::Observations)].clone();
    setting.world.0.lock().snapshots.insert(("globex".to_owned(), Table::Observations), copied);
    assert!(setting.text("acme", "SELECT count(model) FROM observations").await.starts_with('+'));
    let error = setting.error("globex", "SELECT count(model) FROM observations").await;
    assert_eq!(error.kind(), Kind::Unavailable, "{error}");
    assert!(!error.to_string().contains("acme") && !error.to_string().contains("tenants/"), "{error}");
}
