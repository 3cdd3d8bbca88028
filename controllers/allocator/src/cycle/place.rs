//! Steps of frameworks whose tasks are placed for them.

use std::ops::Bound;
use std::sync::Arc;

use crate::cycle::fit::{Bundle, Cursor};
use crate::cycle::gangs::Party;
use crate::cycle::why::{Cause, Waiting};
use crate::cycle::{Cycle, Step};
use crate::lanes::{Goods, Lanes};
use crate::plan::Binding;
use crate::state::Turn;
use crate::table::Id;

/// A bundle that was put on an agent, with what it takes to undo that.
struct Placed {
    bundle: usize,
    agent: Id,
    ports: Vec<u16>,
    goods_before: Option<Goods>,
}

impl Cycle<'_> {
    /// The next waiting task, group or gang that can be placed, in the order of turns. Those that
    /// can't are passed over: smaller ones behind them are not held up.
    pub(super) fn step_tasks(&mut self, leaf: Id, last: &mut Option<Turn>) -> Step {
        let state = self.state;
        loop {
            let after = last.map_or(Bound::Unbounded, Bound::Excluded);
            let mut rest = state.leaves[leaf].pending.range((after, Bound::Unbounded));
            let Some(turn) = rest.next() else { return Step::Done };
            *last = Some(*turn);
            let task = turn.3;
            if self.done.contains(&task) {
                continue;
            }
            match self.party(task) {
                Party::Ready(bundles) => {
                    if self.place_all(leaf, &bundles) {
                        return Step::Took;
                    }
                }
                Party::Incomplete => {
                    let bundle = self.bundle(vec![task], None);
                    self.waiting.push(Waiting { bundle, cause: Cause::GangIncomplete });
                }
            }
        }
    }

    /// Places all of them, or none.
    pub(super) fn place_all(&mut self, leaf: Id, bundles: &[Bundle]) -> bool {
        let together: usize = bundles.iter().map(|bundle| bundle.tasks.len()).sum();
        if together > 1 {
            self.done.extend(bundles.iter().flat_map(|bundle| &bundle.tasks));
        }
        let before = (bundles.len() > 1).then(|| self.remember(bundles));
        let mut placed = Vec::with_capacity(bundles.len());
        for (at, bundle) in bundles.iter().enumerate() {
            let cause = match self.place(leaf, at, bundle) {
                Ok(one) => {
                    placed.push(one);
                    continue;
                }
                Err(cause) => cause,
            };
            for one in placed.iter().rev() {
                self.undo(leaf, &bundles[one.bundle], one);
            }
            if let Some(before) = before {
                self.recall(before);
            }
            // The whole gang waits for what the first that did not fit waits for.
            let mut waiting = bundle.clone();
            waiting.tasks = bundles.iter().flat_map(|bundle| bundle.tasks.clone()).collect();
            let cause = if bundles.len() > 1 && cause == Cause::Room { Cause::Gang } else { cause };
            self.waiting.push(Waiting { bundle: waiting, cause });
            return false;
        }
        for one in placed {
            self.bind(&bundles[one.bundle], one);
        }
        true
    }

    fn place(&mut self, leaf: Id, at: usize, bundle: &Bundle) -> Result<Placed, Cause> {
        let queue = self.state.leaves[leaf].queue;
        let room = self.ledger.room(queue);
        if !bundle.lanes.fits(&room) {
            let limited = !bundle.lanes.fits(&self.ledger.below_limits(queue));
            return Err(if limited { Cause::QueueLimit } else { Cause::Headroom });
        }
        let agent = self.find(bundle).ok_or(match bundle.pinned {
            Some(_) => Cause::Group,
            None => Cause::Room,
        })?;
        self.free[agent as usize].sub(&bundle.lanes);
        let (mut ports, mut goods_before) = (Vec::new(), None);
        if bundle.picks > 0 || !bundle.goods.is_empty() {
            let before = self.goods_of(agent).clone();
            let mut rest = before.clone();
            rest.sub(&bundle.goods);
            (ports, rest.ports) =
                rest.ports.take(bundle.picks).expect("fits() found that many ports");
            self.goods.insert(agent, rest);
            goods_before = Some(before);
        }
        self.ledger.give(leaf, queue, &bundle.lanes);
        if self.neighbours_matter {
            for task in &bundle.tasks {
                self.placed_on.entry(agent).or_default().push(*task);
                self.count_spread(*task, agent, false);
            }
        }
        Ok(Placed { bundle: at, agent, ports, goods_before })
    }

    fn undo(&mut self, leaf: Id, bundle: &Bundle, placed: &Placed) {
        let agent = placed.agent;
        self.free[agent as usize].add(&bundle.lanes);
        if let Some(before) = &placed.goods_before {
            self.goods.insert(agent, before.clone());
        }
        self.ledger.take_back(leaf, self.state.leaves[leaf].queue, &bundle.lanes);
        if self.neighbours_matter {
            let tasks = self.placed_on.entry(agent).or_default();
            tasks.truncate(tasks.len() - bundle.tasks.len());
            for task in &bundle.tasks {
                self.count_spread(*task, agent, true);
            }
        }
    }

    fn bind(&mut self, bundle: &Bundle, placed: Placed) {
        let mut ports = placed.ports.into_iter();
        self.bound.extend(&bundle.tasks);
        self.bound_on.push(placed.agent);
        for id in &bundle.tasks {
            let task = &self.state.tasks[*id];
            let picks =
                task.wait.as_ref().map_or(0, |wait| self.state.shapes.get(wait.shape).picks);
            self.plan.bindings.push(Binding {
                task: task.key.clone(),
                uid: task.uid.clone(),
                agent: Arc::clone(&self.state.agents[placed.agent].name),
                host_ports: ports.by_ref().take(picks).collect(),
            });
        }
    }

    /// Where the search for each of these bundles stands; an attempt that comes to nothing must not
    /// have moved it.
    fn remember(&mut self, bundles: &[Bundle]) -> Memory {
        let mut memory = Memory::default();
        for bundle in bundles {
            let cursor = self.cursors_of(bundle.fresh).get(&bundle.shapes);
            memory.cursors.push((bundle.shapes.clone(), bundle.fresh, cursor));
            if let [shape] = bundle.shapes[..] {
                let key = (self.framework_of(bundle.tasks[0]), shape);
                memory.lists.push((key, self.spreads.lists.get(&key).cloned()));
            }
        }
        memory
    }

    fn recall(&mut self, memory: Memory) {
        for (shapes, fresh, cursor) in memory.cursors {
            self.cursors_of(fresh).set(&shapes, cursor);
        }
        for (key, list) in memory.lists {
            match list {
                Some(list) => self.spreads.lists.insert(key, list),
                None => self.spreads.lists.remove(&key),
            };
        }
    }

    /// What the run has put into offers of an agent, by agent.
    pub(super) fn drafted(&self) -> Vec<Lanes> {
        let mut drafted = vec![Lanes::ZERO; self.free.len()];
        for draft in &self.drafts {
            drafted[draft.agent as usize].add(&draft.lanes);
        }
        drafted
    }
}

type SpreadList = std::collections::BTreeMap<Option<String>, std::collections::VecDeque<Id>>;

#[derive(Default)]
struct Memory {
    cursors: Vec<(Vec<Id>, bool, Cursor)>,
    lists: Vec<((Id, Id), Option<SpreadList>)>,
}
