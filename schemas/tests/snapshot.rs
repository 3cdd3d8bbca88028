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
