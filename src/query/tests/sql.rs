use super::*;

#[tokio::test]
async fn files_and_fresh_rows_answer_as_one_table() {
    let rows = observations(1, 300, 72);
    let setting = acme(&rows).await;
    let total: i128 = rows.iter().filter_map(|row| row.cost.total).map(|cost| i128::from(cost.pico())).sum();
    let answer = setting
        .text("acme", "SELECT count(*), count(DISTINCT id), sum(total_cost) * 1000000000000 AS pico FROM observations")
        .await;
    assert!(answer.contains("| 300      | 300 "), "{answer}");
    assert!(answer.contains(&total.to_string()), "{total} in {answer}");
}

#[tokio::test]
async fn every_column_reads_alike_from_a_file_and_from_fresh_rows() {
    let rows = observations(2, 60, 5);
    let setting = Setting::new(QueryLimits::default()).await;
    setting.add_files("files", &rows).await;
    setting.add_fresh("fresh", &rows);
    let sql = "SELECT * FROM observations ORDER BY id";
    let (files, fresh) = (setting.sql("files", sql).await.unwrap(), setting.sql("fresh", sql).await.unwrap());
    assert_eq!(files[0].schema(), fresh[0].schema());
    assert_eq!(files[0].schema().fields(), Table::Observations.table_schema().fields());
    assert_eq!(pretty_format_batches(&files).unwrap().to_string(), pretty_format_batches(&fresh).unwrap().to_string());
}

#[tokio::test]
async fn maps_lists_and_our_functions_work_in_sql() {
    let rows = observations(3, 90, 10);
    let setting = acme(&rows).await;
    let teams = "SELECT metadata['team'] AS team, count(*) FROM observations GROUP BY 1 ORDER BY 1";
    assert!(setting.text("acme", teams).await.contains("| team-0 | 24"), "{}", setting.text("acme", teams).await);
    let tagged = "SELECT count(*) FROM observations WHERE array_has(tags, 'paid')";
    let paid = rows.iter().filter(|row| row.observation.tags.iter().any(|tag| tag == "paid")).count();
    assert!(setting.text("acme", tagged).await.contains(&format!("| {paid} ")));
    let sketches = "SELECT approx_quantile(latency_ms, 0.9) = qsketch_quantile(qsketch(latency_ms), 0.9) AS same,
        qsketch_quantile(qsketch_merge(s), 0.5) = approx_quantile(m, 0.5) AS merged FROM
        (SELECT latency_ms, latency_ms AS m, qsketch(latency_ms) OVER (PARTITION BY id) AS s FROM observations)";
    let answer = setting.text("acme", sketches).await;
    assert!(answer.contains("| true | true   |"), "{answer}");
    let buckets = "SELECT time_bucket('1 day', start_time, 'Europe/Berlin') AS berlin_day, count(*) FROM observations
        GROUP BY berlin_day ORDER BY berlin_day";
    let answer = setting.text("acme", buckets).await;
    assert!(answer.contains("2026-03-27T23:00:00Z"), "{answer}");
}

#[tokio::test]
async fn mistakes_are_named_and_show_no_path() {
    let setting = acme(&observations(4, 30, 5)).await;
    for (sql, expected) in [
        ("SELECT", "ERROR"),
        ("SELEC 1", "SELEC"),
        ("SELECT modle FROM observations", "modle"),
        ("SELECT * FROM spans", "spans"),
        ("SELECT 1/0", "ivide by zero"),
        ("SELECT id::int FROM observations", "cast"),
        ("SELECT nonsense(1)", "nonsense"),
        ("SELECT 1; SELECT 2", "a single SQL statement"),
        ("", "statement"),
        ("SELECT time_bucket('1 parsec', start_time) FROM observations", "parsec"),
        ("SELECT time_bucket('1 day', start_time, 'Mars/Base') FROM observations", "Mars/Base"),
        ("SELECT approx_quantile(latency_ms, 7) FROM observations", "from 0 to 1"),
        ("SELECT qsketch_quantile(x'09', 0.5)", "version 9"),
    ] {
        let error = setting.error("acme", sql).await;
        assert_eq!(error.kind(), crate::base::Kind::Invalid, "{sql}: {error}");
        let text = error.to_string();
        assert!(text.contains(expected) || text.to_lowercase().contains(&expected.to_lowercase()), "{sql}: {text}");
        assert!(!text.contains("tenants/") && !text.contains("parquet"), "{sql}: {text}");
    }
}
