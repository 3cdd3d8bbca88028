//! Who has what, for the status of queues, frameworks and agents.

use std::sync::Arc;

use commonage_schemas::resources::Resources;

use crate::info::ObjectKey;
use crate::lanes::Lanes;
use crate::parts;
use crate::state::Allocator;
use crate::table::Id;

/// What a queue, with everything below it, has.
#[derive(Debug, Clone, PartialEq)]
pub struct QueueUsage {
    /// Its name.
    pub queue: Arc<str>,
    /// Whether somebody declared it; else frameworks or tasks imply it.
    pub declared: bool,
    /// Held by tasks.
    pub allocated: Resources,
    /// Held by outstanding offers.
    pub offered: Resources,
    /// The largest fraction that it holds of any one resource of the cluster, 0 to 1, before
    /// division by its weight.
    pub dominant_share: f64,
    /// Of which resource; `None` when it holds nothing.
    pub dominant_resource: Option<Arc<str>>,
    /// Tasks that wait.
    pub pending: u64,
    /// When the oldest of them was created, in milliseconds.
    pub oldest_pending_ms: Option<u64>,
}

/// What a framework has, in all of its queues.
#[derive(Debug, Clone, PartialEq)]
pub struct FrameworkUsage {
    /// The framework.
    pub framework: ObjectKey,
    /// Held by tasks.
    pub allocated: Resources,
    /// Held by outstanding offers.
    pub offered: Resources,
    /// Outstanding offers that were not answered.
    pub offers: u64,
    /// As of a queue.
    pub dominant_share: f64,
    /// As of a queue.
    pub dominant_resource: Option<Arc<str>>,
    /// Tasks that wait.
    pub pending: u64,
}

/// What is held of an agent. Ports and sets are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AgentUsage {
    /// By tasks.
    pub allocated: Resources,
    /// By outstanding offers.
    pub offered: Resources,
    /// What of it is plain and nobody holds, and the same without offers.
    pub free: Resources,
    pub free_but_for_offers: Resources,
}

impl Allocator {
    /// Every queue that is declared or in use, by name; the nameless root comes first and stands
    /// for the cluster.
    #[must_use]
    pub fn queue_usage(&self) -> Vec<QueueUsage> {
        let total = self.total();
        let mut all: Vec<_> = self.queues.iter().map(|(id, _)| self.usage_of(id, &total)).collect();
        all.sort_unstable_by(|a, b| a.queue.cmp(&b.queue));
        all
    }

    fn usage_of(&self, id: Id, total: &Lanes) -> QueueUsage {
        let queue = &self.queues[id];
        let (dominant_share, lane) = dominant(&queue.held(), total);
        let (mut pending, mut oldest_pending_ms) = (0, None::<u64>);
        let mut below = vec![id];
        while let Some(id) = below.pop() {
            below.extend(&self.queues[id].children);
            for leaf in self.queues[id].leaves.iter().map(|id| &self.leaves[*id]) {
                pending += leaf.pending.len() as u64;
                let oldest = leaf.pending.iter().map(|turn| turn.1).min();
                oldest_pending_ms = match (oldest_pending_ms, oldest) {
                    (Some(a), Some(b)) => Some(a.min(b)),
                    (a, b) => a.or(b),
                };
            }
        }
        QueueUsage {
            queue: queue.path.clone(),
            declared: queue.declared,
            allocated: self.names.resources(&queue.allocated, None),
            offered: self.names.resources(&queue.offered, None),
            dominant_share,
            dominant_resource: lane.map(|lane| self.names.name(lane).clone()),
            pending,
            oldest_pending_ms,
        }
    }

    /// What one framework has; nothing if it is not known.
    #[must_use]
    pub fn framework_usage(&self, key: &ObjectKey) -> Option<FrameworkUsage> {
        let framework = &self.frameworks[self.frameworks.id(key)?];
        let (mut allocated, mut offered) = (Lanes::ZERO, Lanes::ZERO);
        let (mut offers, mut pending) = (0, 0);
        for leaf in framework.leaves.iter().map(|id| &self.leaves[*id]) {
            allocated.add(&leaf.allocated);
            offered.add(&leaf.offered);
            offers += leaf.offers.iter().filter(|id| !self.offers[**id].answered).count() as u64;
            pending += leaf.pending.len() as u64;
        }
        let (dominant_share, lane) = dominant(&allocated.plus(&offered), &self.total());
        Some(FrameworkUsage {
            framework: key.clone(),
            allocated: self.names.resources(&allocated, None),
            offered: self.names.resources(&offered, None),
            offers,
            dominant_share,
            dominant_resource: lane.map(|lane| self.names.name(lane).clone()),
            pending,
        })
    }

    /// The share by which the frameworks of this very queue compete, divided by its weight unless
    /// queues below compete with them; nothing if no framework is in it.
    #[must_use]
    pub fn competing_share(&self, queue: &str) -> Option<f64> {
        let queue = &self.queues[self.queues.id(queue)?];
        let mut frameworks = queue.leaves.iter().map(|leaf| self.leaves[*leaf].framework);
        if !frameworks.any(|framework| self.frameworks[framework].known) {
            return None;
        }
        let mut total = self.total();
        for lane in self.options.fairness_excluded.iter().filter_map(|name| self.names.lane(name)) {
            total.0[lane] = 0;
        }
        let contested = queue.children.iter().any(|child| self.has_leaves(*child));
        let (held, weight) =
            if contested { (queue.own, 1.0) } else { (queue.held(), queue.weight) };
        Some(dominant(&held, &total).0 / weight)
    }

    pub(crate) fn has_leaves(&self, queue: Id) -> bool {
        let queue = &self.queues[queue];
        !queue.leaves.is_empty() || queue.children.iter().any(|child| self.has_leaves(*child))
    }

    /// Every active framework in each of its queues, in the order in which they would be served.
    #[must_use]
    pub fn service_order(&self, seed: u64) -> Vec<(ObjectKey, Arc<str>)> {
        crate::cycle::service_order(self, seed)
            .into_iter()
            .map(|leaf| &self.leaves[leaf])
            .map(|leaf| (leaf.framework_key.clone(), self.queues[leaf.queue].path.clone()))
            .collect()
    }

    /// Everything reserved for a queue and those below it; nothing if nobody knows the queue.
    #[must_use]
    pub fn reserved(&self, queue: &str) -> Option<Resources> {
        let queue = &self.queues[self.queues.id(queue)?];
        Some(self.names.resources(&queue.reserved, None))
    }

    /// What of an agent's parts a task in the queue could have beside what is plain: what is
    /// reserved for the queue or one above it and, for one that can be killed at any time, what is
    /// lent. First what nobody holds of it, then the same without offers.
    #[must_use]
    pub fn set_aside_for(
        &self,
        agent: &str,
        queue: &str,
        revocable: bool,
    ) -> (Resources, Resources) {
        let Some(id) = self.agents.id(agent) else { return Default::default() };
        let sum = |pieces: Vec<parts::Piece>| {
            let mine = pieces.iter().filter(|piece| piece.is_for(queue, revocable));
            let lanes = mine.fold(Lanes::ZERO, |sum, piece| sum.plus(&piece.lanes));
            self.names.resources(&lanes, None)
        };
        (sum(self.free_pieces(id)), sum(self.pieces_but_for_offers(id)))
    }

    /// What is held of one agent; nothing if nobody has told of it.
    #[must_use]
    pub fn agent_usage(&self, name: &str) -> Option<AgentUsage> {
        let agent = &self.agents[self.agents.id(name)?];
        let (mut allocated, mut offered) = (agent.allocated, agent.offered);
        if !agent.parts.is_empty() {
            let tasks = agent.tasks.iter().filter_map(|id| self.tasks[*id].held.as_ref());
            tasks.for_each(|held| allocated.add(&parts::sum(&held.parts)));
            let offers = agent.offers.iter().map(|id| &self.offers[*id].held);
            offers.for_each(|held| offered.add(&parts::sum(&held.parts)));
        }
        let shown = |lanes: &Lanes| self.names.resources(lanes, None);
        Some(AgentUsage {
            allocated: shown(&allocated),
            offered: shown(&offered),
            free: shown(&agent.free()),
            free_but_for_offers: shown(&agent.total.minus(&agent.allocated)),
        })
    }

    /// Everything that all agents together have.
    pub(crate) fn total(&self) -> Lanes {
        self.changes.total
    }
}

/// The largest fraction of any lane, and which lane that is.
pub(crate) fn dominant(held: &Lanes, total: &Lanes) -> (f64, Option<usize>) {
    let mut most = (0.0, None);
    for (lane, (held, total)) in held.0.iter().zip(&total.0).enumerate() {
        if *held > 0 && *total > 0 {
            let share = *held as f64 / *total as f64;
            if share > most.0 {
                most = (share, Some(lane));
            }
        }
    }
    most
}
