//! The entries themselves: order, limit, what clients may do with them, the annotation of kubectl.

use serde_json::{Value, json};

use super::{Cluster, body};
use crate::{ApplyError, differ_in_time_only};

#[test]
fn entries_are_sorted_by_operation_then_time() {
    let mut cluster = Cluster::new();
    cluster.update("z", |new| new["spec"]["text"] = json!("x"));
    cluster.update("b", |new| new["spec"]["count"] = json!(1));
    cluster.applied("y", json!({"other": "o"}));
    cluster.update("z", |new| new["spec"]["text"] = json!("y"));
    let managers: Vec<Value> =
        cluster.entries().iter().map(|entry| entry["manager"].clone()).collect();
    assert_eq!(managers, ["y", "b", "z"]);
}

#[test]
fn the_oldest_of_too_many_updates_are_joined() {
    let mut cluster = Cluster::new();
    for number in 0..12 {
        let label = format!("l{number:02}");
        cluster.update(&format!("m{number:02}"), |new| {
            new["metadata"]["labels"][label] = json!("1");
        });
    }
    cluster.applied("a", json!({"text": "x"}));
    let entries = cluster.entries();
    assert_eq!(entries.len(), 11);
    let ancient = entries.iter().find(|entry| entry["manager"] == "ancient-changes").unwrap();
    assert_eq!(
        ancient["fieldsV1"]["f:metadata"]["f:labels"],
        json!({".": {}, "f:l00": {}, "f:l01": {}, "f:l02": {}})
    );
    assert_eq!(ancient["time"], "2026-01-01T00:00:03Z");
    assert_eq!(entries.last().unwrap()["manager"], "m11");
}

#[test]
fn a_client_may_reset_and_edit_entries() {
    for reset in [json!([{}]), json!([])] {
        let mut cluster = Cluster::new();
        cluster.applied("a", json!({"text": "x"}));
        cluster.update("u", |new| new["metadata"]["managedFields"] = reset);
        assert!(cluster.entries().is_empty());
    }
    let mut cluster = Cluster::new();
    cluster.applied("a", json!({"text": "x"}));
    cluster.update("u", |new| new["metadata"]["managedFields"][0]["manager"] = json!("b"));
    assert_eq!(cluster.owners(), json!({"b/Apply": {"f:text": {}}}));
}

#[test]
fn entries_left_out_or_invalid_are_those_that_were() {
    let mut cluster = Cluster::new();
    cluster.applied("a", json!({"text": "x"}));
    let before = cluster.entries();
    let invalid = [
        json!(null),
        json!([{"manager": "x", "operation": "Delete", "apiVersion": "v1", "fieldsType": "FieldsV1"}]),
        json!([{"manager": "x", "operation": "Update", "fieldsType": "FieldsV1"}]),
        json!([{"manager": "x", "operation": "Update", "apiVersion": "v1", "fieldsType": "V2"}]),
        json!([{"manager": "x", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {"f:a": 1}}]),
    ];
    for sent in invalid {
        cluster.update("u", |new| new["metadata"]["managedFields"] = sent);
        assert_eq!(cluster.entries(), before);
    }
    cluster.update("u", |new| {
        new["metadata"].as_object_mut().unwrap().remove("managedFields");
    });
    assert_eq!(cluster.entries(), before);
}

#[test]
fn a_subresource_cannot_edit_entries() {
    let mut cluster = Cluster::new();
    cluster.applied("a", json!({"text": "x"}));
    let before = cluster.entries();
    cluster.status(|cluster| {
        cluster.update("u", |new| new["metadata"]["managedFields"] = json!([{}]));
    });
    assert_eq!(cluster.entries(), before);
}

#[test]
fn an_applier_may_not_send_entries() {
    let mut cluster = Cluster::new();
    let mut wanted = body(json!({}));
    wanted["metadata"]["managedFields"] = json!([]);
    assert_eq!(
        cluster.apply_object("a", wanted, false),
        Err(ApplyError::BadRequest("metadata.managedFields must be nil".into()))
    );
}

#[test]
fn times_alone_are_no_difference() {
    let one = |time: &str, manager: &str| json!([{"manager": manager, "time": time}]);
    let differ = |a: Value, b: Value| differ_in_time_only(Some(&a), Some(&b));
    assert!(differ(one("1", "a"), one("2", "a")));
    assert!(differ(one("1", "a"), json!([{"manager": "a"}])));
    assert!(!differ(one("1", "a"), one("1", "b")));
    assert!(!differ(one("1", "a"), json!([])));
    assert!(!differ_in_time_only(None, Some(&json!([]))));
}

/// An object as client-side apply leaves it.
fn client_side_applied() -> Cluster {
    let mut cluster = Cluster::new();
    let last = body(json!({"text": "x", "count": 1})).to_string();
    cluster.update("kubectl-client-side-apply", |new| {
        new["spec"] = json!({"text": "x", "count": 1});
        new["metadata"]["annotations"] =
            json!({"kubectl.kubernetes.io/last-applied-configuration": last});
    });
    cluster
}

#[test]
fn kubectl_takes_over_what_it_applied_on_the_client_side() {
    let mut cluster = client_side_applied();
    cluster.applied("kubectl", json!({"text": "y", "count": 1}));
    assert_eq!(cluster.spec(), json!({"text": "y", "count": 1}));
    let annotation = "/metadata/annotations/kubectl.kubernetes.io~1last-applied-configuration";
    let text = cluster.live.as_ref().unwrap().pointer(annotation).unwrap().as_str().unwrap();
    assert!(text.ends_with("}\n"));
    assert_eq!(serde_json::from_str::<Value>(text).unwrap()["spec"]["text"], "y");
}

#[test]
fn others_do_not_and_neither_does_kubectl_what_changed_since() {
    let mut cluster = client_side_applied();
    let conflict = cluster.conflict("someone", json!({"text": "y"}));
    assert!(
        conflict.contains("\"kubectl-client-side-apply\" using x/v1: .spec.text"),
        "{conflict}"
    );
    cluster.update("u", |new| new["spec"]["text"] = json!("z"));
    assert_eq!(
        cluster.conflict("kubectl", json!({"text": "y", "count": 2})),
        "Apply failed with 1 conflict: conflict with \"u\" using x/v1: .spec.text"
    );
}
