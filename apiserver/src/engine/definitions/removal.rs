//! The end of a definition: its objects first, with all that their finalizers ask for.

use std::sync::Arc;

use futures::FutureExt;
use jiff::Timestamp;
use serde_json::Value;

use super::governor::{Condition, set_condition};
use crate::builtin::DEFINITION_FINALIZER;
use crate::engine::{DeleteOptions, Engine, ListOptions, Target, WriteOptions, take_version};
use crate::object::Object;
use crate::resource::ResourceDef;
use crate::status::ApiError;

impl Engine {
    /// One step towards the end of a definition that is being deleted; true when nothing is left to
    /// do here.
    pub(super) async fn remove_definition(
        self: &Arc<Self>,
        kind: &Arc<ResourceDef>,
        definition: &Object,
    ) -> Result<bool, ApiError> {
        let value = definition.to_value();
        if !holds(&value) {
            return Ok(true);
        }
        self.conclude(kind, definition.name(), false).await?;
        let group = value["spec"]["group"].as_str().unwrap_or_default();
        let plural = value["status"]["acceptedNames"]["plural"].as_str().unwrap_or_default();
        let scheme = self.scheme();
        let served = scheme.iter().find(|def| def.group == group && def.plural == plural);
        if let Some(def) = served.filter(|def| def.may_change)
            && !self.remove_instances(def).await?
        {
            return Ok(false);
        }
        self.conclude(kind, definition.name(), true).await?;
        Ok(true)
    }

    /// Deletes every object of the kind; true when nothing is left.
    async fn remove_instances(self: &Arc<Self>, def: &Arc<ResourceDef>) -> Result<bool, ApiError> {
        let found = self.list(def, None, ListOptions::default()).await?;
        if found.items.iter().all(|object| object.deleting) {
            return Ok(found.items.is_empty());
        }
        let (all, delete, options) =
            (ListOptions::default(), DeleteOptions::default(), WriteOptions::default());
        self.clone().delete_collection_now(def.clone(), None, all, delete, options).await?;
        Ok(self.list(def, None, ListOptions::default()).await?.items.is_empty())
    }

    /// Says that the objects are being deleted, or that they are gone, which lets go of the
    /// definition.
    async fn conclude(
        &self,
        kind: &Arc<ResourceDef>,
        name: &str,
        finished: bool,
    ) -> Result<(), ApiError> {
        let (reason, message) = match finished {
            false => ("InstanceDeletionInProgress", "CustomResource deletion is in progress"),
            true => ("InstanceDeletionCompleted", "removed all instances"),
        };
        let condition = &Condition {
            type_: "Terminating",
            status: !finished,
            reason,
            message: message.to_owned(),
        };
        let target = &Target::new(kind, "", name, None);
        let conclude = |current: Arc<Object>| async move {
            let mut old = current.to_value();
            take_version(&mut old);
            if !holds(&old) {
                return Ok(());
            }
            let mut new = old.clone();
            set_condition(&mut new, condition, Timestamp::now());
            if finished && let Some(finalizers) = new["metadata"]["finalizers"].as_array_mut() {
                finalizers.retain(|finalizer| finalizer != DEFINITION_FINALIZER);
            }
            if new == old {
                return Ok(());
            }
            self.store_edit(target, &current, &new, false).await.map(drop)
        };
        self.retrying(target, move |current| conclude(current).boxed()).await
    }
}

fn holds(definition: &Value) -> bool {
    let finalizers = definition["metadata"]["finalizers"].as_array();
    finalizers.is_some_and(|all| all.iter().any(|finalizer| finalizer == DEFINITION_FINALIZER))
}
