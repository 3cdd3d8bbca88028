//! Competitors in their order, of whom only the first ever finds another place.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use crate::cycle::fair::Rank;

/// Up to so many stand one behind the other: whoever was first mostly goes to the end, and that is a step or two there.
/// More are a heap, where no place is far.
const SHORT: usize = 64;

pub(super) enum Line {
    Short(VecDeque<Rank>),
    Long(BinaryHeap<Reverse<Rank>>),
}

impl Default for Line {
    fn default() -> Self {
        Self::Short(VecDeque::new())
    }
}

impl FromIterator<Rank> for Line {
    fn from_iter<T: IntoIterator<Item = Rank>>(ranks: T) -> Self {
        let mut ranks: Vec<Rank> = ranks.into_iter().collect();
        if ranks.len() > SHORT {
            return Self::Long(ranks.into_iter().map(Reverse).collect());
        }
        ranks.sort_unstable();
        Self::Short(ranks.into())
    }
}

impl Line {
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Short(line) => line.is_empty(),
            Self::Long(heap) => heap.is_empty(),
        }
    }

    #[inline]
    pub(super) fn first(&self) -> Option<&Rank> {
        match self {
            Self::Short(line) => line.front(),
            Self::Long(heap) => heap.peek().map(|Reverse(first)| first),
        }
    }

    /// The first one goes to where its new rank belongs, or out of the line.
    #[inline]
    pub(super) fn settle_first(&mut self, stays: bool, anew: impl Fn(Rank) -> Rank) {
        match self {
            Self::Short(line) => {
                let Some(first) = line.pop_front().filter(|_| stays) else { return };
                let first = anew(first);
                let behind = line.iter().rev().take_while(|other| first < **other).count();
                line.insert(line.len() - behind, first);
            }
            Self::Long(heap) if !stays => drop(heap.pop()),
            Self::Long(heap) => {
                if let Some(mut first) = heap.peek_mut() {
                    let rank = anew(first.0);
                    *first = Reverse(rank);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cycle::fair::Who;

    #[test]
    fn short_and_long_lines_go_in_the_same_order() {
        // Gifts of different sizes, so that some go to the end and others to somewhere in between.
        let gift = |turn: u64| [3.0, 1.0, 10.0, 0.5][turn as usize % 4];
        let goes = |length: usize, others: usize| {
            let mut shares = vec![0.0; length];
            // Those have so much that they never come first.
            let far = (length..length + others)
                .map(|place| Rank::new(1e9, 0, place, Who::Leaf(place as u32)));
            let near = (0..length).map(|place| Rank::new(0.0, 0, place, Who::Leaf(place as u32)));
            let mut line: Line = near.chain(far).collect();
            let mut order = Vec::new();
            for turn in 0..200 {
                let Who::Leaf(leaf) = line.first().expect("nobody leaves").who else { panic!() };
                order.push(leaf);
                shares[leaf as usize] += gift(turn);
                let share = shares[leaf as usize];
                line.settle_first(turn != 150, |first| {
                    Rank::new(share, turn, first.place(), first.who)
                });
            }
            order
        };
        for length in [2, 7, SHORT] {
            assert_eq!(goes(length, 0), goes(length, SHORT), "{length}");
        }
    }
}
