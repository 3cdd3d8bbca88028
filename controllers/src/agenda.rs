//! What drives a controller that has nothing to do about most objects: they are looked at when they
//! change and forgotten; the others wait here until they are due.
//!
//! kube-runtime's `Controller` keeps every object of its kind and schedules each change of each. For
//! kinds that change thousands of times a second that is most of what a controller would cost.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fmt::Debug,
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt, stream::FuturesUnordered};
use kube::{
    Api, Resource, ResourceExt,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::allocation::cache::{Key, key};
use crate::metrics::workqueue;

/// A failed attempt is followed by another one after this long; the API server answers in
/// milliseconds, so what fails is either overtaken or an outage.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Objects worked on at once: each takes a request or two.
const AT_ONCE: usize = 64;

/// Follows a kind until `shutdown`. `due` says after how long to work on an object that is now like
/// this, if at all; `work` does it, and says when to look again if the object does not change.
///
/// # Errors
/// The watch ends, which it never should.
pub(crate) async fn run<K, F>(
    api: Api<K>,
    due: impl Fn(&K) -> Option<Duration>,
    work: impl Fn(Arc<K>) -> F,
    shutdown: CancellationToken,
) -> anyhow::Result<()>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    F: Future<Output = kube::Result<Option<Duration>>>,
{
    let mut objects = watcher(api, watcher::Config::default()).default_backoff().boxed();
    let mut agenda = Agenda::<K>::default();
    let queue = workqueue::queue(&K::plural(&()));
    let mut running = FuturesUnordered::new();
    loop {
        while running.len() < AT_ONCE
            && let Some((due, object)) = agenda.next(Instant::now())
        {
            queue.taken(due.elapsed());
            let (outcome, began) = (work(object.clone()), Instant::now());
            running.push(async move { (object, outcome.await, began.elapsed()) });
        }
        queue.waiting(agenda.waiting.len());
        let next = agenda.next_due().filter(|_| running.len() < AT_ONCE);
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            event = objects.next() => match event {
                Some(Ok(Event::Apply(object) | Event::InitApply(object))) => {
                    let due = due(&object).map(|wait| Instant::now() + wait);
                    due.iter().for_each(|_| queue.added());
                    agenda.set(Arc::new(object), due);
                }
                Some(Ok(Event::Delete(object))) => agenda.set(Arc::new(object), None),
                // What has gone unseen is overtaken when its turn comes.
                Some(Ok(Event::Init | Event::InitDone)) => {}
                Some(Err(error)) => warn!(kind = %K::kind(&()), %error, "watch interrupted, resuming"),
                None => anyhow::bail!("the watch of {} ended", K::plural(&())),
            },
            Some((object, outcome, took)) = running.next(), if !running.is_empty() => {
                queue.worked(took);
                let again = outcome.unwrap_or_else(|error| {
                    let (kind, name) = (K::kind(&()), object.name_any());
                    warn!(%kind, name, %error, "not reconciled");
                    queue.retried();
                    Some(RETRY_AFTER)
                });
                agenda.done(object, again.map(|wait| Instant::now() + wait));
            }
            () = until(next) => {}
        }
    }
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// Each object once, in its newest version, and never twice at a time.
#[derive(Debug)]
struct Agenda<K> {
    waiting: HashMap<Key, (Instant, Arc<K>)>,
    order: BTreeSet<(Instant, Key)>,
    /// Given out by [`Agenda::next`] and not handed back yet.
    running: HashSet<Key>,
}

impl<K> Default for Agenda<K> {
    fn default() -> Self {
        Agenda { waiting: HashMap::new(), order: BTreeSet::new(), running: HashSet::new() }
    }
}

impl<K: Resource> Agenda<K> {
    /// The object is now like this, and due then; or there is nothing to do about it.
    fn set(&mut self, object: Arc<K>, due: Option<Instant>) {
        let key = key(&*object);
        if let Some((before, _)) = self.waiting.remove(&key) {
            self.order.remove(&(before, key.clone()));
        }
        if let Some(due) = due {
            self.order.insert((due, key.clone()));
            self.waiting.insert(key, (due, object));
        }
    }

    /// What is due and not being worked on, the oldest first, and since when.
    fn next(&mut self, now: Instant) -> Option<(Instant, Arc<K>)> {
        let mut due = self.order.iter().take_while(|(due, _)| *due <= now);
        let (due, key) = due.find(|(_, key)| !self.running.contains(key))?.clone();
        self.order.remove(&(due, key.clone()));
        let (_, object) = self.waiting.remove(&key)?;
        self.running.insert(key);
        Some((due, object))
    }

    /// When something will be due, leaving out what is being worked on.
    fn next_due(&self) -> Option<Instant> {
        let mut order = self.order.iter();
        order.find(|(_, key)| !self.running.contains(key)).map(|(due, _)| *due)
    }

    /// An object was worked on. It is looked at `again` unless it has changed meanwhile.
    fn done(&mut self, object: Arc<K>, again: Option<Instant>) {
        let key = key(&*object);
        self.running.remove(&key);
        if again.is_some() && !self.waiting.contains_key(&key) {
            self.set(object, again);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use commonage_schemas::{Task, TaskSpec};

    use super::*;

    fn task(name: &str, version: &str) -> Arc<Task> {
        let mut task = Task::new(name, TaskSpec::default());
        task.metadata.resource_version = Some(version.to_owned());
        Arc::new(task)
    }

    #[test]
    fn each_object_waits_once_in_its_newest_version() {
        let (mut agenda, now) = (Agenda::default(), Instant::now());
        let later = now + Duration::from_secs(5);
        agenda.set(task("a", "1"), Some(later));
        agenda.set(task("b", "2"), Some(later));
        agenda.set(task("a", "3"), Some(now));
        assert_eq!(agenda.next_due(), Some(now));
        assert_eq!(agenda.next(now).unwrap().1.resource_version().unwrap(), "3");
        assert!(agenda.next(now).is_none());
        assert_eq!(agenda.next_due(), Some(later));
        agenda.set(task("b", "4"), None);
        assert_eq!(agenda.next_due(), None);
    }

    #[test]
    fn what_changes_while_it_is_worked_on_comes_after() {
        let (mut agenda, now) = (Agenda::default(), Instant::now());
        agenda.set(task("a", "1"), Some(now));
        let (_, first) = agenda.next(now).unwrap();
        agenda.set(task("a", "2"), Some(now));
        assert!(agenda.next(now).is_none() && agenda.next_due().is_none(), "it is being worked on");
        agenda.done(first, Some(now + Duration::from_secs(1)));
        let (_, second) = agenda.next(now).unwrap();
        assert_eq!(second.resource_version().unwrap(), "2", "what was heard counts");
        agenda.done(second, Some(now));
        assert!(agenda.next(now).is_some(), "it was to be tried again");
    }
}
