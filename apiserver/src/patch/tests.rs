#![allow(clippy::unwrap_used)]
use serde_json::json;

use super::*;

/// Document, patch, result; `None` = does not apply.
type Case = (Value, Value, Option<Value>);

#[test]
fn json_patches_apply_as_in_go() {
    let cases: Vec<Case> = vec![
        (
            json!({"a": 1}),
            json!([{"op": "add", "path": "/b", "value": 2}]),
            Some(json!({"a": 1, "b": 2})),
        ),
        // kube-rs' finalizer(): a test for null of what is not there.
        (
            json!({"metadata": {}}),
            json!([
                {"op": "test", "path": "/metadata/finalizers", "value": null},
                {"op": "add", "path": "/metadata/finalizers", "value": ["x/y"]},
            ]),
            Some(json!({"metadata": {"finalizers": ["x/y"]}})),
        ),
        (json!({"a": {}}), json!([{"op": "test", "path": "/a/b/c", "value": null}]), None),
        (json!({"a": 1}), json!([{"op": "test", "path": "/a", "value": 2}]), None),
        (
            json!({"a": [1]}),
            json!([{"op": "test", "path": "/a/0", "value": 1}]),
            Some(json!({"a": [1]})),
        ),
        // A missing value is null.
        (json!({}), json!([{"op": "add", "path": "/a"}]), Some(json!({"a": null}))),
        // Arrays: append, insert, negative indices, bounds.
        (
            json!({"a": [1]}),
            json!([{"op": "add", "path": "/a/-", "value": 2}]),
            Some(json!({"a": [1, 2]})),
        ),
        (
            json!({"a": [1]}),
            json!([{"op": "add", "path": "/a/0", "value": 0}]),
            Some(json!({"a": [0, 1]})),
        ),
        (
            json!({"a": [1]}),
            json!([{"op": "add", "path": "/a/1", "value": 2}]),
            Some(json!({"a": [1, 2]})),
        ),
        (
            json!({"a": [1]}),
            json!([{"op": "add", "path": "/a/-1", "value": 2}]),
            Some(json!({"a": [1, 2]})),
        ),
        (json!({"a": [1]}), json!([{"op": "add", "path": "/a/2", "value": 2}]), None),
        (json!({"a": [1, 2]}), json!([{"op": "remove", "path": "/a/-1"}]), Some(json!({"a": [1]}))),
        (
            json!({"a": [1, 2]}),
            json!([{"op": "replace", "path": "/a/1", "value": 3}]),
            Some(json!({"a": [1, 3]})),
        ),
        (json!({"a": [1, 2]}), json!([{"op": "replace", "path": "/a/2", "value": 3}]), None),
        // Objects.
        (json!({"a": 1}), json!([{"op": "remove", "path": "/b"}]), None),
        (
            json!({"a": 1}),
            json!([{"op": "replace", "path": "/b", "value": 2}]),
            Some(json!({"a": 1, "b": 2})),
        ),
        (json!({"a": 1}), json!([{"op": "add", "path": "/b/c", "value": 2}]), None),
        (
            json!({"a/b": {"~": 1}}),
            json!([{"op": "remove", "path": "/a~1b/~0"}]),
            Some(json!({"a/b": {}})),
        ),
        (
            json!({"a": 1}),
            json!([{"op": "move", "from": "/a", "path": "/b"}]),
            Some(json!({"b": 1})),
        ),
        (
            json!({"a": [1]}),
            json!([{"op": "copy", "from": "/a/0", "path": "/b"}]),
            Some(json!({"a": [1], "b": 1})),
        ),
        (json!({"a": 1}), json!([{"op": "shout", "path": "/a"}]), None),
        (json!({"a": 1}), json!([{"op": "add", "path": "", "value": 2}]), None),
    ];
    for (document, patch, wanted) in cases {
        let mut patched = document.clone();
        let result = json_patch(&mut patched, patch.to_string().as_bytes(), FieldValidation::Warn);
        match wanted {
            Some(wanted) => {
                result.unwrap_or_else(|error| panic!("{patch} on {document}: {error}"));
                assert_eq!(patched, wanted, "{patch} on {document}");
            }
            None => assert_eq!(result.unwrap_err().code, 422, "{patch} on {document}"),
        }
    }
}

#[test]
fn a_json_patch_is_bounded() {
    let mut document = json!({"a": ["xxxxxxxxxxxxxxxx"]});
    let doubling = json!({"op": "copy", "from": "/a", "path": "/a/-"});
    let patch = Value::Array(vec![doubling; 64]).to_string();
    assert_eq!(
        json_patch(&mut document, patch.as_bytes(), FieldValidation::Warn).unwrap_err().code,
        422
    );
    let many =
        Value::Array(vec![json!({"op": "test", "path": "/x"}); JSON_PATCH_OPERATIONS_MAX + 1]);
    assert_eq!(
        json_patch(&mut document, many.to_string().as_bytes(), FieldValidation::Warn)
            .unwrap_err()
            .code,
        413
    );
}

#[test]
fn patches_that_do_not_parse_are_refused_in_gos_words() {
    let defs = crate::builtin::definitions();
    let def = defs.iter().find(|def| def.kind == "ConfigMap").unwrap();
    let refused = |kind, text: &str, validation| {
        let mut document = json!({});
        let error = apply(def, &mut document, kind, text.as_bytes(), validation).unwrap_err();
        assert_eq!(error.code, 400, "{text}");
        error.message
    };
    use FieldValidation::{Ignore, Warn};
    use PatchKind::{Json, Merge, Strategic};
    for (kind, text, validation, message) in [
        (Json, "", Warn, "error decoding patch: unexpected end of JSON input"),
        (
            Json,
            "{}",
            Warn,
            "error decoding patch: json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp",
        ),
        (Json, "{}", Ignore, "json: cannot unmarshal object into Go value of type jsonpatch.Patch"),
        (
            Json,
            "[5]",
            Warn,
            "error decoding patch: json: cannot unmarshal number into Go value of type handlers.jsonPatchOp",
        ),
        (
            Json,
            r#"[{"op":5}]"#,
            Warn,
            "error decoding patch: json: cannot unmarshal number into Go struct field jsonPatchOp.op of type string",
        ),
        (Merge, "", Warn, "error decoding patch: unexpected end of JSON input"),
        (Merge, "null", Warn, "Invalid JSON Patch"),
        (
            Merge,
            "[]",
            Warn,
            "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}",
        ),
        (Strategic, "{", Warn, "unexpected end of JSON input"),
    ] {
        assert_eq!(refused(kind, text, validation), message, "{text}");
    }
}

#[test]
fn a_strict_reader_looks_at_the_patch_itself() {
    let defs = crate::builtin::definitions();
    let def = defs.iter().find(|def| def.kind == "ConfigMap").unwrap();
    let found = |kind, text: &str| {
        apply(def, &mut json!({}), kind, text.as_bytes(), FieldValidation::Warn).unwrap()
    };
    assert_eq!(
        found(PatchKind::Json, r#"[{"op":"add","path":"/a","value":1,"vlaue":2,"op":"add"}]"#),
        ["json patch unknown field \"[0].vlaue\"", "json patch duplicate field \"[0].op\""]
    );
    assert_eq!(
        found(PatchKind::Merge, r#"{"data":{"a":"1","a":"2"}}"#),
        ["duplicate field \"data.a\""]
    );
}

#[test]
fn merge_patches_follow_rfc_7386() {
    let cases = [
        (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
        (json!({"a": "b"}), json!({"a": null}), json!({})),
        (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
        (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
        (json!({"a": [1, 2]}), json!({"a": [3]}), json!({"a": [3]})),
        (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
        (json!({"a": 1}), json!(null), json!(null)),
    ];
    for (document, patch, wanted) in cases {
        let mut patched = document.clone();
        merge_patch(&mut patched, patch.clone());
        assert_eq!(patched, wanted, "{patch} on {document}");
    }
}

#[test]
fn strategic_merge_knows_the_lists_of_built_in_kinds() {
    let defs = crate::builtin::definitions();
    let def = |kind: &str| defs.iter().find(|def| def.kind == kind).unwrap();
    let cases = [
        // client-go's event recorder.
        (
            "Event",
            json!({"count": 1, "reason": "x"}),
            json!({"count": 2}),
            json!({"count": 2, "reason": "x"}),
        ),
        (
            "ConfigMap",
            json!({"data": {"a": "1", "b": "2"}}),
            json!({"data": {"a": null, "c": "3"}}),
            json!({"data": {"b": "2", "c": "3"}}),
        ),
        (
            "ServiceAccount",
            json!({"secrets": [{"name": "a", "namespace": "x"}, {"name": "b"}]}),
            json!({"secrets": [{"name": "a", "namespace": "y"}, {"name": "b", "$patch": "delete"}, {"name": "c"}]}),
            json!({"secrets": [{"name": "a", "namespace": "y"}, {"name": "c"}]}),
        ),
        (
            "ServiceAccount",
            json!({"imagePullSecrets": [{"name": "a"}]}),
            json!({"imagePullSecrets": [{"name": "b"}]}),
            json!({"imagePullSecrets": [{"name": "b"}]}),
        ),
        (
            "ConfigMap",
            json!({"metadata": {"finalizers": ["a/a", "b/b"]}}),
            json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a/a"], "finalizers": ["c/c"]}}),
            json!({"metadata": {"finalizers": ["b/b", "c/c"]}}),
        ),
        (
            "ConfigMap",
            json!({"data": {"a": "1"}}),
            json!({"data": {"$patch": "replace", "b": "2"}}),
            json!({"data": {"b": "2"}}),
        ),
        (
            "ConfigMap",
            json!({"data": {"a": "1"}}),
            json!({"data": {"$patch": "delete"}}),
            json!({"data": {}}),
        ),
        (
            "ConfigMap",
            json!({"data": {"a": "1", "b": "2"}}),
            json!({"data": {"$retainKeys": ["b", "c"], "c": "3"}}),
            json!({"data": {"b": "2", "c": "3"}}),
        ),
        // The order that the patch says; what it does not name stays where it was.
        (
            "ConfigMap",
            json!({"metadata": {"finalizers": ["a/a", "b/b", "c/c"]}}),
            json!({"metadata": {"$setElementOrder/finalizers": ["c/c", "a/a"]}}),
            json!({"metadata": {"finalizers": ["b/b", "c/c", "a/a"]}}),
        ),
        (
            "ServiceAccount",
            json!({"secrets": [{"name": "a"}, {"name": "b"}, {"name": "c"}]}),
            json!({
                "$setElementOrder/secrets": [{"name": "d"}, {"name": "a"}],
                "secrets": [{"name": "d"}, {"name": "b", "$patch": "delete"}],
            }),
            json!({"secrets": [{"name": "c"}, {"name": "d"}, {"name": "a"}]}),
        ),
        (
            "ServiceAccount",
            json!({"secrets": [{"name": "a"}, {"name": "b"}]}),
            json!({"secrets": [{"name": "c"}, {"$patch": "replace"}]}),
            json!({"secrets": [{"name": "c"}]}),
        ),
        // Nothing of a directive is stored.
        (
            "ConfigMap",
            json!({}),
            json!({"data": {"$retainKeys": ["a"], "a": "1", "b": null}}),
            json!({"data": {"a": "1"}}),
        ),
    ];
    for (kind, document, patch, wanted) in cases {
        let mut patched = document.clone();
        strategic_merge_patch(def(kind), &mut patched, patch.clone()).unwrap();
        assert_eq!(patched, wanted, "{patch} on {document}");
    }
}

#[test]
fn strategic_merge_refuses_in_gos_words() {
    let defs = crate::builtin::definitions();
    let def = defs.iter().find(|def| def.kind == "ServiceAccount").unwrap();
    for (patch, code, message) in [
        (
            json!({"secrets": [{"namespace": "x", "kind": "K"}]}),
            500,
            "map: map[kind:K namespace:x] does not contain declared merge key: name",
        ),
        (
            json!({"secrets": [{"name": "x", "$patch": "shout"}]}),
            500,
            "unknown patch type: shout in map: map[$patch:shout name:x]",
        ),
        (json!({"$retainKeys": "x"}), 400, "invalid patch format of retainKeys"),
        (
            json!({"$retainKeys": ["metadata"], "secrets": []}),
            422,
            "the server rejected our request due to an error in our request",
        ),
        (
            json!({
                "$setElementOrder/secrets": [{"name": "a"}, {"name": "b"}],
                "secrets": [{"name": "b"}, {"name": "a"}],
            }),
            500,
            "The order in patch list:\n[map[name:b] map[name:a]]\n doesn't match $setElementOrder list:\n[map[name:a] map[name:b]]\n",
        ),
    ] {
        let mut document = json!({"secrets": [{"name": "a"}]});
        let error = strategic_merge_patch(def, &mut document, patch.clone()).unwrap_err();
        assert_eq!((error.code, &*error.message), (code, message), "{patch}");
    }
}
