//! What apiextensions.k8s.io/v1 asks of each schema by itself.

use serde_json::Value;

use super::{child, flag, has, list, members, text};
use crate::status::Cause;

const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];

/// Keywords of JSON Schema that a custom resource's schema may not have.
const UNSUPPORTED: [&str; 6] =
    ["id", "additionalItems", "patternProperties", "definitions", "dependencies", "$ref"];

/// What is known of a schema's place from those around it.
#[derive(Clone, Copy)]
pub(super) struct Place<'p> {
    is_root: bool,
    /// Why no default may be set here.
    no_default: Option<&'p str>,
    inside_meta: bool,
}

impl Place<'_> {
    pub(super) fn root() -> Self {
        Place { is_root: true, no_default: None, inside_meta: false }
    }
}

pub(super) fn check(schema: &Value, field: &str, place: Place<'_>, causes: &mut Vec<Cause>) {
    keywords(schema, field, place, causes);
    let inner = Place { is_root: false, ..place };
    if has(schema, "additionalProperties") {
        let at = format!("{field}.additionalProperties");
        let with_properties = members(schema, "properties").is_some_and(|all| !all.is_empty());
        if with_properties && schema["additionalProperties"] != Value::Bool(true) {
            causes.push(Cause::forbidden(
                &at,
                "additionalProperties and properties are mutual exclusive",
            ));
        }
        let inner = match place.inside_meta {
            true => Place {
                no_default: Some("inside additionalProperties applying to object metadata"),
                ..inner
            },
            false => inner,
        };
        if let Some(values) = child(schema, "additionalProperties") {
            check(values, &at, inner, causes);
        }
    }
    let is_resource = place.is_root || flag(schema, "x-kubernetes-embedded-resource");
    for (name, property) in members(schema, "properties").into_iter().flatten() {
        let of_type = is_resource && matches!(name.as_str(), "apiVersion" | "kind" | "metadata");
        let reason = format!("in top-level {name}");
        let inner = Place {
            inside_meta: inner.inside_meta || of_type,
            no_default: if of_type && place.is_root { Some(&reason) } else { inner.no_default },
            ..inner
        };
        check(property, &format!("{field}.properties[{name}]"), inner, causes);
    }
    super::shape::flesh(schema, field, &mut |schema, at| check(schema, at, inner, causes));
    if let Some(items) = child(schema, "items") {
        check(items, &format!("{field}.items"), inner, causes);
    }
    if schema.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(false)) {
        causes.push(Cause::invalid(
            format!("{field}.x-kubernetes-preserve-unknown-fields"),
            &false.into(),
            "must be true or undefined",
        ));
    }
    map_type(schema, field, causes);
    list_type(schema, field, causes);
    rule_texts(schema, field, causes);
}

fn keywords(schema: &Value, field: &str, place: Place<'_>, causes: &mut Vec<Cause>) {
    let mut forbid = |name: &str, detail: &str| {
        causes.push(Cause::forbidden(format!("{field}.{name}"), detail));
    };
    if has(schema, "default")
        && let Some(reason) = place.no_default
    {
        forbid("default", &format!("must not be set {reason}"));
    }
    for name in UNSUPPORTED {
        let is_set = schema.get(name).is_some_and(|value| match value {
            Value::Null => false,
            Value::String(text) => name == "$ref" || !text.is_empty(),
            Value::Object(map) => name == "dependencies" || !map.is_empty(),
            _ => true,
        });
        if is_set {
            forbid(name, &format!("{name} is not supported"));
        }
    }
    if schema.get("items").is_some_and(Value::is_array) {
        forbid("items", "items must be a schema object and not an array");
    }
    if place.inside_meta && flag(schema, "x-kubernetes-embedded-resource") {
        forbid("x-kubernetes-embedded-resource", "must not be used inside of resource meta");
    }
    if flag(schema, "uniqueItems") {
        forbid(
            "uniqueItems",
            "uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
        );
    }
    match text(schema, "type") {
        "null" => forbid("type", "type cannot be set to null, use nullable as an alternative"),
        "" => {}
        other if TYPES.contains(&other) => {}
        other => causes.push(Cause::not_supported(format!("{field}.type"), &other.into(), TYPES)),
    }
}

/// `type` must be `wanted` because of `because`.
fn wants_type(schema: &Value, field: &str, wanted: &str, because: &str, causes: &mut Vec<Cause>) {
    let detail = format!("must be {wanted} if {because} is specified");
    match text(schema, "type") {
        "" => causes.push(Cause::required(format!("{field}.type"), &detail)),
        found if found != wanted => {
            causes.push(Cause::invalid(format!("{field}.type"), &found.into(), &detail));
        }
        _ => {}
    }
}

fn map_type(schema: &Value, field: &str, causes: &mut Vec<Cause>) {
    let name = "x-kubernetes-map-type";
    if !has(schema, name) {
        return;
    }
    wants_type(schema, field, "object", name, causes);
    let known = ["atomic", "granular"];
    if !known.contains(&text(schema, name)) {
        causes.push(Cause::not_supported(format!("{field}.{name}"), &schema[name], known));
    }
}

fn list_type(schema: &Value, field: &str, causes: &mut Vec<Cause>) {
    let (name, keys) = ("x-kubernetes-list-type", list(schema, "x-kubernetes-list-map-keys"));
    let at = format!("{field}.{name}");
    let type_ = text(schema, name);
    if has(schema, name) {
        wants_type(schema, field, "array", name, causes);
        if type_ == "set" && text(schema, "type") == "array" {
            set_items(schema, field, causes);
        }
        let known = ["atomic", "set", "map"];
        if !known.contains(&type_) {
            causes.push(Cause::not_supported(&at, &schema[name], known));
        }
        if type_ == "map" {
            list_map(schema, field, keys, causes);
        }
    }
    if !keys.is_empty() && type_ != "map" {
        let detail = "must be map if x-kubernetes-list-map-keys is non-empty";
        causes.push(match has(schema, name) {
            false => Cause::required(&at, detail),
            true => Cause::invalid(&at, &schema[name], detail),
        });
    }
    if type_ == "map" || type_ == "set" {
        required_keys(schema, field, keys, causes);
    }
}

fn set_items(schema: &Value, field: &str, causes: &mut Vec<Cause>) {
    let Some(items) = child(schema, "items") else { return };
    let detail = "must be atomic as item of a list with x-kubernetes-list-type=set";
    let name = match text(items, "type") {
        "array" if !matches!(text(items, "x-kubernetes-list-type"), "" | "atomic") => {
            "x-kubernetes-list-type"
        }
        "object" if text(items, "x-kubernetes-map-type") != "atomic" => "x-kubernetes-map-type",
        _ => return,
    };
    let shown = items.get("x-kubernetes-list-type").cloned().unwrap_or_default();
    causes.push(Cause::invalid(format!("{field}.items.{name}"), &shown, detail));
}

fn list_map(schema: &Value, field: &str, keys: &[Value], causes: &mut Vec<Cause>) {
    let of_keys = format!("{field}.x-kubernetes-list-map-keys");
    if keys.is_empty() {
        let detail = "must not be empty if x-kubernetes-list-type is map";
        causes.push(Cause::required(&of_keys, detail));
    }
    let Some(items) = child(schema, "items") else {
        let detail = "must have a schema if x-kubernetes-list-type is map";
        causes.push(Cause::required(format!("{field}.items"), detail));
        return;
    };
    if text(items, "type") != "object" {
        let detail = "must be object if parent array's x-kubernetes-list-type is map";
        let at = format!("{field}.items.type");
        causes.push(Cause::invalid(at, &text(items, "type").into(), detail));
        return;
    }
    for (index, key) in keys.iter().enumerate() {
        let name = key.as_str().unwrap_or_default();
        match members(items, "properties").and_then(|members| members.get(name)) {
            None => causes.push(Cause::invalid(
                &of_keys,
                &keys.into(),
                "entries must all be names of item properties",
            )),
            Some(property) if matches!(text(property, "type"), "array" | "object") => {
                causes.push(Cause::invalid(
                    format!("{field}.items.properties[{name}].type"),
                    &text(items, "type").into(),
                    "must be a scalar type if parent array's x-kubernetes-list-type is map",
                ));
            }
            Some(_) => {}
        }
        if keys[..index].contains(key) {
            causes.push(Cause::invalid(
                &of_keys,
                &keys.into(),
                "must not contain duplicate entries",
            ));
        }
    }
}

/// Keys must be there to be compared: required, or with a default; and never null.
fn required_keys(schema: &Value, field: &str, keys: &[Value], causes: &mut Vec<Cause>) {
    let Some(items) = child(schema, "items") else { return };
    if flag(items, "nullable") {
        causes.push(Cause::forbidden(
            format!("{field}.items.nullable"),
            &format!(
                "cannot be nullable when x-kubernetes-list-type is {}",
                text(schema, "x-kubernetes-list-type")
            ),
        ));
    }
    for name in keys.iter().filter_map(Value::as_str) {
        let Some(property) = members(items, "properties").and_then(|all| all.get(name)) else {
            continue;
        };
        let at = format!("{field}.items.properties[{name}]");
        let required = list(items, "required").iter().any(|one| one == name);
        if !required && !has(property, "default") {
            causes.push(Cause::required(
                format!("{at}.default"),
                "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property",
            ));
        }
        if flag(property, "nullable") {
            causes.push(Cause::forbidden(
                format!("{at}.nullable"),
                "this property is in x-kubernetes-list-map-keys, so it cannot be nullable",
            ));
        }
    }
}

fn rule_texts(schema: &Value, field: &str, causes: &mut Vec<Cause>) {
    for (index, rule) in list(schema, "x-kubernetes-validations").iter().enumerate() {
        let at = format!("{field}.x-kubernetes-validations[{index}]");
        let (expression, message) = (text(rule, "rule"), text(rule, "message"));
        if expression.trim().is_empty() {
            causes.push(Cause::required(format!("{at}.rule"), "rule is not specified"));
        } else if !message.is_empty() && message.trim().is_empty() {
            let detail = "message must be non-empty if specified";
            causes.push(Cause::invalid(format!("{at}.message"), &message.into(), detail));
        } else if message.trim().contains(['\n', '\r']) {
            let detail = "message must not contain line breaks";
            causes.push(Cause::invalid(format!("{at}.message"), &message.into(), detail));
        } else if expression.trim().contains(['\n', '\r']) && message.trim().is_empty() {
            let detail = "message must be specified if rule contains line breaks";
            causes.push(Cause::required(format!("{at}.message"), detail));
        }
        let message = text(rule, "messageExpression");
        if !message.is_empty() && message.trim().is_empty() {
            let detail = "messageExpression must be non-empty if specified";
            causes.push(Cause::required(format!("{at}.messageExpression"), detail));
        }
        let reasons = [
            "FieldValueDuplicate",
            "FieldValueForbidden",
            "FieldValueInvalid",
            "FieldValueRequired",
        ];
        let reason = text(rule, "reason");
        if !reason.is_empty() && !reasons.contains(&reason) {
            causes.push(Cause::not_supported(format!("{at}.reason"), &reason.into(), reasons));
        }
        let path = text(rule, "fieldPath");
        let wrong = [
            (path.trim().is_empty(), "fieldPath must be non-empty if specified"),
            (path.contains(['\n', '\r']), "fieldPath must not contain line breaks"),
            (
                super::super::cel::field_path(path, schema).is_none(),
                "fieldPath must be a valid path",
            ),
        ];
        for (_, detail) in wrong.into_iter().filter(|(is_wrong, _)| *is_wrong && !path.is_empty()) {
            causes.push(Cause::invalid(format!("{at}.fieldPath"), &path.into(), detail));
        }
    }
}
