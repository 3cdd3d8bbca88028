//! JSON patch, merge patch and a small strategic merge patch, with the Go server's semantics.
//!
//! Existing Rust crates refuse what clients rely on: `test null` on a missing member (kube-rs'
//! finalizers), `add` without a value, negative indices. All functions work in place; on an error
//! the document is half-patched and must be thrown away.

mod json;
mod strategic;
#[cfg(test)]
mod tests;

pub use json::json_patch;
pub use strategic::strategic_merge_patch;

use serde_json::{Map, Value};

/// More operations than this in one JSON patch are refused, as kube-apiserver does.
pub const JSON_PATCH_OPERATIONS_MAX: usize = 10_000;

/// Applies an RFC 7386 patch: null removes, objects merge, everything else replaces.
pub fn merge_patch(document: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *document = patch;
        return;
    };
    if !document.is_object() {
        *document = Value::Object(Map::new());
    }
    let Value::Object(document) = document else { unreachable!("made an object above") };
    for (name, value) in patch {
        if value.is_null() {
            document.remove(&name);
        } else {
            merge_patch(document.entry(name).or_insert(Value::Null), value);
        }
    }
}
