//! What is held, with what a run has given: by queue and by leaf, with limits and guarantees.

use std::cell::Cell;
use std::sync::atomic::{self, AtomicU64};

use crate::cycle::fair::Who;
use crate::lanes::{LANES, Lanes};
use crate::queues::Queue;
use crate::state::{Allocator, Sorter};
use crate::table::Id;

/// What is held, with what the run has given, by queue and by leaf.
#[derive(Debug, Clone, Default)]
pub(super) struct Ledger {
    /// What counts towards shares.
    total: Lanes,
    /// The same to divide by; nothing is a share of what there is none of.
    divisors: [f64; LANES],
    /// What nobody holds and nobody has reserved; `None` if no queue has a guarantee.
    available: Option<Lanes>,
    /// Where chance stands, if it decides who is next.
    dice: Option<Dice>,
    root: Id,
    limits_bind_below: bool,
    /// Lanes that have a name: all others are empty everywhere.
    used: usize,
    queues: Vec<QueueBook>,
    leaves: Vec<Book>,
}

/// Where chance stands. Nobody throws it twice at a time.
#[derive(Debug)]
struct Dice(AtomicU64);

impl Clone for Dice {
    fn clone(&self) -> Self {
        Self(AtomicU64::new(self.0.load(atomic::Ordering::Relaxed)))
    }
}

#[derive(Debug, Clone, Copy)]
struct Book {
    held: Lanes,
    allocations: u64,
}

#[derive(Debug, Clone, Copy)]
struct QueueBook {
    parent: Option<Id>,
    weight: f64,
    limited: bool,
    limit: Lanes,
    /// What counts towards limit and guarantee beyond what is held (or, below 0, short of it).
    beyond: [i64; LANES],
    guarantee: Lanes,
    /// What must stay free for guarantees of it and of queues below.
    need: Lanes,
    /// The part of it that is for queues below.
    need_below: Lanes,
    all: Book,
    own: Book,
}

impl Ledger {
    pub(super) fn new(state: &Allocator, available: Option<Lanes>, seed: u64) -> Self {
        let total = fair_total(state);
        let mut queues = vec![QueueBook::NOBODY; state.queues.span()];
        for (id, queue) in state.queues.iter() {
            queues[id as usize] = QueueBook::of(queue);
        }
        let mut leaves = vec![Book::EMPTY; state.leaves.span()];
        for (id, leaf) in state.leaves.iter() {
            leaves[id as usize] = Book { held: leaf.held(), allocations: leaf.allocations };
        }
        let root = state.queues.id(crate::queues::ROOT).expect("the root is never removed");
        let dice = (state.options.sorter == Sorter::Random).then(|| Dice(AtomicU64::new(seed)));
        let limits_bind_below = state.options.limits_bind_below;
        let used = state.names.count();
        let divisors = std::array::from_fn(|lane| match total.0[lane] {
            0 => f64::INFINITY,
            total => total as f64,
        });
        let mut ledger = Self {
            total,
            divisors,
            available,
            dice,
            root,
            limits_bind_below,
            used,
            queues,
            leaves,
        };
        if available.is_some() {
            let guaranteed = state.queues.iter().filter(|(_, queue)| !queue.guarantee.is_zero());
            for (id, _) in guaranteed {
                ledger.settle_need(id);
            }
        }
        ledger
    }

    /// Whether shares are still of as much as there is.
    pub(super) fn is_of(&self, state: &Allocator) -> bool {
        self.total == fair_total(state)
    }

    /// Brings leaves, and the queues that they are in, to what is known of them now; returns those
    /// queues.
    pub(super) fn refresh(&mut self, state: &Allocator, leaves: &[Id]) -> Vec<Id> {
        self.leaves.resize(state.leaves.span(), Book::EMPTY);
        self.queues.resize(state.queues.span(), QueueBook::NOBODY);
        let mut queues = Vec::new();
        for id in leaves {
            let Some(leaf) = state.leaves.get(*id) else { continue };
            self.leaves[*id as usize] = Book { held: leaf.held(), allocations: leaf.allocations };
            queues.push(leaf.queue);
        }
        let queues = state.with_all_above(queues);
        for queue in &queues {
            self.queues[*queue as usize] = QueueBook::of(&state.queues[*queue]);
        }
        queues
    }

    /// The queue above a queue.
    pub(super) fn above(&self, queue: Id) -> Option<Id> {
        self.queues[queue as usize].parent
    }

    /// How much more the queue may hold before it or one above is at its limit, with what that limit must leave for
    /// guarantees of others below it.
    pub(super) fn below_limits(&self, queue: Id) -> Lanes {
        let mut room = Lanes::UNLIMITED;
        // What is guaranteed to others than this queue and is not met, of all below the one that is looked at.
        let mut others = Lanes::ZERO;
        let has_others = self.available.is_some() && self.limits_bind_below;
        let (mut below, mut next) = (Lanes::ZERO, Some(queue));
        while let Some(id) = next {
            let book = &self.queues[id as usize];
            if has_others {
                others.add(&book.need_below.minus(&below));
                below = book.need;
            }
            if book.limited {
                for (lane, left) in room.0.iter_mut().enumerate() {
                    if book.limit.0[lane] != i64::MAX {
                        let taken = book.charged_in(lane).saturating_add(others.0[lane]);
                        *left = (*left).min((book.limit.0[lane] - taken).max(0));
                    }
                }
            }
            next = book.parent.filter(|_| self.limits_bind_below);
        }
        room
    }

    /// How much more may be given to the queue: up to limits, and not what others are guaranteed.
    pub(super) fn room(&self, queue: Id) -> Lanes {
        let room = self.below_limits(queue);
        if self.available.is_none() {
            return room;
        }
        room.min(&self.surplus().plus(&self.unmet(queue)))
    }

    /// Whether nothing but what there is bounds what may be given to the queue.
    pub(super) fn is_unbounded(&self, queue: Id) -> bool {
        let book = |id: &Id| &self.queues[*id as usize];
        let mut path = std::iter::successors(Some(queue), |id| book(id).parent);
        self.available.is_none() && !path.any(|id| book(&id).limited)
    }

    pub(super) fn has_guarantees(&self) -> bool {
        self.available.is_some()
    }

    /// What is free and not needed for guarantees of others than the one who wants so much.
    pub(super) fn free_beyond(&self, want: &Lanes) -> Lanes {
        let others = self.queues[self.root as usize].need.minus(want);
        self.available.unwrap_or(Lanes::ZERO).minus(&others)
    }

    /// What must stay free for guarantees and is not.
    pub(super) fn short_of_guarantees(&self) -> Lanes {
        self.queues[self.root as usize].need.minus(&self.available.unwrap_or(Lanes::ZERO))
    }

    pub(super) fn is_guaranteed(&self, queue: Id) -> bool {
        !self.queues[queue as usize].guarantee.is_zero()
    }

    /// Whether the queue would have less than it is guaranteed if it had so much less, and not what
    /// it is promised.
    pub(super) fn is_needed_for_guarantee(
        &self,
        queue: Id,
        lanes: &Lanes,
        promised: &Lanes,
    ) -> bool {
        let book = &self.queues[queue as usize];
        (0..LANES).any(|lane| {
            let (guarantee, less) = (book.guarantee.0[lane], lanes.0[lane]);
            let has = book.charged_in(lane) - promised.0[lane];
            guarantee > 0 && less > 0 && has - less < guarantee
        })
    }

    pub(super) fn is_random(&self) -> bool {
        self.dice.is_some()
    }

    /// What of the queue's own guarantee it does not hold yet.
    pub(super) fn unmet(&self, queue: Id) -> Lanes {
        let book = &self.queues[queue as usize];
        book.guarantee.minus(&book.charged())
    }

    /// What is free beyond all that is still guaranteed to somebody.
    pub(super) fn surplus(&self) -> Lanes {
        self.available
            .map_or(Lanes::UNLIMITED, |free| free.minus(&self.queues[self.root as usize].need))
    }

    /// Says anew what must stay free for this queue, to all above it. What is guaranteed to queues
    /// below is part of what is guaranteed to this one.
    fn settle_need(&mut self, queue: Id) {
        let mut next = Some(queue);
        while let Some(id) = next {
            let book = &mut self.queues[id as usize];
            let need = book.guarantee.minus(&book.charged()).max(&book.need_below);
            let before = std::mem::replace(&mut book.need, need);
            next = book.parent;
            if let Some(parent) = next.filter(|_| need != before) {
                let below = &mut self.queues[parent as usize].need_below;
                *below = below.minus(&before).plus(&need);
            }
        }
    }

    /// Gives to a leaf of a queue.
    pub(super) fn give(&mut self, leaf: Id, queue: Id, lanes: &Lanes) {
        self.give_parts(leaf, queue, lanes, lanes);
    }

    /// Gives to a leaf of a queue something of which only `charged` counts towards limits.
    pub(super) fn give_parts(&mut self, leaf: Id, queue: Id, lanes: &Lanes, charged: &Lanes) {
        let used = self.used;
        self.change(leaf, queue, |book| {
            book.held.add_first(lanes, used);
            book.allocations += 1;
        });
        if charged != lanes {
            self.change_beyond(queue, difference(charged, lanes));
        }
        if let Some(available) = &mut self.available {
            available.sub(charged);
            self.settle_need(queue);
        }
    }

    /// Takes back what was given.
    pub(super) fn take_back(&mut self, leaf: Id, queue: Id, lanes: &Lanes) {
        self.take_parts_back(leaf, queue, lanes, lanes);
    }

    /// Takes back what was given, of which only `charged` counts towards limits.
    pub(super) fn take_parts_back(&mut self, leaf: Id, queue: Id, lanes: &Lanes, charged: &Lanes) {
        self.change(leaf, queue, |book| {
            book.held.sub(lanes);
            book.allocations = book.allocations.saturating_sub(1);
        });
        if charged != lanes {
            self.change_beyond(queue, difference(lanes, charged));
        }
        if let Some(available) = &mut self.available {
            available.add(charged);
            self.settle_need(queue);
        }
    }

    /// Changes by how much what counts towards limits is more than what is held.
    fn change_beyond(&mut self, queue: Id, by: [i64; LANES]) {
        let mut next = Some(queue);
        while let Some(id) = next {
            let book = &mut self.queues[id as usize];
            for (beyond, by) in book.beyond.iter_mut().zip(by) {
                *beyond = beyond.saturating_add(by);
            }
            next = book.parent;
        }
    }

    #[inline]
    fn dominant(&self, held: &Lanes) -> f64 {
        let lanes = held.0[..self.used].iter().zip(&self.divisors[..self.used]);
        lanes.fold(0.0, |most, (held, total)| {
            let share = *held as f64 / total;
            if share > most { share } else { most }
        })
    }

    /// By how much a competitor inside `queue` is ahead, and how often something was given to it.
    pub(super) fn standing_of(&self, queue: Id, who: Who) -> (f64, u64) {
        let (book, weight) = match who {
            Who::Queue(id) => {
                let book = &self.queues[id as usize];
                (&book.all, book.weight)
            }
            Who::Own => (&self.queues[queue as usize].own, 1.0),
            Who::Leaf(id) => (&self.leaves[id as usize], 1.0),
        };
        let share = self.draw(weight).unwrap_or_else(|| self.dominant(&book.held) / weight);
        (share, book.allocations)
    }

    /// Chance's share for a competitor: sorted by these, each order is as likely as if one after
    /// another were drawn in proportion to the weights.
    pub(super) fn draw(&self, weight: f64) -> Option<f64> {
        let dice = self.dice.as_ref()?;
        let at = Cell::new(dice.0.load(atomic::Ordering::Relaxed));
        let number = crate::cycle::order::next_random(&at);
        dice.0.store(at.get(), atomic::Ordering::Relaxed);
        // 53 bits, as many as there are in a double, and never 0.
        let fraction = ((number >> 11) as f64 + 1.0) / (1_u64 << 53) as f64;
        Some(-fraction.ln() / weight)
    }

    fn change(&mut self, leaf: Id, queue: Id, change: impl Fn(&mut Book)) {
        change(&mut self.leaves[leaf as usize]);
        change(&mut self.queues[queue as usize].own);
        let mut next = Some(queue);
        while let Some(id) = next {
            let book = &mut self.queues[id as usize];
            change(&mut book.all);
            next = book.parent;
        }
    }
}

/// What counts towards shares of what there is.
fn fair_total(state: &Allocator) -> Lanes {
    let mut total = state.changes.total;
    for name in &state.options.fairness_excluded {
        if let Some(lane) = state.names.lane(name) {
            total.0[lane] = 0;
        }
    }
    total
}

impl Book {
    const EMPTY: Self = Self { held: Lanes::ZERO, allocations: 0 };
}

impl QueueBook {
    const NOBODY: Self = Self {
        parent: None,
        weight: 1.0,
        limited: false,
        limit: Lanes::UNLIMITED,
        beyond: [0; LANES],
        guarantee: Lanes::ZERO,
        need: Lanes::ZERO,
        need_below: Lanes::ZERO,
        all: Book::EMPTY,
        own: Book::EMPTY,
    };

    fn of(queue: &Queue) -> Self {
        Self {
            parent: queue.parent,
            weight: queue.weight,
            limited: queue.limit != Lanes::UNLIMITED,
            limit: queue.limit,
            beyond: difference(&queue.charged(), &queue.held()),
            guarantee: queue.guarantee,
            all: Book { held: queue.held(), allocations: queue.allocations },
            own: Book { held: queue.own, allocations: queue.own_allocations },
            ..Self::NOBODY
        }
    }

    fn charged_in(&self, lane: usize) -> i64 {
        self.all.held.0[lane].saturating_add(self.beyond[lane]).max(0)
    }

    fn charged(&self) -> Lanes {
        Lanes(std::array::from_fn(|lane| self.charged_in(lane)))
    }
}

fn difference(a: &Lanes, b: &Lanes) -> [i64; LANES] {
    std::array::from_fn(|lane| a.0[lane].saturating_sub(b.0[lane]))
}
