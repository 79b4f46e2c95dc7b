//! What a tenant is told about its own files.

use super::*;

async fn two_tenants() -> Setting {
    let setting = Setting::new(QueryLimits::default()).await;
    setting.add_files("acme", &observations(1, 300, 30)).await;
    setting.add_files("globex", &observations(2, 90, 10)).await;
    setting
}

#[tokio::test]
async fn files_are_the_live_files_of_the_tenant_that_asks() {
    let setting = two_tenants().await;
    let sums =
        "SELECT sum(rows) AS rows, count(*) AS files, count(DISTINCT day) AS days, min(table_name) AS t FROM files";
    let acme = setting.text("acme", sums).await;
    assert!(acme.contains("| 300  | 2     | 2    | observations |"), "{acme}");
    let globex = setting.text("globex", sums).await;
    assert!(globex.contains("| 90   | 1     | 1    | observations |"), "{globex}");
    let nobody = setting.text("initech", "SELECT count(*) AS files FROM files").await;
    assert!(nobody.contains("| 0     |"), "{nobody}");
    // As the files say themselves.
    let agrees = "SELECT count(*) AS n FROM files f JOIN
        (SELECT day, count(*) AS rows, min(start_time) AS first, max(start_time) AS last FROM observations GROUP BY day) o
        ON f.day = o.day WHERE f.rows = o.rows AND f.time_min = o.first AND f.time_max = o.last AND f.bytes > f.footer_bytes";
    let agrees = setting.text("acme", agrees).await;
    assert!(agrees.contains("| 2 |"), "{agrees}");
}

#[tokio::test]
async fn files_stand_beside_the_tables_and_have_the_columns_that_are_documented() {
    let setting = two_tenants().await;
    let shown = setting.text("acme", "SELECT table_name FROM information_schema.tables ORDER BY 1").await;
    assert!(shown.contains("| files "), "{shown}");
    for table in crate::query::SYSTEM_TABLES {
        let described = format!(
            "SELECT column_name FROM information_schema.columns WHERE table_name = '{}' ORDER BY ordinal_position",
            table.name
        );
        let found = setting.text("acme", &described).await;
        let names: Vec<&str> = found.lines().skip(3).filter_map(|line| line.split_whitespace().nth(1)).collect();
        let documented: Vec<&str> = table.columns.iter().map(|(name, ..)| *name).collect();
        assert_eq!(names, documented, "{found}");
    }
}
