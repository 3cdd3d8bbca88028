//! Laying what an applier wants over what is there.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use crate::types::{List, Object, Relation, Shape, Type, element_of};

/// `wanted` wins; what it does not say stays. Lists that are sets or maps merge by item.
pub(crate) fn merge(type_: &Type, live: Option<&Value>, wanted: Option<&Value>) -> Option<Value> {
    let (Some(live), Some(wanted)) = (live, wanted) else {
        return wanted.or(live).cloned();
    };
    match (type_.shape(Some(wanted)), live, wanted) {
        (Shape::Map(map), Value::Object(live), Value::Object(wanted)) if !map.atomic => {
            Some(Value::Object(objects(map, live, wanted)))
        }
        // An empty object over none: the value itself says which.
        (Shape::Map(map), Value::Object(live), Value::Null) if !map.atomic && !live.is_empty() => {
            Some(Value::Object(live.clone()))
        }
        (Shape::List(list), Value::Array(live), Value::Array(wanted))
            if !matches!(list.relation, Relation::Atomic) =>
        {
            Some(Value::Array(lists(list, live, wanted)))
        }
        (Shape::List(list), Value::Array(live), Value::Null)
            if !matches!(list.relation, Relation::Atomic) && !live.is_empty() =>
        {
            Some(Value::Array(live.clone()))
        }
        _ => Some(wanted.clone()),
    }
}

fn objects(
    map: &Object,
    live: &Map<String, Value>,
    wanted: &Map<String, Value>,
) -> Map<String, Value> {
    let mut merged = live.clone();
    for (name, value) in wanted {
        let type_ = map.member(name).unwrap_or(&Type::Deduced);
        if let Some(value) = merge(type_, live.get(name), Some(value)) {
            merged.insert(name.clone(), value);
        }
    }
    merged
}

/// The applier's order for the items that it names; the others stay before the item that followed
/// them, as far as both lists agree on the order. Step by step as structured-merge-diff does it,
/// since the order of a list is content.
fn lists(list: &List, live: &[Value], wanted: &[Value]) -> Vec<Value> {
    let named = |items: &[Value]| -> Vec<Option<String>> {
        items.iter().map(|item| element_of(&list.relation, item).ok()).collect()
    };
    let (live_names, wanted_names) = (named(live), named(wanted));
    // An item that the live list has twice is nobody's counterpart.
    let mut counterparts: BTreeMap<&str, Option<&Value>> = BTreeMap::new();
    for (name, item) in live_names.iter().zip(live) {
        let Some(name) = name.as_deref() else { continue };
        counterparts.entry(name).and_modify(|found| *found = None).or_insert(Some(item));
    }
    let is_wanted: BTreeSet<&str> = wanted_names.iter().flatten().map(String::as_str).collect();
    let names = wanted_names.iter().flatten().map(String::as_str);
    let mut shared = names.filter(|name| counterparts.contains_key(name));
    let mut next_shared = shared.next();

    let mut merged = Vec::with_capacity(live.len().max(wanted.len()));
    let (mut at, mut taken) = (0, 0);
    while at < live.len() || taken < wanted.len() {
        let name = live_names.get(at).and_then(Option::as_deref);
        let turn = wanted_names.get(taken).and_then(Option::as_deref);
        if at < live.len() {
            if !name.is_some_and(|name| is_wanted.contains(name)) {
                merged.push(live[at].clone());
                at += 1;
                continue;
            }
            if name == turn {
                at += 1;
            } else if taken < wanted.len() && next_shared.is_some() && next_shared != name {
                // Both have it, but it is not its turn.
                at += 1;
                continue;
            } else if wanted_names[..taken].iter().any(|before| before.as_deref() == name) {
                at += 1;
            }
        }
        if taken < wanted.len() {
            let counterpart = turn.and_then(|name| counterparts.get(name).copied()).flatten();
            merged.extend(merge(&list.items, counterpart, Some(&wanted[taken])));
            taken += 1;
            if turn.is_some() && turn == next_shared {
                next_shared = shared.next();
            }
        }
    }
    merged
}
