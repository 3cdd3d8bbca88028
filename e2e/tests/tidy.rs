//! What the structure promises, held by a test: who may depend on whom, where unsafe code may be, and
//! that files can be read in one go.
#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use commonage_e2e::repository;

/// Each crate's folder, and the crates of ours that it may depend on. `docs/architecture.md` has the
/// same as a table, with the reasons.
const LAYERS: [(&str, &[&str]); 13] = [
    ("schemas", &[]),
    ("apiserver/apply", &[]),
    ("apiserver/store", &[]),
    ("apiserver", &["commonage-apply", "commonage-schemas", "commonage-store"]),
    ("controllers/allocator", &["commonage-schemas"]),
    ("controllers", &["commonage-allocator", "commonage-schemas"]),
    ("agent", &["commonage-failpoint", "commonage-image", "commonage-schemas", "commonage-shim"]),
    ("agent/failpoint", &[]),
    ("agent/image", &["commonage-failpoint"]),
    ("agent/shim", &["commonage-failpoint", "commonage-schemas"]),
    (
        "cli",
        &[
            "commonage-agent",
            "commonage-apiserver",
            "commonage-controllers",
            "commonage-schemas",
            "commonage-shim",
        ],
    ),
    ("e2e", &["commonage-failpoint", "commonage-schemas"]),
    ("examples/wordcount", &["commonage-schemas"]),
];

/// Past this a file wants splitting.
const FILE_LINES_MAX: usize = 600;

#[test]
fn crates_depend_on_those_below_them_only() {
    for (folder, allowed) in LAYERS {
        let manifest = fs::read_to_string(repository().join(folder).join("Cargo.toml")).unwrap();
        let dependencies = manifest.split("[dependencies]").nth(1).unwrap();
        let dependencies = dependencies.split("\n[").next().unwrap();
        let ours: BTreeSet<&str> = dependencies
            .lines()
            .filter(|line| line.starts_with("commonage"))
            .map(|line| line.split(['.', ' ', '=']).next().unwrap())
            .collect();
        let beyond: Vec<_> = ours.iter().filter(|name| !allowed.contains(name)).collect();
        assert!(beyond.is_empty(), "{folder} must not depend on {beyond:?}");
    }
}

#[test]
fn the_layers_are_those_of_the_workspace() {
    let manifest = fs::read_to_string(repository().join("Cargo.toml")).unwrap();
    let members = manifest.split("members = [").nth(1).unwrap().split(']').next().unwrap();
    let members: BTreeSet<&str> = members.split('"').skip(1).step_by(2).collect();
    assert_eq!(members, LAYERS.iter().map(|(folder, _)| *folder).collect());
}

#[test]
fn unsafe_code_is_in_the_shim_only() {
    let unsafe_words = ["unsafe {", "unsafe fn", "unsafe extern", "unsafe impl", "unsafe_code)]"];
    for path in sources() {
        let text = fs::read_to_string(&path).unwrap();
        let used = text.lines().any(|line| {
            let code = line.split("//").next().unwrap_or_default();
            !code.contains("forbid(") && unsafe_words.iter().any(|word| code.contains(word))
        });
        let shown = path.strip_prefix(repository()).unwrap();
        let may = shown.starts_with("agent/shim") || shown.ends_with("tidy.rs");
        assert!(may || !used, "{} has unsafe code", shown.display());
    }
}

#[test]
fn a_file_says_what_it_is_for_and_can_be_read_in_one_go() {
    for path in sources() {
        let text = fs::read_to_string(&path).unwrap();
        let shown = path.strip_prefix(repository()).unwrap().display();
        // A module's own tests are about that module.
        let tests = path.ends_with("tests.rs");
        assert!(tests || text.starts_with("//!"), "{shown} does not begin with what it is for");
        let lines = text.lines().count();
        assert!(lines <= FILE_LINES_MAX, "{shown} has {lines} lines");
    }
}

/// Every Rust source file of the repository.
fn sources() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut left: Vec<PathBuf> =
        LAYERS.iter().map(|(folder, _)| repository().join(folder)).collect();
    let mut seen = BTreeSet::new();
    while let Some(folder) = left.pop() {
        if !seen.insert(folder.clone()) {
            continue;
        }
        for entry in fs::read_dir(&folder).unwrap().map(Result::unwrap) {
            let path = entry.path();
            let hidden = entry.file_name().to_string_lossy().starts_with('.');
            if entry.file_type().unwrap().is_dir() && !hidden && !path.ends_with("target") {
                left.push(path);
            } else if path.extension() == Some(Path::new("rs").as_os_str()) {
                found.push(path);
            }
        }
    }
    found
}
