//! Tasks that are killed for others: for a queue that has less than it is guaranteed, or for a task
//! of a higher priority. Mesos has nothing like it.
//!
//! The run pretends to kill and to place, after everything else has failed: nothing is killed for
//! what is free, or will be when offers or tasks end that are ending already. On the agent where it
//! costs least, tasks are taken that can be killed at any time, then those of the lowest priority,
//! the youngest first, and whatever turns out not to be needed stays. A task is never killed for
//! one of the same or a lower priority, nor below what its queue is guaranteed; so whoever was
//! killed for can't be killed for those who were, and it all comes to rest.

use std::collections::{BTreeMap, HashSet};

use crate::cycle::Cycle;
use crate::cycle::fit::Bundle;
use crate::cycle::gangs::Party;
use crate::cycle::victims::{Claim, Unit};
use crate::cycle::why::{Cause, Waiting, with};
use crate::info::Placement;
use crate::lanes::{Goods, Lanes};
use crate::parts::Piece;
use crate::plan::{Preemption, PreemptionReason};
use crate::state::{Allocator, Unit as DemandUnit};
use crate::table::Id;

/// Tasks that others are killed for in one plan, at most: each looks at all that runs, and the next
/// plan is milliseconds away.
const MOST_AT_ONCE: usize = 100;

/// What is decided beyond placing.
#[derive(Default)]
pub(super) struct Preempting {
    /// Waiting tasks for which something ends on an agent: for that agent they come first.
    pub(super) nominated: BTreeMap<Id, Id>,
    /// What ends there and is not spoken for, of agents that were looked at.
    coming: BTreeMap<Id, Lanes>,
    /// Offers that count as free.
    pub(super) returned: HashSet<Id>,
    /// Tasks that this plan kills.
    pub(super) killed: HashSet<Id>,
    /// What queues will get of what ends.
    pub(super) promised: BTreeMap<Id, Lanes>,
}

/// A bundle's place, and who has to go.
struct Way {
    agent: Id,
    units: Vec<Unit>,
}

impl Allocator {
    /// What a framework that answers offers has said that it wants in a queue, if it may have it.
    fn demand_of(&self, leaf_id: Id) -> Option<&[DemandUnit]> {
        let leaf = &self.leaves[leaf_id];
        let framework = &self.frameworks[leaf.framework];
        let asks = framework.known
            && framework.info.active
            && framework.info.placement == Placement::Offers
            && leaf.listed
            && !leaf.suppressed;
        framework.demand.get(&leaf_id).filter(|_| asks).map(Vec::as_slice)
    }

    /// Whether any of that is for a queue that has less than it is guaranteed.
    fn guaranteed_demand(&self, unmet: impl Fn(Id) -> Lanes) -> bool {
        !self.guaranteed.is_empty()
            && self
                .leaves
                .iter()
                .any(|(id, leaf)| self.demand_of(id).is_some() && !unmet(leaf.queue).is_zero())
    }
}

impl Cycle<'_> {
    /// Those for whom something was ended come first; until it has ended nobody else gets what they
    /// wait for.
    pub(super) fn settle_nominated(&mut self) {
        let state = self.state;
        let mut tasks: Vec<_> = state
            .nominated
            .keys()
            .filter_map(|task| {
                let leaf = state.tasks[*task].leaf;
                let serves =
                    state.leaves[leaf].listed && state.places_tasks(state.leaves[leaf].framework);
                let turn = state.tasks[*task].wait.as_ref()?.turn;
                serves.then(|| (std::cmp::Reverse(state.rank(*task)), turn, *task))
            })
            .collect();
        tasks.sort_unstable();
        for (_, _, task) in tasks {
            if self.done.contains(&task) || self.preempting.nominated.contains_key(&task) {
                continue;
            }
            let Party::Ready(bundles) = self.party(task) else { continue };
            let all = || bundles.iter().flat_map(|bundle| bundle.tasks.iter().copied());
            if self.place_all(state.tasks[task].leaf, &bundles) {
                self.done.extend(all());
                continue;
            }
            self.waiting.pop();
            for task in all() {
                self.done.remove(&task);
            }
            self.set_aside(&bundles);
        }
    }

    /// Keeps for these what they need of their agents beside what is ending there, or forgets that
    /// anything ended for them.
    fn set_aside(&mut self, bundles: &[Bundle]) {
        let before = (self.preempting.coming.clone(), Vec::new());
        let (coming, mut frees): (_, Vec<(Id, Lanes)>) = before;
        for bundle in bundles {
            let agent = self.state.nominated.get(&bundle.tasks[0]).copied();
            let agent = agent.filter(|agent| self.state.agents[*agent].is_open());
            let kept = agent.is_some_and(|agent| {
                let ending = self.coming_on(agent);
                let free = *self.free_of(agent);
                let ending_tasks = self.state.agents[agent].tasks.iter();
                let ending_tasks = ending_tasks.map(|id| &self.state.tasks[*id]);
                let held = ending_tasks.filter(|task| task.ending).filter_map(|t| t.held.as_ref());
                let back: Vec<Piece> = held.flat_map(|held| held.parts.iter().cloned()).collect();
                let plain = bundle.lanes.minus(&self.own_on(bundle, agent, &back).0);
                if !plain.fits(&free.plus(&ending)) || !self.suits(bundle, agent) {
                    return false;
                }
                let rest = plain.minus(&ending);
                self.preempting.coming.insert(agent, ending.minus(&plain));
                frees.push((agent, free));
                self.free[agent as usize].sub(&rest);
                true
            });
            if !kept {
                for (agent, free) in frees.into_iter().rev() {
                    self.free[agent as usize] = free;
                }
                self.preempting.coming = coming;
                return;
            }
        }
        for (bundle, (agent, _)) in bundles.iter().zip(frees) {
            for task in &bundle.tasks {
                self.preempting.nominated.insert(*task, agent);
            }
        }
    }

    /// What of an agent is held by tasks that are ending, and not spoken for.
    fn coming_on(&self, agent: Id) -> Lanes {
        self.preempting.coming.get(&agent).copied().unwrap_or_else(|| {
            let tasks = self.state.agents[agent].tasks.iter().map(|id| &self.state.tasks[*id]);
            let mut sum = Lanes::ZERO;
            for held in tasks.filter(|task| task.ending).filter_map(|task| task.held.as_ref()) {
                sum.add(&held.lanes);
            }
            self.gain(agent, &sum)
        })
    }

    /// What is free more when so much of an agent is given back; less if it is held twice over.
    pub(super) fn gain(&self, agent: Id, given_back: &Lanes) -> Lanes {
        let agent = &self.state.agents[agent];
        given_back.minus(&agent.allocated.plus(&agent.offered).minus(&agent.total))
    }

    /// Looks for tasks to kill for those that nothing else was found for. `served` are the first
    /// tasks of those that get what offers held.
    pub(super) fn preempt(&mut self, waiting: &[Waiting], served: &HashSet<Id>) {
        let state = self.state;
        let could = |one: &&Waiting| {
            let first = one.bundle.tasks[0];
            one.cause != Cause::GangIncomplete
                && !served.contains(&first)
                && !self.preempting.nominated.contains_key(&first)
                && self.may_preempt(first)
        };
        let mut tasks: Vec<Id> = waiting.iter().filter(could).map(|w| w.bundle.tasks[0]).collect();
        let demand = state.guaranteed_demand(|queue| self.ledger.unmet(queue));
        if tasks.is_empty() && !demand {
            return;
        }
        // The guaranteed before the important.
        tasks.sort_by_key(|task| {
            let unmet = self.ledger.unmet(state.leaves[state.tasks[*task].leaf].queue);
            (unmet.is_zero(), std::cmp::Reverse(state.rank(*task)))
        });
        let eased = self.ease();
        self.done.clear();
        let (mut hopeless, mut left) = (HashSet::new(), MOST_AT_ONCE);
        for task in tasks {
            if left == 0 {
                self.unfinished = true;
                break;
            }
            let Party::Ready(bundles) = self.party(task) else { continue };
            let leaf = state.tasks[task].leaf;
            let key = (leaf, state.rank(task), bundles[0].shapes.clone());
            let alone = bundles.len() == 1 && bundles[0].pinned.is_none();
            if alone && hopeless.contains(&key) {
                continue;
            }
            if self.preempt_for(&Claim::of_task(self, task), &bundles, &eased) {
                left -= 1;
            } else if alone {
                hopeless.insert(key);
            }
        }
        if demand {
            self.preempt_for_demand(&eased, left);
        }
    }

    /// Whether there could be a task that this one may have killed.
    fn may_preempt(&self, task: Id) -> bool {
        let state = self.state;
        let lowest = state.bound_priorities.keys().next();
        !state.tasks[task].revocable
            && (self.ledger.has_guarantees()
                || state.queue_priorities
                || lowest.is_some_and(|lowest| *lowest < state.tasks[task].priority))
    }

    /// Counts as free what will be so without any doing: offers as large as could be, of which
    /// nobody has said a word, and tasks that are ending. The agents on which that is.
    fn ease(&mut self) -> Vec<Id> {
        let state = self.state;
        let mut eased: Vec<Id> = Vec::new();
        for (id, offer) in state.offers.iter().filter(|(_, offer)| !offer.answered) {
            let open = state.agents[offer.held.agent].is_open();
            if open && self.is_open_ended(offer) && self.preempting.returned.insert(id) {
                self.give_back(offer);
            }
        }
        eased.extend(self.preempting.returned.iter().map(|id| state.offers[*id].held.agent));
        for task in state.ending.iter().map(|id| &state.tasks[*id]) {
            let Some(held) = task.held.as_ref() else { continue };
            if state.agents[held.agent].is_open() {
                self.take_back(held);
                if !held.parts.is_empty() {
                    self.return_parts(held.agent, &held.parts);
                }
                eased.push(held.agent);
            }
        }
        eased.sort_unstable();
        eased.dedup();
        for agent in &eased {
            let coming = self.coming_on(*agent);
            self.free[*agent as usize].add(&coming);
        }
        let mut promised = Vec::new();
        for task in self.preempting.nominated.keys() {
            let leaf = state.tasks[*task].leaf;
            let wants = state.tasks[*task].wait.as_ref();
            let lanes = wants.map_or(Lanes::ZERO, |wait| state.shapes.get(wait.shape).lanes);
            self.ledger.give(leaf, state.leaves[leaf].queue, &lanes);
            promised.push((state.leaves[leaf].queue, lanes));
        }
        for (queue, lanes) in promised {
            self.promise(queue, &lanes);
        }
        eased
    }

    fn promise(&mut self, queue: Id, lanes: &Lanes) {
        for queue in std::iter::successors(Some(queue), |id| self.state.queues[*id].parent) {
            self.preempting.promised.entry(queue).or_default().add(lanes);
        }
    }

    /// Makes way for all of these, or for none; whether it did, or need not.
    fn preempt_for(&mut self, claim: &Claim, bundles: &[Bundle], eased: &[Id]) -> bool {
        let before = (bundles.len() > 1).then(|| {
            (self.free.clone(), self.goods.clone(), self.pieces.clone(), self.ledger.clone())
        });
        let (killed, promised) = (self.preempting.killed.clone(), self.preempting.promised.clone());
        let mut ways = Vec::new();
        for bundle in bundles {
            let Some(way) = self.cheapest_way(claim, bundle, eased) else {
                if let Some((free, goods, pieces, ledger)) = before {
                    (self.free, self.goods, self.ledger) = (free, goods, ledger);
                    self.pieces = pieces;
                }
                (self.preempting.killed, self.preempting.promised) = (killed, promised);
                return false;
            };
            for unit in &way.units {
                self.kill(unit);
                self.preempting.killed.extend(&unit.tasks);
            }
            self.pretend(claim.leaf, way.agent, bundle);
            self.promise(claim.queue, &bundle.lanes);
            ways.push(way);
        }
        for (bundle, way) in bundles.iter().zip(&ways) {
            // What only waits for an offer to end is as free for others as it ever was.
            let ends = !way.units.is_empty() || !self.coming_on(way.agent).is_zero();
            for task in bundle.tasks.iter().filter(|_| ends) {
                self.preempting.nominated.insert(*task, way.agent);
            }
            for unit in &way.units {
                self.announce(claim, bundle, unit);
            }
        }
        true
    }

    fn announce(&mut self, claim: &Claim, bundle: &Bundle, unit: &Unit) {
        let state = self.state;
        for id in &unit.tasks {
            let task = &state.tasks[*id];
            let Some(held) = &task.held else { continue };
            let reason = match unit.beyond_guarantee {
                true => PreemptionReason::Guarantee,
                false => PreemptionReason::Priority,
            };
            self.plan.preempt.push(Preemption {
                task: task.key.clone(),
                uid: task.uid.clone(),
                queue: state.queues[state.leaves[task.leaf].queue].path.clone(),
                agent: state.agents[held.agent].name.clone(),
                reason,
                for_task: bundle.tasks.first().map(|id| state.tasks[*id].key.clone()),
                for_framework: state.leaves[claim.leaf].framework_key.clone(),
                for_queue: state.queues[claim.queue].path.clone(),
            });
        }
    }

    /// The agent on which the least has to be killed for the bundle: nothing at best.
    fn cheapest_way(&mut self, claim: &Claim, bundle: &Bundle, eased: &[Id]) -> Option<Way> {
        let mine = |agent: &Id| bundle.pinned.is_none_or(|pinned| pinned == *agent);
        let room = self.ledger.room(claim.queue);
        for agent in eased.iter().copied().filter(mine) {
            let suits = self.suits(bundle, agent) && claim.suits(self, agent);
            if suits && self.holds(bundle, agent, &room) {
                return Some(Way { agent, units: Vec::new() });
            }
        }
        let mut best: Option<(_, Way)> = None;
        for at in 0..self.all_packed().len() {
            let agent = self.all_packed()[at];
            if !mine(&agent) || !self.suits(bundle, agent) || !claim.suits(self, agent) {
                continue;
            }
            let Some(units) = self.least_to_kill(claim, bundle, agent) else { continue };
            let cost = (
                units.iter().map(Unit::worth).max(),
                units.iter().map(|unit| unit.tasks.len()).sum::<usize>(),
            );
            let cheap = cost.1 <= 1 && cost.0.is_none_or(|worth| worth.0 == 0);
            if best.as_ref().is_none_or(|(least, _)| cost < *least) {
                best = Some((cost, Way { agent, units }));
            }
            if cheap {
                break;
            }
        }
        best.map(|(_, way)| way)
    }

    /// Whether there is room for the bundle on the agent and in its queue.
    fn holds(&self, bundle: &Bundle, agent: Id, room: &Lanes) -> bool {
        let (own, own_goods) = self.own_on(bundle, agent, &[]);
        bundle.lanes.fits(&self.free_of(agent).plus(&own))
            && bundle.lanes.minus(&own).fits(room)
            && self.has_goods(bundle, &with(self.goods_of(agent), &own_goods))
    }

    /// Whether nothing but room speaks against the agent.
    pub(super) fn suits(&self, bundle: &Bundle, agent: Id) -> bool {
        self.shapes(bundle).all(|shape| {
            shape.unknown.is_empty()
                && shape.required.matches(&self.state.agents[agent].labels)
                && !self.is_averse(shape, agent)
        })
    }

    /// Declared demand, as far as it is guaranteed.
    fn preempt_for_demand(&mut self, eased: &[Id], mut left: usize) {
        let state = self.state;
        for (id, leaf) in state.leaves.iter() {
            let asks = !self.ledger.unmet(leaf.queue).is_zero();
            let Some(units) = state.demand_of(id).filter(|_| asks) else { continue };
            for (unit, mut count) in self.unserved_demand(id, units) {
                let bundle = Bundle {
                    tasks: Vec::new(),
                    shapes: Vec::new(),
                    lanes: unit.lanes,
                    goods: Goods::default(),
                    picks: unit.ports,
                    pinned: None,
                    fresh: true,
                };
                while count > 0 && left > 0 {
                    let claim = Claim::of_demand(self, id, &bundle);
                    let bundle = std::slice::from_ref(&bundle);
                    if !claim.guaranteed || !self.preempt_for(&claim, bundle, eased) {
                        break;
                    }
                    (count, left) = (count - 1, left - 1);
                }
            }
        }
    }
}
