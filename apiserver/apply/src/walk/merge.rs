//! Laying what an applier wants over what is there.

use std::collections::BTreeMap;

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

/// The applier's order for the items that it names; the others stay where they were among them.
fn lists(list: &List, live: &[Value], wanted: &[Value]) -> Vec<Value> {
    let named = |items: &[Value]| -> Vec<Option<String>> {
        items.iter().map(|item| element_of(&list.relation, item).ok()).collect()
    };
    let (live_names, wanted_names) = (named(live), named(wanted));
    let places: BTreeMap<&str, usize> = wanted_names
        .iter()
        .enumerate()
        .filter_map(|(at, name)| Some((name.as_deref()?, at)))
        .collect();
    // An item that the live list has twice is nobody's counterpart.
    let mut counterparts: BTreeMap<&str, Option<&Value>> = BTreeMap::new();
    for (name, item) in live_names.iter().zip(live) {
        let Some(name) = name.as_deref() else { continue };
        counterparts.entry(name).and_modify(|found| *found = None).or_insert(Some(item));
    }
    let shared =
        |at: usize| wanted_names[at].as_deref().is_some_and(|name| counterparts.contains_key(name));
    let mut merged = Vec::with_capacity(live.len().max(wanted.len()));
    let mut next = 0;
    let take = |at: usize, merged: &mut Vec<Value>| {
        let counterpart =
            wanted_names[at].as_deref().and_then(|name| counterparts.get(name).copied()).flatten();
        merged.extend(merge(&list.items, counterpart, Some(&wanted[at])));
    };
    for (name, item) in live_names.iter().zip(live) {
        let place = name.as_deref().and_then(|name| places.get(name).copied());
        let Some(place) = place else {
            merged.push(item.clone());
            continue;
        };
        // Its own turn comes when the items before it in the applier's order have been taken, up
        // to the next one that both have.
        if place < next {
            continue;
        }
        while next < wanted.len() && !shared(next) {
            take(next, &mut merged);
            next += 1;
        }
        if next == place {
            take(place, &mut merged);
            next += 1;
        }
    }
    for at in next..wanted.len() {
        take(at, &mut merged);
    }
    merged
}
