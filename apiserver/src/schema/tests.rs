#![allow(clippy::unwrap_used)]
use serde_json::json;

use super::*;
use crate::resource::tests::task_def;

mod rule_costs;
mod rule_types;
mod rules;
mod structural;

fn schema(schema: Value) -> Structural {
    Structural::compile_value(&schema).unwrap()
}

/// Wraps a schema of one member `x`.
fn of_x(x: Value) -> Structural {
    schema(json!({"type": "object", "properties": {"x": x}}))
}

#[test]
fn unknown_fields_are_removed_and_named() {
    let mut task = json!({
        "apiVersion": "example.com/v1", "kind": "Task",
        "metadata": {"name": "a", "labels": {"any": "thing"}, "bogus": 1,
            "ownerReferences": [{"name": "o", "what": 1}]},
        "spec": {
            "command": ["a"], "comand": ["b"], "free": {"any": {"thing": 1}}, "limits": {"cpu": 1},
            "env": [{"name": "A", "valeu": "1"}],
        },
        "extra": {},
    });
    let mut removed = task_def().schema.prune(&mut task);
    removed.sort();
    assert_eq!(
        removed,
        [
            "extra",
            "metadata.bogus",
            "metadata.ownerReferences[0].what",
            "spec.comand",
            "spec.env[0].valeu"
        ]
    );
    assert_eq!(
        task["spec"],
        json!({"command": ["a"], "free": {"any": {"thing": 1}}, "limits": {"cpu": 1}, "env": [{"name": "A"}]})
    );
    assert_eq!(task_def().schema.prune(&mut task), Vec::<String>::new());
}

#[test]
fn what_is_preserved_is_still_pruned_where_it_is_described() {
    let schema = of_x(json!({
        "type": "object", "x-kubernetes-preserve-unknown-fields": true,
        "properties": {"known": {"type": "object", "properties": {"a": {"type": "string"}}}},
    }));
    let mut object = json!({"x": {"other": {"b": 1}, "known": {"a": "", "b": 1}}});
    assert_eq!(schema.prune(&mut object), ["x.known.b"]);
    assert_eq!(object, json!({"x": {"other": {"b": 1}, "known": {"a": ""}}}));
}

#[test]
fn an_embedded_resource_keeps_its_type_and_metadata() {
    let schema = of_x(json!({"type": "object", "x-kubernetes-embedded-resource": true}));
    let mut object = json!({"x": {"apiVersion": "v1", "kind": "K", "metadata": {"name": "a", "no": 1}, "spec": {}}});
    let mut removed = schema.prune(&mut object);
    removed.sort();
    assert_eq!(removed, ["x.metadata.no", "x.spec"]);
}

#[test]
fn missing_fields_get_defaults_and_nulls_go() {
    let mut task = json!({"spec": {"command": ["a"], "agent": null, "cpus": null, "limits": {"a": null, "b": 1}}});
    task_def().schema.default(&mut task);
    assert_eq!(
        task,
        json!({"spec": {"command": ["a"], "cpus": 1, "replicas": 1, "restart": "Never", "limits": {"b": 1}}})
    );
    let mut without_parent = json!({});
    task_def().schema.default(&mut without_parent);
    assert_eq!(without_parent, json!({}));
    let nullable = of_x(json!({"type": "string", "nullable": true, "default": "d"}));
    let mut object = json!({"x": null});
    nullable.default(&mut object);
    assert_eq!(object, json!({"x": null}));
    let nested = of_x(
        json!({"type": "object", "default": {}, "properties": {"y": {"type": "integer", "default": 5}}}),
    );
    let mut object = json!({});
    nested.default(&mut object);
    assert_eq!(object, json!({"x": {"y": 5}}));
}

/// Schema of `x`, value of `x`, the causes as `field: message`.
#[test]
fn mistakes_are_told_in_kubernetes_words() {
    let list_map = json!({
        "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
        "items": {"type": "object", "properties": {"k": {"type": "string"}}},
    });
    let set =
        json!({"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"});
    let cases = [
        (
            json!({"type": "integer"}),
            json!("5"),
            vec!["x: Invalid value: \"string\": x in body must be of type integer: \"string\""],
        ),
        (
            json!({"type": "string"}),
            json!(null),
            vec!["x: Invalid value: \"null\": x in body must be of type string: \"null\""],
        ),
        (
            json!({"type": "string"}),
            json!(1.5),
            vec!["x: Invalid value: \"number\": x in body must be of type string: \"number\""],
        ),
        (
            json!({"x-kubernetes-int-or-string": true}),
            json!(true),
            vec![
                "x: Invalid value: \"boolean\": x in body must be of type integer,string: \"boolean\"",
            ],
        ),
        (json!({"type": "integer"}), json!(1.0), vec![]),
        (json!({"type": "number"}), json!(1), vec![]),
        (
            json!({"type": "string", "enum": ["a", "b"]}),
            json!("c"),
            vec!["x: Unsupported value: \"c\": supported values: \"a\", \"b\""],
        ),
        (
            json!({"type": "number", "minimum": 0}),
            json!(-1),
            vec!["x: Invalid value: -1: x in body should be greater than or equal to 0"],
        ),
        (
            json!({"type": "number", "minimum": 0, "exclusiveMinimum": true}),
            json!(0),
            vec!["x: Invalid value: 0: x in body should be greater than 0"],
        ),
        (
            json!({"type": "number", "maximum": 1.5}),
            json!(1.75),
            vec!["x: Invalid value: 1.75: x in body should be less than or equal to 1.5"],
        ),
        (
            json!({"type": "number", "maximum": 1.5}),
            json!(2),
            vec!["x: Invalid value: 2: x in body should be less than or equal to 1"],
        ),
        (
            json!({"type": "integer", "multipleOf": 2}),
            json!(3),
            vec!["x: Invalid value: 3: x in body should be a multiple of 2"],
        ),
        (
            json!({"type": "integer", "format": "int32"}),
            json!(1_i64 << 40),
            vec![
                "<nil>: Invalid value: \"\": Checked value must be of type integer with format int32 in x",
            ],
        ),
        (
            json!({"type": "integer", "minimum": 0.5}),
            json!(1),
            vec![
                "<nil>: Invalid value: \"\": Minimum boundary value must be of type integer (default format) in x",
            ],
        ),
        (json!({"type": "number", "format": "float"}), json!(1.5), vec![]),
        (
            json!({"type": "string", "minLength": 2}),
            json!("ä"),
            vec!["x: Invalid value: \"ä\": x in body should be at least 2 chars long"],
        ),
        (
            json!({"type": "string", "maxLength": 2}),
            json!("ääö"),
            vec!["x: Too long: may not be more than 2 bytes"],
        ),
        (json!({"type": "string", "maxLength": 2}), json!("äö"), vec![]),
        (
            json!({"type": "string", "pattern": "^a+$"}),
            json!("b"),
            vec!["x: Invalid value: \"b\": x in body should match '^a+$'"],
        ),
        (
            json!({"type": "string", "format": "date-time"}),
            json!("today"),
            vec!["x: Invalid value: \"today\": x in body must be of type date-time: \"today\""],
        ),
        (
            json!({"type": "string", "format": "uint32"}),
            json!("unknown formats are ignored"),
            vec![],
        ),
        (
            json!({"type": "array", "minItems": 1}),
            json!([]),
            vec!["x: Invalid value: 0: x in body should have at least 1 items"],
        ),
        (
            json!({"type": "array", "maxItems": 1}),
            json!([1, 2]),
            vec!["x: Too many: 2: must have at most 1 item"],
        ),
        (json!({"type": "object", "required": ["y"]}), json!({}), vec!["x.y: Required value"]),
        (
            json!({"type": "object", "additionalProperties": {"type": "integer"}}),
            json!({"a": "b"}),
            vec!["x.a: Invalid value: \"string\": x.a in body must be of type integer: \"string\""],
        ),
        (set, json!(["a", "b", "a"]), vec!["x[2]: Duplicate value: \"a\""]),
        (
            list_map,
            json!([{"k": "a"}, {"k": "b"}, {"k": "a"}]),
            vec!["x[2]: Duplicate value: {\"k\":\"a\"}"],
        ),
        (json!({"anyOf": [{"type": "integer"}, {"type": "string"}]}), json!("a"), vec![]),
        (
            json!({"oneOf": [{"required": ["a"]}, {"required": ["b"]}]}),
            json!({"a": 1, "b": 1}),
            vec![
                "<nil>: Invalid value: \"\": \"x\" must validate one and only one schema (oneOf). Found 2 valid alternatives",
            ],
        ),
        (
            json!({"oneOf": [{"required": ["a"]}]}),
            json!({}),
            vec![
                "<nil>: Invalid value: \"\": \"x\" must validate one and only one schema (oneOf). Found none valid",
                "x.a: Required value",
            ],
        ),
        (
            json!({"not": {"required": ["a"]}}),
            json!({"a": 1}),
            vec!["<nil>: Invalid value: \"\": \"x\" must not validate the schema (not)"],
        ),
    ];
    for (x, value, wanted) in cases {
        let found: Vec<String> = of_x(x.clone())
            .validate(&json!({ "x": value }))
            .into_iter()
            .map(|cause| format!("{}: {}", cause.field, cause.message))
            .collect();
        assert_eq!(found, wanted, "{value} against {x}");
    }
}

#[test]
fn the_alternative_with_the_most_matches_is_told() {
    let x = json!({"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "string"}}, "anyOf": [
        {"required": ["c"]}, {"properties": {"a": {"minimum": 5}}},
    ]});
    let causes = of_x(x).validate(&json!({"x": {"a": 1, "b": ""}}));
    let told: Vec<_> =
        causes.iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect();
    assert_eq!(
        told,
        [
            "<nil>: Invalid value: \"\": \"x\" must validate at least one schema (anyOf)",
            "x.a: Invalid value: 1: x.a in body should be greater than or equal to 5",
        ]
    );
    let all = of_x(json!({"type": "integer", "allOf": [{"minimum": 5}, {"maximum": 3}]}));
    let causes = all.validate(&json!({"x": 4}));
    assert_eq!(
        causes[2].message,
        "Invalid value: \"\": \"x\" must validate all the schemas (allOf). None validated"
    );
}

#[test]
fn what_was_wrong_before_and_has_not_been_touched_is_tolerated() {
    let schema = schema(json!({"type": "object", "properties": {
        "a": {"type": "string", "maxLength": 1},
        "set": {"type": "array", "items": {"type": "integer"}, "x-kubernetes-list-type": "set"},
        "atomic": {"type": "array", "items": {"type": "integer", "minimum": 5}},
        "map": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
            "items": {"type": "object", "required": ["k"], "properties": {"k": {"type": "string"}, "n": {"type": "integer", "minimum": 5}}}},
        "status": {"type": "object", "properties": {"n": {"type": "integer"}}},
    }}));
    let old = json!({"a": "long", "set": [1, 1], "atomic": [1, 2], "map": [{"k": "x", "n": 1}, {"k": "y", "n": 2}]});
    let told = |new: Value| -> Vec<String> {
        schema.validate_update(&new, &old).into_iter().map(|cause| cause.field).collect()
    };
    assert_eq!(told(old.clone()), Vec::<String>::new());
    assert_eq!(schema.validate(&old).len(), 6);
    let mut new = old.clone();
    new["a"] = json!("other");
    assert_eq!(told(new.clone()), ["a"]);
    new = old.clone();
    new["set"] = json!([1, 1, 2, 2]);
    new["map"] = json!([{"k": "z", "n": 3}, {"k": "y", "n": 2}, {"k": "x", "n": 2}]);
    assert_eq!(told(new.clone()), ["map[0].n", "map[2].n"]);
    new = old.clone();
    new["atomic"] = json!([1, 2, 6]);
    assert_eq!(told(new), ["atomic[0]", "atomic[1]"]);

    let causes = schema.validate_status(&json!({"a": "other", "status": {"n": "x"}}), &old);
    assert_eq!(causes.len(), 1);
    assert_eq!(causes[0].field, "status.n");
    assert_eq!(
        causes[0].message,
        "Invalid value: \"string\": n in body must be of type integer: \"string\""
    );
}

#[test]
fn embedded_resources_are_objects_with_a_type() {
    let schema = of_x(json!({"type": "object", "additionalProperties": {
        "type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true,
    }}));
    let causes = schema.validate(
        &json!({"x": {"a": {"apiVersion": "v1", "kind": 5}, "b": {"apiVersion": "", "kind": "_"}}}),
    );
    let told: Vec<_> =
        causes.iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect();
    assert_eq!(told[0], "x[a].kind: Invalid value: 5: must be a string");
    assert_eq!(told[1], "x[b].apiVersion: Required value");
    assert!(told[2].starts_with("x[b].kind: Invalid value: \"_\": may have mixed case, but should otherwise match: a DNS-1035 label"), "{told:?}");
}

#[test]
fn a_sound_task_has_no_causes() {
    let task = json!({
        "apiVersion": "example.com/v1", "kind": "Task", "metadata": {"name": "a"},
        "spec": {"command": ["a"], "limits": {"cpu": 1, "memory": "1Gi"}, "env": [{"name": "A"}], "restart": "Never"},
    });
    assert_eq!(task_def().schema.validate(&task), vec![]);
}

#[test]
fn formats_hold_what_they_should() {
    let cases = [
        ("date-time", "2026-11-20T15:41:51Z", true),
        ("date-time", "2026-11-20T15:41:51.123456+02:00", true),
        ("date-time", "2026-11-20", false),
        ("date-time", "2026-11-20 15:41:51Z", false),
        ("date", "2026-11-20", true),
        ("date", "2026-13-20", false),
        ("duration", "1h30m", true),
        ("duration", "-1.5s", true),
        ("duration", "5", false),
        ("byte", "aGk=", true),
        ("byte", "a!", false),
        ("ipv4", "10.0.0.1", true),
        ("ipv4", "10.0.0", false),
        ("ipv6", "::1", true),
        ("cidr", "10.0.0.0/8", true),
        ("cidr", "10.0.0.0/33", false),
        ("uuid", "3974d016-a54c-4281-a6e8-9fe373d6cd21", true),
        ("uuid", "x", false),
        ("hostname", "a.b-c", true),
        ("hostname", "-a", false),
        ("uri", "https://example.com/x", true),
        ("uri", "example", false),
        ("email", "a@example.com", true),
    ];
    for (format, text, wanted) in cases {
        let causes =
            of_x(json!({"type": "string", "format": format})).validate(&json!({ "x": text }));
        assert_eq!(causes.is_empty(), wanted, "{text} as {format}");
    }
}

#[test]
fn what_is_not_structural_does_not_compile() {
    let cases = [
        (
            json!({"type": "object", "properties": {"a": {"$ref": "#/x"}}}),
            "properties[a]: $ref is not supported",
        ),
        (json!({"type": "thing"}), ": unknown type \"thing\""),
        (
            json!({"items": {"type": "string", "pattern": "("}}),
            "items: must be a valid regular expression",
        ),
    ];
    for (schema, wanted) in cases {
        let error = Structural::compile_value(&schema).unwrap_err().to_string();
        assert!(error.starts_with(wanted), "{error}");
    }
}

#[test]
fn duplicate_fields_are_found_anywhere_and_the_last_one_wins() {
    let (value, duplicates) =
        decode_strict(br#"{"a":1,"b":{"c":1,"c":2},"d":[{"e":1,"e":{"f":1}}],"a":3}"#).unwrap();
    assert_eq!(value, json!({"a": 3, "b": {"c": 2}, "d": [{"e": {"f": 1}}]}));
    assert_eq!(duplicates, ["b.c", "d[0].e", "a"]);
    assert!(decode_strict(b"{} {}").is_err());
    assert!(decode_strict(b"{\"a\":}").is_err());
    let (numbers, _) =
        decode_strict(b"[1,-1,18446744073709551615,1.5,2.0,1e3,true,null,\"\\u00e4\"]").unwrap();
    assert_eq!(numbers, json!([1, -1, 18446744073709551615_u64, 1.5, 2, 1000, true, null, "ä"]));
}
