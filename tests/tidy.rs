//! Rules of the architecture that a compiler does not hold.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Lines of code that a file may have before it has to be split.
const LINES_MAX: usize = 800;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(folder: &str) -> Vec<(PathBuf, String)> {
    fn walk(folder: &Path, files: &mut Vec<(PathBuf, String)>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, files);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                files.push((path, text));
            }
        }
    }
    let mut files = Vec::new();
    walk(&root().join(folder), &mut files);
    assert!(!files.is_empty(), "{folder} has no Rust files");
    files
}

/// Fails with each line of these files' code, comments apart, that has one of `words`.
#[track_caller]
fn check_absent(files: &[(PathBuf, String)], words: &[&str], why: &str) {
    let mut found = Vec::new();
    for (path, text) in files {
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if words.iter().any(|word| code.contains(word)) {
                found.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
            }
        }
    }
    assert!(found.is_empty(), "{why}:\n{}", found.join("\n"));
}

#[test]
fn state_machines_know_no_runtime_and_no_clock() {
    const PURE: &[&str] = &[
        "state.rs",
        "ring.rs",
        "window.rs",
        "devices.rs",
        "history.rs",
        "position.rs",
        "change.rs",
        "notes.rs",
        "parked.rs",
        "refill.rs",
        "expiring.rs",
        "versions.rs",
        "heartbeat.rs",
        "timers.rs",
        "restart.rs",
        "trimming.rs",
        "state/sweeping.rs",
        "wall.rs",
        "rates.rs",
        "upload.rs",
        "uploading.rs",
        "changing.rs",
        "marks.rs",
        "marker.rs",
        "marking.rs",
        "asking.rs",
        "question.rs",
        "gathering.rs",
        "watching.rs",
        "onlookers.rs",
        "state/presence.rs",
    ];
    let mut files = rust_files("actors/src");
    files.extend(rust_files("src/client"));
    files.retain(|(path, _)| PURE.iter().any(|name| path.ends_with(name)));
    assert!(files.len() >= 15, "the pure files are where they were");
    let words = ["actix", "tokio", "Instant::now", "SystemTime", "std::thread", "std::net", "std::fs"];
    check_absent(&files, &words, "a state machine is told what happens and when");
}

#[test]
fn layers_point_one_way() {
    check_absent(&rust_files("protocol/src"), &["parlor_actors", "tokio", "std::net", "std::io"], "the codec is pure");
    check_absent(
        &rust_files("actors/src"),
        &["rocksdb", "TcpStream", "std::fs"],
        "the actors know a port, not what is behind it",
    );
    check_absent(
        &rust_files("src/storage"),
        &["crate::net", "crate::engine", "actix", "tokio"],
        "the store serves a port",
    );
    check_absent(&rust_files("src/net"), &["crate::storage", "rocksdb"], "the network side serves the actors");
    let client = rust_files("src/client");
    check_absent(
        &client,
        &["crate::engine", "crate::net", "crate::storage", "parlor_actors"],
        "the client is one of many",
    );
}

#[test]
fn the_encoder_is_named_in_one_file() {
    let mut files = rust_files("src");
    for folder in ["actors/src", "protocol/src"] {
        files.extend(rust_files(folder));
    }
    files.retain(|(path, _)| !path.ends_with("protocol/src/codec.rs"));
    check_absent(&files, &["bincode"], "a successor of the encoder has one place to go");
}

#[test]
fn files_have_one_purpose() {
    let mut files = rust_files("src");
    for folder in ["actors/src", "protocol/src"] {
        files.extend(rust_files(folder));
    }
    let long: Vec<String> = files
        .iter()
        .map(|(path, text)| (path, text.lines().count()))
        .filter(|(_, lines)| *lines > LINES_MAX)
        .map(|(path, lines)| format!("{} has {lines} lines", path.display()))
        .collect();
    assert!(long.is_empty(), "what are these two of?\n{}", long.join("\n"));
}

#[test]
fn every_dependency_is_explained() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let reasons = fs::read_to_string(root().join("docs/dependencies.md")).unwrap();
    let section = manifest.split("[workspace.dependencies]").nth(1).unwrap().split("\n[").next().unwrap();
    let names = section.lines().filter_map(|line| line.split_once(" = ")).map(|(name, _)| name.trim());
    let unexplained: Vec<&str> = names
        .filter(|name| !name.starts_with("parlor-") && !name.starts_with('#') && !reasons.contains(name))
        .collect();
    assert!(unexplained.is_empty(), "docs/dependencies.md does not say what these are for: {unexplained:?}");
}

#[test]
fn every_limit_is_kept_and_can_be_configured() {
    let limits = fs::read_to_string(root().join("actors/src/limits.rs")).unwrap();
    let fields = limits.lines().filter_map(|line| line.trim().strip_prefix("pub ")?.split_once(": "));
    let fields: Vec<&str> = fields.map(|(name, _)| name).collect();
    assert!(fields.len() > 20, "the limits are where they were");
    let mut used = rust_files("src");
    used.extend(rust_files("actors/src"));
    let said = ["limits.rs", "config.rs", "config/file.rs"];
    used.retain(|(path, _)| said.iter().all(|file| !path.ends_with(file)));
    let config = fs::read_to_string(root().join("src/config/file.rs")).unwrap();
    for field in fields {
        assert!(used.iter().any(|(_, text)| text.contains(field)), "nothing keeps the limit {field}");
        assert!(config.contains(&format!("    {field}: ")), "the limit {field} cannot be configured");
    }
}
