//! What a definition's schema may not be.
#![allow(clippy::unwrap_used)]
use serde_json::{Value, json};

use crate::schema::structural;

/// What is wrong with a schema that has this member `x`.
fn of_x(x: Value) -> Vec<String> {
    of_root(json!({"type": "object", "properties": {"x": x}}))
}

fn of_root(schema: Value) -> Vec<String> {
    let told = |field: String, message: String| {
        let inner = field.strip_prefix("S").unwrap();
        format!("{}: {message}", inner.strip_prefix(".properties[x]").unwrap_or(inner))
    };
    let causes = structural::check(&schema, "S");
    causes.into_iter().map(|cause| told(cause.field, cause.message)).collect()
}

#[test]
fn sound_schemas_pass() {
    let sound = [
        json!({"type": "string", "enum": ["a"], "default": "a"}),
        json!({"type": "object", "additionalProperties": {"type": "string"}}),
        json!({"type": "object", "additionalProperties": true}),
        json!({"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]}),
        json!({"x-kubernetes-int-or-string": true, "allOf": [{"anyOf": [{"type": "integer"}, {"type": "string"}]}, {"pattern": "a"}]}),
        json!({"x-kubernetes-preserve-unknown-fields": true}),
        json!({"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true}),
        json!({"type": "array", "items": {"type": "object", "properties": {"k": {"type": "string"}}, "required": ["k"]}, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"]}),
        json!({"type": "object", "properties": {"a": {"type": "integer"}}, "anyOf": [{"required": ["a"]}, {"properties": {"a": {"minimum": 1}}}]}),
    ];
    for x in sound {
        assert_eq!(of_x(x.clone()), Vec::<String>::new(), "{x}");
    }
    let named = json!({"type": "object", "properties": {"metadata": {"type": "object", "properties": {"name": {"type": "string", "maxLength": 5}}}}});
    assert_eq!(of_root(named), Vec::<String>::new());
}

#[test]
fn a_schema_must_be_structural() {
    let cases = [
        (json!({}), vec![".type: Required value: must not be empty for specified object fields"]),
        (json!({"type": "array"}), vec![".items: Required value: must be specified"]),
        (
            json!({"type": "array", "items": {}}),
            vec![".items.type: Required value: must not be empty for specified array items"],
        ),
        (
            json!({"type": "object", "anyOf": [{"type": "object"}]}),
            vec![".anyOf[0].type: Forbidden: must be empty to be structural"],
        ),
        (
            json!({"type": "string", "not": {"default": "a", "nullable": true, "description": "d"}}),
            vec![
                ".not.default: Forbidden: must be undefined to be structural",
                ".not.description: Forbidden: must be empty to be structural",
                ".not.nullable: Forbidden: must be false to be structural",
            ],
        ),
        (
            json!({"type": "object", "oneOf": [{"properties": {"b": {"minimum": 1}}}]}),
            vec![
                ".properties[b]: Required value: because it is defined in S.properties[x].oneOf[0].properties[b]",
            ],
        ),
        (
            json!({"x-kubernetes-int-or-string": true, "x-kubernetes-preserve-unknown-fields": true}),
            vec![
                ".x-kubernetes-preserve-unknown-fields: Invalid value: true: must be false if x-kubernetes-int-or-string is true",
            ],
        ),
        (
            json!({"type": "object", "x-kubernetes-embedded-resource": true}),
            vec![
                ".properties: Required value: must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields",
            ],
        ),
        (
            json!({"type": "string", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true}),
            vec![
                ".type: Invalid value: \"string\": must be object if x-kubernetes-embedded-resource is true",
            ],
        ),
    ];
    for (x, wanted) in cases {
        assert_eq!(of_x(x.clone()), wanted, "{x}");
    }
    assert_eq!(of_root(json!({})), [".type: Required value: must not be empty at the root"]);
    assert_eq!(
        of_root(json!({"type": "string"})),
        [".type: Invalid value: \"string\": must be object at the root"]
    );
    assert_eq!(
        of_root(json!({"type": "object", "nullable": true})),
        [".nullable: Forbidden: nullable cannot be true at the root"]
    );
    assert_eq!(
        of_root(json!({"type": "object", "additionalProperties": {"type": "string"}})),
        [".additionalProperties: Forbidden: must not be used at the root"]
    );
    assert_eq!(
        of_root(
            json!({"type": "object", "properties": {"metadata": {"type": "object", "properties": {"labels": {"type": "object"}}}}})
        ),
        [
            ".properties[metadata]: Forbidden: must not specify anything other than name and generateName, but metadata is implicitly specified"
        ]
    );
}

#[test]
fn each_schema_has_rules_of_its_own() {
    let item = json!({"type": "object", "properties": {"k": {"type": "string"}}});
    let cases = [
        (
            json!({"type": "thing"}),
            vec![
                ".type: Unsupported value: \"thing\": supported values: \"array\", \"boolean\", \"integer\", \"number\", \"object\", \"string\"",
            ],
        ),
        (
            json!({"type": "array", "uniqueItems": true, "items": {"type": "string"}}),
            vec![
                ".uniqueItems: Forbidden: uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
            ],
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": {"type": "string"}}),
            vec![
                ".additionalProperties: Forbidden: additionalProperties and properties are mutual exclusive",
            ],
        ),
        (
            json!({"type": "object", "$ref": "#/definitions/a"}),
            vec![".$ref: Forbidden: $ref is not supported"],
        ),
        (
            json!({"type": "object", "x-kubernetes-preserve-unknown-fields": false}),
            vec![
                ".x-kubernetes-preserve-unknown-fields: Invalid value: false: must be true or undefined",
            ],
        ),
        (
            json!({"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "heap"}),
            vec![
                ".x-kubernetes-list-type: Unsupported value: \"heap\": supported values: \"atomic\", \"set\", \"map\"",
            ],
        ),
        (
            json!({"type": "array", "items": item, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"]}),
            vec![
                ".items.properties[k].default: Required value: this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property",
            ],
        ),
        (
            json!({"type": "array", "items": item, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["z"]}),
            vec![
                ".x-kubernetes-list-map-keys: Invalid value: [\"z\"]: entries must all be names of item properties",
            ],
        ),
        (
            json!({"type": "array", "items": item, "x-kubernetes-list-type": "map"}),
            vec![
                ".x-kubernetes-list-map-keys: Required value: must not be empty if x-kubernetes-list-type is map",
            ],
        ),
        (
            json!({"type": "array", "items": {"type": "string"}, "x-kubernetes-list-map-keys": ["z"]}),
            vec![
                ".x-kubernetes-list-type: Required value: must be map if x-kubernetes-list-map-keys is non-empty",
            ],
        ),
        (
            json!({"type": "string", "x-kubernetes-map-type": "atomic"}),
            vec![
                ".type: Invalid value: \"string\": must be object if x-kubernetes-map-type is specified",
            ],
        ),
        (
            json!({"type": "integer", "default": "a"}),
            vec![
                ".default: Invalid value: \"string\":  in body must be of type integer: \"string\"",
            ],
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "string"}}, "default": {"b": 1}}),
            vec![".default: Invalid value: {\"b\":1}: must not have unknown fields"],
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "string"}}, "default": {"a": 1}}),
            vec![
                ".default.a: Invalid value: \"integer\": a in body must be of type string: \"integer\"",
            ],
        ),
    ];
    for (x, wanted) in cases {
        assert_eq!(of_x(x.clone()), wanted, "{x}");
    }
}

#[test]
fn rules_have_texts_of_one_line() {
    let rule = |rule: Value| json!({"type": "object", "properties": {"a": {"type": "string"}}, "x-kubernetes-validations": [rule]});
    let cases = [
        (json!({"rule": " "}), "rule: Required value: rule is not specified"),
        (
            json!({"rule": "true", "message": "a\nb"}),
            "message: Invalid value: \"a\\nb\": message must not contain line breaks",
        ),
        (
            json!({"rule": "true\n&& true"}),
            "message: Required value: message must be specified if rule contains line breaks",
        ),
        (
            json!({"rule": "true", "reason": "Why"}),
            "reason: Unsupported value: \"Why\": supported values: \"FieldValueDuplicate\", \"FieldValueForbidden\", \"FieldValueInvalid\", \"FieldValueRequired\"",
        ),
        (
            json!({"rule": "true", "fieldPath": ".b"}),
            "fieldPath: Invalid value: \".b\": fieldPath must be a valid path",
        ),
    ];
    for (of_rule, wanted) in cases {
        let wanted = format!(".x-kubernetes-validations[0].{wanted}");
        assert_eq!(of_x(rule(of_rule.clone())), [wanted], "{of_rule}");
    }
    assert_eq!(of_x(rule(json!({"rule": "true", "fieldPath": ".a"}))), Vec::<String>::new());
}
