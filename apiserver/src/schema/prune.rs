//! Removing what a schema does not know.

use std::sync::LazyLock;

use serde_json::{Value, json};

use super::compile::compile;
use super::node::Node;
use super::path::Path;
use super::props;

/// Whether apiVersion, kind and metadata belong to this object whatever its schema says.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    Resource,
    Inside,
}

/// The members of ObjectMeta; their values are checked by `meta`.
static OBJECT_META: LazyLock<Node> = LazyLock::new(|| {
    let text = json!({"type": "string"});
    let map = json!({"additionalProperties": {}});
    let members = |names: &[&str]| {
        let members: serde_json::Map<_, _> =
            names.iter().map(|name| ((*name).to_owned(), text.clone())).collect();
        json!({ "properties": members })
    };
    let mut meta = members(&[
        "name",
        "generateName",
        "namespace",
        "selfLink",
        "uid",
        "resourceVersion",
        "generation",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ]);
    meta["properties"]["labels"] = map.clone();
    meta["properties"]["annotations"] = map;
    meta["properties"]["finalizers"] = json!({"items": {}});
    let owner = members(&["apiVersion", "kind", "name", "uid", "controller", "blockOwnerDeletion"]);
    meta["properties"]["ownerReferences"] = json!({ "items": owner });
    let mut managed =
        members(&["manager", "operation", "apiVersion", "time", "fieldsType", "subresource"]);
    managed["properties"]["fieldsV1"] = json!({"x-kubernetes-preserve-unknown-fields": true});
    meta["properties"]["managedFields"] = json!({ "items": managed });
    compile(&meta, "").expect("a schema of members only compiles")
});

/// `node` is `None` below `additionalProperties: true`, where Kubernetes prunes every member.
pub(super) fn prune(
    node: Option<&Node>,
    value: &mut Value,
    path: &Path<'_>,
    level: Level,
    removed: &mut Vec<String>,
) {
    if node.is_some_and(|node| node.schema_props) {
        props::prune(value, path, props::Reading::Strict, removed);
        return;
    }
    match value {
        Value::Object(map) => map.retain(|name, value| {
            let at = Path::Member(path, name);
            if level == Level::Resource
                && matches!(name.as_str(), "apiVersion" | "kind" | "metadata")
            {
                if name == "metadata" {
                    prune(Some(&OBJECT_META), value, &at, Level::Inside, removed);
                }
                return true;
            }
            let Some(node) = node else {
                removed.push(at.to_string());
                return false;
            };
            match node.properties.get(name).or(node.additional.as_deref()) {
                Some(child) => prune(Some(child), value, &at, level_of(child), removed),
                None if node.preserve_unknown => {}
                None => {
                    removed.push(at.to_string());
                    return false;
                }
            }
            true
        }),
        Value::Array(list) => {
            let items = node.and_then(|node| node.items.as_deref());
            if items.is_none() && node.is_some_and(|node| node.preserve_unknown) {
                return;
            }
            let level = items.map_or(Level::Inside, level_of);
            for (index, value) in list.iter_mut().enumerate() {
                prune(items, value, &Path::Item(path, index), level, removed);
            }
        }
        _ => {}
    }
}

pub(super) fn level_of(node: &Node) -> Level {
    if node.embedded { Level::Resource } else { Level::Inside }
}
