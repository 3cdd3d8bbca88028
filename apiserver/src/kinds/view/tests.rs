//! Tasks and Agents through the eyes of clients of pods and nodes.
#![allow(clippy::unwrap_used)]

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{View, definitions, source_uid, uid};
use crate::table::{Headers, IncludeObject, TableOptions, TableVersion, render_one};

const UID: &str = "0b6a0a4e-3f53-4c1f-9a3e-1f1d2c3b4a59";

fn task(status: Value) -> Value {
    json!({
        "apiVersion": "commonage.dev/v1", "kind": "Task",
        "metadata": {
            "name": "web", "namespace": "default", "uid": UID, "resourceVersion": "7",
            "creationTimestamp": "2026-11-20T15:41:51Z", "labels": {"app": "web"},
            "finalizers": ["commonage.dev/container"], "managedFields": [{}],
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}"},
        },
        "spec": {
            "agent": "n1", "resources": {"cpu": "500m", "memory": "64Mi", "ports": "31000"},
            "killPolicy": {"gracePeriodSeconds": 5},
            "container": {"command": ["sleep", "9"], "ports": [{"name": "http", "hostPort": 31000}]},
        },
        "status": status,
    })
}

/// NAME READY STATUS RESTARTS AGE.
fn row(object: &Value) -> String {
    let def = definitions().into_iter().find(|def| object["kind"] == def.kind.as_str()).unwrap();
    let options = TableOptions {
        version: TableVersion::V1,
        include: IncludeObject::None,
        now: "2026-11-20T15:52:51Z".parse::<Timestamp>().unwrap(),
    };
    let table = render_one(&def, object, Headers::Shown, options);
    let table: Value = serde_json::from_slice(&table).unwrap();
    let cells = table["rows"][0]["cells"].as_array().unwrap();
    cells.iter().map(|cell| cell.as_str().unwrap()).collect::<Vec<_>>().join(" ")
}

fn pod(status: Value) -> Value {
    View::Pod.project(&task(status))
}

#[test]
fn every_state_reads_as_kubectl_would_say_it() {
    let started = "2026-11-20T15:42:00Z";
    for (status, row_wanted, phase) in [
        (
            json!({"state": "Staging"}),
            "web 0/1 ContainerCreating 0 11m <none> n1 <none> <none>",
            "Pending",
        ),
        (
            json!({"state": "Running", "startedAt": started}),
            "web 1/1 Running 0 11m <none> n1 <none> <none>",
            "Running",
        ),
        (
            json!({"state": "Running", "ready": false}),
            "web 0/1 Running 0 11m <none> n1 <none> <none>",
            "Running",
        ),
        (
            json!({"state": "Finished", "exitCode": 0}),
            "web 0/1 Completed 0 11m <none> n1 <none> <none>",
            "Succeeded",
        ),
        (
            json!({"state": "Failed", "exitCode": 3, "reason": "ExitCode"}),
            "web 0/1 Error 0 11m <none> n1 <none> <none>",
            "Failed",
        ),
        (
            json!({"state": "Failed", "signal": 9, "reason": "OomKilled"}),
            "web 0/1 OOMKilled 0 11m <none> n1 <none> <none>",
            "Failed",
        ),
        (
            json!({"state": "Error", "reason": "ImageInvalid"}),
            "web 0/1 ImageInvalid 0 11m <none> n1 <none> <none>",
            "Failed",
        ),
        (
            json!({"state": "Unreachable"}),
            "web 0/1 NodeLost 0 11m <none> n1 <none> <none>",
            "Unknown",
        ),
        (
            json!({"state": "Lost", "reason": "AgentLost"}),
            "web 0/1 ContainerStatusUnknown 0 11m <none> n1 <none> <none>",
            "Failed",
        ),
    ] {
        let pod = pod(status);
        assert_eq!(row(&pod), row_wanted);
        assert_eq!(pod["status"]["phase"], phase);
    }
}

#[test]
fn a_task_without_an_agent_waits_to_be_scheduled() {
    let mut task = task(json!({"state": "Pending", "message": "no agent has 4 cpus"}));
    task["spec"].as_object_mut().unwrap().remove("agent");
    let pod = View::Pod.project(&task);
    assert_eq!(row(&pod), "web 0/1 Pending 0 11m <none> <none> <none> <none>");
    assert_eq!(
        pod["status"]["conditions"],
        json!([{
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
            "message": "no agent has 4 cpus", "lastTransitionTime": "2026-11-20T15:41:51Z",
        }])
    );
    assert_eq!(pod["status"].get("containerStatuses"), None);
}

#[test]
fn how_it_ended_is_told_whole() {
    let status = json!({
        "state": "Killed", "signal": 15, "reason": "MaxCompletionTimeExceeded", "message": "60 s are over",
        "startedAt": "2026-11-20T15:42:00Z", "finishedAt": "2026-11-20T15:43:00Z", "containerId": "c1",
    });
    assert_eq!(
        pod(status)["status"]["containerStatuses"][0]["state"],
        json!({"terminated": {
            "exitCode": 143, "signal": 15, "reason": "MaxCompletionTimeExceeded", "message": "60 s are over",
            "startedAt": "2026-11-20T15:42:00Z", "finishedAt": "2026-11-20T15:43:00Z",
            "containerID": "commonage://c1",
        }})
    );
}

fn ready(pod: &Value) -> &Value {
    let conditions = pod["status"]["conditions"].as_array().unwrap();
    conditions.iter().find(|condition| condition["type"] == "Ready").unwrap()
}

#[test]
fn ready_is_a_condition() {
    let running = json!({"state": "Running", "startedAt": "2026-11-20T15:42:00Z"});
    let wanted =
        json!({"type": "Ready", "status": "True", "lastTransitionTime": "2026-11-20T15:42:00Z"});
    assert_eq!(ready(&pod(running.clone())), &wanted);
    let mut checked = task(running);
    checked["spec"]["readinessCheck"] = json!({"tcp": {}});
    assert_eq!(ready(&View::Pod.project(&checked))["status"], "False");
    checked["status"]["ready"] = true.into();
    assert_eq!(ready(&View::Pod.project(&checked))["status"], "True");
    assert_eq!(ready(&pod(json!({"state": "Finished"})))["reason"], "PodCompleted");
    assert_eq!(ready(&pod(json!({"state": "Unreachable"})))["status"], "Unknown");
}

#[test]
fn a_deleted_pod_is_terminating_until_it_has_ended() {
    let mut deleted = task(json!({"state": "Killing"}));
    deleted["metadata"]["deletionTimestamp"] = "2026-11-20T15:50:00Z".into();
    assert!(row(&View::Pod.project(&deleted)).contains(" Terminating "));
    deleted["status"]["state"] = "Killed".into();
    assert!(row(&View::Pod.project(&deleted)).contains(" Error "));
}

#[test]
fn metadata_is_the_pods_own() {
    let pod = pod(json!({"state": "Running"}));
    let metadata = pod["metadata"].as_object().unwrap();
    let keys: Vec<&str> = metadata.keys().map(String::as_str).collect();
    assert_eq!(
        keys,
        ["creationTimestamp", "labels", "name", "namespace", "ownerReferences", "uid"]
    );
    assert_ne!(metadata["uid"], UID);
    assert_eq!(source_uid(metadata["uid"].as_str().unwrap()), UID);
    assert_eq!(uid("no uid"), "no uid");
    assert_eq!(metadata["ownerReferences"][0]["uid"], UID);
    assert_eq!(metadata["ownerReferences"][0]["kind"], "Task");
}

#[test]
fn what_is_shown_is_what_the_schema_says() {
    let agent = json!({
        "metadata": {"name": "n1", "uid": UID, "creationTimestamp": "2026-11-20T15:41:51Z"},
        "spec": {"unschedulable": true},
        "status": {
            "capacity": {"cpu": "2", "memory": "4Gi", "disk": "9Gi", "ports": "1-2"},
            "conditions": [
                {"type": "Ready", "status": "True", "lastTransitionTime": "2026-11-20T15:42:00Z", "reason": "Ok", "message": ""},
                {"type": "Drained", "status": "True"},
            ],
            "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}], "endpoint": "10.0.0.1:7444",
            "system": {"kernel": "6.1", "os": "Debian", "arch": "x86_64", "versions": {"agent": "0.1.0"}},
        },
    });
    let node = View::Node.project(&agent);
    assert_eq!(
        row(&node),
        "n1 Ready,SchedulingDisabled <none> 11m v0.1.0 10.0.0.1 <none> Debian 6.1 commonage://0.1.0"
    );
    assert_eq!(
        node["status"]["capacity"],
        json!({"cpu": "2", "memory": "4Gi", "ephemeral-storage": "9Gi"})
    );
    assert_eq!(node["status"]["conditions"].as_array().unwrap().len(), 1);
    let ended = pod(json!({
        "state": "Failed", "exitCode": 3, "startedAt": "2026-11-20T15:42:00Z", "ip": "10.1.0.3", "containerId": "c",
    }));
    assert_eq!(ended["spec"]["containers"][0]["ports"][0]["containerPort"], 31000);
    for shown in [node, ended, pod(json!({"state": "Running"})), pod(json!({"state": "Staging"}))] {
        let def = definitions().into_iter().find(|def| shown["kind"] == def.kind.as_str()).unwrap();
        let mut pruned = shown.clone();
        assert_eq!(def.schema.prune(&mut pruned), Vec::<String>::new());
        assert_eq!(def.schema.validate(&shown), vec![]);
    }
}

#[test]
fn fields_are_the_sources_under_other_names() {
    let source = |field: &str| match field {
        "spec.agent" => Some("n1"),
        "status.state" => Some("Killing"),
        _ => None,
    };
    assert_eq!(View::Pod.field("spec.nodeName", source), Some("n1"));
    assert_eq!(View::Pod.field("status.phase", source), Some("Running"));
    assert_eq!(View::Pod.name_of("spec.agent"), Some("spec.nodeName"));
    assert_eq!(View::Pod.name_of("status.state"), None);
}
