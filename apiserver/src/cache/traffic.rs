//! What goes through the cache of one kind, counted for `/metrics`.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Only grows.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    received: AtomicU64,
    dispatched: AtomicU64,
    initial: AtomicU64,
    loads: AtomicU64,
    cached: Lists,
    past: Lists,
}

/// Lists, objects that were looked at for them, and objects that they showed.
#[derive(Debug, Default)]
struct Lists {
    count: AtomicU64,
    fetched: AtomicU64,
    returned: AtomicU64,
}

/// [`Traffic`] as it was at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Passed {
    /// Changes that came from the store.
    pub(crate) received: u64,
    /// Changes that were handed to the watchers.
    pub(crate) dispatched: u64,
    /// Objects that watches began with.
    pub(crate) initial: u64,
    /// How often everything was read from the store.
    pub(crate) loads: u64,
    /// Lists from memory: how many, objects looked at, objects shown.
    pub(crate) cached: [u64; 3],
    /// The same of pages of a past that only the store knows.
    pub(crate) past: [u64; 3],
}

impl Lists {
    fn add(&self, fetched: usize, returned: usize) {
        self.count.fetch_add(1, Relaxed);
        self.fetched.fetch_add(fetched as u64, Relaxed);
        self.returned.fetch_add(returned as u64, Relaxed);
    }

    fn passed(&self) -> [u64; 3] {
        [&self.count, &self.fetched, &self.returned].map(|count| count.load(Relaxed))
    }
}

impl Traffic {
    pub(super) fn received(&self, changes: usize) {
        self.received.fetch_add(changes as u64, Relaxed);
    }

    pub(super) fn dispatched(&self, changes: usize) {
        self.dispatched.fetch_add(changes as u64, Relaxed);
    }

    pub(super) fn initial(&self, objects: usize) {
        self.initial.fetch_add(objects as u64, Relaxed);
    }

    pub(super) fn loaded(&self) {
        self.loads.fetch_add(1, Relaxed);
    }

    pub(crate) fn listed(&self, fetched: usize, returned: usize) {
        self.cached.add(fetched, returned);
    }

    pub(crate) fn listed_past(&self, fetched: usize, returned: usize) {
        self.past.add(fetched, returned);
    }

    pub(crate) fn passed(&self) -> Passed {
        Passed {
            received: self.received.load(Relaxed),
            dispatched: self.dispatched.load(Relaxed),
            initial: self.initial.load(Relaxed),
            loads: self.loads.load(Relaxed),
            cached: self.cached.passed(),
            past: self.past.passed(),
        }
    }
}
