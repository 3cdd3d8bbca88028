//! Offers for declared demand: whole multiples of what one task needs, and none beyond it.

use crate::cycle::offer::Draft;
use crate::cycle::{Cycle, Run, Step};
use crate::lanes::{Goods, Lanes};
use crate::parts::{self, Piece};
use crate::state::{Framework, Leaf, Unit};
use crate::table::Id;

/// What is left of one entry of a framework's demand.
pub(super) struct UnitRun {
    unit: Unit,
    left: u64,
    /// Place among the packed agents.
    at: usize,
}

impl Cycle<'_> {
    /// What is reserved for a queue serves its frameworks' demand before anything else and whoever's
    /// turn it is; with it come the volumes that are there.
    pub(super) fn offer_reserved(&mut self, runs: &mut [Option<Run>]) {
        if self.sources.agents.is_empty() {
            return;
        }
        for (leaf, run) in (0..).zip(runs.iter_mut()) {
            let Some(Run::Demand(units)) = run else { continue };
            for at in 0..self.sources.agents.len() {
                if units.iter().all(|unit| unit.left == 0) {
                    break;
                }
                self.offer_reserved_on(leaf, self.sources.agents[at], units);
            }
        }
    }

    fn offer_reserved_on(&mut self, leaf_id: Id, agent: Id, units: &mut [UnitRun]) {
        let leaf = &self.state.leaves[leaf_id];
        let framework = &self.state.frameworks[leaf.framework];
        let may = self.is_for(framework, leaf.queue, agent)
            && self.may_come_first(framework, agent)
            && self.may_hold_more(leaf, framework);
        if !may {
            return;
        }
        let mine = self.reserved_pieces(framework, leaf.queue, agent);
        let (volumes, mut there): (Vec<Piece>, Vec<Piece>) =
            mine.into_iter().partition(|piece| piece.kind.volume.is_some());
        let (mut offered, mut served) = (Vec::new(), Vec::new());
        for unit in units.iter().map(|run| (&run.unit, run.left)) {
            let count = times_in(unit.0, unit.1, &there);
            served.push(count);
            if count > 0 {
                cut(&mut there, unit.0, count, &mut offered);
            }
        }
        let none = Goods::default();
        if offered.is_empty() || self.is_refused(leaf_id, agent, &Lanes::ZERO, &none, &offered) {
            return;
        }
        for (run, count) in units.iter_mut().zip(served) {
            run.left -= count;
        }
        self.move_parts(agent, std::slice::from_ref(&offered), true);
        if let Some(pieces) = self.pieces.get_mut(&agent) {
            pieces.retain(|piece| !volumes.iter().any(|volume| volume.kind == piece.kind));
        }
        offered.extend(volumes);
        let held = parts::sum(&offered);
        self.ledger.give_parts(leaf_id, leaf.queue, &held, &Lanes::ZERO);
        self.outstanding[leaf.framework as usize] += 1;
        self.draft_of.insert((leaf_id, agent), self.drafts.len());
        let (lanes, goods) = (Lanes::ZERO, Goods::default());
        let draft = Draft { leaf: leaf_id, agent, lanes, goods, all: false, parts: offered };
        self.drafts.push(draft);
    }

    /// What is reserved for the queue or one above it, and not shared.
    fn reserved_pieces(&self, framework: &Framework, queue: Id, agent: Id) -> Vec<Piece> {
        let pieces = self.pieces.get(&agent).into_iter().flatten();
        let mine = pieces.filter(|piece| {
            let owner = piece.kind.owner();
            owner.is_some_and(|owner| self.is_at_or_below(queue, owner))
                && self.is_usable(framework, piece)
                && !piece.kind.shared
                && !piece.is_empty()
        });
        mine.cloned().collect()
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
            while let Some(agent) = self.asked(leaf_id).get(run.at).copied() {
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

    /// Where the leaf may find something, in order.
    fn asked(&mut self, leaf: Id) -> &[Id] {
        match self.everything || !self.state.changes.asking.contains(&leaf) {
            true => &self.packed,
            false => self.all_packed(),
        }
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
            let mut rest = offer.held.lanes.plus(&parts::sum(&offer.held.parts));
            for run in runs.iter_mut().filter(|_| !offer.answered) {
                let covered = run.unit.lanes.times_in(&rest, run.left);
                rest.sub(&run.unit.lanes.times(covered));
                run.left -= covered;
            }
        }
        runs
    }

    /// How much of a demand neither an offer nor a draft of this run stands for.
    pub(super) fn unserved_demand(&self, id: Id, units: &[Unit]) -> Vec<(Unit, u64)> {
        let mut runs = self.open_demand(&self.state.leaves[id], units);
        for draft in self.drafts.iter().filter(|draft| draft.leaf == id) {
            let mut rest = draft.lanes.plus(&parts::sum(&draft.parts));
            for run in &mut runs {
                let covered = run.unit.lanes.times_in(&rest, run.left);
                rest.sub(&run.unit.lanes.times(covered));
                run.left -= covered;
            }
        }
        runs.into_iter().map(|run| (run.unit, run.left)).collect()
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
}

/// How often a unit is in these pieces together, at most `most` times.
fn times_in(unit: &Unit, most: u64, pieces: &[Piece]) -> u64 {
    let ports: usize = pieces.iter().map(|piece| piece.goods.ports.len()).sum();
    let most = ports.checked_div(unit.ports).map_or(most, |times| most.min(times as u64));
    unit.lanes.times_in(&parts::sum(pieces), most)
}

/// Moves so many units out of `from`, piece by piece.
fn cut(from: &mut [Piece], unit: &Unit, count: u64, to: &mut Vec<Piece>) {
    let (mut lanes, mut ports) = (unit.lanes.times(count), unit.ports * count as usize);
    for piece in from {
        let mut taken = Piece {
            kind: piece.kind.clone(),
            lanes: lanes.min(&piece.lanes),
            goods: Goods::default(),
        };
        let most = ports.min(piece.goods.ports.len());
        if let Some((picked, _)) = piece.goods.ports.take(most) {
            taken.goods.ports = picked.into_iter().collect();
            ports -= most;
        }
        lanes.sub(&taken.lanes);
        piece.lanes.sub(&taken.lanes);
        piece.goods.sub(&taken.goods);
        if taken.is_empty() {
            continue;
        }
        match to.iter_mut().find(|other| other.kind == taken.kind) {
            Some(other) => {
                other.lanes.add(&taken.lanes);
                other.goods.add(&taken.goods);
            }
            None => to.push(taken),
        }
    }
}
