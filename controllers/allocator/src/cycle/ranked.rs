//! Everybody who competes, in the order in which they are served, kept through gifts: one of them
//! changes the places of those above it only.

use std::collections::{BTreeMap, BTreeSet, btree_set};

use crate::cycle::fair::{Rank, Who, rank};
use crate::cycle::ledger::Ledger;
use crate::state::Allocator;
use crate::table::Id;

/// The competing part of the tree, everybody at their place.
#[derive(Debug, Clone)]
pub(super) struct Ranked {
    lines: BTreeMap<Id, Lines>,
    /// Where each leaf and each queue stands now.
    leaves: BTreeMap<Id, Rank>,
    queues: BTreeMap<Id, Rank>,
    owns: BTreeMap<Id, Rank>,
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
        let mut ranked = Self {
            lines: BTreeMap::from([(root, Lines::default())]),
            leaves: BTreeMap::new(),
            queues: BTreeMap::new(),
            owns: BTreeMap::new(),
            root,
        };
        let mut by_name: Vec<Id> = leaves.to_vec();
        by_name.sort_unstable_by(|a, b| {
            state.leaves[*a].framework_key.cmp(&state.leaves[*b].framework_key)
        });
        let mut paths: BTreeMap<&str, Id> = BTreeMap::new();
        for (place, leaf) in by_name.iter().enumerate() {
            let queue = state.leaves[*leaf].queue;
            let lines = ranked.lines.entry(queue).or_default();
            let at = rank(state, ledger, queue, Who::Leaf(*leaf), place);
            lines.own.insert(at);
            ranked.leaves.insert(*leaf, at);
            for id in std::iter::successors(Some(queue), |id| state.queues[*id].parent) {
                paths.insert(&state.queues[id].path, id);
            }
        }
        // By name; 0 is for the frameworks of the queue above itself.
        for (place, queue) in paths.into_values().enumerate() {
            let Some(parent) = state.queues[queue].parent else { continue };
            let at = rank(state, ledger, parent, Who::Queue(queue), place + 1);
            let lines = ranked.lines.entry(parent).or_default();
            lines.below.insert(at);
            lines.has_below = true;
            ranked.queues.insert(queue, at);
        }
        for (queue, lines) in ranked.lines.iter_mut() {
            if lines.has_below && !lines.own.is_empty() {
                let at = rank(state, ledger, *queue, Who::Own, 0);
                lines.below.insert(at);
                ranked.owns.insert(*queue, at);
            }
        }
        ranked
    }

    pub(super) fn is_empty(&self) -> bool {
        self.leaves.is_empty()
    }

    /// Everybody, in order.
    pub(super) fn iter(&self) -> Walk<'_> {
        let mut walk = Walk { ranked: self, stack: Vec::new() };
        walk.enter(self.root);
        walk
    }

    /// The leaf was given something: it and those above it find their new places.
    pub(super) fn settle(&mut self, state: &Allocator, ledger: &Ledger, leaf: Id) {
        let queue = state.leaves[leaf].queue;
        let lines = self.lines.entry(queue).or_default();
        // One that does not compete counts for the queues that it is in all the same.
        move_to(&mut lines.own, self.leaves.get_mut(&leaf), |at| {
            rank(state, ledger, queue, Who::Leaf(leaf), at.place)
        });
        move_to(&mut lines.below, self.owns.get_mut(&queue), |at| {
            rank(state, ledger, queue, Who::Own, at.place)
        });
        let mut next = queue;
        while let Some(parent) = state.queues[next].parent {
            let lines = self.lines.entry(parent).or_default();
            move_to(&mut lines.below, self.queues.get_mut(&next), |at| {
                rank(state, ledger, parent, Who::Queue(next), at.place)
            });
            next = parent;
        }
    }

    /// The leaf competes no longer.
    pub(super) fn remove(&mut self, state: &Allocator, leaf: Id) {
        let Some(at) = self.leaves.remove(&leaf) else { return };
        let mut queue = state.leaves[leaf].queue;
        let lines = self.lines.entry(queue).or_default();
        lines.own.remove(&at);
        if lines.own.is_empty()
            && let Some(own) = self.owns.remove(&queue)
        {
            lines.below.remove(&own);
        }
        while let Some(parent) = state.queues[queue].parent {
            let empty =
                self.lines.get(&queue).is_none_or(|l| l.own.is_empty() && l.below.is_empty());
            if !empty {
                return;
            }
            if let Some(at) = self.queues.remove(&queue) {
                self.lines.entry(parent).or_default().below.remove(&at);
            }
            queue = parent;
        }
    }
}

fn move_to(line: &mut BTreeSet<Rank>, at: Option<&mut Rank>, anew: impl Fn(&Rank) -> Rank) {
    if let Some(at) = at {
        line.remove(at);
        *at = anew(at);
        line.insert(*at);
    }
}

/// Goes through all of them.
pub(super) struct Walk<'a> {
    ranked: &'a Ranked,
    stack: Vec<(Id, btree_set::Iter<'a, Rank>)>,
}

impl<'a> Walk<'a> {
    fn enter(&mut self, queue: Id) {
        let Some(lines) = self.ranked.lines.get(&queue) else { return };
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
                    let own = self.ranked.lines.get(&queue).map(|lines| lines.own.iter());
                    self.stack.extend(own.map(|own| (queue, own)));
                }
            }
        }
    }
}
