#![allow(clippy::unwrap_used)]

use commonage_store::Version;
use serde_json::{Value, json};

use super::{Fields, Object, encode, encode_with};
use crate::cache::EventKind;

fn fields() -> Fields {
    Fields::new([("spec.agent", ".spec.agent"), ("status.state", ".status.state")].into_iter())
}

fn sample() -> serde_json::Value {
    json!({
        "apiVersion": "commonage.dev/v1", "data": {"metadata": {"x": 1}}, "kind": "Task",
        "metadata": {"name": "a", "namespace": "ns", "uid": "u1", "labels": {"z": "1", "b": "2"}},
        "spec": {"agent": "node-1", "nested": {"agent": "no"}, "list": [{"agent": "no"}]},
    })
}

#[test]
fn a_value_round_trips_with_its_version_spliced_in() {
    let (object, line) =
        Object::decode(&fields(), "ns/a", &encode(&sample()), Version(1234), EventKind::Added)
            .unwrap();
    let mut expected = sample();
    expected["metadata"]["resourceVersion"] = json!("1234");
    assert_eq!(object.to_value(), expected);
    let event: serde_json::Value = serde_json::from_slice(&line).unwrap();
    assert_eq!(event, json!({"type": "ADDED", "object": expected}));
    assert!(line.ends_with(b"}}\n"));
    assert_eq!((object.namespace(), object.name(), &*object.uid), ("ns", "a", "u1"));
    assert_eq!(
        (object.label("b"), object.label("z"), object.label("c")),
        (Some("2"), Some("1"), None)
    );
    assert_eq!(
        object.fields.iter().map(|f| f.as_deref()).collect::<Vec<_>>(),
        [Some("node-1"), None]
    );
    assert!(!object.deleting);
}

#[test]
fn another_version_replaces_only_the_version() {
    let (object, _) =
        Object::decode(&fields(), "ns/a", &encode(&sample()), Version(9), EventKind::Added)
            .unwrap();
    let (later, line) = object.at_version(Version(u64::MAX), EventKind::Deleted);
    let mut expected = sample();
    expected["metadata"]["resourceVersion"] = json!(u64::MAX.to_string());
    assert_eq!(later.to_value(), expected);
    let event: serde_json::Value = serde_json::from_slice(&line).unwrap();
    assert_eq!(event["type"], "DELETED");
    assert_eq!(later.at_version(Version(9), EventKind::Added).0.body, object.body);
    assert_eq!(
        object.line(EventKind::Modified),
        object.at_version(Version(9), EventKind::Modified).1
    );
}

#[test]
fn a_dry_run_has_no_version() {
    let (object, _) =
        Object::decode(&fields(), "/a", &encode(&sample()), Version(0), EventKind::Added).unwrap();
    assert_eq!(object.to_value(), sample());
    assert_eq!((object.namespace(), object.name()), ("", "a"));
}

#[test]
fn deletion_and_other_scalar_fields_are_seen() {
    let mut value = sample();
    value["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    value["spec"]["agent"] = json!(7);
    let (object, _) =
        Object::decode(&fields(), "ns/a", &encode(&value), Version(1), EventKind::Added).unwrap();
    assert!(object.deleting);
    assert_eq!(object.fields[0].as_deref(), Some("7"));
}

#[test]
fn managed_fields_are_cut_out_wherever_they_stand() {
    let entries = json!([{"manager": "m", "fieldsV1": {"f:spec": {"f:managedFields": {}}}}]);
    let alone = json!({"metadata": {"managedFields": entries}});
    let mut among = sample();
    among["metadata"]["managedFields"] = entries.clone();
    let mut first = json!({"metadata": {"managedFields": entries, "name": "a"}});
    first["spec"] = json!({"managedFields": [1]});
    for (content, version) in [(alone, 0), (among, 7), (first, 0), (sample(), 7), (sample(), 0)] {
        let decoded = Object::decode(
            &fields(),
            "ns/a",
            &encode(&content),
            Version(version),
            EventKind::Added,
        );
        let (object, _) = decoded.unwrap();
        let mut lean = object.to_value();
        let whole = lean["metadata"].clone();
        lean["metadata"].as_object_mut().unwrap().remove("managedFields");
        let body: serde_json::Value = serde_json::from_slice(&object.body_of(true)).unwrap();
        assert_eq!(body, lean);
        assert_eq!(object.body_of(false), object.body);
        for (wants_lean, expected) in [(true, &lean["metadata"]), (false, &whole)] {
            let mut metadata = Vec::new();
            object.put_metadata(&mut metadata, wants_lean);
            let metadata: serde_json::Value = serde_json::from_slice(&metadata).unwrap();
            assert_eq!(&metadata, expected);
        }
    }
}

#[test]
fn entries_are_taken_out_and_put_back_where_they_were() {
    let entries = json!([{"manager": "m,]\"", "fieldsV1": {"f:a": {}}}]);
    let with = |metadata: Value| {
        let mut object = sample();
        object["metadata"] = metadata;
        object
    };
    for (metadata, there) in [
        (json!({"labels": {"a": "b"}, "managedFields": entries, "name": "a", "uid": "u"}), true),
        (json!({"annotations": {}, "managedFields": entries}), true),
        (json!({"managedFields": entries, "name": "a"}), true),
        (json!({"managedFields": entries}), true),
        (json!({"name": "a", "uid": "u"}), false),
    ] {
        let object = with(metadata.clone());
        for version in [Version(7), Version(0)] {
            let stored = encode(&object);
            let (cached, _) =
                Object::decode(&fields(), "ns/a", &stored, version, EventKind::Added).unwrap();
            let (mut rest, text) = cached.to_value_and_entries();
            let mut whole = cached.to_value();
            for tree in [&mut rest, &mut whole] {
                tree["metadata"].as_object_mut().unwrap().remove("resourceVersion");
            }
            assert_eq!(text.is_some(), there, "{metadata}");
            assert_eq!(rest["metadata"].get("managedFields"), None);
            assert_eq!(encode_with(&rest, text.as_deref()), stored, "{metadata}");
            assert_eq!(whole, object);
        }
    }
}
