//! Defaults, and nulls where null is not a value.

use serde_json::Value;

use super::node::Node;

pub(super) fn default(node: &Node, value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (name, property) in &node.properties {
                if let Some(default) = &property.default {
                    match map.get_mut(name) {
                        None => {
                            map.insert(name.clone(), default.clone());
                        }
                        Some(value) if property.refuses(value) => *value = default.clone(),
                        Some(_) => {}
                    }
                }
            }
            map.retain(|name, value| {
                let Some(child) = node.properties.get(name).or(node.additional.as_deref()) else {
                    return true;
                };
                if child.refuses(value) {
                    let Some(default) = &child.default else { return false };
                    *value = default.clone();
                }
                default(child, value);
                true
            });
        }
        Value::Array(list) => {
            let Some(items) = node.items.as_deref() else { return };
            for value in list {
                if items.refuses(value)
                    && let Some(default) = &items.default
                {
                    *value = default.clone();
                }
                default(items, value);
            }
        }
        _ => {}
    }
}
