//! Equal units of declared demand change hands, so that they are fewer offers.
//!
//! Units are given out one by one, to whoever is next by fairness, and everybody's are packed onto the same agents: the
//! room of each agent goes to as many frameworks as stand in line for it. Who has which of several equal units makes no
//! difference to anybody, but each offer costs its writes and its watch events. So what was given is dealt once more: to
//! each framework as many units as it has got, on each agent as many as were given there.

use std::collections::{HashMap, HashSet};

use crate::cycle::Cycle;
use crate::cycle::offer::Draft;
use crate::lanes::{Goods, Lanes};
use crate::table::Id;

/// So many units of one agent for one leaf.
struct Deal {
    leaf: Id,
    agent: Id,
    count: u64,
}

impl Cycle<'_> {
    /// Deals the units of this run once more, unless somebody would get what it can't have.
    pub(super) fn exchange(&mut self) {
        let mut taken_back = HashSet::new();
        let mut dealt = Vec::new();
        for (unit, drafts) in self.equal_units() {
            let Some(deals) = self.deal(&unit, &drafts) else { continue };
            // At once: a framework may have units of other sizes too.
            for at in &drafts {
                let leaf = &self.state.leaves[self.drafts[*at].leaf];
                self.outstanding[leaf.framework as usize] -= 1;
            }
            for deal in &deals {
                self.outstanding[self.state.leaves[deal.leaf].framework as usize] += 1;
            }
            taken_back.extend(drafts);
            dealt.extend(deals.into_iter().map(|deal| (unit, deal)));
        }
        if taken_back.is_empty() {
            return;
        }
        // Whoever had as many offers as he may has perhaps fewer now.
        self.unfinished |= self.capped.get();
        let known = std::mem::take(&mut self.draft_of);
        let mut kept = Vec::with_capacity(self.drafts.len());
        for (at, draft) in std::mem::take(&mut self.drafts).into_iter().enumerate() {
            if taken_back.contains(&at) {
                continue;
            }
            let key = (draft.leaf, draft.agent);
            if known.get(&key) == Some(&at) {
                self.draft_of.insert(key, kept.len());
            }
            kept.push(draft);
        }
        self.drafts = kept;
        for (unit, Deal { leaf, agent, count }) in dealt {
            let (lanes, goods, parts) = (unit.times(count), Goods::default(), Vec::new());
            self.draft_of.insert((leaf, agent), self.drafts.len());
            self.drafts.push(Draft { leaf, agent, lanes, goods, all: false, parts });
        }
    }

    /// The places of the drafts that are made of nothing but one kind of unit, by unit, of leaves that have no others.
    fn equal_units(&self) -> Vec<(Lanes, Vec<usize>)> {
        let mut units: HashMap<Id, Option<Lanes>> = HashMap::new();
        for draft in &self.drafts {
            let unit = units.entry(draft.leaf).or_insert_with(|| self.only_unit(draft.leaf));
            let plain = !draft.all && draft.goods.is_empty() && draft.parts.is_empty();
            let is_made_of = |unit: &Lanes| unit.times(count(unit, draft)) == draft.lanes;
            *unit = unit.filter(|unit| {
                plain && is_made_of(unit) && !self.state.claimed.contains(&draft.agent)
            });
        }
        let mut places: HashMap<Lanes, usize> = HashMap::new();
        let mut classes: Vec<(Lanes, Vec<usize>)> = Vec::new();
        for (at, draft) in self.drafts.iter().enumerate() {
            let Some(unit) = units[&draft.leaf] else { continue };
            let place = *places.entry(unit).or_insert_with(|| {
                classes.push((unit, Vec::new()));
                classes.len() - 1
            });
            classes[place].1.push(at);
        }
        classes
    }

    /// What the leaf declares its tasks to need, if that is one thing.
    fn only_unit(&self, leaf: Id) -> Option<Lanes> {
        let framework = &self.state.frameworks[self.state.leaves[leaf].framework];
        let [unit] = framework.demand.get(&leaf)?.as_slice() else { return None };
        (unit.ports == 0 && !unit.lanes.is_zero()).then_some(unit.lanes)
    }

    /// Deals what these drafts have, in their order; `None` if that makes no fewer of them, or if not everybody may
    /// have what would be dealt to him.
    fn deal(&self, unit: &Lanes, drafts: &[usize]) -> Option<Vec<Deal>> {
        let (mut wanted, mut there) = (Tally::default(), Tally::default());
        for draft in drafts.iter().map(|at| &self.drafts[*at]) {
            wanted.add(draft.leaf, count(unit, draft));
            there.add(draft.agent, count(unit, draft));
        }
        let mut deals = Vec::with_capacity(wanted.0.len() + there.0.len());
        let mut agents = there.0.into_iter();
        let (mut agent, mut left) = agents.next()?;
        let mut more: HashMap<Id, isize> = HashMap::new();
        for (leaf, mut wanted) in wanted.0 {
            while wanted > 0 {
                if left == 0 {
                    (agent, left) = agents.next()?;
                }
                let count = wanted.min(left);
                deals.push(Deal { leaf, agent, count });
                *more.entry(self.state.leaves[leaf].framework).or_default() += 1;
                (wanted, left) = (wanted - count, left - count);
            }
        }
        for draft in drafts.iter().map(|at| &self.drafts[*at]) {
            *more.entry(self.state.leaves[draft.leaf].framework).or_default() -= 1;
        }
        let within_caps = more.iter().filter(|(_, more)| **more > 0).all(|(framework, more)| {
            let most = self.state.frameworks[*framework].info.max_outstanding;
            self.outstanding[*framework as usize].saturating_add_signed(*more) <= most
        });
        let may = |deal: &Deal| {
            let leaf = &self.state.leaves[deal.leaf];
            let framework = &self.state.frameworks[leaf.framework];
            let lanes = unit.times(deal.count);
            self.is_for(framework, leaf.queue, deal.agent)
                && !self.is_refused(deal.leaf, deal.agent, &lanes, &Goods::default(), &[])
        };
        (deals.len() < drafts.len() && within_caps && deals.iter().all(may)).then_some(deals)
    }
}

/// How many units a draft is of.
fn count(unit: &Lanes, draft: &Draft) -> u64 {
    unit.times_in(&draft.lanes, u64::MAX)
}

/// Sums by id, in the order in which the ids came.
#[derive(Default)]
struct Tally(Vec<(Id, u64)>, HashMap<Id, usize>);

impl Tally {
    fn add(&mut self, id: Id, count: u64) {
        let at = *self.1.entry(id).or_insert(self.0.len());
        match self.0.get_mut(at) {
            Some((_, sum)) => *sum += count,
            None => self.0.push((id, count)),
        }
    }
}
