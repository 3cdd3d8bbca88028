//! One run: from what is known to a plan.
//!
//! The run is a loop of steps. In each, the tree says who is next (the smallest weighted dominant
//! share), and that leaf takes one thing: a place for one task, one unit of its declared demand, or
//! a whole agent's free resources. A leaf that finds nothing more it may have leaves the contest.
//! Within a run free resources only shrink and queues only fill, so whatever was once found too
//! small or too full is never looked at again.

mod chance;
mod fair;
mod fit;
mod gangs;
mod offer;
mod place;
mod reclaim;
mod spread;
mod stages;
mod sweep;
mod why;

use std::cell::Cell;
use std::collections::{BTreeSet, HashMap, HashSet};

use crate::cycle::fair::{Contest, Ledger};
use crate::cycle::fit::Cursors;
use crate::cycle::offer::{Draft, OpenAgents, UnitRun};
use crate::cycle::spread::Spreads;
use crate::cycle::why::Waiting;
use crate::info::Placement;
use crate::lanes::{Goods, Lanes};
use crate::parts::Piece;
use crate::plan::Plan;
use crate::state::{Allocator, Turn};
use crate::table::Id;

/// Whether a leaf got something and may want more, or is out of the contest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Took,
    Done,
}

/// How far a leaf has come with what it wants.
enum Run {
    /// The last waiting task that was looked at.
    Tasks(Option<Turn>),
    Demand(Vec<UnitRun>),
    /// The place among the shuffled agents.
    Whole(usize),
}

/// What a run works on: the state, unchanged, and beside it what the run has taken so far.
pub(crate) struct Cycle<'a> {
    pub(crate) state: &'a Allocator,
    now_ms: u64,
    /// Free numbers by agent.
    free: Vec<Lanes>,
    /// Free goods of agents from which the run has taken some; of others they are in the state.
    goods: Vec<Option<Goods>>,
    /// Open agents in random order.
    shuffled: Vec<Id>,
    /// The same, those in use first and those with GPUs last.
    packed: Vec<Id>,
    /// Which of the shuffled have something free.
    open: OpenAgents,
    /// What is free of agents' parts, of agents that have any.
    pieces: HashMap<Id, Vec<Piece>>,
    /// Shared pieces that this run has offered already, by agent.
    shared: HashMap<Id, Vec<Piece>>,
    seed: u64,
    ledger: Ledger,
    /// Offers held by framework, with new ones.
    outstanding: Vec<usize>,
    drafts: Vec<Draft>,
    /// Drafts that may still grow: those for declared demand.
    draft_of: HashMap<(Id, Id), usize>,
    cursors: Cursors,
    spreads: Spreads,
    /// Tasks placed in this run, by agent; kept only if some task cares about its neighbours.
    placed_on: HashMap<Id, Vec<Id>>,
    neighbours_matter: bool,
    /// Tasks of groups and gangs that were dealt with together with another.
    done: HashSet<Id>,
    waiting: Vec<Waiting>,
    pub(crate) plan: Plan,
}

/// Makes the plan; with it the agents on which it takes something back for waiting tasks.
/// Only agents in `scope` are given out if there is one.
pub(crate) fn run(
    state: &Allocator,
    now_ms: u64,
    seed: u64,
    scope: Option<&BTreeSet<Id>>,
) -> (Plan, BTreeSet<Id>) {
    let mut cycle = Cycle::new(state, now_ms, seed, scope);
    cycle.sweep();
    let mut runs = cycle.hungry();
    let whole = cycle.take_whole(&mut runs);
    let hungry = (0..).zip(&runs).filter_map(|(leaf, run)| run.as_ref().map(|_| leaf));
    let mut contest = Contest::new(state, &cycle.ledger, hungry);
    while let Some(leaf) = contest.next() {
        let step = match &mut runs[leaf as usize] {
            Some(Run::Tasks(last)) => cycle.step_tasks(leaf, last),
            Some(Run::Demand(units)) => cycle.step_demand(leaf, units),
            Some(Run::Whole(at)) => cycle.step_whole(leaf, at),
            None => Step::Done,
        };
        contest.settle(state, &cycle.ledger, leaf, step);
    }
    cycle.stages(&whole);
    cycle.invert(scope);
    let waiting = cycle.explain();
    let claimed = cycle.reclaim(&waiting);
    (cycle.finish(), claimed)
}

/// All who may be given something, as they would be served now.
pub(crate) fn service_order(state: &Allocator, seed: u64) -> Vec<Id> {
    let cycle = Cycle::new(state, 0, seed, None);
    let active = state.leaves.iter().filter(|(_, leaf)| {
        let framework = &state.frameworks[leaf.framework];
        leaf.listed && !leaf.suppressed && framework.known && framework.info.active
    });
    let active: Vec<Id> = active.map(|(id, _)| id).collect();
    cycle.order(&active)
}

impl<'a> Cycle<'a> {
    fn new(state: &'a Allocator, now_ms: u64, seed: u64, scope: Option<&BTreeSet<Id>>) -> Self {
        let mut free = vec![Lanes::ZERO; state.agents.span()];
        let mut shuffled = Vec::with_capacity(free.len());
        let mut total = Lanes::ZERO;
        let mut pieces = HashMap::new();
        let mut available = Lanes::ZERO;
        let guaranteed = state.queues.iter().any(|(_, queue)| !queue.guarantee.is_zero());
        for (id, agent) in state.agents.iter() {
            total.add(&agent.total);
            for piece in &agent.parts {
                total.add(&piece.lanes);
            }
            if !agent.is_open() {
                continue;
            }
            let plain = agent.free();
            if guaranteed {
                available.add(&plain);
            }
            if !agent.parts.is_empty() {
                let parts = state.free_pieces(id);
                for piece in parts.iter().filter(|piece| guaranteed && piece.kind.is_charged()) {
                    available.add(&piece.lanes);
                }
                pieces.insert(id, parts);
            }
            if scope.is_none_or(|scope| scope.contains(&id)) {
                free[id as usize] = plain;
                shuffled.push(id);
            }
        }
        shuffle(&mut shuffled, seed);
        let packed = pack(state, &shuffled);
        let open = OpenAgents::new(shuffled.iter().map(|id| !free[*id as usize].is_zero()));
        Self {
            state,
            now_ms,
            free,
            goods: vec![None; state.agents.span()],
            shuffled,
            packed,
            open,
            pieces,
            shared: HashMap::new(),
            seed,
            ledger: Ledger::new(state, total, guaranteed.then_some(available), seed),
            outstanding: vec![0; state.frameworks.span()],
            drafts: Vec::new(),
            draft_of: HashMap::new(),
            cursors: Cursors::new(state.shapes.span()),
            spreads: Spreads::default(),
            placed_on: HashMap::new(),
            neighbours_matter: state
                .shapes
                .iter()
                .any(|shape| shape.spread.is_some() || shape.anti_affinity.is_some()),
            done: HashSet::new(),
            waiting: Vec::new(),
            plan: Plan::default(),
        }
    }

    /// What each leaf wants, if anything.
    fn hungry(&mut self) -> Vec<Option<Run>> {
        let mut runs: Vec<Option<Run>> = Vec::new();
        runs.resize_with(self.state.leaves.span(), || None);
        for (id, leaf) in self.state.leaves.iter() {
            let framework = &self.state.frameworks[leaf.framework];
            if !framework.known || !framework.info.active {
                continue;
            }
            if framework.info.placement == Placement::Tasks {
                if leaf.listed && !leaf.pending.is_empty() {
                    runs[id as usize] = Some(Run::Tasks(None));
                }
                continue;
            }
            let held = leaf.offers.iter().filter(|id| !self.state.offers[**id].answered).count();
            self.outstanding[leaf.framework as usize] += held;
            if !leaf.listed || leaf.suppressed {
                continue;
            }
            if framework.info.demand.is_none() {
                runs[id as usize] = Some(Run::Whole(0));
            } else if let Some(units) = framework.demand.get(&id) {
                runs[id as usize] = Some(Run::Demand(self.open_demand(leaf, units)));
            }
        }
        runs
    }

    fn free_of(&self, agent: Id) -> &Lanes {
        &self.free[agent as usize]
    }

    fn goods_of(&self, agent: Id) -> &Goods {
        self.goods[agent as usize].as_ref().unwrap_or(&self.state.agents[agent].free_goods)
    }

    fn finish(mut self) -> Plan {
        for draft in std::mem::take(&mut self.drafts) {
            let offer = self.publish(&draft);
            self.plan.offers.push(offer);
        }
        self.plan
    }
}

/// Agents in use before empty ones, so that those stay free for what needs a whole one; agents with
/// GPUs last, so that those stay free for what needs a GPU.
fn pack(state: &Allocator, shuffled: &[Id]) -> Vec<Id> {
    let mut classes: [Vec<Id>; 4] = Default::default();
    for id in shuffled {
        let agent = &state.agents[*id];
        let gpus = usize::from(agent.total.0[crate::lanes::GPU_LANE] > 0);
        let empty = usize::from(agent.tasks.is_empty());
        classes[2 * gpus + empty].push(*id);
    }
    classes.concat()
}

/// Fisher and Yates' shuffle over SplitMix64: small, and the same in every version of every library.
fn shuffle(items: &mut [Id], seed: u64) {
    let dice = Cell::new(seed);
    for last in (1..items.len()).rev() {
        // Multiply and shift instead of a remainder; the bias is below 2^-32 for any real cluster.
        let pick = ((u128::from(next_random(&dice)) * (last as u128 + 1)) >> 64) as usize;
        items.swap(last, pick);
    }
}

fn next_random(dice: &Cell<u64>) -> u64 {
    dice.set(dice.get().wrapping_add(0x9e37_79b9_7f4a_7c15));
    let mut z = dice.get();
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
