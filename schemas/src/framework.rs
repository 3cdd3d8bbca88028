//! Framework: one scheduler, a program or the built-in one.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Resources;

/// One scheduler that receives resources for one or more queues.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "commonage.dev",
    version = "v1",
    kind = "Framework",
    namespaced,
    shortname = "fw",
    category = "commonage",
    status = "FrameworkStatus",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Queues","type":"string","jsonPath":".spec.queues","description":"Queues that it receives resources for"}"#,
    printcolumn = r#"{"name":"Placement","type":"string","jsonPath":".spec.placement","description":"Offers: it answers offers itself; Tasks: its pending tasks are placed for it"}"#,
    printcolumn = r#"{"name":"Phase","type":"string","jsonPath":".status.phase"}"#,
    printcolumn = r#"{"name":"Offers","type":"integer","jsonPath":".status.offers","description":"Outstanding offers"}"#,
    printcolumn = r#"{"name":"Running","type":"integer","jsonPath":".status.tasks.Running","description":"Running tasks"}"#,
    printcolumn = r#"{"name":"Share","type":"string","jsonPath":".status.dominantShare","description":"Largest share that it holds of any one resource, 0 to 1"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[kube(
    doc = "One scheduler (a program, or the built-in one) that receives resources for one or more queues and runs tasks on them."
)]
#[serde(rename_all = "camelCase")]
pub struct FrameworkSpec {
    /// The queues that it receives resources for; the first is the default of its tasks.
    #[serde(default)]
    pub queues: Vec<String>,
    /// Who decides where tasks go: `Offers`, the framework answers offers itself; `Tasks`, its
    /// pending tasks are placed for it.
    #[serde(default)]
    pub placement: Placement,
    /// What the framework understands; resources that need more are not sent to it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<Capability>,
    /// How it wants its offers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offers: Option<OfferPolicy>,
    /// What it could use now; nothing is offered beyond it. Absent: it gets what fairness gives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub demand: Option<Vec<Demand>>,
    /// Liveness by a Lease of the framework's name in its namespace, in seconds; absent: it is
    /// not checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86400))]
    pub lease_duration_seconds: Option<i32>,
    /// After this long without a live scheduler its tasks are killed, in seconds. One week unless
    /// said otherwise.
    #[serde(default = "default_failover_timeout_seconds")]
    #[schemars(range(min = 0))]
    pub failover_timeout_seconds: i64,
    /// Where people find its own pages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub web_url: Option<String>,
}

impl Default for FrameworkSpec {
    fn default() -> Self {
        FrameworkSpec {
            queues: Vec::new(),
            placement: Placement::default(),
            capabilities: Vec::new(),
            offers: None,
            demand: None,
            lease_duration_seconds: None,
            failover_timeout_seconds: default_failover_timeout_seconds(),
            web_url: None,
        }
    }
}

/// One week, in seconds.
fn default_failover_timeout_seconds() -> i64 {
    7 * 24 * 3600
}

/// Who decides where a framework's tasks go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Placement {
    /// The framework answers offers itself.
    #[default]
    Offers,
    /// The control plane places the framework's pending tasks.
    Tasks,
}

/// What a framework understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Capability {
    /// It may receive agents that have GPUs.
    Gpu,
    /// It may receive resources that can be taken back at any time.
    Revocable,
    /// It understands volumes mounted by several tasks at once.
    Shared,
    /// It may receive agents of other regions than the control plane's.
    RegionAware,
}

/// How a framework wants its offers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OfferPolicy {
    /// Every offer ends after this long without an answer, in seconds.
    #[serde(default = "default_offer_timeout_seconds")]
    #[schemars(range(min = 5, max = 3600))]
    pub timeout_seconds: i32,
    /// Offers that it holds at once, at most.
    #[serde(default = "default_max_outstanding")]
    #[schemars(range(min = 1, max = 10000))]
    pub max_outstanding: i32,
    /// An offer must reach at least one of these; default: 0.01 cpu or 32 MiB of memory. An empty
    /// list means anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_allocatable: Option<Vec<Resources>>,
    /// Labels of agents worth offering; others are not sent.
    #[serde(default, rename = "match", skip_serializing_if = "Option::is_none")]
    pub match_: Option<LabelSelector>,
    /// Queues that want no offers now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub suppressed_queues: Vec<String>,
}

fn default_offer_timeout_seconds() -> i32 {
    30
}

fn default_max_outstanding() -> i32 {
    100
}

impl Default for OfferPolicy {
    fn default() -> Self {
        OfferPolicy {
            timeout_seconds: default_offer_timeout_seconds(),
            max_outstanding: default_max_outstanding(),
            min_allocatable: None,
            match_: None,
            suppressed_queues: Vec::new(),
        }
    }
}

/// So many tasks of such a size.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Demand {
    /// The queue that they would run in; default: the framework's first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// How many tasks.
    #[schemars(range(min = 0))]
    pub count: i64,
    /// What one of them needs.
    pub resources: Resources,
}

/// What a framework has and how it fares.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FrameworkStatus {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<FrameworkPhase>,
    /// Held by its tasks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allocated: Option<Resources>,
    /// Held by its outstanding offers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offered: Option<Resources>,
    /// Outstanding offers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offers: Option<i64>,
    /// Tasks, by state.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tasks: BTreeMap<String, i64>,
    /// The largest fraction that it holds of any one resource of the cluster, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dominant_share: Option<String>,
    /// What holds of the framework.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// Whether a framework's scheduler is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum FrameworkPhase {
    /// Its scheduler is alive, or its liveness is not checked.
    Active,
    /// Its Lease has run out: it is offered nothing, its tasks go on.
    Inactive,
    /// It stayed away longer than its fail-over time-out; its tasks are killed.
    Completed,
}
