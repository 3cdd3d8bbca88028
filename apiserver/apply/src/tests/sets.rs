//! Sets of fields in their JSON form.

use serde_json::{Value, json};

use crate::fields::{self, Node};

fn node(value: Value) -> Node {
    value.as_object().unwrap().clone()
}

#[test]
fn a_union_has_the_members_of_both() {
    let cases = [
        (json!({"f:a": {}}), json!({"f:b": {}}), json!({"f:a": {}, "f:b": {}})),
        (json!({"f:a": {}}), json!({"f:a": {"f:b": {}}}), json!({"f:a": {".": {}, "f:b": {}}})),
        (json!({"f:a": {"f:b": {}}}), json!({"f:a": {}}), json!({"f:a": {".": {}, "f:b": {}}})),
        (json!({}), json!({"f:a": {"v:1": {}}}), json!({"f:a": {"v:1": {}}})),
    ];
    for (a, b, both) in cases {
        let mut set = node(a.clone());
        fields::union(&mut set, &node(b.clone()));
        assert_eq!(Value::Object(set.clone()), both, "{a} {b}");
        assert!(fields::covers(&set, &node(a)));
        assert!(fields::covers(&set, &node(b)));
    }
}

#[test]
fn a_difference_leaves_what_is_below() {
    let cases = [
        (json!({"f:a": {}, "f:b": {}}), json!({"f:b": {}}), json!({"f:a": {}})),
        (json!({"f:a": {".": {}, "f:b": {}}}), json!({"f:a": {}}), json!({"f:a": {"f:b": {}}})),
        (json!({"f:a": {".": {}, "f:b": {}}}), json!({"f:a": {"f:b": {}}}), json!({"f:a": {}})),
        (json!({"f:a": {"f:b": {}}}), json!({"f:a": {"f:b": {}}}), json!({})),
        (json!({"f:a": {}}), json!({"f:a": {"f:b": {}}}), json!({"f:a": {}})),
    ];
    for (a, b, left) in cases {
        let mut set = node(a.clone());
        fields::subtract(&mut set, &node(b.clone()));
        assert_eq!(Value::Object(set), left, "{a} {b}");
    }
}

#[test]
fn an_intersection_has_the_members_of_both_only() {
    let cases = [
        (json!({"f:a": {}, "f:b": {}}), json!({"f:b": {}}), json!({"f:b": {}})),
        (json!({"f:a": {"f:b": {}}}), json!({"f:a": {}}), json!({})),
        (
            json!({"f:a": {".": {}, "f:b": {}}}),
            json!({"f:a": {".": {}, "f:b": {}, "f:c": {}}}),
            json!({"f:a": {".": {}, "f:b": {}}}),
        ),
    ];
    for (a, b, both) in cases {
        let (a, b) = (node(a), node(b));
        let found = fields::intersection(&a, &b);
        assert_eq!(fields::touches(&a, &b), !found.is_empty());
        assert_eq!(Value::Object(found), both);
    }
}

#[test]
fn what_a_client_sends_becomes_canonical() {
    let cases = [
        (json!({"f:a": {".": {}}}), Some(json!({"f:a": {}}))),
        (json!({"f:a": {"z:new": {}, "f:b": {}}}), Some(json!({"f:a": {"f:b": {}}}))),
        (json!({"f:a": {"z:new": {}}}), Some(json!({}))),
        (json!({".": {}, "f:a": {}}), Some(json!({"f:a": {}}))),
        // Of a kind that is known, but none.
        (json!({"k:nonsense": {}, "i:3": {}}), None),
        (json!({"i:x": {}}), None),
        (json!({"f:a": {"b": {}}}), None),
        (json!({"f:a": 1}), None),
        (json!([]), None),
    ];
    for (sent, canonical) in cases {
        assert_eq!(fields::decode(&sent).map(Value::Object), canonical, "{sent}");
    }
}

#[test]
fn paths_read_as_kubernetes_writes_them() {
    let set = json!({"f:spec": {
        "f:env": {"k:{\"name\":\"A\",\"n\":1}": {".": {}, "f:value": {}}},
        "f:set": {"v:\"x\"": {}, "v:3": {}}, "f:list": {"i:2": {}}, "f:a.b/c": {},
    }});
    let set = node(set);
    let paths: Vec<String> =
        fields::paths(&set).iter().map(|path| crate::path::join(path)).collect();
    assert_eq!(
        paths,
        [
            ".spec.a.b/c",
            ".spec.env[n=1,name=\"A\"]",
            ".spec.env[n=1,name=\"A\"].value",
            ".spec.list[2]",
            ".spec.set[=\"x\"]",
            ".spec.set[=3]",
        ]
    );
}
