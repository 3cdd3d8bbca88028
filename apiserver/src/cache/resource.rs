//! The cache of one kind: its objects now, its recent events, its watchers, its recent snapshots.

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use commonage_store::{Change, Revision, Version};
use parking_lot::{Mutex, RwLock};

use super::contents::{Contents, Objects, Trigger};
use super::event::{EventKind, WatchEvent};
use super::log::{EventLog, LogChunk, Past};
use super::selection::Selection;
use super::traffic::Traffic;
use super::unreadable::Unreadable;
use super::watch::{Backlog, Subscription};
use super::watchers::{WatchCounters, Watchers};
use crate::object::{DecodeError, Fields, Normal, Object};
use crate::resource::ResourceDef;

/// A snapshot that a paged list may come back to is kept so long; Kubernetes compacts after the
/// same time, so clients are used to it.
const SNAPSHOT_AGE_MAX: Duration = Duration::from_secs(300);
/// Snapshots kept per kind: they share structure, each costs what changed since.
const SNAPSHOTS_MAX: usize = 64;
/// Writes that began under an older definition have ended by then: a request's longest time.
const SETTLED_AFTER: Duration = Duration::from_secs(60);

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
    triggers: Arc<[Trigger]>,
    snapshots: Mutex<VecDeque<Kept>>,
    prefix_length: usize,
    /// How stored values are read; `None` for compiled-in kinds, whose definitions never change.
    normal: RwLock<Option<Renewed>>,
    /// What was loaded goes as far as this.
    loaded: AtomicU64,
    unreadable: Unreadable,
    traffic: Traffic,
}

/// Since when the definition is what it is.
#[derive(Debug)]
struct Renewed {
    normal: Arc<Normal>,
    since: Instant,
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
    /// Of all versions of a kind (one at least): they share their objects.
    pub(super) fn new(
        versions: &[Arc<ResourceDef>],
        counters: Arc<WatchCounters>,
    ) -> ResourceCache {
        let first = &versions[0];
        let def = first.stored_as.as_ref().map_or(first, |stored| &stored.def).clone();
        let fields = Arc::new(Fields::of_all(&def, versions));
        let triggers = Trigger::all_of(&def, &fields);
        let watchers = Arc::new(Watchers::new(triggers.clone(), counters));
        let normal = def.may_change.then(|| Renewed::new(&def));
        ResourceCache {
            prefix_length: def.key_prefix().len(),
            normal: RwLock::new(normal),
            loaded: AtomicU64::new(0),
            unreadable: Unreadable::default(),
            traffic: Traffic::default(),
            def,
            fields,
            state: RwLock::default(),
            watchers,
            triggers,
            snapshots: Mutex::default(),
        }
    }

    pub(crate) fn def(&self) -> &Arc<ResourceDef> {
        &self.def
    }

    pub(crate) fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    pub(crate) fn fields(&self) -> &Arc<Fields> {
        &self.fields
    }

    pub(crate) fn get(&self, path: &str) -> Option<Arc<Object>> {
        self.state.read().contents.all().get(path).cloned()
    }

    /// Of the last change of this kind.
    pub(crate) fn version(&self) -> Version {
        self.state.read().version
    }

    /// Reads a stored value as what it would be today.
    pub(crate) fn read(
        &self,
        path: &str,
        value: &[u8],
        version: Version,
    ) -> Result<Object, DecodeError> {
        let normal = self.normal.read().as_ref().map(|renewed| renewed.normal.clone());
        let normal = normal.filter(|normal| !normal.is_all_there_was(value));
        let amended = normal.and_then(|normal| normal.of_value(value));
        let value = amended.as_deref().unwrap_or(value);
        Object::decode(&self.fields, path, value, version, EventKind::Added)
            .map(|(object, _)| object)
    }

    /// As [`ResourceCache::read`], of a value just written: only when the definition changed lately
    /// may its writer not have known it.
    fn arrived<'v>(&self, value: &'v Bytes) -> Cow<'v, Bytes> {
        let renewed = self.normal.read();
        let Some(Renewed { normal, since }) = &*renewed else { return Cow::Borrowed(value) };
        if normal.is_all_there_was(value)
            || normal.is_current(value) && since.elapsed() > SETTLED_AFTER
        {
            return Cow::Borrowed(value);
        }
        normal.of_value(value).map_or(Cow::Borrowed(value), Cow::Owned)
    }

    /// The definition changed, but for what only a new cache can take (selectable fields): what is
    /// held is seen through the new schema from now on. Takes as long as reading it all.
    pub(crate) fn renew(&self, stored: &Arc<ResourceDef>) {
        let renewed = Renewed::new(stored);
        let normal = renewed.normal.clone();
        *self.normal.write() = Some(renewed);
        let (objects, _) = self.snapshot();
        for (path, object) in &objects {
            let Some(amended) = normal.of_object(object) else { continue };
            let mut state = self.state.write();
            // What came meanwhile was read through the new schema already.
            if state.contents.all().get(path).is_some_and(|now| Arc::ptr_eq(now, object)) {
                state.contents.insert(path.clone(), Arc::new(amended));
            }
        }
    }

    /// What the store has at this path and nobody can read, and why.
    pub(crate) fn unreadable(&self, path: &str) -> Option<(Version, String)> {
        self.unreadable.get(path)
    }

    pub(crate) fn unreadable_count(&self) -> usize {
        self.unreadable.len()
    }

    /// Notes what was found during a load; [`ResourceCache::begin_load`] comes before it.
    pub(super) fn note_unreadable(&self, path: &str, version: Version, why: String) {
        self.unreadable.add(path, version, why);
    }

    pub(super) fn begin_load(&self) {
        self.unreadable.clear();
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

    /// What has to be undone of a state at the end of `version`'s revision to see it as it was at
    /// `version`: the changes behind it in the same revision, which others wrote with it. Empty if
    /// the recent past does not reach so far back.
    pub(crate) fn behind(&self, version: Version) -> Vec<(Arc<str>, Option<Arc<Object>>)> {
        let state = self.state.read();
        let Ok(chunks) = state.log.after(version) else { return Vec::new() };
        let mut undo = Vec::new();
        for chunk in chunks.iter() {
            for (event, past) in chunk.all.events().iter().zip(&chunk.pasts) {
                if event.version.revision() > version.revision() {
                    return undo;
                }
                if let Some(object) = event.object.as_ref().filter(|_| event.version > version) {
                    undo.push((object.shared_path(), past.previous.clone()));
                }
            }
        }
        undo
    }

    /// Replaces everything: the cache was (re)loaded at `revision`. Watches end, and can't be
    /// resumed from before.
    pub(super) fn reset(&self, objects: Objects, revision: Revision) {
        let version = end_of(revision);
        self.loaded.store(version.0, Ordering::Release);
        let contents = Contents::new(self.def.is_namespaced(), self.triggers.clone(), objects);
        *self.state.write() = State { contents, log: EventLog::starting_at(version), version };
        self.snapshots.lock().clear();
        self.watchers.end_all();
        self.traffic.loaded();
    }

    /// Applies changes of whole revisions, in order. Called by the feed alone.
    pub(super) fn apply(&self, changes: Vec<Change>) -> Option<Arc<LogChunk>> {
        let loaded = Version(self.loaded.load(Ordering::Acquire));
        let (mut events, mut pasts) =
            (Vec::with_capacity(changes.len()), Vec::with_capacity(changes.len()));
        // Decoding happens outside of the lock; nobody else writes the state meanwhile.
        let mut fresh: HashMap<Arc<str>, Option<Arc<Object>>> = HashMap::new();
        for change in changes.into_iter().filter(|change| change.version > loaded) {
            let Some(path) =
                std::str::from_utf8(&change.key).ok().and_then(|key| key.get(self.prefix_length..))
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
        self.traffic.received(chunk.all.events().len());
        let kept = chunk.bare();
        let mut state = self.state.write();
        for (path, object) in fresh {
            match object {
                Some(object) => state.contents.insert(path, object),
                None => state.contents.remove(&path),
            }
        }
        state.version = chunk.all.version();
        state.log.push(kept);
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
                let value = self.arrived(value);
                match Object::decode(&self.fields, path, &value, version, kind) {
                    Ok((object, line)) => {
                        self.unreadable.remove(path);
                        (kind, object, line)
                    }
                    Err(error) => {
                        self.unreadable.add(path, version, error.to_string());
                        // What it was before is not what it is.
                        let (object, line) = previous?.at_version(version, EventKind::Deleted);
                        (EventKind::Deleted, object, line)
                    }
                }
            }
            (None, Some(previous)) => {
                let (object, line) = previous.at_version(version, EventKind::Deleted);
                (EventKind::Deleted, object, line)
            }
            (None, None) => {
                self.unreadable.remove(path);
                return None;
            }
        };
        Some(WatchEvent { kind, version, object: Some(Arc::new(object)), bytes })
    }

    pub(super) fn dispatch(&self, chunk: &LogChunk) {
        self.watchers.dispatch(chunk);
        self.traffic.dispatched(chunk.all.events().len());
    }

    pub(super) fn close(&self) {
        self.watchers.close();
    }

    /// Registers a watcher; `Err` with the oldest version that can be resumed from. Everything up to
    /// `complete` has been applied: an initial state is at least as new, though nothing of this kind
    /// may have changed for long.
    pub(super) fn subscribe(
        &self,
        selection: Selection,
        begin: Begin,
        complete: Version,
    ) -> Result<Subscription, Version> {
        let selection = Arc::new(selection);
        let (backlog, registration, queue) = self.watchers.register(selection.clone(), || {
            let state = self.state.read();
            Ok(match begin {
                Begin::State => {
                    let objects = state.contents.select(&selection);
                    self.traffic.initial(objects.len());
                    let version = state.version.max(complete);
                    (Backlog::state(objects, version), version)
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

impl Renewed {
    fn new(stored: &Arc<ResourceDef>) -> Renewed {
        Renewed { normal: Arc::new(Normal::new(stored.clone())), since: Instant::now() }
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
