//! All objects of one kind as the allocator knows them: what the watch said, and what the answers
//! to its own writes said before the watch did.
//!
//! Without the second part the allocator would, for a moment after each write, believe that what it
//! has just given away is still free. A version only ever replaces an older one, so it does not
//! matter which of the two comes first.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
};

use kube::{Resource, ResourceExt, runtime::watcher::Event};

/// Deleted objects that are remembered, so that a late answer to a write does not bring one back.
/// An answer is late by milliseconds; ten thousand deletions take at least a second.
const TOMBSTONES_MAX: usize = 10_000;

/// Namespace (empty for cluster-scoped kinds) and name.
pub(crate) type Key = (String, String);

pub(crate) fn key<K: Resource>(object: &K) -> Key {
    (object.namespace().unwrap_or_default(), object.name_any())
}

/// The object's resource version as a number; 0 when it has none. Commonage's are one number line
/// for the whole cluster.
pub(crate) fn version<K: Resource>(object: &K) -> u64 {
    object.meta().resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or(0)
}

#[derive(Debug)]
pub(crate) struct Cache<K> {
    objects: HashMap<Key, Slot<K>>,
    buried: HashSet<String>,
    burials: VecDeque<String>,
    /// While the watch lists anew: what it has listed so far.
    relisting: Option<HashSet<Key>>,
    synced: bool,
}

#[derive(Debug)]
struct Slot<K> {
    object: Arc<K>,
    version: u64,
    /// Known from the answer to a write only; the watch has not shown it yet.
    assumed: bool,
}

impl<K> Default for Cache<K> {
    fn default() -> Self {
        Cache {
            objects: HashMap::new(),
            buried: HashSet::new(),
            burials: VecDeque::new(),
            relisting: None,
            synced: false,
        }
    }
}

impl<K: Resource> Cache<K> {
    /// Whether the first list is complete.
    pub(crate) fn synced(&self) -> bool {
        self.synced
    }

    pub(crate) fn get(&self, key: &Key) -> Option<&Arc<K>> {
        self.objects.get(key).map(|slot| &slot.object)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<K>> {
        self.objects.values().map(|slot| &slot.object)
    }

    pub(crate) fn keys(&self) -> Vec<Key> {
        self.objects.keys().cloned().collect()
    }

    /// Takes in what the watch says. Returns the keys under which something changed.
    pub(crate) fn apply(&mut self, event: Event<K>) -> Vec<Key> {
        match event {
            Event::Init => {
                self.relisting = Some(HashSet::new());
                Vec::new()
            }
            Event::InitApply(object) => {
                if let Some(listed) = &mut self.relisting {
                    listed.insert(key(&object));
                }
                self.put(object, false)
            }
            Event::InitDone => {
                self.synced = true;
                let Some(listed) = self.relisting.take() else {
                    return Vec::new();
                };
                self.objects
                    .extract_if(|key, slot| !slot.assumed && !listed.contains(key))
                    .map(|(key, _)| key)
                    .collect()
            }
            Event::Apply(object) => self.put(object, false),
            Event::Delete(object) => self.delete(&object),
        }
    }

    /// Takes in the answer to a write of ours.
    pub(crate) fn assume(&mut self, object: K) -> Vec<Key> {
        self.put(object, true)
    }

    /// Forgets an object that is gone.
    pub(crate) fn delete(&mut self, object: &K) -> Vec<Key> {
        if let Some(uid) = object.uid()
            && self.buried.insert(uid.clone())
        {
            self.burials.push_back(uid);
            if self.burials.len() > TOMBSTONES_MAX
                && let Some(oldest) = self.burials.pop_front()
            {
                self.buried.remove(&oldest);
            }
        }
        let key = key(object);
        // The name may have been taken by a new object already.
        if self.objects.get(&key).is_some_and(|slot| slot.object.uid() == object.uid()) {
            self.objects.remove(&key);
            return vec![key];
        }
        Vec::new()
    }

    fn put(&mut self, object: K, assumed: bool) -> Vec<Key> {
        if object.uid().is_some_and(|uid| self.buried.contains(&uid)) {
            return Vec::new();
        }
        let (key, version) = (key(&object), version(&object));
        match self.objects.get_mut(&key) {
            Some(slot) if slot.version > version => Vec::new(),
            Some(slot) if slot.version == version => {
                slot.assumed &= assumed;
                Vec::new()
            }
            _ => {
                self.objects
                    .insert(key.clone(), Slot { object: Arc::new(object), version, assumed });
                vec![key]
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use commonage_schemas::{Task, TaskSpec};

    use super::*;

    fn task(name: &str, version: u64) -> Task {
        let mut task = Task::new(name, TaskSpec::default());
        task.metadata.uid = Some(format!("uid-{name}"));
        task.metadata.resource_version = Some(version.to_string());
        task
    }

    fn versions(cache: &Cache<Task>) -> Vec<u64> {
        let mut all: Vec<u64> = cache.iter().map(|t| version(t.as_ref())).collect();
        all.sort_unstable();
        all
    }

    #[test]
    fn the_newer_version_stays_whichever_comes_first() {
        let mut cache = Cache::default();
        cache.assume(task("a", 5));
        cache.apply(Event::Apply(task("a", 3)));
        assert_eq!(versions(&cache), [5]);
        cache.apply(Event::Apply(task("a", 7)));
        cache.assume(task("a", 6));
        assert_eq!(versions(&cache), [7]);
    }

    #[test]
    fn a_late_answer_does_not_bring_a_deleted_object_back() {
        let mut cache = Cache::default();
        cache.apply(Event::Apply(task("a", 1)));
        cache.apply(Event::Delete(task("a", 3)));
        cache.assume(task("a", 2));
        assert!(versions(&cache).is_empty());
    }

    #[test]
    fn a_relist_drops_what_is_gone_but_not_what_was_just_written() {
        let mut cache = Cache::default();
        cache.apply(Event::Init);
        cache.apply(Event::InitApply(task("a", 1)));
        cache.apply(Event::InitApply(task("b", 2)));
        cache.apply(Event::InitDone);
        assert!(cache.synced());
        cache.apply(Event::Init);
        cache.apply(Event::InitApply(task("b", 2)));
        cache.assume(task("c", 9));
        cache.apply(Event::InitDone);
        assert_eq!(versions(&cache), [2, 9]);
    }
}
