//! What has changed since the last plan, so that a plan costs what has changed and not what is
//! there; and sums over all agents that are kept instead of being made anew.
//!
//! A pair of a framework and an agent that came to nothing comes to nothing again until one of the
//! two changes: within a run and between runs only what is told here makes more possible. What makes
//! more possible for everybody (a queue, a framework, a limit that something was given back under)
//! lets the next plan look at everything; so does whatever is too rare to be followed singly. What a
//! plan decides counts as changed until the caller has told what became of it.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::amounts::Amounts;
use crate::cycle::{Decided, Standing, Whys};
use crate::lanes::{Goods, LaneNames, Lanes};
use crate::offers::Filter;
use crate::plan::{Address, Names, Plan};
use crate::state::{Agent, Allocator};
use crate::table::Id;

/// What the next plan looks at, and the sums.
#[derive(Debug, Clone, Default)]
pub(crate) struct Changes {
    /// Free numbers by agent; none of those that are not open.
    pub(crate) free: Free,
    /// What plans call agents and leaves.
    pub(crate) names: Arc<Names>,
    /// What all agents have.
    pub(crate) total: Lanes,
    /// What nobody holds and nobody has reserved, on open agents.
    pub(crate) available: Lanes,
    /// Open agents, and those of them that have something free, a bit for each.
    pub(crate) open: Bits,
    pub(crate) offerable: Bits,
    /// Open agents of which something is free or set aside, numbers or not, and those that have
    /// parts.
    pub(crate) something: Bits,
    pub(crate) parted: Bits,
    /// Agents about which there is more to know than their numbers: refusals, GPUs, an old version.
    pub(crate) peculiar: Bits,
    /// By leaf: agents of which it has refused all that is free.
    pub(crate) refused: Vec<Bits>,
    /// Agents that have something reserved, revocable, shared or of one piece.
    pub(crate) with_parts: usize,
    /// Agents on which more is held than there is.
    pub(crate) overfull: BTreeSet<Id>,
    /// Agents with something new, each once.
    pub(crate) agents: Vec<Id>,
    is_changed: Vec<bool>,
    /// Leaves at which something was booked since it was last looked at who competes, some of them
    /// more than once.
    pub(crate) stale: Vec<Id>,
    /// Who competes, as long as that is known.
    pub(crate) standing: Option<Box<Standing>>,
    /// How many tasks wait.
    pub(crate) pending: usize,
    /// Waiting tasks that no plan has looked for yet.
    pub(crate) tasks: BTreeSet<Id>,
    /// Leaves whose demand is larger than the last plan knew, or stood for by fewer offers.
    pub(crate) asking: BTreeSet<Id>,
    /// Offers that may have to end, seen by themselves.
    pub(crate) suspects: BTreeSet<Id>,
    /// Everything has changed.
    pub(crate) everything: bool,
    /// Some queue was given a guarantee, or a larger one, since the last plan.
    pub(crate) new_guarantee: bool,
    /// Some queue that somebody is in was given another weight since the last plan.
    pub(crate) new_weights: bool,
    /// There was a plan.
    pub(crate) decided: bool,
    /// Some framework has ever asked for ports.
    pub(crate) port_demand: bool,
    /// Some framework has as many offers as it may.
    pub(crate) capped: bool,
    /// Something has changed that is no agent's and no task's.
    pub(crate) anything: bool,
    /// What the last plan said of waiting tasks, and when time alone changes something.
    pub(crate) last: Option<Plan>,
}

/// A set of small numbers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Bits(pub(crate) Vec<u64>);

impl Bits {
    pub(crate) fn set(&mut self, id: Id, is: bool) {
        let (word, bit) = (id as usize / 64, 1 << (id % 64));
        if word >= self.0.len() {
            if !is {
                return;
            }
            self.0.resize(word + 1, 0);
        }
        if is {
            self.0[word] |= bit;
        } else {
            self.0[word] &= !bit;
        }
    }

    pub(crate) fn has(&self, id: Id) -> bool {
        self.word(id as usize / 64) >> (id % 64) & 1 == 1
    }

    /// What is in both.
    pub(crate) fn and(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(a, b)| a & b).collect())
    }

    pub(crate) fn word(&self, at: usize) -> u64 {
        self.0.get(at).copied().unwrap_or(0)
    }
}

/// Free numbers by agent, which a run changes and then puts back.
#[derive(Debug, Clone, Default)]
pub(crate) struct Free {
    lanes: Vec<Lanes>,
    /// Under which number all that is free of an agent was spelled out, if it was.
    numbers: Vec<u32>,
    pub(crate) amounts: Amounts,
    undo: Vec<(usize, Lanes)>,
    running: bool,
    /// What was found against agents for those that wait.
    pub(crate) whys: Box<Whys>,
}

impl Free {
    const NONE: u32 = u32::MAX;

    pub(crate) fn begin(&mut self) {
        self.running = true;
        // Amounts that were spelled out once and are nobody's any more.
        if self.amounts.count() > 1024 + self.lanes.len() / 8 {
            self.amounts = Amounts::default();
            self.numbers.fill(Self::NONE);
        }
    }

    fn change(&mut self, id: Id, lanes: Lanes) {
        self[id as usize] = lanes;
        self.numbers[id as usize] = Self::NONE;
    }

    /// Under which number all that is free of the agent is spelled out.
    pub(crate) fn amount_of<'g>(
        &mut self,
        id: Id,
        names: &LaneNames,
        goods: impl Fn() -> &'g Goods,
    ) -> u32 {
        let number = &mut self.numbers[id as usize];
        if *number == Self::NONE {
            *number = self.amounts.number(names, &self.lanes[id as usize], goods());
        }
        *number
    }

    pub(crate) fn put_back(&mut self) {
        for (at, lanes) in self.undo.drain(..).rev() {
            self.lanes[at] = lanes;
        }
        self.running = false;
    }

    /// Agents that the run has changed, some of them more than once.
    pub(crate) fn touched(&self) -> impl Iterator<Item = Id> {
        self.undo.iter().map(|(at, _)| *at as Id)
    }
}

impl std::ops::Index<usize> for Free {
    type Output = Lanes;

    fn index(&self, at: usize) -> &Lanes {
        &self.lanes[at]
    }
}

impl std::ops::IndexMut<usize> for Free {
    fn index_mut(&mut self, at: usize) -> &mut Lanes {
        let lanes = &mut self.lanes[at];
        if self.running {
            self.undo.push((at, *lanes));
        }
        lanes
    }
}

/// What an agent adds to the sums.
struct Part {
    total: Lanes,
    available: Lanes,
    free: Lanes,
    parts: bool,
}

impl Changes {
    /// Makes room for one more agent.
    pub(crate) fn grow(&mut self, id: Id, name: &Arc<str>) {
        let size = id as usize + 1;
        if self.free.lanes.len() < size {
            self.free.lanes.resize(size, Lanes::ZERO);
            self.free.numbers.resize(size, Free::NONE);
            self.is_changed.resize(size, false);
        }
        let names = &mut Arc::make_mut(&mut self.names).agents;
        if names.len() < size {
            names.resize(size, name.clone());
        }
        names[id as usize] = name.clone();
    }

    /// Notes to whom offers to a leaf go.
    pub(crate) fn seat(&mut self, leaf: Id, to: Address) {
        let seats = &mut Arc::make_mut(&mut self.names).seats;
        let seat = (Arc::new(to), 0);
        if seats.len() <= leaf as usize {
            seats.resize(leaf as usize + 1, seat.clone());
        }
        seats[leaf as usize] = seat;
    }

    /// Notes how long offers to a leaf stand.
    pub(crate) fn seat_for(&mut self, leaf: Id, timeout_ms: u64) {
        if self.names.seats[leaf as usize].1 != timeout_ms {
            Arc::make_mut(&mut self.names).seats[leaf as usize].1 = timeout_ms;
        }
    }

    pub(crate) fn agent(&mut self, id: Id) {
        if !std::mem::replace(&mut self.is_changed[id as usize], true) {
            self.agents.push(id);
        }
    }

    fn refuse(&mut self, leaf: Id, agent: Id, is: bool) {
        let at = leaf as usize;
        if at >= self.refused.len() {
            if !is {
                return;
            }
            self.refused.resize_with(at + 1, Bits::default);
        }
        self.refused[at].set(agent, is);
    }

    pub(crate) fn all(&mut self) {
        self.everything = true;
    }

    /// All of it has been looked at.
    fn settle(&mut self) {
        for id in self.agents.drain(..) {
            self.is_changed[id as usize] = false;
        }
        self.tasks.clear();
        self.asking.clear();
        (self.everything, self.anything) = (false, false);
    }
}

impl Allocator {
    fn part_of(&self, id: Id) -> Part {
        let agent: &Agent = &self.agents[id];
        let mut part = Part {
            total: agent.total,
            available: Lanes::ZERO,
            free: Lanes::ZERO,
            parts: !agent.parts.is_empty(),
        };
        if part.parts {
            part.total.add(&crate::parts::sum(&agent.parts));
        }
        if agent.is_open() {
            part.free = agent.free();
        }
        if agent.is_open() || (self.options.headroom_of_closed && agent.known) {
            part.available = agent.free();
            if part.parts {
                for piece in self.free_pieces(id).iter().filter(|piece| piece.kind.is_charged()) {
                    part.available.add(&piece.lanes);
                }
            }
        }
        part
    }

    /// Changes an agent, and keeps the sums.
    pub(crate) fn change_agent<R>(&mut self, id: Id, change: impl FnOnce(&mut Self) -> R) -> R {
        let before = self.part_of(id);
        let result = change(self);
        let after = self.part_of(id);
        let agent = &self.agents[id];
        let over = !agent.allocated.plus(&agent.offered).minus(&agent.total).is_zero();
        let (open, has_gpus) = (agent.is_open(), agent.has_gpus());
        let something = !after.free.is_zero() || !agent.free_goods.is_empty() || after.parts;
        let peculiar = has_gpus || agent.single_queue || agent.flat_queues;
        let changes = &mut self.changes;
        changes.total = changes.total.minus(&before.total).plus(&after.total);
        changes.available = changes.available.minus(&before.available).plus(&after.available);
        changes.with_parts += usize::from(after.parts);
        changes.with_parts -= usize::from(before.parts);
        changes.free.change(id, after.free);
        changes.open.set(id, open);
        changes.offerable.set(id, !after.free.is_zero());
        changes.something.set(id, open && something);
        changes.parted.set(id, after.parts);
        changes.peculiar.set(id, peculiar || !agent.filters.is_empty());
        if over {
            changes.overfull.insert(id);
        } else {
            changes.overfull.remove(&id);
        }
        changes.agent(id);
        self.note_refusals(id);
        result
    }

    /// Notes for whom there is nothing on the agent that they have not refused.
    pub(crate) fn note_refusals(&mut self, id: Id) {
        let agent = &self.agents[id];
        if agent.filters.is_empty() {
            return;
        }
        self.changes.peculiar.set(id, true);
        for filter in &agent.filters {
            self.changes.refuse(filter.leaf, id, false);
        }
        if !agent.parts.is_empty() || !agent.is_open() {
            return;
        }
        let free = agent.free();
        for filter in &agent.filters {
            if filter.blocks(filter.leaf, &free, &agent.free_goods, &[]) {
                self.changes.refuse(filter.leaf, id, true);
            }
        }
    }

    /// Forgets refusals of an agent; whether there were any to forget.
    pub(crate) fn retain_filters(&mut self, id: Id, keep: impl Fn(&Filter) -> bool) -> bool {
        let Some(agent) = self.agents.get_mut(id) else { return false };
        let before = agent.filters.len();
        for filter in &agent.filters {
            self.changes.refuse(filter.leaf, id, false);
        }
        agent.filters.retain(keep);
        let fewer = agent.filters.len() < before;
        self.note_refusals(id);
        fewer
    }

    /// Something under this queue was given back, or will be asked for.
    pub(crate) fn relieve_queue(&mut self, queue: Id) {
        if self.limited.is_empty() && self.guaranteed.is_empty() {
            return;
        }
        let mut path = std::iter::successors(Some(queue), |id| self.queues[*id].parent);
        if !self.guaranteed.is_empty() || path.any(|id| self.limited.contains(&id)) {
            self.changes.all();
        }
    }

    /// Whether nothing but time has passed since the last plan, and not enough of it to matter.
    pub(crate) fn is_quiet(&self, now_ms: u64) -> bool {
        let changes = &self.changes;
        let told = changes.agents.is_empty()
            && changes.tasks.is_empty()
            && changes.asking.is_empty()
            && !changes.everything
            && !changes.anything;
        let Some(last) = changes.last.as_ref().filter(|_| told) else { return false };
        last.next_wake_ms.is_none_or(|wake| now_ms < wake) && self.claimed.is_empty()
    }

    /// Whether what is possible follows from the changes of single agents: guarantees and parts tie
    /// everything to everything, and which ports are picked depends on which others take.
    pub(crate) fn is_plain(&self) -> bool {
        self.guaranteed.is_empty() && self.changes.with_parts == 0 && !self.changes.port_demand
    }

    /// Everything has been looked at. What was decided counts as changed: nobody has told yet what
    /// became of it.
    pub(crate) fn note_decided(&mut self, decided: &mut Decided) {
        self.changes.settle();
        let before = std::mem::take(&mut self.claimed);
        let nominated = std::mem::take(&mut self.nominated);
        let of_tasks = nominated.values().chain(decided.nominated.values());
        for id in before.iter().chain(&decided.claimed).chain(of_tasks).chain(&decided.agents) {
            self.changes.agent(*id);
        }
        self.changes.tasks.extend(&decided.tasks);
        self.changes.suspects = std::mem::take(&mut decided.suspects);
        self.changes.capped = decided.capped;
        self.changes.everything |= decided.unfinished;
        let plan = &decided.plan;
        self.changes.anything |= !plan.rescind.is_empty()
            || !plan.expire.is_empty()
            || !plan.preempt.is_empty()
            || !plan.inverse_offers.is_empty();
        let (why, next_wake_ms) = (plan.why.clone(), plan.next_wake_ms);
        self.changes.last = Some(Plan { why, next_wake_ms, ..Plan::default() });
    }
}
