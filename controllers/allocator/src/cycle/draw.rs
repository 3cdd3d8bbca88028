//! Tasks on what their agent has for some only: what is reserved for their queue or one above it,
//! and, for those that can be killed at any time, what is lent. That counts whether it is used or
//! not, so it goes first, and what is plain only has to make up the rest.

use std::collections::{HashMap, HashSet};

use crate::cycle::Cycle;
use crate::cycle::fit::Bundle;
use crate::lanes::{Goods, Lanes};
use crate::parts::{self, Piece};
use crate::table::Id;

/// Where to look for parts that tasks may take.
#[derive(Default)]
pub(super) struct Sources {
    /// Agents that have any parts, in the order of the run.
    pub(super) agents: Vec<Id>,
    /// Those of them that have something for a queue; the flag: also what is lent.
    of_queue: HashMap<(Id, bool), Vec<Id>>,
    /// Shapes of single tasks for which the run has found nothing: it never gets more.
    hopeless: HashSet<(Id, bool, Id)>,
}

impl Sources {
    /// Something was given back after all.
    pub(super) fn hope(&mut self) {
        self.hopeless.clear();
    }
}

/// What a bundle takes out of parts of an agent, and what else it needs there.
#[derive(Debug, Default)]
pub(super) struct Draw {
    /// In the order of the bundle's tasks.
    pub(super) parts: Vec<Vec<Piece>>,
    /// Ports out of parts for those that any will do for, in the same order.
    picked: Vec<Vec<u16>>,
    /// What has to be plain.
    pub(super) lanes: Lanes,
    pub(super) goods: Goods,
    pub(super) picks: usize,
}

impl Draw {
    /// All picked ports in the order of tasks, with plain ones where parts had too few.
    pub(super) fn ports(&self, plain: Vec<u16>, picks: impl Iterator<Item = usize>) -> Vec<u16> {
        let mut plain = plain.into_iter();
        let mut ports = Vec::new();
        for (own, picks) in self.picked.iter().zip(picks) {
            ports.extend(own);
            ports.extend(plain.by_ref().take(picks - own.len()));
        }
        ports
    }
}

impl Cycle<'_> {
    /// The first agent on which the bundle fits with what it may take out of parts there.
    pub(super) fn find_draw(&mut self, bundle: &Bundle, room: &Lanes) -> Option<(Id, Draw)> {
        if self.sources.agents.is_empty() {
            return None;
        }
        if self.state.tasks[bundle.tasks[0]].only_plain {
            return None;
        }
        let queue = self.state.leaves[self.state.tasks[bundle.tasks[0]].leaf].queue;
        let lent = bundle.tasks.iter().any(|task| self.state.tasks[*task].revocable);
        let single = match bundle.shapes[..] {
            [shape] if bundle.pinned.is_none() => Some((queue, lent, shape)),
            _ => None,
        };
        if single.is_some_and(|single| self.sources.hopeless.contains(&single)) {
            return None;
        }
        let agents = match self.sources.of_queue.remove(&(queue, lent)) {
            Some(agents) => agents,
            None => self.agents_for(queue, lent),
        };
        let picky = self.shapes(bundle).any(|shape| !shape.preferred.is_empty());
        let pinned = |agent: &Id| bundle.pinned.is_none_or(|pinned| pinned == *agent);
        let mut found = None;
        for preferred in [true, false].into_iter().skip(usize::from(!picky)) {
            let suitable = agents.iter().copied().filter(pinned).filter(|agent| {
                (!preferred || self.is_preferred(bundle, *agent)) && self.suits(bundle, *agent)
            });
            found = found.or_else(|| {
                let mut drawn = suitable.filter_map(|at| Some((at, self.draw(bundle, at, room)?)));
                drawn.next()
            });
        }
        self.sources.of_queue.insert((queue, lent), agents);
        if found.is_none() {
            self.sources.hopeless.extend(single);
        }
        found
    }

    fn agents_for(&self, queue: Id, lent: bool) -> Vec<Id> {
        let has =
            |agent: &&Id| self.pieces[*agent].iter().any(|p| self.is_drawable(queue, lent, p));
        self.sources.agents.iter().filter(has).copied().collect()
    }

    /// Whether tasks of the queue may take of it.
    fn is_drawable(&self, queue: Id, lent: bool, piece: &Piece) -> bool {
        piece.is_for(&self.state.queues[queue].path, lent)
    }

    pub(super) fn is_at_or_below(&self, queue: Id, owner: &str) -> bool {
        parts::is_at_or_below(&self.state.queues[queue].path, owner)
    }

    /// All that tasks of the bundle could take of these parts.
    pub(super) fn drawable(&self, bundle: &Bundle, pieces: &[Piece]) -> (Lanes, Goods) {
        let queue = self.state.leaves[self.state.tasks[bundle.tasks[0]].leaf].queue;
        let lent = bundle.tasks.iter().any(|task| self.state.tasks[*task].revocable);
        let (mut lanes, mut goods) = (Lanes::ZERO, Goods::default());
        if self.state.tasks[bundle.tasks[0]].only_plain {
            return (lanes, goods);
        }
        for piece in pieces.iter().filter(|piece| self.is_drawable(queue, lent, piece)) {
            lanes.add(&piece.lanes);
            goods.add(&piece.goods);
        }
        (lanes, goods)
    }

    /// What they could take on the agent, if these parts came back.
    pub(super) fn own_on(&self, bundle: &Bundle, agent: Id, back: &[Piece]) -> (Lanes, Goods) {
        let there = self.pieces.get(&agent).map_or(&[][..], Vec::as_slice);
        if bundle.tasks.is_empty() || there.is_empty() && back.is_empty() {
            return (Lanes::ZERO, Goods::default());
        }
        let (mut lanes, mut goods) = self.drawable(bundle, there);
        let (more, more_goods) = self.drawable(bundle, back);
        lanes.add(&more);
        goods.add(&more_goods);
        (lanes, goods)
    }

    /// Counts parts as free that were held.
    pub(super) fn return_parts(&mut self, agent: Id, back: &[Piece]) {
        let Some(pieces) = self.pieces.get_mut(&agent) else { return };
        for piece in back.iter().filter(|piece| !piece.kind.shared) {
            if pieces.iter().any(|there| there.kind == piece.kind) {
                parts::put_back(pieces, piece);
            } else {
                pieces.push(piece.clone());
            }
        }
        self.sources.of_queue.clear();
        self.sources.hope();
    }

    /// What the bundle takes there; `None` if there is nothing for it, or too little of the rest.
    pub(super) fn draw(&self, bundle: &Bundle, agent: Id, room: &Lanes) -> Option<Draw> {
        let named: usize = self.shapes(bundle).map(|shape| shape.goods.ports.len()).sum();
        if named != bundle.goods.ports.len() {
            // Two of a group name the same port.
            return None;
        }
        let mut there = self.pieces.get(&agent)?.clone();
        // What can be taken back at any time goes before what is promised.
        there.sort_by_key(|piece| !piece.kind.revocable);
        let mut draw = Draw::default();
        for task in &bundle.tasks {
            self.draw_for(*task, bundle, &mut there, &mut draw)?;
        }
        if draw.parts.iter().all(Vec::is_empty) {
            return None;
        }
        let goods = self.goods_of(agent);
        let enough = draw.lanes.fits(self.free_of(agent))
            && draw.lanes.fits(room)
            && goods.contains(&draw.goods)
            && goods.ports.len() >= draw.goods.ports.len() + draw.picks;
        enough.then_some(draw)
    }

    fn draw_for(
        &self,
        id: Id,
        bundle: &Bundle,
        there: &mut [Piece],
        draw: &mut Draw,
    ) -> Option<()> {
        let task = &self.state.tasks[id];
        let queue = self.state.leaves[task.leaf].queue;
        let shape = self.state.shapes.get(task.wait.as_ref()?.shape);
        let (mut lanes, mut goods) = (shape.lanes, shape.goods.clone());
        let (mut mine, mut picked) = (Vec::new(), Vec::new());
        for piece in there.iter_mut().filter(|p| self.is_drawable(queue, task.revocable, p)) {
            let mut taken = Piece {
                kind: piece.kind.clone(),
                lanes: lanes.min(&piece.lanes),
                goods: goods.common(&piece.goods),
            };
            lanes.sub(&taken.lanes);
            goods.sub(&taken.goods);
            let open = piece.goods.ports.subtract(&bundle.goods.ports);
            let picks = (shape.picks - picked.len()).min(open.len());
            if let Some((ports, _)) = open.take(picks) {
                taken.goods.ports = taken.goods.ports.union(&ports.iter().copied().collect());
                picked.extend(ports);
            }
            piece.lanes.sub(&taken.lanes);
            piece.goods.sub(&taken.goods);
            if !taken.is_empty() {
                mine.push(taken);
            }
        }
        draw.picks += shape.picks - picked.len();
        draw.lanes.add(&lanes);
        draw.goods.add(&goods);
        draw.parts.push(mine);
        draw.picked.push(picked);
        Some(())
    }

    /// Counts parts of an agent as taken, or as put back.
    pub(super) fn move_parts(&mut self, agent: Id, parts: &[Vec<Piece>], taken: bool) {
        let Some(pieces) = self.pieces.get_mut(&agent) else { return };
        for piece in parts.iter().flatten() {
            match taken {
                true => parts::take(pieces, piece),
                false => parts::put_back(pieces, piece),
            }
        }
    }
}
