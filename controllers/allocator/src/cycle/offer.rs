//! Steps of frameworks that answer offers themselves.

use crate::cycle::{Cycle, Step};
use crate::lanes::{Goods, Lanes};
use crate::parts::Piece;
use crate::plan::NewOffer;
use crate::state::{Framework, Leaf, Unit};
use crate::table::Id;

/// The label that says in which region an agent is.
const REGION_LABEL: &str = "topology.kubernetes.io/region";

/// An offer in the making.
pub(super) struct Draft {
    pub(super) leaf: Id,
    pub(super) agent: Id,
    pub(super) lanes: Lanes,
    pub(super) goods: Goods,
    pub(super) parts: Vec<Piece>,
}

/// What is left of one entry of a framework's demand.
pub(super) struct UnitRun {
    unit: Unit,
    left: u64,
    /// Place among the packed agents.
    at: usize,
}

/// Places among the shuffled agents, of which closed ones are skipped at nearly no cost.
pub(super) struct OpenAgents(Vec<u32>);

impl OpenAgents {
    pub(super) fn new(open: impl Iterator<Item = bool>) -> Self {
        let mut next: Vec<u32> = Vec::new();
        for (place, open) in (0_u32..).zip(open) {
            next.push(if open { place } else { place + 1 });
        }
        next.push(u32::try_from(next.len()).expect("agents are counted in 32 bits"));
        Self(next)
    }

    /// The first open place from `at` on, or the number of places.
    fn from(&mut self, at: usize) -> usize {
        let last = self.0.len() - 1;
        let mut place = at.min(last);
        while self.0[place] as usize != place {
            let next = self.0[place] as usize;
            self.0[place] = self.0[next];
            place = next;
        }
        place
    }

    fn close(&mut self, at: usize) {
        self.0[at] += 1;
    }
}

impl Cycle<'_> {
    /// One whole agent's free resources, shrunk to what the queue may still have: what Mesos gives
    /// a framework of which it knows nothing.
    pub(super) fn step_whole(&mut self, leaf_id: Id, at: &mut usize) -> Step {
        let state = self.state;
        let leaf = &state.leaves[leaf_id];
        let framework = &state.frameworks[leaf.framework];
        let room = self.ledger.room(leaf.queue);
        if !self.may_hold_more(leaf, framework) || !is_enough(framework, leaf_id, &room) {
            return Step::Done;
        }
        loop {
            *at = self.open.from(*at);
            let Some(agent) = self.shuffled.get(*at).copied() else { return Step::Done };
            let lanes = self.free_of(agent).min(&room);
            let goods = self.goods_of(agent);
            if is_enough(framework, leaf_id, &lanes)
                && self.is_for(framework, leaf.queue, agent)
                && self.may_come_first(framework, agent)
                && !self.is_refused(leaf_id, agent, &lanes, goods, &[])
            {
                let goods = goods.clone();
                self.draft(leaf_id, agent, &lanes, goods);
                self.outstanding[leaf.framework as usize] += 1;
                if self.free_of(agent).is_zero() {
                    self.open.close(*at);
                }
                *at += 1;
                return Step::Took;
            }
            *at += 1;
        }
    }

    /// One more unit of declared demand, on the first agent that has it; units on one agent become
    /// one offer.
    pub(super) fn step_demand(&mut self, leaf_id: Id, runs: &mut [UnitRun]) -> Step {
        let leaf = &self.state.leaves[leaf_id];
        let room = self.ledger.room(leaf.queue);
        for run in runs.iter_mut().filter(|run| run.left > 0) {
            if !run.unit.lanes.fits(&room) {
                run.left = 0;
                continue;
            }
            while let Some(agent) = self.packed.get(run.at).copied() {
                if let Some(goods) = self.unit_on(leaf_id, agent, &run.unit) {
                    let lanes = run.unit.lanes;
                    self.draft_unit(leaf_id, agent, &lanes, goods);
                    run.left -= 1;
                    return Step::Took;
                }
                run.at += 1;
            }
            run.left = 0;
        }
        Step::Done
    }

    /// The goods that the unit would get there; `None` if it can't go there.
    fn unit_on(&self, leaf_id: Id, agent: Id, unit: &Unit) -> Option<Goods> {
        let leaf = &self.state.leaves[leaf_id];
        let framework = &self.state.frameworks[leaf.framework];
        let may = unit.lanes.fits(self.free_of(agent))
            && self.is_for(framework, leaf.queue, agent)
            && self.may_come_first(framework, agent)
            && (self.draft_of.contains_key(&(leaf_id, agent))
                || self.may_hold_more(leaf, framework));
        if !may {
            return None;
        }
        let (ports, _) = self.goods_of(agent).ports.take(unit.ports)?;
        let goods = Goods { ports: ports.into_iter().collect(), ..Goods::default() };
        (!self.is_refused(leaf_id, agent, &unit.lanes, &goods, &[])).then_some(goods)
    }

    /// What is left of a demand after the offers that stand for it already.
    pub(super) fn open_demand(&self, leaf: &Leaf, units: &[Unit]) -> Vec<UnitRun> {
        let something = |unit: &&Unit| !unit.lanes.is_zero() || unit.ports > 0;
        let mut runs: Vec<UnitRun> = units
            .iter()
            .filter(something)
            .map(|unit| UnitRun { unit: unit.clone(), left: unit.count, at: 0 })
            .collect();
        for offer in leaf.offers.iter().map(|id| &self.state.offers[*id]) {
            let mut rest = offer.held.lanes;
            for run in runs.iter_mut().filter(|_| !offer.answered) {
                let covered = run.unit.lanes.times_in(&rest, run.left);
                rest.sub(&run.unit.lanes.times(covered));
                run.left -= covered;
            }
        }
        runs
    }

    fn draft(&mut self, leaf: Id, agent: Id, lanes: &Lanes, goods: Goods) {
        self.take(leaf, agent, lanes, &goods);
        self.drafts.push(Draft { leaf, agent, lanes: *lanes, goods, parts: Vec::new() });
    }

    /// Adds to the draft that the leaf has of this agent, or begins it.
    fn draft_unit(&mut self, leaf: Id, agent: Id, lanes: &Lanes, goods: Goods) {
        if let Some(at) = self.draft_of.get(&(leaf, agent)).copied() {
            self.take(leaf, agent, lanes, &goods);
            self.drafts[at].lanes.add(lanes);
            self.drafts[at].goods.add(&goods);
            return;
        }
        self.outstanding[self.state.leaves[leaf].framework as usize] += 1;
        self.draft_of.insert((leaf, agent), self.drafts.len());
        self.draft(leaf, agent, lanes, goods);
    }

    fn take(&mut self, leaf: Id, agent: Id, lanes: &Lanes, goods: &Goods) {
        self.free[agent as usize].sub(lanes);
        if !goods.is_empty() {
            let mut rest = self.goods_of(agent).clone();
            rest.sub(goods);
            self.goods[agent as usize] = Some(rest);
        }
        self.ledger.give(leaf, self.state.leaves[leaf].queue, lanes);
    }

    pub(super) fn publish(&self, draft: &Draft) -> NewOffer {
        let leaf = &self.state.leaves[draft.leaf];
        let timeout_ms = self.state.frameworks[leaf.framework].info.offer_timeout_ms;
        NewOffer {
            framework: leaf.framework_key.clone(),
            queue: self.state.queues[leaf.queue].path.clone(),
            agent: self.state.agents[draft.agent].name.clone(),
            resources: self.state.names.resources(&draft.lanes, Some(&draft.goods)),
            parts: draft.parts.iter().map(|piece| piece.part(&self.state.names)).collect(),
            expires_at_ms: self.now_ms.saturating_add(timeout_ms),
        }
    }

    pub(super) fn may_hold_more(&self, leaf: &Leaf, framework: &Framework) -> bool {
        self.outstanding[leaf.framework as usize] < framework.info.max_outstanding
    }

    /// Whether the framework is sent offers of this agent at all.
    pub(super) fn is_for(&self, framework: &Framework, queue: Id, agent: Id) -> bool {
        let agent = &self.state.agents[agent];
        let foreign = self.state.options.region.as_ref().is_some_and(|home| {
            agent.labels.get(REGION_LABEL).is_some_and(|region| region != home)
        });
        let hidden_gpus = self.state.options.filter_gpus && !framework.info.gpu && agent.has_gpus();
        if hidden_gpus || agent.single_queue {
            return false;
        }
        let is_nested = |queue: Id| {
            let parent = self.state.queues[queue].parent;
            parent.is_some_and(|parent| self.state.queues[parent].parent.is_some())
        };
        (!agent.flat_queues || !is_nested(queue))
            && (framework.info.region_aware || !foreign)
            && (framework.info.agents.is_empty() || framework.info.agents.matches(&agent.labels))
    }

    /// What was taken back for waiting tasks goes to them before those who would let it lie: in
    /// this one plan only frameworks that do answer compete with them for it, and one that never had
    /// an offer yet if it is the first to be tried. A silent one gets its next chance later.
    pub(super) fn may_come_first(&self, framework: &Framework, agent: Id) -> bool {
        let state = self.state;
        !state.claimed.contains(&agent)
            || framework.answers.unwrap_or_else(|| state.claims.get(&agent) <= Some(&1))
    }

    pub(super) fn is_refused(
        &self,
        leaf: Id,
        agent: Id,
        lanes: &Lanes,
        goods: &Goods,
        parts: &[Piece],
    ) -> bool {
        let filters = &self.state.agents[agent].filters;
        filters.iter().any(|filter| filter.blocks(leaf, lanes, goods, parts))
    }
}

/// Whether an offer of so much is worth sending.
pub(super) fn is_enough(framework: &Framework, leaf: Id, lanes: &Lanes) -> bool {
    !lanes.is_zero() && reaches_least(framework, leaf, lanes)
}

pub(super) fn reaches_least(framework: &Framework, leaf: Id, lanes: &Lanes) -> bool {
    let least = framework.least_in.get(&leaf).unwrap_or(&framework.least);
    least.is_empty() || least.iter().any(|least| least.fits(lanes))
}
