//! Agent: one machine that runs tasks. Kubernetes calls it a node, Mesos an agent.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Resources;

/// Condition types of an Agent.
pub mod condition {
    /// The agent renews its Lease and can run tasks.
    pub const READY: &str = "Ready";
    /// It is being emptied.
    pub const DRAINING: &str = "Draining";
    /// It is empty.
    pub const DRAINED: &str = "Drained";
    /// Its data directory is nearly full.
    pub const DISK_PRESSURE: &str = "DiskPressure";
    /// Its Lease has run out.
    pub const UNREACHABLE: &str = "Unreachable";
    /// All of its GPUs can be given to tasks. Only of agents that have any.
    pub const GPUS_HEALTHY: &str = "GpusHealthy";
}

/// What the operator wants of a machine. Its labels carry its attributes.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "commonage.dev",
    version = "v1",
    kind = "Agent",
    shortname = "ag",
    category = "commonage",
    status = "AgentStatus",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status","description":"Whether the agent renews its lease and can run tasks"}"#,
    printcolumn = r#"{"name":"CPU","type":"string","jsonPath":".status.allocatable.cpu","description":"CPU that tasks may have"}"#,
    printcolumn = r#"{"name":"Used","type":"string","jsonPath":".status.allocated.cpu","description":"CPU held by tasks"}"#,
    printcolumn = r#"{"name":"Memory","type":"string","jsonPath":".status.allocatable.memory","description":"Memory that tasks may have"}"#,
    printcolumn = r#"{"name":"Used-Memory","type":"string","jsonPath":".status.allocated.memory","description":"Memory held by tasks"}"#,
    printcolumn = r#"{"name":"GPU","type":"string","jsonPath":".status.allocatable.gpu","priority":1,"description":"GPUs that tasks may have"}"#,
    printcolumn = r#"{"name":"Used-GPU","type":"string","jsonPath":".status.allocated.gpu","priority":1,"description":"GPUs held by tasks"}"#,
    printcolumn = r#"{"name":"Unschedulable","type":"boolean","jsonPath":".spec.unschedulable","priority":1}"#,
    printcolumn = r#"{"name":"Endpoint","type":"string","jsonPath":".status.endpoint","priority":1}"#,
    printcolumn = r#"{"name":"Kernel","type":"string","jsonPath":".status.system.kernel","priority":1}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[kube(
    doc = "One machine that runs tasks: what the operator wants of it (spec) and what it reports (status). Its labels carry its attributes, such as rack=r7."
)]
#[serde(rename_all = "camelCase")]
pub struct AgentSpec {
    /// Nothing new goes there.
    #[serde(default, skip_serializing_if = "crate::is_false")]
    pub unschedulable: bool,
    /// Empty the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<Drain>,
    /// A window in which the machine will be away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maintenance: Option<Maintenance>,
    /// Resources beyond the real ones that may be given to revocable tasks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overcommit: Option<Resources>,
}

/// How to empty a machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Drain {
    /// Upper bound of the grace period that its tasks get, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub grace_period_seconds: Option<i64>,
    /// Tell frameworks that the agent's tasks are gone for good.
    #[serde(default, skip_serializing_if = "crate::is_false")]
    pub mark_gone: bool,
    /// Why; shown to the frameworks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A window in which a machine will be away.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Maintenance {
    pub start: Time,
    /// How long it lasts, in seconds; without it, until the window is taken away.
    #[schemars(range(min = 0))]
    pub duration_seconds: i64,
}

/// What an agent reports about its machine, and what the allocator accounts to it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentStatus {
    /// What the machine has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<Resources>,
    /// What tasks may have of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allocatable: Option<Resources>,
    /// What may be lent and taken back at any time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revocable: Option<Resources>,
    /// Held by tasks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allocated: Option<Resources>,
    /// Held by outstanding offers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offered: Option<Resources>,
    /// Addresses at which tasks on the machine can be reached.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<AgentAddress>,
    /// Where the agent serves logs to the API server, `host:port`, HTTPS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<AgentSystem>,
    /// Its GPUs, the unhealthy ones too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gpus: Vec<AgentGpu>,
    /// Images that it keeps.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<AgentImage>,
    /// What holds of the agent: `Ready` above all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// One GPU of a machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentGpu {
    /// Its name, for good: `GPU-…`.
    pub uuid: String,
    /// Its number on the machine: may change when that is started anew.
    pub index: i64,
    /// Such as `NVIDIA H200`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Its memory, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<i64>,
    /// Whether it can be given to tasks.
    pub healthy: bool,
    /// Why it can't.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// One address of a machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentAddress {
    /// `Hostname`, `InternalIP` or `ExternalIP`.
    #[serde(rename = "type")]
    pub type_: String,
    /// An IP address or a name.
    pub address: String,
}

/// An image that a machine keeps.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentImage {
    /// Under which it was pulled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// Of its manifest.
    pub digest: String,
    /// Unpacked; layers are shared between images.
    pub size_bytes: i64,
}

/// What runs on a machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentSystem {
    /// The version of the kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
    /// The operating system, as it names itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub os: Option<String>,
    /// The architecture of its processors: `x86_64`, `aarch64`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arch: Option<String>,
    /// Changes with every start of the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_id: Option<String>,
    /// `v1`, `v2` or `hybrid`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup_version: Option<String>,
    /// Versions of the agent and of what it runs tasks with.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub versions: BTreeMap<String, String>,
}
