//! Delta commits: `_delta_log/{version}.json`, one action a line (Delta protocol, reader 1, writer 2).
//!
//! Only the features every reader knows: no deletion vectors, no column mapping, no generated columns.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{FormatError, Result};
use crate::model::tables::Table;

const WHAT: &str = "delta commit";
const READER_VERSION: u32 = 1;
const WRITER_VERSION: u32 = 2;

/// A line of a commit. Kinds we do not write and may ignore read as `Other`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Action {
    CommitInfo(CommitInfo),
    Protocol(Protocol),
    MetaData(MetaData),
    Add(Add),
    Remove(Remove),
    Txn(Txn),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CommitInfo {
    pub timestamp: i64,
    pub operation: String,
    #[serde(default)]
    pub engine_info: String,
    /// Ours: by it a commit is known again after a lost reply.
    #[serde(default)]
    pub txn_id: String,
    #[serde(flatten)]
    pub more: BTreeMap<String, Value>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Protocol {
    pub min_reader_version: u32,
    pub min_writer_version: u32,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reader_features: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub writer_features: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MetaData {
    pub id: String,
    #[serde(default)]
    pub name: Option<String>,
    #[serde(default)]
    pub description: Option<String>,
    pub format: Value,
    pub schema_string: String,
    pub partition_columns: Vec<String>,
    #[serde(default)]
    pub configuration: BTreeMap<String, String>,
    #[serde(default)]
    pub created_time: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Add {
    /// Relative to the table's root. Our names need no percent-encoding.
    pub path: String,
    pub partition_values: BTreeMap<String, Option<String>>,
    pub size: i64,
    pub modification_time: i64,
    pub data_change: bool,
    #[serde(default)]
    pub stats: Option<String>,
    #[serde(default)]
    pub tags: Option<BTreeMap<String, Option<String>>>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Remove {
    pub path: String,
    #[serde(default)]
    pub deletion_timestamp: Option<i64>,
    pub data_change: bool,
    /// Whether the rest is known; in checkpoints it is, so that what belonged to the file is found when it is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extended_file_metadata: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition_values: Option<BTreeMap<String, Option<String>>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<BTreeMap<String, Option<String>>>,
}

/// How far an application's own log is in the table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Txn {
    pub app_id: String,
    pub version: i64,
    #[serde(default)]
    pub last_updated: Option<i64>,
}

pub fn encode_commit(actions: &[Action]) -> Bytes {
    let mut lines = Vec::new();
    for action in actions {
        serde_json::to_writer(&mut lines, action).expect("actions have text keys and no failing types");
        lines.push(b'\n');
    }
    lines.into()
}

/// Reads a commit. Lines of kinds that change nothing we rely on (`cdc`, `domainMetadata`, …) are left out; a protocol
/// this version cannot follow is refused.
pub fn decode_commit(body: &[u8]) -> Result<Vec<Action>> {
    let corrupt =
        |line: usize, detail: String| FormatError::Corrupt { what: WHAT, detail: format!("line {line}: {detail}") };
    let mut actions = Vec::new();
    for (at, line) in body.split(|byte| *byte == b'\n').enumerate().filter(|(_, line)| !line.is_empty()) {
        let line_value: serde_json::Map<String, Value> =
            serde_json::from_slice(line).map_err(|e| corrupt(at + 1, e.to_string()))?;
        let known = ["commitInfo", "protocol", "metaData", "add", "remove", "txn"];
        if !line_value.keys().any(|key| known.contains(&key.as_str())) {
            continue;
        }
        let action = serde_json::from_value(Value::Object(line_value)).map_err(|e| corrupt(at + 1, e.to_string()))?;
        if let Action::Protocol(protocol) = &action
            && (protocol.min_reader_version > READER_VERSION || protocol.min_writer_version > WRITER_VERSION)
        {
            let found = protocol.min_reader_version.max(protocol.min_writer_version) as u16;
            return Err(FormatError::Newer { what: "delta protocol", found, known: WRITER_VERSION as u16 });
        }
        actions.push(action);
    }
    Ok(actions)
}

/// The first commit of a table: its protocol and its shape.
pub fn creation(table: Table, id: String, now_ms: i64) -> [Action; 2] {
    let protocol = Protocol {
        min_reader_version: READER_VERSION,
        min_writer_version: WRITER_VERSION,
        reader_features: vec![],
        writer_features: vec![],
    };
    let configuration = [
        // Readers may look a day back; the files of retired versions are swept by us, not by other engines.
        ("delta.logRetentionDuration", "interval 2 days"),
        ("delta.deletedFileRetentionDuration", "interval 2 days"),
        ("delta.enableExpiredLogCleanup", "false"),
        ("delta.dataSkippingStatsColumns", table.time_column()),
    ];
    let metadata = MetaData {
        id,
        name: Some(table.name().to_owned()),
        description: Some(table.comment().to_owned()),
        format: json!({"provider": "parquet", "options": {}}),
        schema_string: schema(table).to_string(),
        partition_columns: vec!["day".to_owned()],
        configuration: configuration.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        created_time: Some(now_ms),
    };
    [Action::Protocol(protocol), Action::MetaData(metadata)]
}

/// The description of a table that an older version made, with the columns it lacks; `None`: it lacks none. They come
/// after all others and are nullable: old files read as null, the protocol stays, and columns of a newer version are kept.
pub fn grown(table: Table, standing: &MetaData) -> Result<Option<MetaData>> {
    let corrupt =
        |detail: &str| FormatError::Corrupt { what: WHAT, detail: format!("the schema of {}: {detail}", table.name()) };
    let mut stands: Value = serde_json::from_str(&standing.schema_string).map_err(|e| corrupt(&e.to_string()))?;
    let fields = stands.get_mut("fields").and_then(Value::as_array_mut).ok_or_else(|| corrupt("it has no fields"))?;
    let lacking: Vec<Value> = table
        .columns()
        .into_iter()
        .filter(|(name, ..)| !fields.iter().any(|field| field["name"] == *name))
        .map(|(name, kind, comment)| field(name, kind.delta(), comment))
        .collect();
    if lacking.is_empty() {
        return Ok(None);
    }
    fields.extend(lacking);
    Ok(Some(MetaData { schema_string: stands.to_string(), ..standing.clone() }))
}

/// A table's columns as a Delta schema; `day` comes last, as the partition column.
fn schema(table: Table) -> Value {
    let mut fields: Vec<Value> =
        table.columns().into_iter().map(|(name, kind, comment)| field(name, kind.delta(), comment)).collect();
    fields.push(field("day", "date".into(), "UTC day of placement; prune by true times, not by it."));
    json!({"type": "struct", "fields": fields})
}

fn field(name: &str, kind: Value, comment: &str) -> Value {
    json!({"name": name, "type": kind, "nullable": true, "metadata": {"comment": comment}})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_reads_back_as_it_was_written() {
        let [protocol, metadata] = creation(Table::Observations, "id".into(), 5);
        let txn = Action::Txn(Txn { app_id: "main".into(), version: 7, last_updated: None });
        let actions = vec![protocol, metadata, txn];
        assert_eq!(decode_commit(&encode_commit(&actions)).unwrap(), actions);
    }

    #[test]
    fn a_table_of_an_older_version_gets_the_columns_it_lacks_and_keeps_those_of_a_newer_one() {
        let [_, Action::MetaData(new)] = creation(Table::Scores, "id".into(), 5) else { unreachable!() };
        assert_eq!(grown(Table::Scores, &new).unwrap(), None, "it lacks none");
        let mut schema: Value = serde_json::from_str(&new.schema_string).unwrap();
        let fields = schema["fields"].as_array_mut().unwrap();
        fields.retain(|field| field["name"] != "comment" && field["name"] != "sensitive_kinds");
        fields.push(field("of_tomorrow", "string".into(), "?"));
        let mut names: Vec<String> = fields.iter().map(|field| field["name"].as_str().unwrap().to_owned()).collect();
        let old = MetaData { schema_string: schema.to_string(), ..new.clone() };
        let grown_once = grown(Table::Scores, &old).unwrap().unwrap();
        let schema: Value = serde_json::from_str(&grown_once.schema_string).unwrap();
        names.extend(["comment".to_owned(), "sensitive_kinds".to_owned()]);
        let now: Vec<&str> =
            schema["fields"].as_array().unwrap().iter().map(|field| field["name"].as_str().unwrap()).collect();
        assert_eq!(now, names);
        assert_eq!((&grown_once.id, &grown_once.configuration), (&new.id, &new.configuration));
        assert_eq!(grown(Table::Scores, &grown_once).unwrap(), None, "once is enough");
        let garbled = MetaData { schema_string: "{}".into(), ..new };
        assert!(matches!(grown(Table::Scores, &garbled), Err(FormatError::Corrupt { .. })));
    }

    #[test]
    fn foreign_lines_are_left_out_and_newer_protocols_refused() {
        let foreign = br#"{"domainMetadata":{"domain":"x","configuration":"","removed":false}}"#;
        assert_eq!(decode_commit(foreign).unwrap(), []);
        let newer = br#"{"protocol":{"minReaderVersion":3,"minWriterVersion":7,"readerFeatures":["deletionVectors"]}}"#;
        assert!(matches!(decode_commit(newer), Err(FormatError::Newer { found: 7, .. })));
        assert!(matches!(decode_commit(b"{\"add\":"), Err(FormatError::Corrupt { .. })));
    }
}
