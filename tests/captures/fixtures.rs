//! The recordings in this folder, for whichever test includes this file.

// Each test needs its own part of it.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde_json::Value;

/// What one client sent in one run, and what must come of it.
#[derive(Debug)]
pub(crate) struct Recording {
    pub(crate) client: String,
    pub(crate) run: Run,
    /// With the run id in place.
    pub(crate) expected: Value,
    folder: PathBuf,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Run {
    pub(crate) run_id: String,
    /// Trace id by the label that `expected` uses.
    pub(crate) trace_ids: BTreeMap<String, String>,
    pub(crate) requests: Vec<Request>,
}

/// One request; `application/grpc` bodies are the message without its frame.
#[derive(Debug, Deserialize)]
pub(crate) struct Request {
    pub(crate) file: String,
    pub(crate) path: String,
    pub(crate) content_type: String,
    pub(crate) content_encoding: String,
    pub(crate) headers: BTreeMap<String, String>,
}

/// All recordings, by client name.
pub(crate) fn recordings() -> Vec<Recording> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/captures");
    let mut folders: Vec<PathBuf> =
        fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect();
    folders.sort();
    folders.into_iter().map(recording).collect()
}

fn recording(folder: PathBuf) -> Recording {
    let run: Run = serde_json::from_str(&fs::read_to_string(folder.join("run.json")).unwrap()).unwrap();
    let expected = fs::read_to_string(folder.join("expected.json")).unwrap().replace("{RUN_ID}", &run.run_id);
    let client = folder.file_name().unwrap().to_string_lossy().into_owned();
    Recording { client, run, expected: serde_json::from_str(&expected).unwrap(), folder }
}

impl Recording {
    /// The bytes of a request as they were on the wire.
    pub(crate) fn body(&self, request: &Request) -> Vec<u8> {
        let bytes = fs::read(self.folder.join(&request.file)).unwrap();
        if request.file.ends_with(".json") {
            return bytes;
        }
        BASE64_STANDARD
            .decode(bytes.into_iter().filter(|byte| !byte.is_ascii_whitespace()).collect::<Vec<_>>())
            .unwrap()
    }
}
