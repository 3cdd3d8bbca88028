//! `metadata`: what the server sets, keeps and checks on every object whatever its kind.
//!
//! Pure: time, randomness of names excepted, comes in as an argument.

use jiff::Timestamp;
use serde_json::Value;

use crate::resource::ResourceDef;
use crate::status::{ApiError, Cause};

/// Fills in the metadata of a new object: namespace, name (generated if need be), uid,
/// creationTimestamp, generation 1; wipes what only the server sets; drops `status` when the kind
/// has the subresource. apiVersion and kind must fit `def` (built-in kinds may leave them out).
///
/// # Errors
/// 400 for a mismatch of apiVersion, kind or namespace; 422 without name and generateName.
pub fn prepare_create(
    _def: &ResourceDef,
    _namespace: Option<&str>,
    _object: &mut Value,
    _now: Timestamp,
) -> Result<(), ApiError> {
    Ok(())
}

/// Carries over what an update may not touch (uid, creationTimestamp, deletionTimestamp, …),
/// resets `status` (main resource) or everything but `status` (`subresource == Some("status")`),
/// and sets the generation: +1 when anything but metadata and status changed.
///
/// # Errors
/// 400 for a mismatch of apiVersion, kind, name or namespace; 409 for another uid.
pub fn prepare_update(
    _def: &ResourceDef,
    _subresource: Option<&str>,
    _old: &Value,
    _new: &mut Value,
) -> Result<(), ApiError> {
    Ok(())
}

/// Checks names, labels, annotations, finalizers and owner references.
pub fn validate(_def: &ResourceDef, _object: &Value) -> Vec<Cause> {
    Vec::new()
}

/// As [`validate`], and what an update may not do (finalizers added to a deleting object).
pub fn validate_update(def: &ResourceDef, _old: &Value, new: &Value) -> Vec<Cause> {
    validate(def, new)
}

/// Texts for `Warning` headers about legal but unwise metadata.
pub fn warnings(_object: &Value) -> Vec<String> {
    Vec::new()
}

/// `base` cut to 58 characters and five random ones of Kubernetes' vowel-free alphabet.
pub fn generate_name(base: &str) -> String {
    base.to_owned()
}

/// RFC 3339 in whole seconds, as `metav1.Time` is written.
pub fn time_text(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
