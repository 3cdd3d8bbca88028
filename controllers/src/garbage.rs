//! The garbage collector: objects whose owners are gone go too, as `metadata.ownerReferences` and
//! the finalizers `foregroundDeletion` and `orphan` say.
//!
//! It follows the metadata of every kind that the API serves, custom ones as they come and go.
//! `graph` keeps who belongs to whom, `work` decides about one object; here is what drives them.

mod followed;
mod graph;
mod work;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::stream::FuturesUnordered;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client,
    core::PartialObjectMeta,
    runtime::{WatchStreamExt, watcher, watcher::Event},
};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::metrics::workqueue;
use crate::resources::{self, Served, uid_of};
use followed::Followed;
use graph::{Graph, KindKey, Node, Uid};
use work::{Attempt, Kinds, Outcome};

/// What could not be decided is looked at again after this long.
const AGAIN_AFTER: Duration = Duration::from_millis(500);
/// Objects that are worked on at once: each takes a few requests one after the other.
const WORKERS: usize = 16;
/// The kinds are asked for anew at least this often; a change of a definition asks at once.
const DISCOVER_EVERY: Duration = Duration::from_secs(30);
/// Definitions often change several times in a row.
const DISCOVER_AFTER_CHANGE: Duration = Duration::from_millis(200);
/// Changes that wait to be taken into the graph; the watches wait when there are more.
const CHANGES_WAITING_MAX: usize = 1024;

/// What a watch saw.
enum Change {
    Applied(String, Box<Node>),
    Gone(String),
    /// A list has been read to its end: these are all there are.
    Listed(Arc<KindKey>, HashSet<Uid>),
    /// A definition has changed.
    Definitions,
}

pub(crate) async fn run(client: Client, shutdown: CancellationToken) -> anyhow::Result<()> {
    let (sender, mut changes) = mpsc::channel(CHANGES_WAITING_MAX);
    let mut collector = Collector {
        sender,
        kinds: Arc::default(),
        monitors: HashMap::new(),
        graph: Graph::default(),
        queue: BTreeMap::new(),
        queued: HashMap::new(),
        running: HashSet::new(),
        metrics: workqueue::queue("garbage_collector_attempt_to_delete"),
        client,
    };
    let _definitions = collector.watch_definitions();
    let mut work = FuturesUnordered::new();
    let mut discover_at = Instant::now();
    loop {
        while work.len() < WORKERS && collector.is_synced() {
            let Some((due, uid)) = collector.next() else { break };
            collector.metrics.taken(due.elapsed());
            let Some(item) = collector.graph.work(&uid) else { continue };
            collector.running.insert(uid.clone());
            let (client, kinds) = (collector.client.clone(), collector.kinds.clone());
            let began = Instant::now();
            work.push(async move {
                let attempt = Attempt { client: &client, kinds: &kinds };
                (uid, attempt.at(&item).await, began.elapsed())
            });
        }
        collector.metrics.waiting(collector.queued.len());
        let idle_until = collector.next_due().unwrap_or(discover_at).min(discover_at);
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            Some((uid, outcome, took)) = work.next(), if !work.is_empty() => {
                collector.metrics.worked(took);
                collector.finish(uid, outcome);
            }
            Some(change) = changes.recv() => match change {
                Change::Definitions => {
                    discover_at = discover_at.min(Instant::now() + DISCOVER_AFTER_CHANGE);
                }
                other => collector.take(other),
            },
            () = tokio::time::sleep_until(idle_until.max(Instant::now())) => {
                if Instant::now() >= discover_at {
                    discover_at = Instant::now() + match collector.discover().await {
                        Ok(()) => DISCOVER_EVERY,
                        Err(error) => {
                            warn!(%error, "kinds can't be discovered; trying again");
                            Duration::from_secs(1)
                        }
                    };
                }
            }
        }
    }
}

struct Collector {
    client: Client,
    sender: mpsc::Sender<Change>,
    kinds: Arc<Kinds>,
    monitors: HashMap<KindKey, Monitor>,
    graph: Graph,
    /// What to look at, by when.
    queue: BTreeMap<(Instant, u64), Uid>,
    /// Where in the queue it is.
    queued: HashMap<Uid, (Instant, u64)>,
    running: HashSet<Uid>,
    metrics: Arc<workqueue::Queue>,
}

/// Follows one kind. Ends when dropped.
struct Monitor {
    task: AbortHandle,
    api_version: String,
    is_synced: bool,
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Collector {
    /// Decisions need all dependents: nothing is done before every kind has been listed once.
    fn is_synced(&self) -> bool {
        !self.monitors.is_empty() && self.monitors.values().all(|monitor| monitor.is_synced)
    }

    fn enqueue(&mut self, uid: Uid, due: Instant) {
        if let Some(place) = self.queued.get(&uid) {
            if place.0 <= due {
                return;
            }
            self.queue.remove(place);
        }
        let mut place = (due, 0);
        while self.queue.contains_key(&place) {
            place.1 += 1;
        }
        self.queued.insert(uid.clone(), place);
        self.queue.insert(place, uid);
        self.metrics.added();
    }

    fn next_due(&self) -> Option<Instant> {
        let (place, _) = self.queue.first_key_value()?;
        Some(place.0)
    }

    /// The next object to look at, and since when it is due. One that is being worked on waits for its turn.
    fn next(&mut self) -> Option<(Instant, Uid)> {
        loop {
            let due = self.next_due().filter(|due| *due <= Instant::now())?;
            let (_, uid) = self.queue.pop_first()?;
            self.queued.remove(&uid);
            if !self.running.contains(&uid) {
                return Some((due, uid));
            }
            self.enqueue(uid, due + AGAIN_AFTER);
        }
    }

    fn take(&mut self, change: Change) {
        let look = match change {
            Change::Applied(uid, node) => self.graph.apply(&uid, *node),
            Change::Gone(uid) => self.graph.remove(&uid),
            Change::Listed(kind, uids) => {
                if let Some(monitor) = self.monitors.get_mut(&*kind) {
                    monitor.is_synced = true;
                }
                self.graph.retain(&kind, &uids)
            }
            Change::Definitions => Vec::new(),
        };
        for uid in look {
            self.enqueue(uid, Instant::now());
        }
    }

    fn finish(&mut self, uid: Uid, outcome: kube::Result<Outcome>) {
        self.running.remove(&uid);
        match outcome {
            Ok(Outcome::Done(owners)) => self.graph.confirm(owners),
            Ok(Outcome::Again) => self.enqueue(uid, Instant::now() + AGAIN_AFTER),
            // Its own watch may be behind: what belongs to it need not wait.
            Ok(Outcome::Gone) => self.take(Change::Gone(uid.to_string())),
            Err(error) => {
                warn!(%error, "an object can't be collected; trying again");
                self.metrics.retried();
                self.enqueue(uid, Instant::now() + 4 * AGAIN_AFTER);
            }
        }
    }

    /// Starts following new kinds and stops following those that are gone.
    async fn discover(&mut self) -> kube::Result<()> {
        let kinds = Arc::new(Kinds::new(resources::discover(&self.client).await?));
        let wanted: HashMap<KindKey, Arc<Served>> = kinds
            .iter()
            // Events own nothing and are owned by nobody. A pod is owned by the task that it shows: to follow both
            // would be to look twice at each, and to render each change of it once more.
            .filter(|(_, served)| served.is_deletable() && !served.is_view())
            .filter(|(_, served)| served.resource.kind != "Event")
            .map(|(key, served)| (key.clone(), served.clone()))
            .collect();
        let same = |key: &KindKey, monitor: &Monitor| {
            wanted.get(key).is_some_and(|one| one.resource.api_version == monitor.api_version)
        };
        let ended: Vec<KindKey> = self
            .monitors
            .iter()
            .filter(|(key, monitor)| !same(key, monitor))
            .map(|(key, _)| key.clone())
            .collect();
        for key in ended {
            self.monitors.remove(&key);
            if !wanted.contains_key(&key) {
                let gone = self.graph.retain(&key, &HashSet::new());
                gone.into_iter().for_each(|uid| self.enqueue(uid, Instant::now()));
            }
        }
        for (key, served) in wanted {
            if !self.monitors.contains_key(&key) {
                debug!(kind = served.name(), "followed");
                let monitor = self.follow(Arc::new(key.clone()), &served);
                self.monitors.insert(key, monitor);
            }
        }
        self.kinds = kinds;
        Ok(())
    }

    fn follow(&self, kind: Arc<KindKey>, served: &Served) -> Monitor {
        let everywhere = Api::<Followed>::all_with(self.client.clone(), &served.resource);
        let watch = watcher(everywhere, watcher::Config::default());
        let sender = self.sender.clone();
        let task = tokio::spawn(async move {
            let mut events = watch.default_backoff().boxed();
            let mut listed = HashSet::new();
            while let Some(event) = events.next().await {
                let change = match event {
                    Ok(event) => seen(&kind, event, &mut listed),
                    Err(error) => {
                        debug!(%error, kind = kind.1, "watch broken; trying again");
                        None
                    }
                };
                if let Some(change) = change
                    && sender.send(change).await.is_err()
                {
                    return;
                }
            }
        });
        Monitor {
            task: task.abort_handle(),
            api_version: served.resource.api_version.clone(),
            is_synced: false,
        }
    }

    fn watch_definitions(&self) -> Monitor {
        let definitions =
            Api::<PartialObjectMeta<CustomResourceDefinition>>::all(self.client.clone());
        let sender = self.sender.clone();
        let task = tokio::spawn(async move {
            let watch = watcher(definitions, watcher::Config::default());
            let mut events = watch.default_backoff().boxed();
            loop {
                match events.try_next().await {
                    Ok(Some(Event::Apply(_) | Event::Delete(_) | Event::InitDone)) => {
                        if sender.send(Change::Definitions).await.is_err() {
                            return;
                        }
                    }
                    Ok(Some(_)) | Err(_) => {}
                    Ok(None) => return,
                }
            }
        });
        Monitor { task: task.abort_handle(), api_version: String::new(), is_synced: true }
    }
}

fn seen(kind: &Arc<KindKey>, event: Event<Followed>, listed: &mut HashSet<Uid>) -> Option<Change> {
    let applied = |object: &Followed| {
        let node = Box::new(Node::new(kind, &object.metadata));
        Change::Applied(uid_of(object), node)
    };
    match event {
        Event::Apply(object) => Some(applied(&object)),
        Event::Delete(object) => Some(Change::Gone(uid_of(&object))),
        Event::Init => {
            listed.clear();
            None
        }
        Event::InitApply(object) => {
            listed.insert(uid_of(&object).into());
            Some(applied(&object))
        }
        Event::InitDone => Some(Change::Listed(kind.clone(), std::mem::take(listed))),
    }
}
