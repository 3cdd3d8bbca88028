//! Taking a set of fields out of a value.

use serde_json::{Map, Value};

use crate::fields::{self, Node};
use crate::types::{Relation, Shape, Type, element_of};

/// The value without the members of `set`; null where nothing is left. What loses its last part, but
/// is no member itself, stays as an empty map or list (structured-merge-diff does so since 6.3.1;
/// before, `null` was left, which no schema allows).
pub(crate) fn remove(type_: &Type, value: &Value, set: &Node) -> Value {
    match type_.shape(Some(value)) {
        Shape::Scalar(_) => value.clone(),
        Shape::Map(map) => {
            let members = match value {
                Value::Object(members) if !map.atomic => members,
                _ => return Value::Null,
            };
            let mut left = Map::new();
            let mut opened = false;
            for (name, value) in members {
                let node = fields::child(set, &crate::path::field(name));
                opened |= node.is_some_and(|node| !fields::is_member(node));
                if let Some(value) = kept(map.member(name), value, node) {
                    left.insert(name.clone(), value);
                }
            }
            if left.is_empty() && !opened { Value::Null } else { Value::Object(left) }
        }
        Shape::List(list) => {
            let items = match value {
                Value::Array(items) if !matches!(list.relation, Relation::Atomic) => items,
                _ => return Value::Null,
            };
            let mut left = Vec::new();
            let mut opened = false;
            for item in items {
                let element = element_of(&list.relation, item).ok();
                let node = element.and_then(|element| fields::child(set, &element));
                opened |= node.is_some_and(|node| !fields::is_member(node));
                left.extend(kept(Some(&list.items), item, node));
            }
            if left.is_empty() && !opened { Value::Null } else { Value::Array(left) }
        }
    }
}

/// What stays of a member or item, given the part of the set that names it.
fn kept(type_: Option<&Type>, value: &Value, node: Option<&Node>) -> Option<Value> {
    match (node, type_) {
        (Some(node), _) if fields::is_member(node) => None,
        (Some(node), Some(type_)) => Some(match (remove(type_, value, node), value) {
            (Value::Null, Value::Object(_)) => Value::Object(Map::new()),
            (Value::Null, Value::Array(_)) => Value::Array(Vec::new()),
            (left, _) => left,
        }),
        _ => Some(value.clone()),
    }
}

/// The set with every declared field on the way to a member made a member too: so that taking
/// out all of a struct takes out the struct.
pub(crate) fn with_named_fields(type_: &Type, set: &Node) -> Node {
    let atom = type_.atom();
    let mut out = Node::new();
    for (element, child) in fields::children(set) {
        let name = element.strip_prefix("f:");
        let (declared, type_) = match (name, &atom.map, &atom.list) {
            (Some(name), Some(map), _) => (map.fields.contains_key(name), map.member(name)),
            (None, _, Some(list)) => (false, Some(&list.items)),
            _ => (false, None),
        };
        let mut named = match type_ {
            Some(type_) => with_named_fields(type_, child),
            None => child.clone(),
        };
        if (declared || fields::is_member(child)) && !named.is_empty() {
            named.insert(fields::SELF.to_owned(), Value::Object(Node::new()));
        }
        out.insert(element.clone(), Value::Object(named));
    }
    out
}
