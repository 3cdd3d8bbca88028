//! In which order agents are looked at.

use std::cell::Cell;

use crate::changes::Bits;
use crate::state::Allocator;
use crate::table::Id;

/// Agents in use before empty ones, so that those stay free for what needs a whole one; agents with
/// GPUs last, so that those stay free for what needs a GPU.
pub(super) fn pack(state: &Allocator, shuffled: &[Id]) -> Vec<Id> {
    let mut classes: [Vec<Id>; 4] = Default::default();
    for id in shuffled {
        let agent = &state.agents[*id];
        let gpus = usize::from(agent.total.0[crate::lanes::GPU_LANE] > 0);
        let empty = usize::from(agent.tasks.is_empty());
        classes[2 * gpus + empty].push(*id);
    }
    classes.concat()
}

/// The numbers in a set in an order by chance: blocks of 64 shuffled among themselves, each begun at
/// a place by chance, which is as good and many times faster to walk. Some of them are in the order in
/// which all of them would be.
pub(super) fn in_order(set: &Bits, seed: u64) -> Vec<Id> {
    let turn = turn(seed);
    let mut ids = Vec::new();
    for block in blocks(&set.0, seed) {
        let mut rest = set.word(block as usize).rotate_right(turn);
        while rest != 0 {
            ids.push(block * 64 + (rest.trailing_zeros() + turn) % 64);
            rest &= rest - 1;
        }
    }
    ids
}

pub(super) fn turn(seed: u64) -> u32 {
    (next_random(&Cell::new(seed)) >> 58) as u32
}

/// Blocks that are not empty, in an order by chance.
fn blocks(words: &[u64], seed: u64) -> Vec<u32> {
    let there = (0_u32..).zip(words).filter(|(_, word)| **word != 0);
    let mut keyed: Vec<(u64, u32)> = there.map(|(block, _)| (chance(block, seed), block)).collect();
    keyed.sort_unstable();
    keyed.into_iter().map(|(_, block)| block).collect()
}

/// By these numbers blocks are put in order.
pub(super) fn chance(block: u32, seed: u64) -> u64 {
    next_random(&Cell::new(seed ^ (u64::from(block) << 17)))
}

/// Fisher and Yates' shuffle over SplitMix64: small, and the same in every version of every library.
pub(super) fn shuffle(items: &mut [Id], seed: u64) {
    let dice = Cell::new(seed);
    for last in (1..items.len()).rev() {
        // Multiply and shift instead of a remainder; the bias is below 2^-32 for any real cluster.
        let pick = ((u128::from(next_random(&dice)) * (last as u128 + 1)) >> 64) as usize;
        items.swap(last, pick);
    }
}

pub(super) fn next_random(dice: &Cell<u64>) -> u64 {
    dice.set(dice.get().wrapping_add(0x9e37_79b9_7f4a_7c15));
    let mut z = dice.get();
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
