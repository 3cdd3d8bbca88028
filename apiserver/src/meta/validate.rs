//! `ValidateObjectMeta`: what Kubernetes refuses in `metadata`, and how it says so.

use serde_json::{Map, Value};

use super::names::{
    check_dns_label, check_dns_subdomain, check_label_value, check_path_segment,
    check_qualified_name,
};
use crate::auth::rbac::RBAC_GROUP;
use crate::resource::ResourceDef;
use crate::status::Cause;

/// Keys and values of all annotations together, as in Kubernetes.
const ANNOTATIONS_BYTES_MAX: usize = 256 * 1024;

/// Finalizers of Kubernetes' own that carry no domain.
const UNQUALIFIED_FINALIZERS: [&str; 3] = ["foregroundDeletion", "orphan", "kubernetes"];

/// Checks names, labels, annotations, finalizers and owner references of an object that
/// [`super::prepare_create`] or [`super::prepare_update`] has gone over.
pub fn validate(def: &ResourceDef, object: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let Some(metadata) = object.get("metadata").and_then(Value::as_object) else {
        causes.push(Cause::required("metadata", ""));
        return causes;
    };
    check_name(def, metadata, &mut causes);
    check_labels(metadata, &mut causes);
    check_annotations(metadata, &mut causes);
    check_owners(metadata, &mut causes);
    for finalizer in strings(metadata.get("finalizers")) {
        if let Err(why) = check_qualified_name(finalizer) {
            causes.push(Cause::invalid("metadata.finalizers", &finalizer.into(), &why));
        }
    }
    causes
}

/// As [`validate`], and what an update may not do: add finalizers to a deleting object.
pub fn validate_update(def: &ResourceDef, old: &Value, new: &Value) -> Vec<Cause> {
    let mut causes = validate(def, new);
    if old.pointer("/metadata/deletionTimestamp").is_some() {
        let before: Vec<&str> = strings(old.pointer("/metadata/finalizers")).collect();
        let added: Vec<String> = strings(new.pointer("/metadata/finalizers"))
            .filter(|finalizer| !before.contains(finalizer))
            .map(|finalizer| format!("{finalizer:?}"))
            .collect();
        if !added.is_empty() {
            let why = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers \
                 []string{{{}}}",
                added.join(", ")
            );
            causes.push(Cause::forbidden("metadata.finalizers", &why));
        }
    }
    causes
}

/// Texts for `Warning` headers about legal but unwise metadata.
pub fn warnings(object: &Value) -> Vec<String> {
    strings(object.pointer("/metadata/finalizers"))
        .filter(|finalizer| !finalizer.contains('/') && !UNQUALIFIED_FINALIZERS.contains(finalizer))
        .map(|finalizer| {
            format!(
                "metadata.finalizers: {finalizer:?}: prefer a domain-qualified finalizer name to avoid accidental \
                 conflicts with other finalizer writers"
            )
        })
        .collect()
}

fn strings(list: Option<&Value>) -> impl Iterator<Item = &str> {
    list.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

fn check_name(def: &ResourceDef, metadata: &Map<String, Value>, causes: &mut Vec<Cause>) {
    let check = match (def.group.as_str(), def.kind.as_str()) {
        ("", "Namespace") => check_dns_label,
        // `system:discovery`.
        (RBAC_GROUP, _) => check_path_segment,
        _ => check_dns_subdomain,
    };
    let name = metadata.get("name").and_then(Value::as_str).unwrap_or("");
    if name.is_empty() {
        causes.push(Cause::required("metadata.name", "name or generateName is required"));
    } else if let Err(why) = check(name) {
        causes.push(Cause::invalid("metadata.name", &name.into(), &why));
    }
    let base = metadata.get("generateName").and_then(Value::as_str).unwrap_or("");
    // A prefix may end in what a whole name may not.
    if !base.is_empty()
        && let Err(why) = check(&format!("{}a", base.strip_suffix('-').unwrap_or(base)))
    {
        causes.push(Cause::invalid("metadata.generateName", &base.into(), &why));
    }
}

fn check_labels(metadata: &Map<String, Value>, causes: &mut Vec<Cause>) {
    for (key, value) in metadata.get("labels").and_then(Value::as_object).into_iter().flatten() {
        if let Err(why) = check_qualified_name(key) {
            causes.push(Cause::invalid("metadata.labels", &key.as_str().into(), &why));
        }
        if let Err(why) = check_label_value(value.as_str().unwrap_or("")) {
            causes.push(Cause::invalid("metadata.labels", value, &why));
        }
    }
}

fn check_annotations(metadata: &Map<String, Value>, causes: &mut Vec<Cause>) {
    let mut bytes = 0;
    for (key, value) in metadata.get("annotations").and_then(Value::as_object).into_iter().flatten()
    {
        bytes += key.len() + value.as_str().map_or(0, str::len);
        if let Err(why) = check_qualified_name(&key.to_ascii_lowercase()) {
            causes.push(Cause::invalid("metadata.annotations", &key.as_str().into(), &why));
        }
    }
    if bytes > ANNOTATIONS_BYTES_MAX {
        let why = format!("may not be more than {ANNOTATIONS_BYTES_MAX} bytes");
        causes.push(Cause::too_long("metadata.annotations", &why));
    }
}

fn check_owners(metadata: &Map<String, Value>, causes: &mut Vec<Cause>) {
    const FIELD: &str = "metadata.ownerReferences";
    let mut controller: Option<&str> = None;
    for (at, owner) in
        metadata.get("ownerReferences").and_then(Value::as_array).into_iter().flatten().enumerate()
    {
        let text = |field: &str| owner.get(field).and_then(Value::as_str).unwrap_or("");
        for (field, why) in [
            ("apiVersion", "version must not be empty"),
            ("kind", "must not be empty"),
            ("name", "must not be empty"),
            ("uid", "must not be empty"),
        ] {
            if text(field).is_empty() {
                causes.push(Cause::invalid(format!("{FIELD}[{at}].{field}"), &"".into(), why));
            }
        }
        if text("apiVersion") == "v1" && text("kind") == "Event" {
            causes.push(Cause::invalid(
                FIELD,
                owner,
                "/v1, Kind=Event is disallowed from being an owner",
            ));
        }
        if owner.get("controller") == Some(&Value::Bool(true)) {
            if let Some(first) = controller {
                let why = format!(
                    "Only one reference can have Controller set to true. Found \"true\" in references for {first} \
                     and {}",
                    text("name")
                );
                causes.push(Cause::invalid(FIELD, &metadata["ownerReferences"], &why));
            }
            controller = controller.or(Some(text("name")));
        }
    }
}
