//! Carries out what was planned: each decision is one guarded write, all of them at once.

use std::{collections::BTreeMap, future::ready, sync::Arc};

use commonage_allocator::{Binding, NewOffer, ObjectKey};
use commonage_schemas::{
    Offer, OfferSpec, Reservation, Resources, Task, TaskBinding, TaskKill, Volume,
    names::OFFER_FINALIZER,
    offer::{OfferedVolume, ReservedPart},
};
use futures::{StreamExt, stream};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{OwnerReference, Time};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
    core::ObjectMeta,
};
use serde::Serialize;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{cache::Key, reserved::plus};
use crate::patch;

/// Writes under way at once. The store packs what waits into one transaction, so more of them cost
/// little; beyond this the API server's own limit on requests in flight would be felt.
const WRITES_AT_ONCE: usize = 100;

/// One write to make.
#[derive(Debug)]
pub(crate) enum Write {
    Offer(NewOffer, Addressee),
    /// With what comes from reservations, and what is lent.
    Bind(Binding, Vec<ReservedPart>, Resources),
    /// What the status of a Reservation is to be.
    Reserve(Arc<Reservation>, Value),
    /// What the status of a Volume is to be.
    Provide(Arc<Volume>, Value),
    /// Ends a task for the reason that the order gives.
    Kill(ObjectKey, TaskKill),
    /// Take an offer back, if nobody has answered it meanwhile.
    End(Offer),
    /// An answered offer has been accounted for: let it go.
    Close(Offer),
}

impl Write {
    /// What it does to which object, for the log.
    fn described(&self) -> (&'static str, String) {
        match self {
            Write::Offer(offer, _) => ("offer", offer.to.framework.to_string()),
            Write::Bind(binding, ..) => ("bind", binding.task.to_string()),
            Write::Reserve(reservation, _) => ("reserve", reservation.name_any()),
            Write::Provide(volume, _) => ("provide", volume.name_any()),
            Write::Kill(task, _) => ("kill", task.to_string()),
            Write::End(offer) => ("end", offer.name_any()),
            Write::Close(offer) => ("close", offer.name_any()),
        }
    }
}

/// What an offer says beyond the allocator's decision.
#[derive(Debug, Default)]
pub(crate) struct Addressee {
    /// Its framework, with which it goes.
    pub(crate) framework: Option<OwnerReference>,
    pub(crate) agent_labels: BTreeMap<String, String>,
    pub(crate) reserved: Vec<ReservedPart>,
    pub(crate) volumes: Vec<OfferedVolume>,
    /// The part that may be taken back at any time.
    pub(crate) lent: Resources,
}

/// What a write did.
#[derive(Debug)]
pub(crate) enum Outcome {
    Offered(Box<Offer>),
    Bound(Box<Task>),
    Reserved(Box<Reservation>),
    Provided(Box<Volume>),
    Killing(Box<Task>),
    Ending(Box<Offer>),
    Closed(Box<Offer>),
    /// Somebody was faster; the watch tells, or has told, what is now.
    Overtaken,
    /// Nothing is known: it may have landed.
    Unknown,
}

/// Carries them out, but for those that have not begun when `shutdown` comes: the next leader decides anew, and a cycle
/// may have thousands.
pub(crate) async fn apply(
    client: &Client,
    writes: Vec<Write>,
    shutdown: &CancellationToken,
) -> Vec<Outcome> {
    stream::iter(writes)
        .take_while(|_| ready(!shutdown.is_cancelled()))
        .map(|write| carry_out(client, write))
        .buffer_unordered(WRITES_AT_ONCE)
        .collect()
        .await
}

async fn carry_out(client: &Client, write: Write) -> Outcome {
    let described = write.described();
    let result = match write {
        Write::Offer(offer, to) => make_offer(client, offer, to).await,
        Write::Bind(binding, reserved, lent) => bind(client, binding, reserved, lent).await,
        Write::Reserve(reservation, status) => reserve(client, &reservation, status).await,
        Write::Provide(volume, status) => provide(client, &volume, status).await,
        Write::Kill(task, order) => kill(client, &task, &order).await,
        Write::End(offer) => end(client, &offer).await,
        Write::Close(offer) => close(client, offer).await,
    };
    match result {
        Ok(outcome) => outcome,
        Err(kube::Error::Api(status)) if (400..500).contains(&status.code) => {
            if !matches!(status.code, 404 | 409) {
                warn!(write = ?described, message = %status.message, "write refused");
            } else {
                debug!(write = ?described, message = %status.message, "overtaken");
            }
            Outcome::Overtaken
        }
        Err(error) => {
            warn!(write = ?described, %error, "write failed");
            Outcome::Unknown
        }
    }
}

async fn make_offer(client: &Client, new: NewOffer, to: Addressee) -> kube::Result<Outcome> {
    let expires =
        i64::try_from(new.expires_at_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    let spec = OfferSpec {
        framework: new.to.framework.name.to_string(),
        queue: new.to.queue.to_string(),
        agent: new.agent.to_string(),
        resources: to
            .reserved
            .iter()
            .fold(plus(&new.resources, &to.lent), |sum, part| plus(&sum, &part.resources)),
        revocable: (!to.lent.is_empty()).then_some(to.lent),
        reserved: to.reserved,
        volumes: to.volumes,
        agent_labels: to.agent_labels,
        expires_at: expires.map(Time),
    };
    let offer = Offer {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", new.to.framework.name)),
            finalizers: Some(vec![OFFER_FINALIZER.to_owned()]),
            owner_references: to.framework.map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        spec,
        status: None,
    };
    let api = Api::<Offer>::namespaced(client.clone(), &new.to.framework.namespace);
    let made = api.create(&PostParams::default(), &offer).await?;
    Ok(Outcome::Offered(Box::new(made)))
}

async fn bind(
    client: &Client,
    binding: Binding,
    reserved: Vec<ReservedPart>,
    lent: Resources,
) -> kube::Result<Outcome> {
    let mut body = TaskBinding::new(binding.agent.as_ref(), binding.host_ports);
    body.metadata.uid = Some(binding.uid.to_string());
    body.reserved = reserved;
    body.lent = (!lent.is_empty()).then_some(lent);
    body.group_size = binding.group_size.and_then(|size| i32::try_from(size).ok());
    let bound = post(client, &binding.task, "binding", &body).await?;
    Ok(Outcome::Bound(Box::new(bound)))
}

async fn kill(client: &Client, task: &ObjectKey, order: &TaskKill) -> kube::Result<Outcome> {
    Ok(Outcome::Killing(Box::new(post(client, task, "kill", order).await?)))
}

async fn post(
    client: &Client,
    task: &ObjectKey,
    subresource: &str,
    body: &impl Serialize,
) -> kube::Result<Task> {
    let ObjectKey { namespace, name } = task;
    let path = format!("{}/{name}/{subresource}", Task::url_path(&(), Some(namespace)));
    let request = http::Request::post(path)
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(serde_json::to_vec(body).map_err(kube::Error::SerdeError)?)
        .map_err(kube::Error::HttpError)?;
    client.request::<Task>(request).await
}

async fn reserve(
    client: &Client,
    reservation: &Reservation,
    status: Value,
) -> kube::Result<Outcome> {
    let api = Api::<Reservation>::all(client.clone());
    let patch = status_patch(reservation, status);
    let written = api
        .patch_status(&reservation.name_any(), &PatchParams::default(), &Patch::Merge(patch))
        .await?;
    Ok(Outcome::Reserved(Box::new(written)))
}

async fn provide(client: &Client, volume: &Volume, status: Value) -> kube::Result<Outcome> {
    let api = Api::<Volume>::namespaced(client.clone(), &volume.namespace().unwrap_or_default());
    let patch = status_patch(volume, status);
    let written =
        api.patch_status(&volume.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await?;
    Ok(Outcome::Provided(Box::new(written)))
}

/// Only if the object is still as it was read.
fn status_patch<K: Resource>(object: &K, status: Value) -> Value {
    json!({"metadata": {"resourceVersion": object.resource_version()}, "status": status})
}

async fn end(client: &Client, offer: &Offer) -> kube::Result<Outcome> {
    let api = Api::<Offer>::namespaced(client.clone(), &offer.namespace().unwrap_or_default());
    let unanswered = DeleteParams {
        preconditions: Some(Preconditions {
            uid: offer.uid(),
            resource_version: offer.resource_version(),
        }),
        ..DeleteParams::default()
    };
    let deleted = api.delete(&offer.name_any(), &unanswered).await?;
    Ok(deleted.either(
        |ending| Outcome::Ending(Box::new(ending)),
        |_| Outcome::Closed(Box::new(offer.clone())),
    ))
}

async fn close(client: &Client, offer: Offer) -> kube::Result<Outcome> {
    let api = Api::<Offer>::namespaced(client.clone(), &offer.namespace().unwrap_or_default());
    Ok(match patch::remove_finalizer(&api, &offer, OFFER_FINALIZER).await? {
        patch::Written::Yes => Outcome::Closed(Box::new(offer)),
        patch::Written::Overtaken => Outcome::Overtaken,
    })
}

/// Reads tasks that an acceptance says it launched and that no watch has shown.
pub(crate) async fn read_tasks(client: &Client, keys: &[Key]) -> kube::Result<Vec<Option<Task>>> {
    let reads = keys.iter().map(|(namespace, name)| async move {
        Api::<Task>::namespaced(client.clone(), namespace).get_opt(name).await
    });
    futures::future::try_join_all(reads).await
}
