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

/// As the engine makes an object of a body.
fn made(def: &ResourceDef, object: &mut Value) -> Result<(), ApiError> {
    check_shape(def, object).map_err(|why| ApiError::undecodable(def, object, &why))?;
    check_api_version(def, object)?;
    accept_create(def, Some("ns"), object)?;
    prepare_create(def, object, now())?;
    check_type(def, object)
}

#[test]
fn a_create_gets_what_only_the_server_sets() {
    let def = task_def();
    let mut task = new_task();
    task["status"] = json!({"phase": "Done"});
    task["metadata"]["uid"] = json!("mine");
    task["metadata"]["generation"] = json!(7);
    made(&def, &mut task).unwrap();
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
    made(&task_def(), &mut task).unwrap();
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
        (
            json!({"apiVersion": ""}),
            400,
            "the API version in the data () does not match the expected API version (example.com/v1)",
        ),
        (
            json!({"kind": "Agent"}),
            422,
            "Agent.example.com \"a\" is invalid: kind: Invalid value: \"Agent\": must be Task",
        ),
        (
            json!({"metadata": {"name": "a", "namespace": "other"}}),
            400,
            "does not match the namespace sent",
        ),
        (
            json!({"metadata": {"name": "a", "labels": {"x": 5}}}),
            400,
            "Task in version \"v1\" cannot be handled as a Task: json: cannot unmarshal number into Go struct field \
             ObjectMeta.labels of type string",
        ),
        (
            json!({"metadata": {"finalizers": [1]}}),
            400,
            "json: cannot unmarshal number into Go struct field ObjectMeta.finalizers of type string",
        ),
        (
            json!({"metadata": {"ownerReferences": [{"uid": true}]}}),
            400,
            "json: cannot unmarshal bool into Go struct field OwnerReference.ownerReferences.uid of type types.UID",
        ),
        (
            json!({"metadata": []}),
            400,
            "json: cannot unmarshal array into Go value of type v1.ObjectMeta",
        ),
        (
            json!({"metadata": {"creationTimestamp": "noon"}}),
            400,
            "parsing time \"noon\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"noon\" as \"2006\"",
        ),
    ];
    for (change, code, message) in cases {
        let mut task = new_task();
        for (field, value) in change.as_object().unwrap() {
            task[field] = value.clone();
        }
        let error = made(&task_def(), &mut task).unwrap_err();
        assert_eq!(error.code, code, "{change}");
        assert!(error.message.contains(message), "{change}: {}", error.message);
    }
}

fn stored() -> Value {
    let mut task = new_task();
    made(&task_def(), &mut task).unwrap();
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
    let cases = [
        (json!({"name": "b"}), "the name of the object (b) does not match the name on the URL (a)"),
        (
            json!({"name": ""}),
            "the name of the object (a based on URL) was undeterminable: name must be provided",
        ),
        (
            json!({"name": "a", "namespace": "other"}),
            "the namespace of the provided object does not match the namespace sent on the request",
        ),
    ];
    for (metadata, message) in cases {
        let mut new = json!({"metadata": metadata});
        let error = check_same_object(&task_def(), "ns", "a", &mut new).unwrap_err();
        assert_eq!((error.code, error.message.as_str()), (400, message), "{metadata}");
    }
    let mut new = json!({"metadata": {"name": "a"}});
    check_same_object(&task_def(), "ns", "a", &mut new).unwrap();
    assert_eq!(new["metadata"]["namespace"], "ns");
}

#[test]
fn what_is_immutable_is_named() {
    let mut old = stored();
    let changed = |old: &Value, field: &str, value: Value| {
        let mut new = old.clone();
        new["metadata"][field] = value;
        prepare_update(&task_def(), None, old, &mut new).unwrap();
        let causes = validate_update(&task_def(), old, &new);
        causes.iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect::<Vec<_>>()
    };
    // Said by what all kinds share, and again by custom kinds.
    let uid = "metadata.uid: Invalid value: \"other\": field is immutable";
    assert_eq!(changed(&old, "uid", json!("other")), [uid, uid]);
    let time =
        "metadata.deletionTimestamp: Invalid value: \"2026-01-02T03:04:05Z\": field is immutable";
    assert_eq!(changed(&old, "deletionTimestamp", json!("2026-01-02T03:04:05Z")), [time, time]);
    let grace = "metadata.deletionGracePeriodSeconds: Invalid value: 5: field is immutable";
    assert_eq!(changed(&old, "deletionGracePeriodSeconds", json!(5)), [grace, grace]);
    for ignored in ["creationTimestamp", "generation", "selfLink"] {
        assert_eq!(changed(&old, ignored, Value::Null), Vec::<String>::new(), "{ignored}");
    }
    old["metadata"]["deletionTimestamp"] = json!("2026-01-02T03:04:05Z");
    assert_eq!(changed(&old, "deletionTimestamp", Value::Null), Vec::<String>::new());
    let more = "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, \
                found new finalizers []string{\"a/a\", \"b/b\"}";
    assert_eq!(changed(&old, "finalizers", json!(["b/b", "a/a"])), [more, more]);
}

#[test]
fn repeated_owners_are_taken_out_with_a_warning() {
    let owner = |uid: &str| json!({"apiVersion": "v1", "kind": "K", "name": "n", "uid": uid});
    let mut object = json!({"metadata": {"ownerReferences": [owner("u"), owner("v"), owner("u")]}});
    assert_eq!(
        dedup_owners(&mut object, "").unwrap(),
        ".metadata.ownerReferences contains duplicate entries; API server dedups owner references in 1.20+, and may \
         reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: u"
    );
    assert_eq!(object["metadata"]["ownerReferences"], json!([owner("u"), owner("v")]));
    assert_eq!(dedup_owners(&mut object, ""), None);
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
            "a valid label key must consist of",
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
            "metadata.ownerReferences.apiVersion",
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
            json!({"name": "a", "generateName": "BB-"}),
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
        warnings(&task_def(), None, &object),
        [
            "metadata.finalizers: \"nodomain\": prefer a domain-qualified finalizer name to avoid accidental conflicts \
          with other finalizer writers"
        ]
    );
    let longer = json!({"metadata": {"finalizers": ["nodomain", "other"]}});
    assert_eq!(warnings(&task_def(), Some(&object), &longer).len(), 1, "only of new ones");
}
