//! Documents with their members in the order of Kubernetes' types: people look at them, and scripts
//! grep in them.

use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Value;

/// Members in the order in which the types that have them declare them; others come after these.
const ORDER: [&str; 37] = [
    "major",
    "minor",
    "emulationMajor",
    "emulationMinor",
    "minCompatibilityMajor",
    "minCompatibilityMinor",
    "gitVersion",
    "gitCommit",
    "gitTreeState",
    "buildDate",
    "goVersion",
    "compiler",
    "platform",
    "metadata",
    "name",
    "singularName",
    "namespaced",
    "groupVersion",
    "group",
    "version",
    "kind",
    "resource",
    "subresource",
    "responseKind",
    "scope",
    "singularResource",
    "verbs",
    "shortNames",
    "categories",
    "storageVersionHash",
    "subresources",
    "versions",
    "preferredVersion",
    "serverAddressByClientCIDRs",
    "resources",
    "freshness",
    "items",
];

/// A whole document.
pub(super) struct Document<'v>(pub &'v Value);

impl Serialize for Document<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // Its own type goes first; further down a kind is one field among others.
        write(self.0, &["kind", "apiVersion"], serializer)
    }
}

struct Inner<'v>(&'v Value);

impl Serialize for Inner<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        write(self.0, &[], serializer)
    }
}

fn write<S: Serializer>(value: &Value, first: &[&str], serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        Value::Object(map) => {
            let place = |name: &str| {
                let at = |order: &[&str]| order.iter().position(|one| *one == name);
                at(first).or_else(|| Some(first.len() + at(&ORDER)?)).unwrap_or(usize::MAX)
            };
            let mut members: Vec<_> = map.iter().collect();
            members.sort_by_key(|(name, _)| place(name));
            let mut out = serializer.serialize_map(Some(members.len()))?;
            for (name, value) in members {
                out.serialize_entry(name, &Inner(value))?;
            }
            out.end()
        }
        Value::Array(list) => serializer.collect_seq(list.iter().map(Inner)),
        other => other.serialize(serializer),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn members_come_as_kubernetes_declares_them() {
        let list = json!({
            "resources": [{"verbs": ["get"], "kind": "K", "name": "ks", "namespaced": true, "singularName": "k"}],
            "groupVersion": "v1", "apiVersion": "v1", "kind": "APIResourceList",
        });
        assert_eq!(
            serde_json::to_string(&Document(&list)).unwrap(),
            r#"{"kind":"APIResourceList","apiVersion":"v1","groupVersion":"v1","resources":[{"name":"ks","singularName":"k","namespaced":true,"kind":"K","verbs":["get"]}]}"#
        );
    }
}
