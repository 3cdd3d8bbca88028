//! Whether a schema may be that of a custom resource, in apiextensions' own words: the structural
//! rules, the rules about each schema, its defaults and its validation rules. What an object must
//! look like under a schema that passed is not here.

mod defaults;
mod rules;
mod shape;
mod spine;

use serde_json::{Map, Value};

use super::cel;
use crate::status::Cause;

/// Everything that is wrong with the schema of a version (a `JSONSchemaProps` as JSON), whose
/// place in the definition is `field`. apiextensions knows two: where all versions have the same
/// schema (one version: always) `spec.validation.openAPIV3Schema`, and otherwise
/// `spec.versions[N].schema.openAPIV3Schema`.
///
/// The rules are those of apiextensions.k8s.io/v1: the schema must be structural, defaults must
/// be valid and pruned, validation rules must compile.
pub fn check(schema: &Value, field: &str) -> Vec<Cause> {
    let mut causes = Vec::new();
    if flag(schema, "nullable") {
        causes.push(Cause::forbidden(
            format!("{field}.nullable"),
            "nullable cannot be true at the root",
        ));
    }
    let before = causes.len();
    // A schema with what no structural one has is not looked at as one: the rules below refuse it.
    if !has_unsupported(schema) {
        spine::check(schema, field, &mut causes);
    }
    if causes.len() == before {
        defaults::check(schema, field, &mut causes);
    }
    let is_structural = causes.len() == before;
    rules::check(schema, field, rules::Place::root(), &mut causes);
    // Rules are compiled against a sound schema only: other errors would come of themselves.
    if is_structural && causes.len() == before {
        cel::check::definitions(schema, field, &mut causes);
    }
    causes
}

/// Whether it or a schema in it has a part of JSON schema that structural ones cannot say.
fn has_unsupported(schema: &Value) -> bool {
    const TEXTS: [&str; 3] = ["id", "$schema", "$ref"];
    const MAPS: [&str; 3] = ["patternProperties", "definitions", "dependencies"];
    if TEXTS.iter().any(|name| !text(schema, name).is_empty())
        || MAPS.iter().any(|name| members(schema, name).is_some_and(|map| !map.is_empty()))
        || has(schema, "additionalItems")
    {
        return true;
    }
    let properties =
        members(schema, "properties").into_iter().flatten().map(|(_, property)| property);
    let listed = ["allOf", "anyOf", "oneOf"].into_iter().flat_map(|name| list(schema, name));
    let single =
        ["items", "additionalProperties", "not"].into_iter().filter_map(|name| child(schema, name));
    properties.chain(listed).chain(single).any(has_unsupported)
}

fn flag(schema: &Value, name: &str) -> bool {
    schema.get(name) == Some(&Value::Bool(true))
}

fn text<'v>(schema: &'v Value, name: &str) -> &'v str {
    schema.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn members<'v>(schema: &'v Value, name: &str) -> Option<&'v Map<String, Value>> {
    schema.get(name).and_then(Value::as_object)
}

fn list<'v>(schema: &'v Value, name: &str) -> &'v [Value] {
    schema.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The one schema of `items`, `not` or `additionalProperties`.
fn child<'v>(schema: &'v Value, name: &str) -> Option<&'v Value> {
    schema.get(name).filter(|child| child.is_object())
}

fn has(schema: &Value, name: &str) -> bool {
    schema.get(name).is_some_and(|value| !value.is_null())
}
