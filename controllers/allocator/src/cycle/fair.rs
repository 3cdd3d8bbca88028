//! Who is next: hierarchical, weighted dominant resource fairness.
//!
//! Among siblings the smallest (share ÷ weight, times something was given, name) goes first; queues
//! compete with their siblings, down the tree, and frameworks inside a queue by the same rule. A
//! queue with children and frameworks of its own lets those compete with the children as one
//! virtual leaf of weight 1 (Mesos' rule, and its names: the leaf is called ".").
//!
//! A step always goes to whoever is on top at every level, so re-ranking after it touches only the
//! tops: the cost of a step is the depth of the tree times the logarithm of its width.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BinaryHeap, HashSet};

use crate::cycle::Step;
use crate::cycle::ledger::Ledger;
use crate::state::Allocator;
use crate::table::Id;

/// One of those who compete with each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    Queue(Id),
    /// The frameworks of a queue that has children, together.
    Own,
    Leaf(Id),
}

/// A competitor's place; the smallest is next.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rank {
    /// The share's bits: of numbers that are not negative they are in the numbers' order.
    share: u64,
    /// Times something was given, then the place by name among those it competes with.
    tie: u64,
    pub(super) who: Who,
}

/// Bits for the place in a tie: sixteen million siblings, and a million million gifts to each.
const PLACE_BITS: u32 = 24;

impl Rank {
    fn new(share: f64, allocations: u64, place: usize, who: Who) -> Self {
        let most = (1 << PLACE_BITS) - 1;
        let tie = (allocations << PLACE_BITS) | (place as u64).min(most);
        // Adding 0 makes -0 into 0.
        Self { share: (share + 0.0).to_bits(), tie, who }
    }

    fn place(&self) -> usize {
        (self.tie & ((1 << PLACE_BITS) - 1)) as usize
    }

    /// The same competitor's rank as things stand now.
    pub(super) fn anew(&self, ledger: &Ledger, queue: Id) -> Self {
        rank(ledger, queue, self.who, self.place())
    }
}

impl Ord for Rank {
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        (self.share, self.tie).cmp(&(other.share, other.tie))
    }
}

impl PartialOrd for Rank {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Rank {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Rank {}

type Line = BinaryHeap<Reverse<Rank>>;

/// Those who compete inside one queue.
#[derive(Default)]
struct Lines {
    /// Hungry children, and `Own`; empty when no child is hungry from the start.
    below: Line,
    /// Hungry frameworks of this very queue.
    own: Line,
}

/// The hungry part of the tree.
pub(super) struct Contest {
    /// By queue.
    lines: Vec<Lines>,
    root: Id,
}

impl Contest {
    pub(super) fn new(
        state: &Allocator,
        ledger: &Ledger,
        hungry: impl Iterator<Item = Id>,
    ) -> Self {
        let root = state.queues.id(crate::queues::ROOT).expect("the root is never removed");
        let mut leaves: BTreeMap<Id, Vec<Id>> = BTreeMap::new();
        let mut children: BTreeMap<Id, Vec<Id>> = BTreeMap::new();
        let mut seen = HashSet::new();
        for leaf in hungry {
            let mut queue = state.leaves[leaf].queue;
            leaves.entry(queue).or_default().push(leaf);
            while let Some(parent) = state.queues[queue].parent {
                if !seen.insert(queue) {
                    break;
                }
                children.entry(parent).or_default().push(queue);
                queue = parent;
            }
        }
        let mut lines: Vec<Lines> = Vec::new();
        lines.resize_with(state.queues.span(), Lines::default);
        let mut contest = Self { lines, root };
        for (queue, mut leaves) in leaves {
            leaves.sort_unstable_by(|a, b| {
                state.leaves[*a].framework_key.cmp(&state.leaves[*b].framework_key)
            });
            let ranks = leaves
                .iter()
                .enumerate()
                .map(|(place, leaf)| Reverse(rank(ledger, queue, Who::Leaf(*leaf), place)));
            contest.lines[queue as usize].own = ranks.collect();
        }
        for (queue, mut below) in children {
            below.sort_unstable_by(|a, b| state.queues[*a].path.cmp(&state.queues[*b].path));
            let lines = &mut contest.lines[queue as usize];
            // "." sorts before every name.
            let own = (!lines.own.is_empty()).then_some(Who::Own);
            let all = own.into_iter().chain(below.into_iter().map(Who::Queue));
            lines.below = all
                .enumerate()
                .map(|(place, who)| Reverse(rank(ledger, queue, who, place)))
                .collect();
        }
        contest
    }

    /// The leaf whose turn it is; `None` when nobody is hungry any more.
    pub(super) fn next(&self) -> Option<Id> {
        let mut queue = self.root;
        loop {
            let lines = &self.lines[queue as usize];
            match lines.below.peek().map(|top| top.0.who) {
                Some(Who::Queue(below)) => queue = below,
                Some(Who::Own | Who::Leaf(_)) | None => {
                    return match lines.own.peek()?.0.who {
                        Who::Leaf(leaf) => Some(leaf),
                        Who::Queue(_) | Who::Own => None,
                    };
                }
            }
        }
    }

    /// Ranks the leaf of the queue that had its turn anew, and all queues above it.
    pub(super) fn settle(&mut self, ledger: &Ledger, mut queue: Id, step: Step) {
        let lines = &mut self.lines[queue as usize];
        let took = step == Step::Took;
        let mut hungry = took;
        // Where nothing was given everybody keeps the place that it had.
        let anew = |queue: Id, top: Rank| if took { top.anew(ledger, queue) } else { top };
        settle_top(&mut lines.own, hungry, |top| anew(queue, top));
        if lines.below.peek().is_some_and(|top| top.0.who == Who::Own) {
            hungry = !lines.own.is_empty();
            settle_top(&mut lines.below, hungry, |top| anew(queue, top));
        }
        hungry = !lines.own.is_empty() || !lines.below.is_empty();
        while let Some(parent) = ledger.above(queue) {
            let lines = &mut self.lines[parent as usize];
            settle_top(&mut lines.below, hungry, |top| anew(parent, top));
            hungry = !lines.own.is_empty() || !lines.below.is_empty();
            queue = parent;
        }
    }
}

fn settle_top(line: &mut Line, stays: bool, rank: impl Fn(Rank) -> Rank) {
    if !stays {
        line.pop();
    } else if let Some(mut top) = line.peek_mut() {
        let anew = rank(top.0);
        *top = Reverse(anew);
    }
}

/// A competitor's rank inside `queue`.
pub(super) fn rank(ledger: &Ledger, queue: Id, who: Who, place: usize) -> Rank {
    let (share, allocations) = ledger.standing_of(queue, who);
    Rank::new(share, allocations, place, who)
}
