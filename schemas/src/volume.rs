//! Volume: disk on an agent that outlives the tasks mounting it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
    printcolumn = r#"{"name":"Phase","type":"string","jsonPath":".status.phase"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[kube(doc = "Disk on an agent, made from a reservation, that outlives the tasks mounting it.")]
#[serde(rename_all = "camelCase")]
pub struct VolumeSpec {
    /// The reservation whose disk it takes.
    pub reservation: String,
    /// A quantity, such as `10Gi`.
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
    pub phase: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// Tasks that mount it now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub used_by: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}
