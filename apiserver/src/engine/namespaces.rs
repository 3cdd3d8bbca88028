//! Namespaces that always exist, and the end of those that are deleted.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use serde_json::{Value, json};

use super::update::Target;
use super::{DeleteOptions, Engine, ListOptions, WatchOptions, WriteOptions, take_version};
use crate::kinds::namespace::SYSTEM_NAMESPACES;
use crate::object::Object;
use crate::resource::ResourceDef;
use crate::status::ApiError;

/// How often a namespace is looked at whose objects wait for their finalizers.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(500);
/// The watch on namespaces is opened anew after this long.
const WATCH_TIMEOUT: Duration = Duration::from_secs(3600);

/// Who makes the namespaces that always exist.
const SYSTEM_MANAGER: &str = "kube-apiserver";

impl Engine {
    pub(super) async fn make_system_namespaces(self: &Arc<Self>) -> anyhow::Result<()> {
        let Some(def) = self.namespaces.clone() else { return Ok(()) };
        for name in SYSTEM_NAMESPACES {
            let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
            let manager = Some(SYSTEM_MANAGER.to_owned());
            let options = WriteOptions { field_manager: manager, ..WriteOptions::default() };
            match self.create(&def, "", body, options).await {
                Ok(_) => {}
                Err(error) if error.reason == "AlreadyExists" => {}
                Err(error) => anyhow::bail!("namespace {name} can't be made: {error}"),
            }
        }
        Ok(())
    }

    /// Empties and removes every namespace that is marked for deletion, until the engine stops.
    pub(super) async fn remove_namespaces(self: Arc<Self>) {
        let Some(def) = self.namespaces.clone() else { return };
        let work = async {
            loop {
                if let Err(error) = self.follow_namespaces(&def).await {
                    tracing::warn!(%error, "namespaces can't be watched; trying again");
                    tokio::time::sleep(LOOK_AGAIN_AFTER).await;
                }
            }
        };
        tokio::select! {
            () = work => {}
            () = self.shutdown.cancelled() => {}
        }
    }

    async fn follow_namespaces(self: &Arc<Self>, def: &Arc<ResourceDef>) -> Result<(), ApiError> {
        let options = WatchOptions {
            label_selector: None,
            field_selector: None,
            resource_version: None,
            version_match: None,
            bookmarks: false,
            send_initial_events: None,
            timeout: WATCH_TIMEOUT,
        };
        let mut changes = self.watch(def, None, options).await?;
        let mut ending: BTreeSet<String> = BTreeSet::new();
        loop {
            let chunk = tokio::select! {
                chunk = changes.next() => chunk,
                () = tokio::time::sleep(LOOK_AGAIN_AFTER), if !ending.is_empty() => {
                    self.remove_ending(def, &mut ending).await;
                    continue;
                }
            };
            let Some(chunk) = chunk else { return Ok(()) };
            let objects = chunk.events().iter().filter_map(|event| event.object.as_ref());
            ending.extend(
                objects.filter(|object| object.deleting).map(|object| object.name().to_owned()),
            );
            self.remove_ending(def, &mut ending).await;
        }
    }

    async fn remove_ending(
        self: &Arc<Self>,
        def: &Arc<ResourceDef>,
        ending: &mut BTreeSet<String>,
    ) {
        for name in ending.clone() {
            match self.remove_contents(&name).await {
                Ok(false) => {}
                Ok(true) => match self.release(def, &name).await {
                    Ok(()) => drop(ending.remove(&name)),
                    Err(error) if error.code == 404 => drop(ending.remove(&name)),
                    Err(error) => {
                        tracing::warn!(name, %error, "a namespace can't be removed; trying again")
                    }
                },
                Err(error) => {
                    tracing::warn!(name, %error, "a namespace can't be emptied; trying again")
                }
            }
        }
    }

    /// Deletes what is in the namespace; true when nothing is left.
    async fn remove_contents(self: &Arc<Self>, namespace: &str) -> Result<bool, ApiError> {
        let mut empty = true;
        for def in self.scheme().iter().filter(|def| def.is_namespaced() && def.is_stored()) {
            let found = self.list(def, Some(namespace), ListOptions::default()).await?;
            if found.items.is_empty() {
                continue;
            }
            empty = false;
            if found.items.iter().all(|object| object.deleting) {
                continue;
            }
            let everything = ListOptions::default();
            let (delete, options) = (DeleteOptions::default(), WriteOptions::default());
            let namespace = Some(namespace.to_owned());
            self.clone()
                .delete_collection_now(def.clone(), namespace, everything, delete, options)
                .await?;
        }
        Ok(empty)
    }

    /// Takes our finalizer off an empty namespace.
    async fn release(&self, def: &Arc<ResourceDef>, name: &str) -> Result<(), ApiError> {
        let target = &Target::new(def, "", name, Some("finalize"));
        let release = |current: Arc<Object>| async move {
            let mut namespace = current.to_value();
            take_version(&mut namespace);
            namespace["spec"]["finalizers"] = Value::Array(Vec::new());
            self.store_edit(target, &current, &namespace, false).await.map(drop)
        };
        self.retrying(target, move |current| release(current).boxed()).await
    }
}
