//! The engine over real stores, in process.
#![allow(clippy::unwrap_used)]

mod crud;
mod damage;
mod definitions;
mod deletion;
mod faults;
mod fence;
mod history;
mod list;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use commonage_store::Store;
use commonage_store::embedded::{EmbeddedOptions, EmbeddedStore};
use commonage_store::memory::MemoryStore;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{
    DeleteOptions, Deleted, Engine, EventKind, FieldValidation, List, ListOptions, PatchKind,
    Propagation, VersionMatch, Watch, WatchOptions, WriteOptions, Written,
};
use crate::auth::UserInfo;
use crate::resource::ResourceDef;
use crate::selector::{FieldSelector, LabelSelector};
use crate::status::ApiError;

/// Everything a test may take, before it fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct World {
    pub(crate) engine: Arc<Engine>,
    pub(crate) store: Arc<dyn Store>,
    shutdown: CancellationToken,
}

impl Drop for World {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl World {
    pub(crate) async fn new() -> World {
        World::over(Arc::new(MemoryStore::new())).await
    }

    pub(crate) async fn over(store: Arc<dyn Store>) -> World {
        let shutdown = CancellationToken::new();
        let scheme = Arc::new(crate::builtin::scheme().unwrap());
        let engine = Engine::start(store.clone(), scheme, shutdown.clone()).await.unwrap();
        World { engine, store, shutdown }
    }

    pub(crate) fn def(&self, kind: &str) -> Arc<ResourceDef> {
        self.engine.scheme().iter().find(|def| def.kind == kind).unwrap().clone()
    }

    pub(crate) async fn create(&self, body: Value) -> Result<Written, ApiError> {
        self.create_with(body, options()).await
    }

    pub(crate) async fn create_with(
        &self,
        body: Value,
        options: WriteOptions,
    ) -> Result<Written, ApiError> {
        let def = self.def(body["kind"].as_str().unwrap());
        let namespace = if def.is_namespaced() { "default" } else { "" };
        let namespace = body["metadata"]["namespace"].as_str().unwrap_or(namespace).to_owned();
        self.engine.create(&def, &namespace, body, options).await
    }

    pub(crate) async fn get(&self, kind: &str, name: &str) -> Result<Value, ApiError> {
        let def = self.def(kind);
        let namespace = if def.is_namespaced() { "default" } else { "" };
        Ok(self.engine.get(&def, namespace, name, None).await?.to_value())
    }

    pub(crate) async fn put(
        &self,
        subresource: Option<&str>,
        body: Value,
    ) -> Result<Value, ApiError> {
        let def = self.def(body["kind"].as_str().unwrap());
        let namespace = if def.is_namespaced() { "default" } else { "" };
        let name = body["metadata"]["name"].as_str().unwrap().to_owned();
        let written =
            self.engine.update(&def, namespace, &name, subresource, body, options()).await?;
        Ok(written.object.to_value())
    }

    pub(crate) async fn merge(
        &self,
        kind: &str,
        name: &str,
        subresource: Option<&str>,
        patch: Value,
    ) -> Result<Value, ApiError> {
        self.patch(kind, name, subresource, PatchKind::Merge, patch, options()).await
    }

    pub(crate) async fn patch(
        &self,
        kind: &str,
        name: &str,
        subresource: Option<&str>,
        how: PatchKind,
        patch: Value,
        options: WriteOptions,
    ) -> Result<Value, ApiError> {
        let def = self.def(kind);
        let namespace = if def.is_namespaced() { "default" } else { "" };
        let body = patch.to_string().into();
        let written =
            self.engine.patch(&def, namespace, name, subresource, how, body, options).await?;
        Ok(written.object.to_value())
    }

    pub(crate) async fn delete(&self, kind: &str, name: &str) -> Result<Deleted, ApiError> {
        self.delete_with(kind, name, DeleteOptions::default()).await
    }

    pub(crate) async fn delete_with(
        &self,
        kind: &str,
        name: &str,
        delete: DeleteOptions,
    ) -> Result<Deleted, ApiError> {
        let def = self.def(kind);
        let namespace = if def.is_namespaced() { "default" } else { "" };
        self.engine.delete(&def, namespace, name, delete, options()).await
    }

    pub(crate) async fn list(&self, kind: &str, options: ListOptions) -> Result<List, ApiError> {
        let def = self.def(kind);
        let namespace = def.is_namespaced().then_some("default");
        self.engine.list(&def, namespace, options).await
    }

    pub(crate) async fn watch(&self, kind: &str, options: WatchOptions) -> Seen {
        let watch = self.engine.watch(&self.def(kind), None, options).await.unwrap();
        Seen { watch, waiting: Default::default() }
    }

    pub(crate) async fn post(
        &self,
        kind: &str,
        name: &str,
        subresource: &str,
        body: Value,
    ) -> Result<Value, ApiError> {
        let def = self.def(kind);
        let (code, body) = self
            .engine
            .post_subresource(&def, "default", name, subresource, body, options())
            .await?;
        assert_eq!(code, 201);
        Ok(serde_json::from_slice(&body).unwrap())
    }
}

pub(crate) fn options() -> WriteOptions {
    WriteOptions { user: Arc::new(UserInfo::admin()), ..WriteOptions::default() }
}

pub(crate) fn watch_options() -> WatchOptions {
    WatchOptions {
        label_selector: None,
        field_selector: None,
        resource_version: None,
        version_match: None,
        bookmarks: false,
        send_initial_events: None,
        timeout: Duration::from_secs(60),
    }
}

/// A watch, event by event.
pub(crate) struct Seen {
    watch: Watch,
    waiting: std::collections::VecDeque<(EventKind, Value)>,
}

impl Seen {
    pub(crate) async fn next(&mut self) -> Option<(EventKind, Value)> {
        if self.waiting.is_empty() {
            let next = tokio::time::timeout(PATIENCE, self.watch.next()).await;
            let chunk = next.expect("the watch says nothing")?;
            let lines = chunk.bytes();
            let mut lines = lines.split(|byte| *byte == b'\n');
            for event in chunk.events() {
                let line: Value = serde_json::from_slice(lines.next().unwrap()).unwrap();
                assert_eq!(line["type"], event.kind.as_str());
                assert_eq!(
                    line["object"],
                    serde_json::from_slice::<Value>(&event.object_json()).unwrap()
                );
                self.waiting.push_back((event.kind, line["object"].clone()));
            }
        }
        self.waiting.pop_front()
    }

    /// The next event as `ADDED name`.
    pub(crate) async fn short(&mut self) -> String {
        match self.next().await {
            Some((kind, object)) => {
                let what =
                    object["metadata"]["name"].as_str().or(object["reason"].as_str()).unwrap_or("");
                format!("{} {what}", kind.as_str()).trim_end().to_owned()
            }
            None => "END".to_owned(),
        }
    }
}

pub(crate) fn version_of(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

pub(crate) fn config_map(name: &str, labels: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": labels}, "data": {"a": "1"}})
}

pub(crate) fn queue(name: &str) -> Value {
    json!({"apiVersion": "commonage.dev/v1", "kind": "Queue", "metadata": {"name": name}, "spec": {"weight": 2}})
}

pub(crate) fn task(name: &str) -> Value {
    json!({
        "apiVersion": "commonage.dev/v1", "kind": "Task", "metadata": {"name": name},
        "spec": {"resources": {"cpu": "1", "memory": "64Mi"}, "container": {"command": ["true"]}},
    })
}

pub(crate) fn labelled(text: &str) -> Option<LabelSelector> {
    Some(LabelSelector::parse(text).unwrap())
}

pub(crate) fn fielded(text: &str) -> Option<FieldSelector> {
    Some(FieldSelector::parse(text).unwrap())
}
