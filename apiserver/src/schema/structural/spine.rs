//! What makes a schema structural: a skeleton of types that says for every field whether it is
//! known, with checks of values (`allOf`, `anyOf`, `oneOf`, `not`) apart from it.

use serde_json::{Value, json};

use super::shape::flesh;
use super::{child, flag, has, list, members, text};
use crate::status::Cause;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Item,
    Field,
}

/// Adds what is wrong, sorted by text as apiextensions sorts it.
pub(super) fn check(schema: &Value, field: &str, causes: &mut Vec<Cause>) {
    let mut found = Vec::new();
    node(schema, Level::Root, field, &mut found);
    complete(schema, field, &mut found);
    found.sort_by_cached_key(|cause| format!("{}: {}", cause.field, cause.message));
    causes.extend(found);
}

fn node(schema: &Value, level: Level, field: &str, causes: &mut Vec<Cause>) {
    let type_ = text(schema, "type");
    if type_ == "array" && !has(schema, "items") {
        causes.push(Cause::required(format!("{field}.items"), "must be specified"));
    }
    if let Some(items) = child(schema, "items") {
        node(items, Level::Item, &format!("{field}.items"), causes);
    }
    for (name, property) in members(schema, "properties").into_iter().flatten() {
        node(property, Level::Field, &format!("{field}.properties[{name}]"), causes);
    }
    let additional = format!("{field}.additionalProperties");
    if has(schema, "additionalProperties") {
        if level == Level::Root {
            causes.push(Cause::forbidden(&additional, "must not be used at the root"));
        }
        if let Some(values) = child(schema, "additionalProperties") {
            node(values, Level::Field, &additional, causes);
        }
    }
    extensions(schema, field, causes);
    values(schema, level, field, true, causes);
    types(schema, level, field, causes);
    object_meta(schema, level, field, causes);
    if flag(schema, "x-kubernetes-embedded-resource")
        && !flag(schema, "x-kubernetes-preserve-unknown-fields")
        && members(schema, "properties").is_none_or(|members| members.is_empty())
    {
        causes.push(Cause::required(
            format!("{field}.properties"),
            "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields",
        ));
    }
}

fn types(schema: &Value, level: Level, field: &str, causes: &mut Vec<Cause>) {
    let type_ = text(schema, "type");
    let embedded = flag(schema, "x-kubernetes-embedded-resource");
    let place = format!("{field}.type");
    if embedded && type_ != "object" {
        let detail = "must be object if x-kubernetes-embedded-resource is true";
        causes.push(match type_ {
            "" => Cause::required(&place, detail),
            other => Cause::invalid(&place, &other.into(), detail),
        });
    } else if type_.is_empty()
        && !flag(schema, "x-kubernetes-int-or-string")
        && !flag(schema, "x-kubernetes-preserve-unknown-fields")
    {
        let detail = match level {
            Level::Root => "must not be empty at the root",
            Level::Item => "must not be empty for specified array items",
            Level::Field => "must not be empty for specified object fields",
        };
        causes.push(Cause::required(&place, detail));
    }
    if embedded && has(schema, "additionalProperties") {
        causes.push(Cause::forbidden(
            format!("{field}.additionalProperties"),
            "must not be used if x-kubernetes-embedded-resource is set",
        ));
    }
    if level == Level::Root && !type_.is_empty() && type_ != "object" {
        causes.push(Cause::invalid(&place, &type_.into(), "must be object at the root"));
    }
}

fn extensions(schema: &Value, field: &str, causes: &mut Vec<Cause>) {
    if !flag(schema, "x-kubernetes-int-or-string") {
        return;
    }
    for name in ["x-kubernetes-preserve-unknown-fields", "x-kubernetes-embedded-resource"] {
        if flag(schema, name) {
            causes.push(Cause::invalid(
                format!("{field}.{name}"),
                &true.into(),
                "must be false if x-kubernetes-int-or-string is true",
            ));
        }
    }
}

/// apiVersion, kind and metadata belong to the server; a schema may only restrict names.
fn object_meta(schema: &Value, level: Level, field: &str, causes: &mut Vec<Cause>) {
    let is_resource = level == Level::Root || flag(schema, "x-kubernetes-embedded-resource");
    let Some(properties) = members(schema, "properties") else { return };
    for name in ["kind", "apiVersion"] {
        if let Some(property) = properties.get(name).filter(|_| is_resource)
            && text(property, "type") != "string"
        {
            let place = format!("{field}.properties[{name}].type");
            causes.push(Cause::invalid(place, &text(property, "type").into(), "must be string"));
        }
    }
    let Some(meta) = properties.get("metadata") else { return };
    let place = format!("{field}.properties[metadata]");
    if is_resource && text(meta, "type") != "object" {
        let type_ = text(meta, "type").into();
        causes.push(Cause::invalid(format!("{place}.type"), &type_, "must be object"));
    }
    if level == Level::Root {
        let named = |name: &String| name == "name" || name == "generateName";
        let only_names =
            members(meta, "properties").is_none_or(|members| members.keys().all(named));
        let nothing_else = meta.as_object().is_some_and(|meta| {
            meta.iter().all(|(name, value)| {
                matches!(name.as_str(), "type" | "properties" | "default") || value.is_null()
            })
        });
        if !only_names || !nothing_else {
            causes.push(Cause::forbidden(
                place,
                "must not specify anything other than name and generateName, but metadata is implicitly specified",
            ));
        }
    }
}

/// The checks of values at one place. `spine`: of the skeleton itself, where the two forms of
/// int-or-string may name types.
fn values(schema: &Value, level: Level, field: &str, spine: bool, causes: &mut Vec<Cause>) {
    let int_or_string = json!([{"type": "integer"}, {"type": "string"}]);
    let exempt = |schema: &Value| spine && schema.get("anyOf") == Some(&int_or_string);
    if !exempt(schema) {
        for (at, schema) in list(schema, "anyOf").iter().enumerate() {
            nested(schema, level, &format!("{field}.anyOf[{at}]"), false, causes);
        }
    }
    for (at, schema) in list(schema, "allOf").iter().enumerate() {
        let skip = at == 0 && exempt(schema);
        nested(schema, level, &format!("{field}.allOf[{at}]"), skip, causes);
    }
    for (at, schema) in list(schema, "oneOf").iter().enumerate() {
        nested(schema, level, &format!("{field}.oneOf[{at}]"), false, causes);
    }
    if let Some(not) = child(schema, "not") {
        nested(not, level, &format!("{field}.not"), false, causes);
    }
    let pattern = text(schema, "pattern");
    if let Err(error) = super::super::compile::regex(pattern) {
        let detail = format!("must be a valid regular expression, but isn't: {error}");
        causes.push(Cause::invalid(format!("{field}.pattern"), &pattern.into(), &detail));
    }
}

/// A schema below a junctor: it may check values, and nothing else.
fn nested(schema: &Value, level: Level, field: &str, skip_any_of: bool, causes: &mut Vec<Cause>) {
    values(schema, level, field, skip_any_of, causes);
    if let Some(items) = child(schema, "items") {
        nested(items, level, &format!("{field}.items"), false, causes);
    }
    for (name, property) in members(schema, "properties").into_iter().flatten() {
        nested(property, Level::Field, &format!("{field}.properties[{name}]"), false, causes);
    }
    let mut forbid = |name: &str, detail: &str| {
        causes.push(Cause::forbidden(format!("{field}.{name}"), detail));
    };
    if !text(schema, "type").is_empty() {
        forbid("type", "must be empty to be structural");
    }
    for name in ["additionalProperties", "default"] {
        if has(schema, name) {
            forbid(name, "must be undefined to be structural");
        }
    }
    for name in ["title", "description"] {
        if !text(schema, name).is_empty() {
            forbid(name, "must be empty to be structural");
        }
    }
    if flag(schema, "nullable") {
        forbid("nullable", "must be false to be structural");
    }
    if has(schema, "externalDocs") {
        forbid("externalDocs", "must be undefined to be structural");
    }
    for name in [
        "x-kubernetes-preserve-unknown-fields",
        "x-kubernetes-embedded-resource",
        "x-kubernetes-int-or-string",
    ] {
        if flag(schema, name) {
            forbid(name, "must be false to be structural");
        }
    }
    if !list(schema, "x-kubernetes-list-map-keys").is_empty() {
        forbid("x-kubernetes-list-map-keys", "must be empty to be structural");
    }
    for name in ["x-kubernetes-list-type", "x-kubernetes-map-type"] {
        if has(schema, name) {
            forbid(name, "must be undefined to be structural");
        }
    }
    if !list(schema, "x-kubernetes-validations").is_empty() {
        forbid("x-kubernetes-validations", "must be empty to be structural");
    }
    if members(schema, "properties").is_some_and(|members| members.contains_key("metadata")) {
        forbid("properties[metadata]", "must not be specified in a nested context");
    }
}

/// Every field and list that a junctor speaks of must be in the skeleton too.
fn complete(schema: &Value, field: &str, causes: &mut Vec<Cause>) {
    flesh(schema, field, &mut |inner, place| covered(schema, field, inner, place, causes));
    if let Some(items) = child(schema, "items") {
        complete(items, &format!("{field}.items"), causes);
    }
    for (name, property) in members(schema, "properties").into_iter().flatten() {
        complete(property, &format!("{field}.properties[{name}]"), causes);
    }
    if let Some(values) = child(schema, "additionalProperties") {
        complete(values, &format!("{field}.additionalProperties"), causes);
    }
}

fn covered(spine: &Value, at: &str, inner: &Value, place: &str, causes: &mut Vec<Cause>) {
    flesh(inner, place, &mut |deeper, place| covered(spine, at, deeper, place, causes));
    let missing = |what: &str, causes: &mut Vec<Cause>| {
        let detail = format!("because it is defined in {place}.{what}");
        causes.push(Cause::required(format!("{at}.{what}"), &detail));
    };
    if let Some(items) = child(inner, "items") {
        match child(spine, "items") {
            None => missing("items", causes),
            Some(of_spine) => {
                covered(of_spine, &format!("{at}.items"), items, &format!("{place}.items"), causes);
            }
        }
    }
    for (name, property) in members(inner, "properties").into_iter().flatten() {
        let what = format!("properties[{name}]");
        match members(spine, "properties").and_then(|members| members.get(name)) {
            None => missing(&what, causes),
            Some(of_spine) => {
                let (at, place) = (format!("{at}.{what}"), format!("{place}.{what}"));
                covered(of_spine, &at, property, &place, causes);
            }
        }
    }
}
