//! Cells of `kubectl get pods` and `kubectl get nodes`, as kube-apiserver works them out.

use jiff::Timestamp;
use serde_json::Value;

use super::text;
use crate::table::age_of;

const NONE: &str = "<none>";

/// The one container's status.
fn container<'p>(pod: &'p Value, pointer: &str) -> Option<&'p Value> {
    pod.pointer("/status/containerStatuses/0")?.pointer(pointer)
}

pub(super) fn pod_ready(pod: &Value, _: Timestamp) -> Value {
    let containers = pod.pointer("/spec/containers").and_then(Value::as_array).map_or(0, Vec::len);
    let ready = container(pod, "/ready").and_then(Value::as_bool) == Some(true)
        && container(pod, "/state/running").is_some();
    format!("{}/{containers}", i32::from(ready)).into()
}

pub(super) fn pod_status(pod: &Value, _: Timestamp) -> Value {
    let said = |pointer| container(pod, pointer).and_then(Value::as_str).filter(|s| !s.is_empty());
    let phase = text(pod, "/status/phase").unwrap_or("");
    let status = said("/state/waiting/reason")
        .or_else(|| said("/state/terminated/reason"))
        .or_else(|| text(pod, "/status/reason"))
        .unwrap_or(phase);
    let over = matches!(phase, "Succeeded" | "Failed");
    match text(pod, "/metadata/deletionTimestamp") {
        Some(_) if text(pod, "/status/reason") == Some("NodeLost") => "Unknown".into(),
        Some(_) if !over => "Terminating".into(),
        _ => status.into(),
    }
}

pub(super) fn pod_restarts(pod: &Value, _: Timestamp) -> Value {
    container(pod, "/restartCount").and_then(Value::as_i64).unwrap_or(0).to_string().into()
}

pub(super) fn age(object: &Value, now: Timestamp) -> Value {
    let created = text(object, "/metadata/creationTimestamp");
    created.map_or("<unknown>".to_owned(), |created| age_of(created, now)).into()
}

pub(super) fn pod_ip(pod: &Value, _: Timestamp) -> Value {
    text(pod, "/status/podIP").unwrap_or(NONE).into()
}

pub(super) fn pod_node(pod: &Value, _: Timestamp) -> Value {
    text(pod, "/spec/nodeName").unwrap_or(NONE).into()
}

pub(super) fn none(_: &Value, _: Timestamp) -> Value {
    NONE.into()
}

pub(super) fn node_status(node: &Value, _: Timestamp) -> Value {
    let conditions = node.pointer("/status/conditions").and_then(Value::as_array);
    let ready = conditions
        .into_iter()
        .flatten()
        .find(|condition| text(condition, "/type") == Some("Ready"))
        .and_then(|condition| text(condition, "/status"));
    let mut status = match ready {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if node.pointer("/spec/unschedulable").and_then(Value::as_bool) == Some(true) {
        status.push_str(",SchedulingDisabled");
    }
    status.into()
}

pub(super) fn node_roles(node: &Value, _: Timestamp) -> Value {
    const ROLE: &str = "node-role.kubernetes.io/";
    let labels = node.pointer("/metadata/labels").and_then(Value::as_object);
    let mut roles: Vec<&str> =
        labels.into_iter().flatten().filter_map(|(label, _)| label.strip_prefix(ROLE)).collect();
    roles.sort_unstable();
    if roles.is_empty() { NONE.into() } else { roles.join(",").into() }
}

fn node_address(node: &Value, type_: &str) -> Value {
    let addresses = node.pointer("/status/addresses").and_then(Value::as_array);
    let of_type = addresses
        .into_iter()
        .flatten()
        .find(|address| text(address, "/type") == Some(type_))
        .and_then(|address| text(address, "/address"));
    of_type.unwrap_or(NONE).into()
}

pub(super) fn node_internal_ip(node: &Value, _: Timestamp) -> Value {
    node_address(node, "InternalIP")
}

pub(super) fn node_external_ip(node: &Value, _: Timestamp) -> Value {
    node_address(node, "ExternalIP")
}
