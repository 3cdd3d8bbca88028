//! Spreading: the framework's tasks evenly over the values of a label of agents.

use std::collections::{BTreeMap, HashMap, VecDeque};

use crate::cycle::Cycle;
use crate::cycle::fit::Bundle;
use crate::table::Id;

/// A value of the label; agents without it are a domain of their own.
type Domain = Option<String>;

/// What the run knows about spreading so far.
#[derive(Default)]
pub(super) struct Spreads {
    /// Tasks of a framework by the value of a label of their agents.
    counts: HashMap<(Id, String), HashMap<Domain, u64>>,
    /// For a shape of a framework: agents by domain, the one that had its turn longest ago first.
    pub(super) lists: HashMap<(Id, Id), BTreeMap<Domain, VecDeque<Id>>>,
}

impl Cycle<'_> {
    pub(super) fn find_spread(&mut self, bundle: &Bundle, shape: Id) -> Option<Id> {
        let framework = self.framework_of(bundle.tasks[0]);
        let label = self.state.shapes.get(shape).spread.clone()?;
        let key = (framework, shape);
        self.all_packed();
        let mut list = match self.spreads.lists.remove(&key) {
            Some(list) => list,
            None => self.domains(&label),
        };
        let counts_key = (framework, label);
        if !self.spreads.counts.contains_key(&counts_key) {
            let counts = self.count(framework, &counts_key.1);
            self.spreads.counts.insert(counts_key.clone(), counts);
        }
        let counts = &self.spreads.counts[&counts_key];
        let mut found = None;
        while found.is_none() {
            let fewest = list
                .keys()
                .min_by_key(|domain| (counts.get(*domain).copied().unwrap_or_default(), *domain))
                .cloned();
            let Some(domain) = fewest else { break };
            let agents = list.get_mut(&domain).expect("the key was just listed");
            match agents.pop_front() {
                Some(agent) if self.fits(bundle, agent) => {
                    agents.push_back(agent);
                    found = Some(agent);
                }
                Some(_) => {}
                None => {
                    list.remove(&domain);
                }
            }
        }
        self.spreads.lists.insert(key, list);
        found
    }

    /// Agents by the label's value, the emptiest first.
    fn domains(&self, label: &str) -> BTreeMap<Domain, VecDeque<Id>> {
        let mut domains: BTreeMap<Domain, VecDeque<Id>> = BTreeMap::new();
        for id in self.packed_all.as_ref().unwrap_or(&self.packed).iter().rev() {
            let domain = self.state.agents[*id].labels.get(label).cloned();
            domains.entry(domain).or_default().push_back(*id);
        }
        domains
    }

    fn count(&self, framework: Id, label: &str) -> HashMap<Domain, u64> {
        let mut counts = HashMap::new();
        let domain = |agent: Id| self.state.agents[agent].labels.get(label).cloned();
        for leaf in &self.state.frameworks[framework].leaves {
            for task in &self.state.leaves[*leaf].bound {
                if let Some(held) = &self.state.tasks[*task].held {
                    *counts.entry(domain(held.agent)).or_default() += 1;
                }
            }
        }
        for (agent, tasks) in &self.placed_on {
            let mine = tasks.iter().filter(|task| self.framework_of(**task) == framework);
            *counts.entry(domain(*agent)).or_default() += mine.count() as u64;
        }
        counts
    }

    /// Counts a task that was put on an agent (or, `taken_back`, was not after all).
    pub(super) fn count_spread(&mut self, task: Id, agent: Id, taken_back: bool) {
        let framework = self.framework_of(task);
        let labels = &self.state.agents[agent].labels;
        for ((of, label), counts) in &mut self.spreads.counts {
            if *of == framework {
                let count = counts.entry(labels.get(label).cloned()).or_default();
                *count = if taken_back { count.saturating_sub(1) } else { *count + 1 };
            }
        }
    }

    pub(super) fn framework_of(&self, task: Id) -> Id {
        self.state.leaves[self.state.tasks[task].leaf].framework
    }
}
