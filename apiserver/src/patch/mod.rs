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

use crate::engine::{FieldValidation, PatchKind};
use crate::resource::ResourceDef;
use crate::schema::{self, go};
use crate::status::ApiError;

/// More operations than this in one JSON patch are refused, as kube-apiserver does.
pub const JSON_PATCH_OPERATIONS_MAX: usize = 10_000;

/// Applies the body of a PATCH; returns what a strict reader finds wrong with the body's own text.
///
/// # Errors
/// 400 when the patch does not parse, 413 when it is too long, 422 when it does not apply.
pub fn apply(
    def: &ResourceDef,
    document: &mut Value,
    kind: PatchKind,
    body: &[u8],
    validation: FieldValidation,
) -> Result<Vec<String>, ApiError> {
    if kind == PatchKind::Json {
        return json_patch(document, body, validation);
    }
    let prefix = match kind {
        PatchKind::Merge if validation != FieldValidation::Ignore => "error decoding patch: ",
        _ => "",
    };
    let refuse = |why: String| ApiError::bad_request(format!("{prefix}{why}"));
    let (patch, duplicates) =
        schema::decode_strict(body).map_err(|refused| refuse(refused.into_message()))?;
    match &patch {
        Value::Object(_) => {}
        // Go decodes null into an empty map, which only a strategic merge patch then takes as one.
        Value::Null if kind == PatchKind::Strategic => return Ok(Vec::new()),
        Value::Null => return Err(ApiError::bad_request("Invalid JSON Patch")),
        other => {
            let what = go::json_type(other);
            let wanted = "map[string]interface {}";
            let why = format!("json: cannot unmarshal {what} into Go value of type {wanted}");
            return Err(refuse(why));
        }
    }
    match kind {
        PatchKind::Merge => merge_patch(document, patch),
        _ => strategic_merge_patch(def, document, patch)?,
    }
    Ok(duplicates.iter().map(|path| format!("duplicate field {path:?}")).collect())
}

/// The body of a merge patch as Go's `%+v` prints it.
pub(crate) fn printed(body: &[u8]) -> String {
    schema::decode_strict(body).map(|(patch, _)| strategic::printed(&patch)).unwrap_or_default()
}

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
