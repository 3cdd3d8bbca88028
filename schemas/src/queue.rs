//! Queue: a named claim on the cluster. Mesos calls it a role, with its weight and quota.

use k8s_openapi::apimachinery::pkg::{apis::meta::v1::Condition, util::intstr::IntOrString};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Resources, capabilities};

/// A named claim on the cluster: how much of it the frameworks of this queue may have, compared
/// with other queues. Dotted names form the tree: `eng.web` is a child of `eng`. A queue that
/// nobody declared exists with weight 1 as soon as a framework names it.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "commonage.dev",
    version = "v1",
    kind = "Queue",
    shortname = "q",
    category = "commonage",
    status = "QueueStatus",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Weight","type":"string","jsonPath":".spec.weight","description":"Fair share is divided in proportion to it"}"#,
    printcolumn = r#"{"name":"Dominant-Share","type":"string","jsonPath":".status.dominantShare","description":"Largest share that the queue holds of any one resource, 0 to 1"}"#,
    printcolumn = r#"{"name":"Allocated","type":"string","jsonPath":".status.allocated","description":"Held by tasks of this queue and of those below it"}"#,
    printcolumn = r#"{"name":"Guarantee","type":"string","jsonPath":".spec.guarantee","description":"What is always obtainable"}"#,
    printcolumn = r#"{"name":"Limit","type":"string","jsonPath":".spec.limit","description":"What is never exceeded"}"#,
    printcolumn = r#"{"name":"Offered","type":"string","jsonPath":".status.offered","priority":1,"description":"Held by outstanding offers"}"#,
    printcolumn = r#"{"name":"Reserved","type":"string","jsonPath":".status.reserved","priority":1,"description":"Set aside by reservations"}"#,
    printcolumn = r#"{"name":"Resource","type":"string","jsonPath":".status.dominantResource","priority":1,"description":"The resource that the dominant share is about"}"#,
    printcolumn = r#"{"name":"Pending","type":"integer","jsonPath":".status.pendingTasks","description":"Tasks that wait for resources"}"#,
    printcolumn = r#"{"name":"Oldest","type":"integer","jsonPath":".status.oldestPendingSeconds","priority":1,"description":"Seconds that the oldest of them has waited"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[kube(
    doc = "A named claim on the cluster: the weight, guarantee and limit of everything that runs in it. Dotted names form a tree."
)]
#[serde(rename_all = "camelCase")]
pub struct QueueSpec {
    /// Fair share among siblings is divided in proportion to this number. Greater than 0.
    #[serde(default = "default_weight")]
    pub weight: IntOrString,
    /// Resources that the queue can always obtain, by reclaim or preemption if need be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guarantee: Option<Resources>,
    /// Resources that the queue and everything below it never exceeds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<Resources>,
    /// Higher preempts lower, inside what guarantees allow.
    #[serde(default)]
    pub priority: i32,
    /// What its tasks may have beyond an ordinary container. Absent: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<SandboxPolicy>,
}

/// What tasks may have that reaches out of their containers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SandboxPolicy {
    /// Paths of agents that tasks may mount, each with all that is below it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_paths: Vec<String>,
    /// Linux capabilities that tasks may have, such as `NET_ADMIN`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<String>,
}

impl SandboxPolicy {
    /// Whether a path of an agent may be mounted.
    pub fn allows_path(&self, path: &str) -> bool {
        let path = std::path::Path::new(path);
        let plain = path.is_absolute()
            && path.components().all(|part| part != std::path::Component::ParentDir);
        plain && self.host_paths.iter().any(|allowed| path.starts_with(allowed))
    }

    /// Whether a capability may be given; `CAP_` before its name makes no difference.
    pub fn allows_capability(&self, name: &str) -> bool {
        let name = capabilities::bare(name);
        name.is_some() && self.capabilities.iter().any(|one| capabilities::bare(one) == name)
    }
}

fn default_weight() -> IntOrString {
    IntOrString::Int(1)
}

impl Default for QueueSpec {
    fn default() -> Self {
        QueueSpec {
            weight: default_weight(),
            guarantee: None,
            limit: None,
            priority: 0,
            sandbox: None,
        }
    }
}

impl QueueSpec {
    /// The weight as a number; 1 where it does not parse (validation refuses such a queue).
    pub fn weight(&self) -> f64 {
        match &self.weight {
            IntOrString::Int(n) => f64::from(*n),
            IntOrString::String(s) => s.parse().unwrap_or(1.0),
        }
    }
}

/// What the allocator accounts to a queue.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct QueueStatus {
    /// Held by tasks of this queue and of all queues below it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allocated: Option<Resources>,
    /// Held by outstanding offers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offered: Option<Resources>,
    /// Set aside by reservations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reserved: Option<Resources>,
    /// The largest fraction that the queue holds of any one resource of the cluster, 0 to 1,
    /// before division by its weight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dominant_share: Option<String>,
    /// The resource that `dominantShare` is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dominant_resource: Option<String>,
    /// Tasks that wait for resources.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending_tasks: Option<i64>,
    /// How long the oldest of them has waited, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_pending_seconds: Option<i64>,
    /// What holds of the queue.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}
