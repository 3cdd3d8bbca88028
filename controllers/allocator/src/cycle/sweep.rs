//! Offers that must end: their time is up, or what they were made for is no longer so.
//!
//! They hold what they hold until the caller has closed them; nothing of it is given away before.

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::cycle::Cycle;
use crate::info::Placement;
use crate::lanes::Lanes;
use crate::offers::Offer;
use crate::plan::{Rescind, RescindReason};
use crate::table::Id;

/// What is held too much, and shrinks as offers are taken back.
#[derive(Default)]
struct Excess {
    agents: HashMap<Id, Lanes>,
    queues: HashMap<Id, Lanes>,
}

impl Cycle<'_> {
    /// Returns the offers that should not be there, whatever else happens.
    pub(super) fn sweep(&mut self) -> BTreeSet<Id> {
        let mut excess = self.excess();
        let mut claims = self.claims();
        let state = self.state;
        let due = state.deadlines.range(..=(self.now_ms, Id::MAX)).map(|(_, id)| *id);
        let mut look: BTreeSet<Id> = due.chain(state.changes.suspects.iter().copied()).collect();
        if !excess.is_empty() || !claims.is_empty() || state.changes.new_weights {
            look.extend(state.offers.iter().map(|(id, _)| id));
        }
        let mut obsolete = BTreeSet::new();
        let next = state.deadlines.range((self.now_ms + 1, 0)..).next();
        self.plan.next_wake_ms = earlier(self.next_filter_end(), next.map(|(at, _)| *at));
        for id in look {
            let offer = &state.offers[id];
            if offer.answered {
                continue;
            }
            if offer.expires_at_ms.is_some_and(|at| at <= self.now_ms) {
                self.plan.expire.push(offer.key.clone());
                continue;
            }
            if let Some(reason) = self
                .obsolete(offer)
                .inspect(|_| {
                    obsolete.insert(id);
                })
                .or_else(|| excess.relieve(self, offer))
                .or_else(|| claims.relieve(self, offer))
                .or_else(|| self.outweighed(offer))
            {
                self.plan.rescind.push(Rescind { offer: offer.key.clone(), reason });
            }
        }
        obsolete
    }

    /// What queues are guaranteed and wait for, and is not free.
    fn claims(&self) -> Claims {
        let mut claims = Claims::default();
        if !self.ledger.has_guarantees() {
            return claims;
        }
        for (id, leaf) in self.state.leaves.iter() {
            let framework = &self.state.frameworks[leaf.framework];
            let waits = match framework.info.placement {
                Placement::Offers => {
                    let wanted = framework.demand.get(&id).into_iter().flatten();
                    let wants = framework.info.demand.is_none()
                        || wanted.map(|unit| unit.count).sum::<u64>() > 0;
                    leaf.listed && !leaf.suppressed && wants
                }
                Placement::Tasks => leaf.listed && !leaf.pending.is_empty(),
            };
            if waits && framework.known && framework.info.active {
                let unmet = self.ledger.unmet(leaf.queue);
                if !unmet.is_zero() {
                    claims.waiting.push(id);
                    claims.unmet = claims.unmet.max(&unmet);
                }
            }
        }
        claims.missing = claims.unmet.minus(&self.ledger.free_beyond(&claims.unmet));
        // A guarantee that was given just now has room from now on, whoever waits for it (as Mesos'
        // master makes it); one of old had it already, or was kept from it by tasks.
        if self.state.changes.new_guarantee {
            let short = self.ledger.short_of_guarantees();
            claims.unmet = claims.unmet.max(&short);
            claims.missing = claims.missing.max(&short);
        }
        claims
    }

    fn next_filter_end(&self) -> Option<u64> {
        let next = self.state.filter_ends.range((self.now_ms + 1, 0)..).next();
        next.map(|(until, _)| *until)
    }

    /// Why the offer should not be there, seen by itself.
    fn obsolete(&self, offer: &Offer) -> Option<RescindReason> {
        let leaf = &self.state.leaves[offer.held.leaf];
        let framework = &self.state.frameworks[leaf.framework];
        if !self.state.agents[offer.held.agent].is_open() {
            return Some(RescindReason::AgentNotAvailable);
        }
        let takes_offers = framework.info.placement == Placement::Offers;
        if !framework.known || !framework.info.active || !takes_offers {
            return Some(RescindReason::FrameworkNotActive);
        }
        (!leaf.listed).then_some(RescindReason::QueueLeft)
    }

    /// After a change of weights all that was offered whole is shared out anew (as Mesos' master
    /// does); what is cut to a demand would be offered again.
    fn outweighed(&self, offer: &Offer) -> Option<RescindReason> {
        (self.state.changes.new_weights && self.is_open_ended(offer))
            .then_some(RescindReason::WeightChanged)
    }

    fn excess(&self) -> Excess {
        let mut excess = Excess::default();
        for id in self.state.changes.overfull.iter().copied() {
            let agent = &self.state.agents[id];
            if agent.offers.is_empty() {
                continue;
            }
            let over = agent.allocated.plus(&agent.offered).minus(&agent.total);
            if !over.is_zero() {
                excess.agents.insert(id, over);
            }
        }
        for id in self.state.limited.iter().copied() {
            let queue = &self.state.queues[id];
            let over = queue.charged().minus(&queue.limit);
            if !over.is_zero() {
                excess.queues.insert(id, over);
            }
        }
        excess
    }
}

/// What is missing for guarantees, and who waits for it.
#[derive(Default)]
struct Claims {
    waiting: Vec<Id>,
    unmet: Lanes,
    missing: Lanes,
    /// Agents of which something was taken back: as many as there are frameworks that wait, so that
    /// each gets a chance (as Mesos' master does).
    agents: HashSet<Id>,
}

impl Claims {
    fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.missing.is_zero()
    }

    fn relieve(&mut self, cycle: &Cycle<'_>, offer: &Offer) -> Option<RescindReason> {
        let enough = self.missing.is_zero() && self.agents.len() >= self.waiting.len();
        if self.agents.is_empty() && self.missing.is_zero() || enough {
            return None;
        }
        let queue = cycle.state.leaves[offer.held.leaf].queue;
        let held = &offer.held.lanes;
        let useful = held.0.iter().zip(&self.unmet.0).any(|(held, want)| *held > 0 && *want > 0);
        // What is guaranteed to those who hold it stays with them.
        let book = &cycle.state.queues[queue];
        let theirs = !book.guarantee.is_zero() && !book.guarantee.fits(&book.charged().minus(held));
        if !useful || theirs {
            return None;
        }
        self.missing.sub(held);
        self.agents.insert(offer.held.agent);
        Some(RescindReason::QueueGuarantee)
    }
}

impl Excess {
    fn is_empty(&self) -> bool {
        self.agents.is_empty() && self.queues.is_empty()
    }

    /// Whether taking this offer back brings somebody nearer to what it may hold.
    fn relieve(&mut self, cycle: &Cycle<'_>, offer: &Offer) -> Option<RescindReason> {
        let overlaps = |over: &Lanes| {
            let lanes = over.0.iter().zip(&offer.held.lanes.0);
            lanes.into_iter().any(|(over, held)| *over > 0 && *held > 0)
        };
        let mut reason = None;
        let queue = cycle.state.leaves[offer.held.leaf].queue;
        let mut next = Some(queue);
        while let Some(id) = next {
            if self.queues.get(&id).is_some_and(overlaps) {
                reason = Some(RescindReason::QueueLimit);
            }
            next = cycle.state.queues[id].parent;
        }
        if self.agents.get(&offer.held.agent).is_some_and(overlaps) {
            reason = Some(RescindReason::AgentShrank);
        }
        reason?;
        if let Some(over) = self.agents.get_mut(&offer.held.agent) {
            over.sub(&offer.held.lanes);
        }
        let mut next = Some(queue);
        while let Some(id) = next {
            if let Some(over) = self.queues.get_mut(&id) {
                over.sub(&offer.held.lanes);
            }
            next = cycle.state.queues[id].parent;
        }
        reason
    }
}

pub(super) fn earlier(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
