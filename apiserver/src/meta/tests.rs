#![allow(clippy::unwrap_used)]
use serde_json::json;

use super::*;
use crate::resource::tests::task_def;

fn now() -> Timestamp {
    "2026-11-20T15:41:51.5Z".parse().unwrap()
}

fn new_task() -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Task", "metadata": {"name": "a"}, "spec": {"command": ["x"]}})
}

#[test]
fn a_create_gets_what_only_the_server_sets() {
    let def = task_def();
    let mut task = new_task();
    task["status"] = json!({"phase": "Done"});
    task["metadata"]["uid"] = json!("mine");
    task["metadata"]["generation"] = json!(7);
    prepare_create(&def, Some("ns"), &mut task, now()).unwrap();
    assert_eq!(task["metadata"]["namespace"], "ns");
    assert_eq!(task["metadata"]["creationTimestamp"], "2026-11-20T15:41:51Z");
    assert_eq!(task["metadata"]["generation"], 1);
    assert_ne!(task["metadata"]["uid"], "mine");
    assert_eq!(task.get("status"), None);
}

#[test]
fn a_name_is_generated_from_its_base() {
    let mut task = new_task();
    task["metadata"] = json!({"generateName": "web-"});
    prepare_create(&task_def(), Some("ns"), &mut task, now()).unwrap();
    let name = task["metadata"]["name"].as_str().unwrap();
    assert!(name.starts_with("web-") && name.len() == 9, "{name}");
    assert_eq!(generate_name(&"x".repeat(100)).len(), 63);
}

#[test]
fn a_create_that_contradicts_its_url_is_refused() {
    let cases = [
        (
            json!({"apiVersion": "example.com/v2"}),
            400,
            "does not match the expected API version (example.com/v1)",
        ),
        (json!({"kind": "Agent"}), 400, "cannot be handled as a Task"),
        (json!({"kind": ""}), 400, "Object 'Kind' is missing in"),
        (
            json!({"metadata": {"name": "a", "namespace": "other"}}),
            400,
            "does not match the namespace sent",
        ),
        (
            json!({"metadata": {"name": "a", "resourceVersion": "5"}}),
            400,
            "resourceVersion should not be set",
        ),
        (
            json!({"metadata": {"name": "a", "labels": {"x": 5}}}),
            400,
            "metadata.labels must be a map of strings",
        ),
        (
            json!({"metadata": {}}),
            422,
            "metadata.name: Required value: name or generateName is required",
        ),
        (json!({"metadata": []}), 400, "metadata must be an object"),
    ];
    for (change, code, message) in cases {
        let mut task = new_task();
        for (field, value) in change.as_object().unwrap() {
            task[field] = value.clone();
        }
        let error = prepare_create(&task_def(), Some("ns"), &mut task, now()).unwrap_err();
        assert_eq!(error.code, code, "{change}");
        assert!(error.message.contains(message), "{change}: {}", error.message);
    }
}

fn stored() -> Value {
    let mut task = new_task();
    prepare_create(&task_def(), Some("ns"), &mut task, now()).unwrap();
    task["metadata"]["resourceVersion"] = json!("9");
    task["status"] = json!({"phase": "Running"});
    task
}

#[test]
fn an_update_keeps_what_is_not_the_clients() {
    let old = stored();
    let mut new = old.clone();
    new["metadata"]["creationTimestamp"] = json!("1999-01-01T00:00:00Z");
    new["metadata"]["labels"] = json!({"a": "b"});
    new["status"] = json!({});
    prepare_update(&task_def(), None, &old, &mut new).unwrap();
    assert_eq!(new["metadata"]["creationTimestamp"], old["metadata"]["creationTimestamp"]);
    assert_eq!(new["status"], old["status"]);
    count_generation(&task_def(), &old, &mut new);
    assert_eq!(new["metadata"]["generation"], 1, "metadata does not count");
    new["spec"]["command"] = json!(["y"]);
    prepare_update(&task_def(), None, &old, &mut new).unwrap();
    count_generation(&task_def(), &old, &mut new);
    assert_eq!(new["metadata"]["generation"], 2);
}

#[test]
fn a_status_update_touches_nothing_else() {
    let old = stored();
    let mut new = old.clone();
    new["spec"]["command"] = json!(["y"]);
    new["metadata"]["labels"] = json!({"a": "b"});
    new["status"] = json!({"phase": "Done"});
    prepare_update(&task_def(), Some("status"), &old, &mut new).unwrap();
    let mut wanted = old.clone();
    wanted["status"] = json!({"phase": "Done"});
    assert_eq!(new, wanted);
}

#[test]
fn an_update_of_another_object_is_refused() {
    let old = stored();
    for (field, code) in [("name", 400), ("namespace", 400), ("uid", 409)] {
        let mut new = old.clone();
        new["metadata"][field] = json!("other");
        assert_eq!(
            prepare_update(&task_def(), None, &old, &mut new).unwrap_err().code,
            code,
            "{field}"
        );
    }
}

#[test]
fn custom_kinds_must_name_a_version_in_updates() {
    let def = task_def();
    assert_eq!(required_version(&def, &stored()), Ok(Some(9)));
    let error = required_version(&def, &new_task()).unwrap_err();
    assert_eq!(
        error.message,
        "Task.example.com \"a\" is invalid: metadata.resourceVersion: Invalid value: 0: must be specified for an \
         update"
    );
    let built_in = ResourceDef { allow_unconditional_update: true, ..def };
    assert_eq!(required_version(&built_in, &new_task()), Ok(None));
}

#[test]
fn metadata_is_checked_in_kubernetes_words() {
    let cases = [
        (json!({"name": "A"}), "metadata.name", "a lowercase RFC 1123 subdomain must consist of"),
        (
            json!({"name": "a", "labels": {"-": "b"}}),
            "metadata.labels",
            "name part must consist of",
        ),
        (
            json!({"name": "a", "labels": {"x": "!"}}),
            "metadata.labels",
            "a valid label must be an empty string or",
        ),
        (
            json!({"name": "a", "labels": {"a/b/c": ""}}),
            "metadata.labels",
            "a qualified name must consist of",
        ),
        (
            json!({"name": "a", "labels": {"/b": ""}}),
            "metadata.labels",
            "prefix part must be non-empty",
        ),
        (
            json!({"name": "a", "annotations": {" ": ""}}),
            "metadata.annotations",
            "name part must consist of",
        ),
        (
            json!({"name": "a", "finalizers": ["a b"]}),
            "metadata.finalizers",
            "name part must consist of",
        ),
        (
            json!({"name": "a", "ownerReferences": [{"kind": "K", "name": "n", "uid": "u"}]}),
            "metadata.ownerReferences[0].apiVersion",
            "version must not be empty",
        ),
        (
            json!({"name": "a", "ownerReferences": [
            {"apiVersion": "v1", "kind": "K", "name": "n", "uid": "u", "controller": true},
            {"apiVersion": "v1", "kind": "K", "name": "m", "uid": "v", "controller": true}]}),
            "metadata.ownerReferences",
            "Only one reference can have Controller set to true",
        ),
        (
            json!({"name": "a", "generateName": "B-"}),
            "metadata.generateName",
            "a lowercase RFC 1123 subdomain",
        ),
    ];
    for (metadata, field, message) in cases {
        let causes = validate(&task_def(), &json!({"metadata": metadata}));
        assert_eq!(causes.len(), 1, "{metadata}: {causes:?}");
        assert_eq!(causes[0].field, field, "{metadata}");
        assert!(causes[0].message.contains(message), "{metadata}: {}", causes[0].message);
    }
    let fine = json!({"name": "a.b-c", "generateName": "a-", "labels": {"example.com/X_y": "Z.1"},
        "annotations": {"Example.com/x": "any thing"}, "finalizers": ["commonage.dev/task"]});
    assert_eq!(validate(&task_def(), &json!({"metadata": fine})), vec![]);
}

#[test]
fn a_deleting_object_takes_no_new_finalizers() {
    let old = json!({"metadata": {"name": "a", "deletionTimestamp": "x", "finalizers": ["a/a"]}});
    let new =
        json!({"metadata": {"name": "a", "deletionTimestamp": "x", "finalizers": ["a/a", "b/b"]}});
    let causes = validate_update(&task_def(), &old, &new);
    assert_eq!(
        causes[0].message,
        "Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers \
         []string{\"b/b\"}"
    );
    assert_eq!(validate_update(&task_def(), &new, &old), vec![]);
}

#[test]
fn finalizers_without_a_domain_draw_a_warning() {
    let object = json!({"metadata": {"finalizers": ["nodomain", "orphan", "x/y"]}});
    assert_eq!(
        warnings(&object),
        [
            "metadata.finalizers: \"nodomain\": prefer a domain-qualified finalizer name to avoid accidental conflicts \
          with other finalizer writers"
        ]
    );
}
