//! Objects within objects: whole resources with a type and metadata of their own.

use serde_json::Value;

use super::node::Node;
use super::path::Path;
use crate::status::Cause;

pub(super) fn check(node: &Node, value: &Value, path: &Path<'_>, causes: &mut Vec<Cause>) {
    if !node.embedded_below {
        return;
    }
    match value {
        Value::Object(map) => {
            if node.embedded {
                type_meta(value, path, causes);
                causes.extend(crate::meta::validate_embedded(value).into_iter().map(
                    |mut cause| {
                        cause.field = format!("{path}.{}", cause.field);
                        cause
                    },
                ));
            }
            for (name, value) in map {
                if let Some(child) = node.properties.get(name) {
                    check(child, value, &Path::Member(path, name), causes);
                } else if let Some(child) = node.additional.as_deref() {
                    check(child, value, &Path::Key(path, name), causes);
                }
            }
        }
        Value::Array(list) => {
            let Some(items) = node.items.as_deref() else { return };
            for (index, value) in list.iter().enumerate() {
                check(items, value, &Path::Item(path, index), causes);
            }
        }
        _ => {}
    }
}

fn type_meta(value: &Value, path: &Path<'_>, causes: &mut Vec<Cause>) {
    for name in ["apiVersion", "kind"] {
        let at = Path::Member(path, name).to_string();
        match value.get(name) {
            None => causes.push(Cause::required(at, "")),
            Some(Value::String(text)) if text.is_empty() => causes.push(Cause::required(at, "")),
            Some(Value::String(text)) if name == "kind" => {
                if let Some(why) = no_label(&text.to_lowercase()) {
                    let detail = format!("may have mixed case, but should otherwise match: {why}");
                    causes.push(Cause::invalid(at, &value[name], &detail));
                }
            }
            Some(Value::String(text)) if text.matches('/').count() > 1 => {
                let detail = format!("unexpected GroupVersion string: {text}");
                causes.push(Cause::invalid(at, &value[name], &detail));
            }
            Some(Value::String(_)) => {}
            Some(other) => causes.push(Cause::invalid(at, other, "must be a string")),
        }
    }
}

/// Why this is no DNS label in the sense of RFC 1035.
fn no_label(text: &str) -> Option<&'static str> {
    const SYNTAX: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an \
         alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex \
         used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
    if text.len() > 63 {
        return Some("must be no more than 63 characters");
    }
    let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    let sound = text.bytes().all(inner)
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && !text.ends_with('-');
    (!sound).then_some(SYNTAX)
}
