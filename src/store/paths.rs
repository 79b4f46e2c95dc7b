//! Where things lie. Every path of the store is printed and parsed here and nowhere else.

use object_store::path::Path;
use uuid::{NoContext, Timestamp, Uuid};

use crate::base::{Day, TenantId, TimestampUs, WriterId};
use crate::format::rollup::RollupKind;

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

/// `tenants/{id}/{table}/_delta_log/{version}.checkpoint.parquet`
pub fn delta_checkpoint(tenant: &TenantId, table: &str, version: u64) -> Path {
    Path::from(format!("tenants/{tenant}/{table}/_delta_log/{version:020}.checkpoint.parquet"))
}

/// The version a file of a `_delta_log` is a checkpoint of, if it is one in a single part.
pub fn delta_checkpoint_version(path: &Path) -> Option<u64> {
    let digits = path.filename()?.strip_suffix(".checkpoint.parquet")?;
    (digits.len() == 20).then(|| digits.parse().ok())?
}

/// `tenants/{id}/{table}/_delta_log/_last_checkpoint`
pub fn last_checkpoint(tenant: &TenantId, table: &str) -> Path {
    Path::from(format!("tenants/{tenant}/{table}/_delta_log/_last_checkpoint"))
}

/// `day=YYYY-MM-DD/{uuid}.parquet`, relative to the table's root, as Delta's add actions write it.
pub fn data_file(day: Day, id: Uuid) -> String {
    format!("day={day}/{id}.parquet")
}

/// An id for an object that is about to be put: it sorts by time, and tells it.
pub fn timed_id(now_us: TimestampUs) -> Uuid {
    let now_us = now_us.max(0) as u64;
    Uuid::new_v7(Timestamp::from_unix(NoContext, now_us / 1_000_000, (now_us % 1_000_000) as u32 * 1_000))
}

/// When the id of a data file was made, by the clock of who made it; `None` for files of other engines.
pub fn data_file_made_us(relative: &str) -> Option<TimestampUs> {
    let id: Uuid = relative.rsplit('/').next()?.strip_suffix(".parquet")?.parse().ok()?;
    let (seconds, nanos) = id.get_timestamp()?.to_unix();
    Some(seconds as i64 * 1_000_000 + i64::from(nanos) / 1_000)
}

/// An object of a table by its path relative to the table's root, as the table's log names it.
pub fn data_object(tenant: &TenantId, table: &str, relative: &str) -> Path {
    relative.split('/').fold(table_root(tenant, table), |path, part| path.join(part))
}

/// The day in a data file's relative path.
pub fn day_of_data_file(relative: &str) -> Option<Day> {
    relative.strip_prefix("day=")?.split_once('/')?.0.parse().ok()
}

/// `tenants/{id}/_index/{table}/{uuid}`: what only we read about one commit's files.
pub fn index_file(tenant: &TenantId, table: &str, id: &str) -> Path {
    Path::from(format!("tenants/{tenant}/_index/{table}/{id}"))
}

/// `tenants/{id}/_rollup/{table}/day=…/{uuid}.parquet`: a roll-up of a data file, by the file's path; those of traces below
/// `_rollup_traces`.
pub fn rollup_object(tenant: &TenantId, kind: RollupKind, table: &str, data_file: &str) -> Path {
    rollup(kind, table, data_file).split('/').fold(tenant_root(tenant), |path, part| path.join(part))
}

/// The same below the tenant's prefix.
pub fn rollup(kind: RollupKind, table: &str, data_file: &str) -> String {
    format!("{}/{table}/{data_file}", rollups(kind))
}

/// The folder of roll-ups below a tenant's prefix.
pub fn rollups(kind: RollupKind) -> &'static str {
    match kind {
        RollupKind::Hours => "_rollup",
        RollupKind::Traces => "_rollup_traces",
    }
}

/// `tenants/{id}/_late/{table}/{number}`: late changes not folded in yet; without a number the folder.
pub fn late_object(tenant: &TenantId, table: &str, number: Option<u64>) -> Path {
    match number {
        Some(number) => Path::from(format!("tenants/{tenant}/_late/{table}/{number:020}")),
        None => Path::from(format!("tenants/{tenant}/_late/{table}")),
    }
}

/// `tenants/{id}/_media/{medium}/{content type, _ for its /}`: what clients take out of what they trace, as it is. Beside it
/// `of/{trace}-{observation}` for everyone who mentions it. Without a medium the folder.
pub fn media(tenant: &TenantId, medium: Option<&str>) -> Path {
    match medium {
        Some(medium) => Path::from(format!("tenants/{tenant}/_media/{medium}")),
        None => Path::from(format!("tenants/{tenant}/_media")),
    }
}

/// Where the content of a medium stands. `content_type`: a media type without parameters.
pub fn media_content(tenant: &TenantId, medium: &str, content_type: &str) -> Path {
    media(tenant, Some(medium)).join(content_type.replacen('/', "_", 1))
}

/// Where it is said that a trace mentions a medium, or an observation of it (else 0), by the hashes of their keys.
pub fn media_mention(tenant: &TenantId, medium: &str, trace: u64, observation: u64) -> Path {
    media(tenant, Some(medium)).join("of").join(format!("{trace:016x}-{observation:016x}"))
}

/// What an object below `_media` is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MediaObject {
    /// Of this media type.
    Content(String),
    /// By a trace of this hash, and an observation of that, or 0.
    Mention(u64, u64),
}

/// The medium an object belongs to, and what it is of it; `None` for names that we do not give.
pub fn media_object(tenant: &TenantId, path: &Path) -> Option<(String, MediaObject)> {
    let relative = path.as_ref().strip_prefix(media(tenant, None).as_ref())?.strip_prefix('/')?;
    let (medium, rest) = relative.split_once('/')?;
    let object = match rest.strip_prefix("of/") {
        Some(name) => {
            let hash = |text: &str| u64::from_str_radix(text, 16).ok().filter(|_| text.len() == 16);
            let (trace, observation) = name.split_once('-')?;
            MediaObject::Mention(hash(trace)?, hash(observation)?)
        }
        None => MediaObject::Content(rest.split_once('_').map(|(kind, of)| format!("{kind}/{of}"))?),
    };
    Some((medium.to_owned(), object))
}

/// What an object below a tenant's prefix is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TenantObject {
    /// A data file, relative to its table's root.
    Data(String),
    /// An index object, by its id.
    Index(String),
    /// A roll-up of a data file, by the file's path relative to its table's root.
    Rollup(String),
    /// A late object, by its number.
    Late(u64),
    /// A file of the table's Delta log.
    Log,
}

/// The table an object belongs to, and what it is of it; `None` for names that we do not give.
pub fn tenant_object(tenant: &TenantId, path: &Path) -> Option<(String, TenantObject)> {
    let relative = path.as_ref().strip_prefix(tenant_root(tenant).as_ref())?.strip_prefix('/')?;
    let (first, rest) = relative.split_once('/')?;
    match first {
        "_index" => {
            let (table, id) = rest.split_once('/')?;
            (!id.contains('/')).then(|| (table.to_owned(), TenantObject::Index(id.to_owned())))
        }
        folder if RollupKind::ALL.into_iter().any(|kind| rollups(kind) == folder) => {
            let (table, data_file) = rest.split_once('/')?;
            is_data_file(data_file).then(|| (table.to_owned(), TenantObject::Rollup(data_file.to_owned())))
        }
        "_late" => {
            let (table, number) = rest.split_once('/')?;
            Some((table.to_owned(), TenantObject::Late(number.parse().ok().filter(|_| number.len() == 20)?)))
        }
        table if rest.starts_with("_delta_log/") => Some((table.to_owned(), TenantObject::Log)),
        table => is_data_file(rest).then(|| (table.to_owned(), TenantObject::Data(rest.to_owned()))),
    }
}

fn is_data_file(relative: &str) -> bool {
    day_of_data_file(relative).is_some() && relative.ends_with(".parquet")
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
        assert_eq!(delta_version(&delta_checkpoint(&tenant, "scores", 7)), None);
        assert_eq!(delta_checkpoint_version(&delta_checkpoint(&tenant, "scores", 7)), Some(7));
        assert_eq!(delta_checkpoint_version(&last_checkpoint(&tenant, "scores")), None);
        assert_eq!(log_sequence(&log_object(&writer, Some(3))), Some(3));
        assert_eq!(log_sequence(&low_mark(&writer, Some(3))), Some(3));
        assert_eq!(log_sequence(&lease(&tenant, "scores", 1, Some(3))), Some(3));
        assert_eq!(data_object(&tenant, "scores", "day=1/a.parquet").as_ref(), "tenants/acme/scores/day=1/a.parquet");
        assert_eq!(day_of_data_file(&data_file(day, Uuid::nil())), Some(day));
        assert_eq!(log_object(&writer, Some(3)).as_ref(), "wal/main/00000000000000000003");
        let data = data_file(day, Uuid::nil());
        let of = |path: Path| tenant_object(&tenant, &path).map(|(table, object)| (table == "scores", object));
        assert_eq!(of(data_object(&tenant, "scores", &data)), Some((true, TenantObject::Data(data))));
        let index = index_file(&tenant, "scores", "an-id");
        assert_eq!(of(index), Some((true, TenantObject::Index("an-id".to_owned()))));
        assert_eq!(of(delta_log(&tenant, "scores", Some(3))), Some((true, TenantObject::Log)));
        let data = data_file(day, Uuid::nil());
        for kind in RollupKind::ALL {
            let rollup = rollup_object(&tenant, kind, "scores", &data);
            assert_eq!(of(rollup), Some((true, TenantObject::Rollup(data.clone()))));
        }
        let late = late_object(&tenant, "scores", Some(7));
        assert_eq!(of(late), Some((true, TenantObject::Late(7))));
        for other in [
            "tenants/acme/scores/notes.txt",
            "tenants/acme/_late/scores/7",
            "tenants/acme/_rollup/scores/x.parquet",
            "tenants/acme-2/scores/_delta_log/x",
            "tenants/acme/x",
        ] {
            assert_eq!(of(Path::from(other)), None, "{other}");
        }
    }
}
