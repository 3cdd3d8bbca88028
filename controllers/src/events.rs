//! Events: what happened to an object, for `kubectl describe`.
//!
//! Only for what a person would want to know and no field says; an event that can't be written is
//! logged and forgotten, it must never hold up the work itself.

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Event, EventSource},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use kube::{Api, Client, Resource, ResourceExt, api::PostParams};
use tracing::debug;

/// Namespace of events about objects that have none, as in Kubernetes.
const CLUSTER_EVENTS_NAMESPACE: &str = "default";

/// Writes a `Warning` about `object`.
pub(crate) async fn warn<K>(client: &Client, object: &K, reason: &str, message: String)
where
    K: Resource<DynamicType = ()>,
{
    // As Kubernetes' clients name them; a generateName must not end with a dot.
    let name = format!("{}.{:016x}", object.name_any(), rand::random::<u64>());
    let meta = ObjectMeta { name: Some(name), ..ObjectMeta::default() };
    write(client, object, meta, reason, message).await;
}

/// The same for what can happen to an object only once: however often it is said, there is one event
/// of that reason.
pub(crate) async fn warn_once<K>(client: &Client, object: &K, reason: &str, message: String)
where
    K: Resource<DynamicType = ()>,
{
    let uid = object.uid().unwrap_or_default();
    let uid = uid.split('-').next().unwrap_or_default();
    let name = format!("{}.{uid}.{}", object.name_any(), reason.to_lowercase());
    let meta = ObjectMeta { name: Some(name), ..ObjectMeta::default() };
    write(client, object, meta, reason, message).await;
}

async fn write<K>(client: &Client, object: &K, meta: ObjectMeta, reason: &str, message: String)
where
    K: Resource<DynamicType = ()>,
{
    let reference = object.object_ref(&());
    let namespace = object.namespace().unwrap_or_else(|| CLUSTER_EVENTS_NAMESPACE.to_owned());
    let now = Time(Timestamp::now());
    let event = Event {
        metadata: ObjectMeta { namespace: Some(namespace.clone()), ..meta },
        involved_object: reference,
        reason: Some(reason.to_owned()),
        message: Some(message),
        type_: Some("Warning".to_owned()),
        count: Some(1),
        first_timestamp: Some(now.clone()),
        last_timestamp: Some(now),
        source: Some(EventSource {
            component: Some("commonage-controllers".to_owned()),
            host: None,
        }),
        reporting_component: Some("commonage-controllers".to_owned()),
        ..Event::default()
    };
    let api = Api::<Event>::namespaced(client.clone(), &namespace);
    if let Err(error) = api.create(&PostParams::default(), &event).await {
        debug!(%error, reason, "event not written");
    }
}
