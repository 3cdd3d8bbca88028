//! Every test that SPECIFICATION.md names exists.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    path::{Path, PathBuf},
};

/// All Rust sources below a directory, build output left out.
fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            sources(&path, found);
        } else if name.ends_with(".rs") {
            found.push(path);
        }
    }
}

#[test]
fn every_test_that_the_specification_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let text = fs::read_to_string(root.join("SPECIFICATION.md")).unwrap();
    let mut files = Vec::new();
    sources(root, &mut files);
    let code: String = files.iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    // `crate: name`, or `name` after another of the same crate. Words without underscores are
    // other things.
    let quoted = text.split('`').skip(1).step_by(2);
    let names = quoted.map(|words| words.rsplit(": ").next().unwrap());
    let is_test = |name: &&str| {
        name.matches('_').count() > 1 && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    let named: Vec<&str> = names.filter(is_test).collect();
    assert!(named.len() > 30, "{named:?}");
    let missing: Vec<&str> =
        named.into_iter().filter(|name| !code.contains(&format!("fn {name}("))).collect();
    assert!(missing.is_empty(), "the specification names tests that do not exist: {missing:?}");
}
