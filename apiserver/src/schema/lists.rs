//! Lists that are sets or maps have no item twice.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::node::{ListType, Node};
use super::path::Path;
use crate::status::Cause;

pub(super) fn check(node: &Node, value: &Value, path: &Path<'_>, causes: &mut Vec<Cause>) {
    if !node.lists_below {
        return;
    }
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                if let Some(child) = node.properties.get(name) {
                    check(child, value, &Path::Member(path, name), causes);
                } else if let Some(child) = node.additional.as_deref() {
                    check(child, value, &Path::Key(path, name), causes);
                }
            }
        }
        Value::Array(list) => {
            match &node.list {
                ListType::Atomic => {}
                ListType::Set => duplicates(list.iter().cloned(), list.len(), path, causes),
                ListType::Map(keys) => by_keys(list, keys, path, causes),
            }
            if let Some(items) = node.items.as_deref() {
                for (index, value) in list.iter().enumerate() {
                    check(items, value, &Path::Item(path, index), causes);
                }
            }
        }
        _ => {}
    }
}

fn by_keys(list: &[Value], keys: &[String], path: &Path<'_>, causes: &mut Vec<Cause>) {
    if let Some((index, item)) =
        list.iter().enumerate().find(|(_, item)| !item.is_object() && !item.is_null())
    {
        let detail = "must be an object for an array of list-type map";
        causes.push(Cause::invalid(Path::Item(path, index).to_string(), item, detail));
        return;
    }
    let identity = |item: &Value| -> Value {
        let of_key = |key: &String| Some((key.clone(), item.get(key)?.clone()));
        Value::Object(keys.iter().filter_map(of_key).collect::<Map<_, _>>())
    };
    duplicates(list.iter().map(identity), list.len(), path, causes);
}

/// Only the second of several equal items is told.
fn duplicates(
    items: impl Iterator<Item = Value>,
    count: usize,
    path: &Path<'_>,
    causes: &mut Vec<Cause>,
) {
    if count < 2 {
        return;
    }
    let mut seen: HashMap<String, usize> = HashMap::with_capacity(count);
    for (index, item) in items.enumerate() {
        let times = seen.entry(item.to_string()).or_default();
        *times += 1;
        if *times == 2 {
            causes.push(Cause::duplicate(Path::Item(path, index).to_string(), &item));
        }
    }
}
