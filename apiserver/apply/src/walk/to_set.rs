//! From a value to the set of fields that it sets.

use serde_json::Value;

use crate::fields::{self, Node};
use crate::types::{Relation, Scalar, Shape, Type, element_of};

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

/// The set with everything below an atomic place folded into that place, where there is such: what
/// is left of a set from before the schema made the place atomic. The other way round nothing is
/// to do: a place that becomes granular counts as if it always had been.
pub(crate) fn without_details_of_atoms(root: &Type, set: &Node) -> Option<Node> {
    has_details(root, set).then(|| folded(root, set))
}

fn has_details(type_: &Type, set: &Node) -> bool {
    match ownership(type_) {
        Ownership::Whole => !set.is_empty(),
        Ownership::Untold => false,
        Ownership::Parts => fields::children(set).any(|(element, below)| {
            part(type_, element).is_some_and(|type_| has_details(type_, below))
        }),
    }
}

fn folded(type_: &Type, set: &Node) -> Node {
    match ownership(type_) {
        Ownership::Whole => return Node::new(),
        Ownership::Untold => return set.clone(),
        Ownership::Parts => {}
    }
    let fold = |(element, below): (&String, &Value)| {
        let below = match (part(type_, element), below.as_object()) {
            (Some(type_), Some(set)) if element != fields::SELF => {
                Value::Object(folded(type_, set))
            }
            _ => below.clone(),
        };
        (element.clone(), below)
    };
    set.iter().map(fold).collect()
}

/// How a place may be owned, whatever the value there.
enum Ownership {
    Whole,
    Parts,
    /// The schema leaves it open.
    Untold,
}

fn ownership(type_: &Type) -> Ownership {
    let atom = type_.atom();
    match (&atom.map, atom.scalar, &atom.list) {
        (Some(map), _, _) if map.fields.is_empty() && map.others.as_ref().is_some_and(is_open) => {
            Ownership::Untold
        }
        (Some(map), _, _) if map.atomic => Ownership::Whole,
        (Some(_), _, _) => Ownership::Parts,
        (None, None, Some(list)) => match list.relation {
            Relation::Atomic => Ownership::Whole,
            Relation::Set | Relation::Keyed(_) => Ownership::Parts,
        },
        _ => Ownership::Untold,
    }
}

fn is_open(type_: &Type) -> bool {
    match type_ {
        Type::Deduced => true,
        Type::Opaque => false,
        Type::Known(atom) => atom.scalar == Some(Scalar::Any),
    }
}

fn part<'t>(type_: &'t Type, element: &str) -> Option<&'t Type> {
    let atom = type_.atom();
    match (&atom.map, element.strip_prefix("f:")) {
        (Some(map), Some(name)) => map.member(name),
        (Some(_), None) => None,
        (None, _) => atom.list.as_ref().map(|list| &list.items),
    }
}
