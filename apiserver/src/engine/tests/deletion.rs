//! Delete, finalizers, namespaces.
#![allow(clippy::unwrap_used)]

use super::*;

#[tokio::test]
async fn a_delete_removes_and_says_what_it_removed() {
    let world = World::new().await;
    let created = world.create(queue("q")).await.unwrap().object;
    let Deleted::Gone(gone) = world.delete("Queue", "q").await.unwrap() else {
        panic!("it had no finalizer")
    };
    assert_eq!(gone.uid, created.uid);
    assert_eq!(world.get("Queue", "q").await.unwrap_err().code, 404);
    assert_eq!(world.delete("Queue", "q").await.unwrap_err().code, 404);
}

#[tokio::test]
async fn preconditions_are_compared() {
    let world = World::new().await;
    let created = world.create(queue("q")).await.unwrap().object;
    let uid = DeleteOptions { uid: Some("other".to_owned()), ..DeleteOptions::default() };
    let error = world.delete_with("Queue", "q", uid).await.unwrap_err();
    assert_eq!(error.code, 409);
    let expected = format!(
        "Operation cannot be fulfilled on Queue.commonage.dev \"q\": the UID in the precondition (other) does not \
         match the UID in record ({}). The object might have been deleted and then recreated",
        created.uid
    );
    assert_eq!(error.message, expected);
    assert_eq!(error.details.unwrap().kind, "Queue");
    let version =
        DeleteOptions { resource_version: Some("1".to_owned()), ..DeleteOptions::default() };
    assert_eq!(world.delete_with("Queue", "q", version).await.unwrap_err().code, 409);
    let right = DeleteOptions {
        uid: Some(created.uid.to_string()),
        resource_version: Some(created.version.0.to_string()),
        ..DeleteOptions::default()
    };
    assert!(matches!(world.delete_with("Queue", "q", right).await.unwrap(), Deleted::Gone(_)));
}

#[tokio::test]
async fn finalizers_hold_an_object_until_the_last_is_gone() {
    let world = World::new().await;
    let mut body = queue("q");
    body["metadata"]["finalizers"] = json!(["example.com/a", "example.com/b"]);
    world.create(body).await.unwrap();
    let Deleted::Marked(marked) = world.delete("Queue", "q").await.unwrap() else {
        panic!("finalizers hold it")
    };
    let marked = marked.to_value();
    assert_eq!(marked["metadata"]["generation"], 2);
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 0);
    assert!(marked["metadata"]["deletionTimestamp"].is_string());
    let Deleted::Marked(again) = world.delete("Queue", "q").await.unwrap() else {
        panic!("finalizers hold it")
    };
    assert_eq!(again.to_value(), marked);
    let finalizers = |list: Value| json!({"metadata": {"finalizers": list}});
    let more = finalizers(json!(["example.com/a", "example.com/b", "example.com/c"]));
    assert_eq!(world.merge("Queue", "q", None, more).await.unwrap_err().code, 422);
    world.merge("Queue", "q", None, finalizers(json!(["example.com/b"]))).await.unwrap();
    assert!(world.get("Queue", "q").await.is_ok());
    world.merge("Queue", "q", None, finalizers(json!([]))).await.unwrap();
    assert_eq!(world.get("Queue", "q").await.unwrap_err().code, 404);
}

#[tokio::test]
async fn propagation_is_told_to_the_garbage_collector_by_finalizers() {
    let world = World::new().await;
    world.create(queue("q")).await.unwrap();
    let delete = async |propagation| {
        let options = DeleteOptions { propagation, ..DeleteOptions::default() };
        match world.delete_with("Queue", "q", options).await.unwrap() {
            Deleted::Marked(object) => object.to_value()["metadata"]["finalizers"].clone(),
            Deleted::Gone(_) => json!("gone"),
        }
    };
    assert_eq!(delete(Some(Propagation::Foreground)).await, json!(["foregroundDeletion"]));
    assert_eq!(world.get("Queue", "q").await.unwrap()["metadata"]["generation"], 2);
    assert_eq!(delete(None).await, json!(["foregroundDeletion"]), "what was said stays");
    assert_eq!(delete(Some(Propagation::Orphan)).await, json!(["orphan"]));
    assert_eq!(delete(Some(Propagation::Background)).await, json!("gone"));
}

#[tokio::test]
async fn an_update_that_takes_the_last_finalizer_off_answers_the_object_as_it_was() {
    let world = World::new().await;
    let mut body = queue("q");
    body["metadata"]["finalizers"] = json!(["example.com/a"]);
    world.create(body).await.unwrap();
    let Deleted::Marked(marked) = world.delete("Queue", "q").await.unwrap() else {
        panic!("a finalizer holds it")
    };
    let mut body = queue("q");
    body["metadata"]["finalizers"] = json!([]);
    let error = world.create(body).await.unwrap_err();
    assert_eq!(error.message, "object is being deleted: queues.commonage.dev \"q\" already exists");
    let patch = json!({"metadata": {"finalizers": null}});
    let gone = world.merge("Queue", "q", None, patch).await.unwrap();
    assert_eq!(version_of(&gone), marked.version.0);
    assert_eq!(world.get("Queue", "q").await.unwrap_err().code, 404);
}

#[tokio::test]
async fn a_collection_is_deleted_by_selector() {
    let world = World::new().await;
    for (name, label) in [("a", "x"), ("b", "y"), ("c", "x")] {
        world.create(config_map(name, json!({"l": label}))).await.unwrap();
    }
    let def = world.def("ConfigMap");
    let list = ListOptions { label_selector: labelled("l=x"), ..ListOptions::default() };
    let deleted = world
        .engine
        .delete_collection(&def, Some("default"), list, DeleteOptions::default(), options())
        .await
        .unwrap();
    let names: Vec<&str> = deleted.items.iter().map(|object| object.name()).collect();
    assert_eq!(names, ["a", "c"]);
    let left = world.list("ConfigMap", ListOptions::default()).await.unwrap();
    assert_eq!(left.items.len(), 1);
}

#[tokio::test]
async fn the_namespaces_that_always_exist_stay() {
    let world = World::new().await;
    for name in ["default", "kube-system", "kube-public", "commonage-system", "commonage-agents"] {
        let namespace = world.get("Namespace", name).await.unwrap();
        assert_eq!(namespace["status"]["phase"], "Active");
        assert_eq!(namespace["metadata"]["labels"]["kubernetes.io/metadata.name"], name);
        assert_eq!(world.delete("Namespace", name).await.unwrap_err().code, 403);
    }
    let framework = world.get("Framework", "default").await.unwrap();
    assert_eq!(
        (&framework["spec"]["placement"], &framework["spec"]["queues"]),
        (&json!("Tasks"), &json!(["default"]))
    );
}

#[tokio::test]
async fn a_deleted_namespace_takes_nothing_new_and_waits_to_be_finalized() {
    let world = World::new().await;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}});
    world.create(namespace).await.unwrap();
    let Deleted::Marked(marked) = world.delete("Namespace", "shop").await.unwrap() else {
        panic!("its contents have to go first")
    };
    let mut marked = marked.to_value();
    assert_eq!(marked["status"]["phase"], "Terminating");
    let mut late = config_map("late", json!({}));
    late["metadata"]["namespace"] = json!("shop");
    let error = world.create(late).await.unwrap_err();
    assert_eq!(
        (error.code, &*error.details.unwrap().causes[0].reason),
        (403, "NamespaceTerminating")
    );
    let again = world.delete("Namespace", "shop").await.unwrap();
    assert!(matches!(again, Deleted::Marked(_)), "a second time changes nothing");
    let active = json!({"status": {"phase": "Active"}});
    let error = world.merge("Namespace", "shop", Some("status"), active).await.unwrap_err();
    assert!(error.message.contains("may only be 'Terminating' if"), "{}", error.message);
    marked["spec"]["finalizers"] = json!([]);
    world.put(Some("finalize"), marked).await.unwrap();
    assert_eq!(world.get("Namespace", "shop").await.unwrap_err().code, 404);
}
