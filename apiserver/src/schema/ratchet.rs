//! Which part of the old object is the same thing as a part of the new one.

use std::collections::HashMap;

use serde_json::Value;

use super::node::{ListType, Node};

/// The items of an old list, by their keys. Items of sets and of atomic lists have no identity.
pub(super) struct Items<'v> {
    keys: &'v [String],
    by_keys: HashMap<String, &'v Value>,
}

impl<'v> Items<'v> {
    pub(super) fn of(node: &'v Node, old: Option<&'v Value>) -> Items<'v> {
        let ListType::Map(keys) = &node.list else {
            return Items { keys: &[], by_keys: HashMap::new() };
        };
        let old = old.and_then(Value::as_array).into_iter().flatten();
        let by_keys = old.filter_map(|item| Some((identity(keys, item)?, item))).collect();
        Items { keys, by_keys }
    }

    pub(super) fn of_item(&self, item: &Value) -> Option<&'v Value> {
        if self.by_keys.is_empty() {
            return None;
        }
        self.by_keys.get(&identity(self.keys, item)?).copied()
    }
}

fn identity(keys: &[String], item: &Value) -> Option<String> {
    let item = item.as_object()?;
    let values: Vec<&Value> =
        keys.iter().map(|key| item.get(key).unwrap_or(&Value::Null)).collect();
    serde_json::to_string(&values).ok()
}
