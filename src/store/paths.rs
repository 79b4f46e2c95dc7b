//! Where things lie. Every path of the store is printed and parsed here and nowhere else.

use object_store::path::Path;
use uuid::Uuid;

use crate::base::{Day, TenantId, WriterId};

/// `tenants/{id}`
pub fn tenant_root(tenant: &TenantId) -> Path {
    Path::from(format!("tenants/{tenant}"))
}

/// `tenants`: a folder per tenant that has data.
pub fn tenants() -> Path {
    Path::from("tenants")
}

/// `tenants/{id}/{table}`
pub fn table_root(tenant: &TenantId, table: &str) -> Path {
    Path::from(format!("tenants/{tenant}/{table}"))
}

/// `tenants/{id}/{table}/_delta_log`, or one version in it.
pub fn delta_log(tenant: &TenantId, table: &str, version: Option<u64>) -> Path {
    let folder = format!("tenants/{tenant}/{table}/_delta_log");
    match version {
        Some(version) => Path::from(format!("{folder}/{version:020}.json")),
        None => Path::from(folder),
    }
}

/// The version a file of a `_delta_log` holds, if it is a commit.
pub fn delta_version(path: &Path) -> Option<u64> {
    let digits = path.filename()?.strip_suffix(".json")?;
    (digits.len() == 20).then(|| digits.parse().ok())?
}

/// `day=YYYY-MM-DD/{uuid}.parquet`, relative to the table's root, as Delta's add actions write it.
pub fn data_file(day: Day, id: Uuid) -> String {
    format!("day={day}/{id}.parquet")
}

/// An object of a table by its path relative to the table's root, as the table's log names it.
pub fn within_table(tenant: &TenantId, table: &str, relative: &str) -> Path {
    relative.split('/').fold(table_root(tenant, table), |path, part| path.join(part))
}

/// The day in a data file's relative path.
pub fn day_of_data_file(relative: &str) -> Option<Day> {
    relative.strip_prefix("day=")?.split_once('/')?.0.parse().ok()
}

/// `tenants/{id}/_index/{table}/{uuid}`: what only we read about one commit's files.
pub fn index_file(tenant: &TenantId, table: &str, id: Uuid) -> Path {
    Path::from(format!("tenants/{tenant}/_index/{table}/{id}"))
}

/// `wal`: a folder per writer.
pub fn logs() -> Path {
    Path::from("wal")
}

/// `wal/{writer}/{sequence}`; without a sequence the folder.
pub fn log_object(writer: &WriterId, sequence: Option<u64>) -> Path {
    match sequence {
        Some(sequence) => Path::from(format!("wal/{writer}/{sequence:020}")),
        None => Path::from(format!("wal/{writer}")),
    }
}

/// The sequence of a log object, low mark or lease.
pub fn log_sequence(path: &Path) -> Option<u64> {
    path.filename().filter(|name| name.len() == 20)?.parse().ok()
}

/// `marks/{writer}/{sequence}`: everything below `sequence` is committed in every table; without one the folder.
pub fn low_mark(writer: &WriterId, sequence: Option<u64>) -> Path {
    match sequence {
        Some(sequence) => Path::from(format!("marks/{writer}/{sequence:020}")),
        None => Path::from(format!("marks/{writer}")),
    }
}

/// `leases/{tenant}/{table}/{slot}/{number}`: whose turn it is to rewrite these files; without a number the folder.
pub fn lease(tenant: &TenantId, table: &str, slot: u32, number: Option<u64>) -> Path {
    match number {
        Some(number) => Path::from(format!("leases/{tenant}/{table}/{slot}/{number:020}")),
        None => Path::from(format!("leases/{tenant}/{table}/{slot}")),
    }
}

/// `system/{kind}/{name}`: tenants, keys, books.
pub fn system(kind: &str, name: &str) -> Path {
    match name {
        "" => Path::from(format!("system/{kind}")),
        name => Path::from(format!("system/{kind}/{name}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_parse_as_they_print() {
        let (tenant, writer): (TenantId, WriterId) = ("acme".parse().unwrap(), "main".parse().unwrap());
        let day: Day = "2026-11-21".parse().unwrap();
        assert_eq!(delta_version(&delta_log(&tenant, "scores", Some(7))), Some(7));
        assert_eq!(delta_version(&Path::from("x/_delta_log/00000000000000000010.checkpoint.parquet")), None);
        assert_eq!(log_sequence(&log_object(&writer, Some(3))), Some(3));
        assert_eq!(log_sequence(&low_mark(&writer, Some(3))), Some(3));
        assert_eq!(log_sequence(&lease(&tenant, "scores", 1, Some(3))), Some(3));
        assert_eq!(within_table(&tenant, "scores", "day=1/a.parquet").as_ref(), "tenants/acme/scores/day=1/a.parquet");
        assert_eq!(day_of_data_file(&data_file(day, Uuid::nil())), Some(day));
        assert_eq!(log_object(&writer, Some(3)).as_ref(), "wal/main/00000000000000000003");
    }
}
