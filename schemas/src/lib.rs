//! The kinds of Commonage, as Rust types.
//!
//! Owns the objects of API group `commonage.dev/v1`: their fields, defaults, validation, the task
//! state table, the reasons, the printer columns, and the arithmetic of resources. Everything that
//! is served about a kind (OpenAPI, `kubectl explain`, columns, defaults) is generated from these
//! types. No I/O, no clock, no tokio: a framework author depends on this crate and on `kube`, and
//! has `kube::Api<Task>`.
#![forbid(unsafe_code)]

pub mod agent;
pub mod capabilities;
pub mod framework;
pub mod names;
pub mod offer;
pub mod quantity;
pub mod queue;
pub mod reasons;
pub mod reservation;
pub mod resources;
pub mod sandbox;
pub mod stats;
pub mod task;
pub mod task_state;
pub mod validate;
pub mod volume;

pub use agent::{Agent, AgentSpec, AgentStatus};
pub use framework::{Framework, FrameworkSpec, FrameworkStatus};
pub use offer::{Offer, OfferAcceptance, OfferDecline, OfferSpec, OfferStatus};
pub use queue::{Queue, QueueSpec, QueueStatus};
pub use reservation::{Reservation, ReservationSpec, ReservationStatus};
pub use resources::Resources;
pub use task::{Task, TaskBinding, TaskKill, TaskSpec, TaskStatus};
pub use task_state::TaskState;
pub use volume::{Volume, VolumeSpec, VolumeStatus};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::CustomResourceExt;

/// The API group of every kind in this crate.
pub const GROUP: &str = "commonage.dev";
/// Its one version.
pub const VERSION: &str = "v1";

/// The definitions of all our kinds, in the form in which a framework author would bring a kind of
/// their own: the API server builds what it serves from these.
pub fn all_crds() -> Vec<CustomResourceDefinition> {
    let mut all = vec![
        Agent::crd(),
        Framework::crd(),
        Offer::crd(),
        Queue::crd(),
        Reservation::crd(),
        Task::crd(),
        Volume::crd(),
    ];
    let schemas =
        all.iter_mut().flat_map(|crd| &mut crd.spec.versions).filter_map(|v| v.schema.as_mut());
    schemas.filter_map(|s| s.open_api_v3_schema.as_mut()).for_each(|root| {
        unwrap_descriptions(root);
        bound_integers(root);
    });
    all
}

/// Says how large an integer may be: what a definition's `format` says is not checked, and a
/// number that our types cannot hold would end the watch of whoever reads them.
fn bound_integers(schema: &mut JSONSchemaProps) {
    /// The largest integer that every reader of JSON takes for what it is.
    const EXACT_MAX: f64 = ((1_u64 << 53) - 1) as f64;
    let bounds = match schema.format.as_deref() {
        Some("int32") => Some((f64::from(i32::MIN), f64::from(i32::MAX))),
        Some("int64") => Some((-EXACT_MAX, EXACT_MAX)),
        _ => None,
    };
    if let Some((least, most)) = bounds {
        schema.minimum.get_or_insert(least);
        schema.maximum.get_or_insert(most);
    }
    schema.properties.iter_mut().flat_map(|p| p.values_mut()).for_each(bound_integers);
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = schema.items.as_mut() {
        bound_integers(items);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = schema.additional_properties.as_mut() {
        bound_integers(values);
    }
}

/// Doc comments are broken into lines for the source; `kubectl explain` wraps for its own screen.
fn unwrap_descriptions(schema: &mut JSONSchemaProps) {
    if let Some(text) = schema.description.as_mut().filter(|text| !text.contains("```")) {
        let paragraphs = text.split("\n\n").map(|p| p.replace('\n', " "));
        *text = paragraphs.collect::<Vec<_>>().join("\n\n");
    }
    schema.properties.iter_mut().flat_map(|p| p.values_mut()).for_each(unwrap_descriptions);
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = schema.items.as_mut() {
        unwrap_descriptions(items);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = schema.additional_properties.as_mut() {
        unwrap_descriptions(values);
    }
}

/// `false`, for `skip_serializing_if` of flags that are off unless somebody turns them on.
pub(crate) fn is_false(flag: &bool) -> bool {
    !*flag
}
