//! `sql/schema.sql` says what the tables hold, and the files hold what it says.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use tracelake::model::tables::Table;

fn schema_sql() -> String {
    let mut sql = String::from(
        "-- Every table and column a tenant sees. Written from src/model/tables/ by `TRACELAKE_BLESS=1 cargo test schema`;\n\
         -- a test holds the two equal. Times are UTC with microseconds, money is USD with 12 digits after the point.\n",
    );
    for table in Table::ALL {
        write!(sql, "\n-- {}\nCREATE TABLE {} (\n", table.comment(), table.name()).unwrap();
        for (name, kind, comment) in table.columns() {
            writeln!(sql, "    {name:<24}{:<28}-- {comment}", format!("{},", kind.sql())).unwrap();
        }
        writeln!(
            sql,
            "    {:<24}{:<28}-- UTC day of placement (partition); prune by true times, not by it.",
            "day", "DATE"
        )
        .unwrap();
        sql.push_str(");\n");
    }
    sql
}

#[test]
fn schema_sql_is_the_schema() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("sql/schema.sql");
    if std::env::var_os("TRACELAKE_BLESS").is_some() {
        fs::write(&path, schema_sql()).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == schema_sql(), "sql/schema.sql is stale: TRACELAKE_BLESS=1 cargo test schema");
}
