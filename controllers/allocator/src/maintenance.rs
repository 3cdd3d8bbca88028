//! Agents that are going to be maintained, and who was asked to leave them.

use std::collections::BTreeSet;

use crate::cycle::Cycle;
use crate::info::Availability;
use crate::plan::InverseOffer;
use crate::state::Allocator;
use crate::table::Id;

/// A window that is coming.
#[derive(Debug, Clone)]
pub(crate) struct Maintenance {
    starts_at_ms: u64,
    /// Frameworks that were asked and have not answered.
    asked: BTreeSet<Id>,
}

impl Maintenance {
    /// A framework is gone.
    pub(crate) fn forget(&mut self, framework: Id) {
        self.asked.remove(&framework);
    }
}

impl Allocator {
    /// Tells when the agent is going to be maintained, or that it is not. Whoever holds something
    /// there is asked to leave (anew, if it was before).
    pub fn schedule_maintenance(&mut self, agent: &str, starts_at_ms: Option<u64>) {
        let Some(id) = self.agents.id(agent) else { return };
        self.changes.all();
        match starts_at_ms {
            Some(starts_at_ms) => {
                self.maintenance.insert(id, Maintenance { starts_at_ms, asked: BTreeSet::new() });
            }
            None => {
                self.maintenance.remove(&id);
            }
        }
    }

    /// Tells that these inverse offers were made: until the window changes there are no others.
    pub fn asked_to_leave(&mut self, offers: &[InverseOffer]) {
        for offer in offers {
            let ids = (self.agents.id(&offer.agent), self.frameworks.id(&offer.framework));
            let (Some(agent), Some(framework)) = ids else { continue };
            if let Some(maintenance) = self.maintenance.get_mut(&agent) {
                maintenance.asked.insert(framework);
            }
        }
    }
}

impl Cycle<'_> {
    /// Asks those who hold something on an agent with a window, or were just given something there.
    pub(crate) fn invert(&mut self, scope: Option<&BTreeSet<Id>>) {
        for (id, maintenance) in &self.state.maintenance {
            let agent = &self.state.agents[*id];
            // Whoever is on an agent that takes nothing new is to leave it all the same.
            let is_there = agent.known && agent.availability != Availability::NotReady;
            if !is_there || !scope.is_none_or(|scope| scope.contains(id)) {
                continue;
            }
            let offers = agent.offers.iter().map(|id| self.state.offers[*id].held.leaf);
            let tasks = agent.tasks.iter().filter_map(|id| self.state.tasks[*id].held.as_ref());
            let drafts = self.drafts_on(*id);
            let leaves = offers.chain(tasks.map(|held| held.leaf)).chain(drafts);
            let holders: BTreeSet<Id> =
                leaves.map(|leaf| self.state.leaves[leaf].framework).collect();
            for holder in holders.difference(&maintenance.asked) {
                let framework = &self.state.frameworks[*holder];
                let key = framework.leaves.first().map(|leaf| &self.state.leaves[*leaf]);
                if let (true, Some(leaf)) = (framework.known && framework.info.active, key) {
                    self.plan.inverse_offers.push(InverseOffer {
                        framework: leaf.framework_key.clone(),
                        agent: agent.name.clone(),
                        starts_at_ms: maintenance.starts_at_ms,
                    });
                }
            }
        }
    }
}
