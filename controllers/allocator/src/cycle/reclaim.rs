//! Offers that nobody answers and that waiting tasks could use.
//!
//! An offer without declared demand takes all that is free of an agent. If nobody answers it, it
//! holds up every task that would fit there, and a framework that never answers has the smallest
//! share of all and would be next again. So after a short grace such an offer is taken back, if a
//! waiting task would then fit: the run pretends to place those that wait on what could be taken
//! back, and takes back what that needs. Nothing is given to a particular task: the next plan is as
//! fair as any, but that frameworks which have not answered stand back on these agents.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::accounts::Held;
use crate::cycle::Cycle;
use crate::cycle::fit::Bundle;
use crate::cycle::gangs::Party;
use crate::cycle::sweep::earlier;
use crate::cycle::why::{Cause, Waiting, with};
use crate::info::Placement;
use crate::lanes::{Goods, Lanes};
use crate::offers::Offer;
use crate::plan::{Rescind, RescindReason};
use crate::table::Id;

/// Tasks that way is made for in one plan, at most: each looks at every idle offer, and the next plan
/// is milliseconds away.
const MOST_AT_ONCE: usize = 500;

/// What could be taken back, and what is.
#[derive(Default)]
struct Pool {
    /// Offers that could be taken back, by agent.
    idle: BTreeMap<Id, Vec<Id>>,
    /// Those that are, whose resources the run counts as free.
    taken: Vec<Id>,
    /// Agents on which something ends in this plan, and those of them that a task needs.
    ending: BTreeSet<Id>,
    claimed: BTreeSet<Id>,
    /// Mixes of shapes, with their leaf, for which nothing was found.
    hopeless: HashSet<(Id, Vec<Id>)>,
}

/// Where a bundle could go, and which offers are in its way.
struct Way {
    agent: Id,
    offers: Vec<Id>,
}

impl Cycle<'_> {
    /// Takes back what tasks wait for; returns the agents that are to be left to them, and the first
    /// of each of those that way is made for.
    pub(super) fn reclaim(&mut self, waiting: &[Waiting]) -> (BTreeSet<Id>, HashSet<Id>) {
        let mut served = HashSet::new();
        let could_be = |cause| cause != Cause::GangIncomplete;
        if !waiting.iter().any(|waiting| could_be(waiting.cause)) {
            return (BTreeSet::new(), served);
        }
        let mut pool = self.pool();
        if pool.idle.is_empty() && pool.ending.is_empty() {
            return (BTreeSet::new(), served);
        }
        // Parties are made up anew, also of those that this run has tried.
        self.done.clear();
        self.all_packed();
        let mut left = MOST_AT_ONCE;
        for waiting in waiting.iter().filter(|waiting| could_be(waiting.cause)) {
            if left == 0 {
                self.unfinished = true;
                break;
            }
            let first = waiting.bundle.tasks[0];
            let key = (self.state.tasks[first].leaf, waiting.bundle.shapes.clone());
            let gang = self.state.tasks[first].gang.is_some();
            if !gang && waiting.bundle.pinned.is_none() && pool.hopeless.contains(&key) {
                continue;
            }
            let found = match self.party(first) {
                Party::Ready(bundles) => self.make_way(&mut pool, key.0, &bundles),
                Party::Incomplete => false,
            };
            left -= usize::from(found);
            if found {
                served.insert(first);
            }
            if !found && !gang && waiting.bundle.pinned.is_none() {
                pool.hopeless.insert(key);
            }
        }
        for offer in &pool.taken {
            let offer = self.state.offers[*offer].key.clone();
            self.plan.rescind.push(Rescind { offer, reason: RescindReason::NeededForTask });
        }
        (pool.claimed, served)
    }

    /// Sorts the offers: those that end in this plan count as free from here on.
    fn pool(&mut self) -> Pool {
        let state = self.state;
        let swept: HashSet<_> = (self.plan.expire.iter())
            .chain(self.plan.rescind.iter().map(|rescind| &rescind.offer))
            .cloned()
            .collect();
        let mut pool = Pool::default();
        for (id, offer) in state.offers.iter().filter(|(_, offer)| !offer.answered) {
            let agent = offer.held.agent;
            if !state.agents[agent].is_open() {
                continue;
            }
            if swept.contains(&offer.key) {
                pool.ending.insert(agent);
                self.preempting.returned.insert(id);
                self.give_back(offer);
            } else if self.is_open_ended(offer) {
                let idle_from = offer
                    .since_ms
                    .unwrap_or_default()
                    .saturating_add(state.options.answer_grace_ms);
                if idle_from <= self.now_ms {
                    pool.idle.entry(agent).or_default().push(id);
                } else {
                    self.plan.next_wake_ms = earlier(self.plan.next_wake_ms, Some(idle_from));
                }
            }
        }
        for offers in pool.idle.values_mut() {
            // The largest first: fewer of them make way.
            offers.sort_by_key(|id| std::cmp::Reverse(state.offers[*id].held.lanes.0));
        }
        pool
    }

    /// It was made as large as it could be, since its framework has not said what it wants.
    pub(super) fn is_open_ended(&self, offer: &Offer) -> bool {
        let framework = &self.state.frameworks[self.state.leaves[offer.held.leaf].framework];
        framework.info.placement == Placement::Offers
            && !framework.demand.contains_key(&offer.held.leaf)
    }

    /// Makes way for all of these, or none.
    fn make_way(&mut self, pool: &mut Pool, leaf: Id, bundles: &[Bundle]) -> bool {
        let before = (bundles.len() > 1).then(|| {
            let goods = (self.goods.clone(), self.pieces.clone());
            (self.free.clone(), goods, self.ledger.clone(), pool.idle.clone())
        });
        let (taken, mut claimed) = (pool.taken.len(), BTreeSet::new());
        for bundle in bundles {
            let Some(way) = self.find_way(pool, leaf, bundle) else {
                if let Some((free, goods, ledger, idle)) = before {
                    (self.free, self.ledger, pool.idle) = (free, ledger, idle);
                    (self.goods, self.pieces) = goods;
                }
                for offer in pool.taken.drain(taken..) {
                    self.preempting.returned.remove(&offer);
                }
                return false;
            };
            claimed.insert(way.agent);
            for id in way.offers {
                let offer = &self.state.offers[id];
                claimed.insert(offer.held.agent);
                self.preempting.returned.insert(id);
                self.give_back(offer);
                if let Some(idle) = pool.idle.get_mut(&offer.held.agent) {
                    idle.retain(|other| *other != id);
                }
                pool.taken.push(id);
            }
            self.pretend(leaf, way.agent, bundle);
        }
        pool.claimed.extend(claimed);
        true
    }

    /// The agent on which the fewest offers are in the way.
    fn find_way(&self, pool: &Pool, leaf: Id, bundle: &Bundle) -> Option<Way> {
        let queue = self.state.leaves[leaf].queue;
        let short = !bundle.lanes.fits(&self.ledger.room(queue));
        let own = !self.sources.agents.is_empty();
        if short && !own && !self.idle_under_limit(pool, queue) {
            return None;
        }
        let mut best: Option<Way> = None;
        let began = pool.claimed.iter().chain(&pool.ending).copied();
        let idle = pool.idle.keys().copied();
        let all =
            self.packed_all.as_ref().unwrap_or(&self.packed).iter().copied().filter(|_| short);
        for agent in began.chain(idle).chain(all).chain(bundle.pinned) {
            if bundle.pinned.is_some_and(|pinned| pinned != agent)
                || !self.state.agents[agent].is_open()
            {
                continue;
            }
            let Some((mut offers, rest)) = self.in_the_way(pool, bundle, agent) else { continue };
            if best.as_ref().is_some_and(|best| offers.len() >= best.offers.len()) {
                continue;
            }
            if !self.make_room(pool, queue, &rest, &mut offers) {
                continue;
            }
            if best.as_ref().is_none_or(|best| offers.len() < best.offers.len()) {
                let few = offers.len() <= 1;
                best = Some(Way { agent, offers });
                if few {
                    break;
                }
            }
        }
        best
    }

    /// The offers of this agent without which the bundle would fit, and what it would take of what
    /// is plain; `None` if it never would.
    fn in_the_way(&self, pool: &Pool, bundle: &Bundle, agent: Id) -> Option<(Vec<Id>, Lanes)> {
        let suits = self.shapes(bundle).all(|shape| {
            shape.unknown.is_empty()
                && shape.required.matches(&self.state.agents[agent].labels)
                && !self.is_averse(shape, agent)
        });
        if !suits {
            return None;
        }
        // What is set aside for it counts with what is plain, also what offers hold of that.
        let (mut own, own_goods) = self.own_on(bundle, agent, &[]);
        let mut free = self.free_of(agent).plus(&own);
        let of_offer = |id: &Id| {
            let held = &self.state.offers[*id].held;
            let (own, own_goods) = match held.parts.is_empty() {
                true => (Lanes::ZERO, Goods::default()),
                false => self.drawable(bundle, &held.parts),
            };
            (held.lanes.plus(&own), with(&held.goods, &own_goods).into_owned(), own)
        };
        let idle = pool.idle.get(&agent).into_iter().flatten();
        let most = idle.fold(free, |sum, id| sum.plus(&of_offer(id).0));
        if !bundle.lanes.fits(&most) {
            return None;
        }
        let mut goods = with(self.goods_of(agent), &own_goods).into_owned();
        let fits =
            |free: &Lanes, goods: &Goods| bundle.lanes.fits(free) && self.has_goods(bundle, goods);
        let mut offers = Vec::new();
        for id in pool.idle.get(&agent).into_iter().flatten() {
            if fits(&free, &goods) {
                break;
            }
            let (lanes, more, of_own) = of_offer(id);
            free.add(&lanes);
            goods.add(&more);
            own.add(&of_own);
            offers.push(*id);
        }
        if !fits(&free, &goods) {
            return None;
        }
        // One that was taken early may not be needed after those that were taken late.
        let mut at = 0;
        while at < offers.len() {
            let (lanes, less, of_own) = of_offer(&offers[at]);
            let rest = free.minus(&lanes);
            let mut rest_goods = goods.clone();
            rest_goods.sub(&less);
            if fits(&rest, &rest_goods) {
                (free, goods) = (rest, rest_goods);
                own.sub(&of_own);
                offers.remove(at);
            } else {
                at += 1;
            }
        }
        Some((offers, bundle.lanes.minus(&own)))
    }

    /// Adds the offers that use up what the task's queue, or one above, may hold.
    fn make_room(&self, pool: &Pool, queue: Id, lanes: &Lanes, offers: &mut Vec<Id>) -> bool {
        if lanes.fits(&self.ledger.room(queue)) {
            return true;
        }
        let mut ledger = self.ledger.clone();
        let mut give_back = |id: Id| {
            let held = &self.state.offers[id].held;
            ledger.take_back(held.leaf, self.state.leaves[held.leaf].queue, &held.lanes);
            lanes.fits(&ledger.room(queue))
        };
        // Each of them: what makes way on the agent may be of the same queue.
        let mut enough = false;
        for id in offers.iter() {
            enough = give_back(*id);
        }
        for id in pool.idle.values().flatten() {
            if enough {
                break;
            }
            let held = &self.state.offers[*id].held;
            let theirs = self.state.leaves[held.leaf].queue;
            if !offers.contains(id) && self.limited_together(queue, theirs) {
                enough = give_back(*id);
                offers.push(*id);
            }
        }
        enough
    }

    fn idle_under_limit(&self, pool: &Pool, queue: Id) -> bool {
        pool.idle.values().flatten().any(|id| {
            let theirs = self.state.leaves[self.state.offers[*id].held.leaf].queue;
            self.limited_together(queue, theirs)
        })
    }

    /// Whether both count towards a queue that has a limit.
    fn limited_together(&self, one: Id, other: Id) -> bool {
        let limited = |id: &Id| self.state.queues[*id].limit != Lanes::UNLIMITED;
        let above = |id| std::iter::successors(Some(id), |id: &Id| self.state.queues[*id].parent);
        above(one).filter(limited).any(|queue| above(other).any(|id| id == queue))
    }

    /// Counts what an offer holds as free.
    pub(super) fn give_back(&mut self, offer: &Offer) {
        let held = &offer.held;
        self.free[held.agent as usize].add(&held.lanes);
        if !held.goods.is_empty() {
            let mut goods = self.goods_of(held.agent).clone();
            goods.add(&held.goods);
            self.goods.insert(held.agent, goods);
        }
        self.take_back(held);
        if !held.parts.is_empty() {
            self.return_parts(held.agent, &held.parts);
        }
    }

    /// Books what is held as given back, with its parts.
    pub(super) fn take_back(&mut self, held: &Held) {
        let (all, charged) = with_parts(held);
        let queue = self.state.leaves[held.leaf].queue;
        self.ledger.take_parts_back(held.leaf, queue, &all, &charged);
    }

    /// The other way round.
    pub(super) fn give_again(&mut self, held: &Held) {
        let (all, charged) = with_parts(held);
        let queue = self.state.leaves[held.leaf].queue;
        self.ledger.give_parts(held.leaf, queue, &all, &charged);
    }

    /// Counts the bundle as placed, so that the next one does not count on the same.
    pub(super) fn pretend(&mut self, leaf: Id, agent: Id, bundle: &Bundle) {
        let draw = self.draw(bundle, agent, &Lanes::UNLIMITED);
        let (lanes, taken, picks) = match &draw {
            Some(draw) => (draw.lanes, &draw.goods, draw.picks),
            None => (bundle.lanes, &bundle.goods, bundle.picks),
        };
        self.free[agent as usize].sub(&lanes);
        let mut goods = self.goods_of(agent).clone();
        goods.sub(taken);
        if let Some((_, rest)) = goods.ports.take(picks) {
            goods.ports = rest;
        }
        self.goods.insert(agent, goods);
        if let Some(draw) = &draw {
            self.move_parts(agent, &draw.parts, true);
        }
        self.ledger.give_parts(leaf, self.state.leaves[leaf].queue, &bundle.lanes, &lanes);
        if self.neighbours_matter {
            self.placed_on.entry(agent).or_default().extend(&bundle.tasks);
        }
    }
}

/// All that is held, and what of it counts towards limits. What is shared stays with the others.
fn with_parts(held: &Held) -> (Lanes, Lanes) {
    let (mut all, mut charged) = (held.lanes, held.lanes);
    for piece in held.parts.iter().filter(|piece| !piece.kind.shared) {
        all.add(&piece.lanes);
        if piece.kind.is_charged() {
            charged.add(&piece.lanes);
        }
    }
    (all, charged)
}
