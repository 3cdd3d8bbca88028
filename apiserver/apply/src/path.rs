//! Path elements: how `fieldsV1` writes them, and how messages do.

use serde_json::{Map, Value};

pub(crate) fn field(name: &str) -> String {
    let mut element = String::with_capacity(2 + name.len());
    element.push_str("f:");
    element.push_str(name);
    element
}

/// `key` holds the values of the list's keys.
pub(crate) fn key(key: Map<String, Value>) -> String {
    format!("k:{}", Value::Object(key))
}

pub(crate) fn value(value: &Value) -> String {
    format!("v:{value}")
}

pub(crate) fn is_element(text: &str) -> bool {
    match text.split_once(':') {
        Some(("f", _)) => true,
        Some(("k", key)) => matches!(serde_json::from_str(key), Ok(Value::Object(_))),
        Some(("v", value)) => serde_json::from_str::<Value>(value).is_ok(),
        Some(("i", index)) => index.parse::<u64>().is_ok(),
        _ => false,
    }
}

/// `.name`, `[name="a",port=80]`, `[="x"]`, `[0]`.
pub(crate) fn text(element: &str) -> String {
    match element.split_once(':') {
        Some(("f", name)) => format!(".{name}"),
        Some(("k", key)) => {
            let key: Map<String, Value> = serde_json::from_str(key).unwrap_or_default();
            let parts: Vec<String> =
                key.iter().map(|(name, value)| format!("{name}={value}")).collect();
            format!("[{}]", parts.join(","))
        }
        Some(("v", value)) => format!("[={value}]"),
        Some(("i", index)) => format!("[{index}]"),
        _ => element.to_owned(),
    }
}

pub(crate) fn join(elements: &[&str]) -> String {
    elements.iter().map(|element| text(element)).collect()
}
