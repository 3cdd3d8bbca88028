//! Who watches a kind, indexed so that an event costs only those who may want it.
//!
//! Fifty thousand agents that each watch their own tasks are fifty thousand entries under the
//! trigger field's values, one of which an event looks at.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use commonage_store::Version;
use parking_lot::Mutex;

use super::contents::Trigger;
use super::event::Chunk;
use super::log::LogChunk;
use super::queue::{self, Offered};
use super::selection::Selection;
use crate::object::Object;

/// Counters over all kinds, for metrics.
#[derive(Debug, Default)]
pub struct WatchCounters {
    /// Watches that run now.
    pub open: AtomicU64,
    /// Watches that were closed because their client did not keep up.
    pub closed_slow: AtomicU64,
    /// Events handed to watchers.
    pub events: AtomicU64,
}

#[derive(Debug)]
struct Watcher {
    id: u64,
    /// It has seen everything up to here already.
    from: Version,
    selection: Arc<Selection>,
    queue: queue::Sender,
}

/// Where in the index a watcher stands.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Place {
    All,
    Namespace(Box<str>),
    Name(Box<str>),
    /// By the number of the trigger.
    Trigger(usize, Box<str>),
}

#[derive(Debug, Default)]
struct Index {
    all: Vec<Watcher>,
    by_namespace: HashMap<Box<str>, Vec<Watcher>>,
    by_name: HashMap<Box<str>, Vec<Watcher>>,
    /// For each trigger.
    by_trigger: Vec<HashMap<Box<str>, Vec<Watcher>>>,
    last_id: u64,
    closed: bool,
}

/// The watchers of one kind.
#[derive(Debug)]
pub(super) struct Watchers {
    index: Mutex<Index>,
    triggers: Arc<[Trigger]>,
    counters: Arc<WatchCounters>,
}

/// Removes its watcher when dropped.
#[derive(Debug)]
pub(super) struct Registration {
    watchers: Arc<Watchers>,
    place: Place,
    id: u64,
}

impl Watchers {
    pub(super) fn new(triggers: Arc<[Trigger]>, counters: Arc<WatchCounters>) -> Watchers {
        let by_trigger = triggers.iter().map(|_| HashMap::new()).collect();
        let index = Index { by_trigger, ..Index::default() };
        Watchers { index: Mutex::new(index), triggers, counters }
    }

    /// `begin` says from where the watcher sees events; it runs while no dispatch can, so that no
    /// event is lost or seen twice between what it reads and the first event sent.
    pub(super) fn register<T, E>(
        self: &Arc<Self>,
        selection: Arc<Selection>,
        begin: impl FnOnce() -> Result<(T, Version), E>,
    ) -> Result<(T, Registration, queue::Receiver), E> {
        let place = self.place(&selection);
        let mut index = self.index.lock();
        let (begun, from) = begin()?;
        let (queue, receiver) = queue::queue();
        index.last_id += 1;
        let id = index.last_id;
        if !index.closed {
            index.group(&place).push(Watcher { id, from, selection, queue });
        }
        drop(index);
        self.counters.open.fetch_add(1, Ordering::Relaxed);
        Ok((begun, Registration { watchers: self.clone(), place, id }, receiver))
    }

    fn place(&self, selection: &Selection) -> Place {
        if let Some(name) = selection.exact("metadata.name") {
            return Place::Name(name.into());
        }
        if let Some((number, value)) = Trigger::named_by(&self.triggers, selection) {
            return Place::Trigger(number, value.into());
        }
        match selection.namespace() {
            Some(namespace) => Place::Namespace(namespace.into()),
            None => Place::All,
        }
    }

    /// Hands the events to whom they concern. Never waits.
    pub(super) fn dispatch(&self, chunk: &LogChunk) {
        let mut index = self.index.lock();
        let index = &mut *index;
        let send = |group: &mut Vec<Watcher>, at: &[usize]| self.send(group, chunk, at);
        if !index.all.is_empty() {
            let every: Vec<usize> = (0..chunk.pasts.len()).collect();
            send(&mut index.all, &every);
        }
        for_groups(&mut index.by_namespace, chunk, |object| Some(object.namespace()), send);
        for_groups(&mut index.by_name, chunk, |object| Some(object.name()), send);
        for (trigger, groups) in self.triggers.iter().zip(&mut index.by_trigger) {
            for_trigger(groups, chunk, trigger, send);
        }
    }

    fn send(&self, group: &mut Vec<Watcher>, chunk: &LogChunk, at: &[usize]) {
        // Watchers with equal selections share what they get.
        let alone = group.len() == 1;
        let mut seen: HashMap<Arc<str>, Option<Arc<Chunk>>> = HashMap::new();
        group.retain(|watcher| {
            if chunk.all.version() <= watcher.from {
                return true;
            }
            let due = if chunk.all.events()[0].version <= watcher.from {
                select_after(watcher, chunk, at)
            } else if alone {
                select(&watcher.selection, chunk, at)
            } else {
                let identity = watcher.selection.identity().clone();
                seen.entry(identity)
                    .or_insert_with(|| select(&watcher.selection, chunk, at))
                    .clone()
            };
            due.is_none_or(|due| self.offer(watcher, due))
        });
    }

    /// False when the watcher is to go.
    fn offer(&self, watcher: &Watcher, due: Arc<Chunk>) -> bool {
        let events = due.events().len() as u64;
        due.shared();
        match watcher.queue.offer(due) {
            Offered::Taken => {
                self.counters.events.fetch_add(events, Ordering::Relaxed);
                true
            }
            Offered::Full => {
                self.counters.closed_slow.fetch_add(1, Ordering::Relaxed);
                false
            }
            Offered::Closed => false,
        }
    }

    /// Ends every watch: what is queued still arrives.
    pub(super) fn end_all(&self) {
        let mut index = self.index.lock();
        index.all.clear();
        index.by_namespace.clear();
        index.by_name.clear();
        index.by_trigger.iter_mut().for_each(HashMap::clear);
    }

    /// As [`Watchers::end_all`], and those to come end at once.
    pub(super) fn close(&self) {
        self.index.lock().closed = true;
        self.end_all();
    }
}

fn select(selection: &Selection, chunk: &LogChunk, at: &[usize]) -> Option<Arc<Chunk>> {
    if selection.is_everything() && at.len() == chunk.pasts.len() {
        return Some(chunk.all.clone());
    }
    Chunk::new(at.iter().filter_map(|at| chunk.seen(*at, selection)).collect())
}

/// For the watcher that asked to begin in the middle of this chunk (or in the future).
fn select_after(watcher: &Watcher, chunk: &LogChunk, at: &[usize]) -> Option<Arc<Chunk>> {
    let due = at.iter().filter(|at| chunk.all.events()[**at].version > watcher.from);
    Chunk::new(due.filter_map(|at| chunk.seen(*at, &watcher.selection)).collect())
}

/// Calls `send` once per group that has events, with their places in the chunk.
fn for_groups<'c>(
    groups: &mut HashMap<Box<str>, Vec<Watcher>>,
    chunk: &'c LogChunk,
    key: impl Fn(&'c Object) -> Option<&'c str>,
    send: impl Fn(&mut Vec<Watcher>, &[usize]),
) {
    if groups.is_empty() {
        return;
    }
    let mut places: HashMap<&str, Vec<usize>> = HashMap::new();
    for (at, event) in chunk.all.events().iter().enumerate() {
        if let Some(key) =
            event.object.as_deref().and_then(&key).filter(|key| groups.contains_key(*key))
        {
            places.entry(key).or_default().push(at);
        }
    }
    for (key, at) in places {
        if let Some(group) = groups.get_mut(key) {
            send(group, &at);
        }
    }
}

/// As [`for_groups`], but an event concerns the group of its value and that of the value before.
fn for_trigger(
    groups: &mut HashMap<Box<str>, Vec<Watcher>>,
    chunk: &LogChunk,
    trigger: &Trigger,
    send: impl Fn(&mut Vec<Watcher>, &[usize]),
) {
    if groups.is_empty() {
        return;
    }
    let mut places: HashMap<&str, Vec<usize>> = HashMap::new();
    for (at, (event, past)) in chunk.all.events().iter().zip(&chunk.pasts).enumerate() {
        let now = event.object.as_deref().map(|object| trigger.value(object));
        let before = past
            .previous
            .as_deref()
            .map(|object| trigger.value(object))
            .filter(|before| now != Some(*before));
        for key in now.into_iter().chain(before).filter(|key| groups.contains_key(*key)) {
            places.entry(key).or_default().push(at);
        }
    }
    for (key, at) in places {
        if let Some(group) = groups.get_mut(key) {
            send(group, &at);
        }
    }
}

impl Index {
    fn group(&mut self, place: &Place) -> &mut Vec<Watcher> {
        match place {
            Place::All => &mut self.all,
            Place::Namespace(namespace) => self.by_namespace.entry(namespace.clone()).or_default(),
            Place::Name(name) => self.by_name.entry(name.clone()).or_default(),
            Place::Trigger(number, value) => {
                self.by_trigger[*number].entry(value.clone()).or_default()
            }
        }
    }

    fn remove(&mut self, place: &Place, id: u64) {
        let group = self.group(place);
        group.retain(|watcher| watcher.id != id);
        if !group.is_empty() {
            return;
        }
        match place {
            Place::All => {}
            Place::Namespace(namespace) => drop(self.by_namespace.remove(namespace)),
            Place::Name(name) => drop(self.by_name.remove(name)),
            Place::Trigger(number, value) => drop(self.by_trigger[*number].remove(value)),
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.watchers.counters.open.fetch_sub(1, Ordering::Relaxed);
        self.watchers.index.lock().remove(&self.place, self.id);
    }
}
