//! Whole agents, given out agent by agent in Mesos' two stages: first what is guaranteed, then what
//! fairness gives, with what is reserved for a queue going to it in both.

use crate::cycle::chance;
use crate::cycle::fair::Contest;
use crate::cycle::offer::{Draft, reaches_least};
use crate::cycle::order::{in_order, shuffle};
use crate::cycle::ranked::Ranked;
use crate::cycle::{Cycle, Run, Step};
use crate::lanes::{Goods, Lanes};
use crate::parts::{self, Piece};
use crate::state::Framework;
use crate::table::Id;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Guarantees,
    Fair,
}

/// What of an agent a leaf could be given.
struct Share {
    lanes: Lanes,
    goods: Goods,
    parts: Vec<Piece>,
}

impl Cycle<'_> {
    /// The leaves that are served agent by agent. They leave the contest, unless there are others
    /// in it with whom they must share fairly: then they come back for the rest.
    pub(super) fn take_whole(&self, runs: &mut [Option<Run>]) -> Vec<Id> {
        let options = &self.state.options;
        let special = self.state.changes.with_parts > 0 || self.ledger.has_guarantees();
        if !options.agent_by_agent && !special {
            return Vec::new();
        }
        let alone = runs.iter().flatten().all(|run| matches!(run, Run::Whole(_)));
        let mut whole = Vec::new();
        for (id, run) in (0..).zip(runs.iter_mut()) {
            if matches!(run, Some(Run::Whole(_))) {
                whole.push(id);
                if alone {
                    *run = None;
                }
            }
        }
        whole
    }

    pub(super) fn stages(&mut self, leaves: &[Id]) {
        if leaves.is_empty() {
            return;
        }
        let mut agents = in_order(&self.seen.and(&self.state.changes.something), self.seed);
        if self.ledger.has_guarantees() {
            let guaranteed: Vec<Id> = leaves
                .iter()
                .copied()
                .filter(|leaf| self.ledger.is_guaranteed(self.state.leaves[*leaf].queue))
                .collect();
            self.stage(Stage::Guarantees, &agents, &guaranteed);
            shuffle(&mut agents, self.seed ^ 1);
        }
        self.stage(Stage::Fair, &agents, leaves);
    }

    fn stage(&mut self, stage: Stage, agents: &[Id], leaves: &[Id]) {
        if self.ledger.is_random() {
            self.stage_by_chance(stage, agents, leaves);
            return;
        }
        let mut ranked = Ranked::new(self.state, &self.ledger, leaves);
        let least = self.least_of(leaves);
        // By leaf: in which lanes it was seen to want something. It never wants more.
        let mut wanted = vec![u16::MAX; self.state.leaves.span()];
        for agent in agents {
            if ranked.is_empty() {
                return;
            }
            let (mut took, mut done) = (Vec::new(), Vec::new());
            let plain = stage == Stage::Guarantees && !self.pieces.contains_key(agent);
            let mut free = self.free_of(*agent).mask();
            let mut go_on = !self.is_given_out(*agent) && self.is_worth_sending(*agent, &least);
            for leaf in ranked.iter() {
                if !go_on {
                    break;
                }
                if plain && wanted[leaf as usize] & free == 0 {
                    continue;
                }
                if self.is_served(stage, leaf, &mut wanted[leaf as usize]) {
                    done.push(leaf);
                } else if plain && wanted[leaf as usize] & free == 0 {
                    continue;
                } else if let Some(share) = self.share(stage, leaf, *agent) {
                    self.grant(leaf, *agent, share);
                    took.push(leaf);
                    free = self.free_of(*agent).mask();
                    go_on = !self.is_given_out(*agent) && self.is_worth_sending(*agent, &least);
                }
            }
            for leaf in done {
                ranked.remove(&self.ledger, leaf, self.state.leaves[leaf].queue);
            }
            for leaf in took {
                ranked.settle(&self.ledger, leaf, self.state.leaves[leaf].queue);
            }
        }
    }

    /// What offers must reach, one of these, for any of the leaves; nothing: anything will do.
    fn least_of(&self, leaves: &[Id]) -> Vec<Lanes> {
        let mut all = Vec::new();
        for leaf in leaves {
            let framework = &self.state.frameworks[self.state.leaves[*leaf].framework];
            let least = framework.least_in.get(leaf).unwrap_or(&framework.least);
            if least.is_empty() {
                return Vec::new();
            }
            for lanes in least {
                if !all.contains(lanes) {
                    all.push(*lanes);
                }
            }
        }
        all
    }

    /// Whether what is left of the agent is enough for anybody.
    fn is_worth_sending(&self, agent: Id, least: &[Lanes]) -> bool {
        let mut free = *self.free_of(agent);
        for piece in self.pieces.get(&agent).into_iter().flatten() {
            free.add(&piece.lanes);
        }
        least.is_empty() || least.iter().any(|least| least.fits(&free))
    }

    /// Whether the leaf gets nothing more in this stage, of any agent: what it may have only
    /// shrinks within a run.
    fn is_served(&self, stage: Stage, leaf_id: Id, wanted: &mut u16) -> bool {
        let with_parts = self.state.changes.with_parts > 0;
        if with_parts && stage == Stage::Fair {
            return false;
        }
        let leaf = &self.state.leaves[leaf_id];
        let limit = self.ledger.below_limits(leaf.queue);
        match stage {
            Stage::Guarantees => {
                *wanted = self.ledger.unmet(leaf.queue).min(&limit).mask();
                *wanted == 0
            }
            Stage::Fair => {
                let framework = &self.state.frameworks[leaf.framework];
                let room = limit.min(&self.ledger.surplus());
                !reaches_least(framework, leaf_id, &room)
            }
        }
    }

    fn stage_by_chance(&mut self, stage: Stage, agents: &[Id], leaves: &[Id]) {
        let mut order: Vec<Id> = Vec::new();
        for agent in agents {
            if leaves.is_empty() || self.is_given_out(*agent) {
                continue;
            }
            if order.is_empty() {
                order = self.order(leaves);
            }
            let mut changed = self.ledger.is_random();
            for leaf in &order {
                if self.is_given_out(*agent) {
                    break;
                }
                if let Some(share) = self.share(stage, *leaf, *agent) {
                    self.grant(*leaf, *agent, share);
                    changed = true;
                }
            }
            if changed {
                order.clear();
            }
        }
    }

    /// All of them, in the order in which they are served as things stand.
    pub(super) fn order(&self, leaves: &[Id]) -> Vec<Id> {
        if self.ledger.is_random() {
            return chance::order(self.state, &self.ledger, leaves);
        }
        let mut contest = Contest::new(self.state, &self.ledger, leaves.iter().copied());
        let mut order = Vec::with_capacity(leaves.len());
        while let Some(leaf) = contest.next() {
            order.push(leaf);
            contest.settle(&self.ledger, self.state.leaves[leaf].queue, Step::Done);
        }
        order
    }

    fn is_given_out(&self, agent: Id) -> bool {
        self.free_of(agent).is_zero()
            && self.goods_of(agent).is_empty()
            && self.pieces.get(&agent).is_none_or(Vec::is_empty)
    }

    /// What the leaf gets of the agent now, if it gets anything.
    fn share(&self, stage: Stage, leaf_id: Id, agent: Id) -> Option<Share> {
        let leaf = &self.state.leaves[leaf_id];
        let framework = &self.state.frameworks[leaf.framework];
        let fresh = !self.draft_of.contains_key(&(leaf_id, agent));
        let may = self.is_for(framework, leaf.queue, agent)
            && self.may_come_first(framework, agent)
            && (!fresh || self.may_hold_more(leaf, framework));
        if !may {
            return None;
        }
        let pieces: Vec<&Piece> = self.pieces.get(&agent).into_iter().flatten().collect();
        let mine = |piece: &&&Piece| {
            self.is_usable(framework, piece)
                && !self.is_shared_out(agent, piece)
                && self.is_reserved_for(stage, leaf.queue, piece)
        };
        let mut parts: Vec<Piece> =
            pieces.iter().filter(mine).map(|piece| (*piece).clone()).collect();
        let whole: Vec<&Piece> = pieces
            .iter()
            .copied()
            .filter(|piece| piece.kind.is_charged() && self.is_usable(framework, piece))
            .filter(|piece| !self.is_shared_out(agent, piece))
            .collect();
        let lanes = match stage {
            Stage::Guarantees => self.guaranteed(leaf.queue, agent, &whole, &mut parts)?,
            Stage::Fair => {
                let mut room = self.ledger.below_limits(leaf.queue).min(&self.ledger.surplus());
                take_whole_pieces(&whole, &mut room, &mut parts);
                self.free_of(agent).min(&room)
            }
        };
        let revocable = pieces.iter().filter(|piece| {
            piece.kind.revocable
                && piece.kind.reserved.is_empty()
                && self.is_usable(framework, piece)
        });
        parts.extend(revocable.map(|piece| (*piece).clone()));
        let share = Share { lanes, goods: self.goods_of(agent).clone(), parts };
        let all = share.lanes.plus(&parts::sum(&share.parts));
        let anything =
            !all.is_zero() || !share.goods.is_empty() || share.parts.iter().any(|p| !p.is_empty());
        let wanted = anything
            && reaches_least(framework, leaf_id, &all)
            && !self.is_refused(leaf_id, agent, &share.lanes, &share.goods, &share.parts);
        wanted.then_some(share)
    }

    /// What is guaranteed to the queue and it does not have; with it, all else that nobody needs more. `None`: nothing
    /// of it is here. What is reserved for the queue is no progress: that comes with the second stage, if alone.
    fn guaranteed(
        &self,
        queue: Id,
        agent: Id,
        whole: &[&Piece],
        parts: &mut Vec<Piece>,
    ) -> Option<Lanes> {
        let free = self.free_of(agent);
        let limit = self.ledger.below_limits(queue);
        let mut unmet = self.ledger.unmet(queue).min(&limit);
        let before = parts.len();
        let named = unmet;
        let fitting: Vec<&Piece> =
            whole.iter().copied().filter(|piece| piece.lanes.only(&named) == piece.lanes).collect();
        take_whole_pieces(&fitting, &mut unmet, parts);
        let first = free.min(&unmet);
        let taken = first.plus(&parts::sum(&parts[before..]));
        if taken.is_zero() {
            return None;
        }
        // What counts towards a guarantee leaves what others need as it is.
        let mut room = limit.minus(&taken).min(&self.ledger.surplus());
        let rest: Vec<&Piece> = whole
            .iter()
            .copied()
            .filter(|piece| !parts[before..].iter().any(|taken| taken.kind == piece.kind))
            .collect();
        take_whole_pieces(&rest, &mut room, parts);
        Some(first.plus(&free.minus(&first).min(&room)))
    }

    pub(super) fn is_usable(&self, framework: &Framework, piece: &Piece) -> bool {
        let info = &framework.info;
        (info.revocable || !piece.kind.revocable)
            && (info.shared || !piece.kind.shared)
            && (info.refined || piece.kind.reserved.len() < 2)
    }

    /// One run offers what is shared once.
    fn is_shared_out(&self, agent: Id, piece: &Piece) -> bool {
        piece.kind.shared
            && self.shared.get(&agent).is_some_and(|out| out.iter().any(|p| p.kind == piece.kind))
    }

    /// Reserved for the queue, or (once guarantees are met) for one above it.
    fn is_reserved_for(&self, stage: Stage, queue: Id, piece: &Piece) -> bool {
        let Some(owner) = piece.kind.owner() else { return false };
        let path = &*self.state.queues[queue].path;
        let below = || path.strip_prefix(owner).is_some_and(|rest| rest.starts_with('.'));
        owner == path || (stage == Stage::Fair && below())
    }

    fn grant(&mut self, leaf: Id, agent: Id, share: Share) {
        self.free[agent as usize].sub(&share.lanes);
        if !share.goods.is_empty() {
            let mut rest = self.goods_of(agent).clone();
            rest.sub(&share.goods);
            self.goods.insert(agent, rest);
        }
        let (mut held, mut charged) = (share.lanes, share.lanes);
        for piece in &share.parts {
            if piece.kind.shared {
                self.shared.entry(agent).or_default().push(piece.clone());
            }
            if !piece.kind.shared || !self.holds_shared(leaf, agent, piece) {
                held.add(&piece.lanes);
            }
            if piece.kind.is_charged() {
                charged.add(&piece.lanes);
            }
        }
        if let Some(pieces) = self.pieces.get_mut(&agent) {
            pieces.retain(|piece| !share.parts.iter().any(|taken| taken.kind == piece.kind));
        }
        self.ledger.give_parts(leaf, self.state.leaves[leaf].queue, &held, &charged);
        if let Some(at) = self.draft_of.get(&(leaf, agent)) {
            let draft = &mut self.drafts[*at];
            draft.lanes.add(&share.lanes);
            draft.goods.add(&share.goods);
            draft.parts.extend(share.parts);
            return;
        }
        self.outstanding[self.state.leaves[leaf].framework as usize] += 1;
        self.draft_of.insert((leaf, agent), self.drafts.len());
        let Share { lanes, goods, parts } = share;
        self.drafts.push(Draft { leaf, agent, lanes, goods, all: false, parts });
    }

    fn holds_shared(&self, leaf: Id, agent: Id, piece: &Piece) -> bool {
        let node = parts::Node::Leaf(leaf);
        self.state.sharing.contains_key(&(node, agent, piece.kind.clone()))
    }

    /// The leaves to whom this run offers something of the agent.
    pub(crate) fn drafts_on(&self, agent: Id) -> impl Iterator<Item = Id> {
        let drafts = self.drafts.iter().map(|draft| (draft.leaf, draft.agent));
        let all = drafts.chain(self.whole.iter().copied());
        all.filter(move |(_, on)| *on == agent).map(|(leaf, _)| leaf)
    }
}

/// Takes those of the pieces for which there is room, each as a whole if it can't be split.
fn take_whole_pieces(pieces: &[&Piece], room: &mut Lanes, parts: &mut Vec<Piece>) {
    for piece in pieces {
        if piece.lanes.fits(room) {
            room.sub(&piece.lanes);
            parts.push((*piece).clone());
        }
    }
}
