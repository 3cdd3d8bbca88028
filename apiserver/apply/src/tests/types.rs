//! What does not fit the schema, in kube-apiserver's words.

use serde_json::{Value, json};

use super::{Cluster, body};
use crate::{Types, Writer, record};

fn refusal(spec: Value) -> String {
    let text = Cluster::new().apply("a", spec, false).unwrap_err().to_string();
    let start = "failed to create typed patch object (n/a; x/v1, Kind=Thing): ";
    text.strip_prefix(start).unwrap_or_else(|| panic!("{text}")).to_owned()
}

#[test]
fn a_patch_that_does_not_fit_is_refused() {
    let cases = [
        (json!({"bogus": 1}), ".spec.bogus: field not declared in schema"),
        (json!({"inner": {"c": 1}}), ".spec.inner.c: field not declared in schema"),
        (
            json!({"env": [{"name": "a"}, {"name": "a"}]}),
            ".spec.env: duplicate entries for key [name=\"a\"]",
        ),
        (json!({"set": ["a", "a"]}), ".spec.set: duplicate entries for key [=\"a\"]"),
        (json!({"count": "x"}), ".spec.count: expected numeric (int or float), got string"),
        (json!({"text": 5}), ".spec.text: expected string, got &value.valueUnstructured{Value:5}"),
        (json!({"on": "yes"}), ".spec.on: expected boolean, got &{yes}"),
        (json!({"atoms": "x"}), ".spec.atoms: expected list, got &{x}"),
        (
            json!({"env": {"a": 1, "b": [true]}}),
            ".spec.env: expected list, got &{map[a:1 b:[true]]}",
        ),
        (json!({"inner": ["x"]}), ".spec.inner: expected map, got &{[x]}"),
        (
            json!({"env": [{"value": "1"}]}),
            ".spec.env: element 0: associative list with keys has an element that omits key field \"name\" (and doesn't have default value)",
        ),
        (
            json!({"env": ["x"]}),
            ".spec.env: element 0: associative list with keys may not have non-map elements",
        ),
        (
            json!({"set": [null]}),
            ".spec.set: element 0: associative list without keys has an element that's an explicit null",
        ),
        (
            json!({"env": [{"name": "A", "bogus": 1}]}),
            ".spec.env[name=\"A\"].bogus: field not declared in schema",
        ),
        (
            json!({"count": "x", "text": 5}),
            "errors:\n  .spec.count: expected numeric (int or float), got string\n  .spec.text: expected string, got &value.valueUnstructured{Value:5}",
        ),
    ];
    for (spec, message) in cases {
        assert_eq!(refusal(spec.clone()), message, "{spec}");
    }
}

#[test]
fn what_fits_is_taken() {
    let cases = [
        json!({"port": 80}),
        json!({"port": "http"}),
        json!({"free": {"anything": [1, {"x": null}]}}),
        json!({"text": null, "env": null, "inner": null}),
        json!({"count": 1.5}),
    ];
    for spec in cases {
        Cluster::new()
            .apply("a", spec.clone(), false)
            .unwrap_or_else(|error| panic!("{spec}: {error}"));
    }
}

#[test]
fn labels_must_be_text() {
    let mut wanted = body(json!({}));
    wanted["metadata"]["labels"] = json!({"a": 1});
    let error = Cluster::new().apply_object("a", wanted, false).unwrap_err().to_string();
    assert!(
        error.ends_with(
            ".metadata.labels.a: expected string, got &value.valueUnstructured{Value:1}"
        )
    );
}

#[test]
fn without_a_schema_everything_is_deduced() {
    let mut cluster =
        Cluster::of(&json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}));
    cluster.applied("a", json!({"x": {"y": [1]}}));
    assert_eq!(cluster.owners(), json!({"a/Apply": {".": {}, "f:x": {".": {}, "f:y": {}}}}));
}

#[test]
fn an_embedded_resource_has_metadata_of_its_own() {
    let mut cluster = Cluster::of(&json!({"type": "object", "properties": {"spec": {
        "type": "object", "x-kubernetes-embedded-resource": true,
        "x-kubernetes-preserve-unknown-fields": true,
    }}}));
    cluster.applied("a", json!({"metadata": {"finalizers": ["a"], "labels": {"x": "y"}}}));
    assert_eq!(
        cluster.owners(),
        json!({"a/Apply": {"f:metadata": {
            "f:finalizers": {"v:\"a\"": {}}, "f:labels": {"f:x": {}},
        }}})
    );
}

#[test]
fn what_is_always_there_is_owned_by_nobody() {
    let schema = json!({
        "type": "object",
        "properties": {
            "spec": {
                "type": "object",
                "properties": {
                    "holder": {"type": "string"},
                    "part": {"type": "object", "properties": {"a": {"type": "string"}}},
                },
            },
            "rules": {"type": "array", "items": {"type": "string"}},
            "by": {"type": "string"},
        },
    });
    let zero = json!({"spec": {}, "rules": null, "by": ""});
    let types = Types::compile(&schema).with_zero(zero);
    let writer = |now| Writer { manager: "m", api_version: "x/v1", subresource: "", now };
    let fields = |object: &Value| object["metadata"]["managedFields"][0]["fieldsV1"].clone();
    let made = |object: Value| json!({"apiVersion": "x/v1", "kind": "K", "metadata": {"name": "a"}, "spec": object["spec"], "rules": object["rules"], "by": object["by"]});
    let mut object = made(json!({"spec": {"part": {"a": "x"}}, "by": ""}));
    record(&types, &[], None, &mut object, &writer("2026-01-01T00:00:00Z"));
    assert_eq!(fields(&object), json!({"f:spec": {"f:part": {".": {}, "f:a": {}}}}));
    let old = object.clone();
    object["rules"] = json!(["r"]);
    object["by"] = json!("somebody");
    record(&types, &[], Some(&old), &mut object, &writer("2026-01-01T00:00:01Z"));
    assert_eq!(
        fields(&object),
        json!({"f:by": {}, "f:rules": {}, "f:spec": {"f:part": {".": {}, "f:a": {}}}})
    );
    let old = object.clone();
    object.as_object_mut().unwrap().remove("spec");
    object["by"] = json!("");
    record(&types, &[], Some(&old), &mut object, &writer("2026-01-01T00:00:02Z"));
    assert_eq!(fields(&object), json!({"f:by": {}, "f:rules": {}}));
}
