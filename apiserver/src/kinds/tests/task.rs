//! Tasks: defaults, states, immutability, binding.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::engine::{DeleteOptions, Deleted, PatchKind, Propagation};

#[tokio::test]
async fn a_new_task_waits_in_its_queue() {
    let world = World::new().await;
    let task = world.create(new_task("t")).await.unwrap().object.to_value();
    assert_eq!(
        (&task["spec"]["framework"], &task["spec"]["queue"]),
        (&json!("default"), &json!("default"))
    );
    assert_eq!(task["status"]["state"], "Pending");
    assert_eq!(states(&task), ["Pending"]);
    assert_eq!(task["metadata"]["finalizers"], json!(["commonage.dev/task"]));
    let framework = json!({
        "apiVersion": "commonage.dev/v1", "kind": "Framework", "metadata": {"name": "spark"},
        "spec": {"queues": ["eng.batch", "eng.web"]},
    });
    world.create(framework).await.unwrap();
    let mut other = new_task("u");
    other["spec"]["framework"] = json!("spark");
    let other = world.create(other).await.unwrap().object.to_value();
    assert_eq!(other["spec"]["queue"], "eng.batch");
}

#[tokio::test]
async fn what_reaches_out_of_a_container_needs_leave_of_the_queue() {
    let world = World::new().await;
    let mut mounting = new_task("t");
    mounting["spec"]["container"]["mounts"] =
        json!([{"path": "/mnt-x", "hostPath": "/srv/data/x"}]);
    let mut capable = new_task("u");
    capable["spec"]["container"]["capabilities"] = json!(["CAP_NET_ADMIN"]);
    for (task, field) in [
        (&mounting, "spec.container.mounts[0].hostPath"),
        (&capable, "spec.container.capabilities[0]"),
    ] {
        let error = world.create(task.clone()).await.err().unwrap();
        assert_eq!((error.code, &*error.reason), (403, "SandboxDenied"));
        assert!(error.message.contains(field), "{}", error.message);
    }
    let queue = json!({
        "apiVersion": "commonage.dev/v1", "kind": "Queue", "metadata": {"name": "default"},
        "spec": {"sandbox": {"hostPaths": ["/srv/data"], "capabilities": ["NET_ADMIN"]}},
    });
    world.create(queue).await.unwrap();
    world.create(mounting.clone()).await.unwrap();
    world.create(capable).await.unwrap();
    for path in ["/srv/data/../x", "/srv/database", "/"] {
        mounting["metadata"]["name"] = json!("v");
        mounting["spec"]["container"]["mounts"][0]["hostPath"] = json!(path);
        assert_eq!(world.create(mounting.clone()).await.err().unwrap().code, 403, "{path}");
    }
}

#[tokio::test]
async fn wrong_tasks_are_refused_with_their_fields() {
    let world = World::new().await;
    let cases: [(&str, Value, &str); 9] = [
        ("/spec/agent", json!("node-1"), "spec.agent"),
        ("/spec/resources/cpu", json!("many"), "spec.resources.cpu"),
        ("/spec/resources/cpu", json!("0"), "spec.resources.cpu"),
        ("/spec/resources/memory", json!("4095Ki"), "spec.resources.memory"),
        ("/spec/limits", json!({"memory": "32Mi"}), "spec.limits.memory"),
        ("/spec/queue", json!("Not A Queue"), "spec.queue"),
        ("/spec/queue", json!("eng.other"), "spec.queue"),
        ("/spec/container/command", json!([]), "spec.container.command"),
        ("/spec/priority", json!("high"), "spec.priority"),
    ];
    for (pointer, value, field) in cases {
        let mut task = new_task("t");
        let (parent, last) = pointer.rsplit_once('/').unwrap();
        task.pointer_mut(parent).unwrap()[last] = value;
        let error = world.create(task).await.unwrap_err();
        assert_eq!((error.code, fields(&error)), (422, vec![field]), "{error}");
    }
}

#[tokio::test]
async fn a_binding_gives_agent_and_ports_once() {
    let world = World::new().await;
    let mut task = new_task("t");
    task["spec"]["container"]["ports"] =
        json!([{"name": "a"}, {"name": "b", "hostPort": 8080}, {"name": "c"}]);
    let created = world.create(task).await.unwrap().object.to_value();
    let bind = |ports: Value| {
        world.post("Task", "t", "binding", json!({"agent": "node-1", "hostPorts": ports}))
    };
    let error = bind(json!([31000])).await.unwrap_err();
    assert_eq!((error.code, fields(&error)), (422, vec!["hostPorts"]));
    let stale =
        json!({"agent": "node-1", "hostPorts": [1, 2], "metadata": {"resourceVersion": "1"}});
    assert_eq!(world.post("Task", "t", "binding", stale).await.unwrap_err().code, 409);
    let bound = bind(json!([31000, 31001])).await.unwrap();
    assert_eq!(bound["spec"]["agent"], "node-1");
    assert_eq!(bound["status"]["hostPorts"], json!([31000, 8080, 31001]));
    assert_eq!(bound["spec"]["container"]["ports"][2]["hostPort"], 31001);
    assert_eq!(states(&bound), ["Pending", "Staging"]);
    assert_eq!(
        bound["metadata"]["generation"],
        created["metadata"]["generation"].as_i64().unwrap() + 1
    );
    let error = bind(json!([31000, 31001])).await.unwrap_err();
    assert_eq!((error.code, &*error.reason), (409, "AlreadyBound"));
    world.create(new_task("dying")).await.unwrap();
    assert!(matches!(world.delete("Task", "dying").await.unwrap(), Deleted::Marked(_)));
    let error =
        world.post("Task", "dying", "binding", json!({"agent": "node-1"})).await.unwrap_err();
    assert_eq!((error.code, &*error.reason), (409, "Conflict"));
    assert_eq!(
        world.post("Task", "none", "binding", json!({"agent": "a"})).await.unwrap_err().code,
        404
    );
    assert_eq!(world.post("Task", "t", "nonsense", json!({})).await.unwrap_err().code, 404);
}

#[tokio::test]
async fn states_follow_the_table_and_the_server_writes_the_history() {
    let world = World::new().await;
    world.create(new_task("t")).await.unwrap();
    world.post("Task", "t", "binding", json!({"agent": "node-1"})).await.unwrap();
    let report =
        |status: Value| world.merge("Task", "t", Some("status"), json!({"status": status}));
    let running =
        report(json!({"state": "Running", "history": [], "containerId": "c1"})).await.unwrap();
    assert_eq!(states(&running), ["Pending", "Staging", "Running"]);
    assert!(running["status"]["startedAt"].is_string());
    let again = report(json!({"state": "Running", "ready": true})).await.unwrap();
    assert_eq!(states(&again).len(), 3);
    let error = report(json!({"state": "Starting"})).await.unwrap_err();
    assert_eq!((error.code, &*error.reason), (409, "IllegalTransition"));
    assert!(
        error.message.ends_with("the task is Running and can't become Starting"),
        "{}",
        error.message
    );
    assert_eq!(report(json!({"state": "Dancing"})).await.unwrap_err().code, 422);
    let failed =
        report(json!({"state": "Failed", "reason": "ExitCode", "exitCode": 3})).await.unwrap();
    assert_eq!(failed["status"]["history"][3]["reason"], "ExitCode");
    assert!(failed["status"]["finishedAt"].is_string());
    assert_eq!(failed["metadata"]["generation"], running["metadata"]["generation"]);
    assert_eq!(report(json!({"state": "Running"})).await.unwrap_err().code, 409);
    let mut put = world.get("Task", "t").await.unwrap();
    put.as_object_mut().unwrap().remove("status");
    let kept = world.put(Some("status"), put).await.unwrap();
    assert_eq!((&kept["status"]["state"], states(&kept).len()), (&json!("Failed"), 4));
}

#[tokio::test]
async fn an_agent_reports_only_on_its_own_tasks() {
    let world = World::new().await;
    world.create(new_task("t")).await.unwrap();
    world.post("Task", "t", "binding", json!({"agent": "node-1"})).await.unwrap();
    let report = |agent: &str| {
        let status = json!({"status": {"state": "Running"}});
        world.patch(
            "Task",
            "t",
            Some("status"),
            PatchKind::Merge,
            status,
            as_user(UserInfo::agent(agent)),
        )
    };
    assert_eq!(report("node-2").await.unwrap_err().code, 403);
    assert!(report("node-1").await.is_ok());
}

#[tokio::test]
async fn only_metadata_and_the_kill_policy_may_change() {
    let world = World::new().await;
    world.create(new_task("t")).await.unwrap();
    let error = world
        .merge("Task", "t", None, json!({"spec": {"priority": 5, "queue": "other"}}))
        .await
        .unwrap_err();
    assert_eq!((error.code, fields(&error)), (422, vec!["spec.priority", "spec.queue"]));
    let patch = json!({"spec": {"killPolicy": {"gracePeriodSeconds": 5}}, "metadata": {"labels": {"a": "b"}}});
    let changed = world.merge("Task", "t", None, patch).await.unwrap();
    assert_eq!(changed["spec"]["killPolicy"]["gracePeriodSeconds"], 5);
    let bind = json!({"spec": {"agent": "node-1"}});
    assert_eq!(fields(&world.merge("Task", "t", None, bind).await.unwrap_err()), ["spec.agent"]);
    let bound = world.post("Task", "t", "binding", json!({"agent": "node-1"})).await.unwrap();
    let mut again = new_task("t");
    again["metadata"] = bound["metadata"].clone();
    again["spec"]["killPolicy"] = json!({"gracePeriodSeconds": 5});
    assert_eq!(world.put(None, again).await.unwrap(), bound);
}

#[tokio::test]
async fn a_task_that_names_no_resources_gets_some() {
    let world = World::new().await;
    for (number, (resources, limits, expected)) in [
        (Value::Null, Value::Null, json!({"cpu": "100m", "memory": "64Mi"})),
        (json!({"cpu": "10m"}), Value::Null, json!({"cpu": "10m", "memory": "64Mi"})),
        (json!({}), json!({"memory": "16Mi"}), json!({"cpu": "100m", "memory": "16Mi"})),
    ]
    .into_iter()
    .enumerate()
    {
        let mut task = new_task(&format!("t{number}"));
        task["spec"]["resources"] = resources;
        task["spec"]["limits"] = limits;
        let created = world.create(task.clone()).await.unwrap().object.to_value();
        assert_eq!(created["spec"]["resources"], expected);
        task["metadata"] = created["metadata"].clone();
        assert_eq!(world.put(None, task).await.unwrap(), created, "the same text changes nothing");
    }
}

#[tokio::test]
async fn a_queue_must_be_one_of_a_known_framework() {
    let world = World::new().await;
    let mut task = new_task("t");
    task["spec"]["queue"] = json!("eng.other");
    let error = world.create(task.clone()).await.unwrap_err();
    assert!(error.message.contains("framework \"default\" has the queues: default"), "{error}");
    task["spec"]["framework"] = json!("still-to-come");
    assert_eq!(world.create(task).await.unwrap().object.to_value()["spec"]["queue"], "eng.other");
}

#[tokio::test]
async fn a_grace_period_is_kept_and_can_only_be_shortened() {
    let world = World::new().await;
    let delete = async |grace_s| {
        let options = DeleteOptions { grace_s, ..DeleteOptions::default() };
        let Deleted::Marked(marked) = world.delete_with("Task", "t", options).await.unwrap() else {
            panic!("a finalizer holds it")
        };
        marked.to_value()["metadata"]["deletionGracePeriodSeconds"].clone()
    };
    world.create(new_task("t")).await.unwrap();
    assert_eq!(delete(None).await, Value::Null, "its kill policy counts");
    assert_eq!(delete(Some(31)).await, Value::Null, "that says 30");
    for (asked, kept) in [(Some(20), 20), (Some(25), 20), (None, 20), (Some(0), 0), (Some(1), 0)] {
        assert_eq!(delete(asked).await, kept, "{asked:?}");
    }
    let queue = json!({"metadata": {"finalizers": ["example.com/a"]}});
    world.create(crate::engine::tests::queue("q")).await.unwrap();
    world.merge("Queue", "q", None, queue).await.unwrap();
    let options = DeleteOptions { grace_s: Some(9), ..DeleteOptions::default() };
    let Deleted::Marked(marked) = world.delete_with("Queue", "q", options).await.unwrap() else {
        panic!("a finalizer holds it")
    };
    assert_eq!(marked.to_value()["metadata"]["deletionGracePeriodSeconds"], 0);
}

#[tokio::test]
async fn what_is_final_or_settled_does_not_change() {
    let world = World::new().await;
    world.create(new_task("t")).await.unwrap();
    world.post("Task", "t", "binding", json!({"agent": "node-1"})).await.unwrap();
    let report =
        |status: Value| world.merge("Task", "t", Some("status"), json!({"status": status}));
    let running = report(json!({"state": "Running", "containerId": "c1"})).await.unwrap();
    for (field, value) in [("agent", "node-2"), ("containerId", "c2")] {
        let error = report(json!({field: value})).await.unwrap_err();
        assert_eq!((error.code, fields(&error)), (422, vec![&*format!("status.{field}")]));
    }
    let erased = report(json!({"agent": null, "containerId": null, "startedAt": null}));
    assert_eq!(erased.await.unwrap(), running);
    let last = json!({
        "state": "Failed", "exitCode": 3, "containerId": "c1", "agent": "node-1",
        "finishedAt": "2026-11-20T15:41:51Z", "message": null,
    });
    let failed = report(last.clone()).await.unwrap();
    for (field, value) in [
        ("exitCode", json!(0)),
        ("message", json!("all is well")),
        ("finishedAt", json!("2027-11-20T15:41:51Z")),
    ] {
        let error = report(json!({field: value})).await.unwrap_err();
        assert_eq!((error.code, &*error.reason), (409, "IllegalTransition"), "{field}");
        assert!(error.message.contains("is Failed, which is final"), "{error}");
    }
    assert_eq!(report(last).await.unwrap(), failed, "a repeat");
    assert_eq!(report(json!({"state": "Failed", "exitCode": 3})).await.unwrap(), failed);
    assert_eq!(report(Value::Null).await.unwrap(), failed);
}

#[tokio::test]
async fn an_orphaning_delete_of_a_framework_leaves_its_tasks() {
    let world = World::new().await;
    for name in ["one", "two"] {
        let framework = json!({
            "apiVersion": "commonage.dev/v1", "kind": "Framework",
            "metadata": {"name": name, "finalizers": ["commonage.dev/framework"]},
            "spec": {"queues": ["q"]},
        });
        world.create(framework).await.unwrap();
    }
    let orphan =
        || DeleteOptions { propagation: Some(Propagation::Orphan), ..DeleteOptions::default() };
    assert!(matches!(world.delete("Framework", "two").await.unwrap(), Deleted::Marked(_)));
    for name in ["one", "two"] {
        world.delete_with("Framework", name, orphan()).await.unwrap();
        let left = world.get("Framework", name).await.unwrap();
        assert_eq!(left["metadata"]["finalizers"], json!(["orphan"]), "the garbage collector's");
    }
}

#[tokio::test]
async fn a_secret_is_opaque_unless_it_says_otherwise() {
    let world = World::new().await;
    let mut secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}});
    let stored = world.create(secret.clone()).await.unwrap().object.to_value();
    assert_eq!(stored["type"], "Opaque");
    secret["data"] = json!({"k": "aGk="});
    assert_eq!(world.put(None, secret.clone()).await.unwrap()["type"], "Opaque");
    secret["metadata"]["name"] = json!("typed");
    secret["type"] = json!("example.com/key");
    assert_eq!(world.create(secret).await.unwrap().object.to_value()["type"], "example.com/key");
}
