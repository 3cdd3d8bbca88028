//! A Task as a Pod: one container that never restarts.

use commonage_schemas::{GROUP, VERSION, reasons};
use serde_json::{Value, json};

use super::{metadata, object, resources, text};

/// A Task's container has no name of its own.
pub(crate) const CONTAINER: &str = "main";
pub(super) const RESTART_POLICY: &str = "Never";
pub(super) const SCHEDULER: &str = "commonage";
/// What kubectl calls a pod whose node does not answer.
const NODE_LOST: &str = "NodeLost";
const SIGNAL_EXIT_BASE: i64 = 128;

/// Of a Task's state.
pub(super) fn phase(state: &str) -> &'static str {
    match state {
        "" | "Pending" | "Staging" | "Starting" => "Pending",
        "Running" | "Killing" => "Running",
        "Finished" => "Succeeded",
        "Unreachable" => "Unknown",
        _ => "Failed",
    }
}

pub(super) fn project(task: &Value) -> Value {
    let mut metadata = metadata(task);
    metadata.insert(
        "ownerReferences".to_owned(),
        json!([{
            "apiVersion": format!("{GROUP}/{VERSION}"), "kind": "Task",
            "name": task.pointer("/metadata/name"), "uid": task.pointer("/metadata/uid"),
            "controller": true, "blockOwnerDeletion": true,
        }]),
    );
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": spec(task),
        "status": status(task),
    })
}

fn spec(task: &Value) -> Value {
    let field = |pointer: &str| task.pointer(pointer).cloned();
    let network = text(task, "/spec/container/network");
    object([
        ("containers", Some(json!([container(task)]))),
        ("restartPolicy", Some(RESTART_POLICY.into())),
        ("terminationGracePeriodSeconds", field("/spec/killPolicy/gracePeriodSeconds")),
        ("nodeName", text(task, "/spec/agent").map(Into::into)),
        ("hostNetwork", network.is_none_or(|network| network == "Host").then(|| true.into())),
        ("schedulerName", Some(SCHEDULER.into())),
        ("priority", field("/spec/priority")),
    ])
}

fn container(task: &Value) -> Value {
    let field = |name: &str| task.pointer(&format!("/spec/container/{name}")).cloned();
    let requests = resources(task.pointer("/spec/resources"));
    let limits = resources(task.pointer("/spec/limits")).or_else(|| requests.clone());
    object([
        ("name", Some(CONTAINER.into())),
        ("image", field("image")),
        ("command", field("command")),
        ("args", field("args")),
        ("workingDir", field("workingDir")),
        ("ports", ports(task)),
        ("env", field("env")),
        ("stdin", field("stdin")),
        ("stdinOnce", field("stdinOnce")),
        ("tty", field("tty")),
        ("resources", Some(object([("limits", limits), ("requests", requests)]))),
    ])
}

fn ports(task: &Value) -> Option<Value> {
    let ports = task.pointer("/spec/container/ports")?.as_array()?;
    let ports = ports.iter().map(|port| {
        let of = |name: &str| port.get(name).filter(|number| **number != 0).cloned();
        object([
            ("name", of("name")),
            ("hostPort", of("hostPort")),
            ("containerPort", of("containerPort").or_else(|| of("hostPort"))),
            ("protocol", Some("TCP".into())),
        ])
    });
    Some(ports.collect())
}

fn status(task: &Value) -> Value {
    let state = text(task, "/status/state").unwrap_or("Pending");
    let ip = text(task, "/status/ip");
    let (reason, message) = match state {
        "Unreachable" => (Some(NODE_LOST), text(task, "/status/message")),
        // It never ran, or nobody knows how it ended: the container can't say it.
        "Error" | "Dropped" | "Lost" | "Gone" => {
            (text(task, "/status/reason"), text(task, "/status/message"))
        }
        _ => (None, None),
    };
    object([
        ("phase", Some(phase(state).into())),
        ("conditions", Some(conditions(task, state))),
        ("reason", reason.map(Into::into)),
        ("message", message.map(Into::into)),
        ("podIP", ip.map(Into::into)),
        ("podIPs", ip.map(|ip| json!([{ "ip": ip }]))),
        ("startTime", since(task, &["Staging"]).map(Into::into)),
        ("containerStatuses", container_status(task, state).map(|status| json!([status]))),
        ("qosClass", Some("Burstable".into())),
    ])
}

/// When the Task came into the last of these states that it was in.
fn since<'t>(task: &'t Value, states: &[&str]) -> Option<&'t str> {
    let history = task.pointer("/status/history")?.as_array()?;
    let entry = history
        .iter()
        .rev()
        .find(|entry| text(entry, "/state").is_some_and(|state| states.contains(&state)))?;
    text(entry, "/time")
}

fn started(task: &Value) -> Option<&str> {
    text(task, "/status/startedAt").or_else(|| since(task, &["Running"]))
}

fn finished<'t>(task: &'t Value, state: &str) -> Option<&'t str> {
    text(task, "/status/finishedAt").or_else(|| since(task, &[state]))
}

/// Without a readiness check, what runs is ready.
fn is_ready(task: &Value, state: &str) -> bool {
    let said = task.pointer("/status/ready").and_then(Value::as_bool);
    let unchecked = task.pointer("/spec/readinessCheck").is_none();
    matches!(state, "Running" | "Killing") && said.unwrap_or(unchecked)
}

fn conditions(task: &Value, state: &str) -> Value {
    let created = text(task, "/metadata/creationTimestamp");
    let placed = text(task, "/spec/agent").is_some();
    let condition = |type_: &str, holds: Option<bool>, reason: Option<&str>, time: Option<&str>| {
        let status = holds.map_or("Unknown", |holds| if holds { "True" } else { "False" });
        object([
            ("type", Some(type_.into())),
            ("status", Some(status.into())),
            ("lastTransitionTime", time.or(created).map(Into::into)),
            ("reason", reason.map(Into::into)),
        ])
    };
    let mut scheduled = condition(
        "PodScheduled",
        Some(placed),
        (!placed).then_some("Unschedulable"),
        since(task, &["Staging"]),
    );
    if let (false, Some(message)) = (placed, text(task, "/status/message")) {
        scheduled["message"] = message.into();
    }
    if !placed {
        return json!([scheduled]);
    }
    let (ready, reason, time) = match phase(state) {
        "Succeeded" => (Some(false), Some("PodCompleted"), finished(task, state)),
        "Failed" => (Some(false), Some("PodFailed"), finished(task, state)),
        "Unknown" => (None, Some(NODE_LOST), since(task, &["Unreachable"])),
        _ if is_ready(task, state) => (Some(true), None, started(task)),
        _ => (Some(false), Some("ContainersNotReady"), started(task)),
    };
    let initialized = condition("Initialized", Some(true), None, since(task, &["Starting"]));
    let of_containers = condition("ContainersReady", ready, reason, time);
    json!([initialized, condition("Ready", ready, reason, time), of_containers, scheduled])
}

/// `None` while there is no container, and when there never was one.
fn container_status(task: &Value, state: &str) -> Option<Value> {
    text(task, "/spec/agent")?;
    let running = || json!({ "running": object([("startedAt", started(task).map(Into::into))]) });
    let shown = match state {
        "Pending" | "Staging" | "Starting" => {
            let message = text(task, "/status/message").map(Into::into);
            let reason = Some("ContainerCreating".into());
            json!({ "waiting": object([("reason", reason), ("message", message)]) })
        }
        "Running" | "Killing" | "Unreachable" => running(),
        "Finished" | "Failed" | "Killed" | "Lost" => {
            json!({ "terminated": terminated(task, state) })
        }
        _ => return None,
    };
    let runs = shown.get("running").is_some();
    Some(object([
        ("name", Some(CONTAINER.into())),
        ("state", Some(shown)),
        ("lastState", Some(json!({}))),
        ("ready", Some(is_ready(task, state).into())),
        ("restartCount", Some(0.into())),
        ("image", Some(text(task, "/spec/container/image").unwrap_or("").into())),
        ("imageID", Some("".into())),
        ("containerID", container_id(task)),
        ("started", Some(runs.into())),
    ]))
}

fn container_id(task: &Value) -> Option<Value> {
    Some(format!("commonage://{}", text(task, "/status/containerId")?).into())
}

fn terminated(task: &Value, state: &str) -> Value {
    let signal =
        task.pointer("/status/signal").and_then(Value::as_i64).filter(|signal| *signal > 0);
    let code = task.pointer("/status/exitCode").and_then(Value::as_i64);
    // As shells say it, when a signal was the end.
    let unknown = SIGNAL_EXIT_BASE + 9;
    let code = code.or_else(|| Some(SIGNAL_EXIT_BASE + signal?)).unwrap_or(match state {
        "Finished" => 0,
        _ => unknown,
    });
    let said = text(task, "/status/reason");
    let reason = match (state, said) {
        ("Finished", _) => "Completed",
        ("Lost", _) => "ContainerStatusUnknown",
        (_, Some(reasons::task::OOM_KILLED)) => "OOMKilled",
        (_, None | Some(reasons::task::EXIT_CODE | reasons::task::KILLED_BY_SIGNAL)) => "Error",
        (_, Some(other)) => other,
    };
    object([
        ("exitCode", Some(code.into())),
        ("signal", signal.map(Into::into)),
        ("reason", Some(reason.into())),
        ("message", text(task, "/status/message").map(Into::into)),
        ("startedAt", started(task).map(Into::into)),
        ("finishedAt", finished(task, state).map(Into::into)),
        ("containerID", container_id(task)),
    ])
}
