//! Offers that exist, and what frameworks have refused.

use std::collections::BTreeSet;

use crate::accounts::{Held, Holder};
use crate::info::{ObjectKey, OfferInfo, Refusal};
use crate::lanes::{Goods, Lanes};
use crate::parts::{self, Piece};
use crate::state::Allocator;
use crate::table::Id;

/// One offer.
#[derive(Debug, Clone)]
pub(crate) struct Offer {
    pub(crate) key: ObjectKey,
    pub(crate) held: Held,
    pub(crate) expires_at_ms: Option<u64>,
    pub(crate) answered: bool,
    /// Time of the plan that it is from; of offers that are older than this allocator the first.
    pub(crate) since_ms: Option<u64>,
}

/// What a leaf does not want to see of an agent for a while.
#[derive(Debug, Clone)]
pub(crate) struct Filter {
    pub(crate) leaf: Id,
    pub(crate) lanes: Lanes,
    pub(crate) goods: Goods,
    pub(crate) parts: Vec<Piece>,
    pub(crate) until_ms: u64,
    /// Plans made when it came; it outlives the next one whatever the time is, as in Mesos.
    pub(crate) since_plan: u64,
}

impl Filter {
    /// Whether an offer to this leaf is held back: it is part of what was refused.
    pub(crate) fn blocks(&self, leaf: Id, lanes: &Lanes, goods: &Goods, parts: &[Piece]) -> bool {
        self.leaf == leaf
            && lanes.fits(&self.lanes)
            && self.goods.contains(goods)
            && parts::contains(&self.parts, parts)
    }
}

impl Allocator {
    /// Tells of an offer that exists (with its deletion pending, too), or of a change of it.
    pub fn upsert_offer(&mut self, key: &ObjectKey, info: &OfferInfo) {
        self.learn(&info.resources);
        let framework =
            ObjectKey { namespace: key.namespace.clone(), name: (*info.framework).into() };
        let leaf = self.leaf_of(&framework, &info.queue);
        let (lanes, _) = self.names.lanes(&info.resources);
        let parts = self.pieces_of(&info.parts);
        let held = Held {
            agent: self.agent_id(&info.agent),
            leaf,
            lanes,
            goods: Goods::of(&info.resources),
            parts,
        };
        let mut before = None;
        if let Some(id) = self.offers.id(key) {
            let offer = &mut self.offers[id];
            if offer.held == held {
                if (offer.answered, offer.expires_at_ms) != (info.answered, info.expires_at_ms) {
                    self.note_offer(id, false);
                    let offer = &mut self.offers[id];
                    (offer.answered, offer.expires_at_ms) = (info.answered, info.expires_at_ms);
                    self.note_offer(id, true);
                    self.note_less_outstanding(leaf);
                }
                return;
            }
            before = self.forget_offer(key);
        } else {
            self.count_allocation(leaf);
        }
        let id = self.offers.id_or_insert_with(key, || Offer {
            key: key.clone(),
            held: held.clone(),
            expires_at_ms: info.expires_at_ms,
            answered: info.answered,
            since_ms: self.planned_at_ms,
        });
        self.hold(Holder::Offer(id), &held);
        self.note_offer(id, true);
        if let Some((leaf, agent)) = before {
            self.collect_leaf(leaf);
            self.collect_agent(agent);
        }
    }

    /// Notes when an offer ends that nobody has answered, or that it does not any more.
    fn note_offer(&mut self, id: Id, there: bool) {
        let offer = &self.offers[id];
        let (open, leaf) = (!offer.answered, offer.held.leaf);
        let deadline = offer.expires_at_ms.filter(|_| open).map(|at| (at, id));
        self.changes.anything = true;
        self.changes.stale.push(leaf);
        let unanswered = &mut self.leaves[leaf].unanswered;
        if there {
            *unanswered += usize::from(open);
            self.deadlines.extend(deadline);
            self.changes.suspects.insert(id);
        } else {
            *unanswered -= usize::from(open);
            deadline.map(|deadline| self.deadlines.remove(&deadline));
            self.changes.suspects.remove(&id);
        }
    }

    /// A framework that could not be offered more, or that says how much it wants, may be now.
    fn note_less_outstanding(&mut self, leaf: Id) {
        let framework = &self.frameworks[self.leaves[leaf].framework];
        if self.changes.capped {
            self.changes.all();
        } else if framework.info.demand.is_some() {
            self.changes.asking.insert(leaf);
        }
    }

    /// Tells that an offer is accounted for and gone: what it held is free, but for what tasks
    /// hold. An accepted offer is closed after its tasks were told of. `refusal` is what the
    /// framework does not want again for a while: of a declined offer all of it, of an accepted one
    /// what was left over.
    pub fn close_offer(&mut self, key: &ObjectKey, refusal: Option<&Refusal>, now_ms: u64) {
        let Some((leaf, agent)) = self.forget_offer(key) else { return };
        if let Some(refusal) = refusal {
            self.filter(leaf, agent, refusal, now_ms);
        }
        self.collect_leaf(leaf);
        self.collect_agent(agent);
    }

    /// Tells what a framework does not want again of an agent that it has something of.
    pub fn refuse(
        &mut self,
        (framework, queue): (&ObjectKey, &str),
        agent: &str,
        refusal: &Refusal,
        now_ms: u64,
    ) {
        if let (Some(leaf), Some(agent)) = (self.leaf(framework, queue), self.agents.id(agent)) {
            self.filter(leaf, agent, refusal, now_ms);
        }
    }

    fn leaf(&self, framework: &ObjectKey, queue: &str) -> Option<Id> {
        self.leaves.id(&(self.frameworks.id(framework)?, self.queues.id(queue)?))
    }

    fn filter(&mut self, leaf: Id, agent: Id, refusal: &Refusal, now_ms: u64) {
        if refusal.for_ms == 0 || !self.leaves[leaf].listed || !self.agents[agent].known {
            return;
        }
        let for_ms = refusal.for_ms.max(self.options.refusal_floor_ms);
        let (lanes, _) = self.names.lanes(&refusal.resources);
        let filter = Filter {
            leaf,
            lanes,
            goods: Goods::of(&refusal.resources),
            parts: self.pieces_of(&refusal.parts),
            until_ms: now_ms.saturating_add(for_ms),
            since_plan: self.plans,
        };
        self.filter_ends.insert((filter.until_ms, agent));
        self.agents[agent].filters.push(filter);
        self.note_refusals(agent);
        self.changes.anything = true;
    }

    /// Tells whether a framework has answered an offer, or let it end unanswered. One that answers
    /// takes part in everything; one that does not stands back where offers were taken back for
    /// waiting tasks.
    pub fn heard_from(&mut self, framework: &ObjectKey, answered: bool) {
        if let Some(id) = self.frameworks.id(framework) {
            self.frameworks[id].answers = Some(answered);
            self.changes.anything = true;
        }
    }

    /// Takes the offer out, and says where it was booked.
    fn forget_offer(&mut self, key: &ObjectKey) -> Option<(Id, Id)> {
        let id = self.offers.id(key)?;
        let held = self.offers[id].held.clone();
        self.note_offer(id, false);
        self.release(Holder::Offer(id), &held);
        self.note_less_outstanding(held.leaf);
        self.offers.remove(key);
        Some((held.leaf, held.agent))
    }

    /// Refusals that hold at `now_ms`, by queue.
    #[must_use]
    pub fn refusals(&self, now_ms: u64) -> std::collections::BTreeMap<std::sync::Arc<str>, u64> {
        let mut counts = std::collections::BTreeMap::new();
        let filters = self.agents.iter().flat_map(|(_, agent)| &agent.filters);
        for filter in filters.filter(|filter| self.holds(filter, now_ms)) {
            let queue = self.queues[self.leaves[filter.leaf].queue].path.clone();
            *counts.entry(queue).or_default() += 1;
        }
        counts
    }

    fn holds(&self, filter: &Filter, now_ms: u64) -> bool {
        filter.until_ms > now_ms || filter.since_plan == self.plans
    }

    /// When the next refusal or offer ends by time.
    pub(crate) fn next_end_ms(&self, now_ms: u64) -> Option<u64> {
        let next =
            |ends: &BTreeSet<(u64, Id)>| ends.range((now_ms + 1, 0)..).next().map(|end| end.0);
        [next(&self.filter_ends), next(&self.deadlines)].into_iter().flatten().min()
    }

    /// Forgets what a framework has refused in one queue.
    pub fn forget_refusals_in(&mut self, framework: &ObjectKey, queue: &str) {
        if let Some(leaf) = self.leaf(framework, queue) {
            self.forget_filters(leaf);
        }
    }

    /// Forgets everything a framework has refused (a revive).
    pub fn forget_refusals(&mut self, framework: &ObjectKey) {
        let Some(id) = self.frameworks.id(framework) else { return };
        for leaf in self.frameworks[id].leaves.clone() {
            self.forget_filters(leaf);
        }
    }

    pub(crate) fn forget_filters(&mut self, leaf: Id) {
        let agents: BTreeSet<Id> = self.filter_ends.iter().map(|(_, agent)| *agent).collect();
        for id in agents {
            if self.retain_filters(id, |filter| filter.leaf != leaf) {
                self.changes.agent(id);
            }
        }
    }

    pub(crate) fn forget_old_filters(&mut self, now_ms: u64) {
        let plans = self.plans;
        let due: Vec<(u64, Id)> = self.filter_ends.range(..=(now_ms, Id::MAX)).copied().collect();
        for (until_ms, id) in due {
            let holds = |filter: &Filter| filter.until_ms > now_ms || filter.since_plan == plans;
            if self.retain_filters(id, holds) {
                self.changes.agent(id);
            }
            let filters = self.agents.get_mut(id).map(|agent| &agent.filters);
            if filters.is_some_and(|all| all.iter().any(|filter| filter.until_ms == until_ms)) {
                // It outlives the plan that is made now, and ends with the next.
                self.changes.anything = true;
            } else {
                self.filter_ends.remove(&(until_ms, id));
            }
        }
    }
}
