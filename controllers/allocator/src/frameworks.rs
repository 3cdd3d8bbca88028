//! Frameworks, and the leaves at which what they hold in each of their queues is booked.

use std::collections::{BTreeMap, BTreeSet};

use commonage_schemas::resources::Resources;

use crate::info::{FrameworkInfo, ObjectKey, Placement};
use crate::lanes::Lanes;
use crate::plan::Address;
use crate::state::{Allocator, Framework, Leaf, Unit};
use crate::table::Id;

impl Framework {
    /// Whether this is the same framework, with a declared demand as before, that may be another one.
    fn differs_in_demand(&self, info: &FrameworkInfo) -> bool {
        let without = |info: &FrameworkInfo| FrameworkInfo { demand: None, ..info.clone() };
        let declared = self.info.demand.is_some() && info.demand.is_some();
        self.known && declared && without(&self.info) == without(info)
    }
}

impl Unit {
    /// Whether this is as much of the same, or less.
    fn is_within(&self, other: &Unit) -> bool {
        (&self.lanes, self.ports) == (&other.lanes, other.ports) && self.count <= other.count
    }
}

impl Allocator {
    /// Tells of a framework, or of a change of it.
    pub fn upsert_framework(&mut self, key: &ObjectKey, info: FrameworkInfo) {
        if let Some(id) = self.frameworks.id(key)
            && self.frameworks[id].differs_in_demand(&info)
        {
            self.change_demand(id, info);
            return;
        }
        self.changes.all();
        let id = self.frameworks.id_or_insert_with(key, Framework::default);
        let listed: BTreeSet<Id> =
            info.queues.iter().map(|queue| self.leaf_id(id, key, queue)).collect();
        for leaf_id in self.frameworks[id].leaves.clone() {
            let queue = self.leaves[leaf_id].queue;
            let path = self.queues[queue].path.clone();
            let suppressed = info.suppressed_queues.iter().any(|name| **name == *path);
            let leaf = &mut self.leaves[leaf_id];
            leaf.listed = listed.contains(&leaf_id);
            let revived = leaf.suppressed && !suppressed;
            leaf.suppressed = suppressed;
            if revived || !leaf.listed {
                self.forget_filters(leaf_id);
            }
        }
        let framework = &mut self.frameworks[id];
        framework.known = true;
        framework.info = info;
        self.resolve_framework(id);
        for leaf in self.frameworks[id].leaves.clone() {
            self.changes.seat_for(leaf, self.frameworks[id].info.offer_timeout_ms);
            self.changes.suspects.extend(&self.leaves[leaf].offers);
            self.collect_leaf(leaf);
        }
    }

    /// Takes in another demand, which is told after each acceptance: less of it makes nothing possible, and for more of it
    /// only those who want it look at all agents.
    fn change_demand(&mut self, id: Id, info: FrameworkInfo) {
        self.changes.anything = true;
        self.frameworks[id].info = info;
        let before = std::mem::take(&mut self.frameworks[id].demand);
        self.resolve_framework(id);
        for (leaf, units) in &self.frameworks[id].demand {
            let known = before.get(leaf).map_or(&[][..], Vec::as_slice);
            let no_more = units.len() == known.len()
                && units.iter().zip(known).all(|(unit, known)| unit.is_within(known));
            if !no_more {
                self.changes.asking.insert(*leaf);
            }
        }
    }

    /// Brings what the framework wants into lanes.
    fn resolve_framework(&mut self, id: Id) {
        let framework = &self.frameworks[id];
        let least = match &framework.info.min_allocatable {
            None => match &self.options.min_allocatable {
                None => vec![self.default_least(0, 10), self.default_least(1, 32 << 20)],
                Some(list) => self.all_lanes(list),
            },
            Some(list) => self.all_lanes(list),
        };
        let mut by_leaf = BTreeMap::new();
        for demand in framework.info.demand.iter().flatten() {
            let queue = self.queues.id(demand.queue.as_str());
            let leaf = queue.and_then(|queue| self.leaves.id(&(id, queue)));
            let (lanes, unknown) = self.names.lanes(&demand.each);
            if let (Some(leaf), true) = (leaf, unknown.is_empty()) {
                let ports = demand.each.ports().map_or(0, |ports| ports.len());
                let units: &mut Vec<Unit> = by_leaf.entry(leaf).or_default();
                units.push(Unit { lanes, ports, count: demand.count });
            }
        }
        let least_in = framework.info.min_allocatable_in.iter().filter_map(|(queue, list)| {
            let leaf = self.leaves.id(&(id, self.queues.id(queue.as_str())?))?;
            Some((leaf, self.all_lanes(list)))
        });
        let least_in = least_in.collect();
        let framework = &mut self.frameworks[id];
        framework.least_in = least_in;
        framework.least = least;
        let mut units = by_leaf.values().flatten();
        self.changes.port_demand |= units.any(|unit: &Unit| unit.ports > 0);
        framework.demand = by_leaf;
    }

    fn all_lanes(&self, list: &[Resources]) -> Vec<Lanes> {
        list.iter().map(|resources| self.names.lanes(resources).0).collect()
    }

    /// Mesos' default: 0.01 cpu or 32 MiB.
    fn default_least(&self, lane: usize, steps: i64) -> Lanes {
        let mut lanes = Lanes::ZERO;
        lanes.0[lane] = steps;
        lanes
    }

    /// Tells that a framework is gone. What its tasks hold stays booked until they are removed too.
    pub fn remove_framework(&mut self, key: &ObjectKey) {
        let Some(id) = self.frameworks.id(key) else { return };
        self.changes.all();
        self.frameworks[id] =
            Framework { leaves: self.frameworks[id].leaves.clone(), ..Framework::default() };
        for leaf in self.frameworks[id].leaves.clone() {
            self.leaves[leaf].listed = false;
            self.changes.suspects.extend(&self.leaves[leaf].offers);
            self.forget_filters(leaf);
            self.collect_leaf(leaf);
        }
        self.collect_framework(key);
    }

    fn collect_framework(&mut self, key: &ObjectKey) {
        let Some(id) = self.frameworks.id(key) else { return };
        let framework = &self.frameworks[id];
        if !framework.known && framework.leaves.is_empty() {
            self.frameworks.remove(key);
            // The next framework may get its number, and was not asked to leave.
            self.maintenance.values_mut().for_each(|window| window.forget(id));
        }
    }

    /// The place of a framework in a queue; both are made if they are not there.
    pub(crate) fn leaf_of(&mut self, framework: &ObjectKey, queue: &str) -> Id {
        let id = self.frameworks.id_or_insert_with(framework, Framework::default);
        self.leaf_id(id, framework, queue)
    }

    fn leaf_id(&mut self, framework: Id, key: &ObjectKey, queue: &str) -> Id {
        let queue = self.queue_id(queue);
        if let Some(id) = self.leaves.id(&(framework, queue)) {
            return id;
        }
        let id = self.leaves.id_or_insert_with(&(framework, queue), || Leaf {
            framework,
            framework_key: key.clone(),
            queue,
            listed: false,
            suppressed: false,
            allocated: Lanes::ZERO,
            offered: Lanes::ZERO,
            allocations: 0,
            pending: BTreeSet::new(),
            bound: BTreeSet::new(),
            offers: BTreeSet::new(),
            unanswered: 0,
        });
        let path = self.queues[queue].path.clone();
        self.changes.seat(id, Address { framework: key.clone(), queue: path });
        self.changes.seat_for(id, self.frameworks[framework].info.offer_timeout_ms);
        self.queues[queue].leaves.insert(id);
        self.frameworks[framework].leaves.insert(id);
        id
    }

    /// Forgets a leaf that nobody names any more.
    pub(crate) fn collect_leaf(&mut self, id: Id) {
        let leaf = &self.leaves[id];
        let used = leaf.listed
            || !leaf.pending.is_empty()
            || !leaf.bound.is_empty()
            || !leaf.offers.is_empty();
        if used {
            return;
        }
        let (framework, queue, key) = (leaf.framework, leaf.queue, leaf.framework_key.clone());
        self.forget_filters(id);
        // What it gave back last was its queues' too, and can't be found by it any more.
        self.changes.standing = None;
        self.leaves.remove(&(framework, queue));
        self.queues[queue].leaves.remove(&id);
        self.frameworks[framework].leaves.remove(&id);
        self.forget_allocations(queue);
        self.collect_queue(queue);
        self.collect_framework(&key);
    }

    /// Gives lanes to new names; whoever was waiting for one of them is looked at anew.
    pub(crate) fn learn(&mut self, resources: &Resources) {
        if !self.names.learn(resources) {
            return;
        }
        self.changes.all();
        let waiting: Vec<_> = self
            .tasks
            .iter_mut()
            .filter_map(|(_, task)| Some((task.key.clone(), task.deferred.take()?)))
            .collect();
        for (key, info) in waiting {
            self.upsert_task(&key, &info);
        }
        let known = self.frameworks.iter().filter(|(_, framework)| framework.known);
        let known: Vec<Id> = known.map(|(id, _)| id).collect();
        for id in known {
            self.resolve_framework(id);
        }
    }

    /// Whether the framework has its tasks placed, and is there.
    pub(crate) fn places_tasks(&self, framework: Id) -> bool {
        let framework = &self.frameworks[framework];
        framework.known && framework.info.active && framework.info.placement == Placement::Tasks
    }
}
