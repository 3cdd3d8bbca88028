//! Steps of frameworks whose tasks are placed for them.

use std::collections::HashMap;
use std::ops::Bound;
use std::sync::Arc;

use crate::cycle::draw::Draw;
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
    draw: Option<Draw>,
}

impl Placed {
    /// What of it is plain.
    fn plain(&self, bundle: &Bundle) -> Lanes {
        self.draw.as_ref().map_or(bundle.lanes, |draw| draw.lanes)
    }
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
                self.sources.hope();
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
        // What is set aside for them goes first, but where tasks are to be spread.
        let spread = self.shapes(bundle).any(|shape| shape.spread.is_some());
        if !spread && let Some((agent, draw)) = self.find_draw(bundle, &room) {
            return Ok(self.put(leaf, at, bundle, agent, Some(draw)));
        }
        match self.find_plain(queue, bundle, &room) {
            Ok(agent) => Ok(self.put(leaf, at, bundle, agent, None)),
            Err(cause) if spread => match self.find_draw(bundle, &room) {
                Some((agent, draw)) => Ok(self.put(leaf, at, bundle, agent, Some(draw))),
                None => Err(cause),
            },
            Err(cause) => Err(cause),
        }
    }

    fn find_plain(&mut self, queue: Id, bundle: &Bundle, room: &Lanes) -> Result<Id, Cause> {
        if !bundle.lanes.fits(room) {
            let limited = !bundle.lanes.fits(&self.ledger.below_limits(queue));
            return Err(if limited { Cause::QueueLimit } else { Cause::Headroom });
        }
        self.find(bundle).ok_or(match bundle.pinned {
            Some(_) => Cause::Group,
            None => Cause::Room,
        })
    }

    fn put(
        &mut self,
        leaf: Id,
        at: usize,
        bundle: &Bundle,
        agent: Id,
        draw: Option<Draw>,
    ) -> Placed {
        let mut placed = Placed { bundle: at, agent, ports: Vec::new(), goods_before: None, draw };
        let (goods, picks) = match &placed.draw {
            Some(draw) => (&draw.goods, draw.picks),
            None => (&bundle.goods, bundle.picks),
        };
        let plain = placed.plain(bundle);
        self.free[agent as usize].sub(&plain);
        if picks > 0 || !goods.is_empty() {
            let before = self.goods_of(agent).clone();
            let mut rest = before.clone();
            rest.sub(goods);
            (placed.ports, rest.ports) =
                rest.ports.take(picks).expect("as many ports were found free");
            self.goods.insert(agent, rest);
            placed.goods_before = Some(before);
        }
        if let Some(draw) = &placed.draw {
            self.move_parts(agent, &draw.parts, true);
            let picks = bundle.tasks.iter().map(|task| self.picks_of(*task));
            placed.ports = draw.ports(std::mem::take(&mut placed.ports), picks);
        }
        self.ledger.give_parts(leaf, self.state.leaves[leaf].queue, &bundle.lanes, &plain);
        if self.neighbours_matter {
            for task in &bundle.tasks {
                self.placed_on.entry(agent).or_default().push(*task);
                self.count_spread(*task, agent, false);
            }
        }
        placed
    }

    /// How many ports the task has that any will do for.
    fn picks_of(&self, task: Id) -> usize {
        let wait = self.state.tasks[task].wait.as_ref();
        wait.map_or(0, |wait| self.state.shapes.get(wait.shape).picks)
    }

    fn undo(&mut self, leaf: Id, bundle: &Bundle, placed: &Placed) {
        let agent = placed.agent;
        let plain = placed.plain(bundle);
        self.free[agent as usize].add(&plain);
        if let Some(before) = &placed.goods_before {
            self.goods.insert(agent, before.clone());
        }
        if let Some(draw) = &placed.draw {
            self.move_parts(agent, &draw.parts, false);
        }
        let queue = self.state.leaves[leaf].queue;
        self.ledger.take_parts_back(leaf, queue, &bundle.lanes, &plain);
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
        let mut parts = placed.draw.map(|draw| draw.parts.into_iter());
        self.bound.extend(&bundle.tasks);
        self.bound_on.push(placed.agent);
        for id in &bundle.tasks {
            let task = &self.state.tasks[*id];
            let picks = self.picks_of(*id);
            let parts = parts.as_mut().and_then(Iterator::next).unwrap_or_default();
            self.plan.bindings.push(Binding {
                task: task.key.clone(),
                uid: task.uid.clone(),
                agent: Arc::clone(&self.state.agents[placed.agent].name),
                host_ports: ports.by_ref().take(picks).collect(),
                parts: parts.iter().map(|piece| piece.part(&self.state.names)).collect(),
                group_size: task.group.as_ref().map(|_| bundle.tasks.len()),
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
    pub(super) fn drafted(&self) -> HashMap<Id, Lanes> {
        let mut drafted: HashMap<Id, Lanes> = HashMap::new();
        for draft in &self.drafts {
            drafted.entry(draft.agent).or_default().add(&draft.lanes);
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
