//! The form of a new object: all of it that decides which fields its creator owns. Objects made by one
//! program have few forms, so that the set of each need not be built again and again.

use serde_json::Value;

use crate::types::{Relation, Shape, Type, Types};

/// Equal for objects whose creator owns the same fields. `None`: values count too, not only what is there.
pub(crate) fn of_new(types: &Types, ignored: &[&str], new: &Value) -> Option<Vec<u8>> {
    // Nobody owns what is as it is in every object of the kind.
    if types.zero.is_some() {
        return None;
    }
    let mut form = Vec::with_capacity(512);
    for name in ignored {
        put_name(name, &mut form);
    }
    form.push(b';');
    put(&types.root, new, &mut form);
    Some(form)
}

fn put(type_: &Type, value: &Value, form: &mut Vec<u8>) {
    match value {
        Value::Null => form.push(b'0'),
        Value::Bool(_) => form.push(b'b'),
        Value::Number(_) => form.push(b'n'),
        Value::String(_) => form.push(b's'),
        Value::Array(_) => match type_.shape(Some(value)) {
            Shape::List(list) if matches!(list.relation, Relation::Atomic) => form.push(b'a'),
            // What is in it may be owned by its value or by its keys.
            _ => serde_json::to_writer(form, value).expect("a JSON tree serializes into memory"),
        },
        Value::Object(members) => {
            let map = match type_.shape(Some(value)) {
                Shape::Map(map) if map.atomic => return form.push(b'o'),
                Shape::Map(map) => Some(map),
                Shape::List(_) | Shape::Scalar(_) => None,
            };
            form.push(b'{');
            for (name, value) in members {
                put_name(name, form);
                let type_ = map.and_then(|map| map.member(name));
                put(type_.unwrap_or(&Type::Deduced), value, form);
            }
            form.push(b'}');
        }
    }
}

/// With its length before it, so that no name looks like two.
fn put_name(name: &str, form: &mut Vec<u8>) {
    form.extend_from_slice(&(name.len() as u32).to_le_bytes());
    form.extend_from_slice(name.as_bytes());
}
