//! The engine: CRUD, list and watch over every kind alike.
//!
//! Its caller is `http/`, which hands it decoded requests, and the in-process helpers of this
//! crate. It owns the order of a write (decode, prune, default, strategy, validate, compare,
//! commit, wait until published) and never looks at a socket or a header.

mod commit;
mod compaction;
mod create;
mod definitions;
mod delete;
mod detached;
pub(crate) mod fence;
mod managed;
mod namespaces;
mod options;
mod page;
mod policy;
mod read;
mod review;
mod room;
pub(crate) mod scale;
#[cfg(test)]
pub(crate) mod tests;
mod turns;
mod update;

pub use options::{
    DeleteOptions, Deleted, FieldValidation, List, ListOptions, PatchKind, Propagation,
    VersionMatch, WatchOptions, WriteOptions, Written,
};

pub use crate::cache::{Chunk, EventKind, Watch, WatchCounters, WatchEvent};

pub(crate) use commit::{CommitError, encode, is_deleting, take_version};
pub(crate) use create::Prepared;
pub(crate) use delete::mark;
pub(crate) use update::{Attempt, RETRY_FOR, Target};

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use commonage_store::Store;
use futures::FutureExt;
use serde_json::Value;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::auth::access::Access;
use crate::cache::{Cache, Passed, ResourceCache};
use crate::encryption::Encryption;
use crate::kinds;
use crate::object::Object;
use crate::resource::{ResourceDef, Scheme};
use crate::status::ApiError;
use crate::strategy::{Plain, Strategy, SubresourceRequest};
use detached::Detached;
use update::Edit;

/// Everything between a decoded request and the store. Share it behind an `Arc`.
pub struct Engine {
    store: Arc<dyn Store>,
    cache: Arc<Cache>,
    definitions: definitions::Definitions,
    /// By group, then by plural name.
    strategies: kinds::Strategies,
    plain: Arc<dyn Strategy>,
    /// The definition of Namespace; absent only in tests of other kinds.
    namespaces: Option<Arc<ResourceDef>>,
    /// Writes that run, and the background work: they outlive the requests that began them.
    tasks: TaskTracker,
    turns: turns::Turns,
    access: Arc<Access>,
    settings: Settings,
    /// Woken when the store has no room left.
    full: Notify,
    shutdown: CancellationToken,
}

/// What can be chosen about an engine.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long Events are kept; zero is for ever. kube-apiserver's `--event-ttl`.
    pub event_ttl: Duration,
    /// How far back history reaches at least; zero is to its beginning. kube-apiserver's
    /// `--etcd-compaction-interval`.
    pub compaction_interval: Duration,
    /// Knows what of the store is encrypted with an old key.
    pub(crate) encryption: Option<Arc<Encryption>>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            event_ttl: Duration::from_secs(3_600),
            compaction_interval: Duration::from_secs(300),
            encryption: None,
        }
    }
}

impl Engine {
    /// Loads the cache, makes the namespaces that always exist, and starts the background work
    /// (tail, namespace removal), which ends when `shutdown` is cancelled.
    ///
    /// # Errors
    /// The store can't be read or written.
    pub async fn start(
        store: Arc<dyn Store>,
        scheme: Arc<Scheme>,
        shutdown: CancellationToken,
    ) -> anyhow::Result<Arc<Engine>> {
        Engine::start_with(store, scheme, Settings::default(), shutdown).await
    }

    /// As [`Engine::start`], with other settings than the usual ones.
    ///
    /// # Errors
    /// The store can't be read or written.
    pub async fn start_with(
        store: Arc<dyn Store>,
        scheme: Arc<Scheme>,
        settings: Settings,
        shutdown: CancellationToken,
    ) -> anyhow::Result<Arc<Engine>> {
        let namespaces = scheme.by_kind("", "Namespace").cloned();
        let (definitions, applied) = definitions::Definitions::load(scheme, &*store).await?;
        let scheme = definitions.scheme();
        let (cache, feed) = Cache::start(&scheme, store.clone(), shutdown.clone()).await?;
        let access = Arc::new(Access::new(&scheme, &cache));
        let engine = Arc::new(Engine {
            store,
            cache,
            namespaces,
            strategies: kinds::strategies(),
            access,
            plain: Arc::new(Plain),
            definitions,
            tasks: TaskTracker::new(),
            turns: turns::Turns::default(),
            settings,
            full: Notify::new(),
            shutdown: shutdown.clone(),
        });
        engine.tasks.spawn(watch_over(feed, shutdown));
        engine.tasks.spawn(engine.clone().follow_definitions(applied));
        engine.tasks.spawn(engine.clone().govern_definitions());
        engine.make_system_namespaces().await?;
        engine.make_policy().await?;
        engine.tasks.spawn(engine.clone().follow_cluster_roles());
        engine.tasks.spawn(engine.clone().make_room());
        engine.tasks.spawn(engine.clone().compact());
        Ok(engine)
    }

    /// Returns when all writes that had begun and the background work have ended. Call it after
    /// cancelling the token that the engine was started with, and after the last request.
    pub async fn stopped(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// What is served now: compiled-in kinds and those of CustomResourceDefinitions.
    pub fn scheme(&self) -> Arc<Scheme> {
        self.definitions.scheme()
    }

    /// Changes whenever the scheme does.
    pub(crate) fn scheme_changes(&self) -> tokio::sync::watch::Receiver<()> {
        self.definitions.changes()
    }

    /// Who may what.
    pub(crate) fn access(&self) -> &Arc<Access> {
        &self.access
    }

    /// False while the cache is being (re)built, and when it has stopped: for `/readyz`.
    pub fn ready(&self) -> bool {
        self.cache.ready() && !self.shutdown.is_cancelled()
    }

    /// What the cache holds now, of version v1 of a stored kind.
    pub(crate) fn cached(
        &self,
        group: &str,
        plural: &str,
        namespace: &str,
        name: &str,
    ) -> Option<Arc<Object>> {
        let scheme = self.scheme();
        let resource = self.cache.resource(scheme.get(group, "v1", plural)?)?;
        resource.get(&format!("{namespace}/{name}"))
    }

    /// For metrics.
    pub fn watch_counters(&self) -> &WatchCounters {
        self.cache.counters()
    }

    /// The resourceVersion that reads from the cache are as new as, for metrics.
    pub fn cache_version(&self) -> u64 {
        crate::cache::end_of(self.cache.revision()).0
    }

    /// Objects per kind (group resource), for metrics.
    pub fn object_counts(&self) -> Vec<(String, usize)> {
        self.cache
            .resources()
            .iter()
            .map(|resource| (resource.def().group_resource(), resource.len()))
            .collect()
    }

    /// What has gone through the caches, by group and plural name, for metrics.
    pub(crate) fn traffic(&self) -> Vec<(String, String, Passed)> {
        let of = |resource: &Arc<ResourceCache>| {
            let def = resource.def();
            (def.group.clone(), def.plural.clone(), resource.traffic().passed())
        };
        self.cache.resources().iter().map(of).collect()
    }

    /// Of the kinds that have any.
    pub(crate) fn unreadable_counts(&self) -> Vec<(String, usize)> {
        let resources = self.cache.resources();
        let counts = resources
            .iter()
            .map(|resource| (resource.def().group_resource(), resource.unreadable_count()));
        counts.filter(|(_, count)| *count > 0).collect()
    }

    pub(crate) fn strategy(&self, def: &ResourceDef) -> &Arc<dyn Strategy> {
        let of_group = self.strategies.get(def.group.as_str());
        of_group.and_then(|group| group.get(def.plural.as_str())).unwrap_or(&self.plain)
    }

    /// As [`Engine::strategy`], but none for an object whose spec or status is no object: the kinds'
    /// rules reach into them, and validation tells that they are none.
    fn strategy_for(&self, def: &ResourceDef, object: &Value) -> &Arc<dyn Strategy> {
        let part =
            |name: &str| object.get(name).is_none_or(|part| part.is_object() || part.is_null());
        if part("spec") && part("status") { self.strategy(def) } else { &self.plain }
    }

    /// `namespace` is empty for cluster-scoped kinds, here and below.
    pub async fn create(
        self: &Arc<Self>,
        def: &Arc<ResourceDef>,
        namespace: &str,
        body: Value,
        options: WriteOptions,
    ) -> Result<Written, ApiError> {
        let (engine, def, namespace) = (self.clone(), def.clone(), namespace.to_owned());
        self.detached(engine.create_now(def, namespace, body, options)).await
    }

    /// PUT of the object or of a subresource (`status`, `finalize`).
    pub async fn update(
        self: &Arc<Self>,
        def: &Arc<ResourceDef>,
        namespace: &str,
        name: &str,
        subresource: Option<&str>,
        body: Value,
        options: WriteOptions,
    ) -> Result<Written, ApiError> {
        let target = Target::new(def, namespace, name, subresource);
        self.detached(self.clone().edit_now(target, Edit::Replace(body), options)).await
    }

    /// `body` is JSON.
    #[allow(clippy::too_many_arguments)] // each is one part of the request line
    pub async fn patch(
        self: &Arc<Self>,
        def: &Arc<ResourceDef>,
        namespace: &str,
        name: &str,
        subresource: Option<&str>,
        kind: PatchKind,
        body: Bytes,
        options: WriteOptions,
    ) -> Result<Written, ApiError> {
        let target = Target::new(def, namespace, name, subresource);
        self.detached(self.clone().edit_now(target, Edit::Patch { kind, body }, options)).await
    }

    pub async fn delete(
        self: &Arc<Self>,
        def: &Arc<ResourceDef>,
        namespace: &str,
        name: &str,
        delete: DeleteOptions,
        options: WriteOptions,
    ) -> Result<Deleted, ApiError> {
        if let Some(source) = self.source(def) {
            return self.delete_source(def, &source, namespace, name, delete, options).await;
        }
        let target = Target::new(def, namespace, name, None);
        self.detached(self.clone().delete_now(target, delete, options)).await
    }

    /// Returns what was deleted or marked, as it was before.
    pub async fn delete_collection(
        self: &Arc<Self>,
        def: &Arc<ResourceDef>,
        namespace: Option<&str>,
        list: ListOptions,
        delete: DeleteOptions,
        options: WriteOptions,
    ) -> Result<List, ApiError> {
        let (engine, def, namespace) = (self.clone(), def.clone(), namespace.map(str::to_owned));
        self.detached(engine.delete_collection_now(def, namespace, list, delete, options)).await
    }

    /// POST on a subresource of one object: `offers/accept`, `offers/decline`, `tasks/binding`.
    /// The answer is the HTTP status and the JSON body. 404 for a subresource that the kind has not.
    pub async fn post_subresource(
        self: &Arc<Self>,
        def: &Arc<ResourceDef>,
        namespace: &str,
        name: &str,
        subresource: &str,
        body: Value,
        options: WriteOptions,
    ) -> Result<(u16, Bytes), ApiError> {
        let request = SubresourceRequest {
            def: def.clone(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            subresource: subresource.to_owned(),
            body,
            options,
        };
        let (engine, strategy) = (self.clone(), self.strategy(def).clone());
        let answer = async move {
            let answer = strategy.post(&engine, &request).await;
            answer.unwrap_or_else(|| Err(ApiError::not_found(&request.def, &request.name)))
        };
        self.detached(answer).await
    }

    /// A write goes on when the client that asked for it is gone: half of one is never seen.
    async fn detached<T: Send + 'static>(
        &self,
        write: impl Future<Output = Result<T, ApiError>> + Send + 'static,
    ) -> Result<T, ApiError> {
        // What the request is fenced by goes along.
        let write = fence::behind(fence::current(), write);
        let done = AssertUnwindSafe(write).catch_unwind();
        // The panic itself has been written to the log by the panic hook.
        Detached::new(&self.tasks, done).await.unwrap_or_else(|_| {
            Err(ApiError::internal("the server failed while it handled the request"))
        })
    }
}

impl Target {
    pub(crate) fn new(
        def: &Arc<ResourceDef>,
        namespace: &str,
        name: &str,
        subresource: Option<&str>,
    ) -> Target {
        Target {
            def: def.clone(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            subresource: subresource.map(str::to_owned),
        }
    }
}

/// Without the feed the cache is blind: its death must not go unseen, so it takes the engine along
/// (`ready` turns false, requests in flight end, the process's owner sees the token).
async fn watch_over(feed: tokio::task::JoinHandle<()>, shutdown: CancellationToken) {
    if let Err(error) = feed.await {
        tracing::error!(%error, "the task that follows the store died; shutting down");
        shutdown.cancel();
    }
}
