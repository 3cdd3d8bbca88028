//! Lists that the schema makes sets or maps: equal in any order, and added without repeating.
//!
//! A value of the language does not say what it is, so these are known by where they are: the
//! object's lists are made once for all rules of a place, and only passed on.

use std::collections::HashMap;
use std::sync::Arc;

use kube_cel::cel::Value;
use kube_cel::cel::objects::Key;

use super::super::node::ListType;
use super::value::escape;

#[derive(Debug, Default)]
pub(super) struct TypedLists<'n>(HashMap<usize, &'n ListType>);

fn address(list: &Arc<Vec<Value>>) -> usize {
    Arc::as_ptr(list) as usize
}

impl<'n> TypedLists<'n> {
    /// Remembers a list of the object.
    pub(super) fn add(&mut self, list: &Arc<Vec<Value>>, type_: &'n ListType) {
        if !matches!(type_, ListType::Atomic) && !list.is_empty() {
            self.0.insert(address(list), type_);
        }
    }

    fn of(&self, value: &Value) -> Option<&'n ListType> {
        match value {
            Value::List(list) => self.0.get(&address(list)).copied(),
            _ => None,
        }
    }

    /// Comparisons that comparing the two takes, beside reading them.
    pub(super) fn effort(&self, left: &Value, right: &Value) -> u64 {
        match (self.of(left), left, right) {
            (Some(_), Value::List(left), Value::List(right)) => {
                left.len() as u64 * right.len() as u64
            }
            _ => 0,
        }
    }

    /// What the left one is decides how they are compared.
    pub(super) fn equal(&self, left: &Value, right: &Value) -> bool {
        match (left, right) {
            (Value::List(items), Value::List(others)) => {
                if items.len() != others.len() {
                    return false;
                }
                match self.of(left) {
                    None => items.iter().zip(others.iter()).all(|(a, b)| self.equal(a, b)),
                    Some(type_) => items.iter().all(|item| {
                        let mut same = others.iter().filter(|other| is_same(type_, item, other));
                        same.any(|other| self.equal(item, other))
                    }),
                }
            }
            (Value::Map(map), Value::Map(other)) => {
                map.map.len() == other.map.len()
                    && map.map.iter().all(|(key, value)| {
                        other.map.get(key).is_some_and(|other| self.equal(value, other))
                    })
            }
            _ => left == right,
        }
    }

    /// The sum of a set or a map and a list; `None` for other values.
    pub(super) fn sum(&self, left: &Value, right: &Value) -> Option<Value> {
        let (type_, Value::List(items), Value::List(added)) = (self.of(left)?, left, right) else {
            return None;
        };
        let mut sum = items.to_vec();
        for item in added.iter() {
            match sum.iter_mut().find(|present| is_same(type_, present, item)) {
                Some(present) => *present = item.clone(),
                None => sum.push(item.clone()),
            }
        }
        Some(Value::List(Arc::new(sum)))
    }
}

/// Whether two items have the same identity.
fn is_same(type_: &ListType, a: &Value, b: &Value) -> bool {
    match (type_, a, b) {
        (ListType::Map(keys), Value::Map(a), Value::Map(b)) => keys.iter().all(|key| {
            let key = Key::String(Arc::new(escape(key)));
            a.map.get(&key) == b.map.get(&key)
        }),
        _ => a == b,
    }
}
