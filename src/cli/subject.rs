//! `tracelake subject export`: all that is held on one person, as JSON lines and as Parquet, with a receipt.
//!
//! It is asked as any SQL is asked, so that rows which are in no file yet are in it.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::json::LineDelimitedWriter;
use futures::TryStreamExt;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::{Asked, CliError};
use crate::base::TimestampUs;

/// The column that says which event decided which field: of use to nobody else.
const MERGE: &str = "_merge";
const RECEIPT: &str = "receipt.json";

/// A file that was written.
#[derive(Debug, Clone)]
pub struct Exported {
    pub name: String,
    pub rows: u64,
    pub bytes: u64,
    pub sha256: String,
}

/// Writes what is held on `user` into the folder `out`, which must not hold an export already.
pub async fn export_subject(
    asked: &dyn Asked,
    user: &str,
    out: &Path,
    now_us: TimestampUs,
) -> Result<Vec<Exported>, CliError> {
    fs::create_dir_all(out)?;
    if out.join(RECEIPT).exists() {
        return Err(CliError::Exists { path: out.display().to_string() });
    }
    let mut files = Vec::new();
    for (table, sql) in statements(user) {
        files.extend(export(asked, table, &sql, out).await?);
    }
    let listed: Vec<_> = files
        .iter()
        .map(|file| json!({"name": file.name, "rows": file.rows, "bytes": file.bytes, "sha256": file.sha256}))
        .collect();
    let at = chrono::DateTime::from_timestamp_micros(now_us).unwrap_or_default().to_rfc3339();
    let receipt = json!({
        "what": "all that is held on one user: their traces, observations, texts and scores",
        "user": user,
        "exported_at": at,
        "files": listed,
    });
    let mut file = File::create_new(out.join(RECEIPT))?;
    serde_json::to_writer_pretty(&mut file, &receipt).map_err(std::io::Error::from)?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    Ok(files)
}

/// One statement a table: the user's traces, and single observations that name the user elsewhere.
fn statements(user: &str) -> [(&'static str, String); 4] {
    let user = user.replace('\'', "''");
    let traces = format!("SELECT trace_id FROM trace_facts WHERE user_id = '{user}'");
    let alone =
        format!("SELECT trace_id, id FROM observations WHERE user_id = '{user}' AND trace_id NOT IN ({traces})");
    let named = |table: &str, id: &str| {
        format!(
            "SELECT {table}.* FROM {table} WHERE trace_id IN ({traces}) UNION ALL SELECT {table}.* FROM {table} \
             JOIN ({alone}) AS alone ON {table}.trace_id = alone.trace_id AND {table}.{id} = alone.id"
        )
    };
    [
        ("trace_facts", format!("SELECT * FROM trace_facts WHERE user_id = '{user}'")),
        ("observations", named("observations", "id")),
        ("observation_io", named("observation_io", "id")),
        ("scores", named("scores", "observation_id")),
    ]
}

/// One answer, written twice as it comes.
async fn export(asked: &dyn Asked, table: &str, sql: &str, out: &Path) -> Result<[Exported; 2], CliError> {
    let mut answer = asked.ask(sql).await?;
    let columns: Vec<usize> =
        (0..answer.schema.fields().len()).filter(|at| answer.schema.field(*at).name() != MERGE).collect();
    let schema: SchemaRef = answer.schema.project(&columns)?.into();
    let paths = [format!("{table}.jsonl"), format!("{table}.parquet")];
    let mut lines = LineDelimitedWriter::new(BufWriter::new(File::create_new(out.join(&paths[0]))?));
    let zstd = Compression::ZSTD(ZstdLevel::default());
    let properties = WriterProperties::builder().set_compression(zstd).build();
    let file = File::create_new(out.join(&paths[1]))?;
    let mut rows_file = ArrowWriter::try_new(file, schema, Some(properties)).map_err(unwritten)?;
    let mut rows = 0;
    while let Some(batch) = answer.batches.try_next().await? {
        let batch: RecordBatch = batch.project(&columns)?;
        rows += batch.num_rows() as u64;
        lines.write(&batch)?;
        rows_file.write(&batch).map_err(unwritten)?;
    }
    lines.finish()?;
    lines.into_inner().into_inner().map_err(|e| e.into_error())?.sync_all()?;
    rows_file.into_inner().map_err(unwritten)?.sync_all()?;
    let [one, other] = paths.map(|name| written(out.join(&name), name, rows));
    Ok([one?, other?])
}

fn unwritten(error: parquet::errors::ParquetError) -> CliError {
    CliError::Local(std::io::Error::other(error))
}

/// What the receipt says of a file: its digest is that of the bytes on the disk.
fn written(path: PathBuf, name: String, rows: u64) -> Result<Exported, CliError> {
    let mut file = File::open(&path)?;
    let (mut hash, mut bytes) = (Sha256::new(), 0);
    let mut piece = vec![0; 1 << 20];
    loop {
        let length = file.read(&mut piece)?;
        if length == 0 {
            break;
        }
        hash.update(&piece[..length]);
        bytes += length as u64;
    }
    let mut sha256 = String::new();
    for byte in hash.finalize() {
        _ = write!(sha256, "{byte:02x}");
    }
    Ok(Exported { name, rows, bytes, sha256 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_a_quote_stays_a_name() {
        let [(_, facts), ..] = statements("o'hara'; DROP");
        assert!(facts.ends_with("user_id = 'o''hara''; DROP'"), "{facts}");
    }
}
