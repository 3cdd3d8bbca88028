//! The tree of queues: dotted names, weights, limits, and what is held at every level.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::info::QueueInfo;
use crate::lanes::Lanes;
use crate::state::Allocator;
use crate::table::Id;

/// One queue, declared or implied by a framework, a task or a child.
#[derive(Debug, Clone)]
pub(crate) struct Queue {
    pub(crate) path: Arc<str>,
    pub(crate) parent: Option<Id>,
    pub(crate) children: BTreeSet<Id>,
    /// Frameworks of this very queue.
    pub(crate) leaves: BTreeSet<Id>,
    pub(crate) declared: bool,
    pub(crate) weight: f64,
    pub(crate) limit: Lanes,
    pub(crate) guarantee: Lanes,
    /// 0: that of the queue above.
    pub(crate) priority: i32,
    /// Held by tasks here and below.
    pub(crate) allocated: Lanes,
    /// Held by offers here and below.
    pub(crate) offered: Lanes,
    /// Held by frameworks of this very queue.
    pub(crate) own: Lanes,
    /// Held here and below, but not counted towards the limit: reserved or revocable.
    pub(crate) uncharged: Lanes,
    /// Reserved for it and for queues below, held or not.
    pub(crate) reserved: Lanes,
    /// Parts of agents that are reserved for this very queue.
    pub(crate) reservations: usize,
    /// Times something was given to it or below, ever.
    pub(crate) allocations: u64,
    /// Times something was given to frameworks of this very queue, ever.
    pub(crate) own_allocations: u64,
}

impl Queue {
    fn implied(path: Arc<str>, parent: Option<Id>) -> Self {
        Self {
            path,
            parent,
            children: BTreeSet::new(),
            leaves: BTreeSet::new(),
            declared: false,
            weight: 1.0,
            limit: Lanes::UNLIMITED,
            guarantee: Lanes::ZERO,
            priority: 0,
            allocated: Lanes::ZERO,
            offered: Lanes::ZERO,
            own: Lanes::ZERO,
            uncharged: Lanes::ZERO,
            reserved: Lanes::ZERO,
            reservations: 0,
            allocations: 0,
            own_allocations: 0,
        }
    }

    pub(crate) fn held(&self) -> Lanes {
        self.allocated.plus(&self.offered)
    }

    /// What counts towards limit and guarantee: all that is reserved, and what else is held.
    pub(crate) fn charged(&self) -> Lanes {
        self.held().minus(&self.uncharged).plus(&self.reserved)
    }
}

/// The queue above all others; it has no name.
pub(crate) const ROOT: &str = "";

impl Allocator {
    /// Tells of a queue, or of a change of it.
    pub fn upsert_queue(&mut self, name: &str, info: &QueueInfo) {
        self.learn(&info.limit);
        self.learn(&info.guarantee);
        let limit = self.names.limit(&info.limit);
        let (guarantee, _) = self.names.lanes(&info.guarantee);
        let id = self.queue_id(name);
        let weight = if info.weight.is_finite() && info.weight > 0.0 { info.weight } else { 1.0 };
        self.weigh(id, weight);
        let queue = &mut self.queues[id];
        queue.declared = true;
        queue.limit = limit;
        self.changes.new_guarantee |= !guarantee.fits(&queue.guarantee);
        queue.guarantee = guarantee;
        queue.priority = info.priority;
        self.queue_priorities |= info.priority != 0;
        self.note_quota(id);
    }

    /// Tells that nobody declares the queue any more. While frameworks or tasks name it, it stays
    /// with weight 1 and without limit.
    pub fn remove_queue(&mut self, name: &str) {
        let Some(id) = self.queues.id(name) else { return };
        self.weigh(id, 1.0);
        let queue = &mut self.queues[id];
        queue.declared = false;
        queue.limit = Lanes::UNLIMITED;
        queue.guarantee = Lanes::ZERO;
        queue.priority = 0;
        self.note_quota(id);
        self.collect_queue(id);
    }

    /// Offers that were made by other weights, while somebody was in the queue, are taken back.
    fn weigh(&mut self, id: Id, weight: f64) {
        let before = std::mem::replace(&mut self.queues[id].weight, weight);
        // What the first plan finds was offered by weights that nobody here knows.
        let known = self.changes.decided && self.has_leaves(id);
        self.changes.new_weights |= known && before != weight;
    }

    fn note_quota(&mut self, id: Id) {
        self.changes.all();
        let queue = &self.queues[id];
        let quotas = [
            (&mut self.limited, queue.limit != Lanes::UNLIMITED),
            (&mut self.guaranteed, !queue.guarantee.is_zero()),
        ];
        for (set, is) in quotas {
            if is {
                set.insert(id);
            } else {
                set.remove(&id);
            }
        }
    }

    /// The queue of that name, which is made with all above it if it is not there.
    pub(crate) fn queue_id(&mut self, path: &str) -> Id {
        if let Some(id) = self.queues.id(path) {
            return id;
        }
        let parent = (path != ROOT)
            .then(|| self.queue_id(path.rsplit_once('.').map_or(ROOT, |(parent, _)| parent)));
        let path: Arc<str> = path.into();
        let id = self.queues.id_or_insert_with(&path, || Queue::implied(path.clone(), parent));
        if let Some(parent) = parent {
            self.queues[parent].children.insert(id);
        }
        id
    }

    /// These queues and all above them, each once.
    pub(crate) fn with_all_above(&self, mut level: Vec<Id>) -> Vec<Id> {
        let mut all = Vec::new();
        while !level.is_empty() {
            level.sort_unstable();
            level.dedup();
            all.extend(&level);
            level = level.iter().filter_map(|id| self.queues[*id].parent).collect();
        }
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Forgets how often something was given to a queue, and to those above it, where no frameworks are left: Mesos'
    /// sorters forget a role with its last framework, also where a weight or a quota keeps it.
    pub(crate) fn forget_allocations(&mut self, mut id: Id) {
        loop {
            if self.queues[id].leaves.is_empty() {
                self.queues[id].own_allocations = 0;
            }
            let (false, Some(parent)) = (self.has_leaves(id), self.queues[id].parent) else {
                return;
            };
            self.queues[id].allocations = 0;
            id = parent;
        }
    }

    /// Forgets the queue, and those above it, if nothing names them any more.
    pub(crate) fn collect_queue(&mut self, mut id: Id) {
        loop {
            let queue = &self.queues[id];
            let used = queue.declared
                || queue.reservations > 0
                || !queue.children.is_empty()
                || !queue.leaves.is_empty();
            let (false, Some(parent)) = (used, queue.parent) else { return };
            let path = queue.path.clone();
            self.queues.remove(&path);
            self.queues[parent].children.remove(&id);
            id = parent;
        }
    }
}
