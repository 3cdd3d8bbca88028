//! What differs between two versions of an object.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::fields::{self, Node};
use crate::path;
use crate::types::{List, Object, Relation, Shape, Type, element_of};

/// The difference, as sets of fields.
#[derive(Debug, Default)]
pub(crate) struct Delta {
    /// Added or with another value.
    pub(crate) taken: Option<Node>,
    pub(crate) removed: Option<Node>,
}

impl Delta {
    pub(crate) fn is_empty(&self) -> bool {
        self.taken.is_none() && self.removed.is_none()
    }

    fn hang(&mut self, element: impl Fn() -> String, below: Delta) {
        fields::hang(&mut self.taken, &element, below.taken);
        fields::hang(&mut self.removed, &element, below.removed);
    }
}

/// Compares whole objects but for the top-level members `ignored`, which a write does not own.
pub(crate) fn compare_objects(
    root: &Type,
    old: Option<&Value>,
    new: &Value,
    ignored: &[&str],
) -> Delta {
    let mut delta = Delta::default();
    let Shape::Map(map) = root.shape(Some(new)) else { return delta };
    let empty = Map::new();
    let (old, new) = (old.and_then(Value::as_object), new.as_object());
    let keep = |name: &str| !ignored.contains(&name) && !matches!(name, "apiVersion" | "kind");
    members(map, old.unwrap_or(&empty), new.unwrap_or(&empty), keep, &mut delta);
    delta
}

fn compare(type_: &Type, old: Option<&Value>, new: Option<&Value>) -> Delta {
    let mut delta = Delta::default();
    let leaf = match (old, new) {
        (Some(before), Some(after)) => {
            let (was, is) = (type_.shape(old), type_.shape(new));
            if std::mem::discriminant(&was) == std::mem::discriminant(&is) {
                shaped(is, old, new, &mut delta)
            } else if before.is_null() || after.is_null() {
                // Null takes the form of the other.
                let shape = if after.is_null() { was } else { is };
                shaped(shape, old, new, &mut delta)
            } else {
                let leaf = shaped(was, old, new, &mut delta);
                shaped(is, old, new, &mut delta) || leaf
            }
        }
        (None, None) => return delta,
        _ => shaped(type_.shape(new.or(old)), old, new, &mut delta),
    };
    match (old, new) {
        (None, Some(_)) => fields::mark(&mut delta.taken),
        (Some(_), None) => fields::mark(&mut delta.removed),
        (Some(old), Some(new)) if leaf && old != new => fields::mark(&mut delta.taken),
        _ => {}
    }
    delta
}

/// Compares what is below; whether the place itself is a leaf.
fn shaped(shape: Shape<'_>, old: Option<&Value>, new: Option<&Value>, delta: &mut Delta) -> bool {
    match shape {
        Shape::Scalar(_) => true,
        Shape::Map(map) => {
            let empty = Map::new();
            let old = old.and_then(Value::as_object).unwrap_or(&empty);
            let new = new.and_then(Value::as_object).unwrap_or(&empty);
            // Both empty: null and {} differ as wholes.
            if map.atomic || (old.is_empty() && new.is_empty()) {
                return true;
            }
            members(map, old, new, |_| true, delta);
            false
        }
        Shape::List(list) => {
            let old = old.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
            let new = new.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
            if matches!(list.relation, Relation::Atomic) || (old.is_empty() && new.is_empty()) {
                return true;
            }
            items_of(list, old, new, delta);
            false
        }
    }
}

fn members(
    map: &Object,
    old: &Map<String, Value>,
    new: &Map<String, Value>,
    keep: impl Fn(&str) -> bool,
    delta: &mut Delta,
) {
    let one = |name: &String, old: Option<&Value>, new: Option<&Value>, delta: &mut Delta| {
        if !keep(name) {
            return;
        }
        let below = compare(map.member(name).unwrap_or(&Type::Deduced), old, new);
        if !below.is_empty() {
            delta.hang(|| path::field(name), below);
        }
    };
    for (name, value) in new {
        one(name, old.get(name), Some(value), delta);
    }
    for (name, value) in old {
        if !new.contains_key(name) {
            one(name, Some(value), None, delta);
        }
    }
}

fn items_of(list: &List, old: &[Value], new: &[Value], delta: &mut Delta) {
    if old == new {
        return;
    }
    let mut items: BTreeMap<String, (Vec<&Value>, Vec<&Value>)> = BTreeMap::new();
    for item in old {
        if let Ok(element) = element_of(&list.relation, item) {
            items.entry(element).or_default().0.push(item);
        }
    }
    for item in new {
        if let Ok(element) = element_of(&list.relation, item) {
            items.entry(element).or_default().1.push(item);
        }
    }
    for (element, (old, new)) in items {
        let below = match (&old[..], &new[..]) {
            (_, [] | [_]) if old.len() < 2 => {
                compare(&list.items, old.first().copied(), new.first().copied())
            }
            // Duplicates are owned together.
            ([], _) => Delta { taken: Some(Node::new()), removed: None },
            (_, []) => Delta { taken: None, removed: Some(Node::new()) },
            (old, new) if old == new => continue,
            _ => Delta { taken: Some(Node::new()), removed: None },
        };
        if !below.is_empty() {
            delta.hang(|| element.clone(), below);
        }
    }
}
