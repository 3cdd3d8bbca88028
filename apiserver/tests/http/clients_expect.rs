//! What clients of whole Kubernetes clusters expect to find beside the kinds that they use.

use http::StatusCode;
use serde_json::{Value, json};

use crate::support::{Answer, Server};

const EVENTS: &str = "/api/v1/namespaces/default/events";

#[tokio::test]
async fn services_can_be_listed_and_there_are_none() {
    let server = Server::start().await;
    let services = "/api/v1/namespaces/kube-system/services";
    let of_cluster = format!("{services}?labelSelector=kubernetes.io%2Fcluster-service%3Dtrue");
    let list = server.call("GET", &of_cluster, None).await;
    assert_eq!(list.status, StatusCode::OK, "{list:?}");
    assert_eq!((&list.json()["kind"], &list.json()["items"]), (&json!("ServiceList"), &json!([])));
    let made = server.call("POST", services, Some(json!({"metadata": {"name": "a"}}))).await;
    assert_eq!(made.status, StatusCode::METHOD_NOT_ALLOWED, "{made:?}");
    server.stop().await;
}

#[tokio::test]
async fn events_of_a_pod_are_those_of_its_task() {
    let server = Server::start().await;
    let task = json!({
        "apiVersion": "commonage.dev/v1", "kind": "Task", "metadata": {"name": "t"},
        "spec": {"container": {"command": ["true"]}, "resources": {"cpu": "1"}},
    });
    let tasks = "/apis/commonage.dev/v1/namespaces/default/tasks";
    let task = server.call("POST", tasks, Some(task)).await.json();
    let pod = server.call("GET", "/api/v1/namespaces/default/pods/t", None).await.json();
    let event = |name: &str, kind: &str, uid: &Value| {
        json!({
            "metadata": {"name": name}, "reason": "Because", "type": "Normal",
            "involvedObject": {"kind": kind, "name": "t", "namespace": "default", "uid": uid},
        })
    };
    let (uid, other) = (&task["metadata"]["uid"], json!("other"));
    for one in [
        event("of-task", "Task", uid),
        event("of-pod", "Pod", &pod["metadata"]["uid"]),
        event("of-another", "Task", &other),
        event("of-none", "Framework", uid),
    ] {
        let made = server.call("POST", EVENTS, Some(one)).await;
        assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    }
    let uid = pod["metadata"]["uid"].as_str().unwrap();
    let selector = format!(
        "involvedObject.name%3Dt,involvedObject.namespace%3Ddefault,involvedObject.kind%3DPod,involvedObject.uid%3D{uid}"
    );
    let found = server.call("GET", &format!("{EVENTS}?fieldSelector={selector}"), None).await;
    assert_eq!(names(&found), ["of-pod", "of-task"]);
    let group = EVENTS.replace("/api/v1/", "/apis/events.k8s.io/v1/");
    let of_group = selector
        .replace("involvedObject", "regarding")
        .replace(&format!(",regarding.uid%3D{uid}"), "");
    let found = server.call("GET", &format!("{group}?fieldSelector={of_group}"), None).await;
    assert_eq!(names(&found), ["of-another", "of-pod", "of-task"]);
    server.stop().await;
}

fn names(list: &Answer) -> Vec<String> {
    assert_eq!(list.status, StatusCode::OK, "{list:?}");
    let items = list.json()["items"].as_array().unwrap().clone();
    items.iter().map(|item| item["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn documents_are_in_kubernetes_order() {
    let server = Server::start().await;
    let starts = [
        ("/version", "{\n  \"major\": \"1\",\n  \"minor\": "),
        ("/api", r#"{"kind":"APIVersions","versions":["v1"],"#),
        (
            "/apis/commonage.dev",
            r#"{"kind":"APIGroup","apiVersion":"v1","name":"commonage.dev","versions":["#,
        ),
        (
            "/api/v1",
            r#"{"kind":"APIResourceList","apiVersion":"v1","groupVersion":"v1","resources":[{"name":"configmaps","singularName":"configmap","namespaced":true,"kind":"ConfigMap","verbs":["create","delete","deletecollection","get","list","patch","update","watch"],"shortNames":["cm"],"storageVersionHash":"#,
        ),
    ];
    for (path, start) in starts {
        let answer = server.call("GET", path, None).await;
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(text.starts_with(start), "{path}: {text}");
    }
    server.stop().await;
}

#[tokio::test]
async fn what_a_strategic_patch_made_is_judged_in_kubernetes_words() {
    let server = Server::start().await;
    let maps = "/api/v1/namespaces/default/configmaps";
    let made = json!({"metadata": {"name": "a"}, "data": {"k": "v"}});
    assert_eq!(server.call("POST", maps, Some(made)).await.status, StatusCode::CREATED);
    let strategic = [("content-type", "application/strategic-merge-patch+json")];
    for (patch, wanted) in [
        (
            json!({"data": {"z": 1}}),
            r#" "" is invalid: patch: Invalid value: "map[data:map[z:1]]": cannot convert int64 to string"#,
        ),
        (
            json!({"data": "x"}),
            r#" "" is invalid: patch: Invalid value: "map[data:x]": cannot restore map from string"#,
        ),
        (
            json!({"metadata": {"labels": {"a": true}}}),
            r#" "" is invalid: patch: Invalid value: "map[metadata:map[labels:map[a:true]]]": unrecognized type: string"#,
        ),
    ] {
        let answer =
            server.call_with("PATCH", &format!("{maps}/a"), Some(patch.clone()), &strategic).await;
        assert_eq!(answer.json()["message"], wanted, "{patch}");
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    }
    server.stop().await;
}

#[tokio::test]
async fn metrics_have_the_names_that_dashboards_ask_for() {
    let server = Server::start().await;
    let answer = server.call("GET", "/metrics", None).await;
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    for name in [
        "apiserver_request_total",
        "apiserver_longrunning_requests",
        "apiserver_longrunning_gauge",
        "apiserver_watch_cache_resource_version",
        "etcd_request_duration_seconds",
    ] {
        assert!(text.contains(&format!("# TYPE {name} ")), "{name}");
    }
    let line = text
        .lines()
        .find(|line| line.starts_with("apiserver_watch_cache_resource_version{"))
        .unwrap();
    assert_ne!(line.rsplit(' ').next(), Some("0"), "{line}");
    server.stop().await;
}
