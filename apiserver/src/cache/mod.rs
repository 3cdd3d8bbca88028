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
mod queue;
mod resource;
mod selection;
mod table;
#[cfg(test)]
mod tests;
mod traffic;
mod unreadable;
mod watch;
mod watchers;

pub use event::{Chunk, EventKind, WatchEvent};
pub use watch::Watch;
pub use watchers::WatchCounters;

pub(crate) use contents::Objects;
pub(crate) use log::EVENTS_MAX;
pub(crate) use resource::{Begin, ResourceCache, end_of, range};
pub(crate) use selection::Selection;
pub(crate) use traffic::Passed;
pub(crate) use watch::Extras;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use commonage_store::{Revision, Store, StoreError, Version};
use parking_lot::RwLock;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use published::Published;
use table::Table;

use crate::resource::{ResourceDef, Scheme};
use crate::status::ApiError;

/// How long the answer to a write is held back at most for a cache that does not go on.
const HOLD_BACK_MAX: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub struct Cache {
    table: RwLock<Arc<Table>>,
    published: Arc<Published>,
    /// Everything up to this revision is in the watchers' queues.
    dispatched: Arc<AtomicU64>,
    counters: Arc<WatchCounters>,
    ready: AtomicBool,
    arrivals: mpsc::Sender<Arrival>,
}

/// A kind that comes while the cache runs; answered when it can be read.
#[derive(Debug)]
struct Arrival {
    resource: Arc<ResourceCache>,
    done: oneshot::Sender<()>,
}

impl Cache {
    fn new(scheme: &Scheme, arrivals: mpsc::Sender<Arrival>) -> Cache {
        let counters = Arc::new(WatchCounters::default());
        let mut kinds: BTreeMap<String, Vec<Arc<ResourceDef>>> = BTreeMap::new();
        for def in scheme.iter().filter(|def| def.is_stored()) {
            kinds.entry(def.key_prefix()).or_default().push(def.clone());
        }
        let caches = kinds.values().map(|versions| ResourceCache::new(versions, counters.clone()));
        Cache {
            table: RwLock::new(Arc::new(Table::new(caches.map(Arc::new).collect()))),
            published: Arc::default(),
            dispatched: Arc::default(),
            counters,
            ready: AtomicBool::new(false),
            arrivals,
        }
    }

    /// Loads everything and begins to follow the store. The task ends with `shutdown`, and then
    /// every watch has ended.
    pub(crate) async fn start(
        scheme: &Scheme,
        store: Arc<dyn Store>,
        shutdown: CancellationToken,
    ) -> Result<(Arc<Cache>, JoinHandle<()>), StoreError> {
        let (arrivals, arriving) = mpsc::channel(1);
        let cache = Arc::new(Cache::new(scheme, arrivals));
        let newest = store.revision().await?;
        let revision = cache.load_past(&*store).await?;
        tokio::spawn(let_go(cache.published.clone(), shutdown.clone()));
        let feed = cache.clone();
        let task =
            tokio::spawn(async move { feed.follow(store, revision, arriving, shutdown).await });
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

    /// The kinds that are served now.
    pub(crate) fn resources(&self) -> Vec<Arc<ResourceCache>> {
        self.table().resources.clone()
    }

    /// The cache of a kind; `None` for a kind that is not here (yet, or any more).
    pub(crate) fn resource(&self, def: &ResourceDef) -> Option<Arc<ResourceCache>> {
        self.table.read().get(def).cloned()
    }

    fn table(&self) -> Arc<Table> {
        self.table.read().clone()
    }

    /// Begins to hold a kind, all of whose versions are given, and returns when it can be read;
    /// false when the cache has ended. One that was held under the same name ends, and with it its
    /// watches.
    pub(crate) async fn add(&self, versions: &[Arc<ResourceDef>]) -> bool {
        let resource = Arc::new(ResourceCache::new(versions, self.counters.clone()));
        let (done, told) = oneshot::channel();
        self.arrivals.send(Arrival { resource, done }).await.is_ok() && told.await.is_ok()
    }

    /// Forgets a kind; its watches end.
    pub(crate) fn remove(&self, def: &ResourceDef) {
        let gone = {
            let mut table = self.table.write();
            let gone = table.get(def).cloned();
            *table = Arc::new(table.without(def));
            gone
        };
        if let Some(gone) = gone {
            gone.close();
        }
    }

    /// Everything up to this revision can be read.
    pub(crate) fn revision(&self) -> Revision {
        self.published.revision()
    }

    /// Returns once everything up to `revision` can be read.
    pub(crate) async fn reached(&self, revision: Revision) {
        self.published.reached(revision).await;
    }

    /// What `store` answers to a write, told when it can be read here; if that takes long, before.
    pub(crate) async fn answered<T>(
        &self,
        store: &Arc<dyn Store>,
        answer: impl Future<Output = T>,
    ) -> T {
        let store = store.clone();
        published::answered(&self.published, move || store.landed(), answer).await
    }

    /// A watch that only says why it cannot be.
    pub(crate) fn no_watch(&self, def: Arc<ResourceDef>, error: &ApiError) -> Watch {
        Watch::failed(def, error)
    }

    /// A watch, or one that says that `begin` is too old. `def` is what is shown of `resource`:
    /// its own kind, or a view of it.
    pub(crate) fn watch(
        &self,
        resource: &ResourceCache,
        def: Arc<ResourceDef>,
        selection: Selection,
        begin: Begin,
        extras: Extras,
    ) -> Watch {
        // Read before the state is: everything up to here is in it.
        let complete = end_of(self.revision());
        match (resource.subscribe(selection, begin, complete), begin) {
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
}

/// Lets those go that are held back, again and again; at the end all of them.
async fn let_go(published: Arc<Published>, shutdown: CancellationToken) {
    let waited = || tokio::time::sleep(HOLD_BACK_MAX);
    while shutdown.run_until_cancelled(waited()).await.is_some() {
        published.release();
    }
    published.end();
}
