//! PodMetrics and NodeMetrics (metrics.k8s.io/v1beta1): what Tasks and Agents use right now, in the form
//! that `kubectl top` and dashboards read. Pure; agents are asked by `http::measured`.
//!
//! Beside cpu and memory, which Kubernetes has, there is what was read from and written to disks, under
//! names of ours: a reader skips amounts that it does not know.

use commonage_schemas::stats::{AgentStats, TaskStats, Usage};
use serde_json::{Value, json};

use super::view::CONTAINER;
use crate::resource::{Column, ResourceDef, Scope, Storage, Verbs};

const GROUP: &str = "metrics.k8s.io";
const VERSION: &str = "v1beta1";
const VERBS: Verbs = &["get", "list"];

/// Whose use is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measured {
    /// Of Tasks, as pods.
    Pods,
    /// Of Agents, as nodes.
    Nodes,
}

impl Measured {
    fn kind(self) -> &'static str {
        match self {
            Measured::Pods => "PodMetrics",
            Measured::Nodes => "NodeMetrics",
        }
    }

    /// A list of such objects.
    pub(crate) fn list(self, items: Vec<Value>) -> Value {
        let mut list = self.typed(json!({"metadata": {}, "items": items}));
        list["kind"] = format!("{}List", self.kind()).into();
        list
    }

    fn typed(self, mut object: Value) -> Value {
        object["kind"] = self.kind().into();
        object["apiVersion"] = format!("{GROUP}/{VERSION}").into();
        object
    }
}

/// What a task uses; `task` is the Task.
pub(crate) fn of_task(task: &Value, seen: &AgentStats, stats: &TaskStats) -> Value {
    let mut usage = amounts(&stats.usage);
    usage["commonage.dev/processes"] = stats.processes.to_string().into();
    let mut object = measured(task, seen);
    object["containers"] = json!([{"name": CONTAINER, "usage": usage}]);
    Measured::Pods.typed(object)
}

/// What a machine uses; `agent` is the Agent.
pub(crate) fn of_agent(agent: &Value, seen: &AgentStats) -> Value {
    let mut object = measured(agent, seen);
    object["usage"] = amounts(&seen.machine);
    Measured::Nodes.typed(object)
}

fn measured(source: &Value, seen: &AgentStats) -> Value {
    let time = json!(seen.time);
    let mut metadata = json!({"name": source["metadata"]["name"], "creationTimestamp": time});
    for key in ["namespace", "labels"] {
        if let Some(value) = source["metadata"].get(key) {
            metadata[key] = value.clone();
        }
    }
    let window = format!("{}.{:03}s", seen.window_millis / 1000, seen.window_millis % 1000);
    json!({"metadata": metadata, "timestamp": time, "window": window})
}

fn amounts(usage: &Usage) -> Value {
    json!({
        "cpu": format!("{}n", usage.cpu_nanos),
        "memory": format!("{}Ki", usage.memory_bytes / 1024),
        "commonage.dev/io-read": format!("{}Ki", usage.io_read_bytes / 1024),
        "commonage.dev/io-written": format!("{}Ki", usage.io_written_bytes / 1024),
    })
}

pub(crate) fn definitions() -> Vec<ResourceDef> {
    let text = |words: &str| json!({"type": "string", "description": words});
    let usage = json!({
        "type": "object", "additionalProperties": {"x-kubernetes-int-or-string": true},
        "description": "cpu and memory in use, and what was read from and written to disks so far.",
    });
    let container = json!({
        "type": "object", "description": "The Task's container; its name is always `main`.",
        "properties": {"name": text("The container's name."), "usage": usage},
    });
    let containers = json!({"type": "array", "items": container, "description": "Exactly one."});
    vec![
        definition(Measured::Pods, "pods", Scope::Namespaced, ("containers", containers)),
        definition(Measured::Nodes, "nodes", Scope::Cluster, ("usage", usage)),
    ]
}

fn definition(
    what: Measured,
    plural: &str,
    scope: Scope,
    (field, schema): (&str, Value),
) -> ResourceDef {
    let mut openapi = json!({
        "type": "object", "description": "What is in use right now.",
        "properties": {
            "apiVersion": {"type": "string", "description": "Version of the API that this object is written in."},
            "kind": {"type": "string", "description": "The object's kind."},
            "metadata": {"type": "object"},
            "timestamp": {"type": "string", "format": "date-time", "description": "When it was looked."},
            "window": {"type": "string", "description": "Over how long before that the use of cpu is an average."},
        },
    });
    openapi["properties"][field] = schema;
    let def = crate::builtin::definition_of(GROUP, what.kind(), plural, &[], openapi);
    ResourceDef {
        version: VERSION.into(),
        singular: String::new(),
        storage: Storage::Measured(what),
        verbs: VERBS,
        scope,
        columns: vec![Column::name(), Column::age()],
        ..def
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_tasks_use_is_told_as_a_pods() {
        let usage = Usage { cpu_nanos: 1_500_000, memory_bytes: 3 << 20, ..Usage::default() };
        let stats = TaskStats {
            namespace: "shop".into(),
            name: "web-0".into(),
            uid: "u".into(),
            usage,
            processes: 2,
            throttled_millis: 0,
            oom_kills: 0,
        };
        let seen: AgentStats = serde_json::from_value(json!({
            "time": "2026-01-01T00:00:00Z", "windowMillis": 1002, "machine": usage, "tasks": [],
        }))
        .unwrap();
        let task = json!({"metadata": {"name": "web-0", "namespace": "shop", "labels": {"app": "web"}, "uid": "u"}});
        let pod = of_task(&task, &seen, &stats);
        assert_eq!(pod["kind"], "PodMetrics");
        assert_eq!(pod["window"], "1.002s");
        assert_eq!(pod["metadata"]["labels"]["app"], "web");
        let told = &pod["containers"][0];
        assert_eq!(
            (&told["usage"]["cpu"], &told["usage"]["memory"]),
            (&json!("1500000n"), &json!("3072Ki"))
        );
        let node = of_agent(&json!({"metadata": {"name": "node-1"}}), &seen);
        assert_eq!(Measured::Nodes.list(vec![node])["kind"], "NodeMetricsList");
    }
}
