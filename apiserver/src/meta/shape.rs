//! Whether a document is an object of the kind that it was sent as: apiVersion, kind, and the types
//! of what `metadata` holds, with the messages of Go's decoder.

use serde_json::{Map, Value};

use crate::auth::rbac::RBAC_GROUP;
use crate::resource::{Origin, ResourceDef};
use crate::schema::go::json_type;
use crate::schema::{go_time, go_types};
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
        let (kind, api_version) = (given("kind"), given("apiVersion"));
        if kind != def.kind && api_version == def.api_version() {
            return Err(other_kind(def, &kind));
        }
        // Events are of two groups, and it is known what they are in the other.
        if api_version != def.api_version() && def.kind != "Event" {
            return Err(unknown_kind(def, &kind, &api_version));
        }
    }
    if def.origin == Origin::BuiltIn {
        if let Some(why) = go_types::mismatch(&def.kind, object) {
            return Err(why);
        }
        go_types::tidy(&def.kind, object);
    }
    match object.get_mut("metadata") {
        None | Some(Value::Null) => Ok(()),
        Some(metadata) => check_metadata(metadata),
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
    const COMMON: [&str; 9] = [
        "CreateOptions",
        "DeleteOptions",
        "GetOptions",
        "List",
        "ListOptions",
        "PatchOptions",
        "Status",
        "UpdateOptions",
        "WatchEvent",
    ];
    let listed = given.strip_suffix("List").unwrap_or(given);
    if known.contains(&listed) || (!known.is_empty() && COMMON.contains(&given)) {
        return format!("converting ({version}.{given}) to ({package}.{kind}): unknown conversion");
    }
    unknown_kind(def, given, &def.api_version())
}

/// Go's registry of kinds has no other name than the place where it is made.
fn unknown_kind(def: &ResourceDef, kind: &str, api_version: &str) -> String {
    let registry = match def.kind.as_str() {
        "CustomResourceDefinition" => "pkg/apiserver/apiserver.go:56",
        _ => "pkg/api/legacyscheme/scheme.go:30",
    };
    format!("no kind {kind:?} is registered for version {api_version:?} in scheme {registry:?}")
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
    if metadata.is_null() {
        *metadata = Value::Object(Map::new());
    }
    check_metadata(metadata)
}

/// What the rest of the server reads without asking must have the right type.
fn check_metadata(metadata: &mut Value) -> Result<(), String> {
    if metadata.as_object_mut().is_some_and(tidy) {
        return Ok(());
    }
    match go_types::mismatch("ObjectMeta", metadata) {
        Some(why) => Err(why),
        None => Ok(()),
    }
}

/// Leaves out what Go leaves out; whether all else has its type.
fn tidy(metadata: &mut Map<String, Value>) -> bool {
    metadata.retain(|_, value| !value.is_null());
    for (field, value) in metadata.iter_mut() {
        let fits = match field.as_str() {
            "name" | "generateName" | "namespace" | "uid" | "resourceVersion" | "selfLink" => {
                value.is_string()
            }
            "generation" | "deletionGracePeriodSeconds" => value.is_i64(),
            "creationTimestamp" | "deletionTimestamp" => {
                value.as_str().is_some_and(|text| go_time::check(text, go_time::SECONDS).is_ok())
            }
            "labels" | "annotations" => value.as_object_mut().is_some_and(tidy_texts),
            "finalizers" => value.as_array().is_some_and(|list| list.iter().all(Value::is_string)),
            "ownerReferences" => {
                value.as_array_mut().is_some_and(|list| list.iter_mut().all(tidy_owner))
            }
            "managedFields" => {
                value.as_array().is_some_and(|list| list.iter().all(Value::is_object))
            }
            _ => true,
        };
        if !fits {
            return false;
        }
    }
    // Go leaves out what is empty: texts, lists and maps alike.
    metadata.retain(|_, value| match value {
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
        _ => true,
    });
    true
}

fn tidy_texts(map: &mut Map<String, Value>) -> bool {
    map.values_mut().all(|value| {
        if value.is_null() {
            *value = "".into();
        }
        value.is_string()
    })
}

fn tidy_owner(owner: &mut Value) -> bool {
    let Value::Object(members) = owner else { return false };
    members.retain(|_, value| !value.is_null());
    members.iter().all(|(name, value)| match name.as_str() {
        "apiVersion" | "kind" | "name" | "uid" => value.is_string(),
        "controller" | "blockOwnerDeletion" => value.is_boolean(),
        _ => true,
    })
}
