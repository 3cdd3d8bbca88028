//! Whether a value fits its types: what an applier sends must.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::path;
use crate::types::{List, Object, Relation, Scalar, Shape, Type, element_of};

/// All that is wrong, in one text; with `duplicates` the same key may come twice in a list.
pub(crate) fn validate(type_: &Type, value: &Value, duplicates: bool) -> Result<(), String> {
    let mut check = Check { duplicates, at: Vec::new(), found: Vec::new() };
    check.value(type_, value);
    match check.found.len() {
        0 => Ok(()),
        1 => Err(check.found.remove(0)),
        _ => {
            let lines = check.found.iter().map(|found| format!("\n  {found}"));
            Err(format!("errors:{}", lines.collect::<String>()))
        }
    }
}

struct Check {
    duplicates: bool,
    at: Vec<String>,
    found: Vec<String>,
}

impl Check {
    fn report(&mut self, message: &str) {
        let at: Vec<&str> = self.at.iter().map(String::as_str).collect();
        let place = path::join(&at);
        self.found.push(match place.is_empty() {
            true => message.to_owned(),
            false => format!("{place}: {message}"),
        });
    }

    fn value(&mut self, type_: &Type, value: &Value) {
        match type_.shape(Some(value)) {
            Shape::Map(map) => self.map(map, value),
            Shape::List(list) => self.list(list, value),
            Shape::Scalar(scalar) => self.scalar(scalar, value),
        }
    }

    fn scalar(&mut self, scalar: Scalar, value: &Value) {
        let fits = match scalar {
            Scalar::Number => value.is_number(),
            Scalar::String => value.is_string(),
            Scalar::Boolean => value.is_boolean(),
            Scalar::Any => !value.is_array() && !value.is_object(),
        };
        if fits || value.is_null() {
            return;
        }
        let message = match scalar {
            Scalar::Number => {
                format!("expected numeric (int or float), got {}", go_type(value))
            }
            Scalar::String => {
                format!(
                    "expected string, got &value.valueUnstructured{{Value:{}}}",
                    go_syntax(value)
                )
            }
            Scalar::Boolean => format!("expected boolean, got &{{{}}}", go_text(value)),
            Scalar::Any => format!("expected any scalar, got &{{{}}}", go_text(value)),
        };
        self.report(&message);
    }

    fn map(&mut self, map: &Object, value: &Value) {
        let members = match value {
            Value::Object(members) => members,
            Value::Null => return,
            other => return self.report(&format!("expected map, got &{{{}}}", go_text(other))),
        };
        for (name, value) in members {
            self.at.push(path::field(name));
            let declared = map.member(name);
            match declared {
                Some(type_) => self.value(type_, value),
                None => self.report("field not declared in schema"),
            }
            self.at.pop();
            if declared.is_none() {
                // kube-apiserver names the first one only.
                return;
            }
        }
    }

    fn list(&mut self, list: &List, value: &Value) {
        let items = match value {
            Value::Array(items) => items,
            Value::Null => return,
            other => return self.report(&format!("expected list, got &{{{}}}", go_text(other))),
        };
        let mut seen = BTreeSet::new();
        for (index, item) in items.iter().enumerate() {
            let element = match list.relation {
                Relation::Atomic => format!("i:{index}"),
                _ => match element_of(&list.relation, item) {
                    Ok(element) => element,
                    // Without its identity nothing below can be named.
                    Err(message) => return self.report(&format!("element {index}: {message}")),
                },
            };
            if !seen.insert(element.clone()) && !self.duplicates {
                self.report(&format!("duplicate entries for key {}", path::text(&element)));
            }
            self.at.push(element);
            self.value(&list.items, item);
            self.at.pop();
        }
    }
}

/// Go's name of the type.
fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

/// As Go's `%v` prints it.
fn go_text(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".into(),
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            format!("[{}]", items.iter().map(go_text).collect::<Vec<_>>().join(" "))
        }
        Value::Object(members) => {
            let members: Vec<String> =
                members.iter().map(|(name, value)| format!("{name}:{}", go_text(value))).collect();
            format!("map[{}]", members.join(" "))
        }
        other => other.to_string(),
    }
}

/// As Go's `%#v` prints it.
fn go_syntax(value: &Value) -> String {
    let nested = |value: &Value| match value {
        Value::Null => "interface {}(nil)".to_owned(),
        other => go_syntax(other),
    };
    match value {
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(nested).collect();
            format!("[]interface {{}}{{{}}}", items.join(", "))
        }
        Value::Object(members) => {
            let members: Vec<String> =
                members.iter().map(|(name, value)| format!("{name:?}:{}", nested(value))).collect();
            format!("map[string]interface {{}}{{{}}}", members.join(", "))
        }
        other => other.to_string(),
    }
}
