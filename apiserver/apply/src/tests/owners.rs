//! Who owns what after applies and updates by several managers.

use serde_json::json;

use super::{Cluster, body};

#[test]
fn an_applier_owns_what_it_sends_and_nothing_else() {
    let mut cluster = Cluster::new();
    cluster.applied("a", json!({"text": "x", "inner": {"a": "y"}, "map": {"k": "v"}}));
    let owned = json!({"a/Apply": {
        "f:text": {}, "f:inner": {"f:a": {}}, "f:map": {"f:k": {}},
    }});
    assert_eq!(cluster.owners(), owned);
    let entry = &cluster.entries()[0];
    assert_eq!(entry["fieldsType"], "FieldsV1");
    assert_eq!(entry["apiVersion"], "x/v1");
    assert!(entry["fieldsV1"].get("f:metadata").is_none(), "{entry}");
    assert!(entry.get("subresource").is_none());
}

#[test]
fn a_create_owns_every_level() {
    let mut cluster = Cluster::new();
    cluster.update("a", |new| {
        new["spec"] = json!({"text": "x", "map": {}, "env": [{"name": "A", "value": "1"}]});
        new["metadata"]["labels"] = json!({"l": "1"});
        new["metadata"]["generateName"] = json!("g-");
        new["metadata"]["uid"] = json!("u");
        new["status"] = json!({"state": "s"});
    });
    assert_eq!(
        cluster.entries()[0]["fieldsV1"],
        json!({
            "f:metadata": {"f:generateName": {}, "f:labels": {".": {}, "f:l": {}}},
            "f:spec": {
                ".": {}, "f:text": {}, "f:map": {},
                "f:env": {".": {}, "k:{\"name\":\"A\"}": {".": {}, "f:name": {}, "f:value": {}}},
            },
        })
    );
}

#[test]
fn another_value_for_a_field_of_another_applier_is_a_conflict() {
    let mut cluster = Cluster::new();
    cluster.applied("a", json!({"text": "x", "count": 1}));
    assert_eq!(
        cluster.conflict("b", json!({"text": "y"})),
        "Apply failed with 1 conflict: conflict with \"a\": .spec.text"
    );
    assert_eq!(
        cluster.conflict("b", json!({"text": "y", "count": 2})),
        "Apply failed with 2 conflicts: conflicts with \"a\":\n- .spec.count\n- .spec.text"
    );
    cluster.update("u", |new| new["spec"]["other"] = json!("o"));
    assert_eq!(
        cluster.conflict("b", json!({"other": "y", "text": "y"})),
        "Apply failed with 2 conflicts: conflicts with \"a\":\n- .spec.text\n\
         conflicts with \"u\" using x/v1:\n- .spec.other"
    );
}

#[test]
fn force_takes_the_field() {
    let mut cluster = Cluster::new();
    cluster.applied("a", json!({"text": "x", "count": 1}));
    cluster.apply("b", json!({"text": "y"}), true).unwrap();
    assert_eq!(cluster.spec(), json!({"text": "y", "count": 1}));
    let owned = json!({"a/Apply": {"f:count": {}}, "b/Apply": {"f:text": {}}});
    assert_eq!(cluster.owners(), owned);
    // Who lost its last field has no entry.
    cluster.apply("b", json!({"text": "y", "count": 2}), true).unwrap();
    assert_eq!(cluster.owners(), json!({"b/Apply": {"f:text": {}, "f:count": {}}}));
}

#[test]
fn the_same_value_is_shared() {
    let mut cluster = Cluster::new();
    cluster.applied("a", json!({"text": "x"}));
    cluster.applied("b", json!({"text": "x"}));
    assert_eq!(cluster.owners(), json!({"a/Apply": {"f:text": {}}, "b/Apply": {"f:text": {}}}));
    assert!(cluster.conflict("a", json!({"text": "y"})).contains("\"b\": .spec.text"));
    cluster.applied("a", json!({"other": "o"}));
    assert_eq!(cluster.spec(), json!({"text": "x", "other": "o"}));
    // The last owner takes it along.
    cluster.applied("b", json!({}));
    assert_eq!(cluster.spec(), json!({"other": "o"}));
}

#[test]
fn what_an_applier_drops_goes() {
    let mut cluster = Cluster::new();
    cluster.applied(
        "a",
        json!({"text": "x", "inner": {"a": "1", "b": "2"}, "map": {"k": "v", "l": "w"}}),
    );
    cluster.applied("a", json!({"text": "x", "inner": {"a": "1"}, "map": {"l": "w"}}));
    assert_eq!(cluster.spec(), json!({"text": "x", "inner": {"a": "1"}, "map": {"l": "w"}}));
    cluster.applied("a", json!({"text": "x"}));
    assert_eq!(cluster.spec(), json!({"text": "x"}));
}

#[test]
fn dropping_a_struct_leaves_what_others_have_inside() {
    let mut cluster = Cluster::new();
    cluster.applied("a", json!({"inner": {"a": "1"}}));
    cluster.applied("b", json!({"inner": {"b": "2"}}));
    cluster.applied("a", json!({"text": "x"}));
    assert_eq!(cluster.spec(), json!({"text": "x", "inner": {"b": "2"}}));
}

#[test]
fn what_nobody_owns_stays_unless_its_struct_is_dropped() {
    let mut cluster = Cluster::new();
    cluster.applied("a", json!({"map": {"k": "v", "l": "w"}, "text": "x"}));
    // A default, say: in the object, in nobody's set.
    cluster.live.as_mut().unwrap()["spec"]["map"]["free"] = json!("2");
    cluster.live.as_mut().unwrap()["spec"]["count"] = json!(7);
    cluster.applied("a", json!({"map": {"k": "v"}}));
    assert_eq!(cluster.spec(), json!({"map": {"free": "2", "k": "v"}, "count": 7}));
    cluster.applied("a", json!({"other": "y"}));
    assert_eq!(cluster.spec(), json!({"other": "y", "count": 7}));
}

#[test]
fn an_update_takes_what_it_changes() {
    let mut cluster = Cluster::new();
    cluster.applied("a", json!({"text": "x", "count": 1, "map": {"k": "v"}}));
    cluster.update("u", |new| {
        new["spec"]["text"] = json!("y");
        new["spec"]["map"]["l"] = json!("w");
        new["spec"].as_object_mut().unwrap().remove("count");
    });
    let owned = json!({
        "a/Apply": {"f:map": {"f:k": {}}},
        "u/Update": {"f:text": {}, "f:map": {"f:l": {}}},
    });
    assert_eq!(cluster.owners(), owned);
}

#[test]
fn the_same_manager_has_one_entry_per_operation() {
    let mut cluster = Cluster::new();
    cluster.applied("a", json!({"text": "x"}));
    cluster.update("a", |new| new["spec"]["text"] = json!("y"));
    cluster.update("a", |new| new["spec"]["count"] = json!(1));
    assert_eq!(cluster.owners(), json!({"a/Update": {"f:text": {}, "f:count": {}}}));
    assert_eq!(
        cluster.conflict("a", json!({"text": "x"})),
        "Apply failed with 1 conflict: conflict with \"a\" using x/v1: .spec.text"
    );
}

#[test]
fn a_subresource_has_entries_of_its_own() {
    let mut cluster = Cluster::new();
    cluster.applied("a", json!({"text": "x"}));
    cluster.status(|cluster| {
        cluster.update("a", |new| new["status"] = json!({"state": "up"}));
        let mut wanted = body(json!({"text": "other"}));
        wanted["status"] = json!({"state": "down"});
        let error = cluster.apply_object("b", wanted.clone(), false).unwrap_err();
        assert_eq!(
            error.to_string(),
            "Apply failed with 1 conflict: conflict with \"a\" with subresource \"status\" using x/v1: .status.state"
        );
        cluster.apply_object("b", wanted, true).unwrap();
    });
    let entries = cluster.entries();
    let of = |manager: &str| {
        let entry = entries.iter().find(|entry| entry["manager"] == manager).unwrap();
        (entry["fieldsV1"].clone(), entry.get("subresource").cloned())
    };
    assert_eq!(of("a"), (json!({"f:spec": {"f:text": {}}}), None));
    assert_eq!(of("b"), (json!({"f:status": {"f:state": {}}}), Some(json!("status"))));
}

#[test]
fn the_main_resource_does_not_own_the_status() {
    let mut cluster = Cluster::new();
    let mut wanted = body(json!({"text": "x"}));
    wanted["status"] = json!({"state": "up"});
    cluster.apply_object("a", wanted, false).unwrap();
    assert_eq!(cluster.entries()[0]["fieldsV1"], json!({"f:spec": {"f:text": {}}}));
}

#[test]
fn an_apply_of_the_same_changes_nothing() {
    let mut cluster = Cluster::new();
    cluster.applied("a", json!({"text": "x", "env": [{"name": "A", "value": "1"}]}));
    let before = cluster.live.clone();
    cluster.applied("a", json!({"text": "x", "env": [{"name": "A", "value": "1"}]}));
    assert_eq!(cluster.live, before);
}

#[test]
fn a_time_is_that_of_the_last_change() {
    let mut cluster = Cluster::new();
    cluster.applied("a", json!({"text": "x"}));
    cluster.applied("b", json!({"text": "x"}));
    assert_eq!(cluster.time_of("a").as_deref(), Some("2026-01-01T00:00:01Z"));
    // A change of owners alone has no time, as in Kubernetes.
    assert_eq!(cluster.time_of("b"), None);
    cluster.update("u", |new| new["spec"]["count"] = json!(1));
    cluster.update("v", |new| new["spec"]["on"] = json!(true));
    cluster.update("u", |_| {});
    assert_eq!(cluster.time_of("u").as_deref(), Some("2026-01-01T00:00:03Z"));
    cluster.update("u", |new| new["spec"]["count"] = json!(2));
    assert_eq!(cluster.time_of("u").as_deref(), Some("2026-01-01T00:00:06Z"));
    assert_eq!(cluster.time_of("v").as_deref(), Some("2026-01-01T00:00:04Z"));
}

#[test]
fn the_first_apply_finds_owners_for_an_untracked_object() {
    let mut cluster = Cluster::new();
    cluster.live = Some(body(json!({"text": "x", "count": 1})));
    // An update does not begin to track.
    cluster.update("u", |new| new["spec"]["count"] = json!(2));
    assert!(cluster.entries().is_empty());
    assert_eq!(
        cluster.conflict("a", json!({"text": "y"})),
        "Apply failed with 1 conflict: conflict with \"before-first-apply\" using x/v1: .spec.text"
    );
    cluster.applied("a", json!({"text": "x"}));
    let owned = json!({
        "a/Apply": {"f:text": {}},
        "before-first-apply/Update": {".": {}, "f:text": {}, "f:count": {}},
    });
    assert_eq!(cluster.owners(), owned);
}

#[test]
fn null_is_a_value_that_is_owned() {
    let mut cluster = Cluster::new();
    cluster.applied("a", json!({"text": null}));
    assert_eq!(cluster.owners(), json!({"a/Apply": {"f:text": {}}}));
}

#[test]
fn an_empty_map_is_owned_as_such() {
    let mut cluster = Cluster::new();
    cluster.applied("a", json!({"map": {}}));
    assert_eq!(cluster.spec(), json!({"map": {}}));
    assert_eq!(cluster.owners(), json!({"a/Apply": {"f:map": {}}}));
    cluster.applied("b", json!({"map": {"k": "v"}}));
    assert_eq!(cluster.spec(), json!({"map": {"k": "v"}}));
}

#[test]
fn a_free_field_is_what_its_values_are() {
    let mut cluster = Cluster::new();
    cluster.applied("a", json!({"free": {"n": 1, "deep": {"x": 1}, "list": [1, {"y": 2}]}}));
    let owned = json!({"a/Apply": {"f:free": {
        "f:n": {}, "f:deep": {".": {}, "f:x": {}}, "f:list": {},
    }}});
    assert_eq!(cluster.owners(), owned);
    cluster.applied("b", json!({"free": {"deep": {"z": 3}}}));
    assert!(cluster.conflict("b", json!({"free": {"list": [2]}})).contains(".spec.free.list"));
    cluster.applied("a", json!({"free": {"n": 1}}));
    assert_eq!(cluster.spec(), json!({"free": {"n": 1, "deep": {"z": 3}}}));
    // A value of another form replaces.
    cluster.apply("a", json!({"free": {"n": {"m": 1}, "deep": "flat"}}), true).unwrap();
    assert_eq!(cluster.spec(), json!({"free": {"n": {"m": 1}, "deep": "flat"}}));
}

#[test]
fn what_the_schema_made_atomic_is_owned_as_a_whole() {
    let mut cluster = Cluster::new();
    cluster.applied("a", json!({"map": {"k": "v"}}));
    let mut atomic = super::schema();
    atomic["properties"]["spec"]["properties"]["map"]["x-kubernetes-map-type"] = json!("atomic");
    cluster.types = crate::Types::compile(&atomic);
    assert!(cluster.conflict("b", json!({"map": {"l": "w"}})).ends_with("\"a\": .spec.map"));
    cluster.applied("a", json!({"text": "x"}));
    assert_eq!(cluster.spec(), json!({"text": "x"}));
}
