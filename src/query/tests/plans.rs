//! What a plan looks like, and what it costs.

use datafusion::physical_plan::displayable;

use super::*;

async fn plan(setting: &Setting, sql: &str) -> String {
    let query = setting.engine.begin(&all_of("acme")).unwrap();
    let logical = query.plan_sql(sql).await.unwrap();
    displayable(query.physical(&logical).await.unwrap().as_ref()).indent(true).to_string()
}

fn gets(setting: &Setting) -> u64 {
    setting.store.counts().get
}

#[tokio::test]
async fn counting_reads_no_file() {
    let setting = acme(&observations(1, 300, 72)).await;
    let before = gets(&setting);
    let answer = setting.text("acme", "SELECT count(*) FROM observations").await;
    assert!(answer.contains("| 300 "), "{answer}");
    assert_eq!(gets(&setting), before);
    setting.add_files("globex", &observations(1, 300, 72)).await;
    setting.text("globex", "SELECT min(start_time), max(start_time), min(day) FROM observations").await;
    assert_eq!(gets(&setting), before);
}

#[tokio::test]
async fn a_scan_is_a_plain_union_without_any_deduplication() {
    let setting = acme(&observations(1, 300, 72)).await;
    let plan = plan(&setting, "SELECT id, model FROM observations WHERE model = 'gpt-5'").await;
    for operator in ["AggregateExec", "SortExec", "WindowAgg", "HashJoin", "SortPreservingMerge"] {
        assert!(!plan.contains(operator), "{plan}");
    }
    assert!(plan.contains("UnionExec") && plan.contains("file_type=parquet"), "{plan}");
    assert!(plan.contains("predicate=model@") || plan.contains("pruning_predicate"), "{plan}");
}

#[tokio::test]
async fn files_outside_of_the_asked_time_are_not_in_the_plan() {
    let setting = acme(&observations(1, 300, 72)).await;
    let day = |sql: &str| sql.matches("observations/day=").count();
    let all = plan(&setting, "SELECT id FROM observations").await;
    assert_eq!(day(&all), 3, "{all}");
    for sql in [
        "SELECT id FROM observations WHERE start_time >= '2026-03-29T01:00:00Z' AND start_time < '2026-03-29T02:00:00Z'",
        "SELECT id FROM observations WHERE day = '2026-03-29'",
        "SELECT id FROM observations WHERE start_time BETWEEN timestamp '2026-03-29T01:00:00Z' AND timestamp '2026-03-29T09:00:00Z'",
        "SELECT id FROM observations WHERE start_time > to_timestamp('2026-03-29T01:00:00Z') AND start_time < to_timestamp('2026-03-29T09:00:00Z')",
    ] {
        let plan = plan(&setting, sql).await;
        assert_eq!(day(&plan), 1, "{sql}\n{plan}");
    }
}

#[tokio::test]
async fn the_newest_rows_come_from_the_newest_file() {
    let setting = Setting::new(QueryLimits { partitions: 2, ..Default::default() }).await;
    setting.add_files("acme", &observations(1, 600, 240)).await;
    let sql = "SELECT id, start_time FROM observations ORDER BY start_time DESC LIMIT 5";
    let plan = plan(&setting, sql).await;
    assert!(
        plan.contains("output_ordering") || plan.contains("reverse_row_groups") || plan.contains("sort_order"),
        "{plan}"
    );
    setting.sql("acme", sql).await.unwrap();
    let before = gets(&setting);
    setting.sql("acme", sql).await.unwrap();
    assert!(gets(&setting) - before <= 4, "{} of 10 files\n{plan}", gets(&setting) - before);
}

#[tokio::test]
async fn a_footer_is_fetched_once_by_one_request() {
    let setting = Setting::new(QueryLimits { partitions: 1, ..Default::default() }).await;
    setting.add_files("acme", &observations(1, 100, 5)).await;
    let sql = "SELECT sum(input_tokens) FROM observations";
    let before = gets(&setting);
    setting.sql("acme", sql).await.unwrap();
    let cold = gets(&setting) - before;
    setting.sql("acme", sql).await.unwrap();
    let warm = gets(&setting) - before - cold;
    assert_eq!((cold, warm), (3, 1), "footer, page index and column; then the column");

    // A filter uses the page index, which is there already.
    let sql = "SELECT sum(input_tokens) FROM observations WHERE start_time > '2026-03-28T02:00:00Z'";
    let before = gets(&setting);
    setting.sql("acme", sql).await.unwrap();
    assert_eq!(gets(&setting) - before, 1);
}
