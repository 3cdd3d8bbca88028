//! From an object to what its rules see.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use base64::Engine as _;
use kube_cel::cel::Value;
use kube_cel::cel::objects::{Key, Map};
use serde_json::Value as Json;

use super::super::node::{Node, Type};
use super::lexer::is_reserved;
use super::typed_lists::TypedLists;

/// Words of the language that, beside the reserved ones, no expression can select by.
const LITERALS: [&str; 4] = ["true", "false", "null", "in"];

/// The name of a property as expressions write it: `x-y` is `x__dash__y`.
pub(super) fn escape(name: &str) -> String {
    if is_reserved(name) || LITERALS.contains(&name) {
        return format!("__{name}__");
    }
    if !name.contains("__") && !name.contains(['.', '-', '/']) {
        return name.to_owned();
    }
    name.replace("__", "__underscores__")
        .replace('.', "__dot__")
        .replace('-', "__dash__")
        .replace('/', "__slash__")
}

/// `is_resource`: the object has a type and metadata, of which rules see the names. Its sets and
/// maps are added to `lists`.
pub(super) fn of_json<'n>(
    node: &'n Node,
    value: &Json,
    is_resource: bool,
    lists: &mut TypedLists<'n>,
) -> Value {
    match value {
        Json::Null => Value::Null,
        Json::Bool(value) => Value::Bool(*value),
        Json::Number(number) if node.types == [Type::Number] => {
            Value::Float(number.as_f64().unwrap_or(f64::NAN))
        }
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(number), _) => Value::Int(number),
            (None, Some(number)) if node.types.first() == Some(&Type::Integer) => {
                Value::Int(number as i64)
            }
            (None, number) => Value::Float(number.unwrap_or(f64::NAN)),
        },
        Json::String(text) => of_text(node, text),
        Json::Array(list) => {
            let items = node.items.as_deref().unwrap_or(&ANY);
            let list = list.iter().map(|item| of_json(items, item, items.embedded, lists));
            let list = Arc::new(list.collect());
            lists.add(&list, &node.list);
            Value::List(list)
        }
        Json::Object(object) => {
            let is_map = node.additional.is_some();
            let mut members = HashMap::with_capacity(object.len());
            for (name, value) in object {
                let child = node.properties.get(name).or(node.additional.as_deref());
                let value = match (is_resource, name.as_str()) {
                    (true, "metadata") => names_of(value),
                    _ => {
                        let child = child.unwrap_or(&ANY);
                        of_json(child, value, child.embedded, lists)
                    }
                };
                let name = if is_map { name.clone() } else { escape(name) };
                members.insert(Key::String(Arc::new(name)), value);
            }
            Value::Map(Map { map: Arc::new(members) })
        }
    }
}

/// What no schema speaks of.
static ANY: LazyLock<Node> = LazyLock::new(Node::default);

fn names_of(metadata: &Json) -> Value {
    let names = ["name", "generateName"].into_iter().filter_map(|name| {
        let value = metadata.get(name)?.as_str()?;
        let key = Key::String(Arc::new(name.to_owned()));
        Some((key, Value::String(Arc::new(value.to_owned()))))
    });
    Value::Map(Map { map: Arc::new(names.collect()) })
}

fn of_text(node: &Node, text: &str) -> Value {
    let plain = || Value::String(Arc::new(text.to_owned()));
    let format = node.checks.as_ref().and_then(|checks| checks.format);
    let call = |function: &str, text: String| {
        super::functions::of_library(function, false, vec![Value::String(Arc::new(text))])
            .unwrap_or_else(|_| plain())
    };
    match format.map(|format| format.name()) {
        Some("date-time" | "datetime") => call("timestamp", text.to_owned()),
        Some("date") => call("timestamp", format!("{text}T00:00:00Z")),
        Some("duration") => call("duration", text.to_owned()),
        Some("byte") => base64::engine::general_purpose::STANDARD
            .decode(text)
            .map_or_else(|_| plain(), |bytes| Value::Bytes(Arc::new(bytes))),
        _ => plain(),
    }
}
