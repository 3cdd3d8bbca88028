//! The definitions that are served are checked in, so that a change of a type shows as a change of
//! the API in review. After an intended change: `UPDATE_SNAPSHOT=1 cargo test -p commonage-schemas`.

use std::path::Path;

#[test]
fn the_checked_in_definitions_are_those_of_the_types() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("crds.json");
    let now = serde_json::to_string_pretty(&commonage_schemas::all_crds())
        .expect("definitions serialize")
        + "\n";
    if std::env::var_os("UPDATE_SNAPSHOT").is_some() {
        std::fs::write(&path, &now).expect("write the snapshot");
    }
    let checked_in = std::fs::read_to_string(&path).unwrap_or_default();
    let first_difference = now.lines().zip(checked_in.lines()).position(|(a, b)| a != b);
    assert!(
        now == checked_in,
        "schemas/crds.json differs from the types (first at line {:?}); if intended: UPDATE_SNAPSHOT=1 cargo test -p commonage-schemas",
        first_difference.map(|line| line + 1),
    );
}

/// `kubectl explain` shows a word about each.
#[test]
fn every_field_is_explained() {
    fn walk(schema: &serde_json::Value, path: &str, silent: &mut Vec<String>) {
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            if property["description"].as_str().is_none_or(str::is_empty) {
                silent.push(path.clone());
            }
            walk(property, &path, silent);
        }
        for part in ["items", "additionalProperties"] {
            if schema[part].is_object() {
                walk(&schema[part], path, silent);
            }
        }
    }
    let mut silent = Vec::new();
    let definitions = serde_json::to_value(commonage_schemas::all_crds()).expect("they serialize");
    for definition in definitions.as_array().expect("a list") {
        let kind = definition["spec"]["names"]["kind"].as_str().expect("a kind");
        for version in definition["spec"]["versions"].as_array().expect("versions") {
            let fields = &version["schema"]["openAPIV3Schema"]["properties"];
            assert!(fields["spec"].is_object(), "{kind}");
            for part in ["spec", "status"] {
                walk(&fields[part], &format!("{kind}.{part}"), &mut silent);
            }
        }
    }
    assert!(silent.is_empty(), "nothing is said of {silent:#?}");
}
