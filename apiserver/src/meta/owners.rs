//! `metadata.ownerReferences`: what is refused in them, and repetitions, which are taken out.

use serde_json::{Map, Value};

use crate::status::Cause;

const FIELD: &str = "metadata.ownerReferences";

pub(super) fn check(metadata: &Map<String, Value>, causes: &mut Vec<Cause>) {
    let mut controller: Option<String> = None;
    for owner in metadata.get("ownerReferences").and_then(Value::as_array).into_iter().flatten() {
        let text = |field: &str| owner.get(field).and_then(Value::as_str).unwrap_or("");
        // Of `group/version`; without a group it is the whole. What has more parts has none.
        let version = match text("apiVersion").split('/').collect::<Vec<_>>()[..] {
            [version] | [_, version] => version,
            _ => "",
        };
        let required = [
            ("apiVersion", version, "version must not be empty"),
            ("kind", text("kind"), "must not be empty"),
            ("name", text("name"), "must not be empty"),
            ("uid", text("uid"), "must not be empty"),
        ];
        for (field, value, why) in required {
            if value.is_empty() {
                causes.push(Cause::invalid(format!("{FIELD}.{field}"), &text(field).into(), why));
            }
        }
        if text("apiVersion") == "v1" && text("kind") == "Event" {
            let why = "/v1, Kind=Event is disallowed from being an owner";
            causes.push(Cause::invalid_shown(FIELD, &shown(owner), why));
        }
        if owner.get("controller") == Some(&Value::Bool(true)) {
            let this = format!("{}/{}", text("kind"), text("name"));
            if let Some(first) = &controller {
                let why = format!(
                    "Only one reference can have Controller set to true. Found \"true\" in references for {first} \
                     and {this}"
                );
                let owners = metadata["ownerReferences"].as_array().into_iter().flatten();
                let owners = format!("[{}]", owners.map(shown).collect::<Vec<_>>().join(","));
                causes.push(Cause::invalid_shown(FIELD, &owners, &why));
            }
            controller.get_or_insert(this);
        }
    }
}

/// A reference with its members in the order of Go's type.
fn shown(owner: &Value) -> String {
    let always = ["apiVersion", "kind", "name", "uid"];
    let members = always.into_iter().chain(["controller", "blockOwnerDeletion"]);
    let members = members.filter_map(|name| match owner.get(name) {
        Some(value) => Some(format!("\"{name}\":{value}")),
        None => always.contains(&name).then(|| format!("\"{name}\":\"\"")),
    });
    format!("{{{}}}", members.collect::<Vec<_>>().join(","))
}

/// Takes out references that are there twice, and says so in a text for a `Warning` header. `when`
/// tells in Kubernetes' words at which point they were found.
pub fn dedup_owners(object: &mut Value, when: &str) -> Option<String> {
    let list = object.get_mut("metadata")?.get_mut("ownerReferences")?.as_array_mut()?;
    let mut repeated = Vec::new();
    let mut kept: Vec<Value> = Vec::with_capacity(list.len());
    for owner in list.drain(..) {
        if kept.contains(&owner) {
            repeated.push(owner["uid"].as_str().unwrap_or_default().to_owned());
        } else {
            kept.push(owner);
        }
    }
    *list = kept;
    if repeated.is_empty() {
        return None;
    }
    Some(format!(
        ".metadata.ownerReferences contains duplicate entries{when}; API server dedups owner references in 1.20+, \
         and may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: {}",
        repeated.join(", ")
    ))
}
