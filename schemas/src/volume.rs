//! Volume: disk on an agent that outlives the tasks mounting it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::quantity::{self, Unit};

/// Disk on an agent, made from a reservation, that outlives the tasks mounting it.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "commonage.dev",
    version = "v1",
    kind = "Volume",
    namespaced,
    shortname = "vol",
    category = "commonage",
    status = "VolumeStatus",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Size","type":"string","jsonPath":".spec.size"}"#,
    printcolumn = r#"{"name":"Reservation","type":"string","jsonPath":".spec.reservation"}"#,
    printcolumn = r#"{"name":"Agent","type":"string","jsonPath":".status.agent"}"#,
    printcolumn = r#"{"name":"Shared","type":"boolean","jsonPath":".spec.shared","priority":1}"#,
    printcolumn = r#"{"name":"Used-By","type":"string","jsonPath":".status.usedBy","priority":1}"#,
    printcolumn = r#"{"name":"Phase","type":"string","jsonPath":".status.phase"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[kube(doc = "Disk on an agent, made from a reservation, that outlives the tasks mounting it.")]
#[serde(rename_all = "camelCase")]
pub struct VolumeSpec {
    /// The reservation whose disk it takes.
    pub reservation: String,
    /// A quantity, such as `10Gi`. It can be changed.
    pub size: String,
    /// Several tasks may mount it at once.
    #[serde(default, skip_serializing_if = "crate::is_false")]
    pub shared: bool,
}

/// What became of a volume.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VolumeStatus {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<VolumePhase>,
    /// What is set aside for it now; `spec.size` is what it is to have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<String>,
    /// The offer that it was made from, as `namespace/name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offer: Option<String>,
    /// The agent that has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// Tasks that mount it now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub used_by: Vec<String>,
    /// What holds of the volume.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// Whether a volume's disk is set aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum VolumePhase {
    Pending,
    Bound,
}

impl Volume {
    /// Whether its disk is set aside.
    pub fn is_bound(&self) -> bool {
        self.status.as_ref().and_then(|s| s.phase) == Some(VolumePhase::Bound)
    }

    /// Bytes set aside for it now; 0 before that.
    pub fn bound_bytes(&self) -> i64 {
        let size = self.status.as_ref().and_then(|s| s.size.as_deref());
        size.map_or(0, bytes)
    }

    /// Bytes that it is to have.
    pub fn wanted_bytes(&self) -> i64 {
        bytes(&self.spec.size)
    }
}

/// A quantity of bytes; 0 where it can't be read, which validation refuses.
pub fn bytes(text: &str) -> i64 {
    quantity::parse(text, Unit::Bytes).unwrap_or(0)
}
