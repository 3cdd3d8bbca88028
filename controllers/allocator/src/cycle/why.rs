//! Why those who wait do: for each shape once, at the end, when all that could be placed is.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use commonage_schemas::resources::{PORTS, Ranges};

use crate::cycle::Cycle;
use crate::cycle::fit::Bundle;
use crate::info::{Availability, Placement};
use crate::lanes::{Goods, Lanes};
use crate::plan::{Excluded, NoSuchPorts, WaitingFor, Why};
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
        let drafted = if waiting.is_empty() { Vec::new() } else { self.drafted() };
        let mut known: HashMap<(Vec<Id>, Cause, Option<Id>), Arc<Why>> = HashMap::new();
        for Waiting { bundle, cause } in &waiting {
            let cause = *cause;
            let key = (bundle.shapes.clone(), cause, bundle.pinned);
            let why =
                known.entry(key).or_insert_with(|| Arc::new(self.why(bundle, cause, &drafted)));
            for task in &bundle.tasks {
                self.plan.why.push((self.state.tasks[*task].key.clone(), why.clone()));
            }
        }
        self.explain_unplaced();
        waiting
    }

    fn why(&self, bundle: &Bundle, cause: Cause, drafted: &[Lanes]) -> Why {
        let mut agents = 0;
        let mut excluded: BTreeMap<&str, u64> = BTreeMap::new();
        for (id, agent) in self.state.agents.iter().filter(|(_, agent)| agent.known) {
            agents += 1;
            let by = match agent.availability {
                Availability::NotReady => "notReady",
                Availability::Unschedulable => "unschedulable",
                Availability::Draining => "draining",
                Availability::Open => self.excluded_by(bundle, cause, id, &drafted[id as usize]),
            };
            *excluded.entry(by).or_default() += 1;
        }
        let mut excluded: Vec<_> = excluded
            .into_iter()
            .map(|(by, agents)| Excluded { by: by.to_owned(), agents })
            .collect();
        excluded.sort_by(|a, b| b.agents.cmp(&a.agents).then_with(|| a.by.cmp(&b.by)));
        let waiting_for = match cause {
            Cause::GangIncomplete => WaitingFor::Gang,
            _ => WaitingFor::Resources,
        };
        Why { waiting_for, agents, excluded, no_such_ports: self.no_such_ports(bundle) }
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
        drafted: &Lanes,
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
        let without_offers = free.plus(&here.offered).plus(drafted).min(&total);
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
fn with<'g>(goods: &'g Goods, more: &Goods) -> Cow<'g, Goods> {
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
