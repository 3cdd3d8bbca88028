//! One run: from what is known to a plan.
//!
//! The run is a loop of steps. In each, the tree says who is next (the smallest weighted dominant
//! share), and that leaf takes one thing: a place for one task, one unit of its declared demand, or
//! a whole agent's free resources. A leaf that finds nothing more it may have leaves the contest.
//! Within a run free resources only shrink and queues only fill, so whatever was once found too
//! small or too full is never looked at again.

mod chance;
mod demand;
mod draw;
mod exchange;
mod fair;
mod fit;
mod gangs;
mod ledger;
mod offer;
mod order;
mod place;
mod preempt;
mod ranked;
mod reclaim;
mod spread;
mod stages;
mod standing;
mod sweep;
mod victims;
mod why;
mod whys;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::changes::{Bits, Free};
use crate::cycle::demand::UnitRun;
use crate::cycle::draw::Sources;
use crate::cycle::fair::Contest;
use crate::cycle::fit::Cursors;
use crate::cycle::ledger::Ledger;
use crate::cycle::offer::{Draft, OpenAgents};
use crate::cycle::order::{in_order, pack};
use crate::cycle::preempt::Preempting;
use crate::cycle::spread::Spreads;
use crate::cycle::why::Waiting;
use crate::info::Placement;
use crate::lanes::{Goods, Lanes};
use crate::parts::Piece;
use crate::plan::Plan;
use crate::state::{Allocator, Turn};
use crate::table::Id;

pub(crate) use crate::cycle::standing::{Standing, run_few};
pub(crate) use crate::cycle::whys::Whys;

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
    free: Free,
    /// Whether all agents are looked at, and not only those that have changed.
    everything: bool,
    /// Free goods of agents from which the run has taken some; of others they are in the state.
    goods: HashMap<Id, Goods>,
    /// Open agents that are looked at; an order by chance is that of blocks of them.
    seen: Bits,
    /// Those, some of them first: those in use first and those with GPUs last.
    packed: Vec<Id>,
    /// All open agents like that, once a run has asked for them.
    packed_all: Option<Vec<Id>>,
    /// Those of them that have something free.
    open: OpenAgents,
    /// Agents of which a run has taken all that is no number.
    stripped: Bits,
    no_goods: Goods,
    /// What is free of agents' parts, of agents that have any.
    pieces: HashMap<Id, Vec<Piece>>,
    /// The same for tasks.
    sources: Sources,
    /// Shared pieces that this run has offered already, by agent.
    shared: HashMap<Id, Vec<Piece>>,
    seed: u64,
    ledger: Ledger,
    /// Offers held by framework, with new ones.
    outstanding: Vec<usize>,
    drafts: Vec<Draft>,
    /// All who compete take whole agents: who gets which of them is all there is to say.
    whole_only: bool,
    /// Leaves with agents that they get as they are.
    whole: Vec<(Id, Id)>,
    /// Drafts that may still grow: those for declared demand.
    draft_of: HashMap<(Id, Id), usize>,
    cursors: Cursors,
    /// The same for those that nobody has looked for yet, among all agents.
    fresh_cursors: Cursors,
    spreads: Spreads,
    /// Tasks placed in this run, by agent; kept only if some task cares about its neighbours.
    placed_on: HashMap<Id, Vec<Id>>,
    neighbours_matter: bool,
    /// Tasks of groups and gangs that were dealt with together with another.
    done: HashSet<Id>,
    waiting: Vec<Waiting>,
    preempting: Preempting,
    /// Tasks that were placed, and where.
    bound: Vec<Id>,
    bound_on: Vec<Id>,
    capped: Cell<bool>,
    unfinished: bool,
    pub(crate) plan: Plan,
}

/// What a run came to.
pub(crate) struct Decided {
    pub(crate) plan: Plan,
    /// Agents on which something is taken back for waiting tasks.
    pub(crate) claimed: BTreeSet<Id>,
    /// Waiting tasks for which something ends on an agent.
    pub(crate) nominated: BTreeMap<Id, Id>,
    /// Agents and tasks that something was decided about.
    pub(crate) agents: Vec<Id>,
    pub(crate) tasks: Vec<Id>,
    /// Offers that should not be there and are.
    pub(crate) suspects: BTreeSet<Id>,
    /// Some framework has as many offers as it may.
    pub(crate) capped: bool,
    /// There is more to do than one plan does.
    pub(crate) unfinished: bool,
}

/// Makes the plan. Only agents in `look` are given out if there is one, and what waits is looked for
/// there; only those in `scope` are asked to be left.
pub(crate) fn run(
    state: &Allocator,
    free: Free,
    now_ms: u64,
    seed: u64,
    look: Option<Vec<Id>>,
    scope: Option<&BTreeSet<Id>>,
) -> (Decided, Free) {
    let mut cycle = Cycle::new(state, free, now_ms, seed, look);
    let suspects = cycle.sweep();
    cycle.settle_nominated();
    let mut runs = cycle.hungry();
    cycle.offer_reserved(&mut runs);
    let whole = cycle.take_whole(&mut runs);
    cycle.whole_only =
        whole.is_empty() && runs.iter().flatten().all(|run| matches!(run, Run::Whole(_)));
    let hungry = (0..).zip(&runs).filter_map(|(leaf, run)| run.as_ref().map(|_| leaf));
    let mut contest = Contest::new(state, &cycle.ledger, hungry);
    let most = cycle.open.count();
    if cycle.whole_only {
        cycle.whole.reserve(most)
    } else {
        cycle.drafts.reserve(most)
    }
    while let Some(leaf) = contest.next() {
        let step = match &mut runs[leaf as usize] {
            Some(Run::Tasks(last)) => cycle.step_tasks(leaf, last),
            Some(Run::Demand(units)) => cycle.step_demand(leaf, units),
            Some(Run::Whole(at)) => cycle.step_whole(leaf, at),
            None => Step::Done,
        };
        contest.settle(&cycle.ledger, state.leaves[leaf].queue, step);
        if cycle.whole_only && !cycle.open.any() {
            break;
        }
    }
    cycle.exchange();
    cycle.stages(&whole);
    cycle.invert(scope);
    let waiting = cycle.explain();
    let (claimed, served) = cycle.reclaim(&waiting);
    cycle.preempt(&waiting, &served);
    cycle.decide(suspects, claimed)
}

/// All who may be given something, as they would be served now.
pub(crate) fn service_order(state: &Allocator, seed: u64) -> Vec<Id> {
    let cycle = Cycle::new(state, Free::default(), 0, seed, Some(Vec::new()));
    let active = state.leaves.iter().filter(|(_, leaf)| {
        let framework = &state.frameworks[leaf.framework];
        leaf.listed && !leaf.suppressed && framework.known && framework.info.active
    });
    let active: Vec<Id> = active.map(|(id, _)| id).collect();
    cycle.order(&active)
}

impl<'a> Cycle<'a> {
    fn new(
        state: &'a Allocator,
        free: Free,
        now_ms: u64,
        seed: u64,
        look: Option<Vec<Id>>,
    ) -> Self {
        let available = (!state.guaranteed.is_empty()).then_some(state.changes.available);
        let ledger = Ledger::new(state, available, seed);
        let everything = look.is_none();
        let seen = look.map_or_else(
            || state.changes.open.clone(),
            |ids| {
                let mut seen = Bits::default();
                for id in ids {
                    seen.set(id, state.changes.open.has(id));
                }
                seen
            },
        );
        let open = OpenAgents::new(&seen, &state.changes.offerable, seed);
        let mut cycle = Self::with(state, free, now_ms, seed, ledger, seen, open);
        cycle.everything = everything;
        if state.changes.with_parts > 0 {
            for id in in_order(&cycle.seen.and(&state.changes.parted), seed) {
                cycle.pieces.insert(id, state.free_pieces(id));
                cycle.sources.agents.push(id);
            }
        }
        let wants = state.changes.pending > 0
            || state.frameworks.iter().any(|(_, framework)| !framework.demand.is_empty());
        if wants {
            cycle.packed = pack(state, &in_order(&cycle.seen, seed));
        }
        cycle.outstanding = vec![0; state.frameworks.span()];
        cycle
    }

    /// With what is known of who competes, and of agents that are looked at.
    fn with(
        state: &'a Allocator,
        free: Free,
        now_ms: u64,
        seed: u64,
        ledger: Ledger,
        seen: Bits,
        open: OpenAgents,
    ) -> Self {
        Self {
            state,
            now_ms,
            free,
            everything: true,
            goods: HashMap::new(),
            seen,
            stripped: Bits::default(),
            no_goods: Goods::default(),
            packed: Vec::new(),
            packed_all: None,
            open,
            pieces: HashMap::new(),
            sources: Sources::default(),
            shared: HashMap::new(),
            seed,
            ledger,
            outstanding: Vec::new(),
            drafts: Vec::new(),
            whole_only: false,
            whole: Vec::new(),
            draft_of: HashMap::new(),
            cursors: Cursors::new(state.shapes.span()),
            fresh_cursors: Cursors::new(state.shapes.span()),
            spreads: Spreads::default(),
            placed_on: HashMap::new(),
            neighbours_matter: state
                .shapes
                .iter()
                .any(|shape| shape.spread.is_some() || shape.anti_affinity.is_some()),
            done: HashSet::new(),
            waiting: Vec::new(),
            preempting: Preempting::default(),
            bound: Vec::new(),
            bound_on: Vec::new(),
            capped: Cell::new(false),
            unfinished: false,
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
            self.outstanding[leaf.framework as usize] += leaf.unanswered;
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
        if self.stripped.has(agent) {
            return &self.no_goods;
        }
        if self.goods.is_empty() {
            return &self.state.agents[agent].free_goods;
        }
        self.goods.get(&agent).unwrap_or(&self.state.agents[agent].free_goods)
    }

    /// What the run came to, and what it worked on.
    fn decide(mut self, suspects: BTreeSet<Id>, claimed: BTreeSet<Id>) -> (Decided, Free) {
        let whole = self.whole.iter().map(|(_, agent)| *agent);
        let drafted = self.drafts.iter().map(|draft| draft.agent);
        let decided = Decided {
            plan: Plan::default(),
            claimed,
            nominated: std::mem::take(&mut self.preempting.nominated),
            agents: whole.chain(drafted).chain(std::mem::take(&mut self.bound_on)).collect(),
            tasks: std::mem::take(&mut self.bound),
            suspects,
            // Whoever was at the cap before may be it still: not everybody was asked.
            capped: self.capped.get() || (!self.everything && self.state.changes.capped),
            unfinished: self.unfinished,
        };
        self.publish();
        (Decided { plan: self.plan, ..decided }, self.free)
    }

    /// All open agents, those in use first and those with GPUs last.
    fn all_packed(&mut self) -> &[Id] {
        if self.everything {
            return &self.packed;
        }
        let (state, seed) = (self.state, self.seed);
        self.packed_all.get_or_insert_with(|| pack(state, &in_order(&state.changes.open, seed)))
    }
}
