//! What Go's types have in every object of a kind, whoever wrote it: parts that are no pointers, and
//! fields that are written though they are empty. Clients see it in every answer, and nobody owns a
//! part that is as it is here.

use serde_json::{Map, Value, json};

use crate::kinds::event;

/// The part of an object of the kind that is always there; `None` for kinds that have none.
pub(crate) fn of(group: &str, kind: &str) -> Option<Value> {
    Some(match (group, kind) {
        ("", "Namespace") => json!({"spec": {}, "status": {}}),
        ("", "Event") => event::zero(),
        (event::GROUP, "Event") => json!({
            "regarding": {}, "deprecatedSource": {}, "eventTime": null,
            "deprecatedFirstTimestamp": null, "deprecatedLastTimestamp": null,
        }),
        ("", "ConfigMap" | "Secret" | "ServiceAccount") => json!({}),
        (_, "Lease") => json!({"spec": {}}),
        (_, "Role" | "ClusterRole") => json!({"rules": null}),
        (_, "RoleBinding" | "ClusterRoleBinding") => {
            json!({"roleRef": {"apiGroup": "", "kind": "", "name": ""}})
        }
        (_, "CustomResourceDefinition") => json!({
            "spec": {
                "group": "", "scope": "", "versions": null, "names": {"plural": "", "kind": ""},
            },
            "status": {
                "conditions": null, "acceptedNames": {"plural": "", "kind": ""},
                "storedVersions": null,
            },
        }),
        (_, "SelfSubjectReview") => json!({"status": {"userInfo": {}}}),
        (_, "TokenReview") => json!({"spec": {}, "status": {"user": {}}}),
        (_, "TokenRequest") => json!({
            "spec": {"audiences": null, "expirationSeconds": null, "boundObjectRef": null},
            "status": {"token": "", "expirationTimestamp": null},
        }),
        (_, "SelfSubjectRulesReview") => json!({
            "spec": {},
            "status": {"resourceRules": null, "nonResourceRules": null, "incomplete": false},
        }),
        (_, "SelfSubjectAccessReview" | "SubjectAccessReview" | "LocalSubjectAccessReview") => {
            json!({"spec": {}, "status": {"allowed": false}})
        }
        _ => return None,
    })
}

/// The schema, in which what is null in `zero` may be null. What owners must say is not its business: Go
/// reads a text that is missing as an empty one, and that is what is refused.
pub(super) fn with_nulls(schema: &Value, zero: Option<&Value>) -> Value {
    let mut schema = schema.clone();
    if let Some(Value::Object(owner)) =
        schema.pointer_mut("/properties/metadata/properties/ownerReferences/items")
    {
        owner.remove("required");
    }
    if let Some(zero) = zero {
        allow_nulls(&mut schema, zero);
    }
    schema
}

fn allow_nulls(schema: &mut Value, zero: &Value) {
    for (name, zero) in zero.as_object().into_iter().flatten() {
        let Some(schema) = schema.get_mut("properties").and_then(|all| all.get_mut(name)) else {
            continue;
        };
        match zero {
            Value::Null => schema["nullable"] = true.into(),
            zero => allow_nulls(schema, zero),
        }
    }
}

/// Brings an object into the form in which Go writes it: with what is always there, and without
/// texts, lists and objects that are empty. (Numbers and booleans are mostly pointers in Go, and
/// stay.)
pub(crate) fn fill(zero: &Value, object: &mut Value) {
    let (Value::Object(zero), Value::Object(members)) = (zero, object) else { return };
    // A lease says by an empty text that nobody holds it.
    let pointers = members.get("kind").is_some_and(|kind| kind == "Lease");
    fill_part(zero, members, pointers);
}

fn fill_part(zero: &Map<String, Value>, part: &mut Map<String, Value>, pointers: bool) {
    part.retain(|name, value| zero.contains_key(name) || !is_left_out(value, pointers));
    for (name, zero) in zero {
        match (zero, part.get_mut(name)) {
            (_, None | Some(Value::Null)) => drop(part.insert(name.clone(), zero.clone())),
            (Value::Object(zero), Some(Value::Object(part))) => fill_part(zero, part, pointers),
            _ => {}
        }
    }
}

fn is_left_out(value: &Value, pointers: bool) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty() && !pointers,
        Value::Array(list) => list.is_empty(),
        Value::Object(members) => members.is_empty() && !pointers,
        Value::Bool(_) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(group: &str, mut object: Value) -> Value {
        let kind = object["kind"].as_str().unwrap_or_default().to_owned();
        fill(&of(group, &kind).unwrap_or_default(), &mut object);
        object
    }

    #[test]
    fn objects_are_as_go_writes_them() {
        assert_eq!(
            filled(
                "",
                json!({"kind": "ConfigMap", "metadata": {"name": "a"}, "data": {}, "immutable": false})
            ),
            json!({"kind": "ConfigMap", "metadata": {"name": "a"}, "immutable": false})
        );
        assert_eq!(
            filled(
                "",
                json!({"kind": "Event", "reason": "", "source": {"component": "c", "host": ""}})
            ),
            json!({
                "kind": "Event", "involvedObject": {}, "source": {"component": "c"},
                "firstTimestamp": null, "lastTimestamp": null, "eventTime": null,
                "reportingComponent": "", "reportingInstance": "",
            })
        );
        assert_eq!(
            filled(
                "coordination.k8s.io",
                json!({"kind": "Lease", "spec": {"holderIdentity": "", "renewTime": null}})
            ),
            json!({"kind": "Lease", "spec": {"holderIdentity": ""}})
        );
        assert_eq!(
            filled("rbac.authorization.k8s.io", json!({"kind": "ClusterRole"})),
            json!({"kind": "ClusterRole", "rules": null})
        );
    }
}
