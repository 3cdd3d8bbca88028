//! One attempt at one object: what kube-controller-manager's garbage collector would do about it.
//!
//! The graph only says where to look; every decision is made on what the API says now.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use kube::{
    Api, Client,
    api::{
        DeleteParams, DynamicObject, Patch, PatchParams, PostParams, Preconditions,
        PropagationPolicy,
    },
    core::PartialObjectMeta,
};
use serde_json::{Value, json};
use tracing::{debug, info};

use super::graph::{FOREGROUND, KindKey, Node, ORPHAN, Uid, Work};
use crate::resources::{Served, is_absent};

/// The kinds that are served, by group and plural name, and by group and kind.
#[derive(Default)]
pub(crate) struct Kinds {
    by_key: HashMap<KindKey, Arc<Served>>,
    by_kind: HashMap<(String, String), Arc<Served>>,
}

impl Kinds {
    pub(crate) fn new(all: Vec<Served>) -> Kinds {
        let mut kinds = Kinds::default();
        for served in all.into_iter().map(Arc::new) {
            let resource = &served.resource;
            let key = (resource.group.clone(), resource.plural.clone());
            let kind = (resource.group.clone(), resource.kind.clone());
            kinds.by_kind.insert(kind, served.clone());
            kinds.by_key.insert(key, served);
        }
        kinds
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&KindKey, &Arc<Served>)> {
        self.by_key.iter()
    }

    fn of_owner(&self, owner: &OwnerReference) -> Option<&Arc<Served>> {
        let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
        self.by_kind.get(&(group.to_owned(), owner.kind.clone()))
    }
}

/// What an attempt came to.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Nothing more to do; these owners are there.
    Done(Vec<Uid>),
    /// Not yet: look again later.
    Again,
    /// The object is not what the graph thinks it is: it is gone, or another has its name.
    Gone,
}

/// What is left of an object's owners.
#[derive(Default)]
struct Owners {
    solid: Vec<Uid>,
    /// They wait for this object to go.
    waiting: Vec<Uid>,
    dangling: Vec<Uid>,
}

type Meta = PartialObjectMeta<DynamicObject>;

pub(crate) struct Attempt<'a> {
    pub(crate) client: &'a Client,
    pub(crate) kinds: &'a Kinds,
}

impl Attempt<'_> {
    pub(crate) async fn at(&self, work: &Work) -> kube::Result<Outcome> {
        let Some(api) = self.api(&work.node) else { return Ok(Outcome::Again) };
        let Some(object) = api.get_metadata_opt(&work.node.name).await? else {
            return Ok(Outcome::Gone);
        };
        if object.metadata.uid.as_deref() != Some(&*work.uid) {
            return Ok(Outcome::Gone);
        }
        let now = Node::new(&work.node.kind, &object.metadata);
        if now.orphan {
            return self.orphan(work, &api, &object).await;
        }
        if now.foreground {
            return self.foreground(work, &api, &object).await;
        }
        if now.deleting || now.owners.is_empty() {
            return Ok(Outcome::Done(Vec::new()));
        }
        self.collect(work, &api, &object).await
    }

    fn api(&self, node: &Node) -> Option<Api<DynamicObject>> {
        Some(self.kinds.by_key.get(&*node.kind)?.api(self.client, &node.namespace))
    }

    /// Cuts the dependents off, then lets the object go.
    async fn orphan(
        &self,
        work: &Work,
        api: &Api<DynamicObject>,
        object: &Meta,
    ) -> kube::Result<Outcome> {
        let mut all = true;
        for (_, dependent) in &work.dependents {
            let Some(api) = self.api(dependent) else { continue };
            let Some(live) = api.get_metadata_opt(&dependent.name).await? else { continue };
            all &= self.drop_owners(&api, &live, std::slice::from_ref(&work.uid)).await?;
        }
        if !all {
            return Ok(Outcome::Again);
        }
        self.drop_finalizer(api, object, ORPHAN).await
    }

    /// Lets the object go once nothing is left that blocks it.
    async fn foreground(
        &self,
        work: &Work,
        api: &Api<DynamicObject>,
        object: &Meta,
    ) -> kube::Result<Outcome> {
        let blocked = work.dependents.iter().any(|(_, dependent)| dependent.blocks(&work.uid));
        if blocked {
            // The dependents themselves are looked at, and bring us back here when they go, unless
            // they wait for this one in turn: then one has to stop, and which does not matter.
            // `collect` prevents such rings where it sees them coming; two deletions by hand, or a
            // graph that is a moment behind, still make them.
            if work.in_ring && !self.unblock(api, object).await? {
                return Ok(Outcome::Again);
            }
            return Ok(Outcome::Done(Vec::new()));
        }
        self.drop_finalizer(api, object, FOREGROUND).await
    }

    /// Deletes an object without a living owner; takes off references to those that are not there.
    async fn collect(
        &self,
        work: &Work,
        api: &Api<DynamicObject>,
        object: &Meta,
    ) -> kube::Result<Outcome> {
        let references = object.metadata.owner_references.clone().unwrap_or_default();
        let mut owners = Owners::default();
        for reference in &references {
            if !self.classify(&work.node, object, reference, &mut owners).await? {
                return Ok(Outcome::Again);
            }
        }
        if !owners.solid.is_empty() {
            let mut cut = owners.dangling;
            cut.extend(owners.waiting);
            if !cut.is_empty() && !self.drop_owners(api, object, &cut).await? {
                return Ok(Outcome::Again);
            }
            return Ok(Outcome::Done(owners.solid));
        }
        let policy = if !owners.waiting.is_empty() && !work.dependents.is_empty() {
            // Each waits for the other: one of them has to stop.
            if work.dependents.iter().any(|(_, dependent)| dependent.foreground)
                && !self.unblock(api, object).await?
            {
                return Ok(Outcome::Again);
            }
            PropagationPolicy::Foreground
        } else {
            let has = |finalizer: &str| {
                object.metadata.finalizers.iter().flatten().any(|one| one == finalizer)
            };
            match () {
                () if has(ORPHAN) => PropagationPolicy::Orphan,
                () if has(FOREGROUND) => PropagationPolicy::Foreground,
                () => PropagationPolicy::Background,
            }
        };
        self.delete(work, api, object, policy).await
    }

    async fn delete(
        &self,
        work: &Work,
        api: &Api<DynamicObject>,
        object: &Meta,
        policy: PropagationPolicy,
    ) -> kube::Result<Outcome> {
        let params = DeleteParams {
            propagation_policy: Some(policy),
            preconditions: Some(Preconditions {
                uid: object.metadata.uid.clone(),
                // Whoever gives it an owner meanwhile keeps it.
                resource_version: object.metadata.resource_version.clone(),
            }),
            ..DeleteParams::default()
        };
        match api.delete(&work.node.name, &params).await {
            Ok(_) => {
                let Node { kind, namespace, name, .. } = &work.node;
                info!(kind = kind.1, namespace, name, "collected: its owners are gone");
                Ok(Outcome::Done(Vec::new()))
            }
            Err(error) if is_absent(&error) => Ok(Outcome::Gone),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(Outcome::Again),
            Err(error) => Err(error),
        }
    }

    /// Where a reference belongs; false when that can't be told now.
    async fn classify(
        &self,
        node: &Node,
        object: &Meta,
        reference: &OwnerReference,
        owners: &mut Owners,
    ) -> kube::Result<bool> {
        let uid: Uid = reference.uid.as_str().into();
        let Some(served) = self.kinds.of_owner(reference) else { return Ok(false) };
        if served.namespaced && node.namespace.is_empty() {
            // Not a reference that could ever be right. Kubernetes leaves such objects alone.
            self.warn(node, object, reference).await;
            owners.solid.push(uid);
            return Ok(true);
        }
        let api = served.api(self.client, &node.namespace);
        match api.get_metadata_opt(&reference.name).await? {
            Some(owner) if owner.metadata.uid.as_deref() == Some(&*uid) => {
                let owner = Node::new(&node.kind, &owner.metadata);
                if owner.foreground { &mut owners.waiting } else { &mut owners.solid }.push(uid);
            }
            _ => {
                if served.namespaced && self.is_elsewhere(served, reference).await? {
                    self.warn(node, object, reference).await;
                }
                owners.dangling.push(uid);
            }
        }
        Ok(true)
    }

    /// Whether an owner that is not in the object's namespace is in another.
    async fn is_elsewhere(
        &self,
        served: &Served,
        reference: &OwnerReference,
    ) -> kube::Result<bool> {
        let by_name =
            kube::api::ListParams::default().fields(&format!("metadata.name={}", reference.name));
        let list = served.api(self.client, "").list_metadata(&by_name).await?;
        Ok(list.items.iter().any(|one| one.metadata.uid.as_deref() == Some(&reference.uid)))
    }

    /// Takes references off an object, if it is still as it was read: false when it is not.
    async fn drop_owners(
        &self,
        api: &Api<DynamicObject>,
        object: &Meta,
        uids: &[Uid],
    ) -> kube::Result<bool> {
        let owners = object.metadata.owner_references.clone().unwrap_or_default();
        let rest: Vec<&OwnerReference> =
            owners.iter().filter(|owner| !uids.iter().any(|uid| **uid == *owner.uid)).collect();
        if rest.len() == owners.len() {
            return Ok(true);
        }
        patch(api, object, json!({"ownerReferences": rest})).await
    }

    /// Stops the object from holding up its owners.
    async fn unblock(&self, api: &Api<DynamicObject>, object: &Meta) -> kube::Result<bool> {
        let mut owners = object.metadata.owner_references.clone().unwrap_or_default();
        for owner in &mut owners {
            owner.block_owner_deletion = Some(false);
        }
        patch(api, object, json!({"ownerReferences": owners})).await
    }

    async fn drop_finalizer(
        &self,
        api: &Api<DynamicObject>,
        object: &Meta,
        finalizer: &str,
    ) -> kube::Result<Outcome> {
        let finalizers = object.metadata.finalizers.iter().flatten();
        let rest: Vec<&String> = finalizers.filter(|one| *one != finalizer).collect();
        match patch(api, object, json!({"finalizers": rest})).await? {
            true => Ok(Outcome::Done(Vec::new())),
            false => Ok(Outcome::Again),
        }
    }

    /// Says that an owner is not where it could be one.
    async fn warn(&self, node: &Node, object: &Meta, reference: &OwnerReference) {
        const COMPONENT: &str = "garbage-collector-controller";
        let Some(served) = self.kinds.by_key.get(&*node.kind) else { return };
        let OwnerReference { api_version, kind, name, uid, .. } = reference;
        let message = format!(
            "ownerRef [{api_version}/{kind}, namespace: {}, name: {name}, uid: {uid}] does not exist in namespace {:?}",
            node.namespace, node.namespace
        );
        let namespace = if node.namespace.is_empty() { "default" } else { &node.namespace };
        let now = Time(Timestamp::now());
        let of: String = object.metadata.uid.iter().flat_map(|uid| uid.chars().take(8)).collect();
        let event = Event {
            metadata: ObjectMeta {
                // Said once of every object, however often it is looked at.
                name: Some(format!("{}.{of}", node.name)),
                namespace: Some(namespace.to_owned()),
                ..ObjectMeta::default()
            },
            involved_object: ObjectReference {
                api_version: Some(served.resource.api_version.clone()),
                kind: Some(served.resource.kind.clone()),
                name: Some(node.name.clone()),
                namespace: Some(node.namespace.clone()).filter(|text| !text.is_empty()),
                uid: object.metadata.uid.clone(),
                ..ObjectReference::default()
            },
            reason: Some("OwnerRefInvalidNamespace".to_owned()),
            message: Some(message),
            type_: Some("Warning".to_owned()),
            count: Some(1),
            first_timestamp: Some(now.clone()),
            last_timestamp: Some(now),
            source: Some(EventSource { component: Some(COMPONENT.to_owned()), host: None }),
            reporting_component: Some(COMPONENT.to_owned()),
            ..Event::default()
        };
        let events = Api::<Event>::namespaced(self.client.clone(), namespace);
        if let Err(error) = events.create(&PostParams::default(), &event).await {
            debug!(%error, "event not written");
        }
    }
}

/// Merges into the metadata of the object as it was read: false when it has changed since.
async fn patch(api: &Api<DynamicObject>, object: &Meta, mut metadata: Value) -> kube::Result<bool> {
    metadata["uid"] = json!(object.metadata.uid);
    metadata["resourceVersion"] = json!(object.metadata.resource_version);
    let name = object.metadata.name.as_deref().unwrap_or_default();
    let patch = Patch::Merge(json!({"metadata": metadata}));
    match api.patch_metadata(name, &PatchParams::default(), &patch).await {
        Ok(_) => Ok(true),
        Err(error) if is_absent(&error) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error),
    }
}
