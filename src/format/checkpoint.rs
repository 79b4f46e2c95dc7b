//! Checkpoints: all that a Delta log says at one version, as one Parquet file (the protocol's V1 checkpoint), and the
//! hint that names the newest. The rows are the lines of commits, column for column: one reader understands both.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::json::{LineDelimitedWriter, ReaderBuilder};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use serde::{Deserialize, Serialize};

use super::delta::{self, Action, Add, MetaData, Protocol, Remove, Txn};
use super::{FormatError, Result};

const WHAT: &str = "delta checkpoint";
/// Rows encoded or decoded at a time: a table of many files must not stand in memory twice as JSON.
const ROWS_AT_ONCE: usize = 2048;
const ZSTD_LEVEL: i32 = 3;
/// A file's removal is remembered this long: longer than it lingers, and than readers look back.
const REMOVALS_KEPT_MS: i64 = 2 * 86_400_000;

/// Since which version a file is live. Commits do not say it of themselves, and checkpoints outlive them.
pub const TAG_VERSION: &str = "tracelake.version";
const VERSION: &str = "tracelake.version";
const COMMITTED_MS: &str = "tracelake.committed_ms";

/// All that a log says at one version.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LogState {
    pub version: Option<u64>,
    /// When that version was committed, by its writer's clock; 0 if it did not say.
    pub committed_ms: i64,
    pub protocol: Option<Protocol>,
    pub metadata: Option<MetaData>,
    pub txns: BTreeMap<String, Txn>,
    pub adds: BTreeMap<String, Add>,
    /// Files that are no longer live, with all that was known about them.
    pub removes: BTreeMap<String, Remove>,
}

impl LogState {
    /// Takes in the actions of one commit.
    pub fn apply(&mut self, version: u64, actions: Vec<Action>) {
        self.version = Some(version);
        self.committed_ms = 0;
        for mut action in actions {
            if let Action::Add(add) = &mut action {
                let tags = add.tags.get_or_insert_default();
                tags.entry(TAG_VERSION.to_owned()).or_insert_with(|| Some(version.to_string()));
            }
            self.take(action);
        }
    }

    fn take(&mut self, action: Action) {
        match action {
            Action::CommitInfo(info) => self.committed_ms = info.timestamp,
            Action::Protocol(protocol) => self.protocol = Some(protocol),
            Action::MetaData(metadata) => self.metadata = Some(metadata),
            Action::Txn(txn) => _ = self.txns.insert(txn.app_id.clone(), txn),
            Action::Add(mut add) => {
                self.removes.remove(&add.path);
                add.data_change = false;
                self.adds.insert(add.path.clone(), add);
            }
            Action::Remove(mut remove) => {
                remove.data_change = false;
                if let Some(add) = self.adds.remove(&remove.path) {
                    remove.extended_file_metadata = Some(true);
                    remove.partition_values = Some(add.partition_values);
                    remove.size = Some(add.size);
                    remove.tags = add.tags;
                }
                self.removes.insert(remove.path.clone(), remove);
            }
        }
    }

    /// The state as actions, without removals that are old enough to be forgotten.
    pub fn actions(&self) -> impl Iterator<Item = Action> + '_ {
        let oldest_ms = self.committed_ms - REMOVALS_KEPT_MS;
        let removes = self.removes.values().filter(move |remove| remove.deletion_timestamp.unwrap_or(0) >= oldest_ms);
        let head = self.protocol.iter().cloned().map(Action::Protocol);
        head.chain(self.metadata.iter().cloned().map(Action::MetaData))
            .chain(self.txns.values().cloned().map(Action::Txn))
            .chain(removes.cloned().map(Action::Remove))
            .chain(self.adds.values().cloned().map(Action::Add))
    }
}

/// `_last_checkpoint`: a hint, which may be late or wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LastCheckpoint {
    pub version: u64,
    /// Its actions.
    pub size: u64,
    /// Files it consists of, if more than one: never of ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parts: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_in_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub num_of_add_files: Option<u64>,
}

/// Writes the state as a checkpoint, and the hint that goes with it. The same state gives the same bytes.
pub fn encode(state: &LogState) -> Result<(Bytes, LastCheckpoint)> {
    let version = state.version.ok_or_else(|| corrupt("a table without a version has no checkpoint"))?;
    if state.protocol.is_none() || state.metadata.is_none() {
        return Err(corrupt("the log names no protocol or no schema"));
    }
    let level = ZstdLevel::try_new(ZSTD_LEVEL).expect("a level zstd has");
    let said = [(VERSION, version.to_string()), (COMMITTED_MS, state.committed_ms.to_string())];
    let properties = WriterProperties::builder()
        .set_created_by(format!("tracelake {}", env!("CARGO_PKG_VERSION")))
        .set_compression(Compression::ZSTD(level))
        .set_statistics_enabled(EnabledStatistics::None)
        .set_key_value_metadata(Some(said.map(|(key, value)| KeyValue::new(key.to_owned(), value)).into()))
        .build();
    let options = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
    let mut writer = ArrowWriter::try_new_with_options(Vec::new(), schema(), options).map_err(|e| failed(&e))?;
    let mut decoder =
        ReaderBuilder::new(schema()).with_batch_size(ROWS_AT_ONCE).build_decoder().map_err(|e| failed(&e))?;
    let mut size = 0;
    let mut actions = state.actions();
    loop {
        let rows: Vec<Action> = actions.by_ref().take(ROWS_AT_ONCE).collect();
        if rows.is_empty() {
            break;
        }
        size += rows.len() as u64;
        decoder.serialize(&rows).map_err(|e| failed(&e))?;
        if let Some(batch) = decoder.flush().map_err(|e| failed(&e))? {
            writer.write(&batch).map_err(|e| failed(&e))?;
        }
    }
    let bytes = Bytes::from(writer.into_inner().map_err(|e| failed(&e))?);
    let hint = LastCheckpoint {
        version,
        size,
        parts: None,
        size_in_bytes: Some(bytes.len() as u64),
        num_of_add_files: Some(state.adds.len() as u64),
    };
    Ok((bytes, hint))
}

/// Reads the checkpoint of `version`, also one that another engine wrote.
pub fn decode(version: u64, file: Bytes) -> Result<LogState> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|e| corrupt(e.to_string()))?;
    let said = |name: &str| {
        let pairs = builder.metadata().file_metadata().key_value_metadata()?;
        pairs.iter().find(|pair| pair.key == name)?.value.clone()
    };
    if said(VERSION).is_some_and(|said| said != version.to_string()) {
        return Err(corrupt(format!("it says that it is of version {}", said(VERSION).unwrap_or_default())));
    }
    let committed_ms = said(COMMITTED_MS).and_then(|ms| ms.parse().ok()).unwrap_or(0);
    let reader = builder.with_batch_size(ROWS_AT_ONCE).build().map_err(|e| corrupt(e.to_string()))?;
    let mut state = LogState::default();
    for batch in reader {
        let lines = batch.and_then(|batch| lines(&batch)).map_err(|e| corrupt(e.to_string()))?;
        let actions = delta::decode_commit(&lines).map_err(|e| match e {
            FormatError::Corrupt { detail, .. } => corrupt(detail),
            other => other,
        })?;
        actions.into_iter().for_each(|action| state.take(action));
    }
    if state.protocol.is_none() || state.metadata.is_none() {
        return Err(corrupt("it names no protocol or no schema"));
    }
    Ok(LogState { version: Some(version), committed_ms, ..state })
}

/// A batch of checkpoint rows as the lines of a commit.
fn lines(batch: &RecordBatch) -> Result<Vec<u8>, ArrowError> {
    let mut writer = LineDelimitedWriter::new(Vec::new());
    writer.write(batch)?;
    writer.finish()?;
    Ok(writer.into_inner())
}

/// The columns of a checkpoint: one struct per kind of action, of which a row fills one.
fn schema() -> SchemaRef {
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    let long = |name: &str| Field::new(name, DataType::Int64, true);
    let int = |name: &str| Field::new(name, DataType::Int32, true);
    let flag = |name: &str| Field::new(name, DataType::Boolean, true);
    let texts = |name: &str| Field::new_list(name, Field::new("element", DataType::Utf8, true), true);
    let map = |name: &str| Field::new(name, text_map(), true);
    let of = |name: &str, fields: Vec<Field>| Field::new(name, DataType::Struct(Fields::from(fields)), true);
    Arc::new(Schema::new(vec![
        of("txn", vec![text("appId"), long("version"), long("lastUpdated")]),
        of(
            "add",
            vec![
                text("path"),
                map("partitionValues"),
                long("size"),
                long("modificationTime"),
                flag("dataChange"),
                text("stats"),
                map("tags"),
            ],
        ),
        of(
            "remove",
            vec![
                text("path"),
                long("deletionTimestamp"),
                flag("dataChange"),
                flag("extendedFileMetadata"),
                map("partitionValues"),
                long("size"),
                map("tags"),
            ],
        ),
        of(
            "metaData",
            vec![
                text("id"),
                text("name"),
                text("description"),
                of("format", vec![text("provider"), map("options")]),
                text("schemaString"),
                texts("partitionColumns"),
                map("configuration"),
                long("createdTime"),
            ],
        ),
        of(
            "protocol",
            vec![int("minReaderVersion"), int("minWriterVersion"), texts("readerFeatures"), texts("writerFeatures")],
        ),
    ]))
}

fn text_map() -> DataType {
    let fields = vec![Field::new("key", DataType::Utf8, false), Field::new("value", DataType::Utf8, true)];
    DataType::Map(Arc::new(Field::new("key_value", DataType::Struct(Fields::from(fields)), false)), false)
}

fn failed(error: &dyn std::fmt::Display) -> FormatError {
    corrupt(format!("it could not be written: {error}"))
}

fn corrupt(detail: impl Into<String>) -> FormatError {
    FormatError::Corrupt { what: WHAT, detail: detail.into() }
}

#[cfg(test)]
mod tests;
