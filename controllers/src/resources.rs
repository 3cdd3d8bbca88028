//! Which kinds the API serves now, for the controllers that are about all of them.

use kube::{
    Api, Client, ResourceExt,
    api::{ApiResource, DynamicObject},
    core::PartialObjectMeta,
    discovery::{ApiCapabilities, Discovery, Scope, verbs},
};

/// One kind in the version that its group prefers.
#[derive(Clone, Debug)]
pub(crate) struct Served {
    pub(crate) resource: ApiResource,
    pub(crate) namespaced: bool,
    verbs: Vec<String>,
}

impl Served {
    fn new((resource, capabilities): (ApiResource, ApiCapabilities)) -> Served {
        Served {
            resource,
            namespaced: capabilities.scope == Scope::Namespaced,
            verbs: capabilities.operations,
        }
    }

    pub(crate) fn supports(&self, verb: &str) -> bool {
        self.verbs.iter().any(|known| known == verb)
    }

    /// Objects of this kind can be followed and deleted.
    pub(crate) fn is_deletable(&self) -> bool {
        [verbs::LIST, verbs::WATCH, verbs::DELETE].iter().all(|verb| self.supports(verb))
    }

    /// Pods and nodes show tasks and agents to clients that know nothing else: nothing is stored of them, and what
    /// happens to the objects behind them happens to them.
    pub(crate) fn is_view(&self) -> bool {
        self.resource.group.is_empty() && matches!(self.resource.kind.as_str(), "Pod" | "Node")
    }

    /// `tasks.commonage.dev`; with an empty group `configmaps.`, as Kubernetes prints it here.
    pub(crate) fn name(&self) -> String {
        format!("{}.{}", self.resource.plural, self.resource.group)
    }

    /// `namespace` is empty for objects without one.
    pub(crate) fn api(&self, client: &Client, namespace: &str) -> Api<DynamicObject> {
        match self.namespaced && !namespace.is_empty() {
            true => Api::namespaced_with(client.clone(), namespace, &self.resource),
            false => Api::all_with(client.clone(), &self.resource),
        }
    }

    /// As [`Served::api`], for answers of which nobody wants more than the metadata.
    pub(crate) fn metadata_api(
        &self,
        client: &Client,
        namespace: &str,
    ) -> Api<PartialObjectMeta<DynamicObject>> {
        match self.namespaced && !namespace.is_empty() {
            true => Api::namespaced_with(client.clone(), namespace, &self.resource),
            false => Api::all_with(client.clone(), &self.resource),
        }
    }
}

/// Every kind that is served now.
pub(crate) async fn discover(client: &Client) -> kube::Result<Vec<Served>> {
    let discovered = Discovery::new(client.clone()).run_aggregated().await?;
    let kinds = discovered.groups().flat_map(|group| group.recommended_resources());
    Ok(kinds.map(Served::new).collect())
}

/// Whether an error says that the object is not there.
pub(crate) fn is_absent(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

/// The uid of an object that was read, empty if it had none.
pub(crate) fn uid_of(object: &impl ResourceExt) -> String {
    object.uid().unwrap_or_default()
}
