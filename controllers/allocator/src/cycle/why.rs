//! Why those who wait do: for each shape once, at the end, when all that could be placed is.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use commonage_schemas::resources::{PORTS, Ranges};

use crate::cycle::Cycle;
use crate::cycle::fit::Bundle;
use crate::cycle::whys::{Book, Key};
use crate::info::{Availability, Placement};
use crate::lanes::{Goods, Lanes};
use crate::plan::{NoSuchPorts, WaitingFor, Why};
use crate::table::Id;

/// What stood in the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Cause {
    /// No agent has room.
    Room,
    /// The queue, or one above, would be past its limit.
    QueueLimit,
    /// What is free is kept for what other queues are guaranteed.
    Headroom,
    /// Each of the gang would fit, but not all at once.
    Gang,
    /// Not all of the gang exist.
    GangIncomplete,
    /// The agent that has the others of the group is too full.
    Group,
}

/// A bundle that was not placed.
pub(super) struct Waiting {
    pub(super) bundle: Bundle,
    pub(super) cause: Cause,
}

impl Cycle<'_> {
    /// Fills in why each waiting task waits; returns those that nothing was found for.
    pub(super) fn explain(&mut self) -> Vec<Waiting> {
        let waiting = std::mem::take(&mut self.waiting);
        let mut kept = std::mem::take(&mut self.free.whys);
        if !waiting.is_empty() {
            let drafted = self.drafted();
            let mut touched: Vec<Id> =
                self.free.touched().chain(self.goods.keys().copied()).collect();
            let mut changed = std::mem::replace(&mut kept.touched, touched.clone());
            changed.append(&mut touched);
            changed.extend(&self.state.changes.agents);
            changed.sort_unstable();
            changed.dedup();
            let mut known: HashMap<Key, Book> = HashMap::new();
            for Waiting { bundle, cause } in &waiting {
                let key = (bundle.shapes.clone(), *cause, bundle.pinned);
                let book = known.entry(key).or_insert_with_key(|key| {
                    let before = kept.books.remove(key).filter(|_| !self.everything);
                    self.brought_up(before, bundle, *cause, &changed, &drafted)
                });
                for (task, why) in bundle.tasks.iter().zip(std::iter::repeat(&book.why)) {
                    let why = why.clone().map(|why| (self.state.tasks[*task].key.clone(), why));
                    self.plan.why.extend(why);
                }
            }
            kept.books = known;
            self.free.whys = kept;
        }
        self.explain_unplaced();
        waiting
    }

    /// What is against each agent: only those are looked at that have changed, if the others are
    /// known.
    fn brought_up(
        &self,
        before: Option<Book>,
        bundle: &Bundle,
        cause: Cause,
        changed: &[Id],
        drafted: &HashMap<Id, Lanes>,
    ) -> Book {
        let shapes: Vec<_> = bundle.shapes.iter().map(|id| self.state.shapes.shared(*id)).collect();
        let kept = before.filter(|book| book.is_of(&shapes));
        let all = kept.is_none();
        let mut book = kept.unwrap_or_else(|| Book::new(shapes));
        let mut look = |id: Id| {
            let agent = self.state.agents.get(id).filter(|agent| agent.known);
            let by = agent.map(|agent| match agent.availability {
                Availability::NotReady => "notReady",
                Availability::Unschedulable => "unschedulable",
                Availability::DiskPressure => "diskPressure",
                Availability::Draining => "draining",
                Availability::Open => self.excluded_by(bundle, cause, id, drafted.get(&id)),
            });
            book.note(id, by);
        };
        if all {
            self.state.agents.iter().for_each(|(id, _)| look(id));
        } else {
            changed.iter().for_each(|id| look(*id));
        }
        if !bundle.goods.ports.is_empty() && (all || !changed.is_empty()) {
            book.why = None;
        }
        if book.why.is_none() {
            let excluded = book.excluded();
            let waiting_for = match cause {
                Cause::GangIncomplete => WaitingFor::Gang,
                _ => WaitingFor::Resources,
            };
            book.why = Some(Arc::new(Why {
                waiting_for,
                agents: excluded.iter().map(|one| one.agents).sum(),
                excluded,
                no_such_ports: self.no_such_ports(bundle),
            }));
        }
        book
    }

    /// The ports that a task names and no agent has.
    fn no_such_ports(&self, bundle: &Bundle) -> Option<NoSuchPorts> {
        if bundle.goods.ports.is_empty() {
            return None;
        }
        let known = self.state.agents.iter().filter(|(_, agent)| agent.known);
        let there_are = known.fold(Ranges::new(), |all, (_, agent)| {
            let of_parts = agent.parts.iter().map(|piece| &piece.goods.ports);
            of_parts.fold(all.union(&agent.total_goods.ports), |all, some| all.union(some))
        });
        let asked = bundle.goods.ports.subtract(&there_are);
        // Without agents there is another reason to tell.
        (!asked.is_empty() && !there_are.is_empty()).then_some(NoSuchPorts { asked, there_are })
    }

    /// The first reason against an open agent.
    fn excluded_by<'b>(
        &'b self,
        bundle: &'b Bundle,
        cause: Cause,
        agent: Id,
        drafted: Option<&Lanes>,
    ) -> &'b str {
        let here = &self.state.agents[agent];
        for shape in self.shapes(bundle) {
            if !shape.required.matches(&here.labels) {
                return "constraints";
            }
            if let Some(name) = shape.unknown.first() {
                return name;
            }
        }
        // What the agent does not have at all comes before what others hold of it now.
        let (own, own_goods) = self.drawable(bundle, &here.parts);
        if let Some(lane) = bundle.lanes.short_in(&here.total.plus(&own)) {
            return self.state.names.name(lane);
        }
        let goods = with(&here.total_goods, &own_goods);
        if !self.has_goods(bundle, &goods) {
            return missing_in(bundle, &goods);
        }
        if self.shapes(bundle).any(|shape| self.is_averse(shape, agent)) {
            return "antiAffinity";
        }
        let free_pieces = self.pieces.get(&agent).map_or(&[][..], Vec::as_slice);
        let (own, own_goods) = self.drawable(bundle, free_pieces);
        let free = &self.free_of(agent).plus(&own);
        let total = here.total.plus(&own);
        let offered = here.offered.plus(drafted.unwrap_or(&Lanes::ZERO));
        let without_offers = free.plus(&offered).min(&total);
        if let Some(lane) = bundle.lanes.short_in(&without_offers) {
            return self.state.names.name(lane);
        }
        if !bundle.lanes.fits(free) {
            return "offered";
        }
        let goods = with(self.goods_of(agent), &own_goods);
        if !self.has_goods(bundle, &goods) {
            return missing_in(bundle, &goods);
        }
        match cause {
            Cause::QueueLimit => "queueLimit",
            Cause::Headroom => "headroom",
            Cause::Group => "group",
            Cause::Room | Cause::Gang | Cause::GangIncomplete => "gang",
        }
    }

    /// Tasks that nobody tried to place.
    fn explain_unplaced(&mut self) {
        if self.state.changes.pending == 0 {
            return;
        }
        for (_, leaf) in self.state.leaves.iter().filter(|(_, leaf)| !leaf.pending.is_empty()) {
            if leaf.listed && self.state.places_tasks(leaf.framework) {
                continue;
            }
            let framework = &self.state.frameworks[leaf.framework];
            let waiting_for = match (framework.known, framework.info.placement) {
                (false, _) => WaitingFor::Framework,
                (true, _) if !leaf.listed => WaitingFor::Queue,
                (true, Placement::Offers) => WaitingFor::Launch,
                (true, Placement::Tasks) => WaitingFor::ActiveFramework,
            };
            let why =
                Arc::new(Why { waiting_for, agents: 0, excluded: Vec::new(), no_such_ports: None });
            for (_, _, _, task) in &leaf.pending {
                self.plan.why.push((self.state.tasks[*task].key.clone(), why.clone()));
            }
        }
    }
}

/// Both together.
pub(super) fn with<'g>(goods: &'g Goods, more: &Goods) -> Cow<'g, Goods> {
    if more.is_empty() {
        return Cow::Borrowed(goods);
    }
    let mut all = goods.clone();
    all.add(more);
    Cow::Owned(all)
}

/// The name of what the goods lack; ports when it is none of the others.
fn missing_in<'b>(bundle: &'b Bundle, goods: &Goods) -> &'b str {
    let missing = goods.others.missing(&bundle.goods.others);
    let mut names = bundle.goods.others.iter().map(|(name, _)| name);
    names.find(|name| missing.iter().any(|m| m == name)).unwrap_or(PORTS)
}
