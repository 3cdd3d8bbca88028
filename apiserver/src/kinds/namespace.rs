//! Namespace: its phase, its finalizer, its label, and the framework `default` that comes with it.

use serde_json::{Value, json};

use commonage_schemas::names;

use crate::meta;
use crate::status::{ApiError, Cause};
use crate::strategy::{Companion, Context, Strategy};

/// Made at every start.
pub const SYSTEM_NAMESPACES: [&str; 6] = [
    "default",
    "kube-system",
    "kube-public",
    "kube-node-lease",
    names::SYSTEM_NAMESPACE,
    names::AGENT_LEASE_NAMESPACE,
];
/// Of those, which may be deleted, as in Kubernetes.
const DELETABLE: &str = "kube-node-lease";

/// Carries the name of the namespace, so that selectors of namespaces can name one.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";
/// Held by every namespace (in `spec.finalizers`, as in Kubernetes) until it is empty.
const FINALIZER: &str = "kubernetes";

pub(super) struct Namespaces;

impl Strategy for Namespaces {
    fn default(&self, object: &mut Value) {
        label(object);
    }

    fn prepare_create(&self, _cx: Context<'_>, object: &mut Value) -> Result<(), ApiError> {
        let finalizers = &mut object["spec"]["finalizers"];
        if !finalizers.is_array() {
            *finalizers = json!([]);
        }
        if let Some(finalizers) = finalizers.as_array_mut()
            && !finalizers.iter().any(|one| one == FINALIZER)
        {
            finalizers.push(FINALIZER.into());
        }
        object["status"] = json!({"phase": "Active"});
        Ok(())
    }

    fn prepare_update(
        &self,
        _cx: Context<'_>,
        subresource: Option<&str>,
        old: &Value,
        new: &mut Value,
    ) -> Result<(), ApiError> {
        if subresource.is_none() {
            new["spec"] = old["spec"].clone();
        }
        Ok(())
    }

    fn validate(&self, object: &Value, old: Option<&Value>) -> Vec<Cause> {
        let mut causes = meta::finalizer_causes(&object["spec"]["finalizers"], "spec.finalizers");
        let phase = &object["status"]["phase"];
        if old.is_none() || phase.is_null() {
            return causes;
        }
        let (wanted, when) = match object["metadata"]["deletionTimestamp"].is_null() {
            true => ("Active", "empty"),
            false => ("Terminating", "not empty"),
        };
        if phase != wanted {
            let why = format!("may only be '{wanted}' if `deletionTimestamp` is {when}");
            causes.push(Cause::invalid("status.Phase", phase, &why));
        }
        causes
    }

    fn may_delete(&self, _cx: Context<'_>, object: &Value) -> Result<(), ApiError> {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        if SYSTEM_NAMESPACES.contains(&name) && name != DELETABLE {
            return Err(ApiError::forbidden(
                "",
                "namespaces",
                name,
                "this namespace may not be deleted",
            ));
        }
        Ok(())
    }

    fn prepare_delete(&self, _cx: Context<'_>, object: &mut Value) {
        object["status"]["phase"] = json!("Terminating");
        // Kubernetes marks its namespaces in a way of their own, without a grace period.
        if let Some(metadata) = object["metadata"].as_object_mut() {
            metadata.remove("deletionGracePeriodSeconds");
        }
    }

    fn is_held(&self, object: &Value) -> bool {
        object["spec"]["finalizers"].as_array().is_some_and(|finalizers| !finalizers.is_empty())
    }

    /// Tasks that name no framework belong to `default`, so it comes into being with its namespace.
    fn companions(&self, cx: Context<'_>, object: &Value) -> Vec<Companion> {
        let scheme = cx.engine.scheme();
        let Some(def) = scheme.by_kind(commonage_schemas::GROUP, "Framework") else {
            return Vec::new();
        };
        let body = json!({
            "apiVersion": def.api_version(),
            "kind": def.kind,
            "metadata": {"name": names::DEFAULT_FRAMEWORK},
            "spec": {"queues": [names::DEFAULT_QUEUE], "placement": "Tasks"},
        });
        let namespace = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        vec![Companion { def: def.clone(), namespace, body }]
    }
}

fn label(object: &mut Value) {
    let name = object["metadata"]["name"].clone();
    let labels = &mut object["metadata"]["labels"];
    if !labels.is_object() {
        *labels = json!({});
    }
    labels[NAME_LABEL] = name;
}
