//! The cache of one kind: its objects now, its recent events, its watchers, its recent snapshots.

use std::collections::{HashMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::time::{Duration, Instant};

use commonage_store::{Change, Revision, Version};
use parking_lot::{Mutex, RwLock};

use super::contents::{Contents, Objects, Trigger};
use super::event::{EventKind, WatchEvent};
use super::log::{EventLog, LogChunk, Past};
use super::selection::Selection;
use super::watch::{Backlog, Subscription};
use super::watchers::{WatchCounters, Watchers};
use crate::object::{Fields, Object};
use crate::resource::ResourceDef;

/// A snapshot that a paged list may come back to is kept so long; Kubernetes compacts after the
/// same time, so clients are used to it.
const SNAPSHOT_AGE_MAX: Duration = Duration::from_secs(300);
/// Snapshots kept per kind: they share structure, each costs what changed since.
const SNAPSHOTS_MAX: usize = 64;

#[derive(Debug, Default)]
struct State {
    contents: Contents,
    log: EventLog,
    /// Of the last change of this kind (or the revision that the cache was loaded at).
    version: Version,
}

#[derive(Debug)]
pub(crate) struct ResourceCache {
    def: Arc<ResourceDef>,
    fields: Arc<Fields>,
    state: RwLock<State>,
    watchers: Arc<Watchers>,
    trigger: Option<Trigger>,
    snapshots: Mutex<VecDeque<Kept>>,
}

/// A snapshot that a page token names.
#[derive(Debug)]
struct Kept {
    version: Version,
    scope: String,
    since: Instant,
    objects: Objects,
}

/// Where a watch begins.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Begin {
    /// With everything that exists, as ADDED events.
    State,
    /// With everything after this version.
    After(Version),
}

/// The version up to which a kind's state is complete at `revision`: no change of that revision
/// has a greater one.
pub(crate) const fn end_of(revision: Revision) -> Version {
    Version::new(revision, commonage_store::CHANGES_PER_REVISION_MAX - 1)
}

impl ResourceCache {
    pub(super) fn new(def: Arc<ResourceDef>, counters: Arc<WatchCounters>) -> ResourceCache {
        let fields = Arc::new(Fields::of(&def));
        let trigger = Trigger::of(&def, &fields);
        let watchers = Arc::new(Watchers::new(trigger.clone(), counters));
        ResourceCache {
            def,
            fields,
            state: RwLock::default(),
            watchers,
            trigger,
            snapshots: Mutex::default(),
        }
    }

    pub(crate) fn def(&self) -> &Arc<ResourceDef> {
        &self.def
    }

    pub(crate) fn fields(&self) -> &Arc<Fields> {
        &self.fields
    }

    pub(crate) fn get(&self, path: &str) -> Option<Arc<Object>> {
        self.state.read().contents.all().get(path).cloned()
    }

    pub(crate) fn len(&self) -> usize {
        self.state.read().contents.all().len()
    }

    /// The objects and the version of the last change among them.
    pub(crate) fn snapshot(&self) -> (Objects, Version) {
        let state = self.state.read();
        (state.contents.all().clone(), state.version)
    }

    /// As [`ResourceCache::snapshot`], but perhaps without what is not selected.
    pub(crate) fn snapshot_of(&self, selection: &Selection) -> (Objects, Version) {
        let state = self.state.read();
        (state.contents.select(selection), state.version)
    }

    /// Replaces everything: the cache was (re)loaded at `revision`. Watches end, and can't be
    /// resumed from before.
    pub(super) fn reset(&self, objects: Objects, revision: Revision) {
        let version = end_of(revision);
        let contents = Contents::new(self.def.is_namespaced(), self.trigger.clone(), objects);
        *self.state.write() = State { contents, log: EventLog::starting_at(version), version };
        self.watchers.end_all();
    }

    /// Applies changes of whole revisions, in order. Called by the feed alone.
    pub(super) fn apply(
        &self,
        changes: Vec<Change>,
        prefix_length: usize,
    ) -> Option<Arc<LogChunk>> {
        let (mut events, mut pasts) =
            (Vec::with_capacity(changes.len()), Vec::with_capacity(changes.len()));
        // Decoding happens outside of the lock; nobody else writes the state meanwhile.
        let mut fresh: HashMap<Arc<str>, Option<Arc<Object>>> = HashMap::new();
        for change in changes {
            let Some(path) =
                std::str::from_utf8(&change.key).ok().and_then(|key| key.get(prefix_length..))
            else {
                tracing::error!(key = ?change.key, "a key of the store is not UTF-8; left out");
                continue;
            };
            let previous = match fresh.get(path) {
                Some(known) => known.clone(),
                None => self.get(path),
            };
            let Some(event) = self.event(path, &change, previous.as_ref()) else { continue };
            let object = event.object.clone().expect("an event of a change has an object");
            let now = (event.kind != EventKind::Deleted).then(|| object.clone());
            fresh.insert(object.shared_path(), now);
            events.push(event);
            pasts.push(Past::new(previous));
        }
        let chunk = LogChunk::new(events, pasts)?;
        let mut state = self.state.write();
        for (path, object) in fresh {
            match object {
                Some(object) => state.contents.insert(path, object),
                None => state.contents.remove(&path),
            }
        }
        state.version = chunk.all.version();
        state.log.push(chunk.clone());
        Some(chunk)
    }

    fn event(
        &self,
        path: &str,
        change: &Change,
        previous: Option<&Arc<Object>>,
    ) -> Option<WatchEvent> {
        let version = change.version;
        let (kind, object, bytes) = match (&change.value, previous) {
            (Some(value), previous) => {
                let kind = if previous.is_some() { EventKind::Modified } else { EventKind::Added };
                match Object::decode(&self.fields, path, value, version, kind) {
                    Ok((object, line)) => (kind, object, line),
                    Err(error) => {
                        tracing::error!(path, %error, "an object of the store can't be read; left out");
                        return None;
                    }
                }
            }
            (None, Some(previous)) => {
                let (object, line) = previous.at_version(version, EventKind::Deleted);
                (EventKind::Deleted, object, line)
            }
            (None, None) => return None,
        };
        Some(WatchEvent { kind, version, object: Some(Arc::new(object)), bytes })
    }

    pub(super) fn dispatch(&self, chunk: &LogChunk) {
        self.watchers.dispatch(chunk);
    }

    pub(super) fn close(&self) {
        self.watchers.close();
    }

    /// Registers a watcher; `Err` with the oldest version that can be resumed from.
    pub(super) fn subscribe(
        &self,
        selection: Selection,
        begin: Begin,
    ) -> Result<Subscription, Version> {
        let selection = Arc::new(selection);
        let (backlog, registration, queue) = self.watchers.register(selection.clone(), || {
            let state = self.state.read();
            Ok(match begin {
                Begin::State => {
                    let objects = state.contents.select(&selection);
                    (Backlog::state(objects, state.version), state.version)
                }
                Begin::After(version) => {
                    (Backlog::log(state.log.after(version)?, version), version.max(state.version))
                }
            })
        })?;
        Ok(Subscription { selection, backlog, queue, registration })
    }

    /// Remembers a snapshot of [`ResourceCache::snapshot_of`] that a page token names.
    pub(crate) fn keep_snapshot(&self, version: Version, selection: &Selection, objects: &Objects) {
        let scope = self.state.read().contents.scope(selection);
        let mut snapshots = self.snapshots.lock();
        let since = Instant::now();
        while snapshots.front().is_some_and(|kept| since - kept.since > SNAPSHOT_AGE_MAX) {
            snapshots.pop_front();
        }
        if snapshots.iter().any(|kept| kept.version == version && kept.scope == scope) {
            return;
        }
        if snapshots.len() >= SNAPSHOTS_MAX {
            snapshots.pop_front();
        }
        snapshots.push_back(Kept { version, scope, since, objects: objects.clone() });
    }

    pub(crate) fn kept_snapshot(&self, version: Version, selection: &Selection) -> Option<Objects> {
        let scope = self.state.read().contents.scope(selection);
        let snapshots = self.snapshots.lock();
        let mut kept = snapshots.iter();
        let kept = kept.find(|kept| kept.version == version && kept.scope == scope)?;
        Some(kept.objects.clone())
    }
}

/// The objects of one namespace (or all), in order, beginning after a path.
pub(crate) fn range<'o>(
    objects: &'o Objects,
    namespace: Option<&str>,
    after: Option<&str>,
) -> impl Iterator<Item = &'o Arc<Object>> {
    let first = namespace.map(|namespace| format!("{namespace}/"));
    // `0` is the byte after `/`: no path of the namespace reaches it.
    let last = namespace.map(|namespace| format!("{namespace}0"));
    let lower = match (after, &first) {
        (Some(after), _) => Bound::Excluded(after),
        (None, Some(first)) => Bound::Included(first.as_str()),
        (None, None) => Bound::Unbounded,
    };
    let upper = last.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
    objects.range::<_, str>((lower, upper)).map(|(_, object)| object)
}
