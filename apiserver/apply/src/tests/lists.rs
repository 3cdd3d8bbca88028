//! Atomic lists, sets and maps; atomic objects.

use serde_json::{Value, json};

use super::Cluster;
use crate::walk::merge;

#[test]
fn an_atomic_list_is_one_value() {
    let mut cluster = Cluster::new();
    cluster.applied("a", json!({"atoms": ["x", "y"]}));
    assert_eq!(cluster.owners(), json!({"a/Apply": {"f:atoms": {}}}));
    assert!(cluster.conflict("b", json!({"atoms": ["x"]})).ends_with("\"a\": .spec.atoms"));
    cluster.applied("b", json!({"atoms": ["x", "y"]}));
    cluster.apply("b", json!({"atoms": []}), true).unwrap();
    assert_eq!(cluster.spec(), json!({"atoms": []}));
}

#[test]
fn an_atomic_object_is_one_value() {
    let mut cluster = Cluster::new();
    cluster.applied("a", json!({"whole": {"a": "1"}}));
    assert_eq!(cluster.owners(), json!({"a/Apply": {"f:whole": {}}}));
    assert!(cluster.conflict("b", json!({"whole": {"b": "2"}})).ends_with("\"a\": .spec.whole"));
    cluster.apply("b", json!({"whole": {"b": "2"}}), true).unwrap();
    assert_eq!(cluster.spec(), json!({"whole": {"b": "2"}}));
}

#[test]
fn a_set_is_owned_by_value() {
    let mut cluster = Cluster::new();
    cluster.applied("a", json!({"set": ["x", "y"]}));
    assert_eq!(cluster.owners(), json!({"a/Apply": {"f:set": {"v:\"x\"": {}, "v:\"y\"": {}}}}));
    cluster.applied("b", json!({"set": ["z", "y"]}));
    assert_eq!(cluster.spec(), json!({"set": ["x", "z", "y"]}));
    cluster.applied("a", json!({"set": ["x"]}));
    assert_eq!(cluster.spec(), json!({"set": ["x", "z", "y"]}), "y is b's too");
    cluster.applied("b", json!({"set": ["z"]}));
    assert_eq!(cluster.spec(), json!({"set": ["x", "z"]}));
}

#[test]
fn a_map_is_owned_by_key() {
    let mut cluster = Cluster::new();
    cluster
        .applied("a", json!({"env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]}));
    let owned = json!({"a/Apply": {"f:env": {
        "k:{\"name\":\"A\"}": {".": {}, "f:name": {}, "f:value": {}},
        "k:{\"name\":\"B\"}": {".": {}, "f:name": {}, "f:value": {}},
    }}});
    assert_eq!(cluster.owners(), owned);
    assert_eq!(
        cluster.conflict("b", json!({"env": [{"name": "A", "value": "3"}]})),
        "Apply failed with 1 conflict: conflict with \"a\": .spec.env[name=\"A\"].value"
    );
    cluster.applied("b", json!({"env": [{"name": "A", "tags": ["t"]}, {"name": "C"}]}));
    cluster.applied("a", json!({"env": [{"name": "B", "value": "2"}]}));
    let env = json!([{"name": "A", "tags": ["t"]}, {"name": "B", "value": "2"}, {"name": "C"}]);
    assert_eq!(cluster.spec()["env"], env);
}

#[test]
fn a_key_may_have_several_parts_and_defaults() {
    let mut cluster = Cluster::new();
    cluster.applied("a", json!({"ports": [{"port": 80, "name": "web"}]}));
    let owned = json!({"a/Apply": {"f:ports": {
        "k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}, "f:name": {}},
    }}});
    assert_eq!(cluster.owners(), owned);
    assert_eq!(
        cluster.conflict("b", json!({"ports": [{"port": 80, "protocol": "TCP", "name": "x"}]})),
        "Apply failed with 1 conflict: conflict with \"a\": .spec.ports[port=80,protocol=\"TCP\"].name"
    );
    cluster.applied("b", json!({"ports": [{"port": 80, "protocol": "UDP"}]}));
    let ports = json!([{"port": 80, "name": "web"}, {"port": 80, "protocol": "UDP"}]);
    assert_eq!(cluster.spec()["ports"], ports);
}

#[test]
fn the_applier_decides_the_order_of_what_it_names() {
    let cases = [
        (json!(["a", "b", "c"]), json!(["c", "a"]), json!(["b", "c", "a"])),
        (json!(["a", "b"]), json!(["x", "a"]), json!(["x", "a", "b"])),
        (json!(["b", "a"]), json!(["x", "a"]), json!(["b", "x", "a"])),
        (json!(["a", "b"]), json!(["a", "x"]), json!(["a", "b", "x"])),
        (json!(["a", "b", "c"]), json!(["a", "x", "c"]), json!(["a", "b", "x", "c"])),
        (json!([]), json!(["x", "y"]), json!(["x", "y"])),
        (json!(["a"]), json!([]), json!(["a"])),
    ];
    for (live, wanted, merged) in cases {
        let spec = |set: &Value| super::body(json!({"set": set}));
        let (was, config) = (spec(&live), spec(&wanted));
        let result = merge(&Cluster::new().types.root, Some(&was), Some(&config)).unwrap();
        assert_eq!(result["spec"]["set"], merged, "{live} {wanted}");
    }
}

#[test]
fn a_live_list_with_duplicates_is_no_obstacle() {
    let mut cluster = Cluster::new();
    let twice = json!([{"name": "A", "value": "1"}, {"name": "A", "value": "2"}, {"name": "B"}]);
    cluster.update("u", |new| new["spec"]["env"] = twice.clone());
    cluster.applied("a", json!({"env": [{"name": "B", "value": "b"}]}));
    assert_eq!(cluster.spec()["env"][1]["value"], "2");
    cluster.apply("a", json!({"env": [{"name": "A", "value": "3"}]}), true).unwrap();
    assert_eq!(cluster.spec()["env"][0], json!({"name": "A", "value": "3"}));
}

#[test]
fn owner_references_and_finalizers_merge_whatever_the_schema_says() {
    let mut cluster = Cluster::new();
    let with = |owner: &str, finalizer: &str| {
        let mut body = super::body(json!({}));
        body["metadata"]["ownerReferences"] =
            json!([{"apiVersion": "v1", "kind": "K", "name": owner, "uid": owner}]);
        body["metadata"]["finalizers"] = json!([finalizer]);
        body["metadata"]["labels"] = json!({"l": "same", (owner): "1"});
        body
    };
    cluster.apply_object("a", with("o1", "x/f1"), false).unwrap();
    cluster.apply_object("b", with("o2", "x/f2"), false).unwrap();
    let metadata = &cluster.live.as_ref().unwrap()["metadata"];
    assert_eq!(metadata["finalizers"], json!(["x/f1", "x/f2"]));
    assert_eq!(metadata["ownerReferences"].as_array().unwrap().len(), 2);
    let b = cluster.entries().into_iter().find(|entry| entry["manager"] == "b").unwrap();
    assert_eq!(
        b["fieldsV1"]["f:metadata"],
        json!({
            "f:finalizers": {"v:\"x/f2\"": {}},
            "f:labels": {"f:l": {}, "f:o2": {}},
            "f:ownerReferences": {"k:{\"uid\":\"o2\"}": {}},
        })
    );
}

/// What was compared with the merge library of Kubernetes on random sequences, and differed once.
#[test]
fn the_applier_decides_the_order_of_what_both_have() {
    // live, wanted, merged
    let cases = [
        (json!(["b", "d", "a"]), json!(["a", "b"]), json!(["d", "a", "b"])),
        (json!(["a", "c", "d"]), json!(["b", "d", "a"]), json!(["c", "b", "d", "a"])),
        (json!(["a", "b", "d"]), json!(["c", "d", "a"]), json!(["b", "c", "d", "a"])),
        (json!(["b", "d", "c"]), json!(["a", "c", "b"]), json!(["d", "a", "c", "b"])),
        (json!(["x", "y"]), json!(["z", "y"]), json!(["x", "z", "y"])),
        (json!([]), json!(["b", "a"]), json!(["b", "a"])),
        (json!(["b", "a"]), json!(["c"]), json!(["b", "a", "c"])),
    ];
    for (live, wanted, merged) in cases {
        let mut cluster = Cluster::new();
        cluster.applied("a", json!({"set": live}));
        cluster.applied("b", json!({"set": wanted}));
        assert_eq!(cluster.spec()["set"], merged, "{live} and then {wanted}");
    }
}

#[test]
fn another_order_is_a_change() {
    let mut cluster = Cluster::new();
    cluster.applied("a", json!({"set": ["x", "y"]}));
    cluster.applied("a", json!({"set": ["y", "x"]}));
    assert_eq!(cluster.spec()["set"], json!(["y", "x"]));
    assert_eq!(cluster.time_of("a").unwrap(), "2026-01-01T00:00:02Z");
}

#[test]
fn items_that_come_twice_are_owned_as_one() {
    let mut cluster = Cluster::new();
    let item = |value: &str| json!({"name": "A", "value": value});
    cluster.applied("a", json!({"env": [item("1")]}));
    cluster.update("b", |object| object["spec"]["env"] = json!([item("1"), item("2")]));
    assert_eq!(
        cluster.owners(),
        json!({"b/Update": {"f:env": {"k:{\"name\":\"A\"}": {}}}}),
        "a's item is gone, and b has made two of them"
    );
    cluster.update("c", |object| object["spec"]["env"] = json!([item("2")]));
    let parts = json!({".": {}, "f:name": {}, "f:value": {}});
    assert_eq!(
        cluster.owners(),
        json!({"c/Update": {"f:env": {"k:{\"name\":\"A\"}": parts}}}),
        "one item again, which is c's"
    );
}
