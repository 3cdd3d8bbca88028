//! How lists and objects of Kubernetes' own kinds merge: what the generated schemas leave out.

use serde_json::{Value, json};

/// The schema with the extensions that server-side apply reads. From the markers of Kubernetes'
/// types; lists that are not named are atomic.
pub(super) fn annotated(openapi: &Value, kind: &str) -> Value {
    let mut schema = openapi.clone();
    let keyed: &[(&str, &str)] = match kind {
        "ServiceAccount" => &[("secrets", "name")],
        "Namespace" | "CustomResourceDefinition" => &[("status.conditions", "type")],
        _ => &[],
    };
    for (path, key) in keyed {
        if let Some(list) = at(&mut schema, path) {
            list["x-kubernetes-list-type"] = "map".into();
            list["x-kubernetes-list-map-keys"] = json!([key]);
        }
    }
    let atomic: &[&str] = match kind {
        "ServiceAccount" => &["secrets.*"],
        "Event" => &["involvedObject", "related"],
        "RoleBinding" | "ClusterRoleBinding" => &["roleRef"],
        _ => &[],
    };
    for path in atomic {
        if let Some(object) = at(&mut schema, path) {
            object["x-kubernetes-map-type"] = "atomic".into();
        }
    }
    schema
}

/// The schema of a place; `*` is a list's item.
fn at<'s>(schema: &'s mut Value, path: &str) -> Option<&'s mut Value> {
    let mut place = schema;
    for part in path.split('.') {
        place = match part {
            "*" => place.get_mut("items")?,
            name => place.get_mut("properties")?.get_mut(name)?,
        };
    }
    Some(place)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use crate::builtin;

    #[test]
    fn the_places_named_exist() {
        for (kind, path) in [
            ("ServiceAccount", "secrets.*"),
            ("Namespace", "status.conditions"),
            ("CustomResourceDefinition", "status.conditions"),
            ("Event", "involvedObject"),
            ("Event", "related"),
        ] {
            let def = builtin::definitions().into_iter().find(|def| def.kind == kind).unwrap();
            let mut schema = super::annotated(&def.openapi, kind);
            let place = super::at(&mut schema, path).unwrap().clone();
            let named = ["x-kubernetes-map-type", "x-kubernetes-list-type"];
            assert!(named.iter().any(|name| place.get(name).is_some()), "{kind} {path}: {place}");
            assert_ne!(place, json!({}));
        }
    }
}
