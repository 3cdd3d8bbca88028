//! An Agent as a Node.

use serde_json::{Value, json};

use super::{metadata, object, resources, text};

const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

pub(super) fn project(agent: &Value) -> Value {
    let mut metadata = metadata(agent);
    let system = |name: &str| text(agent, &format!("/status/system/{name}"));
    let labels = metadata.entry("labels").or_insert_with(|| json!({}));
    for (label, value) in [
        ("kubernetes.io/hostname", text(agent, "/metadata/name")),
        ("kubernetes.io/os", Some("linux")),
        ("kubernetes.io/arch", system("arch").map(architecture)),
    ] {
        if let Some(value) = value {
            labels[label] = value.into();
        }
    }
    let unschedulable = agent.pointer("/spec/unschedulable").and_then(Value::as_bool) == Some(true);
    let taints = json!([{"key": UNSCHEDULABLE, "effect": "NoSchedule"}]);
    let spec = object([
        ("unschedulable", unschedulable.then(|| true.into())),
        ("taints", unschedulable.then_some(taints)),
    ]);
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": metadata,
        "spec": spec,
        "status": status(agent),
    })
}

/// In Go's words.
fn architecture(rust: &str) -> &str {
    match rust {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn status(agent: &Value) -> Value {
    let system = |name: &str| text(agent, &format!("/status/system/{name}"));
    let version = text(agent, "/status/system/versions/agent").unwrap_or("0.0.0");
    let known = |value: Option<&str>| Value::from(value.unwrap_or(""));
    object([
        ("capacity", resources(agent.pointer("/status/capacity"))),
        ("allocatable", resources(agent.pointer("/status/allocatable"))),
        ("conditions", Some(conditions(agent))),
        ("addresses", agent.pointer("/status/addresses").cloned()),
        ("daemonEndpoints", endpoint_port(agent)),
        (
            "nodeInfo",
            Some(json!({
                "machineID": "",
                "systemUUID": "",
                "bootID": known(system("bootId")),
                "kernelVersion": known(system("kernel")),
                "osImage": known(system("os")),
                "containerRuntimeVersion": format!("commonage://{version}"),
                "kubeletVersion": format!("v{version}"),
                "kubeProxyVersion": "",
                "operatingSystem": "linux",
                "architecture": known(system("arch").map(architecture)),
            })),
        ),
    ])
}

fn endpoint_port(agent: &Value) -> Option<Value> {
    let (_, port) = text(agent, "/status/endpoint")?.rsplit_once(':')?;
    let port: u16 = port.parse().ok()?;
    Some(json!({ "kubeletEndpoint": { "Port": port } }))
}

/// Those of the Agent that Kubernetes knows too.
fn conditions(agent: &Value) -> Value {
    let all = agent.pointer("/status/conditions").and_then(Value::as_array);
    let known = all
        .into_iter()
        .flatten()
        .filter(|condition| matches!(text(condition, "/type"), Some("Ready" | "DiskPressure")));
    let known = known.map(|condition| {
        let of = |name: &str| condition.get(name).cloned();
        object([
            ("type", of("type")),
            ("status", of("status")),
            ("lastHeartbeatTime", of("lastTransitionTime")),
            ("lastTransitionTime", of("lastTransitionTime")),
            ("reason", of("reason")),
            ("message", of("message")),
        ])
    });
    known.collect()
}
