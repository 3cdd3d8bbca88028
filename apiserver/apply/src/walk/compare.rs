//! What differs between two versions of an object.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde_json::{Map, Value};

use crate::fields::{self, Node};
use crate::path;
use crate::types::{List, Object, Relation, Shape, Type, Types, element_of};

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
    if let Shape::Map(map) = root.shape(Some(new)) {
        let keep = |name: &str| !is_type(name) && !ignored.contains(&name);
        members(map, object(old), object(Some(new)), NOTHING, keep, &mut delta);
    }
    delta
}

/// As [`compare_objects`], without what nobody owns: the object's identity, and what the server
/// keeps in its metadata. Spares creates from building sets of it.
pub(crate) fn compare_owned(
    types: &Types,
    old: Option<&Value>,
    new: &Value,
    ignored: &[&str],
) -> Delta {
    let mut delta = Delta::default();
    let Shape::Map(map) = types.root.shape(Some(new)) else { return delta };
    let (old, new) = (object(old), object(Some(new)));
    let keep = |name: &str| !is_type(name) && name != METADATA && !ignored.contains(&name);
    members(map, old, new, types.zero.as_ref(), keep, &mut delta);
    let metadata = map.member(METADATA).map(|type_| type_.shape(None));
    if let Some(Shape::Map(map)) = metadata.filter(|_| !ignored.contains(&METADATA)) {
        let (old, new) = (object(old.get(METADATA)), object(new.get(METADATA)));
        let mut below = Delta::default();
        members(map, old, new, NOTHING, |name| !UNOWNED_METADATA.contains(&name), &mut below);
        delta.hang(|| path::field(METADATA), below);
    }
    delta
}

fn is_type(name: &str) -> bool {
    matches!(name, "apiVersion" | "kind")
}

/// The members of a value; none of one that is no object.
fn object(value: Option<&Value>) -> &Map<String, Value> {
    static EMPTY: LazyLock<Map<String, Value>> = LazyLock::new(Map::new);
    value.and_then(Value::as_object).unwrap_or(&EMPTY)
}

const METADATA: &str = "metadata";
pub(crate) const UNOWNED_METADATA: [&str; 9] = [
    "name",
    "namespace",
    "creationTimestamp",
    "selfLink",
    "uid",
    "clusterName",
    "generation",
    "managedFields",
    "resourceVersion",
];

/// What is there, as `zero` has it, where nobody has written anything.
const NOTHING: Option<&Value> = None;

fn compare(type_: &Type, old: Option<&Value>, new: Option<&Value>, zero: Option<&Value>) -> Delta {
    let (old, new) = (old.or(zero), new.or(zero));
    let mut delta = Delta::default();
    let leaf = match (old, new) {
        (Some(before), Some(after)) => {
            let (was, is) = (type_.shape(old), type_.shape(new));
            if std::mem::discriminant(&was) == std::mem::discriminant(&is) {
                shaped(is, old, new, zero, &mut delta)
            } else if before.is_null() || after.is_null() {
                // Null takes the form of the other.
                let shape = if after.is_null() { was } else { is };
                shaped(shape, old, new, zero, &mut delta)
            } else {
                let leaf = shaped(was, old, new, zero, &mut delta);
                shaped(is, old, new, zero, &mut delta) || leaf
            }
        }
        (None, None) => return delta,
        _ => shaped(type_.shape(new.or(old)), old, new, zero, &mut delta),
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
fn shaped(
    shape: Shape<'_>,
    old: Option<&Value>,
    new: Option<&Value>,
    zero: Option<&Value>,
    delta: &mut Delta,
) -> bool {
    match shape {
        Shape::Scalar(_) => true,
        Shape::Map(map) => {
            let (old, new) = (object(old), object(new));
            // Both empty: null and {} differ as wholes.
            if map.atomic || (old.is_empty() && new.is_empty()) {
                return true;
            }
            members(map, old, new, zero, |_| true, delta);
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
    zero: Option<&Value>,
    keep: impl Fn(&str) -> bool,
    delta: &mut Delta,
) {
    let one = |name: &String, old: Option<&Value>, new: Option<&Value>, delta: &mut Delta| {
        if !keep(name) {
            return;
        }
        let zero = zero.and_then(|zero| zero.get(name));
        let below = compare(map.member(name).unwrap_or(&Type::Deduced), old, new, zero);
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
                compare(&list.items, old.first().copied(), new.first().copied(), NOTHING)
            }
            // Duplicates are owned together, as one leaf, which a single item replaces or is
            // replaced by.
            ([], _) => Delta { taken: Some(Node::new()), removed: None },
            (_, []) => Delta { taken: None, removed: Some(Node::new()) },
            (_, [one]) => Delta {
                removed: Some(Node::new()),
                ..compare(&list.items, None, Some(one), NOTHING)
            },
            ([one], _) => {
                Delta { taken: Some(Node::new()), ..compare(&list.items, Some(one), None, NOTHING) }
            }
            (old, new) if old == new => continue,
            _ => Delta { taken: Some(Node::new()), removed: None },
        };
        if !below.is_empty() {
            delta.hang(|| element.clone(), below);
        }
    }
}
