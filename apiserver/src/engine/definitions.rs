//! What CustomResourceDefinitions make of the scheme: this server's copy follows the cache.
//!
//! Every server derives its scheme by itself from the definitions that are established, whoever
//! established them. `names` and `removal` are what writes to definitions; nothing here does.

mod governor;
mod names;
mod removal;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use commonage_store::{GuardedWrite, Op, RangeQuery, Store, StoreError, Version};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use parking_lot::RwLock;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{Engine, WatchOptions};
use crate::builtin::DEFINITIONS;
use crate::resource::{ResourceDef, Scheme, Versions};

/// How long a request waits for the scheme to follow the definitions.
const SETTLED_WITHIN: Duration = Duration::from_secs(5);
/// The watch on definitions is opened anew after this long.
const WATCH_TIMEOUT: Duration = Duration::from_secs(3600);
const RETRY_AFTER: Duration = Duration::from_millis(200);
/// Definitions read from the store at once, at the start.
const LOAD_PAGE_KEYS: usize = 1000;

pub(super) struct Definitions {
    /// The kind of the definitions themselves; absent only in tests of other kinds.
    kind: Option<Arc<ResourceDef>>,
    compiled: Arc<Scheme>,
    scheme: RwLock<Arc<Scheme>>,
    changes: watch::Sender<()>,
    /// The scheme is that of the definitions at this version.
    followed: watch::Sender<Version>,
}

/// The established definitions that the scheme has, by name.
pub(super) type Applied = BTreeMap<String, Established>;

pub(super) struct Established {
    uid: String,
    /// Of the definition's object.
    version: Version,
    /// Everything of the object that matters here.
    source: Value,
    versions: Versions,
}

impl Definitions {
    /// The scheme as the store has it.
    pub(super) async fn load(
        compiled: Arc<Scheme>,
        store: &dyn Store,
    ) -> Result<(Definitions, Applied), StoreError> {
        let kind = compiled.by_kind(DEFINITIONS.0, "CustomResourceDefinition").cloned();
        let mut applied = Applied::new();
        let (mut after, mut at) = (None, None);
        while let Some(kind) = &kind {
            let prefix = Bytes::from(kind.key_prefix());
            let page = store.range(RangeQuery { prefix, after, at, limit: LOAD_PAGE_KEYS }).await?;
            for entry in &page.entries {
                let established = Established::read(&entry.value, entry.version);
                applied.extend(established);
            }
            after = page.entries.last().map(|entry| entry.key.clone());
            at = Some(page.revision);
            if !page.more {
                break;
            }
        }
        let definitions = Definitions {
            kind,
            scheme: RwLock::new(scheme_of(&compiled, &applied)),
            compiled,
            changes: watch::Sender::default(),
            followed: watch::Sender::new(Version(0)),
        };
        Ok((definitions, applied))
    }

    pub(super) fn scheme(&self) -> Arc<Scheme> {
        self.scheme.read().clone()
    }

    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// Whether a write changes definitions.
    pub(super) fn concern(&self, write: &GuardedWrite) -> bool {
        const PREFIX: &[u8] = b"/apiextensions.k8s.io/";
        write.ops.iter().any(|op| match op {
            Op::Put { key, .. } | Op::PutFor { key, .. } | Op::Delete { key } => {
                key.starts_with(PREFIX)
            }
        })
    }
}

fn scheme_of(compiled: &Scheme, applied: &Applied) -> Arc<Scheme> {
    let defined = applied.values().flat_map(|established| &established.versions.served);
    Arc::new(Scheme::of(compiled.iter().chain(defined).cloned().collect()))
}

impl Established {
    /// The name and what is served of a stored definition; `None` unless it is established.
    fn read(value: &[u8], version: Version) -> Option<(String, Established)> {
        let definition: Value = serde_json::from_slice(value).ok()?;
        let conditions = definition["status"]["conditions"].as_array()?;
        let established =
            |condition: &Value| condition["type"] == "Established" && condition["status"] == "True";
        if !conditions.iter().any(established) {
            return None;
        }
        let metadata = &definition["metadata"];
        let name = metadata["name"].as_str()?.to_owned();
        let uid = metadata["uid"].as_str().unwrap_or_default().to_owned();
        let mut source = definition.clone();
        source["spec"]["names"] = definition["status"]["acceptedNames"].clone();
        source["metadata"] = json!({
            "name": name, "generation": metadata["generation"],
            "deletionTimestamp": metadata["deletionTimestamp"],
        });
        if let Some(source) = source.as_object_mut() {
            source.remove("status");
        }
        let parsed = serde_json::from_value::<CustomResourceDefinition>(source.clone());
        let versions = match parsed {
            Ok(definition) => ResourceDef::versions_of(&definition).map_err(|e| e.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match versions {
            Ok(versions) => Some((name, Established { uid, version, source, versions })),
            Err(error) => {
                tracing::error!(name, error, "a definition can't be served");
                None
            }
        }
    }

    /// Its cache can go on under `next`.
    fn may_become(&self, next: &Established) -> bool {
        let fields = |versions: &Versions| -> Vec<String> {
            let all = versions.served.iter().chain([&versions.stored]);
            all.flat_map(|def| def.selectable_fields.iter().map(|(name, _)| name.clone())).collect()
        };
        self.uid == next.uid
            && self.versions.stored.scope == next.versions.stored.scope
            && self.versions.stored.key_prefix() == next.versions.stored.key_prefix()
            && fields(&self.versions) == fields(&next.versions)
    }

    fn reads_alike(&self, next: &Established) -> bool {
        let (now, then) = (&self.versions.stored, &next.versions.stored);
        now.version == then.version
            && now.openapi == then.openapi
            // It may have been another one in between.
            && now.never_changed == then.never_changed
    }

    /// Everything that may name fields of the objects.
    fn all_versions(&self) -> Vec<Arc<ResourceDef>> {
        self.versions.served.iter().chain([&self.versions.stored]).cloned().collect()
    }
}

impl Engine {
    /// Returns when the scheme is that of all definitions that can be read now.
    pub(crate) async fn definitions_settled(&self) {
        let Some(kind) = &self.definitions.kind else { return };
        let Ok(resource) = self.resource(kind) else { return };
        let wanted = resource.version();
        if *self.definitions.followed.borrow() >= wanted {
            return;
        }
        let mut followed = self.definitions.followed.subscribe();
        let settled = followed.wait_for(|followed| *followed >= wanted);
        if tokio::time::timeout(SETTLED_WITHIN, settled).await.is_err() {
            tracing::warn!("the scheme does not follow the definitions");
        }
    }

    /// Keeps the scheme and the cache as the definitions say, until the engine stops.
    pub(super) async fn follow_definitions(self: Arc<Self>, mut applied: Applied) {
        let Some(kind) = self.definitions.kind.clone() else { return };
        let work = async {
            while !self.shutdown.is_cancelled() {
                let mut changes = match self.watch(&kind, None, everything()).await {
                    Ok(changes) => changes,
                    Err(error) => {
                        tracing::warn!(%error, "definitions can't be watched; trying again");
                        tokio::time::sleep(RETRY_AFTER).await;
                        continue;
                    }
                };
                self.follow_once(&kind, &mut applied).await;
                while changes.next().await.is_some() {
                    self.follow_once(&kind, &mut applied).await;
                }
            }
        };
        tokio::select! {
            () = work => {}
            () = self.shutdown.cancelled() => {}
        }
    }

    async fn follow_once(&self, kind: &ResourceDef, applied: &mut Applied) {
        let Ok(definitions) = self.resource(kind) else { return };
        let (objects, version) = definitions.snapshot();
        let mut changed = false;
        let mut gone: Vec<Arc<ResourceDef>> = Vec::new();
        applied.retain(|name, established| {
            let stays = objects.get(format!("/{name}").as_str()).is_some();
            if !stays {
                gone.push(established.versions.stored.clone());
                changed = true;
            }
            stays
        });
        for object in objects.values() {
            let known = applied.get_mut(object.name());
            if known.as_ref().is_some_and(|known| known.version == object.version) {
                continue;
            }
            let Some((name, next)) = Established::read(&object.body, object.version) else {
                continue;
            };
            match known {
                Some(known) if known.uid == next.uid && known.source == next.source => {
                    known.version = next.version;
                    continue;
                }
                Some(known) if known.may_become(&next) => {
                    if !known.reads_alike(&next) {
                        self.renew(&next.versions.stored).await;
                    }
                }
                _ => drop(self.cache.add(&next.all_versions()).await),
            }
            applied.insert(name, next);
            changed = true;
        }
        if changed {
            *self.definitions.scheme.write() = scheme_of(&self.definitions.compiled, applied);
            self.definitions.changes.send_replace(());
        }
        gone.iter().for_each(|def| self.cache.remove(def));
        self.definitions.followed.send_replace(version);
    }

    /// What the cache holds is seen through the new schema before anybody else uses that.
    async fn renew(&self, stored: &Arc<ResourceDef>) {
        let Ok(resource) = self.resource(stored) else { return };
        let stored = stored.clone();
        if let Err(error) = tokio::task::spawn_blocking(move || resource.renew(&stored)).await {
            tracing::error!(%error, "objects can't be read through a changed schema");
        }
    }
}

fn everything() -> WatchOptions {
    WatchOptions {
        label_selector: None,
        field_selector: None,
        resource_version: None,
        version_match: None,
        bookmarks: false,
        send_initial_events: None,
        timeout: WATCH_TIMEOUT,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_definition_of_its_first_generation_was_never_changed() {
        let read = |generation: i64| {
            let definition = json!({
                "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
                "metadata": {"name": "loads.example.com", "uid": "u", "generation": generation},
                "spec": {
                    "group": "example.com", "scope": "Namespaced",
                    "names": {"plural": "loads", "singular": "load", "kind": "Load", "listKind": "LoadList"},
                    "versions": [{"name": "v1", "served": true, "storage": true,
                        "schema": {"openAPIV3Schema": {"type": "object"}}}],
                },
                "status": {
                    "acceptedNames": {"plural": "loads", "singular": "load", "kind": "Load", "listKind": "LoadList"},
                    "conditions": [{"type": "Established", "status": "True"}],
                },
            });
            let (_, established) =
                Established::read(definition.to_string().as_bytes(), Version(1)).unwrap();
            established.versions.stored.never_changed
        };
        assert!(read(1));
        assert!(!read(2));
    }
}
