//! Create, read, update, patch.
#![allow(clippy::unwrap_used)]

use super::*;

#[tokio::test]
async fn a_created_object_is_complete_and_readable() {
    let world = World::new().await;
    let written = world.create(queue("eng.web")).await.unwrap();
    let object = written.object.to_value();
    assert!(written.created);
    assert_eq!(object["spec"]["weight"], 2);
    assert_eq!(object["metadata"]["generation"], 1);
    assert_eq!(object["metadata"]["uid"].as_str().unwrap().len(), 36);
    assert!(object["metadata"]["creationTimestamp"].as_str().unwrap().ends_with('Z'));
    assert_eq!(version_of(&object), written.object.version.0);
    assert_eq!(world.get("Queue", "eng.web").await.unwrap(), object);
    let again = world.create(queue("eng.web")).await.unwrap_err();
    assert_eq!((again.code, &*again.reason), (409, "AlreadyExists"));
    assert_eq!(again.message, "queues.commonage.dev \"eng.web\" already exists");
    let missing = world.get("Queue", "none").await.unwrap_err();
    assert_eq!((missing.code, &*missing.message), (404, "queues.commonage.dev \"none\" not found"));
}

#[tokio::test]
async fn names_are_generated() {
    let world = World::new().await;
    let mut body = config_map("", json!({}));
    body["metadata"] = json!({"generateName": "web-"});
    let name = world.create(body).await.unwrap().object.name().to_owned();
    assert_eq!((name.len(), &name[..4]), (9, "web-"));
}

#[tokio::test]
async fn a_namespace_is_needed() {
    let world = World::new().await;
    let mut body = config_map("a", json!({}));
    body["metadata"]["namespace"] = json!("nowhere");
    let error = world.create(body).await.unwrap_err();
    assert_eq!((error.code, &*error.message), (404, "namespaces \"nowhere\" not found"));
}

#[tokio::test]
async fn an_update_compares_the_version() {
    let world = World::new().await;
    let first = world.create(queue("q")).await.unwrap().object.to_value();
    let mut second = first.clone();
    second["spec"]["weight"] = json!(3);
    let second = world.put(None, second).await.unwrap();
    assert_eq!(
        (&second["metadata"]["generation"], &second["spec"]["weight"]),
        (&json!(2), &json!(3))
    );
    let error = world.put(None, first.clone()).await.unwrap_err();
    assert_eq!((error.code, &*error.reason), (409, "Conflict"));
    assert_eq!(
        error.message,
        "Operation cannot be fulfilled on queues.commonage.dev \"q\": the object has been modified; please apply \
         your changes to the latest version and try again"
    );
    let mut unversioned = first.clone();
    unversioned["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    let error = world.put(None, unversioned).await.unwrap_err();
    assert_eq!(error.code, 422);
    assert_eq!(
        error.message,
        "queues.commonage.dev \"q\" is invalid: metadata.resourceVersion: Invalid value: 0: must be specified for an \
         update"
    );
    let mut other = second.clone();
    other["metadata"]["uid"] = json!("00000000-0000-0000-0000-000000000000");
    assert_eq!(world.put(None, other).await.unwrap_err().code, 409);
    let mut absent = second;
    absent["metadata"]["name"] = json!("none");
    assert_eq!(world.put(None, absent).await.unwrap_err().code, 404);
}

#[tokio::test]
async fn built_in_kinds_may_be_updated_unconditionally() {
    let world = World::new().await;
    world.create(config_map("a", json!({}))).await.unwrap();
    let mut body = config_map("a", json!({"x": "y"}));
    body["data"]["a"] = json!("2");
    let updated = world.put(None, body).await.unwrap();
    assert_eq!(
        (&updated["data"]["a"], &updated["metadata"]["labels"]["x"]),
        (&json!("2"), &json!("y"))
    );
}

#[tokio::test]
async fn a_write_that_changes_nothing_writes_nothing() {
    let world = World::new().await;
    let before = world.create(queue("q")).await.unwrap().object.to_value();
    let revision = world.store.revision().await.unwrap();
    assert_eq!(world.put(None, before.clone()).await.unwrap(), before);
    assert_eq!(
        world.merge("Queue", "q", None, json!({"spec": {"weight": 2}})).await.unwrap(),
        before
    );
    assert_eq!(world.store.revision().await.unwrap(), revision);
}

#[tokio::test]
async fn status_and_spec_are_written_apart() {
    let world = World::new().await;
    let mut body = queue("q");
    body["status"] = json!({"pendingTasks": 5});
    let created = world.create(body).await.unwrap().object.to_value();
    assert!(created.get("status").is_none());
    let patch = json!({"status": {"pendingTasks": 7}, "spec": {"weight": 9}, "metadata": {"labels": {"a": "b"}}});
    let reported = world.merge("Queue", "q", Some("status"), patch.clone()).await.unwrap();
    assert_eq!(
        (&reported["status"]["pendingTasks"], &reported["spec"]["weight"]),
        (&json!(7), &json!(2))
    );
    assert_eq!(reported["metadata"]["generation"], 1);
    assert!(reported["metadata"]["labels"].is_null());
    let changed = world
        .merge("Queue", "q", None, json!({"status": null, "spec": {"weight": 9}}))
        .await
        .unwrap();
    assert_eq!(
        (&changed["status"]["pendingTasks"], &changed["spec"]["weight"]),
        (&json!(7), &json!(9))
    );
    assert_eq!(changed["metadata"]["generation"], 2);
    let error = world.merge("ConfigMap", "a", Some("status"), json!({})).await.unwrap_err();
    assert_eq!(error.code, 404);
}

#[tokio::test]
async fn a_json_patch_can_guard_itself() {
    let world = World::new().await;
    let created = world.create(queue("q")).await.unwrap().object.to_value();
    let version = &created["metadata"]["resourceVersion"];
    let guarded = |version: &Value| {
        json!([
            {"op": "test", "path": "/metadata/resourceVersion", "value": version},
            {"op": "add", "path": "/metadata/finalizers", "value": ["example.com/a"]},
        ])
    };
    let patch = |body| world.patch("Queue", "q", None, PatchKind::Json, body, options());
    let patched = patch(guarded(version)).await.unwrap();
    assert_eq!(patched["metadata"]["finalizers"], json!(["example.com/a"]));
    assert_eq!(patch(guarded(version)).await.unwrap_err().code, 422);
    let stale = json!({"metadata": {"resourceVersion": version, "labels": {"a": "b"}}});
    assert_eq!(world.merge("Queue", "q", None, stale).await.unwrap_err().code, 409);
    let strategic = world
        .patch("Queue", "q", None, PatchKind::Strategic, json!({}), options())
        .await
        .unwrap_err();
    assert_eq!(strategic.code, 415);
}

#[tokio::test]
async fn patches_without_a_version_all_land() {
    let world = World::new().await;
    world.create(config_map("a", json!({}))).await.unwrap();
    let patches = (0..6).map(|number| {
        world.merge("ConfigMap", "a", None, json!({"data": {format!("k{number}"): "v"}}))
    });
    for patched in futures::future::join_all(patches).await {
        patched.unwrap();
    }
    let data = world.get("ConfigMap", "a").await.unwrap()["data"].as_object().unwrap().len();
    assert_eq!(data, 7);
}

#[tokio::test]
async fn unknown_fields_are_refused_reported_or_dropped() {
    let world = World::new().await;
    let with = |field_validation| WriteOptions { field_validation, ..options() };
    let mut body = queue("q");
    body["spec"]["wieght"] = json!(1);
    let error = world.create_with(body.clone(), with(FieldValidation::Strict)).await.unwrap_err();
    assert_eq!(error.code, 400);
    assert!(
        error.message.ends_with("strict decoding error: unknown field \"spec.wieght\""),
        "{}",
        error.message
    );
    let written = world.create_with(body.clone(), with(FieldValidation::Warn)).await.unwrap();
    assert_eq!(written.warnings, ["unknown field \"spec.wieght\""]);
    assert!(written.object.to_value()["spec"]["wieght"].is_null());
    body["metadata"]["name"] = json!("q2");
    assert!(
        world.create_with(body, with(FieldValidation::Ignore)).await.unwrap().warnings.is_empty()
    );
}

#[tokio::test]
async fn a_dry_run_checks_everything_and_stores_nothing() {
    let world = World::new().await;
    let dry = || WriteOptions { dry_run: true, ..options() };
    let object = world.create_with(queue("q"), dry()).await.unwrap().object.to_value();
    assert!(
        object["metadata"]["resourceVersion"].is_null() && object["metadata"]["uid"].is_string()
    );
    assert_eq!(world.get("Queue", "q").await.unwrap_err().code, 404);
    let mut wrong = queue("q");
    wrong["spec"]["weight"] = json!("-1");
    assert_eq!(world.create_with(wrong, dry()).await.unwrap_err().code, 422);
    let created = world.create(queue("q")).await.unwrap().object.to_value();
    assert_eq!(world.create_with(queue("q"), dry()).await.unwrap_err().code, 409);
    let patch = json!({"spec": {"weight": 5}});
    let patched = world.patch("Queue", "q", None, PatchKind::Merge, patch, dry()).await.unwrap();
    assert_eq!(patched["spec"]["weight"], 5);
    assert_eq!(world.get("Queue", "q").await.unwrap(), created);
}

#[tokio::test]
async fn reads_wait_for_a_version_or_say_that_it_is_too_large() {
    let world = World::new().await;
    let created = world.create(queue("q")).await.unwrap().object.version.0;
    let def = world.def("Queue");
    assert!(world.engine.get(&def, "", "q", Some(created)).await.is_ok());
    let error = world.engine.get(&def, "", "q", Some(created + 256 * 100)).await.unwrap_err();
    assert_eq!((error.code, &*error.reason), (504, "Timeout"));
}

#[tokio::test]
async fn patches_of_one_object_all_land_however_many_come_at_once() {
    const PATCHERS: usize = 16;
    const PATCHES: usize = 50;
    let world = World::new().await;
    world.create(config_map("m", json!({}))).await.unwrap();
    let patcher = async |patcher: usize| {
        for number in 0..PATCHES {
            let patch = json!({"data": {format!("k{patcher}-{number}"): "x"}});
            world.merge("ConfigMap", "m", None, patch).await.unwrap();
        }
    };
    futures::future::join_all((0..PATCHERS).map(patcher)).await;
    let stored = world.get("ConfigMap", "m").await.unwrap();
    let data = stored["data"].as_object().unwrap().len();
    assert_eq!(data, 1 + PATCHERS * PATCHES);
}
