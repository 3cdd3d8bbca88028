//! The watch cache: every object of every kind in memory, and every change sent on once serialized.
//!
//! One task follows the store's log ([`feed`]) and is the only one that changes anything. Reads
//! take a lock for as long as it takes to copy a pointer; watchers are indexed and never waited
//! for. Its caller is the engine; it must never write to the store.

mod contents;
mod event;
mod feed;
mod log;
mod published;
mod resource;
mod selection;
#[cfg(test)]
mod tests;
mod watch;
mod watchers;

pub use event::{Chunk, EventKind, WatchEvent};
pub use watch::Watch;
pub use watchers::WatchCounters;

pub(crate) use contents::Objects;
pub(crate) use resource::{Begin, ResourceCache, end_of, range};
pub(crate) use selection::Selection;
pub(crate) use watch::Extras;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use commonage_store::{Revision, Store, StoreError, Version};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use published::Published;

use crate::resource::{ResourceDef, Scheme};
use crate::status::ApiError;

#[derive(Debug)]
pub struct Cache {
    resources: Vec<Arc<ResourceCache>>,
    /// `/group/resource/` of each resource to its number.
    prefixes: HashMap<Box<str>, usize>,
    prefix_lengths: Vec<usize>,
    published: Published,
    /// Everything up to this revision is in the watchers' queues.
    dispatched: Arc<AtomicU64>,
    counters: Arc<WatchCounters>,
    ready: AtomicBool,
}

impl Cache {
    fn new(scheme: &Scheme) -> Cache {
        let counters = Arc::new(WatchCounters::default());
        let (mut resources, mut prefixes, mut prefix_lengths) =
            (Vec::new(), HashMap::new(), Vec::new());
        for def in scheme.iter().filter(|def| def.is_stored()) {
            let prefix = def.key_prefix();
            if prefixes.contains_key(prefix.as_str()) {
                // Another served version of the same kind.
                continue;
            }
            prefix_lengths.push(prefix.len());
            prefixes.insert(prefix.into_boxed_str(), resources.len());
            resources.push(Arc::new(ResourceCache::new(def.clone(), counters.clone())));
        }
        Cache {
            resources,
            prefixes,
            prefix_lengths,
            published: Published::default(),
            dispatched: Arc::default(),
            counters,
            ready: AtomicBool::new(false),
        }
    }

    /// Loads everything and begins to follow the store. The task ends with `shutdown`, and then
    /// every watch has ended.
    pub(crate) async fn start(
        scheme: &Scheme,
        store: Arc<dyn Store>,
        shutdown: CancellationToken,
    ) -> Result<(Arc<Cache>, JoinHandle<()>), StoreError> {
        let cache = Arc::new(Cache::new(scheme));
        let newest = store.revision().await?;
        let revision = cache.load_past(&*store).await?;
        let feed = cache.clone();
        let task = tokio::spawn(async move { feed.follow(store, revision, shutdown).await });
        cache.reached(newest).await;
        cache.ready.store(true, Ordering::Release);
        Ok((cache, task))
    }

    pub(crate) fn ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    pub(crate) fn counters(&self) -> &WatchCounters {
        &self.counters
    }

    pub(crate) fn resources(&self) -> impl Iterator<Item = &Arc<ResourceCache>> {
        self.resources.iter()
    }

    /// The cache of a kind; `None` for a kind that came after the start.
    pub(crate) fn resource(&self, def: &ResourceDef) -> Option<&Arc<ResourceCache>> {
        self.prefixes.get(def.key_prefix().as_str()).map(|number| &self.resources[*number])
    }

    /// Everything up to this revision can be read.
    pub(crate) fn revision(&self) -> Revision {
        self.published.revision()
    }

    /// Returns once everything up to `revision` can be read.
    pub(crate) async fn reached(&self, revision: Revision) {
        self.published.reached(revision).await;
    }

    /// A watch, or one that says that `begin` is too old.
    pub(crate) fn watch(
        &self,
        resource: &ResourceCache,
        selection: Selection,
        begin: Begin,
        extras: Extras,
    ) -> Watch {
        let def = resource.def().clone();
        match (resource.subscribe(selection, begin), begin) {
            (Ok(subscription), _) => {
                Watch::running(def, subscription, extras, self.dispatched.clone())
            }
            (Err(oldest), Begin::After(asked)) => {
                Watch::failed(def, &ApiError::expired_watch(asked.0, oldest.0))
            }
            (Err(Version(oldest)), Begin::State) => {
                Watch::failed(def, &ApiError::expired_watch(0, oldest))
            }
        }
    }

    /// The number of a key's resource, and the object's path.
    fn locate<'k>(&self, key: &'k [u8]) -> Option<(usize, &'k str)> {
        let key = std::str::from_utf8(key).ok()?;
        let group_end = 1 + key.get(1..)?.find('/')?;
        let resource_end = group_end + 1 + key[group_end + 1..].find('/')?;
        let (prefix, path) = key.split_at(resource_end + 1);
        Some((*self.prefixes.get(prefix)?, path))
    }
}
