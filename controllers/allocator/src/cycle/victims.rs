//! Who may be killed for whom.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::cycle::Cycle;
use crate::cycle::fit::Bundle;
use crate::cycle::why::with;
use crate::lanes::{Goods, Lanes};
use crate::parts::Piece;
use crate::state::Allocator;
use crate::table::Id;

/// A queue's priority, then a task's.
pub(crate) type Rank = (i32, i32);

/// Who wants something.
pub(super) struct Claim {
    pub(super) leaf: Id,
    pub(super) queue: Id,
    /// `None`: declared demand, which has no priority.
    rank: Option<Rank>,
    /// Its queue would not have more than it is guaranteed.
    pub(super) guaranteed: bool,
    demand: bool,
}

/// Tasks that are killed together: one, a group, or what runs of a gang.
pub(super) struct Unit {
    pub(super) tasks: Vec<Id>,
    /// What they hold of the agent that is looked at.
    lanes: Lanes,
    goods: Goods,
    parts: Vec<Piece>,
    rank: Rank,
    revocable: bool,
    youngest_ms: u64,
    /// Killed for what somebody is guaranteed, whatever the priorities.
    pub(super) beyond_guarantee: bool,
}

impl Unit {
    /// What is killed last is worth most; 0 comes first for what can be killed at any time.
    pub(super) fn worth(&self) -> (u8, Rank, Reverse<u64>) {
        (u8::from(!self.revocable), self.rank, Reverse(self.youngest_ms))
    }
}

impl Allocator {
    /// How important a task is.
    pub(crate) fn rank(&self, task: Id) -> Rank {
        let task = &self.tasks[task];
        let mut next = Some(self.leaves[task.leaf].queue);
        while let Some(queue) = next.map(|id| &self.queues[id]) {
            if queue.priority != 0 {
                return (queue.priority, task.priority);
            }
            next = queue.parent;
        }
        (0, task.priority)
    }

    fn is_below(&self, queue: Id, above: Id) -> bool {
        let mut path = std::iter::successors(Some(queue), |id| self.queues[*id].parent);
        path.any(|id| id == above)
    }
}

impl Claim {
    pub(super) fn of_task(cycle: &Cycle<'_>, task: Id) -> Self {
        let leaf = cycle.state.tasks[task].leaf;
        let queue = cycle.state.leaves[leaf].queue;
        let wants = cycle.state.tasks[task].wait.as_ref();
        let lanes = wants.map_or(Lanes::ZERO, |wait| cycle.state.shapes.get(wait.shape).lanes);
        let guaranteed = cycle.is_within_guarantee(queue, &lanes);
        Self { leaf, queue, rank: Some(cycle.state.rank(task)), guaranteed, demand: false }
    }

    pub(super) fn of_demand(cycle: &Cycle<'_>, leaf: Id, bundle: &Bundle) -> Self {
        let queue = cycle.state.leaves[leaf].queue;
        let guaranteed = cycle.is_within_guarantee(queue, &bundle.lanes);
        Self { leaf, queue, rank: None, guaranteed, demand: true }
    }

    /// Whether its framework would be offered something of the agent.
    pub(super) fn suits(&self, cycle: &Cycle<'_>, agent: Id) -> bool {
        if !self.demand {
            return true;
        }
        let leaf = &cycle.state.leaves[self.leaf];
        let framework = &cycle.state.frameworks[leaf.framework];
        let filters = &cycle.state.agents[agent].filters;
        cycle.is_for(framework, leaf.queue, agent)
            && !filters.iter().any(|filter| filter.leaf == self.leaf)
    }
}

impl Cycle<'_> {
    /// Whether so much more is within what the queue is guaranteed, of what it is guaranteed.
    fn is_within_guarantee(&self, queue: Id, lanes: &Lanes) -> bool {
        let guarantee = self.state.queues[queue].guarantee;
        let counted = lanes.only(&guarantee);
        !counted.is_zero() && counted.fits(&self.ledger.unmet(queue))
    }

    /// The tasks of the agent that have to go for the bundle; `None` if that would not help.
    pub(super) fn least_to_kill(
        &mut self,
        claim: &Claim,
        bundle: &Bundle,
        agent: Id,
    ) -> Option<Vec<Unit>> {
        let mut units = self.units(claim, agent);
        let mut most = Lanes::ZERO;
        for unit in &units {
            most.add(&unit.lanes);
        }
        let (own, _) = self.own_on(bundle, agent, &parts_of(&units));
        let most = self.free_of(agent).plus(&self.gain(agent, &most)).plus(&own);
        if units.is_empty() || !bundle.lanes.fits(&most) {
            return None;
        }
        units.sort_by_key(|unit| (unit.worth(), unit.tasks[0]));
        let mut chosen: Vec<Unit> = Vec::new();
        for unit in units {
            if self.would_fit(claim, bundle, agent, &chosen) {
                break;
            }
            if self.is_spared(claim, &unit) {
                continue;
            }
            self.charge(&unit, false);
            chosen.push(unit);
        }
        let enough = self.would_fit(claim, bundle, agent, &chosen);
        // What is worth most stays if it can.
        let mut at = chosen.len();
        while enough && at > 0 {
            at -= 1;
            let unit = chosen.remove(at);
            self.charge(&unit, true);
            if !self.would_fit(claim, bundle, agent, &chosen) {
                self.charge(&unit, false);
                chosen.insert(at, unit);
            }
        }
        for unit in &chosen {
            self.charge(unit, true);
        }
        enough.then_some(chosen)
    }

    fn would_fit(&self, claim: &Claim, bundle: &Bundle, agent: Id, without: &[Unit]) -> bool {
        let (mut lanes, mut goods) = (Lanes::ZERO, None);
        for unit in without {
            lanes.add(&unit.lanes);
            if !unit.goods.is_empty() {
                goods.get_or_insert_with(|| self.goods_of(agent).clone()).add(&unit.goods);
            }
        }
        let (own, own_goods) = self.own_on(bundle, agent, &parts_of(without));
        let free = self.free_of(agent).plus(&self.gain(agent, &lanes)).plus(&own);
        let goods = goods.as_ref().unwrap_or(self.goods_of(agent));
        bundle.lanes.fits(&free)
            && self.has_goods(bundle, &with(goods, &own_goods))
            && bundle.lanes.minus(&own).fits(&self.ledger.room(claim.queue))
    }

    /// Books what a unit holds again, or as given back.
    fn charge(&mut self, unit: &Unit, held: bool) {
        for task in &unit.tasks {
            let state = self.state;
            let Some(of_it) = &state.tasks[*task].held else { continue };
            if held {
                self.give_again(of_it);
            } else {
                self.take_back(of_it);
            }
        }
    }

    /// Counts a unit as ended, wherever its tasks are.
    pub(super) fn kill(&mut self, unit: &Unit) {
        self.charge(unit, false);
        for task in &unit.tasks {
            let Some(held) = &self.state.tasks[*task].held else { continue };
            let gain = self.gain(held.agent, &held.lanes);
            self.free[held.agent as usize].add(&gain);
            if !held.goods.is_empty() {
                let mut goods = self.goods_of(held.agent).clone();
                goods.add(&held.goods);
                self.goods.insert(held.agent, goods);
            }
            let state = self.state;
            if let Some(held) = state.tasks[*task].held.as_ref().filter(|h| !h.parts.is_empty()) {
                self.return_parts(held.agent, &held.parts);
            }
        }
    }

    /// What of an agent could be killed for the claim, seen one by one.
    fn units(&self, claim: &Claim, agent: Id) -> Vec<Unit> {
        let state = self.state;
        let mut units: Vec<Unit> = Vec::new();
        for id in &state.agents[agent].tasks {
            let task = &state.tasks[*id];
            if task.ending || self.preempting.killed.contains(id) {
                continue;
            }
            if units.iter().any(|unit| unit.tasks.contains(id)) {
                continue;
            }
            let members = match (&task.gang, &task.group) {
                (Some((gang, _)), _) => state.gangs.get(gang),
                (None, Some(group)) => state.groups.get(group),
                (None, None) => None,
            };
            let runs = |id: &Id| state.tasks[*id].held.is_some() && !state.tasks[*id].ending;
            let tasks: Vec<Id> = match members {
                Some(all) => all.iter().copied().filter(runs).collect(),
                None => vec![*id],
            };
            units.extend(self.unit(claim, agent, tasks));
        }
        units
    }

    fn unit(&self, claim: &Claim, agent: Id, tasks: Vec<Id>) -> Option<Unit> {
        let state = self.state;
        let mut unit = Unit {
            lanes: Lanes::ZERO,
            goods: Goods::default(),
            parts: Vec::new(),
            rank: (i32::MIN, i32::MIN),
            revocable: true,
            youngest_ms: 0,
            beyond_guarantee: claim.guaranteed,
            tasks,
        };
        for id in &unit.tasks {
            let (task, rank) = (&state.tasks[*id], state.rank(*id));
            let higher = claim.rank.is_some_and(|mine| mine > rank);
            // What is guaranteed to a queue is not found by killing what the queue has.
            let theirs = state.leaves[task.leaf].queue;
            unit.beyond_guarantee &= !state.is_below(theirs, claim.queue);
            if !higher && !unit.beyond_guarantee {
                return None;
            }
            unit.rank = unit.rank.max(rank);
            unit.revocable &= task.revocable;
            unit.youngest_ms = unit.youngest_ms.max(task.created_ms);
            if let Some(held) = task.held.as_ref().filter(|held| held.agent == agent) {
                unit.lanes.add(&held.lanes);
                unit.goods.add(&held.goods);
                unit.parts.extend(held.parts.iter().cloned());
            }
        }
        let higher = claim.rank.is_some_and(|mine| mine > unit.rank);
        (higher || unit.beyond_guarantee).then_some(unit)
    }

    /// Whether somebody would have less than is guaranteed without the unit.
    fn is_spared(&self, claim: &Claim, unit: &Unit) -> bool {
        let state = self.state;
        let mut less: BTreeMap<Id, Lanes> = BTreeMap::new();
        for held in unit.tasks.iter().filter_map(|id| state.tasks[*id].held.as_ref()) {
            let queue = state.leaves[held.leaf].queue;
            for queue in std::iter::successors(Some(queue), |id| state.queues[*id].parent) {
                less.entry(queue).or_insert(Lanes::ZERO).add(&held.lanes);
            }
        }
        less.iter().any(|(queue, lanes)| {
            // What is only promised to a queue does not make up for what it loses now.
            let promised = self.preempting.promised.get(queue).copied().unwrap_or_default();
            !state.is_below(claim.queue, *queue)
                && self.ledger.is_needed_for_guarantee(*queue, lanes, &promised)
        })
    }
}

fn parts_of(units: &[Unit]) -> Vec<Piece> {
    units.iter().flat_map(|unit| unit.parts.iter().cloned()).collect()
}
