//! Booking: whatever is held is held of an agent and by a leaf, and counts in its queue and in all
//! queues above.

use crate::lanes::{Goods, Lanes};
use crate::parts::{Node, Piece, change};
use crate::state::Allocator;
use crate::table::Id;

/// What holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holder {
    Task(Id),
    Offer(Id),
}

/// Something that is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) agent: Id,
    pub(crate) leaf: Id,
    pub(crate) lanes: Lanes,
    pub(crate) goods: Goods,
    /// What is not plain of it; on top of the numbers above.
    pub(crate) parts: Vec<Piece>,
}

impl Allocator {
    /// Books something that is held from now on.
    pub(crate) fn hold(&mut self, holder: Holder, held: &Held) {
        self.change_agent(held.agent, |all| all.hold_of_agent(holder, held));
        if !self.guaranteed.is_empty() {
            self.changes.all();
        }
    }

    fn hold_of_agent(&mut self, holder: Holder, held: &Held) {
        let agent = &mut self.agents[held.agent];
        match holder {
            Holder::Task(id) => {
                agent.tasks.insert(id);
                agent.allocated.add(&held.lanes);
                self.leaves[held.leaf].bound.insert(id);
            }
            Holder::Offer(id) => {
                agent.offers.insert(id);
                agent.offered.add(&held.lanes);
                self.leaves[held.leaf].offers.insert(id);
            }
        }
        agent.free_goods.sub(&held.goods);
        self.book(holder, held, Lanes::add);
        self.book_parts(holder, held, true);
        self.changes.stale.push(held.leaf);
    }

    /// Takes the booking back. The holder is still in its table, without what it held.
    pub(crate) fn release(&mut self, holder: Holder, held: &Held) {
        self.change_agent(held.agent, |all| all.release_of_agent(holder, held));
        self.relieve_queue(self.leaves[held.leaf].queue);
    }

    fn release_of_agent(&mut self, holder: Holder, held: &Held) {
        let agent = &mut self.agents[held.agent];
        match holder {
            Holder::Task(id) => {
                agent.tasks.remove(&id);
                agent.allocated.sub(&held.lanes);
                self.leaves[held.leaf].bound.remove(&id);
            }
            Holder::Offer(id) => {
                agent.offers.remove(&id);
                agent.offered.sub(&held.lanes);
                self.leaves[held.leaf].offers.remove(&id);
            }
        }
        self.book(holder, held, Lanes::sub);
        self.book_parts(holder, held, false);
        self.changes.stale.push(held.leaf);
        if !held.goods.is_empty() {
            self.recount_goods(held.agent);
        }
    }

    fn book(&mut self, holder: Holder, held: &Held, change: fn(&mut Lanes, &Lanes)) {
        let leaf = &mut self.leaves[held.leaf];
        let is_task = matches!(holder, Holder::Task(_));
        change(if is_task { &mut leaf.allocated } else { &mut leaf.offered }, &held.lanes);
        let mut next = Some(leaf.queue);
        change(&mut self.queues[leaf.queue].own, &held.lanes);
        while let Some(id) = next {
            let queue = &mut self.queues[id];
            change(if is_task { &mut queue.allocated } else { &mut queue.offered }, &held.lanes);
            next = queue.parent;
        }
    }

    /// Parts count towards shares like everything else, but towards limits only where nobody has
    /// reserved them and nobody takes them back.
    fn book_parts(&mut self, holder: Holder, held: &Held, add: bool) {
        let is_task = matches!(holder, Holder::Task(_));
        for piece in &held.parts {
            let queue = self.leaves[held.leaf].queue;
            if self.counts_once(Node::Leaf(held.leaf), held.agent, piece, add) {
                let leaf = &mut self.leaves[held.leaf];
                let sum = if is_task { &mut leaf.allocated } else { &mut leaf.offered };
                change(sum, &piece.lanes, add);
            }
            if self.counts_once(Node::Own(queue), held.agent, piece, add) {
                change(&mut self.queues[queue].own, &piece.lanes, add);
            }
            let mut next = Some(queue);
            while let Some(id) = next {
                if self.counts_once(Node::Queue(id), held.agent, piece, add) {
                    let queue = &mut self.queues[id];
                    let sum = if is_task { &mut queue.allocated } else { &mut queue.offered };
                    change(sum, &piece.lanes, add);
                    if !piece.kind.is_charged() {
                        change(&mut self.queues[id].uncharged, &piece.lanes, add);
                    }
                }
                next = self.queues[id].parent;
            }
        }
    }

    /// One more time something was given to this leaf: breaks ties between equal shares.
    pub(crate) fn count_allocation(&mut self, leaf: Id) {
        self.changes.stale.push(leaf);
        let leaf = &mut self.leaves[leaf];
        leaf.allocations += 1;
        let mut next = Some(leaf.queue);
        self.queues[leaf.queue].own_allocations += 1;
        while let Some(id) = next {
            self.queues[id].allocations += 1;
            next = self.queues[id].parent;
        }
    }

    /// Ports and things are counted from all that hold them, so that one that two hold (an agent
    /// came back with less) is free only when both have let it go.
    pub(crate) fn recount_goods(&mut self, id: Id) {
        let agent = &self.agents[id];
        let mut free = agent.total_goods.clone();
        if !free.is_empty() {
            for task in agent.tasks.iter().filter_map(|id| self.tasks[*id].held.as_ref()) {
                free.sub(&task.goods);
            }
            for offer in &agent.offers {
                free.sub(&self.offers[*offer].held.goods);
            }
        }
        self.agents[id].free_goods = free;
    }
}
