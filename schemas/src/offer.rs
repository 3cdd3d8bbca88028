//! Offer: part of one agent's free resources, held for one framework until it is answered.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, api::ObjectMeta};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Resources, Task};

/// Part of one agent's free resources, held for one framework and one queue until it is accepted,
/// declined, rescinded or expired. Only the allocator makes offers.
///
/// An answered offer stays, with a deletion time stamp, until the allocator has accounted for the
/// answer; for everybody else it is gone, and a second answer gets 409 `OfferGone`.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "commonage.dev",
    version = "v1",
    kind = "Offer",
    namespaced,
    shortname = "of",
    category = "commonage",
    status = "OfferStatus",
    derive = "PartialEq",
    selectable = ".spec.framework",
    selectable = ".spec.agent",
    printcolumn = r#"{"name":"Framework","type":"string","jsonPath":".spec.framework"}"#,
    printcolumn = r#"{"name":"Queue","type":"string","jsonPath":".spec.queue"}"#,
    printcolumn = r#"{"name":"Agent","type":"string","jsonPath":".spec.agent"}"#,
    printcolumn = r#"{"name":"CPU","type":"string","jsonPath":".spec.resources.cpu"}"#,
    printcolumn = r#"{"name":"Memory","type":"string","jsonPath":".spec.resources.memory"}"#,
    printcolumn = r#"{"name":"Ports","type":"string","jsonPath":".spec.resources.ports","priority":1}"#,
    printcolumn = r#"{"name":"Answer","type":"string","jsonPath":".status.answer.verdict"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[kube(
    doc = "Part of one agent's free resources, held for one framework and one queue until accepted, declined, rescinded or expired."
)]
#[serde(rename_all = "camelCase")]
pub struct OfferSpec {
    /// The framework that it is made to.
    pub framework: String,
    /// The queue that it counts towards.
    pub queue: String,
    /// The agent whose resources these are.
    pub agent: String,
    /// What is offered, all of it.
    pub resources: Resources,
    /// The parts that come from reservations which the queue may use.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reserved: Vec<ReservedPart>,
    /// Volumes that come with it; their disk is not part of `resources`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<OfferedVolume>,
    /// The part that may be taken back at any time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revocable: Option<Resources>,
    /// The agent's labels when the offer was made.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub agent_labels: BTreeMap<String, String>,
    /// When the offer ends without an answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Time>,
}

/// A part of an offer that comes from a reservation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReservedPart {
    /// The Reservation that it is of, by name.
    pub reservation: String,
    pub resources: Resources,
}

/// A volume that an offer brings along: its framework's tasks may mount it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OfferedVolume {
    /// Its name, in the offer's namespace.
    pub volume: String,
    /// The reservation whose disk it is.
    pub reservation: String,
    /// A quantity, such as `10Gi`.
    pub size: String,
    /// Several tasks may mount it at once.
    #[serde(default, skip_serializing_if = "crate::is_false")]
    pub shared: bool,
}

/// How an offer ended.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OfferStatus {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<OfferAnswer>,
}

/// The answer to an offer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OfferAnswer {
    pub verdict: OfferVerdict,
    /// How long the like of it must not be offered again, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refuse_seconds: Option<f64>,
    /// The tasks that were launched on it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tasks: Vec<String>,
    /// The reservations that it made or changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reservations: Vec<String>,
    /// The volumes that it made or changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered_at: Option<Time>,
}

/// How an offer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OfferVerdict {
    Accepted,
    Declined,
    Rescinded,
    Expired,
}

/// How long a declined offer's like is not offered again unless said otherwise, in seconds
/// (Mesos' default).
pub const DEFAULT_REFUSE_SECONDS: f64 = 5.0;
/// The longest that it can be, in seconds: 365 days (Mesos' cap).
pub const MAX_REFUSE_SECONDS: f64 = 365.0 * 24.0 * 3600.0;

/// What a `refuseSeconds` means: absent, negative or not a number is the default, and no filter
/// lasts longer than a year (Mesos 1.11's rules).
pub fn refuse_seconds(asked: Option<f64>) -> f64 {
    match asked {
        Some(s) if s >= 0.0 => s.min(MAX_REFUSE_SECONDS),
        _ => DEFAULT_REFUSE_SECONDS,
    }
}

/// Body of `POST offers/{name}/accept`. Either everything in it exists afterwards and the offers
/// are gone, or nothing has changed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OfferAcceptance {
    #[serde(default = "api_version")]
    pub api_version: String,
    #[serde(default = "acceptance_kind")]
    pub kind: String,
    #[serde(default)]
    #[schemars(skip)]
    pub metadata: ObjectMeta,
    /// More offers of the same agent and queue, used up together with the one in the path.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub offers: Vec<String>,
    /// What to do with the resources, in order.
    #[serde(default)]
    pub operations: Vec<OfferOperation>,
    /// What the operations leave over goes back, filtered like a decline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<OfferFilter>,
    /// Filled in by the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<OfferAcceptanceStatus>,
}

fn api_version() -> String {
    format!("{}/{}", crate::GROUP, crate::VERSION)
}

fn acceptance_kind() -> String {
    "OfferAcceptance".to_owned()
}

impl OfferAcceptance {
    /// An acceptance that launches these tasks.
    pub fn launch(tasks: Vec<Task>) -> OfferAcceptance {
        OfferAcceptance {
            api_version: api_version(),
            kind: acceptance_kind(),
            operations: vec![OfferOperation {
                launch: Some(Launch { tasks }),
                ..OfferOperation::default()
            }],
            ..OfferAcceptance::default()
        }
    }
}

/// One thing to do with offered resources; exactly one of its fields is set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OfferOperation {
    /// Starts tasks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub launch: Option<Launch>,
    /// Starts tasks that share their fate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub launch_group: Option<LaunchGroup>,
    /// Sets offered resources aside for a queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reserve: Option<Reserve>,
    /// Gives a reservation of the offer up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreserve: Option<Unreserve>,
    /// Makes a volume on reserved disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub create_volume: Option<CreateVolume>,
    /// Deletes a volume, and what is in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destroy_volume: Option<DestroyVolume>,
    /// Gives a volume more of the reserved disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grow_volume: Option<ResizeVolume>,
    /// Gives disk of a volume back to its reservation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shrink_volume: Option<ResizeVolume>,
}

/// Run tasks on the offered resources.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Launch {
    /// The tasks to start on the offered resources.
    pub tasks: Vec<Task>,
}

/// Run tasks on the offered resources as one group: if one of them ends otherwise than `Finished`,
/// the others are ended too.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LaunchGroup {
    /// What their `spec.group` is.
    pub group: String,
    /// The members of the group; they start together or not at all.
    pub tasks: Vec<Task>,
}

/// Set some of the offered resources aside: makes a Reservation on the offer's agent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Reserve {
    /// The name of the Reservation.
    pub name: String,
    /// Whom it is for: the offer's queue, or one below it. Default: the offer's queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    pub resources: Resources,
    /// The reservation that this one refines: the resources are taken out of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
}

/// Give up what is reserved.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Unreserve {
    /// The Reservation, by name.
    pub reservation: String,
    /// How much of it. Absent: all of it, and the Reservation is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
}

/// Make a Volume out of reserved disk.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateVolume {
    /// The name of the Volume.
    pub name: String,
    /// The Reservation whose disk it takes, by name.
    pub reservation: String,
    /// A quantity, such as `10Gi`.
    pub size: String,
    /// Several tasks may mount it at once.
    #[serde(default, skip_serializing_if = "crate::is_false")]
    pub shared: bool,
}

/// Delete an offered Volume and what is in it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DestroyVolume {
    /// The Volume, by name.
    pub volume: String,
}

/// Change the size of an offered Volume.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ResizeVolume {
    /// The Volume, by name.
    pub volume: String,
    /// The size that it is to have, a quantity such as `20Gi`.
    pub size: String,
}

/// What may not be offered again for a while.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OfferFilter {
    /// In seconds; default 5, 0 for no filter, at most 365 days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refuse_seconds: Option<f64>,
}

/// What an acceptance did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OfferAcceptanceStatus {
    /// The tasks that it launched, by name.
    pub tasks: Vec<String>,
    /// The reservations that it made or changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reservations: Vec<String>,
    /// The volumes that it made or changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<String>,
}

/// Body of `POST offers/{name}/decline`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OfferDecline {
    #[serde(default = "api_version")]
    pub api_version: String,
    #[serde(default = "decline_kind")]
    pub kind: String,
    #[serde(default)]
    #[schemars(skip)]
    pub metadata: ObjectMeta,
    /// In seconds; default 5, 0 for no filter, at most 365 days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refuse_seconds: Option<f64>,
}

fn decline_kind() -> String {
    "OfferDecline".to_owned()
}

impl OfferDecline {
    pub fn new(refuse_seconds: Option<f64>) -> OfferDecline {
        OfferDecline {
            api_version: api_version(),
            kind: decline_kind(),
            refuse_seconds,
            ..OfferDecline::default()
        }
    }
}
