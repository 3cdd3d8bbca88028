//! Fences over HTTP: whose term has ended writes nothing, by whatever verb.

use http::StatusCode;
use serde_json::{Value, json};

use crate::support::Server;

const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/default/leases";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const TASKS: &str = "/apis/commonage.dev/v1/namespaces/default/tasks";

fn map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}})
}

#[tokio::test]
async fn whose_term_has_ended_writes_nothing() {
    let server = Server::start().await;
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": "leader"}, "spec": {"holderIdentity": "a", "leaseTransitions": 0}});
    let made = server.call("POST", LEASES, Some(lease)).await.json();
    let uid = made["metadata"]["uid"].as_str().unwrap();
    let fence = format!("default/leader/{uid}/0");
    let fence = [("commonage-fence", &*fence), ("content-type", "application/json")];
    let created = server.call_with("POST", MAPS, Some(map("a")), &fence).await;
    assert_eq!(created.status, StatusCode::CREATED);
    let task = json!({"apiVersion": "commonage.dev/v1", "kind": "Task", "metadata": {"name": "t"},
        "spec": {"resources": {"cpu": "1", "memory": "32Mi"}, "container": {"command": ["true"]}}});
    let task = server.call_with("POST", TASKS, Some(task), &fence).await;
    assert_eq!(task.status, StatusCode::CREATED, "{:?}", task.json());

    let mut taken = made.clone();
    taken["spec"] = json!({"holderIdentity": "b", "leaseTransitions": 1});
    let taken = server.call("PUT", &format!("{LEASES}/leader"), Some(taken)).await;
    assert_eq!(taken.status, StatusCode::OK);
    let (one, one_task) = (format!("{MAPS}/a"), format!("{TASKS}/t"));
    let binding =
        json!({"apiVersion": "commonage.dev/v1", "kind": "TaskBinding", "spec": {"agent": "x"}});
    let merge = [fence[0], ("content-type", "application/merge-patch+json")];
    for (method, path, body, headers) in [
        ("POST", MAPS, Some(map("b")), &fence),
        ("PUT", &*one, Some(map("a")), &fence),
        ("PATCH", &*one, Some(json!({"data": {"k": "v"}})), &merge),
        ("PATCH", &*format!("{one_task}/status"), Some(json!({"status": {}})), &merge),
        ("POST", &*format!("{one_task}/binding"), Some(binding), &fence),
        ("DELETE", &*one, None, &fence),
        ("DELETE", MAPS, None, &fence),
    ] {
        let refused = server.call_with(method, path, body, headers).await;
        assert_eq!(refused.status, StatusCode::CONFLICT, "{method} {path}");
        assert_eq!(refused.json()["reason"], "Fenced", "{method} {path}");
        assert!(refused.headers.contains_key("commonage-fenced"), "{method} {path}");
    }
    assert_eq!(server.call("GET", &one, None).await.json()["data"], Value::Null);
    assert_eq!(server.call("GET", &format!("{MAPS}/b"), None).await.status, StatusCode::NOT_FOUND);
    // Reading is not deciding.
    let read = server.call_with("GET", &one, None, &fence).await;
    assert_eq!(read.status, StatusCode::OK);
    for wrong in ["", "default/leader", "default/leader/u/x", "default/leader/u/1/2"] {
        let refused =
            server.call_with("POST", MAPS, Some(map("c")), &[("commonage-fence", wrong)]).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{wrong}");
    }
    server.stop().await;
}
