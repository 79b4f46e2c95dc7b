//! The wire is fresh and its contract is kept. `TRACELAKE_BLESS=1 cargo test wire` rewrites what is generated.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use prost::Message;
use prost_types::{DescriptorProto, FileDescriptorSet};

const PROTOS: [&str; 7] = [
    "tracelake/v1/admin.proto",
    "tracelake/v1/ingest.proto",
    "tracelake/v1/metrics.proto",
    "tracelake/v1/sql.proto",
    "tracelake/v1/erasure.proto",
    "tracelake/v1/prices.proto",
    "tracelake/v1/traces.proto",
];

pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

pub(crate) fn descriptors() -> FileDescriptorSet {
    protox::compile(PROTOS, [root().join("proto")]).expect("the protos compile")
}

fn generated() -> Vec<(PathBuf, String)> {
    let out = tempfile::tempdir().unwrap();
    let mut without_comments = descriptors();
    tonic_prost_build::configure()
        .btree_map(".")
        .out_dir(out.path())
        .compile_fds(without_comments.clone())
        .expect("code is generated");
    for file in &mut without_comments.file {
        file.source_code_info = None;
    }
    let bytes: String = without_comments.encode_to_vec().chunks(96).fold(String::new(), |mut text, line| {
        // A line that is continued swallows the spaces its next line begins with: they are written as numbers.
        let line: String = line.iter().flat_map(|byte| std::ascii::escape_default(*byte)).map(char::from).collect();
        text.push_str("    ");
        text.push_str(&line.replace(' ', "\\x20"));
        text.push_str("\\\n");
        text
    });
    let descriptor = format!(
        "// Generated from proto/; see tests/it/wire.rs.\n\n/// The compiled protos, for gRPC reflection.\npub const FILE_DESCRIPTOR_SET: &[u8] = b\"\\\n{bytes}\";\n"
    );
    let code = fs::read_to_string(out.path().join("tracelake.v1.rs")).unwrap();
    vec![(root().join("src/wire/tracelake.v1.rs"), code), (root().join("src/wire/descriptor.rs"), descriptor)]
}

pub(crate) fn blessing() -> bool {
    std::env::var_os("TRACELAKE_BLESS").is_some()
}

#[test]
fn generated_code_is_not_stale() {
    for (path, fresh) in generated() {
        if blessing() {
            fs::write(&path, &fresh).unwrap();
        }
        let committed = fs::read_to_string(&path).unwrap_or_default();
        assert!(committed == fresh, "{} is stale: TRACELAKE_BLESS=1 cargo test wire", path.display());
    }
}

/// One line per field, enum value and method: what a client may rely on.
fn contract(set: &FileDescriptorSet) -> BTreeSet<String> {
    fn messages(prefix: &str, message: &DescriptorProto, lines: &mut BTreeSet<String>) {
        let name = format!("{prefix}.{}", message.name());
        for field in &message.field {
            let kind = if field.type_name().is_empty() {
                field.r#type().as_str_name().to_owned()
            } else {
                field.type_name().to_owned()
            };
            lines.insert(format!(
                "{name}.{} = {} {kind} {}",
                field.name(),
                field.number(),
                field.label().as_str_name()
            ));
        }
        for nested in &message.nested_type {
            messages(&name, nested, lines);
        }
    }
    let mut lines = BTreeSet::new();
    for file in &set.file {
        for message in &file.message_type {
            messages(file.package(), message, &mut lines);
        }
        for values in &file.enum_type {
            for value in &values.value {
                lines.insert(format!("{}.{}.{} = {}", file.package(), values.name(), value.name(), value.number()));
            }
        }
        for service in &file.service {
            for method in &service.method {
                lines.insert(format!(
                    "{}.{}/{} {}{} -> {}{}",
                    file.package(),
                    service.name(),
                    method.name(),
                    if method.client_streaming() { "stream " } else { "" },
                    method.input_type(),
                    if method.server_streaming() { "stream " } else { "" },
                    method.output_type()
                ));
            }
        }
    }
    lines
}

fn promised(path: &Path) -> BTreeSet<String> {
    fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

fn broken_promises(promised: &BTreeSet<String>, now: &BTreeSet<String>) -> Vec<String> {
    promised.difference(now).cloned().collect()
}

#[test]
fn no_field_is_removed_or_renumbered() {
    let path = root().join("proto/contract.txt");
    let now = contract(&descriptors());
    let before = promised(&path);
    assert_eq!(broken_promises(&before, &now), Vec::<String>::new(), "tracelake.v1 is a public contract");
    if blessing() {
        let lines: Vec<String> = before.union(&now).cloned().collect();
        fs::write(&path, lines.join("\n") + "\n").unwrap();
    }
    assert_eq!(promised(&path), now, "new fields are promised too: TRACELAKE_BLESS=1 cargo test wire");
}

#[test]
fn a_removed_and_a_renumbered_field_break_the_promise() {
    let promised = contract(&descriptors());
    let mut changed = descriptors();
    let mut messages = changed.file.iter_mut().flat_map(|file| &mut file.message_type);
    let message = messages.find(|message| message.name() == "IngestResponse").unwrap();
    message.field[0].number = Some(9);
    message.field.remove(1);
    assert_eq!(broken_promises(&promised, &contract(&changed)).len(), 2);
}
