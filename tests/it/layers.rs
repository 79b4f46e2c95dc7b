//! Imports only go down; rooms on one floor do not know each other; files stay small.

use std::fs;
use std::path::{Path, PathBuf};

/// The floors of `src/lib.rs`, from the ground up.
const FLOORS: [&[&str]; 10] = [
    &["wire", "base"],
    &["model", "price", "tokens", "corpus"],
    &["decode", "masking", "format"],
    &["store"],
    &["catalog"],
    &["ingest", "query", "compact"],
    &["doors"],
    &["cli", "doctor", "server"],
    &["config", "simulation"],
    &["commands"],
];
const LINES_MAX: usize = 600;
/// Names that say nothing about what is inside.
const BANNED: [&str; 6] = ["utils", "util", "helpers", "misc", "common", "manager"];

fn floor(room: &str) -> Option<usize> {
    FLOORS.iter().position(|rooms| rooms.contains(&room))
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The rooms that a line imports by `crate::room`.
fn imported(line: &str) -> Vec<&str> {
    let code = line.split("//").next().unwrap_or_default();
    let after = |(at, _): (usize, &str)| {
        let rest = &code[at + "crate::".len()..];
        rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default()
    };
    code.match_indices("crate::").map(after).filter(|room| floor(room).is_some()).collect()
}

fn upward_imports(room: &str, text: &str) -> Vec<String> {
    let own = floor(room).unwrap();
    let wrong = |target: &&str| *target != room && floor(target).unwrap() >= own;
    text.lines()
        .enumerate()
        .flat_map(|(at, line)| {
            imported(line)
                .into_iter()
                .filter(wrong)
                .map(move |to| format!("{}: {to} in {line:?}", at + 1))
                .collect::<Vec<_>>()
        })
        .collect()
}

#[test]
fn imports_only_go_down() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut wrong = Vec::new();
    for file in files {
        let relative = file.strip_prefix(&root).unwrap();
        let first = relative.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs");
        if ["lib", "main"].contains(&first) {
            continue;
        }
        assert!(floor(first).is_some(), "room {first} stands on no floor: add it to the map in src/lib.rs and here");
        let text = fs::read_to_string(&file).unwrap();
        wrong.extend(upward_imports(first, &text).into_iter().map(|line| format!("{}:{line}", relative.display())));
    }
    assert!(wrong.is_empty(), "imports that do not go down:\n{}", wrong.join("\n"));
}

#[test]
fn an_upward_and_a_sideways_import_are_found() {
    assert_eq!(upward_imports("store", "use crate::catalog::Catalog;").len(), 1);
    assert_eq!(upward_imports("ingest", "let x = crate::query::Engine::new();").len(), 1);
    assert_eq!(upward_imports("query", "use crate::base::{Day, TenantId}; // not crate::doors").len(), 0);
}

#[test]
fn files_are_short_and_named_for_what_they_hold() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for folder in ["src", "tests", "benches"] {
        sources(&root.join(folder), &mut files);
    }
    let mut wrong = Vec::new();
    for file in files.iter().filter(|file| !file.starts_with(root.join("src/wire"))) {
        let lines = fs::read_to_string(file).unwrap().lines().count();
        if lines > LINES_MAX {
            wrong.push(format!("{} has {lines} lines: split it by idea", file.display()));
        }
        let mut names =
            file.strip_prefix(root).unwrap().iter().map(|part| part.to_str().unwrap().trim_end_matches(".rs"));
        if let Some(name) = names.find(|name| BANNED.contains(name)) {
            wrong.push(format!("{} is named {name}", file.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
