//! `sql/schema.sql` says what the tables hold, and the files hold what it says; `sql/system.sql` what is said about them.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use tracelake::model::tables::Table;
use tracelake::query::SYSTEM_TABLES;

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

fn system_sql() -> String {
    let mut sql = String::from(
        "-- What a tenant may know about its own tables. Written from src/query/system_tables.rs by\n\
         -- `TRACELAKE_BLESS=1 cargo test schema`; a test holds the two equal.\n",
    );
    for table in SYSTEM_TABLES {
        write!(sql, "\n-- {}\nCREATE TABLE {} (\n", table.comment, table.name).unwrap();
        for (at, (name, kind, comment)) in table.columns.iter().enumerate() {
            let comma = if at + 1 < table.columns.len() { "," } else { "" };
            writeln!(sql, "    {name:<24}{:<28}-- {comment}", format!("{kind}{comma}")).unwrap();
        }
        sql.push_str(");\n");
    }
    sql
}

#[test]
fn schema_sql_is_the_schema() {
    check("sql/schema.sql", &schema_sql());
    check("sql/system.sql", &system_sql());
}

fn check(path: &str, written: &str) {
    let full = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("TRACELAKE_BLESS").is_some() {
        fs::write(&full, written).unwrap();
    }
    let committed = fs::read_to_string(&full).unwrap_or_default();
    assert!(committed == written, "{path} is stale: TRACELAKE_BLESS=1 cargo test schema");
}
