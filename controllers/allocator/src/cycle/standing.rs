//! Who competes, kept from plan to plan: where only a few agents have changed, and all who compete
//! take whole ones, a plan costs what has changed and not how many compete.

use std::collections::HashSet;

use crate::changes::{Bits, Free};
use crate::cycle::ledger::Ledger;
use crate::cycle::offer::OpenAgents;
use crate::cycle::ranked::Ranked;
use crate::cycle::{Cycle, Decided, Step};
use crate::info::Placement;
use crate::state::{Allocator, Leaf, Sorter};
use crate::table::Id;

/// Everybody at their place, as of the last plan.
#[derive(Debug, Clone)]
pub(crate) struct Standing {
    ledger: Ledger,
    ranked: Ranked,
    /// How many compete.
    count: usize,
    /// Offers that were not answered, by framework.
    outstanding: Vec<usize>,
}

impl Allocator {
    /// Whether what is to be decided is only who gets these agents as they are.
    fn is_about_few(&self, look: &[Id]) -> bool {
        self.changes.pending == 0
            && self.changes.asking.is_empty()
            && self.options.sorter == Sorter::Drf
            && !self.options.agent_by_agent
            && self.claimed.is_empty()
            && self.nominated.is_empty()
            && look.len() <= self.leaves.span()
    }

    /// Who competes now; nothing if somebody wants something else than whole agents.
    fn take_standing(&mut self) -> Option<Box<Standing>> {
        let mut stale = std::mem::take(&mut self.changes.stale);
        stale.sort_unstable();
        stale.dedup();
        let kept = self.changes.standing.take();
        let fits = |kept: &Standing| kept.ledger.is_of(self) && 2 * stale.len() <= kept.count + 8;
        if let Some(mut standing) = kept.filter(|kept| fits(kept)) {
            standing.refresh(self, &stale);
            return Some(standing);
        }
        Standing::new(self).map(Box::new)
    }

    fn competes(&self, leaf: &Leaf) -> bool {
        let framework = &self.frameworks[leaf.framework];
        framework.known && framework.info.active && leaf.listed && !leaf.suppressed
    }
}

impl Standing {
    fn new(state: &Allocator) -> Option<Self> {
        let all_whole = state.frameworks.iter().all(|(_, framework)| {
            framework.info.placement == Placement::Tasks || framework.info.demand.is_none()
        });
        if !all_whole {
            return None;
        }
        let mut outstanding = vec![0; state.frameworks.span()];
        let mut leaves = Vec::new();
        for (id, leaf) in state.leaves.iter() {
            outstanding[leaf.framework as usize] += leaf.unanswered;
            let takes_offers = state.frameworks[leaf.framework].info.placement == Placement::Offers;
            if takes_offers && state.competes(leaf) {
                leaves.push(id);
            }
        }
        let ledger = Ledger::new(state, None, 0);
        let ranked = Ranked::new(state, &ledger, &leaves);
        Some(Self { ledger, ranked, count: leaves.len(), outstanding })
    }

    /// Brings leaves to what is known of them now.
    fn refresh(&mut self, state: &Allocator, leaves: &[Id]) {
        let queues = self.ledger.refresh(state, leaves);
        self.outstanding.resize(state.frameworks.span(), 0);
        for id in leaves {
            let Some(leaf) = state.leaves.get(*id) else { continue };
            self.ranked.settle_leaf(&self.ledger, *id, leaf.queue);
            let leaves = state.frameworks[leaf.framework].leaves.iter();
            self.outstanding[leaf.framework as usize] =
                leaves.map(|leaf| state.leaves[*leaf].unanswered).sum();
        }
        for queue in queues {
            self.ranked.settle_queue(&self.ledger, queue, self.ledger.above(queue));
        }
    }
}

/// Makes the plan for these agents if that is all there is to decide; else gives back what it works
/// on.
pub(crate) fn run_few(
    state: &mut Allocator,
    free: Free,
    now_ms: u64,
    seed: u64,
    look: &[Id],
) -> Result<(Decided, Free), Free> {
    if !state.is_about_few(look) {
        return Err(free);
    }
    let Some(standing) = state.take_standing() else { return Err(free) };
    let Standing { ledger, mut ranked, count, outstanding } = *standing;
    let open = OpenAgents::few(look, &state.changes.offerable, seed);
    let mut cycle = Cycle::with(state, free, now_ms, seed, ledger, Bits::default(), open);
    cycle.everything = false;
    cycle.outstanding = outstanding;
    cycle.whole_only = true;
    let suspects = cycle.sweep();
    let mut touched = Vec::new();
    let decided = cycle.take_few(&mut ranked, count, &mut touched);
    cycle.invert(None);
    let ledger = std::mem::take(&mut cycle.ledger);
    let outstanding = std::mem::take(&mut cycle.outstanding);
    let (result, free) = cycle.decide(suspects, Default::default());
    if !decided {
        return Err(free);
    }
    state.changes.stale = touched;
    state.changes.standing = Some(Box::new(Standing { ledger, ranked, count, outstanding }));
    Ok((result, free))
}

impl Cycle<'_> {
    /// Gives whole agents to whoever is next, until there are none or nobody wants those that are
    /// left. `false`: going through all who want none of them again and again costs more than a
    /// contest that those leave.
    fn take_few(&mut self, ranked: &mut Ranked, count: usize, touched: &mut Vec<Id>) -> bool {
        let mut out = HashSet::new();
        let mut patience = 4 * count + 64;
        while self.open.any() {
            let mut next = None;
            for leaf in ranked.iter() {
                if out.contains(&leaf) {
                    patience -= 1;
                    if patience == 0 {
                        return false;
                    }
                } else if self.step_whole(leaf, &mut 0) == Step::Took {
                    next = Some(leaf);
                    break;
                } else {
                    out.insert(leaf);
                }
            }
            let Some(leaf) = next else { return true };
            touched.push(leaf);
            ranked.settle(&self.ledger, leaf, self.state.leaves[leaf].queue);
        }
        true
    }
}
