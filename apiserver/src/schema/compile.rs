//! From a schema as JSON to a [`Node`].

use std::collections::BTreeMap;
use std::sync::Arc;

use regex::RegexBuilder;
use serde_json::Value;

use super::SchemaError;
use super::cel::Rule;
use super::format::Format;
use super::go_regexp;
use super::node::{Checks, ListType, Logic, Node, Pattern, Type};
use super::props;

/// A pattern's compiled size: a schema of a user must not take the server's memory.
const PATTERN_BYTES_MAX: usize = 1 << 20;

pub(super) fn compile(schema: &Value, path: &str) -> Result<Node, SchemaError> {
    let error = |message: &str| SchemaError { path: path.to_owned(), message: message.to_owned() };
    if schema.get("$ref").is_some_and(|reference| !reference.is_null()) {
        return Err(error("$ref is not supported"));
    }
    if flag(schema, "uniqueItems") {
        return Err(error(
            "uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
        ));
    }
    let types = types(schema).map_err(|name| error(&format!("unknown type {name:?}")))?;
    let child = |member: &str| format!("{path}{}{member}", if path.is_empty() { "" } else { "." });
    let mut properties = BTreeMap::new();
    for (name, property) in
        schema.get("properties").and_then(Value::as_object).into_iter().flatten()
    {
        properties.insert(name.clone(), compile(property, &child(&format!("properties[{name}]")))?);
    }
    let additional = match schema.get("additionalProperties") {
        None | Some(Value::Null | Value::Bool(false)) => None,
        // Anything goes there, null too.
        Some(Value::Bool(true)) => Some(Box::new(Node { nullable: true, ..Node::default() })),
        Some(schema) => Some(Box::new(compile(schema, &child("additionalProperties"))?)),
    };
    let items = match schema.get("items") {
        None | Some(Value::Null) => None,
        Some(Value::Array(_)) => {
            return Err(error("items must be a schema object and not an array"));
        }
        Some(schema) => Some(Box::new(compile(schema, &child("items"))?)),
    };
    let list = list_type(schema);
    let embedded = flag(schema, "x-kubernetes-embedded-resource");
    let children = || properties.values().chain(additional.as_deref()).chain(items.as_deref());
    let lists_below = !matches!(list, ListType::Atomic) || children().any(|one| one.lists_below);
    let rules: Arc<[Rule]> = Rule::all(schema).into();
    let rules_below = !rules.is_empty() || children().any(|child| child.rules_below);
    let embedded_below = embedded || children().any(|child| child.embedded_below);
    let counts = types.iter().any(|type_| matches!(type_, Type::Integer | Type::Number));
    let format = schema.get("format").and_then(Value::as_str).filter(|format| !format.is_empty());
    Ok(Node {
        number_format: format.filter(|_| counts).map(str::to_owned),
        types,
        nullable: flag(schema, "nullable"),
        preserve_unknown: flag(schema, "x-kubernetes-preserve-unknown-fields"),
        schema_props: flag(schema, props::MARKER),
        embedded,
        properties,
        additional,
        items,
        default: schema.get("default").filter(|default| !default.is_null()).cloned(),
        list,
        granular: schema.get("x-kubernetes-map-type").and_then(Value::as_str) != Some("atomic"),
        required: strings(schema, "required"),
        one_of_values: schema.get("enum").and_then(Value::as_array).cloned().unwrap_or_default(),
        checks: checks(schema).map_err(|message| error(&message))?.map(Box::new),
        logic: logic(schema, path)?.map(Box::new),
        rules,
        rules_below,
        lists_below,
        embedded_below,
    })
}

/// A pattern as Kubernetes reads it.
///
/// # Errors
/// What Go says of a pattern that is none.
pub(super) fn regex(pattern: &str) -> Result<regex::Regex, String> {
    RegexBuilder::new(&go_regexp::translate(pattern)?)
        .size_limit(PATTERN_BYTES_MAX)
        .build()
        .map_err(|_| format!("error parsing regexp: expression too large: `{pattern}`"))
}

fn types(schema: &Value) -> Result<Vec<Type>, String> {
    if flag(schema, "x-kubernetes-int-or-string") {
        return Ok(vec![Type::Integer, Type::String]);
    }
    match schema.get("type").and_then(Value::as_str) {
        None | Some("") => Ok(Vec::new()),
        Some(name) => Type::parse(name).map(|type_| vec![type_]).ok_or_else(|| name.to_owned()),
    }
}

fn list_type(schema: &Value) -> ListType {
    match schema.get("x-kubernetes-list-type").and_then(Value::as_str) {
        Some("set") => ListType::Set,
        Some("map") => ListType::Map(strings(schema, "x-kubernetes-list-map-keys")),
        _ => ListType::Atomic,
    }
}

fn checks(schema: &Value) -> Result<Option<Checks>, String> {
    let number = |name: &str| schema.get(name).and_then(Value::as_f64);
    let size = |name: &str| schema.get(name).and_then(Value::as_u64).map(|size| size as usize);
    let pattern = match schema.get("pattern").and_then(Value::as_str) {
        None | Some("") => None,
        Some(text) => {
            let why = |error| format!("must be a valid regular expression, but isn't: {error}");
            Some(Pattern { text: text.to_owned(), regex: regex(text).map_err(why)? })
        }
    };
    let checks = Checks {
        minimum: number("minimum"),
        exclusive_minimum: flag(schema, "exclusiveMinimum"),
        maximum: number("maximum"),
        exclusive_maximum: flag(schema, "exclusiveMaximum"),
        multiple_of: number("multipleOf"),
        min_length: size("minLength"),
        max_length: size("maxLength"),
        pattern,
        format: schema.get("format").and_then(Value::as_str).and_then(Format::parse),
        min_items: size("minItems"),
        max_items: size("maxItems"),
        min_properties: size("minProperties"),
        max_properties: size("maxProperties"),
    };
    const CHECKED: [&str; 12] = [
        "minimum",
        "maximum",
        "multipleOf",
        "minLength",
        "maxLength",
        "pattern",
        "format",
        "minItems",
        "maxItems",
        "minProperties",
        "maxProperties",
        "exclusiveMinimum",
    ];
    Ok(CHECKED.iter().any(|name| schema.get(name).is_some()).then_some(checks))
}

fn logic(schema: &Value, path: &str) -> Result<Option<Logic>, SchemaError> {
    let all = |name: &str| -> Result<Vec<Node>, SchemaError> {
        let schemas = schema.get(name).and_then(Value::as_array).into_iter().flatten();
        schemas
            .enumerate()
            .map(|(at, schema)| compile(schema, &format!("{path}.{name}[{at}]")))
            .collect()
    };
    let not = match schema.get("not") {
        None | Some(Value::Null) => None,
        Some(schema) => Some(compile(schema, &format!("{path}.not"))?),
    };
    let logic = Logic { all_of: all("allOf")?, any_of: all("anyOf")?, one_of: all("oneOf")?, not };
    let is_empty = logic.all_of.is_empty()
        && logic.any_of.is_empty()
        && logic.one_of.is_empty()
        && logic.not.is_none();
    Ok((!is_empty).then_some(logic))
}

fn flag(schema: &Value, name: &str) -> bool {
    schema.get(name) == Some(&Value::Bool(true))
}

fn strings(schema: &Value, name: &str) -> Vec<String> {
    let list = schema.get(name).and_then(Value::as_array).into_iter().flatten();
    list.filter_map(|one| one.as_str().map(str::to_owned)).collect()
}
