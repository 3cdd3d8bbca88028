//! Steps of frameworks that answer offers themselves.

use crate::changes::Bits;
use crate::cycle::{Cycle, Step, order};
use crate::lanes::{Goods, Lanes};
use crate::parts::Piece;
use crate::plan::{NewOffer, Offers, Whole};
use crate::state::{Framework, Leaf};
use crate::table::Id;

/// The label that says in which region an agent is.
const REGION_LABEL: &str = "topology.kubernetes.io/region";

/// An offer in the making.
pub(super) struct Draft {
    pub(super) leaf: Id,
    pub(super) agent: Id,
    pub(super) lanes: Lanes,
    pub(super) goods: Goods,
    /// All goods of the agent, instead.
    pub(super) all: bool,
    pub(super) parts: Vec<Piece>,
}

/// Agents with something free, walked block by block; whole blocks of closed or refused ones are
/// skipped at the cost of one word.
pub(super) struct OpenAgents {
    /// Blocks of 64 agents, in the order of the run.
    order: Vec<u32>,
    /// Those of a block that are open, in the same order.
    words: Vec<u64>,
    /// All blocks before this one are done with.
    first: usize,
    left: usize,
    turn: u32,
}

impl OpenAgents {
    /// Of those that are looked at.
    pub(super) fn new(seen: &Bits, offerable: &Bits, seed: u64) -> Self {
        let words = seen.0.iter().zip(&offerable.0).map(|(seen, free)| seen & free);
        Self::of((0..).zip(words).filter(|(_, word)| *word != 0), seed)
    }

    /// Of these few.
    pub(super) fn few(look: &[Id], offerable: &Bits, seed: u64) -> Self {
        let mut ids: Vec<Id> = look.iter().copied().filter(|id| offerable.has(*id)).collect();
        ids.sort_unstable();
        let blocks = ids.chunk_by(|a, b| a / 64 == b / 64);
        let words = blocks
            .map(|ids| (ids[0] / 64, ids.iter().fold(0_u64, |word, id| word | 1 << (id % 64))));
        Self::of(words, seed)
    }

    fn of(words: impl Iterator<Item = (u32, u64)>, seed: u64) -> Self {
        let mut left = 0;
        let mut keyed: Vec<(u64, u32, u64)> = Vec::with_capacity(words.size_hint().0);
        for (block, word) in words {
            left += word.count_ones() as usize;
            keyed.push((order::chance(block, seed), block, word));
        }
        keyed.sort_unstable();
        let order = keyed.iter().map(|(_, block, _)| *block).collect();
        let words = keyed.iter().map(|(_, _, word)| *word).collect();
        Self { order, words, first: 0, left, turn: order::turn(seed) }
    }

    /// The first from place `at` on, with its place.
    fn from(&self, at: usize, refused: Option<&Bits>) -> Option<(usize, Id)> {
        let at = at.max(self.first * 64);
        let mut mask = u64::MAX << (at % 64);
        for (place, word) in self.words.iter().enumerate().skip(at / 64) {
            let block = self.order[place];
            let out = refused.map_or(0, |refused| refused.word(block as usize));
            let word = (word & !out).rotate_right(self.turn) & mask;
            if word != 0 {
                let offset = word.trailing_zeros();
                let id = block * 64 + (offset + self.turn) % 64;
                return Some((place * 64 + offset as usize, id));
            }
            mask = u64::MAX;
        }
        None
    }

    /// How many there are at most.
    pub(super) fn count(&self) -> usize {
        self.left
    }

    /// Whether there are any.
    pub(super) fn any(&self) -> bool {
        self.left > 0
    }

    /// The agent at this place is given out.
    fn close(&mut self, place: usize, agent: Id) {
        let (word, bit) = (&mut self.words[place / 64], 1 << (agent % 64));
        self.left -= usize::from(*word & bit != 0);
        *word &= !bit;
        while self.words.get(self.first) == Some(&0) {
            self.first += 1;
        }
    }
}

impl Cycle<'_> {
    /// One whole agent's free resources, shrunk to what the queue may still have: what Mesos gives
    /// a framework of which it knows nothing.
    pub(super) fn step_whole(&mut self, leaf_id: Id, at: &mut usize) -> Step {
        let state = self.state;
        let leaf = &state.leaves[leaf_id];
        let framework = &state.frameworks[leaf.framework];
        let unbounded = self.ledger.is_unbounded(leaf.queue);
        let room = if unbounded { Lanes::UNLIMITED } else { self.ledger.room(leaf.queue) };
        if !self.may_hold_more(leaf, framework)
            || !(unbounded || is_enough(framework, leaf_id, &room))
        {
            return Step::Done;
        }
        let refused = state.changes.refused.get(leaf_id as usize);
        let simple = state.options.region.is_none()
            && framework.info.agents.is_empty()
            && state.claimed.is_empty();
        while let Some((place, agent)) = self.open.from(*at, refused) {
            *at = place + 1;
            let free = self.free_of(agent);
            let as_it_is = free.has_whole_gpus() && (unbounded || free.fits(&room));
            let lanes = if as_it_is { *free } else { free.min(&room) };
            if !is_enough(framework, leaf_id, &lanes) {
                continue;
            }
            if !simple || state.changes.peculiar.has(agent) {
                let goods = self.goods_of(agent);
                let is_out = !self.is_for(framework, leaf.queue, agent)
                    || !self.may_come_first(framework, agent)
                    || self.is_refused(leaf_id, agent, &lanes, goods, &[]);
                if is_out {
                    continue;
                }
            }
            self.outstanding[leaf.framework as usize] += 1;
            let untouched = !self.stripped.has(agent);
            if self.whole_only && untouched && as_it_is {
                self.ledger.give(leaf_id, leaf.queue, &lanes);
                self.whole.push((leaf_id, agent));
                self.open.close(place, agent);
                return Step::Took;
            }
            self.draft_all(leaf_id, agent, &lanes);
            if self.free_of(agent).is_zero() {
                self.open.close(place, agent);
            }
            return Step::Took;
        }
        Step::Done
    }

    /// Drafts an offer with all that is there beside numbers.
    fn draft_all(&mut self, leaf: Id, agent: Id, lanes: &Lanes) {
        self.free[agent as usize].sub(lanes);
        let untouched = !self.stripped.has(agent) && !self.goods.contains_key(&agent);
        let goods = if untouched { Goods::default() } else { self.goods_of(agent).clone() };
        self.stripped.set(agent, true);
        self.ledger.give(leaf, self.state.leaves[leaf].queue, lanes);
        let parts = Vec::new();
        self.drafts.push(Draft { leaf, agent, lanes: *lanes, goods, all: untouched, parts });
    }

    pub(super) fn draft(&mut self, leaf: Id, agent: Id, lanes: &Lanes, goods: Goods) {
        self.take(leaf, agent, lanes, &goods);
        let parts = Vec::new();
        self.drafts.push(Draft { leaf, agent, lanes: *lanes, goods, all: false, parts });
    }

    pub(super) fn take(&mut self, leaf: Id, agent: Id, lanes: &Lanes, goods: &Goods) {
        self.free[agent as usize].sub(lanes);
        if !goods.is_empty() {
            let mut rest = self.goods_of(agent).clone();
            rest.sub(goods);
            self.goods.insert(agent, rest);
        }
        self.ledger.give(leaf, self.state.leaves[leaf].queue, lanes);
    }

    /// Turns what was given into offers.
    pub(super) fn publish(&mut self) {
        let state = self.state;
        let agents = std::mem::take(&mut self.whole);
        let whole = agents
            .into_iter()
            .map(|(leaf, agent)| {
                let goods = || &state.agents[agent].free_goods;
                Whole { leaf, agent, amount: self.free.amount_of(agent, &state.names, goods) }
            })
            .collect();
        let mut others = Vec::with_capacity(self.drafts.len());
        for draft in std::mem::take(&mut self.drafts) {
            let goods =
                if draft.all { &state.agents[draft.agent].free_goods } else { &draft.goods };
            let (to, timeout_ms) = &state.changes.names.seats[draft.leaf as usize];
            others.push(NewOffer {
                to: to.clone(),
                agent: state.agents[draft.agent].name.clone(),
                resources: self.free.amounts.print(&state.names, &draft.lanes, goods),
                parts: draft.parts.iter().map(|piece| piece.part(&state.names)).collect(),
                expires_at_ms: self.now_ms.saturating_add(*timeout_ms),
            });
        }
        let amounts = self.free.amounts.all();
        self.plan.offers =
            Offers::new(state.changes.names.clone(), amounts, self.now_ms, whole, others);
    }

    pub(super) fn may_hold_more(&self, leaf: &Leaf, framework: &Framework) -> bool {
        let more = self.outstanding[leaf.framework as usize] < framework.info.max_outstanding;
        self.capped.set(self.capped.get() || !more);
        more
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
#[inline]
pub(super) fn is_enough(framework: &Framework, leaf: Id, lanes: &Lanes) -> bool {
    !lanes.is_zero() && reaches_least(framework, leaf, lanes)
}

pub(super) fn reaches_least(framework: &Framework, leaf: Id, lanes: &Lanes) -> bool {
    let least = framework.least_in.get(&leaf).unwrap_or(&framework.least);
    least.is_empty() || least.iter().any(|least| least.fits(lanes))
}
