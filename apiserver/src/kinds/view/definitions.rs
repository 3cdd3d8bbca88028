//! The kinds on loan as the documents describe them: only the fields that are really shown.

use serde_json::{Value, json};

use super::{View, cells};
use crate::jsonpath::JsonPath;
use crate::resource::{Cell, Column, ResourceDef, Scope, Storage, Subresource, Verbs};

/// Deleting a pod deletes its Task: it is killed, and then gone.
const POD_VERBS: Verbs = &["delete", "get", "list", "watch"];
const NODE_VERBS: Verbs = &["get", "list", "watch"];

/// Pod and Node.
pub(crate) fn definitions() -> Vec<ResourceDef> {
    vec![pod(), node()]
}

fn pod() -> ResourceDef {
    let mut def = definition(View::Pod, "Pod", "pods", "po", pod_schema());
    def.verbs = POD_VERBS;
    def.categories = vec!["all".into()];
    def.selectable_fields =
        ["spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "status.phase"]
            .map(field)
            .into();
    def.subresources = [
        ("attach", "PodAttachOptions", &["create", "get"][..]),
        ("exec", "PodExecOptions", &["create", "get"]),
        ("log", "Pod", &["get"]),
        ("portforward", "PodPortForwardOptions", &["create", "get"]),
    ]
    .map(|(name, kind, verbs)| Subresource {
        name: name.into(),
        group: String::new(),
        version: "v1".into(),
        kind: kind.into(),
        verbs: verbs.iter().map(|verb| (*verb).into()).collect(),
    })
    .into();
    def.columns = vec![
        Column::name(),
        column(
            "Ready",
            0,
            cells::pod_ready,
            "The aggregate readiness state of this pod for accepting traffic.",
        ),
        column(
            "Status",
            0,
            cells::pod_status,
            "The aggregate status of the containers in this pod.",
        ),
        column(
            "Restarts",
            0,
            cells::pod_restarts,
            "The number of times the containers in this pod have been restarted and when the last \
             container in this pod has restarted.",
        ),
        column("Age", 0, cells::age, Column::age().description.as_str()),
        column(
            "IP",
            1,
            cells::pod_ip,
            "The address of the pod's network, if it has one of its own.",
        ),
        column("Node", 1, cells::pod_node, "The agent that runs the pod's Task."),
        column(
            "Nominated Node",
            1,
            cells::none,
            "Always empty: a Task is never promised an agent.",
        ),
        column(
            "Readiness Gates",
            1,
            cells::none,
            "Always empty: a Task has a readiness check instead.",
        ),
    ];
    def
}

fn node() -> ResourceDef {
    let mut def = definition(View::Node, "Node", "nodes", "no", node_schema());
    def.verbs = NODE_VERBS;
    def.scope = Scope::Cluster;
    let path = |name: &str, path: &str, words: &str| Column {
        priority: 1,
        ..Column::path(name, "string", path, words)
    };
    def.columns = vec![
        Column::name(),
        column("Status", 0, cells::node_status, "The status of the node"),
        column("Roles", 0, cells::node_roles, "The roles of the node"),
        column("Age", 0, cells::age, Column::age().description.as_str()),
        Column {
            priority: 0,
            ..path("Version", ".status.nodeInfo.kubeletVersion", "The agent's version.")
        },
        column(
            "Internal-IP",
            1,
            cells::node_internal_ip,
            "Where tasks of the node can be reached.",
        ),
        column("External-IP", 1, cells::node_external_ip, "The same from outside."),
        path("OS-Image", ".status.nodeInfo.osImage", "What the machine calls itself."),
        path("Kernel-Version", ".status.nodeInfo.kernelVersion", "The machine's kernel."),
        path("Container-Runtime", ".status.nodeInfo.containerRuntimeVersion", "What runs tasks."),
    ];
    def
}

fn definition(view: View, kind: &str, plural: &str, short: &str, openapi: Value) -> ResourceDef {
    let def = crate::builtin::definition_of("", kind, plural, &[short], openapi);
    ResourceDef { storage: Storage::Projected(view), ..def }
}

fn field(name: &str) -> (String, JsonPath) {
    let path = JsonPath::parse(&format!(".{name}")).expect("a compiled-in path parses");
    (name.into(), path)
}

fn column(
    name: &str,
    priority: i32,
    cell: fn(&Value, jiff::Timestamp) -> Value,
    description: &str,
) -> Column {
    let column = Column::path(name, "string", ".", description);
    Column { cell: Cell::Computed(cell), priority, ..column }
}

fn string(description: &str) -> Value {
    json!({"type": "string", "description": description})
}

fn time(description: &str) -> Value {
    json!({"type": "string", "format": "date-time", "description": description})
}

fn boolean(description: &str) -> Value {
    json!({"type": "boolean", "description": description})
}

fn integer(description: &str) -> Value {
    json!({"type": "integer", "format": "int32", "description": description})
}

fn strings(description: &str) -> Value {
    list(description, json!({"type": "string"}))
}

fn list(description: &str, items: Value) -> Value {
    json!({"type": "array", "items": items, "description": description})
}

fn record(description: &str, properties: Value) -> Value {
    json!({"type": "object", "description": description, "properties": properties})
}

fn amounts(description: &str) -> Value {
    let amount = json!({"x-kubernetes-int-or-string": true});
    json!({"type": "object", "description": description, "additionalProperties": amount})
}

fn kind(description: &str, spec: Value, status: Value) -> Value {
    let properties = json!({
        "apiVersion": string("Version of the API that this object is written in."),
        "kind": string("The object's kind."),
        "metadata": {"type": "object"},
        "spec": spec,
        "status": status,
    });
    record(description, properties)
}

fn conditions() -> Value {
    let condition = record(
        "One condition.",
        json!({
            "type": string("What it is about."),
            "status": string("True, False or Unknown."),
            "reason": string("Why, for programs."),
            "message": string("Why, for people."),
            "lastTransitionTime": time("Since when."),
            "lastHeartbeatTime": time("When it was last reported."),
        }),
    );
    list("What holds for it.", condition)
}

fn pod_schema() -> Value {
    let resources = json!({
        "limits": amounts("What it can never exceed."),
        "requests": amounts("What is set aside for it."),
    });
    let container = record(
        "The Task's container; its name is always `main`.",
        json!({
            "name": string("The container's name."),
            "image": string("The image; absent when it runs on the agent's own root file system."),
            "command": strings("The program and its first arguments."),
            "args": strings("More arguments."),
            "workingDir": string("Where the command starts."),
            "env": list("Its environment.", record("One variable.", json!({
                "name": string("The variable's name."), "value": string("Its value."),
            }))),
            "ports": list("Its ports.", record("One port.", json!({
                "name": string("The port's name."), "containerPort": integer("The port in the Task's network."),
                "hostPort": integer("The port on the agent."), "protocol": string("Always TCP."),
            }))),
            "resources": record("What it may use.", resources),
            "stdin": boolean("Whether it has a standard input, fed by those who are attached to it."),
            "stdinOnce": boolean("Whether that ends when the first who was attached to it has gone."),
            "tty": boolean("Whether it runs in a terminal of its own."),
        }),
    );
    let spec = record(
        "What the Task asks for.",
        json!({
            "containers": list("Exactly one.", container),
            "nodeName": string("The agent that runs it."),
            "restartPolicy": string("Always Never: restarting belongs to the Task's framework."),
            "terminationGracePeriodSeconds": integer("Seconds between being told to end and being killed."),
            "hostNetwork": boolean("It uses the agent's network."),
            "schedulerName": string("Always commonage."),
            "priority": integer("Higher goes first inside its queue."),
        }),
    );
    let state = record(
        "Exactly one of these is set.",
        json!({
            "waiting": record("It has not started.", json!({"reason": string("Why."), "message": string("Why, in words.")})),
            "running": record("It runs.", json!({"startedAt": time("Since when.")})),
            "terminated": record("It has ended.", json!({
                "exitCode": integer("Its exit code; 128 and the signal's number if a signal ended it."),
                "signal": integer("The signal that ended it."),
                "reason": string("Why it ended."),
                "message": string("Why it ended, in words."),
                "startedAt": time("When it started."),
                "finishedAt": time("When it ended."),
                "containerID": string("Its container."),
            })),
        }),
    );
    let container_status = record(
        "How the container is.",
        json!({
            "name": string("The container's name."), "state": state,
            "lastState": {"type": "object", "description": "Always empty: a Task runs once."},
            "ready": boolean("Its readiness check succeeds."),
            "started": boolean("It runs."),
            "restartCount": integer("Always 0."),
            "image": string("The image."), "imageID": string("Always empty."),
            "containerID": string("The container's name on its agent."),
        }),
    );
    let status = record(
        "What is known of the Task.",
        json!({
            "phase": string("Pending, Running, Succeeded, Failed or Unknown."),
            "conditions": conditions(),
            "reason": string("Why it is in this phase, for programs."),
            "message": string("The same for people."),
            "podIP": string("The address of its own network."),
            "podIPs": list("The same.", record("One address.", json!({"ip": string("The address.")}))),
            "startTime": time("When it was given its agent."),
            "containerStatuses": list("Exactly one, once it has an agent.", container_status),
            "qosClass": string("Always Burstable."),
        }),
    );
    kind(
        "A Task of commonage.dev, shown to clients that know pods only. It can be read and deleted; to run \
          something, create a Task.",
        spec,
        status,
    )
}

fn node_schema() -> Value {
    let taint =
        record("One taint.", json!({"key": string("Its key."), "effect": string("Its effect.")}));
    let spec = record(
        "What the operator wants of the machine.",
        json!({
            "unschedulable": boolean("Nothing new goes there."),
            "taints": list("What keeps tasks away.", taint),
        }),
    );
    let address = record(
        "One address.",
        json!({"type": string("Its type."), "address": string("The address.")}),
    );
    let info = [
        "machineID",
        "systemUUID",
        "bootID",
        "kernelVersion",
        "osImage",
        "containerRuntimeVersion",
        "kubeletVersion",
        "kubeProxyVersion",
        "operatingSystem",
        "architecture",
    ];
    let info: serde_json::Map<String, Value> =
        info.iter().map(|name| ((*name).to_owned(), string("As the agent reports it."))).collect();
    let port = record("One endpoint.", json!({"Port": integer("Its port.")}));
    let status = record(
        "What the agent reports.",
        json!({
            "capacity": amounts("What the machine has."),
            "allocatable": amounts("What tasks may have of it."),
            "conditions": conditions(),
            "addresses": list("Where its tasks can be reached.", address),
            "daemonEndpoints": record("The agent's own.", json!({"kubeletEndpoint": port})),
            "nodeInfo": record("What runs on the machine.", info.into()),
        }),
    );
    kind(
        "An Agent of commonage.dev, shown to clients that know nodes only. It can only be read.",
        spec,
        status,
    )
}
