//! Whether a document is an object of the kind that it was sent as: apiVersion, kind, and the types
//! of what `metadata` holds, with the messages of Go's decoder.

use serde_json::{Map, Value};

use crate::auth::rbac::RBAC_GROUP;
use crate::resource::{Origin, ResourceDef};
use crate::schema::go::json_type;
use crate::schema::go_time;
use crate::status::{ApiError, Cause};

/// Fills in apiVersion and kind for built-in kinds, whose clients leave them out.
///
/// # Errors
/// What is wrong with apiVersion, kind or the types in `metadata`, as the decoder of kube-apiserver
/// says it; how a client is told depends on the request.
pub fn check_shape(def: &ResourceDef, object: &mut Value) -> Result<(), String> {
    let Some(members) = object.as_object_mut() else {
        let what = json_type(object);
        return Err(format!(
            "json: cannot unmarshal {what} into Go value of type map[string]interface {{}}"
        ));
    };
    if def.origin == Origin::BuiltIn {
        for (field, value) in [("kind", def.kind.clone()), ("apiVersion", def.api_version())] {
            if members.get(field).is_none_or(|given| given.is_null() || given == "") {
                members.insert(field.into(), value.into());
            }
        }
        let given = |field: &str| members[field].as_str().unwrap_or_default().to_owned();
        if given("kind") != def.kind && given("apiVersion") == def.api_version() {
            return Err(other_kind(def, &given("kind")));
        }
    }
    match members.get_mut("metadata") {
        None | Some(Value::Null) => Ok(()),
        Some(Value::Object(metadata)) => check_metadata(metadata),
        Some(other) => Err(cannot(other, "", "v1.ObjectMeta")),
    }
}

/// What kube-apiserver says of an object of another kind of the same version: it cannot make this kind of one
/// that it knows, and has never heard of others.
fn other_kind(def: &ResourceDef, given: &str) -> String {
    const CORE: [&str; 17] = [
        "Binding",
        "ComponentStatus",
        "ConfigMap",
        "Endpoints",
        "Event",
        "LimitRange",
        "Namespace",
        "Node",
        "PersistentVolume",
        "PersistentVolumeClaim",
        "Pod",
        "PodTemplate",
        "ReplicationController",
        "ResourceQuota",
        "Secret",
        "Service",
        "ServiceAccount",
    ];
    const RBAC: [&str; 4] = ["ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"];
    let (package, known): (&str, &[&str]) = match def.group.as_str() {
        "" => ("core", &CORE),
        RBAC_GROUP => ("rbac", &RBAC),
        _ => ("", &[]),
    };
    let (version, kind) = (&def.version, &def.kind);
    if known.contains(&given) {
        return format!("converting ({version}.{given}) to ({package}.{kind}): unknown conversion");
    }
    let version = def.api_version();
    format!(
        "no kind {given:?} is registered for version {version:?} in scheme \"pkg/api/legacyscheme/scheme.go:30\""
    )
}

/// # Errors
/// 400: the document is of another version than the URL's.
pub fn check_api_version(def: &ResourceDef, object: &Value) -> Result<(), ApiError> {
    let given = object["apiVersion"].as_str().unwrap_or_default();
    let wanted = def.api_version();
    if given == wanted {
        return Ok(());
    }
    Err(ApiError::bad_request(format!(
        "the API version in the data ({given}) does not match the expected API version ({wanted})"
    )))
}

/// Why a document without a kind is no object; `None` when it has one.
pub fn missing_kind(object: &Value, text: &str) -> Option<String> {
    let missing = object["kind"].as_str().unwrap_or_default().is_empty();
    missing.then(|| format!("Object 'Kind' is missing in '{text}'"))
}

/// # Errors
/// 422: the document is of another kind or version than the URL's. It is called what it calls itself.
pub fn check_type(def: &ResourceDef, object: &Value) -> Result<(), ApiError> {
    let text = |field: &str| object[field].as_str().unwrap_or_default();
    let mut causes = Vec::new();
    for (field, wanted) in [("kind", def.kind.clone()), ("apiVersion", def.api_version())] {
        if text(field) != wanted {
            causes.push(Cause::invalid(field, &text(field).into(), &format!("must be {wanted}")));
        }
    }
    if causes.is_empty() {
        return Ok(());
    }
    let group = text("apiVersion").split_once('/').map_or("", |(group, _)| group);
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    Err(ApiError::invalid_kind(group, text("kind"), name, causes))
}

/// The metadata of an object inside of another.
///
/// # Errors
/// As Go's decoder says it.
pub(super) fn check_embedded(metadata: &mut Value) -> Result<(), String> {
    match metadata {
        Value::Null => {
            *metadata = Value::Object(Map::new());
            Ok(())
        }
        Value::Object(metadata) => check_metadata(metadata),
        other => Err(cannot(other, "", "v1.ObjectMeta")),
    }
}

/// What the rest of the server reads without asking must have the right type.
fn check_metadata(metadata: &mut Map<String, Value>) -> Result<(), String> {
    metadata.retain(|_, value| !value.is_null());
    for (field, value) in metadata.iter_mut() {
        match field.as_str() {
            "name" | "generateName" | "namespace" | "uid" | "resourceVersion" | "selfLink" => {
                must(value.is_string(), value, field, go_type(field))?;
            }
            "generation" | "deletionGracePeriodSeconds" => {
                must(value.is_i64(), value, field, "int64")?;
            }
            "creationTimestamp" | "deletionTimestamp" => check_time(value)?,
            "labels" | "annotations" => check_texts(field, value)?,
            "finalizers" => {
                must(value.is_array(), value, field, "[]string")?;
                for item in value.as_array().into_iter().flatten() {
                    must(item.is_string(), item, field, "string")?;
                }
            }
            "ownerReferences" => check_owners(field, value)?,
            "managedFields" => {
                must(value.is_array(), value, field, "[]v1.ManagedFieldsEntry")?;
                for item in value.as_array().into_iter().flatten() {
                    must(item.is_object(), item, field, "v1.ManagedFieldsEntry")?;
                }
            }
            _ => {}
        }
    }
    // Go leaves out what is empty: texts, lists and maps alike.
    metadata.retain(|_, value| match value {
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
        _ => true,
    });
    Ok(())
}

fn go_type(field: &str) -> &'static str {
    if field == "uid" { "types.UID" } else { "string" }
}

fn check_texts(field: &str, value: &mut Value) -> Result<(), String> {
    let Value::Object(map) = value else {
        return Err(cannot(value, field, "map[string]string"));
    };
    for value in map.values_mut() {
        match value {
            Value::String(_) => {}
            Value::Null => *value = "".into(),
            _ => return Err(cannot(value, field, "string")),
        }
    }
    Ok(())
}

fn check_owners(field: &str, value: &mut Value) -> Result<(), String> {
    let Value::Array(list) = value else {
        return Err(cannot(value, field, "[]v1.OwnerReference"));
    };
    for owner in list {
        let Value::Object(members) = owner else {
            return Err(cannot(owner, field, "v1.OwnerReference"));
        };
        members.retain(|_, value| !value.is_null());
        for (name, value) in members {
            let (fits, wanted) = match name.as_str() {
                "apiVersion" | "kind" | "name" | "uid" => (value.is_string(), go_type(name)),
                "controller" | "blockOwnerDeletion" => (value.is_boolean(), "bool"),
                _ => continue,
            };
            must(fits, value, &format!("{field}.{name}"), wanted)?;
        }
    }
    Ok(())
}

fn check_time(value: &Value) -> Result<(), String> {
    match value.as_str() {
        Some(text) => go_time::check(text, go_time::SECONDS),
        None => Err(cannot(value, "", "string")),
    }
}

fn must(fits: bool, value: &Value, field: &str, wanted: &str) -> Result<(), String> {
    if fits { Ok(()) } else { Err(cannot(value, field, wanted)) }
}

fn cannot(value: &Value, field: &str, wanted: &str) -> String {
    // Go tells a number that is not whole.
    let what = match value {
        Value::Number(number) if wanted == "int64" => format!("number {number}"),
        value => json_type(value).to_owned(),
    };
    if field.is_empty() {
        return format!("json: cannot unmarshal {what} into Go value of type {wanted}");
    }
    format!(
        "json: cannot unmarshal {what} into Go struct field ObjectMeta.{field} of type {wanted}"
    )
}
