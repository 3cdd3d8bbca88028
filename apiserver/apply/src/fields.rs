//! Sets of fields, in the very form that `fieldsV1` has: a tree of path elements.
//!
//! A node is a JSON object. Its members are path elements (`f:name`, `k:{"name":"a"}`, `v:"x"`,
//! `i:0`) with the nodes below them; a node is itself in the set when it is empty or has the
//! member `.`. Working on this form directly means that an unchanged entry of an object is never
//! decoded. A root without members is the empty set; everywhere else it is a leaf.

use serde_json::{Map, Value};

pub(crate) type Node = Map<String, Value>;

/// The member that says that a node with children is in the set too.
pub(crate) const SELF: &str = ".";

pub(crate) fn is_member(node: &Node) -> bool {
    node.is_empty() || node.contains_key(SELF)
}

/// Path elements and the nodes below them.
pub(crate) fn children(node: &Node) -> impl Iterator<Item = (&String, &Node)> {
    node.iter()
        .filter(|(key, _)| *key != SELF)
        .filter_map(|(key, below)| Some((key, below.as_object()?)))
}

pub(crate) fn child<'n>(node: &'n Node, element: &str) -> Option<&'n Node> {
    node.get(element).and_then(Value::as_object)
}

/// Puts a node that is being built into the set.
pub(crate) fn mark(slot: &mut Option<Node>) {
    match slot {
        None => *slot = Some(Node::new()),
        Some(node) if node.is_empty() => {}
        Some(node) => {
            node.insert(SELF.to_owned(), leaf());
        }
    }
}

/// Hangs `below` under `element` of a node that is being built, which is not in the set so far
/// unless it was marked.
pub(crate) fn hang(slot: &mut Option<Node>, element: impl FnOnce() -> String, below: Option<Node>) {
    let Some(below) = below else { return };
    match slot {
        None => {
            let mut node = Node::new();
            node.insert(element(), Value::Object(below));
            *slot = Some(node);
        }
        Some(node) => {
            let was_leaf = node.is_empty();
            node.insert(element(), Value::Object(below));
            if was_leaf {
                node.insert(SELF.to_owned(), leaf());
            }
        }
    }
}

fn leaf() -> Value {
    Value::Object(Map::new())
}

/// Adds all of `other`.
pub(crate) fn union(set: &mut Node, other: &Node) {
    for (key, below) in children(other) {
        match set.get_mut(key).and_then(Value::as_object_mut) {
            None => {
                set.insert(key.clone(), Value::Object(below.clone()));
            }
            Some(mine) => {
                let member = is_member(mine) || is_member(below);
                union(mine, below);
                if member && !mine.is_empty() {
                    mine.insert(SELF.to_owned(), leaf());
                }
            }
        }
    }
}

/// Takes out the members of `other`; what is below them stays.
pub(crate) fn subtract(set: &mut Node, other: &Node) {
    for (key, below) in children(other) {
        let Some(mine) = set.get_mut(key).and_then(Value::as_object_mut) else { continue };
        let member = is_member(mine) && !is_member(below);
        mine.remove(SELF);
        subtract(mine, below);
        settle(set, key, member);
    }
}

/// Gives a node whose children were changed its membership back, or removes it.
fn settle(set: &mut Node, key: &str, member: bool) {
    let Some(node) = set.get_mut(key).and_then(Value::as_object_mut) else { return };
    match (member, node.is_empty()) {
        (false, true) => {
            set.remove(key);
        }
        (true, false) => {
            node.insert(SELF.to_owned(), leaf());
        }
        _ => {}
    }
}

/// What is in both.
pub(crate) fn intersection(a: &Node, b: &Node) -> Node {
    let mut both = Node::new();
    for (key, below) in children(a) {
        let Some(other) = child(b, key) else { continue };
        let mut node = intersection(below, other);
        if is_member(below) && is_member(other) {
            if !node.is_empty() {
                node.insert(SELF.to_owned(), leaf());
            }
            both.insert(key.clone(), Value::Object(node));
        } else if !node.is_empty() {
            both.insert(key.clone(), Value::Object(node));
        }
    }
    both
}

/// Whether a member of `other` is in the set.
pub(crate) fn touches(set: &Node, other: &Node) -> bool {
    children(other).any(|(key, below)| {
        child(set, key)
            .is_some_and(|mine| (is_member(mine) && is_member(below)) || touches(mine, below))
    })
}

/// Whether every member of `other` is in the set.
pub(crate) fn covers(set: &Node, other: &Node) -> bool {
    children(other).all(|(key, below)| {
        child(set, key)
            .is_some_and(|mine| (!is_member(below) || is_member(mine)) && covers(mine, below))
    })
}

/// The paths of the set, as lists of path elements: the members of a level before what is below.
pub(crate) fn paths(set: &Node) -> Vec<Vec<&str>> {
    let mut all = Vec::new();
    collect(set, &mut Vec::new(), &mut all);
    all
}

fn collect<'n>(node: &'n Node, at: &mut Vec<&'n str>, all: &mut Vec<Vec<&'n str>>) {
    for (key, below) in children(node) {
        if is_member(below) {
            all.push(at.iter().copied().chain([key.as_str()]).collect());
        }
    }
    for (key, below) in children(node) {
        at.push(key);
        collect(below, at, all);
        at.pop();
    }
}

/// The set that a client sent, in canonical form; path elements of a kind that is not known are
/// left out, as kube-apiserver does. `None`: not a set of fields.
pub(crate) fn decode(value: &Value) -> Option<Node> {
    let mut set = Node::new();
    for (key, below) in value.as_object()? {
        if key == SELF {
            continue;
        }
        let below_has_self = below.as_object()?.contains_key(SELF);
        let leaf = below.as_object()?.is_empty();
        let mut node = decode(below)?;
        // Kinds of elements that are not known yet are passed over, and what is no element is refused.
        if !crate::path::is_element(key) {
            if key.as_bytes().get(1) != Some(&b':') || "fkvi".contains(&key[..1]) {
                return None;
            }
            continue;
        }
        if node.is_empty() && !leaf && !below_has_self {
            continue;
        }
        if below_has_self && !node.is_empty() {
            node.insert(SELF.to_owned(), self::leaf());
        }
        set.insert(key.clone(), Value::Object(node));
    }
    Some(set)
}
