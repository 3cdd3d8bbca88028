//! Everybody who competes, in the order in which they are served, kept through gifts: one of them
//! changes the places of those above it only.

use std::collections::{BTreeSet, btree_set};

use crate::cycle::fair::{Rank, Who, rank};
use crate::cycle::ledger::Ledger;
use crate::state::Allocator;
use crate::table::Id;

/// The competing part of the tree, everybody at their place.
#[derive(Debug, Clone)]
pub(super) struct Ranked {
    /// By queue.
    lines: Vec<Lines>,
    /// Where each leaf and each queue stands now, and the frameworks of a queue together.
    leaves: Vec<Option<Rank>>,
    queues: Vec<Option<Rank>>,
    owns: Vec<Option<Rank>>,
    /// How many leaves compete.
    count: usize,
    root: Id,
}

#[derive(Debug, Clone, Default)]
struct Lines {
    /// Queues below, and the frameworks of this very one together if there are any.
    below: BTreeSet<Rank>,
    own: BTreeSet<Rank>,
    /// Some queue below competed from the start.
    has_below: bool,
}

impl Ranked {
    pub(super) fn new(state: &Allocator, ledger: &Ledger, leaves: &[Id]) -> Self {
        let root = state.queues.id(crate::queues::ROOT).expect("the root is never removed");
        let span = state.queues.span();
        let mut ranked = Self {
            lines: vec![Lines::default(); span],
            leaves: vec![None; state.leaves.span()],
            queues: vec![None; span],
            owns: vec![None; span],
            count: leaves.len(),
            root,
        };
        let mut by_name: Vec<Id> = leaves.to_vec();
        by_name.sort_unstable_by(|a, b| {
            state.leaves[*a].framework_key.cmp(&state.leaves[*b].framework_key)
        });
        // Ranks first and trees from them: a tree of what is sorted is built many times faster.
        let mut own: Vec<Vec<Rank>> = vec![Vec::new(); span];
        for (place, leaf) in by_name.iter().enumerate() {
            let queue = state.leaves[*leaf].queue;
            let at = rank(ledger, queue, Who::Leaf(*leaf), place);
            own[queue as usize].push(at);
            ranked.leaves[*leaf as usize] = Some(at);
        }
        let with_leaves = (0..).zip(&own).filter(|(_, own)| !own.is_empty());
        let mut queues = state.with_all_above(with_leaves.map(|(id, _)| id).collect());
        queues.sort_unstable_by(|a, b| state.queues[*a].path.cmp(&state.queues[*b].path));
        // By name; 0 is for the frameworks of the queue above itself.
        let mut below: Vec<Vec<Rank>> = vec![Vec::new(); span];
        for (place, queue) in queues.iter().enumerate() {
            let Some(parent) = state.queues[*queue].parent else { continue };
            let at = rank(ledger, parent, Who::Queue(*queue), place + 1);
            below[parent as usize].push(at);
            ranked.queues[*queue as usize] = Some(at);
        }
        for queue in queues {
            let at = queue as usize;
            let lines = &mut ranked.lines[at];
            lines.own = std::mem::take(&mut own[at]).into_iter().collect();
            lines.below = std::mem::take(&mut below[at]).into_iter().collect();
            lines.has_below = !lines.below.is_empty();
            if lines.has_below && !lines.own.is_empty() {
                let together = rank(ledger, queue, Who::Own, 0);
                lines.below.insert(together);
                ranked.owns[at] = Some(together);
            }
        }
        ranked
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Everybody, in order.
    pub(super) fn iter(&self) -> Walk<'_> {
        let mut walk = Walk { ranked: self, stack: Vec::new() };
        walk.enter(self.root);
        walk
    }

    /// The leaf was given something: it and those above it find their new places.
    pub(super) fn settle(&mut self, ledger: &Ledger, leaf: Id, queue: Id) {
        self.settle_leaf(ledger, leaf, queue);
        let mut next = Some(queue);
        while let Some(queue) = next {
            next = ledger.above(queue);
            self.settle_queue(ledger, queue, next);
        }
    }

    pub(super) fn settle_leaf(&mut self, ledger: &Ledger, leaf: Id, queue: Id) {
        // One that does not compete counts for the queues that it is in all the same.
        if let Some(lines) = self.lines.get_mut(queue as usize) {
            move_to(&mut lines.own, self.leaves.get_mut(leaf as usize), ledger, queue);
        }
    }

    pub(super) fn settle_queue(&mut self, ledger: &Ledger, queue: Id, above: Option<Id>) {
        let at = queue as usize;
        if let Some(lines) = self.lines.get_mut(at) {
            move_to(&mut lines.below, self.owns.get_mut(at), ledger, queue);
        }
        if let Some((above, lines)) =
            above.and_then(|above| Some((above, self.lines.get_mut(above as usize)?)))
        {
            move_to(&mut lines.below, self.queues.get_mut(at), ledger, above);
        }
    }

    /// The leaf competes no longer.
    pub(super) fn remove(&mut self, ledger: &Ledger, leaf: Id, mut queue: Id) {
        let Some(at) = self.leaves[leaf as usize].take() else { return };
        self.count -= 1;
        let lines = &mut self.lines[queue as usize];
        lines.own.remove(&at);
        if lines.own.is_empty()
            && let Some(own) = self.owns[queue as usize].take()
        {
            lines.below.remove(&own);
        }
        while let Some(above) = ledger.above(queue) {
            let lines = &self.lines[queue as usize];
            if !lines.own.is_empty() || !lines.below.is_empty() {
                return;
            }
            if let Some(at) = self.queues[queue as usize].take() {
                self.lines[above as usize].below.remove(&at);
            }
            queue = above;
        }
    }
}

fn move_to(line: &mut BTreeSet<Rank>, at: Option<&mut Option<Rank>>, ledger: &Ledger, queue: Id) {
    let Some(Some(at)) = at else { return };
    let anew = at.anew(ledger, queue);
    if anew != *at {
        line.remove(at);
        line.insert(anew);
        *at = anew;
    }
}

/// Goes through all of them.
pub(super) struct Walk<'a> {
    ranked: &'a Ranked,
    stack: Vec<(Id, btree_set::Iter<'a, Rank>)>,
}

impl<'a> Walk<'a> {
    fn enter(&mut self, queue: Id) {
        let Some(lines) = self.ranked.lines.get(queue as usize) else { return };
        let line = if lines.has_below { &lines.below } else { &lines.own };
        self.stack.push((queue, line.iter()));
    }
}

impl Iterator for Walk<'_> {
    type Item = Id;

    fn next(&mut self) -> Option<Id> {
        loop {
            let (queue, line) = self.stack.last_mut()?;
            let queue = *queue;
            match line.next().map(|rank| rank.who) {
                None => {
                    self.stack.pop();
                }
                Some(Who::Leaf(leaf)) => return Some(leaf),
                Some(Who::Queue(below)) => self.enter(below),
                Some(Who::Own) => {
                    self.stack.push((queue, self.ranked.lines[queue as usize].own.iter()));
                }
            }
        }
    }
}
