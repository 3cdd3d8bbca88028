//! Validation with the messages of Kubernetes' OpenAPI validator, which clients print.

use std::collections::HashSet;

use serde_json::{Map, Number, Value};

use super::format::Format;
use super::node::{Checks, ListType, Logic, Node, Type};
use super::path::Path;
use crate::status::Cause;

pub(super) fn validate(node: &Node, value: &Value, path: &Path<'_>, causes: &mut Vec<Cause>) {
    if value.is_null() && (node.nullable || node.types.is_empty()) {
        return;
    }
    if !node.types.is_empty() && !node.types.iter().any(|type_| type_.holds(value)) {
        causes.push(wrong_type(node, value, path));
    }
    if !node.one_of_values.is_empty() && !node.one_of_values.contains(value) {
        causes.push(unsupported(node, value, path));
    }
    match value {
        Value::String(text) => {
            if let Some(checks) = &node.checks {
                string(checks, value, text, path, causes);
            }
        }
        Value::Number(number) => {
            if let Some(checks) = &node.checks {
                self::number(checks, value, number, path, causes);
            }
        }
        Value::Array(list) => array(node, value, list, path, causes),
        Value::Object(map) => object(node, value, map, path, causes),
        Value::Null | Value::Bool(_) => {}
    }
    if let Some(logic) = &node.logic {
        self::logic(logic, value, path, causes);
    }
}

fn wrong_type(node: &Node, value: &Value, path: &Path<'_>) -> Cause {
    let found = Type::name_of(value);
    let wanted: Vec<&str> = node.types.iter().map(|type_| type_.name()).collect();
    let detail = format!("{path} in body must be of type {}: {found:?}", wanted.join(","));
    Cause::type_invalid(path.to_string(), &found.into(), &detail)
}

fn unsupported(node: &Node, value: &Value, path: &Path<'_>) -> Cause {
    let shown: Vec<String> = node
        .one_of_values
        .iter()
        .filter(|value| !value.is_null())
        .map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned))
        .collect();
    Cause::not_supported(path.to_string(), value, shown.iter().map(String::as_str))
}

fn string(checks: &Checks, value: &Value, text: &str, path: &Path<'_>, causes: &mut Vec<Cause>) {
    let mut invalid =
        |detail: String| causes.push(Cause::invalid(path.to_string(), value, &detail));
    // Characters are counted only where bytes do not settle it.
    if let Some(least) = checks.min_length
        && (text.len() < least || text.chars().count() < least)
    {
        invalid(format!("{path} in body should be at least {least} chars long"));
    }
    if let Some(pattern) = &checks.pattern
        && !pattern.is_match(text)
    {
        invalid(format!("{path} in body should match '{pattern}'"));
    }
    if let Some(most) = checks.max_length
        && text.len() > most
        && text.chars().count() > most
    {
        causes.push(Cause::too_long(
            path.to_string(),
            &format!("may not be more than {most} characters"),
        ));
    }
    if let Some(format) = checks.format
        && !format.holds(text)
    {
        let detail = format!("{path} in body must be of type {}: {text:?}", format.name());
        causes.push(Cause::type_invalid(path.to_string(), value, &detail));
    }
}

fn number(
    checks: &Checks,
    value: &Value,
    number: &Number,
    path: &Path<'_>,
    causes: &mut Vec<Cause>,
) {
    let mut invalid =
        |detail: String| causes.push(Cause::invalid(path.to_string(), value, &detail));
    let amount = number.as_f64().unwrap_or(f64::NAN);
    if let Some(least) = checks.minimum {
        if checks.exclusive_minimum && amount <= least {
            invalid(format!("{path} in body should be greater than {least}"));
        } else if amount < least {
            invalid(format!("{path} in body should be greater than or equal to {least}"));
        }
    }
    if let Some(most) = checks.maximum {
        if checks.exclusive_maximum && amount >= most {
            invalid(format!("{path} in body should be less than {most}"));
        } else if amount > most {
            invalid(format!("{path} in body should be less than or equal to {most}"));
        }
    }
    if let Some(unit) = checks.multiple_of
        && (amount / unit).fract() != 0.0
    {
        invalid(format!("{path} in body should be a multiple of {unit}"));
    }
    let in_range = match checks.format {
        Some(Format::Int32) => {
            number.as_i64().is_some_and(|number| i32::try_from(number).is_ok()) || number.is_f64()
        }
        Some(Format::Int64) => number.is_i64() || number.is_f64(),
        _ => true,
    };
    if !in_range {
        let format = checks.format.map_or("", Format::name);
        invalid(format!("Checked value must be of type integer with format {format}"));
    }
}

fn array(node: &Node, value: &Value, list: &[Value], path: &Path<'_>, causes: &mut Vec<Cause>) {
    if let Some(checks) = &node.checks {
        if let Some(least) = checks.min_items.filter(|least| list.len() < *least) {
            let detail = format!("{path} in body should have at least {least} items");
            causes.push(Cause::invalid(path.to_string(), value, &detail));
        }
        if let Some(most) = checks.max_items.filter(|most| list.len() > *most) {
            causes.push(Cause::too_many(path.to_string(), list.len(), most));
        }
    }
    if let Some(items) = &node.items {
        for (index, item) in list.iter().enumerate() {
            validate(items, item, &Path::Item(path, index), causes);
        }
    }
    match &node.list {
        ListType::Atomic => {}
        ListType::Set => duplicates(list, path, causes, |item| Some(item.clone())),
        ListType::Map(keys) => duplicates(list, path, causes, |item| {
            let item = item.as_object()?;
            let of_key = |key: &String| Some((key.clone(), item.get(key)?.clone()));
            Some(Value::Object(keys.iter().filter_map(of_key).collect()))
        }),
    }
}

fn duplicates(
    list: &[Value],
    path: &Path<'_>,
    causes: &mut Vec<Cause>,
    identity: impl Fn(&Value) -> Option<Value>,
) {
    if list.len() < 2 {
        return;
    }
    let mut seen = HashSet::with_capacity(list.len());
    for (index, item) in list.iter().enumerate() {
        let Some(identity) = identity(item) else { continue };
        if !seen.insert(identity.to_string()) {
            causes.push(Cause::duplicate(Path::Item(path, index).to_string(), &identity));
        }
    }
}

fn object(
    node: &Node,
    value: &Value,
    map: &Map<String, Value>,
    path: &Path<'_>,
    causes: &mut Vec<Cause>,
) {
    if let Some(checks) = &node.checks {
        if let Some(least) = checks.min_properties.filter(|least| map.len() < *least) {
            let detail = format!("{path} in body should have at least {least} properties");
            causes.push(Cause::invalid(path.to_string(), value, &detail));
        }
        if let Some(most) = checks.max_properties.filter(|most| map.len() > *most) {
            causes.push(Cause::too_many(path.to_string(), map.len(), most));
        }
    }
    for name in &node.required {
        if !map.contains_key(name) {
            causes.push(Cause::required(Path::Member(path, name).to_string(), ""));
        }
    }
    if node.embedded {
        for name in ["apiVersion", "kind"] {
            if map.get(name).and_then(Value::as_str).is_none_or(str::is_empty) {
                causes.push(Cause::required(
                    Path::Member(path, name).to_string(),
                    "must not be empty",
                ));
            }
        }
    }
    for (name, value) in map {
        if let Some(child) = node.properties.get(name).or(node.additional.as_deref()) {
            validate(child, value, &Path::Member(path, name), causes);
        }
    }
}

fn logic(logic: &Logic, value: &Value, path: &Path<'_>, causes: &mut Vec<Cause>) {
    for schema in &logic.all_of {
        let before = causes.len();
        validate(schema, value, path, causes);
        if causes.len() > before {
            causes.push(of_whole(format!(
                "{:?} must validate all the schemas (allOf)",
                path.to_string()
            )));
        }
    }
    let failures = |schemas: &[Node]| -> (usize, Vec<Cause>) {
        let mut valid = 0;
        let mut best: Option<Vec<Cause>> = None;
        for schema in schemas {
            let mut found = Vec::new();
            validate(schema, value, path, &mut found);
            if found.is_empty() {
                valid += 1;
            } else if best.as_ref().is_none_or(|best| found.len() < best.len()) {
                best = Some(found);
            }
        }
        (valid, best.unwrap_or_default())
    };
    if !logic.any_of.is_empty() {
        let (valid, best) = failures(&logic.any_of);
        if valid == 0 {
            causes.push(of_whole(format!(
                "{:?} must validate at least one schema (anyOf)",
                path.to_string()
            )));
            causes.extend(best);
        }
    }
    if !logic.one_of.is_empty() {
        let (valid, best) = failures(&logic.one_of);
        if valid != 1 {
            let found = if valid == 0 {
                "none valid".to_owned()
            } else {
                format!("{valid} valid alternatives")
            };
            causes.push(of_whole(format!(
                "{:?} must validate one and only one schema (oneOf). Found {found}",
                path.to_string()
            )));
        }
        if valid == 0 {
            causes.extend(best);
        }
    }
    if let Some(not) = &logic.not {
        let mut found = Vec::new();
        validate(not, value, path, &mut found);
        if found.is_empty() {
            causes.push(of_whole(format!(
                "{:?} must not validate the schema (not)",
                path.to_string()
            )));
        }
    }
}

/// Kubernetes reports composite failures about the whole object, whose path prints as `<nil>`.
fn of_whole(detail: String) -> Cause {
    Cause::invalid("<nil>", &"".into(), &detail)
}
