//! Reservation: resources of an agent set aside for a queue.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Resources;

/// Resources set aside for a queue: on one named agent, or on agents that the controller chooses.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "commonage.dev",
    version = "v1",
    kind = "Reservation",
    shortname = "rsv",
    category = "commonage",
    status = "ReservationStatus",
    derive = "PartialEq",
    selectable = ".spec.agent",
    printcolumn = r#"{"name":"Queue","type":"string","jsonPath":".spec.queue"}"#,
    printcolumn = r#"{"name":"Agents","type":"string","jsonPath":".status.agents","description":"Where it is set aside"}"#,
    printcolumn = r#"{"name":"CPU","type":"string","jsonPath":".spec.resources.cpu"}"#,
    printcolumn = r#"{"name":"Memory","type":"string","jsonPath":".spec.resources.memory"}"#,
    printcolumn = r#"{"name":"Disk","type":"string","jsonPath":".spec.resources.disk","priority":1}"#,
    printcolumn = r#"{"name":"Parent","type":"string","jsonPath":".spec.parent","priority":1}"#,
    printcolumn = r#"{"name":"Phase","type":"string","jsonPath":".status.phase"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[kube(doc = "Resources of agents set aside for a queue.")]
#[serde(rename_all = "camelCase")]
pub struct ReservationSpec {
    /// Whom it is for.
    pub queue: String,
    /// What is set aside, on each agent; only ever less than at first.
    pub resources: Resources,
    /// The agent. Absent: chosen by `selector` and `count`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// Labels of the agents to choose from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
    /// On how many agents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub count: Option<i32>,
    /// The reservation that this one is a part of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// Whether tasks may be preempted to make room.
    #[serde(default, skip_serializing_if = "crate::is_false")]
    pub preempt: bool,
}

/// What became of a reservation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReservationStatus {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<ReservationPhase>,
    /// The agents that it was given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub agents: Vec<String>,
    /// The offer that it was made from, as `namespace/name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offer: Option<String>,
    /// Held by tasks and volumes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<Resources>,
    /// What holds of the reservation: `Bound`, and what it waits for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// Whether the resources are set aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ReservationPhase {
    Pending,
    Bound,
}

impl Reservation {
    /// Whether its resources are set aside.
    pub fn is_bound(&self) -> bool {
        self.status.as_ref().and_then(|s| s.phase) == Some(ReservationPhase::Bound)
    }

    /// The agents that it has been given so far.
    pub fn agents(&self) -> &[String] {
        self.status.as_ref().map_or(&[], |status| &status.agents)
    }

    /// On how many agents it wants to be.
    pub fn count(&self) -> usize {
        self.spec.count.and_then(|count| usize::try_from(count).ok()).unwrap_or(1)
    }
}

/// The condition of Reservations and Volumes that says whether what they want is theirs.
pub const BOUND: &str = "Bound";
