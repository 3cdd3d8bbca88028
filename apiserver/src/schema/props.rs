//! Unknown members of the schemas inside of a CustomResourceDefinition: a schema of schemas has no
//! end, so it is walked instead of written down.

use serde_json::Value;

use super::path::Path;

/// Says in a schema of ours that schemas go here.
pub(crate) const MARKER: &str = "x-commonage-schema-props";

/// Members of `JSONSchemaProps` that hold no schemas.
const PLAIN: [&str; 32] = [
    "id",
    "$schema",
    "$ref",
    "description",
    "type",
    "format",
    "title",
    "default",
    "maximum",
    "exclusiveMaximum",
    "minimum",
    "exclusiveMinimum",
    "maxLength",
    "minLength",
    "pattern",
    "maxItems",
    "minItems",
    "uniqueItems",
    "multipleOf",
    "enum",
    "maxProperties",
    "minProperties",
    "required",
    "example",
    "nullable",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-embedded-resource",
    "x-kubernetes-int-or-string",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-list-type",
    "x-kubernetes-map-type",
    "externalDocs",
];
const RULE: [&str; 6] =
    ["rule", "message", "messageExpression", "reason", "fieldPath", "optionalOldSelf"];

/// Whether what is unknown is told. Go's strict decoder does not look into types that decode
/// themselves, such as that of `items`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    Strict,
    Lenient,
}

pub(super) fn prune(
    value: &mut Value,
    path: &Path<'_>,
    reading: Reading,
    removed: &mut Vec<String>,
) {
    let Value::Object(map) = value else { return };
    map.retain(|name, value| {
        let at = Path::Member(path, name);
        match name.as_str() {
            "not" => prune(value, &at, reading, removed),
            "properties" | "patternProperties" | "definitions" => {
                members(value, &at, reading, removed);
            }
            "allOf" | "anyOf" | "oneOf" => items(value, &at, reading, removed),
            "items" | "additionalItems" | "additionalProperties" => {
                prune(value, &at, Reading::Lenient, removed);
                items(value, &at, Reading::Lenient, removed);
            }
            "dependencies" => members(value, &at, Reading::Lenient, removed),
            "x-kubernetes-validations" => rules(value, &at, reading, removed),
            known if PLAIN.contains(&known) => {}
            _ => {
                tell(&at, reading, removed);
                return false;
            }
        }
        true
    });
}

fn members(value: &mut Value, path: &Path<'_>, reading: Reading, removed: &mut Vec<String>) {
    for (name, value) in value.as_object_mut().into_iter().flatten() {
        prune(value, &Path::Member(path, name), reading, removed);
    }
}

fn items(value: &mut Value, path: &Path<'_>, reading: Reading, removed: &mut Vec<String>) {
    for (index, value) in value.as_array_mut().into_iter().flatten().enumerate() {
        prune(value, &Path::Item(path, index), reading, removed);
    }
}

fn rules(value: &mut Value, path: &Path<'_>, reading: Reading, removed: &mut Vec<String>) {
    for (index, rule) in value.as_array_mut().into_iter().flatten().enumerate() {
        let at = Path::Item(path, index);
        let Value::Object(rule) = rule else { continue };
        rule.retain(|name, _| {
            let known = RULE.contains(&name.as_str());
            if !known {
                tell(&Path::Member(&at, name), reading, removed);
            }
            known
        });
    }
}

fn tell(at: &Path<'_>, reading: Reading, removed: &mut Vec<String>) {
    if reading == Reading::Strict {
        removed.push(at.to_string());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn unknown_members_of_schemas_go_and_are_told_where_go_looks() {
        let mut schema = json!({
            "type": "object", "odd": 1, "x-kubernetes-list-map-key": ["a"],
            "properties": {
                "odd": {"type": "string", "default": {"odd": 1}, "strange": 2},
                "list": {"type": "array", "items": {"type": "string", "hidden": 3}},
            },
            "allOf": [{"strange": 4}],
            "x-kubernetes-validations": [{"rule": "true", "massage": "x"}],
        });
        let mut removed = Vec::new();
        prune(&mut schema, &Path::Root, Reading::Strict, &mut removed);
        removed.sort();
        assert_eq!(
            removed,
            [
                "allOf[0].strange",
                "odd",
                "properties.odd.strange",
                "x-kubernetes-list-map-key",
                "x-kubernetes-validations[0].massage",
            ]
        );
        assert_eq!(
            schema,
            json!({
                "type": "object",
                "properties": {
                    "odd": {"type": "string", "default": {"odd": 1}},
                    "list": {"type": "array", "items": {"type": "string"}},
                },
                "allOf": [{}],
                "x-kubernetes-validations": [{"rule": "true"}],
            })
        );
    }
}
