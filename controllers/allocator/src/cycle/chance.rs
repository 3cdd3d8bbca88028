//! An order left to chance: queues shuffled by weight, and frameworks inside each queue alike.
//!
//! A queue's part of the whole is the product, down the tree, of its part among siblings; all queues
//! are drawn by their parts in one go, so that those of one parent do not stay together (Mesos'
//! random sorter).

use std::collections::{BTreeMap, BTreeSet};

use crate::cycle::ledger::Ledger;
use crate::state::Allocator;
use crate::table::Id;

pub(super) fn order(state: &Allocator, ledger: &Ledger, leaves: &[Id]) -> Vec<Id> {
    let mut own: BTreeMap<Id, Vec<Id>> = BTreeMap::new();
    let mut below: BTreeMap<Id, BTreeSet<Id>> = BTreeMap::new();
    for leaf in leaves {
        let mut queue = state.leaves[*leaf].queue;
        own.entry(queue).or_default().push(*leaf);
        while let Some(parent) = state.queues[queue].parent {
            below.entry(parent).or_default().insert(queue);
            queue = parent;
        }
    }
    let root = state.queues.id(crate::queues::ROOT).expect("the root is never removed");
    let (mut drawn, mut left) = (Vec::new(), vec![(root, 1.0)]);
    while let Some((queue, part)) = left.pop() {
        let children = below.get(&queue);
        let mut sum: f64 = children.into_iter().flatten().map(|id| state.queues[*id].weight).sum();
        if own.contains_key(&queue) {
            let weight = if children.is_some() { 1.0 } else { 0.0 };
            sum += weight;
            let part = if sum > 0.0 { part * weight / sum } else { part };
            drawn.push((ledger.draw(part).unwrap_or_default(), queue));
        }
        for child in children.into_iter().flatten() {
            left.push((*child, part * state.queues[*child].weight / sum));
        }
    }
    drawn.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let mut order = Vec::with_capacity(leaves.len());
    for (_, queue) in drawn {
        let leaves = own.remove(&queue).unwrap_or_default();
        let mut shuffled: Vec<(f64, Id)> =
            leaves.iter().map(|leaf| (ledger.draw(1.0).unwrap_or_default(), *leaf)).collect();
        shuffled.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        order.extend(shuffled.into_iter().map(|(_, leaf)| leaf));
    }
    order
}
