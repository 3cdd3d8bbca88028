//! From a value to the set of fields that it sets.

use serde_json::Value;

use crate::fields::{self, Node};
use crate::types::{Relation, Shape, Type, element_of};

/// The fields of a whole object.
pub(crate) fn to_set(type_: &Type, value: &Value) -> Node {
    below(type_, value).unwrap_or_default()
}

fn below(type_: &Type, value: &Value) -> Option<Node> {
    let mut node = None;
    match type_.shape(Some(value)) {
        Shape::Scalar(_) => fields::mark(&mut node),
        Shape::Map(map) if map.atomic => fields::mark(&mut node),
        Shape::Map(map) => {
            for (name, value) in value.as_object().into_iter().flatten() {
                let Some(type_) = map.member(name) else { continue };
                let mut child = below(type_, value);
                let empty = value.is_null() || value.as_object().is_some_and(|map| map.is_empty());
                if empty || !map.fields.contains_key(name) {
                    fields::mark(&mut child);
                }
                fields::hang(&mut node, || crate::path::field(name), child);
            }
        }
        Shape::List(list) if matches!(list.relation, Relation::Atomic) => fields::mark(&mut node),
        Shape::List(list) => {
            for item in value.as_array().into_iter().flatten() {
                let Ok(element) = element_of(&list.relation, item) else { continue };
                let mut child = below(&list.items, item);
                fields::mark(&mut child);
                fields::hang(&mut node, || element, child);
            }
        }
    }
    node
}

/// The set with everything below an atomic place folded into that place: what is left of a set
/// from before the schema made the place atomic.
pub(crate) fn without_details_of_atoms(type_: &Type, set: &Node) -> Node {
    let atom = type_.atom();
    let mut out = Node::new();
    for (element, child) in fields::children(set) {
        let type_ = if let Some(name) = element.strip_prefix("f:") {
            atom.map.as_ref().and_then(|map| map.member(name))
        } else {
            atom.list.as_ref().map(|list| &list.items)
        };
        let atomic = type_.is_some_and(|type_| is_atomic(type_) && !child.is_empty());
        let folded = match type_ {
            _ if atomic => Node::new(),
            Some(type_) => {
                let mut folded = without_details_of_atoms(type_, child);
                if fields::is_member(child) && !folded.is_empty() {
                    folded.insert(fields::SELF.to_owned(), Value::Object(Node::new()));
                }
                folded
            }
            None => child.clone(),
        };
        out.insert(element.clone(), Value::Object(folded));
    }
    out
}

/// Whether nothing below the place can be owned, whatever the value there.
fn is_atomic(type_: &Type) -> bool {
    let atom = type_.atom();
    let map = atom.map.as_ref().is_none_or(|map| map.atomic);
    let list = atom.list.as_ref().is_none_or(|list| matches!(list.relation, Relation::Atomic));
    map && list
}
