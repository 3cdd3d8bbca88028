//! Whether a bundle of tasks (one task, or a group that goes to one agent) fits an agent.

use std::collections::HashMap;
use std::sync::Arc;

use crate::cycle::Cycle;
use crate::lanes::{Goods, Lanes};
use crate::selector::Selector;
use crate::shapes::Shape;
use crate::table::Id;

/// Tasks that go to one agent together.
#[derive(Debug, Clone)]
pub(super) struct Bundle {
    /// In the order of their turns.
    pub(super) tasks: Vec<Id>,
    /// Their shapes, sorted.
    pub(super) shapes: Vec<Id>,
    pub(super) lanes: Lanes,
    pub(super) goods: Goods,
    pub(super) picks: usize,
    /// Others of the group are there already.
    pub(super) pinned: Option<Id>,
    /// Nobody has looked for a place for it since something was said of it: it may fit where
    /// nothing has changed.
    pub(super) fresh: bool,
}

/// How far the search for a place has come among the packed agents: first among those that are also
/// preferred, then among all.
pub(super) type Cursor = [usize; 2];

/// The cursors of all mixes of shapes that were looked for.
pub(super) struct Cursors {
    /// Of single tasks, by shape.
    single: Vec<Cursor>,
    /// Of groups.
    mixed: HashMap<Vec<Id>, Cursor>,
}

impl Cursors {
    pub(super) fn new(shapes: usize) -> Self {
        Self { single: vec![[0; 2]; shapes], mixed: HashMap::new() }
    }

    pub(super) fn get(&self, shapes: &[Id]) -> Cursor {
        match shapes {
            [shape] => self.single[*shape as usize],
            _ => self.mixed.get(shapes).copied().unwrap_or_default(),
        }
    }

    pub(super) fn set(&mut self, shapes: &[Id], cursor: Cursor) {
        if let [shape] = shapes {
            self.single[*shape as usize] = cursor;
        } else {
            self.mixed.insert(shapes.to_vec(), cursor);
        }
    }
}

impl Cycle<'_> {
    pub(super) fn bundle(&self, tasks: Vec<Id>, pinned: Option<Id>) -> Bundle {
        let mut bundle = Bundle {
            shapes: Vec::with_capacity(tasks.len()),
            tasks,
            lanes: Lanes::ZERO,
            goods: Goods::default(),
            picks: 0,
            pinned,
            fresh: false,
        };
        for task in &bundle.tasks {
            bundle.fresh |= self.state.changes.tasks.contains(task);
            let Some(wait) = &self.state.tasks[*task].wait else { continue };
            let shape = self.state.shapes.get(wait.shape);
            bundle.shapes.push(wait.shape);
            bundle.lanes.add(&shape.lanes);
            bundle.goods.add(&shape.goods);
            bundle.picks += shape.picks;
        }
        bundle.shapes.sort_unstable();
        bundle
    }

    pub(super) fn shapes<'b>(&'b self, bundle: &'b Bundle) -> impl Iterator<Item = &'b Shape> {
        bundle.shapes.iter().map(|id| self.state.shapes.get(*id))
    }

    /// Whether the bundle can be put on the agent now.
    pub(super) fn fits(&self, bundle: &Bundle, agent: Id) -> bool {
        bundle.lanes.fits(self.free_of(agent))
            && self.has_goods(bundle, self.goods_of(agent))
            && self.shapes(bundle).all(|shape| {
                shape.unknown.is_empty()
                    && shape.required.matches(&self.state.agents[agent].labels)
                    && !self.is_averse(shape, agent)
            })
    }

    pub(super) fn has_goods(&self, bundle: &Bundle, goods: &Goods) -> bool {
        let named = bundle.goods.ports.len();
        // Two tasks of a group that name the same port can't be on one agent.
        let wanted: usize = match bundle.shapes.len() {
            1 => named,
            _ => self.shapes(bundle).map(|shape| shape.goods.ports.len()).sum(),
        };
        wanted == named
            && goods.contains(&bundle.goods)
            && (bundle.picks == 0 || goods.ports.len() >= named + bundle.picks)
    }

    /// Whether a task is there that this one does not want to be with.
    pub(super) fn is_averse(&self, shape: &Shape, agent: Id) -> bool {
        let Some((namespace, selector)) = &shape.anti_affinity else { return false };
        let there = self.state.agents[agent].tasks.iter();
        let placed = self.placed_on.get(&agent).into_iter().flatten();
        there.chain(placed).any(|id| self.is_disliked(*id, namespace, selector))
    }

    fn is_disliked(&self, task: Id, namespace: &Arc<str>, selector: &Selector) -> bool {
        let task = &self.state.tasks[task];
        task.key.namespace == *namespace && selector.matches(&task.labels)
    }

    /// Whether the agent is what every task of the bundle would like best.
    pub(super) fn is_preferred(&self, bundle: &Bundle, agent: Id) -> bool {
        let labels = &self.state.agents[agent].labels;
        self.shapes(bundle).all(|shape| shape.preferred.matches(labels))
    }

    /// The agent for the bundle: the first among the packed ones, or the next in the domain with
    /// the fewest tasks when it wants to be spread.
    pub(super) fn find(&mut self, bundle: &Bundle) -> Option<Id> {
        if let Some(agent) = bundle.pinned {
            return (self.state.agents[agent].is_open() && self.fits(bundle, agent))
                .then_some(agent);
        }
        if let [shape] = bundle.shapes[..]
            && self.state.shapes.get(shape).spread.is_some()
        {
            return self.find_spread(bundle, shape);
        }
        if bundle.fresh && !self.everything {
            self.all_packed();
        }
        let picky = self.shapes(bundle).any(|shape| !shape.preferred.is_empty());
        let mut cursor = self.cursors_of(bundle.fresh).get(&bundle.shapes);
        let mut found = None;
        if picky {
            found =
                self.walk(bundle, &mut cursor[0], |cycle, agent| cycle.is_preferred(bundle, agent));
        }
        if found.is_none() {
            found = self.walk(bundle, &mut cursor[1], |_, _| true);
        }
        self.cursors_of(bundle.fresh).set(&bundle.shapes, cursor);
        found
    }

    pub(super) fn cursors_of(&mut self, fresh: bool) -> &mut Cursors {
        if fresh && !self.everything { &mut self.fresh_cursors } else { &mut self.cursors }
    }

    /// Goes on from `at` to an agent that fits; it stays there, for the next of the same shape.
    fn walk(
        &self,
        bundle: &Bundle,
        at: &mut usize,
        also: impl Fn(&Self, Id) -> bool,
    ) -> Option<Id> {
        let agents = match &self.packed_all {
            Some(all) if bundle.fresh => all,
            _ => &self.packed,
        };
        while let Some(agent) = agents.get(*at).copied() {
            if self.fits(bundle, agent) && also(self, agent) {
                return Some(agent);
            }
            *at += 1;
        }
        None
    }
}
