//! `metadata`: what the server sets, keeps and checks on every object whatever its kind.
//!
//! Pure: time, randomness of names excepted, comes in as an argument.

mod names;
#[cfg(test)]
mod tests;
mod validate;

pub use names::{
    check_dns_label, check_dns_subdomain, check_label_value, check_path_segment,
    check_qualified_name, generate_name,
};
pub use validate::{validate, validate_update, warnings};

use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::resource::{Origin, ResourceDef};
use crate::status::{ApiError, Cause};

/// What only the server sets: wiped from a create, carried over in an update. `managedFields` is
/// among them until server-side apply keeps them: stored as clients sent them they would lie.
const OWNED_BY_SERVER: [&str; 7] = [
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "selfLink",
    "generation",
    "managedFields",
];

/// Fills in the metadata of a new object: namespace, name (generated if need be), uid,
/// creationTimestamp, generation 1; wipes what only the server sets; drops `status` when the kind
/// has the subresource. apiVersion and kind must fit `def` (built-in kinds may leave them out).
///
/// # Errors
/// 400 for a mismatch of apiVersion, kind or namespace and for metadata of the wrong types; 422
/// without name and generateName.
pub fn prepare_create(
    def: &ResourceDef,
    namespace: Option<&str>,
    object: &mut Value,
    now: Timestamp,
) -> Result<(), ApiError> {
    check_type(def, object)?;
    let object = as_object(object)?;
    if def.has_status {
        object.remove("status");
    }
    let metadata = metadata_of(object)?;
    check_metadata_types(metadata)?;
    set_namespace(def, namespace, metadata)?;
    if metadata.get("resourceVersion").is_some_and(|version| version != "") {
        return Err(ApiError::bad_request(
            "resourceVersion should not be set on objects to be created",
        ));
    }
    metadata.remove("resourceVersion");
    for field in OWNED_BY_SERVER {
        metadata.remove(field);
    }
    set_name(def, metadata)?;
    metadata.insert("uid".into(), uuid::Uuid::new_v4().to_string().into());
    metadata.insert("creationTimestamp".into(), time_text(now).into());
    // Kinds whose every field is data, such as ConfigMap, have no generation in Kubernetes; a
    // number that only grows does not hurt there, but clients compare whole objects in tests.
    if def.origin == Origin::Custom || def.has_status {
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
    check_type(def, object)?;
    let metadata = metadata_of(as_object(object)?)?;
    check_metadata_types(metadata)?;
    if namespace.is_some() {
        set_namespace(def, namespace, metadata)?;
    }
    Ok(())
}

/// Carries over what an update may not touch (uid, creationTimestamp, deletionTimestamp, …),
/// and resets `status` (main resource) or everything but `status` (`subresource == Some("status")`).
/// The resourceVersion in `new` becomes that of `old`; look at it before, with [`required_version`].
///
/// # Errors
/// 400 for a mismatch of apiVersion, kind, name or namespace; 409 for another uid.
pub fn prepare_update(
    def: &ResourceDef,
    subresource: Option<&str>,
    old: &Value,
    new: &mut Value,
) -> Result<(), ApiError> {
    check_type(def, new)?;
    check_same_object(def, old, new)?;
    if subresource == Some("status") {
        let status = as_object(new)?.remove("status");
        let mut merged = old.clone();
        let object = as_object(&mut merged)?;
        match status {
            Some(status) => object.insert("status".into(), status),
            None => object.remove("status"),
        };
        *new = merged;
        return Ok(());
    }
    let object = as_object(new)?;
    if def.has_status {
        match old.get("status") {
            Some(status) => object.insert("status".into(), status.clone()),
            None => object.remove("status"),
        };
    }
    let metadata = metadata_of(object)?;
    for field in OWNED_BY_SERVER.iter().chain(&["resourceVersion", "name", "namespace"]) {
        match old["metadata"].get(field) {
            Some(value) => metadata.insert((*field).into(), value.clone()),
            None => metadata.remove(*field),
        };
    }
    Ok(())
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

/// The version an update insists on; `None`: whatever is there.
///
/// # Errors
/// 422 when a custom kind leaves it out, or when it is no number.
pub fn required_version(def: &ResourceDef, new: &Value) -> Result<Option<u64>, ApiError> {
    let text = new.pointer("/metadata/resourceVersion").and_then(Value::as_str).unwrap_or("");
    let name = new.pointer("/metadata/name").and_then(Value::as_str).unwrap_or("");
    match text.parse::<u64>() {
        Ok(version) if version > 0 => Ok(Some(version)),
        _ if def.allow_unconditional_update && matches!(text, "" | "0") => Ok(None),
        _ => {
            let value = if text.is_empty() { Value::from(0) } else { Value::from(text) };
            let cause = Cause::invalid(
                "metadata.resourceVersion",
                &value,
                "must be specified for an update",
            );
            Err(ApiError::invalid(def, name, vec![cause]))
        }
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
    metadata.as_object_mut().ok_or_else(|| wrong_type("metadata", "an object"))
}

fn wrong_type(field: &str, wanted: &str) -> ApiError {
    ApiError::bad_request(format!("{field} must be {wanted}"))
}

/// Checks apiVersion and kind; fills them in for built-in kinds, whose clients leave them out.
fn check_type(def: &ResourceDef, object: &mut Value) -> Result<(), ApiError> {
    let missing = |what: &str, object: &Value| {
        ApiError::bad_request(format!("Object '{what}' is missing in '{object}'"))
    };
    let field = |object: &Value, name: &str| {
        object.get(name).and_then(Value::as_str).unwrap_or("").to_owned()
    };
    let (kind, api_version) = (field(object, "kind"), field(object, "apiVersion"));
    let wanted_version = def.api_version();
    if def.origin == Origin::Custom && kind.is_empty() {
        return Err(missing("Kind", object));
    }
    if def.origin == Origin::Custom && api_version.is_empty() {
        return Err(missing("apiVersion", object));
    }
    if !api_version.is_empty() && api_version != wanted_version {
        return Err(ApiError::bad_request(format!(
            "the API version in the data ({api_version}) does not match the expected API version ({wanted_version})"
        )));
    }
    if !kind.is_empty() && kind != def.kind {
        return Err(ApiError::bad_request(format!(
            "{kind} in version {:?} cannot be handled as a {}",
            def.version, def.kind
        )));
    }
    let object = as_object(object)?;
    object.insert("kind".into(), def.kind.clone().into());
    object.insert("apiVersion".into(), wanted_version.into());
    Ok(())
}

/// What the rest of the server reads without asking must have the right shape.
fn check_metadata_types(metadata: &mut Map<String, Value>) -> Result<(), ApiError> {
    // Go drops nulls of maps, lists and strings alike.
    metadata.retain(|_, value| !value.is_null());
    for field in ["name", "generateName", "namespace", "uid", "resourceVersion", "selfLink"] {
        if metadata.get(field).is_some_and(|value| !value.is_string()) {
            return Err(wrong_type(&format!("metadata.{field}"), "a string"));
        }
    }
    for field in ["labels", "annotations"] {
        let Some(value) = metadata.get_mut(field) else { continue };
        let Value::Object(map) = value else {
            return Err(wrong_type(&format!("metadata.{field}"), "a map of strings"));
        };
        for value in map.values_mut() {
            match value {
                Value::String(_) => {}
                Value::Null => *value = "".into(),
                _ => return Err(wrong_type(&format!("metadata.{field}"), "a map of strings")),
            }
        }
    }
    let finalizers = metadata.get("finalizers");
    if finalizers
        .is_some_and(|list| !list.as_array().is_some_and(|list| list.iter().all(Value::is_string)))
    {
        return Err(wrong_type("metadata.finalizers", "a list of strings"));
    }
    let owners = metadata.get("ownerReferences");
    if owners
        .is_some_and(|list| !list.as_array().is_some_and(|list| list.iter().all(Value::is_object)))
    {
        return Err(wrong_type("metadata.ownerReferences", "a list of objects"));
    }
    Ok(())
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
        return Err(namespace_mismatch());
    }
    metadata.insert("namespace".into(), namespace.into());
    Ok(())
}

fn namespace_mismatch() -> ApiError {
    ApiError::bad_request(
        "the namespace of the provided object does not match the namespace sent on the request",
    )
}

fn set_name(def: &ResourceDef, metadata: &mut Map<String, Value>) -> Result<(), ApiError> {
    let text = |field: &str| metadata.get(field).and_then(Value::as_str).unwrap_or("");
    if !text("name").is_empty() {
        return Ok(());
    }
    let base = text("generateName");
    if base.is_empty() {
        let cause = Cause::required("metadata.name", "name or generateName is required");
        return Err(ApiError::invalid(def, "", vec![cause]));
    }
    let name = generate_name(base);
    metadata.insert("name".into(), name.into());
    Ok(())
}

fn check_same_object(def: &ResourceDef, old: &Value, new: &mut Value) -> Result<(), ApiError> {
    let metadata = metadata_of(as_object(new)?)?;
    check_metadata_types(metadata)?;
    let old_field = |field: &str| old["metadata"].get(field).and_then(Value::as_str).unwrap_or("");
    let given = |field: &str| metadata.get(field).and_then(Value::as_str).unwrap_or("");
    let name = old_field("name");
    if !given("name").is_empty() && given("name") != name {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({}) does not match the name on the URL ({name})",
            given("name")
        )));
    }
    if def.is_namespaced()
        && !given("namespace").is_empty()
        && given("namespace") != old_field("namespace")
    {
        return Err(namespace_mismatch());
    }
    if !given("uid").is_empty() && given("uid") != old_field("uid") {
        return Err(ApiError::uid_conflict(def, name, given("uid"), old_field("uid")));
    }
    Ok(())
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
