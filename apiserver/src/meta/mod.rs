//! `metadata`: what the server sets, keeps and checks on every object whatever its kind.
//!
//! Pure: time, randomness of names excepted, comes in as an argument.

mod names;
mod owners;
mod shape;
#[cfg(test)]
mod tests;
mod validate;

pub use names::{
    dns_label_errors, dns_subdomain_errors, generate_name, label_value_errors, path_segment_errors,
    qualified_name_errors,
};
pub use owners::dedup_owners;
pub use shape::{check_api_version, check_shape, check_type, missing_kind};
pub(crate) use validate::finalizer_causes;
pub use validate::{
    FOREGROUND_FINALIZER, ORPHAN_FINALIZER, validate, validate_embedded, validate_update, warnings,
};

use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::resource::{Origin, ResourceDef};
use crate::status::ApiError;

/// What only the server sets: wiped from a create, carried over in an update.
const OWNED_BY_SERVER: [&str; 6] = [
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "selfLink",
    "generation",
];

/// What a create drops of the metadata that a client sent, and where it puts the object: wipes what
/// only the server sets, fills in the namespace.
///
/// # Errors
/// 400 for another namespace than the one in the URL, and for metadata of the wrong types.
pub fn accept_create(
    def: &ResourceDef,
    namespace: Option<&str>,
    object: &mut Value,
) -> Result<(), ApiError> {
    let object = as_object(object)?;
    let metadata = metadata_of(object)?;
    for field in OWNED_BY_SERVER {
        metadata.remove(field);
    }
    set_namespace(def, namespace, metadata)
}

/// Fills in the metadata of a new object that [`accept_create`] has gone over: name (generated if
/// need be), uid, creationTimestamp, generation 1; drops `status` when the kind has the subresource.
/// Without a name and a base for one there is still none: [`validate`] says so.
///
/// # Errors
/// 400 for metadata of the wrong types.
pub fn prepare_create(
    def: &ResourceDef,
    object: &mut Value,
    now: Timestamp,
) -> Result<(), ApiError> {
    let object = as_object(object)?;
    if def.has_status {
        object.remove("status");
    }
    let metadata = metadata_of(object)?;
    metadata.remove("resourceVersion");
    set_name(metadata);
    metadata.insert("uid".into(), uuid::Uuid::new_v4().to_string().into());
    metadata.insert("creationTimestamp".into(), time_text(now).into());
    // Kinds whose every field is data, such as ConfigMap, have no generation in Kubernetes; a
    // number that only grows does not hurt there, but clients compare whole objects in tests.
    if def.origin == Origin::Custom || (def.has_status && def.kind != "Namespace") {
        metadata.insert("generation".into(), 1.into());
    }
    Ok(())
}

/// As [`prepare_create`], for an object that is answered and not stored: it gets no identity.
///
/// # Errors
/// 400 for a mismatch of apiVersion, kind or namespace and for metadata of the wrong types.
pub fn prepare_review(
    def: &ResourceDef,
    namespace: Option<&str>,
    object: &mut Value,
) -> Result<(), ApiError> {
    check_shape(def, object).map_err(|why| ApiError::undecodable(def, object, &why))?;
    check_api_version(def, object)?;
    let metadata = metadata_of(as_object(object)?)?;
    if namespace.is_some() {
        set_namespace(def, namespace, metadata)?;
    }
    Ok(())
}

/// Whether `new` is the object in the URL.
///
/// # Errors
/// 400 for another namespace or name, or none.
pub fn check_same_object(
    def: &ResourceDef,
    namespace: &str,
    name: &str,
    new: &mut Value,
) -> Result<(), ApiError> {
    let metadata = metadata_of(as_object(new)?)?;
    set_namespace(def, Some(namespace), metadata)?;
    match metadata.get("name").and_then(Value::as_str).unwrap_or("") {
        "" => Err(ApiError::bad_request(format!(
            "the name of the object ({name} based on URL) was undeterminable: name must be provided"
        ))),
        given if given != name => Err(ApiError::bad_request(format!(
            "the name of the object ({given}) does not match the name on the URL ({name})"
        ))),
        _ => Ok(()),
    }
}

/// Carries over what an update may not touch (creationTimestamp, generation, …), and resets `status`
/// (main resource) or everything but `status` (`subresource == Some("status")`). What a client tried
/// to change that is immutable stays changed: [`validate_update`] says so.
///
/// # Errors
/// 400 for metadata of the wrong types.
pub fn prepare_update(
    def: &ResourceDef,
    subresource: Option<&str>,
    old: &Value,
    new: &mut Value,
) -> Result<(), ApiError> {
    let object = as_object(new)?;
    if subresource == Some("status") {
        // Nearly everything is as it was: to compare it costs less than to copy it.
        let empty = Map::new();
        let old = old.as_object().unwrap_or(&empty);
        object.retain(|name, _| name == "status" || old.contains_key(name));
        for (name, value) in old {
            if name != "status" && object.get(name) != Some(value) {
                object.insert(name.clone(), value.clone());
            }
        }
        return Ok(());
    }
    if def.has_status {
        match old.get("status") {
            Some(status) => object.insert("status".into(), status.clone()),
            None => object.remove("status"),
        };
    }
    let metadata = metadata_of(object)?;
    for field in ["creationTimestamp", "generation", "selfLink"] {
        match old["metadata"].get(field) {
            Some(value) => metadata.insert(field.into(), value.clone()),
            None => metadata.remove(field),
        };
    }
    let given = |metadata: &Map<String, Value>, field: &str| {
        metadata.get(field).is_some_and(|value| !value.is_null() && value != "")
    };
    for field in ["uid", "deletionGracePeriodSeconds"] {
        if !given(metadata, field) {
            carry_over(metadata, old, field);
        }
    }
    if old["metadata"].get("deletionTimestamp").is_some() || !given(metadata, "deletionTimestamp") {
        carry_over(metadata, old, "deletionTimestamp");
    }
    Ok(())
}

fn carry_over(metadata: &mut Map<String, Value>, old: &Value, field: &str) {
    match old["metadata"].get(field) {
        Some(value) => metadata.insert(field.into(), value.clone()),
        None => metadata.remove(field),
    };
}

/// Counts a change of anything but metadata and status: +1. Comes after the kind's own rules, which
/// may undo what the client seemed to change.
pub fn count_generation(def: &ResourceDef, old: &Value, new: &mut Value) {
    if content_changed(def, old, new) {
        bump_generation(new);
    }
}

/// `metadata.generation` + 1; also for setting a deletionTimestamp. Kinds without one keep none.
pub fn bump_generation(object: &mut Value) {
    if let Some(generation) = object.pointer_mut("/metadata/generation") {
        *generation = (generation.as_i64().unwrap_or(0) + 1).into();
    }
}

/// RFC 3339 in whole seconds, as `metav1.Time` is written.
pub fn time_text(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// RFC 3339 in microseconds, as `metav1.MicroTime` is written.
pub fn micro_time_text(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

fn as_object(value: &mut Value) -> Result<&mut Map<String, Value>, ApiError> {
    value
        .as_object_mut()
        .ok_or_else(|| ApiError::bad_request("the object provided is not a JSON object"))
}

fn metadata_of(object: &mut Map<String, Value>) -> Result<&mut Map<String, Value>, ApiError> {
    let metadata = object.entry("metadata").or_insert(Value::Null);
    if metadata.is_null() {
        *metadata = Value::Object(Map::new());
    }
    metadata.as_object_mut().ok_or_else(|| ApiError::bad_request("metadata must be an object"))
}

fn set_namespace(
    def: &ResourceDef,
    namespace: Option<&str>,
    metadata: &mut Map<String, Value>,
) -> Result<(), ApiError> {
    let Some(namespace) = namespace.filter(|_| def.is_namespaced()) else {
        metadata.remove("namespace");
        return Ok(());
    };
    let given = metadata.get("namespace").and_then(Value::as_str).unwrap_or("");
    if !given.is_empty() && given != namespace {
        return Err(ApiError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    metadata.insert("namespace".into(), namespace.into());
    Ok(())
}

fn set_name(metadata: &mut Map<String, Value>) {
    let text = |field: &str| metadata.get(field).and_then(Value::as_str).unwrap_or("");
    if text("name").is_empty() && !text("generateName").is_empty() {
        let name = generate_name(text("generateName"));
        metadata.insert("name".into(), name.into());
    }
}

/// Whether anything but metadata (and status, where it is a subresource) differs.
fn content_changed(def: &ResourceDef, old: &Value, new: &Value) -> bool {
    let (Value::Object(old), Value::Object(new)) = (old, new) else { return true };
    let counts = |field: &str| {
        field != "metadata"
            && field != "kind"
            && field != "apiVersion"
            && !(def.has_status && field == "status")
    };
    let changed = new.iter().any(|(field, value)| counts(field) && old.get(field) != Some(value));
    changed || old.keys().any(|field| counts(field) && !new.contains_key(field))
}
